"""Any likelihood at all: the family of a function from eta to a TFP distribution."""

from sklmm.families.base import Family, listed


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
                raise self._error(f"{name!r} is not a parameter: use {listed(known)}.")
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
