r"""Sparse columns of the fixed part: unknowns of the engine's equations with a flat prior.

With X the dense columns, whitened, X_s the sparse ones in units of their SD, and M the projection
off X, the directions that the data leave open are N = null(M X_s), found by random vectors less
their projections (conjugate gradients on X_s^T M X_s from 0 stay in its range). The engine solves

    y = X Q beta + X_s gamma + Z b + e

where Q leaves out what X_s spans, X B with B = X^T w X_s N / n, and null(X_s), U, is held at 0 by a
penalty, which changes nothing else. `minimum_norm` is the way back to all of X: gamma without N,
the solution that dense columns have.
"""

import numpy as np
from scipy import sparse

from sklmm.engine.linalg.krylov import conjugate_gradients, inner

TOL = 1e-12
MAX_ITER = 2000
#: Random vectors that look for N: a few first, then as many as may be held, and numbers of them.
SEARCHED = 16
MOST_SEARCHED = 128
HELD = 1 << 23
#: Share of a random vector's length, or of a column's, that counts as 0.
NEGLIGIBLE = 1e-5
#: Share of a column's information in one direction that counts as none.
OPEN = 1e-10
#: Penalty on all of gamma, as a share of its information, where N is too large to be held.
RIDGE = 1e-6
#: Multiplications that X_s^T w X_s may cost, for each entry of X_s, to be worth its memory.
MOST_PRODUCTS = 8


class Columns:
    """X_s [n_rows, k], its columns that vary, scaled, beside the whitened X [n_rows, p].

    `scale` [n_columns] is 0 where a column does not vary; `start` [k] is least squares', which the
    problem's y lacks.
    """

    def __init__(self, matrix, X, weights, n, fit_intercept):
        self.n = n
        # An overflow-free scale, as for dense columns.
        peak = np.maximum(abs(matrix).max(axis=0).toarray().ravel(), np.finfo(float).tiny)
        matrix = matrix @ sparse.diags_array(1 / peak)
        variance = weights @ matrix.power(2) / n
        if fit_intercept:
            mean = weights @ matrix / n
            variance = np.where(variance - mean**2 > 1e-14 * variance, variance - mean**2, 0.0)
        sd = np.sqrt(variance)
        self.varies = sd > 0
        self.scale = sd * peak
        matrix = matrix.tocsc()[:, self.varies] @ sparse.diags_array(1 / sd[self.varies])
        self.matrix = matrix.tocsr()
        # Sparse products want whole rows and whole columns.
        self.back = (self.matrix.T * weights).tocsr()
        self.F = self.back @ X
        lengths = np.diff(self.matrix.indptr).astype(float)
        cheap = (lengths**2).sum() <= MOST_PRODUCTS * max(self.matrix.nnz, 1)
        self.gram = (self.back @ self.matrix).tocsr() if cheap else None
        self.diagonal = weights @ self.matrix.power(2)
        self.start = np.zeros(self.k)

    @property
    def k(self):
        """Number of columns that vary."""
        return self.matrix.shape[1]

    def product(self, flat):
        """X_s^T w X_s applied to [k, c]."""
        return self.back @ (self.matrix @ flat) if self.gram is None else self.gram @ flat

    def squares(self, flat):
        """The squared entries of X_s^T w X_s times [k, c]; of its diagonal alone if it is large."""
        if self.gram is None:
            return self.diagonal[:, None] ** 2 * flat
        return self.gram.power(2) @ flat

    def _projected(self, flat):
        """X_s^T M w X_s applied to [k, c]."""
        return self.product(flat) - self.F @ (self.F.T @ flat) / self.n

    def _solve(self, right):
        return conjugate_gradients(
            self._projected, lambda r: r, right, np.zeros_like(right), TOL, MAX_ITER
        )[0]

    def least_squares(self, residual):
        """Coefficients [k] of least squares on X and X_s of a residual [n_rows] off X."""
        return self._solve((self.back @ residual)[:, None])[:, 0]

    def identify(self):
        """Find N, B, Q and U, and the rank of X_s."""
        rng = np.random.default_rng(0)
        most = min(max(HELD // max(self.k, 1), 2 * SEARCHED), MOST_SEARCHED, self.k + 1)
        for searched in (SEARCHED, most):
            ahead = rng.standard_normal((self.k, searched))
            left = ahead - self._solve(self._projected(ahead))
            found, sizes, _ = np.linalg.svd(left, full_matrices=False)
            count = int((sizes > NEGLIGIBLE * np.sqrt(self.k)).sum())
            # A random vector keeps as much of its square, on average, as there are open directions.
            expected = float(inner(left, left).mean())
            if count < searched or expected > 1.5 * most:
                break
        found = found[:, :count]
        # Directions that the data hardly know may be left by a solve that did not converge.
        values, vectors = np.linalg.eigh(found.T @ self._projected(found) / self.n)
        found = found @ vectors[:, values < OPEN]
        turn, sizes, rows = np.linalg.svd(self.F.T @ found / self.n)
        spanned = int((sizes > NEGLIGIBLE).sum())
        self.Q = turn[:, spanned:]
        self.N, self.U, self.ridge = found, found @ rows[spanned:].T, 0.0
        self.rank = self.k - (found.shape[1] - spanned)
        if count == searched:
            # More than can be held.
            self.rank = self.k - (round(expected) - spanned)
            self.N, self.U, self.ridge = found[:, :0], found[:, :0], RIDGE
        self.B = self.F.T @ self.N / self.n
        return self

    def keep(self, X):
        """X Q, of X [..., p]."""
        return X if self.Q.shape[1] == len(self.Q) else X @ self.Q

    def embed(self, beta):
        """Q beta [p, ...]."""
        return beta if len(beta) == len(self.Q) else self.Q @ beta

    def minimum_norm(self, beta, gamma):
        """(beta [p, ...], gamma [k, ...]) of all of X from those of X Q, with the same sums."""
        away = self.N.T @ gamma
        return self.embed(beta) + self.B @ away, gamma - self.N @ away

    def towards_constant(self):
        """The direction of gamma [k] that moves all rows most."""
        out = np.asarray(self.back.sum(axis=1))
        return out / max(np.linalg.norm(out), 1e-300)

    def penalty(self, flat):
        """What holds the open directions of gamma [k, c], in units of 1 / sigma^2."""
        return self.n * (self.ridge * flat + self.U @ (self.U.T @ flat))

    def penalty_diagonal(self):
        """Its diagonal [k]."""
        return self.n * (self.ridge + np.einsum("kd,kd->k", self.U, self.U))

    def natural(self, gamma, y_scale):
        """Coefficients of all the sparse columns in the table's units, [n_columns, ...]."""
        out = np.zeros((len(self.scale), *gamma.shape[1:]))
        scale = self.scale[self.varies].reshape((-1,) + (1,) * (gamma.ndim - 1))
        out[self.varies] = gamma * y_scale / scale
        return out
