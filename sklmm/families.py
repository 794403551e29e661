"""Response families: the distribution of y given the linear predictor.

Each family is a small `BaseEstimator`, so that `clone` and `set_params` reach its parameters. Here
are its validation of y and its mean, variance, probabilities and draws, in NumPy; its density is
the engine's (`sklmm.engine.likelihood`).
"""

import inspect
from dataclasses import dataclass
from numbers import Real

import numpy as np
import pandas as pd
from scipy.special import expit, ndtr, softmax
from sklearn.base import BaseEstimator

#: Constraints of an estimated parameter.
CONSTRAINTS = ("positive", "real", "unit")

# Beyond this, exp's square overflows.
_LARGEST_LOG = 300.0
# 1 / eta is a mean only for positive eta.
_SMALLEST_INVERSE = 1e-6


def _exp(eta):
    return np.exp(np.minimum(eta, _LARGEST_LOG))


_INVERSE_LINKS = {
    "identity": np.asarray,
    "log": _exp,
    "sqrt": np.square,
    "inverse": lambda eta: 1 / np.maximum(eta, _SMALLEST_INVERSE),
    "logit": expit,
    "probit": ndtr,
    "cloglog": lambda eta: -np.expm1(-_exp(eta)),
}


@dataclass(frozen=True, eq=False)
class Response:
    """y in the numbers that the engine works on.

    Parameters
    ----------
    family : Family
    y : ndarray of float64 [n]
        Codes 0..K-1 for a family of classes, proportions for a binomial one.
    weights : ndarray of float64 [n]
        Including the trials of a binomial response.
    classes : ndarray [K] or None
        Sorted labels.
    keep : ndarray of bool [n] or None
        False for rows that say nothing (binomial without trials); None keeps all.
    """

    family: "Family"
    y: np.ndarray
    weights: np.ndarray
    classes: np.ndarray | None = None
    keep: np.ndarray | None = None

    @property
    def n_classes(self):
        """Number of classes, or None."""
        return None if self.classes is None else len(self.classes)

    @property
    def n_predictors(self):
        """Linear predictors a row."""
        return self.family.n_predictors(self.n_classes)

    @property
    def parameters(self):
        """Constraint, or pinned value, of each of the family's scalar parameters."""
        return self.family.parameters(self.n_classes)


class Family(BaseEstimator):
    """Base class of response families.

    A family of your own overrides `distribution` and, when it has scalar parameters, `parameters`
    (`CustomFamily` does so from a function). Its mean, variance and draws are those of the TFP
    distribution; override them as well for predictions that need no TensorFlow.

    Examples
    --------
    >>> from sklmm.families import Family
    >>> class Logistic(Family):
    ...     def parameters(self, n_classes=None):
    ...         return {"scale": "positive"}
    ...
    ...     def distribution(self, eta, scale):
    ...         import tensorflow_probability as tfp
    ...
    ...         return tfp.distributions.Logistic(eta, scale)
    >>> Logistic().check()
    """

    name = "custom"
    links = ()
    #: y may be standardised: eta and sigma then scale with y.
    scale_equivariant = False

    def check(self):
        """Raise ValueError for parameters that make no family."""
        if self.links and self.link not in self.links:
            raise self._error(f"link={self.link!r} is not available: use {_listed(self.links)}.")
        if type(self).distribution is not Family.distribution:
            self._check_parameters(self.distribution, self.parameters())
        elif self.name not in _FAMILIES:
            raise self._error("it has no distribution: override `distribution(self, eta, ...)`.")

    def parameters(self, n_classes=None):
        """Scalar parameters in order: name -> "positive", "real", "unit", or a pinned number."""
        return {}

    def n_predictors(self, n_classes=None):
        """Linear predictors a row."""
        return 1

    def distribution(self, eta, **parameters):
        """TFP distribution of y given the linear predictor."""
        raise NotImplementedError(
            f"{type(self).__name__} has no TFP distribution of its own: override `distribution`."
        )

    def mean(self, eta, params):
        """E[y | eta], of eta's shape."""
        return self._moment("mean", eta, params)

    def variance(self, eta, params):
        """Var[y | eta], of eta's shape."""
        return self._moment("variance", eta, params)

    def sample(self, eta, params, rng):
        """Draws of y given eta, of eta's shape; codes for a family of classes."""
        seed = rng.integers(2**31 - 1, size=2, dtype=np.int32)
        return np.asarray(self._at(eta, params).sample(seed=seed))

    def bind(self, y, weights=None):
        """The `Response` of this family in y; ValueError where y is outside its support."""
        return Response(self, *_numeric(self, y, weights))

    def _at(self, eta, params):
        eta = np.asarray(eta, float)
        return self.distribution(eta, **{k: np.float64(v) for k, v in params.items()})

    def _moment(self, which, eta, params):
        eta = np.asarray(eta, float)
        try:
            value = getattr(self._at(eta, params), which)()
        except NotImplementedError:
            raise self._error(
                f"its distribution has no {which}: override `{which}(self, eta, params)` in a "
                "subclass of Family, or use a distribution that has one."
            ) from None
        return np.broadcast_to(np.asarray(value), eta.shape)

    def _inverse_link(self, eta):
        return _INVERSE_LINKS[getattr(self, "link", "identity")](np.asarray(eta, float))

    def _error(self, message):
        return ValueError(f"{type(self).__name__}: {message}")

    def _check_pins(self, **pins):
        for name, value in pins.items():
            if value is not None and not (isinstance(value, Real) and value > 0):
                raise self._error(
                    f"{name}={value!r} must be a positive number, or None to estimate it."
                )

    def _require(self, y, good, want, remedy):
        """Raise ValueError for the first value of y that is not `good`."""
        if not np.all(good):
            row = int(np.argmin(good))
            raise self._error(f"y must be {want}, not {y[row]!s} (row {row}): {remedy}")

    def _check_parameters(self, function, constraints):
        """The constraints and the function's parameters after eta must be the same."""
        required, optional = _signature(function)
        for name, value in constraints.items():
            if isinstance(value, str) and value in CONSTRAINTS:
                good = True
            else:
                good = isinstance(value, Real) and not isinstance(value, bool)
                good = good and np.isfinite(value)
            if not good:
                raise self._error(
                    f"{name}={value!r} is not a constraint: use {_listed(CONSTRAINTS)}, or a "
                    "number to pin it."
                )
            if optional is not None and name not in required and name not in optional:
                raise self._error(
                    f"{name}={value!r} constrains a parameter that the function lacks; it has "
                    f"{_listed([*required, *optional]) or 'none after eta'}: remove the constraint "
                    "or rename the parameter."
                )
        for name in required:
            if name not in constraints:
                raise self._error(
                    f"the function's parameter {name!r} has no constraint: add {name}='positive' "
                    f"(or 'real', 'unit', or a number to pin it)."
                )


def _listed(names):
    return ", ".join(map(repr, names))


def _signature(function):
    """Parameters after eta without and with a default; the latter None where any name goes."""
    try:
        found = list(inspect.signature(function).parameters.values())[1:]
    except (TypeError, ValueError):
        return [], None
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    named = [p for p in found if p.kind in kinds]
    required = [p.name for p in named if p.default is p.empty]
    optional = [p.name for p in named if p.default is not p.empty]
    return required, None if any(p.kind is p.VAR_KEYWORD for p in found) else optional


def _weights(weights, n):
    return np.ones(n) if weights is None else np.asarray(weights, float)


def _numeric(family, y, weights):
    """y [n] (or a column) and its weights as float64."""
    raw = np.asarray(y)
    if raw.ndim == 2 and raw.shape[1] == 1:
        raw = raw[:, 0]
    if raw.ndim != 1:
        raise family._error(f"y must have one column, not shape {raw.shape}: fit one at a time.")
    values = _floats(family, raw)
    family._require(raw, np.isfinite(values), "finite", "drop or impute the row.")
    return values, _weights(weights, len(values))


def _floats(family, raw):
    try:
        return raw.astype(float)
    except (TypeError, ValueError):
        for row in np.ndindex(raw.shape):
            try:
                float(raw[row])
            except (TypeError, ValueError):
                raise family._error(
                    f"y must be numeric, not {raw[row]!r} (row {row[0]}): convert it, or use "
                    "'bernoulli', 'ordinal' or 'categorical' for labels."
                ) from None
        raise


class Gaussian(Family):
    """Normal response with identity link: y ~ N(eta, sigma^2).

    Parameters
    ----------
    sigma : float, optional
        Pins the residual standard deviation (in units of y) instead of estimating it.

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

    def __init__(self, sigma=None):
        self.sigma = sigma

    def check(self):
        """Raise ValueError for a `sigma` that is neither None nor a positive number."""
        self._check_pins(sigma=self.sigma)

    def parameters(self, n_classes=None):
        """sigma."""
        return {"sigma": _pin(self.sigma)}

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
        return {"sigma": _pin(self.sigma), "df": _pin(self.df)}

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


class _Count(Family):
    def bind(self, y, weights=None):
        """The `Response` in y, nonnegative whole numbers."""
        y, weights = _numeric(self, y, weights)
        good = (y >= 0) & (y == np.floor(y))
        remedy = "round it, or use 'gamma' or 'gaussian' for a continuous response."
        self._require(y, good, "a count (a nonnegative whole number)", remedy)
        return Response(self, y, weights)


class Poisson(_Count):
    """Poisson counts: y ~ Poisson(mu), Var[y] = mu.

    Parameters
    ----------
    link : {"log", "sqrt"}, default="log"
        log mu = eta, or mu = eta^2.

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
    links = ("log", "sqrt")

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
    link : {"log"}, default="log"
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
    links = ("log",)

    def __init__(self, link="log", dispersion=None):
        self.link = link
        self.dispersion = dispersion

    def check(self):
        """Raise ValueError for an unknown link or a dispersion that is not positive."""
        super().check()
        self._check_pins(dispersion=self.dispersion)

    def parameters(self, n_classes=None):
        """dispersion."""
        return {"dispersion": _pin(self.dispersion)}

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


class Gamma(Family):
    """Gamma response, positive: E[y] = mu, Var[y] = mu^2 / shape.

    Parameters
    ----------
    link : {"log", "inverse"}, default="log"
        log mu = eta, or 1 / mu = eta (where eta must be positive).
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
    links = ("log", "inverse")

    def __init__(self, link="log", shape=None):
        self.link = link
        self.shape = shape

    def check(self):
        """Raise ValueError for an unknown link or a shape that is not positive."""
        super().check()
        self._check_pins(shape=self.shape)

    def parameters(self, n_classes=None):
        """shape."""
        return {"shape": _pin(self.shape)}

    def bind(self, y, weights=None):
        """The `Response` in y, positive numbers."""
        y, weights = _numeric(self, y, weights)
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
        return {"precision": _pin(self.precision)}

    def bind(self, y, weights=None):
        """The `Response` in y, numbers strictly between 0 and 1."""
        y, weights = _numeric(self, y, weights)
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
        return Response(self, codes, _weights(weights, len(codes)), classes)


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
            counts = _floats(self, raw)
            good = np.all(np.isfinite(counts) & (counts >= 0), axis=1)
            want = "two columns of nonnegative counts (successes, failures)"
            self._require(raw, good, want, "correct or drop the row.")
            trials = counts.sum(axis=1)
            keep = trials > 0
            share = counts[:, 0] / np.where(keep, trials, 1)
            return Response(self, share, _weights(weights, len(share)) * trials, None, keep)
        y, weights = _numeric(self, y, weights)
        remedy = "divide by the trials and give these as sample_weight, or give two columns of "
        remedy += "counts (successes, failures)."
        self._require(y, (y >= 0) & (y <= 1), "a proportion in [0, 1]", remedy)
        return Response(self, y, weights)


class Ordinal(Family):
    """Ordered classes by the cumulative model: P(y <= c) = F(theta_c - eta).

    F is the logistic or normal cdf. The first cutpoint theta_1 is 0, as eta has an intercept; the
    parameters are the spacings, theta_{c+1} - theta_c > 0. Classes are ordered as an ordered pandas
    categorical says, otherwise sorted.

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
        _, classes, codes = _classes(self, y)
        if len(classes) == 2:
            raise self._error(
                f"y must have at least three classes, not {len(classes)} ({_shown(classes)}): use "
                "'bernoulli'."
            )
        return Response(self, codes, _weights(weights, len(codes)), classes)

    def probabilities(self, eta, params):
        """Probabilities of the classes along a new last axis."""
        gap = _cutpoints(params) - np.asarray(eta, float)[..., None]
        lower = np.concatenate([np.full((*gap.shape[:-1], 1), -np.inf), gap], axis=-1)
        upper = np.concatenate([gap, np.full((*gap.shape[:-1], 1), np.inf)], axis=-1)
        # In the right tail the difference of the cdfs would cancel.
        right = lower + upper > 0
        F = _INVERSE_LINKS[self.link]
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
        """Codes 0..K-1."""
        noise = rng.logistic if self.link == "logit" else rng.normal
        latent = eta + noise(size=np.shape(eta))
        return np.searchsorted(_cutpoints(params), latent).astype(float)


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
        return Response(self, codes, _weights(weights, len(codes)), classes)

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


class CustomFamily(Family):
    """A response whose TFP distribution is a function of eta and of named parameters.

    Predictions call the function too, so they need TensorFlow. The family is picklable when the
    function is: define it in a module.

    Parameters
    ----------
    function : callable
        ``function(eta, **parameters)`` -> TFP distribution with a batch shape of eta's.
    **parameters : {"positive", "real", "unit"} or float
        Constraint of each of the function's parameters ("unit" is the interval (0, 1)), or a number
        that pins it. A parameter with a default may be left out.

    References
    ----------
    Dillon et al. (2017), "TensorFlow Distributions", arXiv:1711.10604.

    Examples
    --------
    >>> from sklmm.families import CustomFamily
    >>> def laplace(eta, scale):
    ...     import tensorflow_probability as tfp
    ...
    ...     return tfp.distributions.Laplace(eta, scale)
    >>> family = CustomFamily(laplace, scale="positive")
    >>> family.parameters()
    {'scale': 'positive'}
    """

    def __init__(self, function, **parameters):
        self.function = function
        self.constraints = parameters

    @classmethod
    def _get_param_names(cls):
        return ["function"]

    def get_params(self, deep=True):
        """The function and the parameters' constraints."""
        return {"function": self.function, **self.constraints}

    def set_params(self, **params):
        """Replace the function or the constraint of a parameter."""
        known = self.get_params()
        for name in params:
            if name not in known:
                raise self._error(f"{name!r} is not a parameter: use {_listed(known)}.")
        params = dict(params)
        self.function = params.pop("function", self.function)
        self.constraints = {**self.constraints, **params}
        return self

    def check(self):
        """Raise ValueError unless every parameter of the function has a known constraint."""
        if not callable(self.function):
            raise self._error(
                f"function={self.function!r} is not callable: give a function from eta to a TFP "
                "distribution."
            )
        self._check_parameters(self.function, self.constraints)

    def parameters(self, n_classes=None):
        """The constraints."""
        return dict(self.constraints)

    def distribution(self, eta, **parameters):
        """What the function returns."""
        return self.function(eta, **parameters)


def _pin(value):
    return "positive" if value is None else float(value)


def _poisson(mu, rng):
    # NumPy's generator has no counts beyond int64's.
    return rng.poisson(np.minimum(mu, 1e18)).astype(float)


def _cutpoints(params):
    spacings = [params[f"spacing_{k}"] for k in range(1, len(params) + 1)]
    return np.cumsum([0.0, *spacings])


def _scores(scores, p):
    return np.arange(p.shape[-1], dtype=float) if scores is None else np.asarray(scores, float)


def _shown(classes):
    return _listed(np.asarray(classes).tolist())


def _classes(family, y):
    """Labels, sorted classes (at least two), and codes as float64."""
    order = getattr(y, "dtype", None)
    labels = np.asarray(y)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise family._error(f"y must have one column, not shape {labels.shape}: fit one at a time.")
    missing = pd.isna(labels)
    family._require(labels, ~missing, "a label", "drop the row.")
    if isinstance(order, pd.CategoricalDtype) and order.ordered:
        codes = order.categories.get_indexer(labels)
        present, codes = np.unique(codes, return_inverse=True)
        classes = np.asarray(order.categories)[present]
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
            f"y has a single class ({_shown(classes)}): at least two are needed to fit; check the "
            "rows selected for this fit."
        )
    return labels, classes, codes.astype(float)


_FAMILIES = {
    family.name: family
    for family in (
        Gaussian,
        StudentT,
        Poisson,
        NegativeBinomial,
        Gamma,
        Beta,
        Bernoulli,
        Binomial,
        Ordinal,
        Categorical,
    )
}


def resolve_family(family):
    """A checked `Family` from the estimator's parameter: a name, an instance, or a function.

    Raises
    ------
    ValueError
        For an unknown name, or a family whose parameters are wrong.
    """
    if isinstance(family, str) and family in _FAMILIES:
        family = _FAMILIES[family]()
    elif isinstance(family, type) and issubclass(family, Family):
        raise ValueError(f"family={family.__name__} is a class: give {family.__name__}().")
    elif callable(family):
        required, _ = _signature(family)
        if required:
            name = getattr(family, "__name__", "f")
            pins = ", ".join(f"{p}='positive'" for p in required)
            raise ValueError(
                f"family={name} has parameters besides eta: write CustomFamily({name}, {pins}), "
                "with 'positive', 'real', 'unit' or a number for each."
            )
        family = CustomFamily(family)
    if isinstance(family, Family):
        family.check()
        return family
    raise ValueError(
        f"family={family!r} is not available: use {_listed(_FAMILIES)}, an instance such as "
        "Gaussian(sigma=1.0), or CustomFamily(function, ...)."
    )
