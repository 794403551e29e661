"""A family of whose parameters some have linear predictors of their own, beside that of its eta.

A row then has d predictors, eta itself and each of those parameters on its unconstrained scale: the
logarithm of a positive one, the logit of one in (0, 1).
"""

# ruff: noqa: D102 - what each property of a density is, `Density` says once.

from dataclasses import dataclass, replace

import numpy as np

from sklmm.families.base import Family
from sklmm.families.constraints import CONSTRAINTS
from sklmm.families.density import Density
from sklmm.families.special import exp


@dataclass(frozen=True)
class Predicted:
    """Makes the densities of d predictors a row from those of another, `base`, of one.

    `parameters` are the (name, constraint) of the others, in the predictors' order.
    """

    base: type
    parameters: tuple

    #: Laplace's log |C| has the observed curvature, of which the predictors' blocks are made.
    convex_links = ()
    scattered = True

    @property
    def second(self):
        """Whether slopes keep their digits in float32, as the other's says."""
        return self.base.second

    def __call__(self, xp, y, eta, parameters, link):
        """The density in some rows."""
        return PredictedDensity(self, xp, y, eta, parameters, link)


class PredictedDensity(Density):
    """`made` is a `Predicted`; eta [n * d, C], the predictors of a row adjacent."""

    def __init__(self, made, xp, y, eta, parameters, link):
        own = xp.reshape(eta, (xp.shape(y)[0], 1 + len(made.parameters), xp.shape(eta)[1]))
        of_eta = {name: own[:, c] for c, (name, _) in enumerate(made.parameters, 1)}
        values = {name: constrained(xp, kind, of_eta[name]) for name, kind in made.parameters}
        super().__init__(xp, y, eta, {}, link)
        self._names = tuple(of_eta)
        #: Where constrained values round, the densities read these.
        parameters = {**parameters, **values, "unconstrained": of_eta}
        self._base = made.base(xp, y, own[:, 0], parameters, link)

    value = property(lambda d: d._base.value)
    score = property(lambda d: d._beside(d._base.score))

    @property
    def slopes(self):
        found = self._base.slopes
        return {name: part for name, part in found.items() if name not in self._names}

    @property
    def value_and_score(self):
        value, score = self._base.value_and_score
        return value, self._beside(score)

    quick_score = property(lambda d: d._beside(d._base.quick_score))

    @property
    def expected(self):
        """Of a parameter a bound of it, `Density.information`, or else the squared slope."""
        known, slopes = self._base.information, None
        parts = []
        for name in self._names:
            if name not in known:
                slopes = slopes or self._base.slopes
                known = {**known, name: slopes[name] ** 2}
            parts.append(known[name])
        return self._interleaved([self._base.expected, *parts])

    @property
    def block(self):
        told = self._base.second_in(self._names)
        if told is None:
            return None
        in_eta, inner = told
        d = 1 + len(self._names)
        shape = self._base.eta.shape
        out = np.empty((shape[0], d, d, shape[1]), self.eta.dtype)
        out[:, 0, 0] = self._base.observed
        for a, name in enumerate(self._names, 1):
            out[:, 0, a] = out[:, a, 0] = in_eta[name]
            for b, other in enumerate(self._names[:a], 1):
                out[:, a, b] = out[:, b, a] = pair(inner, name, other)
            out[:, a, a] = inner[name, name]
        return out

    def _beside(self, score):
        slopes = self._base.slopes
        return self._interleaved([score, *(slopes[name] for name in self._names)])

    def _interleaved(self, parts):
        """[n * d, C] of one for each predictor, that broadcast to [n, C]."""
        nothing = 0 * self._base.eta
        return self.xp.reshape(
            self.xp.concat([(part + nothing)[:, None] for part in parts], axis=1),
            self.xp.shape(self.eta),
        )


def constrained(xp, kind, eta):
    """A parameter at its linear predictor."""
    if kind == "positive":
        return exp(xp, eta)
    return xp.expit(eta) if kind == "unit" else eta


def pair(inner, a, b):
    """Of derivatives by pairs of names those of two, in whatever order."""
    return inner[a, b] if (a, b) in inner else inner[b, a]


class PredictedFamily(Family):
    """Another family, of whose parameters some have predictors of their own in each row.

    An estimator makes it of its `family` where the terms of `zero_inflation` or `dispersion` have
    random effects.

    Parameters
    ----------
    family : Family
    names : tuple of str
        Those parameters, in the predictors' order.

    Examples
    --------
    >>> from sklmm.families import Poisson, ZeroInflated
    >>> from sklmm.families.predicted import PredictedFamily
    >>> family = PredictedFamily(ZeroInflated(Poisson()), ("zero",))
    >>> float(family.mean([[0.0, -1.0986123]], {})[0].round(3))
    0.75
    """

    def __init__(self, family, names):
        self.family = family
        self.names = names

    name = property(lambda self: self._named(self.family.name))
    link = property(lambda self: getattr(self.family, "link", "identity"))
    hurdle = property(lambda self: getattr(self.family, "hurdle", False))
    weights = property(lambda self: self.family.weights)
    support = property(lambda self: self.family.support)
    columns = property(lambda self: self.family.columns)
    open_ended = property(lambda self: self.family.open_ended)
    row_data = property(lambda self: self.family.row_data)
    dispersion_parameter = property(lambda self: self.family.dispersion_parameter)
    mean_is_eta = property(lambda self: self.family.mean_is_eta)
    scale_equivariant = property(lambda self: self.family.scale_equivariant)
    unaveraged = property(lambda self: self.family.unaveraged)
    eta_power = property(lambda self: self.family.eta_power)
    parameter_powers = property(lambda self: self.family.parameter_powers)
    density = property(lambda self: Predicted(self.family.density, tuple(self.kinds.items())))

    @property
    def kinds(self):
        """Constraints of those parameters by name."""
        kinds = self.family.parameters()
        return {name: kinds[name] for name in self.names}

    def check(self):
        """Raise ValueError for what makes no family."""
        self.family.check()

    @property
    def nested(self):
        """Those within the other family, with the same effects and without any."""
        own = self.family.nested
        same = {self._named(n): e for n, e in own.items() if not set(e) & set(self.names)}
        return own | same

    def _named(self, name):
        return f"{name} with random effects in {', '.join(self.names)}"

    def parameters(self, n_classes=None):
        """The family's without those that have predictors."""
        own = self.family.parameters(n_classes)
        return {name: kind for name, kind in own.items() if name not in self.names}

    def n_predictors(self, n_classes=None):
        """That of the mean, and one for each of `names`."""
        return 1 + len(self.names)

    def bind(self, y, weights=None):
        """The `Response` in y."""
        return replace(self.family.bind(y, weights), family=self)

    def encoded(self, y):
        """The numbers in which the engine has a y."""
        return self.family.encoded(y)

    def decoded(self, y):
        """The y of these numbers of the engine's."""
        return self.family.decoded(y)

    def constants(self, y, data=None):
        """What the log density of a row lacks of log f [n]."""
        return self.family.constants(y, data)

    def apart(self, eta, params):
        """Eta [n, ...] of the mean, and all parameters, from predictors [n, d, ...]."""
        return self.of_predictors(np.moveaxis(np.asarray(eta, float), 1, 0), params)

    def of_predictors(self, predictors, params):
        """The same of d arrays [n, ...] that broadcast, one of each predictor."""
        eta, *others = predictors
        values = {
            name: CONSTRAINTS[kind].constrain(own)
            for (name, kind), own in zip(self.kinds.items(), others, strict=True)
        }
        return eta, {**params, **values}

    def mean(self, eta, params):
        """E[y | eta] [n, ...] for predictors [n, d, ...]."""
        return self.family.mean(*self.apart(eta, params))

    def variance(self, eta, params):
        """Var[y | eta] [n, ...] for predictors [n, d, ...]."""
        return self.family.variance(*self.apart(eta, params))

    def latent_variance(self, params):
        """None: there is none."""
        return None

    def sample(self, eta, params, rng):
        """Draws of y [n, ...] for predictors [n, d, ...]."""
        return self.family.sample(*self.apart(eta, params), rng)

    def steps(self, params):
        """The other family's."""
        return self.family.steps(params)

    def cdf(self, y, eta, params, below=False):
        """P(Y <= y | eta) [n, ...] of y [n, ...], for predictors [n, d, ...]."""
        return self.family.cdf(y, *self.apart(eta, params), below)
