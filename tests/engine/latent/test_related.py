"""Laplace's approximation of related levels: beside dense matrices, and its own differences."""

import numpy as np
import pytest
from scipy.linalg import block_diag
from scipy.stats import poisson

from sklmm import Relationship, families
from sklmm.covariances import Unstructured
from sklmm.design.design import Block, Design
from sklmm.engine import limits
from sklmm.engine.latent.approximation import Approximation
from sklmm.engine.latent.mode import Latent
from sklmm.engine.likelihood.likelihood import Likelihood
from sklmm.engine.rows.standardize import standardize
from sklmm.engine.theta.space import Theta

N = 80
#: Whether each term's levels are related, and its number of coefficients.
KINDS = {
    "one related": [(True, 1)],
    "slopes": [(True, 2), (False, 2)],
    "all related": [(True, 2), (True, 1)],
    "three": [(False, 1), (True, 2), (True, 1)],
}


def make(kinds, small, monkeypatch):
    """`Latent` of a Poisson model, worked on whole or not."""
    monkeypatch.setattr(limits, "SMALL_ROWS", 4096 if small else 0)
    rng, blocks = np.random.default_rng(0), []
    for (related, r), J in zip(kinds, (13, 9, 11), strict=False):
        refs = rng.integers(J - 2, size=N).astype(np.int32)
        z = np.column_stack([np.ones(N), rng.normal(size=N)]) if r > 1 else None
        root = rng.normal(size=(J, J + 5))
        relation = Relationship(root @ root.T / J, range(J)) if related else None
        blocks.append(Block(refs, z, J, Unstructured(r), relation))
    X = np.column_stack([np.ones(N), rng.normal(size=N)])
    y = rng.poisson(np.exp(X @ [0.3, 0.3])).astype(float)
    family = families.resolve_family("poisson")
    response = family.bind(y, np.ones(N))
    design = Design(X, tuple(blocks))
    problem = standardize(
        design, response.y, response.weights, fit_intercept=True, reml=False, scale_y=False
    )
    likelihood = Likelihood.of(family, response.n_classes)
    return Latent(problem, likelihood, response.parameters, direct=True)


def theta_of(latent):
    rng = np.random.default_rng(1)
    covariances = latent.space.covariances
    factors = tuple(c.factor(rng.uniform(0.3, 0.8, c.n_params)) for c in covariances)
    return Theta(np.array([0.2, 0.3]), factors, np.zeros(0))


def approximation(latent, theta, probes=None):
    mode = latent.top(theta, np.zeros(latent.layout.size))
    return Approximation(latent, theta, mode, probes)


def dense(latent, theta):
    """Laplace's log-likelihood from Z and the covariance of all effects, written out."""
    rows, Z, covariance = latent.rows, [], []
    of_terms = zip(rows.refs, rows.z, theta.factors, latent.full.blocks, strict=True)
    for refs, z, L, block in of_terms:
        own = np.zeros((N, block.n_levels, block.r))
        own[np.arange(N), refs] = z
        Z.append(own.reshape(N, -1))
        A = np.eye(block.n_levels)
        A = A if block.relation is None else block.relation.relate(A)
        covariance.append(np.kron(A, L @ L.T))
    Z, covariance = np.hstack(Z), block_diag(*covariance)
    precision, b = np.linalg.inv(covariance), np.zeros(len(covariance))
    fixed = np.asarray(rows.X) @ theta.beta
    for _ in range(50):
        mean = np.exp(fixed + Z @ b)
        C = Z.T @ (mean[:, None] * Z) + precision
        b = b + np.linalg.solve(C, Z.T @ (rows.y - mean) - precision @ b)
    log_det = np.linalg.slogdet(covariance)[1] + np.linalg.slogdet(C)[1]
    value = poisson.logpmf(rows.y, np.exp(fixed + Z @ b)).sum()
    return value - 0.5 * (b @ precision @ b + log_det)


@pytest.mark.parametrize("small", [True, False])
@pytest.mark.parametrize("kinds", KINDS.values(), ids=KINDS)
def test_value_and_gradient(kinds, small, monkeypatch):
    latent = make(kinds, small, monkeypatch)
    theta, space, h = theta_of(latent), latent.space, 1e-4
    seen, flat = approximation(latent, theta), space.join(theta)
    assert seen.loglik == pytest.approx(dense(latent, theta), abs=1e-8)
    for slope, e in zip(seen.score, h * np.eye(space.size), strict=True):
        up, down = (dense(latent, space.split(flat + d)) for d in (e, -e))
        assert slope == pytest.approx((up - down) / (2 * h), abs=1e-5)


@pytest.mark.parametrize("kinds", KINDS.values(), ids=KINDS)
def test_draws_tell_the_gradient_where_there_is_no_factor(kinds, monkeypatch):
    latent = make(kinds, False, monkeypatch)
    exact = approximation(latent, theta_of(latent))
    for purpose in ("gradient", "solves"):
        monkeypatch.setitem(limits.FACTORISED, purpose, (-1, 0))
    latent = make(kinds, False, monkeypatch)
    scores = np.array(
        [approximation(latent, theta_of(latent), (seed, 200)).score for seed in range(8)]
    )
    error = scores.std(axis=0, ddof=1) / np.sqrt(len(scores))
    # Lanczos' method ends at a thousandth.
    away = np.abs(scores.mean(axis=0) - exact.score)
    assert (away < 4 * error + 2e-3 * np.abs(exact.score)).all()
