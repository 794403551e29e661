"""The complete-data score: unbiased by Stein's identity, and exact where theory says so."""

import numpy as np
import pandas as pd
import pytest

from sklmm import families
from sklmm.design.design import DesignSpec
from sklmm.design.terms import resolve_terms
from sklmm.engine.equations import layout as unknowns
from sklmm.engine.latent import compiled as compiled_latent
from sklmm.engine.latent import complete_data as complete
from sklmm.engine.latent.mode import Latent
from sklmm.engine.latent.reparametrization import move
from sklmm.engine.likelihood.likelihood import Likelihood
from sklmm.engine.linalg.newton import STEP
from sklmm.engine.rows.standardize import stacked, standardize
from sklmm.engine.runtime.tensorflow import tf
from sklmm.engine.theta.space import Theta
from tests.simulate import PARAMETERS


def make_latent(family, table, y, terms, weights=None, reml=False, **options):
    family = families.resolve_family(family)
    response = family.bind(y, np.ones(len(y)) if weights is None else weights)
    _, design = DesignSpec.learn(table, resolve_terms(terms), None, True)
    problem = standardize(
        design, response.y, response.weights, fit_intercept=True, reml=reml, scale_y=False
    )
    problem = stacked(problem, response.n_predictors)
    likelihood = Likelihood.of(family, response.n_classes)
    return Latent(problem, likelihood, response.parameters, **options)


@pytest.fixture(autouse=True)
def eager(monkeypatch):
    """Without compiling: every test has shapes of its own."""
    plain = complete.complete_scores.python_function
    monkeypatch.setattr(compiled_latent, "complete_scores", plain)


def still(field):
    """The field that moves nothing."""
    zero = tf.nest.map_structure(tf.zeros_like, field._replace(terms=(), centre=()))
    return zero._replace(terms=field.terms, centre=field.centre)


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "g": rng.permutation(np.arange(96) % 12),
            "h": rng.permutation(np.arange(96) % 7),
            "x": rng.normal(size=96),
            "s": rng.normal(size=96),
        }
    )


THETA = {
    "gaussian": [np.log(0.8)],
    "student_t": [np.log(0.8), np.log(6.0)],
    "negative_binomial": [np.log(0.4)],
    "gamma": [np.log(2.0)],
    "beta": [np.log(8.0)],
    "ordinal": np.log([0.9, 1.2]),
}


def response(name, rng, n=96):
    return {
        "gaussian": lambda: rng.normal(size=n),
        "student_t": lambda: rng.standard_t(4, size=n),
        "poisson": lambda: rng.poisson(2.0, n),
        "negative_binomial": lambda: rng.poisson(rng.gamma(1.0, 2.0, n)),
        "gamma": lambda: rng.gamma(2.0, 1.0, n),
        "beta": lambda: rng.beta(2.0, 3.0, n),
        "bernoulli": lambda: rng.integers(2, size=n),
        "binomial": lambda: rng.integers(5, size=n) / 4,
        "ordinal": lambda: rng.integers(4, size=n),
        "categorical": lambda: rng.integers(3, size=n),
    }[name]()


def theta_for(latent, name):
    factors = [np.array([[0.6]]), np.array([[0.5, 0.0], [0.2, 0.4]])]
    sizes = [b.r for b in latent.full.blocks]
    beta = np.zeros(0) if latent.full.reml else np.linspace(-0.3, 0.3, latent.full.p)
    return Theta(beta, tuple(factors[r - 1] for r in sizes), np.asarray(THETA.get(name, [])))


FAMILIES = list(PARAMETERS)


@pytest.mark.parametrize("reml", [False, True])
@pytest.mark.parametrize("name", FAMILIES)
def test_score_is_the_derivative_of_the_moved_log_density(table, name, reml):
    """The tape's score in theta at fixed v against differences of log p(y, u_theta(v)) + log|J|."""
    rng = np.random.default_rng(1)
    terms = ["(1 | h)", "(1 + s | g)"]
    latent = make_latent(name, table, response(name, rng), terms, reml=reml)
    theta = theta_for(latent, name)
    mode, equations = latent.mode(theta, np.zeros(latent.layout.size))
    field = latent.field(theta, equations, mode)
    x = mode[:, None] + equations.draws(rng, 3)
    _, score = latent.compiled.scores(theta, field, x)
    for i, e in enumerate(np.eye(latent.space.size)):
        h = 1e-5 * np.repeat(e[:, None], 3, axis=1)
        up, _ = latent.compiled.scores(theta, field, x, h)
        down, _ = latent.compiled.scores(theta, field, x, -h)
        np.testing.assert_allclose((up - down) / 2e-5, score[i], rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("few", [unknowns.FEW, 8])
@pytest.mark.parametrize("name", FAMILIES)
def test_control_variate_has_mean_zero(table, name, few, monkeypatch):
    """Moved and unmoved scores differ by E[div f + f . grad log p] = 0, here under the prior.

    With weights near 0 the posterior is the prior, from which exact draws are free. The field is
    of another theta and about another centre; g is of the border, or has too many levels for it.
    """
    monkeypatch.setattr(unknowns, "FEW", few)
    rng = np.random.default_rng(2)
    y = response(name, rng)
    latent = make_latent(name, table, y, ["(1 | h)", "(1 + s | g)"], weights=np.full(96, 1e-9))
    theta = theta_for(latent, name)
    fake = latent.equations(theta, np.repeat(0.3, latent.n_rows))
    field = latent.field(theta, fake, rng.normal(size=latent.layout.size) * latent.layout.real)
    away = theta._replace(factors=tuple(1.3 * L for L in theta.factors))
    n = 4000
    x = rng.standard_normal((latent.layout.size, n)) * latent.layout.real[:, None]
    _, moved = latent.compiled.scores(away, field, x)
    _, unmoved = latent.compiled.scores(away, still(field), x)
    difference = moved - unmoved
    error = difference.std(axis=1) / np.sqrt(n)
    assert difference.std(axis=1).max() > 0.1
    assert np.all(np.abs(difference.mean(axis=1)) < 4.5 * error + 1e-7)


@pytest.mark.parametrize("few", [unknowns.FEW, 8])
def test_gaussian_scores_have_no_noise(table, dense_model, few, monkeypatch):
    """One grouping factor: every draw gives the marginal log-likelihood's gradient."""
    monkeypatch.setattr(unknowns, "FEW", few)
    rng = np.random.default_rng(3)
    y = rng.normal(size=96) + 0.8 * rng.normal(size=12)[table["g"]]
    latent = make_latent("gaussian", table[["g", "x"]], y, ["g"])
    theta = theta_for(latent, "gaussian")
    mode, equations = latent.mode(theta, np.zeros(latent.layout.size))
    field = latent.field(theta, equations, mode)
    x = mode[:, None] + rng.normal(size=(latent.layout.size, 5)) * latent.layout.real[:, None]
    _, score = latent.compiled.scores(theta, field, x)
    rows = latent.full.rows

    def loglik(flat):
        beta, (L,), raw = latent.space.split(flat)
        term = (rows.refs[0], rows.z[0], L @ L.T, rows.levels[0])
        model = dense_model(rows.X, y, [term], np.exp(raw[0]))
        residual = y - rows.X @ beta
        return -0.5 * (np.linalg.slogdet(model.V)[1] + residual @ model.Vi @ residual)

    flat = latent.space.join(theta)
    expected = [(loglik(flat + h) - loglik(flat - h)) / 2e-5 for h in 1e-5 * np.eye(len(flat))]
    # sigma moves the effects' spread too, which the field leaves out: noise, and no bias.
    np.testing.assert_allclose(score[:-1], np.repeat(expected[:-1], 5).reshape(-1, 5), rtol=1e-5)
    draws = mode[:, None] + equations.draws(rng, 4000)
    h = np.array([0.0, 0.0, 1e-3, 0.0])
    curvature = (2 * loglik(flat) - loglik(flat + h) - loglik(flat - h)) / 1e-6
    found = latent.compiled.information(theta, field, draws)
    assert found[2, 2] == pytest.approx(curvature, rel=0.03)


@pytest.mark.parametrize("few", [unknowns.FEW, 8, 0])
def test_jacobian_of_the_motion(table, few, monkeypatch):
    """The determinant of x(v), to second order in delta, against the dense one."""
    monkeypatch.setattr(unknowns, "FEW", few)
    latent = make_latent("poisson", table, np.ones(96), ["(1 | h)", "(1 + s | g)"], reml=True)
    theta = theta_for(latent, "poisson")
    mode, equations = latent.mode(theta, np.zeros(latent.layout.size))
    field = latent.field(theta, equations, mode)
    P, rng = latent.layout.size, np.random.default_rng(6)
    columns = mode[:, None] + np.concatenate([np.eye(P), np.zeros((P, 1))], axis=1)

    def error(delta):
        delta = tf.constant(np.repeat(delta[:, None], P + 1, axis=1))
        _, _, _, changes = complete._changes(latent.compiled.point(theta), delta)
        moved, log_det = move(field, changes, tf.constant(columns), delta, latent.problem.p)
        sign, expected = np.linalg.slogdet((moved[:, :-1] - moved[:, -1:]).numpy())
        assert sign == 1
        return abs(log_det[0].numpy() - expected)

    for _ in range(3):
        delta = 0.01 * rng.standard_normal(latent.space.size)
        # Of third order: an eighth at half the distance.
        assert error(delta / 2) == pytest.approx(error(delta) / 8, rel=0.25)


def test_moved_scores_are_less_noisy(table):
    rng = np.random.default_rng(4)
    latent = make_latent("poisson", table[["g", "h", "x"]], response("poisson", rng), ["g", "h"])
    theta = theta_for(latent, "poisson")
    mode, equations = latent.mode(theta, np.zeros(latent.layout.size))
    field = latent.field(theta, equations, mode)
    x = mode[:, None] + equations.draws(rng, 400)
    _, moved = latent.compiled.scores(theta, field, x)
    _, unmoved = latent.compiled.scores(theta, still(field), x)
    assert np.all(moved.var(axis=1) < 0.6 * unmoved.var(axis=1))
    assert np.all(moved.var(axis=1)[:2] < 0.1 * unmoved.var(axis=1)[:2])


def test_information_is_minus_the_scores_derivative(table):
    rng = np.random.default_rng(5)
    latent = make_latent("ordinal", table[["g", "x"]], response("ordinal", rng), ["g"])
    theta = theta_for(latent, "ordinal")
    mode, equations = latent.mode(theta, np.zeros(latent.layout.size))
    field = latent.field(theta, equations, mode)
    x = mode[:, None] + equations.draws(rng, 6)
    found = latent.compiled.information(theta, field, x)
    m = latent.space.size
    expected = np.zeros((m, m))
    for i, e in enumerate(np.eye(m)):
        h = STEP * np.repeat(e[:, None], 6, axis=1)
        up = complete_scores_mean(latent, theta, field, x, h)
        down = complete_scores_mean(latent, theta, field, x, -h)
        expected[:, i] = (down - up) / (2 * STEP)
    p = latent.space.p
    np.testing.assert_allclose(
        found[p:, p:], (expected[p:, p:] + expected[p:, p:].T) / 2, rtol=1e-6
    )
    np.testing.assert_allclose(found[:p, :p], expected[:p, :p], rtol=0.2, atol=0.5)


def complete_scores_mean(latent, theta, field, x, delta):
    return latent.compiled.scores(theta, field, x, delta)[1].mean(axis=1)
