"""Sums of batches beside the rows themselves, in the same standard units."""

import pickle

import numpy as np
import pytest
from scipy import sparse

from sklmm.covariances import Diagonal, Unstructured
from sklmm.design.design import Block, Design
from sklmm.engine.rows.pair_sums import PairSums
from sklmm.engine.rows.parted import JoinedPattern
from sklmm.engine.rows.standardize import standardize
from sklmm.engine.rows.sufficient import Statistics, Units
from sklmm.engine.rows.summed import problem_of

LEVELS = 12, 12, 7


def design(n=400, seed=0):
    """Two terms over one partition, whose levels are numbered otherwise, and a crossed one."""
    rng = np.random.default_rng(seed)
    X = np.column_stack([np.ones(n), 1e4 + rng.normal(size=n), rng.exponential(size=n)])
    g, h = rng.integers(0, 12, n), rng.integers(0, 7, n)
    again = rng.permutation(12)[g]
    z = np.column_stack([np.ones(n), X[:, 1]])
    blocks = (
        Block(g.astype(np.int32), z, 12, Unstructured(2)),
        Block(again.astype(np.int32), X[:, 2:], 12, Unstructured(1)),
        Block(h.astype(np.int32), np.column_stack([np.ones(n), X[:, 2]]), 7, Diagonal(2)),
    )
    return Design(X, blocks, rng.normal(size=n)), 50 + X[:, 2] + rng.normal(size=n)


def batched(whole, y, weights, parts):
    """`Statistics` of the rows in parts, by their own levels, joined."""
    own, places = [], []
    for rows in parts:
        blocks, at = [], []
        for block in whole.blocks:
            found, refs = np.unique(block.refs[rows], return_inverse=True)
            at.append(found)
            blocks.append(Block(refs.astype(np.int32), block.z[rows], len(found), block.covariance))
        design = Design(whole.X[rows], tuple(blocks), whole.offset[rows])
        if not own:
            units = Units.of(design, y[rows], weights[rows], fit_intercept=True)
        own.append(Statistics.of(units, design, y[rows], weights[rows], fit_intercept=True))
        places.append(at)
    return Statistics.joined(own, places, [block.n_levels for block in whole.blocks])


@pytest.fixture(scope="module")
def problems():
    """The problem from rows, and from sums of them in parts."""
    whole, y = design()
    weights = np.random.default_rng(1).uniform(0.5, 3, len(y))
    known = {"fit_intercept": True, "reml": True}
    parts = np.array_split(np.random.default_rng(2).permutation(len(y)), 5)
    statistics = batched(whole, y, weights, parts)
    summed = problem_of(statistics, whole.blocks, ["1", "a", "b"], **known)
    return standardize(whole, y, weights, **known), summed


def close(one, two):
    """Whether arrays, or lists and tuples of them, are equal to rounding of their size."""
    if isinstance(one, tuple | list):
        assert len(one) == len(two)
        for own, other in zip(one, two, strict=True):
            close(own, other)
    else:
        np.testing.assert_allclose(
            one, two, rtol=0, atol=1e-9 * max(np.abs(two).max(initial=0.0), 1e-9)
        )


def test_units_are_those_of_the_rows(problems):
    rows, summed = problems
    for name in ("n", "y_centre", "y_scale", "basis", "z_bases", "log_det_basis"):
        close(getattr(summed, name), getattr(rows, name))
    assert (summed.p, summed.rank, summed.n_effects) == (rows.p, rows.rank, rows.n_effects)
    assert not summed.dropped.any()
    assert not summed.perfect


def test_sums_are_those_of_the_rows(problems):
    rows, summed = (problem.rows for problem in problems)
    assert summed.n_rows == rows.n_rows
    close(summed.blocks(), rows.blocks())
    close(summed.fixed(), rows.fixed())
    beta = np.array([0.3, -1.0, 0.2])
    close(summed.response(beta), rows.response(beta))
    for k, others in [(0, [1, 2]), (2, [0]), (1, [0]), (2, [])]:
        close(summed.pairs(k, others).matrix.toarray(), rows.pairs(k, others).matrix.toarray())
        assert summed.pairs(k, others).matrix.has_sorted_indices


def test_partitions_are_known_whatever_their_numbers(problems):
    rows, summed = (problem.rows for problem in problems)
    for k in range(3):
        for other in range(3):
            assert summed.same_levels(k, other) == ((k == 2) == (other == 2))
    for terms in ([0], [0, 1], [1, 0]):
        close(summed.block_of(terms), rows.block_of(terms))


def test_levels_that_meet_again_elsewhere_are_no_partition():
    whole, y = design()
    refs = whole.blocks[1].refs.copy()
    refs[-1] = (refs[-1] + 1) % 12
    blocks = (whole.blocks[0], Block(refs, None, 12, Unstructured(1)))
    whole = Design(whole.X, (blocks[0], Block(refs, np.ones((400, 1)), 12, Unstructured(1))), y * 0)
    statistics = batched(whole, y, np.ones(400), [np.arange(399), np.arange(399, 400)])
    assert statistics.pair(0, 1).partners is None


def test_levels_whose_sums_are_0_have_no_partners():
    # z is balanced, so that each level of g seems to stand beside one of h where it stands by two.
    g, h = np.repeat([0, 1], 4), np.tile([0, 0, 1, 1], 2)
    z = np.array([1.0, 1, 1, -1, 1, -1, 1, 1])
    blocks = (
        Block(g.astype(np.int32), z[:, None], 2, Unstructured(1)),
        Block(h.astype(np.int32), np.ones((8, 1)), 2, Unstructured(1)),
    )
    whole = Design(np.ones((8, 1)), blocks, np.zeros(8))
    statistics = batched(whole, z, np.ones(8), [np.arange(i, 8, 2) for i in (0, 1)])
    pair = statistics.pair(0, 1)
    assert pair.rows(0, 2).nnz == 2
    assert pair.partners is None
    assert pair.by(pair.terms[1]).partners is None


def test_partners_are_known_by_either_term():
    C = sparse.csr_array(np.array([[0.0, 2.0, 0.0], [3.0, 0.0, 0.0]]))
    pair = PairSums.of((0, 1), (1, 1), [C])
    np.testing.assert_array_equal(pair.partners, [1, 0])
    np.testing.assert_array_equal(pair.by(1).partners, [1, 0, -1])
    nested = PairSums.of((0, 1), (1, 1), [sparse.csr_array(np.array([[2.0], [3.0]]))])
    np.testing.assert_array_equal(nested.partners, [0, 0])
    assert nested.by(1).partners is None


def test_more_columns_than_32_bits_have():
    C = sparse.csr_array(np.array([[0.0, 2.0], [3.0, 4.0]]))
    places, sizes = (np.array([0, 2]), np.array([5, 2**31 + 7])), (3, 2**31 + 9)
    joined = PairSums.of((0, 1), (1, 1), [C]).between(0, 3, places, sizes)
    assert joined.blocks[0].indices.tolist() == [2**31 + 7, 5, 2**31 + 7]
    both = PairSums.added([joined, joined])
    assert both.blocks[0].indices.tolist() == [2**31 + 7, 5, 2**31 + 7]
    parts = [(C.data, places[1][C.indices], C.indptr)] * 2
    pattern = JoinedPattern(parts, (2, 2**31 + 9))
    found = pattern.matrix([values for values, _, _ in parts])
    assert found.indices.tolist() == [2**31 + 7, 5, 2**31 + 7]
    assert found.data.tolist() == [4, 6, 8]


def some_pairs(rng, J, K, r, q):
    """`PairSums` of a batch of 30 rows by its own levels, and these levels' places among all."""
    levels = [np.sort(rng.choice(n, n // 2, replace=False)) for n in (J, K)]
    one, two = (rng.integers(0, len(own), 30) for own in levels)
    Z = [
        sparse.csr_array(
            (rng.normal(size=30 * w), np.ravel(at[:, None] * w + np.arange(w)), np.arange(31) * w),
            (30, len(own) * w),
        )
        for at, own, w in zip((one, two), levels, (r, q), strict=True)
    ]
    C = (Z[0].T @ Z[1]).tocsr()
    C.sort_indices()
    return PairSums.of((0, 1), (r, q), [C]), levels


@pytest.mark.parametrize("in_order", [True, False])
@pytest.mark.parametrize(("r", "q"), [(1, 1), (2, 1), (1, 3)])
def test_joined_pairs_are_the_same_for_any_ranges(r, q, in_order):
    rng = np.random.default_rng(r + q)
    J, K = 20, 12
    parts, places = zip(*(some_pairs(rng, J, K, r, q) for _ in range(5)), strict=True)
    if not in_order:
        one, two = rng.permutation(J), rng.permutation(K)
        places = [(one[a], two[b]) for a, b in places]
    whole = PairSums.joined(parts, places, (J, K), [0, J])
    dense = np.zeros((J, r, K, q))
    for part, (a, b) in zip(parts, places, strict=True):
        dense[a[:, None], :, b] += (
            part.blocks[0].toarray().reshape(len(a), r, len(b), q).transpose(0, 2, 1, 3)
        )
    np.testing.assert_allclose(
        whole.rows(0, J).toarray(), dense.reshape(J * r, K * q), rtol=1e-14, atol=1e-15
    )
    for ends in ([0, 20], [0, 1, 7, 20], [0, 0, 5, 5, 13, 20, 20]):
        again = PairSums.joined(parts, places, (J, K), ends)
        assert again.n_levels == J
        for a, b in [(0, 20), (3, 14), (9, 9)]:
            one, two = whole.rows(a, b), again.rows(a, b)
            for name in ("data", "indices", "indptr"):
                np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
            assert two.has_sorted_indices
        # What is joined is a part of others.
        once = PairSums.joined(
            [again, parts[0]], [(np.arange(J), np.arange(K)), places[0]], (J, K), [0, J]
        )
        assert abs(once.rows(0, J) - whole.rows(0, J)).sum() > 0


def test_sums_of_parts_are_not_changed_by_joining_them():
    whole, y = design()
    known = {"fit_intercept": True}
    units = Units.of(whole, y, np.ones(400), **known)
    first = Statistics.of(units, whole, y, np.ones(400), **known)
    table, own = first.table.copy(), first.own[0].copy()
    entries = [pair.blocks[0].toarray() for pair in first.pairs]
    both = Statistics.joined([first, first], [list(map(np.arange, LEVELS))] * 2, LEVELS)
    assert both.n_rows == 800
    np.testing.assert_array_equal(both.own[0], 2 * own)
    np.testing.assert_array_equal(first.table, table)
    np.testing.assert_array_equal(first.own[0], own)
    for pair, before in zip(first.pairs, entries, strict=True):
        np.testing.assert_array_equal(pair.blocks[0].toarray(), before)


@pytest.mark.parametrize("value", [1.0, 255.0, 256.0, 0.5, -1.0, np.nan, np.inf])
def test_sums_that_travel_are_the_same(value):
    """Small counts do as bytes, and nothing else."""
    C = sparse.csr_array((np.array([3.0, value, 0.0]), [0, 2, 1], [0, 2, 3]), (2, 3))
    pairs = PairSums.of((0, 1), (1, 1), [C])
    back = pickle.loads(pickle.dumps(pairs))
    (found,) = back.blocks
    assert found.dtype == float
    np.testing.assert_array_equal(found.data, C.data)
    np.testing.assert_array_equal(found.toarray(), C.toarray())
    assert (pairs.__getstate__()["blocks"][0][0].dtype == np.uint8) == (value in (1.0, 255.0))
