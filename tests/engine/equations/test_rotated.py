"""Rotated levels of equal blocks beside all of them, and the start of correlations over places."""

import numpy as np
import pandas as pd
import pytest

from sklmm import MixedEffectsRegressor
from sklmm.design.design import DesignSpec
from sklmm.design.terms import resolve_terms
from sklmm.engine.algorithms.reml import Factorised, moment_start
from sklmm.engine.equations.crossproducts import CrossProducts
from sklmm.engine.equations.henderson import evaluate
from sklmm.engine.rows.standardize import standardize

LAGS = np.abs(np.subtract.outer(np.arange(6), np.arange(6)))


def table(pattern, J=60):
    """Six times of J groups, correlated by .8 from one to the next, and a residual."""
    rng = np.random.default_rng(0)
    g, t = np.divmod(np.arange(6 * J), 6)
    X = pd.DataFrame({"g": g, "t": t + 0.0, "x": rng.normal(size=6 * J)})
    X["t2"] = X["t"] ** 2
    effects = rng.normal(size=(J, 6)) @ np.linalg.cholesky(0.8**LAGS).T
    y = 1 + X["x"] + effects.ravel() + rng.normal(0, 0.7, 6 * J)
    keep = {
        "balanced": np.ones(6 * J, bool),
        "dropout": t < 3 + g % 4,
        "at random": rng.random(6 * J) < 0.7,
    }[pattern]
    return X[keep], y[keep].to_numpy()


def cross_products(term, pattern, **known):
    X, y = table(pattern)
    _, design = DesignSpec.learn(X, resolve_terms([term]), ["x"], True)
    known = {"fit_intercept": True, "reml": True} | known
    return CrossProducts(standardize(design, y, np.ones(len(y)), **known))


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("pattern", ["balanced", "dropout", "at random"])
@pytest.mark.parametrize("term", ["ar1(0 + t | g)", "(1 + t + t2 | g)", "(1 | g)"])
def test_rotated_levels_have_the_same_likelihood(term, pattern, reml):
    cross = cross_products(term, pattern, reml=reml)
    solver = Factorised.of(cross)
    if term == "(1 | g)":
        assert solver.rotated is cross
    elif pattern == "balanced":
        # As many as columns of Z^T w [X, y].
        assert 3 * cross.problem.blocks[0].r ** 2 == solver.rotated.Q
    theta = moment_start(cross)
    seen = [
        evaluate(theta, own, *solver.traces(own))
        for own in (solver.equations(theta, probed=True), solver.equations(theta))
    ]
    for name in ("beta", "score", "score_sigma", "gradient", "information", "observed", "loglik"):
        ours, theirs = (getattr(own, name) for own in seen)
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(seen[0].joint, seen[1].joint)


@pytest.mark.parametrize("pattern", ["balanced", "dropout", "at random"])
def test_correlations_over_places_start_near_their_estimates(pattern):
    """With a row a place, where squares alone tell no variance from the residual one."""
    X, y = table(pattern, 400)
    model = MixedEffectsRegressor(["ar1(0 + t | g)"], fixed_effects=["x"], tol=1e-6).fit(X, y)
    assert model.n_iter_ <= 6
    first = model.history_.iloc[0]
    for name in model.history_.columns[-3:]:
        assert first[name] == pytest.approx(model.history_[name].iloc[-1], rel=0.25)


def test_a_start_without_correlations_is_left_as_it_was():
    """Rows of several places at once, and products that are negative."""
    rng = np.random.default_rng(1)
    X, _ = table("balanced")
    y = rng.normal(size=len(X)) * np.where(X["t"] % 2, -1, 1) + (-1.0) ** X["t"] * 3
    model = MixedEffectsRegressor(["ar1(0 + t | g)"], fixed_effects=["x"]).fit(X, y)
    assert model.converged_
