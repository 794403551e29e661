"""The complete-data score: unbiased by Stein's identity, and exact where theory says so."""

import numpy as np
import pandas as pd
import pytest

from sklmm import RandomEffect, families
from sklmm.design.design import DesignSpec
from sklmm.design.terms import resolve_terms
from sklmm.engine.equations import layout as unknowns
from sklmm.engine.latent.complete_data import CompleteData
from sklmm.engine.latent.mode import Latent
from sklmm.engine.likelihood.likelihood import Likelihood
from sklmm.engine.rows.standardize import stacked, standardize
from sklmm.engine.theta.space import Theta
from tests.covariances.test_stranger import CompoundSymmetry
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


class Still:
    """The field that moves nothing."""

    def __init__(self, field):
        self.shift = np.zeros_like(field.shift)

    def pulled(self, x, g):
        return np.zeros((self.shift.shape[1], x.shape[1]))


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


def dense(latent, factors, blocks):
    """A matrix [P, P] of blocks: theirs on the terms' levels, 1 on coefficients and on padding."""
    layout, out = latent.layout, np.eye(latent.layout.size)
    for k, part in enumerate(layout.parts):
        r = layout.shapes[k][1]
        own = np.tile(factors[k], (layout.levels[k], 1, 1)) if blocks is None else blocks[k]
        for j, block in enumerate(own):
            place = slice(part.start + j * r, part.start + (j + 1) * r)
            out[place, place] = block
    return out


def moved_density(latent, theta, field, equations, x, delta):
    """log p(y, x) [C] at theta + delta, of x moved with theta, and log |dx / dv|.

    By the formulas of `engine.latent.reparametrization`, written out in matrices of all unknowns.
    """
    flat, layout, border = latent.space.join(theta), latent.layout, equations.marginal
    new, F, P = latent.space.split(flat + delta), layout.border, layout.size
    before, after = (dense(latent, t.factors, None) for t in (theta, new))
    H = dense(latent, None, equations.G)
    H[np.diag_indices(P)] -= ~layout.real
    H[F] = H[:, F] = 0.0
    H[np.ix_(F, F)] = border.precision
    prior = np.diag(np.arange(P) >= latent.problem.p).astype(float)
    E = np.linalg.solve(before.T @ H @ before + prior, after.T @ H @ after - before.T @ H @ before)
    A = np.eye(P) - E / 2 + 3 * E @ E / 8
    away = x - field.centre[:, None]
    inner, edge = A @ away, np.where(F[:, None], 1.0, 0.0)
    moved = field.centre[:, None] + (field.shift @ delta)[:, None] + inner
    moved -= border.follow @ (after @ (edge * inner) - before @ (edge * away))[F]
    return latent.gradient(new, moved)[0] + np.linalg.slogdet(A)[1]


def check_scores_and_information(latent, theta, seed=1):
    """Against differences of the moved density, in the entries and in directions of all."""
    rng = np.random.default_rng(seed)
    mode, equations = latent.mode(theta, np.zeros(latent.layout.size))
    field = latent.field(theta, equations, mode)
    x = mode[:, None] + equations.draws(rng, 4)
    seen = CompleteData(latent, theta, field, x)
    with pytest.MonkeyPatch.context() as patch:
        # A draw at a time.
        patch.setattr("sklmm.engine.latent.complete_data.CELLS", 1)
        information, m = seen.information(), latent.space.size
    # Of several predictors by differences, whose length is that of the draws at once.
    atol = 1e-9 if latent.full.d == 1 else 1e-5
    np.testing.assert_allclose(seen.information(), information, rtol=1e-9, atol=atol)
    here = moved_density(latent, theta, field, equations, x, np.zeros(m))
    np.testing.assert_allclose(seen.value, here, rtol=1e-12)

    def slope_and_fall(way, h):
        up, down = (
            moved_density(latent, theta, field, equations, x, d) for d in (h * way, -h * way)
        )
        return (up - down) / (2 * h), (2 * here - up - down) / h**2

    for way in (*np.eye(m), *rng.normal(size=(4, m))):
        way = way / np.linalg.norm(way)
        # Two lengths, so that what is left is of fourth order.
        far, near = (np.array(slope_and_fall(way, h)) for h in (4e-3, 2e-3))
        slope, fall = (4 * near - far) / 3
        np.testing.assert_allclose(way @ seen.scores, slope, rtol=2e-6, atol=2e-5)
        ours = np.einsum("i,ijc,j->c", way, information, way)
        np.testing.assert_allclose(ours, fall, rtol=1e-5, atol=2e-4 * (1 + np.abs(fall).max()))


@pytest.mark.parametrize("reml", [False, True])
@pytest.mark.parametrize("name", FAMILIES)
def test_derivatives_of_the_moved_log_density(table, name, reml):
    """Scores and information at fixed v: of log p(y, u_theta(v)) + log |du / dv|."""
    rng = np.random.default_rng(1)
    terms = ["(1 | h)", "(1 + s | g)"]
    latent = make_latent(name, table, response(name, rng), terms, reml=reml)
    check_scores_and_information(latent, theta_for(latent, name))


@pytest.mark.parametrize("few", [unknowns.FEW, 8, 0])
def test_derivatives_whichever_terms_are_of_the_border(table, few, monkeypatch):
    monkeypatch.setattr(unknowns, "FEW", few)
    y = response("poisson", np.random.default_rng(1))
    for reml in (False, True):
        latent = make_latent("poisson", table, y, ["(1 | h)", "(1 + s | g)"], reml=reml)
        check_scores_and_information(latent, theta_for(latent, "poisson"))


def test_derivatives_where_every_covariance_is_known(table):
    rng = np.random.default_rng(1)
    term = RandomEffect("g", sd=0.6)
    latent = make_latent("ordinal", table, response("ordinal", rng), [term])
    check_scores_and_information(latent, theta_for(latent, "ordinal"))


@pytest.mark.parametrize("few", [unknowns.FEW, 8])
def test_derivatives_in_a_factor_that_is_not_linear(table, few, monkeypatch):
    monkeypatch.setattr(unknowns, "FEW", few)
    covariance = CompoundSymmetry()
    term = RandomEffect("g", ("s", "x"), intercept=False, covariance=covariance)
    latent = make_latent("poisson", table, np.arange(96) % 4, [term])
    factor = latent.space.covariances[0].factor(np.array([0.5, 0.4]))
    beta = np.linspace(-0.3, 0.3, latent.full.p)
    check_scores_and_information(latent, Theta(beta, (factor,), np.zeros(0)))


@pytest.mark.parametrize("followed", [False, True])
@pytest.mark.parametrize("few", [unknowns.FEW, 8])
@pytest.mark.parametrize("name", FAMILIES)
def test_control_variate_has_mean_zero(table, name, few, followed, monkeypatch):
    """Moved and unmoved scores differ by E[div f + f . grad log p] = 0, here under the prior.

    With weights near 0 the posterior is the prior, from which exact draws are free. The field is
    of another theta and about another centre, or made from that for this theta; g is of the border,
    or has too many levels for it.
    """
    monkeypatch.setattr(unknowns, "FEW", few)
    rng = np.random.default_rng(2)
    y = response(name, rng)
    latent = make_latent(name, table, y, ["(1 | h)", "(1 + s | g)"], weights=np.full(96, 1e-9))
    theta = theta_for(latent, name)
    fake = latent.equations(theta, np.repeat(0.3, latent.n_rows))
    field = latent.field(theta, fake, rng.normal(size=latent.layout.size) * latent.layout.real)
    away = theta._replace(factors=tuple(1.3 * L for L in theta.factors))
    field = field.at(latent.space.join(away)) if followed else field
    n = 4000
    x = rng.standard_normal((latent.layout.size, n)) * latent.layout.real[:, None]
    moved = CompleteData(latent, away, field, x).scores
    unmoved = CompleteData(latent, away, Still(field), x).scores
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
    score = CompleteData(latent, theta, field, x).scores
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
    found = CompleteData(latent, theta, field, draws).information().mean(axis=2)
    assert found[2, 2] == pytest.approx(curvature, rel=0.03)


def test_moved_scores_are_less_noisy(table):
    rng = np.random.default_rng(4)
    latent = make_latent("poisson", table[["g", "h", "x"]], response("poisson", rng), ["g", "h"])
    theta = theta_for(latent, "poisson")
    mode, equations = latent.mode(theta, np.zeros(latent.layout.size))
    field = latent.field(theta, equations, mode)
    x = mode[:, None] + equations.draws(rng, 400)
    moved = CompleteData(latent, theta, field, x).scores
    unmoved = CompleteData(latent, theta, Still(field), x).scores
    assert np.all(moved.var(axis=1) < 0.6 * unmoved.var(axis=1))
    assert np.all(moved.var(axis=1)[:2] < 0.1 * unmoved.var(axis=1)[:2])


def informed(table, terms, reml=False):
    """A latent part whose data tell much of each effect, and a theta."""
    y = response("poisson", np.random.default_rng(4))
    latent = make_latent("poisson", table, y, terms, weights=np.full(96, 1e4), reml=reml)
    return latent, theta_for(latent, "poisson")


def followed_and_fresh(latent, theta):
    """Fields at another theta: of theta, made from that, and made there; and draws there."""
    mode, equations = latent.mode(theta, np.zeros(latent.layout.size))
    field = latent.field(theta, equations, mode)
    flat, of_factors = (
        latent.space.join(theta),
        slice(latent.space.p, len(latent.space.join(theta)) - len(theta.raw)),
    )
    flat[: latent.space.p] += 1e-3
    flat[of_factors] *= np.linspace(1.04, 0.95, len(flat[of_factors]))
    there = latent.space.split(flat)
    mode, equations = latent.mode(there, mode)
    x = mode[:, None] + equations.draws(np.random.default_rng(5), 400)
    fields = field, field.at(flat), latent.field(there, equations, mode)
    return there, fields, x


BOTH = ["(1 | h)", "(1 + s | g)"]


@pytest.mark.parametrize("reml", [False, True])
@pytest.mark.parametrize(
    ("terms", "few"),
    [
        *((["g", "h"], few) for few in (unknowns.FEW, 8, 0)),
        (["(1 + s | g)"], unknowns.FEW),
        *((BOTH, few) for few in (unknowns.FEW, 8, 0)),
    ],
)
def test_scores_elsewhere_are_as_precise_where_data_tell_much(table, terms, few, reml, monkeypatch):
    """A motion followed from another theta leaves as little noise as one made anew."""
    monkeypatch.setattr(unknowns, "FEW", few)
    latent, theta = informed(table, terms, reml)
    there, fields, x = followed_and_fresh(latent, theta)
    seen = [CompleteData(latent, there, field, x) for field in fields]
    unit = np.sqrt(np.abs(np.diag(seen[2].information().mean(axis=2))))
    stale, ours, fresh = (own.scores.std(axis=1) for own in seen)
    assert (ours < 1.3 * fresh + 0.2 * unit).all()
    assert (stale > 4 * np.maximum(ours, unit)).any()


@pytest.mark.parametrize("few", [unknowns.FEW, 8])
def test_motion_elsewhere_is_exact_for_one_gaussian_term(table, few, monkeypatch):
    """The mode, and how it moves with the coefficients."""
    monkeypatch.setattr(unknowns, "FEW", few)
    y = response("gaussian", np.random.default_rng(6))
    latent = make_latent("gaussian", table, y, ["(1 + s | g)"])
    _, (_, ours, fresh), _ = followed_and_fresh(latent, theta_for(latent, "gaussian"))
    p = latent.space.p
    np.testing.assert_allclose(ours.shift[:, :p], fresh.shift[:, :p], atol=1e-6)
    np.testing.assert_allclose(ours.centre, fresh.centre, atol=1e-6)


def test_motion_stays_where_a_factor_left_zero(table):
    latent, theta = informed(table, BOTH)
    theta = theta._replace(factors=(0 * theta.factors[0], theta.factors[1]))
    mode, equations = latent.mode(theta, np.zeros(latent.layout.size))
    field = latent.field(theta, equations, mode)
    flat = latent.space.join(theta)
    assert field.at(flat) is field
    flat[latent.space.parts[0]] = 0.1
    assert field.at(flat) is field
