"""Quantiles of a new observation: closed forms, SciPy's integrals, draws, and what is refused."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.special import expit

from sklmm import CustomFamily, MixedEffectsRegressor
from sklmm._fitted.latent import Moments
from sklmm._fitted.mixtures import Mixture
from sklmm._fitted.quantiles import _quantile
from sklmm.datasets import load_sleepstudy
from sklmm.families.predicted import PredictedFamily
from sklmm.families.registry import FAMILIES
from sklmm.families.zero_inflated import ZeroInflated
from tests.coverage_of_intervals import study
from tests.families.test_distribution_functions import PARAMETERS
from tests.families.test_distribution_functions import counts as counts_by_tfp
from tests.families.test_moments import laplace

Q = (0.025, 0.5, 0.975)


@pytest.fixture(scope="module")
def sleep():
    X, y = load_sleepstudy(return_X_y=True, as_frame=True)
    return X, y, MixedEffectsRegressor(["(1 + Days | Subject)"]).fit(X, y)


def test_gaussian_intervals_are_the_mean_and_its_standard_deviation(sleep):
    X, y, model = sleep
    for rows, include in [(X, True), (X.assign(Subject=999), True), (X, False)]:
        mean, std = model.predict(rows, return_std=True, include_random=include)
        found = model.predict_interval(rows, 0.9, include)
        half = stats.norm.ppf(0.95) * std
        np.testing.assert_allclose(found, np.column_stack([mean - half, mean + half]))
    logs = MixedEffectsRegressor(["(1 + Days | Subject)"], family="lognormal").fit(X, np.exp(y / 9))
    plain = MixedEffectsRegressor(["(1 + Days | Subject)"]).fit(X, y / 9)
    found, own = (m.predict_quantiles(X, [0.9, 0.1]) for m in (logs, plain))
    np.testing.assert_allclose(np.log(found), own)
    assert (own[:, 0] > own[:, 1]).all()


def mean_of(function, mean, sd):
    """The average over a normal distribution."""
    points = np.linspace(-9, 9, 4001)
    weights = stats.norm.pdf(points)
    return function(mean + sd * points) @ weights / weights.sum()


@pytest.mark.parametrize("sd", [0.5, 1.5, 4.0])
def test_effects_in_other_parts_are_integrated_whatever_their_sd(sd):
    moments = Moments(np.array([[0.5, -0.8]]), np.array([np.diag([0.5, sd**2])]), np.ones(1, bool))
    family = PredictedFamily(ZeroInflated(FAMILIES["poisson"]()), ("zero",))
    zero = mean_of(expit, -0.8, sd)
    for y in (0.0, 1.0, 5.0):
        counts = mean_of(lambda eta, y=y: stats.poisson.cdf(y, np.exp(eta)), 0.5, np.sqrt(0.5))
        found = Mixture(family, moments, {}).settled_cdf(np.array([y]))
        assert found[0] == pytest.approx(zero + (1 - zero) * counts, abs=1e-5)
    family = PredictedFamily(FAMILIES["gaussian"](), ("sigma",))
    for y in (0.6, 2.0, -7.0):
        expected = mean_of(
            lambda eta, y=y: stats.norm.cdf((y - 0.5) / np.sqrt(0.5 + np.exp(2 * eta))), -0.8, sd
        )
        found = Mixture(family, moments, {}).settled_cdf(np.array([y]))
        assert found[0] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("sd", [0.0, 2.0])
@pytest.mark.parametrize("name", [n for n in FAMILIES if n not in ("categorical", "tweedie")])
def test_they_are_those_of_the_integral(name, sd):
    family, params = FAMILIES[name](), dict(PARAMETERS.get(name, {}))
    if "trials" in params or name == "binomial":
        params["trials"] = 12.0
    # Shares nearer to 1 than numbers are have no quantiles, nor has the sum below small steps.
    narrow = name in ("beta", "ordered_beta", "lognormal_mean")
    sd, mean = min(sd, 1.0) if narrow else sd, np.array([0.4, 1.2])
    mixture = Mixture(family, Moments(mean, np.full(2, sd**2), np.zeros(2, bool)), params)

    def cdf(y, m, below=False):
        if sd == 0:
            return float(family.cdf(y, m, params, below))
        points = np.linspace(-9, 9, 4001)
        return float(
            np.average(
                family.cdf(y, m + sd * points, params, below), weights=stats.norm.pdf(points)
            )
        )

    for q in Q:
        for y, m in zip(_quantile(mixture, q), mean, strict=True):
            up, below = cdf(y, m), cdf(y, m, True)
            assert up >= q - 1.5e-4
            assert below <= q + 1.5e-4


def test_steps_in_eta_are_seen():
    """Counts of a large mean and an SD of 1: few points of eta would be as many steps of F."""
    mixture = Mixture(
        FAMILIES["poisson"](), Moments(np.full(1, 9.0), np.ones(1), np.zeros(1, bool)), {}
    )
    for q in Q:
        # The counts' own variance is of no account.
        assert _quantile(mixture, q)[0] == pytest.approx(np.exp(9 + stats.norm.ppf(q)), rel=2e-3)


def test_a_search_among_the_largest_numbers_says_nothing():
    moments = Moments(np.full(1, 12.0), np.full(1, 64.0), np.ones(1, bool))
    mixture = Mixture(FAMILIES["poisson"](), moments, {})
    found = np.log(_quantile(mixture, 0.99)[0])
    assert stats.norm.cdf((found - 12) / 8) == pytest.approx(0.99, abs=1e-4)
    # Beyond 1e15 whole numbers have no neighbours.
    assert _quantile(mixture, 0.999)[0] == np.inf


@pytest.mark.parametrize(
    ("name", "params"), [("beta", {"precision": 0.01}), ("gamma", {"shape": 1e-3})]
)
def test_quantiles_next_to_the_lowest_number_are_not_searched(name, params, monkeypatch):
    family, asked = FAMILIES[name](), []
    own = type(family)._cdf
    monkeypatch.setattr(type(family), "_cdf", lambda *args: asked.append(out := own(*args)) or out)
    mixture = Mixture(family, Moments(np.zeros(1), np.ones(1), np.ones(1, bool)), params)
    assert _quantile(mixture, 0.025)[0] < 2e-300
    assert sum(out.size for out in asked) <= 400


@pytest.mark.parametrize("n_points", [7, 12, 24, 36])
def test_probabilities_are_no_more_than_one(n_points):
    """Weights of points add up to 1 but for rounding, and beyond 1 there is no normal quantile."""
    mixture = Mixture(
        FAMILIES["ordinal"](), Moments(np.linspace(-1, 2, 50), np.full(50, 4.0), np.ones(50, bool)),
        PARAMETERS["ordinal"],
    )  # fmt: skip
    assert mixture.cdf(np.full(50, 3.0), n_points=n_points).max() <= 1.0


@pytest.mark.parametrize(
    ("name", "mean", "sd", "n_points", "most"),
    [
        ("poisson", 0.5, 0.8, 12, 1e-4),
        ("poisson", 8.0, 0.2, 24, 1e-5),
        ("poisson", 8.0, 0.8, 36, 1e-5),
        ("poisson", 14.0, 1.0, 48, 1e-4),
        ("gamma", 8.0, 0.8, 12, 1e-4),
        ("gamma", 8.0, 0.2, 9, 1e-5),
        ("tweedie", 1.0, 0.8, 12, 1e-4),
        ("negative_binomial", 8.0, 0.8, 12, 1e-4),
        ("student_t", 8.0, 3.0, 18, 1e-4),
    ],
)
def test_few_points_tell_a_distribution_however_steep(name, mean, sd, n_points, most):
    """Equally far from one another they would be hundreds: points are where F falls in eta."""
    family, params = FAMILIES[name](), PARAMETERS.get(name, {})
    x = np.linspace(-8, 8, 100_001)
    weights = stats.norm.pdf(x) / stats.norm.pdf(x).sum()
    spread = np.exp(mean + sd * stats.norm.ppf(Q))
    y = np.round(spread) if name != "student_t" else mean + sd * stats.norm.ppf(Q)
    moments = Moments(np.full(3, mean), np.full(3, sd**2), np.ones(3, bool))
    found = Mixture(family, moments, params).cdf(y, n_points=n_points)
    expected = [family.cdf(own, mean + sd * x, params) @ weights for own in y]
    np.testing.assert_allclose(found, expected, atol=most)


@pytest.mark.parametrize(
    ("name", "mean", "sd", "most"),
    [
        ("poisson", 1.0, 0.2, 150),
        ("poisson", 8.0, 0.2, 500),
        ("poisson", 8.0, 0.8, 700),
        ("negative_binomial", 8.0, 0.8, 350),
        ("gamma", 1.0, 0.8, 250),
        ("tweedie", 1.0, 0.8, 200),
        ("student_t", 1.0, 0.8, 200),
    ],
)
def test_a_row_asks_few_numbers_of_its_family(name, mean, sd, most, monkeypatch):
    """The cost of an interval is that of the family's distribution function at points of eta."""
    rng, family, asked = np.random.default_rng(0), FAMILIES[name](), []
    own = type(family)._cdf

    def counted(*args):
        asked.append(out := own(*args))
        return out

    monkeypatch.setattr(type(family), "_cdf", counted)
    moments = Moments(mean + rng.normal(size=500), np.full(500, sd**2), np.ones(500, bool))
    for q in (0.025, 0.975):
        _quantile(Mixture(family, moments, PARAMETERS.get(name, {})), q)
    # An end is no sooner known than by two numbers.
    assert 2 <= sum(out.size for out in asked) / 1000 <= most / 2


@pytest.mark.parametrize("correlation", [0.0, 0.7])
def test_zeros_are_averaged_given_the_counts_predictor(correlation):
    sds = np.array([0.6, 1.2])
    covariance = np.outer(sds, sds) * np.array([[1, correlation], [correlation, 1]])
    moments = Moments(np.array([[1.5, -0.8]]), covariance[None], np.ones(1, bool))
    family = PredictedFamily(ZeroInflated(FAMILIES["negative_binomial"]()), ("zero",))
    x = np.linspace(-7, 7, 401)
    weights = stats.norm.pdf(x) / stats.norm.pdf(x).sum()
    z = np.stack(np.meshgrid(x, x, indexing="ij")).reshape(2, -1)
    count, zero = moments.mean[0][:, None] + np.linalg.cholesky(covariance) @ z
    for y in (0.0, 3.0, 12.0):
        size, mu = 2.0, np.exp(count)
        own = stats.nbinom.cdf(y, size, size / (size + mu))
        expected = (expit(zero) + expit(-zero) * own) @ np.outer(weights, weights).ravel()
        found = Mixture(family, moments, {"dispersion": np.full((1, 1), 0.5)})
        assert found.settled_cdf(np.array([y]))[0] == pytest.approx(expected, abs=3e-5)


@pytest.fixture(scope="module")
def counts():
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"g": np.repeat(np.arange(40), 15), "x": rng.normal(size=600)})
    eta = 1 + 0.5 * X["x"] + 0.8 * rng.normal(size=40)[X["g"]]
    return X, np.exp(eta), eta, rng


@pytest.mark.parametrize(
    "family",
    [
        "poisson",
        "gamma",
        pytest.param("tweedie", marks=pytest.mark.slow),
        "ordinal",
        "ordered_beta",
    ],
)
def test_unseen_levels_are_those_of_draws(counts, family):
    X, mu, eta, _ = counts
    rng = np.random.default_rng(1)
    y = {
        "poisson": lambda: rng.poisson(mu),
        "gamma": lambda: rng.gamma(2.0, mu / 2),
        "tweedie": lambda: rng.gamma(np.maximum(rng.poisson(mu), 1e-12)) * 1.3,
        "ordinal": lambda: 2.5 * np.searchsorted([0.0, 1.0, 2.0], eta + rng.logistic(size=600)),
        "ordered_beta": lambda: np.clip(expit(eta - 1 + rng.normal(size=600)) * 1.2 - 0.1, 0, 1),
    }[family]()
    y = np.where(y < 1e-6, 0.0, y)
    model = MixedEffectsRegressor(["g"], family=family, e_step="laplace").fit(X, y)
    new = pd.DataFrame({"g": -1 - np.arange(2), "x": [0.0, 1.0]})
    found = model.predict_quantiles(new, Q)
    draws = model.sample_y(new, n_samples=20_000, random_state=0)
    for j, q in enumerate(Q):
        assert (np.mean(draws <= found[:, [j]] + 1e-9, axis=1) >= q - 0.011).all()
        assert (np.mean(draws < found[:, [j]] - 1e-9, axis=1) <= q + 0.011).all()
    # Known levels have less to vary by.
    known = np.diff(model.predict_interval(X))[:, 0].mean()
    assert known < np.diff(model.predict_interval(X, include_random=False))[:, 0].mean()


def test_zeros_with_effects_of_their_own_are_those_of_draws(counts):
    X, mu, _, _ = counts
    rng = np.random.default_rng(2)
    away = expit(-0.5 + rng.normal(size=40))[X["g"]]
    y = np.where(rng.random(600) < away, 0, 1 + rng.poisson(mu))
    model = MixedEffectsRegressor(
        ["g"], family="truncated_poisson", zero_inflation="~ (1 | g)", e_step="laplace"
    ).fit(X, y)
    new = pd.DataFrame({"g": [-1, 3], "x": [0.0, 1.0]})
    q = (0.3, 0.5, 0.9)
    found = model.predict_quantiles(new, q)[0]
    draws = model.sample_y(new, n_samples=20_000, random_state=0)[0]
    for y, p in zip(found, q, strict=True):
        assert np.mean(draws <= y) >= p - 0.013
        assert np.mean(draws < y) <= p + 0.013


def test_trials_and_precisions_are_told_by_weights(counts):
    X, _, eta, rng = counts
    trials = np.full(600, 20)
    y = rng.binomial(trials, expit(eta)) / trials
    model = MixedEffectsRegressor(["g"], family="binomial", e_step="laplace").fit(X, y, trials)
    found = model.predict_interval(X[:5], sample_weight=trials[:5]) * 20
    np.testing.assert_allclose(found, found.round(), atol=1e-9)
    one = model.predict_interval(X[:5])
    assert set(np.unique(one)) <= {0.0, 1.0}
    with pytest.raises(ValueError, match=r"sample_weight: 2.5 \(row 1\) must be a whole number"):
        model.predict_interval(X[:2], sample_weight=[3, 2.5])
    gaussian = MixedEffectsRegressor(["g"]).fit(X, eta)
    with pytest.raises(ValueError, match="has neither trials nor a precision"):
        gaussian.predict_interval(X[:2], sample_weight=[3, 2])
    precise = MixedEffectsRegressor(["g"], family=FAMILIES["gaussian"](weights="precision"))
    precise.fit(X, eta + rng.normal(size=600) / np.sqrt(trials), trials)
    wide, narrow = (np.diff(precise.predict_interval(X[:5], sample_weight=w)) for w in (1, 20))
    assert (wide > narrow).all()


def gamma(eta, shape):
    import tensorflow as tf
    import tensorflow_probability as tfp

    return tfp.distributions.Gamma(shape, log_rate=tf.math.log(shape) - eta)


@pytest.mark.parametrize(
    ("function", "params", "truth"),
    [
        (laplace, {"scale": 0.5}, stats.laplace(1.2, 0.5)),
        (gamma, {"shape": 2.0}, stats.gamma(2.0, scale=np.exp(1.2) / 2)),
        (counts_by_tfp, {}, stats.poisson(np.exp(1.2))),
    ],
)
def test_custom_families_have_their_own_cdf(function, params, truth):
    family = CustomFamily(function, **dict.fromkeys(params, "positive"))
    mixture = Mixture(family, Moments(np.full(2, 1.2), np.zeros(2), np.zeros(2, bool)), params)
    for q in Q:
        np.testing.assert_allclose(_quantile(mixture, q), truth.ppf(q), rtol=1e-5)


def test_rows_that_miss_a_value_have_none(sleep):
    X, y, _ = sleep
    model = MixedEffectsRegressor(["Subject"], missing="drop").fit(X, y)
    found = model.predict_interval(X[:3].assign(Days=[0.0, np.nan, 1.0]))
    assert np.isnan(found).all(axis=1).tolist() == [False, True, False]


@pytest.mark.parametrize("coverage", [0, 1, 95, "95"])
def test_what_is_no_probability_is_refused(sleep, coverage):
    X, _, model = sleep
    with pytest.raises(ValueError, match=r"coverage=.* must be a number between 0 and 1"):
        model.predict_interval(X, coverage)
    for q in ([0.5, 1.5], [], "median"):
        with pytest.raises(ValueError, match="must be numbers between 0 and 1"):
            model.predict_quantiles(X, q)


def test_an_unseen_level_may_be_an_error(sleep):
    X, y, _ = sleep
    model = MixedEffectsRegressor(["Subject"], handle_unknown="error").fit(X, y)
    with pytest.raises(ValueError, match="unknown or missing level"):
        model.predict_interval(X.assign(Subject=999))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gaussian", "poisson", "hurdle gamma, groups in both"])
def test_intervals_cover_new_observations(name):
    """`python -m tests.coverage_of_intervals` has all families, and more sets."""
    found = study(name, n_sets=8)
    assert 0.93 <= found["known, ends at random"] <= 0.97
    assert 0.90 <= found["unseen, ends at random"] <= 0.98
    assert found["known"] >= found["known, ends at random"] - 0.002
