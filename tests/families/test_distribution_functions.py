"""Distribution functions: SciPy's, sums and integrals of the densities, and draws."""

import numpy as np
import pytest
from scipy import integrate, stats

from sklmm._fitted.latent import Moments
from sklmm._fitted.mixtures import Mixture
from sklmm._fitted.quantiles import _quantile
from sklmm.families import CustomFamily
from sklmm.families.base import Family
from sklmm.families.nominal import PartialOrdinal
from sklmm.families.predicted import PredictedFamily
from sklmm.families.registry import FAMILIES
from sklmm.families.special import NUMPY
from sklmm.families.zero_inflated import ZeroInflated
from tests.families.test_likelihoods import LOG_DENSITIES
from tests.families.test_moments import DISTRIBUTIONS, ETA, laplace

#: Parameters by which each family is asked, and what its rows have.
PARAMETERS = {
    "gaussian": {"sigma": 0.7},
    "censored_gaussian": {"sigma": 0.7},
    "student_t": {"sigma": 0.7, "df": 3.5},
    "lognormal": {"sigma": 0.6},
    "lognormal_mean": {"sd": 0.6},
    "gamma": {"shape": 2.5},
    "tweedie": {"dispersion": 0.8, "power": 1.4},
    "inverse_gaussian": {"dispersion": 0.5},
    "beta": {"precision": 4.0},
    "ordered_beta": {"precision": 4.0, "cut1": -1.0, "cut_gap": 2.0},
    "negative_binomial": {"dispersion": 0.5},
    "nbinom1": {"dispersion": 0.5},
    "generalized_poisson": {"dispersion": 0.5},
    "truncated_negative_binomial": {"dispersion": 0.5},
    "beta_binomial": {"trials": np.full((3, 1), 7.0), "precision": 4.0},
    "ordinal": {"spacing_1": 1.0, "spacing_2": 1.2},
}
CASES = [
    (name, link)
    for name, family in FAMILIES.items()
    for link in family.links or (None,)
    if name != "categorical"
]


def family_of(name, link=None):
    return FAMILIES[name](**({"link": link} if link else {}))


def check_draws(family, eta, params, draws):
    """Both distribution functions are those of draws [n, m] at eta [n, 1], by Kolmogorov's rule."""
    for row, own in enumerate(draws):
        at = np.unique(own)[:: max(len(np.unique(own)) // 200, 1)]
        y = np.broadcast_to(at, (len(eta), len(at)))
        for below, found in [(False, np.less_equal), (True, np.less)]:
            share = found.outer(own, at).mean(axis=0)
            cdf = family.cdf(y, eta, params, below)[row]
            assert np.abs(share - cdf).max() < 2.0 / np.sqrt(len(own))


@pytest.mark.parametrize(
    ("name", "link", "zeros"),
    [(*case, False) for case in CASES]
    + [(*case, True) for case in CASES if FAMILIES[case[0]].zeros is not None],
)
def test_draws_are_of_it(name, link, zeros):
    family, params = family_of(name, link), PARAMETERS.get(name, {})
    eta = np.array([[0.3], [1.1], [1.6]])
    if zeros:
        family, params = ZeroInflated(family), {**params, "zero": np.array([[0.1], [0.3], [0.5]])}
    rng = np.random.default_rng(0)
    draws = family.sample(np.repeat(eta, 6_000, axis=1), params, rng)
    check_draws(family, eta, params, draws)


@pytest.mark.parametrize("name", [n for n in DISTRIBUTIONS if "cloglog" not in n])
def test_it_is_scipys(name):
    family, params, truth = DISTRIBUTIONS[name]
    whole = family.steps(params) is not None
    for q in (0.001, 0.2, 0.5, 0.9, 0.9999):
        y = truth.ppf(q)
        expected = truth.cdf(y)
        np.testing.assert_allclose(family.cdf(y, ETA, params), expected, rtol=1e-9)
        if whole:
            expected = truth.cdf(y - 1)
        found = family.cdf(y, ETA, params, below=True)
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-14)
    for y, expected in [(-np.inf, 0.0), (np.inf, 1.0)]:
        assert (family.cdf(y, ETA, params) == expected).all()


SUMS = [
    ("generalized_poisson", {"dispersion": 0.5}),
    ("generalized_poisson", {"dispersion": 8.0}),
    ("truncated_poisson", {}),
    ("truncated_negative_binomial", {"dispersion": 0.5}),
    ("negative_binomial", {"dispersion": 1e-7}),
]


@pytest.mark.parametrize("eta", [-12.0, 0.5, 3.0, 6.5])
@pytest.mark.parametrize(("name", "params"), SUMS)
def test_counts_are_sums_of_their_probabilities(name, params, eta):
    y = np.arange(20_000.0)
    p = np.exp(LOG_DENSITIES[name](y, np.exp(eta), **params))
    p[: FAMILIES[name].least] = 0.0
    cdf = FAMILIES[name]().cdf(y, eta, params)
    # Where integrals stand for sums, and the gamma functions of the reference lose digits.
    np.testing.assert_allclose(cdf, np.cumsum(p), atol=1e-6 if eta > 6 else 1e-7)


@pytest.mark.parametrize("mu", [1e-3, 1.0, 1e4, 1e8])
def test_counts_of_a_dispersion_without_bounds_have_a_logarithmic_distribution(mu):
    # Its limit, which a hurdle's counts of nearly all 1 are fitted by.
    params, y = {"dispersion": 1e13}, np.arange(1.0, 9.0)
    found = FAMILIES["truncated_negative_binomial"]().cdf(y, np.log(mu), params)
    share = -1 / np.log1p(1e13 * mu)
    expected = np.cumsum(-share * (1 + 1 / (1e13 * mu)) ** -y / y)
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    # Those with zeros are 0, but for as little.
    none = (1 + 1e13 * mu) ** -1e-13
    found = FAMILIES["negative_binomial"]().cdf(y, np.log(mu), params)
    np.testing.assert_allclose(found, none + (1 - none) * expected, rtol=1e-12)


@pytest.mark.parametrize("precision", [0.3, 4.0, 1e9])
@pytest.mark.parametrize("trials", [1, 7, 300])
def test_shares_of_trials_are_sums_of_their_probabilities(precision, trials):
    k, mu = np.arange(trials + 1), np.array([0.02, 0.5, 0.9])[:, None]
    truth = stats.betabinom(trials, mu * precision, (1 - mu) * precision)
    params = {"precision": precision, "trials": float(trials)}
    cdf = FAMILIES["beta_binomial"]().cdf(k / trials, np.log(mu / (1 - mu)), params)
    if precision > 1e8:
        truth = stats.binom(trials, mu)
    np.testing.assert_allclose(cdf, np.cumsum(truth.pmf(k), axis=1), atol=1e-6)
    cdf = FAMILIES["binomial"]().cdf(k / trials, np.log(mu / (1 - mu)), params)
    np.testing.assert_allclose(cdf, stats.binom(trials, mu).cdf(k), atol=1e-12)


@pytest.mark.parametrize("mu", [0.1, 3.0, 900.0])
@pytest.mark.parametrize(("dispersion", "power"), [(0.8, 1.4), (3.0, 1.8), (0.05, 1.1)])
def test_tweedies_is_the_integral_of_its_density(mu, dispersion, power):
    params, sd = {"dispersion": dispersion, "power": power}, np.sqrt(dispersion * mu**power)
    none = np.exp(-(mu ** (2 - power)) / (dispersion * (2 - power)))

    family, eta = FAMILIES["tweedie"](), np.full((1, 1), np.log(mu))

    def density(y):
        return np.exp(family.density(NUMPY, np.full((1, 1), y), eta, params, "log").value[0, 0])

    low, high = mu + sd / 2, mu + sd
    some, error = integrate.quad(density, low, high, epsabs=1e-10)
    ends = family.cdf(np.array([low, high]), np.log(mu), params)
    assert np.diff(ends)[0] == pytest.approx(some, abs=1e-6 + error)
    assert family.cdf(0.0, np.log(mu), params) == pytest.approx(none, rel=1e-9)
    assert family.cdf(0.0, np.log(mu), params, below=True) == 0.0


@pytest.mark.parametrize(("eta", "dispersion"), [(0.0, 1e-12), (0.0, 1e-16), (60.0, 1.0)])
def test_tweedies_of_very_many_jumps_is_normal(eta, dispersion):
    """A probability of so many is a small difference of large logarithms."""
    params, z = {"dispersion": dispersion, "power": 1.5}, np.array([-2.0, -0.5, 0.0, 0.5, 2.0])
    mu = np.exp(eta)
    found = FAMILIES["tweedie"]().cdf(mu + z * np.sqrt(dispersion * mu**1.5), eta, params)
    np.testing.assert_allclose(found, stats.norm.cdf(z), atol=1e-5)


@pytest.mark.parametrize("power", [1.1, 1.5])
def test_tweedies_of_more_jumps_than_floats_have_digits_ends(power):
    for eta in (80.0, 150.0, 300.0):
        params, mu = {"dispersion": 1.0, "power": power}, np.exp(eta)
        found = FAMILIES["tweedie"]().cdf(mu * np.array([0.5, 2.0]), eta, params)
        np.testing.assert_array_equal(found, [0.0, 1.0])


@pytest.mark.parametrize("link", FAMILIES["ordinal"].links)
def test_ordered_classes_are_sums_of_their_probabilities(link):
    eta, params = np.linspace(-3, 3, 7)[:, None], PARAMETERS["ordinal"]
    shift = {f"shift_{k}": 0.1 * k * eta for k in (1, 2, 3)}
    for family, own in [
        (FAMILIES["ordinal"](link), params),
        (PartialOrdinal(link), params | shift),
    ]:
        p = family.probabilities(eta, own)[:, 0]
        codes = np.arange(4.0)[None]
        np.testing.assert_allclose(family.cdf(codes, eta, own), np.cumsum(p, axis=1), atol=1e-12)
        below = family.cdf(codes, eta, own, below=True)
        np.testing.assert_allclose(below, np.cumsum(p, axis=1) - p, atol=1e-12)


def test_labels_have_none():
    with pytest.raises(ValueError, match="have no order"):
        FAMILIES["categorical"]().cdf(0, np.zeros((1, 2)), {})


def test_parameters_with_predictors_are_of_the_row():
    family = PredictedFamily(ZeroInflated(FAMILIES["poisson"]()), ("zero",))
    eta = np.array([[0.3, -1.0], [1.0, 0.5]])[:, :, None]
    y = np.arange(6.0)[None]
    zero = 1 / (1 + np.exp(-eta[:, 1]))
    expected = zero + (1 - zero) * stats.poisson.cdf(y, np.exp(eta[:, 0]))
    np.testing.assert_allclose(family.cdf(y, eta, {}), expected)


def counts(eta):
    import tensorflow_probability as tfp

    return tfp.distributions.Poisson(log_rate=eta)


def without(eta):
    import tensorflow_probability as tfp

    tail, skew, scale = np.float64([1.5, 0.2, 1.0])
    return tfp.distributions.NormalInverseGaussian(eta, skew, tail, scale)


def test_custom_families_have_tfps():
    eta, y = np.array([0.2, 1.0]), np.array([0.0, 2.0])
    family = CustomFamily(laplace, scale="positive")
    found = family.cdf(y, eta, {"scale": 0.5})
    np.testing.assert_allclose(found, stats.laplace.cdf(y, eta, 0.5))
    np.testing.assert_allclose(family.cdf(y, eta, {"scale": 0.5}, below=True), found)
    family = CustomFamily(counts)
    assert family.steps({}) == 1.0
    np.testing.assert_allclose(family.cdf(y, eta, {}), stats.poisson.cdf(y, np.exp(eta)))
    below = family.cdf(y, eta, {}, below=True)
    np.testing.assert_allclose(below, stats.poisson.cdf(y - 1, np.exp(eta)))
    with pytest.raises(ValueError, match="its distribution has no cdf"):
        CustomFamily(without).cdf(y, eta, {})


def pareto(eta, tail):
    import tensorflow as tf
    import tensorflow_probability as tfp

    return tfp.distributions.Pareto(tail, scale=tf.exp(eta))


def between(eta, width):
    import tensorflow_probability as tfp

    return tfp.distributions.Uniform(eta, eta + width)


@pytest.mark.parametrize(
    ("function", "params", "truth"),
    [
        (pareto, {"tail": 3.0}, stats.pareto(3.0, scale=np.exp(-2.0))),
        (between, {"width": 2.0}, stats.uniform(-2.0, 2.0)),
    ],
)
def test_where_y_may_be_hangs_on_eta(function, params, truth):
    family, y = CustomFamily(function, **dict.fromkeys(params, "positive")), truth.ppf([0.1, 0.8])
    np.testing.assert_allclose(family.cdf(y, np.full(2, -2.0), params), [0.1, 0.8])
    mixture = Mixture(family, Moments(np.full(1, -2.0), np.zeros(1), np.zeros(1, bool)), params)
    for q in (0.1, 0.8):
        assert _quantile(mixture, q)[0] == pytest.approx(truth.ppf(q), rel=1e-5)


def test_counts_beyond_all_digits_have_a_distribution():
    """The logarithm of a probability is then a difference of numbers of 1e20."""
    eta = np.linspace(0.0, 80.0, 321)
    for dispersion in (1e-3, 0.5, 8.0):
        params = {"dispersion": dispersion}
        found = FAMILIES["generalized_poisson"]().cdf(np.full(321, 1e6), eta, params)
        assert np.isfinite(found).all()
        assert (found[eta > 16] == 0).all()


def test_a_density_of_your_own_is_asked_for_its_cdf():
    class Own(Family):
        density = FAMILIES["gaussian"].density

    with pytest.raises(ValueError, match=r"add `cdf\(self, y, eta, params, below=False\)`"):
        Own().cdf(0.0, np.zeros(1), {"sigma": 1.0})


@pytest.mark.parametrize(("name", "link"), CASES)
def test_they_fall_about_the_eta_that_is_told(name, link):
    family, params = family_of(name, link), PARAMETERS.get(name, {})
    params = {key: value for key, value in params.items() if key != "trials"}
    size = {"binomial": 40.0, "beta_binomial": 40.0}.get(name)
    params |= {"trials": size} if size else {}
    eta = np.array([0.8, 1.3])
    mean = family.mean(eta, params)
    y = mean if family.steps(params) is None else np.round(mean * (size or 1.0)) / (size or 1.0)
    located = family.located(y, params)
    if family.classes is not None or name == "lognormal":
        assert located is None
        return
    at, sd = located
    # It is of what is near, and rough of small counts: most of the fall is within some SDs.
    assert (np.abs(at - eta) <= 2 * sd).all()
    up, down = (family.cdf(y, at + k * sd, params) for k in (-4, 4))
    assert (np.abs(up - down) > 0.4).all()
