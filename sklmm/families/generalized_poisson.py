"""The generalized Poisson family of overdispersed counts."""

# ruff: noqa: D102 - what each property of a density is, `Density` says once.

from functools import cached_property
from numbers import Real

import numpy as np
from scipy.special import gammaln

from sklmm.families.cumulated import cumulated
from sklmm.families.density import HeldMean
from sklmm.families.poisson import Count, PoissonDensity, poisson


class GeneralizedPoissonDensity(HeldMean):
    """f(y) = theta m^(y - 1) exp(-m) / y!, where theta = s mu, m = theta + (1 - s) y, 0 < s < 1.

    That is theta / m times the Poisson density at a rate of m; Var[y] = mu / s^2. Where y is 0 m is
    theta, whose logarithm goes on where it is 0 itself: y / m is 0 and theta / m is 1 there.
    """

    _counted = property(lambda d: d.y > 0)
    _s = cached_property(lambda d: (1 + d.dispersion) ** -0.5)
    _pull = cached_property(lambda d: d.dispersion * d._s**2 / (1 + d._s))
    _theta = cached_property(lambda d: d._s * d._mu)
    _log_theta = cached_property(lambda d: d._log_mu - 0.5 * d.xp.log1p(d.dispersion))
    _some = cached_property(lambda d: d.xp.where(d._counted, d._theta + d._pull * d.y, 1.0))
    _log_m = cached_property(lambda d: d.xp.where(d._counted, d.xp.log(d._some), d._log_theta))
    #: y / m, theta / m, and y - m.
    _share = cached_property(lambda d: d.y / d._some)
    _own = cached_property(lambda d: d.xp.where(d._counted, d._theta / d._some, 1.0))
    _away = cached_property(lambda d: d._s * (d.y - d._mu))
    _first = cached_property(lambda d: d._pull * d._share + d._own * d._away)
    _second = property(lambda d: d._own * (d._pull * d._share * (d._away - 1) - d._theta))

    @property
    def _mean(self):
        theta, pull = self._theta, self._pull
        return theta * (1 - pull * (theta / (theta + 2 * pull)))

    @property
    def value(self):
        poisson = PoissonDensity(self.xp, self.y, self._log_m, {}, "log")
        return poisson.value + (self._log_theta - self._log_m) - self._theta * self._past

    @property
    def value_and_score(self):
        # With one exponential and one logarithm a row, where `value` takes another of each.
        xp, m = self.xp, self._theta + self._pull * self.y
        value = (self.y - 1) * self._log_m + self._log_theta - m - xp.log_gamma(self.y + 1)
        return value - self._theta * self._past, self.score

    #: Less the derivative of s in the dispersion's logarithm.
    _fall = cached_property(lambda d: 0.5 * d.dispersion * d._s**3)

    @cached_property
    def _by_dispersion(self):
        return self._fall / self._s * ((self._share - 1) * (self._away - 1) - 1)

    slopes = property(lambda d: {"dispersion": d._by_dispersion})

    @property
    def second(self):
        s, fall, away, share = self._s, self._fall, self._away, self._share
        mixed = self._own * share * (away - 1) + (share - 1) * self._theta
        g = (share - 1) / s
        inner = (g * (g * (away - 1) + away / s) + 1 / s**2) * fall**2
        inner = inner - (1 - 3 * fall / s) * self._by_dispersion
        in_eta = {"dispersion": fall / s * mixed * self.link.slope}
        return in_eta, {("dispersion", "dispersion"): inner}


class GeneralizedPoisson(Count):
    """Overdispersed counts (Consul's GP-1): E[y] = mu, Var[y] = mu (1 + dispersion).

    y = 0, 1, .. with probability theta (theta + lambda y)^(y - 1) exp(-theta - lambda y) / y!,
    lambda = 1 - (1 + dispersion)^-1/2 and theta = (1 - lambda) mu: the total number of a Poisson
    number of families, in which each member has a Poisson number of children. It has more mass
    near 0 and in the tail than `NegativeBinomial1` of the same variance. At dispersion 0 it is
    Poisson.

    Only overdispersion: with lambda < 0 the probabilities are negative beyond -theta / lambda, and
    where they are cut off there, they do not sum to 1 and have another mean.

    ``sigma()`` of R's ``glmmTMB(family = genpois)`` is phi = 1 + dispersion.

    Parameters
    ----------
    link : {"log", "sqrt", "identity"}, default="log"
        log mu = eta, mu = eta^2, or mu = eta where that is positive.
    dispersion : float, optional
        Pins the dispersion instead of estimating it.

    References
    ----------
    Consul & Jain (1973), "A generalization of the Poisson distribution", Technometrics 15, 791-799.

    Zamani & Ismail (2012), "Functional form for the generalized Poisson regression model", Comm.
    Stat. - Theory and Methods 41, 3666-3675.

    Examples
    --------
    >>> from sklmm.families import GeneralizedPoisson
    >>> float(GeneralizedPoisson().variance(0.0, {"dispersion": 0.5}))
    1.5
    """

    name = "generalized_poisson"
    density = GeneralizedPoissonDensity
    scalars = ("dispersion",)
    bound = ("dispersion", "poisson")
    dispersion_parameter = "dispersion"

    def __init__(self, link="log", dispersion=None):
        self.link = link
        self.dispersion = dispersion

    def check(self):
        """Raise ValueError for parameters that make no family."""
        if isinstance(self.dispersion, Real) and self.dispersion < 0:
            raise self._error(
                f"dispersion={self.dispersion!r} must be positive: with a variance below the mean "
                "its probabilities are cut off beyond a largest count and do not sum to 1; use "
                "'poisson', whose standard errors are then too large."
            )
        super().check()

    def variance(self, eta, params):
        """mu (1 + dispersion)."""
        return self._mu(eta) * (1 + params["dispersion"])

    def sample(self, eta, params, rng):
        """Counts: all generations of a branching process."""
        s = (1 + np.asarray(params["dispersion"], float)) ** -0.5
        born = poisson(s * self._mu(eta), rng)
        total, rate = np.array(born).ravel(), np.broadcast_to(1 - s, np.shape(born)).ravel()
        living = np.flatnonzero(total)
        born = total[living]
        while len(living):
            born = poisson(rate[living] * born, rng)
            living, born = living[born > 0], born[born > 0]
            total[living] += born
        return total.reshape(np.shape(eta))

    def _cdf(self, y, eta, params):
        s = (1 + np.asarray(params["dispersion"], float)) ** -0.5
        mu = np.maximum(self._mu(eta), np.finfo(float).tiny)
        theta, pull = s * mu, 1 - s

        def log_probability(count):
            rate = theta + pull * count
            return np.log(theta) + (count - 1) * np.log(rate) - rate - gammaln(count + 1)

        return cumulated(log_probability, y, mu, np.sqrt(mu) / s)
