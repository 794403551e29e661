"""Split HMC of any target: moments by quadrature, and what is exact."""

import numpy as np
import pytest

from sklmm.engine.latent.transitions import State, antithetic, transitions
from tests.engine.latent.skewed import assert_moments, log_density


class Skewed:
    """Independent unknowns, all alike."""

    def __init__(self, wiggle=0.5):
        self.wiggle = wiggle

    def value_and_gradient(self, v):
        return log_density(v, wiggle=self.wiggle).sum(axis=0, dtype=float), self.gradient(v)

    def gradient(self, v):
        return (-v - 0.4 * v**3 + self.wiggle * np.cos(v)).astype(v.dtype)


class Normal:
    def value_and_gradient(self, v):
        return -0.5 * (v**2).sum(axis=0, dtype=float), -v

    def gradient(self, v):
        return -v


def run(target, step, lengths, n, chains=200, unknowns=5, seed=0):
    """States [n, P, C] after each transition, and the mean acceptance."""
    rng = np.random.default_rng(seed)
    state = State.at(target, antithetic(rng, unknowns, chains, np.float32))
    states, rates = [], []
    for _ in range(n):
        state, rate = transitions(target, state, step, lengths, rng, 1)
        states.append(state.v)
        rates.append(rate)
        value, gradient = target.value_and_gradient(state.v)
        np.testing.assert_array_equal(state.value, value)
        np.testing.assert_array_equal(state.gradient, gradient)
    return np.array(states), np.mean(rates)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("step", "lengths"), [(0.4, (2, 4)), (0.9, (1, 2)), (1.2, (1, 1))])
def test_moments_by_quadrature(step, lengths, seed):
    states, rate = run(Skewed(), step, lengths, 150, seed=seed)
    assert 0.3 < rate < 0.999
    states = states[10:].reshape(140, 5, 2, 100)
    assert_moments(states, axes=(0, 2))


def test_a_normal_target_is_followed_exactly():
    states, rate = run(Normal(), 0.7, (2, 2), 5, 64, 3)
    assert rate == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(states[:, :, 32:], -states[:, :, :32], atol=1e-5)


def test_pairs_are_accepted_together():
    """Chains of a symmetric posterior remain mirror images, though many proposals are rejected."""
    states, rate = run(Skewed(0.0), 1.2, (2, 2), 20, 64, 3, 2)
    assert 0.3 < rate < 0.95
    np.testing.assert_allclose(states[:, :, 32:], -states[:, :, :32], atol=1e-4)


def test_what_is_not_free_stays():
    rng, free = np.random.default_rng(0), np.array([True, False, True])
    start = rng.normal(size=(3, 8)) * free[:, None]
    state, _ = transitions(Normal(), State.at(Normal(), start), 0.5, (1, 3), rng, 4, free)
    assert (state.v[1] == 0).all()
    assert (state.v[0] != start[0]).all()


def test_what_is_not_finite_is_rejected():
    class Broken(Normal):
        def value_and_gradient(self, v):
            value, gradient = super().value_and_gradient(v)
            return np.where(v[0] > 0, np.nan, value), gradient

    rng = np.random.default_rng(0)
    state = State.at(Broken(), -np.abs(rng.normal(size=(1, 6))))
    state, rate = transitions(Broken(), state, 1.0, (2, 3), rng, 20)
    assert (state.v[0] <= 0).all()
    assert 0 < rate < 1


def test_an_odd_number_of_chains_has_no_pairs():
    normal = antithetic(np.random.default_rng(0), 2, 3, np.float64)
    assert len(set(np.abs(normal).ravel())) == 6
