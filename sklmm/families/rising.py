"""log Gamma and its derivatives, less what large arguments have in common, without SciPy's wait.

Negative binomial densities have differences log Gamma(x + y) - log Gamma(x) at every row and draw.
Of each of the two functions Stirling's formula is most, and cancels by hand; what it leaves is a
series for large arguments. Small ones are brought there by 8 steps of the recurrence, which are one
product: arithmetic that takes a tenth of the time of SciPy's functions.
"""

# ruff: noqa: D102 - what each property is, the class says once.

from functools import cached_property

#: Arguments from which the series are exact to the last digits, and the steps that lead there.
_STEPS = 8.0
#: x (x + 8) plus these are the products of 1 and 7, 2 and 6, 3 and 5 steps.
_PAIRS = (7.0, 12.0, 15.0)
_LEVEL = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360, 1 / 156)
_SLOPE = (-1 / 12, 1 / 120, -1 / 252, 1 / 240, -1 / 132, 691 / 32760, -1 / 12)
_BEND = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6)
#: |q| below which log(1 + q) - q is by its series.
_SMALL = 0.1


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
