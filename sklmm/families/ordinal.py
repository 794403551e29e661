"""The family of ordered classes, by cutpoints of a latent variable, with a density a link."""

# ruff: noqa: D102 - what each property of a density is, `Density` says once.

import math
from functools import cached_property
from itertools import accumulate
from numbers import Real

import numpy as np
import pandas as pd

from sklmm.families.base import Family, Response, row_weights
from sklmm.families.classes import LATENT_VARIANCES, has_order, labels, shown
from sklmm.families.density import Density
from sklmm.families.links import Cloglog, inverse_link
from sklmm.families.special import LOG_2PI, log_one_less_exp

#: Stands for infinite cutpoints: no predictor comes near, and float32 can hold the square.
_END = 1e15
#: Predictor of a complementary log-log link from which on its probability is 1 to the last digit.
_CERTAIN = 30.0
#: Least gap between the logarithms of two cdfs.
_LEAST_GAP = 1e-37


class OrdinalDensity(Density):
    """P(y <= c) = F(theta_c - eta): y lies between a = theta_y - eta and b = theta_{y-1} - eta.

    theta_1 = 0 and spacing_k = theta_{k+1} - theta_k. All but cauchit's are log-concave, and what
    is observed serves for the expectation, too.

    With P = F(a) - F(b) a link has `_upper_slope`, F'(a) / P, and `_lower_slope`, F'(b) / P.
    """

    score = cached_property(lambda d: d._lower_slope - d._upper_slope)
    _both_bend = property(lambda d: d._upper_slope * d._lower_slope)
    expected = property(lambda d: d.observed)

    def __init__(self, xp, y, eta, parameters, link):
        super().__init__(xp, y, eta, {}, link)
        self._spacings = {
            name: v if len(v.shape) > 1 else xp.reshape(v, (1, -1))
            for name, v in parameters.items()
        }
        parts = list(self._spacings.values())
        self._zero = 0 * parts[0]
        theta = list(accumulate([self._zero, *parts]))
        self._indicators = xp.one_hot(y[:, 0], len(parts) + 2)
        self._a = self._by_row([*theta, self._zero + _END]) - eta
        self._b = self._by_row([self._zero - _END, *theta]) - eta

    @cached_property
    def _gap(self):
        """a - b, a cutpoint's spacing."""
        end = self._zero + _END
        return self._by_row([end, *self._spacings.values(), end])

    def _by_row(self, parts):
        """The rows' own entries [n, C] of a table by class.

        A product with the indicators of the classes, which XLA, unlike a gather, does not fuse with
        the making of the table, again for every row and draw. The table may be each row's own, its
        entries [n, C].
        """
        if all(part.shape[0] == 1 for part in parts):
            return self.xp.matmul(self._indicators, self.xp.concat(parts, axis=0))
        columns = [self._indicators[:, k : k + 1] for k in range(len(parts))]
        return sum(own * part for own, part in zip(columns, parts, strict=True))

    @property
    def slopes(self):
        # With the k-th spacing the cutpoints from the k-th on move.
        xp, y, score = self.xp, self.y, self.score
        return {
            name: spacing * xp.where(y > k, -score, xp.where(y == k, self._upper_slope, 0.0))
            for k, (name, spacing) in enumerate(self._spacings.items(), 1)
        }

    @property
    def second(self):
        """A cutpoint that moves both ends of a row's interval is a change of eta.

        One that moves the upper end alone has less the derivatives of `_upper_slope`: `_upper_bend`
        along both ends, and `_both_bend` more in a.
        """
        y, observed, upper, slopes = self.y, self.observed, self._upper_bend, self.slopes
        in_eta, inner, before = {}, {}, {}
        for k, (name, spacing) in enumerate(self._spacings.items(), 1):
            own = (y == k).astype(observed.dtype)
            moved = spacing * ((y > k).astype(observed.dtype) * observed + own * upper)
            in_eta[name] = -moved
            inner |= {(other, name): size * moved for other, size in before.items()}
            curved = moved + spacing * own * self._both_bend
            inner[name, name] = spacing * curved - slopes[name]
            before[name] = spacing
        return in_eta, inner


class OrdinalLogit(OrdinalDensity):
    """F is the logistic cdf: F(a) - F(b) = F(a) F(-b) (1 - exp(b - a))."""

    _za = cached_property(lambda d: d.xp.exp(-d.xp.abs(d._a)))
    _zb = cached_property(lambda d: d.xp.exp(-d.xp.abs(d._b)))
    observed = property(lambda d: d._za / (1 + d._za) ** 2 + d._zb / (1 + d._zb) ** 2)

    @property
    def value(self):
        xp, za, zb = self.xp, self._za, self._zb
        widths = [log_one_less_exp(xp, -spacing) for spacing in self._spacings.values()]
        upper = xp.minimum(self._a, 0.0) - xp.maximum(self._b, 0.0)
        within = self._by_row([self._zero, *widths, self._zero])
        return upper - xp.log1p(za + zb + za * zb) + within

    @cached_property
    def score(self):
        xp, za, zb = self.xp, self._za, self._zb
        up, down = xp.where(self._b < 0, zb, 1.0), xp.where(self._a < 0, 1.0, za)
        return (up * (1 + za) - down * (1 + zb)) / ((1 + za) * (1 + zb))

    @cached_property
    def _upper_slope(self):
        xp, za = self.xp, self._za
        gaps = [1 / xp.expm1(spacing) for spacing in self._spacings.values()]
        beside = self._by_row([self._zero, *gaps, self._zero])
        return xp.where(self._a < 0, 1.0, za) / (1 + za) + beside

    _upper_bend = property(lambda d: d._za / (1 + d._za) ** 2)

    @property
    def _both_bend(self):
        gaps = [
            1 / (self.xp.expm1(spacing) * -self.xp.expm1(-spacing))
            for spacing in self._spacings.values()
        ]
        return self._by_row([self._zero, *gaps, self._zero])

    @property
    def value_and_score(self):
        """The score by `quick_score`."""
        return self.value, self.quick_score

    @property
    def quick_score(self):
        """F(a) + F(b) - 1."""
        return self.xp.expit(self._a) + self.xp.expit(self._b) - 1


class OrdinalProbit(OrdinalDensity):
    """F is the normal cdf, in whose left tail the logarithms keep their digits."""

    @cached_property
    def value(self):
        xp, a, b = self.xp, self._a, self._b
        mirrored = a + b > 0
        high, low = xp.where(mirrored, -b, a), xp.where(mirrored, -a, b)
        top = xp.log_ndtr(high)
        return top + log_one_less_exp(xp, -xp.maximum(top - xp.log_ndtr(low), _LEAST_GAP))

    def _density(self, x):
        return self.xp.exp(-0.5 * (x**2 + LOG_2PI) - self.value)

    _upper_slope = cached_property(lambda d: d._density(d._a))
    _lower_slope = cached_property(lambda d: d._density(d._b))
    observed = property(lambda d: d.score**2 + d._a * d._upper_slope - d._b * d._lower_slope)
    _upper_bend = property(lambda d: d._upper_slope * (d._a - d.score))


class OrdinalCloglog(OrdinalDensity):
    """F(q) = 1 - exp(-exp q): P = exp(-exp b) (1 - exp(-more)), more = exp a - exp b.

    The second factor is a success of the complementary log-log link at log(more).
    """

    _near, _far = property(lambda d: d._b), property(lambda d: d._a)
    _less = cached_property(lambda d: Cloglog(d.xp, d._near))
    _past = property(lambda d: -d._less.slope_zero)
    _wide = cached_property(lambda d: -d.xp.expm1(-d._gap))
    # Beyond a success is certain, and float32 has no rates of infinite cutpoints.
    _more = cached_property(
        lambda d: Cloglog(d.xp, d.xp.minimum(d._far + d.xp.log(d._wide), _CERTAIN))
    )
    value = property(lambda d: d._more.log_one + d._less.log_zero)
    score = cached_property(lambda d: d._past - d._more.slope_one)
    observed = property(lambda d: d._past - d._more.bend_one)
    _upper_slope = property(lambda d: d._more.slope_one / d._wide)
    _lower_slope = property(lambda d: d._past + d._more.slope_one * d._narrow)
    _upper_bend = property(lambda d: -d._more.bend_one / d._wide)

    @property
    def _narrow(self):
        """1 / (exp(a - b) - 1)."""
        return self.xp.exp(-self._gap) / self._wide


class OrdinalLoglog(OrdinalCloglog):
    """F(q) = exp(-exp(-q)): the complementary one of classes in the opposite order."""

    _near, _far = property(lambda d: -d._a), property(lambda d: -d._b)
    score = cached_property(lambda d: d._more.slope_one - d._past)
    _upper_slope = property(lambda d: OrdinalCloglog._lower_slope.fget(d))
    _lower_slope = property(lambda d: OrdinalCloglog._upper_slope.fget(d))
    _upper_bend = property(lambda d: d._past + d._more.bend_one * d._narrow)


class OrdinalCauchit(OrdinalDensity):
    """F(q) = 1 / 2 + arctan(q) / pi: P is the angle between (1, b) and (1, a), over pi.

    `expected` is the exact information, as log P is not concave.
    """

    _tall_a = cached_property(lambda d: 1 + d._a**2)
    _tall_b = cached_property(lambda d: 1 + d._b**2)
    _angle = cached_property(lambda d: d.xp.atan2(d._gap, 1 + d._a * d._b))
    value = property(lambda d: d.xp.log(d._angle) - math.log(math.pi))
    _upper_slope = cached_property(lambda d: 1 / (d._tall_a * d._angle))
    _lower_slope = cached_property(lambda d: 1 / (d._tall_b * d._angle))
    _upper_bend = property(lambda d: d._upper_slope * (2 * d._a / d._tall_a - d.score))

    @cached_property
    def score(self):
        return self._gap / self._tall_b * ((self._a + self._b) / self._tall_a) / self._angle

    @property
    def observed(self):
        up, down = self._a / self._tall_a, self._b / self._tall_b
        return self.score**2 + 2 * (up * self._upper_slope - down * self._lower_slope)

    @property
    def expected(self):
        first, n_classes = 0 * self.y, len(self._spacings) + 2
        classes = [self._of_class(first + k) for k in range(n_classes)]
        return sum(one.score**2 * one._angle for one in classes) / math.pi

    def _of_class(self, y):
        return type(self)(self.xp, y, self.eta, self._spacings, "cauchit")


#: The density of each link, and the links whose F are each other's from the right.
_DENSITIES = {
    "logit": OrdinalLogit,
    "probit": OrdinalProbit,
    "cloglog": OrdinalCloglog,
    "loglog": OrdinalLoglog,
    "cauchit": OrdinalCauchit,
}
_MIRRORED = {"cloglog": "loglog", "loglog": "cloglog"}


class Ordinal(Family):
    """Ordered classes by the cumulative model: P(y <= c) = F(theta_c - eta).

    The first cutpoint theta_1 is 0, as eta has an intercept; the parameters are the spacings,
    theta_{c+1} - theta_c > 0. Classes are numbers, or in the order of an ordered pandas
    categorical, without its unused categories.

    Parameters
    ----------
    link : {"logit", "probit", "cloglog", "loglog", "cauchit"}, default="logit"
        F, named as by ``clm`` of R's package ordinal: the logistic and the normal cdf;
        1 - exp(-exp q), which is proportional hazards; exp(-exp(-q)), the same of classes in the
        opposite order; and the Cauchy cdf, for outliers. (``clmm`` of ordinal 2022.11-16 has the
        names cloglog and loglog exchanged.) cauchit is not log-concave, and steps towards a mode
        take the expected information.

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
    classes = "ordered"
    links = tuple(_DENSITIES)
    separable = True
    support = (0.0, np.inf)

    def __init__(self, link="logit"):
        self.link = link

    def parameters(self, n_classes=None):
        """spacing_1 .. spacing_{K-2}."""
        if n_classes is None:
            raise self._error("n_classes must be given: its parameters depend on it.")
        return {f"spacing_{k}": "positive" for k in range(1, n_classes - 1)}

    @property
    def density(self):
        """By the link."""
        return _DENSITIES[self.link]

    def latent_variance(self, params):
        """That of the distribution whose cdf is F; None of the Cauchy, which has none."""
        return LATENT_VARIANCES.get(self.link)

    def bind(self, y, weights=None):
        """The `Response` in y, labels of at least three ordered classes."""
        found, classes, codes = labels(self, y)
        if len(classes) == 2:
            raise self._error(
                f"y must have at least three classes, not {len(classes)} ({shown(classes)}): use "
                "'bernoulli', as two classes need no order."
            )
        if not has_order(y):
            self._require_numbers(found, classes)
        return Response(self, codes, row_weights(weights, len(codes)), classes)

    def _require_numbers(self, found, classes):
        # NumPy lists times in nanoseconds as integers.
        numbers = [isinstance(label, Real) for label in pd.Series(classes).tolist()]
        if not all(numbers):
            row = int(np.argmax(~np.isin(found, classes[numbers])))
            label = pd.Series(found[row : row + 1]).tolist()[0]
            raise self._error(
                f"y must be numbers or an ordered categorical, which tell the order of the "
                f"classes, not {label!r} (row {row}): give pd.Categorical(y, categories=[...], "
                "ordered=True), the categories from the lowest to the highest, or their codes "
                "0, 1, ... by OrdinalEncoder(categories=[[...]])."
            )

    def probabilities(self, eta, params):
        """Probabilities of the classes along a new last axis."""
        # A class at a time: an axis of few numbers last is slow to work along.
        gaps = [cutpoint - np.asarray(eta, float) for cutpoint in self.cutpoints(params)]
        below = [inverse_link(self.link, gap) for gap in gaps]
        mirrored = _MIRRORED.get(self.link, self.link)
        above = [inverse_link(mirrored, -gap) for gap in gaps]
        middle = [
            # In the right tail the difference of the cdfs would cancel.
            np.where(gaps[k - 1] + gaps[k] > 0, above[k - 1] - above[k], below[k] - below[k - 1])
            for k in range(1, len(gaps))
        ]
        return np.stack([below[0], *middle, above[-1]], axis=-1)

    def cutpoints(self, params):
        """theta_1 = 0, theta_2, ..., each a number, or an array where the parameters are."""
        return list(accumulate(self._spacings(params), initial=0.0))

    def _spacings(self, params):
        return [v for name, v in params.items() if name.startswith("spacing_")]

    def mean(self, eta, params, scores=None):
        """Mean of the classes' `scores`, by default 0..K-1."""
        p = self.probabilities(eta, params)
        return p @ _scores(scores, p)

    def variance(self, eta, params, scores=None):
        """Variance of the classes' `scores`, by default 0..K-1."""
        p = self.probabilities(eta, params)
        scores = _scores(scores, p)
        return np.sum(p * (scores - (p @ scores)[..., None]) ** 2, axis=-1)

    def _cdf(self, y, eta, params):
        out = np.zeros(np.broadcast_shapes(np.shape(y), np.shape(eta)))
        for code, cutpoint in enumerate([*self.cutpoints(params), np.inf]):
            out = np.where(y == code, inverse_link(self.link, cutpoint - eta), out)
        return np.where(y < 0, 0.0, np.where(y >= code, 1.0, out))

    def sample(self, eta, params, rng):
        """Codes 0..K-1; the parameters are numbers, or have a value for each of eta's columns."""
        latent = eta + _noise(self.link, np.shape(eta), rng)
        above = [latent > cutpoint for cutpoint in self.cutpoints(params)]
        return np.sum(above, axis=0, dtype=float)


def _noise(link, shape, rng):
    """Draws of the distribution whose cdf is F."""
    if link == "cauchit":
        return rng.standard_cauchy(shape)
    if link in _MIRRORED:
        return rng.gumbel(size=shape) * (1 if link == "loglog" else -1)
    return (rng.logistic if link == "logit" else rng.normal)(size=shape)


def _scores(scores, p):
    return np.arange(p.shape[-1], dtype=float) if scores is None else np.asarray(scores, float)
