r"""Split Hamiltonian Monte Carlo of any target: its Gaussian part is integrated exactly.

In whitened coordinates the target is N(0, I) times a factor near 1. With potential energy
|v|^2 / 2 + R(v), a step of length h is

    p -= h/2 grad R(v);    (v, p) turn by the angle h;    p -= h/2 grad R(v)

(Shahbaba, Lan, Johnson & Neal 2014, Stat. Comput. 24, 339-349; Beskos, Pinski, Sanz-Serna & Stuart
2011, Stoch. Proc. Appl. 121, 2201-2230). A leapfrog's error grows with the number of unknowns, this
one's with what is not Gaussian about them: on InstEval a third of the gradients do.
"""

from typing import NamedTuple, Protocol

import numpy as np

from sklmm.engine.latent.tuning import JITTER
from sklmm.engine.linalg.chains import mirrored


class Target(Protocol):
    """The logarithm of a density, up to a constant, at chains v [P, C], in the precision of v."""

    def value_and_gradient(self, v):
        """log p(v) [C] in float64, and its gradient [P, C], which the caller may overwrite."""

    def gradient(self, v):
        """The gradient alone: of the inner steps of a trajectory."""


class State(NamedTuple):
    """Chains v [P, C], log p [C] there and its gradient [P, C]."""

    v: np.ndarray
    value: np.ndarray
    gradient: np.ndarray

    @classmethod
    def at(cls, target, v):
        """The state of chains that begin at v."""
        return cls(v, *target.value_and_gradient(v))


def transitions(target, state, step, lengths, rng, n_steps, free=None):
    """(`State`, mean acceptance probability) after `n_steps` transitions.

    Steps are jittered about `step`, and a trajectory has between the two `lengths` of them. Of the
    unknowns those that are `free`, bool [P] or None for all, move.
    """
    accepted = 0.0
    for _ in range(n_steps):
        h = step * rng.uniform(1 - JITTER, 1 + JITTER)
        count = rng.integers(lengths[0], lengths[1] + 1)
        # A trajectory that diverges overflows, and is rejected.
        with np.errstate(over="ignore", invalid="ignore"):
            state, chance = _transition(target, state, h, count, rng, free)
        accepted += chance.mean() / n_steps
    return state, float(accepted)


def _transition(target, state, h, count, rng, free):
    kind = state.v.dtype.type
    first = antithetic(rng, *state.v.shape, kind)
    if free is not None:
        first[~free] = 0
    cosine, sine, h, half = kind(np.cos(h)), kind(np.sin(h)), kind(h), kind(h / 2)
    v, momentum = state.v, first + half * (state.gradient + state.v)
    for left in range(count - 1, -1, -1):
        v, momentum = cosine * v + sine * momentum, cosine * momentum - sine * v
        value, kick = (None, target.gradient(v)) if left else target.value_and_gradient(v)
        gradient = kick if left else kick.copy()
        kick += v
        kick *= h if left else half
        momentum += kick
    kinetic = 0.5 * np.sum((first - momentum) * (first + momentum), axis=0, dtype=float)
    return _chosen(state, State(v, value, gradient), kinetic, rng)


def _chosen(old, new, kinetic, rng):
    """A Metropolis-Hastings step: (`State`, acceptance probability [C]).

    Chains of a mirrored pair have one chance of acceptance between them: nearly always they go or
    stay together, and remain mirrored.
    """
    ratio = new.value - old.value + kinetic
    ratio = np.where(np.isfinite(ratio), ratio, -np.inf)
    C = len(ratio)
    uniform = np.tile(rng.random(C // 2), 2) if mirrored(C) else rng.random(C)
    accepted = np.log(uniform) < ratio
    if not accepted.all():
        new = State(*(np.where(accepted, a, b) for a, b in zip(new, old, strict=True)))
    return new, np.exp(np.minimum(ratio, 0.0))


def antithetic(rng, P, C, kind):
    """Standard normal columns [P, C], the second half the negative of the first, if `mirrored(C)`.

    Chains that start so, and move by such momenta, stay near each other's mirror images: what is
    odd about the posterior's centre has no error.
    """
    if not mirrored(C):
        return rng.standard_normal((P, C), kind)
    half = rng.standard_normal((P, C // 2), kind)
    return np.concatenate([half, -half], axis=1)
