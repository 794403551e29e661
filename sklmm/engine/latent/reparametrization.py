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
"""

from typing import NamedTuple

import numpy as np

from sklmm.engine.latent.unknowns import Terms, border_of, flatten, split, times, with_border
from sklmm.engine.linalg.blocks import invert
from sklmm.engine.runtime.tensorflow import tf
from sklmm.engine.theta.space import slopes


class Field(NamedTuple):
    """The motion of x with theta.

    shift F [P, m] and push = C_0 F, the derivative of log p's gradient in x; terms, with L_k at
    theta_0 and S_j^-1 [n_levels, r, r] for blocks, 0 for those of the border; crossprod, H_j
    likewise; edge, K and S^-1 [f, f] of the border; follow G [P, f]; slope [m] and curve [m, m] of
    log |A|; centre m [P].
    """

    shift: object
    push: object
    terms: Terms
    crossprod: tuple
    edge: tuple
    follow: object
    slope: object
    curve: object
    centre: object


def make_field(equations, space, shift, push, centre):
    """Field of `latent.Equations` at one theta about `centre` [P]."""
    layout, factors = equations.layout, equations.factors
    border = equations.marginal
    slope, curve = np.zeros(space.size), np.zeros((space.size, space.size))
    precision = equations.own_blocks()
    crossprod, inverses, of_border = [], [], {}
    changes = slopes(space.problem, factors)
    for k, (own, S) in enumerate(zip(equations.G, precision, strict=True)):
        J, r = layout.shapes[k]
        part = space.parts[k]
        H, inverse = np.zeros((2, J, r, r))
        if layout.small[k]:
            lifted = _lifted(layout, k, changes[k])
            of_border |= dict(zip(range(part.start, part.stop), lifted, strict=True))
        else:
            H[: len(S)], inverse[: len(S)] = own, invert(S)
            slope[part], curve[part, part] = _log_det(H, inverse, factors[k], changes[k])
        crossprod.append(H)
        inverses.append(inverse)
    if of_border:
        part = list(of_border)
        slope[part], curve[np.ix_(part, part)] = _log_det(
            border.precision[None], border.inverse[None], border.lift, list(of_border.values())
        )
    field = Field(
        shift,
        push,
        Terms(tuple(factors), layout.small, tuple(inverses)),
        tuple(crossprod),
        (border.precision, border.inverse),
        border.follow,
        slope,
        curve,
        centre,
    )
    return tf.nest.map_structure(lambda a: a if isinstance(a, bool) else tf.constant(a), field)


def _lifted(layout, k, changes):
    """Changes of block k's factor among the border's, each [f, f]."""
    edge = layout.edges[k]
    for change in changes:
        out = np.zeros((layout.n_border, layout.n_border))
        out[edge, edge] = np.kron(np.eye(layout.levels[k]), change)
        yield out


def _log_det(K, inverse, lift, directions):
    """-(1/2) sum_j log |lift^T K_j lift + I|, its first and second derivatives."""
    first = [inverse @ (D.T @ K @ lift + lift.T @ K @ D) for D in directions]
    slope = [-0.5 * np.einsum("jaa->", E) for E in first]
    curve = [
        [
            0.5 * np.einsum("jab,jba->", E, F) - np.einsum("jaa->", inverse @ C.T @ K @ D)
            for F, D in zip(first, directions, strict=True)
        ]
        for E, C in zip(first, directions, strict=True)
    ]
    return np.array(slope), np.reshape(curve, (len(slope), len(slope)))


def lift_columns(L, u, transpose=False):
    """L_c u, or L_c^T u, for every level and column, L [r, r, C] and u [n_levels, r, C]."""
    if L.shape[0] == 1:
        return L[0] * u
    return tf.einsum("bac,jbc->jac" if transpose else "abc,jbc->jac", L, u)


def move(field, changes, x, delta, p):
    """x [P, C] moved by delta [m, C], and log |dx / dv|; the factors' `changes` are [r, r, C]."""
    terms = field.terms
    before = [
        tf.broadcast_to(L[:, :, None], tf.shape(change))
        for L, change in zip(terms.factors, changes, strict=True)
    ]
    after = [L + change for L, change in zip(before, changes, strict=True)]
    away = x - field.centre[:, None]
    beta, parts = split(terms, p, away)
    inner = [beta]
    for H, inverse, old, new, part in zip(
        field.crossprod, terms.blocks, before, after, parts, strict=True
    ):

        def data(L, u, H=H, inverse=inverse):
            return times(inverse, lift_columns(L, times(H, lift_columns(L, u)), transpose=True))

        inner.append(flatten(_reshaped(data, old, new, part)))
    old, new = (_of_border(terms, factors) for factors in (before, after))
    K, inverse = field.edge

    def data(blocks, u):
        return inverse @ _lift_edge(blocks, p, K @ _lift_edge(blocks, p, u), transpose=True)

    edge = border_of(terms, beta, parts)
    bent = _reshaped(data, old, new, edge)
    moved = x - away + field.shift @ delta
    moved += with_border(terms, p, tf.concat(inner, axis=0), bent)
    moved -= field.follow @ (_lift_edge(new, p, bent) - _lift_edge(old, p, edge))
    log_det = tf.linalg.matvec(delta, field.slope, transpose_a=True)
    return moved, log_det + 0.5 * tf.reduce_sum(delta * (field.curve @ delta), axis=0)


def _reshaped(data, before, after, u):
    """A u, from S^-1 times the data's part of the precision at the factors before and after."""

    def change(u):
        return data(after, u) - data(before, u)

    first = change(u)
    return u - 0.5 * first + 0.375 * change(first)


def _of_border(terms, factors):
    """(L, number of levels) of the border's blocks."""
    blocks = zip(factors, terms.blocks, terms.small, strict=True)
    return [(L, block.shape[0]) for L, block, small in blocks if small]


def _lift_edge(blocks, p, u, transpose=False):
    """Lambda_F u, or its transpose's, [f, C]."""
    out, first = [u[:p]], p
    for L, J in blocks:
        size = J * L.shape[0]
        part = tf.reshape(u[first : first + size], [J, L.shape[0], -1])
        out.append(flatten(lift_columns(L, part, transpose)))
        first += size
    return tf.concat(out, axis=0)
