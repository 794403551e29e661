"""The beta family of shares strictly between 0 and 1."""

# ruff: noqa: D102 - what each property of a density is, `Density` says once.

from functools import cached_property

import numpy as np
from scipy.special import betainc

from sklmm.families.base import Family, Response, numeric
from sklmm.families.density import Density
from sklmm.families.special import (
    LOG_2PI,
    less_exp,
    psi_less_log,
    psi_less_log_times,
    stirling,
    stirling_of_log,
    trigamma_square,
    trigamma_square_less,
)


class BetaDensity(Density):
    """y ~ Beta(a, b), a = mu precision and b = (1 - mu) precision."""

    score = cached_property(
        lambda d: d.link.slope_one * d._pulls[0] + d.link.slope_zero * d._pulls[1]
    )
    observed = property(lambda d: d.expected - d.score * d.link.bend)

    @cached_property
    def _logs(self):
        """log y and log(1 - y)."""
        # Rows of zeros pad tensors.
        y = self.xp.where((self.y > 0) & (self.y < 1), self.y, 0.5)
        return self.xp.log(y), self.xp.log1p(-y)

    @cached_property
    def _sides(self):
        """Of y and of 1 - y: a, log a, and the log of the ratio to the mean."""
        xp, log_precision, out = self.xp, self.xp.log(self.precision), []
        for log_y, log_share in zip(
            self._logs, (self.link.log_one, self.link.log_zero), strict=True
        ):
            log_a = log_share + log_precision
            out.append((xp.exp(log_a), log_a, log_y - log_share))
        return out

    @property
    def value(self):
        xp, ((a, log_a, above), (b, log_b, below)) = self.xp, self._sides
        norm = stirling(xp, self.precision) - 0.5 * (xp.log(self.precision) + LOG_2PI)
        fit = a * above + b * below - stirling_of_log(xp, a, log_a) - stirling_of_log(xp, b, log_b)
        return norm + fit - sum(self._logs)

    @cached_property
    def _pulls(self):
        """Of y and of 1 - y: a times log y less its expectation but for psi(precision)."""
        return tuple(a * r - psi_less_log_times(self.xp, a, log_a) for a, log_a, r in self._sides)

    @cached_property
    def expected(self):
        xp, ((a, *_), (b, *_)) = self.xp, self._sides
        one, zero = self.link.slope_one, self.link.slope_zero
        return one**2 * trigamma_square(xp, a) + zero**2 * trigamma_square(xp, b)

    @property
    def slopes(self):
        xp, sides = self.xp, self._sides
        total = self.precision * psi_less_log(xp, self.precision)
        near = (xp.abs(sides[0][2]) < 1) & (xp.abs(sides[1][2]) < 1)
        for a, log_a, r in sides:
            # mu (exp r - 1) of the two, y - mu and mu - y, cancel by hand.
            fit = xp.where(near, less_exp(xp, xp.minimum(r, 1.0)), r)
            total = total + a * fit - psi_less_log_times(xp, a, log_a)
        return {"precision": total}

    @property
    def second(self):
        # Of trigamma functions what large precisions leave of x^2 psi'(x) - x.
        one, zero, whole = (trigamma_square_less(self.xp, x) for x in self._shapes)
        slope = self.slopes["precision"]
        mixed = self.link.slope_one * one + self.link.slope_zero * zero - self.score
        return {"precision": mixed}, {("precision", "precision"): one + zero - whole - slope}

    @property
    def _shapes(self):
        """Those of y and of 1 - y, and their sum."""
        return [*(a for a, *_ in self._sides), self.precision]


class Beta(Family):
    """Beta response in (0, 1): E[y] = mu, Var[y] = mu (1 - mu) / (1 + precision).

    y ~ Beta(mu precision, (1 - mu) precision).

    Parameters
    ----------
    link : {"logit", "probit", "cloglog"}, default="logit"
    precision : float, optional
        Pins the precision instead of estimating it.

    References
    ----------
    Ferrari & Cribari-Neto (2004), "Beta regression for modelling rates and proportions",
    J. Appl. Stat. 31, 799-815.

    Examples
    --------
    >>> from sklmm.families import Beta
    >>> float(Beta().variance(0.0, {"precision": 4.0}))
    0.05
    """

    name = "beta"
    density = BetaDensity
    dispersion_parameter = "precision"
    zeros = "hurdle"
    inner = 0.5
    support = (0.0, 1.0)
    scalars = ("precision",)
    links = ("logit", "probit", "cloglog")

    def __init__(self, link="logit", precision=None):
        self.link = link
        self.precision = precision

    def bind(self, y, weights=None):
        """The `Response` in y, numbers strictly between 0 and 1."""
        y, weights = numeric(self, y, weights)
        remedy = (
            "move it inside by (y (n - 1) + 0.5) / n, or use 'binomial' for shares of a number of "
            "trials."
        )
        self._require(y, (y > 0) & (y < 1), "strictly between 0 and 1", remedy)
        return Response(self, y, weights)

    def variance(self, eta, params):
        """mu (1 - mu) / (1 + precision)."""
        mu = self._mu(eta)
        return mu * (1 - mu) / (1 + params["precision"])

    def sample(self, eta, params, rng):
        """Draws of y given eta."""
        return rng.beta(*shapes(self._mu(eta), params["precision"]))

    def _cdf(self, y, eta, params):
        return betainc(*shapes(self._mu(eta), params["precision"]), y)


def shapes(mu, precision):
    """The two shapes of a beta distribution, above 0."""
    tiny = 1e-12
    mu = np.clip(mu, tiny, 1 - tiny)
    return mu * precision, (1 - mu) * precision
