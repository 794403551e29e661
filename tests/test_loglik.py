"""Log-likelihoods that are estimated, against exact ones and quadrature.

`tests.test_samplers` has those of published data.
"""

import copy
import pickle
from dataclasses import replace

import joblib
import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logsumexp
from scipy.stats import norm
from sklearn.base import clone
from sklearn.model_selection import cross_validate

from sklmm import HMC, MixedEffectsClassifier, MixedEffectsRegressor, anova
from sklmm.datasets import make_crossed
from sklmm.result import LogLikelihood

TERMS = ["students", "instructors", "departments"]


@pytest.mark.parametrize("method", ["ml", "reml"])
def test_a_gaussian_posterior_leaves_nothing_to_estimate(method, sleepstudy):
    exact = MixedEffectsRegressor(["(1 + Days | Subject)"], method=method).fit(*sleepstudy)
    model = MixedEffectsRegressor(
        ["(1 + Days | Subject)"], method=method, e_step="hmc", random_state=0
    ).fit(*sleepstudy)
    assert model.loglik_error_ < 1e-8
    # That of its own estimates.
    assert 0 < exact.loglik_ - model.loglik_ < 5e-3


def crossed(seed=0, n=240, levels=30):
    """A table of `levels` and two crossed levels, and a binary response."""
    rng = np.random.default_rng(seed)
    X = pd.DataFrame({"g": rng.integers(levels, size=n), "h": rng.integers(2, size=n)})
    X["x"] = rng.normal(size=n)
    eta = 0.4 + X["x"] + 1.5 * rng.normal(size=levels)[X["g"]] + np.array([-0.7, 0.7])[X["h"]]
    return X, (rng.uniform(size=n) < expit(eta)).astype(int)


def crossed_quadrature(model, X, y):
    """log p(y) of `crossed`: the levels of g by a rule each, for every pair of effects of h."""
    sd = model.variance_components_["sd"]
    u, step = np.linspace(-7, 7, 141, retstep=True)
    v, wide = np.linspace(-6, 6, 49, retstep=True)
    fixed_part = model.intercept_ + X["x"].to_numpy() * model.coef_[0]
    sign, g, h = 2 * np.asarray(y) - 1, X["g"].to_numpy(), X["h"].to_numpy()
    # For each value of h's effect, rows of either level of h, summed over levels of g.
    at = fixed_part[:, None, None] + sd[0] * u[:, None] + sd[1] * v
    rows = -np.logaddexp(0, -sign[:, None, None] * at)
    sums = [np.stack([rows[(g == j) & (h == k)].sum(axis=0) for j in np.unique(g)]) for k in (0, 1)]
    both = sums[0][:, :, :, None] + sums[1][:, :, None, :]
    inner = logsumexp(both + norm.logpdf(u)[:, None, None] + np.log(step), axis=1).sum(axis=0)
    prior = norm.logpdf(v) + np.log(wide)
    return logsumexp(inner + prior[:, None] + prior)


@pytest.mark.parametrize("e_step", [HMC(n_chains=8), "nuts"], ids=str)
def test_crossed_factors_are_within_its_error_of_quadrature(e_step):
    X, y = crossed()
    model = MixedEffectsClassifier(["g", "h"], e_step=e_step, tol=0.3, random_state=0).fit(X, y)
    expected = crossed_quadrature(model, X, y)
    laplace = MixedEffectsClassifier(["g", "h"], e_step="laplace").fit(X, y)
    assert abs(laplace.loglik_ - expected) > 0.3
    again = model.result_.likelihood
    for seed in range(4):
        again._estimate.func.seed = seed
        value, error = again._estimate()
        assert 0.001 < error < 0.1
        assert abs(value - expected) < 3 * error


@pytest.fixture(scope="module")
def large():
    """A crossed model of 450 connected effects, and its table."""
    X, y, _ = make_crossed(1500, (300, 150), random_state=0)
    model = MixedEffectsRegressor(
        ["g0", "g1"], family="poisson", e_step=HMC(n_chains=4), max_iter=3, random_state=0
    )
    with pytest.warns(match="max_iter=3"):
        model.fit(X, (y > y.mean()).astype(float))
    return model, X, (y > y.mean()).astype(float)


def test_it_is_computed_when_it_is_asked_for_and_once(large):
    model, X, y = large
    model = copy.deepcopy(model)
    assert model.result_.likelihood._known is None
    copied, other = copy.deepcopy(model), clone(model)
    with pytest.warns(match="max_iter=3"):
        other.fit(X, y)
    before = model.loglik_
    assert model.result_.likelihood._estimate is None
    assert 0 < model.loglik_error_ < 0.2
    # Whoever asks first.
    assert copied.loglik_ == before
    other.predict(X)
    assert other.loglik_ == before
    k = model.result_.n_parameters
    assert model.aic_ == pytest.approx(2 * k - 2 * before)
    assert model.bic_ == pytest.approx(k * np.log(len(X)) - 2 * before)


def test_a_file_has_it_if_it_was_asked_for(tmp_path):
    X, y = crossed()
    model = MixedEffectsClassifier(["g"], e_step=HMC(n_chains=8), tol=0.5, random_state=0).fit(X, y)
    loaded = pickle.loads(pickle.dumps(model))
    for name in ("loglik_", "loglik_error_", "aic_", "bic_"):
        with pytest.raises(AttributeError, match="loglik_ before the model is saved"):
            getattr(loaded, name)
    assert "not known; read loglik_ before a model is saved" in loaded.summary()
    value = model.loglik_
    joblib.dump(model, tmp_path / "model")
    loaded = joblib.load(tmp_path / "model")
    assert (loaded.loglik_, loaded.aic_) == (value, model.aic_)
    assert loaded.summary() == model.summary()


def test_models_of_cross_validation_and_of_an_update_have_theirs():
    X, y = crossed()
    model = MixedEffectsClassifier(["g"], e_step=HMC(n_chains=8), tol=0.5, random_state=0)
    models = cross_validate(model, X, y, cv=2, return_estimator=True)["estimator"]
    for fold in models:
        assert np.isfinite(fold.loglik_)
    model.fit(X, y).update(X.assign(g=99)[:5], y[:5])
    # It is that of the fit.
    assert model.loglik_ == clone(model).fit(X, y).loglik_


def test_a_variance_of_nearly_zero_has_hardly_any_say():
    X, _, _ = make_crossed(600, (20, 10), random_state=0)
    rng = np.random.default_rng(0)
    noise = rng.poisson(3.0, len(X)).astype(float)
    small, glm = (
        MixedEffectsRegressor(terms, family="poisson", e_step=HMC(n_chains=8), random_state=0)
        for terms in (["g0", "g1"], None)
    )
    small.set_params(max_iter=6)
    with pytest.warns(match="max_iter=6"):
        small.fit(X, noise)
    assert small.variance_components_["sd"].max() < 0.2
    assert abs(small.loglik_ - glm.fit(X, noise).loglik_) < 2


def test_anova_of_crossed_models():
    X, y = crossed()
    X["z"] = np.random.default_rng(5).normal(size=len(X))

    def model(terms, columns):
        e_step = HMC(n_chains=8)
        own = {"fixed_effects": columns, "e_step": e_step, "tol": 0.2, "random_state": 0}
        return MixedEffectsClassifier(terms, **own).fit(X, y)

    one, both = model(["h"], ["x"]), model(["g", "h"], ["x"])
    table = anova(one, both)
    assert table["chi2"].iloc[1] == pytest.approx(2 * (both.loglik_ - one.loglik_))
    assert table["df"].iloc[1] == 1
    assert table["p"].iloc[1] < 1e-4
    # Of its maximum another one's likelihood is off by its error.
    again = copy.deepcopy(both)
    again.result_ = replace(both.result_, likelihood=LogLikelihood(both.loglik_ + 0.05, 0.04))
    again.result_ = replace(again.result_, rank=both.result_.rank + 1)
    with pytest.warns(UserWarning, match="is within the Monte Carlo error of their likelihoods"):
        assert anova(both, again)["df"].iloc[1] == 1


@pytest.mark.parametrize("terms", [["g0", "g1"], ["(1 + x0 | g0)", "g1"], ["(1 | g1/g0)"]])
@pytest.mark.parametrize("method", ["ml", "reml"])
def test_conjugate_gradients_know_it_within_their_error(terms, method):
    X, y, _ = make_crossed(3000, (300, 200), random_state=1)
    exact = MixedEffectsRegressor(terms, method=method, e_step="exact").fit(X, y)
    for seed in range(3):
        model = MixedEffectsRegressor(terms, method=method, e_step="cg", random_state=seed)
        model.fit(X, y)
        assert model.loglik_error_ < 0.2
        assert abs(model.loglik_ - exact.loglik_) < 3 * model.loglik_error_ + 0.01


@pytest.mark.slow
def test_insteval(insteval):
    X, y = insteval
    model = MixedEffectsRegressor(TERMS, fixed_effects=["service"], method="ml")
    assert -2 * model.fit(X, y).loglik_ == pytest.approx(237_721.77, abs=0.01)
    assert model.loglik_error_ == 0
    for seed in range(3):
        model.set_params(e_step="cg", random_state=seed).fit(X, y)
        assert 2 * model.loglik_error_ < 0.4
        assert abs(-2 * model.loglik_ - 237_721.77) < min(3 * 2 * model.loglik_error_, 0.5)
