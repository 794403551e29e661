"""Families of a continuous response: on the line, on its positive half, and in (0, 1).

The normal and Student's t have location eta; gamma and beta have mean mu = g^-1(eta) and a
parameter of their own that scales the variance.
"""

import numpy as np

from sklmm.families.base import Family, Response, numeric, pin


class Gaussian(Family):
    """Normal response with identity link: y ~ N(eta, sigma^2).

    Parameters
    ----------
    sigma : float, optional
        Pins the residual standard deviation (in units of y) instead of estimating it.
    weights : {"repeats", "precision"}, default="repeats"
        What `sample_weight` means: a row of weight w is w such rows, as in scikit-learn; or its
        residual variance is sigma^2 / w, as in lme4 (y the mean of w measurements, say). The latter
        is for e_step "exact" and "cg".

    References
    ----------
    Laird & Ware (1982), "Random-effects models for longitudinal data", Biometrics 38, 963-974.

    Examples
    --------
    >>> from sklmm import Gaussian
    >>> Gaussian(sigma=1.0)
    Gaussian(sigma=1.0)
    """

    name = "gaussian"
    scale_equivariant = True

    def __init__(self, sigma=None, weights="repeats"):
        self.sigma = sigma
        self.weights = weights

    def check(self):
        """Raise ValueError for a `sigma` that is neither None nor a positive number."""
        self._check_pins(sigma=self.sigma)
        if self.weights not in ("repeats", "precision"):
            raise self._error(
                f"weights={self.weights!r} is not available: use 'repeats' or 'precision'."
            )

    def bind(self, y, weights=None):
        """The `Response` in y."""
        y, weights = numeric(self, y, weights)
        if self.weights != "precision":
            return Response(self, y, weights)
        # Of mean 1 they add up to the number of rows, as repetitions do.
        largest = weights.max(initial=1e-300)
        mean = float((weights / largest).mean())
        weights = weights / largest / mean
        constant = 0.5 * float(np.log(weights).sum())
        unit = np.sqrt(largest) * np.sqrt(mean)
        return Response(self, y, weights, log_constant=constant, sigma_unit=float(unit))

    def parameters(self, n_classes=None):
        """sigma."""
        return {"sigma": pin(self.sigma)}

    def mean(self, eta, params):
        """eta."""
        return self._inverse_link(eta)

    def variance(self, eta, params):
        """sigma^2."""
        return np.full(np.shape(eta), float(params["sigma"]) ** 2)

    def sample(self, eta, params, rng):
        """Draws of y given eta."""
        return rng.normal(eta, params["sigma"])


class StudentT(Family):
    """Student's t response with identity link, for outliers: (y - eta) / sigma ~ t(df).

    Var[y] = sigma^2 df / (df - 2), infinite for df <= 2. The mean is eta (for df <= 1, where there
    is none, the median).

    Parameters
    ----------
    df : float, optional
        Pins the degrees of freedom instead of estimating them.
    sigma : float, optional
        Pins the scale (in units of y) instead of estimating it.

    References
    ----------
    Lange, Little & Taylor (1989), "Robust statistical modeling using the t distribution",
    JASA 84, 881-896.

    Examples
    --------
    >>> from sklmm.families import StudentT
    >>> float(StudentT(df=4).variance(0.0, {"sigma": 1.0, "df": 4}))
    2.0
    """

    name = "student_t"
    scale_equivariant = True

    def __init__(self, df=None, sigma=None):
        self.df = df
        self.sigma = sigma

    def check(self):
        """Raise ValueError for a `df` or `sigma` that is neither None nor a positive number."""
        self._check_pins(df=self.df, sigma=self.sigma)

    def parameters(self, n_classes=None):
        """sigma and df."""
        return {"sigma": pin(self.sigma), "df": pin(self.df)}

    def mean(self, eta, params):
        """eta."""
        return self._inverse_link(eta)

    def variance(self, eta, params):
        """sigma^2 df / (df - 2)."""
        df = params["df"]
        value = params["sigma"] ** 2 * df / (df - 2) if df > 2 else np.inf
        return np.full(np.shape(eta), float(value))

    def sample(self, eta, params, rng):
        """Draws of y given eta."""
        return eta + params["sigma"] * rng.standard_t(params["df"], np.shape(eta))


class Gamma(Family):
    """Gamma response, positive: E[y] = mu, Var[y] = mu^2 / shape.

    Parameters
    ----------
    link : {"log", "inverse", "identity"}, default="log"
        log mu, 1 / mu or mu is eta, which must be positive for the last two.
    shape : float, optional
        Pins the shape instead of estimating it; 1 is the exponential distribution.

    References
    ----------
    McCullagh & Nelder (1989), Generalized Linear Models, ch. 8.

    Examples
    --------
    >>> from sklmm.families import Gamma
    >>> float(Gamma().variance(0.0, {"shape": 4.0}))
    0.25
    """

    name = "gamma"
    links = ("log", "inverse", "identity")
    positive = True

    def __init__(self, link="log", shape=None):
        self.link = link
        self.shape = shape

    @property
    def eta_power(self):
        """Power of y's unit that is eta's."""
        return {"identity": 1, "inverse": -1}.get(self.link, 0)

    def check(self):
        """Raise ValueError for an unknown link or a shape that is not positive."""
        super().check()
        self._check_pins(shape=self.shape)

    def parameters(self, n_classes=None):
        """shape."""
        return {"shape": pin(self.shape)}

    def bind(self, y, weights=None):
        """The `Response` in y, positive numbers."""
        y, weights = numeric(self, y, weights)
        self._require(y, y > 0, "positive", "drop the row, or use 'gaussian'.")
        return Response(self, y, weights)

    def mean(self, eta, params):
        """mu."""
        return self._inverse_link(eta)

    def variance(self, eta, params):
        """mu^2 / shape."""
        return self._inverse_link(eta) ** 2 / params["shape"]

    def sample(self, eta, params, rng):
        """Draws of y given eta."""
        return rng.gamma(params["shape"], self._inverse_link(eta) / params["shape"])


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
    links = ("logit", "probit", "cloglog")

    def __init__(self, link="logit", precision=None):
        self.link = link
        self.precision = precision

    def check(self):
        """Raise ValueError for an unknown link or a precision that is not positive."""
        super().check()
        self._check_pins(precision=self.precision)

    def parameters(self, n_classes=None):
        """precision."""
        return {"precision": pin(self.precision)}

    def bind(self, y, weights=None):
        """The `Response` in y, numbers strictly between 0 and 1."""
        y, weights = numeric(self, y, weights)
        remedy = (
            "move it inside by (y (n - 1) + 0.5) / n, or use 'binomial' for shares of a number of "
            "trials."
        )
        self._require(y, (y > 0) & (y < 1), "strictly between 0 and 1", remedy)
        return Response(self, y, weights)

    def mean(self, eta, params):
        """mu."""
        return self._inverse_link(eta)

    def variance(self, eta, params):
        """mu (1 - mu) / (1 + precision)."""
        mu = self._inverse_link(eta)
        return mu * (1 - mu) / (1 + params["precision"])

    def sample(self, eta, params, rng):
        """Draws of y given eta."""
        tiny = 1e-12
        mu = np.clip(self._inverse_link(eta), tiny, 1 - tiny)
        return rng.beta(mu * params["precision"], (1 - mu) * params["precision"])
