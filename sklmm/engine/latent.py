"""The latent part of a model at a given theta: its mode, its metric, its motion with theta.

Every solve is one of the mixed-model equations with W's weights in the place of w / sigma^2, so the
operator, border and preconditioner of the Gaussian case serve all families.
"""

from copy import copy
from dataclasses import replace
from functools import cached_property

import numpy as np

from sklmm.engine.border import marginal
from sklmm.engine.complete import (
    Arrays,
    Point,
    complete_scores,
    latent_gradient,
)
from sklmm.engine.e_step.base import Params
from sklmm.engine.operator import (
    Border,
    Layout,
    noise_right,
    solve,
    tensors,
)
from sklmm.engine.problem import reweighted
from sklmm.engine.theta import Space
from sklmm.engine.transport import make_field
from sklmm.engine.xla import tf

#: Finite-difference step in theta, of gradients in float64.
STEP = 1e-4
FEW_DRAWS = 4
#: Tables up to this size run the steps that a fit calls a few times without compiling them.
EAGER_ROWS = 512
SOLVE_TOL = 1e-6
EXACT_TOL = 1e-10
#: Rounds of refinement of dm / dtheta, at most.
REFINEMENTS = 20
DRAW_TOL = 1e-4
MAX_SOLVE = 2000
#: Rows times right-hand sides of one solve.
MOST_CELLS = 1 << 25
NEWTON_STEPS = 50
#: Decrement, in units of log p(y, x), at which Newton's method ends: for a likelihood, and for a
#: centre of the chains.
NEWTON_TOL = 1e-10
CENTRE_TOL = 1e-2


class Equations:
    """C = W^T diag(weights) W + (0, I) at one theta and one vector of weights."""

    def __init__(self, latent, theta, weights):
        self.latent = latent
        self.layout = latent.layout
        self.params = Params(theta.factors, 1.0)
        self.problem = reweighted(latent.problem, weights)
        self.border = Border(self.problem, latent.layout)
        self.system = self.border.system(self.problem, self.params)
        data = latent.arrays.data
        padded = np.zeros(data.w.shape[0])
        padded[: len(weights)] = weights
        self.data = data._replace(w=tf.constant(padded))

    def with_factors(self, factors):
        """The equations at other factors, with the same weights."""
        out = copy(self)
        out.params = Params(tuple(factors), 1.0)
        out.system = self.border.system(self.problem, out.params)
        return out

    @cached_property
    def marginal(self):
        """The border's posterior."""
        return marginal(self)

    def solve(self, right, tol=SOLVE_TOL):
        """C^-1 right, [P, c]."""
        most = max(MOST_CELLS // self.latent.n_rows, 1)
        if right.shape[1] > most:
            parts = range(0, right.shape[1], most)
            return np.concatenate([self.solve(right[:, i : i + most], tol) for i in parts], axis=1)
        right = tf.constant(np.asarray(right))
        ones = tf.ones([right.shape[1]], tf.float64)
        x, _ = self.latent.run(solve)(
            self.data,
            self.system,
            right,
            tf.zeros_like(right),
            ones,
            tf.constant(tol, tf.float64),
            tf.constant(MAX_SOLVE),
        )
        return np.asarray(x)

    def draws(self, rng, n_draws):
        """Draws from N(0, C^-1), [P, n_draws]."""
        layout = self.latent.layout
        rows = rng.standard_normal((self.data.w.shape[0], n_draws))
        levels = rng.standard_normal((layout.size, n_draws))
        levels[: layout.p] = 0.0
        right = self.latent.run(noise_right)(
            self.data, self.system, tf.constant(rows), tf.constant(levels)
        )
        return self.solve(right, DRAW_TOL)

    def inverse(self):
        """C^-1 [P, P] without the padding, dense: for few unknowns."""
        layout = self.latent.layout
        real = layout.real
        units = np.eye(layout.size)[:, real]
        inverse = self.solve(units, EXACT_TOL)[real]
        return (inverse + inverse.T) / 2


class Latent:
    """Arrays and compiled steps of a problem under a likelihood."""

    def __init__(self, problem, likelihood, parameters, reml=None):
        reml = problem.reml if reml is None else reml
        self.like = likelihood
        self.full = replace(problem, reml=reml)
        self.space = Space(self.full, parameters)
        inner = problem.X if reml else problem.X[:, :0]
        fixed = problem.X[:, :0] if reml else problem.X
        self.problem = replace(problem, X=inner)
        self.layout = Layout(self.problem)
        d = likelihood.n_predictors
        self.arrays = self._arrays(fixed, np.float64, d)
        self.fixed = fixed
        self.n_rows = len(problem.y)

    def run(self, function):
        """A compiled step, or its plain function where compiling would take longer than running."""
        return function.python_function if self.n_rows <= EAGER_ROWS else function

    def _arrays(self, fixed, dtype, d):
        data = tensors(self.problem, dtype, d)
        padded = np.zeros((data.w.shape[0], fixed.shape[1]))
        padded[: len(fixed)] = fixed
        offset = np.zeros((len(padded), 1))
        if self.problem.offset is not None:
            offset[: len(fixed), 0] = self.problem.offset
        return Arrays(data, tf.constant(padded, dtype), tf.constant(offset, dtype))

    def observations(self):
        """y and the weights of the observations, one each for all their predictors."""
        d = self.like.n_predictors
        return self.full.y[::d], self.full.weights[::d]

    def arrays32(self):
        """The same in float32, for the sampler."""
        return self._arrays(self.fixed, np.float32, self.like.n_predictors)

    def point(self, theta, dtype=np.float64):
        """theta as tensors."""
        return Point(
            tf.constant(theta.beta, dtype),
            tuple(tf.constant(L, dtype) for L in theta.factors),
            tf.constant(theta.raw, dtype),
        )

    def gradient(self, theta, x, delta=None):
        """(log p(y, x) [C], gradient in x [P, C], weights [n_rows, C]) at x [P, C]."""
        if delta is None:
            delta = np.zeros((self.space.size, x.shape[1]))
        value, gradient, weights = self.run(latent_gradient)(
            self.like,
            self.arrays,
            self.point(theta),
            tuple(self.layout.shapes),
            tf.constant(x),
            tf.constant(delta),
        )
        return np.asarray(value), np.asarray(gradient), np.asarray(weights)[: self.n_rows]

    def mode(self, theta, x, tol=NEWTON_TOL):
        """argmax_x log p(y, x) from x [P], by Newton steps and halving: (x, Equations)."""
        x = np.asarray(x, float)
        value, gradient, weights = (a[..., 0] for a in self.gradient(theta, x[:, None]))
        equations = Equations(self, theta, weights)
        for _ in range(NEWTON_STEPS):
            step = equations.solve(gradient[:, None])[:, 0]
            decrement = step @ gradient
            if not decrement > tol:
                break
            length = 1.0
            while length > 1e-3:
                trial = x + length * step
                new = [a[..., 0] for a in self.gradient(theta, trial[:, None])]
                if new[0] >= value - 1e-9 * abs(value):
                    break
                length /= 2
            else:
                break
            x = trial
            value, gradient, weights = new
            equations = Equations(self, theta, weights)
        return x, equations

    def field(self, theta, equations, centre, tol=DRAW_TOL):
        """How x moves with theta about `centre` [P]."""
        m = self.space.size
        push = self._slope(theta, centre, np.zeros((len(centre), m)), np.eye(m))
        shift = equations.solve(push, tol)
        if tol <= EXACT_TOL:
            shift = self._refined(theta, equations, centre, push, shift)
        shift = shift * self.layout.real[:, None]
        return make_field(equations, self.space, shift, centre)

    def _slope(self, theta, x, along, delta):
        """Derivative of the gradient in x [P, m] in the directions (along [P, m], delta [m, m])."""
        both = np.concatenate([STEP * along, -STEP * along], axis=1)
        deltas = np.concatenate([STEP * delta, -STEP * delta], axis=1)
        _, gradient, _ = self.gradient(theta, x[:, None] + both, deltas)
        m = along.shape[1]
        return (gradient[:, :m] - gradient[:, m:]) / (2 * STEP)

    def _refined(self, theta, equations, centre, push, shift):
        """dm / dtheta by the observed curvature, where the equations have the expected one.

        By conjugate gradients, the equations for a preconditioner.
        """
        still = np.zeros((self.space.size, shift.shape[1]))

        def curved(along):
            # Differences want directions of one size.
            size = np.maximum(np.abs(along).max(axis=0, initial=0.0), 1e-300)
            return -self._slope(theta, centre, along / size, still) * size

        target = SOLVE_TOL**2 * np.einsum("ij,ij->j", push, shift)
        residual = push - curved(shift)
        direction = ahead = equations.solve(residual, EXACT_TOL)
        size = np.einsum("ij,ij->j", residual, ahead)
        for _ in range(REFINEMENTS):
            if not (size > target).any():
                break
            image = curved(direction)
            bend = np.einsum("ij,ij->j", direction, image)
            running = (size > target) & (bend > 0)
            length = np.where(running, size / np.where(running, bend, 1.0), 0.0)
            shift = shift + length * direction
            residual = residual - length * image
            ahead = equations.solve(residual, EXACT_TOL)
            new = np.einsum("ij,ij->j", residual, ahead)
            direction = ahead + new / np.where(size > 0, size, 1.0) * direction
            size = new
        return shift

    def scores(self, theta, field, x, delta=None, function=complete_scores):
        """log p(y, x) [C] and scores in theta [m, C] at draws x [P, C]."""
        if delta is None:
            delta = np.zeros((self.space.size, x.shape[1]))
        value, score = (function if function is complete_scores else self.run(function))(
            self.like,
            self.arrays,
            self.point(theta),
            field,
            tf.constant(x),
            tf.constant(delta),
        )
        return np.asarray(value), np.asarray(score)

    def information(self, theta, field, x, few=False, function=complete_scores):
        """Complete-data information [m, m], averaged over draws x [P, C], or over a few of them.

        By central differences of the score. What beta's entries miss is so little that few draws
        do; a Laplace approximation's columns are not draws, and all count.
        """
        m, width = self.space.size, x.shape[1]
        all_draws, p = np.arange(width), self.space.p
        # The halves are mirror images of each other: some of both.
        halves = np.array_split(all_draws, 2)
        some = np.concatenate([half[: max(FEW_DRAWS, width // 4) // 2] for half in halves])
        least = some if function is complete_scores else all_draws
        most = some if few else all_draws
        pairs = [(i, c) for i in range(m) for c in (least if i < p else most)]
        out, count = np.zeros((m, m)), np.zeros(m)
        for first in range(0, len(pairs), width):
            batch = pairs[first : first + width]
            i, c = np.array(batch + batch[:1] * (width - len(batch))).T
            delta = np.zeros((m, width))
            delta[i, np.arange(width)] = STEP
            _, up = self.scores(theta, field, x[:, c], delta, function)
            _, down = self.scores(theta, field, x[:, c], -delta, function)
            for k in range(len(batch)):
                out[:, i[k]] += (down[:, k] - up[:, k]) / (2 * STEP)
                count[i[k]] += 1
        out /= np.maximum(count, 1)
        out[p:, :p] = out[:p, p:].T
        return (out + out.T) / 2

    def with_coefficients(self, last, field, root, rng):
        """Root of (beta, effects) from one of the effects given beta, which follow beta along F."""
        q, n_draws = self.space.p, root.shape[1]
        values, vectors = np.linalg.eigh(last.covariance[:q, :q])
        noise = rng.standard_normal((q, n_draws)) / np.sqrt(n_draws)
        beta = (vectors * np.sqrt(np.maximum(values, 0.0))) @ noise
        follow = self.layout.effects(last.estimate.factors, np.asarray(field.shift)[:, :q] @ beta)
        parts = [b.reshape(-1, n_draws) for b in follow]
        return np.concatenate([beta, root + np.concatenate(parts) if parts else root])

    @property
    def log_constant(self):
        """What log p(y, x) lacks for the table's own units of y and of the coefficients."""
        full = self.full
        out = -full.n * np.log(full.y_scale)
        if full.reml:
            out += full.p * np.log(np.sqrt(2 * np.pi) * full.y_scale) - 0.5 * full.log_det_basis
        return out
