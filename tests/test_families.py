"""Response families: moments and draws, what they accept as y, and their life as estimators."""

import pickle
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.special import expit, ndtr, softmax
from sklearn.base import clone

from sklmm import families as fam
from sklmm.families import resolve_family

ETA = np.array([[-1.0, 0.2], [0.5, 1.1]])
P = expit(ETA)
MU = np.exp(ETA)
BETA = {"a": P * 6.0, "b": (1 - P) * 6.0}

# family, parameters, frozen scipy distribution at ETA
DISTRIBUTIONS = {
    "gaussian": (fam.Gaussian(), {"sigma": 0.7}, stats.norm(ETA, 0.7)),
    "student_t": (fam.StudentT(), {"sigma": 0.7, "df": 7.0}, stats.t(7.0, ETA, 0.7)),
    "poisson": (fam.Poisson(), {}, stats.poisson(MU)),
    "poisson sqrt": (fam.Poisson("sqrt"), {}, stats.poisson(ETA**2)),
    "negative_binomial": (
        fam.NegativeBinomial(),
        {"dispersion": 0.4},
        stats.nbinom(2.5, 1 / (1 + 0.4 * MU)),
    ),
    "gamma": (fam.Gamma(), {"shape": 2.5}, stats.gamma(2.5, scale=MU / 2.5)),
    "beta": (fam.Beta(), {"precision": 6.0}, stats.beta(**BETA)),
    "bernoulli": (fam.Bernoulli(), {}, stats.bernoulli(P)),
    "bernoulli probit": (fam.Bernoulli("probit"), {}, stats.bernoulli(ndtr(ETA))),
    "binomial cloglog": (fam.Binomial("cloglog"), {}, stats.bernoulli(1 - np.exp(-MU))),
}


def laplace(eta, scale):
    import tensorflow_probability as tfp

    return tfp.distributions.Laplace(eta, scale)


def cauchy(eta):
    from sklmm.engine.model import tfd

    class NoMoments(tfd.Cauchy):
        def _mean(self):
            raise NotImplementedError

    return NoMoments(eta, np.float64(1.0))


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_mean_and_variance_are_scipys(name):
    family, params, truth = DISTRIBUTIONS[name]
    family.check()
    for found, expected in [
        (family.mean(ETA, params), truth.mean()),
        (family.variance(ETA, params), truth.var()),
    ]:
        assert found.shape == ETA.shape
        np.testing.assert_allclose(found, expected)


def check_draws(draws, mean, variance):
    """z-tests of the first two moments of draws [n, ...]."""
    n = len(draws)
    gap = (draws.mean(axis=0) - mean) / np.sqrt(variance / n)
    assert np.abs(gap).max() < 4
    squares = (draws - mean) ** 2
    gap = (squares.mean(axis=0) - variance) / (squares.std(axis=0) / np.sqrt(n))
    assert np.abs(gap).max() < 4


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_draws_have_the_mean_and_variance(name):
    family, params, truth = DISTRIBUTIONS[name]
    eta = np.broadcast_to(ETA, (40_000, 2, 2))
    check_draws(family.sample(eta, params, np.random.default_rng(1)), truth.mean(), truth.var())


def test_gamma_inverse():
    eta = np.array([0.5, 2.0])
    family = fam.Gamma("inverse")
    np.testing.assert_allclose(family.mean(eta, {}), [2, 0.5])
    np.testing.assert_allclose(family.variance(eta, {"shape": 4.0}), [1, 1 / 16])


def test_student_t_without_a_variance():
    assert np.isinf(fam.StudentT().variance(ETA, {"sigma": 1.0, "df": 1.5})).all()


@pytest.mark.parametrize("link", ["logit", "probit"])
def test_ordinal(link):
    family, params = fam.Ordinal(link), {"spacing_1": 0.8, "spacing_2": 1.3}
    cut = np.array([0, 0.8, 2.1])
    F = stats.logistic.cdf if link == "logit" else stats.norm.cdf
    upper = F(cut - ETA[..., None])
    expected = np.diff(upper, axis=-1, prepend=0, append=1)
    p = family.probabilities(ETA, params)
    np.testing.assert_allclose(p, expected)
    codes = np.arange(4)
    mean, variance = p @ codes, p @ codes**2 - (p @ codes) ** 2
    np.testing.assert_allclose(family.mean(ETA, params), mean)
    np.testing.assert_allclose(family.variance(ETA, params), variance)
    scores = np.array([1, 2, 4, 8])
    np.testing.assert_allclose(family.mean(ETA, params, scores=scores), p @ scores)
    np.testing.assert_allclose(
        family.variance(ETA, params, scores=scores), p @ scores**2 - (p @ scores) ** 2
    )
    eta = np.broadcast_to(ETA, (40_000, 2, 2))
    draws = family.sample(eta, params, np.random.default_rng(2))
    for code in codes:
        check_draws(draws == code, p[..., code], p[..., code] * (1 - p[..., code]))


def test_ordinal_probabilities_keep_their_digits_in_both_tails():
    p = fam.Ordinal().probabilities([-80.0, 80.0], {"spacing_1": 1.0})
    np.testing.assert_allclose(p.sum(axis=1), 1)
    np.testing.assert_allclose(p[0, 2], np.exp(-81), rtol=1e-12)
    np.testing.assert_allclose(p[1, 0], np.exp(-80), rtol=1e-12)


def test_categorical():
    family = fam.Categorical()
    eta = np.random.default_rng(0).normal(size=(3, 2, 4))
    p = family.probabilities(eta, {})
    assert p.shape == (3, 4, 3)
    np.testing.assert_allclose(p[1, 2], softmax([0, *eta[1, :, 2]]))
    draws = family.sample(np.repeat(eta[:1], 40_000, axis=0), {}, np.random.default_rng(3))
    assert draws.shape == (40_000, 4)
    for code in range(3):
        check_draws(draws == code, p[0, :, code], p[0, :, code] * (1 - p[0, :, code]))
    for moment in (family.mean, family.variance):
        with pytest.raises(ValueError, match="use `probabilities`"):
            moment(eta, {})


def test_two_classes_have_probabilities():
    p = fam.Bernoulli("cloglog").probabilities(ETA, {})
    assert p.shape == (2, 2, 2)
    np.testing.assert_allclose(p.sum(axis=-1), 1)
    np.testing.assert_allclose(p[..., 0], np.exp(-MU))


def test_custom_family_takes_its_moments_from_tfp():
    family = fam.CustomFamily(laplace, scale="positive")
    np.testing.assert_allclose(family.mean(ETA, {"scale": 0.5}), ETA)
    np.testing.assert_allclose(family.variance(ETA, {"scale": 0.5}), np.full((2, 2), 0.5))
    eta = np.broadcast_to(ETA, (40_000, 2, 2))
    draws = family.sample(eta, {"scale": 0.5}, np.random.default_rng(4))
    check_draws(draws, ETA, 0.5)
    again = family.sample(eta, {"scale": 0.5}, np.random.default_rng(4))
    np.testing.assert_array_equal(draws, again)
    with pytest.raises(ValueError, match=r"CustomFamily: its distribution has no mean: override"):
        fam.CustomFamily(cauchy).mean(ETA, {})


def test_extreme_predictors_raise_no_warning():
    eta = np.array([-1e3, 1e3])
    params = {"sigma": 1.0, "df": 5.0, "dispersion": 0.5, "shape": 2.0, "precision": 3.0}
    for family in FAMILIES.values():
        if family.name in ("ordinal", "categorical", "custom"):
            continue
        for value in (
            family.mean(eta, params),
            family.variance(eta, params),
            family.sample(eta, params, np.random.default_rng(0)),
        ):
            assert np.isfinite(value).all()


def test_numeric_responses_bind():
    for family, y in [
        (fam.Gaussian(), [-1, 2.5]),
        (fam.StudentT(), np.array([[1], [2]])),
        (fam.Poisson(), np.array([0, 3], np.int8)),
        (fam.NegativeBinomial(), pd.Series([0.0, 7.0])),
        (fam.Gamma(), [0.1, 2]),
        (fam.Beta(), [0.1, 0.9]),
        (fam.Binomial(), [0, 0.25]),
    ]:
        response = family.bind(y, [1, 2])
        assert response.y.dtype == response.weights.dtype == np.float64
        np.testing.assert_array_equal(response.y, np.ravel(y))
        np.testing.assert_array_equal(response.weights, [1, 2])
        assert response.classes is response.keep is response.n_classes is None
        assert response.n_predictors == 1
        assert response.parameters == family.parameters()
        np.testing.assert_array_equal(family.bind(y).weights, [1, 1])


@pytest.mark.parametrize(
    ("y", "classes"),
    [
        (["yes", "no", "yes"], ["no", "yes"]),
        ([True, False, True], [False, True]),
        ([2.0, -1.0, 2.0], [-1, 2]),
        (pd.Series(["b", "a", "b"], dtype="category"), ["a", "b"]),
    ],
    ids=["str", "bool", "float", "category"],
)
def test_bernoulli_binds_two_labels(y, classes):
    response = fam.Bernoulli().bind(y)
    assert response.classes.tolist() == classes
    assert response.y.tolist() == [1, 0, 1]
    assert response.n_classes == 2
    assert response.n_predictors == 1


def test_binomial_binds_counts():
    response = fam.Binomial().bind([[3, 1], [0, 0], [0, 2]], [1, 1, 10])
    assert response.y.tolist() == [0.75, 0, 0]
    assert response.weights.tolist() == [4, 0, 20]
    assert response.keep.tolist() == [True, False, True]
    assert response.classes is None


def test_ordinal_and_categorical_bind_labels():
    response = fam.Ordinal().bind([4, 2.5, 1, 4])
    assert response.classes.tolist() == [1, 2.5, 4]
    assert response.y.tolist() == [2, 1, 0, 2]
    assert response.parameters == {"spacing_1": "positive"}
    assert response.n_predictors == 1
    response = fam.Categorical().bind(np.array(["b", "a", "c"], dtype=object))
    assert response.classes.tolist() == ["a", "b", "c"]
    assert response.n_predictors == 2
    assert response.parameters == {}


def test_ordinal_keeps_the_order_of_an_ordered_categorical():
    levels = ["never", "low", "mid", "high"]
    y = pd.Series(pd.Categorical(["high", "low", "mid"], categories=levels, ordered=True))
    response = fam.Ordinal().bind(y)
    assert response.classes.tolist() == ["low", "mid", "high"]
    assert response.y.tolist() == [2, 0, 1]


BAD_Y = {
    "poisson negative": (fam.Poisson(), [1, -2], r"Poisson: y must be a count.*-2\.0 \(row 1\): "),
    "negative_binomial fraction": (
        fam.NegativeBinomial(),
        [1, 2, 0.5],
        r"NegativeBinomial: y must be a count.*0\.5 \(row 2\): round it",
    ),
    "gamma zero": (fam.Gamma(), [0.0, 1], r"Gamma: y must be positive, not 0\.0 \(row 0\): drop"),
    "beta one": (
        fam.Beta(),
        [0.5, 1],
        r"Beta: y must be strictly between 0 and 1, not 1\.0 \(row 1\): move it inside",
    ),
    "not finite": (
        fam.Gaussian(),
        [0, np.nan],
        r"Gaussian: y must be finite, not nan \(row 1\): drop or impute",
    ),
    "strings": (fam.Gaussian(), ["1.5", "b"], r"y must be numeric, not .*'b'.* \(row 1\): convert"),
    "two columns": (fam.Poisson(), np.ones((3, 2)), r"y must have one column, not shape \(3, 2\)"),
    "binomial count": (
        fam.Binomial(),
        [0.5, 3],
        r"Binomial: y must be a proportion in \[0, 1\], not 3\.0 \(row 1\): divide by the trials",
    ),
    "binomial negative": (
        fam.Binomial(),
        [[1, 2], [-1, 2]],
        r"Binomial: y must be two columns of nonnegative counts.*-1.*\(row 1\): correct",
    ),
    "bernoulli three": (
        fam.Bernoulli(),
        ["a", "b", "c"],
        r"Bernoulli: y must have two classes, not 3; a third is c \(row 2\): use 'categorical'",
    ),
    "bernoulli one": (fam.Bernoulli(), ["a", "a"], r"y has a single class \('a'\): at least two"),
    "categorical one": (fam.Categorical(), [1, 1], r"y has a single class \(1\): at least two"),
    "ordinal one": (fam.Ordinal(), [1, 1], r"y has a single class \(1\): at least two"),
    "ordinal two": (fam.Ordinal(), [1, 2], r"at least three classes, not 2 \(1, 2\): use 'bern"),
    "missing label": (
        fam.Categorical(),
        np.array(["a", None], dtype=object),
        r"Categorical: y must be a label, not None \(row 1\): drop the row",
    ),
    "mixed labels": (
        fam.Categorical(),
        np.array(["a", 1], dtype=object),
        r"y must be labels of one type \(str, as in row 0\), not 1 \(row 1\): convert",
    ),
    "labels in two columns": (fam.Bernoulli(), [["a", "b"]], r"one column, not shape \(1, 2\)"),
}


@pytest.mark.parametrize("case", BAD_Y)
def test_a_y_outside_the_support_is_named(case):
    family, y, message = BAD_Y[case]
    with pytest.raises(ValueError, match=message):
        family.bind(y)


FAMILIES = {
    "gaussian": fam.Gaussian(sigma=1.0),
    "student_t": fam.StudentT(df=4.0, sigma=2.0),
    "poisson": fam.Poisson("sqrt"),
    "negative_binomial": fam.NegativeBinomial(dispersion=0.5),
    "gamma": fam.Gamma("inverse", shape=2.0),
    "beta": fam.Beta("probit", precision=3.0),
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
    assert equivariant == ["gaussian", "student_t"]


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


def test_built_in_families_need_no_tensorflow():
    code = """
import sys
import numpy as np
from sklmm.families import _FAMILIES, Categorical, Ordinal, resolve_family
params = {"sigma": 1.0, "df": 5.0, "dispersion": 0.5, "shape": 2.0, "precision": 3.0}
for name in _FAMILIES:
    family = resolve_family(name)
    values = {"spacing_1": 1.0} if name == "ordinal" else params
    family.sample(np.zeros((2, 2)), values, np.random.default_rng(0))
    if name != "categorical":
        family.mean(np.zeros((2, 2)), values), family.variance(np.zeros((2, 2)), values)
assert "tensorflow" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
