"""Conjugate gradients on the mixed-model equations of any family, compiled once a shape."""

import numpy as np

from sklmm.engine.equations.arrow import apply_compiled, noise_right, solve
from sklmm.engine.equations.weighted import DRAW_TOL
from sklmm.engine.runtime.tensorflow import tf

MAX_SOLVE = 2000
#: Rows times right-hand sides of one solve.
MOST_CELLS = 1 << 25


class CompiledSolver:
    """C of `equations.Equations`, applied and solved."""

    def __init__(self, equations):
        latent, weights = equations.latent, equations.weights
        self.system, self.layout, self.n_rows = equations.system, equations.layout, latent.n_rows
        #: Largest relative residual of a solve that ended before its tolerance.
        self.unsolved = 0.0
        data = latent.compiled.arrays.data
        padded = np.zeros(data.w.shape[0])
        padded[: len(weights)] = weights
        self.data = data._replace(w=tf.constant(padded))

    def solve(self, right, tol):
        """C^-1 right, [P, c]."""
        most = max(MOST_CELLS // self.n_rows, 1)
        if right.shape[1] > most:
            parts = range(0, right.shape[1], most)
            return np.concatenate([self.solve(right[:, i : i + most], tol) for i in parts], axis=1)
        right = tf.constant(np.asarray(right))
        ones = tf.ones([right.shape[1]], tf.float64)
        x, _, left = solve(
            self.data,
            self.system,
            right,
            tf.zeros_like(right),
            ones,
            tf.constant(tol, tf.float64),
            tf.constant(MAX_SOLVE),
        )
        if left > 1:
            self.unsolved = max(self.unsolved, tol * float(left))
        return np.asarray(x)

    def apply(self, flat):
        """C flat [P, c] for columns that hold beta fixed."""
        held = tf.zeros([flat.shape[1]], tf.float64)
        return np.asarray(apply_compiled(self.data, self.system, tf.constant(flat), held))

    def draws(self, rng, n_draws):
        """Draws from N(0, C^-1), [P, n_draws]."""
        rows = rng.standard_normal((self.data.w.shape[0], n_draws))
        levels = rng.standard_normal((self.layout.size, n_draws))
        levels[: self.layout.p] = 0.0
        right = noise_right(self.data, self.system, tf.constant(rows), tf.constant(levels))
        return self.solve(right, DRAW_TOL)
