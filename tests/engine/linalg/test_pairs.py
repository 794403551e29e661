"""Products with pairs of levels in parts, as SciPy makes them of the whole matrix."""

from itertools import pairwise

import numpy as np
import pytest
from scipy import sparse

from sklmm._threads import sharing
from sklmm.engine.linalg.blocks import ADDED, LINE, LocalPairs, block_diagonal
from sklmm.engine.rows.pair_sums import BLOCKS, ROWS_OF_BLOCK, block_ends


@pytest.mark.parametrize("r", [1, 2])
@pytest.mark.parametrize("n_parts", [1, 5])
@pytest.mark.parametrize("columns", [(), (1,), (LINE,), (2 * LINE,), (4 * LINE + 3,)])
def test_products_by_few_and_many_columns(r, n_parts, columns):
    """Many go by some at a time; sums of parts, by ranges: here both factors need several."""
    rng, J, Q = np.random.default_rng(0), 300, 20_000
    assert Q > 2 * ADDED
    entries = 60_000 * r
    places = rng.integers(0, J * r, entries), rng.integers(0, Q, entries)
    C = sparse.coo_array((rng.random(entries), places), (J * r, Q)).tocsr()
    ends = np.linspace(0, J, n_parts + 1).astype(int) * r
    pairs = LocalPairs([C[a:b] for a, b in pairwise(ends)], r)
    flat, e = rng.standard_normal((Q, *columns)), rng.standard_normal((J * r, *columns))
    blocks = rng.standard_normal((J, r, r))
    given = flat.copy(), e.copy()
    found = []
    for threads in (1, 3):
        with sharing(threads):
            found.append((pairs.down(flat), pairs.up(e), pairs.around(blocks, flat)))
    expected = C @ flat, C.T @ e, C.T @ (block_diagonal(blocks) @ (C @ flat))
    for one, other, own in zip(*found, expected, strict=True):
        np.testing.assert_array_equal(one, other)
        np.testing.assert_allclose(one, own, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(flat, given[0])
    np.testing.assert_array_equal(e, given[1])


def test_blocks_are_as_many_as_their_sums_allow():
    """Each has a sum of its own for every level of the other term."""
    counts = np.full(1000, 1000)
    enough = counts.sum() // ROWS_OF_BLOCK
    for n_columns, n in (
        (1, BLOCKS[1]),
        (enough // 9, 8),
        (enough // 7, 8),
        (enough, BLOCKS[0]),
        (0, BLOCKS[1]),
    ):
        assert len(block_ends(counts, n_columns)) == n + 1
    assert block_ends(np.zeros(0, int), 5) == [0, 0]
