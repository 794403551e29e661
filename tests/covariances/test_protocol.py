"""What the engine asks of a covariance, of each of the package's against differences."""

import numpy as np
import pytest
from scipy.optimize import minimize

from sklmm.covariances import (
    AR1,
    CompoundSymmetry,
    Diagonal,
    Pinned,
    Toeplitz,
    Unstructured,
)

RNG = np.random.default_rng(0)
ROOT = RNG.normal(size=(3, 3))
G = RNG.normal(size=(3, 3))
G = G + G.T
COVARIANCES = [Unstructured(3), Diagonal(3), Pinned((0.5, 1.0, 2.0))]
STRUCTURES = {
    "diag, hom": Diagonal(3, homogeneous=True),
    "cs": CompoundSymmetry(3),
    "cs of two": CompoundSymmetry(2),
    "cs, hom": CompoundSymmetry(4, heterogeneous=False),
    "ar1": AR1().over((0, 1, 2)),
    "ar1, gaps": AR1().over((1, 2, 5, 7)),
    "ar1, unequal": AR1().over((0, 0.7, 1.3, 4)),
    "ar1, het": AR1(heterogeneous=True).over((0, 1, 3)),
    "toep": Toeplitz(4),
    "toep, hom": Toeplitz(3, heterogeneous=False),
}


@pytest.fixture(params=COVARIANCES, ids=lambda c: type(c).__name__)
def covariance(request):
    return request.param


@pytest.fixture(params=STRUCTURES.values(), ids=STRUCTURES)
def structure(request):
    return request.param


def sigma(covariance, params):
    L = covariance.factor(params)
    return L @ L.T


def differences(function, at, h=1e-5):
    steps = h * np.eye(len(at))
    found = [(function(at + e) - function(at - e)) / (2 * h) for e in steps]
    return np.reshape(found, (len(at), *np.shape(function(at))))


def test_params_are_the_inverse_of_the_factor_whatever_its_signs(covariance):
    params = RNG.normal(size=covariance.n_params)
    L = covariance.factor(params)
    np.testing.assert_allclose(covariance.params(L), params)
    np.testing.assert_allclose(covariance.factor(covariance.fitted(L)) ** 2, L**2, atol=1e-12)
    turned = covariance.oriented(L)
    assert (np.diag(turned) >= 0).all()
    np.testing.assert_allclose(turned @ turned.T, L @ L.T)


def test_score_and_curvature_are_those_of_a_linear_function_of_sigma(covariance):
    params = RNG.normal(size=covariance.n_params)
    L = covariance.factor(params)

    def value(params):
        return np.sum(G * sigma(covariance, params))

    def score(params):
        return covariance.score(covariance.factor(params), G)

    np.testing.assert_allclose(covariance.score(L, G), differences(value, params), atol=1e-7)
    np.testing.assert_allclose(covariance.curvature(L, G), differences(score, params), atol=1e-7)


def test_fitted_is_the_maximum_likelihood(covariance):
    """Also from a root of more columns, and of a singular second moment."""
    second = ROOT @ ROOT.T

    def loss(params):
        S = sigma(covariance, params)
        return np.linalg.slogdet(S)[1] + np.trace(np.linalg.solve(S, second))

    found = covariance.fitted(ROOT)
    best = minimize(loss, found + 0.01, method="BFGS").fun if len(found) else loss(found)
    assert loss(found) == pytest.approx(best, abs=1e-8)
    wide = np.column_stack([ROOT / np.sqrt(2), ROOT / np.sqrt(2)])
    np.testing.assert_allclose(covariance.nearest(wide), covariance.nearest(ROOT), atol=1e-12)
    assert np.isfinite(covariance.nearest(np.ones((3, 3)))).all()


def test_what_leaves_the_boundary_is_where_the_likelihood_rises(covariance):
    L = covariance.factor(np.zeros(covariance.n_params))
    if not covariance.n_params:
        assert not covariance.at_boundary(L, 1e-4).any()
        assert covariance.leave_boundary(0 * L, np.eye(3), 1e-4, 0.05, 1e-6) is None
        return
    assert covariance.at_boundary(L, 1e-4).all()
    assert covariance.leave_boundary(L, -np.eye(3), 1e-4, 0.05, 1e-6) is None
    new = covariance.leave_boundary(L, np.diag([1.0, -1.0, -1.0]), 1e-4, 0.05, 1e-6)
    np.testing.assert_allclose(np.linalg.norm(new, axis=1), [0.05, 0, 0], atol=2e-6)


def test_a_step_of_lengths_moves_no_row_by_more(covariance):
    L, lengths = covariance.nearest(ROOT), np.array([0.5, 1.0, 2.0])
    for e, size in zip(covariance.slopes(L), covariance.in_params(L, lengths), strict=True):
        assert (np.linalg.norm(size * e, axis=1) <= lengths + 1e-12).all()


def test_known_sds_are_told_in_the_units_of_the_coefficients():
    assert Pinned((1.0, 2.0)).in_units(np.array([2.0, 0.5])) == Pinned((0.5, 4.0))


def params_of(structure, seed):
    """SDs of either sign, and angles beyond those whose C has a positive diagonal."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=structure.n_params)


@pytest.mark.parametrize("seed", range(6))
def test_a_factor_of_any_angles_has_its_parameters(structure, seed):
    L = structure.factor(params_of(structure, seed))
    assert (np.triu(L, 1) == 0).all()
    np.testing.assert_allclose(structure.factor(structure.params(L)), L, atol=1e-12)
    turned = structure.oriented(L)
    assert (np.diag(turned) >= 0).all()
    np.testing.assert_allclose(turned @ turned.T, L @ L.T, atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_derivatives_are_those_of_differences(structure, seed):
    params, r = params_of(structure, seed), structure.r
    # As the engine has them: of the parameters that a factor tells.
    params = structure.params(structure.factor(params))
    L = structure.factor(params)
    G = np.random.default_rng(seed).normal(size=(r, r))
    G = G + G.T

    def value(params):
        return np.sum(G * sigma(structure, params))

    def score(params):
        return (
            2
            * structure.slopes(structure.factor(params)).reshape(-1, r * r)
            @ (G @ structure.factor(params)).reshape(-1)
        )

    np.testing.assert_allclose(
        structure.slopes(L), differences(structure.factor, params), atol=1e-8
    )
    np.testing.assert_allclose(
        structure.bends(L),
        differences(lambda at: structure.slopes(structure.factor(at)), params),
        atol=1e-6,
    )
    np.testing.assert_allclose(structure.score(L, G), differences(value, params), atol=1e-7)
    np.testing.assert_allclose(structure.curvature(L, G), differences(score, params), atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_a_structure_is_fitted_by_maximum_likelihood(structure, seed):
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(structure.r, 2 * structure.r))
    second = root @ root.T

    def loss(params):
        S = sigma(structure, params)
        return np.linalg.slogdet(S)[1] + np.trace(np.linalg.solve(S, second))

    found = structure.fitted(root)
    if structure == STRUCTURES["ar1, unequal"] and found[-1] == np.arcsin(np.sqrt(0.05)):
        # The end of the range, off which an estimate is kept.
        return
    assert loss(found) == pytest.approx(minimize(loss, found + 0.01, method="BFGS").fun, abs=1e-8)
    L = structure.factor(found)
    np.testing.assert_allclose(structure.nearest(L), L, atol=1e-9)
    for singular in (np.ones((structure.r, 2)), np.zeros((structure.r, 1))):
        assert np.isfinite(structure.nearest(singular)).all()


def test_a_structure_leaves_its_boundary_where_the_likelihood_rises(structure):
    L, r = structure.nearest(np.zeros((structure.r, 1))), structure.r
    assert structure.at_boundary(L, 1e-4).all()
    assert structure.leave_boundary(L, -np.eye(r), 1e-4, 0.05, 1e-6) is None
    new = structure.leave_boundary(L, np.eye(r), 1e-4, 0.05, 1e-6)
    np.testing.assert_allclose(np.linalg.norm(new, axis=1), 0.05, rtol=0.01)
    # An inner point is none.
    assert not structure.at_boundary(structure.nearest(np.eye(r) + 0.3), 1e-4).any()


def test_a_step_of_lengths_moves_no_row_of_a_structure_by_more(structure):
    L = structure.nearest(np.eye(structure.r) + 0.3)
    lengths = np.linspace(0.1, 0.4, structure.r)
    sizes = structure.in_params(L, lengths)
    assert np.isfinite(sizes).all()
    params = structure.params(L)
    for e, size in zip(np.eye(len(sizes)), sizes, strict=True):
        change = structure.factor(params + size * e) - L
        assert (np.linalg.norm(change, axis=1) <= 1.3 * lengths).all()
    assert np.isfinite(structure.in_params(0 * L, lengths)).all()


def test_matrices_are_those_of_the_formulas():
    c, d = 0.6, np.array([1.0, 2.0, 0.5])
    cases = {
        AR1().over((0, 1, 3)): 4 * np.array([[1, c, c**3], [c, 1, c**2], [c**3, c**2, 1]]),
        AR1().over((0, 1.5, 1.75)): np.array([[1, c**6, c**7], [c**6, 1, c], [c**7, c, 1]]),
        CompoundSymmetry(3): np.outer(d, d) * ((1 - c) * np.eye(3) + c),
        Toeplitz(3): np.outer(d, d) * np.array([[1, c, 0.1], [c, 1, c], [0.1, c, 1]]),
        AR1().over((0, 1, 2)): np.array([[1, -c, c**2], [-c, 1, -c], [c**2, -c, 1]]),
    }
    for covariance, matrix in cases.items():
        L = covariance.nearest(np.linalg.cholesky(matrix))
        np.testing.assert_allclose(L @ L.T, matrix, atol=1e-8)
    # Phi is over the smallest distance.
    assert AR1().over((0, 1.5, 1.75)).named(("a", "b", "c"), "t") == ("t", "t: phi (0.25 apart)")


def test_a_correlation_of_one_is_a_regular_point():
    for covariance in (AR1().over(range(5)), CompoundSymmetry(4), Toeplitz(3)):
        n = covariance.n_params - covariance.n_angles
        angle = 0.0 if isinstance(covariance, CompoundSymmetry) else np.pi / 2
        params = np.append(np.ones(n), np.full(covariance.n_angles, angle))
        L = covariance.factor(params)
        np.testing.assert_allclose(np.abs(L @ L.T), np.ones((covariance.r,) * 2), atol=1e-12)
        assert covariance.at_boundary(L, 1e-4)[n:].all()
        assert not covariance.at_boundary(L, 1e-4)[:n].any()
        score = covariance.score(L, np.full((covariance.r,) * 2, -1.0))
        np.testing.assert_allclose(score[n:], 0, atol=1e-9)
        assert np.isfinite(covariance.bends(L)).all()


def test_places_of_toeplitz_are_equally_spaced():
    with pytest.raises(ValueError, match=r"none between 2 and 5.*categorical.*ar1"):
        Toeplitz().over((1, 2, 5))
