"""A family with more zeros than its own: a mixture with a point at 0, or a hurdle before it.

With pi the probability `zero`, ell = log f(y) and tau the chance that a zero that was seen is of
the point, expit(logit pi - ell),

    log p(0) = log(pi + (1 - pi) f(0)),    log p(y) = log(1 - pi) + ell.

Slopes of log p in what f depends on are (1 - tau) times those of ell, and the second derivatives

    (1 - tau) H + tau (1 - tau) g g^T,

g and H those of ell. Of a hurdle f has no zeros, and all that were seen are the point's: tau = 1.
"""

# ruff: noqa: D102 - what each property of a density is, `Density` says once.

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from sklmm.families.base import Family
from sklmm.families.density import Density
from sklmm.families.special import NUMPY


@dataclass(frozen=True)
class Inflated:
    """Makes the densities of a family with a point at 0 from those of another, `base`.

    Of a `hurdle` the other has no zeros: `stand_in` is a number of its own that takes their place
    where only others count.
    """

    base: type
    hurdle: bool
    stand_in: float = 1.0

    @property
    def scattered(self):
        """Of a mixture: its zeros are of either part."""
        return self.base.scattered or not self.hurdle

    @property
    def convex_links(self):
        """Those of the other; a mixture is not concave, and observes all the same."""
        return self.base.convex_links

    @property
    def second(self):
        """None where the other's second derivatives in its parameters are not known."""
        known = self.base.second is not None or self.base.slopes is Density.slopes
        return True if known else None

    def __call__(self, xp, y, eta, parameters, link):
        """The density in some rows."""
        return ZeroInflatedDensity(self, xp, y, eta, parameters, link)


class ZeroInflatedDensity(Density):
    """`made` is an `Inflated`; the parameter `zero` is pi.

    What is asked of zeros alone is worked out in their rows, but by TensorFlow, whose compiled
    steps do not know how many they are.
    """

    def __init__(self, made, xp, y, eta, parameters, link):
        own = {"zero", "unconstrained"}
        others = {name: value for name, value in parameters.items() if name not in own}
        super().__init__(xp, y, eta, {"zero": parameters["zero"]}, link)
        self.unconstrained = parameters.get("unconstrained", {})
        self._hurdle, self._none = made.hurdle, y == 0
        self._of = lambda y: made.base(xp, y, eta, others, link)
        self._own = self._of(xp.where(self._none, made.stand_in, y) if made.hurdle else y)

    @cached_property
    def _log_odds(self):
        if "zero" in self.unconstrained:
            return self.unconstrained["zero"]
        return self.xp.log(self.zero) - self._log_rest

    @cached_property
    def _log_rest(self):
        """log(1 - pi)."""
        if "zero" not in self.unconstrained:
            return self.xp.log1p(-self.zero)
        xp, odds = self.xp, self._log_odds
        return -(xp.maximum(odds, 0.0) + xp.log1p(xp.exp(-xp.abs(odds))))

    _rows = cached_property(lambda d: np.flatnonzero(d._none))

    def _zeros(self, part):
        """The rows of zeros of a part [n, C], [1, C] or a number; all of them by TensorFlow."""
        if self.xp is not NUMPY or np.ndim(part) == 0 or len(part) == 1:
            return part
        return np.take(part, self._rows, axis=0)

    def _changed(self, part, change):
        """A part that broadcasts to [n, C], its rows of zeros changed: change(part there)."""
        if self.xp is not NUMPY:
            return self.xp.where(self._none, change(part), part)
        out = np.array(np.broadcast_to(part, self.eta.shape))
        out[self._rows] = change(self._zeros(out))
        return out

    _both = cached_property(lambda d: d._own.value_and_score)
    _score = cached_property(lambda d: d._own.score)

    @cached_property
    def _gap(self):
        """Log odds of the point, of a zero that was seen: logit pi - log f(0), in `_zeros`."""
        at = None if "_both" in self.__dict__ else self._own.at_zero(self._zeros)
        gap = self._zeros(self._log_odds) - (self._zeros(self._both[0]) if at is None else at)
        return gap if self.xp is NUMPY else self.xp.where(self._none, gap, 0 * gap)

    # Of a zero tau and 1 - tau.
    _share = cached_property(lambda d: 1.0 if d._hurdle else d.xp.expit(d._gap))
    _rest = cached_property(lambda d: 0.0 if d._hurdle else d.xp.expit(-d._gap))

    def _value_of(self, own):
        xp, rest = self.xp, self._log_rest
        if self._hurdle:
            odds = self._zeros(rest + self._log_odds)
            return self._changed(rest + own, lambda own: odds + 0 * own)
        more = xp.maximum(self._gap, 0.0) + xp.log1p(xp.exp(-xp.abs(self._gap)))
        return self._changed(rest + own, lambda own: own + more)

    def _score_of(self, own):
        """(1 - tau) times the other's score."""
        return self._changed(own, lambda own: self._rest * own)

    value = property(lambda d: d._value_of(d._own.value))
    score = property(lambda d: d._score_of(d._score))
    quick_score = property(lambda d: d._score_of(d._own.quick_score))
    value_and_score = property(lambda d: (d._value_of(d._both[0]), d._score_of(d._both[1])))

    @property
    def observed(self):
        return self._bent(self._own.observed, self._score, self._score)

    @property
    def expected(self):
        """By the mean of the squared score: f's own but for what zeros leave in doubt."""
        own = self._own.expected
        if self._hurdle:
            return (1 - self.zero) * own
        zero = self._of(0 * self.y)
        tau = self.xp.expit(self._log_odds - zero.value)
        return (1 - self.zero) * (own - self.xp.exp(zero.value) * tau * zero.score**2)

    @property
    def slopes(self):
        found = {name: self._score_of(part) for name, part in self._own.slopes.items()}
        return found | {"zero": self._changed(-self.zero, lambda own: self._share + own)}

    @property
    def second(self):
        if self._own.second is None and self._own.slopes:
            return None
        own = self._own.second or ({}, {})
        slopes, score = self._own.slopes, self._score
        in_eta, inner = self.second_in(("zero",))
        in_eta |= {name: self._bent(part, score, slopes[name]) for name, part in own[0].items()}
        inner |= {(a, b): self._bent(part, slopes[a], slopes[b]) for (a, b), part in own[1].items()}
        inner |= {(name, "zero"): self._mixed(slope) for name, slope in slopes.items()}
        return in_eta, inner

    _doubt = cached_property(lambda d: d._share * d._rest)

    def _mixed(self, slope):
        """tau (1 - tau) times a derivative of log f."""
        doubt = self._doubt * self._zeros(slope)
        return self._changed(0 * self.y, lambda own: doubt + own)

    def _bent(self, part, one, other):
        """Less the second derivative, from log f's own and the first ones."""
        moved = self._doubt * self._zeros(one) * self._zeros(other)
        return self._changed(part, lambda own: self._rest * own - moved)

    def second_in(self, names):
        if set(names) != {"zero"}:
            return self.second
        known = self.zero * (1 - self.zero)
        pair = self._changed(known, lambda own: own - self._doubt)
        return {"zero": self._mixed(self._score)}, {("zero", "zero"): pair}

    @property
    def information(self):
        # Where it is known which zeros are the point's.
        return {**self._own.information, "zero": self.zero * (1 - self.zero)}


class ZeroInflated(Family):
    """Another family's response with a point at 0, of probability `zero`: E[y] = (1 - zero) mu.

    Of the other family's own zeros it makes a mixture; of one that has none (truncated counts,
    positive numbers) it makes a hurdle, where `zero` is the probability of 0. An estimator makes it
    of its `family` by its parameter `zero_inflation`.

    Parameters
    ----------
    family : Family
        Of counts or of positive numbers.

    References
    ----------
    Lambert (1992), "Zero-inflated Poisson regression", Technometrics 34, 1-14.
    Mullahy (1986), "Specification and testing of some modified count data models", J. Econometrics
    33, 341-365.

    Examples
    --------
    >>> from sklmm.families import Poisson, ZeroInflated
    >>> float(ZeroInflated(Poisson()).mean(0.0, {"zero": 0.25}))
    0.75
    """

    def __init__(self, family):
        self.family = family

    name = property(lambda self: f"{self._kind} {self.family.name}")
    _kind = property(lambda self: "hurdle of" if self.hurdle else "zero-inflated")
    link = property(lambda self: self.family.link)
    row_data = property(lambda self: self.family.row_data)
    dispersion_parameter = property(lambda self: self.family.dispersion_parameter)
    unaveraged = property(lambda self: self.family.unaveraged)
    eta_power = property(lambda self: self.family.eta_power)
    parameter_powers = property(lambda self: self.family.parameter_powers)
    hurdle = property(lambda self: self.family.zeros == "hurdle")
    support = property(lambda self: (0.0, self.family.support[1]))

    @property
    def density(self):
        """That of the mixture or hurdle."""
        base = self.family.beside_zeros()
        return Inflated(base.density, self.hurdle, float(base.inner))

    def check(self):
        """Raise ValueError for a family that has no zeros to be more of."""
        self.family.check()
        if self.family.zeros is None:
            raise ValueError(
                f"zero_inflation is for counts and positive numbers, not family="
                f"{self.family.name!r}: use zero_inflation=None."
            )

    def parameters(self, n_classes=None):
        """The family's, and `zero`."""
        return self.family.parameters(n_classes) | {"zero": "unit"}

    @property
    def nested(self):
        """Those within the other family with a point at 0; of a mixture without it, too."""
        own = self.family.nested
        out = {f"{self._kind} {name}": ends for name, ends in own.items()}
        return out if self.hurdle else out | {name: (*e, "zero") for name, e in own.items()}

    def bind(self, y, weights=None):
        """The `Response` in y, zeros among it."""
        base = self.family.beside_zeros()
        if not self.hurdle:
            return replace(base.bind(y, weights), family=self)
        y = np.asarray(y)
        none = y == 0
        # Zeros are none of the family's numbers: others stand for them while it looks.
        inner = base.bind(np.where(none, base.inner, y), weights)
        none = none.reshape(len(inner.y))
        masses = inner.masses + float(inner.weights @ none)
        return replace(inner, family=self, y=np.where(none, 0.0, inner.y), masses=masses)

    def constants(self, y, data=None):
        """Those of the other family, which has none at 0."""
        return self.family.beside_zeros().constants(y, data)

    def mean(self, eta, params):
        """(1 - zero) mu."""
        return (1 - params["zero"]) * self.family.mean(eta, params)

    def variance(self, eta, params):
        """That of the mixture."""
        zero, mu = params["zero"], self.family.mean(eta, params)
        return (1 - zero) * (self.family.variance(eta, params) + zero * mu**2)

    def latent_variance(self, params):
        """None: there is none."""
        return None

    def sample(self, eta, params, rng):
        """Draws of y given eta."""
        some = np.asarray(self.family.sample(eta, params, rng), float)
        return np.where(rng.random(np.shape(eta)) < params["zero"], 0.0, some)

    def steps(self, params):
        """The other family's."""
        return self.family.steps(params)

    def located(self, y, params):
        """The other family's, of which F(y | eta) is a multiple."""
        return self.family.located(y, params)

    def cdf(self, y, eta, params, below=False):
        """P(Y <= y | eta), or P(Y < y) with `below`: the zeros, and the other family's."""
        zero, own = params["zero"], self.family.cdf(y, eta, params, below)
        none = np.less_equal(y, 0.0) if below else np.less(y, 0.0)
        return np.where(none, 0.0, zero + (1 - zero) * own)
