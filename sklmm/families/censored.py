"""The normal family of a response that is known up to bounds: censored, or within an interval."""

# ruff: noqa: D102 - what each property of a density is, `Density` says once.

from functools import cached_property

import numpy as np
from scipy.special import ndtr

from sklmm.families.base import Family, Response, floats, row_weights
from sklmm.families.density import Density
from sklmm.families.special import LOG_2PI, mills_fall

#: Bounds beyond it are none.
_MOST = 1e30
#: Half width of an interval, in residual SDs, below which a rule of few nodes integrates it, where
#: the density falls by no more than exp(1) on the way to an end.
_NARROW = 0.05
_NODES, _SHARES = (part.tolist() for part in np.polynomial.legendre.leggauss(5))


class CensoredDensity(Density):
    """log P(lower < y < upper), y ~ N(eta, sigma^2), or log of y's density where both are one.

    What there is of derivatives are moments of z = (y - eta) / sigma given the bounds: its mean m1
    and variance v, m2 = m1^2 + v, and the covariances c12 of z and z^2 and c22 of z^2. The score is
    m1 / sigma, the slope in log sigma m2 - 1; less the second derivatives are (1 - v) / sigma^2 in
    eta, (2 m1 - c12) / sigma and, twice in log sigma, 2 m2 - c22. log f is concave in eta, and what
    is observed serves for the expectation, too.
    """

    expected = property(lambda d: d.observed)

    def __init__(self, xp, y, eta, parameters, link):
        super().__init__(xp, y, eta, parameters, link)
        from_below, from_above = self.lower > -_MOST, self.upper < _MOST
        low, high = xp.where(from_below, self.lower, y), xp.where(from_above, self.upper, y)
        self._seen = self.lower == self.upper
        self._open = ~(from_below & from_above)
        self._between = ~(self._seen | self._open)
        #: Whether y is above its bound, 1, or below it, -1.
        self._sign = xp.where(from_below, 1.0, 0 * y - 1)
        self._z = (y - eta) / self.sigma
        self._t = self._sign * (eta - xp.where(from_below, low, high)) / self.sigma
        self._middle = (0.5 * (low + high) - eta) / self.sigma
        self._half = 0.5 * (high - low) / self.sigma

    def _of(self, seen, beyond, within):
        """Entries by what is known of y, all, one bound or two; each is asked for if some have it.

        `within` takes it of a `_Narrow` or `_Wide`.
        """
        xp, out = self.xp, seen()
        if xp.some(self._open):
            out = xp.where(self._open, beyond(), out)
        if xp.some(self._between):
            out = xp.where(self._between, self._within(within), out)
        return out

    _ratio = cached_property(lambda d: d.xp.mills(d._t))
    _fall = cached_property(lambda d: mills_fall(d.xp, d._t, d._ratio))
    _rest = cached_property(lambda d: d._ratio - d._t * d._fall)

    @cached_property
    def _is_narrow(self):
        xp = self.xp
        narrow = (self._half < _NARROW) & (self._half * xp.abs(self._middle) < 1)
        return narrow & self._between

    _narrow = cached_property(lambda d: _Narrow(d.xp, d._middle, d._half, d._is_narrow))
    _wide = cached_property(lambda d: _Wide(d.xp, d._middle, d._half))

    def _within(self, part):
        """A part of both kinds of intervals."""
        wide = part(self._wide)
        if not self.xp.some(self._is_narrow):
            return wide
        return self.xp.where(self._is_narrow, part(self._narrow), wide)

    @property
    def value(self):
        xp, z = self.xp, self._z
        return self._of(
            lambda: -0.5 * (z**2 + LOG_2PI) - xp.log(self.sigma),
            lambda: xp.log_ndtr(self._t),
            lambda i: i.value,
        )

    @cached_property
    def score(self):
        m1 = self._of(lambda: self._z, lambda: self._sign * self._ratio, lambda i: i.m1)
        return m1 / self.sigma

    @property
    def observed(self):
        one = 1 + 0 * self._z
        return self._of(lambda: one, lambda: self._fall, lambda i: 1 - i.v) / self.sigma**2

    @property
    def slopes(self):
        seen, beyond = lambda: self._z**2 - 1, lambda: -self._t * self._ratio
        return {"sigma": self._of(seen, beyond, lambda i: i.m1**2 + i.v - 1)}

    @property
    def second(self):
        z, t = self._z, self._t
        mixed = self._of(lambda: 2 * z, lambda: self._sign * self._rest, lambda i: 2 * i.m1 - i.c12)
        twice = self._of(
            lambda: 2 * z**2, lambda: -t * self._rest, lambda i: 2 * (i.m1**2 + i.v) - i.c22
        )
        return {"sigma": mixed / self.sigma}, {("sigma", "sigma"): twice}


class _Narrow:
    """log P, m1, v, c12 and c22 of narrow intervals, by a rule of few nodes."""

    def __init__(self, xp, middle, half, narrow):
        self.xp, self.m = xp, middle
        self.h = xp.where(narrow, half, _NARROW + 0 * half)
        tilt = xp.where(narrow, middle * half, 0 * middle)
        self.heights = [
            0.5 * share * xp.exp(-node * tilt - 0.5 * (node * self.h) ** 2)
            for node, share in zip(_NODES, _SHARES, strict=True)
        ]
        self.total = sum(self.heights)
        self.mean = self._average(_NODES)

    def _average(self, values):
        pairs = zip(values, self.heights, strict=True)
        return sum(height * value for value, height in pairs) / self.total

    def _moment(self, k):
        """A central moment of z."""
        return self.h**k * self._average([(node - self.mean) ** k for node in _NODES])

    m1 = cached_property(lambda i: i.m + i.h * i.mean)
    v = cached_property(lambda i: i._moment(2))
    c12 = property(lambda i: 2 * i.m1 * i.v + i._moment(3))

    @property
    def value(self):
        return self.xp.log(2 * self.h * self.total) - 0.5 * (self.m**2 + LOG_2PI)

    @property
    def c22(self):
        third, fourth = self._moment(3), self._moment(4)
        return 4 * self.m1 * (self.m1 * self.v + third) + fourth - self.v**2


class _Wide:
    """The same of other intervals, by the cdf in its left tail, where it keeps its digits."""

    def __init__(self, xp, middle, half):
        self.xp, left = xp, -xp.abs(middle)
        half = xp.maximum(half, _NARROW * 1e-2)
        self.sign = xp.where(middle > 0, 0 * left - 1, 1 + 0 * left)
        self.high, self.low = left + half, left - half
        self.top = xp.log_ndtr(self.high)
        self.gap = xp.log_ndtr(self.low) - self.top
        self.share = -xp.expm1(self.gap)

    #: The normal density at the two ends, over P.
    up = cached_property(lambda i: i.xp.mills(i.high) / i.share)
    down = cached_property(lambda i: i.xp.mills(i.low) * i.xp.exp(i.gap) / i.share)
    value = property(lambda i: i.top + i.xp.log(i.share))
    _m1 = cached_property(lambda i: i.down - i.up)
    _m2 = cached_property(lambda i: 1 - (i.high * i.up - i.low * i.down))
    _m3 = property(lambda i: 2 * i._m1 - (i.high**2 * i.up - i.low**2 * i.down))
    _m4 = property(lambda i: 3 * i._m2 - (i.high**3 * i.up - i.low**3 * i.down))
    m1 = property(lambda i: i.sign * i._m1)
    v = property(lambda i: i._m2 - i._m1**2)
    c12 = property(lambda i: i.sign * (i._m3 - i._m1 * i._m2))
    c22 = property(lambda i: i._m4 - i._m2**2)


class CensoredGaussian(Family):
    """Normal response that is known up to bounds: y ~ N(eta, sigma^2), lower <= y <= upper.

    y has two columns, lower and upper. A lower one of -inf or nan is none, and y is left-censored
    at the upper one; an upper one of inf or nan likewise. Equal ones are y itself, others an
    interval. ``family="gaussian"`` becomes this family where y has two columns. (A tobit model of
    y that is cut off at 0 has the columns ``where(y > 0, y, nan)`` and ``y``.)

    Fits are by maximum likelihood, "laplace", "quadrature", "hmc" or "nuts". The log-likelihood is
    that of ``survival::survreg``: densities of what was seen, and probabilities of all else.
    Predictions are of y without bounds.

    Parameters
    ----------
    sigma : float, optional
        Pins the residual standard deviation (in units of y) instead of estimating it.

    References
    ----------
    Tobin (1958), "Estimation of relationships for limited dependent variables", Econometrica 26,
    24-36.

    Examples
    --------
    >>> import numpy as np
    >>> from sklmm import CensoredGaussian
    >>> response = CensoredGaussian().bind([[1.0, 1.0], [np.nan, 0.0], [2.0, 3.0]])
    >>> response.y
    array([1. , 0. , 2.5])
    """

    name = "censored_gaussian"
    density = CensoredDensity
    dispersion_parameter = "sigma"
    scalars = ("sigma",)
    normal = True
    scale_equivariant = True
    row_data = ("lower", "upper")
    columns = (2,)
    open_ended = True

    def __init__(self, sigma=None):
        self.sigma = sigma

    def bind(self, y, weights=None):
        """The `Response` in y, bounds [n, 2]."""
        raw = np.asarray(y)
        if raw.ndim != 2 or raw.shape[1] != 2:
            raise self._error(
                f"y must have two columns, lower and upper bounds, not shape {raw.shape}: use "
                "'gaussian' for one."
            )
        bounds = floats(self, raw)
        lower, upper = bounds.T
        lower = np.where(np.isnan(lower), -np.inf, lower)
        upper = np.where(np.isnan(upper), np.inf, upper)
        good = (lower <= upper) & (lower < np.inf) & (upper > -np.inf)
        self._require(raw, good, "two bounds, lower <= upper", "exchange or correct them.")
        below, above = np.isfinite(lower), np.isfinite(upper)
        keep, both = below | above, below & above
        weights = row_weights(weights, len(lower))
        inner = np.where(both, lower, 0.0) / 2 + np.where(both, upper, 0.0) / 2
        y = np.where(both, inner, np.where(below, lower, np.where(above, upper, 0.0)))
        # To the last digit.
        seen = lower == upper
        y[seen] = lower[seen]
        masses = float(weights[keep & ~seen].sum())
        data = np.column_stack([lower, upper])
        return Response(self, y, weights, keep=keep, data=data, masses=masses)

    def variance(self, eta, params):
        """sigma^2, of y without bounds."""
        return np.broadcast_to(np.square(params["sigma"], dtype=float), np.shape(eta))

    def sample(self, eta, params, rng):
        """Draws of y without bounds, given eta."""
        return rng.normal(eta, params["sigma"])

    def _cdf(self, y, eta, params):
        """Of y without bounds."""
        return ndtr((y - eta) / params["sigma"])
