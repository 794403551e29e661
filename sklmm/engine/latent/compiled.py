"""The compiled half of a `latent.Latent`: its arrays as tensors, its scores and information."""

import numpy as np

from sklmm.engine.latent.complete_data import (
    Point,
    complete_scores,
    laplace_scores,
)
from sklmm.engine.linalg.chains import balanced, mean_information
from sklmm.engine.linalg.newton import STEP
from sklmm.engine.rows.tensors import tensors
from sklmm.engine.runtime.tensorflow import tf
from sklmm.engine.theta.space import slopes

FEW_DRAWS = 4


class CompiledLatent:
    """Arrays and compiled steps of a latent part."""

    def __init__(self, latent):
        self.latent = latent
        self.arrays = tensors(latent.rows, latent.layout.p)

    def arrays32(self):
        """The same in float32, for the sampler."""
        return tensors(self.latent.rows, self.latent.layout.p, np.float32)

    def point(self, theta, dtype=np.float64):
        """Theta as tensors."""
        changes = [
            D.reshape(len(D), D.shape[1] ** 2).T for D in slopes(self.latent.full, theta.factors)
        ]
        return Point(
            tf.constant(theta.beta, dtype),
            tuple(tf.constant(L, dtype) for L in theta.factors),
            tf.constant(theta.raw, dtype),
            tuple(tf.constant(D, dtype) for D in changes),
        )

    def scores(self, theta, field, x, delta=None, laplace=False):
        """log p(y, x) [C] and scores in theta [m, C] at draws x [P, C].

        Of Laplace's quadratic expansion, x are deviations from the mode.
        """
        latent = self.latent
        if delta is None:
            delta = np.zeros((latent.space.size, x.shape[1]))
        function = laplace_scores if laplace else complete_scores
        value, score = function(
            latent.like,
            self.arrays,
            self.point(theta),
            field,
            tf.constant(x),
            tf.constant(delta),
        )
        return np.asarray(value), np.asarray(score)

    def information(self, theta, field, x, few=False, laplace=False):
        """Complete-data information [m, m], averaged over draws x [P, C], or over a few of them."""
        columns = self.informations(theta, field, x, few, laplace)
        return mean_information(columns, self.latent.space.p)

    def informations(self, theta, field, x, few=False, laplace=False, balance=None):
        """Columns of the complete-data information, each [m, n_draws], at draws x [P, C].

        By central differences of the score. What beta's entries miss is so little that few draws
        do; a Laplace approximation's columns are not draws, and all count. Variables of mean 0 over
        the posterior, `balance` [m, C], are control variates.
        """
        space, width = self.latent.space, x.shape[1]
        m, p, all_draws = space.size, space.p, np.arange(width)
        # The halves are mirror images of each other: some of both.
        halves = np.array_split(all_draws, 2)
        some = np.concatenate([half[: max(FEW_DRAWS, width // 4) // 2] for half in halves])
        least = all_draws if laplace else some
        most = some if few else all_draws
        pairs = [(i, c) for i in range(m) for c in (least if i < p else most)]
        out, draws = [[] for _ in range(m)], [[] for _ in range(m)]
        for first in range(0, len(pairs), width):
            batch = pairs[first : first + width]
            i, c = np.array(batch + batch[:1] * (width - len(batch))).T
            delta = np.zeros((m, width))
            delta[i, np.arange(width)] = STEP
            _, up = self.scores(theta, field, x[:, c], delta, laplace)
            _, down = self.scores(theta, field, x[:, c], -delta, laplace)
            for k in range(len(batch)):
                out[i[k]].append((down[:, k] - up[:, k]) / (2 * STEP))
                draws[i[k]].append(c[k])
        out = [np.array(columns).T for columns in out]
        if balance is None:
            return out
        return [balanced(column, balance[:, draws[i]], i) for i, column in enumerate(out)]
