"""Rows as tensors, for compiled steps: linear predictors from coefficients, and sums back."""

from typing import NamedTuple

import numpy as np

from sklmm.engine.runtime.compilation import bucket, pad
from sklmm.engine.runtime.tensorflow import tf


class Data(NamedTuple):
    """Row arrays as tensors, padded with rows of weight 0: the arguments of every compiled step.

    X [n, p] are the columns of unknown coefficients, and fixed those of theta's; offset [n, 1].
    """

    X: object
    fixed: object
    y: object
    w: object
    refs: tuple
    z: tuple
    offset: object


def tensors(table, p, dtype=np.float64):
    """Data of `LocalRows` in their shape bucket, the first p coefficients being unknowns."""
    n = table.d * bucket(-(-table.n_rows // table.d))

    def rows(array, kind=dtype):
        return tf.constant(pad(np.asarray(array, kind), n))

    y = np.pad(table.y, [(0, n - table.n_rows), (0, 0)][: table.y.ndim], mode="edge")
    offset = np.zeros(table.n_rows) if table.offset is None else table.offset
    return Data(
        rows(table.X[:, :p]),
        rows(table.X[:, p:]),
        # A row of weight 0 repeats a true y: it is in the support of any family.
        tf.constant(y, dtype),
        rows(table.weights),
        tuple(rows(refs, np.int32) for refs in table.refs),
        tuple(rows(z) for z in table.z),
        rows(offset[:, None]),
    )


def gather_rows(data, k, b):
    """Z_k b: [n_levels, r, c] -> [n_rows, c]."""
    rows = tf.gather(b, data.refs[k])
    return tf.reduce_sum(rows * data.z[k][:, :, None], axis=1)


def sum_levels(data, k, rows, n_levels):
    """Z_k^T rows: [n_rows, c] -> [n_levels, r, c]."""
    spread = rows[:, None, :] * data.z[k][:, :, None]
    return tf.math.unsorted_segment_sum(spread, data.refs[k], n_levels)


def to_rows(data, beta, effects):
    """X beta + sum_k Z_k b_k: [p, c] and [n_levels, r, c] of each term -> [n_rows, c]."""
    rows = data.X @ beta
    for k, b in enumerate(effects):
        rows += gather_rows(data, k, b)
    return rows


def from_rows(data, rows, levels):
    """(X^T rows [p, c], Z_k^T rows [n_levels, r, c] of each term) from rows [n_rows, c]."""
    sums = [sum_levels(data, k, rows, J) for k, J in enumerate(levels)]
    return tf.matmul(data.X, rows, transpose_a=True), sums
