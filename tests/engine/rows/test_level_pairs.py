"""Sums over pairs of levels, in fragments that are joined, beside one dense sum."""

import numpy as np
import pytest

from sklmm._threads import summed
from sklmm.engine.rows.cross_products import (
    Fragment,
    LocalCrossProducts,
    Pattern,
    joined,
    loadings,
    memory,
)


def levels(n):
    rng = np.random.default_rng(0)
    return rng.integers(7, size=n).astype(np.int32), rng.integers(5, size=n).astype(np.int32)


def dense(one, two, values):
    """Sums [7 * r, 5 * q] of values [n, r, q]."""
    out = np.zeros((7, values.shape[1], 5, values.shape[2]))
    np.add.at(out.transpose(0, 2, 1, 3), (one, two), values)
    return out.reshape(7 * values.shape[1], -1)


@pytest.mark.parametrize("size", [200, 13, 1])
@pytest.mark.parametrize("shape", [None, (1, 1), (2, 3)])
def test_fragments_joined_are_the_sums_of_the_whole(size, shape):
    one, two = levels(60)
    values = np.random.default_rng(1).normal(size=(60, *(shape or (1, 1))))
    if shape is None:
        values[:] = 1.0
    batches = [slice(first, first + size) for first in range(0, 60, size)]
    pairs = memory(60, 7, 5)
    fragments = [
        Fragment.of(
            one[rows], two[rows], 5, None if shape is None else values[rows], out=pairs[rows]
        )
        for rows in batches
    ]
    r, expected = values.shape[1], dense(one, two, values)
    for first, last in [(0, 7), (2, 5), (3, 3)]:
        found = joined(fragments, first, last, 5)
        assert found.has_canonical_format
        np.testing.assert_allclose(found.toarray(), expected[first * r : last * r], atol=1e-12)


@pytest.mark.parametrize("cuts", [[0, 7], [0, 1, 4, 7]])
def test_a_pattern_has_the_sums_of_any_values(cuts):
    one, two = levels(60)
    patterns = Pattern.each(one, two, cuts, 5)
    for seed in range(2):
        values = np.random.default_rng(seed).normal(size=(60, 2, 3))
        columns = [[values[:, a, b] for b in range(3)] for a in range(2)]
        found = np.concatenate([own.matrix(columns).toarray() for own in patterns])
        np.testing.assert_allclose(found, dense(one, two, values), atol=1e-12)


def test_sums_are_the_same_to_the_last_digit_by_any_number_of_threads(monkeypatch):
    values = np.random.default_rng(0).normal(size=10_000)

    def sums(rows):
        return float(values[rows].sum()), [np.cumsum(values[rows][:5])]

    found = []
    for n in (1, 2, 5):
        monkeypatch.setattr("sklmm._threads.n_threads", lambda n=n: n)
        found.append(summed(sums, len(values), 100))
    assert found[0][0] == pytest.approx(values.sum())
    for total, (array,) in found[1:]:
        assert total == found[0][0]
        np.testing.assert_array_equal(array, found[0][1][0])


@pytest.mark.parametrize("r", [1, 2])
def test_columns_of_ones_are_counted_only_where_each_term_has_one(r):
    """A slope that is constant is 1 in its own unit: its pairs have blocks all the same."""
    rng = np.random.default_rng(0)
    one, two, z = rng.integers(5, size=60), rng.integers(3, size=60), np.ones((60, r))
    rows = LocalCrossProducts(
        np.zeros(60), np.ones((60, 1)), np.ones(60), (one, two), (5, 3), (z, z)
    )
    expected = loadings(one, z, 5).T @ loadings(two, z, 3)
    np.testing.assert_array_equal(rows.pairs(0, [1]).matrix.toarray(), expected.toarray())
