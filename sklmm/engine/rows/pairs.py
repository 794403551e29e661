"""A sparse matrix of whole levels in parts, multiplied by threads (SciPy releases the GIL)."""

import os
from itertools import pairwise

import numpy as np

from sklmm.engine.runtime.threads import n_threads, threads

#: From this many numbers on, a matrix is worked on in so many parts, whatever the number of cores:
#: sums come out the same everywhere.
PARTED = 100_000
PARTS = 4


class Parted:
    """C [J * r, Q] in `parts`, pairs of rows of C and the slice of levels they are."""

    def __init__(self, C, r):
        self.shape = C.shape
        ends = np.array([0, C.shape[0]])
        if C.nnz > PARTED:
            cuts = np.searchsorted(C.indptr, C.nnz * np.arange(1, PARTS) / PARTS) // r * r
            ends = np.unique([0, *cuts, C.shape[0]])
        self.parts = [(C[a:b], slice(a // r, b // r)) for a, b in pairwise(ends)]
        # SciPy takes longer to transpose a small matrix than to multiply by it.
        self.backs = [part.T for part, _ in self.parts]
        self.rows = [slice(a, b) for a, b in pairwise(ends)]
        self.threaded = len(self.parts) > 1 and n_threads() > 1

    def _map(self, function, *arguments):
        run = threads(os.getpid()).map if self.threaded else map
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

    def around(self, turn, blocks, flat):
        """C^T blocks C flat, for blocks [J, r, r]; `turn` applies some of them."""

        def one(part, back):
            C, levels = part
            return back @ turn(blocks[levels], C @ flat)

        return sum(self._map(one, self.parts, self.backs))
