"""Mixed-effects models as scikit-learn estimators."""

from importlib import import_module

from sklmm.classifier import MixedEffectsClassifier
from sklmm.covariances import AR1, CompoundSymmetry, Diagonal, Toeplitz, Unstructured
from sklmm.design.terms import RandomEffect
from sklmm.families import (
    Bernoulli,
    Beta,
    BetaBinomial,
    Binomial,
    Categorical,
    CensoredGaussian,
    CustomFamily,
    Family,
    Gamma,
    Gaussian,
    GeneralizedPoisson,
    InverseGaussian,
    LogNormal,
    LogNormalMean,
    NegativeBinomial,
    NegativeBinomial1,
    OrderedBeta,
    Ordinal,
    Poisson,
    StudentT,
    TruncatedNegativeBinomial,
    TruncatedPoisson,
    Tweedie,
)
from sklmm.priors import GammaPrior
from sklmm.regressor import MixedEffectsRegressor
from sklmm.relationships import Relationship
from sklmm.steps import HMC, NUTS, Adam, ConjugateGradient, Exact, Laplace, Quadrature

__version__ = "0.1.0"

__all__ = [
    "AR1",
    "HMC",
    "NUTS",
    "Adam",
    "Bernoulli",
    "Beta",
    "BetaBinomial",
    "Binomial",
    "Categorical",
    "CensoredGaussian",
    "CompoundSymmetry",
    "ConjugateGradient",
    "CustomFamily",
    "Diagonal",
    "Exact",
    "Family",
    "Gamma",
    "GammaPrior",
    "Gaussian",
    "GeneralizedPoisson",
    "InverseGaussian",
    "Laplace",
    "LogNormal",
    "LogNormalMean",
    "MixedEffectsClassifier",
    "MixedEffectsEncoder",
    "MixedEffectsRegressor",
    "NegativeBinomial",
    "NegativeBinomial1",
    "OrderedBeta",
    "Ordinal",
    "Poisson",
    "Quadrature",
    "RandomEffect",
    "Relationship",
    "StudentT",
    "Toeplitz",
    "TruncatedNegativeBinomial",
    "TruncatedPoisson",
    "Tweedie",
    "Unstructured",
    "anova",
]

#: Modules of the names that few programs use, which are imported when they are asked for.
_LAZY = {"MixedEffectsEncoder": "encoder", "anova": "comparison"}


def __getattr__(name):
    if name in _LAZY:
        return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return [*globals(), *_LAZY]
