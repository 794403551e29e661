"""The fixed part's columns made orthonormal, block by block of the rows where they are read."""

import numpy as np
from scipy.linalg import LinAlgError, cholesky

from sklmm.engine.rows.batches import each, summed
from sklmm.engine.rows.collinearity import independent, orthonormal, triangle
from sklmm.engine.rows.cross_products import weighed

RANK_TOLERANCE = 1e-11
#: What Cholesky's method leaves of a column, of its size, that shows it to be independent.
WELL_CONDITIONED = 1e-3


class Whitened:
    """X B [n_rows, rank], made anew of every slice of rows that is asked for, or whole as an array.

    Who sums over rows reads each block once or twice, and a table may have 10^8 of them.
    """

    def __init__(self, columns, rotation, n_rows):
        self._columns, self._rotation = columns, rotation
        self.shape = n_rows, rotation.shape[1]

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, rows):
        return (self._rotation.T @ self._columns(rows)).T

    def __array__(self, dtype=None, copy=None):
        # By columns: those of whole tables are worked on.
        out = np.empty(self.shape[::-1]).T

        def fill(rows):
            out[rows] = self[rows]

        each(fill, len(self))
        return out


def well_conditioned(gram):
    """Whether a cross-product [p, p] of unit columns is that of clearly independent ones."""
    try:
        return np.diag(cholesky(gram)).min(initial=np.inf) > WELL_CONDITIONED
    except LinAlgError:
        return False


def whiten(X, weights, n, fit_intercept):
    """X B with orthonormal columns up to n, B [n_columns, rank], and log|det| of the map."""
    n_rows, p = X.shape
    centre = np.zeros(p)
    if fit_intercept:
        centre = summed(lambda rows: weighed(X[rows].T, weights[rows]).sum(axis=1), n_rows) / n
        centre[0] = 0.0
    # An overflow-free scale for columns as large as 1e300.
    sizes = each(lambda rows: np.abs(X[rows]).max(axis=0, initial=0.0), n_rows)
    peak = np.maximum(np.max(sizes, axis=0), np.finfo(float).tiny)
    varies = np.ones(p, bool)

    def columns(rows):
        out = X[rows].T - centre[:, None]
        out /= peak[:, None]
        # Not 0 times what may be as large as 1e300.
        out[~varies] = 0.0
        return out

    def cross_product(rows):
        own = columns(rows)
        return weighed(own, weights[rows]) @ own.T

    gram = summed(cross_product, n_rows) / n
    noise = np.finfo(float).eps * (np.abs(centre) / peak) * 8
    rms = np.sqrt(np.diag(gram))
    varies = rms > np.maximum(noise, np.finfo(float).tiny)
    scale = np.where(varies, rms, 1.0)
    gram = np.where(np.outer(varies, varies), gram, 0.0) / np.outer(scale, scale)
    if n_rows > p and not well_conditioned(gram):
        R = triangle(columns, weights)
        kept = independent(R, noise / scale)
        rotation, log_det = orthonormal(R, kept)
    else:
        values, vectors = np.linalg.eigh(gram)
        keep = values > RANK_TOLERANCE * max(values.max(initial=0.0), 1.0)
        rotation, log_det = vectors[:, keep] / np.sqrt(values[keep]), np.log(values[keep]).sum()
        if keep.all():
            # The symmetric root: unrelated columns have equal eigenvalues, and any eigenvectors.
            rotation = rotation @ vectors.T
        # Rounding's share of a constant column would be its coefficient's.
        rotation[~varies] = 0.0
        kept = varies
    rotation /= scale[:, None]
    basis = rotation / peak[:, None]
    if fit_intercept:
        basis[0] -= centre @ basis
    # log|X^T w X| = log|n I| + log_det for an X of full rank.
    log_det = float(log_det + 2 * np.sum(np.log((scale * peak)[kept])))
    return Whitened(columns, rotation, n_rows), basis, log_det
