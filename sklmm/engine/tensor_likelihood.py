"""The methods of a `Likelihood` in TensorFlow: log density, its score, the curvature for Newton."""

import numpy as np

from sklmm.engine import densities
from sklmm.engine.graphs import FLOOR
from sklmm.engine.runtime.tensorflow import tf


def constrain(like, raw):
    """All parameters by name, as tensors of raw's dtype and trailing shape."""
    raw = tf.convert_to_tensor(raw)
    values = {name: tf.constant(value, raw.dtype) for name, value in like.pinned}
    to = {"positive": tf.exp, "unit": tf.sigmoid, "real": tf.identity}
    for j, (name, constraint) in enumerate(zip(like.names, like.constraints, strict=True)):
        values[name] = to[constraint](raw[j])
    return values


def log_prob(like, y, eta, raw):
    """log p(y | eta) [n, C]."""
    y, eta, parameters = _arguments(like, y, eta, raw)
    return _log_prob(like, y, eta, parameters)


def log_prob_and_score(like, y, eta, raw):
    """log p(y | eta) [n, C] and its derivative in eta [n * d, C]."""
    y, eta, parameters = _arguments(like, y, eta, raw)
    fused = densities.FUSED.get((like.name, like.link))
    if fused:
        return fused(y, eta, parameters)
    return _taped(like, y, eta, parameters)


def curvature(like, y, eta, raw):
    """Weights [n * d, C] > 0."""
    y, eta, parameters = _arguments(like, y, eta, raw)
    found = densities.CURVATURE.get(like.name)
    if found:
        weights = found(y, eta, parameters, like.link)
    else:
        weights = _numeric_curvature(like, y, eta, parameters)
    weights = tf.broadcast_to(weights, tf.shape(eta))
    weights = tf.maximum(weights, tf.zeros([], eta.dtype))
    floor = FLOOR * tf.reduce_mean(weights, axis=0, keepdims=True)
    return tf.maximum(weights, tf.maximum(floor, np.finfo(np.float32).tiny))


def _arguments(like, y, eta, raw):
    eta = tf.convert_to_tensor(eta)
    y = tf.cast(y, eta.dtype)[:, None]
    return y, eta, constrain(like, tf.cast(raw, eta.dtype))


def _log_prob(like, y, eta, parameters):
    if like.distribution is None:
        return densities.LOG_PROB[like.name](y, eta, parameters, like.link)
    try:
        value = like.distribution(eta, **parameters).log_prob(y)
    except Exception as error:
        # TensorFlow goes on with remedies of its own.
        reason = str(error).partition("\n")[0].partition(". ")[0]
        raise ValueError(
            "family: its function fails, or returns no TFP distribution "
            f"({type(error).__name__}: {reason}). Write it in TensorFlow's operations on eta "
            "and the parameters, tensors without values: no NumPy, and tf.where for if."
        ) from error
    return tf.broadcast_to(tf.cast(value, eta.dtype), tf.shape(eta))


def _taped(like, y, eta, parameters):
    with tf.GradientTape() as tape:
        tape.watch(eta)
        value = _log_prob(like, y, eta, parameters)
    return value, tape.gradient(value, eta, unconnected_gradients="zero")


def _numeric_curvature(like, y, eta, parameters):
    with tf.GradientTape() as tape:
        tape.watch(eta)
        _, score = _taped(like, y, eta, parameters)
    observed = -tape.gradient(score, eta, unconnected_gradients="zero")
    zero = tf.zeros_like(eta)
    observed = tf.where(tf.math.is_finite(observed), observed, zero)
    score = tf.where(tf.math.is_finite(score), score, zero)
    mean = tf.reduce_mean(observed, axis=0, keepdims=True)
    squared = tf.reduce_mean(score**2, axis=0, keepdims=True)
    return tf.where(mean > 0, observed, squared)
