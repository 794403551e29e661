"""REML's steps: where they lead on likelihoods whose maximum is known, and where they start."""

import numpy as np
import pandas as pd
import pytest

from sklmm import Exact, MixedEffectsRegressor, RandomEffect
from sklmm.covariances import Pinned, Unstructured
from sklmm.datasets import load_dyestuff, load_insteval, load_sleepstudy, make_crossed
from sklmm.design.design import Block, Design, DesignSpec
from sklmm.design.terms import resolve_terms
from sklmm.engine.algorithms.reml import Reml, em_step, moment_start, move, newton_step
from sklmm.engine.equations.crossproducts import CrossProducts
from sklmm.engine.rows.standardize import standardize
from sklmm.engine.theta.space import Space, Theta, is_singular, residual_sd


def one_way(effects, n_each=8, sd=None, sigma=None, reml=True):
    """A balanced one-way layout: y = effect + noise of mean 0 in every level."""
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((len(effects), n_each))
    noise -= noise.mean(axis=1, keepdims=True)
    y = (np.asarray(effects)[:, None] + noise).ravel()
    refs = np.repeat(np.arange(len(effects), dtype=np.int32), n_each)
    covariance = Unstructured(1) if sd is None else Pinned((sd,))
    design = Design(np.ones((len(y), 1)), (Block(refs, None, len(effects), covariance),))
    problem = standardize(design, y, np.ones(len(y)), fit_intercept=True, reml=reml, sigma=sigma)
    return problem, y.reshape(len(effects), n_each)


def start(problem):
    """Half the variance to the residual and half to the term."""
    L = problem.blocks[0].covariance.nearest(np.array([[np.sqrt(0.5)]]))
    raw = [np.log(np.sqrt(0.5))] if problem.sigma is None else []
    return Theta(np.zeros(0), (L,), np.array(raw))


def climb(problem, take, iterations):
    path = [start(problem)]
    for _ in range(iterations):
        path.append(take(look(problem, path[-1])))
    return path


def look(problem, theta):
    return Reml(problem, Exact(), 1e-3, 0, 1).look(theta)


def newton(problem):
    space = Space.gaussian(problem)
    return lambda seen: move(space, seen.theta, newton_step(seen)[0])


def anova(y):
    """REML of a balanced one-way layout, from its mean squares."""
    levels, n = y.shape
    within = ((y - y.mean(axis=1, keepdims=True)) ** 2).sum() / (levels * (n - 1))
    between = n * y.mean(axis=1).var(ddof=1)
    if between <= within:
        return 0.0, np.sqrt(y.var(ddof=1))
    return np.sqrt((between - within) / n), np.sqrt(within)


def in_units(problem, theta):
    covariance = problem.covariance(0, theta.factors[0])
    return np.sqrt(covariance[0, 0]), residual_sd(problem, theta) * problem.y_scale


EFFECTS = np.random.default_rng(1).normal(0, 2.0, 12)


def test_newton_reaches_the_anova_estimate_quadratically():
    problem, y = one_way(EFFECTS)
    path = climb(problem, newton(problem), 9)
    np.testing.assert_allclose(in_units(problem, path[-1]), anova(y), rtol=1e-9)
    gaps = [abs(in_units(problem, p)[0] - anova(y)[0]) for p in path]
    close = next(i for i, gap in enumerate(gaps) if gap < 0.05)
    assert gaps[close + 2] < 1e-5


def test_em_reaches_the_anova_estimate_and_never_descends():
    problem, y = one_way(EFFECTS)
    logliks = []

    def take(seen):
        logliks.append(seen.loglik)
        return em_step(problem, seen)

    path = climb(problem, take, 60)
    assert (np.diff(logliks) > -1e-9).all()
    np.testing.assert_allclose(in_units(problem, path[-1]), anova(y), rtol=1e-3)
    assert look(problem, path[-1]).loglik <= climb_loglik(problem) + 1e-9


def climb_loglik(problem):
    best = climb(problem, newton(problem), 10)[-1]
    return look(problem, best).loglik


def test_newton_reaches_a_variance_of_zero_quadratically():
    problem, y = one_way(np.random.default_rng(2).normal(0, 0.05, 12))
    assert anova(y)[0] == 0.0
    path = climb(problem, newton(problem), 10)
    tau, sigma = in_units(problem, path[-1])
    assert tau < 1e-6 * sigma
    assert sigma == pytest.approx(anova(y)[1], rel=1e-6)
    assert is_singular(problem.blocks[0], path[-1].factors[0], residual_sd(problem, path[-1]))
    assert not is_singular(problem.blocks[0], path[0].factors[0], residual_sd(problem, path[0]))


@pytest.mark.parametrize("take", [newton, lambda p: lambda seen: em_step(p, seen)])
def test_pinned_parameters_stay(take):
    problem, _ = one_way(EFFECTS, sd=1.5)
    path = climb(problem, take(problem), 4)
    assert Space.gaussian(problem).size == 1
    for theta in path:
        assert in_units(problem, theta)[0] == pytest.approx(1.5, rel=1e-12)
    assert path[-1].raw != path[0].raw
    problem, _ = one_way(EFFECTS, sigma=1.0)
    path = climb(problem, take(problem), 4)
    assert Space.gaussian(problem).size == 1
    for theta in path:
        assert in_units(problem, theta)[1] == pytest.approx(1.0, rel=1e-12)
    assert path[-1].factors[0] != path[0].factors[0]


def test_newton_vanishes_at_the_maximum_and_nowhere_else():
    problem, _ = one_way(EFFECTS)
    best = climb(problem, newton(problem), 12)[-1]
    seen = look(problem, best)
    np.testing.assert_allclose(seen.gradient, 0.0, atol=1e-7)
    assert newton_step(seen)[1] < 1e-8
    away = best._replace(raw=best.raw + np.log(1.1))
    assert newton_step(look(problem, away))[1] > 0.5


def test_coefficients_that_are_held_have_the_dense_likelihood_and_its_slopes():
    X, y = load_sleepstudy(return_X_y=True, as_frame=True)
    _, design = DesignSpec.learn(X, resolve_terms(["(1 + Days | Subject)"]), ["Days"], True)
    problem = standardize(design, np.array(y, float), np.ones(180), fit_intercept=True, reml=False)
    space, rows = Space.gaussian(problem), problem.rows
    theta = Theta(np.zeros(0), (np.array([[0.9, 0.0], [0.2, 0.6]]),), np.array([-0.1]))
    algorithm = Reml(problem, Exact(), 1e-3, 0, 1)
    equations = algorithm.equations(theta).displaced(np.array([0.3, -0.2]))
    seen = algorithm.evaluation(theta, equations, inform=False)
    rest = rows.y - np.asarray(rows.X) @ seen.beta

    def dense(flat):
        (L,), raw = space.split(flat)[1:]
        V = (rows.z[0] @ L) @ (rows.z[0] @ L).T * (rows.refs[0][:, None] == rows.refs[0])
        V += np.exp(2 * raw[0]) * np.eye(180)
        log_det = np.linalg.slogdet(2 * np.pi * problem.y_scale**2 * V)[1]
        return -0.5 * (log_det + rest @ np.linalg.solve(V, rest))

    flat = space.join(theta)
    assert seen.loglik == pytest.approx(dense(flat), rel=1e-12)
    slopes = [(dense(flat + e) - dense(flat - e)) / 2e-5 for e in 1e-5 * np.eye(4)]
    np.testing.assert_allclose(seen.gradient, slopes, rtol=1e-6)


def test_move_keeps_the_covariance_when_a_diagonal_turns_negative():
    L = np.array([[1.0, 0.0], [0.5, 0.2]])
    table = Design(
        np.ones((6, 1)), (Block(np.repeat([0, 1], 3), np.eye(6)[:, :2], 2, Unstructured(2)),)
    )
    problem = standardize(table, np.arange(6.0), np.ones(6), fit_intercept=True, reml=True)
    theta, step = Theta(np.zeros(0), (L,), np.zeros(1)), np.array([-3.0, 0.1, -0.5, np.log(2.0)])
    moved = move(Space.gaussian(problem), theta, step)
    raw = np.array([[-2.0, 0.0], [0.6, -0.3]])
    np.testing.assert_allclose(moved.factors[0] @ moved.factors[0].T, raw @ raw.T)
    assert (np.diag(moved.factors[0]) >= 0).all()
    assert moved.raw == pytest.approx(np.log(2.0))


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
