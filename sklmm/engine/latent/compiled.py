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

    def arrays(self, dtype):
        """The rows' arrays in a precision; who asks keeps them."""
        return tensors(self.latent.rows, self.latent.layout.p, dtype)

    def point(self, theta, dtype=np.float64):
        """Theta as tensors."""
        return Point(
            tf.constant(theta.beta, dtype),
            tuple(tf.constant(L, dtype) for L in theta.factors),
            tf.constant(theta.raw, dtype),
        )
