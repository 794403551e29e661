"""Parts of a response's mean: that of the counts themselves, the zeros' probability, a dispersion.

Each takes a family's place where a mean is predicted, so that it is averaged over the posterior as
the mean itself is.
"""

import numpy as np

COMPONENTS = ("conditional", "zero", "dispersion")


class Component:
    """One of `COMPONENTS` of a family, with a `mean` of its own.

    Parameters
    ----------
    family : Family
    which : str

    Raises
    ------
    ValueError
        For a part that the family has not.
    """

    scale_equivariant = mean_is_eta = False

    def __init__(self, family, which):
        if which not in COMPONENTS:
            raise ValueError(
                f"component={which!r} is not available: use {', '.join(map(repr, COMPONENTS))}, or "
                "None for the mean response."
            )
        self._family, self._which = family, which
        self._apart = getattr(family, "apart", None)
        #: The family of one predictor a row.
        self._one = family.family if self._apart else family
        if which == "zero" and not hasattr(self._one, "hurdle"):
            raise ValueError("component='zero': the model has no zero_inflation.")
        if which == "dispersion" and self._one.dispersion_parameter is None:
            raise ValueError(
                f"component='dispersion': family={self._one.name!r} has no dispersion."
            )

    @property
    def density(self):
        """The family's: whether TensorFlow works on its draws."""
        return self._family.density

    def mean(self, eta, params):
        """The part at predictors eta, of the mean's shape."""
        if self._apart:
            eta, params = self._apart(eta, params)
        if self._which == "conditional":
            family = self._one.family if hasattr(self._one, "hurdle") else self._one
            return family.mean(eta, params)
        name = "zero" if self._which == "zero" else self._one.dispersion_parameter
        return np.broadcast_to(params[name], np.shape(eta))
