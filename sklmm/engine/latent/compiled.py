"""What a sampler in TensorFlow knows of a `latent.Latent`: its arrays and theta, as tensors."""

from typing import NamedTuple

import numpy as np

from sklmm.engine.rows.tensors import tensors
from sklmm.engine.runtime.tensorflow import tf
from sklmm.engine.theta.space import slopes


class Point(NamedTuple):
    """theta as tensors, and slopes, the derivatives [r * r, m_k] of the factors in its entries."""

    beta: object
    factors: tuple
    raw: object
    slopes: tuple


class CompiledLatent:
    """Arrays and points of a latent part."""

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
