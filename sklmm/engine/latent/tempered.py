r"""Draws on the way from a Gaussian approximation of the posterior to the posterior itself.

With q the quadratic expansion of l(x) = log p(y, x) about its mode m, whose curvature is C, and
r = l - q, the densities on the way are

    pi_tau(x) ~ exp(q(x) + tau r(x)),    0 <= tau <= 1,    pi_0 = N(m, C^-1).

Chains move in the coordinates x = m + T v of `engine.latent.frame`: gradients inside of a
trajectory are of float32, what decides at its end of float64 where rows of float32 would tell
another r. There they tell r, and variables of mean 0 under pi_tau that know most of its noise,

    div(grad f) + grad f . grad log pi_tau    (in v)

(Stein's identity; Mira, Solgi & Imparato 2013, Stat. Comput. 23, 653-662), for f = r, and for the
linear and the quadratic function of v, each coordinate by itself, that are nearest to r at tau = 0:
near pi_0 the identity's operator multiplies Hermite's polynomials of degree k by -k.
"""

from copy import copy
from typing import NamedTuple

import numpy as np

from sklmm.engine.latent import tuning
from sklmm.engine.latent.frame import Frame
from sklmm.engine.latent.transitions import State, transitions
from sklmm.engine.linalg.blocks import turn_all
from sklmm.engine.rows.protocol import Coefs

#: Rounding of q and of r up to which rows are looked at in float32; chains that are compared.
ROUNDING = 0.01
COMPARED = 2


class Seen(NamedTuple):
    """q [C], r [C], their gradients in v [P, C], and r's Laplacian in v [C]."""

    quadratic: np.ndarray
    rest: np.ndarray
    quadratic_slope: np.ndarray
    rest_slope: np.ndarray
    laplacian: np.ndarray

    def value(self, tau):
        """log pi_tau [C], without its constant."""
        return self.quadratic + tau * self.rest

    def slope(self, tau):
        """Its gradient in v [P, C]."""
        return self.quadratic_slope + tau * self.rest_slope


class Path:
    """The pi_tau of a `Latent` at theta, about `mode` [P] with its equations.

    `reference` is the log of pi_0's constant: the Laplace approximation of log p(y).
    """

    def __init__(self, latent, theta, mode, equations):
        self.latent, self.equations, self.mode = latent, equations, mode
        self.layout, self.factors = latent.layout, theta.factors
        # x is where deviations from the mode are; they have no centre.
        self.frame = Frame.of(equations, np.zeros(self.layout.size))
        self.frame32 = self.frame.astype(np.float32)
        coefs, _ = latent.coefs([theta], mode[:, None])
        built_in = latent.like.distribution is None
        self.exact = exact = built_in and latent.like.n_predictors == 1
        point = latent.densities, coefs, theta.raw, equations.weights
        self.rows = latent.rows.remainder(*point, exact=exact, held=not self.layout.p)
        self._spread()
        value, _, slope, _, _ = self._split(np.zeros((self.layout.size, 1)))
        # Where pi_0 has its mean: what is left of the way to the mode.
        self.centre, self.origin = equations.solve(slope), float(value[0])
        rise = 0.5 * float(np.sum(slope * self.centre))
        self.reference = self.origin + rise - 0.5 * equations.log_det()
        self._choose(built_in)

    def _choose(self, built_in):
        """The precision in which rows are looked at: it depends on what they make of a draw.

        Few rows take no longer in float64.
        """
        self.looking = self.frame
        if not built_in or self.latent.whole:
            return
        v = self.draws(np.random.default_rng(0), COMPARED)
        exact = self.look(v)
        self.looking = self.frame32
        off = np.subtract(self.look(v)[:2], exact[:2])
        if not np.abs(off).max() < ROUNDING:
            self.looking = self.frame

    def _spread(self):
        """Tell the rows the variances of their predictors under N(m, T T^T)."""
        frame, layout = self.frame, self.layout
        units = np.zeros((layout.size, layout.n_border))
        units[layout.border] = np.eye(layout.n_border)
        blocks = []
        for L, R, J in zip(self.factors, frame.roots, layout.levels, strict=True):
            root = np.zeros((J, *L.shape)) if R is None else L @ R
            blocks.append(root @ root.transpose(0, 2, 1))
        self.rows.spread(blocks, self._coefs(frame.turned(units)))

    def _coefs(self, d):
        """Deviations d [P, C] of x as those of the coefs."""
        beta, u = self.layout.split(d)
        effects = (turn_all(L, part) for L, part in zip(self.factors, u, strict=True))
        return Coefs(beta, tuple(part.astype(d.dtype, copy=False) for part in effects))

    def _pulled(self, sums):
        """W^T rows [P, C] of sums over levels."""
        pairs = zip(self.factors, sums.effects, strict=True)
        parts = [turn_all(L.T, part).astype(part.dtype, copy=False) for L, part in pairs]
        return self.layout.join(np.asarray(sums.beta), parts)

    def _split(self, d):
        """At m + d [P, C]: q, r and its Laplacian, and in between q's and r's gradients in x."""
        C, p = d.shape[1], self.layout.p
        quadratic, rest, both, laplacian = self.rows.split(self._coefs(d))
        both, u = self._pulled(both), self.mode[p:, None] + d[p:]
        slope = both[:, :C]
        slope[p:] -= u.astype(slope.dtype, copy=False)
        return quadratic - 0.5 * np.sum(u**2, axis=0), rest, slope, both[:, C:], laplacian

    def look(self, v):
        """`Seen` at v [P, C]."""
        frame = self.looking
        quadratic, rest, *slopes, laplacian = self._split(frame.turned(v.astype(frame.dtype)))
        slopes = (frame.pull_back(slope).astype(float, copy=False) for slope in slopes)
        return Seen(quadratic - self.origin, rest, *slopes, laplacian)

    def slope(self, v, tau):
        """The gradient of log pi_tau in v [P, C], in float32."""
        d, p = self.frame32.turned(v), self.layout.p
        out = self._pulled(self.rows.pull(self._coefs(d), np.float32(tau)))
        out[p:] -= self.mode[p:, None].astype(np.float32) + d[p:]
        return self.frame32.pull_back(out)

    def draws(self, rng, n_draws):
        """Independent draws of v under pi_0, [P, n_draws], in float32."""
        d = self.equations.probes(rng, n_draws) + self.centre
        return self.frame.turned_back(d).astype(np.float32)


class Tempered:
    """`engine.latent.transitions.Target` of pi_tau; `found` is where it was looked at last."""

    def __init__(self, path, tau):
        self.path, self.tau, self.found = path, tau, None

    def value_and_gradient(self, v):
        """log pi_tau [C], and its gradient [P, C]."""
        seen = self.path.look(v)
        self.found = v, seen
        return seen.value(self.tau), seen.slope(self.tau).astype(v.dtype)

    def gradient(self, v):
        """The gradient alone."""
        return self.path.slope(v, self.tau)


class Chains:
    """Independent chains, an odd number of them, at v [P, C]: they move under any pi_tau."""

    def __init__(self, path, v, seen, rng):
        self.path, self.v, self.seen, self.rng = path, v, seen, rng
        self.real = path.layout.real
        # What is not Gaussian takes shorter steps than this one where each level has few rows.
        first = 1.5 * tuning.FIRST_STEP * max(self.real.sum(), 1) ** -0.25
        self.step = min(first, tuning.LONGEST_STEP)
        self.updates = 0

    def copy(self):
        """Chains that go their own way from here."""
        return copy(self)

    def move(self, tau):
        """One transition under pi_tau."""
        target, before = Tempered(self.path, tau), self.seen
        slope = before.slope(tau).astype(np.float32)
        state = State(self.v, before.value(tau), slope)
        lengths = tuning.lengths(None, self.step)
        state, rate = transitions(target, state, self.step, lengths, self.rng, 1, self.real)
        proposed, seen = target.found
        moved = (state.v == proposed).all(axis=0)
        self.v = state.v
        self.seen = Seen(*(np.where(moved, a, b) for a, b in zip(seen, before, strict=True)))
        self.updates += 1
        self.step = tuning.adapted(self.step, rate, self.updates**-tuning.ADAPTATION_POWER)


class Controls:
    """Variables of mean 0 under any pi_tau, from draws v [P, n] of pi_0 and their `Seen`.

    That of r wants its Laplacian, and is 0 where this is not known.
    """

    def __init__(self, v, seen, known):
        self.known = known
        self.linear = seen.rest_slope.mean(axis=1)
        self.quadratic = (seen.rest_slope * v).mean(axis=1)

    def at(self, tau, v, seen):
        """[3, C] at v [P, C]."""
        slope = seen.slope(tau)
        return np.stack(
            [
                self.known * (seen.laplacian + np.einsum("pc,pc->c", seen.rest_slope, slope)),
                self.linear @ slope,
                self.quadratic @ (1 + v * slope),
            ]
        )
