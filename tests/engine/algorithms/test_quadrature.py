"""Fits by quadrature: published maxima, other ways to the same, boundaries, errors, and "auto"."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from sklmm import (
    HMC,
    Exact,
    MixedEffectsClassifier,
    MixedEffectsRegressor,
    Poisson,
    Quadrature,
    RandomEffect,
    anova,
)
from sklmm.datasets import load_pastes
from sklmm.design.terms import resolve_terms
from sklmm.engine.algorithms import quadrature
from sklmm.result import Status
from tests.published import DATA, QUADRATURE, fitted, fixed
from tests.quadrature import Model
from tests.simulate import simulate


@pytest.mark.parametrize("n_points", [None, "theirs"])
@pytest.mark.parametrize("name", QUADRATURE)
def test_published(reference, name, n_points):
    """Estimates within 1e-4 standard errors of lme4's and clmm's, log-likelihoods within 1e-4.

    By their own number of points and by as many as it takes: of toenail lme4's 50 are too few.
    """
    key = QUADRATURE[name][0]
    theirs = int(key.split("agq")[1])
    answer = reference["toenail_agq100" if n_points is None and name == "toenail" else key]
    model = fitted(name, e_step=Quadrature(None if n_points is None else theirs))
    coef, std, sd = fixed(answer)
    ours = model.fixed_effects_.loc[coef.index]
    assert np.all(np.abs(ours["estimate"] - coef) < 1e-4 * std)
    np.testing.assert_allclose(ours["std_error"], std, rtol=1e-3)
    component = model.variance_components_.iloc[0]
    assert abs(component["sd"] - sd) < 1e-4 * component["std_error"]
    assert model.loglik_error_ == 0
    assert model.result_.status is Status.CONVERGED
    assert model.loglik_ == pytest.approx(answer["logLik"] + saturated(name), abs=1e-4)


def saturated(name):
    """What lme4's log-likelihood by more points than one lacks: that of means which are y."""
    _, _, y, weights = DATA[name]()
    if name == "epil2":
        return stats.poisson.logpmf(y, y).sum()
    if name == "cbpp":
        return stats.binom.logpmf(np.round(y * weights), weights, y).sum()
    return 0.0


def test_one_point_is_laplaces_approximation():
    """As glmer's nAGQ = 1 has it (lme4 1.1), whose tolerance the bounds are.

    Three rows a group with a large SD: the approximation is far from the likelihood, whose SD is
    3.14.
    """
    rng = np.random.default_rng(0)
    g, x = np.repeat(np.arange(200), 3), rng.normal(size=600)
    uniform = rng.random(600)
    y = uniform < 1 / (1 + np.exp(0.5 - x - 3 * rng.normal(size=200)[g]))
    model = MixedEffectsClassifier(["g"], e_step=Quadrature(n_points=1))
    model.fit(pd.DataFrame({"x": x, "g": g}), y)
    assert model.converged_
    found = [model.intercept_, *model.coef_, model.variance_components_["sd"].iloc[0]]
    np.testing.assert_allclose(np.ravel(found), [-0.32201, 0.84139, 2.73129], rtol=2e-3)


@pytest.mark.parametrize("family", ["bernoulli", "negative_binomial"])
def test_standard_errors_are_of_the_likelihoods_second_differences(family):
    """By other code for the likelihood."""
    X, y, _, _ = simulate(family, 0, n_groups=30, n_rows=5)
    estimator = MixedEffectsClassifier if family == "bernoulli" else MixedEffectsRegressor
    model = estimator(["g"], family=family, e_step="quadrature", tol=1e-6).fit(X, y)
    design = np.column_stack([np.ones(len(X)), X["x"]])
    sd = model.variance_components_["sd"][0]
    dispersion = [*model.family_params_.values()]
    other = Model(family, design, X["g"], y)
    values = np.array([model.intercept_, *model.coef_, *np.log([sd, *dispersion])])
    assert other.loglik(values) == pytest.approx(model.loglik_, abs=1e-6)
    # By short steps: the likelihood is far from quadratic in a logarithm.
    h, m = 1e-3 * np.eye(len(values)), len(values)
    information = np.empty((m, m))
    for i in range(m):
        for j in range(m):
            signs = [(1, 1), (1, -1), (-1, 1), (-1, -1)]
            ends = [a * b * other.loglik(values + a * h[i] + b * h[j]) for a, b in signs]
            information[i, j] = -sum(ends) / 4e-6
    std = np.sqrt(np.diag(np.linalg.inv(information)))
    std[2:] *= [sd, *dispersion]
    ours = [*model.fixed_effects_["std_error"], *model.result_.variance_se]
    np.testing.assert_allclose(ours, std, rtol=1e-3)
    log, effects = other.levels(values)
    share = np.exp(log - log.max(axis=1, keepdims=True))
    share /= share.sum(axis=1, keepdims=True)
    mean = np.sum(share * effects, axis=1)
    np.testing.assert_allclose(model.random_effects_["g"].to_numpy()[:, 0], mean, atol=1e-4)
    spread = np.sqrt(np.sum(share * (effects - mean[:, None]) ** 2, axis=1))
    stds = model.random_effects_std_["g"].to_numpy()[:, 0]
    np.testing.assert_allclose(stds, spread, rtol=1e-3)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("family", ["bernoulli", "negative_binomial", "ordinal", "beta"])
def test_what_the_last_step_leaves_is_far_below_the_standard_errors(family, seed):
    X, y, _, _ = simulate(family, seed, n_groups=30, n_rows=5)
    classes = family in ("bernoulli", "ordinal")
    estimator = MixedEffectsClassifier if classes else MixedEffectsRegressor
    quick, exact = (
        estimator(["g"], family=family, e_step="quadrature", tol=tol).fit(X, y)
        for tol in ("auto", 1e-8)
    )
    for name, column in (("fixed_effects_", "estimate"), ("variance_components_", "sd")):
        tables = [getattr(m, name).dropna(subset=["std_error"]) for m in (quick, exact)]
        gap = tables[0][column] - tables[1][column]
        assert len(gap)
        assert np.all(np.abs(gap) < 1e-4 * tables[1]["std_error"])
    assert quick.loglik_ == pytest.approx(exact.loglik_, abs=1e-6)
    for name in ("fixed_effects_", "variance_components_"):
        both = [getattr(m, name)["std_error"].dropna() for m in (quick, exact)]
        np.testing.assert_allclose(*both, rtol=1e-4)


@pytest.mark.parametrize("terms", [["(1 + Days | Subject)"], ["(1 + Days || Subject)"]])
def test_a_gaussian_models_is_its_closed_form(sleepstudy, terms):
    models = [
        MixedEffectsRegressor(terms, method="ml", e_step=e_step, tol=1e-6).fit(*sleepstudy)
        for e_step in ("exact", Quadrature(n_points=5))
    ]
    assert models[1].loglik_ == pytest.approx(models[0].loglik_, abs=1e-6)
    tables = [m.variance_components_["sd"].dropna() for m in models]
    np.testing.assert_allclose(tables[1], tables[0], rtol=1e-4)
    for name in ("estimate", "std_error"):
        both = [m.fixed_effects_[name] for m in models]
        np.testing.assert_allclose(both[1], both[0], rtol=1e-3)
    both = [m.predict(sleepstudy[0], return_std=True)[1] for m in models]
    np.testing.assert_allclose(both[1], both[0], rtol=0.1)


def test_nested_gaussian_factors_are_their_closed_form():
    X, y = load_pastes(return_X_y=True, as_frame=True)
    models = [
        MixedEffectsRegressor(
            ["(1 | batch/cask)"], fixed_effects=[], method="ml", e_step=e_step, tol=1e-6
        ).fit(X, y)
        for e_step in ("exact", "quadrature")
    ]
    assert models[1].loglik_ == pytest.approx(models[0].loglik_, abs=1e-6)
    for attribute in ("random_effects_", "random_effects_std_"):
        for term, effects in getattr(models[0], attribute).items():
            ours = getattr(models[1], attribute)[term]
            np.testing.assert_allclose(ours, effects, atol=1e-3)


def test_more_points_are_taken_until_the_likelihood_rests():
    """Few binary rows a level of large SD ask for many, and the Gaussian for no more than twice."""
    model, X, y, _ = DATA["toenail"]()
    kept = []
    seen = quadrature.Quadrature._finer

    def finer(self, here):
        found = seen(self, here)
        kept.append((here.n_points, self.error))
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quadrature.Quadrature, "_finer", finer)
        model.set_params(e_step="quadrature").fit(X, y)
    assert kept[-1][0] >= 39
    assert kept[-1][1] < quadrature.SETTLED < kept[-2][1]


def test_what_is_left_is_told_where_points_run_out(monkeypatch):
    model, X, y, _ = DATA["toenail"]()
    monkeypatch.setattr(quadrature, "MOST_POINTS", 20)
    model.set_params(e_step="quadrature").fit(X, y)
    assert model.converged_
    assert 1e-3 < model.loglik_error_ < 1
    assert abs(model.loglik_ + 625.39752) < 2 * model.loglik_error_


def test_a_variance_of_0_is_a_singular_fit():
    """Binomial rows that vary less than they would by chance."""
    X = pd.DataFrame({"g": np.repeat(np.arange(20), 4)})
    y = np.tile([0, 1, 0, 1], 20)
    model = MixedEffectsClassifier(["g"], fixed_effects=[], e_step="quadrature").fit(X, y)
    assert model.result_.status is Status.SINGULAR
    assert model.variance_components_["sd"][0] < 1e-4
    assert model.loglik_ == pytest.approx(80 * np.log(0.5), abs=1e-6)


@pytest.mark.parametrize(
    ("family", "seeds"), [("bernoulli", range(12)), ("poisson", range(40, 60))]
)
def test_whether_a_variance_is_0_does_not_depend_on_the_tolerance(family, seeds):
    """Few rows without effects: near 0 the likelihood is flat, and steps shrink slowly."""
    binary = family == "bernoulli"
    estimator = MixedEffectsClassifier if binary else MixedEffectsRegressor
    found = []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        X = pd.DataFrame({"g": rng.integers(0, 24, 53), "x": rng.normal(size=53)})
        if binary:
            y = rng.random(53) < 1 / (1 + np.exp(-X["x"]))
        else:
            y = rng.poisson(np.exp(X["x"] - 2))
        model = estimator(["g"], family=family, e_step="quadrature")
        status = [model.set_params(tol=tol).fit(X, y).result_.status for tol in ("auto", 1e-8)]
        assert status[0] is status[1]
        found.append(status[0])
    assert {Status.SINGULAR, Status.CONVERGED} == set(found)


@pytest.mark.parametrize("n_points", [None, 15])
@pytest.mark.parametrize("tol", [0.5, "auto"])
def test_the_log_likelihood_is_that_of_the_estimates(tol, n_points):
    """By other code, of fits that end by a long step and by a short one."""
    for seed in range(3):
        X, y, _, _ = simulate("bernoulli", seed, n_groups=15, n_rows=8)
        e_step = Quadrature(n_points)
        model = MixedEffectsClassifier(["g"], e_step=e_step, tol=tol).fit(X, y)
        other = Model("bernoulli", np.column_stack([np.ones(len(X)), X["x"]]), X["g"], y)
        sd = model.variance_components_["sd"][0]
        values = np.array([*np.ravel(model.intercept_), *np.ravel(model.coef_), np.log(sd)])
        assert model.loglik_ == pytest.approx(other.loglik(values), abs=1e-6)


def test_terms_of_three_classes_and_a_pinned_sd():
    X, y, _, _ = simulate("categorical", 0, n_groups=30, n_rows=8)
    model = MixedEffectsClassifier(["g"], family="categorical").fit(X, y)
    assert model.converged_
    pinned = MixedEffectsRegressor(
        [RandomEffect("g", sd=0.5)], family="poisson", e_step="quadrature"
    )
    counts = simulate("poisson", 0, n_groups=30, n_rows=8)[:2]
    pinned.fit(*counts)
    assert pinned.variance_components_["sd"][0] == pytest.approx(0.5)
    free = MixedEffectsRegressor(["g"], family="poisson", e_step="quadrature").fit(*counts)
    assert free.loglik_ > pinned.loglik_
    assert anova(pinned, free)["df"].iloc[1] == 1


def test_weights_are_repetitions():
    X, y, _, _ = simulate("negative_binomial", 0, n_groups=20, n_rows=4)
    weights = np.random.default_rng(0).integers(1, 4, len(X))
    rows = np.repeat(np.arange(len(X)), weights)
    model = MixedEffectsRegressor(["g"], family="negative_binomial", e_step="quadrature")
    weighed = model.fit(X, y, sample_weight=weights).loglik_
    assert weighed == pytest.approx(model.fit(X.iloc[rows], y[rows]).loglik_, abs=1e-7)


def test_a_warm_start_takes_few_steps():
    X, y, _, _ = simulate("bernoulli", 0, n_groups=60, n_rows=6)
    model = MixedEffectsClassifier(["g"], warm_start=True).fit(X, y)
    first, n_iter = model.loglik_, model.n_iter_
    model.fit(X, y)
    assert model.n_iter_ < n_iter
    assert model.loglik_ == pytest.approx(first, abs=1e-6)


@pytest.mark.parametrize(
    ("terms", "parameters", "message"),
    [
        (["g", "c"], {}, "these are crossed: use 'auto'"),
        (["g"], {"method": "reml"}, "use method='ml', or e_step 'laplace'"),
        (["(1 + x + z + w | g)"], {"e_step": Quadrature(99)}, r"99\^4 points for each of 120 rows"),
    ],
)
def test_models_that_it_is_not_for(terms, parameters, message):
    X, y, _, _ = simulate("poisson", 0, n_groups=30, n_rows=4)
    rng = np.random.default_rng(0)
    X = X.assign(c=np.arange(len(X)) % 7, z=rng.normal(size=len(X)), w=rng.normal(size=len(X)))
    model = MixedEffectsRegressor(terms, fixed_effects=["x"], family="poisson", e_step="quadrature")
    with pytest.raises(ValueError, match=message):
        model.set_params(**parameters).fit(X, y)


def e_step_of(terms, method="auto", family="poisson"):
    X, y, _, _ = simulate("poisson", 0, n_groups=30, n_rows=4)
    X = X.assign(h=X["g"] // 3, c=np.arange(len(X)) % 7)
    model = MixedEffectsRegressor(terms, fixed_effects=["x"], family=family, method=method)
    spec, design = model._learn(X, resolve_terms(terms), None, Poisson().bind(y))
    return model._checked_e_step(spec, design, model._resolve_family(y).bind(y))


@pytest.mark.parametrize(
    ("terms", "parameters", "expected"),
    [
        (["g"], {}, Quadrature),
        (["(1 + x | g)"], {}, Quadrature),
        (["(1 | h / g)"], {}, Quadrature),
        (["h", "(0 + x | g)"], {}, Quadrature),
        (["g", "c"], {}, HMC),
        (["(1 + x + c | g)"], {}, HMC),
        (["g"], {"method": "reml"}, HMC),
        (["g"], {"family": "gaussian"}, Exact),
    ],
)
def test_auto_takes_it_where_it_is_affordable(terms, parameters, expected):
    assert isinstance(e_step_of(terms, **parameters), expected)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("family", ["bernoulli", "negative_binomial"])
def test_monte_carlo_em_is_within_its_error(family, seed):
    X, y, _, _ = simulate(family, 0, n_groups=60, n_rows=6)
    estimator = MixedEffectsClassifier if family == "bernoulli" else MixedEffectsRegressor
    exact = estimator(["g"], family=family, e_step="quadrature").fit(X, y).result_
    noisy = estimator(["g"], family=family, e_step="hmc", random_state=seed).fit(X, y).result_
    gap = np.concatenate([noisy.coef - exact.coef, noisy.natural - exact.natural])
    assert np.all(np.abs(gap) < 4 * noisy.mc_error)
    std = np.sqrt(np.diag(exact.natural_cov))
    np.testing.assert_allclose(np.sqrt(np.diag(noisy.natural_cov)), std, rtol=0.05)
