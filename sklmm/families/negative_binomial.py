"""The negative binomial family of overdispersed counts, Poisson as its dispersion falls to 0."""

# ruff: noqa: D102 - what each property of a density is, `Density` says once.

from functools import cached_property

from sklmm.families.density import PositiveMean
from sklmm.families.poisson import Count, poisson
from sklmm.families.special import beyond, log_add_exp, psi_less_log, stirling


class NegativeBinomialDensity(PositiveMean):
    """Var[y] = mu + dispersion mu^2, size the dispersion's inverse."""

    _size = cached_property(lambda d: 1 / d.dispersion)
    _spread = cached_property(lambda d: 1 + d.dispersion * d._mu)
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

    @property
    def slopes(self):
        q, log_ratio = self._gap
        gap = psi_less_log(self.xp, self.y + self._size) - psi_less_log(self.xp, self._size)
        return {"dispersion": -self._size * (gap + log_ratio - q)}


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
