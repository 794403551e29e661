import numpy as np
import pytest

from sklmm.engine.latent.split_hmc import SplitHMC, antithetic, metropolis
from sklmm.engine.runtime.tensorflow import tf
from tests.engine.latent.skewed import assert_moments, log_density


def run(target, v, step, n_leapfrogs, n_transitions):
    """States after each of the transitions, and the acceptance rate."""
    proposal = SplitHMC(target, tf.constant(step), tf.constant(n_leapfrogs))

    @tf.function(jit_compile=True)
    def transition(v, seed):
        new, _, _ = metropolis(proposal, v, proposal.bootstrap_results(v), seed)
        return new, tf.reduce_any(new != v, axis=1)

    states, accepted = [], []
    for t in range(n_transitions):
        v, here = transition(v, tf.constant([7, t]))
        states.append(v.numpy())
        accepted.append(here.numpy().mean())
    return np.array(states), np.mean(accepted)


@pytest.mark.parametrize(("step", "n_leapfrogs"), [(0.4, 4), (0.9, 2), (1.4, 1)])
def test_moments_by_quadrature(step, n_leapfrogs):
    rng = np.random.default_rng(0)
    start = antithetic(tf.constant(rng.standard_normal((200, 5)), tf.float32))
    target = lambda v: tf.reduce_sum(log_density(v, tf.sin), axis=1)  # noqa: E731
    states, rate = run(target, start, step, n_leapfrogs, 150)
    assert 0.3 < rate < 0.999
    states = states[10:].reshape(140, 2, 100, 5)
    assert_moments(states, axes=(0, 1))


def test_a_normal_target_is_followed_exactly():
    rng = np.random.default_rng(1)
    start = tf.constant(rng.standard_normal((64, 3)), tf.float32)
    target = lambda v: -0.5 * tf.reduce_sum(v**2, axis=1)  # noqa: E731
    states, rate = run(target, start, np.pi / 4, 2, 1)
    assert rate == 1
    # A quarter turn: nothing of where it began, and pairs of opposite sign.
    assert abs(np.corrcoef(states[0].ravel(), start.numpy().ravel())[0, 1]) < 0.25
    np.testing.assert_allclose(states[0, 32:], -states[0, :32], atol=1e-5)


def test_pairs_are_accepted_together():
    """Chains of a symmetric posterior remain mirror images, though many proposals are rejected."""
    start = antithetic(tf.constant(np.random.default_rng(2).normal(size=(64, 3)), tf.float32))
    target = lambda v: -tf.reduce_sum(0.5 * v**2 + 0.2 * v**4, axis=1)  # noqa: E731
    states, rate = run(target, start, 1.2, 2, 20)
    assert 0.3 < rate < 0.9
    np.testing.assert_allclose(states[-1, 32:], -states[-1, :32], atol=1e-4)


def test_an_odd_number_of_chains_has_no_pairs():
    normal = tf.constant([[1.0], [2.0], [3.0]])
    assert antithetic(normal) is normal
