"""Precise measurements: parameters far from 1, which a start of e^0 would reach slowly."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit

from sklmm import Gaussian, MixedEffectsRegressor

rng = np.random.default_rng(0)
X = pd.DataFrame({"g": np.repeat(np.arange(20), 15), "x": rng.normal(size=300)})
ETA = 0.05 * X["x"].to_numpy() + rng.normal(0, 0.1, 20)[X["g"]]
FAR = {
    "beta": (np.log(999), "precision", 3e6),
    "gamma": (2.0, "shape", 2.5e5),
    "negative_binomial": (14.0, "dispersion", 1e-4),
}


def normal(family, y):
    """(values, weights) of the Gaussian model that y's nearly is, and sigma to the parameter."""
    if family == "beta":
        return logit(y), y * (1 - y), lambda sigma: sigma**-2
    if family == "gamma":
        return np.log(y), np.ones_like(y), lambda sigma: sigma**-2
    return np.log(y), np.ones_like(y), lambda sigma: sigma**2 - np.mean(1 / y)


@pytest.mark.parametrize(
    ("family", "e_step"),
    [("beta", "laplace"), ("gamma", "laplace"), ("negative_binomial", "laplace"), ("gamma", "hmc")],
)
def test_parameters_have_no_caps(family, e_step):
    """Against the exact Gaussian model of logits or logarithms, which is right to a thousandth."""
    intercept, name, true = FAR[family]
    rng, eta = np.random.default_rng(1), intercept + ETA
    if family == "beta":
        y = rng.beta(expit(eta) * true, expit(-eta) * true)
    elif family == "gamma":
        y = rng.gamma(true, np.exp(eta) / true)
    else:
        y = rng.poisson(rng.gamma(1 / true, np.exp(eta) * true)).astype(float)
    values, weights, parameter = normal(family, y)
    exact = MixedEffectsRegressor(["g"], family=Gaussian(weights="precision"), method="ml")
    exact.fit(X, values, sample_weight=weights)
    model = MixedEffectsRegressor(["g"], family=family, e_step=e_step, random_state=0).fit(X, y)
    assert model.converged_
    assert model.n_iter_ <= (20 if e_step == "hmc" else 6)
    assert model.family_params_[name] == pytest.approx(parameter(exact.sigma_), rel=0.02)
    ours, theirs = model.fixed_effects_, exact.fixed_effects_
    assert np.all(np.abs(ours["estimate"] - theirs["estimate"]) < 0.1 * theirs["std_error"])
    np.testing.assert_allclose(ours["std_error"], theirs["std_error"], rtol=0.02)
    sds = [m.variance_components_["sd"][0] for m in (model, exact)]
    assert sds[0] == pytest.approx(sds[1], rel=0.01)


def test_a_start_that_knows_nothing_is_left():
    """The degrees of freedom where y itself, of groups far apart, looks normal."""
    rng = np.random.default_rng(3)
    y = 3 * rng.normal(size=20)[X["g"]] + rng.standard_t(3, len(X))
    model = MixedEffectsRegressor(["g"], family="student_t", e_step="laplace").fit(X, y)
    assert model.converged_
    assert 2 < model.family_params_["df"] < 6


def test_rounds_go_on_while_a_single_sd_moves():
    """Newton's method would need six iterations from where the three SDs as a whole are near."""
    rng = np.random.default_rng(0)
    g = rng.integers(0, 30, 600)
    x, z = rng.normal(size=(2, 600))
    b = rng.normal(size=(30, 3)) * (0.5, 0.3, 0.2)
    y = rng.poisson(np.exp(0.3 + 0.2 * x + b[g, 0] + b[g, 1] * x + b[g, 2] * z))
    table = pd.DataFrame({"g": g, "x": x, "z": z})
    term = "(1 + x + z || g)"
    model = MixedEffectsRegressor([term], fixed_effects=["x", "z"], family="poisson")
    model.set_params(e_step="laplace").fit(table, y)
    assert model.converged_
    assert model.n_iter_ <= 5
