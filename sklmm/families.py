"""Response families: the distribution of y given the linear predictor.

Each family is a small `BaseEstimator`, so that `clone` and `set_params` reach its parameters.
"""

from numbers import Real

from sklearn.base import BaseEstimator


class Family(BaseEstimator):
    """Base class of response families."""


class Gaussian(Family):
    """Normal response with identity link: y ~ N(eta, sigma^2).

    Parameters
    ----------
    sigma : float, optional
        Pins the residual standard deviation (in units of y) instead of estimating it.

    Examples
    --------
    >>> from sklmm import Gaussian
    >>> Gaussian(sigma=1.0)
    Gaussian(sigma=1.0)
    """

    def __init__(self, sigma=None):
        self.sigma = sigma

    def check(self):
        """Raise ValueError for a `sigma` that is neither None nor a positive number."""
        if self.sigma is not None and not (isinstance(self.sigma, Real) and self.sigma > 0):
            raise ValueError(
                f"Gaussian: sigma={self.sigma!r} must be a positive number, or None to estimate it."
            )


def resolve_family(family):
    """A `Family` from the estimator's parameter: a name or an instance.

    Raises
    ------
    ValueError
        For a family this version does not fit.
    """
    if isinstance(family, Gaussian):
        family.check()
        return family
    if family == "gaussian":
        return Gaussian()
    raise ValueError(
        f"family={family!r} is not available in this version: use 'gaussian' or "
        "Gaussian(sigma=...)."
    )
