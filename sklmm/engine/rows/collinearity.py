r"""Which columns of the fixed part are linear combinations of those before them.

All that linear dependence asks of X [n_rows, p] is in its triangle R [p, p], R^T R = X^T w X. By
Cholesky's method R has half of the digits, which shows columns that are far from collinear; nearer
ones are decided by Householder's, in slabs of rows, which keeps them all. The columns of R then go
through Gram and Schmidt's procedure in the table's order, as those of X do in R's `lm` (and lme4).
"""

import numpy as np
from scipy.linalg import solve_triangular

from sklmm._threads import blocks

#: What is left of a column, of its size, that makes it independent: that of R's `lm`.
TOLERANCE = 1e-7
SLAB = 1 << 14


def triangle(columns, weights):
    """R of columns(rows), of slices of the rows [p, .], by their root mean squares if not 0."""
    root = np.sqrt(weights)
    R = np.zeros((0, len(columns(slice(0, 0)))))
    for rows in blocks(len(root), max(SLAB, 4 * R.shape[1])):
        R = np.linalg.qr(np.concatenate([R, (columns(rows) * root[rows]).T]), mode="r")
    size = np.linalg.norm(R, axis=0)
    return R / np.where(size > 0, size, 1.0)


def independent(R, noise):
    """Which columns of a triangle [m, p] of unit columns do not depend on earlier ones, bool [p].

    `noise` [p] is the share of each column that is its values' rounding.
    """
    m, p = R.shape
    kept, Q = np.zeros(p, bool), np.empty((m, min(m, p) + 1))
    for j, column in enumerate(R.T):
        before = Q[:, : kept.sum()]
        rest = column - before @ (before.T @ column)
        rest -= before @ (before.T @ rest)
        size = np.linalg.norm(rest)
        if size > max(TOLERANCE, noise[j]):
            Q[:, kept.sum()] = rest / size
            kept[j] = True
    return kept


def orthonormal(R, kept):
    """B [p, rank] with (R B)^T R B = I, of the kept columns alone, and log |R_kept^T R_kept|."""
    own = np.linalg.qr(R[:, kept], mode="r")
    out = np.zeros((len(kept), len(own)))
    # Older versions of SciPy have no solution of nothing.
    if len(own):
        out[kept] = solve_triangular(own, np.eye(len(own)))
    return out, 2 * np.log(np.abs(np.diag(own))).sum()


def combination(X, dropped):
    """(A [n_kept, n_dropped] with X_dropped = X_kept A, a bound of its rounding and its units).

    `dropped` is a mask of the columns of X [n_rows, p]. Those of zeros alone have zeros.
    """
    size = np.sqrt((X**2).mean(axis=0))
    R = triangle(lambda rows: X[rows].T, np.ones(len(X))) if size[dropped].any() else None
    return combination_of(R, size, dropped)


def combination_of(R, size, dropped):
    """`combination` of the columns whose triangle is R, of unit columns, and sizes are [p].

    R may be None where all columns that are left out are 0.
    """
    units = size[dropped] / np.where(size > 0, size, 1.0)[~dropped, None]
    A, some = np.zeros(units.shape), size[dropped] > 0
    if some.any():
        Q, kept = np.linalg.qr(R[:, ~dropped])
        A[:, some] = solve_triangular(kept, Q.T @ R[:, dropped][:, some])
    A *= units
    return A, np.abs(A) + units
