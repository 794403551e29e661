"""Mean, variance, probabilities and draws of every family, against SciPy and by z-tests."""

import subprocess
import sys

import numpy as np
import pytest
from scipy import stats
from scipy.special import expit, ndtr, softmax

from sklmm import families as fam
from sklmm.families.registry import FAMILIES

ETA = np.array([[-1.0, 0.2], [0.5, 1.1]])
P = expit(ETA)
MU = np.exp(ETA)
BETA = {"a": P * 6.0, "b": (1 - P) * 6.0}

# family, parameters, frozen scipy distribution at ETA
DISTRIBUTIONS = {
    "gaussian": (fam.Gaussian(), {"sigma": 0.7}, stats.norm(ETA, 0.7)),
    "censored_gaussian": (fam.CensoredGaussian(), {"sigma": 0.7}, stats.norm(ETA, 0.7)),
    "student_t": (fam.StudentT(), {"sigma": 0.7, "df": 7.0}, stats.t(7.0, ETA, 0.7)),
    "poisson": (fam.Poisson(), {}, stats.poisson(MU)),
    "poisson sqrt": (fam.Poisson("sqrt"), {}, stats.poisson(ETA**2)),
    "negative_binomial": (
        fam.NegativeBinomial(),
        {"dispersion": 0.4},
        stats.nbinom(2.5, 1 / (1 + 0.4 * MU)),
    ),
    "nbinom1": (
        fam.NegativeBinomial1(),
        {"dispersion": 0.7},
        stats.nbinom(MU / 0.7, 1 / 1.7),
    ),
    "gamma": (fam.Gamma(), {"shape": 2.5}, stats.gamma(2.5, scale=MU / 2.5)),
    "lognormal": (fam.LogNormal(), {"sigma": 0.7}, stats.lognorm(0.7, scale=MU)),
    "lognormal_mean": (
        fam.LogNormalMean(),
        {"sd": 0.5},
        stats.lognorm(np.sqrt(np.log1p(0.25 / MU**2)), scale=MU / np.sqrt(1 + 0.25 / MU**2)),
    ),
    "inverse_gaussian": (
        fam.InverseGaussian(),
        {"dispersion": 0.4},
        stats.invgauss(0.4 * MU, scale=1 / 0.4),
    ),
    "beta": (fam.Beta(), {"precision": 6.0}, stats.beta(**BETA)),
    "bernoulli": (fam.Bernoulli(), {}, stats.bernoulli(P)),
    "bernoulli probit": (fam.Bernoulli("probit"), {}, stats.bernoulli(ndtr(ETA))),
    "binomial cloglog": (fam.Binomial("cloglog"), {}, stats.bernoulli(1 - np.exp(-MU))),
}


def laplace(eta, scale):
    import tensorflow_probability as tfp

    return tfp.distributions.Laplace(eta, scale)


def cauchy(eta):
    from sklmm.engine.runtime.tfp_graph import tfd

    class NoMoments(tfd.Cauchy):
        def _mean(self):
            raise NotImplementedError

        def _sample_n(self, n, seed=None):
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


def test_a_skewed_inverse_gaussian_keeps_its_digits():
    """Of a huge dispersion it is 1 / chi^2: the draws' reciprocals have its mean."""
    family, n = fam.InverseGaussian(), 40_000
    draws = family.sample(np.zeros(n), {"dispersion": 1e12}, np.random.default_rng(0))
    assert (draws > 0).all()
    shares = 1 / (draws * 1e12)
    assert abs(shares.mean() - 1) < 4 * np.sqrt(2 / n)


def test_an_ordered_beta_has_three_parts():
    family, params = fam.OrderedBeta(), {"precision": 5.0, "cut1": -0.9, "cut_gap": 2.5}
    one, some = expit(ETA - 1.6), expit(ETA + 0.9)
    inside = stats.beta(P * 5, (1 - P) * 5)
    mean = one + (some - one) * inside.mean()
    square = one + (some - one) * (inside.var() + inside.mean() ** 2)
    np.testing.assert_allclose(family.mean(ETA, params), mean)
    np.testing.assert_allclose(family.variance(ETA, params), square - mean**2)
    eta = np.broadcast_to(ETA, (40_000, 2, 2))
    draws = family.sample(eta, params, np.random.default_rng(5))
    check_draws(draws, mean, square - mean**2)
    check_draws(draws == 1, one, one * (1 - one))
    check_draws(draws == 0, 1 - some, some * (1 - some))


def test_gamma_inverse():
    eta = np.array([0.5, 2.0])
    family = fam.Gamma("inverse")
    np.testing.assert_allclose(family.mean(eta, {}), [2, 0.5])
    np.testing.assert_allclose(family.variance(eta, {"shape": 4.0}), [1, 1 / 16])


def test_student_t_without_a_variance():
    assert np.isinf(fam.StudentT().variance(ETA, {"sigma": 1.0, "df": 1.5})).all()


CDFS = {
    "logit": stats.logistic.cdf,
    "probit": stats.norm.cdf,
    "cloglog": stats.gumbel_l.cdf,
    "loglog": stats.gumbel_r.cdf,
    "cauchit": stats.cauchy.cdf,
}


@pytest.mark.parametrize("link", CDFS)
def test_ordinal(link):
    family, params = fam.Ordinal(link), {"spacing_1": 0.4, "spacing_2": 0.5}
    cut = np.array([0, 0.4, 0.9])
    upper = CDFS[link](cut - ETA[..., None])
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
    with pytest.raises(
        ValueError, match=r"has no sample: override `sample\(self, eta, params, rng\)`"
    ):
        fam.CustomFamily(cauchy).sample(ETA, {}, np.random.default_rng(0))


# Every family that has a mean at any eta without classes to be told, with every link.
LINKED = [
    kind(link) if link else kind()
    for name, kind in FAMILIES.items()
    if name not in ("ordinal", "categorical")
    for link in kind.links or [None]
]


@pytest.mark.parametrize("family", LINKED, ids=repr)
def test_extreme_predictors_raise_no_warning(family):
    eta = np.array([-1e3, 1e3])
    params = {
        "sigma": 1.0,
        "df": 5.0,
        "dispersion": 0.5,
        "shape": 2.0,
        "precision": 3.0,
        "power": 1.4,
    }
    params |= {"cut1": -1.0, "cut_gap": 2.0, "sd": 0.7}
    for value in (
        family.mean(eta, params),
        family.variance(eta, params),
        family.sample(eta, params, np.random.default_rng(0)),
    ):
        assert np.isfinite(value).all()


def test_built_in_families_need_no_tensorflow():
    code = """
import sys
import numpy as np
from sklmm.families.registry import FAMILIES, resolve_family
params = {"sigma": 1.0, "df": 5.0, "dispersion": 0.5, "shape": 2.0, "precision": 3.0, "power": 1.4}
params |= {"cut1": -1.0, "cut_gap": 2.0, "sd": 0.7}
for name in FAMILIES:
    family = resolve_family(name)
    values = {"spacing_1": 1.0} if name == "ordinal" else params
    family.sample(np.zeros((2, 2)), values, np.random.default_rng(0))
    if name != "categorical":
        family.mean(np.zeros((2, 2)), values), family.variance(np.zeros((2, 2)), values)
assert "tensorflow" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("kind", [fam.Poisson, fam.NegativeBinomial, fam.Gamma])
def test_a_mean_is_eta_where_that_is_positive_and_none_below(kind):
    family, params = kind("identity"), {"shape": 4.0, "dispersion": 0.5}
    eta = np.array([-2.0, 0.0, 3.0])
    np.testing.assert_array_equal(family.mean(eta, params), [0.0, 0.0, 3.0])
    assert (family.variance(eta, params)[:2] == 0).all()
    draws = family.sample(np.tile(eta, (20_000, 1)), params, np.random.default_rng(0))
    assert (draws[:, :2] == 0).all()
    check_draws(draws[:, 2], 3.0, family.variance(3.0, params))
