import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import ConvergenceWarning

from sklmm import HMC, Gamma, Gaussian, MixedEffectsRegressor
from sklmm.datasets import make_crossed
from sklmm.engine.latent.tuning import LONGEST_STEP, TARGET_ACCEPTANCE, adapted, default_chains
from sklmm.engine.linalg.chains import (
    CovarianceNoise,
    Series,
    balanced,
    chain_covariance,
    chain_error,
    deviations,
    excess,
    mirrored,
)
from tests.quadrature import Model
from tests.simulate import simulate


@pytest.fixture(scope="module")
def counts():
    """A fit of few counts a group, and quadrature's."""
    rng = np.random.default_rng(5)
    X = pd.DataFrame({"g": np.repeat(np.arange(40), 5), "x": rng.normal(size=200)})
    y = rng.poisson(np.exp(0.2 + 0.4 * X["x"] + 0.8 * rng.normal(size=40)[X["g"]]))
    model = MixedEffectsRegressor(["g"], family="poisson", e_step="hmc", random_state=0)
    model.fit(X, y)
    columns = np.column_stack([np.ones(200), X["x"]])
    return model, Model("poisson", columns, X["g"], y).fit([0.2, 0.4, 0.8])


def chains(rng, n, C, rho, mirror):
    """A parameter's autoregressive chains [n, 1, C] of variance 1, the second half mirrored."""
    states = [rng.standard_normal(C)]
    for _ in range(n - 1):
        states.append(rho * states[-1] + np.sqrt(1 - rho**2) * rng.standard_normal(C))
    states = np.array(states)
    if mirror:
        states[:, C // 2 :] = mirror * states[:, : C // 2]
    return states[:, None, :]


@pytest.mark.parametrize(("C", "mirror"), [(2, 0), (3, 0), (4, 1), (16, 0), (16, 1), (16, -1)])
@pytest.mark.parametrize("rho", [0.0, 0.5])
def test_error_of_the_mean_of_chains(C, mirror, rho):
    """Against the SD of the mean over repetitions; mirrored chains are one, or cancel out."""
    rng = np.random.default_rng(0)
    runs = [chains(rng, 200, C, rho, mirror) for _ in range(200)]
    truth = np.std([run.mean() for run in runs])
    errors = [chain_error(run - run.mean(axis=2, keepdims=True))[0] for run in runs]
    assert np.mean(errors) == pytest.approx(truth, rel=0.2, abs=1e-12)


@pytest.mark.parametrize("mirror", [0, -1])
def test_covariance_of_mirrored_chains(mirror):
    rng = np.random.default_rng(1)
    draws = [chains(rng, 3, 6, 0.0, mirror)[:, 0] for _ in range(4000)]
    mean = np.mean([chain_covariance(x) for x in draws], axis=0)
    np.testing.assert_allclose(mean, np.eye(3), atol=0.05)


def test_effects_sds_are_quadratures(counts):
    """Of every effect, where 16 iterations' draws alone would leave 5 % of noise in the worst."""
    model, right = counts
    ours = model.random_effects_std_["g"]["Intercept"].to_numpy()
    np.testing.assert_allclose(ours, right.effects_std, rtol=0.015)
    means = model.random_effects_["g"]["Intercept"].to_numpy()
    assert np.abs((means - right.effects) / right.effects_std).max() < 0.05


def test_standard_errors_are_quadratures(counts):
    model, right = counts
    ours = np.append(model.fixed_effects_["std_error"], model.variance_components_["std_error"])
    np.testing.assert_allclose(ours, right.std_error, rtol=0.03)
    assert model.loglik_ == pytest.approx(right.loglik, abs=4 * model.loglik_error_ + 0.02)


def test_no_likelihood_where_the_path_to_the_posterior_has_no_mean():
    """A Gaussian about the mode leaves the means that an identity link allows."""
    X, y, _ = make_crossed(400, (40, 20), random_state=0)
    family = Gamma(link="identity")
    model = MixedEffectsRegressor(
        ["g0", "g1"], family=family, e_step=HMC(n_chains=8), max_iter=4, random_state=0
    )
    with pytest.warns(ConvergenceWarning, match="max_iter=4"):
        model.fit(X, np.exp(np.clip(y - y.mean(), -3, 2)))
    assert np.isnan(model.loglik_)
    assert np.isnan(model.aic_)


def test_excess_of_a_normal_posterior_is_0():
    rng = np.random.default_rng(0)
    root = np.tril(rng.normal(size=(3, 3)))
    x = root @ rng.standard_normal((3, 8))
    np.testing.assert_allclose(excess(x, -x), 0, atol=1e-12)
    # Too wide a normal approximation: unbiased all the same.
    draws = root @ rng.normal(size=(9000, 3, 8)) / np.sqrt(2)
    found = [root @ root.T + excess(x, -2 * x) for x in draws]
    np.testing.assert_allclose(np.mean(found, axis=0), root @ root.T / 2, atol=0.05)


@pytest.mark.parametrize("n", [64, 10])
def test_control_variates_leave_no_noise_of_theirs(n):
    """With draws enough for all variables at once, and for each entry's own two."""
    rng = np.random.default_rng(0)
    balance, right = rng.normal(size=(2, n)), np.array([[1.0, 2.0], [2.0, 3.0]])
    if n < 12:
        balance = np.concatenate([balance, rng.normal(size=(1, n))])
        right = np.pad(right, ((0, 1), (0, 1)))
    weights = rng.normal(size=(*right.shape, len(balance)))
    weights = weights + weights.transpose(1, 0, 2)
    if n < 12:
        for i, j in np.ndindex(right.shape):
            weights[i, j, [k for k in range(len(balance)) if k not in (i, j)]] = 0.0
    values = right[:, :, None] + weights @ (1e6 * balance)
    found = balanced(values, balance)
    np.testing.assert_allclose(found, np.repeat(right[:, :, None], n, axis=2), atol=1e-6)


def test_noise_of_the_standard_errors_is_that_of_repetitions():
    """Of mirrored chains: their spread over repetitions, of information and of what is missing."""
    rng = np.random.default_rng(1)
    mean, covariance = np.array([[4.0, 1.0], [1.0, 2.0]]), np.array([[0.3, -0.1], [-0.1, 0.5]])
    half = 0.3 * rng.normal(size=(400, 2, 2, 2, 8))
    half = half + half.transpose(0, 1, 3, 2, 4)
    both = mean[:, :, None] + np.concatenate([half, half + 0.1 * half[::-1]], axis=4)
    scores = 0.5 * rng.normal(size=(400, 20, 2, 17))
    missing = np.array([[np.cov(s) for s in run] for run in scores]).mean(axis=1)
    directions, stds, errors = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 2.0]]), [], []
    for draws, own, lacks in zip(both, deviations(scores), missing, strict=True):
        change = covariance @ (draws.mean(axis=(0, 3)) - mean - lacks) @ covariance
        first_order = np.einsum("ka,ab,kb->k", directions, covariance - change, directions)
        stds.append(np.sqrt(first_order))
        noise = CovarianceNoise(covariance, own, list(draws))
        errors.append(noise.errors(directions))
    np.testing.assert_allclose(np.mean(errors, axis=0), np.std(stds, axis=0), rtol=0.2)


@pytest.mark.parametrize("rho", [0.0, 0.6])
def test_error_of_the_mean_of_a_series(rho):
    rng = np.random.default_rng(2)
    found, errors = [], []
    for _ in range(300):
        series, runs = Series(), chains(rng, 40, 30, rho, 0)
        for values in runs:
            series.add(1e3 + values[0] * np.arange(1, 31))
        found.append(series.mean())
        errors.append(series.error())
    spread = np.std(found, axis=0)
    assert np.mean(np.mean(errors, axis=0) / spread) == pytest.approx(1.0, rel=0.15)


def test_effects_tell_their_monte_carlo_errors(counts):
    """Means and SDs of 40 levels beside quadrature's, in units of the errors that are stated."""
    model, right = counts
    for found, error, truth in (
        (model.random_effects_, model.random_effects_mc_error_, right.effects),
        (model.random_effects_std_, model.random_effects_std_mc_error_, right.effects_std),
    ):
        away = (found["g"]["Intercept"] - truth) / error["g"]["Intercept"]
        assert 0.4 < np.sqrt(np.mean(away**2)) < 2.0
    std, errors = model.variance_components_["std_error"], model.std_mc_error_
    assert errors.index.equals(model.mc_error_.index)
    assert (errors > 0).all()
    assert errors.iloc[-1] < 0.03 * std[0]


def test_step_is_adapted_to_the_target():
    assert adapted(0.5, TARGET_ACCEPTANCE, 1.0) == pytest.approx(0.5)
    assert adapted(0.5, 0.6, 1.0) < adapted(0.5, 0.6, 0.5) < 0.5
    assert adapted(0.5, 0.99, 0.1) > 0.5
    assert adapted(1.3, 1.0, 1.0) == LONGEST_STEP


def test_few_chains_give_the_standard_errors_of_many():
    """REML's covariance of the coefficients is the draws': mirrored chains do not inflate it.

    Four chains taken for independent ones would give 15 % too much.
    """
    X, y, _, _ = simulate("gaussian", 0)
    exact = MixedEffectsRegressor(["g"]).fit(X, y).fixed_effects_["std_error"]
    e_step = HMC(n_chains=4)
    few = [
        MixedEffectsRegressor(["g"], e_step=e_step, tol=0.03, random_state=seed).fit(X, y)
        for seed in range(4)
    ]
    ratio = np.mean([model.fixed_effects_["std_error"] / exact for model in few], axis=0)
    np.testing.assert_allclose(ratio, 1, atol=0.07)


@pytest.mark.parametrize("log_mean", [7.0, 11.0])
def test_standard_errors_where_groups_tell_much(log_mean):
    """Of many counts a group, against the exact Gaussian model of their logarithms.

    log y has variance 1 / mu to a thousandth there. The motion of the effects has to follow theta,
    and above counts of some 10^4 the chains need float64.
    """
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"g": np.repeat(np.arange(30), 10), "x": rng.normal(size=300)})
    y = rng.poisson(np.exp(log_mean + 0.2 * X["x"] + rng.normal(0, 0.3, 30)[X["g"]]))
    normal = Gaussian(sigma=1.0, weights="precision")
    exact = MixedEffectsRegressor(["g"], family=normal, method="ml").fit(
        X, np.log(y), sample_weight=y
    )
    model = MixedEffectsRegressor(["g"], family="poisson", random_state=0).fit(X, y)
    assert model.converged_
    ours, theirs = model.fixed_effects_, exact.fixed_effects_
    np.testing.assert_allclose(ours["std_error"], theirs["std_error"], rtol=0.03)
    assert np.all(np.abs(ours["estimate"] - theirs["estimate"]) < 0.1 * theirs["std_error"])
    ours, theirs = (m.variance_components_.loc[0, ["sd", "std_error"]] for m in (model, exact))
    np.testing.assert_allclose(ours.astype(float), theirs.astype(float), rtol=0.03)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_crossed_groups_of_which_data_tell_nearly_all(seed):
    """The average goes on while the factors change, and Laplace's estimate, exact here, is met.

    Each row's score is of the order of 100 there, of which the motion has to leave nothing.
    """
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"g": rng.integers(40, size=1500), "h": rng.integers(25, size=1500)})
    X["x"] = rng.normal(size=1500)
    eta = 0.3 + 0.5 * X["x"] + rng.normal(0, 0.8, 40)[X["g"]] + rng.normal(0, 0.5, 25)[X["h"]]
    y = 1000 * rng.poisson(np.exp(eta))
    fit = {"family": "poisson", "random_state": seed}
    exact = MixedEffectsRegressor(["g", "h"], e_step="laplace", **fit).fit(X, y)
    model = MixedEffectsRegressor(["g", "h"], e_step=HMC(), **fit).fit(X, y)
    assert model.converged_
    assert model.n_iter_ < 30
    ours, theirs = model.variance_components_, exact.variance_components_
    error = model.mc_error_.to_numpy()[-2:]
    assert (np.abs(ours["sd"] - theirs["sd"]) < 4 * error).all()
    assert (error < 0.02 * theirs["std_error"]).all()
    np.testing.assert_allclose(ours["std_error"], theirs["std_error"], rtol=0.03)
    np.testing.assert_allclose(model.coef_, exact.coef_, atol=1e-5)


def test_default_chains_come_in_pairs():
    assert all(mirrored(default_chains(n)) for n in range(1, 20_000, 7))
    assert default_chains(1) == 128
    assert default_chains(10**5) == 16
    assert default_chains(10**7) == 8
