"""Conjugate gradients on what elimination leaves, against the factorisation."""

import multiprocessing
import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import ConvergenceWarning

from sklmm import ConjugateGradient, Exact, MixedEffectsRegressor
from sklmm.datasets import make_crossed
from sklmm.design.design import DesignSpec
from sklmm.design.terms import resolve_terms
from sklmm.engine.algorithms.reml import Reml
from sklmm.engine.equations.crossproducts import CrossProducts
from sklmm.engine.equations.schur_cg import SchurCG
from sklmm.engine.equations.schur_cholesky import SchurCholesky
from sklmm.engine.rows.standardize import standardize
from sklmm.engine.theta.space import Theta
from sklmm.result import Status

REGULAR = {1: np.array([[0.7]]), 2: np.array([[0.6, 0.0], [0.3, 0.5]])}
SINGULAR = {1: np.array([[0.0]]), 2: np.array([[0.6, 0.0], [0.3, 0.0]])}
TERMS = [
    ["a"],
    ["a", "b"],
    ["a", "few"],
    ["(1 + s | a)", "b", "few"],
    ["b", "(1 + s | a)", "(1 + x | c)"],
    ["(1 | few/c)"],
]


def make_problem(terms):
    rng = np.random.default_rng(0)
    n = 900
    table = pd.DataFrame(
        {"a": np.arange(n) % 150, "b": rng.permutation(n) % 90, "c": rng.permutation(n) % 80}
        | {"few": np.arange(n) % 7, "s": rng.normal(size=n), "x": rng.normal(size=n)}
    )
    _, design = DesignSpec.learn(table, resolve_terms(terms), ["x"], True)
    weights = rng.integers(1, 4, n).astype(float)
    return standardize(design, rng.normal(size=n), weights, fit_intercept=True, reml=True)


@pytest.fixture(scope="module", params=TERMS, ids=" ".join)
def problem(request):
    return make_problem(request.param)


@pytest.fixture(params=[REGULAR, SINGULAR], ids=["regular", "singular"])
def factors(problem, request):
    return tuple(request.param[b.r] for b in problem.blocks)


@pytest.fixture(params=[1, 3], ids=["whole", "in parts"])
def pair(problem, factors, request, monkeypatch):
    monkeypatch.setattr("sklmm.engine.linalg.blocks.PARTED", 0 if request.param > 1 else 10**9)
    cross = CrossProducts(problem)
    ours = SchurCG(cross, factors, 0.6, {}, 1e-10, 1000)
    return ours, SchurCholesky(cross, factors, 0.6)


def test_solutions_and_their_warm_starts(pair):
    ours, dense = pair
    rng = np.random.default_rng(1)
    right = rng.normal(size=(dense.cross.Q, 3))
    np.testing.assert_allclose(ours.solve(right, "name"), dense.solve(right), atol=1e-8)
    before = ours.iterations
    np.testing.assert_allclose(ours.solve(right, "name"), dense.solve(right), atol=1e-8)
    assert ours.iterations - before <= 1
    np.testing.assert_allclose(ours.solve(right[:, 0]), dense.solve(right[:, 0]), atol=1e-8)


def test_the_root_is_one(pair):
    ours, dense = pair
    Q = dense.cross.Q
    root = ours.root(np.eye(Q))
    # Lanczos' S^(-1/2) is a function of S, and symmetric but for the preconditioner.
    np.testing.assert_allclose(root @ root.T, dense.solve(np.eye(Q)), atol=5e-3)


def test_variances_by_draws_are_nearly_exact(pair):
    ours, dense = pair
    rng = np.random.default_rng(2)
    drawn = ours.drawn(rng.standard_normal((dense.cross.Q, 64)) / 8)
    for found, exact in zip(ours.variances(drawn), dense.variances(), strict=True):
        # 64 draws know a variance to 18 %, and theirs is a part of it.
        np.testing.assert_allclose(found, exact, atol=0.12 * np.abs(exact).max())
        assert np.abs(found - exact).mean() < 0.03 * np.abs(exact).max()
        if len(found) == 7:
            np.testing.assert_allclose(found, exact, rtol=1e-6)


def test_what_draws_tell_besides_is_what_products_would(pair):
    ours, dense = pair
    noise = np.random.default_rng(3).standard_normal((dense.cross.Q, 3))
    drawn = ours.drawn(noise)
    rest = drawn.root[ours.n :]
    np.testing.assert_allclose(drawn.image, ours.apply(rest)[ours.f :], atol=1e-11)
    np.testing.assert_allclose(drawn.follow, ours._pull(rest), atol=1e-13)
    np.testing.assert_array_equal(drawn.root, ours.root(noise))


def test_traces_with_all_units_as_probes_are_exact(problem, factors, monkeypatch):
    monkeypatch.setattr("sklmm.engine.equations.henderson.INFORMATION_TOL", 0.0)
    theta = Theta(np.zeros(0), factors, np.log([0.8]))
    iterative = Reml(problem, ConjugateGradient(tol=1e-10), 1e-3, 0, 1)
    solver = iterative.solver
    solver.probes, solver.weights = np.eye(len(solver.probes)), np.ones(len(solver.probes))
    expected = Reml(problem, Exact(), 1e-3, 0, 1).look(theta)
    found = iterative.look(theta)
    for ours, theirs in zip(found.score, expected.score, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(found.information, expected.information, rtol=1e-6, atol=1e-6)
    assert found.score_sigma == pytest.approx(expected.score_sigma, rel=1e-6, abs=1e-6)
    assert found.joint == pytest.approx(expected.joint, rel=1e-9)


def test_a_small_table_has_exact_traces_where_a_slope_is_singular():
    rng = np.random.default_rng(5)
    X = pd.DataFrame({"g": rng.integers(60, size=2000), "h": rng.integers(200, size=2000)})
    X["x"] = rng.uniform(5, 15, 2000)
    y = rng.normal(0, 6, 60)[X["g"]] - X["x"] + rng.normal(0, 3, 200)[X["h"]]
    y += rng.normal(0, 5, 2000)
    exact, cg = (
        MixedEffectsRegressor(["(1 + x | g)", "h"], e_step=e_step, random_state=0).fit(X, y)
        for e_step in ("exact", "cg")
    )
    assert exact.result_.status is cg.result_.status is Status.SINGULAR
    assert cg.n_iter_ == exact.n_iter_
    ours, theirs = (m.variance_components_[["sd", "corr"]] for m in (cg, exact))
    np.testing.assert_allclose(ours, theirs, rtol=1e-4)
    assert cg.loglik_ == pytest.approx(exact.loglik_, abs=0.01)


def test_a_solve_that_ends_before_its_tolerance_is_told(two_factors):
    X, mean, noise = two_factors
    model = MixedEffectsRegressor(["a", "b"], e_step=ConjugateGradient(max_iter=2))
    with pytest.warns(ConvergenceWarning, match=r"residual of .*ConjugateGradient\(max_iter=20\)"):
        model.fit(X, mean + noise)
    assert 1e-8 < model.result_.unsolved < 1


def test_noise_is_that_of_the_probes():
    """Gradients of many seeds scatter as the replicates of one say."""
    problem = make_problem(["(1 + s | a)", "b", "few"])
    factors = tuple(REGULAR[b.r] for b in problem.blocks)
    step, theta = ConjugateGradient(n_probes=16), Theta(np.zeros(0), factors, np.log([0.8]))
    scores, errors = [], []
    for seed in range(60):
        moments = Reml(problem, step, 1e-3, seed, 1).look(theta)
        scores.append(moments.score_sigma)
        errors.append(moments.noise[:, -1].var(ddof=1) / len(moments.noise))
    assert np.std(scores, ddof=1) == pytest.approx(np.sqrt(np.mean(errors)), rel=0.35)


@pytest.fixture(scope="module")
def two_factors():
    rng = np.random.default_rng(0)
    n = 5000
    table = pd.DataFrame({"a": rng.integers(0, 300, n), "b": rng.integers(0, 120, n)})
    table["x"] = rng.normal(size=n)
    mean = rng.normal(size=300)[table["a"]] + rng.normal(size=120)[table["b"]]
    return table, mean, rng.normal(size=n)


@pytest.mark.parametrize("sd", [0.1, 0.01])
def test_little_noise_is_no_trouble(two_factors, sd):
    X, mean, noise = two_factors
    y = mean + 0.5 * X["x"] + sd * noise
    ours = MixedEffectsRegressor(["a", "b"], e_step="cg", random_state=0).fit(X, y)
    exact = MixedEffectsRegressor(["a", "b"], e_step="exact").fit(X, y)
    assert ours.converged_
    ours, exact = ours.variance_components_, exact.variance_components_
    assert (np.abs(ours["sd"] - exact["sd"]) < 0.05 * exact["std_error"]).all()


@pytest.mark.parametrize("e_step", ["exact", "cg"])
def test_a_slope_that_explains_nearly_everything_costs_no_digits(two_factors, e_step):
    X, mean, noise = two_factors
    y = mean + 0.1 * noise
    model = MixedEffectsRegressor(["a", "b"], e_step=e_step, random_state=0)
    plain = model.fit(X, y).variance_components_["sd"].to_numpy()
    slope = model.coef_[0]
    steep = model.fit(X, y + 1e5 * X["x"]).variance_components_["sd"].to_numpy()
    np.testing.assert_allclose(steep, plain, rtol=1e-5)
    assert model.coef_[0] == pytest.approx(1e5 + slope, abs=1e-6)


def _child():
    X, y, _ = make_crossed(150_000, (5_000, 1_000), random_state=0)
    MixedEffectsRegressor(["g0", "g1"]).fit(X, y)


@pytest.mark.slow
def test_a_forked_process_has_threads_of_its_own():
    _child()
    child = multiprocessing.get_context("fork").Process(target=_child)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child.start()
    child.join(60)
    done = child.exitcode
    child.kill()
    assert done == 0


def test_draws_that_did_not_converge_are_told_and_estimates_are_as_they_were(monkeypatch):
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"g": rng.integers(0, 150, 600), "h": rng.integers(0, 120, 600)})
    y = rng.normal(size=150)[X["g"]] + rng.normal(size=120)[X["h"]] + 0.1 * rng.normal(size=600)
    model = MixedEffectsRegressor(["g", "h"], e_step="cg", fixed_effects=[])
    estimates = model.fit(X, y).variance_components_["sd"]
    assert model.result_.rough == 0
    monkeypatch.setattr("sklmm.engine.linalg.krylov.MAX_ITER", 3)
    with pytest.warns(match="draws are rough"):
        model.fit(X, y)
    assert model.result_.rough > 0.01
    np.testing.assert_array_equal(model.variance_components_["sd"], estimates)
