"""The Tweedie family of nonnegative numbers, some of which are 0: compound Poisson and gamma."""

# ruff: noqa: D102 - what each property of a density is, `Density` says once.

from functools import cached_property
from numbers import Real

import numpy as np
from scipy.special import gammainc, gammaln

from sklmm.families.base import Family, Response, numeric
from sklmm.families.density import PositiveMean
from sklmm.families.links import Log
from sklmm.families.poisson import poisson
from sklmm.families.rising import Rest
from sklmm.families.special import LOG_2PI, NUMPY, exp, less_exp, stirling

#: Terms of the series; how many SDs of their weights are to be within the first ones; and where
#: that is more than these, the steps between terms in SDs, and the place of the largest.
_TERMS = 64
_REACH = 9.0
_STEP = 0.4
_PLACE = 24
#: In a distribution function: the SDs about their mean that numbers of jumps are within, the steps
#: between them in SDs, the share of those that do not count, and that of the rows that go on which
#: is worth another look at which these are.
_SPREAD = 6.0
_WIDE = 0.6
_NONE = 1e-9
_MANY = 0.9
#: Numbers of jumps from which a difference of logarithms has lost its digits.
_LARGE_MEAN, _TINY = 1e6, np.finfo(float).tiny
#: The logarithm of what terms weigh that are none.
_NOTHING = -1e30
#: What the power is away from 1 and 2 at least.
_LEAST = 1e-6


class Jumps:
    """The series sum_j W_j of Dunn & Smyth, j = 1, 2, .. the number of jumps that make up y > 0.

    With r = power - 1 and q = 2 - power, alpha = q / r, the shape of a jump, and rise = 1 / r,

        log W_j = rise (j (1 + log j0 - log j) - j0) - log(j Gamma(j) Gamma(j alpha)),

    the gamma functions less Stirling's formula. The largest is about j0, with an SD of the root of
    j0 / rise. The terms are those from 1 on, or where j0 is large as many about it; at steps of
    more than one where the sum is an integral to the last digits.

    It does not depend on the predictor, and is in float64 for any, as rise j0 may be thousands.
    """

    def __init__(self, xp, log_y, dispersion, r, q):
        log_y, dispersion, r, q = map(xp.double, (log_y, dispersion, r, q))
        self.xp = xp
        self.log_j0 = q * log_y - xp.log(dispersion * q)
        self._j0 = exp(xp, self.log_j0)
        #: The derivative of log j0 in the power, and that one's.
        self.turn, self.bend_of_turn = 1 / q - log_y, 1 / q**2
        self.rise, self.alpha = 1 / r, q / r

    def averages(self, order, kind):
        """Log of the sum, and averages by the weights W_j (see `_terms`), in kind's precision."""
        xp, j0, first, step = self.xp, self._j0, None, 1.0
        wanted = j0 + _REACH * (j0 / self.rise) ** 0.5 + 4
        n_terms = xp.up_to(wanted, _TERMS + 1)
        if n_terms > _TERMS:
            large, n_terms = wanted > _TERMS, _TERMS
            step = xp.where(large, xp.maximum(_STEP * (j0 / self.rise) ** 0.5, 1.0), 1.0)
            # At steps of one they are whole numbers.
            middle = xp.where(step > 1, j0, xp.floor(j0))
            first = xp.where(large, middle - _PLACE * step, 1.0)
        total, *parts = self._summed(order, n_terms, first, step)
        return [xp.same_kind(part, kind) for part in (total - self.rise * j0, *self._told(*parts))]

    def _summed(self, order, n_terms, first, step):
        xp, highest, sums = self.xp, None, None
        for begin in range(0, n_terms, xp.at_once):
            j = begin + xp.reshape(xp.counted(xp.at_once, self.log_j0), (-1, 1, 1))
            if first is not None:
                at = first + step * (j - 1)
                j = xp.maximum(at, 0.5)
            log_w, parts = self._terms(j, order)
            if first is not None:
                log_w = xp.where(at > 0.5, log_w, _NOTHING)
            top = xp.max(log_w, axis=0)
            new = top if highest is None else xp.maximum(highest, top)
            w = xp.exp(log_w - new)
            more = [xp.sum(w, axis=0)] + [xp.sum(w * part, axis=0) for part in parts]
            if sums is not None:
                fall = xp.exp(highest - new)
                more = [fall * a + b for a, b in zip(sums, more, strict=True)]
            highest, sums = new, more
        return [highest + xp.log(step * sums[0])] + [part / sums[0] for part in sums[1:]]

    def _terms(self, j, order):
        """log W_j but for rise j0, and what is averaged by `order`.

        With d = j - j0 and T the derivative of log W_j in the power, of order 1 j and what T has
        besides a multiple of it; of order 2 d, T, the derivative of T, d^2, d T and T^2.
        """
        xp, rise, alpha = self.xp, self.rise, self.alpha
        # What is of j alone comes first: of the first terms it is a number each.
        log_j = xp.log(j)
        jumps, shape = Rest(xp, j, log_j), Rest(xp, j * alpha, log_j + xp.log(alpha))
        height = j * (1 - log_j)
        own = rise * height - (log_j + jumps.level + shape.level + LOG_2PI)
        log_w = (rise * j) * self.log_j0 + own
        if order == 0:
            return log_w, []
        low, turned = shape.slope - 0.5, rise**2 / alpha
        besides = low * turned - rise**2 * height
        if order == 1:
            return log_w, [j, besides]
        j0, turn = self._j0, self.turn
        d, T = j - j0, self._turned(j, besides)
        bent = 2 * rise**3 * (height + j * self.log_j0 - j0) - 2 * rise**2 * turn * d
        bent = bent + rise * (d * self.bend_of_turn - j0 * turn**2)
        bent = bent - ((shape.bend + 0.5) * turned**2 + 2 * low * rise * turned)
        return log_w, [d, T, bent, d * d, d * T, T * T]

    def _turned(self, j, besides):
        """T."""
        rise, turn, j0 = self.rise, self.turn, self._j0
        return j * (rise * turn - rise**2 * self.log_j0) + besides + rise * j0 * (rise - turn)

    def _told(self, *parts):
        """The averages of d and T of order 1, which are linear in j."""
        return (parts[0] - self._j0, self._turned(*parts)) if len(parts) == 2 else parts


def _log_poisson(count, mean):
    """Log P(N = count), count >= 1, of large means by the deviance, which keeps its digits."""
    if mean.max(initial=0.0) < _LARGE_MEAN:
        return count * np.log(np.maximum(mean, _TINY)) - mean - gammaln(count + 1)
    deviance = count * less_exp(NUMPY, np.log1p((mean - count) / count))
    return deviance - 0.5 * (LOG_2PI + np.log(count)) - stirling(NUMPY, count)


class TweedieDensity(PositiveMean):
    """Var[y] = dispersion mu^power.

    `_up` = y mu^(1 - power) / dispersion and `_down` = mu^(2 - power) / dispersion. `_unit`, c, is
    what they are at mu = y, and log f is -c times the deviance `_gap` and the series of `Jumps`.
    """

    _some = property(lambda d: d.y > 0)
    _q = cached_property(lambda d: d.xp.maximum(2 - d.power, _LEAST))
    _r = cached_property(lambda d: d.xp.maximum(d.power - 1, _LEAST))
    _log_y = cached_property(lambda d: d.xp.log(d.xp.where(d._some, d.y, 1.0)))
    _log_unit = cached_property(lambda d: d._q * d._log_y - d.xp.log(d.dispersion))
    _unit = cached_property(lambda d: exp(d.xp, d._log_unit))
    _log_ratio = property(lambda d: d._log_mu - d._log_y)
    #: The logarithms of mu^(2 - power) and y mu^(1 - power) over what they are at mu = y.
    _a = property(lambda d: d._q * d._log_ratio)
    _b = property(lambda d: -d._r * d._log_ratio)
    _down = cached_property(lambda d: d._unit * exp(d.xp, d._a))
    _up = cached_property(lambda d: d.xp.where(d._some, d._unit * exp(d.xp, d._b), 0.0))
    _first = cached_property(lambda d: d._up - d._down)
    _second = property(lambda d: -(d._r * d._up + d._q * d._down))
    _mean = property(lambda d: d._down)
    quick_score = property(lambda d: d.score)

    @property
    def observed_slope(self):
        bend = self._q**2 * self._down - self._r**2 * self._up
        return bend if isinstance(self.link, Log) else None

    @cached_property
    def _jumps(self):
        return Jumps(self.xp, self._log_y, self.dispersion, self._r, self._q)

    _gap = cached_property(lambda d: -(less_exp(d.xp, d._a) / d._q + less_exp(d.xp, d._b) / d._r))

    @property
    def value(self):
        (total,) = self._jumps.averages(0, self.eta)
        some = total - self._log_y - self._unit * self._gap
        return self.xp.where(self._some, some, -self._down / self._q)

    @property
    def value_and_score(self):
        # With two exponentials a draw, where `value` takes more so that means near y cancel.
        (total,) = self._jumps.averages(0, self.eta)
        own = self.xp.where(self._some, total - self._log_y + self._unit / (self._q * self._r), 0.0)
        return own - self._down / self._q - self._up / self._r, self.score

    @cached_property
    def _gaps(self):
        """The derivatives of c times the deviance in the power, first and second."""
        xp, a, b, q, r, log_y = self.xp, self._a, self._b, self._q, self._r, self._log_y
        up, down = exp(xp, a), exp(xp, b)
        first_a, first_b = up * less_exp(xp, -a), down * less_exp(xp, -b)
        first = first_a / q**2 - first_b / r**2
        second = (a**2 * up + 2 * first_a) / q**3 + (b**2 * down + 2 * first_b) / r**3
        gap = self._gap
        return (
            self._unit * (first - log_y * gap),
            self._unit * (second - 2 * log_y * first + log_y**2 * gap),
        )

    def _changes(self, first):
        """The derivatives in log dispersion and the power of rows above 0, from averages."""
        away, T = first
        return self._unit * self._gap - away / self._r, T - self._gaps[0]

    @property
    def slopes(self):
        xp, q, down = self.xp, self._q, self._down
        by_dispersion, by_power = self._changes(self._jumps.averages(1, self.eta)[1:])
        none = down / q * (self._log_mu - 1 / q)
        return {
            "dispersion": xp.where(self._some, by_dispersion, down / q),
            "power": q * self._r * xp.where(self._some, by_power, none),
        }

    @property
    def second(self):
        xp, q, r, down, M = self.xp, self._q, self._r, self._down, self._log_mu
        some, c = self._some, self._unit
        _, d, T, bent, dd, dT, TT = self._jumps.averages(2, self.eta)
        rise, j0 = 1 / r, c / q
        _, by_power = self._changes((d, T))
        # Derivatives twice in log dispersion, in both, and twice in the power.
        twice = rise**2 * (dd - d**2) - rise * j0 - c * self._gap
        both = self._gaps[0] + rise**2 * d - rise * (dT - d * T - j0 * (1 / q - self._log_y))
        power = bent + (TT - T**2) - self._gaps[1]
        none = down / q * (M - 1 / q)
        twice = xp.where(some, twice, -down / q)
        both = xp.where(some, both, -none)
        power = xp.where(some, power, -down / q * (M**2 - 2 * M / q + 2 / q**2))
        first = xp.where(some, by_power, none)
        # The power's logit is that of r.
        k = q * r
        in_eta = {
            "dispersion": self._first * self.link.slope,
            "power": k * M * self._first * self.link.slope,
        }
        return in_eta, {
            ("dispersion", "dispersion"): -twice,
            ("dispersion", "power"): -k * both,
            ("power", "power"): -(k**2 * power + k * (q - r) * first),
        }


class Tweedie(Family):
    """Nonnegative numbers with zeros (claims, rainfall): E[y] = mu, Var[y] = dispersion mu^power.

    1 < power < 2: y is the sum of a Poisson number of gamma variables, and 0 where there are none.
    With glmmTMB's ``tweedie`` ``sigma()`` is the dispersion, and ``family_params()`` the power.

    Parameters
    ----------
    link : {"log", "sqrt", "identity"}, default="log"
        log mu = eta, mu = eta^2, or mu = eta where that is positive.
    dispersion : float, optional
        Pins the dispersion instead of estimating it.
    power : float, optional
        Pins the power, between 1 and 2, instead of estimating it.

    References
    ----------
    Dunn & Smyth (2005), "Series evaluation of Tweedie exponential dispersion model densities",
    Statistics and Computing 15, 267-280.

    Examples
    --------
    >>> from sklmm.families import Tweedie
    >>> float(Tweedie().variance(0.0, {"dispersion": 1.5, "power": 1.2}))
    1.5
    """

    name = "tweedie"
    density = TweedieDensity
    scalars = ("dispersion", "power")
    dispersion_parameter = "dispersion"
    links = ("log", "sqrt", "identity")
    positive = True
    support = (0.0, np.inf)
    zeros = "mixture"

    def __init__(self, link="log", dispersion=None, power=None):
        self.link = link
        self.dispersion = dispersion
        self.power = power

    @property
    def separable(self):
        """By the link, as the others' means reach 0 at a finite eta."""
        return self.link == "log"

    def check(self):
        """Raise ValueError for parameters that make no family."""
        super().check()
        if isinstance(self.power, Real) and not 1 < self.power < 2:
            raise self._error(
                f"power={self.power!r} must be between 1 and 2, or None to estimate it: 1 is "
                "'poisson' and 2 is 'gamma'."
            )

    def parameters(self, n_classes=None):
        """The dispersion, positive, and the power between 1 and 2, or pinned numbers."""
        own = super().parameters(n_classes)
        return own | ({"power": "one_to_two"} if self.power is None else {})

    def bind(self, y, weights=None):
        """The `Response` in y, nonnegative numbers."""
        y, weights = numeric(self, y, weights)
        self._require(y, y >= 0, "0 or positive", "drop the row, or use 'gaussian'.")
        return Response(self, y, weights)

    def variance(self, eta, params):
        """dispersion mu^power."""
        return params["dispersion"] * self._mu(eta) ** params["power"]

    def sample(self, eta, params, rng):
        """Sums of gamma variables."""
        rate, shape, scale = self._jumps(eta, params)
        return rng.gamma(poisson(rate, rng) * shape) * scale

    def _cdf(self, y, eta, params):
        """The sum over numbers of jumps: where they are many, over some of them."""
        rate, shape, scale = self._jumps(eta, params)
        ratio = y / np.maximum(scale, _TINY)
        rate, ratio, shape = np.broadcast_arrays(rate, ratio, shape)
        sd = np.sqrt(rate)
        # Of jumps that are much alike a sum is nearly a step in their number.
        step = np.maximum(np.floor(_WIDE * sd / np.sqrt(np.maximum(shape, 1.0))), 1.0)
        first = np.maximum(np.ceil(rate - _SPREAD * sd), 1.0)
        found = np.exp(-rate).ravel()
        weight, left = found.copy(), np.arange(rate.size)
        parts = [part.ravel() for part in (first, step, rate, shape, ratio)]
        while len(left):
            jumps, step, mean, own, at = parts
            share = step * np.exp(_log_poisson(jumps, mean))
            weight[left] += share
            found[left] += share * gammainc(jumps * own, at)
            parts[0] = jumps + step
            on = (share > _NONE) | (jumps < mean)
            # A rate so large that floats have no next number is one number of jumps.
            on &= parts[0] > jumps
            # Few that are at their end are left in the others' company.
            if np.count_nonzero(on) < _MANY * len(on):
                left, parts = left[on], [part[on] for part in parts]
        # That of the mixture of these numbers of jumps alone.
        return (found / weight).reshape(rate.shape)

    def _jumps(self, eta, params):
        """Number of jumps on average, and the shape and scale of each."""
        mu, phi, power = self._mu(eta), params["dispersion"], params["power"]
        rate = mu ** (2 - power) / (phi * (2 - power))
        return rate, (2 - power) / (power - 1), phi * (power - 1) * mu ** (power - 1)
