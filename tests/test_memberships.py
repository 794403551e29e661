"""Rows that belong to several levels, beside dense matrices and models that are the same."""

import pickle
import warnings
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from scipy.special import gammaln
from sklearn.base import clone

from sklmm import HMC, Gaussian, MixedEffectsClassifier, MixedEffectsRegressor, RandomEffect
from sklmm.design.terms import parse_term
from tests.test_batches import assert_same

N, J = 200, 15
TIED, CROSSED = "(1 | mm(t1, t2))", "s"
WEIGHTED = RandomEffect(["t1", "t2"], weights=["w1", "w2"])


@pytest.fixture(scope="module")
def data():
    """X, and y with effects of teachers and of schools; some rows have one teacher, or none."""
    rng = np.random.default_rng(0)
    t = rng.integers(J, size=(N, 2))
    w = rng.uniform(0.1, 1.5, (N, 2))
    X = pd.DataFrame({"x": rng.normal(size=N), "s": rng.integers(8, size=N)})
    names = np.array([f"t{k:02}" for k in range(J)], object)[t]
    names[::11, 1] = None
    names[::77] = None
    X[["t1", "t2"]], X[["w1", "w2"]] = names, w
    X.loc[X["t2"].isna(), "w2"] = np.nan
    Z = loadings(X, "equal")
    y = 1 + X["x"] + Z @ rng.normal(size=J) + 0.6 * rng.normal(size=8)[X["s"]]
    return X, (y + rng.normal(0, 0.5, N)).rename("y"), rng


def loadings(X, weights):
    """Z [n, J] of the teachers, dense and by hand."""
    out = np.zeros((len(X), J))
    w = X[["w1", "w2"]].to_numpy()
    for i, names in enumerate(X[["t1", "t2"]].to_numpy()):
        there = [m for m, name in enumerate(names) if isinstance(name, str)]
        for m in there:
            out[i, int(names[m][1:])] += 1 / len(there) if weights == "equal" else w[i, m]
    return out


def criterion(theta, X, y, Zs, reml):
    """Log-likelihood, or REML's, of log SDs, the residual one last: dense."""
    V = np.eye(len(y)) * np.exp(2 * theta[-1])
    V += sum(np.exp(2 * t) * Z @ Z.T for t, Z in zip(theta, Zs, strict=False))
    A = np.column_stack([np.ones(len(y)), X["x"]])
    root = np.linalg.cholesky(V)
    A, b = np.linalg.solve(root, A), np.linalg.solve(root, y)
    rest = b - A @ np.linalg.lstsq(A, b, rcond=None)[0]
    value = 2 * np.log(np.diag(root)).sum() + rest @ rest + len(y) * np.log(2 * np.pi)
    if reml:
        value += np.linalg.slogdet(A.T @ A)[1] - A.shape[1] * np.log(2 * np.pi)
    return -0.5 * value


def regressor(terms, **parameters):
    return MixedEffectsRegressor(terms, fixed_effects=["x"], random_state=0, **parameters)


@pytest.mark.parametrize("e_step", ["exact", "cg", "laplace"])
@pytest.mark.parametrize("method", ["reml", "ml"])
@pytest.mark.parametrize("term", [TIED, WEIGHTED], ids=["equal", "weighted"])
@pytest.mark.parametrize("crossed", [False, True])
def test_gaussian_fits_are_those_of_dense_matrices(data, e_step, method, term, crossed):
    X, y, _ = data
    model = regressor([term, CROSSED][: 1 + crossed], e_step=e_step, method=method).fit(X, y)
    Zs = [loadings(X, "equal" if term == TIED else None), np.eye(8)[X["s"]]][: 1 + crossed]

    sds = model.variance_components_["sd"].to_numpy()

    def value(step):
        return criterion(np.log(sds) + step, X, y.to_numpy(), Zs, method == "reml")

    assert model.loglik_ == pytest.approx(value(0.0), abs=1e-8)
    H = 1e-3 * np.eye(len(sds))
    ups, downs = ([value(s * h) for h in H] for s in (1, -1))
    np.testing.assert_allclose(np.subtract(ups, downs) / 2e-3, 0, atol=1e-3)
    both = [[value(g + h) - value(g - h) - value(h - g) + value(-g - h) for h in H] for g in H]
    spread = np.linalg.inv(-np.array(both) / 4e-6)
    # The average information is the observed one of balanced tables.
    errors = model.variance_components_["std_error"] / sds
    np.testing.assert_allclose(errors, np.sqrt(np.diag(spread)), rtol=0.05)


@pytest.mark.parametrize("e_step", ["exact", "cg"])
def test_effects_and_predictions_are_those_of_dense_matrices(data, e_step):
    """Of known and unknown teachers, with each of two memberships in the same unknown one."""
    X, y, _ = data
    model = regressor([WEIGHTED, CROSSED], e_step=e_step).fit(X, y)
    *sds, sigma = model.variance_components_["sd"]
    new = X[:4].copy()
    new["t1"], new["t2"] = ["t03", "new", "new", "t05"], ["t04", "t02", "new", None]
    new[["w1", "w2"]] = [[0.3, 0.7], [0.5, -0.5], [0.5, 1.0], [0.4, np.nan]]
    known, unknown = new.copy(), np.zeros((4, 1))
    known.loc[1, "t1"], known.loc[2, ["t1", "t2"]] = None, None
    unknown[1], unknown[2] = 0.5, 1.5
    A, A_new = (np.column_stack([np.ones(len(own)), own["x"]]) for own in (X, new))
    effects = [(loadings(X, None), np.zeros((N, 1)), np.eye(8)[X["s"]])]
    effects.append((loadings(known, None), unknown, np.eye(8)[new["s"]]))
    scale = np.repeat([sds[0], sds[0], sds[1]], [J, 1, 8])
    Z, Z_new = (np.column_stack(own) * scale for own in effects)
    Vi = np.linalg.inv(Z @ Z.T + sigma**2 * np.eye(N))
    S = np.linalg.inv(A.T @ Vi @ A)
    beta = S @ A.T @ Vi @ y
    mean = A_new @ beta + Z_new @ Z.T @ Vi @ (y - A @ beta)
    away = A_new - Z_new @ Z.T @ Vi @ A
    variance = Z_new @ Z_new.T - Z_new @ Z.T @ Vi @ Z @ Z_new.T + away @ S @ away.T
    found, std = model.predict(new, return_std=True)
    np.testing.assert_allclose(found, mean, rtol=1e-5)
    rtol = 1e-5 if e_step == "exact" else 0.02
    np.testing.assert_allclose(std**2, np.diag(variance) + sigma**2, rtol=rtol)
    draws = model.sample_y(new, n_samples=20_000, random_state=0)
    np.testing.assert_allclose(draws.mean(axis=1), mean, atol=5 * std.max() / np.sqrt(20_000))
    expected = variance + sigma**2 * np.eye(4)
    spread = np.sqrt(np.outer(np.diag(expected), np.diag(expected)) * 2 / 20_000)
    assert (np.abs(np.cov(draws) - expected) < 5 * spread + 0.02 * (e_step == "cg")).all()
    # Without the teachers each membership is in one of its own.
    _, bare = model.predict(new, include_random=["s"], return_std=True)
    Z_bare = Z_new * (np.arange(J + 9) > J)
    variance = Z_bare @ Z_bare.T - Z_bare @ Z.T @ Vi @ Z @ Z_bare.T
    away = A_new - Z_bare @ Z.T @ Vi @ A
    variance += away @ S @ away.T + sds[0] ** 2 * np.diag([0.58, 0.5, 1.25, 0.16])
    np.testing.assert_allclose(bare**2, np.diag(variance) + sigma**2, rtol=rtol)


@pytest.mark.parametrize(("family", "e_step"), [("gaussian", "exact"), ("poisson", "laplace")])
def test_one_membership_is_a_plain_term(data, family, e_step):
    """Twice the same column, a weight of 0, or a column that is missing: (1 + x | g)."""
    X, y, rng = data
    X = X.assign(g=rng.integers(J, size=N), one=1.0, none=0.0)
    y = y + rng.normal(0, 0.7, J)[X["g"]] + rng.normal(0, 0.5, J)[X["g"]] * X["x"]
    y = y if family == "gaussian" else rng.poisson(np.exp(0.4 * y))
    X = X.assign(same=X["g"], other=rng.permutation(X["g"]), gone=np.nan)
    known = {"family": family, "e_step": e_step, "tol": 1e-7}
    plain = regressor(["(1 + x | g)", "s"], **known).fit(X, y)
    for term in [
        "(1 + x | mm(g, same))",
        RandomEffect(["g", "other"], slopes=["x"], weights=["one", "none"]),
        "(1 + x | mm(g, gone))",
    ]:
        model = regressor([term, "s"], **known).fit(X, y)
        assert model.loglik_ == pytest.approx(plain.loglik_, abs=1e-6)
        for column in ("sd", "corr", "std_error"):
            ours, theirs = (m.variance_components_[column] for m in (model, plain))
            np.testing.assert_allclose(ours, theirs, rtol=2e-3 if column == "std_error" else 1e-4)
        np.testing.assert_allclose(
            model.random_effects_[model._fitted.spec.terms[0].name],
            plain.random_effects_["g"],
            atol=1e-5,
        )
        for ours, theirs in zip(
            model.predict(X[:9], return_std=True),
            plain.predict(X[:9], return_std=True),
            strict=True,
        ):
            np.testing.assert_allclose(ours, theirs, rtol=1e-4)


@pytest.mark.parametrize("family", ["gaussian", "poisson"])
def test_sums_in_parts_are_those_in_one_piece(data, family, monkeypatch):
    X, y, rng = data
    y = y if family == "gaussian" else rng.poisson(np.exp(0.4 * y))
    terms = ["(1 + x | mm(t1, t2))", "s"]
    known = {"family": family, "e_step": "exact" if family == "gaussian" else "laplace"}
    whole = regressor(terms, **known).fit(X, y)
    monkeypatch.setattr("sklmm.engine.linalg.blocks.PARTED", 0)
    monkeypatch.setattr("sklmm.engine.rows.cross_products.BLOCK", 1)
    monkeypatch.setattr("sklmm.engine.rows.cross_products.FRAGMENT", 50)
    monkeypatch.setattr("sklmm.engine.rows.blocked.WHOLE", 1)
    monkeypatch.setattr("sklmm.engine.rows.blocked.FEWEST", 16)
    monkeypatch.setattr("sklmm.engine.limits.SMALL_ROWS", 0)
    parts = regressor(terms, **known).fit(X, y)
    assert parts.loglik_ == pytest.approx(whole.loglik_, abs=1e-6)
    np.testing.assert_allclose(parts.predict(X), whole.predict(X), rtol=1e-3)


def test_laplaces_approximation_beside_dense_matrices(data):
    """Its log-likelihood at the estimate, and that it is greatest there."""
    X, y, rng = data
    counts = rng.poisson(np.exp(0.4 * y))
    model = regressor([TIED, CROSSED], family="poisson", e_step="laplace", tol=1e-8).fit(X, counts)
    A = np.column_stack([np.ones(N), X["x"]])
    Zs = [loadings(X, "equal"), np.eye(8)[X["s"]]]

    def value(theta):
        Z = np.column_stack([np.exp(t) * Z for t, Z in zip(theta[2:], Zs, strict=True)])
        u = np.zeros(Z.shape[1])
        for _ in range(50):
            eta = A @ theta[:2] + Z @ u
            H = (Z.T * np.exp(eta)) @ Z + np.eye(len(u))
            u = u + np.linalg.solve(H, Z.T @ (counts - np.exp(eta)) - u)
        eta = A @ theta[:2] + Z @ u
        value = counts @ eta - np.exp(eta).sum() - gammaln(counts + 1).sum() - u @ u / 2
        return value - 0.5 * np.linalg.slogdet((Z.T * np.exp(eta)) @ Z + np.eye(len(u)))[1]

    at = np.array([model.intercept_, *model.coef_, *np.log(model.variance_components_["sd"])])
    assert model.loglik_ == pytest.approx(value(at), abs=1e-6)
    slopes = [(value(at + h) - value(at - h)) / 2e-4 for h in 1e-4 * np.eye(4)]
    np.testing.assert_allclose(slopes, 0, atol=2e-3)


@pytest.mark.parametrize("small", [True, False])
def test_monte_carlo_em_beside_quadrature_of_the_same_model(small, monkeypatch):
    """Of twice the same column, and within Monte Carlo errors."""
    if not small:
        monkeypatch.setattr("sklmm.engine.limits.SMALL_ROWS", 0)
    rng = np.random.default_rng(1)
    g, x = rng.integers(60, size=1500), rng.normal(size=1500)
    eta = 0.2 + 0.5 * x + rng.normal(size=60)[g]
    X, y = pd.DataFrame({"x": x, "g": g, "same": g}), (rng.random(1500) < 1 / (1 + np.exp(-eta)))
    ours, theirs = (
        MixedEffectsClassifier([term], fixed_effects=["x"], e_step=e_step, random_state=0).fit(X, y)
        for term, e_step in (("(1 | mm(g, same))", "auto"), ("(1 | g)", "quadrature"))
    )
    assert ours.e_step_.backend == "numpy"
    assert ours.converged_
    error = ours.mc_error_.to_numpy()
    assert abs(ours.coef_[0] - theirs.coef_[0]) < 5 * error[1]
    gap = ours.variance_components_["sd"][0] - theirs.variance_components_["sd"][0]
    assert abs(gap) < 5 * error[2]
    for column in ("estimate", "std_error"):
        found = ours.fixed_effects_[column]
        np.testing.assert_allclose(found, theirs.fixed_effects_[column], rtol=0.02, atol=0.005)
    assert ours.loglik_ == pytest.approx(theirs.loglik_, abs=0.05 + 5 * ours.loglik_error_)


@pytest.mark.parametrize("family", ["ordinal", "negative_binomial", "gamma"])
def test_families_with_parameters_beside_the_same_model(data, family):
    X, y, rng = data
    X = X.assign(g=rng.integers(J, size=N)).assign(same=lambda table: table["g"])
    y = y + rng.normal(0, 0.7, J)[X["g"]]
    responses = {
        "ordinal": np.digitize(y, [0, 1, 2]),
        "negative_binomial": rng.poisson(np.exp(0.5 * y) * rng.gamma(2, 0.5, N)),
        "gamma": np.exp(0.3 * y) * rng.gamma(3, 1 / 3, N) + 0.01,
    }
    kind = MixedEffectsClassifier if family == "ordinal" else MixedEffectsRegressor
    known = {"fixed_effects": ["x"], "family": family, "e_step": "laplace", "tol": 1e-6}
    ours, theirs = (
        kind([term, "s"], **known).fit(X, responses[family])
        for term in ("(1 | mm(g, same))", "(1 | g)")
    )
    assert ours.loglik_ == pytest.approx(theirs.loglik_, abs=1e-5)
    np.testing.assert_allclose(ours.coef_, theirs.coef_, rtol=1e-3)
    sds = (m.variance_components_["sd"] for m in (ours, theirs))
    np.testing.assert_allclose(*sds, rtol=2e-3, atol=1e-4)


@pytest.mark.slow
def test_unordered_classes_beside_the_same_model(data):
    X, _, rng = data
    table = pd.concat([X] * 4).assign(g=rng.integers(J, size=4 * N))
    table["same"] = table["g"]
    eta = np.column_stack([np.zeros(4 * N), rng.normal(size=(J, 2))[table["g"]]])
    y = (eta + rng.gumbel(size=eta.shape)).argmax(axis=1)
    ours, theirs = (
        MixedEffectsClassifier(
            [term], fixed_effects=["x"], e_step=HMC(backend="numpy"), random_state=0
        ).fit(table, y)
        for term in ("(1 | mm(g, same))", "(1 | g)")
    )
    np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=0.01)
    sds = (m.variance_components_["sd"] for m in (ours, theirs))
    np.testing.assert_allclose(*sds, rtol=0.02)
    assert ours.predict_proba(table[:5]).shape == (5, 3)


@pytest.mark.parametrize("family", ["negative_binomial", "gamma"])
def test_families_with_parameters_take_memberships(data, family):
    """The parameters' start is of each row's several effects: beside a plain term of the same."""
    X, y, _ = data
    rng = np.random.default_rng(0)
    means = np.exp(0.5 * y)
    target = rng.poisson(means) if family == "negative_binomial" else rng.gamma(3, means / 3)
    known = X.assign(t2=X["t1"].where(rng.random(N) < 0.5), t=X["t1"]).dropna(subset=["t1"])
    target = target[known.index]
    tied = regressor([TIED], family=family, e_step="laplace").fit(known, target)
    plain = regressor(["t"], family=family, e_step="laplace").fit(known, target)
    assert tied.loglik_ == pytest.approx(plain.loglik_, abs=1e-6)


def test_an_update_is_near_the_posterior_given_all_rows(data):
    """Beside the dense one; known levels, and new ones, which had none of the rows of the fit."""
    X, y, _ = data
    late = (np.arange(N) >= 150) | X[["t1", "t2"]].isin(["t03"]).any(axis=1)
    model = regressor([TIED]).fit(X[~late], y[~late])
    model.update(X[late], y[late])
    teacher, sigma = model.variance_components_["sd"]
    Z, rest = loadings(X, "equal"), y - model.predict(X, include_random=False)
    precision = Z.T @ Z / sigma**2 + np.eye(J) / teacher**2
    exact = np.linalg.solve(precision, Z.T @ rest / sigma**2)
    ours = model.random_effects_["mm(t1, t2)"]["Intercept"]
    assert ours.index.tolist() == [f"t{k:02}" for k in range(J)]
    # Without what earlier rows say of two levels jointly.
    apart, std = ours - exact, np.sqrt(np.diag(np.linalg.inv(precision))).mean()
    assert np.abs(apart).max() < 0.5 * std
    assert np.sqrt(np.mean(apart**2)) < 0.2 * std


def test_terms_are_read_printed_and_kept(data):
    X, y, _ = data
    texts = {
        "(1 | mm(t1, t2))": RandomEffect(["t1", "t2"], weights="equal"),
        "(1 + x || mm(t1 , t2))": RandomEffect(
            ["t1", "t2"], ["x"], correlated=False, weights="equal"
        ),
        "(0 + x | mm(t1, t2, weights = cbind(w1, w2)))": RandomEffect(
            ["t1", "t2"], ["x"], intercept=False, weights=["w1", "w2"]
        ),
        "1 | mm(t1, weights = w1)": RandomEffect(["t1"], weights=["w1"]),
    }
    for text, term in texts.items():
        assert parse_term(text) == [term]
        assert parse_term(str(term)) == [term]
    formula = "y ~ x + (1 | mm(t1, t2, weights = cbind(w1, w2))) + (1 | s)"
    ours = MixedEffectsRegressor.from_formula(formula).fit(X.assign(y=y))
    theirs = regressor([WEIGHTED, "s"]).fit(X, y)
    assert ours.loglik_ == pytest.approx(theirs.loglik_, abs=1e-9)
    assert ours.variance_components_["group"].tolist() == ["mm(t1, t2)", "s", "Residual"]
    assert "mm(t1, t2)" in str(ours.summary())
    again = pickle.loads(pickle.dumps(ours))
    np.testing.assert_array_equal(again.predict(X[:5]), ours.predict(X[:5]))
    # Columns of memberships and weights are none of the fixed part.
    model = MixedEffectsRegressor([WEIGHTED, "s"]).fit(X, y)
    assert model.coef_.shape == (1,)


def test_rows_with_missing_values_keep_their_other_memberships(data):
    X, y, _ = data
    holes = X.copy()
    holes.loc[[3, 5], "x"] = np.nan
    model = regressor([WEIGHTED], missing="drop").fit(holes, y)
    keep = holes["x"].notna()
    assert model.loglik_ == regressor([WEIGHTED]).fit(X[keep], y[keep]).loglik_
    assert np.isnan(model.predict(holes)).tolist() == (~keep).tolist()


def test_a_label_without_its_weight_is_a_row_to_drop(data):
    X, y, _ = data
    assert X["t1"].notna()[[4, 9]].all()
    assert X["w2"].isna().any()
    holes, keep = X.copy(), ~X.index.isin([4, 9])
    holes.loc[[4, 9], "w1"] = np.nan
    model, whole = regressor([WEIGHTED], missing="drop").fit(holes, y), regressor([WEIGHTED])
    assert model.loglik_ == whole.fit(X[keep], y[keep]).loglik_
    assert np.isnan(model.predict(holes)).tolist() == (~keep).tolist()
    assert model.score(holes, y) == pytest.approx(whole.score(X[keep], y[keep]), rel=1e-12)
    # Weights say nothing where the effects do not count.
    assert np.isfinite(model.predict(holes, include_random=False)).all()
    array = X[["x", "w1", "w2"]].assign(t1=X["s"], t2=X["s"] + 1).to_numpy(float)
    array[4, 1] = np.nan
    term, known = RandomEffect([3, 4], weights=[1, 2]), ~np.isnan(array[:, :3]).any(axis=1)
    other = MixedEffectsRegressor([term], missing="drop").fit(array, y)
    assert np.isnan(other.predict(array)).tolist() == (~known).tolist()
    parts = [(holes[:100], y[:100]), (holes[100:], y[100:])]
    batches = regressor([WEIGHTED], missing="drop").fit_batches(parts)
    assert batches.loglik_ == pytest.approx(model.loglik_, rel=1e-9)


def test_a_new_time_of_memberships_is_an_error_of_its_own(data):
    X, y, _ = data
    X = X.assign(k=np.arange(N) % 4.0)
    model = regressor(["ar1(0 + k | mm(t1, t2))"]).fit(X, y)
    assert np.isfinite(model.predict(X)).all()
    with pytest.raises(ValueError, match=r"'k' holds 2.5, no time of the fit, .* memberships"):
        model.predict(X[:2].assign(k=2.5))


def test_a_fit_that_ended_where_there_is_no_density_has_no_log_likelihood(data):
    X, y, _ = data
    model = regressor([WEIGHTED], family="student_t", max_iter=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(X, y)
    estimate = model.result_.likelihood._estimate
    problem, like, parameters, theta, *rest = estimate.args
    # Fits that ended early have had degrees of freedom of 0.
    theta = theta._replace(raw=np.array([theta.raw[0], -1000.0]))
    assert list(parameters) == ["sigma", "df"]
    assert estimate.func(problem, like, parameters, theta, *rest) == (None, 0.0)


def test_labels_of_columns_are_told_apart(data):
    X, y, rng = data
    numbers = X.assign(t1=rng.integers(J, size=N), t2=rng.integers(J, size=N) + 0.0)
    numbers.loc[::9, "t2"] = np.nan
    model = regressor([TIED]).fit(numbers, y)
    assert model.random_effects_["mm(t1, t2)"].index.dtype.kind == "i"
    as_category = numbers.assign(t1=pd.Categorical(numbers["t1"]))
    assert regressor([TIED]).fit(as_category, y).loglik_ == pytest.approx(model.loglik_)
    with pytest.raises(TypeError, match=r"'t2' has labels, like .* in 't1'"):
        regressor([TIED]).fit(numbers.assign(t2="a"), y)
    with pytest.raises(ValueError, match=r"hold no label"):
        regressor([TIED]).fit(X.assign(t1=None, t2=None), y)


@pytest.mark.parametrize("family", [Gaussian(), Gaussian(weights="precision")])
@pytest.mark.parametrize("e_step", ["exact", "cg"])
@pytest.mark.parametrize("terms", [[TIED], [WEIGHTED, CROSSED], ["(1 + x | mm(t1, t2))", "t1"]])
def test_batches_are_one_table(data, terms, e_step, family):
    X, y, _ = data
    X, y = X.sort_values("t1"), y[X.sort_values("t1").index]
    if "t1" in terms:
        X, y = X[X["t1"].notna()], y[X["t1"].notna()]
    weights = np.random.default_rng(1).uniform(0.5, 2, len(y))
    if family.weights != "precision":
        weights = np.ceil(weights)
    model = regressor(terms, e_step=e_step, family=family, tol=1e-6)
    whole = clone(model).fit(X, y, weights)
    # The last rows have no teacher.
    cuts = [0, 30, 90, 190, len(y) - X["t1"].isna().sum(), len(y)]
    some = [(X[a:b], y[a:b], weights[a:b]) for a, b in pairwise(cuts)]
    assert_same(clone(model).fit_batches(some), whole, X)
    found = clone(model)
    for own in some:
        found.partial_fit(*own)
        found = pickle.loads(pickle.dumps(found))
    assert_same(found, whole, X)


def test_a_first_batch_without_a_label(data):
    X, y, _ = data
    none = X["t1"].isna()
    with pytest.raises(ValueError, match=r"^batch 0: .* hold no label: begin with rows that have"):
        regressor([TIED]).fit_batches([(X[none], y[none]), (X[~none], y[~none])])
    with pytest.raises(TypeError, match=r"^batch 1: .*'mm\(t1, t2\)' has labels, like 7"):
        regressor([TIED]).fit_batches([(X, y), (X.assign(t1=7, t2=7), y)])
    model = regressor([TIED]).fit(X, y)
    before = model.random_effects_
    model.update(X[none], y[none])
    pd.testing.assert_frame_equal(model.random_effects_["mm(t1, t2)"], before["mm(t1, t2)"])


def test_errors_name_the_column_and_what_works(data):
    X, y, _ = data
    with pytest.raises(ValueError, match=r"weights=..w1.. must be 'equal' or a column"):
        RandomEffect(["t1", "t2"], weights=["w1"])
    bad = X.copy()
    bad.loc[4, "w1"] = np.nan
    with pytest.raises(ValueError, match=r"'w1' of weights of memberships is missing in row 4"):
        regressor([WEIGHTED]).fit(bad, y)
    with pytest.raises(ValueError, match=r"weights column 'w1' holds 'much'"):
        regressor([WEIGHTED]).fit(X.assign(w1="much"), y)
    counts = np.abs(y).round()
    for e_step in ("quadrature", HMC(backend="tensorflow"), "nuts"):
        with pytest.raises(ValueError, match=r"memberships are not: use 'auto', 'laplace' or HMC"):
            regressor([TIED], family="poisson", e_step=e_step).fit(X, counts)
    with pytest.raises(ValueError, match=r"categorical"):
        MixedEffectsClassifier([TIED], fixed_effects=["x"], e_step="laplace").fit(
            X, np.arange(N) % 3
        )
    model = regressor([TIED], handle_unknown="error").fit(X, y)
    with pytest.raises(ValueError, match=r"'mm.t1, t2.' has the unknown .* 'who' in row 1"):
        model.predict(X[:3].assign(t2=["t01", "who", "t01"]))
    # None of the teachers is no unknown one.
    assert np.isfinite(model.predict(X[:3].assign(t1=None, t2=None))).all()
