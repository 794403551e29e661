"""`update`: the posterior of the effects by new rows, against all rows at once."""

import time
from copy import copy

import joblib
import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize
from scipy.special import expit, log_softmax
from scipy.stats import t as student

from sklmm import (
    Laplace,
    MixedEffectsClassifier,
    MixedEffectsRegressor,
    RandomEffect,
)
from sklmm.datasets import make_crossed
from sklmm.engine import limits
from sklmm.engine.latent import mode
from sklmm.families import StudentT
from sklmm.result import Status

SLOPES = ["(1 + x | g)"]


def grouped(n_groups=12, n_rows=240, seed=0):
    """One factor with an intercept and a slope: X, y."""
    rng = np.random.default_rng(seed)
    g = rng.permutation(np.arange(n_rows) % n_groups)
    X = pd.DataFrame({"g": g, "x": rng.normal(1.0, 2.0, n_rows), "w": rng.uniform(size=n_rows)})
    a, b = rng.normal(0, [[1.0], [0.6]], (2, n_groups))
    return X, 2.0 + a[g] + (0.5 + b[g]) * X["x"] - X["w"] + rng.normal(0, 0.8, n_rows)


@pytest.fixture(scope="module")
def data():
    """Rows of the fit and new ones, of known levels and of two new ones: (X, y), (X, y)."""
    X, y = grouped()
    late = (np.arange(len(X)) >= 150) | X["g"].isin([3, 11])
    return (X[~late], y[~late]), (X[late], y[late])


def fitted(terms, rows, **parameters):
    return MixedEffectsRegressor(terms, tol=1e-9, **parameters).fit(*rows)


def dense_posterior(model, X, y, weights=None):
    """Mean [J, r] and covariance [J, r, r] given the coefficients, one factor: the textbook's."""
    levels = model.random_effects_["g"].index
    columns = model.random_effects_["g"].columns
    fixed = X[list(model._fitted.spec.fixed_names)].to_numpy()
    residual = y - model.intercept_ - fixed @ model.coef_
    weights = np.ones(len(X)) if weights is None else weights
    prior, means, covs = np.linalg.inv(model.cov_re_["g"]), [], []
    for level in levels:
        rows = (X["g"] == level).to_numpy()
        Z = np.column_stack([np.ones(rows.sum()), X.loc[rows, columns[1:]]])
        precision = prior + Z.T @ (weights[rows, None] * Z) / model.sigma_**2
        covs.append(np.linalg.inv(precision))
        means.append(covs[-1] @ Z.T @ (weights[rows] * residual[rows]) / model.sigma_**2)
    return np.array(means), np.array(covs)


def both(old, new):
    return pd.concat([old[0], new[0]]), pd.concat([old[1], new[1]])


@pytest.mark.parametrize("e_step", ["exact", "cg"])
@pytest.mark.parametrize("terms", [["g"], SLOPES], ids=["intercept", "slope"])
def test_one_factor_is_the_posterior_given_all_rows(data, terms, e_step):
    old, new = data
    model = fitted(terms, old, e_step=e_step)
    parameters = model.coef_.copy(), model.sigma_, model.cov_re_["g"].copy(), model.loglik_
    assert model.update(*new) is model
    mean, cov = dense_posterior(model, *both(old, new))
    sd = np.sqrt(np.einsum("jaa->ja", cov))
    assert model.random_effects_["g"].index.tolist() == list(range(12))
    np.testing.assert_allclose(model.random_effects_["g"], mean, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(model.random_effects_std_["g"], sd, rtol=1e-8)
    np.testing.assert_allclose(model.result_.effects_cov[0], cov, rtol=1e-7, atol=1e-10)
    # The parameters are held.
    np.testing.assert_array_equal(model.coef_, parameters[0])
    assert (model.sigma_, model.loglik_) == (parameters[1], parameters[3])
    pd.testing.assert_frame_equal(model.cov_re_["g"], parameters[2])


def test_predictions_and_their_sds_are_those_given_all_rows(data):
    old, new = data
    model = fitted(SLOPES, old)
    coef_cov = model.result_.coef_cov
    X, y = both(old, new)
    model.update(*new)
    mean, cov = dense_posterior(model, X, y)
    line = np.column_stack([np.ones(len(X)), X["x"], X["w"]])
    z = line[:, :2]
    estimate = np.array([model.intercept_, *model.coef_])
    found, std = model.predict(X, return_std=True)
    g = X["g"].to_numpy()
    expected = line @ estimate + np.einsum("na,na->n", z, mean[g])
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-8)
    # The effects go with the coefficients as all rows say: db / d beta = -C Z^T X / sigma^2.
    variance = np.empty(len(X))
    for j in range(12):
        rows = g == j
        follow = -cov[j] @ z[rows].T @ line[rows] / model.sigma_**2
        total = line[rows] + z[rows] @ follow
        variance[rows] = np.einsum("np,pq,nq->n", total, coef_cov, total)
        variance[rows] += np.einsum("na,ab,nb->n", z[rows], cov[j], z[rows])
    np.testing.assert_allclose(std**2, variance + model.sigma_**2, rtol=1e-5)


@pytest.mark.parametrize("terms", [["g"], SLOPES], ids=["intercept", "slope"])
@pytest.mark.parametrize("parts", [2, 5])
def test_parts_one_after_the_other_are_all_at_once(data, terms, parts):
    old, (X, y) = data
    once = fitted(terms, old).update(X, y)
    model = fitted(terms, old)
    for part in range(parts):
        model.update(X[part::parts], y[part::parts])
    pd.testing.assert_frame_equal(
        model.random_effects_["g"], once.random_effects_["g"], rtol=1e-8, atol=1e-8
    )
    pd.testing.assert_frame_equal(
        model.random_effects_std_["g"], once.random_effects_std_["g"], rtol=1e-8
    )
    for a, b in zip(
        model.predict(X, return_std=True), once.predict(X, return_std=True), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-8)


def test_a_weight_of_two_is_the_row_twice(data):
    old, (X, y) = data
    weights = np.random.default_rng(0).integers(0, 4, len(X))
    again = np.repeat(np.arange(len(X)), weights)
    weighted = fitted(SLOPES, old).update(X, y, sample_weight=weights)
    repeated = fitted(SLOPES, old).update(X.iloc[again], y.iloc[again])
    for name in ("random_effects_", "random_effects_std_"):
        pd.testing.assert_frame_equal(
            getattr(weighted, name)["g"], getattr(repeated, name)["g"], rtol=1e-10, atol=1e-12
        )


def test_levels_of_rows_without_weight_are_not_added(data):
    old, (X, y) = data
    model = fitted(["g"], old).update(X, y, sample_weight=(X["g"] != 11).astype(float))
    assert model.random_effects_["g"].index.tolist() == [*range(11)]


def test_only_the_levels_of_the_new_rows_move(data):
    old, (X, y) = data
    model = fitted(SLOPES, old)
    before = {
        name: getattr(model, name)["g"] for name in ("random_effects_", "random_effects_std_")
    }
    some = X["g"].isin([2, 5])
    model.update(X[some], y[some])
    moved = [level in (2, 5) for level in before["random_effects_"].index]
    for name, table in before.items():
        change = (getattr(model, name)["g"] != table).any(axis=1)
        assert change.tolist() == moved
    assert (model.random_effects_std_["g"] <= before["random_effects_std_"]).all(axis=None)


@pytest.mark.parametrize("e_step", ["exact", "cg"])
def test_return_std_shrinks_for_updated_groups_and_no_others(e_step):
    X, y, _ = make_crossed(1000, (30, 8), sds=(1.0, 0.7), random_state=1)
    old, new = np.arange(1000) < 600, np.arange(1000) >= 600
    new &= X["g0"].to_numpy() < 10
    model = MixedEffectsRegressor(["g0"], e_step=e_step, random_state=0).fit(X[old], y[old])
    _, before = model.predict(X, return_std=True)
    _, after = model.update(X[new], y[new]).predict(X, return_std=True)
    touched = X["g0"].isin(X.loc[new, "g0"])
    assert (after[touched] < before[touched]).all()
    np.testing.assert_array_equal(after[~touched], before[~touched])


def crossed_oracle(dense_model, model, X, y):
    """Effects and their SDs given the coefficients, by name, of all rows at the parameters."""
    names = list(model.random_effects_)
    levels = [model.random_effects_[n].index for n in names]
    terms = [
        (index.get_indexer(X[n]), np.ones((len(X), 1)), model.cov_re_[n].to_numpy(), len(index))
        for n, index in zip(names, levels, strict=True)
    ]
    fixed = np.column_stack([np.ones(len(X)), X["x0"]])
    dense = dense_model(fixed, y, terms, model.sigma_)
    residual = y - fixed @ [model.intercept_, *model.coef_]
    pull = dense.D @ dense.Z.T @ dense.Vi
    sizes = np.cumsum([len(index) for index in levels])[:-1]
    cov = dense.D - pull @ dense.Z @ dense.D
    means, sds = np.split(pull @ residual, sizes), np.split(np.sqrt(np.diag(cov)), sizes)
    return dict(zip(names, zip(means, sds, strict=True), strict=True))


@pytest.fixture(scope="module")
def crossed():
    X, y, _ = make_crossed(1500, (60, 20), sds=(1.0, 0.7), random_state=1)
    return X.astype({"x0": float}), np.asarray(y, float)


@pytest.mark.parametrize("share", [0.05, 0.3])
def test_crossed_factors_come_near_the_posterior_given_all_rows(crossed, dense_model, share):
    X, y = crossed
    new = np.random.default_rng(0).uniform(size=len(X)) < share
    new |= X["g0"].to_numpy() == 7
    model = MixedEffectsRegressor(["g0", "g1"]).fit(X[~new], y[~new])
    stale = {name: table[["Intercept"]].copy() for name, table in model.random_effects_.items()}
    model.update(X[new], y[new])
    for name, (mean, sd) in crossed_oracle(dense_model, model, X, y).items():
        found = model.random_effects_[name]["Intercept"]
        error = np.abs(found - mean) / sd
        old = stale[name]["Intercept"].reindex(found.index, fill_value=0.0)
        # In posterior SDs; without the update the error is several times that.
        assert np.sqrt(np.mean(error**2)) < 0.2
        assert np.mean(error**2) < np.mean(((old - mean) / sd) ** 2) / 3
        # What is left out says that two terms' effects go against each other.
        ratio = model.random_effects_std_[name]["Intercept"] / sd
        assert ratio.between(1 - 0.55 * np.sqrt(share), 1.01).all()


def test_crossed_new_levels_alone_are_exact_given_the_others(crossed):
    X, y = crossed
    new = X["g0"].to_numpy() == 7
    model = MixedEffectsRegressor(["g0", "g1"]).fit(X[~new], y[~new])
    other = model.random_effects_["g1"]["Intercept"]
    sd = model.random_effects_std_["g1"]["Intercept"]
    # The joint posterior of the new level and of those it meets, by their own posteriors.
    rows = X[new]
    met = np.unique(rows["g1"])
    Z = np.column_stack([np.ones(len(rows)), *(rows["g1"] == level for level in met)])
    prior = np.diag(1 / np.array([model.cov_re_["g0"].iloc[0, 0], *sd[met] ** 2]))
    residual = (
        y[new] - model.intercept_ - model.coef_[0] * rows["x0"] - other[rows["g1"]].to_numpy()
    )
    precision = prior + Z.T @ Z / model.sigma_**2
    mean = np.linalg.solve(precision, Z.T @ residual / model.sigma_**2)
    std = np.sqrt(np.diag(np.linalg.inv(precision)))
    model.update(rows, y[new])
    assert model.random_effects_["g0"].loc[7, "Intercept"] == pytest.approx(mean[0], rel=1e-9)
    found = model.random_effects_["g1"]["Intercept"]
    np.testing.assert_allclose(found[met], other[met] + mean[1:], rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(
        model.random_effects_std_["g1"]["Intercept"][met], std[1:], rtol=1e-9
    )


def test_new_levels_take_their_place_in_the_order(data):
    (X, y), (new, y_new) = data
    names = {j: f"level {j:02d}" for j in range(12)}
    X, new = X.assign(g=X["g"].map(names)), new.assign(g=new["g"].map(names))
    model = fitted(["g"], (X, y)).update(new, y_new)
    assert model.random_effects_["g"].index.tolist() == sorted(names.values())
    assert model.random_effects_std_["g"].index.tolist() == sorted(names.values())
    plain = fitted(["g"], data[0]).update(*data[1])
    np.testing.assert_allclose(
        model.random_effects_["g"], plain.random_effects_["g"], rtol=1e-9, atol=1e-12
    )


def test_interactions_and_nested_terms_grow(data):
    (X, y), (new, y_new) = data
    X, new = (t.assign(h=np.where(t["w"] > 0.5, "b", "a")) for t in (X, new))
    model = fitted(["(1 | g/h)"], (X, y)).update(new, y_new)
    assert len(model.random_effects_["g:h"]) == 24
    assert model.random_effects_["g:h"].index.is_monotonic_increasing
    assert np.isfinite(model.predict(new, return_std=True)).all()


def test_unknown_levels_are_known_after_an_update(data):
    old, (X, y) = data
    model = fitted(["g"], old, handle_unknown="error")
    with pytest.raises(ValueError, match="unknown or missing level"):
        model.predict(X)
    strict = model.update(X, y).predict(X)
    np.testing.assert_allclose(strict, fitted(["g"], old).update(X, y).predict(X), rtol=1e-12)


def test_draws_have_the_updated_sds(data):
    old, new = data
    model = fitted(SLOPES, old).update(*new)
    rows = new[0][:40]
    draws = model.sample_y(rows, 4000, random_state=0)
    mean, std = model.predict(rows, return_std=True)
    np.testing.assert_allclose(draws.mean(axis=1), mean, atol=5 * std.max() / np.sqrt(4000))
    np.testing.assert_allclose(draws.std(axis=1), std, rtol=5 / np.sqrt(8000))


def test_a_root_of_draws_gets_new_levels_with_their_sds():
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"g": np.arange(9000) % 3000, "x": rng.normal(size=9000)})
    y = rng.normal(size=3000)[X["g"]] + 0.3 * X["x"] + rng.normal(size=9000)
    old = (X["g"] < 2500).to_numpy()
    model = MixedEffectsRegressor(["g"]).fit(X[old], y[old])
    size = model.result_.coef_root.shape[1]
    assert size < 2500
    _, std = model.update(X[~old], y[~old]).predict(X, return_std=True)
    assert model.result_.coef_root.shape[1] == size
    expected = np.sqrt(model.random_effects_std_["g"]["Intercept"] ** 2 + model.sigma_**2)
    np.testing.assert_allclose(std, expected[X["g"]], rtol=0.02)


def test_a_dumped_update_predicts_the_same(data, tmp_path):
    old, new = data
    model = fitted(SLOPES, old).update(*new)
    joblib.dump(model, tmp_path / "model.joblib")
    loaded = joblib.load(tmp_path / "model.joblib")
    for a, b in zip(
        loaded.predict(new[0], return_std=True), model.predict(new[0], return_std=True), strict=True
    ):
        np.testing.assert_array_equal(a, b)
    assert "groups: g, 12" in loaded.update(*old).summary()


def test_a_following_warm_start_is_a_fit_of_its_own(data):
    old, new = data
    model = fitted(SLOPES, old, warm_start=True).update(*new)
    refit = model.fit(*both(old, new))
    cold = fitted(SLOPES, both(old, new))
    np.testing.assert_allclose(refit.coef_, cold.coef_, rtol=1e-6)
    assert refit.loglik_ == pytest.approx(cold.loglik_, abs=1e-6)


def test_arrays_without_an_intercept_or_fixed_columns(data):
    (X, y), (new, y_new) = data
    model = MixedEffectsRegressor([0], fixed_effects=[], fit_intercept=False)
    model.fit(X[["g"]].to_numpy(float), y).update(new[["g"]].to_numpy(float), y_new)
    rows = pd.concat([X, new])["g"].to_numpy()
    target = np.concatenate([y, y_new])
    ratio = model.sigma_**2 / model.cov_re_["0"].iloc[0, 0]
    expected = [target[rows == j].sum() / ((rows == j).sum() + ratio) for j in range(12)]
    found = model.random_effects_[next(iter(model.random_effects_))]["Intercept"]
    np.testing.assert_allclose(found, expected, rtol=1e-8)


def test_a_variance_of_zero_stays(data):
    (X, _), (new, _) = data
    rng = np.random.default_rng(5)
    noise = pd.Series(rng.normal(size=len(X)), X.index)
    # Groups less alike than chance: no variance between them.
    flat = noise - noise.groupby(X["g"]).transform("mean")
    model = fitted(["g"], (X, flat))
    assert model.result_.status is Status.SINGULAR
    model.update(new, rng.normal(size=len(new)))
    assert np.abs(model.random_effects_["g"]).max(axis=None) < 1e-3
    assert np.isfinite(model.predict(new, return_std=True)).all()


def test_independent_coefficients_have_the_posterior_given_all_rows(data):
    """A priori they are independent; what the rows say of them is a covariance like any other."""
    old, new = data
    model = fitted(["(1 + x || g)"], old).update(*new)
    mean, cov = dense_posterior(model, *both(old, new))
    np.testing.assert_allclose(model.random_effects_["g"], mean, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(model.result_.effects_cov[0], cov, rtol=1e-8, atol=1e-10)
    assert (np.abs(cov[:, 0, 1]) > 1e-4).all()


def test_a_pinned_sd_is_held(data):
    old, new = data
    terms = [RandomEffect("g", sd=2.0)]
    model = fitted(terms, old).update(*new)
    mean, _ = dense_posterior(model, *both(old, new))
    np.testing.assert_allclose(model.random_effects_["g"], mean, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        (lambda X, y: (X.drop(columns="x"), y), ValueError, "x"),
        (lambda X, y: (X.assign(x=np.nan), y), ValueError, "'x'"),
        (lambda X, y: (X.assign(g=None), y), ValueError, "'g' has .* missing"),
        (lambda X, y: (X.assign(g="a"), y), TypeError, "'g' has labels, like 'a'"),
        (lambda X, y: (X, y[:-1]), ValueError, "inconsistent"),
        (lambda X, y: (X, None), ValueError, "requires y"),
        (lambda X, y: (X, y * np.nan), ValueError, "NaN"),
        (lambda X, y: (X[:0], y[:0]), ValueError, "0 sample"),
        (lambda X, y: (X, y, -np.ones(len(y))), ValueError, "sample_weight"),
    ],
    ids=["column", "nan", "missing", "type", "length", "no y", "nan y", "empty", "weight"],
)
def test_errors_name_what_is_wrong_and_leave_the_model(data, change, error, match):
    old, (X, y) = data
    model = fitted(SLOPES, old)
    before = model.__dict__.copy()
    with pytest.raises(error, match=match):
        model.update(*change(X, y))
    assert model.__dict__.keys() == before.keys()
    assert all(model.__dict__[name] is value for name, value in before.items())


def test_models_without_effects_or_variances_say_so(data):
    (X, y), new = data
    with pytest.raises(ValueError, match="no terms"):
        MixedEffectsRegressor(fixed_effects=["x"]).fit(X, y).update(*new)
    with pytest.raises(ValueError, match="reproduced"):
        MixedEffectsRegressor(["g"]).fit(X, np.zeros(len(X))).update(*new)


@pytest.mark.parametrize("name", ["gaussian", "poisson"])
def test_equations_too_large_for_a_factor_are_solved_by_conjugate_gradients(
    crossed, monkeypatch, name
):
    X, y = crossed
    if name == "poisson":
        X, y = X[:400], np.round(np.exp(y[:400] / 4))
    new = np.random.default_rng(0).uniform(size=len(X)) < 0.3
    e_step = "exact" if name == "gaussian" else "laplace"
    model = MixedEffectsRegressor(["g0", "(1 + x0 | g1)"], family=name, e_step=e_step)
    model.fit(X[~new], y[~new])
    dense = copy(model).update(X[new], y[new])
    monkeypatch.setitem(limits.FACTORISED, "fit", (0, 0))
    monkeypatch.setattr("sklmm.engine.equations.schur_cholesky.SchurCholesky._factor", None)
    sparse = copy(model).update(X[new], y[new])
    for term, expected in dense.random_effects_.items():
        np.testing.assert_allclose(sparse.random_effects_[term], expected, rtol=1e-6, atol=1e-7)
        # What an SD owes to other levels comes from 64 draws.
        ratio = sparse.random_effects_std_[term] / dense.random_effects_std_[term]
        np.testing.assert_allclose(ratio, 1.0, atol=0.03)


@pytest.mark.slow
def test_an_update_of_fifty_thousand_rows_costs_less_than_a_refit():
    X, y, _ = make_crossed(150_000, (20_000, 4_500), random_state=0)
    new = np.random.default_rng(0).permutation(len(X)) < 50_000
    model = MixedEffectsRegressor(["g0", "g1"], random_state=0).fit(X[~new], y[~new])
    clock = time.process_time()
    other = MixedEffectsRegressor(["g0", "g1"], random_state=0).fit(X, y)
    refit, clock = time.process_time() - clock, time.process_time()
    model.update(X[new], y[new])
    assert time.process_time() - clock < 1.5 * refit
    ratio = model.random_effects_std_["g0"] / other.random_effects_std_["g0"]
    assert abs(ratio.mean() - 1).item() < 0.01


def log_density(name, y, eta, parameters):
    if name == "student_t":
        return student.logpdf(y, parameters["df"], eta, parameters["sigma"])
    if name == "poisson":
        return y * eta - np.exp(eta)
    return y * eta - np.logaddexp(0, eta)


@pytest.mark.parametrize("name", ["poisson", "bernoulli", "student_t"])
def test_other_families_take_laplaces_posterior_from_each_levels_own(name):
    X, _ = grouped(n_rows=600)
    rng = np.random.default_rng(1)
    eta = 0.4 + 0.8 * rng.normal(size=12)[X["g"]] - X["w"]
    y = {
        "poisson": rng.poisson(np.exp(eta)),
        "bernoulli": rng.uniform(size=600) < expit(eta),
        "student_t": eta + rng.standard_t(4, 600),
    }[name].astype(float)
    late = (np.arange(600) >= 400) | (X["g"] == 11)
    X = X[["g", "w"]]
    family = StudentT(df=4) if name == "student_t" else name
    model = MixedEffectsRegressor(["g"], family=family, e_step="laplace").fit(X[~late], y[~late])
    mean = model.random_effects_["g"]["Intercept"].reindex(range(12), fill_value=0.0)
    sd = model.random_effects_std_["g"]["Intercept"]
    sd = sd.reindex(range(12), fill_value=np.sqrt(model.cov_re_["g"].iloc[0, 0]))
    _, before = model.predict(X, return_std=True)
    model.update(X[late], y[late])
    for level in range(12):
        rows = late & (X["g"] == level)
        offset = model.intercept_ + X.loc[rows, "w"] * model.coef_[0]

        def loss(b, rows=rows, offset=offset, level=level):
            prior = 0.5 * ((b[0] - mean[level]) / sd[level]) ** 2
            return prior - log_density(name, y[rows], offset + b[0], model.family_params_).sum()

        mode = minimize(loss, [mean[level]], method="Nelder-Mead", options={"xatol": 1e-9}).x[0]
        assert model.random_effects_["g"].loc[level, "Intercept"] == pytest.approx(mode, abs=1e-6)
        h = 1e-4
        curvature = (loss([mode + h]) - 2 * loss([mode]) + loss([mode - h])) / h**2
        if name == "student_t":
            # The expected one, as everywhere.
            curvature = sd[level] ** -2 + rows.sum() * 5 / 7 / model.sigma_**2
        assert model.random_effects_std_["g"].loc[level, "Intercept"] == pytest.approx(
            curvature**-0.5, rel=1e-4
        )
    found, after = model.predict(X, return_std=True)
    assert np.isfinite(found).all()
    if name == "poisson":
        assert after[late].mean() < before[late].mean()
        # Near the fit to all rows.
        whole = MixedEffectsRegressor(["g"], family=name, e_step="laplace").fit(X, y)
        gap = model.random_effects_["g"] - whole.random_effects_["g"]
        assert np.sqrt((gap**2).to_numpy().mean()) < 0.25


@pytest.mark.parametrize("curvature", ["observed", "expected"])
@pytest.mark.parametrize("name", ["negative_binomial", "gamma"])
def test_a_new_level_with_the_rows_of_a_fitted_one_has_its_posterior(name, curvature):
    rng = np.random.default_rng(3)
    X, _ = grouped(n_rows=60, n_groups=5)
    mu = np.exp(1.0 + 0.5 * rng.normal(size=5)[X["g"]])
    y = rng.poisson(mu * rng.gamma(2.0, 0.5, 60)) if name != "gamma" else rng.gamma(2.0, mu / 2)
    model = MixedEffectsRegressor(
        ["g"], fixed_effects=[], family=name, e_step=Laplace(32, curvature)
    )
    model.fit(X, y).update(X.assign(g=X["g"] + 100), y)
    for table in (model.random_effects_["g"], model.random_effects_std_["g"]):
        np.testing.assert_allclose(table.iloc[5:], table.iloc[:5], rtol=1e-5, atol=1e-6)


def test_where_the_observed_curvature_is_negative_a_share_of_the_expected_stands_in(monkeypatch):
    rng = np.random.default_rng(3)
    X, y = pd.DataFrame({"g": np.arange(60) % 5}), rng.poisson(3.0, 60)
    y[X["g"] == 0] += 3
    model = MixedEffectsRegressor(["g"], fixed_effects=[], family="poisson", e_step="laplace")
    model.fit(X, y)
    new = X[:12].assign(g=9), y[:12]
    prior = 1 / model.cov_re_["g"].iloc[0, 0]
    whole = copy(model).update(*new).random_effects_std_["g"].iloc[-1, 0] ** -2.0 - prior
    evaluation = mode.evaluation

    def negative(like):
        own = evaluation(like)

        def by_row(y, eta, raw, observed=False):
            value, score, bend = own.by_row(y, eta, raw, observed)
            return value, score, np.full_like(bend, -9.0) if observed else bend

        return own._replace(by_row=by_row)

    monkeypatch.setattr(mode, "evaluation", negative)
    share = model.update(*new).random_effects_std_["g"].iloc[-1, 0] ** -2.0 - prior
    assert share == pytest.approx(0.1 * whole)


def test_a_classifier_knows_its_classes():
    X, y = grouped(n_rows=400)
    labels = np.where(y > y.median(), "high", "low")
    old, new = np.arange(400) < 250, np.arange(400) >= 250
    model = MixedEffectsClassifier(["g"], e_step="laplace").fit(X[old], labels[old])
    before = model.score(X[new], labels[new])
    group = X["g"][new & (labels == "high")].iloc[0]
    mine = (X["g"] == group).to_numpy()
    only_high = new & (labels == "high") & mine
    high = model.predict_proba(X[mine])[:, 0]
    model.update(X[only_high], labels[only_high])
    assert model.classes_.tolist() == ["high", "low"]
    assert (model.predict_proba(X[mine])[:, 0] > high).all()
    with pytest.raises(ValueError, match=r"middling.*none of the classes"):
        model.update(X[new], np.where(X["x"][new] > 0, "middling", "low"))
    assert model.update(X[new], labels[new]).score(X[new], labels[new]) >= before
    assert model.sample_y(X[new], random_state=0).shape == (new.sum(), 1)


@pytest.mark.parametrize("labels", [[True], [0.5], ["a"]])
@pytest.mark.parametrize("first", [0, 2**60])
def test_labels_of_another_type_are_refused(first, labels):
    X, y = grouped()
    X["g"] += first
    model = MixedEffectsRegressor(["g"]).fit(X, y)
    new = X[:1].assign(g=pd.Series(labels, index=X.index[:1]))
    if first == 0 and labels == [0.5]:
        assert len(model.update(new, y[:1]).random_effects_["g"]) == 13
        return
    with pytest.raises(TypeError, match="grouping column 'g'"):
        model.update(new, y[:1])
    assert len(model.random_effects_["g"]) == 12


def test_an_interrupted_update_changes_nothing(monkeypatch):
    X, y = grouped()
    model = MixedEffectsRegressor(["g"]).fit(X, y)
    before, result = model.predict(X), model.result_

    def stop(self, arrays):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("sklmm._fitted.model.FittedModel.by_term", stop)
        with pytest.raises(KeyboardInterrupt):
            model.update(X[:5].assign(g=999), y[:5])
    assert model.result_ is result
    np.testing.assert_array_equal(model.predict(X), before)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The fit stopped at max_iter")
def test_each_class_has_effects_of_its_own_to_update():
    X, y = grouped(n_rows=400)
    labels = np.digitize(y, np.quantile(y, [0.3, 0.7]))
    old, new = np.arange(400) < 250, np.arange(400) >= 250
    old &= X["g"] != 7
    model = MixedEffectsClassifier(["g"], random_state=0, max_iter=3).fit(X[old], labels[old])
    means = model.random_effects_["g"].reindex(range(12), fill_value=0.0)
    covs = [np.full(12, S.item()) for S in model.result_.covariances]
    for cov, known in zip(covs, model.result_.effects_cov, strict=True):
        cov[np.arange(12) != 7] = known[:, 0, 0]
    model.update(X[new], labels[new])
    for level in (2, 7):
        rows = new & (X["g"] == level)
        line = model.intercept_ + X.loc[rows, ["x", "w"]].to_numpy() @ model.coef_.T
        prior = means.loc[level].to_numpy()

        def loss(b, rows=rows, line=line, prior=prior, level=level):
            eta = np.column_stack([np.zeros(len(line)), line + b])
            value = log_softmax(eta, axis=1)[np.arange(len(line)), labels[rows]].sum()
            away = [(b[c] - prior[c]) ** 2 / covs[c][level] for c in range(2)]
            return 0.5 * sum(away) - value

        mode = minimize(loss, prior, tol=1e-12).x
        np.testing.assert_allclose(model.random_effects_["g"].loc[level], mode, atol=1e-5)
    assert np.isfinite(model.predict_proba(X)).all()
