"""What log densities are made of, each function to full accuracy at both ends of its range.

Gamma functions come as what Stirling's formula leaves of them, so that large parameters cancel by
hand:

    log Gamma(x) = (x - 1/2) log x - x + log(2 pi) / 2 + stirling(x).
"""

import numpy as np
from scipy.special import erfcx, gammaln, polygamma, psi

LOG_2PI = float(np.log(2 * np.pi))
#: From here the asymptotic series are exact to the last digit.
_LARGE = 10.0
#: Beyond this, exp's square overflows.
LARGEST_LOG = 300.0
#: Left of this the continued fraction's first terms are more exact than Mills' ratio's difference.
_FAR_LEFT = -100.0


def exp(x):
    """exp x, constant where its square would overflow."""
    return np.exp(np.minimum(x, LARGEST_LOG))


def stirling(x):
    """What Stirling's formula lacks of log Gamma(x), x > 0."""
    large, small = np.maximum(x, _LARGE), np.minimum(x, _LARGE)
    inverse = 1 / large**2
    series = np.polynomial.polynomial.polyval(
        inverse, (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360)
    )
    exact = gammaln(small) - ((small - 0.5) * np.log(small) - small + 0.5 * LOG_2PI)
    return np.where(x < _LARGE, exact, series / large)


def psi_less_log(x):
    """The digamma function less log x, x > 0."""
    large, small = np.maximum(x, _LARGE), np.minimum(x, _LARGE)
    inverse = 1 / large**2
    series = np.polynomial.polynomial.polyval(
        inverse, (0, -1 / 12, 1 / 120, -1 / 252, 1 / 240, -1 / 132, 691 / 32760)
    )
    return np.where(x < _LARGE, psi(small) - np.log(small), series - 0.5 / large)


def trigamma_square(x):
    """x^2 times the trigamma function, x > 0: 1 at 0, x + 1/2 at infinity."""
    above = np.maximum(x, 1e-100)
    return above**2 * polygamma(1, above)


def less_exp(u):
    """1 + u - exp u <= 0: the log density of gamma and Poisson rows, u the log of a ratio."""
    u = np.minimum(u, LARGEST_LOG)
    return u - np.expm1(u)


def mills(x):
    """phi(x) / Phi(x), the derivative of log Phi."""
    return np.sqrt(2 / np.pi) / erfcx(-x / np.sqrt(2))


def mills_fall(x):
    """Less the derivative of `mills`, in (0, 1): less the second derivative of log Phi."""
    left = np.minimum(x, _FAR_LEFT)
    ratio = mills(x)
    return np.where(x < _FAR_LEFT, 1 - 1 / left**2 + 6 / left**4, ratio * (ratio + x))


def log_one_less_exp(x):
    """log(1 - exp x), x < 0."""
    near = np.maximum(x, -np.log(2))
    return np.where(x > -np.log(2), np.log(-np.expm1(near)), np.log1p(-np.exp(x)))
