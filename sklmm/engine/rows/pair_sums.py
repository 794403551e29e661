"""Sums over rows by pairs of two terms' levels, of a batch of rows and of several joined.

A sparse matrix of levels by levels, in blocks of consecutive levels of the first term. A block is
a range of levels that one thread makes at a time, or another process: the parts' own rows of a
range (`between`) are added up in the parts' order, whatever the range is. Where ranges stay in the
processes that make them, `rows.parted_pairs` has the same interface.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy import sparse

from sklmm._threads import in_threads
from sklmm.engine.linalg.blocks import LocalPairs, block_diagonal, csr_bytes, csr_rows, cuts

#: Blocks of many rows, at least and at most: a block is small beside the whole, and there are more
#: than threads. A block has about so many rows for each level of the second term, whose sums each
#: block has; and they are a power of two, as threads mostly are, which then have as many each.
BLOCKS = (4, 16)
ROWS_OF_BLOCK = 64


@dataclass(frozen=True, eq=False)
class PairSums:
    """Z_k^T w Z_l [J r, J' r'] for `terms` (k, l), or the rows of a range of levels of k.

    widths are (r, r'), `blocks` CSR matrices of consecutive levels, columns in order. `partners`
    [J] is the one level of l that each level of k stands beside, -1 of a level that has none; None
    where some have several, or may have: of terms over one partition of the rows they are known.
    """

    terms: tuple
    widths: tuple
    blocks: tuple
    partners: np.ndarray | None

    @classmethod
    def of(cls, terms, widths, blocks):
        """Those of a batch of rows; blocks have all entries of each pair of levels, zeros too."""
        (r, q), partners = widths, None
        if all((np.diff(C.indptr) == q).all() for C in blocks):
            partners = np.concatenate([C.indices[C.indptr[:-1:r]] // q for C in blocks])
        return cls(terms, widths, tuple(blocks), partners)

    @classmethod
    def joined(cls, parts, places, sizes, ends):
        """The sum of several parts, in their order.

        `places` of a part are those of its levels among all, (of the first term, of the second),
        and `sizes` the numbers of all. Blocks are the levels between two of `ends` each.
        """

        def one(*levels):
            pairs = zip(parts, places, strict=True)
            return cls.added([part.between(*levels, at, sizes) for part, at in pairs])

        return cls.beside(in_threads(one, ends[:-1], ends[1:]))

    def between(self, first, last, places, sizes):
        """The rows of the levels from first to before last of all `sizes`; see `joined`."""
        (r, q), (one, two) = self.widths, places
        if _in_order(one):
            a, b = np.searchsorted(one, [first, last])
            own, levels = self.rows(a, b), one[a:b]
        else:
            inside = np.flatnonzero((one >= first) & (one < last))
            inside = inside[np.argsort(one[inside])]
            own, levels = self.rows(0, len(one))[spread(inside, r)], one[inside]
        shape = (last - first) * r, sizes[1] * q
        kind = index_type(shape[1], own.nnz)
        counts = np.zeros(shape[0] + 1, kind)
        counts[1 + spread(levels - first, r)] = np.diff(own.indptr)
        columns = spread(two, q).astype(kind)[own.indices]
        C = sparse.csr_array((own.data, columns, np.cumsum(counts, dtype=kind)), shape)
        if not _in_order(two):
            C.sort_indices()
        partners = None
        if self.partners is not None:
            partners = np.full(last - first, -1)
            mine = self.partners[a:b] if _in_order(one) else self.partners[inside]
            partners[levels - first] = np.where(mine < 0, -1, two[mine])
        return PairSums(self.terms, self.widths, (C,), partners)

    @classmethod
    def added(cls, parts):
        """The sum of several parts' rows of one range of levels, in their order."""
        left = [own for part in parts for own in part.blocks]
        # By twos: SciPy merges two matrices at a time.
        while len(left) > 1:
            left = [
                left[i] if i + 1 == len(left) else left[i] + left[i + 1]
                for i in range(0, len(left), 2)
            ]
        partners = parts[0].partners
        for part in parts[1:]:
            partners = _agreed(partners, part.partners)
        return cls(parts[0].terms, parts[0].widths, tuple(left), partners)

    @classmethod
    def beside(cls, ranges):
        """The whole from ranges of levels that follow each other."""
        partners = [own.partners for own in ranges]
        partners = None if any(own is None for own in partners) else np.concatenate(partners)
        blocks = tuple(block for own in ranges for block in own.blocks)
        return cls(ranges[0].terms, ranges[0].widths, blocks, partners)

    def rows(self, first, last):
        """The rows of the levels from first to before last, CSR; not copied where it can be."""
        r, found = self.widths[0], []
        ends = np.cumsum([0, *(block.shape[0] for block in self.blocks)])
        for block, (a, b) in zip(self.blocks, pairwise(ends), strict=True):
            start, stop = max(first * r, a), min(last * r, b)
            if start < stop:
                found.append(csr_rows(block, start - a, stop - a))
        if len(found) < 2:
            return found[0] if found else csr_rows(self.blocks[0], 0, 0)
        return sparse.vstack(found, "csr")

    def by(self, k):
        """The same, with the levels of the term k as rows."""
        if self.terms[0] == k:
            return self
        whole, partners = self.rows(0, self.n_levels).T.tocsr(), None
        # Entries do not tell them: sums that are 0 are none.
        if self.partners is not None:
            known = np.flatnonzero(self.partners >= 0)
            partners = np.full(whole.shape[0] // self.widths[1], -1)
            partners[self.partners[known]] = known
            if not np.array_equal(partners[self.partners[known]], known):
                partners = None
        return PairSums(self.terms[::-1], self.widths[::-1], (whole,), partners)

    def standard(self, others, bases, unit, counts):
        """`LocalPairs` in standard units, `others` with the same levels as rows beside these.

        Those are unit A^T C B of the sums C, for bases (A [r, r], then B [r', r'] of each second
        term). counts [J] are the rows of each level.
        """

        def some(first, last):
            parts = zip([self, *others], bases[1:], strict=True)
            beside = [own._turned(first, last, bases[0], B, unit) for own, B in parts]
            return beside[0] if len(beside) == 1 else sparse.hstack(beside, "csr")

        ends = block_ends(counts, self.blocks[0].shape[1])
        return LocalPairs(in_threads(some, ends[:-1], ends[1:]), len(bases[0]))

    def _turned(self, first, last, A, B, unit):
        """unit A^T C B of the rows C of some levels."""
        own = self.rows(first, last)
        if len(A) == len(B) == 1:
            scale = unit * A[0, 0] * B[0, 0]
            data = own.data if scale == 1.0 else own.data * scale
            return sparse.csr_array((data, own.indices, own.indptr), own.shape)
        left = block_diagonal(np.broadcast_to(unit * A.T, (last - first, *A.shape)))
        right = block_diagonal(np.broadcast_to(B, (own.shape[1] // len(B), *B.shape)))
        own = (left @ own @ right).tocsr()
        own.sort_indices()
        return own

    @property
    def n_levels(self):
        """Number of levels of the first term."""
        return sum(block.shape[0] for block in self.blocks) // self.widths[0]

    @property
    def nbytes(self):
        """Bytes of the entries."""
        return sum(map(csr_bytes, self.blocks))

    def __sizeof__(self):
        # For schedulers, which keep tasks where they would have most to move.
        return object.__sizeof__(self) + self.nbytes

    def __getstate__(self):
        # Plain arrays, which any version of SciPy reads.
        plain = [(_packed(C.data), C.indices, C.indptr, C.shape) for C in self.blocks]
        return vars(self) | {"blocks": plain}

    def __setstate__(self, state):
        blocks = [
            sparse.csr_array((data.astype(float, copy=False), *ends), shape=tuple(shape))
            for data, *ends, shape in state["blocks"]
        ]
        self.__dict__.update(state | {"blocks": tuple(blocks)})


def block_ends(counts, n_columns):
    """First levels of a whole's blocks, and the last one's end, by the rows of each level [J]."""
    wanted = np.clip(counts.sum() / (ROWS_OF_BLOCK * max(n_columns, 1)), *BLOCKS)
    return cuts(counts, 1 << round(np.log2(wanted)))


def _packed(sums):
    """Sums as bytes where they are small counts, as those of intercepts mostly are; else as is.

    A pair of levels travels in 5 bytes then, and not in 12.
    """
    with np.errstate(invalid="ignore"):
        small = sums.astype(np.uint8)
    return small if np.array_equal(small, sums) else sums


def index_type(*largest):
    """Type of a matrix' indices, of which these are the largest."""
    return np.int32 if max(largest) <= np.iinfo(np.int32).max else np.int64


def ranks(order):
    """The inverse of a permutation."""
    out = np.empty_like(order)
    out[order] = np.arange(len(order))
    return out


def spread(levels, r):
    """Places of the effects of some levels, r each."""
    return levels if r == 1 else (levels[:, None] * r + np.arange(r)).ravel()


def _in_order(places):
    return bool((np.diff(places) > 0).all())


def _agreed(one, two):
    """Partners of the same levels in two parts; None where a level has two."""
    if one is None or two is None or ((one >= 0) & (two >= 0) & (one != two)).any():
        return None
    return np.where(one < 0, two, one)
