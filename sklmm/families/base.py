"""What every response family is: the distribution of y given the linear predictor eta.

A `Family` validates y into a `Response`, gives the mean, variance, probabilities and draws of y in
NumPy, and has a density (`sklmm.families.density`). With link g, mu = g^-1(eta).
"""

from dataclasses import dataclass
from numbers import Real

import numpy as np
from sklearn.base import BaseEstimator

from sklmm.families.links import LINKS, inverse_link
from sklmm.families.messages import listed
from sklmm.families.modelled import expanded
from sklmm.families.special import NUMPY
from sklmm.families.tfp import check_parameters, from_reals, told


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
    log_constant : float
        What the engine's log-likelihood lacks: the binomial coefficients, the precisions.
    sigma_unit : float
        What the engine's residual SD is to be multiplied by: the root of the precisions' mean.
    n_obs : float or None
        Number of observations where it is not the sum of the weights.
    counted : bool
        Whether log_constant is known: of proportions it is where trials and successes are whole.
    data : ndarray of float64 [n, k] or None
        What rows have besides y, the family's `row_data`.
    models : tuple of `ParameterModel`
        Parameters that are linear in columns of the design.
    masses : float
        Weights of the rows whose log f is that of a probability in spite of a continuous y: another
        unit of y does not change it.
    """

    family: object
    y: np.ndarray
    weights: np.ndarray
    classes: np.ndarray | None = None
    keep: np.ndarray | None = None
    log_constant: float = 0.0
    sigma_unit: float = 1.0
    n_obs: float | None = None
    counted: bool = True
    data: np.ndarray | None = None
    models: tuple = ()
    masses: float = 0.0

    def with_data(self, params, n_axes=2):
        """Parameters of the family with the row data beside them, arrays [n, 1, ...] of axes."""
        if self.data is None:
            return params
        shape = -1, *[1] * (n_axes - 1)
        named = zip(self.family.row_data, self.data.T, strict=True)
        return {**params, **{name: column.reshape(shape) for name, column in named}}

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
        """Constraint, or pinned value, of each of the family's parameters, or its coefficients."""
        own = self.family.parameters(self.n_classes)
        return expanded(own, self.models) if self.models else own


def row_weights(weights, n):
    """Weights as float64 [n], not to be written to; 1 where none are given, in no memory."""
    return np.broadcast_to(1.0, n) if weights is None else np.asarray(weights, float)


def numeric(family, y, weights):
    """y [n] (or a column) and its weights as float64."""
    raw = np.asarray(y)
    if raw.ndim == 2 and raw.shape[1] == 1:
        raw = raw[:, 0]
    if raw.ndim != 1:
        raise family._error(f"y must have one column, not shape {raw.shape}: fit one at a time.")
    values = floats(family, raw)
    family._require(raw, np.isfinite(values), "finite", "drop or impute the row.")
    return values, row_weights(weights, len(values))


def floats(family, raw):
    """Values of y as float64, itself if it is so; ValueError names the first that is no number."""
    try:
        return raw.astype(float, copy=False)
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


#: Counts beyond which a float has no neighbours.
_MOST_COUNTED = 1e15
#: A step of eta by which the slope of a mean is told.
_NEAR = 1e-4


class Family(BaseEstimator):
    """Base class of response families.

    A family is a small `BaseEstimator`, so that `clone` and `set_params` reach its parameters.

    A family of your own overrides `distribution` and, when it has scalar parameters, `parameters`
    (`CustomFamily` does so from a function). Its mean, variance and draws are those of the TFP
    distribution; override them as well for predictions that need no TensorFlow.

    Or it has, in the place of `distribution`, a `density`: a subclass of
    `sklmm.families.density.Density`, and its own `variance`, `sample` and, for prediction intervals
    and quantile residuals, `cdf`; its mean is the inverse of its link. Nothing of it needs
    TensorFlow where the built-in families do not.

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
    #: Subclass of `Density`, or None for a family of a TFP distribution.
    density = None
    #: Positive parameters of the density that the constructor pins, or None to estimate them.
    scalars = ()
    #: Names of the links to choose from, the default first.
    links = ()
    #: What kind of classes y has: None, "two", "ordered" (by cutpoints) or "unordered".
    classes = None
    #: y is normal with mean eta: fits are by equations in closed form.
    closed_form = False
    #: y, or the number in which the engine has it, is normal with mean eta and SD sigma.
    normal = False
    #: Its log density is quadratic in eta, so that Laplace's approximation is exact.
    quadratic = False
    #: Means come near the ends of y's range only as eta goes to infinity, which data may ask for.
    separable = False
    #: The lower end of y's range, of families whose means come near it.
    least = 0
    #: The largest y, which means likewise come near, or None.
    greatest = None
    #: A parameter, and the name of the family that it becomes as this goes to the end of its range.
    bound = None
    #: Whether a mean below 0 is none.
    positive = False
    #: y may be standardised: eta and sigma then scale with y.
    scale_equivariant = False
    #: Power of y's unit that is eta's; 0 where another unit of y only moves the intercept.
    eta_power = 0
    #: Powers of y's unit that its parameters have, (name, power), where y may be in another unit.
    parameter_powers = ()
    #: Names of what a row has besides y, as the trials of a proportion: attributes of its density.
    #: Of a `scale_equivariant` family they are in y's units.
    row_data = ()
    #: Numbers of columns that y may have.
    columns = (1,)
    #: Whether y may be infinite, and miss some of its columns.
    open_ended = False
    #: The least and the greatest y that there may be.
    support = (-np.inf, np.inf)
    #: What more zeros make of it: a "mixture" with its own, a "hurdle" of one that has none, or
    #: None where they mean nothing.
    zeros = None
    #: A number within y's range, which stands where a hurdle has its zeros.
    inner = 1.0
    #: The parameter that the estimator's `dispersion` models, or None.
    dispersion_parameter = None
    #: Parameters in which the mean grows so fast that normal effects in them leave it infinite.
    unaveraged = ()
    #: What `sample_weight` means: "repeats" of a row, "trials" of one, or a "precision".
    weights = "repeats"

    @property
    def is_custom(self):
        """Whether its density is that of a TFP distribution of its own."""
        return type(self).distribution is not Family.distribution

    def check(self):
        """Raise ValueError for parameters that make no family."""
        if self.links and self.link not in self.links:
            raise self._error(f"link={self.link!r} is not available: use {listed(self.links)}.")
        for name in self.scalars:
            value = getattr(self, name)
            if value is not None and not (isinstance(value, Real) and value > 0):
                raise self._error(
                    f"{name}={value!r} must be a positive number, or None to estimate it."
                )
        if self.is_custom:
            check_parameters(self, self.distribution, self.parameters())

    def parameters(self, n_classes=None):
        """Scalar parameters in order: name -> "positive", "real", "unit", or a pinned number."""
        values = {name: getattr(self, name) for name in self.scalars}
        return {k: "positive" if v is None else float(v) for k, v in values.items()}

    @property
    def nested(self):
        """The families within it by name, itself among them, and which parameters end there."""
        out = {self.name: ()}
        if self.bound is not None and self.parameters()[self.bound[0]] == "positive":
            out[self.bound[1]] = self.bound[:1]
        return out

    def n_predictors(self, n_classes=None):
        """Linear predictors a row."""
        return 1

    def beside_zeros(self):
        """The family that a point at 0 is added to, in the numbers of y."""
        return self

    def of_columns(self, n_columns):
        """The family of a y with so many columns, which it may have."""
        return self

    @property
    def mean_is_eta(self):
        """Whether E[y | eta] is eta itself."""
        return self.scale_equivariant

    def encoded(self, y):
        """The numbers in which the engine has a y of the support, such as its logarithm."""
        return y

    def decoded(self, y):
        """The y of these numbers of the engine's."""
        return y

    def constants(self, y, data=None):
        """What the log density of a row lacks of log f [n], by the engine's y and the row data."""
        return np.zeros(len(y))

    def by_row(self):
        """The family whose dispersion is a function of the row: itself, but in closed form."""
        return self

    def distribution(self, eta, **parameters):
        """TFP distribution of y given the linear predictor."""
        raise NotImplementedError(
            f"{type(self).__name__} has no TFP distribution of its own: override `distribution`."
        )

    def mean(self, eta, params):
        """E[y | eta], of eta's shape."""
        if self.density is not None:
            return self._mu(eta)
        return np.broadcast_to(told(self, "mean", eta, params), np.shape(eta))

    def variance(self, eta, params):
        """Var[y | eta], of eta's shape."""
        return np.broadcast_to(told(self, "variance", eta, params), np.shape(eta))

    def latent_variance(self, params):
        """Variance of y on the scale of the link; None where it is another at every mean."""
        return float(self.variance(np.zeros(1), params)[0]) if self.scale_equivariant else None

    def sample(self, eta, params, rng):
        """Draws of y given eta, of eta's shape; codes for a family of classes."""
        seed = rng.integers(2**31 - 1, size=2, dtype=np.int32)
        return told(self, "sample", eta, params, seed=seed)

    def steps(self, params):
        """How many of y's values a unit has: 1 of whole numbers, None where y is continuous."""
        if self.classes is not None:
            return 1.0
        return 1.0 if self.is_custom and from_reals(self, params) is None else None

    def limits(self, params):
        """The least and the greatest y that there may be, infinite where eta moves them."""
        if not self.is_custom:
            return self.support
        maps = [from_reals(self, params, eta) for eta in (-1.0, 1.0)]
        if None in maps:
            return self.support
        ends = [np.ravel(to_y.forward(np.array([-np.inf, np.inf]))) for to_y in maps]
        low, high = np.where(ends[0] == ends[1], ends[0], [-np.inf, np.inf]).tolist()
        return (low, high) if low < high else self.support

    def cdf(self, y, eta, params, below=False):
        """P(Y <= y | eta), or P(Y < y) with `below`, which is less where y has a probability.

        Parameters
        ----------
        y : array-like
            In its own units; codes for a family of classes, which are ordered.
        eta : array-like
            Linear predictors. y, eta and the parameters broadcast.
        params : dict
            The family's parameters and its `row_data`: the trials of shares are 1 if none is told.
        below : bool, default=False

        Returns
        -------
        ndarray

        Raises
        ------
        ValueError
            For a family that has no distribution function.

        Examples
        --------
        >>> from sklmm.families import Poisson
        >>> Poisson().cdf([0, 1, 2], 0.0, {}).round(3)
        array([0.368, 0.736, 0.92 ])
        >>> Poisson().cdf([0, 1, 2], 0.0, {}, below=True).round(3)
        array([0.   , 0.368, 0.736])
        """
        y, eta = np.asarray(y, float), np.asarray(eta, float)
        (low, high), steps = self.limits(params), self.steps(params)
        if steps is not None:
            y = _on_grid(y * steps, below) / steps
        # At the ends of y's range, which are told below.
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            inside = self._cdf(np.clip(y, low, high), eta, params)
        if y.size and low < y.min() and y.max() < high:
            return inside
        if steps is None and below:
            return np.where(y <= low, 0.0, np.where(y > high, 1.0, inside))
        return np.where(y < low, 0.0, np.where(y >= high, 1.0, inside))

    def _cdf(self, y, eta, params):
        """P(Y <= y | eta) of y in the support, where it is continuous at the upper end."""
        return told(self, "cdf", eta, params, y)

    def located(self, y, params):
        """Eta at which y is about what is expected, and the SD of such y in units of eta.

        None where that is not known. F(y | eta) falls from 1 to 0 there, or rises, within some SDs.
        """
        link = LINKS.get("identity" if self.mean_is_eta else getattr(self, "link", None))
        if link is None or self.is_custom or self.classes is not None:
            return None
        (low, high), steps = self.limits(params), self.steps(params)
        if steps is not None:
            # Between y and the next one, where F(y | eta) is about a half.
            y = np.clip(y + 0.5 / steps, low + 0.25 / steps, high - 0.25 / steps)
        with np.errstate(all="ignore"):
            eta = link.of(y)
            slope = link(NUMPY, eta + _NEAR).mean - link(NUMPY, eta - _NEAR).mean
            return eta, 2 * _NEAR * np.sqrt(self.variance(eta, params)) / np.abs(slope)

    def bind(self, y, weights=None):
        """The `Response` of this family in y; ValueError where y is outside its support."""
        return Response(self, *numeric(self, y, weights))

    def _mu(self, eta):
        mu = inverse_link(getattr(self, "link", "identity"), np.asarray(eta, float))
        return np.maximum(mu, 0.0) if self.positive else mu

    def _error(self, message):
        return ValueError(f"{type(self).__name__}: {message}")

    def _require(self, y, good, want, remedy):
        """Raise ValueError for the first value of y that is not `good`."""
        if not np.all(good):
            row = int(np.argmin(good))
            raise self._error(f"y must be {want}, not {y[row]!s} (row {row}): {remedy}")


def _on_grid(y, below):
    """The largest whole number that is at most y, or below it; products may round."""
    y = np.clip(y, -_MOST_COUNTED, _MOST_COUNTED)
    near = np.round(y)
    y = np.where(np.abs(y - near) <= 1e-9 * np.maximum(np.abs(near), 1.0), near, y)
    return np.ceil(y) - 1 if below else np.floor(y)
