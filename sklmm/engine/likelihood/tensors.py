"""The methods of a `Likelihood` in TensorFlow: log density, its score, the curvature for Newton."""

import math
from types import SimpleNamespace

import numpy as np

from sklmm.engine.likelihood.likelihood import FLOOR
from sklmm.engine.likelihood.parameters import flat, of_rows
from sklmm.engine.runtime.tensorflow import tf
from sklmm.engine.runtime.tfp_graph import tfp
from sklmm.families.rising import by_rests

_LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)


def where(condition, x, y):
    """tf.where, of which one value may be a Python number."""
    dtype = x.dtype if tf.is_tensor(x) else y.dtype
    return tf.where(condition, tf.convert_to_tensor(x, dtype), tf.convert_to_tensor(y, dtype))


@tf.custom_gradient
def mills(x):
    """phi(x) / Phi(x), the derivative of log Phi."""
    low, high = tf.minimum(x, 0), tf.maximum(x, 0)
    left = math.sqrt(2 / math.pi) / tfp.math.erfcx(-low / math.sqrt(2))
    right = tf.exp(-0.5 * high**2 - _LOG_SQRT_2PI) / (1 - 0.5 * tf.math.erfc(high / math.sqrt(2)))
    value = tf.where(x < 0, left, right)
    return value, lambda upstream: -upstream * mills(x) * (mills(x) + x)


@tf.custom_gradient
def log_ndtr(x):
    """log Phi(x).

    TFP's (the log cdf of its Normal) takes less than half the time, but it is off by 4e-9 at -20
    in float64, and in float32 the ordinal density built on it has NaN second derivatives.
    """
    low, high = tf.minimum(x, 0), tf.maximum(x, 0)
    left = tf.math.log(0.5 * tfp.math.erfcx(-low / math.sqrt(2))) - 0.5 * low**2
    right = tf.math.log1p(-0.5 * tf.math.erfc(high / math.sqrt(2)))
    return tf.where(x < 0, left, right), lambda upstream: upstream * mills(x)


TENSORFLOW = SimpleNamespace(
    exp=tf.exp,
    log=tf.math.log,
    log1p=tf.math.log1p,
    expm1=tf.math.expm1,
    atan2=tf.math.atan2,
    abs=tf.abs,
    maximum=tf.maximum,
    minimum=tf.minimum,
    where=where,
    floor=tf.floor,
    double=lambda x: tf.cast(x, tf.float64),
    same_kind=lambda x, y: tf.cast(x, y.dtype),
    counted=lambda n, x: tf.range(1, n + 1, dtype=x.dtype),
    shape=tf.shape,
    concat=tf.concat,
    reshape=tf.reshape,
    cumsum=tf.cumsum,
    sum=tf.reduce_sum,
    max=tf.reduce_max,
    matmul=tf.matmul,
    one_hot=lambda codes, n: tf.one_hot(tf.cast(codes, tf.int32), n, dtype=codes.dtype),
    # A graph has the branches of all rows.
    some=lambda condition: True,
    log_gamma=tf.math.lgamma,
    digamma=tf.math.digamma,
    trigamma=lambda x: tf.math.polygamma(tf.ones([], x.dtype), x),
    rising=lambda *rows: by_rests(TENSORFLOW, *rows),
    expit=tf.sigmoid,
    ndtr=lambda x: tf.exp(log_ndtr(x)),
    log_ndtr=log_ndtr,
    mills=mills,
    at_once=64,
    up_to=lambda x, most: most,
    largest_log=lambda x: 300.0 if x.dtype == tf.float64 else 40.0,
)


_TO = {
    "positive": tf.exp,
    "unit": tf.sigmoid,
    "one_to_two": lambda raw: 1 + tf.sigmoid(raw),
    "real": tf.identity,
}


def constrain(like, raw):
    """The parameters of all rows by name, as tensors of raw's dtype and trailing shape."""
    raw = tf.convert_to_tensor(raw)
    values = {name: tf.constant(value, raw.dtype) for name, value in like.pinned}
    return values | {name: _TO[kind](raw[j]) for j, name, kind in like.scalars}


def _parameters(like, y, raw):
    """All parameters and row data by name, of rows y [n, m]."""
    values = constrain(like, raw)
    if not like.wide:
        return values
    raw = raw[:, None] if raw.shape.rank == 1 else raw
    return values | of_rows(like, y, raw, lambda kind, value: _TO[kind](value))


def log_prob(like, y, eta, raw):
    """log p(y | eta) [n, C]."""
    y, eta, raw = _arguments(like, y, eta, raw)
    if like.distribution is not None:
        return _log_prob(like, y, eta, raw)
    raw = raw[:, None] if raw.shape.rank == 1 else raw
    n_draws = tf.maximum(tf.shape(eta)[1], tf.shape(raw)[1])

    @tf.custom_gradient
    def value(eta, raw):
        density = _density(like, y, eta, raw)
        rows, score = density.value_and_score

        def gradient(upstream):
            parts = _in_raw(like, density, y)
            by_raw = [
                tf.reduce_sum(upstream * tf.broadcast_to(part, tf.shape(upstream)), axis=0)
                for part in parts
            ]
            each = tf.repeat(upstream, like.n_predictors, axis=0)
            return each * score, tf.stack(by_raw) if by_raw else tf.zeros_like(raw)

        return rows, gradient

    return value(*(tf.broadcast_to(a, [tf.shape(a)[0], n_draws]) for a in (eta, raw)))


def log_prob_and_score(like, y, eta, raw):
    """log p(y | eta) [n, C] and its derivative in eta [n * d, C]."""
    y, eta, raw = _arguments(like, y, eta, raw)
    if like.distribution is not None:
        return _taped(like, y, eta, raw)
    return _density(like, y, eta, raw).value_and_score


def curvature(like, y, eta, raw):
    """Weights [n * d, C] > 0."""
    y, eta, raw = _arguments(like, y, eta, raw)
    if like.distribution is not None:
        weights = _numeric_curvature(like, y, eta, raw)
    else:
        weights = _density(like, y, eta, raw).expected
    weights = tf.broadcast_to(weights, tf.shape(eta))
    weights = tf.maximum(weights, tf.zeros([], eta.dtype))
    floor = FLOOR * tf.reduce_mean(weights, axis=0, keepdims=True)
    return tf.maximum(weights, tf.maximum(floor, np.finfo(np.float32).tiny))


def _arguments(like, y, eta, raw):
    eta = tf.convert_to_tensor(eta)
    y = tf.cast(y, eta.dtype)
    return y if like.wide else y[:, None], eta, tf.cast(raw, eta.dtype)


def _density(like, y, eta, raw):
    return like.density(TENSORFLOW, y[:, :1], eta, _parameters(like, y, raw), like.link)


def _in_raw(like, density, y):
    """Log f's derivatives in each entry of raw, a list."""
    named = [name for _, name, _ in like.scalars] + [own.name for own in like.linear]
    found = dict(zip(named, density.slopes_in(named), strict=True))
    return flat(like, y, found) if like.linear else list(found.values())


def _log_prob(like, y, eta, raw):
    try:
        value = like.distribution(eta, **_parameters(like, y, raw)).log_prob(y[:, :1])
    except Exception as error:
        # TensorFlow goes on with remedies of its own.
        reason = str(error).partition("\n")[0].partition(". ")[0]
        raise ValueError(
            "family: its function fails, or returns no TFP distribution "
            f"({type(error).__name__}: {reason}). Write it in TensorFlow's operations on eta "
            "and the parameters, tensors without values: no NumPy, and tf.where for if."
        ) from error
    return tf.broadcast_to(tf.cast(value, eta.dtype), tf.shape(eta))


def _taped(like, y, eta, raw):
    with tf.GradientTape() as tape:
        tape.watch(eta)
        value = _log_prob(like, y, eta, raw)
    return value, tape.gradient(value, eta, unconnected_gradients="zero")


def _numeric_curvature(like, y, eta, raw):
    with tf.GradientTape() as tape:
        tape.watch(eta)
        _, score = _taped(like, y, eta, raw)
    observed = -tape.gradient(score, eta, unconnected_gradients="zero")
    zero = tf.zeros_like(eta)
    observed = tf.where(tf.math.is_finite(observed), observed, zero)
    score = tf.where(tf.math.is_finite(score), score, zero)
    mean = tf.reduce_mean(observed, axis=0, keepdims=True)
    squared = tf.reduce_mean(score**2, axis=0, keepdims=True)
    return tf.where(mean > 0, observed, squared)
