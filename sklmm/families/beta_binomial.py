"""The beta-binomial family: successes in a number of trials whose probability varies."""

# ruff: noqa: D102 - what each property of a density is, `Density` says once.

from functools import cached_property

import numpy as np

from sklmm.families.base import Family, Response, floats, numeric, row_weights
from sklmm.families.beta import shapes
from sklmm.families.binomial import log_binomial
from sklmm.families.density import Density
from sklmm.families.rising import Rest, by_rests, log1p_less
from sklmm.families.special import NUMPY

#: Successes over trials are whole numbers up to this share of the trials.
_WHOLE = 1e-6


class _Rise:
    """log Gamma(x + k) - log Gamma(x) - k log x, k >= 0, and its derivatives in log x.

    For large x it is k (k - 1) / (2 x), and the digits are those of that.
    """

    def __init__(self, xp, x, log_x, k):
        self.xp, self.x, self.log_x, self.k = xp, x, log_x, k
        some = k > 0
        self._total = xp.where(some, x + k, 1.0)
        self._log_total = xp.where(some, xp.log(self._total), log_x)
        #: k / (x + k).
        self._share = k / self._total
        self._from, self._to = Rest(xp, x, log_x), Rest(xp, x + k, self._log_total)

    @cached_property
    def _less(self):
        """x log(1 + k / x) - k."""
        xp = self.xp
        near = self.x > self.k
        close = self.x * log1p_less(xp, self.k / xp.where(near, self.x, self.k + 1))
        return xp.where(near, close, self.x * (self._log_total - self.log_x) - self.k)

    @property
    def value(self):
        xp = self.xp
        near = self.x > self.k
        ratio = xp.log1p(self.k / xp.where(near, self.x, self.k + 1))
        ratio = xp.where(near, ratio, self._log_total - self.log_x)
        return self._less + self.k * ratio + (self._to.level - self._from.level)

    @cached_property
    def slope(self):
        rest = (1 - self._share) * self._to.slope - self._from.slope
        return self._less + 0.5 * self._share + rest

    @property
    def bend(self):
        left = 1 - self._share
        rest = left**2 * self._to.bend - self._from.bend
        return self.slope + self._share * (self.k - 0.5 * (1 + left)) + rest


class BetaBinomialDensity(Density):
    """Shares y of `trials`, without the binomial coefficient; a = mu precision is the first shape.

    Of y and 1 - y: log f is the sum of k log mu and of what k rises above that from a, less what
    the trials do from the precision. `expected` is the quasi-information, mu'^2 / Var[y], of which
    the information is a little more.
    """

    @cached_property
    def _shapes(self):
        """x, log x and the whole number by which it rises, of y, of 1 - y and of the trials."""
        xp, log_precision = self.xp, self.xp.log(self.precision)
        successes = xp.floor(self.y * self.trials + 0.5)
        log_a, log_b = self.link.log_one + log_precision, self.link.log_zero + log_precision
        failures, none = self.trials - successes, 0 * self.trials
        return (
            (xp.exp(log_a), log_a, successes),
            (xp.exp(log_b), log_b, failures),
            (self.precision + none, log_precision + none, self.trials),
        )

    _sides = cached_property(lambda d: [_Rise(d.xp, *shape) for shape in d._shapes[:2]])
    _all = cached_property(lambda d: _Rise(d.xp, *d._shapes[2]))

    @property
    def value_and_score(self):
        # By the factors of what rises, where `value` takes more so that large precisions cancel.
        (one, up), (zero, down), (whole, _) = (self.xp.rising(*shape) for shape in self._shapes)
        return one + zero - whole, self.link.slope_one * up + self.link.slope_zero * down

    @property
    def value(self):
        one, zero = self._sides
        plain = one.k * self.link.log_one + zero.k * self.link.log_zero
        return plain + one.value + zero.value - self._all.value

    @cached_property
    def score(self):
        one, zero = self._sides
        up = self.link.slope_one * (one.k + one.slope)
        return up + self.link.slope_zero * (zero.k + zero.slope)

    @property
    def expected(self):
        inner = 1 + (self.trials - 1) / (1 + self.precision)
        return -self.link.slope_one * self.link.slope_zero * self.trials / inner

    @property
    def observed(self):
        one, zero = self._sides
        up = self.link.bend_one * (one.k + one.slope) + self.link.slope_one**2 * one.bend
        down = self.link.bend_zero * (zero.k + zero.slope) + self.link.slope_zero**2 * zero.bend
        return -up - down

    @property
    def slopes(self):
        one, zero = self._sides
        return {"precision": one.slope + zero.slope - self._all.slope}

    @property
    def second(self):
        one, zero = self._sides
        mixed = -self.link.slope_one * one.bend - self.link.slope_zero * zero.bend
        twice = self._all.bend - one.bend - zero.bend
        return {"precision": mixed}, {("precision", "precision"): twice}


class BetaBinomial(Family):
    """Successes in a number of trials whose probability is itself beta distributed.

    With successes ~ Binomial(trials, p), p ~ Beta(mu precision, (1 - mu) precision): the variance
    is that of a binomial times 1 + (trials - 1) / (1 + precision).

    y is two columns of counts (successes, failures), with `sample_weight` as repetitions, or the
    share of successes, with the trials as `sample_weight`. Means are shares; variance and draws are
    those of one trial where the trials are not known, as of new rows. The precision is ``sigma()``
    of R's ``glmmTMB(family = betabinomial)``.

    Parameters
    ----------
    link : {"logit", "probit", "cloglog"}, default="logit"
    precision : float, optional
        Pins the precision instead of estimating it.

    References
    ----------
    Griffiths (1973), "Maximum likelihood estimation for the beta-binomial distribution",
    Biometrics 29, 637-648.

    Examples
    --------
    >>> from sklmm import BetaBinomial
    >>> response = BetaBinomial().bind([[3, 1], [0, 5]])
    >>> response.y, response.data[:, 0]
    (array([0.75, 0.  ]), array([4., 5.]))
    """

    name = "beta_binomial"
    density = BetaBinomialDensity
    dispersion_parameter = "precision"
    bound = ("precision", "binomial")
    zeros = "mixture"
    scalars = ("precision",)
    links = ("logit", "probit", "cloglog")
    row_data = ("trials",)
    columns = (1, 2)
    separable = True
    greatest = 1
    support = (0.0, 1.0)

    def __init__(self, link="logit", precision=None):
        self.link = link
        self.precision = precision

    def bind(self, y, weights=None):
        """The `Response` in y, counts [n, 2] or shares [n]."""
        raw = np.asarray(y)
        if raw.ndim == 2 and raw.shape[1] == 2:
            counts = floats(self, raw)
            good = np.isfinite(counts) & (counts >= 0) & (counts == np.floor(counts))
            want = "two columns of nonnegative whole counts (successes, failures)"
            self._require(raw, good.all(axis=1), want, "correct or drop the row.")
            successes, trials = counts[:, 0], counts.sum(axis=1)
            weights = row_weights(weights, len(trials))
        else:
            y, trials = numeric(self, y, weights)
            remedy = "give the trials as sample_weight, or two columns (successes, failures)."
            successes = np.round(y * trials)
            good = (y >= 0) & (y <= 1) & (np.abs(y * trials - successes) <= _WHOLE * trials)
            self._require(y, good, "a share of successes in trials", remedy)
            weights = row_weights(None, len(trials))
        keep = trials > 0
        share = successes / np.where(keep, trials, 1)
        constant = float(weights @ log_binomial(successes, trials))
        return Response(self, share, weights, None, keep, constant, data=trials[:, None])

    def constants(self, y, data=None):
        """Logarithms of the binomial coefficients."""
        trials = data[:, 0]
        return log_binomial(np.round(y * trials), trials)

    def variance(self, eta, params):
        """mu (1 - mu) (1 + (trials - 1) / (1 + precision)) / trials, of 1 trial if none is told."""
        mu, trials = self._mu(eta), params.get("trials", 1.0)
        return mu * (1 - mu) * (1 + (trials - 1) / (1 + params["precision"])) / trials

    def sample(self, eta, params, rng):
        """Shares of successes in the trials, or in 1 if none is told."""
        trials, p = self.steps(params), rng.beta(*shapes(self._mu(eta), params["precision"]))
        return rng.binomial(trials.astype(np.int64), p) / trials

    def steps(self, params):
        """The trials, or 1 if none is told."""
        return np.asarray(params.get("trials", 1.0))

    def _cdf(self, y, eta, params):
        """The sum of the probabilities, each from the one before it."""
        a, b = shapes(self._mu(eta), params["precision"])
        trials = self.steps(params)
        successes = np.round(y * trials)
        log_p, total = _log_rise(b, trials) - _log_rise(a + b, trials), 0.0
        for k in range(int(np.max(successes, initial=-1.0)) + 1):
            total = total + np.where(k <= successes, np.exp(log_p), 0.0)
            # Beyond the trials there are none.
            left = np.maximum(trials - k, np.finfo(float).tiny)
            log_p = log_p + np.log(left * (a + k) / ((k + 1) * (b + np.maximum(left - 1, 0.0))))
        return np.minimum(total, 1.0)


def _log_rise(x, trials):
    """The logarithm of a rising factorial."""
    return by_rests(NUMPY, x, np.log(x), trials)[0]
