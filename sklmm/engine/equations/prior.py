r"""The prior of terms whose levels have a known relationship A, such as a pedigree's.

A term's coefs are b ~ N(0, A (x) Sigma), its spherical effects u, with b = L u in every level, are
N(0, A (x) I), and the equations have Q (x) I, Q = A^-1, where those of independent levels have I.
A relationship is known by a sparse Q and by a root B of it, Q = B^T B, whose inverse is as quick to
apply. What the likelihood asks of it follows from C = Z^T V^-1 Z and S, H without the eliminated
term:

    L^T (sum_ij A_ij C_ij) L = J I - tr(Q S^-1),    L^T c = Q u    for c = Z^T P y,

the trace by levels. For probes v with E v v^T = I, w = B^T v and y = S^-1 w, that is the mean of
sum_j w_j (B^-1 v - y)_j^T, which is 0 where the rows tell nothing.
"""

import numpy as np
from scipy import sparse

from sklmm.engine.equations.crossproducts import Independent


class Related(Independent):
    """The prior precision of blocks at their slices, of which some have a `relation`."""

    def __init__(self, blocks, slices):
        self.relations = {
            k: (block.relation, slice(own.start, own.start + block.n_levels * block.r), block.r)
            for k, (block, own) in enumerate(zip(blocks, slices, strict=True))
            if block.relation is not None
        }
        self.log_det = sum(r * relation.log_det for relation, _, r in self.relations.values())

    def times(self, flat, first=0):
        """P applied to [., ...]."""
        return self._turned("times", flat, first)

    def root(self, flat, first=0):
        """B^T applied to [., ...], for P = B^T B."""
        return self._turned("root", flat, first)

    def back(self, flat, first=0):
        """B^-1 applied to [., ...]."""
        return self._turned("back", flat, first)

    def _turned(self, how, flat, first):
        out = flat.copy()
        for relation, part, _ in self.relations.values():
            part = slice(part.start - first, part.stop - first)
            own = flat[part]
            by_level = own.reshape(relation.n_levels, -1)
            out[part] = getattr(relation, how)(by_level).reshape(own.shape)
        return out

    def relate(self, k, levels):
        """A applied to [n_levels, ...] of term k."""
        if k not in self.relations:
            return levels
        relation = self.relations[k][0]
        return relation.relate(levels.reshape(len(levels), -1)).reshape(levels.shape)

    def own(self, k, r):
        """P's blocks [., r, r] of each level of term k."""
        if k not in self.relations:
            return np.eye(r)
        return self.relations[k][0].matrix.diagonal()[:, None, None] * np.eye(r)

    def relates(self, k):
        """Whether the levels of term k are related."""
        return k in self.relations

    def add_to(self, square, first=0):
        """Add P - I to a dense matrix of effects."""
        for relation, part, r in self.relations.values():
            Q, start = relation.matrix.tocoo(), part.start - first + np.arange(r)
            rows, columns = ((start + r * at[:, None]).ravel() for at in (Q.row, Q.col))
            # Each entry is there once.
            square[rows, columns] += np.repeat(Q.data, r)
            own = np.arange(part.start - first, part.stop - first)
            square[own, own] -= 1.0

    def trace(self, k, lower):
        """Sum over levels i, j of Q_ij M_ij [r, r], by the lower triangle of term k's M [n, n]."""
        relation, _, r = self.relations[k]
        Q, out = sparse.tril(relation.matrix).tocoo(), np.empty((r, r))
        half = np.where(Q.row == Q.col, 0.5, 1.0) * Q.data
        for a in range(r):
            for b in range(r):
                i, j = Q.row * r + a, Q.col * r + b
                out[a, b] = half @ lower[np.maximum(i, j), np.minimum(i, j)]
        return out + out.T
