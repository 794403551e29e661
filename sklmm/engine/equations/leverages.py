"""C^-1 at each row's own levels: what the gradient of log |C| reads of it.

By the factor of S, the Schur complement of the largest term. With w_i row i of W, its part w_E of
the eliminated term, and t = w_R - B^T D^-1 w_E, C^-1 w_i is S^-1 t of the other terms, and
D^-1 (w_E - B S^-1 t) of the eliminated one.
"""

from functools import cached_property

import numpy as np

from sklmm.engine.equations.elimination import SLAB
from sklmm.engine.linalg.blocks import block_diagonal


def leverages(equations):
    """C^-1 w_i at row i's own levels: of beta [n_rows, p], of each block [n_rows, r]."""
    cross, table = equations.cross, equations.cross.rows
    loads = [z @ L for z, L in zip(table.z, equations.factors, strict=True)]
    out = [np.zeros_like(a) for a in loads]
    if loads:
        _Effects(equations, loads).add_to(out)
    # Of beta: x_i less what the effects explain of it, and the effects follow.
    rest = table.X.copy()
    if not equations.p:
        return np.zeros_like(rest), out
    follow = cross.blocks(equations.HR)
    for refs, a, F in zip(table.refs, loads, follow, strict=True):
        rest -= np.einsum("na,nap->np", a, F[refs])
    beta = equations.solve_s(rest.T).T
    for g, refs, F in zip(out, table.refs, follow, strict=True):
        g -= np.einsum("nap,np->na", F[refs], beta)
    return beta, out


class _Effects:
    """The part of H^-1, beta held, for the rows' loads z_i L [n_rows, r] of each block."""

    def __init__(self, equations, loads):
        self.H, self.loads, cross = equations.H, loads, equations.cross
        self.refs, self.eliminated = cross.rows.refs, cross.eliminated
        #: (block, its first place among the other terms' effects).
        self.rest = [(k, cross.slices[k].start - cross.n_eliminated) for k in cross.rest]

    @cached_property
    def inverse(self):
        """S^-1, whole."""
        lower = np.tril(self.H._remaining) if len(self.H.U) else np.zeros((0, 0))
        return lower + np.tril(lower, -1).T

    def add_to(self, out):
        """Add it to `out`, [n_rows, r] of each block."""
        self._eliminated(out)
        self._others(out)

    def _others(self, out):
        """S^-1 between the other terms' levels of each row."""
        refs, loads = self.refs, self.loads
        for k, first in self.rest:
            for k2, first2 in self.rest:
                r, q = loads[k].shape[1], loads[k2].shape[1]
                for a in range(r):
                    for c in range(q):
                        at = first + refs[k] * r + a
                        to = first2 + refs[k2] * q + c
                        out[k][:, a] += self.inverse[at, to] * loads[k2][:, c]

    def _eliminated(self, out):
        """What involves the eliminated term, in slabs of its levels."""
        E, of_rows, loads = self.eliminated, self.refs, self.loads
        J, r = self.H.inverse.shape[:2]
        size = max(SLAB // max(len(self.inverse) * r, 1), 1)
        order = np.argsort(of_rows[E], kind="stable")
        ends = np.searchsorted(of_rows[E][order], np.arange(0, J + size, size))
        for slab, first in enumerate(range(0, J, size)):
            levels = slice(first, min(first + size, J))
            rows = order[ends[slab] : ends[slab + 1]]
            own, pull = self._slab(levels, r)
            refs = of_rows[E][rows] - first
            out[E][rows] += np.einsum("nab,nb->na", own[refs], loads[E][rows])
            for k, start in self.rest:
                width = loads[k].shape[1]
                at = start + of_rows[k][rows] * width
                for a in range(r):
                    for c in range(width):
                        entry = pull[refs * r + a, at + c]
                        out[E][rows, a] -= entry * loads[k][rows, c]
                        out[k][rows, c] -= entry * loads[E][rows, a]

    def _slab(self, levels, r):
        """C^-1's own blocks of some eliminated levels [J, r, r], and D^-1 B S^-1 [J r, Q_R]."""
        H = self.H
        inverse = H.inverse[levels]
        if not len(H.U):
            return inverse, np.zeros((len(inverse) * r, 0))
        # D^-1 L^T C of the level's rows, sparse.
        part = H.C[levels.start * r : levels.stop * r]
        B = (block_diagonal(inverse @ H.L.T) @ part).tocsr()
        pull = B @ self.inverse
        own = inverse.copy()
        for a in range(r):
            for c in range(r):
                own[:, a, c] += np.asarray(B[a::r].multiply(pull[c::r]).sum(axis=1)).ravel()
        return own, pull
