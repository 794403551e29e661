"""The factorisation that eliminates the largest term, against dense matrices."""

import numpy as np
import pandas as pd
import pytest
from scipy.linalg import block_diag

from sklmm.design.design import DesignSpec
from sklmm.design.terms import resolve_terms
from sklmm.engine.equations.crossproducts import CrossProducts
from sklmm.engine.equations.schur_cholesky import SchurCholesky
from sklmm.engine.rows.standardize import standardize

REGULAR = {1: np.array([[0.7]]), 2: np.array([[0.6, 0.0], [0.3, 0.5]])}
SINGULAR = {1: np.array([[0.0]]), 2: np.array([[0.6, 0.0], [0.3, 0.0]])}
TINY = {1: np.array([[1e-6]]), 2: np.array([[1e-6, 0.0], [2e-7, 3e-7]])}


@pytest.mark.parametrize("factors", [REGULAR, SINGULAR, TINY], ids=["regular", "singular", "tiny"])
@pytest.mark.parametrize(
    "terms",
    [
        ["g"],
        ["g", "h"],
        ["(1 + s | g)", "h"],
        ["h", "(1 + s | g)", "(1 + x | k)"],
        ["k", "(1 | k:h)"],
    ],
    ids=" ".join,
)
def test_against_dense_matrices(terms, factors):
    rng = np.random.default_rng(0)
    n = 90
    table = pd.DataFrame(
        {"g": np.arange(n) % 13, "h": np.arange(n) % 7, "k": np.arange(n) % 4}
        | {"s": rng.normal(size=n), "x": rng.normal(size=n)}
    )
    _, design = DesignSpec.learn(table, resolve_terms(terms), ["x"], True)
    weights = rng.integers(1, 4, n).astype(float)
    problem = standardize(design, rng.normal(size=n), weights, fit_intercept=True, reml=True)
    L = [factors[b.r] for b in problem.blocks]
    s2 = 0.6
    cross = CrossProducts(problem)
    ours = SchurCholesky(cross, L, s2)

    order = sorted(range(len(L)), key=lambda k: cross.slices[k].start)
    Z = np.zeros((n, cross.Q))
    rows = problem.rows
    for refs, J, z, s in zip(rows.refs, rows.levels, rows.z, cross.slices, strict=True):
        Z[:, s] = np.einsum("nj,na->nja", np.eye(J)[refs], z).reshape(n, -1)
    lift = block_diag(*[np.kron(np.eye(problem.blocks[k].n_levels), L[k]) for k in order])
    H = lift.T @ Z.T @ (Z * weights[:, None]) @ lift / s2 + np.eye(cross.Q)
    V = Z @ lift @ lift.T @ Z.T + s2 * np.diag(1 / weights)
    inside = Z.T @ np.linalg.solve(V, Z)
    inverse = np.linalg.inv(H)

    assert ours.log_det == pytest.approx(np.linalg.slogdet(H)[1], abs=1e-9)
    right = rng.normal(size=(cross.Q, 3))
    np.testing.assert_allclose(ours.solve(right), inverse @ right, atol=1e-11)
    np.testing.assert_allclose(ours.solve(right[:, 0]), inverse @ right[:, 0], atol=1e-11)
    root = ours.root(np.eye(cross.Q))
    np.testing.assert_allclose(root @ root.T, inverse, atol=1e-11)
    np.testing.assert_allclose(cross.product(right), Z.T @ (weights[:, None] * (Z @ right)))
    for K, variance, s, b in zip(
        ours.traces(), ours.variances(), cross.slices, problem.blocks, strict=True
    ):
        levels = np.arange(b.n_levels)
        shape = (b.n_levels, b.r, b.n_levels, b.r)
        own = inside[s, s].reshape(shape)[levels, :, levels]
        np.testing.assert_allclose(K, own.sum(axis=0), rtol=1e-8, atol=1e-8)
        own = inverse[s, s].reshape(shape)[levels, :, levels]
        np.testing.assert_allclose(variance, own, atol=1e-11)
