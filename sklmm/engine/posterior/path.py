r"""The integral over tau of E_tau[r] on a path of densities, from draws at a few of them.

With Z(tau) the constant of pi_tau ~ exp(q + tau r), d log Z / dtau = E_tau[r], and so

    log Z(1) = log Z(0) + int_0^1 f(tau) dtau,    f = E_tau[r],    f' = Var_tau(r)

(thermodynamic integration; Gelman & Meng 1998, Stat. Sci. 13, 163-185). Each interval has nodes at
its ends and its middle, and the rule of f there and of f' at the ends that is exact for polynomials
of degree 5; its distance from Simpson's, which does not know f', is taken for its error, and much
more than that where f is smooth. What of it is noise of f and f' is known, and is not taken for a
bend. Intervals that are off are halved.
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
RULE = np.array([[7 / 30, 1 / 60], [16 / 30, 0.0], [7 / 30, -1 / 60]])
SIMPSON = np.array([[1 / 6, 0.0], [4 / 6, 0.0], [1 / 6, 0.0]])


class Integral:
    """Nodes by their tau, and the ends of the intervals that have one in their middle."""

    def __init__(self):
        self.nodes, self.intervals = {}, [(0.0, 1.0)]

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
        """Halve the interval whose rule is furthest from Simpson's."""
        told = {tau: node.told() for tau, node in self.nodes.items()}
        a, b = worst = max(self.intervals, key=lambda ends: _bend(told, ends))
        self.intervals.remove(worst)
        self.intervals += [(a, (a + b) / 2), ((a + b) / 2, b)]

    def total(self):
        """`Total`, and the noise of each node's part in it, by tau."""
        told = {tau: node.told() for tau, node in self.nodes.items()}
        every = {tau: own[0] for tau, own in told.items()}
        value = sum(_over(every, ends, RULE) for ends in self.intervals)
        bias = sum(_bend(told, ends) for ends in self.intervals)
        noises = _noises(told, self.intervals, RULE)
        noise = float(np.sqrt(sum(own**2 for own in noises.values())))
        return Total(float(value), noise, float(bias)), noises


def _bend(told, ends):
    """The distance of the two rules over an interval, less what noise adds to its square."""
    off = _over({tau: own[0] for tau, own in told.items()}, ends, RULE - SIMPSON)
    noises = _noises(told, [ends], RULE - SIMPSON)
    return np.sqrt(max(off**2 - sum(noise**2 for noise in noises.values()), 0.0))


def _noises(told, intervals, rule):
    """The noise of each node's part in the rule's sum over intervals, by tau."""
    weights = {tau: np.zeros(2) for tau in told}
    for a, b in intervals:
        for tau, own in zip((a, (a + b) / 2, b), rule, strict=True):
            weights[tau] += own * [b - a, (b - a) ** 2]
    noises = {}
    for tau, (_, without) in told.items():
        parts = without @ weights[tau]
        # The jackknife's standard error.
        noises[tau] = float(np.sqrt((len(parts) - 1) * np.mean((parts - parts.mean()) ** 2)))
    return noises


def _over(told, ends, rule):
    """The rule's sum over an interval, from (f, f') by tau."""
    a, b = ends
    scale = np.array([b - a, (b - a) ** 2])
    return sum(scale * w @ told[tau] for tau, w in zip((a, (a + b) / 2, b), rule, strict=True))
