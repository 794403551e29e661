"""The equations of a small table, C factorised whole: elimination takes longer than it saves."""

from functools import cached_property

import numpy as np
from scipy.linalg import cho_solve, solve_triangular

from sklmm.engine.equations.crossproducts import CrossProducts
from sklmm.engine.equations.mixed_model import Equations, lower_root


class Whole(Equations):
    """C = L L^T at some factors and weights [n_rows], s2 = 1, from the rows of W as a matrix.

    `rows` has them at any factors, `rows.matrix(factors)` [n_rows, P], and where each row's own
    levels are among its columns, `rows.columns`, [n_rows, r] of each block.
    """

    def __init__(self, rows, weights, factors):
        self.rows, self.factors, self._weights = rows, factors, weights
        self.layout, self.p, self.s2 = rows.layout, rows.layout.p, 1.0
        self.W = rows.matrix(factors)
        self.C = (self.W.T * weights) @ self.W
        prior = np.arange(self.p, len(self.C))
        self.C[prior, prior] += 1.0
        self.L = lower_root(self.C)

    log_det_error, factorised = 0.0, True

    @cached_property
    def G(self):
        """Z_k^T w Z_k of each term's levels, [n_levels, r, r]."""
        return self.rows.problem.rows.blocks(self._weights)

    @property
    def unsolved(self):
        """Largest relative residual of a solve that ended before its tolerance, or 0."""
        return self._left

    @property
    def n_unknowns(self):
        """The rows of noise that `root` takes, of the padding too."""
        return len(self.L)

    def at(self, factors, tol):
        """The equations at other factors, with the same weights."""
        return Whole(self.rows, self._weights, factors)

    @cached_property
    def cross(self):
        """Cross-products of the rows, which most equations of small tables are never asked for."""
        return CrossProducts(self.rows.problem, self._weights)

    @property
    def weights(self):
        """The weights [n_rows] of the rows."""
        return self._weights

    def solve(self, right):
        """C^-1 right, [P, c], as exactly as may be."""
        return cho_solve((self.L, True), right) if len(self.L) else right

    def apply(self, flat):
        """C flat, 0 on beta."""
        out = self.C @ flat
        out[: self.p] = 0.0
        return out

    def root(self, noise):
        """A root of C^-1 applied to [P, m]."""
        return solve_triangular(self.L, noise, lower=True, trans="T") if len(self.L) else noise

    def log_det(self):
        """log |C|."""
        return 2 * float(np.log(np.diag(self.L)).sum())

    def leverages(self):
        """As `Equations.leverages`."""
        solved = self.W @ self.solve(np.eye(len(self.L))) if len(self.L) else self.W
        n = np.arange(len(solved))[:, None]
        return solved[:, : self.p], [solved[n, own] for own in self.rows.columns]
