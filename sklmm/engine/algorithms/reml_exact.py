"""The exact E-step: a Cholesky factorisation in float64 of all but the largest term.

For a few thousand effects beside the largest term, and the oracle every other kernel is tested
against.
"""

from typing import NamedTuple

from sklmm.engine.equations.crossproducts import CrossProducts
from sklmm.engine.equations.elimination import Dense
from sklmm.engine.equations.henderson import GaussianKernel


class _State(NamedTuple):
    cross: CrossProducts
    probes: None = None


class ExactKernel(GaussianKernel):
    """Cholesky factorisation of the mixed-model equations; deterministic."""

    def init(self, problem, seed):
        """Cross-products, computed once."""
        return _State(CrossProducts(problem))

    def eliminate(self, factors, s2, state, tol=None):
        """S factorised."""
        return Dense(state.cross, factors, s2)

    def traces(self, state, equations):
        """Exactly."""
        return equations.H.traces(), None
