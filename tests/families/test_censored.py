"""Responses that are known up to bounds: densities against SciPy's, fits against survival's."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.base import clone

from sklmm import CensoredGaussian, Gaussian, MixedEffectsRegressor
from sklmm.engine.likelihood.likelihood import Likelihood, evaluation
from tests.two_part import check_maximum, table

BOUNDS = [
    (0.3, 0.3),
    (-np.inf, -0.4),
    (0.5, np.inf),
    (-0.2, 1.4),
    (0.2, 0.21),
    (0.1, 0.19),
    (5.0, 5.5),
    (-9.0, -8.999),
]


def rows(eta, sigma=0.7):
    """y [n, 3], eta [n, 1] and raw of each of the bounds at each eta."""
    pairs = np.repeat(BOUNDS, len(eta), axis=0)
    y = np.column_stack([CensoredGaussian().bind(pairs).y, pairs])
    return y, np.tile(eta, len(BOUNDS))[:, None], np.array([[np.log(sigma)]])


def log_probability(y, eta, sigma):
    out = np.empty(len(y))
    for i, ((_, low, high), e) in enumerate(zip(y, eta, strict=True)):
        a, b = (low - e) / sigma, (high - e) / sigma
        if low == high:
            out[i] = stats.norm.logpdf(low, e, sigma)
        elif a + b > 0:
            out[i] = np.log(stats.norm.sf(a) - stats.norm.sf(b))
        else:
            out[i] = np.log(stats.norm.cdf(b) - stats.norm.cdf(a))
    return out


ETA = np.linspace(-2, 2, 9)


def test_the_log_density_is_that_of_what_was_seen():
    y, eta, raw = rows(ETA)
    found = evaluation(Likelihood.of(CensoredGaussian())).by_row(y, eta, raw)[0]
    expected = log_probability(y, eta[:, 0], 0.7)
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-8, atol=1e-10)


def test_its_derivatives_are_differences():
    (y, eta, raw), h = rows(ETA), 1e-5
    found = evaluation(Likelihood.of(CensoredGaussian()))
    ones = np.ones(len(y))
    up, down = (found.by_row(y, eta + s, raw) for s in (h, -h))
    score = found.both(y, eta, raw)[1]
    np.testing.assert_allclose(score, (up[0] - down[0]) / (2 * h), rtol=1e-6, atol=1e-7)
    curvature, mixed, pairs = found.second(y, eta, raw)
    np.testing.assert_allclose(curvature, (down[1] - up[1]) / (2 * h), rtol=1e-6, atol=1e-7)
    assert ((curvature > 0) & (curvature <= 0.7**-2 * (1 + 1e-12))).all()
    up, down = (found.parts(y, eta, raw + s) for s in (h, -h))
    slope = found.parts(y, eta, raw)[2][0]
    np.testing.assert_allclose(slope, (up[0] - down[0]) / (2 * h), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(mixed[0], (down[1] - up[1]) / (2 * h), rtol=1e-5, atol=1e-6)
    both = (down[2][0] - up[2][0]) / (2 * h)
    np.testing.assert_allclose(pairs[0, 0], both, rtol=1e-5, atol=1e-6)
    total = found.slopes(y, ones, eta, raw)[2]
    np.testing.assert_allclose(total, slope.sum(), rtol=1e-12)


def test_single_precision_agrees_and_extreme_predictors_are_finite():
    y, eta, raw = rows(ETA)
    found = evaluation(Likelihood.of(CensoredGaussian()))
    single = [part.astype(np.float32) for part in (y, eta, raw)]
    for rough, exact in zip(found.by_row(*single), found.by_row(y, eta, raw), strict=True):
        np.testing.assert_allclose(rough, exact, rtol=2e-3, atol=2e-3)
    y, eta, raw = rows(np.array([-800.0, -80, -9, 9, 80, 800]))
    curvature, mixed, pairs = found.second(y, eta, raw)
    for part in (*found.by_row(y, eta, raw), curvature, *mixed, *pairs.values()):
        assert np.isfinite(part).all()


@pytest.mark.usefixtures("eagerly")
def test_tensorflows_density_is_numpys():
    like = Likelihood.of(CensoredGaussian())
    y, eta, raw = rows(ETA)
    value, score, _ = evaluation(like).by_row(y, eta, raw)
    for mine, other in zip((value, score), like.log_prob_and_score(y, eta, raw), strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(
        evaluation(like).observed(y, eta, raw)[0], like.curvature(y, eta, raw), rtol=1e-8
    )
    y, eta, raw = (part.astype(np.float32) for part in rows(np.array([-80.0, -9, 9, 80])))
    assert np.isfinite(like.log_prob_and_score(y, eta, raw)).all()


def test_bounds_bind():
    response = CensoredGaussian().bind(
        [[1, 1], [np.nan, 0.5], [2, np.inf], [1, 4], [-np.inf, np.inf]], [1, 2, 1, 3, 1]
    )
    assert response.y.tolist() == [1, 0.5, 2, 2.5, 0]
    assert response.keep.tolist() == [True, True, True, True, False]
    assert response.data.tolist()[1] == [-np.inf, 0.5]
    assert response.masses == 6
    for y, message in [
        ([[1, 2], [3, 2.5]], r"two bounds, lower <= upper, not \[3\.  2\.5\] \(row 1\): exchange"),
        ([[np.inf, np.nan]], r"two bounds"),
        ([1.0, 2.0], r"two columns, lower and upper bounds, not shape \(2,\)"),
        ([["a", 1]], r"must be numeric, not 'a'"),
    ]:
        with pytest.raises(ValueError, match=message):
            CensoredGaussian().bind(np.array(y, object if y[0] == ["a", 1] else float))


def tobit(**parameters):
    return MixedEffectsRegressor(["g"], fixed_effects=["x", "z"], **parameters)


@pytest.fixture(scope="module")
def data():
    return table("tobit")


@pytest.mark.parametrize("e_step", ["auto", "laplace"])
def test_a_fit_of_two_columns_is_a_tobit_model(data, e_step):
    model = tobit(e_step=e_step).fit(data, data[["lower", "upper"]])
    assert model.converged_
    family = check_maximum(model, "tobit", laplace=e_step == "laplace")
    assert model.sigma_ == pytest.approx(family["sigma"], rel=1e-3)
    if e_step == "laplace":
        return
    formula = MixedEffectsRegressor.from_formula("cbind(lower, upper) ~ x + z + (1 | g)").fit(data)
    np.testing.assert_allclose(formula.coef_, model.coef_)
    mean, std = model.predict(data[:2], return_std=True)
    assert (std > model.sigma_).all()
    draws = model.sample_y(data[:2], 20_000, random_state=0)
    np.testing.assert_allclose(draws.mean(axis=1), mean, atol=4 * std.max() / 140)
    # A new group of which all is known, or only that it is high.
    new = data[:6].assign(g="new")
    known = np.column_stack([np.full(6, 4.0), np.full(6, 4.0)])
    some = clone(model).fit(data, data[["lower", "upper"]]).update(new, known)
    above = clone(model).fit(data, data[["lower", "upper"]])
    above.update(new, np.column_stack([known[:, 0], np.full(6, np.inf)]))
    assert some.random_effects_["g"].loc["new"].item() > 0
    assert (
        some.random_effects_["g"].loc["new"].item() < above.random_effects_["g"].loc["new"].item()
    )
    interval = model.conf_int(method="profile", X=data, y=data[["lower", "upper"]], parm=["x"])
    wald = model.conf_int(parm=["x"])
    np.testing.assert_allclose(interval, wald, atol=0.01)
    for call, message in [
        (lambda: model.score(data, data[["lower", "upper"]]), "y has bounds"),
        (
            lambda: model.conf_int(method="bootstrap", X=data, y=data[["lower", "upper"]]),
            "bounds it would then have",
        ),
        (lambda: tobit().fit_batches([(data, data[["lower", "upper"]])]), "no sums"),
        (lambda: tobit(e_step="exact").fit(data, data[["lower", "upper"]]), "is for family='gau"),
        (
            lambda: tobit(family=Gaussian(weights="precision")).fit(data, data[["lower", "upper"]]),
            "bounds, and weights='precision' is for values",
        ),
        (lambda: tobit(family="poisson").fit(data, np.ones((900, 2))), "1d array"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()


def test_without_effects_it_is_survregs(data):
    model = clone(tobit()).set_params(random_effects=[]).fit(data, data[["lower", "upper"]])
    family = check_maximum(model, "tobit_fixed", tol=1e-4)
    assert model.sigma_ == pytest.approx(family["sigma"], rel=1e-5)


def test_another_unit_changes_the_densities_alone(data):
    y, unit = data[["lower", "upper"]], 1e6
    one, other = tobit().fit(data, y), tobit().fit(data, unit * y + 3e7)
    np.testing.assert_allclose(other.coef_, unit * one.coef_, rtol=1e-6)
    assert other.sigma_ == pytest.approx(unit * one.sigma_)
    seen = int((y["lower"] == y["upper"]).sum())
    assert other.loglik_ == pytest.approx(one.loglik_ - seen * np.log(unit))


def test_values_that_are_all_seen_are_gaussian(data):
    y = data["upper"].fillna(data["lower"])
    model = tobit().fit(data, np.column_stack([y, y]))
    gaussian = tobit(method="ml").fit(data, y)
    assert model.loglik_ == pytest.approx(gaussian.loglik_, abs=1e-5)
    np.testing.assert_allclose(model.coef_, gaussian.coef_, rtol=1e-5)


def test_a_row_without_both_bounds_is_missing(data):
    y = data[["lower", "upper"]].copy()
    y.iloc[3] = np.nan
    with pytest.raises(ValueError, match=r"Input y contains NaN: 1 missing.* row 3"):
        tobit().fit(data, y)
    model = tobit(missing="drop", e_step="laplace").fit(data, y)
    rest = np.arange(len(data)) != 3
    other = tobit(e_step="laplace").fit(data[rest], y[rest])
    np.testing.assert_allclose(model.coef_, other.coef_)
    y.iloc[3] = [-np.inf, np.inf]
    nothing = tobit(e_step="laplace").fit(data, y)
    np.testing.assert_allclose(nothing.coef_, other.coef_)


def test_its_residual_sd_may_depend_on_columns(data):
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"g": np.repeat(np.arange(60), 20), "z": np.tile([0, 1], 600)})
    y = rng.normal(0.5 * rng.normal(size=60)[X["g"]], np.exp(-0.5 + 0.8 * X["z"]))
    bounds = np.column_stack([np.where(y < -0.5, np.nan, y), np.maximum(y, -0.5)])
    model = MixedEffectsRegressor(["g"], dispersion="~ z").fit(X, bounds)
    found = model.dispersion_effects_["estimate"]
    np.testing.assert_allclose(found, [-0.5, 0.8], atol=0.15)
