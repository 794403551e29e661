"""The family of unordered classes, by multinomial logit."""

# ruff: noqa: D102 - what each property of a density is, `Density` says once.

from functools import cached_property

import numpy as np

from sklmm.families.base import Family, Response, row_weights
from sklmm.families.binomial import Bernoulli
from sklmm.families.classes import labels
from sklmm.families.density import Density


class CategoricalDensity(Density):
    """Multinomial logit: eta [n * d, C], the predictors of a row adjacent; 0 for the first class.

    Of the curvature the diagonal.
    """

    def __init__(self, xp, y, eta, parameters, link):
        super().__init__(xp, y, eta, parameters, link)
        own = xp.reshape(eta, (xp.shape(y)[0], -1, xp.shape(eta)[1]))
        logits = xp.concat([0 * own[:, :1], own], axis=1)
        self._logits = logits - xp.max(logits, axis=1, keepdims=True)
        self._chosen = xp.one_hot(y[:, 0], xp.shape(logits)[1])[:, :, None]

    _odds = cached_property(lambda d: d.xp.exp(d._logits))
    _total = cached_property(lambda d: d.xp.sum(d._odds, axis=1, keepdims=True))
    _shares = cached_property(lambda d: (d._odds / d._total)[:, 1:])
    score = property(lambda d: d._flat(d._chosen[:, 1:] - d._shares))
    expected = property(lambda d: d._flat(d._shares * (1 - d._shares)))

    @property
    def value(self):
        chosen = self.xp.sum(self._chosen * self._logits, axis=1)
        return chosen - self.xp.log(self._total[:, 0])

    def _flat(self, by_class):
        return self.xp.reshape(by_class, self.xp.shape(self.eta))


class Categorical(Family):
    """Unordered classes by multinomial logit: P(y = c) proportional to exp(eta_c), eta_0 = 0.

    Every class but the first of the sorted ones has coefficients and random effects of its own.

    References
    ----------
    McFadden (1974), "Conditional logit analysis of qualitative choice behavior", Frontiers in
    Econometrics, 105-142.

    Examples
    --------
    >>> from sklmm.families import Categorical
    >>> Categorical().probabilities([[0.0, 0.0]], {}).round(2)
    array([[0.33, 0.33, 0.33]])
    """

    name = "categorical"
    density = CategoricalDensity
    classes = "unordered"
    separable = True

    def n_predictors(self, n_classes=None):
        """K - 1."""
        if n_classes is None:
            raise self._error("n_classes must be given: its predictors depend on it.")
        return n_classes - 1

    def bind(self, y, weights=None):
        """The `Response` in y, labels of at least two classes."""
        _, classes, codes = labels(self, y)
        # Two classes are one logit.
        family = Bernoulli() if len(classes) == 2 else self
        return Response(family, codes, row_weights(weights, len(codes)), classes)

    def probabilities(self, eta, params):
        """Probabilities [n, ..., K] of the classes for predictors eta [n, K-1, ...]."""
        eta = np.asarray(eta, float)
        # Along its own axis: one of few numbers last is slow to work along.
        top = np.maximum(eta.max(axis=1, keepdims=True), 0.0)
        odds = np.exp(np.concatenate([-top, eta - top], axis=1))
        return np.moveaxis(odds / odds.sum(axis=1, keepdims=True), 1, -1)

    def mean(self, eta, params):
        """ValueError: labels have no mean."""
        raise self._error("labels have no mean: use `probabilities`.")

    def variance(self, eta, params):
        """ValueError: labels have no variance."""
        raise self._error("labels have no variance: use `probabilities`.")

    def sample(self, eta, params, rng):
        """Codes 0..K-1 [n, ...] for predictors eta [n, K-1, ...]."""
        p = self.probabilities(eta, params)
        u = rng.random((*p.shape[:-1], 1))
        return np.sum(u > np.cumsum(p[..., :-1], axis=-1), axis=-1).astype(float)

    def cdf(self, y, eta, params, below=False):
        """ValueError: labels have no order."""
        raise self._error(
            "its classes have no order, and no distribution function: use family='ordinal' for "
            "ordered ones, or compare y with predict_proba, class by class."
        )
