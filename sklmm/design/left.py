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
#: Share of the times' range up to which two are one but for rounding, and the same of their size
#: in units of the last digit: .1 + .2 is .3.
SAME, LAST_DIGITS = 1e-8, 4
OTHERWISE = "make an interaction of the column and the group a term, (1 | group:column)"


@dataclass(frozen=True)
class Coded(PlainState):
    """A column of labels, as it was in the fit.

    `labels` are a factor's categories, of `kind`, or the times of a column of numbers ("time"),
    which are those of rows that are no further from them than `rounding`. The `first` of them have
    no column of z.
    """

    column: str | int
    labels: pd.Index
    kind: str
    first: int = 0
    rounding: float = 0.0

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
            values, places = self.times(table)
        else:
            values = _labels(table, self.column)
            places = find(self.labels, self.kind, values, self.called)
        if (unseen := places < 0).any():
            raise NotSeen(f"The {self.called}", shown(values[unseen]), OTHERWISE)
        return places

    def times(self, table):
        """(Times [n_rows] of rows, the place of each among the labels or -1)."""
        values, rounding = _read(table, self.column)
        at = self.labels.to_numpy()
        after = np.searchsorted(at, values).clip(1, len(at) - 1) if len(at) > 1 else 0 * values
        after = after.astype(int)
        places = after - (len(at) > 1) * (values - at[after - 1] < at[after] - values)
        near = np.abs(values - at[places]) <= max(rounding, self.rounding)
        return values, np.where(near, places, -1)

    def fill(self, z, table):
        """Write the columns into z [n_rows, size], which is 0."""
        places = self.places(table) - self.first
        rows = np.flatnonzero(places >= 0)
        z[rows, places[rows]] = 1.0


def learn_left(table, effect, whole=True):
    """The `LeftHand` of a `RandomEffect`, whose columns are found, on a training table.

    It is the `whole` table, or its first rows.
    """
    ordered = effect.ordered
    if ordered and effect.intercept:
        raise ValueError(
            f"random_effects: the covariance of the term '{effect}' is along the times or "
            "categories of one column, beside which there is no intercept: write "
            f"{effect.covariance.name or 'it as'}(0 + time | {effect.label}), and the "
            f"intercept as a term of its own, (1 | {effect.label})."
        )
    if ordered and len(effect.slopes) > 1:
        raise ValueError(
            f"random_effects: the covariance of the term '{effect}' is along the times or "
            f"categories of one column, and there are {len(effect.slopes)}: make each other one a "
            f"term of its own, (0 + {effect.slopes[1]} | {effect.label})."
        )
    coded, full = [], not effect.intercept
    for column in effect.slopes:
        if _is_factor(table, column):
            coded.append(_factor(table, column, 0 if full else 1, ordered, effect, whole))
            full = False
        else:
            coded.append(_times(table, column, effect) if ordered else None)
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


def _factor(table, column, first, every, effect, whole):
    """The `Coded` of a factor; with `every` category that is declared, whether it occurs or not.

    But those before and after all that occur in the `whole` table, where nothing tells of them.
    """
    values, name = _labels(table, column), f"slope column {column!r}"
    kind = learn_kind(values, name)
    if isinstance(values, pd.CategoricalIndex):
        declared = values.ordered
        labels = plain(values.categories if every else values.remove_unused_categories().categories)
        if every and not declared:
            labels = _in_order(labels, kind)
        if every and whole and labels is not None and not effect.covariance.extends:
            used = labels.get_indexer(plain(values.remove_unused_categories().categories))
            labels = labels[used.min() : used.max() + 1]
    else:
        labels = None if every and kind == "string" else pd.unique(plain(values))
        labels = labels if labels is None else pd.Index(labels).sort_values()
    if labels is None:
        raise ValueError(
            f"random_effects: the covariance of the term '{effect}' is along an order, and the "
            f"labels of the {name}, like {values[0]!r}, have none: make it a number, or a "
            "categorical that says its order, pd.Categorical(..., categories=[...], ordered=True)."
        )
    if len(labels) <= first:
        raise ValueError(
            f"random_effects: the {name} of the term '{effect}' has a single category, "
            f"{labels[0]!r}, beside an intercept: leave it out of the term, or fit with rows "
            "of other categories."
        )
    return Coded(column, labels.rename(None), kind, first)


def _in_order(labels, kind):
    """Categories that declare no order by their values; None of text, but for numbers as text."""
    if kind != "string":
        return labels.sort_values()
    if not all(map(reads_as_number, labels)):
        return None
    return labels[np.argsort(labels.astype(float), kind="stable")]


def _times(table, column, effect):
    """The `Coded` of a column of times."""
    values = take(table, column)
    if (how := _since(values, f"X[{column!r}]")) is not None:
        raise TypeError(
            f"random_effects: the slope column {column!r} of the term '{effect}' holds dates, "
            f"{values.dtype}, and a covariance along times takes numbers: make it one of days, "
            f"{how} / pd.Timedelta(days=1) for example."
        )
    values, rounding = _read(table, column)
    values = np.unique(values)
    rounding = max(rounding, SAME * (values[-1] - values[0]))
    ends = 1 + np.flatnonzero(np.diff(values) > rounding)
    if len(ends) >= MOST_TIMES:
        raise ValueError(
            f"random_effects: the {len(ends) + 1} different times of the slope column {column!r} "
            f"are more than {MOST_TIMES}, the most that a covariance along them has: round them, "
            "to days or weeks for example."
        )
    # Of .3 and .1 + .2 the one that is written shorter.
    runs = np.split(values, ends)
    times = [min(run.tolist(), key=lambda time: len(repr(time))) for run in runs]
    return Coded(column, pd.Index(times, dtype=float), "time", rounding=float(rounding))


def _since(values, name):
    """The code of the lengths of time that a column of dates, or of lengths, holds; None of others.

    Objects are told by their kind.
    """
    dtype, kind = values.dtype, pd.api.types.infer_dtype(values, skipna=True)
    if pd.api.types.is_timedelta64_dtype(dtype):
        return name
    if pd.api.types.is_datetime64_any_dtype(dtype):
        how = name
    elif str(dtype).startswith("period"):
        how = f"{name}.dt.to_timestamp()"
    elif kind in ("timedelta", "timedelta64"):
        return f"pd.to_timedelta({name})"
    elif kind == "period":
        how = f"pd.PeriodIndex({name}).to_timestamp()"
    elif kind in ("date", "datetime", "datetime64"):
        how = f"pd.to_datetime({name})"
    else:
        return None
    return f"({how} - pd.Timestamp('2000-01-01'))"


def _read(table, column):
    """(Times [n_rows] of a column, their rounding)."""
    values = numeric_columns(table, [column], "slope")[:, 0]
    dtype = getattr(take(table, column).dtype, "numpy_dtype", take(table, column).dtype)
    single = isinstance(dtype, np.dtype) and dtype.kind == "f" and dtype.itemsize < 8
    digit = np.finfo(dtype if single else float).eps
    return values, LAST_DIGITS * digit * np.abs(values).max(initial=0.0)


def _shown(label):
    """A label as names have it: whole times without a fraction."""
    return int(label) if isinstance(label, float) and label.is_integer() else label
