"""Sums over rows by pairs of two terms' levels, added up from batches of rows.

Sparse matrices whose sum is meant, each of less than half the entries of the one before: so an
entry is merged a few times, however many batches there are. They are kept in blocks of the first
term's levels, so that a merge takes no memory to speak of. Levels are numbered in the order in
which they were met, and a matrix is as large as they were many when it was made.
"""

from dataclasses import dataclass, replace
from functools import reduce
from operator import add

import numpy as np
from scipy import sparse

from sklmm._threads import in_threads
from sklmm.engine.linalg.blocks import csr_rows

#: Levels of the first term in a block.
LEVELS = 1 << 14


@dataclass(frozen=True, eq=False)
class PairSums:
    """Z_k^T w Z_l [J r, J' r'] for `terms` (k, l); it is added to, never changed.

    widths are (r, r'), sizes (J, J'). `partners` [J] is the one level of l that each level of k
    stands beside, -1 of a level that has none yet; None where some have several.
    """

    terms: tuple
    widths: tuple
    sizes: tuple = (0, 0)
    blocks: tuple = ()
    partners: np.ndarray | None = None

    @classmethod
    def none(cls, terms, widths):
        """Those of no rows."""
        return cls(terms, widths, partners=np.zeros(0, int))

    def with_batch(self, C, places, sizes):
        """These sums and a batch's, C by its own levels, which have places among all of `sizes`."""
        (r, _), new = self.widths, self._embedded(C, places, sizes)
        partners = self._partnered(C, places, sizes[0])
        blocks = []
        for number, first in enumerate(range(0, sizes[0], LEVELS)):
            last = min(first + LEVELS, sizes[0])
            parts = self.blocks[number] if number < len(self.blocks) else ()
            blocks.append(_merged(parts, csr_rows(new, first * r, last * r)))
        return replace(self, sizes=sizes, blocks=tuple(blocks), partners=partners)

    def rows(self, parts):
        """The rows of each part's levels of the first term, in their order: CSR [n r, J' r']."""
        r = self.widths[0]
        # Levels of a part in the order of the blocks.
        orders = [np.argsort(levels // LEVELS, kind="stable") for levels in parts]
        by_block = [levels[order] for levels, order in zip(parts, orders, strict=True)]

        def pieces(number):
            own, first = self._block(number), number * LEVELS
            ends = [np.searchsorted(p // LEVELS, [number, number + 1]) for p in by_block]
            pairs = zip(by_block, ends, strict=True)
            return [own[spread(levels[a:b] - first, r)] for levels, (a, b) in pairs]

        found = in_threads(pieces, range(len(self.blocks)))

        def part(k):
            whole = sparse.vstack([own[k] for own in found], "csr")
            for own in found:
                own[k] = None
            if (np.diff(orders[k]) == 1).all():
                return whole
            return whole[spread(ranks(orders[k]), r)]

        return [part(k) for k in range(len(parts))]

    def transposed(self):
        """Z_l^T w Z_k, CSR [J' r', J r]."""
        return self.rows([np.arange(self.sizes[0])])[0].T.tocsr()

    def _block(self, number):
        """The sum of a block's matrices."""
        levels = min(LEVELS, self.sizes[0] - number * LEVELS)
        shape = levels * self.widths[0], self.sizes[1] * self.widths[1]
        parts = [_resized(C, shape) for C in self.blocks[number]]
        return reduce(add, parts) if parts else sparse.csr_array(shape)

    def _embedded(self, C, places, sizes):
        """A batch's matrix of levels by levels at their places among all, CSR in canonical form."""
        (r, q), (one, two) = self.widths, places
        entries = C.tocoo()
        rows = spread(one, r)[entries.row]
        columns = spread(two, q)[entries.col]
        shape = sizes[0] * r, sizes[1] * q
        return sparse.coo_array((entries.data, (rows, columns)), shape).tocsr()

    def _partnered(self, C, places, n_levels):
        """Partners of all levels so far, from those before and a batch's matrix."""
        (r, q), (one, two) = self.widths, places
        # A batch's matrix has all entries of a pair of levels, zeros too.
        if self.partners is None or (np.diff(C.indptr) != q).any():
            return None
        out = np.full(n_levels, -1)
        out[: len(self.partners)] = self.partners
        found, known = two[C.indices[C.indptr[:-1:r]] // q], out[one]
        if ((known >= 0) & (known != found)).any():
            return None
        out[one] = found
        return out

    def __getstate__(self):
        # Plain arrays, which any version of SciPy reads.
        plain = [[(C.data, C.indices, C.indptr, C.shape) for C in own] for own in self.blocks]
        return vars(self) | {"blocks": plain}

    def __setstate__(self, state):
        blocks = tuple(
            tuple(sparse.csr_array(tuple(own[:3]), shape=tuple(own[3])) for own in parts)
            for parts in state["blocks"]
        )
        self.__dict__.update(state | {"blocks": blocks})


def ranks(order):
    """The inverse of a permutation."""
    out = np.empty_like(order)
    out[order] = np.arange(len(order))
    return out


def spread(levels, r):
    """Places of the effects of some levels, r each."""
    return levels if r == 1 else (levels[:, None] * r + np.arange(r)).ravel()


def _resized(C, shape):
    """A CSR matrix with rows and columns of zeros beyond its own; its numbers are not copied."""
    if C.shape == shape:
        return C
    ends = np.full(shape[0] + 1, C.indptr[-1], C.indptr.dtype)
    ends[: len(C.indptr)] = C.indptr
    return sparse.csr_array((C.data, C.indices, ends), shape)


def _merged(parts, new):
    """Matrices whose sum is that of some and a new one, each less than half of the one before."""
    if not new.nnz:
        return parts
    parts = list(parts)
    # Of its own: a slice of the batch's would keep all of it.
    new = new.copy() if not parts or parts[-1].nnz > 2 * new.nnz else new
    while parts and parts[-1].nnz <= 2 * new.nnz:
        new = _resized(parts.pop(), new.shape) + new
    return (*parts, new)
