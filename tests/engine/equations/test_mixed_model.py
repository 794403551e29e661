"""The equations at weights of any family: every solver against the dense matrix C."""

import numpy as np
import pandas as pd
import pytest

from sklmm.engine.equations.mixed_model import Equations, lower_root
from tests.engine.latent.test_complete_data import make_latent, theta_for

TERMS = {"one": ["(1 + s | g)"], "crossed": ["(1 | h)", "(1 + s | g)"], "none": []}


@pytest.fixture(params=TERMS)
def latent(request):
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"g": rng.permutation(96) % 20, "h": rng.permutation(96) % 7})
    table["s"], y = rng.normal(size=96), rng.poisson(2.0, 96)
    return make_latent("poisson", table, y, TERMS[request.param], reml=True)


@pytest.fixture(params=["whole", "factor", "conjugate gradients"])
def equations(request, latent, monkeypatch):
    """The equations at random weights, by one of the solvers, and C [P, P] in their layout."""
    # Terms of few levels would be eliminated exactly.
    monkeypatch.setattr("sklmm.engine.equations.crossproducts.FEW", 0)
    weights, theta = np.random.default_rng(1).uniform(0.5, 2, 96), theta_for(latent, "poisson")
    whole = latent.equations(theta, weights)
    factors, dense = tuple(theta.factors), request.param == "factor"
    ours = whole
    if request.param != "whole":
        ours = Equations.of(whole.cross, factors, latent.layout, dense, 1e-12)
    layout, rows = latent.layout, latent.problem.rows
    of_terms = zip(rows.refs, rows.z, factors, layout.shapes, strict=True)
    Z = [np.einsum("nj,na->nja", np.eye(J)[refs], z @ L) for refs, z, L, (J, _) in of_terms]
    W = np.hstack([rows.X, *(part.reshape(96, -1) for part in Z)])
    prior = np.diag((np.arange(layout.size) >= layout.p).astype(float))
    return ours, (W.T * weights) @ W + prior


def test_every_solver_is_the_dense_one(equations, latent):
    ours, C = equations
    p, known = latent.layout.p, latent.layout.real
    right = np.random.default_rng(2).normal(size=(len(C), 3)) * known[:, None]
    # As accurate as asked for, and told not to be otherwise.
    np.testing.assert_allclose(ours.solve(right), np.linalg.solve(C, right), atol=1e-9)
    assert ours.unsolved == 0
    held = right * (np.arange(len(C)) >= p)[:, None]
    np.testing.assert_allclose(ours.apply(held)[p:], (C @ held)[p:], atol=1e-9)
    np.testing.assert_array_equal(ours.apply(held)[:p], 0)
    inverse = np.linalg.inv(C)[np.ix_(known, known)]
    root = ours.root(np.eye(ours.n_unknowns))[known]
    # Lanczos' method ends at three digits.
    tolerance = 1e-10 if ours.factorised else 5e-3
    np.testing.assert_allclose(root @ root.T, inverse, atol=tolerance)
    gap = ours.log_det() - np.linalg.slogdet(C)[1]
    assert abs(gap) < 4 * ours.log_det_error + 1e-7
    first = p
    for own, (J, r) in zip(ours.own_blocks(), latent.layout.shapes, strict=True):
        square = C[first : first + J * r, first : first + J * r].reshape(J, r, J, r)
        expected = square[np.arange(len(own)), :, np.arange(len(own))]
        np.testing.assert_allclose(own, expected, atol=1e-10)
        first += J * r


def test_what_elimination_knows_is_every_solvers(equations, latent):
    ours, C = equations
    layout, p = latent.layout, latent.layout.p
    # Every part of the class is there, whichever the solver.
    plain = Equations.of(ours.cross, ours.factors, layout, True, 0.0)
    for name in {*vars(Equations), *vars(plain)}:
        assert hasattr(ours, name), name
    X, U = np.arange(p), ours.place
    H, R = C[np.ix_(U, U)], C[np.ix_(U, X)]
    np.testing.assert_allclose(ours.R, R, atol=1e-10)
    np.testing.assert_allclose(ours.HR, np.linalg.solve(H, R), atol=1e-9)
    S = C[:p, :p] - R.T @ np.linalg.solve(H, R)
    np.testing.assert_allclose(ours.S, S, atol=1e-9)
    np.testing.assert_allclose(ours.S_factor, np.linalg.cholesky(S), atol=1e-9)
    right = np.random.default_rng(2).normal(size=(len(C), 2)) * layout.real[:, None]
    np.testing.assert_allclose(ours.solve_s(right[:p]), np.linalg.solve(S, right[:p]), atol=1e-9)
    solution = ours.solve(right, "series", 1e-12)
    np.testing.assert_allclose(solution, np.linalg.solve(C, right), atol=1e-9)
    lifted = ours.cross.lift(ours.factors, ours.GHR, transpose=True) + ours.HR
    np.testing.assert_allclose(lifted, R, atol=1e-9)
    inverse = np.zeros_like(C)
    inverse[np.ix_(U, U)] = np.linalg.inv(H)
    parts = zip(ours.variances(), layout.parts, layout.shapes, layout.levels, strict=True)
    for own, part, (J, r), n in parts:
        square, levels = inverse[part, part].reshape(J, r, J, r), np.arange(n)
        # Draws tell what conjugate gradients do not.
        tolerance = 1e-10 if ours.factorised else 2e-2
        np.testing.assert_allclose(own, square[levels, :, levels], atol=tolerance)


def test_equations_at_other_factors(equations, latent):
    ours, _ = equations
    units = [np.eye(len(L)) for L in ours.factors]
    right = np.random.default_rng(2).normal(size=(latent.layout.size, 2))
    right *= latent.layout.real[:, None]
    there, known = (
        own.at(units, 1e-12)
        for own in (ours, Equations.of(ours.cross, ours.factors, ours.layout, True, 0.0))
    )
    np.testing.assert_allclose(there.solve(right), known.solve(right), atol=1e-9)
    assert there.weights is ours.weights
    # The border's solve is as rough as it may be.
    tolerance = 1e-8 if there.factorised else 5e-2
    for own, expected in zip(there.marginal, known.marginal, strict=True):
        np.testing.assert_allclose(own, expected, atol=tolerance)


def test_draws_have_their_covariance(equations, latent):
    ours, C = equations
    known = latent.layout.real
    draws = ours.draws(np.random.default_rng(0), 4 * len(C))
    np.testing.assert_array_equal(draws[:, : 2 * len(C)], -draws[:, 2 * len(C) :])
    inverse = np.linalg.inv(C)[np.ix_(known, known)]
    found = (draws @ draws.T / draws.shape[1])[np.ix_(known, known)]
    np.testing.assert_allclose(found, inverse, atol=1e-9 if ours.factorised else 5e-3)


def test_a_root_of_a_singular_matrix_is_one_of_what_is_known():
    x = np.random.default_rng(0).normal(size=(5, 3))
    lower = lower_root(x @ x.T)
    np.testing.assert_allclose(lower @ lower.T, x @ x.T, atol=1e-12)
    assert (np.diag(lower) >= 0).all()
    with pytest.raises(np.linalg.LinAlgError):
        lower_root(x @ x.T - np.eye(5))
