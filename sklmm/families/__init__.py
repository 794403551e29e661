"""Response families: the distribution of y given the linear predictor."""

from sklmm.families.base import Family, Response
from sklmm.families.classes import Bernoulli, Binomial, Categorical, Ordinal
from sklmm.families.continuous import Beta, Gamma, Gaussian, StudentT
from sklmm.families.counts import NegativeBinomial, Poisson
from sklmm.families.custom import CustomFamily
from sklmm.families.registry import resolve_family

__all__ = [
    "Bernoulli",
    "Beta",
    "Binomial",
    "Categorical",
    "CustomFamily",
    "Family",
    "Gamma",
    "Gaussian",
    "NegativeBinomial",
    "Ordinal",
    "Poisson",
    "Response",
    "StudentT",
    "resolve_family",
]
