"""Dask collections as partitions: X, y and the weights of a block of rows, cut from one piece.

A selection of columns may change how many partitions a table has, as Dask joins small parts of
Parquet files: so the columns of a fit are taken from partitions that were read together. Divisions
and categories that a collection declares are not looked at: they may be wrong.
"""

import dask.array as da
import dask.dataframe as dd
import numpy as np
from dask import delayed

from sklmm.dask.cluster import Fault
from sklmm.design.design import columns_read
from sklmm.design.terms import resolve_terms

REMEDY = {
    "X": "dask.dataframe.from_pandas(X, npartitions=8) or dask.array.from_array(X), ",
    "y": "dask.dataframe.from_pandas(y, npartitions=8) or dask.array.from_array(y), ",
}


def is_frame(collection):
    """Whether it is a Dask DataFrame or Series."""
    return isinstance(collection, dd.DataFrame | dd.Series)


def check_collection(name, collection, local):
    """TypeError or ValueError for what is no Dask collection, or X without two dimensions.

    `local` is the name of the estimator that takes what others have.
    """
    if not is_frame(collection) and not isinstance(collection, da.Array):
        kind = type(collection)
        how = REMEDY.get(name, "")
        raise TypeError(
            f"{name}: it is a {kind.__module__.split('.')[0]} {kind.__name__}, and must be a Dask "
            f"DataFrame, Series or array: {how}or use {local}."
        )
    if name == "X" and collection.ndim != 2:
        raise ValueError(
            f"X: it has {collection.ndim} dimension(s), and must have rows and columns: "
            "X.to_frame() of a Series, X[:, None] of an array."
        )


def columns_that_count(model, X):
    """X with the columns that a model reads, and those of its formula's response, alone.

    Arrays are as they were.
    """
    if not isinstance(X, dd.DataFrame):
        return X
    table, response = model._without_response(X._meta)
    terms = resolve_terms(model.random_effects, table.columns)
    read = columns_read(table, terms, model.fixed_effects, model.offset, complete=False)
    names = [name for name in X.columns if name in read or name in response]
    return X if len(names) == len(X.columns) else X[names]


def partitions(X, y, sample_weight, token):
    """A Delayed (X, y, weights) of every partition; None where y or the weights are None.

    `token` is what sets the keys apart from those of others.
    """
    beside = {"y": y, "sample_weight": sample_weight}
    beside = {name: _column(own) for name, own in beside.items() if own is not None}
    names = {"names": ["X", *beside], "indexed": [n for n, own in beside.items() if is_frame(own)]}
    if is_frame(X):
        beside = {name: _as_frame(own) for name, own in beside.items()}
        _check_numbers(X.npartitions, {name: own.npartitions for name, own in beside.items()})
        return _pieces_of_frames(X, list(beside.values()), names, token)
    X = one_block_of_columns(X)
    beside = {name: _in_blocks_of(X, own) for name, own in beside.items()}
    blocks = {"X": _blocks(X)} | {name: _blocks(own) for name, own in beside.items()}
    _check_numbers(len(blocks["X"]), {name: len(own) for name, own in blocks.items()})
    packed = delayed(_packed)
    return [
        packed(*own, **names, own=token, dask_key_name=f"sklmm-rows-{token}-{number}")
        for number, own in enumerate(zip(*blocks.values(), strict=True))
    ]


def one_block_of_columns(X):
    """A Dask array whose blocks have all columns."""
    return X if X.ndim < 2 or X.numblocks[1] == 1 else X.rechunk({1: -1})


def _pieces_of_frames(X, beside, names, token):
    known = {"meta": X._meta, "enforce_metadata": False, "align_dataframes": False}
    joint = X.map_partitions(_packed, *beside, **names, own=token, **known)
    optimized = joint.optimize()
    # Of tables that were read apart Dask may join partitions of one of them alone.
    counts = {part.npartitions for part in optimized.expr.dependencies()}
    return joint.to_delayed(optimize_graph=counts <= {optimized.npartitions})


def _packed(X, *beside, names, indexed, own, partition_info=None):
    """(X, y, weights) of one partition, whose task is a fit's `own`.

    A `Fault` where y or weights that are `indexed` have another index than X: as rows of one table
    they may stand in another order, which positions do not tell.
    """
    known = dict(zip(names, (X, *beside), strict=True))
    for name in indexed:
        one, two = getattr(X, "index", None), known[name].index
        if one is not None and len(one) == len(two) and not one.equals(two):
            where = "" if partition_info is None else f"partition {partition_info['number']}: "
            row = int(np.argmax(one != two))
            return Fault(
                ValueError,
                f"{where}{name}: its index is not that of X, the first in row {row}: "
                f"{two[row]!r} beside {one[row]!r}. Take both from one table, or give an array, "
                f"{name}.values, if rows belong together by their position.",
            )
    return known["X"], known.get("y"), known.get("sample_weight")


def _column(own):
    """What has a single column as one dimension."""
    if own.ndim < 2 or own.shape[1] != 1:
        return own
    return own[own.columns[0]] if is_frame(own) else own[:, 0]


def _as_frame(own):
    return own if is_frame(own) else dd.from_dask_array(one_block_of_columns(own))


def _in_blocks_of(X, own):
    """y or weights beside an array X, in its blocks of rows where their lengths are known."""
    if is_frame(own):
        return own
    own = one_block_of_columns(own)
    if own.shape[0] == X.shape[0] and own.chunks[0] != X.chunks[0]:
        own = own.rechunk({0: X.chunks[0]})
    return own


def _blocks(own):
    return own.to_delayed() if is_frame(own) else list(own.to_delayed().ravel())


def _check_numbers(n, numbers):
    """ValueError for y or weights with another number of partitions than X has."""
    for name, own in numbers.items():
        if own != n:
            raise ValueError(
                f"{name}: it has {own} partitions, and X has {n}: take both from one table, as in "
                "X = table[['x', 'group']], y = table['y'], before either is persisted, or make "
                "their partitions the same."
            )
