"""Covariances side by side are those of their parts."""

import numpy as np
import pytest
from scipy.linalg import block_diag

from sklmm.covariances import CompoundSymmetry, Diagonal, Pinned, Unstructured
from sklmm.covariances.beside import Beside

PARTS = (Unstructured(2), Diagonal(1), CompoundSymmetry(3), Pinned((0.5,)))


@pytest.fixture
def beside():
    """(The covariance, its parameters, its factor)."""
    made = Beside(PARTS)
    params = np.random.default_rng(0).uniform(0.3, 0.9, made.n_params)
    return made, params, made.factor(params)


def test_factors_and_parameters_are_the_parts(beside):
    made, params, L = beside
    assert made.r == 7
    np.testing.assert_allclose(made.params(L), params, atol=1e-8)
    first = 0
    for part, columns in zip(PARTS, made.columns, strict=True):
        own = params[first : first + part.n_params]
        np.testing.assert_allclose(L[columns, columns], part.factor(own))
        first += part.n_params
    apart = block_diag(*(np.ones((part.r, part.r)) for part in PARTS))
    assert not L[apart == 0].any()
    names = [made.reported[own] for own in made.reports]
    assert names[0] == ((0, 0), (1, 1), (1, 0))
    assert names[1] == ((2, 2),)


def test_derivatives_are_those_of_the_factor(beside):
    made, params, L = beside
    h = 1e-5
    for i, e in enumerate(h * np.eye(len(params))):
        up, down = (made.factor(params + s * e) for s in (1, -1))
        np.testing.assert_allclose(made.slopes(L)[i], (up - down) / (2 * h), atol=1e-6)
        bent = (made.slopes(up) - made.slopes(down)) / (2 * h)
        np.testing.assert_allclose(made.bends(L)[i], bent, atol=1e-3)


def test_the_nearest_factor_is_that_of_each_part(beside):
    made, _, L = beside
    np.testing.assert_allclose(made.nearest(L) @ made.nearest(L).T, L @ L.T, atol=1e-5)
    assert made.at(L) is made
    boundary = made.at_boundary(made.factor(np.zeros(made.n_params)), 1e-4)
    assert boundary.shape == (len(made.reported),)
    assert boundary[:4].all()
    raised = made.leave_boundary(np.zeros((7, 7)), np.eye(7), 1e-4, 0.1, 0.0)
    assert (np.diag(raised)[:3] > 0).all()
