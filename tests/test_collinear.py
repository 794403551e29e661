"""Fixed columns that depend on each other, and columns in units far apart."""

import warnings

import numpy as np
import pandas as pd
import pytest

from sklmm import MixedEffectsClassifier, MixedEffectsRegressor
from sklmm.datasets import make_crossed
from sklmm.engine.rows.collinearity import combination, independent, orthonormal, triangle

LEFT_OUT = "linear combinations"


def fit_silently(model, X, y, **kwargs):
    """A fit that must warn of nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # TFP's, where this is the first test to import it.
        warnings.filterwarnings("ignore", message=".*distutils")
        return model.fit(X, y, **kwargs)


@pytest.fixture(scope="module")
def table():
    """Two groupings, two columns and a factor's dummies, all of them."""
    rng = np.random.default_rng(0)
    X, y, _ = make_crossed(240, (15, 6), n_features=2, random_state=0)
    kind = rng.integers(0, 3, len(X))
    for k in range(3):
        X[f"kind_{k}"] = (kind == k).astype(float)
    return X, y + 0.7 * (kind == 1) - 0.4 * (kind == 2)


@pytest.mark.parametrize("method", ["reml", "ml"])
@pytest.mark.parametrize("terms", [["Subject"], ["(1 + Days | Subject)"], None])
def test_a_copy_is_left_out_as_lme4_does(sleepstudy, method, terms):
    X, y = sleepstudy
    once = MixedEffectsRegressor(terms, method=method).fit(X[["Subject", "Days"]], y)
    twice = MixedEffectsRegressor(terms, method=method)
    with pytest.warns(UserWarning, match=f"'again' are {LEFT_OUT}.*Remove") as seen:
        twice.fit(X[["Subject", "Days"]].assign(again=3e5 * X["Days"]), y)
    assert seen[0].filename == __file__
    np.testing.assert_allclose(twice.coef_, [*once.coef_, 0.0], rtol=1e-9)
    # lme4 has its REML criterion in the columns it keeps.
    for name in ("loglik_", "aic_", "bic_", "sigma_", "intercept_"):
        assert getattr(twice, name) == pytest.approx(getattr(once, name), rel=1e-10)
    pd.testing.assert_frame_equal(twice.fixed_effects_[:-1], once.fixed_effects_, rtol=1e-8)
    assert twice.fixed_effects_.loc["again", "estimate"] == 0.0
    assert twice.fixed_effects_.loc["again"].drop("estimate").isna().all()
    assert twice.conf_int().loc["again"].isna().all()
    assert "again" in twice.summary()


def test_lme4s_own_numbers_survive_a_copy(sleepstudy, sleep_model):
    X, y = sleepstudy
    with pytest.warns(UserWarning, match=LEFT_OUT):
        model = MixedEffectsRegressor(["(1 + Days | Subject)"]).fit(X.assign(c=X["Days"] - 1), y)
    assert model.loglik_ == pytest.approx(-1743.6283 / 2, abs=1e-4)
    assert model.loglik_ == pytest.approx(sleep_model.loglik_, rel=1e-10)


def test_all_dummies_beside_an_intercept_lose_the_last(table):
    X, y = table
    dummies = [f"kind_{k}" for k in range(3)]
    model = MixedEffectsRegressor(["g0", "g1"], fixed_effects=["x0", *dummies])
    with pytest.warns(UserWarning, match=f"column\\(s\\) 'kind_2' are {LEFT_OUT}"):
        model.fit(X, y)
    coded = MixedEffectsRegressor(["g0", "g1"], fixed_effects=["x0", *dummies[:-1]])
    fit_silently(coded, X, y)
    np.testing.assert_allclose(model.coef_, [*coded.coef_, 0.0], rtol=1e-8)
    assert model.loglik_ == pytest.approx(coded.loglik_, rel=1e-10)
    for a, b in zip(
        model.predict(X, return_std=True), coded.predict(X, return_std=True), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    # Without an intercept the dummies are independent.
    plain = MixedEffectsRegressor(["g0", "g1"], fixed_effects=dummies, fit_intercept=False)
    fit_silently(plain, X, y)


@pytest.mark.parametrize("e_step", ["exact", "cg"])
def test_predictions_are_those_without_the_column(table, e_step):
    X, y = table
    model = MixedEffectsRegressor(["g0", "g1"], e_step=e_step, random_state=0)
    with pytest.warns(UserWarning, match="'kind_2', 'twice'"):
        model.fit(rows := X.assign(twice=X["x0"] - 2 * X["x1"]), y)
    without = X.drop(columns="kind_2")
    other = MixedEffectsRegressor(["g0", "g1"], e_step=e_step, random_state=0).fit(without, y)
    expected = other.predict(without, return_std=True)
    for a, b in zip(model.predict(rows, return_std=True), expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)
    # What is left out does not count, whatever it is; but another combination was never seen.
    new = rows.assign(twice=rows["twice"] + np.isin(np.arange(len(X)), (3, 7)))
    with pytest.warns(
        UserWarning, match=r"left out .* 'twice', .* 2 row\(s\) of X, the first row 3"
    ):
        found = model.predict(new)
    np.testing.assert_allclose(found, expected[0], rtol=1e-5)


def test_arrays_are_named_by_position(table):
    X, y = table
    values = X[["g0", "x0", "x1"]].to_numpy(float)
    values = np.column_stack([values, values[:, 1] + values[:, 2], np.full(len(X), 7.0)])
    with pytest.warns(UserWarning, match=r"column\(s\) '3', '4' are"):
        MixedEffectsRegressor([0]).fit(values, y)


def test_many_columns_are_counted(table):
    X, y = table
    values = np.tile(X[["x0"]].to_numpy(float), 13)
    with pytest.warns(UserWarning, match="and 2 more"):
        MixedEffectsRegressor().fit(values, y)


def test_order_decides_which_column_stays(table):
    X, y = table
    for columns in (["x0", "copy"], ["copy", "x0"]):
        model = MixedEffectsRegressor(["g0"], fixed_effects=columns)
        with pytest.warns(UserWarning, match=f"{columns[1]!r}"):
            model.fit(X.assign(copy=X["x0"]), y)
        assert model.coef_[0] != 0.0
        assert model.coef_[1] == 0.0


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize(
    "columns",
    [
        {"year": lambda rng, n: rng.integers(2001, 2021, n)},
        {"year": lambda rng, n: rng.integers(2001, 2021, n), "square": None},
        {
            "a": lambda rng, n: 1e6 + rng.normal(size=n),
            "b": lambda rng, n: 1e6 + rng.normal(size=n),
        },
        {
            "a": lambda rng, n: 1e-6 * rng.normal(size=n),
            "b": lambda rng, n: 1e6 * rng.normal(size=n),
        },
        {"rare": lambda rng, n: (np.arange(n) == 3).astype(float)},
    ],
    ids=["year", "year and square", "large means", "scales", "one row"],
)
def test_these_columns_are_not_collinear(table, columns, fit_intercept):
    X, y = table
    rng = np.random.default_rng(1)
    X = X[["g0", "x0"]].copy()
    for name, draw in columns.items():
        X[name] = X["year"] ** 2.0 if draw is None else draw(rng, len(X))
    model = MixedEffectsRegressor(["g0"], fit_intercept=fit_intercept)
    fit_silently(model, X, y)
    assert (model.fixed_effects_["std_error"] > 0).all()


def test_nearly_equal_columns_fit_as_their_difference(table):
    X, y = table
    nudge = np.random.default_rng(0).normal(size=len(X))
    model = MixedEffectsRegressor(["g0"], fixed_effects=["x0", "near"], tol=1e-9)
    fit_silently(model, X.assign(near=X["x0"] + 1e-5 * nudge), y)
    apart = MixedEffectsRegressor(["g0"], fixed_effects=["x0", "nudge"], tol=1e-9)
    fit_silently(apart, X.assign(nudge=nudge), y)
    assert model.coef_[1] * 1e-5 == pytest.approx(apart.coef_[1], rel=1e-6)
    assert model.coef_.sum() == pytest.approx(apart.coef_[0], rel=1e-6)
    # REML's constant has log |X^T X|.
    assert model.loglik_ + np.log(1e-5) == pytest.approx(apart.loglik_, abs=1e-6)


def test_weights_decide_what_depends_on_what(table):
    X, y = table
    weight = np.ones(len(X))
    weight[5] = 0.0
    X = X[["g0", "x0"]].assign(rare=(np.arange(len(X)) == 5).astype(float))
    fit_silently(MixedEffectsRegressor(["g0"]), X, y)
    with pytest.warns(UserWarning, match="'rare'"):
        MixedEffectsRegressor(["g0"]).fit(X, y, sample_weight=weight)


def test_the_combination_of_what_was_left_out_holds_in_every_unit():
    rng = np.random.default_rng(3)
    X = np.column_stack([np.ones(50), 1e6 * rng.normal(size=50), 1e-4 * rng.normal(size=50)])
    A = np.array([[3.0, 0.0, 0.0], [0.0, 2e-6, 0.0], [0.0, 5.0, 0.0]])
    dropped = np.array([False, False, False, True, True, True])
    found, sizes = combination(np.column_stack([X, X @ A]), dropped)
    np.testing.assert_allclose(X @ found, X @ A, rtol=1e-9)
    np.testing.assert_allclose(found, A, rtol=1e-9, atol=1e-12)
    assert (sizes >= np.abs(found)).all()
    assert not sizes[:, 2].any()


def test_triangle_is_that_of_the_weighted_columns_in_any_slabs(monkeypatch):
    rng = np.random.default_rng(0)
    columns, weights = rng.normal(size=(5, 301)), rng.uniform(0.5, 3, 301)
    columns[3] = columns[0] - columns[1]
    columns[4] *= 1e-6
    monkeypatch.setattr("sklmm.engine.rows.collinearity.SLAB", 16)
    R = triangle(lambda rows: columns[:, rows], weights)
    gram = columns * weights @ columns.T
    size = np.sqrt(np.diag(gram))
    np.testing.assert_allclose(R.T @ R, gram / np.outer(size, size), atol=1e-12)
    kept = independent(R, np.zeros(5))
    assert kept.tolist() == [True, True, True, False, True]
    B, log_det = orthonormal(R, kept)
    np.testing.assert_allclose((R @ B).T @ (R @ B), np.eye(4), atol=1e-12)
    assert not B[3].any()
    own = R[:, kept]
    assert log_det == pytest.approx(np.linalg.slogdet(own.T @ own)[1])


def test_more_columns_than_rows_keep_the_minimum_norm_solution():
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.normal(size=(30, 40)), columns=[f"x{i}" for i in range(40)])
    y = X["x0"] + rng.normal(size=30)
    model = fit_silently(MixedEffectsRegressor(), X, y)
    centred, answer = X - X.mean(), y - y.mean()
    # Of the coefficients of unit columns.
    size = np.sqrt((centred**2).mean())
    expected = np.linalg.lstsq(centred / size, answer, rcond=None)[0] / size
    np.testing.assert_allclose(model.coef_, expected, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(model.predict(X), y, atol=1e-8)
    assert np.isfinite(model.predict(X + 1.0)).all()
    g = np.arange(30) % 5
    pinned = MixedEffectsRegressor(["g"]).fit(X.assign(g=g), y)
    assert np.isfinite(pinned.predict(X.assign(g=g))).all()


def test_warm_start_copes_with_a_column_that_comes_to_depend(table):
    X, y = table
    X = X[["g0", "x0", "x1"]]
    model = MixedEffectsRegressor(["g0"], warm_start=True).fit(X, y)
    copy = X.assign(x1=2 * X["x0"])
    for _ in range(2):
        with pytest.warns(UserWarning, match="'x1'"):
            model.fit(copy, y)
    cold = MixedEffectsRegressor(["g0"]).fit(X.drop(columns="x1"), y)
    assert model.coef_[0] == pytest.approx(cold.coef_[0], rel=1e-4)


def counts(X, seed=0):
    rng = np.random.default_rng(seed)
    effects = rng.normal(0, 0.5, 15)[X["g0"].astype(int)]
    return rng.poisson(np.exp(0.5 + 0.4 * X["x0"] - 0.3 * X["x1"] + effects))


def test_other_families_leave_it_out_too(table):
    X, _ = table
    X = X[["g0", "x0", "x1"]]
    y = counts(X)
    model = MixedEffectsRegressor(["g0"], family="poisson", e_step="laplace", warm_start=True)
    copied = X.assign(copy=X["x0"] + X["x1"])
    with pytest.warns(UserWarning, match="'copy'"):
        model.fit(copied, y)
    other = MixedEffectsRegressor(["g0"], family="poisson", e_step="laplace").fit(X, y)
    np.testing.assert_allclose(model.coef_, [*other.coef_, 0.0], rtol=1e-4)
    assert model.aic_ == pytest.approx(other.aic_, abs=1e-5)
    assert np.isnan(model.fixed_effects_.loc["copy", "std_error"])
    effects, expected = (m.random_effects_["g0"] for m in (model, other))
    np.testing.assert_allclose(effects, expected, rtol=1e-3, atol=1e-3)
    # Averages over draws that differ.
    np.testing.assert_allclose(model.predict(copied), other.predict(X), rtol=0.2)
    with pytest.warns(UserWarning, match="'copy'"):
        model.fit(copied, y)
    np.testing.assert_allclose(model.coef_, [*other.coef_, 0.0], rtol=1e-3)


@pytest.mark.slow
def test_each_class_leaves_it_out(table):
    X, y = table
    X = X[["g0", "x0"]].assign(copy=-X["x0"], c=1.0)
    labels = np.digitize(y, np.quantile(y, [0.35, 0.7]))
    model = MixedEffectsClassifier(["g0"], random_state=0, max_iter=3)
    with pytest.warns(UserWarning, match="max_iter=3"):  # noqa: SIM117
        with pytest.warns(UserWarning, match=r"\(s\) 'copy', 'c' are"):
            model.fit(X, labels)
    assert model.coef_.shape == (2, 3)
    assert (model.coef_[:, 0] != 0).all()
    assert not model.coef_[:, 1:].any()
    missing = model.fixed_effects_["std_error"].isna()
    assert missing.tolist() == [False, False, True, True] * 2
    assert np.isfinite(model.predict_proba(X)).all()
    binary = MixedEffectsClassifier(["g0"], e_step="laplace")
    with pytest.warns(UserWarning, match=r"\(s\) 'copy', 'c' are"):
        binary.fit(X, labels > 0)
    ordered = MixedEffectsClassifier(["g0"], family="ordinal", e_step="laplace")
    with pytest.warns(UserWarning, match=r"\(s\) 'copy', 'c' are"):
        ordered.fit(X, labels)
    assert ordered.conf_int().loc[["copy", "c"]].isna().all(axis=None)


@pytest.mark.parametrize(
    ("family", "k"),
    [
        *[("gaussian", k) for k in (-6, -3, 3, 6)],
        *[pytest.param("poisson", k, marks=pytest.mark.slow) for k in (-6, 6)],
    ],
)
def test_units_of_the_columns_do_not_matter(table, family, k):
    X, y = table
    X = X[["g0", "x0", "x1"]]
    y = counts(X) if family == "poisson" else y
    units = {"x0": 10.0**k, "x1": 10.0 ** (-k)}
    parameters = {"family": family, "tol": 1e-9}
    if family == "poisson":
        parameters["e_step"] = "laplace"
    terms = ["(1 + x0 | g0)"] if family == "gaussian" else ["g0"]
    model = fit_silently(MixedEffectsRegressor(terms, **parameters), X, y)
    scaled = MixedEffectsRegressor(terms, **parameters)
    fit_silently(scaled, X.assign(**{name: X[name] * unit for name, unit in units.items()}), y)
    size = np.array([1.0, *units.values()])
    for column in ("estimate", "std_error"):
        found = scaled.fixed_effects_[column] * size
        np.testing.assert_allclose(found, model.fixed_effects_[column], rtol=1e-7, atol=1e-10)
    effects = scaled.random_effects_["g0"]
    np.testing.assert_allclose(
        effects * size[: effects.shape[1]], model.random_effects_["g0"], rtol=1e-6, atol=1e-7
    )
    expected = model.cov_re_["g0"].to_numpy()
    outer = np.outer(size, size)[: len(expected), : len(expected)]
    np.testing.assert_allclose(
        scaled.cov_re_["g0"] * outer, expected, rtol=1e-6, atol=1e-7 * np.abs(expected).max()
    )


@pytest.mark.slow
def test_the_tutorials_loop_leaves_it_out_too(sleepstudy):
    X, y = sleepstudy
    model = MixedEffectsRegressor(["Subject"], e_step="hmc", m_step="adam", max_iter=5)
    with pytest.warns(UserWarning, match="'again'"):
        model.fit(X.assign(again=X["Days"]), y)
    assert model.coef_[0] != 0.0
    assert model.coef_[1] == 0.0
