"""Pairs of levels in ranges of the first term's levels, each with an owner elsewhere.

An owner keeps its range of C for a whole fit, and is sent the vectors that C is multiplied by: of
the first term's effects its own ones, of the others' all. What the owners answer is put one after
another, or added: an operation is one call of each. An `Executor` knows where they are.
"""

from functools import cached_property
from itertools import chain, pairwise

import numpy as np
from scipy import sparse

from sklmm.engine.linalg.blocks import LocalPairs
from sklmm.engine.rows.pair_sums import PairSums
from sklmm.engine.rows.protocol import Each
from sklmm.engine.rows.sufficient import pairs_of


class PartedSums:
    """`PairSums` of `terms` in ranges, which `executor` keeps: `kept` are handles of them, `Each`.

    `ends` are the first levels of the ranges, and the last one's end; `n_others` is the number of
    the second term's levels.
    """

    def __init__(self, executor, kept, terms, ends, n_others):
        self.executor, self.kept, self.terms = executor, kept, terms
        self.ends, self.n_others = ends, n_others

    @classmethod
    def of(cls, executor, parts, places, terms, ends, sizes):
        """From handles of parts' `PairSums` of the terms, added in their order.

        `places` are handles of the places of a part's levels among all, an array a term, and
        `sizes` the numbers of all.
        """
        sizes = [sizes[k] for k in terms]
        cuts = [executor.kept(cut, parts, places, *own, sizes) for own in pairwise(ends)]
        groups = np.arange(len(cuts) * len(parts)).reshape(len(cuts), -1).tolist()
        kept = executor.joined(PairSums.added, Each(chain(*cuts)), groups)
        return cls(executor, kept, terms, ends, sizes[1])

    @property
    def nbytes(self):
        """Bytes of the entries that are in this process."""
        return 0

    @property
    def whole(self):
        """The `PairSums`, gathered in this process."""
        return PairSums.beside(self.executor.told(itself, self.kept))

    @cached_property
    def partners(self):
        """As those of `PairSums`."""
        found = self.executor.told(partners, self.kept)
        return None if any(own is None for own in found) else np.concatenate(found)

    def by(self, k):
        """The same, or gathered in this process with the levels of the term k as rows."""
        if self.terms[0] == k:
            return self
        return self.whole.by(k)

    def standard(self, others, bases, unit, counts):
        """`PartedPairs` in standard units: see `PairSums.standard`; others are `PartedSums`."""
        handles = [other.kept for other in others]
        own = Each(counts[a:b] for a, b in pairwise(self.ends))
        kept = self.executor.kept(standard, bases, unit, own, self.kept, *handles)
        parts = zip([self, *others], bases[1:], strict=True)
        columns = sum(one.n_others * len(B) for one, B in parts)
        return PartedPairs(self.executor, kept, self.ends, len(bases[0]), columns)


class PartedPairs:
    """`engine.rows.protocol.Pairs` of C [J * r, Q], of whose ranges `kept` are `LocalPairs`."""

    def __init__(self, executor, kept, ends, r, columns):
        self.executor, self.kept = executor, kept
        self.shape = ends[-1] * r, columns
        self._levels = [slice(a, b) for a, b in pairwise(ends)]
        self._rows = [slice(a * r, b * r) for a, b in pairwise(ends)]

    def _told(self, method, *arguments):
        return self.executor.told(method, self.kept, *arguments)

    def _sum(self, method, *arguments):
        return self.executor.summed(method, self.kept, *arguments)

    def _of_levels(self, blocks):
        return Each(blocks[own] for own in self._levels)

    def _of_rows(self, flat):
        return Each(flat[own] for own in self._rows)

    def down(self, flat):
        """C flat."""
        if not flat.size:
            return np.zeros((self.shape[0], *flat.shape[1:]))
        return np.concatenate(self._told(LocalPairs.down, flat))

    def up(self, flat):
        """C^T flat."""
        if not flat.size:
            return np.zeros((self.shape[1], *flat.shape[1:]))
        return self._sum(LocalPairs.up, self._of_rows(flat))

    def around(self, blocks, flat):
        """C^T blocks C flat, for blocks [J, r, r]."""
        if not flat.size:
            return np.zeros(flat.shape)
        return self._sum(LocalPairs.around, self._of_levels(blocks), flat)

    def own(self, blocks, place, q):
        """Diagonal blocks [J', q, q] of C^T blocks C, of the columns at a `place`."""
        return self._sum(LocalPairs.own, self._of_levels(blocks), place, q)

    def squares(self, e, r):
        """Of C's squared entries S, S r [J * r, c] and S^T e [Q, c]."""
        down, up = zip(*self._told(LocalPairs.squares, self._of_rows(e), r), strict=True)
        return np.concatenate(down), sum(up)

    @cached_property
    def matrix(self):
        """C, a CSR matrix in this process."""
        return sparse.vstack(self._told(matrix), "csr")


def parted(executor, parts, places, statistics, n_ranges, blocks):
    """Sums of each two terms, from handles of parts' tuples of `PairSums`: for `Statistics.pairs`.

    Those with the term of most effects are `PartedSums` in so many ranges, of about as many rows;
    others are gathered. `statistics` are those of all parts, and `places` as in `PartedSums.of`.
    `blocks` are the design's: coupled ones are not that term.
    """
    sizes = [len(own) for own in statistics.counts]
    # It is the one that the equations eliminate.
    apart = [k for k, block in enumerate(blocks) if not block.coupled]
    largest, ends = max(apart, key=lambda k: statistics.own[k][..., 0].size, default=None), None
    if largest is not None:
        ends = np.cumsum(statistics.counts[largest])
        inner = np.searchsorted(ends, ends[-1] * np.arange(1, n_ranges) / n_ranges)
        ends = np.unique([0, *inner, len(ends)]).tolist()
    out = []
    for terms in pairs_of([block.tied for block in blocks], statistics.units.order):
        if largest in terms:
            terms = largest, *(k for k in terms if k != largest)
        own = executor.kept(of_terms, parts, terms)
        mine = ends if terms[0] == largest else [0, sizes[terms[0]]]
        sums = PartedSums.of(executor, own, places, terms, mine, sizes)
        out.append(sums if terms[0] == largest else sums.whole)
    return tuple(out)


def of_terms(pairs, terms):
    """A part's `PairSums` of two terms, the levels of the first as rows."""
    return next(own for own in pairs if set(own.terms) == set(terms)).by(terms[0])


def cut(pairs, places, first, last, sizes):
    """A part's own rows of a range of levels: `PairSums.between`, by the `places` of all terms."""
    return pairs.between(first, last, [places[k] for k in pairs.terms], sizes)


def standard(bases, unit, counts, first, *others):
    """`PairSums.standard` of a range."""
    return first.standard(others, bases, unit, counts)


def partners(sums):
    """`PairSums.partners` of a range."""
    return sums.partners


def itself(sums):
    """A range of `PairSums`."""
    return sums


def matrix(pairs):
    """A range of C."""
    return pairs.matrix
