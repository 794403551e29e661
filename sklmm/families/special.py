"""What log densities are made of, each function to full accuracy at both ends of its range.

`xp` is a namespace, so that one text serves arrays and tensors: here is NumPy's and SciPy's, and
the engine has TensorFlow's under the same names (`sklmm.engine.likelihood.tensors`).

    exp, log, log1p, expm1, atan2                           elementwise
    abs, maximum, minimum, where                            likewise
    shape, concat, reshape, cumsum, sum, max                of arrays, along an axis
    matmul, one_hot                                         rows of a table by a code
    some                                                    whether a condition may hold somewhere
    floor; counted, at_once                                 1, 2, .. n; how many are summed at once
    up_to                                                   the largest, or a number that is less
    double, same_kind                                       in float64, in another's precision
    log_gamma, digamma, trigamma                            of positive numbers
    rising                                                  rising factorials, see `families.rising`
    expit, ndtr, log_ndtr, mills                            the logistic and normal distributions
    largest_log                                             see below

Gamma functions come as what Stirling's formula leaves of them, so that large parameters cancel by
hand:

    log Gamma(x) = (x - 1/2) log x - x + log(2 pi) / 2 + stirling(x).

Automatic differentiation goes through both branches of a `where`: each takes arguments within its
own range.
"""

import math
from types import SimpleNamespace

import numpy as np
from scipy.special import erfcx, gammaln, log_ndtr, ndtr, psi, zeta

from sklmm.families.rising import by_factors

#: Integers of a float's size, and entries from which their bits are quicker than a condition.
_INTEGERS = {4: np.int32, 8: np.int64}
_MANY = 2048


def where(condition, x, y):
    """np.where, of many entries by their bits: NumPy's own waits for each to be decided."""
    dtype = np.result_type(x, y)
    if np.size(condition) < _MANY or dtype.itemsize not in _INTEGERS:
        return np.where(condition, x, y)
    kind = _INTEGERS[dtype.itemsize]
    x, y = (np.asarray(part, dtype).view(kind) for part in (x, y))
    mask = np.negative(condition.astype(kind))
    return (mask & (x ^ y) ^ y).view(dtype)


def logistic(x):
    """The logistic cdf; of float32 by the hyperbolic tangent, which is quick, to rounding of 1."""
    if x.dtype != np.float32:
        with np.errstate(over="ignore"):
            return 1 / (1 + np.exp(-x))
    out = x * np.float32(0.5)
    np.tanh(out, out=out)
    out *= np.float32(0.5)
    out += np.float32(0.5)
    return out


def mills(x):
    """phi(x) / Phi(x), the derivative of log Phi."""
    return np.sqrt(2 / np.pi) / erfcx(-x / np.sqrt(2))


def one_hot(codes, n):
    """Indicators [n_rows, n] of codes [n_rows], in their precision."""
    return (codes[:, None] == np.arange(n)).astype(codes.dtype)


NUMPY = SimpleNamespace(
    exp=np.exp,
    log=np.log,
    log1p=np.log1p,
    expm1=np.expm1,
    atan2=np.arctan2,
    abs=np.abs,
    maximum=np.maximum,
    minimum=np.minimum,
    where=where,
    floor=np.floor,
    double=lambda x: np.asarray(x, float),
    same_kind=lambda x, y: np.asarray(x, y.dtype),
    counted=lambda n, x: np.arange(1, n + 1, dtype=x.dtype),
    shape=np.shape,
    concat=np.concatenate,
    reshape=np.reshape,
    cumsum=np.cumsum,
    sum=np.sum,
    max=np.max,
    matmul=np.matmul,
    one_hot=one_hot,
    some=np.any,
    log_gamma=gammaln,
    digamma=psi,
    trigamma=lambda x: zeta(2, x),
    rising=lambda *rows: by_factors(NUMPY, *rows),
    expit=logistic,
    ndtr=ndtr,
    log_ndtr=log_ndtr,
    mills=mills,
    # The logarithm from which exp is held constant: of numbers like x, whose square and its sums
    # over rows must not overflow.
    at_once=8,
    up_to=lambda x, most: int(np.fmin(x, most).max(initial=0)),
    largest_log=lambda x: 40.0 if getattr(x, "dtype", None) == np.float32 else 300.0,
)


LOG_2PI = math.log(2 * math.pi)
#: From here the asymptotic series are exact to the last digit.
_LARGE = 10.0
_STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360)
_TRIGAMMA = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730)
_DIGAMMA = (0.0, -1 / 12, 1 / 120, -1 / 252, 1 / 240, -1 / 132, 691 / 32760)
#: Left of this the continued fraction's first terms are more exact than Mills' ratio's difference.
_FAR_LEFT = -100.0


def exp(xp, x):
    """exp x, constant where its square would overflow."""
    return xp.exp(xp.minimum(x, xp.largest_log(x)))


def beyond(xp, x):
    """How far x is beyond where `exp` is constant."""
    return xp.maximum(x - xp.largest_log(x), 0.0)


def _series(x, coefficients):
    out = coefficients[-1]
    for c in coefficients[-2::-1]:
        out = out * x + c
    return out


def stirling(xp, x):
    """What Stirling's formula lacks of log Gamma(x), x > 0."""
    large, small = xp.maximum(x, _LARGE), xp.minimum(x, _LARGE)
    exact = xp.log_gamma(small) - ((small - 0.5) * xp.log(small) - small + 0.5 * LOG_2PI)
    return xp.where(x < _LARGE, exact, _series(1 / large**2, _STIRLING) / large)


def psi_less_log(xp, x):
    """The digamma function less log x, x > 0."""
    large, small = xp.maximum(x, _LARGE), xp.minimum(x, _LARGE)
    series = _series(1 / large**2, _DIGAMMA) - 0.5 / large
    return xp.where(x < _LARGE, xp.digamma(small) - xp.log(small), series)


def stirling_of_log(xp, x, log_x):
    """`stirling` less log(x) / 2, by log x, which goes on where x itself is 0."""
    large, small = xp.maximum(x, _LARGE), xp.minimum(x, _LARGE)
    # log Gamma(x) = log Gamma(1 + x) - log x.
    exact = xp.log_gamma(1 + small) - (1 + small) * log_x + small - 0.5 * LOG_2PI
    series = _series(1 / large**2, _STIRLING) / large - 0.5 * log_x
    return xp.where(x < _LARGE, exact, series)


def psi_less_log_times(xp, x, log_x):
    """x times `psi_less_log`, by log x, which goes on where x itself is 0: -1 there."""
    large, small = xp.maximum(x, _LARGE), xp.minimum(x, _LARGE)
    # psi(x) = psi(1 + x) - 1 / x.
    exact = small * (xp.digamma(1 + small) - log_x) - 1
    return xp.where(x < _LARGE, exact, large * _series(1 / large**2, _DIGAMMA) - 0.5)


def trigamma_square(xp, x):
    """x^2 times the trigamma function, x >= 0: 1 at 0, x + 1/2 at infinity."""
    return 1 + x**2 * xp.trigamma(1 + x)


def trigamma_square_less(xp, x):
    """`trigamma_square` less x, x >= 0: 1 at 0, 1/2 at infinity."""
    large, small = xp.maximum(x, _LARGE), xp.minimum(x, _LARGE)
    exact = trigamma_square(xp, small) - small
    return xp.where(x < _LARGE, exact, 0.5 + _series(1 / large**2, _TRIGAMMA) / large)


def less_exp(xp, u):
    """1 + u - exp u <= 0: the log density of gamma and Poisson rows, u the log of a ratio."""
    u = xp.minimum(u, xp.largest_log(u))
    return u - xp.expm1(u)


def log_add_exp(xp, a, b):
    """log(exp a + exp b)."""
    return xp.maximum(a, b) + xp.log1p(xp.exp(-xp.abs(a - b)))


def mills_fall(xp, x, ratio):
    """Less the derivative of Mills' ratio at x, in (0, 1): less the second one of log Phi."""
    share = 1 / xp.minimum(x, _FAR_LEFT)
    share = share * share
    return xp.where(x < _FAR_LEFT, 1 - share + 6 * share * share, ratio * (ratio + x))


def mills_bend(xp, x, ratio):
    """The second derivative of Mills' ratio at x: the third one of log Phi."""
    share = 1 / xp.minimum(x, _FAR_LEFT)
    fall, cube = ratio * (ratio + x), share * share * share
    near = fall * (2 * ratio + x) - ratio
    return xp.where(x < _FAR_LEFT, -2 * cube + 24 * cube * share * share, near)


def log_one_less_exp(xp, x):
    """log(1 - exp x), x < 0."""
    middle = -math.log(2)
    near = xp.log(-xp.expm1(xp.maximum(x, middle)))
    return xp.where(x > middle, near, xp.log1p(-xp.exp(xp.minimum(x, middle))))
