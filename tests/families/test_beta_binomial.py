"""Successes in trials whose probability varies: SciPy's beta-binomial, glmmTMB's fits."""

import numpy as np
import pytest
from scipy import stats
from scipy.special import expit, gammaln, ndtr

from sklmm import HMC, BetaBinomial, Binomial, MixedEffectsRegressor
from sklmm.datasets import load_cbpp
from sklmm.engine.likelihood.likelihood import Likelihood, evaluation
from sklmm.engine.likelihood.pointwise import log_densities
from sklmm.inspection import ResidualsDisplay
from tests.two_part import check_maximum, table

COUNTS = [(0, 1), (1, 1), (0, 7), (3, 7), (7, 7), (40, 100)]
MEANS = {"logit": expit, "probit": ndtr, "cloglog": lambda x: -np.expm1(-np.exp(x))}


def rows(eta, precision=4.0):
    pairs = np.repeat(COUNTS, len(eta), axis=0).astype(float)
    y = np.column_stack([pairs[:, 0] / pairs[:, 1], pairs[:, 1]])
    return y, np.tile(eta, len(COUNTS))[:, None], np.array([[np.log(precision)]])


def coefficients(y):
    k, n = y[:, 0] * y[:, 1], y[:, 1]
    return gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)


ETA = np.linspace(-2, 2, 7)


@pytest.mark.parametrize("link", MEANS)
def test_the_log_density_is_scipys_and_derivatives_are_differences(link):
    (y, eta, raw), h = rows(ETA), 1e-5
    found, ones = evaluation(Likelihood.of(BetaBinomial(link))), np.ones(len(y))
    value, score, expected = found.by_row(y, eta, raw)
    mu, k = MEANS[link](eta[:, 0]), np.round(y[:, 0] * y[:, 1])
    truth = stats.betabinom.logpmf(k, y[:, 1], 4 * mu, 4 * (1 - mu))
    np.testing.assert_allclose(value[:, 0] + coefficients(y), truth, rtol=1e-9, atol=1e-10)
    up, down = (found.by_row(y, eta + s, raw) for s in (h, -h))
    np.testing.assert_allclose(score, (up[0] - down[0]) / (2 * h), rtol=1e-6, atol=1e-7)
    curvature, mixed, pairs = found.second(y, eta, raw)
    np.testing.assert_allclose(curvature, (down[1] - up[1]) / (2 * h), rtol=1e-6, atol=1e-7)
    assert (expected > 0).all()
    up, down = (found.parts(y, eta, raw + s) for s in (h, -h))
    slope = found.parts(y, eta, raw)[2][0]
    np.testing.assert_allclose(slope, (up[0] - down[0]) / (2 * h), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(mixed[0], (down[1] - up[1]) / (2 * h), rtol=1e-5, atol=1e-6)
    twice = (down[2][0] - up[2][0]) / (2 * h)
    np.testing.assert_allclose(pairs[0, 0], twice, rtol=1e-5, atol=1e-6)
    single = [part.astype(np.float32) for part in (y, ones, eta, raw)]
    for rough, exact in zip(found.slopes(*single), found.slopes(y, ones, eta, raw), strict=True):
        np.testing.assert_allclose(rough, exact, rtol=5e-4, atol=5e-5)


def test_the_expected_curvature_is_at_most_the_information():
    found = evaluation(Likelihood.of(BetaBinomial()))
    for n, precision in [(1, 3.0), (6, 0.5), (6, 3.0), (40, 30.0)]:
        k = np.arange(n + 1.0)
        y = np.column_stack([k / n, np.full(n + 1, n)])
        eta, raw = np.full((n + 1, 1), 0.7), np.array([[np.log(precision)]])
        value, score, expected = found.by_row(y, eta, raw)
        p = np.exp(value[:, 0] + coefficients(y))
        assert p.sum() == pytest.approx(1)
        information = p @ score[:, 0] ** 2
        assert 0.7 * information < expected[0, 0] <= information * (1 + 1e-9)


def test_a_large_precision_is_binomial():
    y, eta, _ = rows(ETA)
    found, plain = (evaluation(Likelihood.of(f())) for f in (BetaBinomial, Binomial))
    shares, trials = y[:, 0], y[:, 1:]
    none = np.zeros((0, 1))
    value, score, _ = plain.by_row(shares, eta, none)
    for precision in (1e9, 1e12):
        raw = np.array([[np.log(precision)]])
        mine = found.by_row(y, eta, raw)
        np.testing.assert_allclose(mine[0], trials * value, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(mine[1], trials * score, rtol=1e-5, atol=1e-6)
        # To first order in 1 / precision.
        k, mu = (shares * y[:, 1])[:, None], expit(eta)
        change = k * (k - 1) / mu + (trials - k) * (trials - k - 1) / (1 - mu)
        change = (change - trials * (trials - 1)) / (2 * precision)
        slope = found.parts(y, eta, raw)[2][0]
        np.testing.assert_allclose(slope, -change, rtol=1e-4, atol=1e-6 / precision)


def test_extreme_predictors_are_finite():
    found = evaluation(Likelihood.of(BetaBinomial()))
    for dtype, far in ((float, 800.0), (np.float32, 80.0)):
        y, eta, raw = rows(np.array([-far, -40, -9, 9, 40, far]))
        y = np.append(y, [[0.0, 0.0]], axis=0)
        eta = np.append(eta, [[0.0]], axis=0)
        y, eta, raw = (part.astype(dtype) for part in (y, eta, raw))
        curvature, mixed, pairs = found.second(y, eta, raw)
        for part in (*found.by_row(y, eta, raw), curvature, *mixed, *pairs.values()):
            assert np.isfinite(part).all()


@pytest.mark.usefixtures("eagerly")
def test_tensorflows_density_is_numpys():
    like = Likelihood.of(BetaBinomial())
    y, eta, raw = rows(ETA)
    for mine, other in zip(
        evaluation(like).by_row(y, eta, raw),
        (*like.log_prob_and_score(y, eta, raw), like.curvature(y, eta, raw)),
        strict=True,
    ):
        np.testing.assert_allclose(mine, other, rtol=1e-9, atol=1e-10)


def test_counts_and_shares_bind():
    family = BetaBinomial()
    counts = family.bind([[3, 1], [0, 0], [2, 2]], [1, 1, 5])
    assert counts.y.tolist() == [0.75, 0, 0.5]
    assert counts.weights.tolist() == [1, 1, 5]
    assert counts.keep.tolist() == [True, False, True]
    shares = family.bind([0.75, 0.5], [4, 4])
    assert shares.data.tolist() == [[4], [4]]
    assert shares.weights.tolist() == [1, 1]
    assert shares.log_constant == pytest.approx(np.log(4) + np.log(6))
    for y, weights, message in [
        ([0.3, 1.0], None, r"share of successes in trials, not 0\.3 \(row 0\): give the trials"),
        ([0.5, 1.5], [2, 2], r"not 1\.5 \(row 1\)"),
        ([[1, 2], [0.5, 1]], None, r"whole counts .* \(row 1\): correct"),
        ([[1, -2]], None, r"nonnegative whole counts"),
    ]:
        with pytest.raises(ValueError, match=message):
            family.bind(y, weights)


def test_moments_and_draws_know_the_trials():
    family, rng = BetaBinomial(), np.random.default_rng(0)
    eta, params = np.full(40_000, 0.4), {"precision": 3.0}
    for trials in (None, 9.0):
        known = params if trials is None else {**params, "trials": trials}
        draws, variance = family.sample(eta, known, rng), family.variance(0.4, known).item()
        truth = stats.betabinom(int(trials or 1), 3 * expit(0.4), 3 * expit(-0.4))
        assert variance == pytest.approx(truth.var() / (trials or 1) ** 2)
        assert draws.mean() == pytest.approx(expit(0.4), abs=4 * np.sqrt(variance / 40_000))
        assert draws.var() == pytest.approx(variance, rel=0.05)


@pytest.fixture(scope="module")
def data():
    return table("betabinomial")


def counts(data):
    return np.column_stack([data["y_bb"], data["size"] - data["y_bb"]])


def model(**parameters):
    return MixedEffectsRegressor(
        ["g"], fixed_effects=["x", "z"], family="beta_binomial", **parameters
    )


@pytest.mark.parametrize("e_step", ["auto", "laplace"])
def test_a_fit_is_at_the_maximum(data, e_step):
    fitted = model(e_step=e_step).fit(data, counts(data))
    assert fitted.converged_
    family = check_maximum(fitted, "betabinomial", laplace=e_step == "laplace")
    assert fitted.family_params_["precision"] == pytest.approx(family["phi"], rel=1e-3)


@pytest.mark.slow
def test_a_sampled_fit_is_there_too(data):
    fitted = model(e_step=HMC(backend="numpy"), random_state=0).fit(data, counts(data))
    check_maximum(fitted, "betabinomial", tol=0.05, loglik=0.1)


def test_shares_are_counts_and_what_a_model_does_with_them(data):
    y, share = counts(data), data["y_bb"] / data["size"]
    fitted = model(e_step="laplace").fit(data, y)
    other = model(e_step="laplace").fit(data, share, sample_weight=data["size"])
    assert other.loglik_ == pytest.approx(fitted.loglik_)
    np.testing.assert_allclose(other.coef_, fitted.coef_)
    repeated = model(e_step="laplace").fit(data, y, sample_weight=np.full(len(data), 2.0))
    doubled = model(e_step="laplace").fit(
        data.loc[np.repeat(data.index, 2)], np.repeat(y, 2, axis=0)
    )
    assert repeated.loglik_ == pytest.approx(doubled.loglik_)
    assert repeated.result_.n_obs == 2 * len(data)
    known = fitted._training(data, y, None)[1]
    eta = np.zeros((len(data), 1, 1))
    rowwise = log_densities(known, eta, {"precision": np.array([4.0])})
    expected = stats.betabinom.logpmf(data["y_bb"], data["size"], 2, 2)
    np.testing.assert_allclose(rowwise[:, 0], expected)
    score = fitted.score(data, share, sample_weight=data["size"])
    assert fitted.score(data, y) == pytest.approx(score)
    display = ResidualsDisplay.from_estimator(fitted, data, y)
    assert display.residuals.std() == pytest.approx(1, abs=0.1)
    intervals = fitted.conf_int(
        method="bootstrap", n_resamples=8, X=data, y=y, random_state=0, n_jobs=1
    )
    assert intervals.loc["precision", "lower"] < 6.35 < intervals.loc["precision", "upper"]
    new = data[:5].assign(g="new")
    assert fitted.update(new, y[:5]).random_effects_["g"].loc["new"].abs().item() > 0.01
    draws = fitted.sample_y(data[:3], 50, random_state=0)
    assert set(np.unique(draws)) <= {0.0, 1.0}


def test_cbpp_by_laplaces_approximation_is_glmmtmbs():
    frame = load_cbpp(as_frame=True).frame
    frame = frame.assign(healthy=frame["size"] - frame["incidence"])
    formula = "cbind(incidence, healthy) ~ C(period) + (1 | herd)"
    fitted = MixedEffectsRegressor.from_formula(formula, family="beta_binomial", e_step="laplace")
    fitted.fit(frame)
    coef = [-1.318773157, -0.96888531927, -1.2509292477, -1.4725206599]
    std = [0.23261236724, 0.40644809514, 0.45683202112, 0.51086110744]
    np.testing.assert_allclose(fitted.fixed_effects_["estimate"], coef, rtol=1e-3)
    np.testing.assert_allclose(fitted.fixed_effects_["std_error"], std, rtol=5e-3)
    assert fitted.family_params_["precision"] == pytest.approx(10.8426588078, rel=1e-3)
    # The herds differ by nothing more than the precision says.
    assert fitted.variance_components_["sd"].iloc[0] < 0.02
    assert fitted.loglik_ == pytest.approx(-88.0416468267, abs=1e-3)
