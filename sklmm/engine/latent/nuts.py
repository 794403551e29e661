"""The No-U-Turn E-step: `tfp.mcmc.NoUTurnSampler` in the coordinates of `hmc`."""

from sklmm.engine.latent.hmc import HMCSampler, columns, target
from sklmm.engine.runtime.tensorflow import compiled, tf
from sklmm.engine.runtime.tfp_graph import tfp


def acceptance(results):
    """Mean acceptance probability of a transition, 0 for a divergent chain."""
    chance = tf.exp(tf.minimum(results.log_accept_ratio, 0.0))
    return tf.reduce_mean(tf.where(tf.math.is_finite(chance), chance, tf.zeros_like(chance)))


@compiled
def nuts_transitions(like, arrays, point, frame, offset, v, step_size, depth, seed, n_steps):
    """`n_steps` transitions: (v, x, pull, acceptance probability)."""
    kernel = tfp.mcmc.NoUTurnSampler(
        target(like, arrays, point, frame, offset), step_size, max_tree_depth=depth
    )

    def body(i, v, accepted, _):
        here = tf.random.experimental.stateless_fold_in(seed, i)
        v, results = kernel.one_step(v, kernel.bootstrap_results(v), seed=here)
        return i + 1, v, accepted + acceptance(results), results.grads_target_log_prob[0]

    _, v, accepted, gradient = tf.while_loop(
        lambda i, *_: i < n_steps,
        body,
        (tf.constant(0), v, tf.zeros([], v.dtype), tf.zeros_like(v)),
    )
    return v, *columns(arrays, frame, v, gradient), accepted / tf.cast(n_steps, v.dtype)


class NUTSSampler(HMCSampler):
    """As `HMCSampler`, with trajectories that end where they turn."""

    def transitions(self, theta, rng, n_steps):
        """(v, x, pull, acceptance rate) after `n_steps` transitions."""
        v, x, pull, accepted = nuts_transitions(
            *self.arguments(theta),
            tf.constant(self.step, self.dtype),
            # The depth bounds a loop that TFP unrolls into its state: a Python number.
            self.e_step.max_tree_depth,
            tf.constant(rng.integers(0, 2**31 - 1, 2), tf.int32),
            tf.constant(n_steps),
        )
        return v, x, pull, float(accepted)
