"""Rising factorials x (x + 1) .. (x + y - 1), and what Stirling's formula leaves of log Gamma.

Negative binomial densities have log Gamma(x + y) - log Gamma(x) and its derivatives in all rows and
draws. Of small counts that is a product of few factors. Of others Stirling's formula is most, and
cancels by hand; what it leaves is a series for large arguments. Small ones are brought there by 8
steps of the recurrence, which are one product. Both take a fraction of the time of SciPy's.
"""

# ruff: noqa: D102 - what each property is, the class says once.

from functools import cached_property

import numpy as np

#: Arguments from which the series are exact to the last digits, and the steps that lead there.
_STEPS = 8.0
#: x (x + 8) plus these are the products of 1 and 7, 2 and 6, 3 and 5 steps.
_PAIRS = (7.0, 12.0, 15.0)
_LEVEL = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360, 1 / 156)
_SLOPE = (-1 / 12, 1 / 120, -1 / 252, 1 / 240, -1 / 132, 691 / 32760, -1 / 12)
_BEND = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6)
#: |q| below which log(1 + q) - q is by its series.
_SMALL = 0.1
#: Counts up to which factors are multiplied, as many at once as neither precision overflows by
#: where x is not above `_MODERATE`.
_FEW = 24
_AT_ONCE = 6
_MODERATE = 1e6
#: The least x that a count is divided by.
_LEAST = 1e-30


class Rest:
    """What Stirling's formula leaves at x >= 0, of which log x goes on where x itself is 0.

    level
        log Gamma(x) - (x log x - x + log(2 pi) / 2), which is about -log(x) / 2.
    slope
        x (psi(x) - log x) + 1/2, which is 0 at infinity and -1/2 at 0.
    bend
        x^2 psi'(x) - x - 1/2, which is 0 at infinity and 1/2 at 0.
    """

    def __init__(self, xp, x, log_x):
        self.xp, self.x, self.log_x = xp, x, log_x

    # Each side of a condition has arguments within its own range.
    _is_small = cached_property(lambda r: r.x < _STEPS)
    _small = cached_property(lambda r: r.xp.minimum(r.x, _STEPS))
    _large = cached_property(lambda r: r.xp.where(r._is_small, r._small + _STEPS, r.x))
    _share = cached_property(lambda r: 1 / r._large)
    _log_large = cached_property(lambda r: r.xp.log(r._large))
    _pairs = cached_property(lambda r: [r._small * (r._small + _STEPS) + c for c in _PAIRS])
    _sums = cached_property(lambda r: sum(1 / pair for pair in r._pairs))

    def _series(self, coefficients):
        square, out = self._share * self._share, coefficients[-1]
        for c in coefficients[-2::-1]:
            out = out * square + c
        return out * self._share

    @cached_property
    def level(self):
        x, far, log_far = self._small, self._series(_LEVEL), self._log_large
        one, two, three = self._pairs
        between = self.xp.log(one * two * three * (x + 4))
        near = far + (x + _STEPS - 0.5) * log_far - _STEPS - (1 + x) * self.log_x - between
        return self.xp.where(self._is_small, near, far - 0.5 * self.log_x)

    @cached_property
    def slope(self):
        x, far = self._small, self._series(_SLOPE)
        steps = 2 * (x + 4) * self._sums + 1 / (x + 4)
        beyond = (far - 0.5) * self._share + self._log_large - self.log_x - steps
        return self.xp.where(self._is_small, x * beyond - 0.5, far)

    @cached_property
    def bend(self):
        x, far = self._small, self._series(_BEND)
        width = 2 * (x + 4)
        steps = sum((width / pair) ** 2 for pair in self._pairs) - 2 * self._sums
        beyond = ((far + 0.5) * self._share + 1) * self._share
        near = x**2 * (beyond + steps + 1 / (x + 4) ** 2) + 0.5 - x
        return self.xp.where(self._is_small, near, far)


def log1p_less(xp, q):
    """log(1 + q) - q, about -q^2 / 2, q > -1."""
    near = xp.minimum(xp.maximum(q, -_SMALL), _SMALL)
    # log(1 + q) is twice the inverse hyperbolic tangent of q / (2 + q).
    t = near / (2 + near)
    square = t * t
    series = square * (1 / 3 + square * (1 / 5 + square * (1 / 7 + square * (1 / 9 + square / 11))))
    near = t * (2 * series - near)
    far = xp.where(xp.abs(q) < _SMALL, _SMALL, q)
    return xp.where(xp.abs(q) < _SMALL, near, xp.log1p(far) - far)


def by_rests(xp, x, log_x, y):
    """Of the rising factorial of x, whose log goes on where x is 0: its log, x times its slope."""
    total, share = x + y, xp.minimum(y / xp.maximum(x, _LEAST), 1.0)
    log_total = xp.where(y > 0, xp.log(xp.where(y > 0, total, 1.0)), log_x)
    ratio = xp.where(y > x, log_total - log_x, xp.log1p(share))
    at_x, at_total = Rest(xp, x, log_x), Rest(xp, total, log_total)
    own = xp.where(y > 0, x / xp.where(y > 0, total, 1.0), 1.0)
    slope = x * ratio + own * (at_total.slope - 0.5) - (at_x.slope - 0.5)
    return y * log_x + total * ratio - y + (at_total.level - at_x.level), slope


def by_factors(xp, x, log_x, y):
    """The same of arrays x [n, C] and counts y [n, 1], by the factors of those that have few.

    In the order of y the rows that have a factor more are the first ones.
    """
    counts = np.minimum(y[:, 0], _FEW + 1).astype(np.uint8)
    order = np.argsort(_FEW + 1 - counts, kind="stable")
    above = len(y) - np.cumsum(np.bincount(counts, minlength=_FEW + 2))
    many, x, log_x = above[_FEW], x[order], log_x[order]
    logs, slope = np.zeros_like(x), np.zeros_like(x)
    if many:
        logs[:many], slope[:many] = by_rests(xp, x[:many], log_x[:many], y[order[:many]])
    rows = slice(many, above[0])
    logs[rows], slope[rows] = log_x[rows], 1
    at_once = _AT_ONCE if x.max(initial=0.0) < _MODERATE else 1
    for begin in range(1, _FEW, at_once):
        rows = slice(many, above[begin])
        if rows.start == rows.stop:
            break
        product = x[rows] + begin
        slope[rows] += x[rows] / product
        for k in range(begin + 1, min(begin + at_once, _FEW)):
            rows = slice(many, above[k])
            factor = x[rows] + k
            slope[rows] += x[rows] / factor
            product[: above[k] - many] *= factor
        logs[many : above[begin]] += np.log(product)
    out = np.empty_like(x), np.empty_like(x)
    out[0][order], out[1][order] = logs, slope
    return out
