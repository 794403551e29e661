"""The negative binomial family of overdispersed counts, Poisson as its dispersion falls to 0."""

# ruff: noqa: D102 - what each property of a density is, `Density` says once.

from functools import cached_property

import numpy as np
from scipy.special import betainc, betaincc

from sklmm.families.density import PositiveMean
from sklmm.families.poisson import Count, poisson
from sklmm.families.rising import Rest, log1p_less
from sklmm.families.special import beyond, log_add_exp, stirling

#: An excess that is without digits beside 1.
_FEW = 1e-4


class NegativeBinomialDensity(PositiveMean):
    """Var[y] = mu + dispersion mu^2, size the dispersion's inverse."""

    _size = cached_property(lambda d: 1 / d.dispersion)
    _odds = cached_property(lambda d: d.dispersion * d._mu)
    _spread = cached_property(lambda d: 1 + d._odds)
    _first = property(lambda d: (d.y - d._mu) / d._spread)
    _second = property(lambda d: -(d._mu / d._spread) * ((1 + d.dispersion * d.y) / d._spread))
    _mean = property(lambda d: d._mu / d._spread)

    @cached_property
    def _gap(self):
        """q and log(1 + q), 1 + q = (size + y) / (size + mu)."""
        xp, size = self.xp, self._size
        q = (self.y - self._mu) / (size + self._mu)
        # The mean itself may be beyond the largest number.
        ratio = xp.log(size + self.y) - log_add_exp(xp, xp.log(size), self._log_mu)
        near = xp.log1p(xp.minimum(xp.maximum(q, -0.5), 0.5))
        return q, xp.where(xp.abs(q) < 0.5, near, ratio)

    @property
    def value(self):
        xp, total = self.xp, self.y + self._size
        # Where mu is held constant log f falls along a line, as it does there.
        past = beyond(xp, self._log_mu)
        return (
            self.y * (self._log_mu - past)
            - self._size * past
            - self.y
            - xp.log_gamma(self.y + 1)
            + total * self._gap[1]
            - 0.5 * xp.log1p(self.y * self.dispersion)
            + (stirling(xp, total) - stirling(xp, self._size))
        )

    @property
    def value_and_score(self):
        # With one exponential and one logarithm a row, where `value` takes more so that dispersions
        # near 0 cancel.
        xp, total = self.xp, self.y + self._size
        logits = self._log_mu + xp.log(self.dispersion)
        z = xp.exp(-xp.abs(logits))
        softplus = xp.maximum(logits, 0.0) + xp.log1p(z)
        share = xp.where(logits < 0, z, 1.0) / (1 + z)
        ways = (
            self.y * (xp.log(total) - 1)
            + (self._size - 0.5) * xp.log1p(self.y * self.dispersion)
            + (stirling(xp, total) - stirling(xp, self._size))
            - xp.log_gamma(self.y + 1)
        )
        value = self.y * logits - total * softplus + ways
        return value, (self.y - total * share) * self.link.slope

    def at_zero(self, pick):
        return -pick(self._size) * self.xp.log1p(pick(self._odds))

    _log_size = property(lambda d: -d.xp.log(d.dispersion))
    _at_size = cached_property(lambda d: Rest(d.xp, d._size, d._log_size))
    _counted = property(lambda d: d.y > 0)
    #: size + y, or 1 where y is 0 and functions of both sums differ by nothing.
    _some = cached_property(lambda d: d.xp.where(d._counted, d.y + d._size, 1.0))
    _excess = property(lambda d: (d.y - d._mu) / d._spread)

    @cached_property
    def _at_total(self):
        log_total = self.xp.where(self._counted, self.xp.log(self._some), self._log_size)
        return Rest(self.xp, self.y + self._size, log_total)

    # What the two sums' gamma functions and log(1 + q) leave is of the order of the dispersion.
    @cached_property
    def _by_dispersion(self):
        """The derivative of log f in the dispersion's logarithm at a given mean."""
        q, log_ratio = self._gap
        share = self.y / self._some
        gap = 0.5 * share + (1 - share) * self._at_total.slope - self._at_size.slope
        near = self._size * log1p_less(self.xp, self.xp.minimum(self.xp.maximum(q, -0.5), 0.5))
        far = self._size * log_ratio - self._excess
        return -gap - self.xp.where(self.xp.abs(q) < 0.5, near, far)

    @property
    def _bend_by_dispersion(self):
        """Less the second one."""
        share = self.y / self._some
        away = self.xp.where(self._counted, (self.y - self._mu) / self._some, -self._odds)
        rests = self._at_size.bend - (1 - share) ** 2 * self._at_total.bend
        gap = 0.5 * share * (2 - share) + rests
        return self._by_dispersion + gap - self._excess * away / self._spread

    @property
    def _bend_by_both(self):
        """Less the derivative of that in log mu."""
        return self._excess * (self._odds / self._spread)

    @property
    def slopes(self):
        return {"dispersion": self._by_dispersion}

    @property
    def second(self):
        in_eta = {"dispersion": self._bend_by_both * self.link.slope}
        return in_eta, {("dispersion", "dispersion"): self._bend_by_dispersion}


class NegativeBinomial(Count):
    """Overdispersed counts (NB2): E[y] = mu, Var[y] = mu + dispersion mu^2.

    A Poisson count whose rate is gamma distributed with mean mu and shape 1 / dispersion.

    Parameters
    ----------
    link : {"log", "sqrt", "identity"}, default="log"
        log mu = eta, mu = eta^2, or mu = eta where that is positive.
    dispersion : float, optional
        Pins the dispersion instead of estimating it.

    References
    ----------
    Lawless (1987), "Negative binomial and mixed Poisson regression", Can. J. Stat. 15, 209-225.

    Examples
    --------
    >>> from sklmm.families import NegativeBinomial
    >>> float(NegativeBinomial().variance(0.0, {"dispersion": 0.5}))
    1.5
    """

    name = "negative_binomial"
    density = NegativeBinomialDensity
    dispersion_parameter = "dispersion"
    scalars = ("dispersion",)
    bound = ("dispersion", "poisson")

    def __init__(self, link="log", dispersion=None):
        self.link = link
        self.dispersion = dispersion

    def variance(self, eta, params):
        """mu + dispersion mu^2."""
        mu = self._mu(eta)
        return mu + params["dispersion"] * mu**2

    def sample(self, eta, params, rng):
        """Counts."""
        shape = 1 / params["dispersion"]
        return poisson(rng.gamma(shape, self._mu(eta) / shape), rng)

    def _cdf(self, y, eta, params):
        dispersion = params["dispersion"]
        return counted(y, 1 / dispersion, dispersion * self._mu(eta))


def counted(y, size, excess, above=False):
    """P(Y <= y), or with `above` P(Y > y), of a size 1 / dispersion and excess dispersion mu."""
    of_size, of_counts = (betaincc, betainc) if above else (betainc, betaincc)
    out = of_size(size, y + 1, 1 / (1 + excess))
    # Either share is without digits where it is nearly 1.
    if np.any(few := np.less(excess, _FEW)):
        out = np.where(few, of_counts(y + 1, size, excess / (1 + excess)), out)
    return out
