"""Where Gaussian fits start: consistent, unbiased, and the maximum itself in balanced tables."""

import numpy as np
import pandas as pd
import pytest

from sklmm import MixedEffectsRegressor, RandomEffect
from sklmm.datasets import load_dyestuff, load_insteval, load_sleepstudy, make_crossed
from sklmm.design.design import DesignSpec
from sklmm.design.terms import resolve_terms
from sklmm.engine.algorithms.reml import Reml
from sklmm.engine.algorithms.start_moments import moment_start
from sklmm.engine.equations.crossproducts import CrossProducts
from sklmm.engine.rows.standardize import standardize
from sklmm.engine.theta.space import residual_sd


def started(terms, table, y, weights=None, sigma=None):
    """(SDs of the effects, sigma) at the start, in y's units."""
    _, design = DesignSpec.learn(table, resolve_terms(terms), None, True)
    weights = np.ones(len(y)) if weights is None else weights
    problem = standardize(design, y, weights, fit_intercept=True, reml=True, sigma=sigma)
    theta = moment_start(CrossProducts(problem))
    covariances = [problem.covariance(k, L) for k, L in enumerate(theta.factors)]
    return (
        np.sqrt(np.concatenate([np.diag(S) for S in covariances])),
        residual_sd(problem, theta) * problem.y_scale,
    )


def test_a_balanced_one_way_layout_starts_at_its_reml_estimate():
    X, y = load_dyestuff(return_X_y=True, as_frame=True)
    sds, sigma = started(["Batch"], X, y.to_numpy(float))
    np.testing.assert_allclose([*sds, sigma], [42.000602, 49.510105], rtol=1e-6)


@pytest.mark.parametrize("terms", [["g", "h"], ["(1 + s | g)", "(1 | g:h)"]], ids=" ".join)
def test_means_over_simulations_are_the_truth(terms):
    rng = np.random.default_rng(0)
    n = 600
    g, h = rng.integers(0, 40, n), rng.geometric(0.15, n)
    table = pd.DataFrame({"g": g, "h": h, "s": rng.normal(1, 1, n)})
    found = []
    for _ in range(200):
        y = 5 + 0.8 * rng.normal(size=40)[g] + rng.normal(0, 0.7, n) + table["s"].to_numpy()
        if len(terms[0]) > 1:
            y += 0.5 * (rng.normal(size=40)[g] * table["s"])
            y += 0.6 * rng.normal(size=(40, h.max() + 1))[g, h]
        else:
            y += 0.6 * rng.normal(size=h.max() + 1)[h]
        sds, sigma = started(terms, table, np.asarray(y))
        found.append(np.square([*sds, sigma]))
    truth = np.square([0.8, 0.6, 0.7] if len(found[0]) == 3 else [0.8, 0.5, 0.6, 0.7])
    error = np.std(found, axis=0) / np.sqrt(len(found))
    assert (np.abs(np.mean(found, axis=0) - truth) < 3.5 * error).all()
    assert (error < 0.05 * truth).all()


def test_weights_are_repetitions_and_pinned_sds_stay():
    rng = np.random.default_rng(1)
    table = pd.DataFrame(
        {"g": np.arange(60) % 7, "h": np.arange(60) % 11, "x": rng.normal(size=60)}
    )
    y, weights = rng.normal(size=60) + table["g"], rng.integers(1, 4, 60)
    rows = np.repeat(np.arange(60), weights)
    terms = ["g", RandomEffect("h", sd=0.3)]
    ours = started(terms, table, y.to_numpy(), weights.astype(float), sigma=1.2)
    again = started(terms, table.iloc[rows], y.to_numpy()[rows], sigma=1.2)
    np.testing.assert_allclose(ours[0], again[0], rtol=1e-9)
    assert ours[0][1] == pytest.approx(0.3)
    assert ours[1] == pytest.approx(1.2)


def test_few_steps_are_left():
    X, y = load_insteval(return_X_y=True, as_frame=True)
    terms = ["students", "instructors", "departments"]
    model = MixedEffectsRegressor(terms, fixed_effects=["service"]).fit(X, y)
    assert model.n_iter_ <= 4
    X, y, _ = make_crossed(100_000, (2000, 800), random_state=0)
    model = MixedEffectsRegressor(["g0", "g1"], e_step="cg", random_state=0).fit(X, y)
    assert model.n_iter_ <= 4
    assert model.history_["step"].iloc[0] < 5


def failing(monkeypatch, calls):
    """Equations that cannot be factorised at these calls of the step."""
    look, count = Reml.look, iter(range(1000))

    def fail(self, theta, before=None):
        if next(count) in calls:
            raise np.linalg.LinAlgError("not positive definite")
        return look(self, theta, before)

    monkeypatch.setattr(Reml, "look", fail)


def test_a_step_to_singular_equations_is_taken_back(monkeypatch):
    X, y = load_sleepstudy(return_X_y=True, as_frame=True)
    model = MixedEffectsRegressor(["(1 + Days | Subject)"])
    expected = model.fit(X, y).variance_components_["sd"]
    failing(monkeypatch, {1})
    model.fit(X, y)
    assert model.converged_
    np.testing.assert_allclose(model.variance_components_["sd"], expected, rtol=1e-5)


def test_singular_equations_are_an_error_that_names_the_terms(monkeypatch):
    X, y = load_sleepstudy(return_X_y=True, as_frame=True)
    failing(monkeypatch, range(1000))
    with pytest.raises(ValueError, match=r"random_effects: .*residual SD"):
        MixedEffectsRegressor(["(1 + Days | Subject)"]).fit(X, y)
