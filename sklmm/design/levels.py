"""Levels of a grouping factor: learnt from a table's labels, found again in another's."""

from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from pandas.errors import InvalidIndexError

from sklmm._state import PlainState
from sklmm.design.columns import take
from sklmm.design.labels import conformed, find, learn_kind
from sklmm.design.terms import RandomEffect


@dataclass(frozen=True)
class TermSpec(PlainState):
    """What a term keeps from training: its name, levels and coefficients' names.

    `kinds` are those of the labels of its grouping columns (`sklmm.design.labels`).
    """

    effect: RandomEffect
    name: str
    levels: pd.Index
    cnames: tuple
    kinds: tuple

    def encode(self, table):
        """Level index of each row, int32 [n_rows]; -1 where the level is unseen or missing."""
        places = [
            find(labels, kind, group_column(table, column), _named(column))
            for labels, kind, column in zip(
                _parts(self.levels), self.kinds, self.effect.columns, strict=True
            )
        ]
        if len(places) == 1:
            return places[0].astype(np.int32)
        refs = self.levels.get_indexer(pd.MultiIndex(levels=self.levels.levels, codes=places))
        return np.where(np.min(places, axis=0) < 0, -1, refs).astype(np.int32)

    def grown(self, table):
        """The term with the levels of another table added, in the order of a fit to both."""
        _, found, _ = learn_levels(table, self.effect, self.name, fewest=1)
        found = self._conformed(found)
        try:
            new = found[self.levels.get_indexer(found) < 0]
            if not len(new):
                return self
            # Of other types pandas may make equal labels, as floats of large integers are.
            levels = self.levels.append(new)
            if not (levels.is_unique and levels[: len(self.levels)].equals(self.levels)):
                raise TypeError(f"labels of type {levels.dtype} are not all different")
            levels = levels.sort_values()
            for part in _parts(levels):
                learn_kind(part, _named(self.name))
        except (TypeError, InvalidIndexError) as error:
            new, old = found.tolist()[0], self.levels.tolist()[0]
            raise TypeError(
                f"The grouping column {self.name!r} has labels, like {new!r}, that cannot be told "
                f"from or ordered among those of the fit, like {old!r}: convert the column to "
                "their type."
            ) from error
        return replace(self, levels=levels)

    def _conformed(self, found):
        """Levels of another table in the types of these."""
        columns = zip(
            _parts(found), _parts(self.levels), self.kinds, self.effect.columns, strict=True
        )
        parts = [conformed(new, kind, old, _named(c)) for new, old, kind, c in columns]
        if len(parts) == 1:
            return parts[0].rename(self.levels.name)
        return pd.MultiIndex(parts, found.codes, names=self.levels.names)


def learn_levels(table, effect, name, fewest=2):
    """(refs int32 [n_rows], levels in order, kinds of their parts) of a term.

    ValueError and TypeError name the column whose labels are missing, or cannot be told apart.
    """
    columns = [group_column(table, c) for c in effect.columns]
    for column, values in zip(effect.columns, columns, strict=True):
        if (n := int(pd.isna(values).sum())) > 0:
            raise ValueError(
                f"The grouping column {column!r} has {n} missing value(s) (NaN or None), the first "
                f"in row {int(np.argmax(pd.isna(values)))}. Leave these rows out, or set "
                "missing='drop', which does, or give them a level of their own."
            )
    kinds = tuple(
        learn_kind(values, _named(column))
        for column, values in zip(effect.columns, columns, strict=True)
    )
    with _labels_of(name):
        keys = columns[0] if len(columns) == 1 else pd.MultiIndex.from_arrays(columns)
        refs, levels = pd.factorize(keys, sort=True)
    if isinstance(levels, pd.CategoricalIndex):
        levels = pd.Index(np.asarray(levels))
    if isinstance(levels, pd.MultiIndex):
        levels = levels.set_names([str(c) for c in effect.columns]).remove_unused_levels()
    else:
        levels = levels.rename(str(effect.columns[0]))
    if len(levels) < fewest:
        rows = "n_samples = 1: " if len(keys) == 1 else ""
        raise ValueError(
            f"{rows}the grouping factor {name!r} has a single level ({levels[0]!r}): a variance "
            "between levels needs at least two. Remove the term."
        )
    return refs.astype(np.int32), levels, kinds


def group_column(table, column):
    """Values of a grouping column as a pandas object that `factorize` and `get_indexer` take."""
    values = take(table, column)
    if values.dtype == np.float16:
        # pandas has no Index of them.
        values = values.astype(np.float32)
    if str(values.dtype).startswith("dictionary"):
        # Arrow's, of which pandas 2.2 makes no Categorical.
        values = values.astype(object)
    return pd.Index(values.array if isinstance(values, pd.Series) else values, tupleize_cols=False)


@contextmanager
def _labels_of(name):
    """Errors of pandas' about labels, by the name of their column."""
    try:
        yield
    except TypeError as error:
        raise TypeError(
            f"The grouping column {name!r} holds labels that cannot be told apart or ordered "
            f"({error}): the argument must be a column of strings or numbers. Convert it to one "
            "type, with astype(str) for example."
        ) from error


def _parts(levels):
    """Labels of each column, of a level of one or of several."""
    return getattr(levels, "levels", [levels])


def _named(column):
    return f"grouping column {column!r}"
