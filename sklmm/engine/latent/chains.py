"""The E-step by chains in NumPy: split HMC about the posterior's mode, in whitened coordinates.

Chains are in float32 unless its rounding shows: where rows tell much (large counts, precise
measurements) or y is at the edge of its range. Log-likelihoods are summed in float64.
"""

import numpy as np

from sklmm.engine.latent import tuning
from sklmm.engine.latent.frame import Frame
from sklmm.engine.latent.transitions import State, antithetic, transitions
from sklmm.engine.linalg.blocks import turn_all
from sklmm.engine.rows.protocol import Coefs


class Posterior:
    """`engine.latent.transitions.Target` of a latent part at theta, in a frame: log p(y, x(v))."""

    def __init__(self, latent, theta, frame):
        self.frame, self.layout, self.densities = frame, latent.layout, latent.densities
        dtype, self.fixed = frame.dtype, latent.layout.p
        self.factors = [L.astype(dtype) for L in theta.factors]
        self.raw = theta.raw.astype(dtype)[:, None]
        self.rows = latent.rows if self.fixed else latent.rows.held(theta.beta)

    def value_and_gradient(self, v):
        """log p [C] in float64, and its gradient [P, C]."""
        x = self.frame.unwhiten(v)
        value, sums = self.rows.scored(*self._at(x))
        u = x[self.fixed :]
        value = value - 0.5 * np.sum(u * u, axis=0, dtype=float)
        return value, self._pulled(x, sums)

    def gradient(self, v):
        """The gradient [P, C]."""
        x = self.frame.unwhiten(v)
        return self._pulled(x, self.rows.score(*self._at(x)))

    def _at(self, x):
        beta, parts = self.layout.split(x)
        effects = tuple(turn_all(L, u) for L, u in zip(self.factors, parts, strict=True))
        raw = np.repeat(self.raw, x.shape[1], axis=1)
        return self.densities, Coefs(beta, effects), raw

    def _pulled(self, x, sums):
        """The gradient in v, from the rows' scores summed by level."""
        out = np.zeros_like(x)
        out[: self.fixed] = sums.beta
        of_terms = zip(self.factors, self.layout.parts, sums.effects, strict=True)
        for L, part, score in of_terms:
            J, r, C = score.shape
            out[part.start : part.start + J * r] = turn_all(L.T, score).reshape(-1, C)
        out[self.fixed :] -= x[self.fixed :]
        return self.frame.pull_back(out)


class Chains:
    """A sampler as `algorithms.mcem` asks; the step size's adaptation fades."""

    def __init__(self, e_step):
        self.e_step = e_step
        self.v, self.frame, self.updates = None, None, 0

    @property
    def precision(self):
        """Of the chains."""
        return self.v.dtype

    def place(self, latent, theta, equations, mode, rng):
        """Put the chains in the frame about `mode`; their whitened coordinates stay."""
        first = self.frame is None
        if first:
            self.latent, self.real = latent, latent.layout.real
            chains = self.e_step.n_chains or tuning.default_chains(latent.n_rows)
            self.v = antithetic(rng, len(self.real), chains, np.float32) * self.real[:, None]
            self.step = tuning.first_step(self.e_step, self.real.sum())
        self.centre, exact = mode, Frame.of(equations, mode)
        unknown = first or latent.like.names
        if unknown and self.v.dtype == np.float32 and self._rounds(theta, exact):
            self.v = self.v.astype(float)
        self.frame = exact.astype(self.v.dtype)
        if first:
            for _ in range(tuning.WARM_UPS if self.e_step.n_warmup else 0):
                self.draw(theta, rng, max(self.e_step.n_warmup // tuning.WARM_UPS, 1))

    def _rounds(self, theta, frame):
        """Whether float32 is too rough."""
        found = []
        for dtype in (np.float32, np.float64):
            target = Posterior(self.latent, theta, frame.astype(dtype))
            v = self.v[:, : tuning.LOOKED_AT].astype(dtype)
            value, gradient = target.value_and_gradient(v)
            found.append((value, gradient.T))
        return tuning.rounding(found) > tuning.MOST_ROUNDING

    def shift(self, change):
        """Move the chains with their centre by `change` [P]."""
        self.centre = self.centre + change
        self.frame = self.frame.about(self.centre)

    def draw(self, theta, rng, n_steps=None):
        """Draws x and their pull [P, C] after `n_steps` transitions, and the acceptance rate.

        The pull T T^T grad log p is a Newton step's if T T^T is the posterior's covariance, and has
        mean 0.
        """
        target, lengths = self.target(theta), tuning.lengths(self.e_step, self.step)
        n_steps = n_steps or self.e_step.n_steps
        state = State.at(target, self.v)
        state, rate = transitions(target, state, self.step, lengths, rng, n_steps, self.real)
        self.v = state.v
        if self.e_step.step_size is None:
            self.updates += 1
            gain = self.updates**-tuning.ADAPTATION_POWER
            self.step = tuning.adapted(self.step, rate, gain)
        x, pull = self.frame.unwhiten(state.v), self.frame.turned(state.gradient)
        return x.astype(float), pull.astype(float), rate

    def target(self, theta):
        """What the chains are drawn from at theta."""
        return Posterior(self.latent, theta, self.frame)

    def spread(self):
        """Of the frame: `Frame.spread`."""
        return self.frame.spread()
