r"""Deviations that stand for Laplace's C^-1: their scores and their information, compiled.

The quadratic expansion about the mode m = field.centre,

    log p(y, m) - (d^T C d) / 2,    C = Z^T W(eta_hat) Z + I,

at deviations d [P, C] that stand for N(0, C^-1): their mean is the Laplace approximation's
gradient, the motion of W with theta included. Deviations move with theta as draws do
(`engine.latent.reparametrization`), here with the whole of delta.
"""

from typing import NamedTuple

import numpy as np

from sklmm.engine.latent.unknowns import Terms, border_of, flatten, split, times, with_border
from sklmm.engine.linalg.blocks import invert
from sklmm.engine.linalg.newton import STEP
from sklmm.engine.rows.tensors import to_rows
from sklmm.engine.runtime.tensorflow import compiled, tf
from sklmm.engine.theta.space import slopes


class Motion(NamedTuple):
    """The motion of x with theta.

    shift F [P, m]; terms, with L_k at theta_0 and S_j^-1 [n_levels, r, r] for blocks, 0 for those
    of the border; crossprod, H_j likewise; edge, K and S^-1 [f, f] of the border; follow G [P, f];
    slope [m] and curve [m, m] of log |A|; centre m [P].
    """

    shift: object
    terms: Terms
    crossprod: tuple
    edge: tuple
    follow: object
    slope: object
    curve: object
    centre: object


def _motion(equations, space, shift, centre):
    """`Motion` of `latent.Equations` at one theta about `centre` [P]."""
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
    field = Motion(
        shift,
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


def _changes(theta, delta):
    """beta, factors and raw [..., C] at theta + delta [m, C], and the factors' changes."""
    p = theta.beta.shape[0]
    beta, first = theta.beta[:, None] + delta[:p], p
    factors, changes = [], []
    for L, D in zip(theta.factors, theta.slopes, strict=True):
        last = first + D.shape[1]
        change = tf.reshape(D @ delta[first:last], [*L.shape, -1])
        changes.append(change)
        factors.append(L[:, :, None] + change)
        first = last
    return beta, factors, theta.raw[:, None] + delta[first:], changes


def _eta(arrays, beta, factors, x, shapes):
    return arrays.offset + _linear(arrays, beta, factors, x, shapes)


def _linear(arrays, beta, factors, x, shapes):
    first = p = arrays.X.shape[1]
    effects = []
    for (J, r), L in zip(shapes, factors, strict=True):
        u = tf.reshape(x[first : first + J * r], [J, r, -1])
        effects.append(lift_columns(L, u))
        first += J * r
    return arrays.fixed @ beta + to_rows(arrays, x[:p], effects)


def _undisplaced(like, arrays, theta, x, delta, shapes):
    """(eta, raw) at delta = 0 for custom densities, which are expanded about it, else None."""
    if like.distribution is None:
        return None
    beta, factors, raw, _ = _changes(theta, tf.zeros_like(delta))
    return _eta(arrays, beta, factors, x, shapes), raw


def _shapes(field):
    return [(B.shape[0], B.shape[1]) for B in field.terms.blocks]


def _log_prior(x, p):
    return -0.5 * tf.reduce_sum(x[p:] ** 2, axis=0)


def _log_likelihood(like, arrays, eta, raw, undisplaced):
    d = like.n_predictors
    if undisplaced is not None:
        # A custom density may have kinks, where differences of the score mean nothing: to second
        # order about eta_0, with the curvature's W.
        y, eta_0 = arrays.y, tf.stop_gradient(undisplaced[0])
        rows, score = like.log_prob_and_score(y, eta_0, raw)
        W = tf.stop_gradient(like.curvature(y, eta_0, undisplaced[1]))
        away = eta - eta_0
        rows += away * (score - 0.5 * W * away)
        return tf.reduce_sum(arrays.w[:, None] * rows, axis=0)
    rows = like.log_prob(arrays.y[::d], eta, raw)
    return tf.reduce_sum(arrays.w[::d, None] * rows, axis=0)


def _gradient(function, variable):
    with tf.GradientTape() as tape:
        tape.watch(variable)
        value = function(variable)
        total = tf.reduce_sum(value)
    return value, tape.gradient(total, variable, unconnected_gradients="zero")


@compiled
def laplace_scores(like, arrays, theta, field, deviations, delta):
    """log p(y, m) less d^T C d / 2 [C], and its gradient in theta [m, C], at theta + delta."""
    p, shapes = arrays.X.shape[1], _shapes(field)
    tiled = tf.repeat(field.centre[:, None], tf.shape(delta)[1], axis=1)
    undisplaced = _undisplaced(like, arrays, theta, tiled, delta, shapes)

    def value(delta):
        beta, factors, raw, changes = _changes(theta, delta)
        mode = field.centre[:, None] + field.shift @ delta
        still = field._replace(shift=tf.zeros_like(field.shift), centre=0 * field.centre)
        d, log_det = move(still, changes, deviations, delta, p)
        eta = _eta(arrays, beta, factors, mode, shapes)
        rows = _linear(arrays, tf.zeros_like(beta), factors, d, shapes)
        W = like.curvature(arrays.y[:: like.n_predictors], eta, raw)
        quadratic = tf.reduce_sum(arrays.w[:, None] * W * rows**2, axis=0)
        return (
            _log_likelihood(like, arrays, eta, raw, undisplaced)
            + _log_prior(mode, p)
            + _log_prior(d, p)
            - 0.5 * quadratic
            + log_det
        )

    return _gradient(value, delta)


def scores(latent, theta, equations, shift, mode, deviations, delta=None):
    """The expansion's values [C] and gradients [m, C] at deviations [P, C] from the mode [P]."""
    if delta is None:
        delta = np.zeros((latent.space.size, deviations.shape[1]))
    field = _motion(equations, latent.space, shift, mode)
    found = laplace_scores(
        latent.like,
        latent.compiled.arrays,
        latent.compiled.point(theta),
        field,
        tf.constant(deviations),
        tf.constant(delta),
    )
    return [np.asarray(part) for part in found]


def information(latent, theta, equations, shift, mode, deviations):
    """Complete-data information [m, m] by central differences, averaged over deviations."""
    columns = []
    for e in STEP * np.eye(latent.space.size):
        delta = np.repeat(e[:, None], deviations.shape[1], axis=1)
        up, down = (
            scores(latent, theta, equations, shift, mode, deviations, d)[1].mean(axis=1)
            for d in (delta, -delta)
        )
        columns.append((down - up) / (2 * STEP))
    out = np.reshape(columns, (len(columns),) * 2)
    return (out + out.T) / 2
