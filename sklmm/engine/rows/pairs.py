"""A sparse matrix of whole levels in parts, multiplied by threads (SciPy releases the GIL)."""

from functools import cached_property
from itertools import pairwise

import numpy as np
from scipy import sparse

from sklmm._threads import in_threads
from sklmm.engine.linalg.blocks import block_diagonal, turn

#: From this many rows on, a matrix is made and worked on in so many parts, whatever the number of
#: cores: sums come out the same everywhere.
PARTED = 100_000
PARTS = 4


def cuts(counts):
    """First levels of the parts, and the last one's end, by the number of rows of each level."""
    ends = np.cumsum(counts)
    if not len(ends) or ends[-1] <= PARTED:
        return [0, len(ends)]
    inner = np.searchsorted(ends, ends[-1] * np.arange(1, PARTS) / PARTS)
    return np.unique([0, *inner, len(ends)]).tolist()


class LocalPairs:
    """`engine.rows.protocol.Pairs` of C [J * r, Q], in parts, CSR matrices of whole levels."""

    def __init__(self, parts, r):
        ends = np.cumsum([0, *(part.shape[0] for part in parts)]).tolist()
        self.shape = ends[-1], parts[0].shape[1]
        self.parts = [
            (C, slice(a // r, b // r)) for C, (a, b) in zip(parts, pairwise(ends), strict=True)
        ]
        # SciPy takes longer to transpose a small matrix than to multiply by it.
        self.backs = [part.T for part in parts]
        self.rows = [slice(a, b) for a, b in pairwise(ends)]

    @cached_property
    def matrix(self):
        """C, a CSR matrix."""
        own = [C for C, _ in self.parts]
        return own[0] if len(own) == 1 else sparse.vstack(own, "csr")

    @cached_property
    def _squared(self):
        """The parts with their entries squared."""
        return [sparse.csr_array((C.data**2, C.indices, C.indptr), C.shape) for C, _ in self.parts]

    def down(self, flat):
        """C flat."""
        if not self.shape[1] or not flat.size:
            return np.zeros((self.shape[0], *flat.shape[1:]))
        return np.concatenate(in_threads(lambda part: part[0] @ flat, self.parts))

    def up(self, flat):
        """C^T flat."""
        if not self.shape[1] or not flat.size:
            return np.zeros((self.shape[1], *flat.shape[1:]))
        return sum(in_threads(lambda back, rows: back @ flat[rows], self.backs, self.rows))

    def around(self, blocks, flat):
        """C^T blocks C flat, for blocks [J, r, r]."""
        if not flat.size:
            return np.zeros(flat.shape)

        def one(part, back):
            C, levels = part
            return back @ turn(blocks[levels], C @ flat)

        return sum(in_threads(one, self.parts, self.backs))

    def own(self, blocks, place, q):
        """Diagonal blocks [J', q, q] of C^T blocks C, of the columns at a `place`."""

        def one(part, squared):
            C, levels = part
            whole = C.shape[1] == place.stop - place.start
            inner = blocks[levels]
            if q == 1 and inner.shape[1] == 1:
                mine = squared if whole else squared[:, place]
                return (mine.T @ inner.ravel())[:, None, None]
            mine = C if whole else C[:, place]
            out = np.empty((mine.shape[1] // q, q, q))
            scaled = (block_diagonal(inner) @ mine).tocsr()
            for a in range(q):
                for b in range(q):
                    product = mine[:, a::q].multiply(scaled[:, b::q])
                    out[:, a, b] = np.asarray(product.sum(axis=0)).ravel()
            return out

        return sum(in_threads(one, self.parts, self._squared))

    def squares(self, e, r):
        """Of C's squared entries S, S r [J * r, c] and S^T e [Q, c]."""

        def one(squared, rows):
            return squared @ r, squared.T @ e[rows]

        down, up = zip(*in_threads(one, self._squared, self.rows), strict=True)
        return np.concatenate(down), sum(up)
