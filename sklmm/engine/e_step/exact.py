"""The exact E-step: a Cholesky factorisation in float64 of all but the largest term.

For a few thousand effects beside the largest term, and the oracle every other kernel is tested
against.
"""

from typing import NamedTuple

import numpy as np

from sklmm.engine.cross import Cross
from sklmm.engine.e_step.gaussian import GaussianKernel
from sklmm.engine.elimination import Dense


class _State(NamedTuple):
    cross: Cross
    probes: None = None


class ExactKernel(GaussianKernel):
    """Cholesky factorisation of the mixed-model equations; deterministic."""

    def init(self, problem, seed):
        """Cross-products, computed once."""
        return _State(Cross(problem))

    def eliminate(self, params, state, tol=None):
        """S factorised."""
        return Dense(state.cross, params.factors, params.sigma**2)

    def traces(self, state, equations):
        """Exactly."""
        return equations.H.traces(), None

    def loglik(self, equations, uu):
        """Log-likelihood in y's units; REML's has log|X^T V^-1 X| in X's own columns, as lme4's."""
        problem = equations.cross.problem
        log_det = problem.n * np.log(equations.s2) + equations.H.log_det
        dof = problem.n
        if problem.reml and problem.p:
            dof -= problem.p
            log_det += 2 * np.log(np.diag(equations.S_factor)).sum() + problem.log_det_basis
        quadratic = equations.sse / equations.s2 + uu
        return float(-0.5 * (dof * np.log(2 * np.pi * problem.y_scale**2) + log_det + quadratic))
