r"""The latent variables x = (beta under REML, u) of any family, and complete data that miss little.

    eta = o + X beta + Z Lambda u,   log p(y, x) = sum_i w_i log f(y_i | eta_i, phi) - |u|^2 / 2.

The score of theta averages d log p(y, u) / d theta over the posterior (Fisher's identity), and so
it does for any other parametrisation of the missing data, u = u_theta(v), with the Jacobian added.
Here v is what stays put when theta moves (`engine.latent.reparametrization`). The information that
v misses is small, so few draws give a precise score, and the complete-data information nearly
equals the observed one.
"""

from typing import NamedTuple

from sklmm.engine.latent.reparametrization import lift_columns, move
from sklmm.engine.rows.tensors import to_rows
from sklmm.engine.runtime.tensorflow import compiled, tf


class Point(NamedTuple):
    """theta as tensors, and slopes, the derivatives [r * r, m_k] of the factors in its entries."""

    beta: object
    factors: tuple
    raw: object
    slopes: tuple


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
def complete_scores(like, arrays, theta, field, x, delta):
    """log p(y, x) [C] and its score in theta [m, C], at draws x [P, C] moved by delta [m, C]."""
    p, shapes = arrays.X.shape[1], _shapes(field)
    undisplaced = _undisplaced(like, arrays, theta, x, delta, shapes)

    def value(delta):
        beta, factors, raw, changes = _changes(theta, delta)
        moved, log_det = move(field, changes, x, delta, p)
        eta = _eta(arrays, beta, factors, moved, shapes)
        likelihood = _log_likelihood(like, arrays, eta, raw, undisplaced)
        return likelihood + _log_prior(moved, p) + log_det

    return _gradient(value, delta)


@compiled
def laplace_scores(like, arrays, theta, field, deviations, delta):
    """As `complete_scores`, for the quadratic expansion about the mode m = field.centre.

        log p(y, m) - (d^T C d) / 2,    C = Z^T W(eta_hat) Z + I,

    at deviations d [P, C] that stand for N(0, C^-1): their mean is the Laplace approximation's
    gradient, the motion of W with theta included.
    """
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
