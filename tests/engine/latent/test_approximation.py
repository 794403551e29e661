"""Dense equations and exact gradients give what conjugate gradients and compiled steps give."""

import numpy as np
import pandas as pd
import pytest

from sklmm import CustomFamily, MixedEffectsRegressor, Poisson
from sklmm.engine.algorithms.laplace import Laplace, told
from sklmm.engine.latent.approximation import REPLICATES, Approximation
from sklmm.engine.latent.mode import Latent
from sklmm.engine.limits import FACTORISED
from tests.engine.latent.test_complete_data import THETA, make_latent, response, theta_for

TERMS = ["(1 | h)", "(1 + s | g)"]


@pytest.fixture(autouse=True)
def uncompiled(request):
    """The compiled steps' formulas; a custom family's gradient of Laplace's is a graph's."""
    if "custom" not in request.node.name:
        request.getfixturevalue("eagerly")


def laplace(eta, scale):
    import tensorflow_probability as tfp

    return tfp.distributions.Laplace(eta, scale)


def logistic(eta, scale):
    import tensorflow_probability as tfp

    return tfp.distributions.Logistic(eta, scale)


def pair(name, reml, rng, function=laplace, **options):
    """The same latent part in NumPy and compiled, and a theta."""
    table = pd.DataFrame(
        {"g": rng.permutation(96) % 20, "h": rng.permutation(96) % 7, "s": rng.normal(size=96)}
    )
    family, key = (
        (CustomFamily(function, scale="positive"), "gaussian")
        if name == "custom"
        else (
            name,
            name,
        )
    )
    latent = make_latent(
        family, table, response(key, rng), TERMS, rng.integers(1, 4, 96), reml, **options
    )
    compiled = Latent(latent.full, latent.like, latent.space.parameters)
    compiled.whole = compiled.approximated = False
    theta = theta_for(latent, key)
    return latent, compiled, theta._replace(raw=np.asarray(THETA.get(key, []), float))


@pytest.mark.parametrize(
    ("name", "reml"),
    [("poisson", False), ("negative_binomial", True), ("categorical", False), ("custom", False)],
)
def test_gradients_and_solutions(name, reml, monkeypatch):
    rng = np.random.default_rng(0)
    latent, compiled, theta = pair(name, reml, rng)
    # The other one by conjugate gradients, terms of few levels too.
    monkeypatch.setattr("sklmm.engine.equations.crossproducts.FEW", 0)
    monkeypatch.setitem(FACTORISED, "solves", (-1, np.inf))
    monkeypatch.setattr("sklmm.engine.equations.mixed_model.SOLVE_TOL", 1e-12)
    P, m = latent.layout.size, latent.space.size
    x = 0.3 * rng.normal(size=(P, m)) * latent.layout.real[:, None]
    delta = 0.1 * rng.normal(size=(m, m))
    delta[:, 0] = 0.0
    # A custom density is expanded about delta = 0, whatever x.
    delta *= name != "custom"
    _, gradient, _ = latent.gradient(theta, x, delta)
    h = 1e-5 * latent.layout.real[:, None] * rng.normal(size=(P, m))
    up, down = (latent.gradient(theta, x + c * h, delta)[0] for c in (1, -1))
    np.testing.assert_allclose(2 * (gradient * h).sum(axis=0), up - down, rtol=1e-4, atol=1e-9)
    mode, equations = latent.mode(theta, np.zeros(P))
    other, theirs = compiled.mode(theta, np.zeros(P))
    np.testing.assert_allclose(mode, other, atol=1e-6)
    np.testing.assert_allclose(equations.solve(x), theirs.solve(x), atol=1e-6)
    np.testing.assert_allclose(equations.apply(x), theirs.apply(x), atol=1e-6)
    real = latent.layout.real
    inverse = equations.solve(np.eye(P)[:, real])[real]
    draws = equations.draws(rng, 4 * P)[real]
    np.testing.assert_allclose(draws @ draws.T / (4 * P), inverse, atol=1e-9)
    np.testing.assert_allclose(draws.mean(axis=1), 0, atol=1e-12)
    _, log_det = np.linalg.slogdet(inverse)
    assert equations.log_det() == pytest.approx(-log_det, rel=1e-9)
    # A solve that ends at its limit of iterations tells so.
    assert theirs.unsolved == 0
    monkeypatch.setattr("sklmm.engine.equations.mixed_model.MAX_SOLVE", 0)
    theirs = compiled.equations(theta, theirs.weights)
    theirs.solve(x)
    assert theirs.unsolved == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("name", "reml"), [("poisson", False), ("negative_binomial", True), ("custom", False)]
)
def test_draws_tell_the_gradient(name, reml, monkeypatch):
    """That of an exact inverse, within their own error, by conjugate gradients."""
    latent, _, theta = pair(name, reml, np.random.default_rng(0), logistic, direct=True)
    exact = Approximation(latent, theta, latent.top(theta, np.zeros(latent.layout.size)))
    monkeypatch.setitem(FACTORISED, "gradient", (-1, np.inf))
    latent.whole = latent.approximated = False
    drawn = Approximation(latent, theta, latent.top(theta, exact.mode), (0, 4000))
    assert not drawn.equations.factorised
    error = np.std(drawn.replicates(), axis=1, ddof=1) / np.sqrt(REPLICATES)
    np.testing.assert_allclose(drawn.score, exact.score, atol=5 * error.max(), rtol=1e-3)
    assert error.max() < 0.05
    np.testing.assert_allclose(drawn.shift(), exact.shift(), atol=1e-5)
    joint = drawn.joint - 0.5 * drawn.equations.log_det()
    assert joint == pytest.approx(exact.loglik, abs=5 * drawn.equations.log_det_error + 1e-3)


def test_a_custom_familys_gradient_is_the_log_likelihoods_derivative():
    latent, _, theta = pair("custom", False, np.random.default_rng(0), logistic, direct=True)
    space, mode = latent.space, np.zeros(latent.layout.size)
    flat, h = space.join(theta), 1e-4

    def seen(flat):
        theta = space.split(flat)
        return Approximation(latent, theta, latent.top(theta, mode))

    slope = [
        (seen(flat + e).loglik - seen(flat - e).loglik) / (2 * h) for e in h * np.eye(len(flat))
    ]
    np.testing.assert_allclose(seen(flat).score, slope, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "reml"), [("poisson", False), ("negative_binomial", True), ("ordinal", False)]
)
def test_information_is_laplaces_curvature(name, reml):
    latent, _, theta = pair(name, reml, np.random.default_rng(0), direct=True)
    algorithm = Laplace(latent, 1e-3, 0)
    algorithm.mode = np.zeros(latent.layout.size)
    here = algorithm._begin(theta)
    ours, h = told(here, algorithm._chart(here), algorithm._measured(here)), 3e-3
    for e in np.random.default_rng(1).normal(size=(5, len(here.flat))):
        up, middle, down = (algorithm._point(here.flat + c * e).loglik for c in (h, 0, -h))
        assert e @ ours @ e == pytest.approx((2 * middle - up - down) / h**2, rel=1e-3)


def test_large_counts_have_their_standard_errors():
    """Of log densities of 1e7 no difference is to be taken: six levels' means are the model."""
    rng = np.random.default_rng(0)
    g, b = np.arange(60) % 6, rng.normal(size=6)
    y = rng.poisson((1e3 * (1 + 0.1 * b[g])) ** 2)
    model = MixedEffectsRegressor(["g"], family=Poisson(link="sqrt"), e_step="laplace")
    model.fit(pd.DataFrame({"g": g}), y)
    assert model.converged_
    sd = model.variance_components_["sd"][0]
    assert model.fixed_effects_["std_error"].iloc[0] == pytest.approx(sd / np.sqrt(6), rel=0.02)
    assert model.variance_components_["std_error"][0] == pytest.approx(sd / np.sqrt(12), rel=0.02)


@pytest.mark.parametrize("name", ["poisson", "negative_binomial", "categorical"])
def test_information_without_effects(name):
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"x": rng.normal(size=96)})
    latent = make_latent(name, table, response(name, rng), [], rng.integers(1, 4, 96), False)
    algorithm, h = Laplace(latent, 1e-3, 0), 1e-3
    algorithm.mode = np.zeros(0)
    here = algorithm._begin(theta_for(latent, name))
    ours = told(here, algorithm._chart(here), algorithm._measured(here))
    for e in np.random.default_rng(1).normal(size=(5, len(here.flat))):
        up, middle, down = (algorithm._point(here.flat + c * e).loglik for c in (h, 0, -h))
        assert e @ ours @ e == pytest.approx((2 * middle - up - down) / h**2, rel=1e-4)


def test_equations_that_are_singular_to_working_precision_are_solved_as_far_as_known():
    rng = np.random.default_rng(1)
    latent, _, theta = pair("poisson", True, rng)
    X = latent.problem.rows.X
    X[:, -1] = X[:, 0]
    _, equations = latent.mode(theta, np.zeros(latent.layout.size))
    right = equations.apply(rng.normal(size=(latent.layout.size, 2)))
    assert np.isfinite(equations.solve(right)).all()
