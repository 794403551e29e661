import numpy as np
import pytest

from sklmm import MixedEffectsRegressor
from sklmm.datasets import load_sleepstudy
from sklmm.design import DesignSpec, resolve_terms
from sklmm.engine.e_step.base import Params
from sklmm.engine.e_step.hmc import HMCKernel, log_density, unwhiten
from sklmm.engine.model import joint_distribution
from sklmm.engine.problem import standardize
from sklmm.engine.xla import tf


@pytest.fixture(scope="module")
def problem():
    X, y = load_sleepstudy(return_X_y=True, as_frame=True)
    _, design = DesignSpec.learn(X, resolve_terms(["(1 + Days | Subject)"]), ["Days"], True)
    return standardize(design, y.to_numpy(float), np.ones(len(y)), fit_intercept=True, reml=True)


def test_model_graph_says_that_y_depends_on_every_term():
    X, y = load_sleepstudy(return_X_y=True, as_frame=True)
    model = MixedEffectsRegressor(["(1 + Days || Subject)"]).fit(X, y)
    graph = dict(model.model_graph())
    assert set(graph) == {"Subject", "Subject_Days", "y"}
    assert set(graph["y"]) == {"Subject", "Subject_Days"}
    assert graph["Subject"] == ()


def test_whitened_target_is_the_joint_distribution_up_to_a_constant(problem):
    factor = np.array([[0.9, 0.0], [0.2, 0.4]])
    params = Params((factor,), 0.8)
    kernel = HMCKernel(n_chains=5)
    state = kernel.init(problem, 0)
    frame = kernel._frame(params, state)
    v = np.random.default_rng(0).standard_normal((5, state.layout.size))
    # Padding is outside the model: the same in every chain.
    _, real = state.layout.split(np.arange(state.layout.size, dtype=float)[:, None])
    padded = np.setdiff1d(
        np.arange(problem.p, v.shape[1]), np.concatenate([r.ravel() for r in real])
    )
    v[:, padded] = 0.0
    target = log_density(state.data, frame, tf.constant(v)).numpy()

    beta, (u,) = state.layout.split(unwhiten(state.data, frame, tf.constant(v.T)))
    block = problem.blocks[0]
    joint = []
    for chain in range(5):
        distribution = joint_distribution(
            ["b"],
            tf.constant(problem.X),
            [tf.constant(block.refs)],
            [tf.constant(block.z)],
            [block.n_levels],
            tf.constant(beta[:, chain]),
            [tf.constant(factor)],
            tf.constant(params.sigma, tf.float64),
        )
        b = u[:, :, chain] @ factor.T
        joint.append(float(distribution.log_prob({"b": b, "y": problem.y})))
    np.testing.assert_allclose(target - target[0], np.array(joint) - joint[0], rtol=1e-9)


def test_whitened_score_is_the_gradient_of_the_target(problem):
    params = Params((np.array([[0.9, 0.0], [0.2, 0.4]]),), 0.8)
    kernel = HMCKernel(n_chains=2)
    state = kernel.init(problem, 0)
    frame = kernel._frame(params, state)
    v = np.random.default_rng(1).standard_normal((2, state.layout.size))
    with tf.GradientTape() as tape:
        x = tf.constant(v)
        tape.watch(x)
        value = log_density(state.data, frame, x)
    score = tape.gradient(value, x).numpy()
    for j in range(0, v.shape[1], 7):
        step = np.zeros_like(v)
        step[:, j] = 1e-4
        up = log_density(state.data, frame, tf.constant(v + step)).numpy()
        down = log_density(state.data, frame, tf.constant(v - step)).numpy()
        np.testing.assert_allclose(score[:, j], (up - down) / 2e-4, rtol=1e-5, atol=1e-6)
