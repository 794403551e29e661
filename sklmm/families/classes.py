"""Families of classes: two, a share of trials, ordered, and unordered.

All work on codes 0..K-1 of the classes, which are sorted, or in the order of an ordered pandas
categorical. P(second class) = g^-1(eta) with two of them (and
P(success) likewise), P(y <= c) = F(theta_c - eta) when they are ordered, and softmax(0, eta_1, ..,
eta_{K-1}) when they are not.
"""

from numbers import Real

import numpy as np
import pandas as pd
from scipy.special import gammaln, softmax

from sklmm.families.base import (
    INVERSE_LINKS,
    Family,
    Response,
    floats,
    listed,
    numeric,
    row_weights,
)


class _Binary(Family):
    links = ("logit", "probit", "cloglog")

    def __init__(self, link="logit"):
        self.link = link

    def mean(self, eta, params):
        """Probability of success."""
        return self._inverse_link(eta)

    def variance(self, eta, params):
        """p (1 - p), of one trial."""
        p = self._inverse_link(eta)
        return p * (1 - p)

    def probabilities(self, eta, params):
        """Probabilities of failure and success along a new last axis."""
        p = self._inverse_link(eta)
        return np.stack([1 - p, p], axis=-1)

    def sample(self, eta, params, rng):
        """0 or 1, of one trial."""
        return (rng.random(np.shape(eta)) < self._inverse_link(eta)).astype(float)


class Bernoulli(_Binary):
    """Two classes: P(y = second of the sorted classes) = link^-1(eta).

    Parameters
    ----------
    link : {"logit", "probit", "cloglog"}, default="logit"

    References
    ----------
    McCullagh & Nelder (1989), Generalized Linear Models, ch. 4.

    Examples
    --------
    >>> from sklmm.families import Bernoulli
    >>> Bernoulli().probabilities([0.0], {})
    array([[0.5, 0.5]])
    """

    name = "bernoulli"

    def bind(self, y, weights=None):
        """The `Response` in y, labels of two classes."""
        labels, classes, codes = _classes(self, y)
        if len(classes) > 2:
            row = int(np.argmax(codes == 2))
            raise self._error(
                f"y must have two classes, not {len(classes)}; a third is {labels[row]!s} (row "
                f"{row}): use 'categorical', or 'ordinal' for ordered classes."
            )
        return Response(self, codes, row_weights(weights, len(codes)), classes)


class Binomial(_Binary):
    """Successes in a number of trials: successes ~ Binomial(trials, p), p = link^-1(eta).

    y is either the proportion of successes, with the trials as `sample_weight`, or two columns of
    counts (successes, failures). Mean and variance are those of one trial.

    Parameters
    ----------
    link : {"logit", "probit", "cloglog"}, default="logit"

    References
    ----------
    McCullagh & Nelder (1989), Generalized Linear Models, ch. 4.

    Examples
    --------
    >>> from sklmm.families import Binomial
    >>> response = Binomial().bind([[3, 1], [0, 5]])
    >>> response.y, response.weights
    (array([0.75, 0.  ]), array([4., 5.]))
    """

    name = "binomial"

    def bind(self, y, weights=None):
        """The `Response` in y, proportions [n] or counts [n, 2]."""
        raw = np.asarray(y)
        if raw.ndim == 2 and raw.shape[1] == 2:
            counts = floats(self, raw)
            good = np.all(np.isfinite(counts) & (counts >= 0), axis=1)
            want = "two columns of nonnegative counts (successes, failures)"
            self._require(raw, good, want, "correct or drop the row.")
            trials = counts.sum(axis=1)
            keep = trials > 0
            share = counts[:, 0] / np.where(keep, trials, 1)
            times = row_weights(weights, len(share))
            constant = float(times @ _log_binomial(counts[:, 0], trials))
            n_obs = float(times[keep].sum())
            return Response(self, share, times * trials, None, keep, constant, n_obs=n_obs)
        y, weights = numeric(self, y, weights)
        remedy = "divide by the trials and give these as sample_weight, or give two columns of "
        remedy += "counts (successes, failures)."
        self._require(y, (y >= 0) & (y <= 1), "a proportion in [0, 1]", remedy)
        successes = y * weights
        whole = np.allclose(successes, successes.round()) and np.allclose(weights, weights.round())
        constant = float(_log_binomial(successes, weights).sum()) if whole else 0.0
        return Response(self, y, weights, log_constant=constant, n_obs=float(len(y)))


def _log_binomial(successes, trials):
    return gammaln(trials + 1) - gammaln(successes + 1) - gammaln(trials - successes + 1)


class Ordinal(Family):
    """Ordered classes by the cumulative model: P(y <= c) = F(theta_c - eta).

    F is the logistic or normal cdf. The first cutpoint theta_1 is 0, as eta has an intercept; the
    parameters are the spacings, theta_{c+1} - theta_c > 0. Classes are numbers, or in the order of
    an ordered pandas categorical, without its unused categories.

    Parameters
    ----------
    link : {"logit", "probit"}, default="logit"

    References
    ----------
    McCullagh (1980), "Regression models for ordinal data", JRSS B 42, 109-142.

    Examples
    --------
    >>> from sklmm.families import Ordinal
    >>> Ordinal().probabilities([0.0], {"spacing_1": 1.0}).round(2)
    array([[0.5 , 0.23, 0.27]])
    """

    name = "ordinal"
    links = ("logit", "probit")

    def __init__(self, link="logit"):
        self.link = link

    def parameters(self, n_classes=None):
        """spacing_1 .. spacing_{K-2}."""
        if n_classes is None:
            raise self._error("n_classes must be given: its parameters depend on it.")
        return {f"spacing_{k}": "positive" for k in range(1, n_classes - 1)}

    def bind(self, y, weights=None):
        """The `Response` in y, labels of at least three ordered classes."""
        labels, classes, codes = _classes(self, y)
        if len(classes) == 2:
            raise self._error(
                f"y must have at least three classes, not {len(classes)} ({_shown(classes)}): use "
                "'bernoulli', as two classes need no order."
            )
        if not _has_order(y):
            self._require_numbers(labels, classes)
        return Response(self, codes, row_weights(weights, len(codes)), classes)

    def _require_numbers(self, labels, classes):
        # NumPy lists times in nanoseconds as integers.
        numbers = [isinstance(label, Real) for label in pd.Series(classes).tolist()]
        if not all(numbers):
            row = int(np.argmax(~np.isin(labels, classes[numbers])))
            label = pd.Series(labels[row : row + 1]).tolist()[0]
            raise self._error(
                f"y must be numbers or an ordered categorical, which tell the order of the "
                f"classes, not {label!r} (row {row}): give pd.Categorical(y, categories=[...], "
                "ordered=True), the categories from the lowest to the highest, or their codes "
                "0, 1, ... by OrdinalEncoder(categories=[[...]])."
            )

    def probabilities(self, eta, params):
        """Probabilities of the classes along a new last axis."""
        gap = _cutpoints(params) - np.asarray(eta, float)[..., None]
        lower = np.concatenate([np.full((*gap.shape[:-1], 1), -np.inf), gap], axis=-1)
        upper = np.concatenate([gap, np.full((*gap.shape[:-1], 1), np.inf)], axis=-1)
        # In the right tail the difference of the cdfs would cancel.
        right = lower + upper > 0
        F = INVERSE_LINKS[self.link]
        return np.where(right, F(-lower) - F(-upper), F(upper) - F(lower))

    def mean(self, eta, params, scores=None):
        """Mean of the classes' `scores`, by default 0..K-1."""
        p = self.probabilities(eta, params)
        return p @ _scores(scores, p)

    def variance(self, eta, params, scores=None):
        """Variance of the classes' `scores`, by default 0..K-1."""
        p = self.probabilities(eta, params)
        scores = _scores(scores, p)
        return np.sum(p * (scores - (p @ scores)[..., None]) ** 2, axis=-1)

    def sample(self, eta, params, rng):
        """Codes 0..K-1; the parameters are numbers, or have a value for each of eta's columns."""
        noise = rng.logistic if self.link == "logit" else rng.normal
        latent = eta + noise(size=np.shape(eta))
        return np.sum([latent > cutpoint for cutpoint in _cutpoints(params)], axis=0, dtype=float)


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

    def n_predictors(self, n_classes=None):
        """K - 1."""
        if n_classes is None:
            raise self._error("n_classes must be given: its predictors depend on it.")
        return n_classes - 1

    def bind(self, y, weights=None):
        """The `Response` in y, labels of at least two classes."""
        _, classes, codes = _classes(self, y)
        # Two classes are one logit.
        family = Bernoulli() if len(classes) == 2 else self
        return Response(family, codes, row_weights(weights, len(codes)), classes)

    def probabilities(self, eta, params):
        """Probabilities [n, ..., K] of the classes for predictors eta [n, K-1, ...]."""
        eta = np.moveaxis(np.asarray(eta, float), 1, -1)
        return softmax(np.concatenate([np.zeros((*eta.shape[:-1], 1)), eta], axis=-1), axis=-1)

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


def _cutpoints(params):
    spacings = [params[f"spacing_{k}"] for k in range(1, len(params) + 1)]
    return np.cumsum([np.zeros(np.shape(spacings)[1:]), *spacings], axis=0)


def _scores(scores, p):
    return np.arange(p.shape[-1], dtype=float) if scores is None else np.asarray(scores, float)


def _shown(classes):
    return listed(np.asarray(classes).tolist())


def _has_order(y):
    dtype = getattr(y, "dtype", None)
    return isinstance(dtype, pd.CategoricalDtype) and dtype.ordered


def _classes(family, y):
    """Labels, sorted classes (at least two), and codes as float64."""
    labels = np.asarray(y)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise family._error(f"y must have one column, not shape {labels.shape}: fit one at a time.")
    missing = pd.isna(labels)
    family._require(labels, ~missing, "a label", "drop the row.")
    if _has_order(y):
        codes = y.dtype.categories.get_indexer(labels)
        present, codes = np.unique(codes, return_inverse=True)
        classes = np.asarray(y.dtype.categories)[present]
    else:
        try:
            classes, codes = np.unique(labels, return_inverse=True)
        except TypeError:
            first = type(labels[0])
            good = np.array([isinstance(label, first) for label in labels])
            family._require(
                labels, good, f"labels of one type ({first.__name__}, as in row 0)", "convert it."
            )
            raise
    if len(classes) == 1:
        raise family._error(
            f"y has one class only ({_shown(classes)}): at least two are needed to fit; check the "
            "rows selected for this fit."
        )
    return labels, classes, codes.astype(float)
