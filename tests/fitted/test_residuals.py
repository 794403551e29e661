"""Quantile residuals: uniform under the right model, and what they tell of others."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.special import expit

from sklmm import MixedEffectsClassifier, MixedEffectsRegressor
from sklmm._fitted.residuals import dispersion, uniformity, zeros
from sklmm.datasets import load_sleepstudy
from tests.uniformity import rejections


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"g": np.repeat(np.arange(60), 20), "x": rng.normal(size=1200)})
    return X, (0.5 + 0.5 * X["x"] + 0.7 * rng.normal(size=60)[X["g"]]).to_numpy()


@pytest.mark.parametrize("conditional", [True, False])
@pytest.mark.parametrize("family", ["gaussian", "binomial", "gamma", "bernoulli"])
def test_they_are_uniform_under_the_right_model(table, family, conditional):
    X, eta = table
    rng, weights = np.random.default_rng(1), None
    y = {
        "gaussian": lambda: rng.normal(eta, 0.5),
        "binomial": lambda: rng.binomial(10, expit(eta)) / 10,
        "gamma": lambda: rng.gamma(2.0, np.exp(eta) / 2),
        "bernoulli": lambda: rng.binomial(1, expit(eta)),
    }[family]()
    weights = np.full(1200, 10.0) if family == "binomial" else None
    kind = MixedEffectsClassifier if family == "bernoulli" else MixedEffectsRegressor
    e_step = "auto" if family == "gaussian" else "laplace"
    # Laplace's posterior is of draws, by the fit's own random_state.
    model = kind(["g"], family=family, e_step=e_step, random_state=0).fit(X, y, weights)
    ask = {"sample_weight": weights, "conditional": conditional}
    u = model.quantile_residuals(X, y, random_state=0, **ask)
    assert u.shape == (1200,)
    # Those of a group depend on one another with the effects averaged over.
    assert stats.kstest(u, "uniform").statistic < (0.05 if conditional else 0.1)
    np.testing.assert_array_equal(u, model.quantile_residuals(X, y, random_state=0, **ask))
    other = model.quantile_residuals(X, y, random_state=1, **ask)
    assert not np.array_equal(u, other)
    # Smaller ones are of a smaller y.
    assert stats.spearmanr(u, y - (expit(eta) if family == "bernoulli" else 0))[0] > 0.3


def test_the_quick_study():
    """`python -m tests.uniformity` has 200 sets of each."""
    right = rejections("poisson", n_sets=16)
    assert right["uniformity"] <= 0.25
    assert right["dispersion"] <= 0.25
    wrong = rejections("poisson of negative binomial", n_sets=5)
    assert wrong["uniformity"] >= 0.8
    assert wrong["dispersion"] == 1.0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gaussian", "poisson"])
def test_of_200_sets_one_in_twenty_is_rejected(name):
    assert 0.02 <= rejections(name)["uniformity"] <= 0.09


@pytest.mark.slow
def test_a_dispersion_that_was_left_out_is_found():
    assert rejections("poisson of negative binomial", n_sets=60)["uniformity"] > 0.9


def test_censored_rows_have_one_between_their_bounds(table):
    X, eta = table
    y = np.random.default_rng(3).normal(eta, 0.5)
    bounds = np.column_stack([np.where(y > 0, y, -np.inf), np.maximum(y, 0.0)])
    model = MixedEffectsRegressor(["g"], e_step="laplace").fit(X, bounds)
    u = model.quantile_residuals(X, bounds, random_state=0)
    assert stats.kstest(u, "uniform").pvalue > 0.01


def test_zeros_with_a_part_of_their_own_are_expected(table):
    X, eta = table
    rng = np.random.default_rng(4)
    y = np.where(rng.random(1200) < 0.3, 0, rng.poisson(np.exp(eta)))
    plain = MixedEffectsRegressor(["g"], family="poisson", e_step="laplace").fit(X, y)
    mixed = MixedEffectsRegressor(
        ["g"], family="poisson", zero_inflation="~ 1", e_step="laplace"
    ).fit(X, y)
    p = []
    for model in (plain, mixed):
        response, found = model._quantile_residuals(X, y, None, True, 0, with_zeros=True)
        test = zeros(found, response.y)
        assert test.statistic == np.sum(y == 0)
        p.append(test.p)
    assert p[0] < 1e-6 < 0.01 < p[1]
    # More zeros than a Poisson's are a dispersion too.
    assert dispersion(plain.quantile_residuals(X, y, random_state=0)).p < 1e-6
    assert uniformity(mixed.quantile_residuals(X, y, random_state=0)).p > 0.01


def test_rows_that_the_fit_left_out_have_none():
    X, y = load_sleepstudy(return_X_y=True, as_frame=True)
    weights = np.ones(180)
    weights[:3] = 0
    model = MixedEffectsRegressor(["Subject"], missing="drop")
    y = y.where(np.arange(180) != 7)
    model.fit(X, y, weights)
    u = model.quantile_residuals(X, y, weights, random_state=0)
    assert np.flatnonzero(np.isnan(u)).tolist() == [0, 1, 2, 7]


def test_what_has_none_is_refused(table):
    X, eta = table
    y = np.random.default_rng(5).integers(3, size=1200)
    model = MixedEffectsClassifier(None, fixed_effects=["x"]).fit(X, y)
    with pytest.raises(ValueError, match="have no order"):
        model.quantile_residuals(X, y)
    gaussian = MixedEffectsRegressor(["g"]).fit(X, eta + np.random.default_rng(6).normal(size=1200))
    with pytest.raises(ValueError, match="it must hold the rows of the fit"):
        gaussian.quantile_residuals(X[:100], eta[:100])
