"""Links: each once, its mean for predictions, and for densities log means and their derivatives.

A link is made of a namespace and eta; it computes what it is asked for.
"""

# ruff: noqa: D102 - what each property is, `PositiveLink` and `ShareLink` say once.

import math
from functools import cached_property

from sklmm.families.namespace import NUMPY
from sklmm.families.special import beyond, exp, mills_fall

#: |eta| of a square root, and eta of a mean or its inverse, below which its logarithm goes on as a
#: constant and as a parabola.
_SMALLEST_ROOT = 1e-8
_SMALLEST = 1e-6
#: eta of a complementary log-log from which on its series is not exact to the last digit.
_RARE = -8.0


class Link:
    """g at eta; `mean` is mu = g^-1(eta)."""

    def __init__(self, xp, eta):
        self.xp, self.eta = xp, eta


class PositiveLink(Link):
    """Of a mean mu > 0: log mu, and its derivatives `slope` and `bend` in eta."""


class ShareLink(Link):
    """Of a probability mu: log mu and log(1 - mu), their derivatives in eta.

    log_one, slope_one, bend_one; log_zero, slope_zero, bend_zero; and bend, mu'' / mu'.
    """


class Identity(PositiveLink):
    """mu = eta, whose log goes on as its parabola: a step may leave the positive numbers."""

    @property
    def mean(self):
        return self.eta

    @cached_property
    def _above(self):
        return self.xp.maximum(self.eta, _SMALLEST)

    @cached_property
    def _below(self):
        return self.xp.minimum(self.eta / _SMALLEST - 1, 0.0)

    @property
    def log_mean(self):
        return self.xp.log(self._above) + self._below - 0.5 * self._below**2

    @cached_property
    def slope(self):
        return (1 - self._below) / self._above

    @property
    def bend(self):
        return -1 / self._above**2


class Inverse(PositiveLink):
    """mu = 1 / eta."""

    @property
    def mean(self):
        return 1 / self.xp.maximum(self.eta, _SMALLEST)

    @cached_property
    def _eta(self):
        return Identity(self.xp, self.eta)

    @property
    def log_mean(self):
        return -self._eta.log_mean

    @cached_property
    def slope(self):
        return -self._eta.slope

    @property
    def bend(self):
        return -self._eta.bend


class Log(PositiveLink):
    """mu = exp eta."""

    slope, bend = 1.0, 0.0

    @property
    def mean(self):
        return exp(self.xp, self.eta)

    @property
    def log_mean(self):
        return self.eta


class Sqrt(PositiveLink):
    """mu = eta^2."""

    @property
    def mean(self):
        return self.eta**2

    @cached_property
    def _size(self):
        return self.xp.maximum(self.xp.abs(self.eta), _SMALLEST_ROOT)

    @property
    def log_mean(self):
        return 2 * self.xp.log(self._size)

    @cached_property
    def slope(self):
        return self.xp.where(self.eta < 0, -2 / self._size, 2 / self._size)

    @property
    def bend(self):
        return -2 / self._size**2


class Logit(ShareLink):
    """mu = 1 / (1 + exp(-eta)); everything from one exponential."""

    @property
    def mean(self):
        return self.xp.expit(self.eta)

    @cached_property
    def _z(self):
        return self.xp.exp(-self.xp.abs(self.eta))

    @cached_property
    def _log1p(self):
        return self.xp.log1p(self._z)

    @property
    def log_one(self):
        return self.xp.minimum(self.eta, 0.0) - self._log1p

    @property
    def log_zero(self):
        return -self.xp.maximum(self.eta, 0.0) - self._log1p

    @cached_property
    def slope_one(self):
        return self.xp.where(self.eta < 0, 1.0, self._z) / (1 + self._z)

    @cached_property
    def slope_zero(self):
        return -self.xp.where(self.eta < 0, self._z, 1.0) / (1 + self._z)

    @property
    def bend_one(self):
        return self.slope_one * self.slope_zero

    bend_zero = bend_one

    @property
    def bend(self):
        return self.slope_one + self.slope_zero


class Probit(ShareLink):
    """mu = Phi(eta)."""

    @property
    def mean(self):
        return self.xp.ndtr(self.eta)

    @property
    def log_one(self):
        return self.xp.log_ndtr(self.eta)

    @property
    def log_zero(self):
        return self.xp.log_ndtr(-self.eta)

    @cached_property
    def slope_one(self):
        return self.xp.mills(self.eta)

    @cached_property
    def slope_zero(self):
        return -self.xp.mills(-self.eta)

    @property
    def bend_one(self):
        return -mills_fall(self.xp, self.eta)

    @property
    def bend_zero(self):
        return -mills_fall(self.xp, -self.eta)

    @property
    def bend(self):
        return -self.eta


class Cloglog(ShareLink):
    """mu = 1 - exp(-rate), rate = exp eta."""

    @cached_property
    def _rate(self):
        return exp(self.xp, self.eta)

    @cached_property
    def _safe(self):
        return self.xp.maximum(self._rate, math.exp(_RARE))

    @cached_property
    def mean(self):
        return -self.xp.expm1(-self._rate)

    @cached_property
    def _common(self):
        return -self.xp.expm1(-self._safe)

    @property
    def log_one(self):
        rare = self.eta - self._rate / 2 + self._rate**2 / 24
        return self.xp.where(self.eta < _RARE, rare, self.xp.log(self._common))

    @property
    def log_zero(self):
        return -self._rate * (1 + beyond(self.xp, self.eta))

    @cached_property
    def slope_one(self):
        """rate / (exp(rate) - 1)."""
        xp, rate = self.xp, self._safe
        rare = 1 - self._rate / 2 + self._rate**2 / 12
        return xp.where(self.eta < _RARE, rare, rate * xp.exp(-rate) / self._common)

    @property
    def slope_zero(self):
        return -self._rate

    @property
    def bend_one(self):
        rate = self._rate
        series = -rate / 2 - rate**2 / 12 + rate**4 / 720
        return self.slope_one * self.xp.where(rate < 1e-2, series, 1 - rate - self.slope_one)

    @property
    def bend_zero(self):
        return -self._rate

    @property
    def bend(self):
        return 1 - self._rate


LINKS = {
    "identity": Identity,
    "log": Log,
    "sqrt": Sqrt,
    "inverse": Inverse,
    "logit": Logit,
    "probit": Probit,
    "cloglog": Cloglog,
}


def inverse_link(link, eta):
    """g^-1(eta) of the link's name, in NumPy."""
    return LINKS[link](NUMPY, eta).mean
