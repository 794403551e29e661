r"""The integral over tau of E_tau[r] on a path of densities, from draws at a few of them.

With Z(tau) the constant of pi_tau ~ exp(q + tau r), d log Z / dtau = E_tau[r], and so

    log Z(1) = log Z(0) + int_0^1 f(tau) dtau,    f = E_tau[r],    f' = Var_tau(r)

(thermodynamic integration; Gelman & Meng 1998, Stat. Sci. 13, 163-185). Each interval has nodes at
its ends and its middle, where there are two rules: Simpson's, of f alone, and that of f there and
of f' at the ends which is exact for polynomials of degree 5. Their distance is taken for the error
of either, and is much more than the second's where f is smooth. But f', a variance, is told less
well than f, whose noise the control variates know: of two halves of an interval Simpson's rule also
has its distance from that of the whole for an error. What of it is noise is known, and is not taken
for a bend. Intervals that are off are halved.
"""

from typing import NamedTuple

import numpy as np


class Total(NamedTuple):
    """The integral, its Monte Carlo standard error, and the rule's error."""

    value: float
    noise: float
    bias: float

    @property
    def error(self):
        """Both."""
        return float(np.hypot(self.noise, self.bias))


class Node:
    """Draws at one tau: r and variables of mean 0, by chains that are independent."""

    def __init__(self):
        self.rest, self.controls = [], []

    def told(self):
        """(f, f') [2] from all draws, and [C, 2] from those of all chains but one."""
        rest, controls = np.array(self.rest), np.array(self.controls).transpose(0, 2, 1)
        centre, scale = rest.mean(), controls.std(axis=(0, 1))
        # Of one size, those left out that do not vary.
        controls = controls[:, :, scale > 0] / scale[scale > 0]
        columns = np.concatenate(
            [np.ones((*rest.shape, 1)), rest[:, :, None] - centre, controls], axis=2
        )
        own = np.einsum("tci,tcj->cij", columns, columns)
        found = _moments(np.concatenate([own.sum(axis=0, keepdims=True), own.sum(axis=0) - own]))
        found[:, 0] += centre
        every, without = found[0], found[1:]
        # The jackknife takes away what fitting the control variates to few draws has of bias.
        every[0] += (len(without) - 1) * (every[0] - without[:, 0].mean())
        return every, without


def _moments(products):
    """Of 1, r and control variates, from their products [m, k, k]: f and f' [m, 2].

    The mean of r less what the control variates know of it, and the variance of r.
    """
    n = products[:, :1, 0]
    means = products[:, 0, 1:] / n
    about = products[:, 1:, 1:] - n[:, :, None] * means[:, :, None] * means[:, None]
    coef = np.linalg.pinv(about[:, 1:, 1:], hermitian=True) @ about[:, 1:, :1]
    f = means[:, 0] - np.einsum("mk,mk->m", means[:, 1:], coef[:, :, 0])
    return np.column_stack([f, about[:, 0, 0] / (n[:, 0] - 1)])


#: Of a unit interval, weights of (f, f') at its start, its middle and its end.
QUINTIC = np.array([[7 / 30, 1 / 60], [16 / 30, 0.0], [7 / 30, -1 / 60]])
SIMPSON = np.array([[1 / 6, 0.0], [4 / 6, 0.0], [1 / 6, 0.0]])
#: How much less the error of two halves is than their distance from the whole: of a smooth f by
#: Simpson's rule 15 times, of one with a bend at an end 3 times.
HALVED = 3
#: Noise of a smaller share of a distance than this is rounding's.
ROUNDING = 1e-9


class Integral:
    """Nodes by their tau, and the intervals that have one in their middle.

    `intervals` are their ends, with those of the interval that they are halves of, or None. To
    begin with it is `halved` where variances would be too noisy to tell whether to.
    """

    def __init__(self, halved=False):
        whole = 0.0, 1.0
        self.nodes = {}
        self.intervals = dict.fromkeys(_halves(*whole), whole) if halved else {whole: None}

    def add(self, tau, rest, controls):
        """Draws at tau: r [C], and variables of mean 0 [k, C]."""
        node = self.nodes.setdefault(tau, Node())
        node.rest.append(rest)
        node.controls.append(controls)

    def n_draws(self, tau):
        """Draws of each chain at tau."""
        return len(self.nodes[tau].rest)

    def missing(self):
        """The tau's of nodes that have no draws yet."""
        wanted = {tau for a, b in self.intervals for tau in (a, (a + b) / 2, b)}
        return sorted(wanted - self.nodes.keys())

    def halve(self):
        """Halve the interval that is furthest off."""
        told = self._told()
        a, b = worst = max(self.intervals, key=lambda ends: self._bend(told, ends))
        del self.intervals[worst]
        for half in _halves(a, b):
            self.intervals[half] = worst

    def total(self):
        """`Total`, and the noise of each node's part in it, by tau."""
        told = self._told()
        bias = np.sum([self._bend(told, ends) for ends in self.intervals])
        rules = [_sum(_over(ends, rule) for ends in self.intervals) for rule in (QUINTIC, SIMPSON)]
        noises = [_noises(told, weights) for weights in rules]
        quintic, simpson = map(_size, noises)
        chosen = 0 if quintic < np.hypot(simpson, bias) else 1
        # NumPy's numbers until here: what overflows is infinite, and no error.
        found = _value(told, rules[chosen]), _size(noises[chosen]), bias
        return Total(*map(float, found)), noises[chosen]

    def _told(self):
        return {tau: node.told() for tau, node in self.nodes.items()}

    def _bend(self, told, ends):
        """How far off an interval may be, by what noise hides least, less that noise's share.

        Without noise it is by the interval's own two rules: rounding must not choose.
        """
        ways = [_sum([_over(ends, QUINTIC), _over(ends, SIMPSON, -1)])]
        if whole := self.intervals[ends]:
            # Half of it is either half's.
            parts = [_over(half, SIMPSON, -0.5 / HALVED) for half in _halves(*whole)]
            ways.append(_sum([_over(whole, SIMPSON, 0.5 / HALVED), *parts]))
        found = [(_size(_noises(told, own)), abs(_value(told, own))) for own in ways]
        noise, distance = min(found, key=lambda way: way[0] if way[0] > ROUNDING * way[1] else 0.0)
        return np.sqrt(max(distance**2 - noise**2, 0.0))


def _halves(a, b):
    return (a, (a + b) / 2), ((a + b) / 2, b)


def _over(ends, rule, times=1.0):
    """Weights of (f, f') by tau: so many times a rule over an interval."""
    a, b = ends
    scale = times * np.array([b - a, (b - a) ** 2])
    return {tau: scale * own for tau, own in zip((a, (a + b) / 2, b), rule, strict=True)}


def _sum(parts):
    """Weights by tau, added up."""
    out = {}
    for part in parts:
        for tau, own in part.items():
            out[tau] = out.get(tau, 0.0) + own
    return out


def _value(told, weights):
    return np.sum([own @ told[tau][0] for tau, own in weights.items()])


def _noises(told, weights):
    """The noise of each node's part in a weighted sum, by tau: the jackknife's standard error."""
    noises = {}
    for tau, own in weights.items():
        parts = told[tau][1] @ own
        noises[tau] = np.sqrt((len(parts) - 1) * np.mean((parts - parts.mean()) ** 2))
    return noises


def _size(noises):
    return np.sqrt(np.sum(np.square(list(noises.values()))))
