"""The normal family, whose fits are in closed form."""

from functools import cached_property

import numpy as np
from scipy.special import ndtr

from sklmm.families.base import Family, Response, numeric
from sklmm.families.censored import CensoredGaussian
from sklmm.families.density import Density
from sklmm.families.special import LOG_2PI


class GaussianDensity(Density):
    """y ~ N(eta, sigma^2)."""

    _z = cached_property(lambda d: (d.y - d.eta) / d.sigma)
    value = property(lambda d: -0.5 * d._z**2 - d.xp.log(d.sigma) - 0.5 * LOG_2PI)
    score = property(lambda d: d._z / d.sigma)
    expected = property(lambda d: d.sigma**-2)
    slopes = property(lambda d: {"sigma": d._z**2 - 1})
    second = property(lambda d: ({"sigma": 2 * d._z / d.sigma}, {("sigma", "sigma"): 2 * d._z**2}))
    information = property(lambda d: {"sigma": 2.0 + 0 * d.eta})

    def second_in(self, names):
        """`second`, which the density itself has not: chains difference its slopes."""
        return {"sigma": 2 * self._z / self.sigma}, {("sigma", "sigma"): 2 * self._z**2}


class Gaussian(Family):
    """Normal response with identity link: y ~ N(eta, sigma^2).

    Where y has two columns they are bounds, and the family is `CensoredGaussian`.

    Parameters
    ----------
    sigma : float, optional
        Pins the residual standard deviation (in units of y) instead of estimating it.
    weights : {"repeats", "precision"}, default="repeats"
        What `sample_weight` means: a row of weight w is w such rows, as in scikit-learn; or its
        residual variance is sigma^2 / w, as in lme4 (y the mean of w measurements, say). The latter
        is for e_step "exact" and "cg".

    References
    ----------
    Laird & Ware (1982), "Random-effects models for longitudinal data", Biometrics 38, 963-974.

    Examples
    --------
    >>> from sklmm import Gaussian
    >>> Gaussian(sigma=1.0)
    Gaussian(sigma=1.0)
    """

    name = "gaussian"
    density = GaussianDensity
    dispersion_parameter = "sigma"
    scalars = ("sigma",)
    normal = True
    closed_form = True
    scale_equivariant = True
    columns = (1, 2)

    def __init__(self, sigma=None, weights="repeats"):
        self.sigma = sigma
        self.weights = weights

    def check(self):
        """Raise ValueError for a `sigma` that is neither None nor a positive number."""
        super().check()
        if self.weights not in ("repeats", "precision"):
            raise self._error(
                f"weights={self.weights!r} is not available: use 'repeats' or 'precision'."
            )

    def of_columns(self, n_columns):
        """`CensoredGaussian` of two."""
        if n_columns != 2:
            return self
        if self.weights == "precision":
            raise self._error(
                "y has two columns, which are bounds, and weights='precision' is for values: use "
                "weights='repeats'."
            )
        return CensoredGaussian(self.sigma)

    def bind(self, y, weights=None):
        """The `Response` in y."""
        y, weights = numeric(self, y, weights)
        if self.weights != "precision":
            return Response(self, y, weights)
        # Of mean 1 they add up to the number of rows, as repetitions do.
        largest = weights.max(initial=1e-300)
        mean = float((weights / largest).mean())
        weights = weights / largest / mean
        constant = 0.5 * float(np.log(weights).sum())
        unit = np.sqrt(largest) * np.sqrt(mean)
        return Response(self, y, weights, log_constant=constant, sigma_unit=float(unit))

    def variance(self, eta, params):
        """sigma^2."""
        return np.broadcast_to(np.square(params["sigma"], dtype=float), np.shape(eta))

    def sample(self, eta, params, rng):
        """Draws of y given eta."""
        return rng.normal(eta, params["sigma"])

    def _cdf(self, y, eta, params):
        return ndtr((y - eta) / params["sigma"])

    def by_row(self):
        """The family whose residual SD is a function of the row."""
        if self.weights == "precision":
            raise ValueError(
                "dispersion: it is for Gaussian(weights='repeats'); known precisions are an offset "
                "of it, '~ z + offset(half_log_variance)'."
            )
        return GaussianByRow(self.sigma)


class GaussianByRow(Gaussian):
    """`Gaussian` whose residual SD is a function of the row: an estimator's, by `dispersion`.

    Its rows have other weights at every theta, so that no sums stand for them.
    """

    closed_form = False
    quadratic = True
