"""Log densities of the families of classes in NumPy, as `engine.row_densities` has the others."""

# ruff: noqa: D102 - what each property is, `Density` says once.

from functools import cached_property

import numpy as np
from scipy.special import expit, log_expit, log_ndtr, logsumexp

from sklmm.engine.row_densities import Density
from sklmm.engine.special import LOG_2PI, log_one_less_exp

#: Least gap between the logarithms of two cdfs.
_LEAST_GAP = 1e-300


class Ordinal(Density):
    """P(y <= c) = F(theta_c - eta): y lies between a = theta_y - eta and b = theta_{y-1} - eta.

    theta_1 = 0 and spacing_k = theta_{k+1} - theta_k. The densities are log-concave, and what is
    observed serves for the expectation, too.
    """

    def __init__(self, y, eta, parameters, link):
        super().__init__(y, eta, {}, link)
        self._spacings = {name: np.reshape(v, (1, -1)) for name, v in parameters.items()}
        steps = np.broadcast_arrays(np.zeros((1, 1)), *self._spacings.values())
        theta = np.cumsum(np.concatenate(steps), axis=0)
        code, most = y[:, 0].astype(int), len(theta)
        self._first, self._last = y == 0, y == most
        self._inside = ~(self._first | self._last)
        upper, lower = theta[np.minimum(code, most - 1)], theta[np.maximum(code - 1, 0)]
        # Where there is no cutpoint, 0 stands for it.
        self._a = np.where(self._last, 0.0, upper - eta)
        self._b = np.where(self._first, 0.0, lower - eta)
        self._spacing = np.where(self._inside, upper - lower, 1.0)

    @property
    def expected(self):
        return self.observed

    @property
    def slopes(self):
        # With the k-th spacing the cutpoints from the k-th on move.
        return {
            name: spacing
            * np.where(self.y > k, -self.score, np.where(self.y == k, self._upper_slope, 0.0))
            for k, (name, spacing) in enumerate(self._spacings.items(), 1)
        }


class OrdinalLogit(Ordinal):
    """F is the logistic cdf: F(a) - F(b) = F(a) F(-b) (1 - exp(b - a))."""

    @property
    def value(self):
        upper = np.where(self._last, 0.0, log_expit(self._a))
        lower = np.where(self._first, 0.0, log_expit(-self._b))
        return upper + lower + np.where(self._inside, log_one_less_exp(-self._spacing), 0.0)

    @property
    def score(self):
        return np.where(self._first, 0.0, expit(self._b)) - np.where(
            self._last, 0.0, expit(-self._a)
        )

    @property
    def observed(self):
        upper = np.where(self._last, 0.0, expit(self._a) * expit(-self._a))
        return upper + np.where(self._first, 0.0, expit(self._b) * expit(-self._b))

    @property
    def _upper_slope(self):
        return expit(-self._a) + 1 / np.expm1(self._spacing)


class OrdinalProbit(Ordinal):
    """F is the normal cdf, in whose left tail the logarithms keep their digits."""

    @cached_property
    def value(self):
        mirrored = self._inside & (self._a + self._b > 0)
        high = log_ndtr(np.where(mirrored | self._last, -self._b, self._a))
        low = log_ndtr(np.where(mirrored, -self._a, self._b))
        gap = np.where(self._inside, np.maximum(high - low, _LEAST_GAP), 1.0)
        return high + np.where(self._inside, log_one_less_exp(-gap), 0.0)

    def _density(self, x, none):
        return np.where(none, 0.0, np.exp(-0.5 * (x**2 + LOG_2PI) - self.value))

    @cached_property
    def _upper_slope(self):
        return self._density(self._a, self._last)

    @cached_property
    def _lower_slope(self):
        return self._density(self._b, self._first)

    @property
    def score(self):
        return self._lower_slope - self._upper_slope

    @property
    def observed(self):
        return self.score**2 + self._a * self._upper_slope - self._b * self._lower_slope


class Categorical(Density):
    """Multinomial logit: eta [n * d, C], the predictors of a row adjacent; 0 for the first class.

    Of the curvature the diagonal.
    """

    def __init__(self, y, eta, parameters, link):
        super().__init__(y, eta, parameters, link)
        n, C = len(y), eta.shape[1]
        self._own = eta.reshape(n, -1, C)
        logits = np.concatenate([np.zeros((n, 1, C)), self._own], axis=1)
        self._log_shares = logits - logsumexp(logits, axis=1, keepdims=True)

    @property
    def value(self):
        return self._log_shares[np.arange(len(self.y)), self.y[:, 0].astype(int)]

    @property
    def score(self):
        classes = np.arange(1, self._log_shares.shape[1])
        chosen = (self.y == classes)[:, :, None]
        return (chosen - np.exp(self._log_shares[:, 1:])).reshape(self.eta.shape)

    @property
    def expected(self):
        share = np.exp(self._log_shares[:, 1:])
        return (share * (1 - share)).reshape(self.eta.shape)
