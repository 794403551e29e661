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

At another theta the same data, of precision H and with the pull t on b = L u, ask for another
motion. The mode is S^{-1} L^T t, and moves with theta but for L as t does:

    m(L) = S(L)^{-1} L^T L_0^{-T} S_0 m,    and F's columns likewise.

Where data tell much, L u stays put, as it has to: by F itself the score of theta would take the
share L / L_0 - 1 of the data's score of the effects, which is huge there. The columns of L_k also
lose S^{-1} L^T H D_i (m(L) - m), and E_i is that of L. Any motion gives a score of the right mean
if its Jacobian is its own, and a shift that is the same for all x has none.
"""

from copy import copy
from functools import cached_property
from typing import NamedTuple

import numpy as np

from sklmm.engine.equations.border import lift_of, moved
from sklmm.engine.linalg.blocks import congruent, invert, turn, turn_all
from sklmm.engine.theta.space import bends, slopes

#: Relative change of a factor up to which the motion is made for it, and the condition up to which
#: it is inverted.
NEAR = 0.5
MOST_CONDITION = 1e8


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
        self._K, self._inverse, self._changes = K, inverse, changes
        self._bends, self._lifted = bends, _times(K, lift)
        #: E_i of each parameter, [J, r, r].
        self.first = [self._change(D.T, self._lifted) for D in changes]

    def _change(self, left, right):
        """S^-1 (left right + its transpose)."""
        half = _times(left, right)
        return _times(self._inverse, half + half.transpose(0, 2, 1))

    def _second(self, i, j):
        """E_ij [J, r, r]."""
        out = self._change(self._changes[i].T, _times(self._K, self._changes[j]))
        bend = self._bends[i][j]
        return out + self._change(bend.T, self._lifted) if bend.any() else out

    def log_det_slope(self):
        """d log |A| / dtheta_i [n_params]."""
        return np.array([-0.5 * np.einsum("jaa->", E) for E in self.first])

    def along(self, away):
        """dx / dtheta_i, for unknowns `away` [P, C] from the centre: yields (i, place, change)."""
        d = away[self.place]
        yield from self._carried(d, (-0.5 * turn(E, d) for E in self.first))

    def resisted(self, away):
        """What data do against theta_i's change where u is `away` [P, C] further, as `along`.

        -S^-1 L^T H D_i u, which leaves L u as it is where they tell it.
        """
        d, pull = away[self.place], self._lifted.transpose(0, 2, 1)
        pulls = (turn(pull, turn_all(D, d)) for D in self._changes)
        yield from self._carried(d, (-turn(self._inverse, own) for own in pulls))

    def _carried(self, d, changes):
        """Each parameter's change of u, and what follows that of b = L u, for u = d."""
        for k, (i, change) in enumerate(zip(self.params, changes, strict=True)):
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

    def __init__(self, equations, space, theta, shift, push, centre):
        self.shift, self.push, self.centre = shift, push, centre
        self._equations, self._space, self._flat = equations, space, space.join(theta)
        self._factors, self._border = equations.factors, equations.marginal

    def at(self, flat):
        """The motion at another theta, flat [m], by the same precision and pull of the data.

        The factor of a term that has changed much, or that has left 0, counts as it was.
        """
        p, m, new = self._space.p, len(flat), self._space.split(flat)
        turns = [_turn(*pair) for pair in zip(self._factors, new.factors, strict=True)]
        if all(np.array_equal(Q, np.eye(len(Q))) for Q in turns):
            return self
        out, step = copy(self), flat - self._flat
        out.__dict__.pop("spreads", None)
        step[p : m - len(new.raw)] = 0.0
        out._factors = [L @ Q for L, Q in zip(self._factors, turns, strict=True)]
        columns = np.column_stack([self.shift, self.centre + self.shift @ step])
        columns, out._border = self._turned(columns, turns, out._factors)
        out.shift, out.centre = columns[:, :m], columns[:, m]
        away = (out.centre - self.centre)[:, None]
        for spread in out.spreads:
            for i, place, change in spread.resisted(away):
                out.shift[place, i] += change[:, 0]
        return out

    def _turned(self, columns, turns, factors):
        """Columns S_0^-1 L_0^T t [P, n] as S^-1 L^T t at factors L = L_0 Q; and the border's."""
        layout, before = self._equations.layout, self._border
        after, edge = moved(before, layout, factors), layout.border
        prior = (np.arange(layout.n_border) >= layout.p).astype(float)
        S = before.lift.T @ before.precision @ before.lift + np.diag(prior)
        own = after.inverse @ (lift_of(layout, turns).T @ (S @ columns[edge]))
        # The larger terms' own, beside how they follow the border.
        out = columns + before.follow @ (before.lift @ columns[edge] - after.lift @ own)
        out[edge], follow = own, before.follow.copy()
        of_terms = zip(self._equations.G, self._factors, factors, turns, strict=True)
        for k, (H, old, new, Q) in enumerate(of_terms):
            if not layout.small[k]:
                first = layout.parts[k].start
                place = slice(first, first + H[:, 0].size)
                ratio = invert(_precision(new, H)) @ (Q.T @ _precision(old, H))
                out[place], follow[place] = turn(ratio, out[place]), turn(ratio, follow[place])
        return out, after._replace(follow=follow)

    @cached_property
    def spreads(self):
        """`Spread` of each larger term, and of the border where it has parameters."""
        equations, space = self._equations, self._space
        layout, factors, border = equations.layout, self._factors, self._border
        changes, curves = slopes(space.problem, factors), bends(space.problem, factors)
        out, params, lifted, bent = [], [], [], []
        for k, own in enumerate(equations.G):
            part, first = range(space.parts[k].start, space.parts[k].stop), layout.parts[k].start
            if layout.small[k]:
                params += part
                lifted += [_lifted(layout, k, D) for D in changes[k]]
                bent.append([[_lifted(layout, k, B) for B in row] for row in curves[k]])
            elif len(part):
                place = slice(first, first + own[:, 0].size)
                inverse = invert(_precision(factors[k], own))
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


def _turn(old, new):
    """L_0^-1 L, or 1 where the change is large in some direction."""
    unit = np.eye(len(old))
    if np.array_equal(old, new) or not np.linalg.cond(old) < MOST_CONDITION:
        return unit
    Q = np.linalg.solve(old, new)
    return Q if np.linalg.norm(Q - unit, 2) < NEAR else unit


def _precision(L, H):
    """S_j = L^T H_j L + 1 of each level [J, r, r]."""
    return congruent(L, H) + np.eye(len(L))


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
