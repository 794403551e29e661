"""Levels of a grouping factor: learnt from a table's labels, found again in another's.

A column's labels have a kind, a plain word or two: "integer", "string", "datetime with a time
zone". How a table stores a label is no part of it: a category of strings, Arrow's strings and
Python's are one kind. Labels of one kind are compared by value. Numbers are so across their types
where that is exact, and booleans with 0 and 1 and with the words that CSV files have for them.
Every other pair of kinds is an error, for "7" may or may not be meant for 7.
"""

import datetime
import warnings
from contextlib import contextmanager
from dataclasses import dataclass, replace
from decimal import Decimal

import numpy as np
import pandas as pd
from pandas.errors import InvalidIndexError

from sklmm._state import PlainState
from sklmm.covariances import Covariance
from sklmm.design.columns import take
from sklmm.design.terms import RandomEffect

NUMBERS = ("integer", "float64", "float32", "decimal")
#: Words for truth values that `pandas.read_csv` reads.
TRUTH = {"True": True, "true": True, "TRUE": True, "False": False, "false": False, "FALSE": False}
_BY_DTYPE = {"b": "boolean", "i": "integer", "u": "integer", "M": "datetime", "m": "timedelta"}
#: Kinds by type, of which the first that fits counts: a datetime is a date too, a bool an int.
_BY_TYPE = (
    (str, "string"),
    (bytes, "bytes"),
    ((bool, np.bool_), "boolean"),
    ((int, np.integer), "integer"),
    ((float, np.floating), "float64"),
    (Decimal, "decimal"),
    (datetime.datetime, "datetime"),
    (datetime.date, "date"),
)
_READ = (
    "Read the column as 'Int64' or as strings: a missing value among integers makes floats of them "
    "in pandas."
)
#: Where labels are from that others are compared with, as errors say it.
FITTED = "when the model was fitted"
_CONVERSIONS = {
    "string": "astype(str)",
    "integer": "astype('int64')",
    "datetime": "dt.tz_localize(None) or pd.to_datetime",
    "datetime with a time zone": "dt.tz_localize or pd.to_datetime(utc=True)",
    "float64": "astype('float64')",
}


@dataclass(frozen=True)
class TermSpec(PlainState):
    """What a term keeps from training: its name, levels, left-hand side and covariance.

    `kinds` are those of the labels of its grouping columns, `left` is a `LeftHand`.
    """

    effect: RandomEffect
    name: str
    levels: pd.Index
    kinds: tuple
    left: object
    covariance: Covariance

    @property
    def _columns(self):
        """What errors call the parts of a level."""
        return (self.name,) if self.effect.tied else self.effect.columns

    @property
    def cnames(self):
        """Names of its coefficients."""
        return self.left.names

    def encode(self, table):
        """Level index of each row, int32 [n_rows]; -1 where the level is unseen or missing.

        Of memberships [n_rows, m], see `design.memberships`.
        """
        if self.effect.tied:
            from sklmm.design.memberships import encode

            return encode(self, table)
        places = [
            find(labels, kind, group_column(table, column), _named(column))
            for labels, kind, column in zip(
                parts_of(self.levels), self.kinds, self.effect.columns, strict=True
            )
        ]
        if len(places) == 1:
            return places[0].astype(np.int32)
        refs = self.levels.get_indexer(pd.MultiIndex(levels=self.levels.levels, codes=places))
        return np.where(np.min(places, axis=0) < 0, -1, refs).astype(np.int32)

    def grown(self, table):
        """The term with the levels of another table added, in the order of a fit to both.

        Related levels are all there: ValueError names another.
        """
        if self.effect.relation is not None:
            learn_levels(table, self.effect, self.name, fewest=1)
            return self
        _, found, _ = learn_levels(table, self.effect, self.name, fewest=1)
        if not len(found):
            return self
        levels, _ = self.joined(found)
        if levels is self.levels:
            return self
        with self._comparable(levels[len(self.levels) :]):
            levels = levels.sort_values()
            for part in parts_of(levels):
                learn_kind(part, _named(self.name))
        return replace(self, levels=levels)

    def joined(self, found):
        """(The levels and after them the others of `found`, places of those among them all).

        `found` are levels of another table; the levels are themselves where no others are found.
        """
        found = self._conformed(found)
        with self._comparable(found):
            places = self.levels.get_indexer(found)
        if not (is_new := places < 0).any():
            return self.levels, places
        with self._comparable(found[is_new]):
            # Of other types pandas may make equal labels, as floats of large integers are.
            levels = self.levels.append(found[is_new])
            if not (levels.is_unique and levels[: len(self.levels)].equals(self.levels)):
                raise TypeError(f"labels of type {levels.dtype} are not all different")
        places[is_new] = len(self.levels) + np.arange(is_new.sum())
        return levels, places

    def of_batch(self, found, where):
        """The term with the levels of a batch of rows alone, in the types of these levels.

        An error says `where` these are from, "in batch 0". Related levels are all there.
        """
        if self.effect.relation is not None:
            return replace(self, levels=found)
        levels = self._conformed(found, where)
        parts = zip(parts_of(levels), self._columns, strict=True)
        kinds = tuple(kind_of(labels, _named(column)) for labels, column in parts)
        return replace(self, levels=levels, kinds=kinds)

    @contextmanager
    def _comparable(self, found):
        """TypeError that tells of labels in `found` that do not stand beside those of the term."""
        try:
            yield
        except (TypeError, InvalidIndexError) as error:
            new, old = found.tolist()[0], self.levels.tolist()[0]
            raise TypeError(
                f"The grouping column {self.name!r} has labels, like {new!r}, that cannot be told "
                f"from or ordered among those of the fit, like {old!r}: convert the column to "
                "their type."
            ) from error

    def _conformed(self, found, where=FITTED):
        """Levels of another table in the types of these."""
        columns = zip(
            parts_of(found), parts_of(self.levels), self.kinds, self._columns, strict=True
        )
        parts = [conformed(new, kind, old, _named(c), where) for new, old, kind, c in columns]
        if len(parts) == 1:
            return parts[0].rename(self.levels.name)
        return pd.MultiIndex(parts, found.codes, names=self.levels.names)


def learn_levels(table, effect, name, fewest=2):
    """(refs int32 [n_rows], levels in order, kinds of their parts) of a term.

    ValueError and TypeError name the column whose labels are missing, or cannot be told apart.
    """
    if effect.tied:
        from sklmm.design.memberships import learn

        return learn(table, effect, name, fewest)
    columns = [group_column(table, c) for c in effect.columns]
    for column, values in zip(effect.columns, columns, strict=True):
        if values.hasnans:
            missing = values.isna()
            raise ValueError(
                f"The grouping column {column!r} has {int(missing.sum())} missing value(s) (NaN or "
                f"None), the first in row {int(np.argmax(missing))}. Leave these rows out, or set "
                "missing='drop', which does, or give them a level of their own."
            )
    kinds = tuple(
        learn_kind(values, _named(column))
        for column, values in zip(effect.columns, columns, strict=True)
    )
    if effect.relation is not None:
        return _related_levels(effect, name, columns[0])
    keys = columns[0] if len(columns) == 1 else pd.MultiIndex.from_arrays(columns)
    return *ordered(keys, effect, name, fewest), kinds


def ordered(keys, effect, name, fewest):
    """(refs int32 [n_rows], levels in order) of rows' labels, none missing."""
    try:
        codes, levels = pd.factorize(keys)
        # Sorted here, as pandas would make more arrays of all rows for it.
        levels, order = levels.sort_values(return_indexer=True)
    except TypeError as error:
        raise TypeError(
            f"The grouping column {name!r} holds labels that cannot be told apart or ordered "
            f"({error}): the argument must be a column of strings or numbers. Convert it to one "
            "type, with astype(str) for example."
        ) from error
    places = np.empty(len(order), np.int32)
    places[order] = np.arange(len(order), dtype=np.int32)
    if isinstance(levels, pd.CategoricalIndex):
        levels = pd.Index(np.asarray(levels))
    if isinstance(levels, pd.MultiIndex):
        levels = levels.set_names([str(c) for c in effect.columns]).remove_unused_levels()
    else:
        levels = levels.rename(effect.label)
    if len(levels) < fewest:
        rows = "n_samples = 1: " if len(keys) == 1 else ""
        raise ValueError(
            f"{rows}the grouping factor {name!r} has a single level ({levels[0]!r}): a variance "
            "between levels needs at least two. Remove the term."
        )
    return places[codes], levels


def _related_levels(effect, name, values):
    """`learn_levels` of a term whose levels are those of its `Relationship`."""
    levels = effect.relation.labels.rename(str(effect.columns[0]))
    kind = learn_kind(levels, f"labels of the Relationship of {name!r}")
    refs = find(levels, kind, values, _named(effect.columns[0]), f"in the Relationship of {name!r}")
    if (unknown := refs < 0).any():
        other = values[unknown].unique()
        raise ValueError(
            f"The grouping column {effect.columns[0]!r} has {len(other)} label(s) that are not in "
            f"its Relationship, like {_shown(other)}, and the Relationship has labels like "
            f"{_shown(levels)}: add them to it (in a pedigree, as founders), or leave their rows "
            "out."
        )
    return refs.astype(np.int32), levels, (kind,)


def group_column(table, column):
    """Values of a grouping column as a pandas object that `factorize` and `get_indexer` take."""
    values = take(table, column)
    if values.dtype == np.float16:
        # pandas has no Index of them.
        values = values.astype(np.float32)
    if str(values.dtype).startswith("dictionary"):
        # Arrow's, of which pandas 2.2 makes no Categorical.
        values = values.astype(object)
    values = values.array if isinstance(values, pd.Series) else values
    return pd.Index(values, copy=False, tupleize_cols=False)


def parts_of(levels):
    """Labels of each column, of a level of one or of several."""
    return getattr(levels, "levels", [levels])


def _named(column):
    return f"grouping column {column!r}"


def learn_kind(values, name):
    """`kind_of` a fit's labels; ValueError for floats that cannot tell whole numbers apart.

    Here and below `name` is what errors call the column, "grouping column 'g'".
    """
    kind = kind_of(values, name)
    if kind in NUMBERS and len(lossy := (values := plain(values))[_lossy(values)]):
        raise ValueError(
            f"The {name} holds {_shown(lossy)}: {values.dtype} numbers of this size cannot tell "
            f"whole numbers apart, so different labels may have become one. {_READ}"
        )
    return kind


def kind_of(values, name):
    """Kind of labels, an Index of which none is missing; "" for none, TypeError for two kinds."""
    if isinstance(values, pd.CategoricalIndex):
        values = values.remove_unused_categories().categories
    return _kind(plain(values), name) if len(values) else ""


def find(labels, kind, values, name, where=FITTED):
    """Place of each value of a column among a fit's labels, int [n_rows]; -1 for others.

    An error says `where` the labels are from.
    """
    if isinstance(values, pd.CategoricalIndex):
        used = np.unique(values.codes[values.codes >= 0])
        places = np.full(len(values.categories) + 1, -1)
        places[used] = find(labels, kind, values.categories[used], name, where)
        return places[values.codes]
    places, known = np.full(len(values), -1), ~values.isna()
    values = plain(values if known.all() else values[known])
    if (lossy := _lossy(values)).any():
        warnings.warn(
            f"The {name} holds {_shown(values[lossy])}: {values.dtype} numbers of this size cannot "
            f"tell whole numbers apart, so {lossy.sum()} row(s) are taken for rows of unknown "
            f"levels. {_READ}",
            UserWarning,
            stacklevel=8,
        )
        known[known] = ~lossy
        values = values[~lossy]
    if kind and len(values):
        labels = plain(labels)
        values = conformed(values, kind, labels, name, where)
        if isinstance(labels.dtype, pd.IntervalDtype):
            # Those that overlap pandas finds as objects alone.
            labels, values = labels.astype(object), values.astype(object)
        places[known] = labels.get_indexer(values)
    return places


def conformed(values, kind, labels, name, where=FITTED):
    """Labels, none missing, in a type that compares with those of the fit; else a TypeError.

    The error says `where` the fit's labels are from.
    """
    values, labels = plain(values), plain(labels)
    new = _kind(values, name)
    if new == kind:
        return values
    both = new in NUMBERS and kind in NUMBERS
    numbers = _numbers(values, new, labels, kind) if both else None
    if numbers is not None:
        return numbers
    if "boolean" in (new, kind):
        given, own = truth(values, new), truth(labels, kind)
        if given is not None and own is not None and len(set(own)) == len(own):
            spelling = {t: type(labels[0])(t) for t in (False, True)}
            spelling |= dict(zip(own, labels, strict=True))
            return pd.Index(np.where(given, spelling[True], spelling[False]))
    raise TypeError(
        f"The {name} has labels, like {_shown(values)}, of kind {new}, and had labels of kind "
        f"{kind}, like {_shown(labels)}, {where}: the two are not compared. {_remedy(new, kind)}"
    )


def plain(values):
    """Labels, none missing, by their values alone: of NumPy's types, or of pandas' own."""
    dtype = values.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        return plain(values.categories.take(values.codes))
    if isinstance(dtype, pd.SparseDtype):
        return plain(pd.Index(np.asarray(values)))
    own = getattr(dtype, "numpy_dtype", dtype)
    if own is not dtype and own.kind in "biuf":
        return pd.Index(values.to_numpy(own))
    if isinstance(dtype, pd.ArrowDtype):
        values = pd.Index(values.to_numpy(object), dtype=object, tupleize_cols=False)
    if values.dtype != object:
        return values
    inferred = pd.api.types.infer_dtype(values, skipna=False)
    if inferred == "mixed-integer-float":
        return values.astype(np.float64)
    return values if inferred == "string" else values.infer_objects()


def _kind(values, name):
    """Kind of plain labels, none missing."""
    dtype = values.dtype
    if isinstance(dtype, pd.StringDtype):
        return "string"
    if isinstance(dtype, pd.DatetimeTZDtype):
        return "datetime with a time zone"
    if isinstance(dtype, pd.PeriodDtype | pd.IntervalDtype):
        # An interval's limits may be integers or floats.
        return f"interval[{dtype.closed}]" if hasattr(dtype, "closed") else str(dtype)
    if dtype.kind == "f":
        return dtype.name
    if dtype.kind not in "Oc":
        return _BY_DTYPE.get(dtype.kind, dtype.name)
    if pd.api.types.infer_dtype(values, skipna=False) == "string":
        return "string"
    types = set(map(type, values))
    kinds = set().union(*(_kinds_of(t, values) for t in types))
    if len(kinds) > 1 or kinds & {"tuple", "complex"} or next(iter(types)).__hash__ is None:
        names = kinds if len(types) == 1 else {t.__name__ for t in types}
        why = "".join(f" (unhashable type: {t.__name__!r})" for t in types if t.__hash__ is None)
        raise TypeError(
            f"The {name} holds labels of type {' and '.join(sorted(names))}, which have no order "
            f"and are not compared{why}: the argument must be a column of strings or numbers. "
            "Convert it to one type, with astype(str) for example."
        )
    return kinds.pop()


def _kinds_of(kind, values):
    """Kinds of those among objects that are of one type."""
    found = next((k for base, k in _BY_TYPE if issubclass(kind, base)), kind.__name__)
    if found == "datetime":
        aware = {v.tzinfo is not None for v in values if type(v) is kind}
        return {found + " with a time zone" * a for a in aware}
    return {found}


def _lossy(values):
    """Which of plain labels are floats of a size at which whole numbers are not told apart."""
    if values.dtype.kind != "f":
        return np.zeros(len(values), bool)
    return np.abs(values.to_numpy()) >= 2.0 ** (np.finfo(values.dtype).nmant + 1)


def _numbers(values, new, labels, kind):
    """Plain numbers in a type that compares with labels of another; None where there is none."""
    if new == "integer":
        return values
    numbers = values.to_numpy()
    if (numbers == numbers // 1).all():
        return pd.Index(map(int, numbers) if new == "decimal" else numbers.astype(np.int64))
    if kind == "integer":
        return values
    if "decimal" in (new, kind):
        return None
    # A fraction is the same in two types of float where it is in the narrower one.
    narrow = min(new, kind, key=lambda name: np.dtype(name).itemsize)
    own = labels.astype(narrow)
    if not own.is_unique:
        return None
    places = own.get_indexer(values.astype(narrow))
    return pd.Index(np.where(places < 0, values, labels[places]))


def truth(values, kind):
    """Plain labels as a list of bool; None where one is neither true nor false."""
    if kind == "boolean":
        return values.tolist()
    known = {1: True, 0: False} if kind in NUMBERS else TRUTH
    truth = [known.get(v) for v in values] if kind in (*NUMBERS, "string") else [None]
    return None if None in truth else truth


def _shown(values):
    """The first of some labels, as Python writes it."""
    return repr(values[:1].tolist()[0])


def _remedy(new, kind):
    if new in NUMBERS and kind in NUMBERS:
        return "Such fractions are not the same in both types: convert the column, with astype."
    how = f", with {_CONVERSIONS[kind]}" if kind in _CONVERSIONS else ""
    return f"Convert the column to the kind of the fit first{how}."
