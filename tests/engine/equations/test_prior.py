"""Related levels: likelihood, gradient and information beside those of dense V."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.linalg import block_diag

from sklmm import ConjugateGradient, Exact, Relationship
from sklmm.covariances import Diagonal, Unstructured
from sklmm.design.design import Block, Design
from sklmm.engine import limits
from sklmm.engine.algorithms import reml_cg
from sklmm.engine.algorithms.reml import Reml
from sklmm.engine.posterior.degrees import coefficient_slopes
from sklmm.engine.posterior.gaussian import posterior_from_equations
from sklmm.engine.rows.standardize import standardize
from sklmm.engine.theta.space import Theta, residual_sd


def relation(n, seed):
    """A relationship of a random covariance."""
    root = np.random.default_rng(seed).normal(size=(n, n + 5))
    return Relationship(root @ root.T / n, range(n))


def table(kinds, reml=True, sizes=(13, 9, 11), n=80):
    """The problem of terms of a kind each, related or not, with slopes or not; and their A."""
    rng, blocks, A = np.random.default_rng(0), [], []
    for k, (kind, J) in enumerate(zip(kinds, sizes, strict=False)):
        related, slopes = kind
        refs = rng.integers(J - 2, size=n).astype(np.int32)
        z = np.column_stack([np.ones(n), rng.normal(size=n)]) if slopes else None
        covariance = Unstructured(2) if slopes == "us" else Diagonal(2 if slopes else 1)
        own = relation(J, k) if related else None
        blocks.append(Block(refs, z, J, covariance, own))
        A.append(own.relate(np.eye(J)) if related else np.eye(J))
    X = np.column_stack([np.ones(n), rng.normal(size=n)])
    y = X @ [1.0, 2.0] + rng.normal(size=n)
    w = rng.integers(1, 3, n).astype(float)
    problem = standardize(Design(X, tuple(blocks)), y, w, fit_intercept=True, reml=reml)
    return problem, A


def theta_of(problem, seed=1):
    """Some theta."""
    rng = np.random.default_rng(seed)
    factors = []
    for b in problem.blocks:
        params = rng.uniform(0.2, 0.8, b.covariance.n_params)
        factors.append(b.covariance.factor(params))
    return Theta(np.zeros(0), tuple(factors), np.array([-0.3]))


def dense(problem, A, theta):
    """The (restricted) log-likelihood in y's units."""
    rows, s = problem.rows, residual_sd(problem, theta)
    X = np.asarray(rows.X)
    V = np.diag(s**2 / rows.weights)
    for refs, z, L, a in zip(rows.refs, rows.z, theta.factors, A, strict=True):
        V += a[np.ix_(refs, refs)] * (z @ L @ L.T @ z.T)
    y, weights = rows.y, rows.weights
    # A row of weight w is w rows: the likelihood has their residual variance w - 1 times more.
    solve = np.linalg.solve(V, np.column_stack([X, y]))
    XVX = X.T @ solve[:, :-1]
    beta = np.linalg.solve(XVX, X.T @ solve[:, -1])
    quadratic = (y - X @ beta) @ np.linalg.solve(V, y - X @ beta)
    log_det = np.linalg.slogdet(V)[1] + np.log(weights).sum()
    log_det += (problem.n - len(y)) * np.log(s**2)
    dof = problem.n
    if problem.reml:
        log_det += np.linalg.slogdet(XVX)[1] + problem.log_det_basis
        dof -= problem.p
    return -0.5 * (dof * np.log(2 * np.pi * problem.y_scale**2) + log_det + quadratic)


KINDS = {
    "one related": [(True, None)],
    "related and not": [(True, None), (False, None)],
    "slopes": [(True, "us"), (False, "us")],
    "all related": [(True, "diag"), (True, None)],
    "three": [(False, None), (True, "us"), (True, None)],
}


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("kinds", KINDS.values(), ids=KINDS)
def test_likelihood_and_gradient_are_those_of_dense_v(kinds, reml):
    problem, A = table(kinds, reml)
    theta = theta_of(problem)
    fit = Reml(problem, Exact(), 1e-3, 0, 1)
    seen = fit.look(theta)
    assert seen.loglik == pytest.approx(dense(problem, A, theta), abs=1e-9)
    h, space = 1e-5, fit.space
    for i, e in enumerate(h * np.eye(space.size)):
        up, down = (dense(problem, A, space.moved(theta, d)) for d in (e, -e))
        assert seen.gradient[i] == pytest.approx((up - down) / (2 * h), abs=1e-5)


@pytest.mark.parametrize("kinds", KINDS.values(), ids=KINDS)
def test_conjugate_gradients_say_the_same(kinds):
    problem, _ = table(kinds)
    theta = theta_of(problem)
    exact = Reml(problem, Exact(), 1e-3, 0, 1).look(theta)
    fit = Reml(problem, ConjugateGradient(tol=1e-10), 1e-3, 0, 1)
    seen = fit.look(theta)
    np.testing.assert_allclose(seen.gradient, exact.gradient, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(seen.information, exact.information, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(seen.beta, exact.beta, rtol=1e-7)


def test_probes_tell_traces_of_related_levels(monkeypatch):
    monkeypatch.setattr(reml_cg, "EXACT_TRACES", 0)
    monkeypatch.setattr("sklmm.engine.equations.crossproducts.FEW", 0)
    problem, _ = table(KINDS["three"])
    theta = theta_of(problem)
    exact = Reml(problem, Exact(), 1e-3, 0, 1).look(theta)
    found = [
        Reml(problem, ConjugateGradient(tol=1e-10, n_probes=50), 1e-3, seed, 1).look(theta)
        for seed in range(8)
    ]
    gradients = np.array([seen.gradient for seen in found])
    error = gradients.std(axis=0, ddof=1) / np.sqrt(len(found))
    assert (np.abs(gradients.mean(axis=0) - exact.gradient) < 4 * error + 1e-8).all()


def test_a_variance_near_zero_has_a_trace_by_its_definition():
    problem, A = table(KINDS["three"])
    theta = theta_of(problem)
    theta = theta._replace(factors=(*theta.factors[:1], 1e-7 * theta.factors[1], np.eye(1) * 0))
    seen = Reml(problem, Exact(), 1e-3, 0, 1).look(theta)
    by_cg = Reml(problem, ConjugateGradient(tol=1e-10), 1e-3, 0, 1).look(theta)
    for own, other, _L in zip(seen.score, by_cg.score, theta.factors, strict=True):
        np.testing.assert_allclose(own, other, rtol=1e-6, atol=1e-6)
    # At 0 the slope in the variance is the score.
    h = 1e-4
    up = theta._replace(factors=(*theta.factors[:2], np.eye(1) * np.sqrt(h)))
    slope = (dense(problem, A, up) - dense(problem, A, theta)) / h
    assert seen.score[2][0, 0] == pytest.approx(slope, rel=1e-2)


def test_the_largest_term_is_not_eliminated_where_its_levels_are_related():
    problem, _ = table(KINDS["related and not"])
    fit = Reml(problem, Exact(), 1e-3, 0, 1)
    assert fit.solver.cross.eliminated == 1
    assert limits.left([100, 5], [True, False]) == 100
    assert limits.left([100, 5], [True, True]) == 105
    assert limits.left([100, 5]) == 5
    plain = replace(problem, blocks=tuple(replace(b, relation=None) for b in problem.blocks))
    assert Reml(plain, Exact(), 1e-3, 0, 1).solver.cross.eliminated == 0


@pytest.mark.parametrize("kinds", [KINDS["slopes"], KINDS["all related"]])
def test_the_coefficients_variance_moves_with_theta_as_differences_say(kinds):
    problem, _ = table(kinds)
    theta, h = theta_of(problem), 1e-5
    fit = Reml(problem, Exact(), 1e-3, 0, 1)

    def covariance(theta):
        return np.linalg.inv(fit.equations(theta).S)

    slopes = coefficient_slopes(fit.equations(theta))
    for slope, e in zip(slopes, h * np.eye(fit.space.size), strict=True):
        up, down = (covariance(fit.space.moved(theta, d)) for d in (e, -e))
        np.testing.assert_allclose(slope, (up - down) / (2 * h), atol=1e-7)


@pytest.mark.parametrize("kinds", KINDS.values(), ids=KINDS)
def test_the_posterior_is_that_of_dense_matrices(kinds):
    problem, A = table(kinds)
    theta = theta_of(problem)
    fit = Reml(problem, Exact(), 1e-3, 0, 2048)
    posterior = posterior_from_equations(fit.equations(theta), 0, 2048)
    rows, Z, prior = problem.rows, [], []
    of_terms = zip(rows.refs, rows.z, theta.factors, A, problem.blocks, strict=True)
    for refs, z, L, a, block in of_terms:
        own = np.zeros((rows.n_rows, block.n_levels, block.r))
        own[np.arange(rows.n_rows), refs] = z
        Z.append(own.reshape(rows.n_rows, -1))
        prior.append(np.linalg.inv(np.kron(a, L @ L.T)))
    W = np.hstack([np.asarray(rows.X), *Z])
    C = W.T @ (rows.weights[:, None] * W) / residual_sd(problem, theta) ** 2
    C[problem.p :, problem.p :] += block_diag(*prior)
    expected = np.linalg.inv(C)
    np.testing.assert_allclose(posterior.root @ posterior.root.T, expected, rtol=1e-6, atol=1e-9)
    mean = expected @ W.T @ (rows.weights * rows.y) / residual_sd(problem, theta) ** 2
    found = np.concatenate([posterior.beta, *(b.ravel() for b in posterior.effects)])
    np.testing.assert_allclose(found, mean, atol=1e-8)
    given, first = np.linalg.inv(C[problem.p :, problem.p :]), 0
    for block, own in zip(problem.blocks, posterior.effects_cov, strict=True):
        for level in own:
            part = slice(first, first + block.r)
            np.testing.assert_allclose(level, given[part, part], rtol=1e-6, atol=1e-10)
            first = part.stop
