"""Split Hamiltonian Monte Carlo as a kernel of TFP: `engine.latent.transitions` has the method."""

from typing import NamedTuple

import numpy as np

from sklmm.engine.linalg.chains import mirrored
from sklmm.engine.runtime.tensorflow import tf
from sklmm.engine.runtime.tfp_graph import tfp


class SplitResults(NamedTuple):
    """What a Metropolis-Hastings step asks of a proposal, and the gradient at its end."""

    log_acceptance_correction: object
    target_log_prob: object
    grads_target_log_prob: object


class SplitHMC(tfp.mcmc.TransitionKernel):
    """Proposals for `metropolis`; chains are the rows of the state [C, P].

    Parameters
    ----------
    target_log_prob_fn : callable
        [C, P] -> [C].
    step_size : scalar tensor
        The angle h of a step, in radians.
    num_leapfrog_steps : scalar int tensor
        Steps of a trajectory, at least 1.
    """

    def __init__(self, target_log_prob_fn, step_size, num_leapfrog_steps):
        self.target_log_prob_fn = target_log_prob_fn
        self.step_size = step_size
        self.num_leapfrog_steps = num_leapfrog_steps

    @property
    def is_calibrated(self):
        """False: a Metropolis-Hastings step has to follow."""
        return False

    def _value_and_gradient(self, v):
        return tfp.math.value_and_gradient(self.target_log_prob_fn, v)

    def bootstrap_results(self, init_state):
        """Results at a first state."""
        value, gradient = self._value_and_gradient(init_state)
        return SplitResults(tf.zeros_like(value), value, gradient)

    def one_step(self, current_state, previous_kernel_results, seed=None):
        """Propose: (state, results)."""
        v, h = current_state, self.step_size
        first = antithetic(tf.random.stateless_normal(v.shape, seed, dtype=v.dtype))
        cosine, sine = tf.cos(h), tf.sin(h)

        def turn(v, momentum):
            return cosine * v + sine * momentum, cosine * momentum - sine * v

        def body(i, v, momentum):
            v, momentum = turn(v, momentum)
            # The value at inner steps is not used, and XLA does not compute it.
            _, gradient = self._value_and_gradient(v)
            return i + 1, v, momentum + h * (gradient + v)

        momentum = first + 0.5 * h * (previous_kernel_results.grads_target_log_prob + v)
        _, v, momentum = tf.while_loop(
            lambda i, *_: i < self.num_leapfrog_steps, body, (tf.constant(1), v, momentum)
        )
        v, momentum = turn(v, momentum)
        value, gradient = self._value_and_gradient(v)
        momentum += 0.5 * h * (gradient + v)
        kinetic = 0.5 * tf.reduce_sum((first - momentum) * (first + momentum), axis=1)
        return v, SplitResults(kinetic, value, gradient)


def metropolis(proposal, v, results, seed):
    """A Metropolis-Hastings step from v [C, P]: (v, `SplitResults`, acceptance probability [C]).

    As `tfp.mcmc.MetropolisHastings`, but that chains of a mirrored pair have one chance of
    acceptance between them: nearly always they go or stay together, and remain mirrored.
    """
    here, chance = tf.unstack(tf.random.experimental.stateless_split(seed))
    proposed, new = proposal.one_step(v, results, here)
    ratio = new.target_log_prob - results.target_log_prob + new.log_acceptance_correction
    ratio = tf.where(tf.math.is_finite(ratio), ratio, -np.inf * tf.ones_like(ratio))
    C = v.shape[0]
    each, shared = (C // 2, 2) if mirrored(C) else (C, 1)
    uniform = tf.tile(tf.random.stateless_uniform([each], chance, dtype=v.dtype), [shared])
    accepted = tf.math.log(uniform) < ratio
    v, results = tf.nest.map_structure(
        lambda a, b: tf.where(accepted[:, None] if len(a.shape) > 1 else accepted, a, b),
        (proposed, new),
        (v, results),
    )
    return v, results, tf.exp(tf.minimum(ratio, 0.0))


def antithetic(normal):
    """Standard normal rows [C, P], the second half the negative of the first, if `mirrored(C)`.

    Chains that start so, and move by such momenta, stay near each other's mirror images: what is
    odd about the posterior's centre has no error.
    """
    half = normal.shape[0] // 2
    if not mirrored(normal.shape[0]):
        return normal
    return tf.concat([normal[:half], -normal[:half]], axis=0)
