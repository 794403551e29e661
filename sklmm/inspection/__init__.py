"""Reports and displays of fitted models; matplotlib is imported when one is drawn."""

from sklmm.inspection.convergence import ConvergenceDisplay
from sklmm.inspection.graph import ModelGraphDisplay
from sklmm.inspection.influence import InfluenceDisplay
from sklmm.inspection.quantile_residuals import QuantileResidualsDisplay
from sklmm.inspection.random_effects import RandomEffectsDisplay
from sklmm.inspection.residuals import ResidualsDisplay
from sklmm.inspection.trace import TraceDisplay

__all__ = [
    "ConvergenceDisplay",
    "InfluenceDisplay",
    "ModelGraphDisplay",
    "QuantileResidualsDisplay",
    "RandomEffectsDisplay",
    "ResidualsDisplay",
    "TraceDisplay",
]
