"""Families as estimators, and the way from a name, an instance or a function to a family."""

import pickle

import numpy as np
import pytest
from sklearn.base import clone

from sklmm import families as fam
from sklmm.families import resolve_family


def laplace(eta, scale):
    import tensorflow_probability as tfp

    return tfp.distributions.Laplace(eta, scale)


def cauchy(eta):
    from sklmm.engine.runtime.tfp_graph import tfd

    class NoMoments(tfd.Cauchy):
        def _mean(self):
            raise NotImplementedError

    return NoMoments(eta, np.float64(1.0))


FAMILIES = {
    "gaussian": fam.Gaussian(sigma=1.0),
    "student_t": fam.StudentT(df=4.0, sigma=2.0),
    "poisson": fam.Poisson("sqrt"),
    "negative_binomial": fam.NegativeBinomial(dispersion=0.5),
    "nbinom1": fam.NegativeBinomial1("sqrt", dispersion=0.5),
    "generalized_poisson": fam.GeneralizedPoisson("sqrt", dispersion=0.5),
    "truncated_poisson": fam.TruncatedPoisson("sqrt"),
    "truncated_negative_binomial": fam.TruncatedNegativeBinomial("sqrt", dispersion=0.5),
    "gamma": fam.Gamma("inverse", shape=2.0),
    "tweedie": fam.Tweedie("sqrt", dispersion=2.0, power=1.3),
    "lognormal": fam.LogNormal(sigma=0.5),
    "lognormal_mean": fam.LogNormalMean(sd=0.5),
    "inverse_gaussian": fam.InverseGaussian("inverse", dispersion=0.5),
    "beta": fam.Beta("probit", precision=3.0),
    "censored_gaussian": fam.CensoredGaussian(sigma=0.5),
    "beta_binomial": fam.BetaBinomial("cloglog", precision=3.0),
    "ordered_beta": fam.OrderedBeta(precision=3.0),
    "bernoulli": fam.Bernoulli("cloglog"),
    "binomial": fam.Binomial("probit"),
    "ordinal": fam.Ordinal("probit"),
    "categorical": fam.Categorical(),
    "custom": fam.CustomFamily(laplace, scale=2.0),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_clone_pickle_and_set_params(name):
    family = FAMILIES[name]
    assert family.name == name
    assert resolve_family(family) is family
    for copy in (clone(family), pickle.loads(pickle.dumps(family))):
        assert copy is not family
        assert type(copy) is type(family)
        assert copy.get_params() == family.get_params()
        assert copy.parameters(4) == family.parameters(4)
        assert repr(copy) == repr(family)
    assert family._repr_html_()
    for key, value in {"sigma": 3.0, "link": "log", "scale": "positive"}.items():
        if key in family.get_params():
            assert clone(family).set_params(**{key: value}).get_params()[key] == value
    with pytest.raises(ValueError, match="nonsense"):
        clone(family).set_params(nonsense=1)


def test_parameters():
    assert fam.Gaussian().parameters() == {"sigma": "positive"}
    assert list(fam.StudentT(df=3).parameters().items()) == [("sigma", "positive"), ("df", 3.0)]
    assert fam.Ordinal().parameters(5) == {f"spacing_{k}": "positive" for k in (1, 2, 3)}
    assert fam.Categorical().n_predictors(5) == 4
    for call in (fam.Ordinal().parameters, fam.Categorical().n_predictors):
        with pytest.raises(ValueError, match="n_classes"):
            call()
    custom = fam.CustomFamily(laplace, scale="positive").set_params(scale=2)
    assert custom.parameters() == {"scale": 2}
    equivariant = [name for name, family in FAMILIES.items() if family.scale_equivariant]
    assert equivariant == ["gaussian", "student_t", "lognormal", "censored_gaussian"]


@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "custom"])
def test_names_resolve(name):
    family = resolve_family(name)
    assert type(family) is type(FAMILIES[name])


def test_functions_resolve():
    family = resolve_family(cauchy)
    assert isinstance(family, fam.CustomFamily)
    assert family.parameters() == {}
    with pytest.raises(ValueError, match=r"write CustomFamily\(laplace, scale='positive'\)"):
        resolve_family(laplace)


def of_default(eta, scale=1.0):
    return laplace(eta, scale)


def of_any(eta, **parameters):
    return laplace(eta, **parameters)


def test_parameters_with_a_default_and_open_parameters():
    assert resolve_family(of_default).parameters() == {}
    resolve_family(fam.CustomFamily(of_default, scale="positive"))
    resolve_family(fam.CustomFamily(of_any, scale="positive"))


class Unfinished(fam.Family):
    """Without a distribution."""


class Misnamed(fam.Family):
    def parameters(self, n_classes=None):
        return {"sd": "positive"}

    def distribution(self, eta, scale):
        return laplace(eta, scale)


BAD_FAMILIES = {
    "name": ("cauchy", r"family='cauchy' is not available: use 'gaussian', .*'categorical'"),
    "number": (3, r"family=3 is not available"),
    "class": (fam.Poisson, r"family=Poisson is a class: give Poisson\(\)"),
    "sigma": (fam.Gaussian(sigma=-1), r"Gaussian: sigma=-1 must be a positive number, or None"),
    "df": (fam.StudentT(df="4"), r"StudentT: df='4' must be a positive number"),
    "dispersion": (fam.NegativeBinomial(dispersion=0), r"dispersion=0 must be a positive number"),
    "power": (fam.Tweedie(power=2), r"Tweedie: power=2 must be between 1 and 2, or None"),
    "underdispersion": (
        fam.GeneralizedPoisson(dispersion=-0.2),
        r"dispersion=-0.2 must be positive: with a variance below the mean its probabilities",
    ),
    "shape": (fam.Gamma(shape=-2), r"Gamma: shape=-2 must be"),
    "precision": (fam.Beta(precision=0.0), r"Beta: precision=0.0 must be"),
    **{
        f"link of {name}": (
            clone(FAMILIES[name]).set_params(link="square"),
            rf"{type(FAMILIES[name]).__name__}: link='square' is not available: use 'log",
        )
        for name in FAMILIES
        if "link" in FAMILIES[name].get_params()
    },
    "no constraint": (
        fam.CustomFamily(laplace),
        r"parameter 'scale' has no constraint: add scale='positive'",
    ),
    "no parameter": (
        fam.CustomFamily(laplace, scale=1, df=3),
        r"df=3 constrains a parameter that the function lacks; it has 'scale': remove",
    ),
    "no parameters": (fam.CustomFamily(cauchy, df=3), r"it has none after eta: remove"),
    "unknown constraint": (
        fam.CustomFamily(laplace, scale="negative"),
        r"scale='negative' is not a constraint: use 'positive', 'real', 'unit', or a number",
    ),
    "nan": (fam.CustomFamily(laplace, scale=np.nan), r"scale=nan is not a constraint"),
    "not callable": (fam.CustomFamily("laplace"), r"function='laplace' is not callable"),
    "subclass": (Misnamed(), r"Misnamed: sd='positive' constrains a parameter"),
    "unfinished": (Unfinished(), r"Unfinished: it has no distribution: override"),
}


@pytest.mark.parametrize("case", BAD_FAMILIES)
def test_a_bad_family_is_named(case):
    family, message = BAD_FAMILIES[case]
    with pytest.raises(ValueError, match=message):
        resolve_family(family)
