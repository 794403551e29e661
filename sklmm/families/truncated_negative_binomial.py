"""The zero-truncated negative binomial family of overdispersed positive counts."""

# ruff: noqa: D102 - what each property of a density is, `Density` says once.

from functools import cached_property

import numpy as np

from sklmm.families.links import Cloglog
from sklmm.families.negative_binomial import NegativeBinomialDensity, counted
from sklmm.families.poisson import poisson
from sklmm.families.rising import log1p_less
from sklmm.families.special import exp
from sklmm.families.truncated_poisson import PositiveCount

#: The least odds that are divided by, and those up to which a difference would cancel.
_LEAST = 1e-30
_FEW = 0.1


class TruncatedNegativeBinomialDensity(NegativeBinomialDensity):
    """A negative binomial density over 1 - p0, where p0 = exp(-s), s = log(1 + odds) / dispersion.

    The odds are dispersion mu: log s is log mu and a function of their logarithm, with the
    derivatives `_turn`, between -1 and 0, and `_bent`. The derivatives of log(1 - p0) in log s are
    those of a complementary log-log link. `_mean` is the information.
    """

    _positive = cached_property(lambda d: d.xp.maximum(d._odds, _LEAST))
    _log_spread = cached_property(lambda d: d.xp.log1p(d._positive))
    _less = cached_property(lambda d: log1p_less(d.xp, d._positive))
    #: 1 + `_turn`.
    _rise = cached_property(lambda d: d._positive / d._spread / d._log_spread)
    _bent = cached_property(lambda d: d._rise * d._less / d._spread / d._log_spread)

    @cached_property
    def _turn(self):
        few = self.xp.minimum(self._positive, _FEW)
        near = -(few * (few / (1 + few)) + self._less) / self._log_spread
        return self.xp.where(self._positive < _FEW, near, self._rise - 1)

    @cached_property
    def _counts(self):
        """The link of P(y > 0) at log s."""
        return Cloglog(self.xp, self._log_mu + self.xp.log(self._log_spread / self._positive))

    @cached_property
    def _bend_of_counts(self):
        """The second derivative of log P(y > 0) in log mu."""
        counts = self._counts
        return counts.bend_one * self._rise**2 + counts.slope_one * self._bent

    @property
    def _first(self):
        return (self.y - self._mu) / self._spread - self._counts.slope_one * self._rise

    @property
    def _second(self):
        whole = -(self._mu / self._spread) * ((1 + self.dispersion * self.y) / self._spread)
        return whole - self._bend_of_counts

    @property
    def _mean(self):
        mean = exp(self.xp, self._log_mu - self._counts.log_one)
        whole = (self._mu / self._spread) * ((1 + self.dispersion * mean) / self._spread)
        return whole + self._bend_of_counts

    @property
    def value(self):
        return NegativeBinomialDensity.value.fget(self) - self._counts.log_one

    @property
    def value_and_score(self):
        value, whole = NegativeBinomialDensity.value_and_score.fget(self)
        score = whole - self._counts.slope_one * self._rise * self.link.slope
        return value - self._counts.log_one, score

    @property
    def slopes(self):
        return {"dispersion": self._by_dispersion - self._counts.slope_one * self._turn}

    @property
    def second(self):
        counts = self._counts
        mixed = counts.bend_one * self._rise * self._turn + counts.slope_one * self._bent
        inner = counts.bend_one * self._turn**2 + counts.slope_one * self._bent
        in_eta = {"dispersion": (self._bend_by_both + mixed) * self.link.slope}
        return in_eta, {("dispersion", "dispersion"): self._bend_by_dispersion + inner}


class TruncatedNegativeBinomial(PositiveCount):
    """Zero-truncated overdispersed counts: a `NegativeBinomial` y (NB2) given that y > 0.

    E[y] = mu / (1 - (1 + dispersion mu)^(-1 / dispersion)), which is what `predict` says: eta is
    the log mean of the count that is not truncated, as in R's
    ``glmmTMB(family = truncated_nbinom2)``, whose ``sigma()`` is 1 / dispersion.

    Parameters
    ----------
    link : {"log", "sqrt", "identity"}, default="log"
        log mu = eta, mu = eta^2, or mu = eta where that is positive.
    dispersion : float, optional
        Pins the dispersion instead of estimating it.

    References
    ----------
    Cameron & Trivedi (2013), Regression Analysis of Count Data, 2nd ed., sec. 4.3.

    Examples
    --------
    >>> from sklmm.families import TruncatedNegativeBinomial
    >>> round(float(TruncatedNegativeBinomial().mean(0.0, {"dispersion": 1.0})), 4)
    2.0
    """

    name = "truncated_negative_binomial"
    density = TruncatedNegativeBinomialDensity
    scalars = ("dispersion",)
    bound = ("dispersion", "truncated_poisson")
    dispersion_parameter = "dispersion"

    def __init__(self, link="log", dispersion=None):
        self.link = link
        self.dispersion = dispersion

    def _some(self, eta, params):
        """mu, above 0, and -log p0."""
        mu = np.maximum(self._mu(eta), np.finfo(float).tiny)
        return mu, np.log1p(params["dispersion"] * mu) / params["dispersion"]

    def mean(self, eta, params):
        """mu / (1 - p0), 1 at mu = 0."""
        mu, s = self._some(eta, params)
        return mu / -np.expm1(-s)

    def variance(self, eta, params):
        """m (1 + mu (1 + dispersion) - m), m the mean."""
        mean, mu = self.mean(eta, params), self._mu(eta)
        return mean * np.maximum(mu * (1 + params["dispersion"]) - (mean - 1), 0.0)

    def sample(self, eta, params, rng):
        """Counts: of a Poisson process with a gamma rate the first event, and those after it."""
        (mu, s), dispersion = self._some(eta, params), params["dispersion"]
        survived = np.log1p(np.expm1(-s) * rng.random(np.shape(mu)))
        first = np.minimum(np.expm1(-dispersion * survived) / (dispersion * mu), 1.0)
        shape = 1 / dispersion
        rate = mu * rng.gamma(shape + 1, size=np.shape(mu)) / (shape + mu * first)
        return 1 + poisson(rate * (1 - first), rng)

    def _cdf(self, y, eta, params):
        mu, s = self._some(eta, params)
        dispersion = params["dispersion"]
        more = counted(y, 1 / dispersion, dispersion * mu, above=True)
        return 1 - more / -np.expm1(-s)
