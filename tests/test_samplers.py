"""Monte Carlo EM by either sampler over five seeds: published maxima, quadrature, each other.

All tests of a model of published data ask one fit of each seed.
"""

from functools import cache, partial

import numpy as np
import pandas as pd
import pytest
from scipy.special import gammaln, logsumexp
from scipy.stats import norm

from sklmm import HMC, MixedEffectsRegressor
from sklmm.engine.likelihood.likelihood import Likelihood
from tests.frozen.record import parameters
from tests.published import DATA, QUADRATURE, fitted, fixed

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


def by_quadrature(model, X, y, weights):
    """log p(y) of a model with one random intercept, by the trapezoidal rule on each level."""
    like = Likelihood.of(model._fitted.family)
    plain = model.intercept_ + X.drop(columns=X.columns[0]).to_numpy(float) @ model.coef_
    u, step = np.linspace(-8, 8, 1601, retstep=True)
    eta = plain[:, None] + model.variance_components_["sd"][0] * u
    rows = np.asarray(like.log_prob(np.asarray(y, float), eta, np.zeros((0, len(u)))))
    rows = rows * np.asarray(weights)[:, None]
    levels = X.iloc[:, 0].to_numpy()
    sums = np.stack([rows[levels == j].sum(axis=0) for j in np.unique(levels)])
    return logsumexp(sums + norm.logpdf(u) + np.log(step), axis=1).sum()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", ["cbpp", "epil2"])
def test_the_log_likelihood_is_within_its_error_of_quadrature(name, seed):
    model, (_, X, y, weights) = sampled(name, "tensorflow", random_state=seed), DATA[name]()
    size = np.ones(len(y)) if weights is None else np.asarray(weights)
    constant = 0.0
    if name == "cbpp":
        k = np.round(size * y)
        constant = np.sum(gammaln(size + 1) - gammaln(k + 1) - gammaln(size - k + 1))
    expected = by_quadrature(model, X, y, size) + constant
    assert 0 < model.loglik_error_ < 0.05
    assert abs(model.loglik_ - expected) < 3 * model.loglik_error_


@pytest.mark.parametrize("name", ["wine", "toenail"])
def test_the_log_likelihood_is_within_its_error_of_the_published_maximum(reference, name):
    entry = reference[QUADRATURE[name][0]]
    for seed in range(3):
        model = sampled(name, "tensorflow", random_state=seed)
        assert model.loglik_error_ < 0.1
        # Estimates off by a twentieth of a standard error lose a thousandth a parameter.
        assert abs(model.loglik_ - entry["logLik"]) < 3 * model.loglik_error_ + 5e-3


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
