"""Sums of batches beside the rows themselves, in the same standard units."""

import numpy as np
import pytest

from sklmm.covariances import Diagonal, Unstructured
from sklmm.design.design import Block, Design
from sklmm.engine.rows.standardize import standardize
from sklmm.engine.rows.sufficient import Statistics
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
    """`Statistics` of the rows in parts, and each term's order of levels."""
    statistics, seen = None, [np.zeros(0, int) for _ in whole.blocks]
    for rows in parts:
        blocks, places = [], []
        for k, block in enumerate(whole.blocks):
            found, refs = np.unique(block.refs[rows], return_inverse=True)
            seen[k] = np.concatenate([seen[k], np.setdiff1d(found, seen[k])])
            places.append(np.array([int(np.flatnonzero(seen[k] == j)[0]) for j in found]))
            z = block.z[rows]
            blocks.append(Block(refs.astype(np.int32), z, len(found), block.covariance))
        own = Design(whole.X[rows], tuple(blocks), whole.offset[rows])
        statistics = Statistics.of(
            own, y[rows], weights[rows], fit_intercept=True, before=statistics, places=places
        )
    return statistics, [np.argsort(own) for own in seen]


@pytest.fixture(scope="module")
def problems():
    """The problem from rows, and from sums of them in parts."""
    whole, y = design()
    weights = np.random.default_rng(1).uniform(0.5, 3, len(y))
    known = {"fit_intercept": True, "reml": True}
    parts = np.array_split(np.random.default_rng(2).permutation(len(y)), 5)
    statistics, orders = batched(whole, y, weights, parts)
    summed = problem_of(statistics, orders, whole.blocks, ["1", "a", "b"], **known)
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
    statistics, _ = batched(whole, y, np.ones(400), [np.arange(399), np.arange(399, 400)])
    assert statistics.pair(0, 1).partners is None


def test_sums_are_never_changed():
    whole, y = design()
    first, _ = batched(whole, y, np.ones(400), [np.arange(200)])
    table, own = first.table.copy(), first.own[0].copy()
    entries = [pair.transposed().toarray() for pair in first.pairs]
    blocks = tuple(Block(b.refs[200:], b.z[200:], b.n_levels, b.covariance) for b in whole.blocks)
    places = [np.arange(J) for J in LEVELS]
    rest = Design(whole.X[200:], blocks, whole.offset[200:])
    both = Statistics.of(
        rest, y[200:], np.ones(200), fit_intercept=True, before=first, places=places
    )
    assert both.n_rows == 400
    np.testing.assert_array_equal(first.table, table)
    np.testing.assert_array_equal(first.own[0], own)
    for pair, before in zip(first.pairs, entries, strict=True):
        np.testing.assert_array_equal(pair.transposed().toarray(), before)


def test_many_batches_leave_few_matrices():
    whole, y = design()
    statistics, _ = batched(whole, y, np.ones(400), np.array_split(np.arange(400), 100))
    parts = [own for pair in statistics.pairs for own in pair.blocks]
    assert 1 < max(map(len, parts)) < 10
