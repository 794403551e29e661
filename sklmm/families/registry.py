"""The built-in families by name, and the one entry from an estimator's parameter to a `Family`."""

from sklmm.families.base import Family
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
from sklmm.families.messages import listed
from sklmm.families.nbinom1 import NegativeBinomial1
from sklmm.families.negative_binomial import NegativeBinomial
from sklmm.families.ordered_beta import OrderedBeta
from sklmm.families.ordinal import Ordinal
from sklmm.families.poisson import Poisson
from sklmm.families.student_t import StudentT
from sklmm.families.tfp import signature
from sklmm.families.truncated_negative_binomial import TruncatedNegativeBinomial
from sklmm.families.truncated_poisson import TruncatedPoisson
from sklmm.families.tweedie import Tweedie

#: The families that have a name.
FAMILIES = {
    family.name: family
    for family in (
        Gaussian,
        CensoredGaussian,
        StudentT,
        Poisson,
        NegativeBinomial,
        NegativeBinomial1,
        GeneralizedPoisson,
        TruncatedPoisson,
        TruncatedNegativeBinomial,
        Gamma,
        Tweedie,
        InverseGaussian,
        LogNormal,
        LogNormalMean,
        Beta,
        OrderedBeta,
        Bernoulli,
        Binomial,
        BetaBinomial,
        Ordinal,
        Categorical,
    )
}


def resolve_family(family):
    """A checked `Family` from the estimator's parameter: a name, an instance, or a function.

    Raises
    ------
    ValueError
        For an unknown name, or a family whose parameters are wrong.
    """
    if isinstance(family, str) and family in FAMILIES:
        family = FAMILIES[family]()
    elif isinstance(family, type) and issubclass(family, Family):
        raise ValueError(f"family={family.__name__} is a class: give {family.__name__}().")
    elif callable(family):
        required, _ = signature(family)
        if required:
            name = getattr(family, "__name__", "f")
            pins = ", ".join(f"{p}='positive'" for p in required)
            raise ValueError(
                f"family={name} has parameters besides eta: write CustomFamily({name}, {pins}), "
                "with 'positive', 'real', 'unit' or a number for each."
            )
        family = CustomFamily(family)
    if isinstance(family, Family):
        family.check()
        if not family.is_custom and family.density is None:
            raise ValueError(
                f"{type(family).__name__}: it has no distribution: override "
                "`distribution(self, eta, ...)`, or give it a `density`."
            )
        return family
    raise ValueError(
        f"family={family!r} is not available: use {listed(FAMILIES)}, an instance such as "
        "Gaussian(sigma=1.0), or CustomFamily(function, ...)."
    )
