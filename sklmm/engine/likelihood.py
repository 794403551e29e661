"""Response families in TensorFlow: log density, its score in eta, and the curvature for Newton.

Layout [rows, draws]. y is [n]; eta [n * d, C] with the d predictors of a row adjacent; raw [m, C],
[m, 1] or [m] holds the estimated parameters, unconstrained.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass

import joblib
import numpy as np

from sklmm.engine import densities
from sklmm.engine.xla import tf
from sklmm.families import CustomFamily, Family

# Curvatures stay above this fraction of their mean.
_FLOOR = 1e-7


@dataclass(frozen=True)
class _Method:
    """`distribution` of a family, equal for equal families, where a bound method is not."""

    family: type
    parameters: tuple

    def __call__(self, eta, **parameters):
        return self.family(**dict(self.parameters)).distribution(eta, **parameters)


def _function(family):
    """The function eta, parameters -> TFP distribution of a custom family, hashable by value."""
    if type(family) is CustomFamily:
        return family.function
    method = _Method(type(family), tuple(family.get_params(deep=False).items()))
    try:
        hash(method)
    except TypeError:
        return family.distribution
    return method


def _reads(function):
    """What a function of the user's reads besides its arguments: in a graph it does not change."""
    if not inspect.isfunction(function):
        return (_digest(function),)
    outside = inspect.getclosurevars(function)
    values = {**outside.globals, **outside.nonlocals}
    return tuple((name, _hashable(value)) for name, value in sorted(values.items()))


def _hashable(value):
    try:
        hash(value)
    except TypeError:
        return _digest(value)
    return value


def _digest(value):
    try:
        return joblib.hash(value)
    except Exception:
        # What cannot be pickled is known by identity.
        return id(value)


@dataclass(frozen=True)
class Likelihood:
    """What compiled steps need of a family; hashable by value, so that equal families share them.

    Parameters
    ----------
    name, link : str
    n_predictors : int
    names, constraints : tuple of str
        Estimated parameters, in the order of `raw`.
    pinned : tuple of (str, float)
    distribution : callable, optional
        ``distribution(eta, **parameters)`` -> TFP distribution, of a custom family.
    reads : tuple
        Values of the globals and of the closure that `distribution` reads.
    """

    name: str
    link: str
    n_predictors: int = 1
    names: tuple[str, ...] = ()
    constraints: tuple[str, ...] = ()
    pinned: tuple[tuple[str, float], ...] = ()
    distribution: Callable | None = None
    reads: tuple = ()

    @classmethod
    def of(cls, family, n_classes=None):
        """The likelihood of a checked `Family`."""
        parameters = family.parameters(n_classes)
        free = {k: v for k, v in parameters.items() if isinstance(v, str)}
        custom = type(family).distribution is not Family.distribution
        return cls(
            name=family.name,
            link=getattr(family, "link", "logit" if family.name == "categorical" else "identity"),
            n_predictors=family.n_predictors(n_classes),
            names=tuple(free),
            constraints=tuple(free.values()),
            pinned=tuple((k, float(v)) for k, v in parameters.items() if k not in free),
            distribution=_function(family) if custom else None,
            reads=_reads(family.function) if type(family) is CustomFamily else (),
        )

    def constrain(self, raw):
        """All parameters by name, as tensors of raw's dtype and trailing shape."""
        raw = tf.convert_to_tensor(raw)
        values = {name: tf.constant(value, raw.dtype) for name, value in self.pinned}
        to = {"positive": tf.exp, "unit": tf.sigmoid, "real": tf.identity}
        for j, (name, constraint) in enumerate(zip(self.names, self.constraints, strict=True)):
            values[name] = to[constraint](raw[j])
        return values

    def log_prob(self, y, eta, raw):
        """log p(y | eta) [n, C], differentiable twice in eta and raw by autodiff.

        Terms that depend on neither eta nor raw are kept, but for the binomial coefficient.
        """
        y, eta, parameters = self._arguments(y, eta, raw)
        return self._log_prob(y, eta, parameters)

    def log_prob_and_score(self, y, eta, raw):
        """log p(y | eta) [n, C] and its derivative in eta [n * d, C].

        Fused by hand for the families on which the samplers spend their time, otherwise by a tape.
        """
        y, eta, parameters = self._arguments(y, eta, raw)
        fused = densities.FUSED.get((self.name, self.link))
        if fused:
            return fused(y, eta, parameters)
        return self._taped(y, eta, parameters)

    def curvature(self, y, eta, raw):
        """Weights [n * d, C] > 0 for Newton and Laplace: -d2 log p / d eta2, or its expectation.

        Observed where the density is log-concave in eta (Gaussian, Poisson log, ordinal, Bernoulli
        and binomial logit), expected otherwise. The categorical ones are the diagonal p (1 - p).
        Custom families: observed where it is positive on average over the rows, else the mean
        squared score, so that Laplace's distribution has one too.
        """
        y, eta, parameters = self._arguments(y, eta, raw)
        found = densities.CURVATURE.get(self.name)
        if found:
            weights = found(y, eta, parameters, self.link)
        else:
            weights = self._numeric_curvature(y, eta, parameters)
        weights = tf.broadcast_to(weights, tf.shape(eta))
        weights = tf.maximum(weights, tf.zeros([], eta.dtype))
        floor = _FLOOR * tf.reduce_mean(weights, axis=0, keepdims=True)
        return tf.maximum(weights, tf.maximum(floor, np.finfo(np.float32).tiny))

    def _arguments(self, y, eta, raw):
        eta = tf.convert_to_tensor(eta)
        y = tf.cast(y, eta.dtype)[:, None]
        return y, eta, self.constrain(tf.cast(raw, eta.dtype))

    def _log_prob(self, y, eta, parameters):
        if self.distribution is None:
            return densities.LOG_PROB[self.name](y, eta, parameters, self.link)
        try:
            value = self.distribution(eta, **parameters).log_prob(y)
        except Exception as error:
            # TensorFlow goes on with remedies of its own.
            reason = str(error).partition("\n")[0].partition(". ")[0]
            raise ValueError(
                "family: its function fails, or returns no TFP distribution "
                f"({type(error).__name__}: {reason}). Write it in TensorFlow's operations on eta "
                "and the parameters, tensors without values: no NumPy, and tf.where for if."
            ) from error
        return tf.broadcast_to(tf.cast(value, eta.dtype), tf.shape(eta))

    def _taped(self, y, eta, parameters):
        with tf.GradientTape() as tape:
            tape.watch(eta)
            value = self._log_prob(y, eta, parameters)
        return value, tape.gradient(value, eta, unconnected_gradients="zero")

    def _numeric_curvature(self, y, eta, parameters):
        with tf.GradientTape() as tape:
            tape.watch(eta)
            _, score = self._taped(y, eta, parameters)
        observed = -tape.gradient(score, eta, unconnected_gradients="zero")
        zero = tf.zeros_like(eta)
        observed = tf.where(tf.math.is_finite(observed), observed, zero)
        score = tf.where(tf.math.is_finite(score), score, zero)
        mean = tf.reduce_mean(observed, axis=0, keepdims=True)
        squared = tf.reduce_mean(score**2, axis=0, keepdims=True)
        return tf.where(mean > 0, observed, squared)
