"""The No-U-Turn E-step: `tfp.mcmc.NoUTurnSampler` in the coordinates of `hmc`."""

import numpy as np

from sklmm.engine.e_step.hmc import HMCSampler, acceptance, target
from sklmm.engine.frame import unwhiten
from sklmm.engine.model import tfp
from sklmm.engine.xla import compiled, tf


@compiled
def nuts_transitions(like, arrays, point, frame, offset, v, step_size, depth, seed, n_steps):
    """`n_steps` transitions: (v, x, acceptance probability, leapfrogs of the longest)."""
    kernel = tfp.mcmc.NoUTurnSampler(
        target(like, arrays, point, frame, offset), step_size, max_tree_depth=depth
    )

    def body(i, v, accepted, longest):
        here = tf.random.experimental.stateless_fold_in(seed, i)
        v, results = kernel.one_step(v, kernel.bootstrap_results(v), seed=here)
        most = tf.reduce_max(results.leapfrogs_taken)
        return i + 1, v, accepted + acceptance(results), tf.maximum(longest, most)

    _, v, accepted, longest = tf.while_loop(
        lambda i, *_: i < n_steps,
        body,
        (tf.constant(0), v, tf.zeros([], v.dtype), tf.constant(0)),
    )
    x = unwhiten(frame, arrays.data.X.shape[1], tf.transpose(v))
    return v, tf.cast(x, tf.float64), accepted / tf.cast(n_steps, v.dtype), longest


class NUTSSampler(HMCSampler):
    """As `HMCSampler`, with trajectories that end where they turn."""

    def __init__(self, step_size=None, max_tree_depth=6, n_chains=None, n_warmup=4, n_steps=1):
        super().__init__(step_size, None, n_chains, n_warmup, n_steps)
        self.max_tree_depth = max_tree_depth

    def transitions(self, theta, rng, n_steps):
        """(v, x, acceptance rate, leapfrogs) after `n_steps` transitions."""
        v, x, accepted, longest = nuts_transitions(
            *self.arguments(theta),
            tf.constant(self.step, tf.float32),
            # The depth bounds a loop that TFP unrolls into its state: a Python number.
            self.max_tree_depth,
            tf.constant(rng.integers(0, 2**31 - 1, 2), tf.int32),
            tf.constant(n_steps),
        )
        return v, x, float(accepted), int(np.asarray(longest))
