"""A sparse matrix of whole levels in parts, multiplied by threads (SciPy releases the GIL)."""

from itertools import pairwise

import numpy as np

from sklmm._threads import in_threads
from sklmm.engine.linalg.blocks import block_diagonal, csr_rows, turn

#: From this many numbers on, a matrix is worked on in so many parts, whatever the number of cores:
#: sums come out the same everywhere.
PARTED = 100_000
PARTS = 4


class LocalPairs:
    """`engine.rows.protocol.Pairs` of C [J * r, Q], a CSR matrix, in parts of whole levels."""

    def __init__(self, C, r):
        self.matrix, self.shape = C, C.shape
        ends = np.array([0, C.shape[0]])
        if C.nnz > PARTED:
            cuts = np.searchsorted(C.indptr, C.nnz * np.arange(1, PARTS) / PARTS) // r * r
            ends = np.unique([0, *cuts, C.shape[0]])
        self.parts = [(csr_rows(C, a, b), slice(a // r, b // r)) for a, b in pairwise(ends)]
        # SciPy takes longer to transpose a small matrix than to multiply by it.
        self.backs = [part.T for part, _ in self.parts]
        self.rows = [slice(a, b) for a, b in pairwise(ends)]

    def _map(self, function, *arguments):
        run = in_threads if len(self.parts) > 1 else map
        return list(run(function, *arguments))

    def down(self, flat):
        """C flat."""
        if not self.shape[1]:
            return np.zeros((self.shape[0], *flat.shape[1:]))
        return np.concatenate(self._map(lambda part: part[0] @ flat, self.parts))

    def up(self, flat):
        """C^T flat."""
        if not self.shape[1]:
            return np.zeros((0, *flat.shape[1:]))
        return sum(self._map(lambda back, rows: back @ flat[rows], self.backs, self.rows))

    def around(self, blocks, flat):
        """C^T blocks C flat, for blocks [J, r, r]."""

        def one(part, back):
            C, levels = part
            return back @ turn(blocks[levels], C @ flat)

        return sum(self._map(one, self.parts, self.backs))

    def own(self, blocks, place, q):
        """Diagonal blocks [J', q, q] of C^T blocks C, of the columns at a `place`."""
        out = np.zeros(((place.stop - place.start) // q, q, q))
        for C, levels in self.parts:
            mine = C if C.shape[1] == place.stop - place.start else C[:, place]
            inner = blocks[levels]
            if q == 1 and inner.shape[1] == 1:
                squares = mine.data**2 * np.repeat(inner.ravel(), np.diff(mine.indptr))
                out[:, 0, 0] += np.bincount(mine.indices, squares, len(out))
                continue
            scaled = (block_diagonal(inner) @ mine).tocsr()
            for a in range(q):
                for b in range(q):
                    product = mine[:, a::q].multiply(scaled[:, b::q])
                    out[:, a, b] += np.asarray(product.sum(axis=0)).ravel()
        return out

    def squares(self, e, r):
        """Of C's squared entries S, S r [J * r, c] and S^T e [Q, c]."""
        down, up = np.zeros((self.shape[0], r.shape[1])), np.zeros_like(r)
        for (C, _), rows in zip(self.parts, self.rows, strict=True):
            C2 = C.power(2)
            down[rows] = C2 @ r
            up += C2.T @ e[rows]
        return down, up
