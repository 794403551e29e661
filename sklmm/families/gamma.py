"""The gamma family of positive responses."""

# ruff: noqa: D102 - what each property of a density is, `Density` says once.

from functools import cached_property

import numpy as np
from scipy.special import gammainc

from sklmm.families.base import Family, Response, numeric
from sklmm.families.density import PositiveMean
from sklmm.families.special import LOG_2PI, beyond, exp, less_exp, psi_less_log, stirling


class GammaDensity(PositiveMean):
    """Var[y] = mu^2 / shape."""

    # Rows of zeros pad tensors.
    _log_y = cached_property(lambda d: d.xp.log(d.xp.where(d.y > 0, d.y, 1.0)))
    _log_ratio = cached_property(lambda d: d._log_y - d._log_mu)
    value = property(lambda d: d._norm + d.shape * less_exp(d.xp, d._log_ratio))
    _first = property(lambda d: d.shape * (exp(d.xp, d._log_ratio) - 1))
    _second = property(lambda d: -d.shape * exp(d.xp, d._log_ratio))
    _mean = property(lambda d: d.shape)

    @property
    def _norm(self):
        xp = self.xp
        return 0.5 * (xp.log(self.shape) - LOG_2PI) - stirling(xp, self.shape) - self._log_y

    @property
    def value_and_score(self):
        # With one exponential, where `value` takes another so that large shapes cancel.
        u = self._log_ratio
        ratio = exp(self.xp, u)
        fit = 1 + u - ratio * (1 + beyond(self.xp, u))
        return self._norm + self.shape * fit, self.shape * (ratio - 1) * self.link.slope

    @property
    def slopes(self):
        fit = less_exp(self.xp, self._log_ratio) - psi_less_log(self.xp, self.shape)
        return {"shape": self.shape * fit}


class Gamma(Family):
    """Gamma response, positive: E[y] = mu, Var[y] = mu^2 / shape.

    Parameters
    ----------
    link : {"log", "inverse", "identity"}, default="log"
        log mu, 1 / mu or mu is eta, which must be positive for the last two.
    shape : float, optional
        Pins the shape instead of estimating it; 1 is the exponential distribution.

    References
    ----------
    McCullagh & Nelder (1989), Generalized Linear Models, ch. 8.

    Examples
    --------
    >>> from sklmm.families import Gamma
    >>> float(Gamma().variance(0.0, {"shape": 4.0}))
    0.25
    """

    name = "gamma"
    density = GammaDensity
    dispersion_parameter = "shape"
    zeros = "hurdle"
    scalars = ("shape",)
    links = ("log", "inverse", "identity")
    positive = True
    support = (0.0, np.inf)

    def __init__(self, link="log", shape=None):
        self.link = link
        self.shape = shape

    @property
    def eta_power(self):
        """Power of y's unit that is eta's."""
        return {"identity": 1, "inverse": -1}.get(self.link, 0)

    def bind(self, y, weights=None):
        """The `Response` in y, positive numbers."""
        y, weights = numeric(self, y, weights)
        self._require(y, y > 0, "positive", "drop the row, or use 'gaussian'.")
        return Response(self, y, weights)

    def variance(self, eta, params):
        """mu^2 / shape."""
        return self._mu(eta) ** 2 / params["shape"]

    def sample(self, eta, params, rng):
        """Draws of y given eta."""
        return rng.gamma(params["shape"], self._mu(eta) / params["shape"])

    def _cdf(self, y, eta, params):
        shape, mu = params["shape"], np.maximum(self._mu(eta), np.finfo(float).tiny)
        return gammainc(shape, np.minimum(y / mu, np.finfo(float).max) * shape)
