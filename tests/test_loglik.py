"""Log-likelihoods that are estimated, against exact ones and quadrature."""

import numpy as np
import pytest
from scipy.special import gammaln, logsumexp
from scipy.stats import norm

from sklmm import HMC, MixedEffectsRegressor
from sklmm.datasets import make_crossed
from sklmm.engine.likelihood.likelihood import Likelihood
from tests.published import DATA

TERMS = ["students", "instructors", "departments"]


def quadrature(model, X, y, weights):
    """log p(y) of a model with one random intercept, by the trapezoidal rule on each level."""
    like = Likelihood.of(model._fitted.family)
    fixed = model.intercept_ + X.drop(columns=X.columns[0]).to_numpy(float) @ model.coef_
    u, step = np.linspace(-8, 8, 1601, retstep=True)
    eta = fixed[:, None] + model.variance_components_["sd"][0] * u
    rows = np.asarray(like.log_prob(np.asarray(y, float), eta, np.zeros((0, len(u)))))
    rows = rows * np.asarray(weights)[:, None]
    levels = X.iloc[:, 0].to_numpy()
    sums = np.stack([rows[levels == j].sum(axis=0) for j in np.unique(levels)])
    return logsumexp(sums + norm.logpdf(u) + np.log(step), axis=1).sum()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", ["cbpp", "epil2"])
def test_importance_sampling_is_within_its_error_of_quadrature(name, seed):
    model, X, y, weights = DATA[name]()
    model.set_params(e_step="hmc", random_state=seed).fit(X, y, sample_weight=weights)
    size = np.ones(len(y)) if weights is None else np.asarray(weights)
    constant = 0.0
    if name == "cbpp":
        k = np.round(size * y)
        constant = np.sum(gammaln(size + 1) - gammaln(k + 1) - gammaln(size - k + 1))
    expected = quadrature(model, X, y, size) + constant
    assert 0 < model.loglik_error_ < 0.05
    assert abs(model.loglik_ - expected) < 3 * model.loglik_error_


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_toenail(seed):
    model, X, y, _ = DATA["toenail"]()
    model.set_params(e_step="hmc", random_state=seed).fit(X, y)
    assert model.loglik_error_ < 0.1
    assert abs(2 * model.loglik_ + 1250.795) < 3 * 2 * model.loglik_error_


def test_a_component_of_many_connected_effects_has_no_estimate():
    X, y, _ = make_crossed(1500, (300, 150), random_state=0)
    model = MixedEffectsRegressor(
        ["g0", "g1"], family="poisson", e_step=HMC(n_chains=4), max_iter=3, random_state=0
    )
    with pytest.warns(match="max_iter=3"):
        model.fit(X, (y > y.mean()).astype(float))
    assert np.isnan([model.loglik_, model.aic_, model.bic_]).all()
    # Laplace's is that of its own approximation.
    assert np.isfinite(model.set_params(e_step="laplace", max_iter=100).fit(X, y > 0).loglik_)


@pytest.mark.parametrize("terms", [["g0", "g1"], ["(1 + x0 | g0)", "g1"], ["(1 | g1/g0)"]])
@pytest.mark.parametrize("method", ["ml", "reml"])
def test_conjugate_gradients_know_it_within_their_error(terms, method):
    X, y, _ = make_crossed(3000, (300, 200), random_state=1)
    for seed in range(3):
        model = MixedEffectsRegressor(terms, method=method, e_step="cg", random_state=seed)
        model.fit(X, y)
        exact = MixedEffectsRegressor(terms, method=method, e_step="exact").fit(X, y)
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
