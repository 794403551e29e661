"""The mixed-model equations of a Gaussian model, from cross-products and an elimination.

All of the likelihood but the traces of Z^T P Z is a solve of the mixed-model equations, and no step
goes back to the rows.
"""

from functools import cached_property

import numpy as np
from scipy.linalg import cholesky, solve_triangular

from sklmm.engine.equations.mixed_model import Equations
from sklmm.engine.equations.score import working_effects
from sklmm.engine.theta.space import slopes


class Solution(Equations):
    """The equations of a Gaussian model, solved for y: beta, u and the residual.

    beta is that of y less its least-squares fit, in the cross-products' X. `probed` is S^-1 applied
    to `probes` [Q_R, c].
    """

    def __init__(self, factors, s2, cross, H, probes=None):
        super().__init__(factors, s2, cross, H)
        ly = cross.lift(factors, cross.zy, transpose=True) / s2
        right = np.column_stack([self.R, ly])
        if probes is None:
            solved = H.solve(right, "data")
        else:
            solved, self.probed = H.solve(right, "data", probes)
        self.HR, Hy = solved[:, :-1], solved[:, -1]
        self.beta = self.solve_s(cross.xy / s2 - self.R.T @ Hy)
        self.u = Hy - self.HR @ self.beta
        # Of the effects: coefficients of sparse columns have no prior.
        self.uu = float(np.sum(self.u[: cross.n_random] ** 2))
        b = cross.lift(factors, self.u)
        zwr = cross.zy - cross.F @ self.beta - cross.product(b)
        xwr = cross.xy - cross.xx @ self.beta - cross.F.T @ b
        self.c = zwr / s2  # Z^T P y
        fitted = self.beta @ (cross.xy + xwr) + b @ (cross.zy + zwr)
        self.sse = max(float(cross.yy - fitted), 0.0)

    @cached_property
    def S_factor(self):
        """The lower factor of S: LinAlgError where S is singular, for a step to be taken back."""
        return cholesky(self.S, lower=True) if self.p else self.S

    def solve_parts(self, right_beta, right_u, name):
        """C^-1 applied to a right-hand side in (beta, u)."""
        Hu = self.H.solve(right_u, name)
        beta = self.solve_s(right_beta - self.R.T @ Hu)
        return beta, Hu - self.HR @ beta

    def information(self, u, c):
        """AI = q^T P q / 2 and d beta / d theta = -(X^T V^-1 X)^-1 X^T V^-1 q.

        The working vectors of AI-REML (Gilmour, Thompson & Cullis 1995) are q = [Z a, 2 r], the
        last one where sigma is estimated.
        """
        cross, factors = self.cross, self.factors
        parts = zip(factors, slopes(cross.problem, factors), u, c, strict=True)
        effects = [working_effects(*part) for part in parts]
        A = np.zeros((cross.Q, sum(a.shape[2] for a in effects)))
        first = 0
        for s, a in zip(cross.slices, effects, strict=True):
            A[s, first : first + a.shape[2]] = a.reshape(s.stop - s.start, a.shape[2])
            first += a.shape[2]
        zq, xq = cross.product(A), cross.F.T @ A
        qq = A.T @ zq
        if cross.problem.sigma is None:
            zr = 2 * self.s2 * self.c
            both = (A.T @ zr)[:, None]
            qq = np.block([[qq, both], [both.T, np.array([[4 * self.sse]])]])
            zq, xq = np.column_stack([zq, zr]), np.column_stack([xq, np.zeros(cross.p)])
        lq = cross.lift(factors, zq, transpose=True)
        beta, v = self.solve_parts(xq / self.s2, lq / self.s2, "information")
        information = 0.5 * (qq - xq.T @ beta - lq.T @ v) / self.s2
        return (information + information.T) / 2, -beta

    def projected_columns(self):
        """(X^T V^-1 X)^-1/2 X^T V^-1 Z by block, [n_levels, r, p]: REML's part of the traces."""
        cross = self.cross
        ZVX = (cross.F - self.GHR) / self.s2
        return cross.blocks(solve_triangular(self.S_factor, ZVX.T, lower=True).T)
