"""Rows' log densities against the log-likelihood of fits without random effects."""

import numpy as np
import pandas as pd
import pytest

from sklmm import Gaussian, MixedEffectsClassifier, MixedEffectsRegressor
from sklmm._fitted.latent import linear_predictor
from sklmm.engine.likelihood.pointwise import log_densities

RNG = np.random.default_rng(0)
N = 60
X = pd.DataFrame({"x": RNG.normal(size=N)})
ETA = 0.3 + 0.5 * X["x"].to_numpy()
TRIALS = RNG.integers(1, 6, N)
SHARE = 1 / (1 + np.exp(-ETA))
SUCCESSES = RNG.binomial(TRIALS, SHARE)
CODES = np.digitize(ETA + RNG.logistic(size=N), [-1, 1])
CASES = {
    "gaussian": ({"method": "ml"}, ETA + RNG.normal(size=N), None),
    "repetitions": ({"method": "ml"}, ETA + RNG.normal(size=N), TRIALS),
    "precisions": (
        {"method": "ml", "family": Gaussian(weights="precision")},
        ETA + RNG.normal(size=N) / np.sqrt(TRIALS),
        TRIALS,
    ),
    "gamma": ({"family": "gamma"}, RNG.gamma(2, np.exp(ETA)), None),
    "negative_binomial": (
        {"family": "negative_binomial"},
        RNG.poisson(3 * RNG.gamma(2, size=N)),
        None,
    ),
    "shares": ({"family": "binomial"}, SUCCESSES / TRIALS, TRIALS),
    "counts": ({"family": "binomial"}, np.c_[SUCCESSES, TRIALS - SUCCESSES], None),
    "ratings": ({"family": "ordinal"}, 1 + CODES / 2, None),
    "classes": ({"family": "categorical"}, CODES, None),
}


@pytest.mark.parametrize(("params", "y", "weights"), CASES.values(), ids=CASES.keys())
def test_their_sum_is_the_log_likelihood(params, y, weights):
    kind = (
        MixedEffectsClassifier if params.get("family") == "categorical" else MixedEffectsRegressor
    )
    model = kind(**params).fit(X, y, weights)
    design, response = model._training(X, y, weights)
    d = response.n_predictors
    eta = linear_predictor(design, model.result_, [], d).reshape(N, d, 1)
    found = log_densities(response, eta, model.result_.family)
    assert found.shape == (N, 1)
    assert found.sum() == pytest.approx(model.loglik_, rel=1e-9)
