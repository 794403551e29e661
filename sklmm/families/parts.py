"""What an estimator's parameters zero_inflation, dispersion and nominal make of its family."""

from dataclasses import replace
from itertools import pairwise

import numpy as np

from sklmm.families.constraints import CONSTRAINTS
from sklmm.families.modelled import ParameterModel
from sklmm.families.zero_inflated import ZeroInflated

#: Which of a family's parameters each part is a model of.
PARTS = {
    "zero_inflation": lambda family, n_classes: ["zero"],
    "dispersion": lambda family, n_classes: [family.dispersion_parameter],
    "nominal": lambda family, n_classes: family.shifts(n_classes),
}


def with_parts(family, parts):
    """The family of a model with these parts, a dict; ValueError where it has none such."""
    if "dispersion" in parts:
        name = family.dispersion_parameter
        if name is None:
            raise ValueError(
                f"dispersion={parts['dispersion']!r}: family={family.name!r} has no dispersion: "
                "use dispersion=None."
            )
        if family.parameters()[name] != "positive":
            raise ValueError(
                f"dispersion={parts['dispersion']!r} models {name}, which family={family!r} pins: "
                "leave one of the two."
            )
        family = family.by_row()
    if "nominal" in parts:
        if family.classes != "ordered":
            raise ValueError(
                f"nominal={parts['nominal']!r} is for family='ordinal', not {family.name!r}: use "
                "nominal=None."
            )
        from sklmm.families.nominal import PartialOrdinal

        family = PartialOrdinal(family.link)
    if "zero_inflation" in parts:
        family = ZeroInflated(family)
        family.check()
    return family


def modelled(spec, response, designs):
    """The `Response` with `ParameterModel`s of the parts, `submodels.PartDesign`s; and the spec.

    Those with random effects make a `PredictedFamily` of its family, and their terms' names begin
    with the parameter's.
    """
    family, n_classes = response.family, response.n_classes
    kinds = family.parameters(n_classes)
    models = [
        ParameterModel.of(name, kinds[name], design.component, design.names, label)
        for design in designs
        if not design.blocks
        for name, label in _labelled(response, PARTS[design.component](family, n_classes))
    ]
    parts = [design.component for design in designs if design.blocks]
    if parts:
        from sklmm.families.predicted import PredictedFamily

        names = {part: PARTS[part](family, n_classes)[0] for part in parts}
        spec, family = spec.prefixed(names), PredictedFamily(family, tuple(names.values()))
    return spec, replace(response, family=family, models=tuple(models))


def _labelled(response, parameters):
    """Parameters with what their coefficients' names begin with: of shifts, the cutpoints."""
    if len(parameters) == 1:
        return zip(parameters, parameters, strict=True)
    cutpoints = [f"{a}|{b}" for a, b in pairwise(response.classes)]
    return zip(parameters, cutpoints, strict=True)


def parameters_by_row(models, values, designs):
    """Parameters of a family by name: numbers, and arrays [n_rows, 1] of those with a model.

    `values` are the numbers and the models' coefficients by name; or draws [S] of each, and then
    parameters with a model are [n_rows, S].
    """
    out = dict(values)
    for model in models:
        own = next(design for design in designs if design.component == model.component)
        coefs = np.array([out.pop(name) for name in model.names])
        predictor = own.X @ (coefs.reshape(len(coefs), -1) if len(coefs) else coefs[:, None])
        if own.offset is not None:
            predictor = predictor + own.offset[:, None]
        out[model.parameter] = CONSTRAINTS[model.kind].constrain(predictor)
    return out
