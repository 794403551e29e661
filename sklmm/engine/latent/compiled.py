"""What a sampler in TensorFlow knows of a `latent.Latent`: its arrays and theta, as tensors."""

from typing import NamedTuple

import numpy as np

from sklmm.engine.rows.tensors import tensors
from sklmm.engine.runtime.tensorflow import tf


class Point(NamedTuple):
    """theta as tensors."""

    beta: object
    factors: tuple
    raw: object


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
        return Point(
            tf.constant(theta.beta, dtype),
            tuple(tf.constant(L, dtype) for L in theta.factors),
            tf.constant(theta.raw, dtype),
        )
