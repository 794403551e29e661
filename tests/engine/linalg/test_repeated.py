"""Blocks of which many are equal, beside the arrays that they stand for."""

import numpy as np
import pytest

from sklmm.design.indicators import Indicators, quadratic
from sklmm.engine.linalg.blocks import block_diagonal, congruent, invert, roots, turn
from sklmm.engine.linalg.repeated import Repeated


def made(n_blocks, J=40, r=4, seed=0):
    rng = np.random.default_rng(seed)
    half = rng.normal(size=(n_blocks, r, r))
    own = half @ half.transpose(0, 2, 1) + np.eye(r)
    return own[np.arange(J) % n_blocks]


@pytest.mark.parametrize("n_blocks", [1, 3])
def test_equal_blocks_are_found_and_work_as_all_of_them(n_blocks):
    array, rng = made(n_blocks), np.random.default_rng(1)
    ours = Repeated.of(array * (1 + 1e-15 * rng.integers(2, size=(40, 1, 1))))
    assert isinstance(ours, Repeated)
    assert ours.blocks.shape == (n_blocks, 4, 4)
    assert ours.shape == array.shape
    assert len(ours) == 40
    levels, places = rng.integers(40, size=60), rng.integers(4, size=60)
    z = Indicators(places, 4)
    L, flat = np.tril(rng.normal(size=(4, 4))), rng.normal(size=(160, 3))
    for found, expected in [
        (ours, array),
        (ours[5:9], array[5:9]),
        (ours[:, 1], array[:, 1]),
        (ours[levels, places, places], array[levels, places, places]),
        (ours[levels, :, 1], array[levels, :, 1]),
        (quadratic(z, ours, levels), quadratic(np.asarray(z), array, levels)),
        (congruent(L, ours), congruent(L, array)),
        (invert(ours), np.linalg.inv(array)),
        (roots(ours), np.linalg.cholesky(array)),
        (turn(ours, flat), turn(array, flat)),
        (turn(ours, flat[:, :1]), turn(array, flat[:, :1])),
        (turn(ours, flat[:, 0]), turn(array, flat[:, 0])),
        (np.eye(4) - ours @ invert(ours) / 2, np.eye(4) - array @ np.linalg.inv(array) / 2),
        (ours + array, 2 * array),
        (ours.sum(axis=0), array.sum(axis=0)),
        (ours.diagonal(0, 1, 2), array.diagonal(0, 1, 2)),
        ((ours @ L).transpose(0, 2, 1), (array @ L).transpose(0, 2, 1)),
        (block_diagonal(ours).toarray(), block_diagonal(array).toarray()),
    ]:
        np.testing.assert_allclose(np.asarray(found), expected, atol=1e-12)
    assert ours.counts.sum() == 40


def test_blocks_that_differ_stay_an_array():
    array = made(40)
    assert Repeated.of(array) is array
    few = made(1)
    few[3, 0, 1] = few[3, 1, 0] = few[3, 0, 1] + 1e-9
    assert len(Repeated.of(few).blocks) == 2
    # Blocks of two columns are as quick one by one.
    assert isinstance(Repeated.of(made(1, r=2)), np.ndarray)


@pytest.mark.parametrize("n_patterns", [1, 3, 40])
def test_diagonal_blocks_from_their_diagonals(n_patterns):
    rng = np.random.default_rng(0)
    values = rng.integers(0, 9, (n_patterns, 5))[rng.permutation(40) % n_patterns] * 1.0
    ours, flat = Repeated.diagonal_of(values), rng.normal(size=(200, 2))
    assert isinstance(ours, Repeated) == (n_patterns < 40)
    expected = np.zeros((40, 5, 5))
    expected[:, np.arange(5), np.arange(5)] = values
    np.testing.assert_array_equal(np.asarray(ours), expected)
    np.testing.assert_allclose(turn(ours, flat), turn(expected, flat))
