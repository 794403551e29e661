"""C^-1 where rows read it: at the levels that a row has, for the gradient of log |C|.

Of the coefs, b = Lambda u, it is M = Lambda C^-1 Lambda^T. With beta held M's blocks are, by the
Schur complement S of the largest term's D, D = I + L^T G_EE L,

    M_RR = Lambda_R S^-1 Lambda_R^T,   M_ER = -J C M_RR,   M_EE = J + J C M_RR C^T J,

J = L D^-1 L^T and C the cross-products of the largest term with the others.
"""

import numpy as np

from sklmm.engine.equations.schur_cholesky import own_blocks
from sklmm.engine.linalg.blocks import congruent, csr_rows, invert, rescaled

#: Numbers of a dense slab of C M_RR.
SLAB = 1 << 20


class SchurInverse:
    """`rows.protocol.Inverse` of `Equations` whose S is factorised, s2 = 1."""

    def __init__(self, equations):
        self.equations, self.cross, self.H = equations, equations.cross, equations.H
        cross = self.cross
        self.eliminated = cross.eliminated
        self.rest = [(k, cross.slices[k].start - cross.n_eliminated) for k in cross.rest]
        self.fixed = equations.solve_s(np.eye(cross.p))
        self.follow = cross.blocks(equations.follow)
        self.remaining = self.H.remaining()
        #: C_j M_RR C_j^T of each eliminated level, [J, r, r].
        self.forms = np.full_like(self.H.inner, np.nan)

    def slabs(self):
        """Slices of the eliminated term's levels."""
        J, r = self.H.inner.shape[:2]
        size = max(SLAB // max(len(self.remaining) * r, 1), 1)
        return [slice(first, min(first + size, J)) for first in range(0, J, size)]

    def slab(self, levels):
        """M's blocks there: each level's own, and J times those across, J of the sign of M_ER."""
        inner, r = self.H.inner[levels], self.H.inner.shape[1]
        part = csr_rows(self.cross.C, levels.start * r, levels.stop * r)
        across, Q = part @ self.remaining, self.forms[levels]
        row = np.repeat(np.arange(part.shape[0]), np.diff(part.indptr))
        for c in range(r):
            entries = part.data * across[row // r * r + c, part.indices]
            Q[:, :, c] = np.bincount(row, entries, part.shape[0]).reshape(-1, r)
        return inner + inner @ Q @ inner, -inner, across

    def row_traces(self):
        """Blocks of Z_k^T w W C^-1 summed over the levels, [r, r]: log |C|'s slopes in L_k, halved.

        They are Z^T P Z L, as in the restricted likelihood. The slabs are to be looked at before.
        """
        H, G, out = self.H, self.cross.G_EE, [None] * len(self.cross.slices)
        if self.eliminated is not None:
            lower = H.L @ H.inverse
            out[self.eliminated] = ((G - self.forms + G @ H.inner @ self.forms) @ lower).sum(axis=0)
        for k, K in H.traces_of_rest():
            out[k] = K @ self.equations.factors[k]
        return _less_fixed(self.equations, out)


class DrawnInverse:
    """`rows.protocol.DrawnInverse` of `Equations` without a factor, by draws of H^-1.

    `noise` [Q, n] is theirs. What is known is exact: beta, the eliminated term given the others,
    and of each level's variance that given all others; Var(u_j) = H_jj^-1 + Var(E[u_j | the rest])
    (Siden, Lindgren, Bolin & Villani 2018, J. Comput. Graph. Stat. 27, 359-376).
    """

    def __init__(self, equations, noise):
        self.equations, cross, H = equations, equations.cross, equations.H
        self.eliminated, self.inner = cross.eliminated, H.inner
        self.fixed = equations.solve_s(np.eye(cross.p))
        self.follow = cross.blocks(equations.follow)
        u = H.root(noise)
        q = cross.product(cross.lift(equations.factors, u))
        prior = cross.prior.times(u[: cross.n_random])
        self._traces, scaled = [], np.zeros_like(u)
        of_terms = enumerate(zip(cross.slices, equations.factors, equations.G, strict=True))
        draws = zip(*map(cross.blocks, (u, q, prior)), strict=True)
        for (k, (place, L, G)), own in zip(of_terms, draws, strict=True):
            trace, variance = _given_the_rest(L, G, cross.prior.own(k, len(L)), *own)
            own = own[0]
            self._traces.append(trace)
            std = np.sqrt(np.einsum("jaa->ja", variance) * u.shape[1])
            scaled[place] = rescaled(own, std).reshape(-1, u.shape[1])
        # The eliminated term without its own part, which `inner` is.
        scaled[: cross.n_eliminated] = -H._pull(scaled[cross.n_eliminated :])
        self.deviations = cross.blocks(cross.lift(equations.factors, scaled))

    def row_traces(self):
        """As `SchurInverse.row_traces`."""
        return _less_fixed(self.equations, self._traces)


def _given_the_rest(L, G, own, u, data, prior):
    """Of a term with draws u, and sums `data` of Z^T w Z Lambda u: its trace and its variances.

    By q = Z_j^T w (Z Lambda u without the level's own part), and what the prior P u has besides its
    `own` part, t, E[u_j | the rest] = -H_jj^-1 (L^T q + t).
    """
    lower, n = invert(congruent(L, G) + own), u.shape[2]
    q = data - G @ (L @ u)
    away = -lower @ (L.T @ q + prior - own @ u)
    variance = lower + away @ away.transpose(0, 2, 1) / n
    rest = (G @ (L @ away) + q) @ away.transpose(0, 2, 1) / n
    return (G @ L @ lower + rest).sum(axis=0), variance


def _less_fixed(equations, traces):
    """Traces of Z^T V^-1 Z L less what the coefficients take away: those of Z^T P Z L."""
    if not equations.cross.p:
        return traces
    pairs = zip(traces, equations.projected_traces(), equations.factors, strict=True)
    return [T - D @ L for T, D, L in pairs]


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
