"""The zero-truncated Poisson family of positive counts."""

# ruff: noqa: D102 - what each property of a density is, `Density` says once.

from functools import cached_property

import numpy as np
from scipy.special import pdtrc

from sklmm.families.base import Response
from sklmm.families.links import Cloglog
from sklmm.families.poisson import Count, PoissonDensity, poisson


class TruncatedPoissonDensity(PoissonDensity):
    """A Poisson density over 1 - exp(-mu): with the log link the canonical one of its own."""

    observed_slope = None

    #: Of P(y > 0), whose complementary log-log is log mu.
    _some = cached_property(lambda d: Cloglog(d.xp, d._log_mu))
    _first = property(lambda d: d.y - d._mu - d._some.slope_one)
    _second = property(lambda d: -d._mean)
    _mean = cached_property(lambda d: d._mu + d._some.bend_one)
    value = property(lambda d: PoissonDensity.value.fget(d) - d._some.log_one)

    @property
    def value_and_score(self):
        value, _ = PoissonDensity.value_and_score.fget(self)
        return value - self._some.log_one, self.score


class PositiveCount(Count):
    """A family of counts without zeros, mu the mean of those with them."""

    least = 1
    support = (1.0, np.inf)
    zeros = "hurdle"

    def bind(self, y, weights=None):
        """The `Response` in y, positive whole numbers."""
        response = super().bind(y, weights)
        remedy = (
            "drop the row, or give zeros a model of their own by zero_inflation=, which makes "
            "this family that of a hurdle model's positive counts."
        )
        self._require(response.y, response.y > 0, "a positive whole number", remedy)
        return Response(self, response.y, response.weights)


class TruncatedPoisson(PositiveCount):
    """Zero-truncated Poisson counts: y ~ Poisson(mu) given that y > 0.

    E[y] = mu / (1 - exp(-mu)), which is what `predict` says: eta is the log mean of the count that
    is not truncated, as in R's ``glmmTMB(family = truncated_poisson)``.

    Parameters
    ----------
    link : {"log", "sqrt", "identity"}, default="log"
        log mu = eta, mu = eta^2, or mu = eta where that is positive.

    References
    ----------
    Cameron & Trivedi (2013), Regression Analysis of Count Data, 2nd ed., sec. 4.3.

    Examples
    --------
    >>> from sklmm.families import TruncatedPoisson
    >>> round(float(TruncatedPoisson().mean(0.0, {})), 4)
    1.582
    """

    name = "truncated_poisson"
    density = TruncatedPoissonDensity

    def __init__(self, link="log"):
        self.link = link

    def mean(self, eta, params):
        """mu / (1 - exp(-mu)), 1 at mu = 0."""
        mu = np.maximum(self._mu(eta), np.finfo(float).tiny)
        return mu / -np.expm1(-mu)

    def variance(self, eta, params):
        """m (1 + mu - m), m the mean."""
        mean = self.mean(eta, params)
        return mean * np.maximum(self._mu(eta) - (mean - 1), 0.0)

    def sample(self, eta, params, rng):
        """Counts: of a Poisson process the first event, and those after it."""
        mu = self._mu(eta)
        first = -np.log1p(np.expm1(-mu) * rng.random(np.shape(mu)))
        return 1 + poisson(np.maximum(mu - first, 0.0), rng)

    def _cdf(self, y, eta, params):
        mu = np.maximum(self._mu(eta), np.finfo(float).tiny)
        return 1 - pdtrc(y, mu) / -np.expm1(-mu)
