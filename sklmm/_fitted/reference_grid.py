"""The reference grid of marginal means: every combination of the values that columns take there.

A factor takes the levels of the fit, a number its mean, as in R's emmeans. A number that has two
values stands for a factor of two levels, which count equally, or takes its mean as others do.
"""

from dataclasses import dataclass
from itertools import product
from math import prod

import numpy as np
import pandas as pd

from sklmm.design.columns import take

#: Rows beyond which a grid is more than means are asked of.
MOST_ROWS = 100_000


@dataclass(frozen=True)
class ReferenceGrid:
    """`axes`, the values of each column that varies; `held`, of others.

    The first `n_columns` are those of the means. `table` has a row for each combination, the last
    axis fastest; `equal` names the columns of numbers whose two values count equally.
    """

    axes: dict
    held: dict
    n_columns: int
    equal: tuple
    table: pd.DataFrame

    @classmethod
    def of(cls, spec, table, means, at, two_values, weights=None):
        """The grid of a model's columns, for means of some of them.

        `table` has the rows that tell what numbers are, or is None; `at` the values of columns
        by name, and `two_values` "equal" or "mean".
        """
        axes, held, equal = {}, {}, []
        columns = spec.used([False] * len(spec.every_term))
        _check_names(columns, means, at)
        levels = factors_of(spec)
        # Those of the means first, in their order.
        for column in dict.fromkeys((*means, *columns)):
            if column in at:
                values = pd.Index(np.atleast_1d(np.asarray(at[column])).tolist())
                if not len(values):
                    raise ValueError(f"at: {column!r} has no values: give some, or leave it out.")
            elif (values := levels.get(column)) is None:
                values, two = _values(table, column, two_values, weights)
                equal += [column] * two
            if len(values) > 1 or column in means:
                axes[column] = values
            else:
                held[column] = values
        n_rows = prod(map(len, axes.values()))
        if n_rows > MOST_ROWS:
            sizes = ", ".join(f"{column!r} ({len(values)})" for column, values in axes.items())
            raise ValueError(
                f"The reference grid has {n_rows} rows, of every combination of {sizes}: give "
                "values to some of these columns by `at`, or make them grouping factors."
            )
        return cls(axes, held, len(means), tuple(equal), _product(axes, held, n_rows))

    @property
    def n_means(self):
        """Number of means."""
        return prod(len(values) for values in list(self.axes.values())[: self.n_columns])

    def averaged(self, values):
        """Means over the rows of each combination of the first columns, [n_means, ...]."""
        return values.reshape(self.n_means, -1, *values.shape[1:]).mean(axis=1)

    def index(self):
        """The combinations of the levels of the columns of the means."""
        columns = list(self.axes)[: self.n_columns]
        levels = [self.axes[column] for column in columns]
        if not columns:
            return pd.Index(["overall"], name="mean")
        if len(columns) == 1:
            return pd.Index(levels[0], name=columns[0])
        return pd.MultiIndex.from_product(levels, names=columns)

    def notes(self):
        """Over what the rows of a mean are averaged, and what other columns are held at."""
        axes = list(self.axes)[self.n_columns :]
        told = []
        for column in axes:
            values = self.axes[column]
            text = f"{column} ({', '.join(map(_shown, values[:5]))}{', ...' * (len(values) > 5)})"
            told.append(text + ", a number of two values" * (column in self.equal))
        held = [f"{column} = {_shown(values[0])}" for column, values in self.held.items()]
        notes = [f"Averaged with equal weights over: {'; '.join(told)}."] if told else []
        notes += [f"At: {'; '.join(held)}."] if held else []
        return notes


def _shown(value):
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _product(axes, held, n_rows):
    places = np.array(list(product(*[range(len(values)) for values in axes.values()])), int)
    places = places.reshape(n_rows, len(axes))
    columns = {c: values.take(places[:, i]) for i, (c, values) in enumerate(axes.items())}
    columns |= {c: values.take(np.zeros(n_rows, int)) for c, values in held.items()}
    return pd.DataFrame(columns, index=pd.RangeIndex(n_rows))


def _check_names(columns, means, at):
    for parameter, names in (("specs", means), ("at", at)):
        for name in names:
            if name not in columns:
                known = ", ".join(map(repr, columns)) or "none"
                raise ValueError(
                    f"{parameter}: {name!r} is no column that the mean depends on: these are "
                    f"{known}."
                )


def factors_of(spec):
    """Levels of the factors of the fixed part, and of slopes beside it, by column."""
    out = {}
    for own in (spec, *(own for _, own in spec.models)):
        for variable in () if own.formula is None else own.formula.variables:
            if variable.levels is not None:
                out.setdefault(variable.name, variable.levels)
        for term in own.terms:
            for column, coded in zip(term.left.columns, term.left.coded, strict=False):
                if coded is not None and coded.kind != "time":
                    out.setdefault(column, pd.Index(coded.labels))
    return out


def _values(table, column, two_values, weights):
    """(Values of a column that no factor of the fit is made of, whether two that count equally)."""
    if table is None:
        raise ValueError(
            f"X is None, and column {column!r} is no factor whose levels the fit knows: give a "
            f"table, whose mean it then has, or at={{{column!r}: value}}."
        )
    values = pd.Series(np.asarray(take(table, column)))
    known = values.notna().to_numpy()
    if not known.any():
        raise ValueError(f"X: column {column!r} has no value: give at={{{column!r}: value}}.")
    values = values[known]
    if values.dtype.kind not in "iuf":
        try:
            values = values.astype(float)
        except (TypeError, ValueError):
            return pd.Index(np.sort(pd.unique(values))), False
    low, high = values.min().item(), values.max().item()
    if low == high or (two_values == "equal" and ((values == low) | (values == high)).all()):
        return pd.Index([low] if low == high else [low, high]), low < high
    weights = None if weights is None else weights[known]
    return pd.Index([np.average(values.to_numpy(float), weights=weights)]), False
