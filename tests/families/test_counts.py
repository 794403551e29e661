"""Families of counts: moments and draws against sums of probabilities, limits, what y may be."""

import numpy as np
import pytest
from scipy import stats
from scipy.special import logit

from sklmm import families as fam
from sklmm.engine.likelihood.likelihood import Likelihood, evaluation
from tests.engine.likelihood.test_likelihood import at
from tests.engine.likelihood.test_tensors import generalized_poisson, nbinom1, positive
from tests.families.test_moments import check_draws

ETA = np.array([-3.0, 0.2, 2.5])
DISPERSION = 0.7


def nbinom2(y, eta):
    return stats.nbinom.logpmf(y, 1 / DISPERSION, 1 / (1 + DISPERSION * np.exp(eta)))


PMF = {
    "nbinom1": lambda y, e: nbinom1(y, e, DISPERSION),
    "generalized_poisson": lambda y, e: generalized_poisson(y, e, DISPERSION),
    "truncated_poisson": positive(lambda y, e: stats.poisson.logpmf(y, np.exp(e))),
    "truncated_negative_binomial": positive(nbinom2),
}


@pytest.mark.parametrize("name", PMF)
def test_moments_and_draws_are_those_of_the_probabilities(name):
    family = fam.resolve_family(name)
    params = {"dispersion": DISPERSION}
    y = np.arange(family.least, 3000.0)[:, None]
    p = np.exp(PMF[name](y, ETA))
    mean = (p * y).sum(axis=0)
    variance = (p * (y - mean) ** 2).sum(axis=0)
    np.testing.assert_allclose(p.sum(axis=0), 1)
    np.testing.assert_allclose(family.mean(ETA, params), mean, rtol=1e-9)
    np.testing.assert_allclose(family.variance(ETA, params), variance, rtol=1e-9)
    # Of parameters by row, too.
    by_row = {"dispersion": np.array([[DISPERSION], [0.1]])}
    found = family.variance(np.stack([ETA, ETA]), by_row)
    np.testing.assert_allclose(found[0], variance, rtol=1e-9)
    eta = np.broadcast_to(ETA, (40_000, 3))
    draws = family.sample(eta, params, np.random.default_rng(1))
    assert draws.min() == family.least
    check_draws(draws, mean, variance)
    for k in (family.least, 3):
        np.testing.assert_allclose(
            (draws == k).mean(axis=0),
            p[k - family.least],
            atol=4 * np.sqrt(p[k - family.least].max() / 40_000),
        )


@pytest.mark.parametrize("name", ["nbinom1", "generalized_poisson"])
def test_without_dispersion_they_are_poisson(name):
    y, a = np.array([0.0, 3, 990_000, 1_003_000]), 1e-11
    eta = np.log([1.0, 4.0, 1e6, 1e6])
    mu = np.exp(eta)
    value, score, W, slopes = at(fam.resolve_family(name), y, eta, a)
    poisson, plain, _, _ = at(fam.Poisson(), y, eta)
    change = a / 2 * ((y - mu) ** 2 - y) / mu
    np.testing.assert_allclose(value, poisson + change, rtol=1e-9)
    np.testing.assert_allclose(slopes[0], change, rtol=1e-4)
    np.testing.assert_allclose(score, plain, rtol=1e-5)
    np.testing.assert_allclose(W, mu, rtol=1e-9)


def test_a_truncated_negative_binomial_without_dispersion_is_truncated_poisson():
    y, eta = np.array([1.0, 3, 12]), np.array([-9.0, 0.3, 2.0])
    one = at(fam.TruncatedNegativeBinomial(), y, eta, 1e-11)
    other = at(fam.TruncatedPoisson(), y, eta)
    for mine, theirs in zip(one[:3], other[:3], strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-8)


def test_rare_truncated_counts_keep_their_digits():
    """At a mean near 0 a count is 1, or with half of the mean's probability 2."""
    eta, mu = np.full(2, -25.0), np.exp(-25.0)
    for family, share in ((fam.TruncatedPoisson(), 1.0), (fam.TruncatedNegativeBinomial(), 1.5)):
        natural = [0.5] if family.scalars else []
        value, score, W, _ = at(family, [1, 2], eta, *natural, observed=True)
        np.testing.assert_allclose(value[1], np.log(share * mu / 2), rtol=1e-9)
        np.testing.assert_allclose(score[1], 1, rtol=1e-9)
        np.testing.assert_allclose(W[0], share * mu / 2, rtol=1e-9)
        assert family.variance(-25.0, {"dispersion": 0.5}) == pytest.approx(share * mu / 2, 1e-4)


@pytest.mark.parametrize("name", ["truncated_poisson", "truncated_negative_binomial"])
def test_a_truncated_count_of_0_is_refused(name):
    family = fam.resolve_family(name)
    with pytest.raises(ValueError, match=r"positive whole number, not 0.0 \(row 1\).*zero_infl"):
        family.bind([1, 0, 2])
    assert family.bind([1, 3]).y.tolist() == [1, 3]


def test_draws_of_a_generalized_poisson_are_finite_at_the_ends():
    family, rng = fam.GeneralizedPoisson(), np.random.default_rng(0)
    for dispersion in (1e-15, 50.0):
        draws = family.sample(np.array([-50.0, 0.0, 8.0]), {"dispersion": dispersion}, rng)
        assert np.isfinite(draws).all()


@pytest.mark.parametrize("link", ["sqrt", "identity"])
@pytest.mark.parametrize("name", [*PMF, "tweedie"])
def test_other_links_are_other_means(name, link):
    family, power = fam.resolve_family(name).set_params(link=link), [1.5]
    own = {"truncated_poisson": [], "tweedie": [DISPERSION, *power]}.get(name, [DISPERSION])
    y, mu, h = np.array([1.0, 2, 7]), np.array([0.4, 2.0, 5.0]), 1e-5
    root = np.sqrt(mu) if link == "sqrt" else mu

    def value(eta, link):
        like = Likelihood.of(family.set_params(link=link))
        raw = [logit(v - 1) if v in power else np.log(v) for v in own]
        return evaluation(like).by_row(y, eta[:, None], np.reshape(raw, (-1, 1)), own=True)

    found, score, bend = value(root, link)
    np.testing.assert_allclose(found, value(np.log(mu), "log")[0], rtol=1e-10)
    up, down = value(root + h, link), value(root - h, link)
    np.testing.assert_allclose(score, (up[0] - down[0]) / (2 * h), rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(bend, (down[1] - up[1]) / (2 * h), rtol=1e-5)


#: mgcv 1.8's ldTweedie(y, mu, p, phi), by y 0, .01, 1, 7, 300 and .5.
MGCV = {
    (1.1, 0.2): "-6.54622029707942 -15.0712136683105 -0.591650302430338 -22.8106723545694 "
    "-396.283918125982 0.190870757573947",
    (1.5, 1.3): "-1.68530017693897 -0.432180502539093 -1.26569515237608 -3.70632335010409 "
    "-13.5796516407244 -0.780495525618342",
    (1.9, 0.2): "-50.9199688073512 -9.03869226823183 -0.502170672992804 -4.57534734271402 "
    "-12.9280288761076 0.451523533084114",
}


@pytest.mark.parametrize(("power", "dispersion"), MGCV)
def test_the_tweedie_density_is_mgcvs(power, dispersion):
    like = Likelihood.of(fam.Tweedie(dispersion=dispersion, power=power))
    y = np.array([0, 0.01, 1, 7, 300, 0.5])
    eta, raw = np.log([[1.2], [0.7], [1.5], [20], [100], [0.6]]), np.zeros((0, 1))
    theirs = np.array(MGCV[power, dispersion].split(), float)
    for found in (evaluation(like).by_row(y, eta, raw)[0], evaluation(like).both(y, eta, raw)[0]):
        np.testing.assert_allclose(found[:, 0], theirs, rtol=1e-11)


def test_tweedie_sums_of_many_jumps_are_nearly_normal():
    """y is dispersion times a sum of 10^4 jumps and more: of these the steps are longer than 1."""
    mu, dispersion, power = 1e3, 2e-3, 1.4
    eta = np.full(4000, np.log(mu))
    sd = np.sqrt(dispersion * mu**power)
    y, step = np.linspace(mu - 12 * sd, mu + 12 * sd, 4000, retstep=True)
    like = Likelihood.of(fam.Tweedie(dispersion=dispersion, power=power))
    p = step * np.exp(evaluation(like).by_row(y, eta[:, None], np.zeros((0, 1)))[0][:, 0])
    assert p.sum() == pytest.approx(1, rel=1e-10)
    assert p @ y == pytest.approx(mu, rel=1e-10)
    assert p @ (y - mu) ** 2 == pytest.approx(sd**2, rel=1e-8)


def test_tweedie_draws_have_its_moments_and_zeros():
    family, params = fam.Tweedie(), {"dispersion": 0.9, "power": 1.6}
    eta = np.broadcast_to(np.array([-1.0, 1.5]), (40_000, 2))
    draws = family.sample(eta, params, np.random.default_rng(0))
    mu = np.exp(eta[0])
    check_draws(draws, mu, 0.9 * mu**1.6)
    np.testing.assert_allclose(family.variance(eta[0], params), 0.9 * mu**1.6)
    none = np.exp(-(mu**0.4) / (0.9 * 0.4))
    np.testing.assert_allclose((draws == 0).mean(axis=0), none, atol=0.01)
    with pytest.raises(ValueError, match=r"y must be 0 or positive, not -1.0 \(row 1\)"):
        family.bind([0.0, -1.0])
