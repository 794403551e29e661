"""E-steps against the dense likelihood and against one another."""

import numpy as np
import pandas as pd
import pytest

from sklmm import HMC, ConjugateGradient, Exact, Gaussian, MixedEffectsRegressor
from sklmm.covariances.unstructured import Unstructured, vech_indices
from sklmm.datasets import load_dyestuff, load_sleepstudy, make_crossed
from sklmm.design.design import Block, Design
from sklmm.engine.algorithms.reml import Reml
from sklmm.engine.latent.complete_data import CompleteData
from sklmm.engine.latent.mode import Latent
from sklmm.engine.likelihood.likelihood import Likelihood
from sklmm.engine.posterior.gaussian import posterior_from_equations
from sklmm.engine.rows.standardize import standardize
from sklmm.engine.theta.space import Theta
from sklmm.result import own_sds


def crossed():
    X, y, _ = make_crossed(1200, (150, 80), sds=(0.7, 0.4), random_state=4)
    return X, y


def nested():
    """40 batches of 4 casks; Pastes' 10 leave too little for hmc (docs/limitations.md)."""
    rng = np.random.default_rng(0)
    batch, cask = np.divmod(np.repeat(np.arange(160), 3), 4)
    y = rng.normal(0, 1.0, 40)[batch] + rng.normal(0, 0.8, 160)[4 * batch + cask]
    y = y + rng.normal(0, 0.6, 480)
    return pd.DataFrame({"batch": batch, "cask": cask}), y


def sleepstudy():
    return load_sleepstudy(return_X_y=True, as_frame=True)


def dyestuff():
    return load_dyestuff(return_X_y=True, as_frame=True)


# data and terms
GAUSSIAN_MODELS = {
    "slopes": (sleepstudy, ["(1 + Days | Subject)"]),
    "nested": (nested, ["(1 | batch/cask)"]),
    "balanced": (dyestuff, ["Batch"]),
    "crossed": (crossed, ["g0", "g1"]),
}

# Of the chains of both backends tests/test_samplers.py has five.
SEEDS = {"exact": [0], "cg": [0, 1, 2], "hmc": [0], "numpy": [0, 1, 2]}

CASES = [
    pytest.param(
        e_step,
        seed,
        model,
        method,
        # Compiling tfp's sampler takes about 15 s a model.
        marks=pytest.mark.slow if e_step == "hmc" and model != "slopes" else (),
    )
    for e_step, seeds in SEEDS.items()
    for seed in seeds
    for model in GAUSSIAN_MODELS
    for method in ("reml", "ml")
]


@pytest.mark.parametrize(("e_step", "seed", "model", "method"), CASES)
def test_every_e_step_finds_the_maximum_within_its_monte_carlo_error(
    e_step, seed, model, method, estimates, standard_errors
):
    load, terms = GAUSSIAN_MODELS[model]
    X, y = load()
    oracle = MixedEffectsRegressor(terms, method=method, e_step="exact", tol=1e-8).fit(X, y)
    e_step = HMC(backend="numpy") if e_step == "numpy" else e_step
    fitted = MixedEffectsRegressor(terms, method=method, e_step=e_step, random_state=seed).fit(X, y)
    gap = np.abs(estimates(fitted) - estimates(oracle))
    # The stopping rule of the deterministic ones leaves a step of 1e-3 standard errors.
    bound = 4 * fitted.mc_error_ + 1e-3 * standard_errors(oracle) + 1e-7 * estimates(oracle).abs()
    assert fitted.converged_
    assert (gap <= bound).all(), (gap / bound).to_string()
    # The bound means something: 8 probes leave .23 SE in the SD of the 160 casks.
    assert (fitted.mc_error_ < 0.3 * standard_errors(oracle)).all()


# Step by step: a term with slopes, a crossed one, and weights.

SIZES = {"few levels": (7, 5), "many levels": (40, 70)}


@pytest.fixture(params=SIZES, scope="module")
def levels(request):
    return SIZES[request.param]


@pytest.fixture(params=[True, False], ids=["reml", "ml"], scope="module")
def problem(request, levels):
    rng = np.random.default_rng(0)
    n, (a, b) = 80, levels
    X = np.column_stack([np.ones(n), rng.normal(3.0, 2.0, n)])
    z = np.column_stack([np.ones(n), rng.normal(-1.0, 0.5, n)])
    first = Block(np.r_[:a, rng.integers(0, a, n - a)].astype(np.int32), z, a, Unstructured(2))
    second = Block(np.r_[:b, rng.integers(0, b, n - b)].astype(np.int32), None, b, Unstructured(1))
    y = 40 + 10 * rng.standard_normal(n) + 5 * rng.standard_normal(a)[first.refs]
    weights = rng.integers(1, 4, n).astype(float)
    design = Design(X, (first, second))
    return standardize(design, y, weights, fit_intercept=True, reml=request.param)


SIGMA = 0.8
FACTORS = np.array([[0.6, 0.0], [0.25, 0.4]]), np.array([[0.3]])
AT = Theta(np.zeros(0), FACTORS, np.log([SIGMA]))
ENTRIES = [(0, 0, 0), (0, 1, 0), (0, 1, 1), (1, 0, 0), None]


def moved(entry, step):
    """AT with an entry of theta moved: (block, row, column), or None for log sigma."""
    if entry is None:
        return AT._replace(raw=AT.raw + step)
    factors = [L.copy() for L in FACTORS]
    factors[entry[0]][entry[1:]] += step
    return AT._replace(factors=tuple(factors))


@pytest.fixture(scope="module")
def dense(problem, dense_model):
    """The dense model of the problem, in standard units, at given parameters."""

    def at(theta):
        rows, covariances = problem.rows, [L @ L.T for L in theta.factors]
        terms = list(zip(rows.refs, rows.z, covariances, rows.levels, strict=True))
        return dense_model(rows.X, rows.y, terms, np.exp(theta.raw[0]), rows.weights)

    return at


@pytest.fixture(scope="module")
def slope(problem, dense):
    """The likelihood's gradient in theta, by central differences."""
    h = 1e-5
    return np.array(
        [
            (dense(moved(e, h)).loglik(problem.reml) - dense(moved(e, -h)).loglik(problem.reml))
            / (2 * h)
            for e in ENTRIES
        ]
    )


def step(e_step, problem, theta=AT, seed=0):
    return Reml(problem, e_step, 1e-3, seed, 400).look(theta)


def test_exact_log_likelihood_is_the_dense_one_in_the_units_of_y(problem, dense):
    moments = step(Exact(), problem)
    in_units = problem.n * np.log(problem.y_scale)
    if problem.reml:
        # log|X'V^-1 X| in y's units and X's own columns.
        in_units -= problem.p * np.log(problem.y_scale) - 0.5 * problem.log_det_basis
    expected = dense(AT).loglik(problem.reml) - in_units
    assert moments.loglik == pytest.approx(expected, abs=1e-8)


def test_exact_gradient_is_the_slope_of_the_dense_likelihood(problem, slope):
    np.testing.assert_allclose(step(Exact(), problem).gradient, slope, atol=1e-5)


def test_exact_score_is_the_slope_in_each_covariance(problem, dense_model):
    """G_k against central differences in Sigma_k itself, off-diagonal entries included."""
    score = step(Exact(), problem).score
    covariances = [L @ L.T for L in FACTORS]

    def loglik(k, direction):
        rows, moved = problem.rows, list(covariances)
        moved[k] = moved[k] + direction
        terms = list(zip(rows.refs, rows.z, moved, rows.levels, strict=True))
        args = rows.X, rows.y, terms, SIGMA, rows.weights
        return dense_model(*args).loglik(problem.reml)

    for k, G in enumerate(score):
        for i in range(len(G)):
            for j in range(i + 1):
                direction = np.zeros_like(G)
                direction[i, j] = direction[j, i] = 1e-5
                change = (loglik(k, direction) - loglik(k, -direction)) / 2e-5
                assert change == pytest.approx(G[i, j] * (2 if i != j else 1), abs=1e-5)


def test_exact_information_is_the_average_information(problem, dense):
    """AI = q'Pq / 2 with q = dV/dtheta P y by differences of the dense V."""
    oracle, h = dense(AT), 1e-6
    XtVi = oracle.X.T @ oracle.Vi
    P = oracle.Vi - XtVi.T @ oracle.beta_cov @ XtVi
    q = np.column_stack(
        [(dense(moved(e, h)).V - dense(moved(e, -h)).V) / (2 * h) @ P @ oracle.y for e in ENTRIES]
    )
    moments = step(Exact(), problem)
    np.testing.assert_allclose(moments.information, q.T @ P @ q / 2, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("e_step", [Exact(), ConjugateGradient(tol=1e-10)], ids=["exact", "cg"])
def test_beta_and_its_derivative_are_the_dense_ones(problem, dense, e_step):
    moments, h = step(e_step, problem), 1e-5
    np.testing.assert_allclose(moments.beta, dense(AT).beta, rtol=1e-7, atol=1e-9)
    expected = np.column_stack(
        [(dense(moved(e, h)).beta - dense(moved(e, -h)).beta) / (2 * h) for e in ENTRIES]
    )
    # cg stops these at 1e-3 of the whole solution's norm, of which beta is a part.
    tolerance = 1e-7 if isinstance(e_step, Exact) else 0.02
    np.testing.assert_allclose(
        moments.sensitivity, expected, atol=tolerance * np.abs(expected).max()
    )


def test_cg_gradient_is_the_slope_of_the_dense_likelihood(problem, slope, levels):
    moments = step(ConjugateGradient(n_probes=64, tol=1e-9), problem)
    found = moments.gradient
    if levels == SIZES["few levels"]:
        assert moments.noise is None
        np.testing.assert_allclose(found, slope, atol=1e-4)
    else:
        error = moments.noise.std(axis=0, ddof=1) / np.sqrt(len(moments.noise))
        assert moments.noise.shape == (64, 5)
        assert (error > 0).all()
        assert (np.abs(found - slope) < 4 * error).all()


def test_cg_information_is_the_exact_one_to_its_tolerance(problem):
    exact, cg = step(Exact(), problem), step(ConjugateGradient(), problem)
    scale = np.sqrt(np.outer(*[np.diag(exact.information)] * 2))
    np.testing.assert_allclose(cg.information / scale, exact.information / scale, atol=0.02)


@pytest.mark.slow
def test_hmc_gradient_is_the_slope_of_the_dense_likelihood(problem, dense, slope):
    from sklmm.engine.latent.hmc import HMCSampler

    latent = Latent(problem, Likelihood.of(Gaussian()), {"sigma": "positive"})
    p, estimate = latent.space.p, dense(AT).beta
    theta = Theta(estimate[:p], FACTORS, AT.raw)
    mode, equations = latent.mode(theta, np.zeros(latent.layout.size))
    field = latent.field(theta, equations, mode)
    rng = np.random.default_rng(0)
    sampler = HMCSampler(HMC(n_chains=32, n_warmup=100))
    sampler.place(latent, theta, equations, mode, rng)
    scores, beta = [], []
    for _ in range(150):
        x, _, rate = sampler.draw(theta, rng)
        scores.append(CompleteData(latent, theta, field, x).scores)
        beta.append(x[: latent.problem.p].mean(axis=1))
    pairs = np.mean(scores[20:], axis=0).reshape(-1, 2, 16).mean(axis=1)
    error = pairs.std(axis=1, ddof=1) / np.sqrt(16)
    gap = pairs.mean(axis=1) - np.concatenate([np.zeros(p), slope])
    # 16 independent pairs: a t distribution with 15 degrees of freedom. x moves with beta, and with
    # the factors of terms of few levels: of their scores the solver's rounding alone is left.
    assert (np.abs(gap) < 4.5 * error + 1e-8 * np.abs(slope).max()).all()
    assert 0.5 < rate <= 1.0
    if problem.reml:
        np.testing.assert_allclose(np.mean(beta[20:], axis=0), estimate, atol=0.05)


@pytest.mark.parametrize("e_step", [Exact(), ConjugateGradient(tol=1e-9)], ids=["exact", "cg"])
def test_posterior_is_the_dense_blup(problem, dense, e_step):
    oracle, algorithm = dense(AT), Reml(problem, e_step, 1e-3, 0, 400)
    posterior = posterior_from_equations(algorithm.equations(AT), 0, 400)
    effects = np.concatenate([e.ravel() for e in posterior.effects])
    stds = np.concatenate([s.ravel() for s in own_sds(posterior.effects_cov)])
    given_beta = oracle.D - oracle.D @ oracle.Z.T @ oracle.Vi @ oracle.Z @ oracle.D
    exact = isinstance(e_step, Exact)
    np.testing.assert_allclose(posterior.beta, oracle.beta, atol=1e-7)
    np.testing.assert_allclose(effects, oracle.effects, atol=1e-6)
    np.testing.assert_allclose(posterior.beta_cov, oracle.beta_cov, rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(stds, np.sqrt(np.diag(given_beta)), rtol=1e-8 if exact else 0.05)
    p, root = problem.p, posterior.root
    covariance = root @ root.T
    # 400 draws: 4.5 Monte Carlo errors of a covariance.
    scale = np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)))[:p, :p]
    error = 1e-8 if exact and root.shape[1] != 400 else 4.5 * np.sqrt(2 / 400)
    np.testing.assert_allclose(covariance[:p, :p] / scale, oracle.beta_cov / scale, atol=error)


@pytest.mark.parametrize("r", [1, 2, 3])
def test_vech_runs_down_the_columns_of_a_lower_triangle(r):
    rows, columns = vech_indices(r)
    expected = [(i, j) for j in range(r) for i in range(j, r)]
    assert list(zip(rows, columns, strict=True)) == expected
