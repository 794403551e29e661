"""The exact E-step: a Cholesky factorisation in float64 of all but the largest term.

For a few thousand effects beside the largest term, and the oracle every other kernel is tested
against.
"""

from typing import NamedTuple

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
