"""The negative binomial family whose variance is a multiple of the mean."""

# ruff: noqa: D102 - what each property of a density is, `Density` says once.

from functools import cached_property

import numpy as np

from sklmm.families.density import HeldMean
from sklmm.families.negative_binomial import NegativeBinomialDensity, counted
from sklmm.families.poisson import Count, poisson

#: The least sum of size and mean that a number is divided by.
_LEAST = 1e-30


class NegativeBinomial1Density(HeldMean, NegativeBinomialDensity):
    """The negative binomial of size mu / dispersion: its own dispersion is `dispersion` / mu.

    `_mean` is the quasi-information mu^2 / Var[y], of which the information is a little more.
    """

    _log_size = cached_property(lambda d: d._log_mu - d.xp.log(d.dispersion))
    _size = cached_property(lambda d: d._mu / d.dispersion)
    _odds = property(lambda d: d.dispersion)
    _first = property(lambda d: d._rising[1])
    _log_spread = cached_property(lambda d: d.xp.log1p(d.dispersion))
    value_and_score = property(lambda d: (d.value, d.score))
    _mean = property(lambda d: d._mu / d._spread)

    @property
    def _second(self):
        in_mean = (self._mu + self.dispersion * self.y) / self._spread**2
        return 2 * self._bend_by_both - in_mean - self._bend_by_dispersion

    @cached_property
    def _gap(self):
        xp, total = self.xp, self._size * self._spread
        q = (self.y - self._mu) / xp.maximum(total, _LEAST)
        ratio = self._at_total.log_x - self._log_size - self._log_spread
        near = xp.log1p(xp.minimum(xp.maximum(q, -0.5), 0.5))
        return q, xp.where(xp.abs(q) < 0.5, near, ratio)

    @cached_property
    def _rising(self):
        """Log of the rising factorial and its derivative in log mu, with those of y = 0."""
        logs, slope = self.xp.rising(self._size, self._log_size, self.y)
        none = self._mu * (self._log_spread / self.dispersion)
        return logs - none * (1 + self._past), slope - none

    @property
    def value(self):
        share = self.xp.log(self.dispersion) - self._log_spread
        return self._rising[0] + (self.y * share - self.xp.log_gamma(self.y + 1))

    @property
    def second(self):
        inner = self._bend_by_dispersion
        in_eta = {"dispersion": (self._bend_by_both - inner) * self.link.slope}
        return in_eta, {("dispersion", "dispersion"): inner}


class NegativeBinomial1(Count):
    """Overdispersed counts (NB1): E[y] = mu, Var[y] = mu (1 + dispersion).

    A Poisson count whose rate is gamma distributed with mean mu and scale `dispersion`; the
    variance is the same multiple of every mean, where that of `NegativeBinomial` is quadratic. At
    dispersion 0 it is Poisson.

    The dispersion is ``sigma()`` of R's ``glmmTMB(family = nbinom1)``.

    Parameters
    ----------
    link : {"log", "sqrt", "identity"}, default="log"
        log mu = eta, mu = eta^2, or mu = eta where that is positive.
    dispersion : float, optional
        Pins the dispersion instead of estimating it.

    References
    ----------
    Hardin & Hilbe (2018), Generalized Linear Models and Extensions, 4th ed., ch. 13.

    Examples
    --------
    >>> from sklmm.families import NegativeBinomial1
    >>> float(NegativeBinomial1().variance(0.0, {"dispersion": 0.5}))
    1.5
    """

    name = "nbinom1"
    density = NegativeBinomial1Density
    scalars = ("dispersion",)
    bound = ("dispersion", "poisson")
    dispersion_parameter = "dispersion"

    def __init__(self, link="log", dispersion=None):
        self.link = link
        self.dispersion = dispersion

    def variance(self, eta, params):
        """mu (1 + dispersion)."""
        return self._mu(eta) * (1 + params["dispersion"])

    def sample(self, eta, params, rng):
        """Counts."""
        scale = params["dispersion"]
        return poisson(rng.gamma(self._mu(eta) / scale) * scale, rng)

    def _cdf(self, y, eta, params):
        scale = params["dispersion"]
        shape = np.maximum(self._mu(eta) / scale, np.finfo(float).tiny)
        return counted(y, shape, scale)
