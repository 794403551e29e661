import numpy as np
import pandas as pd
import pytest

from sklmm import HMC
from sklmm.engine.algorithms.start import start_theta
from sklmm.engine.latent.hmc import HMCSampler
from tests.engine.latent.test_complete_data import make_latent

X = pd.DataFrame({"g": np.repeat(np.arange(6), 5)})


def responses():
    """(family, y, whether float32 would do)."""
    rng = np.random.default_rng(0)
    shares = rng.beta(3, 2, len(X))
    gammas = rng.gamma(2.0, 1.0, len(X))
    edge = np.where(np.arange(len(X)) % 5 == 0, 1 - 1e-9, shares)
    yield "poisson", rng.poisson(3.0, len(X)), True
    yield "poisson", rng.poisson(1e6, len(X)), False
    yield "bernoulli", np.arange(len(X)) % 2, True
    yield "beta", shares, True
    # Values that float32 makes 1, and one that it makes 0.
    yield "beta", edge, False
    yield "gamma", gammas, True
    yield "gamma", 1e-42 * gammas, False
    yield "gamma", rng.gamma(1e6, 1e-6, len(X)), False
    yield "negative_binomial", rng.poisson(rng.gamma(1e4, 100.0, len(X))), False


@pytest.mark.parametrize(("family", "y", "single"), list(responses()))
def test_chains_have_the_precision_that_the_data_need(family, y, single):
    latent = make_latent(family, X, y, ["g"])
    theta, mode = start_theta(latent)
    mode, equations = latent.mode(theta, mode)
    chains = HMCSampler(HMC(n_chains=4, n_warmup=0))
    chains.place(latent, theta, equations, mode, np.random.default_rng(0))
    assert chains.dtype == (np.float32 if single else np.float64)
    assert chains.v.dtype == chains.frame.centre.dtype == chains.dtype
