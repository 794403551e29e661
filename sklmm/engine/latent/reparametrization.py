r"""How the latent variables x move with theta, so that they carry little information about it.

A draw x at theta_0 becomes, at theta = theta_0 + delta, in the levels j of the larger terms and in
the border F (`engine.equations.border`),

    x = m + F delta + A (x - m),    A = I - E / 2 + 3 E^2 / 8 ~ (I + E)^{-1/2},
    E = S_0^{-1} (S(theta) - S_0),  S_j = L^T H_j L + I,

with m the posterior's centre, F = dm / dtheta (one solve of the mixed-model equations), S the
precision of the posterior and H_j = Z_j^T w Z_j the data's: the posterior's mean moves to first
order, its spread with L to second order. For an unobserved level this is the non-centred
parametrisation, for a well-observed one the centred, and in between what Papaspiliopoulos, Roberts
& Skold (2007, Stat. Sci. 22, 59-73) call partially non-centred. The larger terms follow the border
by -G, as their conditional mean does.

What is asked of the motion are its derivatives at theta_0. With D_i and D_ij those of L,

    E_i = S_0^{-1} (D_i^T H L + L^T H D_i),    dA / dtheta_i = -E_i / 2,
    E_ij = S_0^{-1} (D_i^T H D_j + D_j^T H D_i + D_ij^T H L + L^T H D_ij),
    d2A / dtheta_i dtheta_j = -E_ij / 2 + 3 (E_i E_j + E_j E_i) / 8,
    d2 log|A| / dtheta_i dtheta_j = (tr E_i E_j - tr E_ij) / 2.
"""

from functools import cached_property
from typing import NamedTuple

import numpy as np

from sklmm.engine.linalg.blocks import invert, turn
from sklmm.engine.theta.space import bends, slopes


class Follow(NamedTuple):
    """How all levels follow the border: G [P, f], 0 on the border, and its lift Lambda_F [f, f]."""

    G: np.ndarray
    lift: np.ndarray


class Spread:
    """Levels whose spread follows parameters of a factor: a larger term's, or the whole border.

    place, where they are among the unknowns; params, which entries of theta; the data's precision K
    [J, r, r] and S^-1 likewise; the lift L [r, r] and its derivatives, `changes` D_i and `bends`
    D_ij, [r, r] each; `follow`, of the border.
    """

    def __init__(self, place, params, K, inverse, lift, changes, bends, follow=None):
        self.place, self.params, self.follow = place, params, follow
        self._K, self._inverse, self._lift, self._changes = K, inverse, lift, changes
        self._bends = bends
        #: E_i of each parameter, [J, r, r].
        self.first = [self._change(D.T, lift) for D in changes]

    def _change(self, left, right):
        """S^-1 (left K right + its transpose)."""
        half = _times(left, _times(self._K, right))
        return _times(self._inverse, half + half.transpose(0, 2, 1))

    def _second(self, i, j):
        """E_ij [J, r, r]."""
        out = self._change(self._changes[i].T, self._changes[j])
        bend = self._bends[i][j]
        return out + self._change(bend.T, self._lift) if bend.any() else out

    def log_det_slope(self):
        """d log |A| / dtheta_i [n_params]."""
        return np.array([-0.5 * np.einsum("jaa->", E) for E in self.first])

    def along(self, away):
        """dx / dtheta_i, for unknowns `away` [P, C] from the centre: yields (i, place, change)."""
        d = away[self.place]
        for k, (i, E) in enumerate(zip(self.params, self.first, strict=True)):
            change = -0.5 * turn(E, d)
            yield i, self.place, change
            if self.follow is not None:
                G, lift = self.follow
                yield i, slice(None), -G @ (self._changes[k] @ d + lift @ change)

    def pulled(self, away, g):
        """g^T dx / dtheta_i [n_params, C] for g [P, C]."""
        d, h, back = away[self.place], *self._back(g)
        out = []
        for E, D in zip(self.first, self._changes, strict=True):
            own = -0.5 * np.einsum("pc,pc->c", turn(E, d), h)
            out.append(own if back is None else own - np.einsum("pc,pc->c", D @ d, back))
        return np.array(out)

    def bent(self, away, g):
        """g^T d2x / dtheta_i dtheta_j, and of log |A|: yields (i, j, [C]) for i >= j."""
        d, h, back = away[self.place], *self._back(g)
        for a, (i, E) in enumerate(zip(self.params, self.first, strict=True)):
            for b, (j, F) in enumerate(zip(self.params[: a + 1], self.first, strict=False)):
                both, second = _times(E, F), self._second(a, b)
                bent = 0.375 * (both + _times(F, E)) - 0.5 * second
                out = np.einsum("pc,pc->c", turn(bent, d), h)
                out += 0.5 * (np.einsum("jaa->", both) - np.einsum("jaa->", second))
                if back is not None:
                    D = self._changes
                    lifted = D[a] @ turn(F, d) + D[b] @ turn(E, d) - 2 * self._bends[a][b] @ d
                    out += 0.5 * np.einsum("pc,pc->c", lifted, back)
                yield i, j, out

    def _back(self, g):
        """What g [P, C] is to these levels, and to those that follow them: None for no others."""
        if self.follow is None:
            return g[self.place], None
        back = self.follow.G.T @ g
        return g[self.place] - self.follow.lift.T @ back, back


class Field:
    """The motion of x with theta about the centre m [P].

    shift F [P, m] and push = C_0 F, the derivative of log p's gradient in x.
    """

    def __init__(self, equations, space, shift, push, centre):
        self.shift, self.push, self.centre = shift, push, centre
        self._equations, self._space = equations, space

    @cached_property
    def spreads(self):
        """`Spread` of each larger term, and of the border where it has parameters."""
        equations, space = self._equations, self._space
        layout, factors, border = equations.layout, equations.factors, equations.marginal
        changes, curves = slopes(space.problem, factors), bends(space.problem, factors)
        out, params, lifted, bent = [], [], [], []
        blocks = zip(equations.G, equations.own_blocks(), strict=True)
        for k, (own, S) in enumerate(blocks):
            part, first = range(space.parts[k].start, space.parts[k].stop), layout.parts[k].start
            if layout.small[k]:
                params += part
                lifted += [_lifted(layout, k, D) for D in changes[k]]
                bent.append([[_lifted(layout, k, B) for B in row] for row in curves[k]])
            elif len(part):
                place, inverse = slice(first, first + own[:, 0].size), invert(S)
                out.append(Spread(place, part, own, inverse, factors[k], changes[k], curves[k]))
        if params:
            follow = Follow(border.follow, border.lift)
            K, inverse = border.precision[None], border.inverse[None]
            bent = _block_diagonal(bent, np.zeros_like(border.lift))
            place = np.flatnonzero(layout.border)
            out.append(Spread(place, params, K, inverse, border.lift, lifted, bent, follow))
        return out

    def along(self, x):
        """dx / dtheta_i [P, k, C] at draws x [P, C], of the k parameters of covariances."""
        p, away = self._space.p, x - self.centre[:, None]
        stop = self.shift.shape[1] - len(self._space.estimated)
        out = np.repeat(self.shift[:, p:stop, None], x.shape[1], axis=2)
        for spread in self.spreads:
            for i, place, change in spread.along(away):
                out[place, i - p] += change
        return out

    def pulled(self, x, g):
        """g^T dx / dtheta and the derivative of log |A|, [m, C], for g [P, C] at draws x [P, C]."""
        out, away = self.shift.T @ g, x - self.centre[:, None]
        for spread in self.spreads:
            out[spread.params] += spread.pulled(away, g) + spread.log_det_slope()[:, None]
        return out

    def bent(self, x, g):
        """g^T d2x / dtheta2 and the second derivatives of log |A|, [m, m, C]."""
        m, away = self.shift.shape[1], x - self.centre[:, None]
        out = np.zeros((m, m, x.shape[1]))
        for spread in self.spreads:
            for i, j, bent in spread.bent(away, g):
                out[i, j] = out[j, i] = bent
        return out


def _times(one, other):
    """Products of blocks [..., r, r], those of one column by broadcasting."""
    return one * other if one.shape[-1] == 1 else one @ other


def _lifted(layout, k, square):
    """A block k's change of factor among the border's levels, [f, f]."""
    edge, out = layout.edges[k], np.zeros((layout.n_border, layout.n_border))
    out[edge, edge] = np.kron(np.eye(layout.levels[k]), square)
    return out


def _block_diagonal(groups, nothing):
    """Rows of matrices from groups of rows, with `nothing` between groups."""
    sizes = [len(group) for group in groups]
    out = [[nothing] * sum(sizes) for _ in range(sum(sizes))]
    first = 0
    for group, size in zip(groups, sizes, strict=True):
        for a, row in enumerate(group):
            out[first + a][first : first + size] = row
        first += size
    return out
