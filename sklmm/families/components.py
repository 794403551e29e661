"""Parts of a response's mean: that of the counts themselves, the zeros' probability, a dispersion.

Each takes a family's place where a mean is predicted, so that it is averaged over the posterior as
the mean itself is.
"""

import numpy as np

COMPONENTS = ("conditional", "zero", "dispersion")


def component_of(family, which):
    """The part `which`, of `COMPONENTS`, in the family's place; ValueError where it has not that.

    Of a family without zeros of their own its mean is the conditional one.
    """
    if which not in COMPONENTS:
        raise ValueError(
            f"component={which!r} is not available: use {', '.join(map(repr, COMPONENTS))}, or "
            "None for the mean response."
        )
    one = _one(family)
    if which != "dispersion" and not hasattr(one, "hurdle"):
        if which == "conditional":
            return family
        raise ValueError("component='zero': the model has no zero_inflation.")
    if which == "dispersion" and getattr(one, "dispersion_parameter", None) is None:
        name = getattr(family, "name", "ordinal")
        raise ValueError(f"component='dispersion': family={name!r} has no dispersion.")
    return _Component(family, which)


def _one(family):
    """The family of one predictor a row."""
    return family.family if hasattr(family, "apart") else family


class _Component:
    """One of `COMPONENTS`, whose `mean` it has."""

    scale_equivariant = mean_is_eta = False
    unaveraged = ()

    def __init__(self, family, which):
        self._family, self._which, self._one = family, which, _one(family)

    # The family's own, which say how its mean is averaged.
    density = property(lambda self: self._family.density)
    classes = property(lambda self: self._family.classes)
    link = property(lambda self: self._family.link)
    kinds = property(lambda self: self._family.kinds)

    def limits(self, params):
        """The least and the greatest part that there may be."""
        if self._which == "conditional":
            return self._conditional.limits(params)
        return (0.0, 1.0) if self._which == "zero" else (0.0, np.inf)

    @property
    def _conditional(self):
        return self._one.family if hasattr(self._one, "hurdle") else self._one

    def mean(self, eta, params):
        """The part at predictors eta, of the mean's shape."""
        if hasattr(self._family, "apart"):
            eta, params = self._family.apart(eta, params)
        if self._which == "conditional":
            return self._conditional.mean(eta, params)
        name = "zero" if self._which == "zero" else self._one.dispersion_parameter
        return np.broadcast_to(params[name], np.shape(eta))
