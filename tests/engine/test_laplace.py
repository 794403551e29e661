"""The Laplace approximation's gradient against differences of its log-likelihood."""

import numpy as np
import pandas as pd
import pytest

from sklmm import MixedEffectsRegressor, RandomEffect
from sklmm.engine.e_step.laplace import Laplace
from tests.engine.test_complete import make_latent, response, table, theta_for

__all__ = ["table"]

# Those with an expected curvature, for which the mode moves along the observed one, and two others.
FAMILIES = ["negative_binomial", "gamma", "student_t", "beta", "poisson", "ordinal"]


@pytest.mark.parametrize(
    ("name", "reml"), [*((name, False) for name in FAMILIES), ("negative_binomial", True)]
)
def test_gradient_is_the_log_likelihoods_derivative(table, name, reml):
    rng = np.random.default_rng(1)
    latent = make_latent(name, table[["g", "s", "x"]], response(name, rng), ["g"], reml=reml)
    algorithm, space = Laplace(latent, 1e-3, 0), latent.space
    algorithm.mode = np.zeros(latent.layout.size)
    flat = space.join(theta_for(latent, name))

    def loglik(flat):
        return algorithm.evaluate(space.split(flat))[2]

    _, scores, _ = algorithm.evaluate(space.split(flat))
    h = 1e-3
    slope = [(loglik(flat + h * e) - loglik(flat - h * e)) / (2 * h) for e in np.eye(len(flat))]
    np.testing.assert_allclose(scores.mean(axis=1), slope, rtol=2e-4, atol=2e-3)


def test_a_curvature_far_from_the_expected_one():
    """Gamma of shape 0.3: y / mu, which the observed curvature has, is up to ten times its mean."""
    rng = np.random.default_rng(1)
    g = np.repeat(np.arange(100), 2)
    y = np.maximum(rng.gamma(0.3, np.exp(1.5 * rng.normal(size=100)[g]) / 0.3), 1e-300)
    X = pd.DataFrame({"g": g})
    model = MixedEffectsRegressor(["g"], family="gamma", e_step="laplace").fit(X, y)
    assert model.converged_
    assert model.fixed_effects_["std_error"].between(0.1, 0.5).all()
    start = model.history_["loglik"].iloc[0]
    assert model.loglik_ > start
    found = model.result_.covariances[0][0, 0]
    nearby = MixedEffectsRegressor([RandomEffect("g", sd=np.sqrt(found) + 0.05)], family="gamma")
    assert nearby.set_params(e_step="laplace").fit(X, y).loglik_ < model.loglik_
