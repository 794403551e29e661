"""What the engine asks of a covariance, of each of the package's against differences."""

import numpy as np
import pytest
from scipy.optimize import minimize

from sklmm.covariances import Diagonal, Pinned, Unstructured

RNG = np.random.default_rng(0)
ROOT = RNG.normal(size=(3, 3))
G = RNG.normal(size=(3, 3))
G = G + G.T
COVARIANCES = [Unstructured(3), Diagonal(3), Pinned((0.5, 1.0, 2.0))]


@pytest.fixture(params=COVARIANCES, ids=lambda c: type(c).__name__)
def covariance(request):
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
