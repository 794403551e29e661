"""Monte Carlo EM by either sampler over five seeds: published maxima, quadrature, each other."""

from functools import cache, partial

import numpy as np
import pandas as pd
import pytest

from sklmm import HMC, MixedEffectsRegressor
from tests.frozen.record import parameters
from tests.published import QUADRATURE, fitted, fixed

SAMPLERS = {"numpy": HMC(backend="numpy"), "tensorflow": "hmc"}
SEEDS = range(5)
#: Monte Carlo errors that an estimate may be off; one of 200 that are compared is beyond 3.5.
MOST = 4.0
#: Standard errors that published maxima may be off.
UNSURE = 1e-3


@cache
def sampled(name, sampler, *, random_state):
    """The model of published data by a sampler, which no test may change."""
    return fitted(name, e_step=SAMPLERS[sampler], random_state=random_state)


class Runs:
    """Estimates, standard errors and Monte Carlo errors [seed, parameter] of fits by a sampler."""

    def __init__(self, fit):
        models = [fit(random_state=seed) for seed in SEEDS]
        assert all(m.converged_ for m in models)
        tables = [parameters(m) for m in models]
        self.names = list(tables[0].index)
        self.estimate, self.std = (
            np.array([t[column] for t in tables]) for column in ("estimate", "std_error")
        )
        self.error = np.array([m.mc_error_.reindex(self.names) for m in models])

    @property
    def mean(self):
        """The mean over seeds, and its Monte Carlo error."""
        return self.estimate.mean(axis=0), np.sqrt((self.error**2).sum(axis=0)) / len(self.error)

    def assert_near(self, truth):
        """Every fit and their mean are within their errors of the truth, a number by name."""
        assert set(truth.index) == set(self.names)
        truth, rest = truth.reindex(self.names).to_numpy(), UNSURE * self.std[0]
        assert np.all(np.abs(self.estimate - truth) < MOST * self.error + rest)
        mean, error = self.mean
        assert np.all(np.abs(mean - truth) < MOST * error + rest)


def assert_agree(a, b):
    """The means of two samplers' fits are within their errors of each other.

    Errors are of first order in the distance from the maximum: a coefficient that is known to 1e-6
    of its standard error, as a balanced covariate's is, has more of second order.
    """
    (mean, error), (other, its) = a.mean, b.mean
    assert np.all(np.abs(mean - other) < MOST * np.hypot(error, its) + 1e-5 * a.std[0])


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", QUADRATURE)
def test_hmc(reference, name, seed):
    """Coefficients within 0.1 standard error of the true maximum likelihood's, SDs 1.5 %."""
    model = sampled(name, "tensorflow", random_state=seed)
    assert model.converged_
    coef, std, sd = fixed(reference[QUADRATURE[name][0]])
    ours = model.fixed_effects_.loc[coef.index]
    assert np.all(np.abs(ours["estimate"] - coef) < 0.1 * std)
    np.testing.assert_allclose(ours["std_error"], std, rtol=0.03)
    tolerance = 0.06 if name == "toenail" else 0.015 * sd
    assert model.variance_components_["sd"][0] == pytest.approx(sd, abs=tolerance)


@pytest.mark.parametrize("name", ["cbpp", "wine"])
def test_nuts_agrees(reference, name):
    key = {"cbpp": "cbpp_agq25", "wine": "wine_clmm_agq25"}[name]
    model = fitted(name, e_step="nuts", random_state=0)
    coef, std, sd = fixed(reference[key])
    assert np.all(np.abs(model.fixed_effects_.loc[coef.index, "estimate"] - coef) < 0.1 * std)
    assert model.variance_components_["sd"][0] == pytest.approx(sd, rel=0.015)


@pytest.mark.slow
@pytest.mark.parametrize("name", QUADRATURE)
def test_both_samplers_find_the_maximum_that_is_published_and_quadrature_s(reference, name):
    coef, _, sd = fixed(reference[QUADRATURE[name][0]])
    exact = parameters(fitted(name, e_step="quadrature"))
    published = pd.concat([coef, pd.Series({exact.index[-1]: sd})])
    runs = [Runs(partial(sampled, name, sampler)) for sampler in SAMPLERS]
    for found in runs:
        found.assert_near(published)
        found.assert_near(exact["estimate"])
        std = exact["std_error"].reindex(found.names).to_numpy()
        np.testing.assert_allclose(found.std, np.tile(std, (len(SEEDS), 1)), rtol=0.05)
    assert_agree(*runs)


@pytest.mark.slow
def test_both_samplers_agree_on_crossed_factors():
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"g": rng.integers(0, 60, 3000), "h": rng.integers(0, 25, 3000)})
    X["x"] = rng.normal(size=3000)
    eta = 0.3 + 0.4 * X["x"] + rng.normal(0, 0.8, 60)[X["g"]] + rng.normal(0, 0.5, 25)[X["h"]]
    y = rng.poisson(np.exp(eta))

    def fit(**parameters):
        return MixedEffectsRegressor(["g", "h"], family="poisson", **parameters).fit(X, y)

    runs = [Runs(partial(fit, e_step=e_step)) for e_step in SAMPLERS.values()]
    assert_agree(*runs)
    np.testing.assert_allclose(*(r.std.mean(axis=0) for r in runs), rtol=0.05)
