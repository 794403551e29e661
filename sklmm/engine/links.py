"""Links as densities take them: logarithms of the mean, and their two derivatives in eta."""

from typing import NamedTuple

import numpy as np
from scipy.special import expit, log_expit, log_ndtr

from sklmm.engine.special import exp, log_one_less_exp, mills, mills_fall

#: |eta| of a square root, and eta of a mean or its inverse, below which its logarithm goes on as a
#: constant and as a parabola.
_SMALLEST_ROOT = 1e-8
_SMALLEST = 1e-6
#: Below this a rate is not to be told from 0.
_LEAST_LOG = -700.0


class LogMean(NamedTuple):
    """log mu and its derivatives, of a positive mean."""

    value: object
    slope: object
    bend: object


class LogShares(NamedTuple):
    """log mu (`one`) and log(1 - mu) (`zero`), their derivatives; bend, mu'' / mu'."""

    one: LogMean
    zero: LogMean
    bend: object


def _log(eta):
    return LogMean(eta, 1.0, 0.0)


def _sqrt(eta):
    root = np.copysign(np.maximum(np.abs(eta), _SMALLEST_ROOT), eta)
    return LogMean(2 * np.log(np.abs(root)), 2 / root, -2 / root**2)


def _identity(eta):
    """log eta, which goes on as its parabola: a step may leave the positive numbers."""
    above, below = np.maximum(eta, _SMALLEST), np.minimum(eta / _SMALLEST - 1, 0)
    return LogMean(np.log(above) + below - 0.5 * below**2, (1 - below) / above, -1 / above**2)


def _inverse(eta):
    return LogMean(*(-part for part in _identity(eta)))


def _logit(eta):
    one, zero = expit(eta), expit(-eta)
    return LogShares(
        LogMean(log_expit(eta), zero, -one * zero),
        LogMean(log_expit(-eta), -one, -one * zero),
        zero - one,
    )


def _probit(eta):
    return LogShares(
        LogMean(log_ndtr(eta), mills(eta), -mills_fall(eta)),
        LogMean(log_ndtr(-eta), -mills(-eta), -mills_fall(-eta)),
        -eta,
    )


def _cloglog(eta):
    rate = exp(np.maximum(eta, _LEAST_LOG))
    # rate / (exp(rate) - 1), and its logarithm's derivative, by its series where rate is small.
    slope = rate * np.exp(-rate) / -np.expm1(-rate)
    fall = np.where(rate < 1e-2, -rate / 2 - rate**2 / 12 + rate**4 / 720, 1 - rate - slope)
    return LogShares(
        LogMean(log_one_less_exp(-rate), slope, slope * fall),
        LogMean(-rate, -rate, -rate),
        1 - rate,
    )


_LOG_MEANS = {"log": _log, "sqrt": _sqrt, "identity": _identity, "inverse": _inverse}
_LOG_SHARES = {"logit": _logit, "probit": _probit, "cloglog": _cloglog}


def log_mean(link, eta):
    """`LogMean` at eta."""
    return _LOG_MEANS[link](eta)


def log_shares(link, eta):
    """`LogShares` at eta."""
    return _LOG_SHARES[link](eta)
