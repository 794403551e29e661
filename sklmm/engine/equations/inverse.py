"""C^-1 where rows read it: at the levels that a row has, for the gradient of log |C|.

Of the coefs, b = Lambda u, it is M = Lambda C^-1 Lambda^T. With beta held M's blocks are, by the
Schur complement S of the largest term's D, D = I + L^T G_EE L,

    M_RR = Lambda_R S^-1 Lambda_R^T,   M_ER = -J C M_RR,   M_EE = J + J C M_RR C^T J,

J = L D^-1 L^T and C the cross-products of the largest term with the others.
"""

import numpy as np

from sklmm.engine.equations.schur_cholesky import SLAB, own_blocks
from sklmm.engine.linalg.blocks import csr_rows, turn


class SchurInverse:
    """`rows.protocol.Inverse` of `Equations` whose S is factorised, s2 = 1."""

    def __init__(self, equations):
        self.equations, self.cross, self.H = equations, equations.cross, equations.H
        cross = self.cross
        self.eliminated = cross.eliminated
        self.rest = [(k, cross.slices[k].start - cross.n_eliminated) for k in cross.rest]
        self.fixed = equations.solve_s(np.eye(cross.p))
        self.follow = cross.blocks(cross.lift(equations.factors, equations.HR))
        self.remaining = self.H.remaining()
        #: C_j M_RR C_j^T of each eliminated level, [J, r, r].
        self.forms = np.full_like(self.H.inner, np.nan)

    def slabs(self):
        """Yield slices of the eliminated term's levels, and M's blocks there."""
        inner, C = self.H.inner, self.cross.C
        J, r = inner.shape[:2]
        size = max(SLAB // max(len(self.remaining) * r, 1), 1)
        for first in range(0, J, size):
            levels = slice(first, min(first + size, J))
            part = csr_rows(C, levels.start * r, levels.stop * r)
            across, own, Q = part @ self.remaining, inner[levels], self.forms[levels]
            row = np.repeat(np.arange(part.shape[0]), np.diff(part.indptr))
            for c in range(r):
                entries = part.data * across[row // r * r + c, part.indices]
                Q[:, :, c] = np.bincount(row, entries, part.shape[0]).reshape(-1, r)
            yield levels, own + own @ Q @ own, -turn(own, across)

    def row_traces(self):
        """Blocks of Z_k^T w W C^-1 summed over the levels, [r, r]: log |C|'s slopes in L_k, halved.

        They are Z^T P Z L, as in the restricted likelihood. The slabs are to be looked at before.
        """
        H, G, out = self.H, self.cross.G_EE, [None] * len(self.rest) + [None]
        if self.eliminated is None:
            return []
        lower = H.L @ H.inverse
        out[self.eliminated] = ((G - self.forms + G @ H.inner @ self.forms) @ lower).sum(axis=0)
        for k, K in H.traces_of_rest():
            out[k] = K @ self.equations.factors[k]
        if not self.cross.p:
            return out
        columns = zip(self.equations.projected_columns(), self.equations.factors, strict=True)
        own = [np.einsum("jaq,jbq->ab", D, D) @ L for D, L in columns]
        return [T - D for T, D in zip(out, own, strict=True)]


class WholeInverse:
    """`rows.protocol.Inverse` of dense M and Z^T w W C^-1 [P, P], each term's effects at a part."""

    eliminated = None

    def __init__(self, M, half, p, shapes, parts):
        self._half, self._places = half, list(zip(shapes, parts, strict=True))
        self.fixed = M[:p, :p]
        follow = -np.linalg.solve(self.fixed, M[:p, p:]).T
        self.follow = [
            follow[part.start - p : part.stop - p].reshape(J, r, p)
            for (J, r), part in zip(shapes, parts, strict=True)
        ]
        self.rest = [(k, part.start - p) for k, part in enumerate(parts)]
        self.remaining = M[p:, p:] + M[p:, :p] @ follow.T

    def slabs(self):
        """Nothing is eliminated."""
        return ()

    def row_traces(self):
        """As `SchurInverse.row_traces`."""
        return [own_blocks(self._half, part, r).sum(axis=0) for (_, r), part in self._places]
