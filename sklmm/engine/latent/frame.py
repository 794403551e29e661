r"""Coordinates in which the posterior of x is nearly N(0, I): x = centre + T v.

The levels L are scaled by the roots of their own blocks D of C, and follow the border F, beta and
the terms of few levels, whose marginal precision is the Schur complement S = C_FF - C_FL G,

    x_F = S^{-1/2} v_F,      x_L = D^{-1/2} v_L - G x_F,      G = C_LL^{-1} C_LF.

So one scalar step size fits every level, and the stiff direction "all effects of a term up, those
of another down" is whitened away.
"""

import numpy as np

from sklmm.engine.linalg.blocks import invert, roots

#: Smallest eigenvalue of S^-1, of its largest, where its solve was too rough.
LEAST_SHARE = 1e-6


class Frame:
    """The centre [P] and T, in a precision.

    roots are those of D^-1, lower triangles [J, r, r], or None for a term of the border; follow
    G [P, f]; edge_root S^{-1/2} [f, f].
    """

    def __init__(self, layout, roots, follow, edge_root, centre):
        self.layout, self.roots, self.follow = layout, roots, follow
        self.edge_root, self.centre = edge_root, centre
        self.dtype, self.edge = follow.dtype, np.flatnonzero(layout.border)
        # Whether nothing follows the border, as where there is none.
        self.follows = bool(follow.any())

    @classmethod
    def of(cls, equations, centre):
        """The frame of `latent.Equations` about `centre`."""
        layout, edge = equations.layout, equations.marginal
        blocks = zip(layout.small, equations.own_blocks(), strict=True)
        # Arrays, also of blocks of which many are equal: chains take them apart at every step.
        inverse_roots = [None if small else np.asarray(roots(invert(H))) for small, H in blocks]
        return cls(layout, inverse_roots, edge.follow @ edge.lift, root_of(edge.inverse), centre)

    def astype(self, dtype):
        """The frame in another precision."""
        arrays = (self.follow, self.edge_root, self.centre)
        inverse_roots = [None if R is None else R.astype(dtype) for R in self.roots]
        return Frame(self.layout, inverse_roots, *(a.astype(dtype) for a in arrays))

    def about(self, centre):
        """The frame about another centre."""
        centre = centre.astype(self.dtype)
        return Frame(self.layout, self.roots, self.follow, self.edge_root, centre)

    def unwhiten(self, v):
        """x = centre + T v: [P, C]."""
        out = self.turned(v)
        out += self.centre[:, None]
        return out

    def turned(self, v):
        """T v: [P, C]."""
        out = self._own(v, False)
        if len(self.edge):
            edge = self.edge_root @ v[self.edge]
            if self.follows:
                out -= self.follow @ edge
            out[self.edge] = edge
        return out

    def turned_back(self, d):
        """T^-1 d: [P, C]."""
        edge, out = d[self.edge], np.zeros_like(d)
        own = d + self.follow @ edge if self.follows else d
        parts = zip(self.roots, self.layout.parts, self.layout.levels, strict=True)
        for R, part, levels in parts:
            if R is not None:
                r = R.shape[1]
                place = slice(part.start, part.start + levels * r)
                solved = np.linalg.solve(R, own[place].reshape(levels, r, -1))
                out[place] = solved.reshape(levels * r, -1)
        if len(self.edge):
            out[self.edge] = np.linalg.solve(self.edge_root, edge)
        return out

    def pull_back(self, g):
        """T^T g: [P, C]."""
        out = self._own(g, True)
        if len(self.edge):
            edge = g[self.edge]
            if self.follows:
                edge = edge - self.follow.T @ g
            out[self.edge] = self.edge_root.T @ edge
        return out

    def _own(self, flat, transpose):
        """Each level's own root, or its transpose, times its effects; 0 on the border."""
        out = np.zeros_like(flat)
        parts = zip(self.roots, self.layout.parts, self.layout.levels, strict=True)
        for R, part, levels in parts:
            if R is not None:
                r = R.shape[1]
                own = slice(part.start, part.start + levels * r)
                triangular(R, flat[own].reshape(levels, r, -1), out[own], transpose)
        return out

    def spread(self):
        """Diagonal blocks of T T^T, the posterior covariance if it were normal: beta's [p, p].

        And a list of each block's [J, r, r].
        """
        layout, p = self.layout, self.layout.p
        root, parts = self.edge_root.astype(float), []
        edge, follows = root @ root.T, self.follow.astype(float) @ root
        of_terms = zip(self.roots, layout.parts, layout.edges, layout.shapes, strict=True)
        for R, part, border, (J, r) in of_terms:
            if R is None:
                rows = root[border].reshape(J, r, -1)
            else:
                own = np.zeros((J, r, r))
                own[: len(R)] = R
                rows = np.concatenate([follows[part].reshape(J, r, -1), own], axis=2)
            parts.append(np.einsum("jaf,jbf->jab", rows, rows))
        return edge[:p, :p], parts


def triangular(blocks, effects, out, transpose=False):
    """Lower triangles [J, r, r], or their transposes, times effects [J, r, C]: into out [J * r, C].

    By entries of the triangle: r is small, and each product is of all levels.
    """
    J, r, C = effects.shape
    out = out.reshape(J, r, C)
    for a in range(r):
        np.multiply(blocks[:, a, a, None], effects[:, a], out=out[:, a])
        for b in range(a + 1, r) if transpose else range(a):
            entry = blocks[:, b, a] if transpose else blocks[:, a, b]
            out[:, a] += entry[:, None] * effects[:, b]


def root_of(square):
    """R with R R^T = square, a continuous function of it as the chains keep v when theta moves."""
    try:
        return np.linalg.cholesky(square)
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(square)
        return (vectors * np.sqrt(np.maximum(values, LEAST_SHARE * values[-1]))) @ vectors.T
