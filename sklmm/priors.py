"""Priors of a model's coefficients and standard deviations, for estimates that are their mode."""

from numbers import Real
from typing import NamedTuple

import numpy as np
from sklearn.base import BaseEstimator


class GammaPrior(BaseEstimator):
    r"""Gamma prior of a term's standard deviations, one for each.

    The density is of u, an SD or its square,

    .. math::
        p(u) \propto u^{\mathrm{shape} - 1} \exp(-\mathrm{rate} \, u),

    taken as it is where the posterior is maximised over coefficients, SDs and the residual SD: a
    prior on the variance is not that of the SD with a Jacobian. With a shape above 1 it is 0 at
    u = 0, so that no estimate is there. A term with several coefficients has the prior on each of
    the SDs that it estimates, in the table's units; correlations have none.

    Parameters
    ----------
    shape : float, default=2.5
        Above 1.
    rate : float, default=0.0
        In the units of 1 / u. Of 0 the prior is improper, a power of u, which has no constant.
    on : {"sd", "variance"}, default="sd"
        What u is.
    relative : bool, default=True
        Whether the SD is divided by the residual SD, ``sigma``. Of families without such a
        parameter it means nothing.

    Notes
    -----
    The defaults are blme's for a random intercept, by which an SD of 0 becomes one of about one
    standard error. With several coefficients blme has a Wishart prior of the whole matrix by
    default, and no gamma.

    References
    ----------
    Chung, Rabe-Hesketh, Dorie, Gelman & Liu (2013), "A nondegenerate penalized likelihood estimator
    for variance parameters in multilevel models", Psychometrika 78, 685-709.

    Examples
    --------
    >>> from sklmm import GammaPrior, MixedEffectsRegressor
    >>> from sklmm.datasets import load_sleepstudy
    >>> X, y = load_sleepstudy(return_X_y=True, as_frame=True)
    >>> model = MixedEffectsRegressor(["Subject", "Days"], fixed_effects=["Days"])
    >>> model.fit(X, y).variance_components_["sd"].round(1).tolist()
    [37.1, 0.0, 31.0]
    >>> model.set_params(sd_prior={"Days": GammaPrior()})
    MixedEffectsRegressor(...)
    >>> model.fit(X, y).variance_components_["sd"].round(1).tolist()
    [37.1, 4.6, 30.9]
    """

    def __init__(self, shape=2.5, rate=0.0, on="sd", relative=True):
        self.shape = shape
        self.rate = rate
        self.on = on
        self.relative = relative

    def check(self):
        """Raise ValueError for a parameter that is none."""
        if not _is_number(self.shape) or not self.shape > 1:
            raise ValueError(
                f"GammaPrior: shape={self.shape!r} must be a number above 1: with a lower one the "
                "prior is largest at an SD of 0."
            )
        if not _is_number(self.rate) or not self.rate >= 0:
            raise ValueError(f"GammaPrior: rate={self.rate!r} must be a number, 0 or above.")
        if self.on not in ("sd", "variance"):
            raise ValueError(f"GammaPrior: on={self.on!r} must be 'sd' or 'variance'.")
        if not isinstance(self.relative, bool | np.bool_):
            raise ValueError(f"GammaPrior: relative={self.relative!r} must be True or False.")


class Priors(NamedTuple):
    """The priors of a design, in the table's units.

    coef [n_columns], SDs of the normal priors of mean 0 of the fixed part's coefficients, inf where
    there is none; sds, a `GammaPrior` or None of each block; parts, SDs of normal priors of the
    coefficients that family parameters have in models of their own, by name.
    """

    coef: np.ndarray
    sds: tuple
    parts: dict


def _is_number(value):
    return isinstance(value, Real) and not isinstance(value, bool) and bool(np.isfinite(value))
