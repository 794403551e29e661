"""Moments of the linear predictor, against draws of it and the prior's variances by hand."""

import numpy as np
import pandas as pd
import pytest

from sklmm import MixedEffectsRegressor
from sklmm._fitted.latent import deviations, predictor_moments


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(3)
    frame = pd.DataFrame({"x": rng.normal(size=240), "g": np.arange(240) % 12})
    frame = frame.assign(h=rng.integers(0, 6, 240))
    b = rng.normal(size=(12, 2)) * [0.6, 0.3]
    eta = 0.4 + b[frame["g"], 0] + b[frame["g"], 1] * frame["x"]
    y = np.where(rng.random(240) < 0.2, 0, rng.poisson(np.exp(eta)))
    return frame, y


def test_new_effects_have_their_prior_variance_and_known_ones_their_posterior(table):
    X, y = table
    model = MixedEffectsRegressor(
        ["(1 + x | g)", "h"], family="poisson", e_step="laplace", random_state=0
    ).fit(X, y)
    rows = pd.DataFrame({"x": [0.5, -2.0, 0.5, 0.5], "g": [3, 99, 3, 99], "h": [1, 2, 77, None]})
    _, design, include = model._new_design(rows)
    result = model.result_
    mean, variance, new = predictor_moments(design, result, include)
    assert new.tolist() == [False, True, True, True]
    known = predictor_moments(design, result, include, prior=False)
    np.testing.assert_array_equal(known.mean, mean)
    z = np.column_stack([np.ones(4), rows["x"]])
    of_g = np.einsum("na,ab,nb->n", z, model.cov_re_["g"].to_numpy(), z)
    of_h = model.cov_re_["h"].to_numpy()[0, 0]
    added = [0, of_g[1], of_h, of_g[3] + of_h]
    np.testing.assert_allclose(variance - known.variance, added, rtol=1e-10, atol=1e-14)
    root = deviations(design, result, include, slice(0, 4))[:, 0]
    np.testing.assert_allclose(known.variance, (root**2).sum(axis=1), rtol=1e-12)
    left = predictor_moments(design, result, [False, True])
    assert left.new.all()
    np.testing.assert_allclose(
        left.mean[0] - known.mean[1],
        (0.5 + 2) * model.coef_[0] + result.effects[1][1, 0] - result.effects[1][2, 0],
        rtol=1e-8,
    )


def test_predictors_of_a_row_have_a_covariance(table):
    X, y = table
    model = MixedEffectsRegressor(
        ["g"],
        fixed_effects=["x"],
        family="poisson",
        zero_inflation="~ 1 + (1 | g)",
        e_step="laplace",
        random_state=0,
    ).fit(X, y)
    _, design, include = model._new_design(X[:2].assign(g=[0, 99]))
    mean, cov, new = predictor_moments(design, model.result_, include, d=2)
    assert (mean.shape, cov.shape) == ((2, 2), (2, 2, 2))
    assert new.tolist() == [False, True]
    known = predictor_moments(design, model.result_, include, d=2, prior=False).variance
    root = deviations(design, model.result_, include, slice(0, 2), 2)
    np.testing.assert_allclose(known, root @ root.transpose(0, 2, 1), rtol=1e-10)
    prior = [cov.to_numpy()[0, 0] for cov in model.cov_re_.values()]
    np.testing.assert_allclose(cov[1] - known[1], np.diag(prior), rtol=1e-10, atol=1e-14)


def test_a_time_that_the_fit_had_not_adds_what_known_ones_leave():
    rng = np.random.default_rng(4)
    X = pd.DataFrame({"g": np.repeat(np.arange(30), 5), "time": np.tile([0, 1, 2, 3, 5], 30)})
    apart = np.abs(np.subtract.outer([0, 1, 2, 3, 5], [0, 1, 2, 3, 5]))
    b = rng.multivariate_normal(np.zeros(5), 0.6**apart, 30)
    y = rng.poisson(np.exp(1.0 + b.ravel()))
    model = MixedEffectsRegressor(
        ["ar1(0 + time | g)"],
        fixed_effects="~ 1",
        family="poisson",
        e_step="laplace",
        random_state=0,
    ).fit(X, y)
    rows = pd.DataFrame({"g": [0, 0, 99], "time": [3, 4, 4]})
    _, design, include = model._new_design(rows)
    moments = predictor_moments(design, model.result_, include)
    known = predictor_moments(design, model.result_, include, prior=False)
    assert moments.new.tolist() == [False, True, True]
    between = design.blocks[0].between.variance(slice(None))
    prior = np.diag(model.result_.covariances[0])[0]
    added = moments.variance - known.variance
    assert added[:2] == pytest.approx([0.0, between[1]], abs=1e-12)
    # Of a level that is new all of it is the prior's, whatever the times.
    assert added[2] == pytest.approx(prior, rel=1e-8)
    mean = model.predict(rows)
    assert mean[1] == pytest.approx(np.exp(moments.mean + moments.variance / 2)[1], rel=1e-7)
