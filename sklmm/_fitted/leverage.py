"""What single rows have of the inverse of their weighted least-squares problem, all at once.

Of rows U = [X, rest, Z] times sqrt(w) these are the diagonal of U A^-1 U^T and the coefficients'
columns of U A^-1. As if there were no Z they are forms and products of [X, rest] and S^-1. With Z
and G = T S^-1 of its level a row has more of them,

    z (D^-1 + G T^T) z^T - 2 z G [X, rest]^T    and    -z G.
"""

import numpy as np

from sklmm._threads import blocks, in_threads

#: Numbers that are made dense at a time.
NUMBERS = 1 << 22


def of_rows(X, rest, Z, inverse):
    """(Leverages h [n], C [n, p]) by an `eliminated.Inverse`; Z is None without such a term."""
    (n, p), S = X.shape, inverse.S
    h, C = np.empty(n), np.empty((n, p))

    def some(rows):
        own = rest[rows]
        of_rest = own @ S[p:, :p]
        C[rows] = X[rows] @ S[:p, :p] + of_rest
        h[rows] = np.einsum("np,np->n", C[rows] + of_rest, X[rows]) + _forms(own, S[p:, p:])

    widest = int(np.diff(rest.indptr).max(initial=1))
    in_threads(some, blocks(n, max(NUMBERS // widest**2, 1)))
    if Z is not None:
        _add_first(h, C, X, rest, Z, inverse)
    return h, C


def _forms(matrix, S):
    """m S m^T [n] of each row m of a csr matrix."""
    counts = np.diff(matrix.indptr)
    pairs = counts**2
    row = np.repeat(np.arange(len(counts)), pairs)
    within = np.arange(len(row)) - np.repeat(np.cumsum(pairs) - pairs, pairs)
    one, other = (matrix.indptr[row] + place for place in np.divmod(within, counts[row]))
    data, columns = matrix.data, matrix.indices
    products = data[one] * S[columns[one], columns[other]] * data[other]
    return np.bincount(row, products, len(counts))


def _add_first(h, C, X, rest, Z, inverse):
    """Add what rows have by Z."""
    p, S, (J, r, _) = X.shape[1], inverse.S, inverse.D.shape
    levels = Z.indices[::r] // r
    order, starts = np.argsort(levels, kind="stable"), np.zeros(J + 1, np.intp)
    np.cumsum(np.bincount(levels, minlength=J), out=starts[1:])

    def some(part):
        rows = order[starts[part.start] : starts[part.stop]]
        at, x, z = levels[rows] - part.start, X[rows], Z.data.reshape(-1, r)[rows]
        own = slice(part.start * r, part.stop * r)
        T_X, T_rest = inverse.T_X[own], inverse.T_rest[own]
        G = T_X @ S[:p] + T_rest @ S[p:]
        of_row, of_level = _entries(rest[rows]), [_entries(T_rest[b::r]) for b in range(r)]
        for a in range(r):
            G_a = G[a::r]
            of_coef = z[:, [a]] * G_a[at, :p]
            row, column, value = of_row
            crossed = np.bincount(row, value * G_a[at[row], p + column], len(rows))
            C[rows] -= of_coef
            h[rows] -= 2 * (np.einsum("np,np->n", of_coef, x) + z[:, a] * crossed)
            for b in range(r):
                level, column, value = of_level[b]
                own = inverse.D[part, a, b] + np.einsum("jp,jp->j", G_a[:, :p], T_X[b::r])
                own += np.bincount(level, value * G_a[level, p + column], len(own))
                h[rows] += z[:, a] * z[:, b] * own[at]

    in_threads(some, blocks(J, max(NUMBERS // (r * len(S)), 1)))


def _entries(matrix):
    """(Rows, columns, values) of a csr matrix."""
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    return rows, matrix.indices, matrix.data
