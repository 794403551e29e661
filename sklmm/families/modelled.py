"""Parameters of a family that are linear in columns of the row, each on its unconstrained scale.

That is the logarithm of a positive one and the logit of one in (0, 1). The coefficients take the
parameter's place among those that are estimated, on the whole line.
"""

from typing import NamedTuple


class ParameterModel(NamedTuple):
    """Which `parameter` of a family, by what constraint (`kind`), has a model of its own.

    `component` names the model, "zero_inflation" say, whose columns several parameters may have,
    and `names` are those of this parameter's coefficients.
    """

    parameter: str
    kind: str
    component: str
    names: tuple[str, ...]

    @classmethod
    def of(cls, parameter, kind, component, columns, label=None):
        """The model by its columns' names, before which stands the parameter's `label`."""
        names = tuple(f"{label or parameter}: {column}" for column in columns)
        return cls(parameter, kind, component, names)


def expanded(parameters, models):
    """A family's parameters with the coefficients of `models` in the place of what they model."""
    out = dict(parameters)
    for model in models:
        del out[model.parameter]
        out |= dict.fromkeys(model.names, "real")
    return out
