"""Mixed-effects models as scikit-learn estimators."""

from sklmm.classifier import MixedEffectsClassifier
from sklmm.comparison import anova
from sklmm.design.terms import RandomEffect
from sklmm.encoder import MixedEffectsEncoder
from sklmm.families import (
    Bernoulli,
    Beta,
    Binomial,
    Categorical,
    CustomFamily,
    Family,
    Gamma,
    Gaussian,
    NegativeBinomial,
    Ordinal,
    Poisson,
    StudentT,
)
from sklmm.regressor import MixedEffectsRegressor
from sklmm.steps import HMC, NUTS, Adam, ConjugateGradient, Exact, Laplace

__version__ = "0.1.0"

__all__ = [
    "HMC",
    "NUTS",
    "Adam",
    "Bernoulli",
    "Beta",
    "Binomial",
    "Categorical",
    "ConjugateGradient",
    "CustomFamily",
    "Exact",
    "Family",
    "Gamma",
    "Gaussian",
    "Laplace",
    "MixedEffectsClassifier",
    "MixedEffectsEncoder",
    "MixedEffectsRegressor",
    "NegativeBinomial",
    "Ordinal",
    "Poisson",
    "RandomEffect",
    "StudentT",
    "anova",
]
