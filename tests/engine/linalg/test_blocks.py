"""Inverses and factors of blocks, and what they say of matrices that have none."""

import numpy as np
import pytest

from sklmm.engine.linalg.blocks import (
    LEAF,
    MANY,
    by_triangle,
    inverse_triangle,
    invert,
    lower_factor,
    roots,
)


@pytest.mark.parametrize("n_levels", [MANY, MANY + 1])
def test_inverses_of_few_and_of_many_blocks(n_levels):
    root = np.random.default_rng(0).normal(size=(n_levels, 2, 2))
    blocks = root @ root.transpose(0, 2, 1) + 0.1 * np.eye(2)
    np.testing.assert_allclose(
        invert(blocks) @ blocks, np.tile(np.eye(2), (n_levels, 1, 1)), atol=1e-10
    )
    blocks[3] = 1.0
    with pytest.raises(np.linalg.LinAlgError):
        invert(blocks)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, -2.0])
@pytest.mark.parametrize("place", [(0, 0), (2, 1), (3, 0), (3, 3)])
@pytest.mark.parametrize("factor", [lower_factor, lambda square: roots(np.stack([square] * 2))])
def test_only_finite_positive_matrices_have_a_factor(factor, place, wrong):
    square = np.eye(4)
    assert np.array_equal(np.ravel(factor(square))[:16], np.eye(4).ravel())
    square[place] = square[place[::-1]] = wrong
    with pytest.raises(np.linalg.LinAlgError, match="not positive"):
        factor(square)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, 0.0])
def test_so_it_is_of_levels_of_one_effect(wrong):
    with pytest.raises(np.linalg.LinAlgError, match="not positive"):
        roots(np.array([1.0, wrong])[:, None, None])


@pytest.mark.parametrize("k", [0, 3, LEAF + 4])
def test_a_singular_triangle_has_no_inverse(k):
    lower = np.tril(np.full((LEAF + 5,) * 2, 0.1)) + np.eye(LEAF + 5)
    np.testing.assert_allclose(inverse_triangle(lower) @ lower, np.eye(LEAF + 5), atol=1e-12)
    right = np.ones((LEAF + 5, 2))
    np.testing.assert_allclose(lower @ by_triangle(lower, right), right)
    lower[k, k] = 0.0
    for look in (inverse_triangle, lambda lower: by_triangle(lower, right)):
        with pytest.raises(np.linalg.LinAlgError, match="singular"):
            look(lower)
