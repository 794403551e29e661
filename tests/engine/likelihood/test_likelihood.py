"""Densities by hand: as TensorFlow's in the middle, as exact sums and limits at the ends."""

import numpy as np
import pytest

from sklmm import families as fam
from sklmm.engine.likelihood.likelihood import Likelihood, evaluation
from sklmm.engine.likelihood.traced import traced_evaluation
from sklmm.engine.runtime.tensorflow import tf
from tests.engine.likelihood.test_tensors import CASES, IN_NUMPY, LOGIT_LIKE, case

BUILT_IN = [name for name in CASES if type(CASES[name][0]) is not fam.CustomFamily]


def at(family, y, eta, *natural, observed=False):
    """Value, score and weights of single rows, and the slopes in the parameters' logarithms."""
    like = Likelihood.of(family)
    y, eta = np.atleast_1d(np.asarray(y, float)), np.atleast_1d(np.asarray(eta, float))
    eta = np.broadcast_to(eta, y.shape)[:, None]
    raw = np.log(np.reshape(natural, (-1, 1)))
    found = evaluation(like)
    rows = [part[:, 0] for part in found.by_row(y, eta, raw)]
    if observed:
        rows[2] = found.observed(y, eta, raw)[0][:, 0]
    slopes = [found.slopes(y, one, eta, raw)[2][:, 0] for one in np.eye(len(y))]
    return *rows, np.transpose(slopes)


@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize("name", BUILT_IN)
def test_as_tensorflows(name):
    like, y, eta, raw, density = case(name)
    value = evaluation(like).by_row(y, eta, raw)[0]
    np.testing.assert_allclose(value[:, 0], density(y, eta[:, 0]), rtol=1e-9, atol=1e-10)
    # Two columns, each with parameters of its own.
    eta, raw = (np.concatenate([part, 0.8 * part], axis=1) for part in (eta, raw))
    w = np.random.default_rng(0).uniform(0.5, 2, len(y))
    ours, theirs = evaluation(like), traced_evaluation(like)
    at = y, eta, raw
    for k, given in ((0, at), (1, at), (3, (y, w, eta, raw)), (4, at)):
        tensors = map(tf.constant, given)
        for j, (mine, other) in enumerate(zip(ours[k](*given), theirs[k](*tensors), strict=True)):
            # Of the curvature beside log f a built-in family has the first column.
            other = other[:, :1] if (k, j) == (0, 2) else other
            np.testing.assert_allclose(mine, other, rtol=1e-9, atol=1e-10)
            assert mine.shape == other.shape
    tensors = map(tf.constant, at)
    np.testing.assert_allclose(ours[5](*at), theirs[5](*tensors), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", BUILT_IN)
def test_observed_curvature_is_the_scores_fall(name):
    like, y, eta, raw, _ = case(name)
    h, found = 1e-5, evaluation(like)
    up, down = (found.by_row(y, eta + d, raw)[1] for d in (h, -h))
    fall = (down - up) / (2 * h)
    np.testing.assert_allclose(found.observed(y, eta, raw)[0], fall, rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("eagerly")
def test_categorical():
    like = Likelihood.of(fam.Categorical(), 4)
    rng = np.random.default_rng(0)
    y, eta, raw = rng.integers(0, 4, 5).astype(float), rng.normal(0, 2, (15, 2)), np.zeros((0, 2))
    for mine, other in zip(
        evaluation(like).by_row(y, eta, raw),
        traced_evaluation(like)[0](*map(tf.constant, (y, eta, raw))),
        strict=True,
    ):
        np.testing.assert_allclose(mine, other[:, : mine.shape[1]], rtol=1e-12)


@pytest.mark.parametrize("name", [*LOGIT_LIKE, *IN_NUMPY])
def test_finite_at_extreme_predictors(name):
    like, y, _, raw, _ = case(name)
    eta = np.array([-800, -80, -15, -1e-3, 0, 1e-3, 9, 15, 80, 800])
    y, eta = (a.ravel() for a in np.meshgrid(np.unique(y), eta))
    for part in (
        *evaluation(like).by_row(y, eta[:, None], raw),
        *evaluation(like).slopes(y, np.ones(len(y)), eta[:, None], raw),
        *evaluation(like).observed(y, eta[:, None], raw),
    ):
        assert np.isfinite(part).all()


@pytest.mark.parametrize("name", BUILT_IN)
def test_float32_agrees_with_float64(name):
    like, y, eta, raw, _ = case(name)
    found, ones = evaluation(like), np.ones(len(y))
    single = [part.astype(np.float32) for part in (y, ones, eta, raw)]
    pairs = [*zip(found.by_row(*single[:1], *single[2:]), found.by_row(y, eta, raw), strict=True)]
    pairs += zip(found.slopes(*single), found.slopes(y, ones, eta, raw), strict=True)
    for rough, exact in pairs:
        np.testing.assert_allclose(rough, exact, rtol=5e-4, atol=5e-5)


def log_gamma(n):
    """log Gamma of whole numbers up to n, in extended precision."""
    return np.concatenate([[0, 0], np.cumsum(np.log(np.arange(1, n, dtype=np.longdouble)))])


def test_large_shapes_and_precisions_keep_their_digits():
    k, mu = 250_000, np.exp(np.longdouble(1.5))
    y = np.array([4.47, 4.481, 4.5])
    value, score, W, slopes = at(fam.Gamma(), y, 1.5, k)
    ratio = np.log(np.longdouble(y) / mu)
    exact = k * np.log(np.longdouble(k)) - log_gamma(k)[k] + k * (ratio - y / mu) - np.log(y)
    np.testing.assert_allclose(value, exact.astype(float), rtol=1e-10)
    np.testing.assert_allclose(score, (k * (y / mu - 1)).astype(float), rtol=1e-10)
    np.testing.assert_allclose(W, k)
    # psi(k) = log k - 1 / (2 k) - 1 / (12 k^2).
    np.testing.assert_allclose(
        slopes[0], (0.5 + 1 / (12 * k) + k * (1 + ratio - y / mu)).astype(float), rtol=1e-10
    )
    a, b = 1_200_000, 1_800_000
    y, total = np.array([0.3995, 0.4, 0.401]), log_gamma(a + b)
    value, score, _, _ = at(fam.Beta(), y, np.log(a / b), a + b)
    long = np.longdouble(y)
    exact = total[a + b] - total[a] - total[b] + (a - 1) * np.log(long) + (b - 1) * np.log1p(-long)
    np.testing.assert_allclose(value, exact.astype(float), rtol=1e-8)
    logit = np.log(long / (1 - long)) - (np.log(a / np.longdouble(b)) - 0.5 / a + 0.5 / b)
    exact = (a * np.longdouble(b) / (a + b) * logit).astype(float)
    np.testing.assert_allclose(score, exact, rtol=1e-8, atol=1e-7)


def test_a_beta_response_near_1_is_the_mirror_image_of_one_near_0():
    small, eta = 2.0**-30, np.array([-12.0, 0.0, 9.0])
    left = at(fam.Beta(), np.full(3, small), eta, 3.0, observed=True)
    right = at(fam.Beta(), np.full(3, 1 - small), -eta, 3.0, observed=True)
    for sign, one, other in zip((1, -1, 1, 1), left, right, strict=True):
        np.testing.assert_allclose(one, sign * other, rtol=1e-11)


def test_a_negative_binomial_without_dispersion_is_poisson():
    y, a = np.array([0.0, 3, 990_000, 1_003_000]), 1e-11
    eta = np.log([1.0, 4.0, 1e6, 1e6])
    value, score, W, slopes = at(fam.NegativeBinomial(), y, eta, a)
    poisson, plain, mu, _ = at(fam.Poisson(), y, eta)
    change = a / 2 * ((y - mu) ** 2 - y)
    np.testing.assert_allclose(value, poisson + change, rtol=1e-9)
    np.testing.assert_allclose(slopes[0], change, rtol=1e-4)
    np.testing.assert_allclose(score, plain * (1 - a * mu), rtol=1e-9)
    np.testing.assert_allclose(W, mu, rtol=2e-5)


def test_t_with_many_degrees_of_freedom_is_normal():
    y, df = np.array([-2.0, 0.1, 5.0]), 1e8
    value, score, W, slopes = at(fam.StudentT(), y, 0.3, 1.3, df)
    normal, plain, precision, by_sigma = at(fam.Gaussian(), y, 0.3, 1.3)
    z = (y - 0.3) / 1.3
    for mine, other in ((value, normal), (score, plain), (W, precision), (slopes[0], by_sigma[0])):
        np.testing.assert_allclose(mine, other, rtol=1e-6)
    # To first order in 1 / df.
    np.testing.assert_allclose(slopes[1], -(z**4 - 2 * z**2 - 1) / (4 * df), rtol=1e-6)


def test_tails_of_probit_and_cloglog():
    """Far in its tail the normal's log is a parabola; a rare event's rate is exp eta."""
    eta = np.array([-1e5, -200.0, -60.0])
    value, score, W, _ = at(fam.Bernoulli("probit"), [1, 1, 1], eta, observed=True)
    tail = 1 - eta**-2.0 + 3 * eta**-4.0 - 15 * eta**-6.0
    normal = -0.5 * (eta**2 + np.log(2 * np.pi)) - np.log(-eta)
    np.testing.assert_allclose(value, normal + np.log(tail), rtol=1e-12)
    np.testing.assert_allclose(score, -eta / tail, rtol=1e-9)
    np.testing.assert_allclose(W, 1 - eta**-2.0 + 6 * eta**-4.0, rtol=1e-7)
    eta = np.array([-200.0, -40.0])
    value, score, W, _ = at(fam.Bernoulli("cloglog"), [1, 1], eta, observed=True)
    np.testing.assert_allclose(value, eta, rtol=1e-12)
    np.testing.assert_allclose(score, 1, rtol=1e-12)
    np.testing.assert_allclose(W, np.exp(eta) / 2, rtol=1e-12)


@pytest.mark.parametrize(
    "family", [fam.Bernoulli("logit"), fam.Bernoulli("probit"), fam.Poisson()], ids=repr
)
def test_curvatures_slopes_in_closed_form(family):
    found, y = evaluation(Likelihood.of(family)), np.repeat([0.0, 1.0], 60)
    eta, raw, h = np.tile(np.linspace(-9, 9, 60), 2)[:, None], np.zeros(0), 1e-4
    (ends,) = found.observed(y, np.concatenate([eta + h, eta - h], axis=1), np.zeros((0, 2)))
    slope, in_raw = found.bent(y, np.full(120, 2.0), eta, raw, True)
    np.testing.assert_allclose(slope, (ends[:, 0] - ends[:, 1]) / h, rtol=1e-6, atol=1e-7)
    assert not len(in_raw)


def test_probits_curvature_far_out():
    """Phi's tail to the last digits: 1 - 1 / x^2 + 6 / x^4, whose derivative is 2 / |x|^3."""
    found, eta = evaluation(Likelihood.of(fam.Bernoulli("probit"))), np.array([[-150.0], [-1e5]])
    slope, _ = found.bent(np.ones(2), np.ones(2), eta, np.zeros(0), True)
    np.testing.assert_allclose(slope, 2 / eta[:, 0] ** 3, rtol=1e-3)


@pytest.mark.parametrize("link", fam.Ordinal.links)
def test_an_ordinal_density_knows_its_second_derivatives(link):
    rng, h = np.random.default_rng(0), 1e-5
    densities = evaluation(Likelihood.of(fam.Ordinal(link), 5))
    y, eta = rng.integers(0, 5, 200).astype(float), 1.5 * rng.normal(size=(200, 3))
    raw = rng.normal(size=(3, 3))

    def rates(change, of):
        move = np.zeros(4)
        move[change] = h
        ends = (
            densities.slopes(y, np.ones(200), eta + s * move[3], raw + s * move[:3, None])[of]
            for s in (1, -1)
        )
        up, down = ends
        return (down - up) / (2 * h)

    curvature, mixed, pairs = densities.second(y, eta, raw)
    np.testing.assert_allclose(curvature, rates(3, 1), rtol=1e-6, atol=1e-7)
    assert set(pairs) == {(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)}
    for i in range(3):
        np.testing.assert_allclose(mixed[i], rates(i, 1), rtol=1e-6, atol=1e-7)
        for j in range(i, 3):
            np.testing.assert_allclose(pairs[i, j].sum(axis=0), rates(i, 2)[j], rtol=1e-6)


SECOND = [
    name
    for name in BUILT_IN
    if getattr(CASES[name][0].density, "second", None) and len(CASES[name][3])
]


@pytest.mark.parametrize("name", SECOND)
def test_a_density_knows_its_second_derivatives(name):
    like, y, eta, raw, _ = case(name)
    found, h = evaluation(like), 1e-5
    ones, q = np.ones(len(y)), len(raw)
    curvature, mixed, pairs = found.second(y, eta, raw)
    np.testing.assert_allclose(curvature, found.observed(y, eta, raw)[0], rtol=1e-9, atol=1e-12)
    assert set(pairs) == {(i, j) for i in range(q) for j in range(i, q)}
    for i in range(q):
        step = h * np.eye(q)[:, [i]]
        up, down = (found.slopes(y, ones, eta, raw + s * step) for s in (1, -1))
        np.testing.assert_allclose(mixed[i], (down[1] - up[1]) / (2 * h), rtol=1e-5, atol=1e-6)
        up, down = (found.parts(y, eta, raw + s * step)[2] for s in (1, -1))
        for j in range(i, q):
            slope = (down[j] - up[j]) / (2 * h)
            np.testing.assert_allclose(pairs[i, j] + 0 * slope, slope, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("link", fam.Ordinal.links)
def test_an_ordinal_density_is_exact_enough_in_single_precision(link):
    rng = np.random.default_rng(1)
    densities = evaluation(Likelihood.of(fam.Ordinal(link), 4))
    y, eta = rng.integers(0, 4, 2000).astype(float), 2 * rng.normal(size=(2000, 2))
    raw, w = np.array([[-3.0, -3.0], [0.5, 0.5]]), np.ones(2000)
    single = [part.astype(np.float32) for part in (y, w, eta, raw)]
    both = densities.slopes(*single), densities.slopes(y, w, eta, raw)
    for rough, exact in zip(*both, strict=True):
        np.testing.assert_allclose(rough, exact, rtol=2e-3, atol=2e-4)
    del single[1]
    rough, exact = densities.second(*single), densities.second(y, eta, raw)
    np.testing.assert_allclose(rough[0], exact[0], rtol=2e-3, atol=2e-4)
    for pair, part in exact[2].items():
        np.testing.assert_allclose(rough[2][pair].sum(), part.sum(), rtol=1e-3)
