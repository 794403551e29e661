"""Which pairs of levels occur in a table, and sums over the rows of each.

A batch of rows makes a `Fragment`: its pairs in order, as one number each, and their sums. That
stays in cache; fragments of all batches are joined once, each range of levels by itself. Where sums
of other values are to follow, as of the weights of a Newton step, a `Pattern` keeps the order.
"""

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from scipy import sparse

#: Rows of a batch.
FRAGMENT = 1 << 19


class Fragment(NamedTuple):
    """Pairs [m], sorted, and their sums [m, r, q]; pairs with repeats where the sums count them."""

    pairs: np.ndarray
    sums: np.ndarray | None

    @staticmethod
    def of(one, two, values=None, out=None):
        """From the levels [n] of two terms and the columns [n, r, q] to sum, None to count rows.

        `out` [n] is memory for the pairs, or None.
        """
        pairs = numbered(one, two, out)
        if values is None:
            pairs.sort()
            return Fragment(pairs, None)
        order = np.argsort(pairs)
        pairs = pairs[order]
        starts = firsts(pairs)
        return Fragment(pairs[starts], np.add.reduceat(values[order], starts))

    def between(self, first, last):
        """The pairs of levels from first to before last."""
        some = slice(*np.searchsorted(self.pairs, [first << 32, last << 32]))
        return Fragment(self.pairs[some], None if self.sums is None else self.sums[some])


class Csr(NamedTuple):
    """A matrix of levels by levels, whose entries are pairs: CSR's columns and ends of rows."""

    columns: np.ndarray
    ends: np.ndarray
    shape: tuple

    @staticmethod
    def of(pairs, first, last, n_columns):
        """From pairs, each once and in order, of levels from first to before last."""
        ends = np.searchsorted(pairs, np.arange(first, last + 1) << 32).astype(np.int32)
        return Csr(pairs.astype(np.uint32).view(np.int32), ends, (last - first, n_columns))

    def matrix(self, sums):
        """CSR matrix [J * r, K * q] of sums [m, r, q], or [m] of numbers."""
        if sums.shape[1:] in ((), (1, 1)):
            parts = np.asarray(sums.reshape(-1), float), self.columns, self.ends
            return sparse.csr_array(parts, self.shape)
        shape = self.shape[0] * sums.shape[1], self.shape[1] * sums.shape[2]
        return sparse.bsr_array((sums, self.columns, self.ends), shape).tocsr()


def numbered(one, two, out=None):
    """Pairs of levels [n] as a number each, in the order of the first and then the second."""
    pairs = np.empty(len(one), np.int64) if out is None else out
    pairs[:] = one
    pairs <<= 32
    pairs |= two
    return pairs


def firsts(pairs):
    """Where each of some sorted pairs stands first."""
    return np.flatnonzero(np.concatenate([[True], pairs[1:] != pairs[:-1]])[: len(pairs)])


def joined(fragments, first, last, n_columns):
    """CSR matrix of all fragments' sums, of the levels from first to before last."""
    some = [fragment.between(first, last) for fragment in fragments]
    pairs = np.concatenate([fragment.pairs for fragment in some])
    counts = some[0].sums is None
    if len(some) > 1 and counts:
        pairs.sort()
    elif len(some) > 1:
        # Of fragments that are sorted: they are merged, and rows keep their order.
        order = np.argsort(pairs, kind="stable")
        pairs = pairs[order]
    starts = firsts(pairs)
    if counts:
        sums = np.diff(starts, append=len(pairs))
    else:
        sums = np.concatenate([fragment.sums for fragment in some])
        if len(some) > 1:
            sums = np.add.reduceat(sums[order], starts)
    return Csr.of(pairs[starts], first, last, n_columns).matrix(sums)


class Pattern:
    """Pairs of the levels in a range, and the rows of each, for sums of one vector after another.

    From pairs [n] in order, the rows that have them, and how many rows there are.
    """

    def __init__(self, pairs, rows, n_rows, between, n_columns):
        starts = firsts(pairs)
        self.csr = Csr.of(pairs[starts], *between, n_columns)
        ends = np.append(starts, len(rows)).astype(np.int32)
        # Its product is a sum in compiled code, which other threads do not wait for.
        self._of_rows = sparse.csr_array((np.ones(len(rows)), rows, ends), (len(starts), n_rows))

    @staticmethod
    def each(one, two, cuts, n_columns):
        """A pattern for each range of levels between two neighbours of `cuts`, of levels [n]."""
        pairs = numbered(one, two)
        order = np.argsort(pairs)
        pairs, order = pairs[order], order.astype(np.int32)
        ends = np.searchsorted(pairs, np.array(cuts) << 32)
        return [
            Pattern(pairs[a:b], order[a:b], len(one), between, n_columns)
            for (a, b), between in zip(pairwise(ends), pairwise(cuts), strict=True)
        ]

    def matrix(self, columns):
        """CSR matrix of the sums of columns, a list of lists [r][q] of values [n_rows]."""
        sums = [[self._of_rows @ values for values in row] for row in columns]
        return self.csr.matrix(np.moveaxis(np.array(sums), 2, 0))
