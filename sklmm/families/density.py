"""The density of a family: its logarithm and what algorithms need of its derivatives.

A density is written once, in the functions of a namespace (`sklmm.families.special`): in NumPy's
for Laplace's approximation on tables, in TensorFlow's for what the engine compiles.
"""

# ruff: noqa: D102 - what each property of a density is, `Density` says once.

from functools import cached_property
from types import MappingProxyType

from sklmm.families.links import LINKS, Link, Log
from sklmm.families.special import exp


class Density:
    """Rows y [n, 1] at eta [n, C], the parameters by name, each broadcastable to [n, C].

    A family of your own has a subclass of this as its attribute `density`. Of these properties it
    needs the first three, and `slopes` where it has parameters:

    value
        log f [n, C], with all terms that depend on eta or on a parameter.
    score
        Its derivative in eta, of eta's shape.
    expected
        Less its second derivative in eta, in the mean over y.
    observed
        Less its second derivative in eta; `expected` for densities of which the two are the same.
    observed_slope
        The derivative of `observed` in eta, or None where differences are to tell it.
    slopes
        Its derivatives in the parameters without their constraints, by name: in the logarithm of a
        positive one, in the logit of one in (0, 1).
    second
        Less its second derivatives: in eta and a parameter without its constraint, by name, and in
        two parameters, by the pairs of their names in order; each broadcastable to eta's shape. Or
        None where differences of `slopes` are to tell them. One predictor's, whose digits, like
        those of `slopes`, do not cancel in float32.
    information
        By a parameter's name the mean over y of less its second derivative without its constraint,
        or a bound of that, where one is known.
    block
        Less the second derivatives in the predictors of a row, [n, d, d, C], or None where
        differences of the score are to tell them.
    value_and_score
        Both, as samplers ask for them, which spend their time here. Override it where they are
        faster together than each by itself.
    quick_score
        The score alone, likewise: its rounding may be that of its largest values.
    at_zero(pick)
        log f in rows whose y is 0, likewise, `pick` taking these of arrays [n, C] or [1, C]; or
        None where `value_and_score` is to tell it.

    TensorFlow differentiates the score, `expected` and `slopes` once.

    Parameters
    ----------
    xp : namespace
    y, eta : arrays
        For a family of several predictors eta is [n * d, C], the predictors of a row adjacent.
    parameters : dict
        Each becomes an attribute. `unconstrained` has those with a predictor of their own by name,
        without their constraints.
    link : str
        Of `sklmm.families.links.LINKS`: `self.link` is that link at eta.
    """

    #: Whether rows' curvatures are far from those that are expected, as a mixture's are: the motion
    #: of the latent variables is then by the observed one, or much of the information is missed.
    scattered = False
    #: Links by which log f is convex in eta wherever y is far from it, however far.
    convex_links = ()

    def __init__(self, xp, y, eta, parameters, link):
        self.xp, self.y, self.eta = xp, y, eta
        self.link = LINKS.get(link, Link)(xp, eta)
        for name, value in parameters.items():
            setattr(self, name, value)

    observed = property(lambda d: d.expected)
    observed_slope = None
    second = None
    block = None
    information = property(lambda d: {})
    unconstrained = MappingProxyType({})
    slopes = property(lambda d: {})
    value_and_score = property(lambda d: (d.value, d.score))
    quick_score = property(lambda d: d.score)

    def at_zero(self, pick):
        return None

    def slopes_in(self, names):
        """`slopes` in the order of these parameters; ValueError names one that is not there."""
        found = self.slopes
        for name in names:
            if name not in found:
                raise ValueError(
                    f"{type(self).__name__}: `slopes` lacks the parameter {name!r}, it has "
                    f"{', '.join(map(repr, found)) or 'none'}: add log f's derivative in {name} "
                    f"without its constraint, or pin {name} by a number in `parameters`."
                )
        return [found[name] for name in names]

    def second_in(self, names):
        """`second`, where nothing is asked of parameters but these."""
        return self.second


class PositiveMean(Density):
    """Of a mean mu > 0, through log mu.

    A family gives the derivatives of log f in log mu, `_first` and `_second`, and the mean of
    -`_second` over y, `_mean`.
    """

    _log_mu = cached_property(lambda d: d.link.log_mean)
    _mu = cached_property(lambda d: exp(d.xp, d._log_mu))

    @property
    def score(self):
        return self._first if self._is_log else self._first * self.link.slope

    @property
    def observed(self):
        if self._is_log:
            return -self._second
        return -self._second * self.link.slope**2 - self._first * self.link.bend

    @property
    def expected(self):
        return self._mean if self._is_log else self._mean * self.link.slope**2

    #: Whether eta is log mu, by which nothing is multiplied.
    _is_log = property(lambda d: isinstance(d.link, Log))


class HeldMean(PositiveMean):
    """Of a mean that is held constant beyond what its square can be said of, log mu with it.

    `_past` is how far beyond log mu is, along which log f is to fall.
    """

    _most = property(lambda d: d.xp.largest_log(d.eta))
    _log_mu = cached_property(lambda d: d.xp.minimum(d.link.log_mean, d._most))
    _past = property(lambda d: d.xp.maximum(d.link.log_mean - d._most, 0.0))
