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
