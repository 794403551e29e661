"""Mixed-effects models as scikit-learn estimators."""

from sklmm.design.terms import RandomEffect
from sklmm.families import Gaussian
from sklmm.regressor import MixedEffectsRegressor
from sklmm.steps import HMC, Adam, ConjugateGradient, Exact

__version__ = "0.1.0"

__all__ = [
    "HMC",
    "Adam",
    "ConjugateGradient",
    "Exact",
    "Gaussian",
    "MixedEffectsRegressor",
    "RandomEffect",
]
