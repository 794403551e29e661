"""What a family of one's own has of a TFP distribution; built-in ones have a density instead."""

import inspect
from numbers import Real

import numpy as np

from sklmm._fork import check_not_forked
from sklmm.families.constraints import OFFERED
from sklmm.families.messages import listed, needs_tensorflow

#: Arguments of a family's methods that are not those of its mean and variance.
_ARGUMENTS = {"sample": "eta, params, rng", "cdf": "y, eta, params, below=False"}


def told(family, which, eta, params, *given, **options):
    """What a method of the family's distribution at eta returns: "mean", "variance", "cdf"..."""
    arguments = _ARGUMENTS.get(which, "eta, params")
    if not family.is_custom:
        raise family._error(
            f"a family with a `density` has no {which} but its own: add "
            f"`{which}(self, {arguments})` to the class."
        )
    try:
        return np.asarray(getattr(_distribution(family, eta, params), which)(*given, **options))
    except NotImplementedError:
        raise family._error(
            f"its distribution has no {which}: override `{which}(self, {arguments})` in a "
            "subclass of Family, or use a distribution that has one."
        ) from None


def from_reals(family, params, eta=0.0):
    """TFP's map from the real line to y, None where y is whole numbers."""
    one = {name: np.ravel(value)[0] for name, value in params.items()}
    return _distribution(family, np.full(1, eta), one).experimental_default_event_space_bijector()


def _distribution(family, eta, params):
    check_not_forked(f"family={family!r}")
    try:
        params = {name: np.float64(value) for name, value in params.items()}
        return family.distribution(np.asarray(eta, float), **params)
    except ImportError as error:
        raise needs_tensorflow(f"family={family!r}", error) from None


def check_parameters(family, function, constraints):
    """The constraints and the function's parameters after eta must be the same."""
    required, optional = signature(function)
    for name, value in constraints.items():
        if isinstance(value, str) and value in OFFERED:
            good = True
        else:
            good = isinstance(value, Real) and not isinstance(value, bool)
            good = good and np.isfinite(value)
        if not good:
            raise family._error(
                f"{name}={value!r} is not a constraint: use {listed(OFFERED)}, or a "
                "number to pin it."
            )
        if optional is not None and name not in required and name not in optional:
            raise family._error(
                f"{name}={value!r} constrains a parameter that the function lacks; it has "
                f"{listed([*required, *optional]) or 'none after eta'}: remove the constraint "
                "or rename the parameter."
            )
    for name in required:
        if name not in constraints:
            raise family._error(
                f"the function's parameter {name!r} has no constraint: add {name}='positive' "
                f"(or 'real', 'unit', or a number to pin it)."
            )


def signature(function):
    """Parameters after eta without and with a default; the latter None where any name goes."""
    try:
        found = list(inspect.signature(function).parameters.values())[1:]
    except (TypeError, ValueError):
        return [], None
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    named = [p for p in found if p.kind in kinds]
    required = [p.name for p in named if p.default is p.empty]
    optional = [p.name for p in named if p.default is not p.empty]
    return required, None if any(p.kind is p.VAR_KEYWORD for p in found) else optional
