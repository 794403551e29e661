"""Columns of a model's other parts: the zeros, the dispersion, what ordered classes have each.

A part is a formula, ``"~ z + offset(w) + (1 | g)"``, or a list of columns and terms; it has an
intercept where the formula has one, and a list always.
"""

from dataclasses import dataclass, replace

import numpy as np

from sklmm.design.formula import formula_parameters
from sklmm.design.terms import resolve_terms
from sklmm.design.variables import NotSeen

#: What may be done about labels that have no coefficient in a part.
OTHERWISE = "leave the column out of this part of the model"
#: Parts that may have random effects, each of one parameter.
PREDICTED = ("zero_inflation", "dispersion")


@dataclass(frozen=True)
class PartDesign:
    """X [n_rows, q] of a part, its columns' names, and its offset [n_rows] or None.

    One with random effects has `blocks`, as a `Design` has: it is a linear predictor of the rows.
    """

    component: str
    X: np.ndarray
    names: tuple
    offset: np.ndarray | None = None
    blocks: tuple = ()
    #: None: columns of a part are dense.
    sparse = None


def part_parameters(component, given):
    """`DesignSpec.learn`'s random_effects, fixed_effects and offset of a part, a dict.

    Raises
    ------
    ValueError, TypeError
        For what is neither a formula without a response nor a list of columns.
    """
    if not isinstance(given, str):
        if not isinstance(given, list | tuple):
            raise TypeError(
                f"{component}={given!r} must be a formula such as '~ z', or a list of columns."
            )
        terms = [c for c in given if (isinstance(c, str) and "|" in c) or hasattr(c, "group")]
        return {
            "random_effects": terms or None,
            "fixed_effects": [c for c in given if c not in terms],
            "offset": None,
        }
    if not given.strip().startswith("~"):
        raise ValueError(
            f"{component}={given!r}: a formula of a part has no response: write '~ z', z a column, "
            "'~ 1' for an intercept alone."
        )
    own = {"offset": None} | formula_parameters("y " + given)
    return own | {"fixed_effects": own["fixed_effects"].removeprefix("y").strip()}


def learn_parts(learn, table, given, names):
    """(component, spec) of each part, and their `PartDesign`s: `learn` is `DesignSpec.learn`."""
    specs, designs = [], []
    for component, own in given.items():
        own = part_parameters(component, own)
        terms = _terms(component, own, table)
        try:
            spec, design = learn(table, terms, own["fixed_effects"], True, names, own["offset"])
        except ImportError as error:
            raise ImportError(str(error).replace("fixed_effects", component, 1)) from None
        except ValueError as error:
            # What is said of the fixed effects is said of those of the part.
            text = str(error).replace("fixed_effects='~ ...'", f"{component}='~ ...'")
            prefix = "" if text.startswith(component) else f"{component}: "
            raise ValueError(f"{prefix}{text}") from None
        if component == "nominal":
            spec = replace(spec, centre=_centre(design.X[:, int(spec.fit_intercept) :]))
        specs.append((component, spec))
        designs.append(_part(component, spec, design))
    return tuple(specs), tuple(designs)


def columns_of_parts(columns_read, table, given, names):
    """Columns that the parts read, a set: `columns_read` is `design.columns_read`."""
    out = set()
    for component, own in given.items():
        own = part_parameters(component, own)
        terms = _terms(component, own, table)
        out |= columns_read(table, terms, own["fixed_effects"], own["offset"], names)
    return out


def check_apart(spec):
    """ValueError for a column that shifts all cutpoints alike, and each by itself."""
    for component, own in spec.models:
        both = [name for name in own.fixed_names if name in spec.coef_names]
        if component == "nominal" and both:
            raise ValueError(
                f"nominal: {both[0]!r} is a column of fixed_effects too, and shifts all cutpoints "
                "there: leave it out of one of the two."
            )


def _terms(component, own, table):
    """The `RandomEffect`s of a part."""
    if own["random_effects"] is None:
        return []
    if component not in PREDICTED:
        raise ValueError(
            f"{component}: random-effect terms such as {own['random_effects'][0]!r} are not "
            "available in this part of the model: leave them out."
        )
    return resolve_terms(own["random_effects"], getattr(table, "columns", ()))


def apply_parts(specs, table, include=None):
    """The `PartDesign`s of a new table; `include` says which of the parts' terms count."""
    out, first = [], 0
    for component, spec in specs:
        last = first + len(spec.terms)
        wanted = None if include is None else include[first:last]
        out.append(_part(component, spec, _applied(component, spec, table, wanted)))
        first = last
    return tuple(out)


def _applied(component, spec, table, include):
    """The `Design` of a new table; of labels that the fit had not, the error names the part."""
    try:
        return spec.apply(table, include)
    except NotSeen as error:
        raise NotSeen(f"{component}: {error.what}", error.labels, OTHERWISE) from None


def _part(component, spec, design):
    X, names = design.X, spec.coef_names
    if component == "nominal":
        # Classes have their intercepts, the cutpoints; of an average row their order is known.
        first = int(spec.fit_intercept)
        X, names = X[:, first:] - np.array(spec.centre), names[first:]
    return PartDesign(component, X, names, design.offset, design.blocks)


def _centre(X):
    """The columns' means; of one that is constant itself, which rounding would make vary."""
    return tuple(np.where(np.ptp(X, axis=0) > 0, X.mean(axis=0), X[0]).tolist())
