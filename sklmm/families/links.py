"""Links: each once, its mean for predictions, and for densities log means and their derivatives.

A link is made of a namespace and eta; it computes what it is asked for, once.
"""

# ruff: noqa: D102 - what each property is, `PositiveLink` and `ShareLink` say once.

import math
from functools import cached_property

import numpy as np
from scipy.special import logit, ndtri

from sklmm.families.special import NUMPY, beyond, exp, mills_bend, mills_fall

#: |eta| of a square root, and eta of a mean or its inverse, below which its logarithm goes on as a
#: constant and as a parabola.
_SMALLEST_ROOT = 1e-8
_SMALLEST = 1e-6
#: eta of a complementary log-log from which on its series is not exact to the last digit.
_RARE = -8.0


class Link:
    """g at eta; `mean` is mu = g^-1(eta).

    What an average of mu over a normal eta is made by: mu, and moments that are made of it, are
    analytic within `strip` of the real line, or on either side of an `edge`; they grow no faster
    than exp(growth * eta).
    """

    strip, growth, edge = math.pi / 2, 0.0, None

    def __init__(self, xp, eta):
        self.xp, self.eta = xp, eta


class PositiveLink(Link):
    """Of a mean mu > 0: log mu, and its derivatives `slope` and `bend` in eta."""


class ShareLink(Link):
    """Of a probability mu: log mu and log(1 - mu), their derivatives in eta.

    log_one, slope_one, bend_one; log_zero, slope_zero, bend_zero; and bend, mu'' / mu'. twist_one
    and twist_zero, third derivatives, are None where differences are to tell them.
    """

    twist_one = twist_zero = None


class Identity(PositiveLink):
    """mu = eta, whose log goes on as its parabola: a step may leave the positive numbers."""

    edge = 0.0
    of = staticmethod(lambda mean: mean)
    mean = property(lambda g: g.eta)
    _above = cached_property(lambda g: g.xp.maximum(g.eta, _SMALLEST))
    _below = cached_property(lambda g: g.xp.minimum(g.eta / _SMALLEST - 1, 0.0))
    log_mean = property(lambda g: g.xp.log(g._above) + g._below - 0.5 * g._below**2)
    slope = cached_property(lambda g: (1 - g._below) / g._above)
    bend = property(lambda g: -1 / g._above**2)


class Inverse(Identity):
    """mu = 1 / eta."""

    edge = _SMALLEST
    of = staticmethod(lambda mean: 1 / mean)
    mean = property(lambda g: 1 / g._above)
    log_mean = property(lambda g: 0.5 * g._below**2 - g._below - g.xp.log(g._above))
    slope = cached_property(lambda g: (g._below - 1) / g._above)
    bend = property(lambda g: 1 / g._above**2)


class InverseSquared(Inverse):
    """mu = 1 / sqrt(eta): log mu is half of that by the inverse link."""

    of = staticmethod(lambda mean: mean**-2.0)
    mean = property(lambda g: g._above**-0.5)
    log_mean = property(lambda g: 0.5 * Inverse.log_mean.fget(g))
    slope = cached_property(lambda g: 0.5 * (g._below - 1) / g._above)
    bend = property(lambda g: 0.5 / g._above**2)


class Log(PositiveLink):
    """mu = exp eta."""

    growth = 3.0
    of = staticmethod(np.log)
    mean = property(lambda g: exp(g.xp, g.eta))
    log_mean = property(lambda g: g.eta)
    slope, bend = 1.0, 0.0


class Sqrt(PositiveLink):
    """mu = eta^2."""

    edge = 0.0
    of = staticmethod(np.sqrt)
    mean = property(lambda g: g.eta**2)
    _size = cached_property(lambda g: g.xp.maximum(g.xp.abs(g.eta), _SMALLEST_ROOT))
    log_mean = property(lambda g: 2 * g.xp.log(g._size))
    slope = cached_property(lambda g: g.xp.where(g.eta < 0, -2 / g._size, 2 / g._size))
    bend = property(lambda g: -2 / g._size**2)


class Logit(ShareLink):
    """mu = 1 / (1 + exp(-eta)); everything from one exponential."""

    strip = math.pi
    of = staticmethod(logit)
    mean = property(lambda g: g.xp.expit(g.eta))
    _z = cached_property(lambda g: g.xp.exp(-g.xp.abs(g.eta)))
    _log1p = cached_property(lambda g: g.xp.log1p(g._z))
    log_one = property(lambda g: g.xp.minimum(g.eta, 0.0) - g._log1p)
    log_zero = property(lambda g: -g.xp.maximum(g.eta, 0.0) - g._log1p)
    slope_one = cached_property(lambda g: g.xp.where(g.eta < 0, 1.0, g._z) / (1 + g._z))
    slope_zero = cached_property(lambda g: -g.xp.where(g.eta < 0, g._z, 1.0) / (1 + g._z))
    bend_one = cached_property(lambda g: -g._z / (1 + g._z) ** 2)
    bend_zero = property(lambda g: g.bend_one)
    twist_one = property(lambda g: g.bend_one * (g.slope_one + g.slope_zero))
    twist_zero = property(lambda g: g.twist_one)
    bend = property(lambda g: g.slope_one + g.slope_zero)


class Probit(ShareLink):
    """mu = Phi(eta), which is entire, but grows away from the real line."""

    strip = 2.0
    of = staticmethod(ndtri)
    mean = property(lambda g: g.xp.ndtr(g.eta))
    log_one = property(lambda g: g.xp.log_ndtr(g.eta))
    log_zero = property(lambda g: g.xp.log_ndtr(-g.eta))
    slope_one = cached_property(lambda g: g.xp.mills(g.eta))
    slope_zero = cached_property(lambda g: -g.xp.mills(-g.eta))
    bend_one = property(lambda g: -mills_fall(g.xp, g.eta, g.slope_one))
    bend_zero = property(lambda g: -mills_fall(g.xp, -g.eta, -g.slope_zero))
    twist_one = property(lambda g: mills_bend(g.xp, g.eta, g.slope_one))
    twist_zero = property(lambda g: -mills_bend(g.xp, -g.eta, -g.slope_zero))
    bend = property(lambda g: -g.eta)


class Cloglog(ShareLink):
    """mu = 1 - exp(-rate), rate = exp eta; rare events by their series."""

    of = staticmethod(lambda mean: np.log(-np.log1p(-mean)))
    _rare = cached_property(lambda g: g.eta < _RARE)
    _rate = cached_property(lambda g: exp(g.xp, g.eta))
    _safe = cached_property(lambda g: g.xp.maximum(g._rate, math.exp(_RARE)))
    _common = cached_property(lambda g: -g.xp.expm1(-g._safe))
    mean = property(lambda g: -g.xp.expm1(-g._rate))
    log_zero = property(lambda g: -g._rate * (1 + beyond(g.xp, g.eta)))
    slope_zero = cached_property(lambda g: -g._rate)
    bend_zero = property(lambda g: -g._rate)
    bend = property(lambda g: 1 - g._rate)

    @property
    def log_one(self):
        rare = self.eta - self._rate / 2 + self._rate**2 / 24
        return self.xp.where(self._rare, rare, self.xp.log(self._common))

    @cached_property
    def slope_one(self):
        """rate / (exp(rate) - 1)."""
        rare = 1 - self._rate / 2 + self._rate**2 / 12
        return self.xp.where(self._rare, rare, self._safe * self.xp.exp(-self._safe) / self._common)

    @property
    def bend_one(self):
        rate = self._rate
        series = -rate / 2 - rate**2 / 12 + rate**4 / 720
        return self.slope_one * self.xp.where(rate < 1e-2, series, 1 - rate - self.slope_one)


class Loglog(Link):
    """mu = exp(-exp(-eta)), of ordered classes."""

    mean = property(lambda g: g.xp.exp(-exp(g.xp, -g.eta)))


class Cauchit(Link):
    """mu = 1 / 2 + arctan(eta) / pi, of ordered classes."""

    strip = 1.0
    mean = property(lambda g: g.xp.atan2(1.0, -g.eta) / math.pi)


LINKS = {
    "identity": Identity,
    "log": Log,
    "sqrt": Sqrt,
    "inverse": Inverse,
    "inverse_squared": InverseSquared,
    "logit": Logit,
    "probit": Probit,
    "cloglog": Cloglog,
    "loglog": Loglog,
    "cauchit": Cauchit,
}


def inverse_link(link, eta):
    """g^-1(eta) of the link's name, in NumPy."""
    return LINKS[link](NUMPY, eta).mean
