"""Influence of rows and groups: against lme4, dense matrices, and fits without them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import approx_fprime
from scipy.stats import spearmanr
from sklearn.base import clone
from threadpoolctl import ThreadpoolController, threadpool_limits

from sklmm import MixedEffectsClassifier, MixedEffectsRegressor, RandomEffect, Relationship
from sklmm._fitted import eliminated, influence, leverage
from sklmm.datasets import load_sleepstudy

#: By influence.R beside it.
REFERENCE = {
    key: np.array(value)
    for key, value in json.loads(
        (Path(__file__).parents[1] / "data" / "influence.json").read_text()
    ).items()
}
SLOPES = "Reaction ~ Days + (Days | Subject)"


@pytest.fixture(scope="module")
def sleepstudy():
    return load_sleepstudy(as_frame=True).frame


@pytest.fixture(scope="module")
def unbalanced(sleepstudy):
    table = sleepstudy[~np.isin(np.arange(180) % 7, [0, 5])]
    return table, MixedEffectsRegressor.from_formula(SLOPES, tol=1e-9).fit(table)


def test_leverage_and_cooks_distance_are_lme4_s(sleepstudy):
    model = MixedEffectsRegressor.from_formula(SLOPES, tol=1e-9).fit(sleepstudy)
    leverage = model.influence(sleepstudy)["leverage"].to_numpy()
    np.testing.assert_allclose(leverage, REFERENCE["hatvalues"], rtol=1e-6)
    # lme4's formula has the effects in the fitted value, and no deletion of the coefficients.
    e = sleepstudy["Reaction"].to_numpy() - model.predict(sleepstudy.drop(columns="Reaction"))
    cook = (e / (1 - leverage)) ** 2 * leverage / (2 * model.sigma_**2)
    np.testing.assert_allclose(cook, REFERENCE["cooks_distance"], rtol=1e-6, atol=1e-7)


@pytest.fixture
def held(monkeypatch):
    """Deletion without a step of the variances."""
    monkeypatch.setattr(influence, "with_variances", lambda deletions, *known: deletions)


@pytest.mark.parametrize("by", [None, "Subject"])
def test_deletion_given_the_variances_is_that_of_least_squares(unbalanced, held, by):
    table, model = unbalanced
    shift = REFERENCE["given_rows" if by is None else "given"]
    found = model.influence(table, by=by)
    want = np.einsum("mp,pq,mq->m", shift, np.linalg.inv(REFERENCE["vcov"]), shift) / 2
    np.testing.assert_allclose(found["cooks_distance"], want, rtol=1e-6, atol=1e-8)


def test_deletion_is_near_lme4_s_fits_without_each_group(unbalanced):
    table, model = unbalanced
    found = model.influence(table, by="Subject")
    shift = REFERENCE["dfbeta"]
    want = np.einsum("mp,pq,mq->m", shift, np.linalg.inv(REFERENCE["vcov"]), shift) / 2
    # Given the variances they are up to 11 % off.
    np.testing.assert_allclose(found["cooks_distance"], want, rtol=0.08)
    for k, name in enumerate(("dfbetas: Intercept", "dfbetas: Days")):
        # lme4's are the estimates without less the ones with.
        assert spearmanr(found[name], -REFERENCE["dfbetas"][:, k])[0] > 0.99


def _dense(design, result):
    """Z and the effects' prior covariance."""
    Z, G = [], []
    for block, cov in zip(design.blocks, result.covariances, strict=True):
        refs = block.refs if block.tied else block.refs[:, None]
        z = np.asarray(block.loadings(slice(None))).reshape(*refs.shape, block.r)
        own = np.zeros((design.n_rows, block.n_levels, block.r))
        for m in range(refs.shape[1]):
            own[np.arange(design.n_rows), refs[:, m]] += z[:, m]
        A = np.eye(block.n_levels)
        if block.relation is not None:
            A = np.linalg.inv(block.relation.matrix.toarray())
        Z.append(own.reshape(design.n_rows, -1))
        G.append(Z[-1] @ np.kron(A, cov) @ Z[-1].T)
    return sum(G)


def _tables():
    rng = np.random.default_rng(0)
    n = 150
    X = pd.DataFrame(
        {
            "x": rng.normal(size=n),
            "g": rng.integers(0, 12, n),
            "h": rng.integers(0, 7, n),
            "a": rng.integers(0, 8, n),
            "b": rng.integers(0, 8, n),
        }
    )
    X["wa"], X["wb"] = 0.6, 0.4
    y = X["x"] + rng.normal(size=12)[X["g"]] + rng.normal(size=7)[X["h"]] + rng.normal(size=n)
    distance = np.abs(np.subtract.outer(np.arange(7), np.arange(7)))
    related = Relationship(0.6**distance, labels=np.arange(7))
    members = RandomEffect(("a", "b"), weights=("wa", "wb"))
    cases = {
        "none": [],
        "slopes": ["(1 + x | g)"],
        "crossed": ["(1 + x | g)", "h"],
        "nested": ["g", "(1 | g:h)"],
        "memberships": ["g", members],
        "members alone": [members],
        "related": [RandomEffect("h", covariance=related), "g"],
    }
    return X, y, cases


@pytest.mark.parametrize("case", list(_tables()[2]))
@pytest.mark.parametrize("by", [None, "g"])
def test_deletion_by_dense_matrices(case, by, held):
    X, y, cases = _tables()
    model = MixedEffectsRegressor(cases[case], fixed_effects=["x"]).fit(X, y)
    found = model.influence(X, y, by=by)
    design, _ = model._training(X, y, None)
    D, y, sigma2 = design.X, y.to_numpy(), model.sigma_**2
    V = sigma2 * np.eye(len(y)) + (_dense(design, model.result_) if design.blocks else 0.0)
    groups = np.arange(len(y)) if by is None else X["g"].to_numpy()

    def gls(own):
        W = np.linalg.inv(V[np.ix_(own, own)])
        M = np.linalg.inv(D[own].T @ W @ D[own])
        return M @ D[own].T @ W @ y[own], M

    every = np.ones(len(y), bool)
    beta, M = gls(every)
    W = np.linalg.inv(V)
    hat = np.eye(len(y)) - sigma2 * (W - W @ D @ M @ D.T @ W)
    for label in found.index[:12]:
        own, without = groups == label, gls(groups != label)
        np.testing.assert_allclose(found.loc[label, "leverage"], np.diag(hat)[own].sum(), rtol=1e-7)
        d = beta - without[0]
        got = found.loc[label, ["dfbetas: Intercept", "dfbetas: x"]].to_numpy(float)
        np.testing.assert_allclose(got, d / np.sqrt(np.diag(without[1])), rtol=1e-4, atol=1e-8)
        cook = d @ np.linalg.inv(M) @ d / 2
        np.testing.assert_allclose(found.loc[label, "cooks_distance"], cook, rtol=1e-4)


@pytest.fixture
def large(monkeypatch):
    """All groups by the problem of the rows that are left."""
    monkeypatch.setattr(influence, "_is_large", lambda rows, own: True)


@pytest.mark.parametrize("case", list(_tables()[2]))
@pytest.mark.parametrize("by", ["g", "h"])
def test_large_groups_by_the_rows_that_are_left(case, by, held, monkeypatch):
    X, y, cases = _tables()
    model = MixedEffectsRegressor(cases[case], fixed_effects=["x"]).fit(X, y)
    want = model.influence(X, y, by=by)
    monkeypatch.setattr(influence, "_is_large", lambda rows, own: True)
    np.testing.assert_allclose(model.influence(X, y, by=by), want, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("case", ["slopes", "crossed", "memberships"])
@pytest.mark.parametrize("by", [None, "h"])
def test_blocks_of_rows_levels_and_columns_make_no_difference(case, by, large, monkeypatch):
    X, y, cases = _tables()
    model = MixedEffectsRegressor(cases[case], fixed_effects=["x"]).fit(X, y)
    want = model.influence(X, y, by=by)
    monkeypatch.setattr(leverage, "NUMBERS", 40)
    monkeypatch.setattr(eliminated, "COLUMNS", 3)
    np.testing.assert_allclose(model.influence(X, y, by=by), want, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("case", ["none", "slopes", "crossed", "nested"])
def test_scores_without_a_group_are_slopes_of_the_criterion(case, large, monkeypatch):
    X, y, cases = _tables()
    y = y + np.cos(X["g"]) * X["x"]
    model = MixedEffectsRegressor(cases[case], fixed_effects=["x"], tol=1e-10).fit(X, y)
    seen, step = [], influence.with_variances

    def noted(deletions, *known):
        seen.append(deletions.scores)
        return step(deletions, *known)

    monkeypatch.setattr(influence, "with_variances", noted)
    groups = model.influence(X, y, by="h").index
    design, result = model._training(X, y, None)[0], model.result_
    kept = (X["h"] != groups[2]).to_numpy()

    def criterion(natural):
        """Log-likelihood by REML of the rows that are left."""
        covariances, i = [], 0
        for block in design.blocks:
            sd = natural[i : i + block.r]
            R = np.eye(block.r)
            if block.r == 2:
                R[0, 1] = R[1, 0] = natural[i + 2]
            covariances.append(R * np.outer(sd, sd))
            i += block.r * (block.r + 1) // 2
        V = _dense(design, replace(result, covariances=covariances)) if covariances else 0.0
        V = (V + natural[-1] ** 2 * np.eye(len(y)))[np.ix_(kept, kept)]
        D, own, W = design.X[kept], y.to_numpy()[kept], np.linalg.inv(V)
        e = own - D @ np.linalg.solve(D.T @ W @ D, D.T @ W @ own)
        parts = np.linalg.slogdet(V)[1] + np.linalg.slogdet(D.T @ W @ D)[1] + e @ W @ e
        return -0.5 * parts

    want = approx_fprime(result.natural, criterion, 1e-6)
    np.testing.assert_allclose(seen[0][2], want, rtol=1e-3, atol=2e-3)


def test_repetitions_are_rows_of_a_group(unbalanced):
    table, _ = unbalanced
    weight = 1 + np.arange(len(table)) % 3
    model = MixedEffectsRegressor.from_formula(SLOPES, tol=1e-9)
    weighted = clone(model).fit(table, sample_weight=weight)
    repeated = table.loc[table.index.repeat(weight)]
    want = model.fit(repeated).influence(repeated, by="Subject")
    got = weighted.influence(table, sample_weight=weight, by="Subject")
    np.testing.assert_allclose(got.iloc[:, 1:], want.iloc[:, 1:], rtol=1e-5)


def _refits(model, X, y, groups, weight=None):
    out = []
    for label in np.unique(groups):
        own = groups != label
        other = clone(model).fit(X[own], y[own])
        out.append(np.concatenate([[other.intercept_], other.coef_]))
    d = np.concatenate([[model.intercept_], model.coef_]) - np.array(out)
    return np.einsum("mp,pq,mq->m", d, np.linalg.inv(model.result_.coef_cov), d) / d.shape[1]


def _simulated(seed, n_groups, n, crossed=0):
    rng = np.random.default_rng(seed)
    g = np.repeat(np.arange(n_groups), rng.integers(n // 3, 2 * n, n_groups))
    X = pd.DataFrame({"x": rng.normal(size=len(g)) + rng.normal(size=n_groups)[g], "g": g})
    eta = 0.5 * X["x"] + rng.normal(size=n_groups)[g]
    if crossed:
        X["h"] = rng.integers(0, crossed, len(g))
        eta = eta + 0.7 * rng.normal(size=crossed)[X["h"]]
    return rng, X, eta


@pytest.mark.slow
def test_ranks_of_gaussian_groups_are_those_of_refits():
    rng, X, eta = _simulated(0, 50, 12, 20)
    y = eta + rng.normal(size=len(eta))
    model = MixedEffectsRegressor(["(1 + x | g)", "h"]).fit(X, y)
    found = model.influence(X, y, by="g")["cooks_distance"]
    assert spearmanr(found, _refits(model, X, y, X["g"]))[0] > 0.99


@pytest.mark.slow
def test_ranks_of_logistic_groups_are_those_of_refits():
    rng, X, eta = _simulated(1, 40, 8)
    y = rng.random(len(eta)) < 1 / (1 + np.exp(-eta))
    model = MixedEffectsClassifier(["g"]).fit(X, y)
    found = model.influence(X, y, by="g")["cooks_distance"]
    assert spearmanr(found, _refits(model, X, y, X["g"]))[0] > 0.99


@pytest.mark.slow
def test_ranks_of_counts_by_laplace_are_those_of_refits():
    rng, X, eta = _simulated(2, 40, 15, 12)
    y = rng.poisson(np.exp(eta / 2))
    model = MixedEffectsRegressor(["g", "h"], family="poisson", e_step="laplace").fit(X, y)
    found = model.influence(X, pd.Series(y), by="g")["cooks_distance"]
    assert spearmanr(found, _refits(model, X, y, X["g"]))[0] > 0.99


@pytest.mark.slow
def test_large_shifts_are_near_those_of_fits_without_a_group():
    """Slopes, and a family with a parameter of its own: the shifts themselves, not their order."""
    rng, X, eta = _simulated(3, 40, 15)
    eta = eta + rng.normal(size=40)[X["g"]] * X["x"]
    y = pd.Series(rng.negative_binomial(2, 1 / (1 + np.exp(eta / 2) / 2)))
    model = MixedEffectsRegressor(["(1 + x | g)"], family="negative_binomial", e_step="laplace")
    model.fit(X, y)
    found = model.influence(X, y, by="g")
    for label in found["cooks_distance"].nlargest(4).index:
        own = X["g"] != label
        other = clone(model).fit(X[own], y[own])
        d = np.concatenate([[model.intercept_], model.coef_]) - [other.intercept_, *other.coef_]
        got = found.loc[label, ["dfbetas: Intercept", "dfbetas: x"]].to_numpy(float)
        want = d / other.fixed_effects_["std_error"].to_numpy()
        np.testing.assert_allclose(got, want, atol=0.02, rtol=0.1)


@pytest.mark.parametrize("left", [False, True])
def test_a_group_that_alone_determines_a_coefficient(left, monkeypatch):
    monkeypatch.setattr(influence, "_is_large", lambda rows, own: left)
    X, y, _ = _tables()
    X["own"] = (X["g"] == 3) * 1.0
    model = MixedEffectsRegressor(["h"], fixed_effects=["x", "own"]).fit(X, y)
    found = model.influence(X, y, by="g")
    assert found.loc[3].drop(["n_rows", "leverage"]).isna().all()
    assert found.drop(index=3).notna().all(axis=None)


def test_other_families_and_a_prior_of_the_coefficients():
    X, y, _ = _tables()
    counts = np.random.default_rng(0).poisson(np.exp(y / 3))
    for family in ("poisson", "negative_binomial", "student_t", "lognormal"):
        answer = counts + 0.5 * (family == "lognormal")
        e_step = "exact" if family == "lognormal" else "laplace"
        model = MixedEffectsRegressor(["g"], fixed_effects=["x"], family=family, e_step=e_step)
        model.fit(X, answer)
        found = model.influence(X, answer, by="g")
        assert found.notna().all(axis=None)
        assert (found["leverage"] > 0).all()
    # Shrunken to 0, the slope is nobody's.
    free = MixedEffectsRegressor(["g"], fixed_effects=["x"]).fit(X, y).influence(X, y)
    held = MixedEffectsRegressor(["g"], fixed_effects=["x"], coef_prior={"x": 1e-4})
    held = held.fit(X, y).influence(X, y)
    assert held["dfbetas: x"].abs().max() < 1e-2 * free["dfbetas: x"].abs().max()


def test_a_prior_moves_with_the_residual_sd():
    X, y, _ = _tables()
    model = MixedEffectsRegressor(["g"], fixed_effects=["x"], coef_prior={"x": 0.1}, tol=1e-9)
    model.fit(X, y)
    found = model.influence(X, y, by="g")["cooks_distance"]
    assert spearmanr(found, _refits(model, X, y, X["g"]))[0] > 0.99


@pytest.mark.parametrize("family", ["poisson", "negative_binomial"])
def test_other_parts_of_a_model_move_too(family):
    """Zeros are of a mixture, whose coefficients and the mean's depend on one another."""
    rng = np.random.default_rng(0)
    g = np.repeat(np.arange(20), 50)
    X = pd.DataFrame({"x": rng.normal(size=1000) + 0.5 * rng.normal(size=20)[g], "g": g})
    mean = np.exp(0.3 + 0.5 * X["x"])
    if family == "negative_binomial":
        mean = mean * rng.gamma(2, 0.5, size=1000)
    y = pd.Series(rng.poisson(mean) * (rng.random(1000) > 0.3))
    model = MixedEffectsRegressor(fixed_effects=["x"], family=family, zero_inflation="~ x")
    found = model.fit(X, y).influence(X, y, by="g")["cooks_distance"]
    want = _refits(model, X, y, X["g"])
    assert spearmanr(found, want)[0] > 0.99
    np.testing.assert_allclose(found, want, rtol=0.15, atol=0.03 * want.max())


@pytest.mark.slow
@pytest.mark.parametrize("family", ["poisson", "inverse_gaussian", "lognormal_mean"])
def test_ranks_where_the_information_is_not_the_expected_one(family):
    """Of counts with effects, whose zeros depend on x in few rows; of answers from elsewhere."""
    rng, g = np.random.default_rng(0), np.repeat(np.arange(60), 5)
    X = pd.DataFrame({"x": rng.normal(size=300) + 0.5 * rng.normal(size=60)[g], "g": g})
    mean, parts = np.exp(0.3 + 0.5 * X["x"] + 0.5 * rng.normal(size=60)[g]), {}
    if family == "poisson":
        y, parts = rng.poisson(mean) * (rng.random(300) > 0.3), {"zero_inflation": "~ x"}
    else:
        y = mean * rng.gamma(2, 0.5, size=300)
    model = MixedEffectsRegressor(
        ["g"], fixed_effects=["x"], family=family, e_step="laplace", **parts
    )
    y = pd.Series(y)
    found = model.fit(X, y).influence(X, y, by="g")["cooks_distance"]
    want = _refits(model, X, y, X["g"])
    assert spearmanr(found, want)[0] > 0.99
    largest = want > np.quantile(want, 0.9)
    np.testing.assert_allclose(found[largest], want[largest], rtol=0.25)


def test_rows_that_do_not_count_are_left_out(sleepstudy):
    holes = sleepstudy.copy()
    holes.loc[holes.index[::9], "Days"] = np.nan
    model = MixedEffectsRegressor.from_formula("Reaction ~ Days + (1 | Subject)", missing="drop")
    found = model.fit(holes).influence(holes)
    assert found.index.equals(holes.dropna().index)


def test_an_update_leaves_it(sleepstudy):
    X, y = sleepstudy.drop(columns="Reaction"), sleepstudy["Reaction"]
    model = MixedEffectsRegressor(["(1 + Days | Subject)"]).fit(X, y)
    by_group, robust = (
        model.influence(X, y, by="Subject"),
        model.fixed_effects_table(X, y, cov="CR2"),
    )
    new = X[X["Subject"] == 308].assign(Subject=999)
    model.update(new, y[new.index])
    pd.testing.assert_frame_equal(model.influence(X, y, by="Subject"), by_group)
    pd.testing.assert_frame_equal(model.fixed_effects_table(X, y, cov="CR2"), robust)


def test_what_is_refused(sleepstudy, monkeypatch):
    X, y, _ = _tables()
    classes = pd.cut(y, 3, labels=["low", "mid", "high"])
    model = MixedEffectsClassifier(["g"], fixed_effects=["x"], family="ordinal", e_step="laplace")
    with pytest.raises(ValueError, match="several predictors or cutpoints"):
        model.fit(X, classes).influence(X, classes)
    crossed = MixedEffectsRegressor(["g", "h"], fixed_effects=["x"]).fit(X, y)
    with pytest.raises(ValueError, match="by: 'school'"):
        crossed.influence(X, y, by="school")
    with pytest.raises(ValueError, match=r"by: it has the shape \(150, 1\)"):
        crossed.influence(X, y, by=X[["g"]])
    bare = MixedEffectsRegressor(["g"], fixed_effects=[], fit_intercept=False).fit(X, y)
    with pytest.raises(ValueError, match="no coefficients"):
        bare.influence(X, y, by="g")
    monkeypatch.setattr(influence, "LARGEST", 5)
    with pytest.raises(ValueError, match="9 here, and no more than 5"):
        crossed.influence(X, y)


def test_rows_between_bounds_at_infinity_say_nothing():
    X, y = load_sleepstudy(return_X_y=True, as_frame=True)
    bounds = np.column_stack([y, np.where(y > 350, np.inf, y)])
    bounds[5] = -np.inf, np.inf
    model = MixedEffectsRegressor(["Subject"], fixed_effects="~ Days").fit(X, bounds)
    some, thirds = np.arange(180) != 5, np.arange(180) % 3
    found = model.influence(X, bounds), model.influence(X, bounds, by=thirds)
    expected = (
        model.influence(X[some], bounds[some]),
        model.influence(X[some], bounds[some], by=thirds[some]),
    )
    for table, other in zip(found, expected, strict=True):
        pd.testing.assert_frame_equal(table, other)
    assert found[1]["n_rows"].tolist() == [60, 60, 59]


def test_blas_has_one_thread(monkeypatch):
    """Others wait for one another where cores are shared: a second, of a table of 6,000 rows."""
    X, y = load_sleepstudy(return_X_y=True, as_frame=True)
    model = MixedEffectsRegressor(["Subject"]).fit(X, y)
    seen, own = [], influence.of_single_rows

    def looked_at(rows):
        libraries = ThreadpoolController().select(user_api="blas").lib_controllers
        seen.extend(library.num_threads for library in libraries)
        return own(rows)

    monkeypatch.setattr(influence, "of_single_rows", looked_at)
    with threadpool_limits(2, user_api="blas"):
        model.influence(X, y)
    assert set(seen) == {1}


@pytest.mark.parametrize("by", [None, "Subject"])
def test_a_far_origin_is_told_before_rounding_is(sleepstudy, by):
    formula = "Reaction ~ Days + (1 | Subject)"
    model = MixedEffectsRegressor.from_formula(formula, tol=1e-9)
    want = model.fit(sleepstudy).influence(sleepstudy, by=by)
    far = sleepstudy.assign(Days=sleepstudy["Days"] + 3e5)
    got = clone(model).fit(far).influence(far, by=by)
    columns = ["leverage", "cooks_distance", "dfbetas: Days"]
    np.testing.assert_allclose(got[columns], want[columns], rtol=1e-3, atol=1e-5)
    farther = sleepstudy.assign(Days=sleepstudy["Days"] + 1e8)
    with pytest.raises(ValueError, match=r"the column 'Days' .* subtract its mean"):
        clone(model).fit(farther).influence(farther, by=by)


@pytest.mark.filterwarnings("ignore:The coefficient 'c' has no finite")
def test_coefficients_at_infinity_are_told_and_the_remedy_is_the_limit():
    rng, X, eta = _simulated(5, 15, 8)
    X["c"] = (np.arange(len(X)) % 4 == 0) * 1.0
    y = np.where(X["c"] == 1, 1, rng.random(len(X)) < 1 / (1 + np.exp(-eta))).astype(int)
    model = MixedEffectsClassifier(["g"], fixed_effects=["x", "c"]).fit(X, y)
    with pytest.raises(ValueError, match="coefficients of 'c' are infinite"):
        model.influence(X, y, by="g")
    own = (X["c"] == 0).to_numpy()
    left = MixedEffectsClassifier(["g"], fixed_effects=["x"]).fit(X[own], y[own])
    want = [model.fixed_effects_.loc[name, "estimate"] for name in ("Intercept", "x")]
    np.testing.assert_allclose(left.fixed_effects_["estimate"], want, rtol=1e-3, atol=1e-4)
    assert left.influence(X[own], y[own], by="g").notna().all(axis=None)
    weak = clone(model).set_params(coef_prior=5.0).fit(X, y).influence(X, y, by="g")
    assert weak.notna().all(axis=None)
    assert weak["cooks_distance"].max() < 5
