"""The integral beside the trapezoidal rule on a grid, which knows nothing of modes."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.special import logsumexp

from sklmm.engine.latent.approximation import Approximation
from sklmm.engine.latent.points import Points, grid
from sklmm.engine.latent.quadrature import Integral
from sklmm.engine.rows.nested import nested_groups
from sklmm.engine.rows.protocol import Coefs
from tests.engine.latent.test_complete_data import make_latent, response, theta_for
from tests.simulate import PARAMETERS

#: Standard normal effects on a grid.
U, STEP = np.linspace(-7, 7, 57, retstep=True)
H = 1e-4
#: Terms by the kind of model, and those over each depth: all have two effects at most.
TERMS = {
    "intercepts": (["g"], [[0]]),
    "slopes": (["(1 + s | g)"], [[0]]),
    "independent": (["(1 + s || g)"], [[0]]),
    "two terms": (["g", "(0 + s | g)"], [[0, 1]]),
    "nested": (["(1 | h / g)"], [[0], [1]]),
    "inner slopes": (["h", "(0 + s | g)"], [[0], [1]]),
}


@pytest.fixture(scope="module")
def table():
    """Levels of g within those of h, in no order."""
    rng = np.random.default_rng(0)
    g = rng.permutation(np.arange(96) % 12)
    return pd.DataFrame({"g": g, "h": g % 4, "x": rng.normal(size=96), "s": rng.normal(size=96)})


def make(table, kind, family="poisson"):
    """(latent, theta, `Integral`) of a model."""
    terms, groups = TERMS[kind]
    y = response(family, np.random.default_rng(1))
    latent = make_latent(family, table[["g", "h", "s", "x"]], y, terms, direct=True)
    if family == "categorical":
        groups = [[2 * k + c for k in group for c in (0, 1)] for group in groups]
    assert nested_groups(latent.rows.refs, latent.rows.levels) == groups
    theta = latent.space.split(latent.space.join(theta_for(latent, family)))
    return latent, theta, Integral(latent, groups)


def on_grid(latent, theta, groups):
    """log p(y), means and variances of the finest levels' effects u, the columns of the terms."""
    rows, order = latent.rows, [k for group in groups for k in group]
    sizes = [rows.z[k].shape[1] for k in order]
    axes = [a.ravel() for a in np.meshgrid(*[U] * sum(sizes), indexing="ij")]
    N, effects = len(axes[0]), [None] * len(order)
    for k, own in zip(order, np.split(np.array(axes), np.cumsum(sizes)[:-1]), strict=True):
        effects[k] = np.tile(theta.factors[k] @ own, (rows.levels[k], 1, 1))
    coefs = Coefs(np.tile(theta.beta[:, None], N), tuple(effects))
    raw = np.tile(theta.raw[:, None], N)

    prior = -0.5 * U**2 - 0.5 * np.log(2 * np.pi) + np.log(STEP)
    y, weights = rows.observations
    found = weights[:, None] * latent.densities.by_row(y, rows.predictor(coefs), raw)[0]
    value = np.zeros((rows.levels[order[-1]], N))
    np.add.at(value, rows.refs[order[-1]][:: rows.d], found)
    if len(groups) == 1:
        value = value + sum(np.meshgrid(*[prior] * sum(sizes), indexing="ij")).ravel()
        total = logsumexp(value, axis=1)
        share = np.exp(value - total[:, None])
        means = np.array([share @ a for a in axes])
        return total.sum(), means, np.array([share @ a**2 for a in axes]) - means**2
    value = logsumexp(value.reshape(-1, len(U), len(U)) + prior, axis=2)
    parent = np.zeros(rows.levels[order[-1]], int)
    parent[rows.refs[order[-1]]] = rows.refs[order[0]]
    outer = np.zeros((rows.levels[order[0]], len(U)))
    np.add.at(outer, parent, value)
    return logsumexp(outer + prior, axis=1).sum(), None, None


CASES = [(kind, "poisson") for kind in TERMS] + [
    ("intercepts", family) for family in PARAMETERS if family != "poisson"
]
CASES += [("slopes", "bernoulli"), ("nested", "ordinal"), ("nested", "gamma")]


@pytest.mark.parametrize(("kind", "family"), CASES)
def test_value_is_that_of_a_grid(table, kind, family):
    latent, theta, integral = make(table, kind, family)
    groups = [depth.terms for depth in integral.depths]
    value, _, (means, covariances) = integral.loglik(
        theta, integral.adapted(theta), 31, [Points.means, Points.covariances]
    )
    expected, mean, variance = on_grid(latent, theta, groups)
    assert value == pytest.approx(expected, abs=1e-5)
    if mean is not None:
        np.testing.assert_allclose(means[0].T, mean, atol=1e-4)
        np.testing.assert_allclose(np.einsum("jaa->aj", covariances[0]), variance, atol=1e-4)


@pytest.mark.parametrize(("kind", "family"), CASES)
def test_score_is_the_values_slope(table, kind, family):
    """At points that are held, whose sum it differentiates, few or many."""
    latent, theta, integral = make(table, kind, family)
    nodes, flat = integral.adapted(theta), latent.space.join(theta)
    _, score, _ = integral.loglik(theta, nodes, 5)

    def value(flat):
        return integral.loglik(latent.space.split(flat), nodes, 5)[0]

    expected = [(value(flat + e) - value(flat - e)) / (2 * H) for e in H * np.eye(len(flat))]
    np.testing.assert_allclose(score, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("kind", "family"), CASES)
def test_information_and_motion_are_the_slopes_of_score_and_means(table, kind, family):
    """At points that are held, of weighted rows too; several predictors' are not known."""
    latent, theta, integral = make(table, kind, family)
    assert integral.curved == (family != "categorical")
    if not integral.curved:
        return
    nested, p = integral.nested, latent.space.p
    nested.weights = np.linspace(0.5, 2, nested.n)
    nested.rows = replace(nested.rows, weights=nested.weights)
    nodes, flat = integral.adapted(theta), latent.space.join(theta)
    information, motion = integral.information(theta, nodes, 5, moving=True)

    def look(flat):
        _, score, (means,) = integral.loglik(latent.space.split(flat), nodes, 5, [Points.means])
        return score, means

    m = len(information)
    assert m == len(flat) - len(theta.raw)
    ends = [(look(flat + e), look(flat - e)) for e in H * np.eye(len(flat))[:m]]
    expected = [(down - up)[:m] / (2 * H) for (up, _), (down, _) in ends]
    np.testing.assert_allclose(information, expected, rtol=1e-6, atol=1e-6 * information.max())
    for k, own in enumerate(motion):
        slopes = [(up[k] - down[k]) / (2 * H) for (_, up), (_, down) in ends[:p]]
        np.testing.assert_allclose(own, np.moveaxis(slopes, 0, 2), atol=1e-6)


def test_one_point_is_laplaces_approximation(table):
    latent, theta, integral = make(table, "nested")
    value, _, _ = integral.loglik(theta, integral.adapted(theta), 1)
    mode = latent.mode(theta, np.zeros(latent.layout.size))[0]
    # Modes are found to 1e-4 SDs.
    assert value == pytest.approx(Approximation(latent, theta, mode).loglik, abs=1e-4)


def test_parts_do_not_change_the_sums(table, monkeypatch):
    _, theta, integral = make(table, "nested", "negative_binomial")
    nodes = integral.adapted(theta)
    whole = integral.loglik(theta, nodes, 7, [Points.means])
    monkeypatch.setattr("sklmm.engine.rows.nested.CELLS", 1000)
    assert len(integral.nested.parts(49)) == 4
    parts = integral.loglik(theta, nodes, 7, [Points.means])
    assert parts[0] == pytest.approx(whole[0], rel=1e-13)
    np.testing.assert_allclose(parts[1], whole[1], rtol=1e-10)
    np.testing.assert_allclose(parts[2][0][1], whole[2][0][1], rtol=1e-12)


@pytest.mark.parametrize("kind", ["slopes", "nested"])
def test_draws_have_the_posteriors_moments(table, kind):
    _, theta, integral = make(table, kind, "bernoulli")
    asked = [Points.means, Points.covariances, lambda points: points.draws(4000, (0,))]
    _, _, (means, covariances, draws) = integral.loglik(theta, integral.adapted(theta), 15, asked)
    for mean, covariance, draw in zip(means, covariances, draws, strict=True):
        std = np.sqrt(np.einsum("jaa->ja", covariance))
        assert np.all(np.abs(draw.mean(axis=2) - mean) < 4 * std / 4000**0.5)
        away = draw - mean[:, :, None]
        found = np.einsum("jam,jbm->jab", away, away) / 4000
        np.testing.assert_allclose(found, covariance, atol=0.1)


def test_draws_of_nested_effects_are_joint(table):
    """An inner effect's draws follow those of the outer one that it lies within."""
    _, theta, integral = make(table, "nested")
    nodes = integral.adapted(theta)

    def together(points):
        """E[u_outer u_inner] of each inner level."""
        outer, inner = points.effects[0][0][points.parents[0]], points.effects[1][0]
        outer = np.tile(outer, inner.shape[1] // outer.shape[1])
        return [np.einsum("nk,nk,nk->n", outer, inner, points.shares[1])]

    asked = [together, lambda points: points.draws(4000, (0,))]
    _, _, ((expected,), draws) = integral.loglik(theta, nodes, 9, asked)
    outer = draws[0][integral.depths[1].parent]
    np.testing.assert_allclose((outer * draws[1])[:, 0].mean(axis=1), expected, atol=0.1)


def test_a_level_without_rows_is_left_at_its_prior(table):
    _, _, integral = make(table, "intercepts")
    depth = integral.depths[0]
    integral.depths = [depth._replace(levels=[depth.levels[0][:-1]])]
    (found,) = integral.by_term([np.ones((11, 1))], [np.zeros(1)])
    np.testing.assert_array_equal(found[:, 0], [1.0] * 11 + [0.0])


def test_the_grid_integrates_polynomials():
    z, log_weights = grid(5, 2)
    weights = np.exp(log_weights - 0.5 * np.sum(z**2, axis=0))
    assert weights.sum() == pytest.approx(1)
    assert weights @ (z[0] ** 4 * z[1] ** 2) == pytest.approx(3)
