"""The equations of a small table, C factorised whole: elimination takes longer than it saves.

Solutions, draws, log |C| and C^-1 are the factor's. What only elimination has, H and S among it, is
made where it is asked for.
"""

from functools import cached_property

import numpy as np
from scipy.linalg import cho_solve, solve_triangular

from sklmm.engine.equations.crossproducts import CrossProducts, prior_of
from sklmm.engine.equations.inverse import WholeInverse
from sklmm.engine.equations.mixed_model import Equations, lower_root
from sklmm.engine.equations.schur_cholesky import SchurCholesky
from sklmm.engine.linalg.blocks import turn_all
from sklmm.engine.theta.priors import normal_prior


class Whole(Equations):
    """C = L L^T of a problem at some factors and weights, s2 = 1, in the places of a layout."""

    #: Known without H, which these would make.
    log_det_error, rough, factorised = 0.0, 0.0, True

    def __init__(self, problem, at, factors, layout):
        # Not by the base class, which is given `cross` and `H`: to make them would take longer than
        # all else here.
        self.factors, self.s2, self.layout, self.p = factors, 1.0, layout, layout.p
        self.problem, self._at = problem, at
        self.parts, square = layout.parts, problem.rows.gram(at)
        if len(square) < layout.size:
            place, own = np.flatnonzero(layout.real), square
            square = np.zeros((layout.size, layout.size))
            square[np.ix_(place, place)] = own
        #: W^T w [X, Z].
        self._half = self.lift(square, transpose=True)
        self.C = self.lift(self._half.T, transpose=True)
        prior = np.arange(self.p, len(self.C))
        self.C[prior, prior] += 1.0
        self.prior.add_to(self.C)
        if problem.priors is not None and (coef_prior := normal_prior(problem)) is not None:
            self.C[: self.p, : self.p] += coef_prior.precision
        self.L = lower_root(self.C)

    @cached_property
    def prior(self):
        """The prior precision of the effects, in the places of the layout."""
        return prior_of(self.problem.blocks, self.parts)

    def lift(self, square, transpose=False):
        """(I, Lambda), or its transpose, applied to [P, c]."""
        out = square.copy()
        for L, part in zip(self.factors, self.parts, strict=True):
            out[part] = turn_all(L.T if transpose else L, square[part])
        return out

    @cached_property
    def G(self):
        """Z_k^T w Z_k of each term's levels, [n_levels, r, r]."""
        return self.problem.rows.blocks(self._at)

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
        return Whole(self.problem, self._at, factors, self.layout)

    @cached_property
    def cross(self):
        """Cross-products of the rows, which most equations of small tables are never asked for."""
        return CrossProducts(self.problem, self._at)

    @cached_property
    def H(self):
        """The elimination of the largest term, which most are never asked for either."""
        return SchurCholesky(self.cross, self.factors, self.s2)

    @property
    def weights(self):
        """The weights of the rows."""
        return self._at

    def solve(self, right, series=None, tol=0.0):
        """C^-1 right, [P, c], as exactly as may be, whatever the series and the tolerance."""
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
        """log |C| less the prior's."""
        return 2 * float(np.log(np.diag(self.L)).sum()) - self.prior.log_det

    def inverse(self, noise=None):
        """C^-1, for rows to look it up."""
        inverse = self.solve(np.eye(len(self.L)))
        M, half = self.lift(self.lift(inverse).T), self._half.T @ inverse
        return WholeInverse(M, half, self.p, self.layout.shapes, self.parts)
