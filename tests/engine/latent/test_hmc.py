"""What samplers of both backends do."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from sklmm import HMC
from sklmm.engine.algorithms.start import start_theta
from sklmm.engine.latent.chains import Chains, Posterior
from sklmm.engine.latent.frame import Frame
from sklmm.engine.latent.hmc import HMCSampler, log_prob_and_gradient
from sklmm.engine.latent.whitening import Slots, tensors
from sklmm.engine.runtime.tensorflow import tf
from sklmm.engine.theta.space import Theta
from tests.engine.latent.test_complete_data import make_latent

BACKENDS = {"numpy": Chains, "tensorflow": HMCSampler}
X = pd.DataFrame({"g": np.repeat(np.arange(6), 5)})


def responses():
    """(family, y, whether float32 would do)."""
    rng = np.random.default_rng(0)
    shares = rng.beta(3, 2, len(X))
    gammas = rng.gamma(2.0, 1.0, len(X))
    edge = np.where(np.arange(len(X)) % 5 == 0, 1 - 1e-9, shares)
    yield "poisson", rng.poisson(3.0, len(X)), True
    yield "poisson", rng.poisson(1e6, len(X)), False
    yield "bernoulli", np.arange(len(X)) % 2, True
    yield "beta", shares, True
    # Values that float32 makes 1, and one that it makes 0.
    yield "beta", edge, False
    yield "gamma", gammas, True
    yield "gamma", 1e-45 * gammas, False
    yield "gamma", rng.gamma(1e6, 1e-6, len(X)), False
    yield "negative_binomial", rng.poisson(rng.gamma(1e4, 100.0, len(X))), False


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("family", "y", "single"), list(responses()))
def test_chains_have_the_precision_that_the_data_need(family, y, single, backend):
    latent = make_latent(family, X, y, ["g"])
    theta, mode = start_theta(latent)
    mode, equations = latent.mode(theta, mode)
    chains = BACKENDS[backend](HMC(n_chains=4, n_warmup=0))
    chains.place(latent, theta, equations, mode, np.random.default_rng(0))
    assert chains.v.dtype == chains.frame.centre.dtype == (np.float32 if single else np.float64)


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"a": rng.integers(120, size=500), "b": rng.integers(12, size=500)})
    return X.assign(c=rng.integers(200, size=500), x=rng.normal(size=500))


def response(family, n):
    rng = np.random.default_rng(1)
    if family in ("ordinal", "categorical"):
        return rng.integers(3, size=n)
    draws = {
        "bernoulli": partial(rng.integers, 2),
        "binomial": partial(rng.uniform, 0, 1),
        "beta": partial(rng.beta, 2, 3),
        "gamma": partial(rng.gamma, 2.0, 1.0),
        "poisson": partial(rng.poisson, 2.0),
        "negative_binomial": partial(rng.negative_binomial, 2, 0.4),
    }
    return draws.get(family, rng.normal)(size=n)


FAMILIES = (
    "bernoulli",
    "beta",
    "binomial",
    "categorical",
    "gamma",
    "gaussian",
    "negative_binomial",
    "ordinal",
    "poisson",
    "student_t",
)
TERMS = {
    "one": ["a"],
    "crossed": ["a", "c", "b"],
    "slopes": ["(1 + x | a)", "(1 + x | b)"],
    "large slopes": ["(1 + x + b | c)", "a"],
}


def placed(family, table, terms, reml=False):
    """A latent part at some theta, a frame about some centre, and chains in it."""
    rng, y = np.random.default_rng(3), response(family, len(table))
    latent = make_latent(family, table, y, terms, 1.0 + np.arange(len(table)) % 3, reml)
    factors = [np.tril(rng.uniform(0.2, 0.6, (b.r, b.r))) for b in latent.problem.blocks]
    beta, raw = np.full(latent.space.p, 0.1), np.full(len(latent.like.names), 0.2)
    theta = Theta(beta, tuple(factors), raw)
    mode = rng.normal(size=latent.layout.size) * latent.layout.real / 4
    equations = latent.equations(theta, latent.gradient(theta, mode[:, None])[2])
    v = np.random.default_rng(2).normal(size=(len(mode), 4)) * latent.layout.real[:, None]
    return SimpleNamespace(
        latent=latent, theta=theta, frame=Frame.of(equations, mode), v=v, equations=equations
    )


@pytest.mark.parametrize("reml", [False, True])
@pytest.mark.parametrize("terms", TERMS)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_target_is_the_log_density_and_its_gradient(family, terms, reml, table):
    """Beside the sums of rows that decide."""
    at = placed(family, table, TERMS[terms], reml)
    x = at.frame.unwhiten(at.v)
    value, slope, _ = at.latent.gradient(at.theta, x)
    slope = at.frame.pull_back(slope)
    size = np.abs(slope).max()
    target = Posterior(at.latent, at.theta, at.frame)
    found, gradient = target.value_and_gradient(at.v)
    np.testing.assert_allclose(found, value, rtol=1e-11)
    np.testing.assert_allclose(gradient, slope, atol=1e-10 * size)
    np.testing.assert_allclose(target.gradient(at.v), slope, atol=1e-10 * size)
    single = Posterior(at.latent, at.theta, at.frame.astype(np.float32))
    v = at.v.astype(np.float32)
    found, gradient = single.value_and_gradient(v)
    assert gradient.dtype == np.float32
    np.testing.assert_allclose(found - found[0], value - value[0], atol=1e-5 * abs(value[0]))
    for one in (gradient, single.gradient(v)):
        np.testing.assert_allclose(one, slope, atol=2e-5 * size)


@pytest.mark.parametrize(
    ("family", "terms", "reml"),
    [("bernoulli", "crossed", False), ("ordinal", "slopes", True), ("categorical", "one", False)],
)
def test_both_backends_have_one_target(family, terms, reml, table):
    at = placed(family, table, TERMS[terms], reml)
    value, gradient = Posterior(at.latent, at.theta, at.frame).value_and_gradient(at.v)
    compiled, offset = at.latent.compiled, tf.constant(0.0, tf.float64)
    frame = tensors(at.frame, at.theta.factors, np.float64)
    slots = Slots(at.latent.layout)
    point, v = compiled.point(at.theta), tf.constant(slots.put(at.v).T)
    arrays = compiled.arrays(np.float64)
    found = log_prob_and_gradient(at.latent.like, arrays, point, frame, offset, v)
    np.testing.assert_allclose(found[0], value, rtol=1e-11)
    found = slots.take(found[1].numpy().T)
    np.testing.assert_allclose(found, gradient, atol=1e-9 * np.abs(gradient).max())


def test_the_frame_has_the_spread_of_the_posterior(table):
    at = placed("bernoulli", table, TERMS["slopes"], True)
    T = at.frame.turned(np.eye(len(at.v)))
    np.testing.assert_allclose(at.frame.pull_back(np.eye(len(at.v))), T.T, atol=1e-12)
    layout, own = at.latent.layout, T @ T.T
    beta, spreads = at.frame.spread()
    np.testing.assert_allclose(beta, own[: layout.p, : layout.p])
    for part, spread in zip(layout.parts, spreads, strict=True):
        J, r, _ = spread.shape
        block = own[part, part].reshape(J, r, J, r)[np.arange(J), :, np.arange(J)]
        np.testing.assert_allclose(spread, block, atol=1e-12)


def draws(sampler, at, seed, n=30):
    """Draws [n, P, C] of a few transitions each."""
    rng = np.random.default_rng(seed)
    sampler.place(at.latent, at.theta, at.equations, at.frame.centre, rng)
    return np.array([sampler.draw(at.theta, rng, 2)[0] for _ in range(n)])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_moments_are_those_of_quadrature(backend, seed):
    """Levels of one factor are independent given theta: an integral each."""
    rng = np.random.default_rng(3)
    table = pd.DataFrame({"g": np.repeat(np.arange(40), 3)})
    y = (rng.random(120) < 0.3).astype(int)
    latent = make_latent("bernoulli", table, y, ["g"])
    theta, mode = start_theta(latent)
    theta = theta._replace(factors=(np.array([[1.5]]),))
    mode, equations = latent.mode(theta, mode)
    at = SimpleNamespace(
        latent=latent, theta=theta, equations=equations, frame=Frame.of(equations, mode)
    )
    x = draws(BACKENDS[backend](HMC(n_chains=32)), at, seed)[:, :40]
    u = np.linspace(-8, 8, 2001)
    eta = (latent.rows.X @ theta.beta)[0] + 1.5 * u[:, None]
    ones, count = np.bincount(table["g"], y), np.bincount(table["g"])
    log_p = ones * eta - count * np.logaddexp(0, eta) - u[:, None] ** 2 / 2
    p = np.exp(log_p - log_p.max(axis=0))
    p /= p.sum(axis=0)
    for power in (1, 2, 3):
        expected = (u[:, None] ** power * p).sum(axis=0)
        seen = x**power
        # Chains are independent but for pairs; a level's own error from them.
        pairs = (seen.mean(axis=0)[:, :16] + seen.mean(axis=0)[:, 16:]) / 2
        z = (pairs.mean(axis=1) - expected) / (pairs.std(axis=1, ddof=1) / 4)
        assert np.abs(z).max() < 5.5
        assert 0.5 < np.sqrt(np.mean(z**2)) < 1.6


def test_draws_are_the_same_for_any_number_of_threads(table, monkeypatch):
    monkeypatch.setattr("sklmm.engine.rows.blocked.BYTES", 0)
    monkeypatch.setattr("sklmm.engine.rows.blocked.WHOLE", 0)
    monkeypatch.setattr("sklmm.engine.rows.blocked.FEWEST", 64)
    found = []
    for count in (1, 2):
        monkeypatch.setattr("sklmm._threads.n_threads", lambda count=count: count)
        at = placed("poisson", table, TERMS["crossed"])
        found.append(draws(Chains(HMC()), at, 0, 3))
    np.testing.assert_array_equal(*found)
