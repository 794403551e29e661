r"""How the latent variables x move with theta, so that they carry little information about it.

A draw x at theta_0 becomes, at theta = theta_0 + delta, in the levels j of the larger terms and in
the border F (`engine.border`),

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

from sklmm.engine.e_step.base import vech_indices
from sklmm.engine.operator import invert_blocks, precision_blocks, turn
from sklmm.engine.xla import tf


class Field(NamedTuple):
    """The motion of x with theta.

    shift F [P, m]; levels, (H_j, S_j^-1) [n_levels, r, r] a block, empty for the border's; edge,
    (K, S^-1) [f, f] of the border; follow G [P, f]; slope [m] and curve [m, m], log |A| to second
    order; factors L_k at theta_0; small, which blocks are the border's; shapes, levels and size of each block; centre m [P].
    """

    shift: object
    levels: tuple
    edge: tuple
    follow: object
    slope: object
    curve: object
    factors: tuple
    small: tuple
    shapes: tuple
    centre: object


def make_field(equations, space, shift, centre):
    """Field of `latent.Equations` at one theta about `centre` [P]."""
    layout, factors = equations.layout, equations.params.factors
    border = equations.marginal
    slope, curve = np.zeros(space.size), np.zeros((space.size, space.size))
    blocks = precision_blocks(equations.problem, equations.params)
    levels, lifted, first = [], {}, space.p
    for k, (block, S) in enumerate(zip(equations.problem.blocks, blocks, strict=True)):
        J, r = layout.shapes[k]
        part = slice(first, first + r * (r + 1) // 2)
        units = _units(r)
        first = part.stop
        if k in layout.small:
            levels.append(())
            lifted |= dict(zip(range(part.start, part.stop), _lifted(layout, k, units), strict=True))
            continue
        H, inverse = np.zeros((2, J, r, r))
        H[: len(S)], inverse[: len(S)] = block.crossprod, invert_blocks(S)
        levels.append((H, inverse))
        slope[part], curve[part, part] = _log_det(H, inverse, factors[k], units)
    if lifted:
        part = list(lifted)
        slope[part], curve[np.ix_(part, part)] = _log_det(
            border.precision[None], border.inverse[None], border.lift, list(lifted.values())
        )
    field = Field(
        shift,
        tuple(levels),
        (border.precision, border.inverse),
        border.follow,
        slope,
        curve,
        factors,
        tuple(k in layout.small for k in range(len(blocks))),
        tuple(layout.shapes),
        centre,
    )
    return tf.nest.map_structure(lambda a: a if isinstance(a, int) else tf.constant(a), field)


def still(field):
    """The field that moves nothing."""
    zero = tf.nest.map_structure(
        lambda a: a if isinstance(a, int) else tf.zeros_like(a), field
    )
    return zero._replace(centre=field.centre)


def _units(r):
    """The directions of the lower triangle's entries, each [r, r]."""
    units = np.zeros((r * (r + 1) // 2, r, r))
    rows, columns = vech_indices(r)
    units[np.arange(len(units)), rows, columns] = 1.0
    return units


def _lifted(layout, k, units):
    """Directions of block k's factor among the border's, each [f, f]."""
    f, (J, r) = int(layout.border.sum()), layout.shapes[k]
    start = layout.starts[layout.small.index(k)]
    for unit in units:
        out = np.zeros((f, f))
        out[start : start + J * r, start : start + J * r] = np.kron(np.eye(J), unit)
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
    return np.array(slope), np.array(curve)


def lift_columns(L, u, transpose=False):
    """L_c u, or L_c^T u, for every level and column, L [r, r, C] and u [n_levels, r, C]."""
    if L.shape[0] == 1:
        return L[0] * u
    return tf.einsum("bac,jbc->jac" if transpose else "abc,jbc->jac", L, u)


def move(field, changes, x, delta, p):
    """x [P, C] moved by delta [m, C], `changes` of the factors [r, r, C] in it, and log |dx / dv|."""
    shifted = field.shift @ delta
    away = x - field.centre[:, None]
    parts, starts, first = [], [], p
    before = [
        tf.broadcast_to(L[:, :, None], tf.shape(change))
        for L, change in zip(field.factors, changes, strict=True)
    ]
    after = [L + change for L, change in zip(before, changes, strict=True)]
    edge, old, new = [away[:p]], [], []
    for (J, r), levels, small, L0, L in zip(
        field.shapes, field.levels, field.small, before, after, strict=True
    ):
        own = tf.reshape(away[first : first + J * r], [J, r, -1])
        starts.append(first)
        first += J * r
        if small:
            edge.append(tf.reshape(own, [J * r, -1]))
            old.append((L0, J)), new.append((L, J))
            parts.append(None)
            continue
        H, inverse = levels

        def precision(L, u, H=H, inverse=inverse):
            return turn(inverse, lift_columns(L, turn(H, lift_columns(L, u)), transpose=True))

        parts.append(tf.reshape(_reshaped(precision, L0, L, own), [J * r, -1]))
    edge = tf.concat(edge, axis=0)
    bent = edge
    if old:
        K, inverse = field.edge

        def precision(blocks, u):
            return inverse @ _lift_edge(blocks, p, K @ _lift_edge(blocks, p, u), transpose=True)

        bent = _reshaped(precision, old, new, edge)
    out, place = [bent[:p]], p
    for k, part in enumerate(parts):
        if part is None:
            J, r = field.shapes[k]
            part = bent[place : place + J * r]
            place += J * r
        out.append(part)
    moved = field.centre[:, None] + shifted + tf.concat(out, axis=0)
    if old:
        moved -= field.follow @ (_lift_edge(new, p, bent) - _lift_edge(old, p, edge))
    quadratic = tf.reduce_sum(delta * (field.curve @ delta), axis=0)
    return moved, tf.linalg.matvec(delta, field.slope, transpose_a=True) + 0.5 * quadratic


def _reshaped(precision, before, after, u):
    """A u."""

    def change(u):
        return precision(after, u) - precision(before, u)

    first = change(u)
    return u - 0.5 * first + 0.375 * change(first)


def _lift_edge(blocks, p, u, transpose=False):
    """Lambda_F u, or its transpose's, [f, C]."""
    out, first = [u[:p]], p
    for L, J in blocks:
        r = L.shape[0]
        part = tf.reshape(u[first : first + J * r], [J, r, -1])
        out.append(tf.reshape(lift_columns(L, part, transpose), [J * r, -1]))
        first += J * r
    return tf.concat(out, axis=0)
