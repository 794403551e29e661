"""Families of counts: moments and draws against sums of probabilities, limits, what y may be."""

import numpy as np
import pytest
from scipy import stats

from sklmm import families as fam
from sklmm.engine.likelihood.likelihood import Likelihood, evaluation
from tests.engine.likelihood.test_likelihood import at
from tests.engine.likelihood.test_tensors import COUNTS, generalized_poisson, nbinom1, positive
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


@pytest.mark.parametrize("name", ["nbinom1", "generalized_poisson", "truncated_negative_binomial"])
def test_second_derivatives_are_the_slopes(name):
    like, h = Likelihood.of(fam.resolve_family(name)), 1e-5
    y, eta = (a.ravel() for a in np.meshgrid(COUNTS[1:].astype(float), [-3.0, 0.1, 2.0]))
    eta, raw = eta[:, None], np.log([[DISPERSION]])
    densities = evaluation(like)
    curvature, mixed, pairs = densities.second(y, eta, raw)

    def fall(change, of):
        ends = [densities.parts(y, eta + s * change, raw)[of] for s in (h, -h)]
        return (ends[1] - ends[0]) / (2 * h)

    def slope(raw):
        return densities.parts(y, eta, raw)[2][0]

    np.testing.assert_allclose(curvature, fall(1, 1), rtol=1e-5, atol=1e-7)
    ends = [densities.parts(y, eta, raw + s)[1] for s in (h, -h)]
    np.testing.assert_allclose(mixed[0], (ends[1] - ends[0]) / (2 * h), rtol=1e-5, atol=1e-7)
    inner = (slope(raw - h) - slope(raw + h)) / (2 * h)
    np.testing.assert_allclose(pairs[0, 0], inner, rtol=1e-5, atol=1e-7)
    value = [densities.parts(y, eta, raw + s)[0] for s in (h, -h)]
    np.testing.assert_allclose(slope(raw), (value[0] - value[1]) / (2 * h), rtol=1e-5, atol=1e-7)


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
