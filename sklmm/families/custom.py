"""Any likelihood at all: the family of a function from eta to a TFP distribution."""

import numpy as np

from sklmm.families.base import Family, Response, floats, row_weights
from sklmm.families.messages import listed
from sklmm.families.tfp import check_parameters, signature


class CustomFamily(Family):
    """A response whose TFP distribution is a function of eta and of named parameters.

    Predictions call the function too, so they need TensorFlow. The family is picklable when the
    function is: define it in a module.

    Parameters
    ----------
    function : callable
        ``function(eta, **parameters)`` -> TFP distribution with a batch shape of eta's, by
        operations of TensorFlow. Of what else it reads, such as globals, a fit notices new values,
        but not those inside of an object: give numbers as parameters.
    row_data : tuple of str, default=()
        Arguments of the function that rows have values of: an exposure, a number of trials, a
        bound. They are y's columns after the first, and in the function tensors [n_rows, 1].
        Predictions of new rows, of whose data nothing is known, take the argument's default.
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

    Counts with an exposure, of which y is the second column; a rate is what it predicts:

    >>> def counts(eta, exposure=1.0):
    ...     import tensorflow as tf
    ...     import tensorflow_probability as tfp
    ...
    ...     return tfp.distributions.Poisson(log_rate=eta + tf.math.log(exposure))
    >>> CustomFamily(counts, row_data=("exposure",)).bind([[3, 2.0], [0, 1.5]]).data
    array([[2. ],
           [1.5]])
    """

    def __init__(self, function, row_data=(), **parameters):
        self.function = function
        self.row_data = row_data
        self.constraints = parameters

    @classmethod
    def _get_param_names(cls):
        return ["function", "row_data"]

    def get_params(self, deep=True):
        """The function, the names of the row data and the parameters' constraints."""
        return {"function": self.function, "row_data": self.row_data, **self.constraints}

    def set_params(self, **params):
        """Replace the function, the names of the row data or the constraint of a parameter."""
        known = self.get_params()
        for name in params:
            if name not in known:
                raise self._error(f"{name!r} is not a parameter: use {listed(known)}.")
        params = dict(params)
        self.function = params.pop("function", self.function)
        self.row_data = params.pop("row_data", self.row_data)
        self.constraints = {**self.constraints, **params}
        return self

    def check(self):
        """Raise ValueError unless every parameter of the function has a known constraint."""
        if not callable(self.function):
            raise self._error(
                f"function={self.function!r} is not callable: give a function from eta to a TFP "
                "distribution."
            )
        if isinstance(self.row_data, str):
            raise self._error(f"row_data={self.row_data!r} must be a tuple of names.")
        for name in self.row_data:
            if name in self.constraints:
                raise self._error(f"{name!r} is row data and a parameter: it may be one of them.")
        # A number, as to the function it is an argument like any other.
        check_parameters(self, self.function, self.constraints | dict.fromkeys(self.row_data, 1.0))

    @property
    def columns(self):
        """Numbers of columns that y may have."""
        return (1 + len(self.row_data),)

    def bind(self, y, weights=None):
        """The `Response` in y [n], or in y and the row data [n, 1 + k]."""
        if not self.row_data:
            return super().bind(y, weights)
        raw, n_columns = np.asarray(y), 1 + len(self.row_data)
        if raw.ndim != 2 or raw.shape[1] != n_columns:
            raise self._error(
                f"y must have {n_columns} columns, the response and {listed(self.row_data)}, not "
                f"shape {raw.shape}."
            )
        values = floats(self, raw)
        self._require(raw, np.isfinite(values).all(axis=1), "finite", "drop or impute the row.")
        weights = row_weights(weights, len(values))
        return Response(self, values[:, 0], weights, data=values[:, 1:])

    def parameters(self, n_classes=None):
        """The constraints."""
        return dict(self.constraints)

    def distribution(self, eta, **parameters):
        """What the function returns."""
        required, _ = signature(self.function)
        for name in self.row_data:
            if name not in parameters and name in required:
                raise self._error(
                    f"new rows have no {name!r}, and the function's argument has no default: give "
                    f"it one, as in def {getattr(self.function, '__name__', 'f')}(eta, {name}=1.0)."
                )
        return self.function(eta, **parameters)
