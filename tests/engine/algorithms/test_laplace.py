"""The Laplace approximation's gradient against differences of its log-likelihood."""

import numpy as np
import pandas as pd
import pytest
from scipy import special
from scipy.optimize import minimize
from sklearn.exceptions import ConvergenceWarning

from sklmm import (
    Bernoulli,
    Gamma,
    MixedEffectsRegressor,
    NegativeBinomial,
    Poisson,
    RandomEffect,
    StudentT,
)
from sklmm import Laplace as LaplaceStep
from sklmm.engine import limits
from sklmm.engine.algorithms.laplace import Laplace
from sklmm.engine.likelihood.likelihood import Likelihood, evaluation, observes
from tests.engine.latent.test_complete_data import make_latent, response, table, theta_for
from tests.laplace_study import Fit

__all__ = ["table"]

# Those with an expected curvature, for which the mode moves along the observed one, and two others.
FAMILIES = ["negative_binomial", "gamma", "student_t", "beta", "poisson", "ordinal"]


@pytest.mark.parametrize(
    ("name", "reml"), [*((name, False) for name in FAMILIES), ("negative_binomial", True)]
)
def test_gradient_is_the_log_likelihoods_derivative(table, name, reml):
    rng = np.random.default_rng(1)
    latent = make_latent(name, table[["g", "s", "x"]], response(name, rng), ["g"], reml=reml)
    algorithm, space = Laplace(latent, 1e-3, 0), latent.space
    algorithm.mode = np.zeros(latent.layout.size)
    flat = space.join(theta_for(latent, name))

    def loglik(flat):
        return algorithm.approximation(space.split(flat)).loglik

    score = algorithm.approximation(space.split(flat)).score
    h = 1e-3
    slope = [(loglik(flat + h * e) - loglik(flat - h * e)) / (2 * h) for e in np.eye(len(flat))]
    np.testing.assert_allclose(score, slope, rtol=2e-4, atol=2e-3)


@pytest.mark.parametrize("observed", [True, False])
@pytest.mark.parametrize(
    ("name", "reml"), [("student_t", True), ("negative_binomial", False), ("ordinal", False)]
)
def test_the_largest_term_eliminated(table, monkeypatch, name, reml, observed):
    """Sparse rows and a Schur complement give what dense equations give, slopes included."""
    found = []
    for rows in (limits.SMALL_ROWS, 0):
        monkeypatch.setattr(limits, "SMALL_ROWS", rows)
        y = response(name, np.random.default_rng(1))
        terms, weights = ["(1 | h)", "(1 + s | g)"], np.arange(96) % 3 + 1
        options = {"direct": True, "observed": observed}
        latent = make_latent(name, table, y, terms, weights, reml, **options)
        assert latent.whole == (rows > 0)
        algorithm = Laplace(latent, 1e-3, 0)
        algorithm.mode = np.zeros(latent.layout.size)
        seen = algorithm.approximation(theta_for(latent, name))
        draws = seen.equations.draws(np.random.default_rng(0), 4000)
        found.append((seen.score, seen.shift(), seen.loglik, draws @ draws.T / 4000))
    (*ours, spread), (*theirs, other) = found
    for one, two in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(spread, other, atol=0.1)


# Effects of each row's own, a dispersion of 0, correlations of 1, variances of 0, means of 1e3.
@pytest.mark.parametrize("seed", [1, 8, 22, 30, 35, 41])
def test_no_other_optimizer_or_start_ends_higher(seed):
    fit = Fit(seed)
    assert fit.done
    assert fit.iterations <= 20
    gap, _ = fit.gap(1, np.random.default_rng(0))
    assert gap < 1e-3


def test_few_evaluations_make_a_fit():
    """Those of the information at the maximum, one a parameter, among them."""
    counts = [Fit(seed).evaluations for seed in (0, 4, 5, 8, 12, 13, 16)]
    assert max(counts) <= 15


def test_two_blocks_of_effects_have_standard_errors():
    """Where the information is indefinite along a step: a pinned SD finds nothing higher."""
    rng = np.random.default_rng(1)
    X = pd.DataFrame({"a": rng.integers(8, size=160), "x": rng.normal(size=160)})
    X["row"] = np.arange(160)
    eta = 0.8 + 0.3 * X["x"] + 0.8 * rng.normal(size=8)[X["a"]] + 0.5 * rng.normal(size=160)
    y = rng.poisson(np.exp(eta))

    def fit(term):
        model = MixedEffectsRegressor([term, "row"], family="poisson", e_step="laplace")
        return model.fit(X, y)

    model = fit("a")
    sd, error = (model.variance_components_[c].to_numpy() for c in ("sd", "std_error"))
    assert model.fixed_effects_["std_error"].iloc[0] == pytest.approx(sd[0] / np.sqrt(8), rel=0.1)
    assert error[0] == pytest.approx(sd[0] / 4, rel=0.2)
    for pinned in sd[0] * np.array([0.7, 1.4]):
        assert fit(RandomEffect("a", sd=pinned)).loglik_ < model.loglik_ - 0.1


def test_the_observed_curvature_is_nearer_to_quadrature():
    """A negative binomial's intercept, in standard errors: by 40-point Gauss and Hermite."""
    rng = np.random.default_rng(5)
    g = np.arange(240) % 40
    y = rng.poisson(rng.gamma(1.0, np.exp(0.5 + 0.8 * rng.normal(size=40)[g])))
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)

    def minus(theta):
        size, mu = np.exp(-theta[2]), np.exp(theta[0] + np.exp(theta[1]) * nodes)
        rows = special.gammaln(y + size) - special.gammaln(size) - special.gammaln(y + 1)
        rows = rows[:, None] + y[:, None] * np.log(mu / (mu + size))
        rows += size * np.log(size / (mu + size))
        levels = np.zeros((40, 40))
        np.add.at(levels, g, rows)
        return -special.logsumexp(levels, axis=1, b=weights / np.sqrt(2 * np.pi)).sum()

    right = minimize(minus, [0.5, -0.2, 0.0]).x[0]
    away = []
    for curvature in ("observed", "expected"):
        e_step = LaplaceStep(curvature=curvature)
        model = MixedEffectsRegressor(["g"], family="negative_binomial", e_step=e_step)
        row = model.fit(pd.DataFrame({"g": g}), y).fixed_effects_.iloc[0]
        away.append(abs(row["estimate"] - right) / row["std_error"])
    assert away[0] < 0.02
    assert away[1] > 5 * away[0]


#: glmmTMB 1.1.5 on `test_glmmtmb`'s data: log-likelihood, coefficients, their errors, SD.
GLMMTMB = {
    "probit": [-136.950675, -0.018552, 0.746334, 0.192129, 0.129684, 0.814901],
    "cloglog": [-134.760055, 0.041919, 0.799739, 0.218452, 0.152059, 0.926829],
    "negative_binomial": [-344.963654, -0.030219, 0.297104, 0.168426, 0.094655, 0.696101],
    "gamma": [-260.940725, 0.067799, 0.490014, 0.183810, 0.086483, 0.829166],
    "beta": [65.774011, 0.004322, 0.442673, 0.186398, 0.070932, 0.866862],
}


def test_glmmtmb():
    """Families and links whose observed curvature is not the expected one."""
    rng = np.random.default_rng(7)
    g, x = np.arange(240) % 24, rng.normal(size=240)
    eta = 0.2 + 0.5 * x + 0.8 * rng.normal(size=24)[g]
    u, mu, share = rng.random(240), np.exp(eta), special.expit(eta)
    data = {
        "probit": (u < special.ndtr(eta)) * 1,
        "cloglog": (u < -np.expm1(-mu)) * 1,
        "negative_binomial": rng.poisson(mu * rng.gamma(1.5, 1 / 1.5, 240)),
        "gamma": mu * rng.gamma(0.8, 1 / 0.8, 240),
        "beta": np.clip(rng.beta(4 * share, 4 * (1 - share)), 1e-6, 1 - 1e-6),
    }
    X = pd.DataFrame({"g": g, "x": x})
    for name, y in data.items():
        family = Bernoulli(link=name) if name in ("probit", "cloglog") else name
        model = MixedEffectsRegressor(["g"], family=family, e_step="laplace").fit(X, y)
        fixed = model.fixed_effects_
        found = [model.loglik_, *fixed["estimate"], *fixed["std_error"]]
        found.append(model.variance_components_["sd"].iloc[0])
        np.testing.assert_allclose(found, GLMMTMB[name], rtol=2e-4, atol=2e-5, err_msg=name)


def test_one_free_parameter(monkeypatch):
    """By the Schur complement, and by probes where that is too large."""
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"g": np.arange(1200) % 200})
    y = rng.poisson(np.exp(0.7 * rng.normal(size=200)[X["g"]]))
    parameters = {"fixed_effects": [], "fit_intercept": False, "family": "poisson"}
    model = MixedEffectsRegressor(["g"], e_step="laplace", random_state=0, **parameters)
    found = []
    for limit in (limits.FACTORISED["gradient"], (-1, 0)):
        monkeypatch.setattr(limits, "SMALL_ROWS", 0)
        monkeypatch.setitem(limits.FACTORISED, "gradient", limit)
        row = model.fit(X, y).variance_components_.iloc[0]
        assert model.converged_
        found.append([row["sd"], row["std_error"], model.loglik_])
    np.testing.assert_allclose(found[0], found[1], rtol=3e-3)


def test_a_curvature_far_from_the_expected_one():
    """Gamma of shape 0.3: y / mu, which the observed curvature has, is up to ten times its mean."""
    rng = np.random.default_rng(1)
    g = np.repeat(np.arange(100), 2)
    y = np.maximum(rng.gamma(0.3, np.exp(1.5 * rng.normal(size=100)[g]) / 0.3), 1e-300)
    X = pd.DataFrame({"g": g})
    model = MixedEffectsRegressor(["g"], family="gamma", e_step="laplace").fit(X, y)
    assert model.converged_
    assert model.fixed_effects_["std_error"].between(0.1, 0.5).all()
    start = model.history_["loglik"].iloc[0]
    assert model.loglik_ > start
    found = model.result_.covariances[0][0, 0]
    nearby = MixedEffectsRegressor([RandomEffect("g", sd=np.sqrt(found) + 0.05)], family="gamma")
    assert nearby.set_params(e_step="laplace").fit(X, y).loglik_ < model.loglik_


def test_densities_that_are_not_log_concave():
    """Negative curvatures make C singular at a fold of the mode, and -log |C| / 2 infinite."""
    rng = np.random.default_rng([9, 2])
    X = pd.DataFrame({"g": np.repeat(np.arange(30), 4), "x": rng.normal(size=120)})
    slope = 0.5 + 0.4 * rng.normal(size=30)[X["g"]]
    y = slope * X["x"] + 0.7 * rng.normal(size=30)[X["g"]] + 0.5 * rng.standard_t(2, 120)
    found = []
    for curvature in ("observed", "expected"):
        model = MixedEffectsRegressor.from_formula("y ~ x + (1 + x | g)", family="student_t")
        model.set_params(e_step=LaplaceStep(curvature=curvature)).fit(X.assign(y=y))
        assert model.converged_
        assert (model.result_.variance_se > 0.05).all()
        found.append(model.loglik_)
    assert found[0] == found[1]


CONCAVE = [Poisson(link) for link in Poisson.links] + [Gamma(link) for link in ("log", "inverse")]
CONCAVE += [Bernoulli(link) for link in Bernoulli.links] + [NegativeBinomial()]


@pytest.mark.parametrize("family", [*CONCAVE, StudentT()], ids=repr)
def test_the_observed_curvature_is_that_of_concave_densities(family):
    like = Likelihood.of(family)
    y, eta = np.array([1e-3, 0.5, 0.9]), np.linspace(0.05, 8, 60)
    if "Bernoulli" in repr(family):
        y = np.array([0.0, 1.0])
    elif not isinstance(family, Gamma | StudentT):
        y = np.array([0.0, 1.0, 7.0])
    raw = np.full((len(like.names), len(eta)), 0.3)
    (bend,) = evaluation(like).observed(y, np.tile(eta, (len(y), 1)), raw)
    assert (bend.min() > -1e-12) == observes(like)


def test_an_indefinite_information_tells_no_standard_errors():
    """Away from a maximum: of what it says nothing about they are nan, not 0; others stay."""
    rng = np.random.default_rng(0)
    g, row, x = rng.integers(12, size=60), np.arange(60), rng.normal(size=60)
    eta = 1 + 0.8 * rng.normal(size=12)[g] * x + 0.8 * rng.normal(size=12)[g]
    y = rng.poisson(np.exp(eta + 0.5 * rng.normal(size=60)))
    X = pd.DataFrame({"g": g, "row": row, "x": x})
    model = MixedEffectsRegressor(["(1 + x | g)", "row"], fixed_effects=["x"], max_iter=11)
    model.set_params(family="negative_binomial", e_step="laplace")
    with pytest.warns(ConvergenceWarning, match="max_iter"):
        model.fit(X, y)
    error = model.result_.variance_se
    assert np.isnan(error).any()
    assert (error[~np.isnan(error)] > 0.05).sum() >= 2
    assert not (model.fixed_effects_["std_error"] < 0.1).any()
    assert np.isfinite(model.predict(X)).all()


@pytest.mark.parametrize(("seed", "curvature"), [(11, "expected"), (14, "observed")])
def test_a_trial_where_c_is_singular_is_a_step_not_taken(seed, curvature):
    rng = np.random.default_rng([31, seed])
    X = pd.DataFrame({"g": np.repeat(np.arange(25), 8), "x": rng.uniform(-1, 1, size=200)})
    mu = 2 + 0.5 * X["x"] + 0.4 * rng.normal(size=25)[X["g"]]
    mu = np.maximum(mu + 0.2 * rng.normal(size=25)[X["g"]] * X["x"], 0.1)
    X["y"] = rng.gamma(2, mu / 2)
    model = MixedEffectsRegressor.from_formula("y ~ x + (1 + x | g)", family=Gamma("identity"))
    assert model.set_params(e_step=LaplaceStep(curvature=curvature)).fit(X).converged_


def test_a_trial_point_that_does_not_exist(table):
    """The radius shrinks, and the fit ends where it does without it."""
    y, found = response("poisson", np.random.default_rng(1)), []
    for broken in ((), (2, 3)):
        algorithm = Laplace(make_latent("poisson", table, y, ["g"], direct=True), 1e-3, 0)
        trials, trial, point = [], algorithm._trial, algorithm._point

        def failing(flat, mode=None, algorithm=algorithm):
            algorithm.mode = np.full_like(algorithm.mode, np.nan)
            raise np.linalg.LinAlgError

        def one(flat, here, own=(algorithm, trials, broken, trial, point), failing=failing):
            algorithm, trials, broken, trial, point = own
            trials.append(flat)
            algorithm._point = failing if len(trials) in broken else point
            new = trial(flat, here)
            algorithm._point = point
            return new

        algorithm._trial = one
        steps = zip(range(50), algorithm.steps(), strict=False)
        found.append(next(step.loglik for _, step in steps if step.done))
        assert len(trials) > len(broken)
    assert found[0] == pytest.approx(found[1], abs=1e-5)


def test_one_curvature_beyond_all_bounds_lifts_no_other():
    like = Likelihood.of(Gamma("identity", shape=1.0))
    eta = np.array([[1.0], [2.0], [4.0], [-1e60]])
    (W,) = evaluation(like).curvature(np.ones(4), eta, np.zeros((0, 1)))
    assert W[3] > 1e100
    np.testing.assert_allclose(W[:3, 0], [1, 1 / 4, 1 / 16], rtol=1e-12)


def test_a_mean_at_the_edge_of_its_link_is_told():
    rng = np.random.default_rng([31, 9])
    X = pd.DataFrame({"g": np.repeat(np.arange(25), 8), "x": rng.uniform(-1, 1, size=200)})
    mean = 0.8 + 0.5 * X["x"] + 0.4 * rng.normal(size=25)[X["g"]]
    y = rng.poisson(np.maximum(mean, 0.05))
    model = MixedEffectsRegressor(["(1 + x | g)"], fixed_effects=["x"], e_step="laplace")
    model.set_params(family=Poisson("identity"), max_iter=20)
    # Coefficients without standard errors are no columns that were left out.
    with pytest.warns(ConvergenceWarning, match="of 200 rows is 0 or below.*'log' or 'sqrt'"):
        model.fit(X, y)
    assert model.set_params(family=Poisson("sqrt")).fit(X, y).converged_
