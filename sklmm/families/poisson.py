"""The Poisson family of counts."""

# ruff: noqa: D102 - what each property of a density is, `Density` says once.

import numpy as np
from scipy.special import pdtr

from sklmm.families.base import Family, Response, numeric
from sklmm.families.density import PositiveMean
from sklmm.families.links import Log
from sklmm.families.special import LOG_2PI, beyond, less_exp, stirling


class PoissonDensity(PositiveMean):
    """y ~ Poisson(mu)."""

    _first = property(lambda d: d.y - d._mu)
    _second = property(lambda d: -d._mu)
    _mean = property(lambda d: d._mu)
    observed_slope = property(lambda d: d._mu if isinstance(d.link, Log) else None)

    @property
    def value(self):
        xp, count = self.xp, self.xp.maximum(self.y, 1.0)
        log_count = xp.log(count)
        fit = count * less_exp(xp, self._log_mu - log_count)
        counted = fit - 0.5 * (LOG_2PI + log_count) - stirling(xp, count)
        return xp.where(self.y > 0, counted, -self._mu)

    def at_zero(self, pick):
        return -pick(self._mu)

    @property
    def value_and_score(self):
        # With one exponential a row, where `value` takes another so that large counts cancel.
        xp, value = self.xp, self.y * self._log_mu - self.xp.log_gamma(self.y + 1) - self._mu
        if xp.some(self._log_mu > xp.largest_log(self._log_mu)):
            value = value - self._mu * beyond(xp, self._log_mu)
        return value, self.score


class Count(Family):
    """A family of nonnegative whole numbers."""

    links = ("log", "sqrt", "identity")
    positive = True
    support = (0.0, np.inf)
    zeros = "mixture"

    @property
    def separable(self):
        """By the link, as the others' means reach 0 at a finite eta."""
        return self.link == "log"

    def steps(self, params):
        """1: they are whole numbers."""
        return 1.0

    def bind(self, y, weights=None):
        """The `Response` in y, nonnegative whole numbers."""
        y, weights = numeric(self, y, weights)
        good = (y >= 0) & (y == np.floor(y))
        remedy = "round it, or use 'gamma' or 'gaussian' for a continuous response."
        self._require(y, good, "a count (a nonnegative whole number)", remedy)
        return Response(self, y, weights)


class Poisson(Count):
    """Poisson counts: y ~ Poisson(mu), Var[y] = mu.

    Parameters
    ----------
    link : {"log", "sqrt", "identity"}, default="log"
        log mu = eta, mu = eta^2, or mu = eta where that is positive.

    References
    ----------
    McCullagh & Nelder (1989), Generalized Linear Models, ch. 6.

    Examples
    --------
    >>> from sklmm.families import Poisson
    >>> float(Poisson(link="sqrt").mean(3.0, {}))
    9.0
    """

    name = "poisson"
    density = PoissonDensity

    def __init__(self, link="log"):
        self.link = link

    def variance(self, eta, params):
        """mu."""
        return self._mu(eta)

    def sample(self, eta, params, rng):
        """Counts."""
        return poisson(self._mu(eta), rng)

    def _cdf(self, y, eta, params):
        return pdtr(y, self._mu(eta))


def poisson(mu, rng):
    """Poisson counts of mean mu."""
    # NumPy's generator has no counts beyond int64's.
    return rng.poisson(np.minimum(mu, 1e18)).astype(float)
