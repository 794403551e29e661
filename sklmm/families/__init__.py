"""Response families: the distribution of y given the linear predictor."""

from sklmm.families.base import Family, Response
from sklmm.families.beta import Beta
from sklmm.families.beta_binomial import BetaBinomial
from sklmm.families.binomial import Bernoulli, Binomial
from sklmm.families.categorical import Categorical
from sklmm.families.censored import CensoredGaussian
from sklmm.families.custom import CustomFamily
from sklmm.families.gamma import Gamma
from sklmm.families.gaussian import Gaussian
from sklmm.families.generalized_poisson import GeneralizedPoisson
from sklmm.families.inverse_gaussian import InverseGaussian
from sklmm.families.lognormal import LogNormal
from sklmm.families.lognormal_mean import LogNormalMean
from sklmm.families.nbinom1 import NegativeBinomial1
from sklmm.families.negative_binomial import NegativeBinomial
from sklmm.families.ordered_beta import OrderedBeta
from sklmm.families.ordinal import Ordinal
from sklmm.families.poisson import Poisson
from sklmm.families.registry import resolve_family
from sklmm.families.student_t import StudentT
from sklmm.families.truncated_negative_binomial import TruncatedNegativeBinomial
from sklmm.families.truncated_poisson import TruncatedPoisson
from sklmm.families.tweedie import Tweedie
from sklmm.families.zero_inflated import ZeroInflated

__all__ = [
    "Bernoulli",
    "Beta",
    "BetaBinomial",
    "Binomial",
    "Categorical",
    "CensoredGaussian",
    "CustomFamily",
    "Family",
    "Gamma",
    "Gaussian",
    "GeneralizedPoisson",
    "InverseGaussian",
    "LogNormal",
    "LogNormalMean",
    "NegativeBinomial",
    "NegativeBinomial1",
    "OrderedBeta",
    "Ordinal",
    "Poisson",
    "Response",
    "StudentT",
    "TruncatedNegativeBinomial",
    "TruncatedPoisson",
    "Tweedie",
    "ZeroInflated",
    "resolve_family",
]
