"""REML's steps: where they lead on likelihoods whose maximum is known."""

import numpy as np
import pytest

from sklmm import Exact
from sklmm.covariances import Pinned, Unstructured
from sklmm.design.design import Block, Design
from sklmm.engine.algorithms.reml import Reml, em_step, move, newton_step
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
