"""Log densities of the families of numbers in NumPy, with their derivatives by hand.

Accurate in the tails and for large parameters: what cancels does so by hand (`engine.special`).
"""

# ruff: noqa: D102 - what each property is, `Density` says once.

from functools import cached_property

import numpy as np
from scipy.special import gammaln

from sklmm.engine.links import log_mean, log_shares
from sklmm.engine.special import (
    LARGEST_LOG,
    LOG_2PI,
    exp,
    less_exp,
    psi_less_log,
    stirling,
    trigamma_square,
)

#: Least parameter of a beta density in float64.
_TINY = 1e-290


class Density:
    """Rows y [n, 1] at eta [n, C], the parameters by name, each broadcastable to [n, C].

    value, log f but for the binomial coefficient; score, its derivative in eta; observed, less its
    second derivative, and expected, the mean of that over y; slopes, its derivatives in the
    logarithms of the parameters, which are all positive.
    """

    #: Links by which log f is convex in eta wherever y is far from it, however far.
    convex_links = ()

    def __init__(self, y, eta, parameters, link):
        self.y, self.eta, self.link = y, eta, link
        for name, value in parameters.items():
            setattr(self, name, value)

    @property
    def observed(self):
        return self.expected

    @property
    def slopes(self):
        return {}


class Gaussian(Density):
    """y ~ N(eta, sigma^2)."""

    @cached_property
    def _z(self):
        return (self.y - self.eta) / self.sigma

    @property
    def value(self):
        return -0.5 * self._z**2 - np.log(self.sigma) - 0.5 * LOG_2PI

    @property
    def score(self):
        return self._z / self.sigma

    @property
    def expected(self):
        return self.sigma**-2

    @property
    def slopes(self):
        return {"sigma": self._z**2 - 1}


class StudentT(Density):
    """(y - eta) / sigma ~ t(df), with h = df / 2 and w = z^2 / df."""

    convex_links = ("identity",)

    @cached_property
    def _h(self):
        return self.df / 2

    @cached_property
    def _z(self):
        return (self.y - self.eta) / self.sigma

    @cached_property
    def _w(self):
        return self._z**2 / self.df

    @property
    def value(self):
        h = self._h
        norm = h * np.log1p(0.5 / h) - 0.5 + stirling(h + 0.5) - stirling(h)
        return norm - 0.5 * LOG_2PI - np.log(self.sigma) - (h + 0.5) * np.log1p(self._w)

    @property
    def score(self):
        return (1 + 1 / self.df) * self._z / (1 + self._w) / self.sigma

    @property
    def observed(self):
        return (1 + 1 / self.df) * (1 - self._w) / (1 + self._w) ** 2 / self.sigma**2

    @property
    def expected(self):
        return (self.df + 1) / ((self.df + 3) * self.sigma**2)

    @property
    def slopes(self):
        h, w = self._h, self._w
        norm = psi_less_log(h + 0.5) - psi_less_log(h) + np.log1p(0.5 / h) - 0.5 / h
        return {
            "sigma": (self.df + 1) * w / (1 + w) - 1,
            "df": h * (norm - np.log1p(w) + w * (1 + 0.5 / h) / (1 + w)),
        }


class PositiveMean(Density):
    """Of a mean mu > 0, through t = log mu.

    A family gives the derivatives of log f in t, `_first` and `_second`, and the mean of -`_second`
    over y, `_mean`.
    """

    @cached_property
    def _t(self):
        return log_mean(self.link, self.eta)

    @cached_property
    def _mu(self):
        return exp(self._t.value)

    @property
    def score(self):
        return self._first * self._t.slope

    @property
    def observed(self):
        return -self._second * self._t.slope**2 - self._first * self._t.bend

    @property
    def expected(self):
        return self._mean * self._t.slope**2


class Poisson(PositiveMean):
    """y ~ Poisson(mu)."""

    @property
    def value(self):
        count = np.maximum(self.y, 1)
        log_ratio = self._t.value - np.log(count)
        counted = count * less_exp(log_ratio) - 0.5 * (LOG_2PI + np.log(count)) - stirling(count)
        return np.where(self.y > 0, counted, -self._mu)

    @property
    def _first(self):
        return self.y - self._mu

    @property
    def _second(self):
        return -self._mu

    @property
    def _mean(self):
        return self._mu


class NegativeBinomial(PositiveMean):
    """Var[y] = mu + dispersion mu^2, size the dispersion's inverse."""

    @cached_property
    def _size(self):
        return 1 / self.dispersion

    @cached_property
    def _gap(self):
        """q and log(1 + q), 1 + q = (size + y) / (size + mu)."""
        q = (self.y - self._mu) / (self._size + self._mu)
        # The mean itself may be beyond float64.
        ratio = np.log(self._size + self.y) - np.logaddexp(np.log(self._size), self._t.value)
        return q, np.where(np.abs(q) < 0.5, np.log1p(np.maximum(q, -0.5)), ratio)

    @property
    def value(self):
        total = self.y + self._size
        # Where mu is held constant log f falls along a line, as it does there.
        beyond = np.maximum(self._t.value - LARGEST_LOG, 0.0)
        return (
            self.y * (self._t.value - beyond)
            - self._size * beyond
            - self.y
            - gammaln(self.y + 1)
            + total * self._gap[1]
            - 0.5 * np.log1p(self.y * self.dispersion)
            + (stirling(total) - stirling(self._size))
        )

    @property
    def _first(self):
        return (self.y - self._mu) / (1 + self.dispersion * self._mu)

    @property
    def _second(self):
        spread = 1 + self.dispersion * self._mu
        return -(self._mu / spread) * ((1 + self.dispersion * self.y) / spread)

    @property
    def _mean(self):
        return self._mu / (1 + self.dispersion * self._mu)

    @property
    def slopes(self):
        q, log_ratio = self._gap
        gap = psi_less_log(self.y + self._size) - psi_less_log(self._size)
        return {"dispersion": -self._size * (gap + log_ratio - q)}


class Gamma(PositiveMean):
    """Var[y] = mu^2 / shape."""

    @cached_property
    def _log_ratio(self):
        return np.log(self.y) - self._t.value

    @property
    def value(self):
        norm = 0.5 * (np.log(self.shape) - LOG_2PI) - stirling(self.shape)
        return norm + self.shape * less_exp(self._log_ratio) - np.log(self.y)

    @property
    def _first(self):
        return self.shape * (exp(self._log_ratio) - 1)

    @property
    def _second(self):
        return -self.shape * exp(self._log_ratio)

    @property
    def _mean(self):
        return self.shape

    @property
    def slopes(self):
        fit = less_exp(self._log_ratio) - psi_less_log(self.shape)
        return {"shape": self.shape * fit}


class Shares(Density):
    """Of a probability mu of success: y successes in a trial, on average."""

    @cached_property
    def _log(self):
        return log_shares(self.link, self.eta)

    def _mixed(self, which):
        one, zero = (getattr(part, which) for part in (self._log.one, self._log.zero))
        return self.y * one + (1 - self.y) * zero

    @property
    def value(self):
        return self._mixed("value")

    @property
    def score(self):
        return self._mixed("slope")

    @property
    def observed(self):
        return -self._mixed("bend")

    @property
    def expected(self):
        return -self._log.one.slope * self._log.zero.slope


class Beta(Shares):
    """y ~ Beta(a, b), a = mu precision and b = (1 - mu) precision."""

    @cached_property
    def _sides(self):
        """Of y and of 1 - y: a, log a, and the log of its ratio to the mean."""
        out = []
        for log_y, share in ((np.log(self.y), self._log.one), (np.log1p(-self.y), self._log.zero)):
            log_a = np.maximum(share.value + np.log(self.precision), np.log(_TINY))
            out.append((np.exp(log_a), log_a, log_y + np.log(self.precision) - log_a))
        return out

    @property
    def value(self):
        (a, log_a, above), (b, log_b, below) = self._sides
        return (
            a * above
            + b * below
            + 0.5 * (log_a + log_b - np.log(self.precision) - LOG_2PI)
            - (stirling(a) + stirling(b) - stirling(self.precision))
            - np.log(self.y)
            - np.log1p(-self.y)
        )

    @cached_property
    def _pulls(self):
        """log y less its expectation, and that of 1 - y."""
        return tuple(ratio - psi_less_log(a) for a, _, ratio in self._sides)

    @cached_property
    def score(self):
        up, down = self._pulls
        return self._sides[0][0] * self._log.one.slope * (up - down)

    @property
    def observed(self):
        return self.expected - self.score * self._log.bend

    @cached_property
    def expected(self):
        (a, *_), (b, *_) = self._sides
        one, zero = self._log.one.slope, self._log.zero.slope
        return one**2 * trigamma_square(a) + zero**2 * trigamma_square(b)

    @property
    def slopes(self):
        (a, *_), (b, *_) = self._sides
        up, down = self._pulls
        return {"precision": a * up + b * down + self.precision * psi_less_log(self.precision)}
