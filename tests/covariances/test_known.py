"""Known SDs: no parameter of theta, and where all are known theta is empty."""

import numpy as np
import pandas as pd
import pytest

from sklmm import Gaussian, MixedEffectsRegressor, RandomEffect

TOGETHER = [RandomEffect("g", slopes=("x",), sd=0.5)]
APART = [RandomEffect("g", sd=0.5), RandomEffect("g", slopes=("x",), intercept=False, sd=0.5)]


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"g": rng.integers(0, 20, 300), "x": rng.normal(size=300)})
    eta = 0.3 + 0.2 * X["x"] + rng.normal(0, 0.5, 20)[X["g"]]
    return X, eta, rng


@pytest.mark.parametrize("method", ["reml", "ml"])
@pytest.mark.parametrize(
    ("family", "e_step"),
    [("gaussian", "exact"), ("gaussian", "cg"), ("gaussian", "laplace"), ("poisson", "laplace")],
)
def test_a_term_of_known_sds_is_one_block_or_two(data, family, e_step, method):
    X, eta, rng = data
    if family == "poisson":
        y = rng.poisson(np.exp(eta))
    else:
        y, family = eta + rng.normal(size=len(X)), Gaussian(sigma=1.0)
    ours, theirs = (
        MixedEffectsRegressor(terms, family=family, method=method, e_step=e_step).fit(X, y)
        for terms in (TOGETHER, APART)
    )
    assert ours.loglik_ == pytest.approx(theirs.loglik_, abs=1e-6)
    np.testing.assert_allclose(ours.fixed_effects_, theirs.fixed_effects_, rtol=1e-5)
    np.testing.assert_allclose(
        ours.random_effects_["g"]["x"], theirs.random_effects_["(0 + x | g)"]["x"], rtol=1e-5
    )
    np.testing.assert_allclose(ours.variance_components_["sd"][:2], 0.5)
    np.testing.assert_array_equal(ours.variance_components_["std_error"], 0.0)
