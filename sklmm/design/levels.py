"""Levels of a grouping factor: learnt from a table's labels, found again in another's."""

from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from pandas.errors import InvalidIndexError

from sklmm.design.columns import take
from sklmm.design.terms import RandomEffect


@dataclass(frozen=True)
class TermSpec:
    """What a term keeps from training: its name, its levels and its coefficients' names."""

    effect: RandomEffect
    name: str
    levels: pd.Index
    cnames: tuple

    def encode(self, table):
        """Level index of each row, int32 [n_rows]; -1 where the level is unseen or missing."""
        columns = [group_column(table, c) for c in self.effect.columns]
        with _labels_of(self.name):
            keys = columns[0] if len(columns) == 1 else pd.MultiIndex.from_arrays(columns)
            refs = self.levels.get_indexer(keys)
        if len(columns) == 1 and (missing := pd.isna(columns[0])).any():
            refs[missing] = -1
        return refs.astype(np.int32)

    def grown(self, table):
        """The term with the levels of another table added, in the order of a fit to both."""
        _, found = learn_levels(table, self.effect, self.name, fewest=1)
        try:
            new = found[self.levels.get_indexer(found) < 0]
            if not len(new):
                return self
            # Of other types pandas may make equal labels, as floats of large integers are.
            levels = self.levels.append(new)
            if not (levels.is_unique and levels[: len(self.levels)].equals(self.levels)):
                raise TypeError(f"labels of type {levels.dtype} are not all different")
            levels = levels.sort_values()
            for part in getattr(levels, "levels", [levels]):
                _check_kind(part, self.name)
        except (TypeError, InvalidIndexError) as error:
            new, old = found.tolist()[0], self.levels.tolist()[0]
            raise TypeError(
                f"The grouping column {self.name!r} has labels, like {new!r}, that cannot be told "
                f"from or ordered among those of the fit, like {old!r}: convert the column to "
                "their type."
            ) from error
        return replace(self, levels=levels)


def learn_levels(table, effect, name, fewest=2):
    """(refs int32 [n_rows], levels in order) of a term; ValueError names what has none."""
    columns = [group_column(table, c) for c in effect.columns]
    for column, values in zip(effect.columns, columns, strict=True):
        if (n := int(pd.isna(values).sum())) > 0:
            raise ValueError(
                f"The grouping column {column!r} has {n} missing value(s) (NaN or None), the first "
                f"in row {int(np.argmax(pd.isna(values)))}: drop those rows, or give them a level "
                "of their own."
            )
    with _labels_of(name):
        keys = columns[0] if len(columns) == 1 else pd.MultiIndex.from_arrays(columns)
        refs, levels = pd.factorize(keys, sort=True)
    parts = [levels] if len(columns) == 1 else levels.levels
    for column, labels in zip(effect.columns, parts, strict=True):
        _check_kind(labels, column)
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
    return refs.astype(np.int32), levels


def group_column(table, column):
    """Values of a grouping column as a pandas object that `factorize` and `get_indexer` take."""
    values = take(table, column)
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


def _check_kind(labels, column):
    """Raise TypeError for labels of several types, of which pandas sorts some."""
    kind = pd.api.types.infer_dtype(labels)
    if kind in ("mixed", "mixed-integer", "complex"):
        kinds = sorted({type(v).__name__ for v in labels})
        raise TypeError(
            f"The grouping column {column!r} holds labels of type {' and '.join(kinds)}, which "
            "have no order: convert them to one type, with astype(str) for example."
        )
