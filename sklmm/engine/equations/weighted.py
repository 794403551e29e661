"""The mixed-model equations of any family at one theta and one vector of weights.

C = W^T diag(weights) W + (0, I), W = [X, Z_1 L_1, ..., Z_K L_K], solved by compiled conjugate
gradients, or in NumPy where a table is so small that compiling would take longer.
"""

from copy import copy
from functools import cached_property

import numpy as np

from sklmm._limits import factorisable
from sklmm.engine.equations.border import marginal
from sklmm.engine.equations.crossproducts import CrossProducts
from sklmm.engine.equations.eliminated import Eliminated
from sklmm.engine.equations.elimination import Dense
from sklmm.engine.equations.henderson import Equations as GaussianEquations
from sklmm.engine.latent.small import Factorised

SOLVE_TOL = 1e-6
EXACT_TOL = 1e-10
DRAW_TOL = 1e-4


class Equations:
    """C of a `latent.Latent` at theta's factors."""

    def __init__(self, latent, theta, weights):
        self.latent, self.layout = latent, latent.layout
        self.factors = tuple(theta.factors)
        self.problem, self.weights = latent.problem, weights

    def with_factors(self, factors):
        """The equations at other factors, with the same weights."""
        out = copy(self)
        out.factors = tuple(factors)
        for name in ("system", "marginal", "_solver"):
            vars(out).pop(name, None)
        return out

    @cached_property
    def cross(self):
        """Cross-products of the rows, at the weights."""
        return CrossProducts(self.problem, self.weights)

    @cached_property
    def border(self):
        """Cross-products of the border, which know no factors."""
        from sklmm.engine.equations.arrow import Border

        return Border(self.problem, self.layout, self.weights, self.cross.G)

    @cached_property
    def system(self):
        """The operator's arrays."""
        return self.border.system(self.problem, self.factors)

    @cached_property
    def marginal(self):
        """The border's posterior."""
        return marginal(self)

    @cached_property
    def _solver(self):
        if self.latent.rows is None:
            from sklmm.engine.equations.compiled_solver import CompiledSolver

            return CompiledSolver(self)
        if not self.latent.rows.dense:
            return Eliminated(self.latent.rows, self.cross, self.factors)
        return Factorised(self.latent.rows, self.factors, self.weights)

    def factorised(self):
        """Itself, factorised: LinAlgError where C is not positive."""
        _ = self._solver
        return self

    def solve(self, right, tol=SOLVE_TOL):
        """C^-1 right, [P, c]."""
        return self._solver.solve(right, tol)

    @property
    def unsolved(self):
        """Largest relative residual of a solve that ended before its tolerance, or 0."""
        return getattr(self._solver, "unsolved", 0.0)

    def apply(self, flat):
        """C flat [P, c] for columns that hold beta fixed."""
        return self._solver.apply(flat)

    def draws(self, rng, n_draws):
        """Draws from N(0, C^-1), [P, n_draws]."""
        return self._solver.draws(rng, n_draws)

    def leverages(self):
        """C^-1 w_i at row i's own levels, w_i its row of W: of beta [n, p], of blocks [n, r]."""
        return self._solver.leverages()

    def log_det(self):
        """log |C|, or None where it would take too long, or C is singular."""
        if self.latent.rows is not None:
            return self._solver.log_det()
        if not factorisable([b.n_levels * b.r for b in self.problem.blocks], "log_det"):
            return None
        cross = self.cross
        try:
            H = Dense(cross, self.factors, 1.0)
            S = GaussianEquations(self.factors, 1.0, cross, H).S_factor
        except np.linalg.LinAlgError:
            return None
        return H.log_det + 2 * float(np.log(np.diag(S)).sum())

    def inverse(self):
        """C^-1 [P, P] without the padding, dense: for few unknowns."""
        real = self.layout.real
        units = np.eye(self.layout.size)[:, real]
        inverse = self.solve(units, EXACT_TOL)[real]
        return (inverse + inverse.T) / 2
