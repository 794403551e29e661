"""The lognormal family: a linear model of log y, whose fits are in closed form."""

from functools import cached_property

import numpy as np
from scipy.special import ndtr

from sklmm.families.base import Family, Response, numeric
from sklmm.families.gaussian import GaussianDensity

#: Logarithms beyond which the square of exp overflows.
_MOST = 300.0


class LogNormal(Family):
    """Positive response whose logarithm is normal: log y ~ N(eta, sigma^2).

    exp(eta) is the median; the mean, which is predicted, is exp(eta + sigma^2 / 2). Fits are those
    of a Gaussian model of log y, by the same E-steps, REML by default; ``loglik_`` is of y itself,
    that of log y less the sum of log y. ``sigma`` is glmmTMB's ``sigma()`` of a model of log(y);
    the family ``lognormal`` of its later versions is `LogNormalMean`.

    Parameters
    ----------
    sigma : float, optional
        Pins the SD of log y instead of estimating it.

    References
    ----------
    Crow & Shimizu (1988), Lognormal Distributions, ch. 1.

    Examples
    --------
    >>> from sklmm.families import LogNormal
    >>> float(LogNormal().mean(0.0, {"sigma": 1.0}).round(3))
    1.649
    """

    name = "lognormal"
    density = GaussianDensity
    dispersion_parameter = "sigma"
    scalars = ("sigma",)
    normal = True
    closed_form = True
    scale_equivariant = True
    mean_is_eta = False
    unaveraged = ("sigma",)
    zeros = "hurdle"
    support = (0.0, np.inf)

    def __init__(self, sigma=None):
        self.sigma = sigma

    def bind(self, y, weights=None):
        """The `Response` in log y of positive numbers."""
        y, weights = numeric(self, y, weights)
        self._require(y, y > 0, "positive", "drop the row, or use 'gaussian'.")
        logs = self.encoded(y)
        constant = float(weights @ self.constants(logs))
        return Response(self, logs, weights, log_constant=constant)

    def encoded(self, y):
        """Log y."""
        with np.errstate(divide="ignore"):
            return np.log(y)

    def decoded(self, y):
        """The response of these logarithms."""
        return np.exp(y)

    def constants(self, y, data=None):
        """Less log y."""
        return -y

    def spread(self, params, variance):
        """Parameters of y where eta itself is normal with this variance."""
        return {**params, "sigma": np.sqrt(params["sigma"] ** 2 + variance)}

    def latent_variance(self, params):
        """sigma^2, of log y."""
        return float(params["sigma"]) ** 2

    def mean(self, eta, params):
        """exp(eta + sigma^2 / 2)."""
        return np.exp(np.minimum(eta + params["sigma"] ** 2 / 2, _MOST))

    def variance(self, eta, params):
        """The square of the mean, times exp(sigma^2) - 1."""
        return self.mean(eta, params) ** 2 * np.expm1(params["sigma"] ** 2)

    def sample(self, eta, params, rng):
        """Draws of y given eta."""
        return np.exp(np.minimum(rng.normal(eta, params["sigma"]), _MOST))

    def _cdf(self, y, eta, params):
        return ndtr((np.log(y) - eta) / params["sigma"])

    def beside_zeros(self):
        """The family of y itself."""
        return PlainLogNormal(self.sigma)

    def by_row(self):
        """The family whose SD of log y is a function of the row."""
        return LogNormalByRow(self.sigma)


class LogNormalDensity(GaussianDensity):
    """That of y itself, y > 0."""

    # Rows of zeros pad tensors.
    _log_y = cached_property(lambda d: d.xp.log(d.xp.where(d.y > 0, d.y, 1.0)))
    _z = cached_property(lambda d: (d._log_y - d.eta) / d.sigma)
    value = property(lambda d: GaussianDensity.value.fget(d) - d._log_y)

    @property
    def second(self):
        """2 z / sigma, and 2 z^2."""
        return {"sigma": 2 * self._z / self.sigma}, {("sigma", "sigma"): 2 * self._z**2}


class PlainLogNormal(LogNormal):
    """`LogNormal` as a family of y itself, what zeros are before: an estimator's hurdle."""

    density = LogNormalDensity
    normal = closed_form = scale_equivariant = False
    zeros = "hurdle"

    def encoded(self, y):
        """y."""
        return y

    decoded = encoded

    def constants(self, y, data=None):
        """None."""
        return np.zeros(len(y))

    def by_row(self):
        """The same."""
        return self


class LogNormalByRow(LogNormal):
    """`LogNormal` whose SD of log y is a function of the row: an estimator's, by `dispersion`."""

    closed_form = False
    quadratic = True
