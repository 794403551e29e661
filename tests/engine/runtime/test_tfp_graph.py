import numpy as np
import pytest

from sklmm import Gaussian, MixedEffectsRegressor
from sklmm.datasets import load_sleepstudy
from sklmm.design.design import DesignSpec
from sklmm.design.terms import resolve_terms
from sklmm.engine.latent import hmc
from sklmm.engine.latent.frame import Frame
from sklmm.engine.latent.mode import Latent
from sklmm.engine.latent.whitening import Slots, tensors, unwhiten
from sklmm.engine.likelihood.likelihood import Likelihood
from sklmm.engine.rows.standardize import standardize
from sklmm.engine.runtime.tensorflow import tf
from sklmm.engine.runtime.tfp_graph import joint_distribution
from sklmm.engine.theta.space import Theta

FACTOR = np.array([[0.9, 0.0], [0.2, 0.4]])
SIGMA = 0.8


@pytest.fixture(scope="module", params=[True, False], ids=["reml", "ml"])
def latent(request):
    """sleepstudy's latent variables: (beta, u) under REML, u alone otherwise."""
    X, y = load_sleepstudy(return_X_y=True, as_frame=True)
    _, design = DesignSpec.learn(X, resolve_terms(["(1 + Days | Subject)"]), ["Days"], True)
    problem = standardize(
        design, y.to_numpy(float), np.ones(len(y)), fit_intercept=True, reml=request.param
    )
    return Latent(problem, Likelihood.of(Gaussian()), {"sigma": "positive"})


@pytest.fixture(scope="module")
def theta(latent):
    return Theta(np.array([0.3, -0.2])[: latent.space.p], (FACTOR,), np.log([SIGMA]))


@pytest.fixture(scope="module")
def target(latent, theta):
    """The chains' log density as a function of v [C, P], and their frame."""
    mode, equations = latent.mode(theta, np.zeros(latent.layout.size))
    frame = tensors(Frame.of(equations, mode), equations.factors, np.float64)
    offset = tf.constant(0.0, tf.float64)

    def at(v):
        arguments = (
            latent.like,
            latent.compiled.arrays(np.float64),
            latent.compiled.point(theta),
            frame,
            offset,
        )
        return hmc.target(*arguments)(tf.constant(v))

    return at, frame


def test_model_graph_says_that_y_depends_on_every_term():
    X, y = load_sleepstudy(return_X_y=True, as_frame=True)
    model = MixedEffectsRegressor(["(1 + Days || Subject)"]).fit(X, y)
    graph = dict(model.model_graph())
    assert set(graph) == {"Subject", "y"}
    assert set(graph["y"]) == {"Subject"}
    assert graph["Subject"] == ()


def test_whitened_target_is_the_joint_distribution_up_to_a_constant(latent, theta, target):
    at, frame = target
    problem, layout, p = latent.full, latent.layout, latent.problem.p
    slots = Slots(layout)
    v = np.random.default_rng(0).standard_normal((5, slots.size))
    # Padding is outside the model: the same in every chain.
    assert slots.size > layout.size
    v[:, frame.padding[:, 0] == 1] = 0.0
    value = at(v).numpy()

    beta, (u,) = layout.split(slots.take(unwhiten(frame, p, tf.constant(v.T)).numpy()))
    if not problem.reml:
        beta = np.tile(theta.beta[:, None], 5)
    rows = problem.rows
    joint = []
    for chain in range(5):
        distribution = joint_distribution(
            ["b"],
            tf.constant(rows.X),
            [tf.constant(rows.refs[0])],
            [tf.constant(rows.z[0])],
            list(rows.levels),
            tf.constant(beta[:, chain]),
            [tf.constant(FACTOR)],
            tf.constant(SIGMA, tf.float64),
        )
        b = u[:, :, chain] @ FACTOR.T
        joint.append(float(distribution.log_prob({"b": b, "y": rows.y})))
    np.testing.assert_allclose(value - value[0], np.array(joint) - joint[0], rtol=1e-9)


def test_whitened_score_is_the_gradient_of_the_target(latent, target):
    at, _ = target
    v = np.random.default_rng(1).standard_normal((2, Slots(latent.layout).size))
    with tf.GradientTape() as tape:
        x = tf.constant(v)
        tape.watch(x)
        value = at(x)
    score = tape.gradient(value, x).numpy()
    for j in range(0, v.shape[1], 7):
        step = np.zeros_like(v)
        step[:, j] = 1e-4
        difference = at(v + step).numpy() - at(v - step).numpy()
        np.testing.assert_allclose(score[:, j], difference / 2e-4, rtol=1e-5, atol=1e-6)
