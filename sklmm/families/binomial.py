"""Families of successes: of two classes, and of a number of trials.

Two labels are codes 0 and 1 of the sorted classes, or in the order of an ordered categorical.
"""

from functools import cached_property

import numpy as np
from scipy.special import betaincc, gammaln

from sklmm.families.base import Family, Response, floats, numeric, row_weights
from sklmm.families.classes import LATENT_VARIANCES, labels
from sklmm.families.density import Density
from sklmm.families.links import Logit, Probit


class BinomialDensity(Density):
    """y successes in a trial of probability mu, on average; without the binomial coefficient."""

    value = property(lambda d: d.y * d.link.log_one + (1 - d.y) * d.link.log_zero)
    score = property(lambda d: d.y * d.link.slope_one + (1 - d.y) * d.link.slope_zero)
    expected = property(lambda d: -d.link.slope_one * d.link.slope_zero)

    @property
    def observed(self):
        """By the logit link it does not depend on y."""
        if isinstance(self.link, Logit):
            return -self.link.bend_one
        return -self.y * self.link.bend_one - (1 - self.y) * self.link.bend_zero

    @property
    def observed_slope(self):
        """In closed form where the link has it."""
        if self.link.twist_one is None:
            return None
        return -self.y * self.link.twist_one - (1 - self.y) * self.link.twist_zero

    @property
    def value_and_score(self):
        """By the logit link both in fewer steps, of which a sampler's time is made."""
        if not isinstance(self.link, Logit):
            return self.value, self.score
        return self.y * self.eta + self.link.log_zero, self.quick_score

    @property
    def quick_score(self):
        """By the logit link y less the mean."""
        return self.y - self.link.mean if isinstance(self.link, Logit) else self.score


class BernoulliDensity(BinomialDensity):
    """Of y 0 or 1: by the probit link a failure at eta is a success at -eta, half the work."""

    _sign = cached_property(lambda d: 2 * d.y - 1)

    @cached_property
    def _seen(self):
        """The link at the eta of what was seen as a success; None of another than probit.

        So it is by logit too, where `BinomialDensity` has shorter ways.
        """
        return Probit(self.xp, self._sign * self.eta) if isinstance(self.link, Probit) else None

    @property
    def value(self):
        """The logarithm of the probability of what was seen."""
        return self._seen.log_one if self._seen else super().value

    @property
    def score(self):
        """Its derivative in eta."""
        return self._sign * self._seen.slope_one if self._seen else super().score

    @property
    def observed(self):
        """Less the second one."""
        return -self._seen.bend_one if self._seen else super().observed

    @property
    def observed_slope(self):
        """Less the third one."""
        return -self._sign * self._seen.twist_one if self._seen else super().observed_slope


class _Binary(Family):
    links = ("logit", "probit", "cloglog")
    separable = True
    support = (0.0, 1.0)

    def __init__(self, link="logit"):
        self.link = link

    def variance(self, eta, params):
        """p (1 - p), of one trial."""
        p = self._mu(eta)
        return p * (1 - p)

    def latent_variance(self, params):
        """That of the distribution whose cdf is the inverse link."""
        return LATENT_VARIANCES[self.link]

    def probabilities(self, eta, params):
        """Probabilities of failure and success along a new last axis."""
        p = self._mu(eta)
        return np.stack([1 - p, p], axis=-1)

    def sample(self, eta, params, rng):
        """0 or 1, of one trial."""
        return (rng.random(np.shape(eta)) < self._mu(eta)).astype(float)

    def steps(self, params):
        """The trials, or 1 if none is told."""
        return np.asarray(params.get("trials", 1.0))

    def _cdf(self, y, eta, params):
        trials, mu = self.steps(params), self._mu(eta)
        if np.all(trials == 1):
            return np.where(y < 1, 1 - mu, 1.0)
        successes = np.round(y * trials)
        # All of them are `cdf`'s to know.
        failures = np.maximum(trials - successes, np.finfo(float).tiny)
        return betaincc(successes + 1, failures, mu)


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
    density = BernoulliDensity
    classes = "two"

    def bind(self, y, weights=None):
        """The `Response` in y, labels of two classes."""
        found, classes, codes = labels(self, y)
        if len(classes) > 2:
            row = int(np.argmax(codes == 2))
            raise self._error(
                f"y must have two classes, not {len(classes)}; a third is {found[row]!s} (row "
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
    columns = (1, 2)
    density = BinomialDensity
    weights = "trials"
    greatest = 1

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
            constant = float(times @ log_binomial(counts[:, 0], trials))
            n_obs = float(times[keep].sum())
            return Response(self, share, times * trials, None, keep, constant, n_obs=n_obs)
        y, weights = numeric(self, y, weights)
        remedy = "divide by the trials and give these as sample_weight, or give two columns of "
        remedy += "counts (successes, failures)."
        self._require(y, (y >= 0) & (y <= 1), "a proportion in [0, 1]", remedy)
        successes = y * weights
        whole = np.allclose(successes, successes.round()) and np.allclose(weights, weights.round())
        constant = float(log_binomial(successes, weights).sum()) if whole else 0.0
        n_obs = float(len(y))
        return Response(self, y, weights, log_constant=constant, n_obs=n_obs, counted=whole)


def log_binomial(successes, trials):
    """Logarithms of the binomial coefficients."""
    return gammaln(trials + 1) - gammaln(successes + 1) - gammaln(trials - successes + 1)
