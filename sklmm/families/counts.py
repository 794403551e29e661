"""Families of counts 0, 1, 2, ... with mean mu = g^-1(eta).

Var[y] = mu for the Poisson, mu + dispersion mu^2 for the negative binomial, which tends to it as
dispersion falls to 0.
"""

import numpy as np

from sklmm.families.base import Family, Response, numeric, pin


class _Count(Family):
    def bind(self, y, weights=None):
        """The `Response` in y, nonnegative whole numbers."""
        y, weights = numeric(self, y, weights)
        good = (y >= 0) & (y == np.floor(y))
        remedy = "round it, or use 'gamma' or 'gaussian' for a continuous response."
        self._require(y, good, "a count (a nonnegative whole number)", remedy)
        return Response(self, y, weights)


class Poisson(_Count):
    """Poisson counts: y ~ Poisson(mu), Var[y] = mu.

    Parameters
    ----------
    link : {"log", "sqrt", "identity"}, default="log"
        log mu = eta, mu = eta^2, or mu = eta where that is positive.

    References
    ----------
    McCullagh & Nelder (1989), Generalized Linear Models, ch. 6.

    Examples
    --------
    >>> from sklmm.families import Poisson
    >>> float(Poisson(link="sqrt").mean(3.0, {}))
    9.0
    """

    name = "poisson"
    links = ("log", "sqrt", "identity")
    positive = True

    def __init__(self, link="log"):
        self.link = link

    def mean(self, eta, params):
        """mu."""
        return self._inverse_link(eta)

    def variance(self, eta, params):
        """mu."""
        return self._inverse_link(eta)

    def sample(self, eta, params, rng):
        """Counts."""
        return _poisson(self._inverse_link(eta), rng)


class NegativeBinomial(_Count):
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
    links = ("log", "sqrt", "identity")
    positive = True

    def __init__(self, link="log", dispersion=None):
        self.link = link
        self.dispersion = dispersion

    def check(self):
        """Raise ValueError for an unknown link or a dispersion that is not positive."""
        super().check()
        self._check_pins(dispersion=self.dispersion)

    def parameters(self, n_classes=None):
        """dispersion."""
        return {"dispersion": pin(self.dispersion)}

    def mean(self, eta, params):
        """mu."""
        return self._inverse_link(eta)

    def variance(self, eta, params):
        """mu + dispersion mu^2."""
        mu = self._inverse_link(eta)
        return mu + params["dispersion"] * mu**2

    def sample(self, eta, params, rng):
        """Counts."""
        shape = 1 / params["dispersion"]
        return _poisson(rng.gamma(shape, self._inverse_link(eta) / shape), rng)


def _poisson(mu, rng):
    # NumPy's generator has no counts beyond int64's.
    return rng.poisson(np.minimum(mu, 1e18)).astype(float)
