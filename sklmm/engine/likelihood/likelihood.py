"""What steps need of a response family: hashable by value, so that equal ones share compilations.

Layout [rows, draws]. y is [n]; eta [n * d, C] with the d predictors of a row adjacent; raw [m, C],
[m, 1] or [m] holds the estimated parameters, unconstrained. The methods are TensorFlow's, which is
imported for them (`engine.likelihood.tensors`); `engine.likelihood.evaluation` is in NumPy.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass

import joblib

from sklmm.families import CustomFamily, Family


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
    link : str
    density : type, optional
        The family's subclass of `sklmm.families.density.Density`.
    n_predictors : int
    names, constraints : tuple of str
        Estimated parameters, in the order of `raw`.
    pinned : tuple of (str, float)
    distribution : callable, optional
        ``distribution(eta, **parameters)`` -> TFP distribution, of a custom family.
    reads : tuple
        Values of the globals and of the closure that `distribution` reads.
    """

    link: str
    density: type | None = None
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
            link=getattr(family, "link", "identity"),
            density=None if custom else family.density,
            n_predictors=family.n_predictors(n_classes),
            names=tuple(free),
            constraints=tuple(free.values()),
            pinned=tuple((k, float(v)) for k, v in parameters.items() if k not in free),
            distribution=_function(family) if custom else None,
            reads=_reads(family.function) if type(family) is CustomFamily else (),
        )

    def constrain(self, raw):
        """All parameters by name, as tensors of raw's dtype and trailing shape."""
        return _tensors().constrain(self, raw)

    def log_prob(self, y, eta, raw):
        """log p(y | eta) [n, C], differentiable twice in eta and raw by autodiff.

        Terms that depend on neither eta nor raw are kept, but for the binomial coefficient.
        """
        return _tensors().log_prob(self, y, eta, raw)

    def log_prob_and_score(self, y, eta, raw):
        """log p(y | eta) [n, C] and its derivative in eta [n * d, C].

        A custom family's is by a tape.
        """
        return _tensors().log_prob_and_score(self, y, eta, raw)

    def curvature(self, y, eta, raw):
        """Weights [n * d, C] > 0 for Newton and Laplace: the mean of -d2 log p / d eta2 over y.

        The categorical ones are the diagonal p (1 - p). Of custom families what is observed where
        it is positive on average over the rows, else the mean squared score, so that Laplace's
        distribution has one too.
        """
        return _tensors().curvature(self, y, eta, raw)


def _tensors():
    from sklmm.engine.likelihood import tensors

    return tensors
