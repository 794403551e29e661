"""The inverse Gaussian family of positive, strongly skewed responses."""

# ruff: noqa: D102 - what each property of a density is, `Density` says once.

from functools import cached_property

import numpy as np
from scipy.special import log_ndtr, ndtr

from sklmm.families.base import Family, Response, numeric
from sklmm.families.density import PositiveMean
from sklmm.families.special import LOG_2PI, exp

#: A mean whose cube is still a number.
_MOST = 1e100


class InverseGaussianDensity(PositiveMean):
    """Var[y] = dispersion mu^3, by q = y / mu.

    -2 dispersion log f is (q - 1)^2 / y and what eta does not change. Where q^2 would overflow, q
    is constant and log f a line in log mu.
    """

    # Rows of zeros pad tensors.
    _positive = cached_property(lambda d: d.xp.where(d.y > 0, d.y, 1.0))
    _log_ratio = cached_property(lambda d: d.xp.log(d._positive) - d._log_mu)
    _most = cached_property(lambda d: 0.5 * d.xp.largest_log(d._log_ratio))
    _less_one = cached_property(lambda d: d.xp.expm1(d.xp.minimum(d._log_ratio, d._most)))
    _rate = cached_property(lambda d: (1 + d._less_one) / (d._positive * d.dispersion))
    _first = cached_property(lambda d: d._rate * d._less_one)
    _second = property(lambda d: -d._rate * (1 + 2 * d._less_one))
    # Of q = 1, its mean.
    _mean = property(lambda d: exp(d.xp, -d._log_mu) / d.dispersion)

    @cached_property
    def _deviance(self):
        past = self.xp.maximum(self._log_ratio - self._most, 0.0)
        near = self._less_one * (self._less_one / (self._positive * self.dispersion))
        return near + 2 * past * self._first

    @property
    def value(self):
        xp = self.xp
        norm = LOG_2PI + xp.log(self.dispersion) + 3 * xp.log(self._positive)
        return -0.5 * (norm + self._deviance)

    @property
    def slopes(self):
        return {"dispersion": 0.5 * (self._deviance - 1)}

    @property
    def second(self):
        pairs = {("dispersion", "dispersion"): 0.5 * self._deviance}
        return {"dispersion": self.score}, pairs


class InverseGaussian(Family):
    """Positive, strongly skewed response: E[y] = mu, Var[y] = dispersion mu^3.

    The dispersion is 1 / lambda of the usual parameters mu and lambda, in units of 1 / y, as the
    summary of R's ``glm`` has it. (lme4's fits of this family have another scale, and are no
    maxima.)

    Parameters
    ----------
    link : {"log", "inverse_squared", "inverse", "identity"}, default="log"
        log mu, 1 / mu^2, 1 / mu or mu is eta, which must be positive for the last three.
    dispersion : float, optional
        Pins the dispersion instead of estimating it.

    References
    ----------
    McCullagh & Nelder (1989), Generalized Linear Models, ch. 2.

    Examples
    --------
    >>> from sklmm.families import InverseGaussian
    >>> float(InverseGaussian().variance(0.0, {"dispersion": 0.5}))
    0.5
    """

    name = "inverse_gaussian"
    density = InverseGaussianDensity
    dispersion_parameter = "dispersion"
    zeros = "hurdle"
    scalars = ("dispersion",)
    parameter_powers = (("dispersion", -1),)
    links = ("log", "inverse_squared", "inverse", "identity")
    positive = True
    support = (0.0, np.inf)

    def __init__(self, link="log", dispersion=None):
        self.link = link
        self.dispersion = dispersion

    @property
    def eta_power(self):
        """Power of y's unit that is eta's."""
        return {"identity": 1, "inverse": -1, "inverse_squared": -2}.get(self.link, 0)

    def bind(self, y, weights=None):
        """The `Response` in y, positive numbers."""
        y, weights = numeric(self, y, weights)
        self._require(y, y > 0, "positive", "drop the row, or use 'gaussian'.")
        return Response(self, y, weights)

    def variance(self, eta, params):
        """Dispersion mu^3."""
        return params["dispersion"] * np.minimum(self._mu(eta), _MOST) ** 3

    def sample(self, eta, params, rng):
        """Draws of y given eta (Michael, Schucany & Haas 1976)."""
        mu = np.minimum(self._mu(eta), _MOST)
        # The two roots of (y - mu)^2 / (mu^2 y) = dispersion chi^2, by that which does not cancel.
        half = 0.5 * params["dispersion"] * mu * rng.standard_normal(np.shape(mu)) ** 2
        share = 1 / (1 + half + np.sqrt(half * (2 + half)))
        low = rng.random(np.shape(mu)) < 1 / (1 + share)
        return mu * np.where(low, share, 1 / share)

    def _cdf(self, y, eta, params):
        mu = np.clip(self._mu(eta), 1 / _MOST, _MOST)
        y = np.maximum(y, np.finfo(float).tiny)
        root, ratio = (y * params["dispersion"]) ** -0.5, y / mu
        rest = 2 / (mu * params["dispersion"]) + log_ndtr(-root * (ratio + 1))
        return ndtr(root * (ratio - 1)) + np.exp(rest)
