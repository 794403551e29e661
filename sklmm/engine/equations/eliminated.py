"""C of larger tables in NumPy, its largest term eliminated level by level.

Solves, draws, log |C|, and C^-1 at each row's own levels: what the gradient of log |C| reads. The
other terms' part is dense, so it is for some thousands of their effects.
"""

import numpy as np
from scipy.linalg import solve_triangular

from sklmm.engine.equations.elimination import SLAB, Dense
from sklmm.engine.equations.henderson import Equations as GaussianEquations
from sklmm.engine.linalg.blocks import block_diagonal


class Eliminated:
    """C of a problem with the weights of its rows in it, at some factors."""

    def __init__(self, rows, cross, factors):
        self.rows, self.cross, self.factors = rows, cross, factors
        self.H = Dense(cross, factors, 1.0)
        self.joint = GaussianEquations(factors, 1.0, cross, self.H)
        self.p, self.place = cross.p, rows.places(cross)

    def solve(self, right, tol=None):
        """C^-1 right, [P, c]; 0 where the layout is padded."""
        beta, u = self.joint.solve(right[: self.p], right[self.place], None)
        return self._laid_out(right.shape, beta, u)

    def _laid_out(self, shape, beta, u):
        out = np.zeros(shape)
        out[: self.p], out[self.place] = beta, u
        return out

    def apply(self, flat):
        """C flat, 0 on beta."""
        M = self.rows.matrix(self.factors)
        out = M.T @ (self.cross.at[:, None] * (M @ flat)) + flat
        out[: self.p] = 0.0
        return out

    def log_det(self):
        """log |C|."""
        return self.H.log_det + 2 * float(np.log(np.diag(self.joint.S_factor)).sum())

    def draws(self, rng, n_draws):
        """Draws from N(0, C^-1), in mirrored pairs."""
        noise = rng.standard_normal((self.p + len(self.place), -(-n_draws // 2)))
        u, beta = self.H.root(noise[self.p :]), noise[: self.p]
        if self.p:
            beta = solve_triangular(self.joint.S_factor, beta, lower=True, trans="T")
            u = u - self.joint.HR @ beta
        out = self._laid_out((self.rows.layout.size, noise.shape[1]), beta, u)
        return np.concatenate([out, -out], axis=1)[:, :n_draws]

    def leverages(self):
        """C^-1 w_i at row i's own levels, w_i its row of W: of beta [n, p], of each block [n, r].

        With t = w_R - B^T D^-1 w_E it is S^-1 t of the other terms, and D^-1 (w_E - B S^-1 t) of
        the eliminated one.
        """
        table, E = self.cross.rows, self.cross.eliminated
        loads = [z @ L for z, L in zip(table.z, self.factors, strict=True)]
        out = [np.zeros_like(a) for a in loads]
        if loads:
            self._eliminated(out, loads, E)
            self._others(out, loads)
        # Of beta: x_i less what the effects explain of it, and the effects follow.
        rest = table.X.copy()
        beta = np.zeros_like(rest)
        if self.p:
            follow = self.cross.blocks(self.joint.HR)
            for refs, a, F in zip(table.refs, loads, follow, strict=True):
                rest -= np.einsum("na,nap->np", a, F[refs])
            beta = self.joint.solve_s(rest.T).T
            for g, refs, F in zip(out, table.refs, follow, strict=True):
                g -= np.einsum("nap,np->na", F[refs], beta)
        return beta, out

    def _rest(self):
        """(block, its first place among the other terms' effects)."""
        n = self.cross.n_eliminated
        return [(k, self.cross.slices[k].start - n) for k in self.cross.rest]

    def _others(self, out, loads):
        """S^-1 between the other terms' levels of each row, added to `out`."""
        refs = self.cross.rows.refs
        for k, first in self._rest():
            for k2, first2 in self._rest():
                r, q = loads[k].shape[1], loads[k2].shape[1]
                for a in range(r):
                    for c in range(q):
                        at = first + refs[k] * r + a
                        to = first2 + refs[k2] * q + c
                        out[k][:, a] += self._inverse[at, to] * loads[k2][:, c]

    def _eliminated(self, out, loads, E):
        """What involves the eliminated term, in slabs of its levels, added to `out`."""
        H, of_rows = self.H, self.cross.rows.refs
        J, r = H.inverse.shape[:2]
        lower = np.tril(H._remaining) if len(H.U) else np.zeros((0, 0))
        self._inverse = lower + np.tril(lower, -1).T
        size = max(SLAB // max(len(lower) * r, 1), 1)
        order = np.argsort(of_rows[E], kind="stable")
        ends = np.searchsorted(of_rows[E][order], np.arange(0, J + size, size))
        for slab, first in enumerate(range(0, J, size)):
            levels = slice(first, min(first + size, J))
            rows = order[ends[slab] : ends[slab + 1]]
            own, pull = self._slab(levels, r)
            refs = of_rows[E][rows] - first
            out[E][rows] += np.einsum("nab,nb->na", own[refs], loads[E][rows])
            for k, start in self._rest():
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
        pull = B @ self._inverse
        own = inverse.copy()
        for a in range(r):
            for c in range(r):
                own[:, a, c] += np.asarray(B[a::r].multiply(pull[c::r]).sum(axis=1)).ravel()
        return own, pull
