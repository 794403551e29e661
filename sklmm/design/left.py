"""Columns on the left of a term's bar that are no plain numbers, and the columns of z they make.

A category, a text or a boolean is a factor, in treatment coding against its first category, as
formulaic has it: ``f[T.b]``; but the first factor of a side without intercept has a column for each
category, ``f[b]``. A covariance along an order, such as AR(1), has a column for each place: the
times that a column of numbers holds, or all categories that one declares.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from sklmm._state import PlainState
from sklmm.design.columns import numeric_columns, raise_not_finite, reads_as_number, take
from sklmm.design.levels import find, group_column, learn_kind, plain
from sklmm.design.terms import LeftHand
from sklmm.design.variables import NotSeen, shown

#: Different times beyond which a covariance along them is refused.
MOST_TIMES = 500
#: Share of their range by which two times are one.
CLOSE = 1e-9
OTHERWISE = "make an interaction of the column and the group a term, (1 | group:column)"


@dataclass(frozen=True)
class Coded(PlainState):
    """A column of labels, as it was in the fit.

    `labels` are a factor's categories, of `kind`, or the times of a column of numbers ("time"). The
    `first` of them have no column of z.
    """

    column: str | int
    labels: pd.Index
    kind: str
    first: int = 0

    @property
    def size(self):
        """Number of columns of z."""
        return len(self.labels) - self.first

    @property
    def names(self):
        """Names of the columns of z."""
        mark = "T." * bool(self.first)
        labels = map(_shown, self.labels[self.first :])
        return tuple(f"{self.column}[{mark}{label}]" for label in labels)

    @property
    def called(self):
        """What error messages call the column."""
        return f"slope column {self.column!r}"

    def places(self, table):
        """Place of each row's label among the labels, int [n_rows]; NotSeen for others."""
        if self.kind == "time":
            values = pd.Index(numeric_columns(table, [self.column], "slope")[:, 0])
            places = self.labels.get_indexer(values)
        else:
            values = _labels(table, self.column)
            places = find(self.labels, self.kind, values, self.called)
        if (unseen := places < 0).any():
            raise NotSeen(f"The {self.called}", shown(values[unseen]), OTHERWISE)
        return places

    def fill(self, z, table):
        """Write the columns into z [n_rows, size], which is 0."""
        places = self.places(table) - self.first
        rows = np.flatnonzero(places >= 0)
        z[rows, places[rows]] = 1.0


def learn_left(table, effect):
    """The `LeftHand` of a `RandomEffect`, whose columns are found, on a training table."""
    ordered = effect.ordered
    if ordered and effect.intercept:
        raise ValueError(
            f"random_effects: the covariance of the term '{effect}' is along the times or "
            "categories of one column, beside which there is no intercept: write "
            f"{effect.covariance.name or 'it as'}(0 + time | {effect.label}), and the "
            f"intercept as a term of its own, (1 | {effect.label})."
        )
    coded, full = [], not effect.intercept
    alone = len(effect.slopes) == 1
    for column in effect.slopes:
        if _is_factor(table, column):
            coded.append(_factor(table, column, 0 if full else 1, ordered and alone, effect))
            full = False
        else:
            coded.append(_times(table, column) if ordered and alone else None)
    return LeftHand(effect.intercept, effect.slopes, tuple(coded) if any(coded) else ())


def _is_factor(table, column):
    """Whether a column holds labels: strings of digits are taken for numbers, which is an error."""
    values = take(table, column)
    dtype = values.dtype
    if isinstance(dtype, pd.CategoricalDtype) or str(dtype).startswith("dictionary"):
        return True
    if pd.api.types.is_bool_dtype(dtype):
        return not isinstance(dtype, pd.SparseDtype)
    if not (pd.api.types.is_object_dtype(dtype) or pd.api.types.is_string_dtype(dtype)):
        return False
    kind = pd.api.types.infer_dtype(values, skipna=True)
    if kind == "string":
        return not all(map(reads_as_number, pd.unique(pd.Series(values).dropna())))
    return kind == "boolean"


def _labels(table, column):
    values = group_column(table, column)
    if values.hasnans:
        raise_not_finite([column], "slope", "NaN")
    return values


def _factor(table, column, first, every, effect):
    """The `Coded` of a factor; with `every` category that is declared, whether it occurs or not."""
    values, name = _labels(table, column), f"slope column {column!r}"
    kind = learn_kind(values, name)
    if isinstance(values, pd.CategoricalIndex):
        labels = plain(values.categories if every else values.remove_unused_categories().categories)
    elif every and kind == "string":
        raise ValueError(
            f"random_effects: the covariance of the term '{effect}' is along an order, and the "
            f"labels of the {name}, like {values[0]!r}, have none: make it a number, or a "
            "categorical whose categories are in order, pd.Categorical(..., categories=[...])."
        )
    else:
        labels = pd.Index(pd.unique(plain(values))).sort_values()
    if len(labels) <= first:
        raise ValueError(
            f"random_effects: the {name} of the term '{effect}' has a single category, "
            f"{labels[0]!r}, beside an intercept: leave it out of the term, or fit with rows "
            "of other categories."
        )
    return Coded(column, labels.rename(None), kind, first)


def _times(table, column):
    dtype = take(table, column).dtype
    if pd.api.types.is_datetime64_any_dtype(dtype) or str(dtype).startswith("period"):
        raise TypeError(
            f"random_effects: the slope column {column!r} holds dates, {dtype}, and a covariance "
            f"along times takes numbers: (X[{column!r}] - X[{column!r}].min()).dt.days for example."
        )
    times = np.unique(numeric_columns(table, [column], "slope")[:, 0])
    if len(times) > MOST_TIMES:
        raise ValueError(
            f"random_effects: the {len(times)} different times of the slope column {column!r} are "
            f"more than {MOST_TIMES}, the most that a covariance along them has: round them, to "
            "days or weeks for example."
        )
    if len(times) > 1 and (gap := np.diff(times)).min() < CLOSE * (times[-1] - times[0]):
        i = int(np.argmin(gap))
        raise ValueError(
            f"random_effects: the times {float(times[i])} and {float(times[i + 1])} of the slope column "
            f"{column!r} are one but for rounding: round them."
        )
    return Coded(column, pd.Index(times), "time")


def _shown(label):
    """A label as names have it: whole times without a fraction."""
    return int(label) if isinstance(label, float) and label.is_integer() else label
