"""The lognormal family by its mean and its SD, of which the same SD holds at every mean."""

# ruff: noqa: D102 - what each property of a density is, `Density` says once.

from functools import cached_property

import numpy as np
from scipy.special import ndtr

from sklmm.families.base import Family, Response, numeric
from sklmm.families.density import Density
from sklmm.families.special import LOG_2PI

#: Logarithms of means beyond which their squares are no numbers.
_MOST = 300.0


class LogNormalMeanDensity(Density):
    """log y ~ N(m, v), v = log(1 + sd^2 exp(-2 eta)), m = eta - v / 2.

    With w = expit(2 log sd - 2 eta), eta moves (m, v) by (1 + w, -2 w), and log sd by (-w, 2 w);
    w itself falls by 2 w (1 - w) with eta, and rises so with log sd. `expected` is the information.
    """

    # Rows of zeros pad tensors.
    _log_y = cached_property(lambda d: d.xp.log(d.xp.where(d.y > 0, d.y, 1.0)))
    _w = cached_property(lambda d: d.xp.expit(d._odds))
    _rest = cached_property(lambda d: d._log_y - d.eta + 0.5 * d._v)
    _of_m = cached_property(lambda d: d._rest / d._v)
    _of_v = cached_property(lambda d: 0.5 * (d._of_m**2 - 1 / d._v))
    _curl = property(lambda d: 2 * d._w * (1 - d._w) * (d._of_m - 2 * d._of_v))
    _in_eta = property(lambda d: (1 + d._w, -2 * d._w))
    _in_sd = property(lambda d: (-d._w, 2 * d._w))

    @cached_property
    def _odds(self):
        xp, odds = self.xp, 2 * (self.xp.log(self.sd) - self.eta)
        return xp.maximum(odds, -0.5 * xp.largest_log(odds))

    @cached_property
    def _v(self):
        xp, odds = self.xp, self._odds
        return xp.maximum(odds, 0.0) + xp.log1p(xp.exp(-xp.abs(odds)))

    @property
    def value(self):
        fit = self._rest * self._of_m + self.xp.log(self._v)
        return -0.5 * (fit + LOG_2PI) - self._log_y

    def _along(self, one):
        return self._of_m * one[0] + self._of_v * one[1]

    def _bend(self, one, other):
        """Less the second derivative in m and v along two directions."""
        v, m = self._v, self._of_m
        in_v = (m**2 - 0.5 / v) / v
        mixed = one[0] * other[1] + one[1] * other[0]
        return one[0] * other[0] / v + mixed * m / v + one[1] * other[1] * in_v

    score = cached_property(lambda d: d._along(d._in_eta))
    observed = property(lambda d: d._bend(d._in_eta, d._in_eta) + d._curl)
    expected = property(lambda d: (1 + d._w) ** 2 / d._v + 2 * (d._w / d._v) ** 2)
    slopes = property(lambda d: {"sd": d._along(d._in_sd)})

    @property
    def second(self):
        mixed = self._bend(self._in_eta, self._in_sd) - self._curl
        twice = self._bend(self._in_sd, self._in_sd) + self._curl
        return {"sd": mixed}, {("sd", "sd"): twice}


class LogNormalMean(Family):
    """Lognormal response by its mean exp(eta) and its SD, which is the same at every mean.

    It is the ``lognormal`` of R's glmmTMB 1.1.6 and later, and `sd` its ``sigma()``. `LogNormal`,
    whose logarithm has the same SD everywhere, is fitted in closed form.

    Parameters
    ----------
    link : {"log"}, default="log"
    sd : float, optional
        Pins the SD of y (in units of y) instead of estimating it.

    References
    ----------
    Brooks et al. (2017), "glmmTMB balances speed and flexibility among packages for zero-inflated
    generalized linear mixed modeling", The R Journal 9, 378-400.

    Examples
    --------
    >>> from sklmm.families import LogNormalMean
    >>> float(LogNormalMean().variance(0.0, {"sd": 0.5}))
    0.25
    """

    name = "lognormal_mean"
    density = LogNormalMeanDensity
    dispersion_parameter = "sd"
    zeros = "hurdle"
    scalars = ("sd",)
    links = ("log",)
    positive = True
    support = (0.0, np.inf)

    def __init__(self, link="log", sd=None):
        self.link = link
        self.sd = sd

    def bind(self, y, weights=None):
        """The `Response` in y, positive numbers."""
        y, weights = numeric(self, y, weights)
        self._require(y, y > 0, "positive", "drop the row, or use 'gaussian'.")
        return Response(self, y, weights)

    def variance(self, eta, params):
        """sd^2."""
        return np.broadcast_to(np.square(params["sd"], dtype=float), np.shape(eta))

    def sample(self, eta, params, rng):
        """Draws of y given eta."""
        mean, sd = self._logs(eta, params)
        return np.exp(rng.normal(mean, sd))

    def _cdf(self, y, eta, params):
        mean, sd = self._logs(eta, params)
        return ndtr((np.log(y) - mean) / sd)

    @staticmethod
    def _logs(eta, params):
        """Mean and SD of log y."""
        eta = np.clip(eta, -_MOST, _MOST)
        v = np.logaddexp(0.0, 2 * (np.log(params["sd"]) - eta))
        return eta - v / 2, np.sqrt(v)
