r"""Traces of products of V^-1 and V's derivatives: the expected information of variances.

A derivative along a direction S of term k's covariance is G = Z_k (A_k (x) S) Z_k^T, with the
levels' relationship A_k, and tr V^-1 G V^-1 G' of two terms a sum over pairs of their levels of the
blocks of K = Z^T V^-1 Z. With the largest term E eliminated, V_E its part of V and the residual's,

    B = Z_E^T V_E^-1 Z_E  (block diagonal),    N = Z_E^T V_E^-1 Z_R  (sparse),
    M = Z_R^T V_E^-1 Z_R,    A = Lambda_R S^-1 Lambda_R^T,    U = I - A M:

    K_EE = B - N A N^T,    K_ER = N U,    K_RR = M U.

Of E's levels only sums are made, Y_ab = N_a^T N_b of its coefficients a and b: what is dense has
the size of the other terms, as the factor of the equations has.
"""

import numpy as np

from sklmm.engine.linalg.blocks import block_diagonal, csr_rows

#: Numbers in a dense slab of N.
SLAB = 1 << 21


def trace_products(equations, parts):
    """tr V^-1 G_r V^-1 G_s [m, m] of all directions [m_k, r, r] of each term, `parts`."""
    cross = equations.cross
    if not parts:
        return np.zeros((0, 0))
    forms, e = {}, cross.eliminated
    if cross.rest:
        rest = _Rest(equations)
        forms = {(k, other): rest.forms(k, other) for k in cross.rest for other in cross.rest}
    if e is not None:
        own = np.asarray(cross.G_EE)
        T = np.eye(own.shape[1]) - own @ np.asarray(equations.H.inner)
        B = T @ own / equations.s2
        forms[e, e] = np.tensordot(B, B, ((0,), (0,)))
        if cross.rest:
            N = (block_diagonal(T) @ cross.C).tocsr() / equations.s2
            forms[e, e] += rest.of_eliminated(N, B)
            forms |= {(e, k): rest.beside(k) for k in cross.rest}
    out = [[None] * len(parts) for _ in parts]
    for (k, other), F in forms.items():
        out[k][other] = np.einsum("mba,acdb,ncd->mn", parts[k], F, parts[other])
        out[other][k] = out[k][other].T
    return np.block(out)


class _Rest:
    """The terms beside the eliminated one.

    The forms F [a, c, d, b] of two terms are sums over their levels i and j of K_ij[a, c] and
    K_ji[d, b], with the levels' relationships.
    """

    def __init__(self, equations):
        cross, s2 = equations.cross, equations.s2
        self.cross, self.places = cross, {k: part for k, _, part in equations.H.parts()}
        self.A, M = equations.H.remaining(), cross.G_RR
        if cross.eliminated is not None:
            M = M - cross.C.T @ (block_diagonal(np.asarray(equations.H.inner)) @ cross.C)
        M = M.toarray() / s2
        self.U = np.eye(len(M)) - self.A @ M
        K = M @ self.U
        self.related = {k: self._relate(k, K[part]) for k, part in self.places.items()}

    def _relate(self, k, rows):
        """A applied to rows [., c] of a term."""
        levels = rows.reshape(*self._levels(k)[1], rows.shape[1])
        return self.cross.prior.relate(k, levels).reshape(rows.shape)

    def _levels(self, k):
        """Of a term its places, and the numbers of its levels and of their coefficients."""
        block = self.cross.problem.blocks[k]
        return self.places[k], (block.n_levels, block.r)

    def forms(self, k, other):
        """F of two of the terms."""
        (s, shape), (t, width) = self._levels(k), self._levels(other)
        one = self.related[k][:, t].reshape(*shape, *width)
        two = self.related[other][:, s].reshape(*width, *shape)
        return np.tensordot(one, two, ((0, 2), (2, 0)))

    def of_eliminated(self, N, B):
        """What F of the eliminated term has besides that of B alone."""
        J, r, _ = B.shape
        parts = [N[a::r] for a in range(r)]
        self.Y = np.array([[(one.T @ two).toarray() for two in parts] for one in parts])
        AY, step = self.A @ self.Y, max(SLAB // (r * len(self.A)), 1)
        out = np.einsum("cdpq,baqp->acdb", AY, AY, optimize=True)
        for first in range(0, J, step):
            some = csr_rows(N, first * r, min(first + step, J) * r).toarray()
            shaped = some.reshape(-1, r, len(self.A))
            X = (some @ self.A).reshape(shaped.shape) @ shaped.transpose(0, 2, 1)
            both = np.tensordot(B[first : first + step], X, ((0,), (0,)))
            out -= both + both.transpose(2, 3, 0, 1)
        return out

    def beside(self, k):
        """F of the eliminated term and one of these."""
        part, shape = self._levels(k)
        one = self.U[:, part]
        two = self._relate(k, np.ascontiguousarray(one.T)).T
        one, two = one.reshape(-1, *shape), (self.Y @ two).reshape(*self.Y.shape[:3], *shape)
        return np.einsum("qjc,abqjd->acdb", one, two, optimize=True)
