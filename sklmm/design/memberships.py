"""Terms of rows that belong to several levels: their labels in several columns, and weights.

A row's effect is sum_m w_m z^T b_j(m): the term is a sum of plain ones, tied to the same effects.
As lmerMultiMember's, and brms's with ``scale = FALSE``, weights are taken as they are, of any sign;
where none are given each of a row's m memberships has 1 / m. A label that is missing is no
membership, whatever its weight.
"""

import numpy as np
import pandas as pd

from sklmm.design.columns import numeric_columns, take
from sklmm.design.design import UNSEEN
from sklmm.design.levels import conformed, find, group_column, learn_kind, ordered, plain

#: References of memberships that are none.
MISSING = -1


def learn(table, effect, name, fewest):
    """(refs int32 [n_rows, m], levels in order, kinds) of a term: see `levels.learn_levels`."""
    columns = [group_column(table, c) for c in effect.columns]
    kind, first, values = "", None, []
    for column, own in zip(effect.columns, columns, strict=True):
        known = own[~own.isna()]
        if not len(known):
            continue
        own_kind = learn_kind(known, _named(column))
        if first is None:
            first, kind = column, own_kind
        else:
            known = conformed(known, kind, values[0], _named(column), f"in {first!r}")
        values.append(plain(known))
    if first is None and fewest == 1:
        # In a part of a table, or in new rows.
        refs = np.full((table.shape[0], len(columns)), MISSING, np.int32)
        return refs, pd.Index([], name=effect.label), (kind,)
    if first is None:
        raise ValueError(
            f"random_effects: the columns of the term '{effect}' hold no label: no row has a level."
        )
    codes, levels = ordered(values[0].append(values[1:]), effect, name, fewest)
    refs, begin = np.full((table.shape[0], len(columns)), MISSING, np.int32), 0
    for out, own in zip(refs.T, columns, strict=True):
        known = ~own.isna()
        out[known] = codes[begin : begin + known.sum()]
        begin += int(known.sum())
    return refs, levels, (kind,)


def encode(term, table):
    """Level of each membership, int32 [n_rows, m]; `MISSING`, or from `UNSEEN` on down others.

    Memberships of one unseen level have the same number.
    """
    columns = [group_column(table, c) for c in term.effect.columns]
    refs = np.empty((table.shape[0], len(columns)), np.int32)
    for out, values, column in zip(refs.T, columns, term.effect.columns, strict=True):
        out[:] = find(term.levels, term.kinds[0], values, _named(column))
    missing = np.column_stack([values.isna() for values in columns])
    unseen = (refs < 0) & ~missing
    if unseen.any():
        labels = np.column_stack([np.asarray(values, object) for values in columns])[unseen]
        refs[unseen] = UNSEEN - pd.factorize(labels)[0]
    refs[missing] = MISSING
    return refs


def memberships(table, effect, refs, z):
    """(refs [n_rows, m], z [n_rows, m, r]) of rows, the weights in z, 0 of missing memberships.

    z [n_rows, r] are those of the term, or None for ones. Of a term whose grouping columns are not
    looked at, refs [n_rows], each row has levels of its own, as many as it has weights.
    """
    n, m = table.shape[0], len(effect.columns)
    if refs.ndim == 1:
        refs = np.tile((UNSEEN - np.arange(m)).astype(np.int32), (n, 1))
        for out, column in zip(refs.T, effect.weight_columns, strict=False):
            out[pd.isna(np.asarray(take(table, column)))] = MISSING
    known = refs != MISSING
    if effect.weight_columns:
        weights = np.zeros((n, m))
        for out, column, there in zip(weights.T, effect.weights, known.T, strict=True):
            out[there] = _weights(table, column, there)
    else:
        weights = known / np.maximum(known.sum(axis=1, keepdims=True), 1)
    z = np.ones((n, 1)) if z is None else np.asarray(z)
    return np.where(known, refs, 0), weights[:, :, None] * z[:, None]


def _weights(table, column, there):
    """A column's weights where its membership is there; ValueError for one that is missing."""
    values = pd.Series(take(table, column), name=column)
    own = values[there]
    if (missing := own.isna().to_numpy()).any():
        row = int(np.flatnonzero(there)[np.argmax(missing)])
        raise ValueError(
            f"The column {column!r} of weights of memberships is missing in row {row}, which has "
            "a label: give the weight, or make the label missing too."
        )
    return numeric_columns(own.to_frame(), [column], "weights")[:, 0]


def _named(column):
    return f"grouping column {column!r}"
