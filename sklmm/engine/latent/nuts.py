"""The No-U-Turn E-step: `tfp.mcmc.NoUTurnSampler` in the coordinates of `hmc`."""

import numpy as np

from sklmm.engine.latent.hmc import HMCSampler, columns, target
from sklmm.engine.runtime.tensorflow import compiled, tf
from sklmm.engine.runtime.tfp_graph import tfp


def acceptance(results):
    """Mean acceptance probability of a transition, 0 for a divergent chain."""
    chance = tf.exp(tf.minimum(results.log_accept_ratio, 0.0))
    return tf.reduce_mean(tf.where(tf.math.is_finite(chance), chance, tf.zeros_like(chance)))


@compiled
def nuts_transitions(like, arrays, point, frame, offset, v, step_size, depth, seed, n_steps):
    """`n_steps` transitions: (v, x, pull, acceptance probability, leapfrogs of the longest)."""
    kernel = tfp.mcmc.NoUTurnSampler(
        target(like, arrays, point, frame, offset), step_size, max_tree_depth=depth
    )

    def body(i, v, accepted, longest, _):
        here = tf.random.experimental.stateless_fold_in(seed, i)
        v, results = kernel.one_step(v, kernel.bootstrap_results(v), seed=here)
        most = tf.reduce_max(results.leapfrogs_taken)
        accepted, longest = accepted + acceptance(results), tf.maximum(longest, most)
        return i + 1, v, accepted, longest, results.grads_target_log_prob[0]

    _, v, accepted, longest, gradient = tf.while_loop(
        lambda i, *_: i < n_steps,
        body,
        (tf.constant(0), v, tf.zeros([], v.dtype), tf.constant(0), tf.zeros_like(v)),
    )
    rate = accepted / tf.cast(n_steps, v.dtype)
    return v, *columns(arrays, frame, v, gradient), rate, longest


class NUTSSampler(HMCSampler):
    """As `HMCSampler`, with trajectories that end where they turn."""

    def __init__(self, step_size=None, max_tree_depth=6, n_chains=None, n_warmup=4, n_steps=1):
        super().__init__(step_size, None, n_chains, n_warmup, n_steps)
        self.max_tree_depth = max_tree_depth

    def transitions(self, theta, rng, n_steps):
        """(v, x, pull, acceptance rate, leapfrogs) after `n_steps` transitions."""
        v, x, pull, accepted, longest = nuts_transitions(
            *self.arguments(theta),
            tf.constant(self.step, self.dtype),
            # The depth bounds a loop that TFP unrolls into its state: a Python number.
            self.max_tree_depth,
            tf.constant(rng.integers(0, 2**31 - 1, 2), tf.int32),
            tf.constant(n_steps),
        )
        return v, x, pull, float(accepted), int(np.asarray(longest))
