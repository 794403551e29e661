"""Covariances of a few lines, as a stranger would add them: they fit what equivalent models do."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest

from sklmm import MixedEffectsRegressor, RandomEffect
from sklmm.covariances import Covariance


@dataclass(frozen=True)
class Alike(Covariance):
    """Independent coefficients of one variance: Sigma = s^2 I."""

    r: int | None = None
    n_params = 1
    reported = ((0, 0),)

    def factor(self, params):
        return params[0] * np.eye(self.r)

    def fitted(self, root):
        return np.array([np.sqrt(np.sum(root**2) / self.r)])


@dataclass(frozen=True)
class CompoundSymmetry(Covariance):
    """One variance and one correlation: Sigma = s^2 ((1 - c) I + c 1 1^T), c = tanh(raw)."""

    r: int | None = None
    n_params = 2
    linear = False
    is_sd = np.array([True, False])
    reported = ((0, 0), (1, 0))

    def factor(self, params):
        c = np.tanh(params[1])
        return params[0] * np.linalg.cholesky((1 - c) * np.eye(self.r) + c)

    def params(self, L):
        return np.array([np.sign(L[0, 0]), 1.0]) * self.fitted(L)

    def fitted(self, root):
        S = root @ root.T
        variance = np.trace(S) / self.r
        c = (S.sum() - np.trace(S)) / (self.r * (self.r - 1)) / variance
        return np.array([np.sqrt(variance), np.arctanh(np.clip(c, -0.9 / (self.r - 1), 0.999))])


def test_derivatives_of_a_factor_that_is_not_linear_are_differences():
    covariance, params = CompoundSymmetry(3), np.array([0.8, 0.3])
    G = np.array([[1.0, 0.2, 0.5], [0.2, -0.7, 0.1], [0.5, 0.1, 0.4]])

    def value(params):
        L = covariance.factor(params)
        return np.sum(G * (L @ L.T))

    def central(function, h):
        return (
            np.array([function(params + e) - function(params - e) for e in h * np.eye(2)]) / h / 2
        )

    L = covariance.factor(params)
    np.testing.assert_allclose(covariance.params(L), params)
    np.testing.assert_allclose(covariance.score(L, G), central(value, 1e-5), atol=1e-8)
    bends = central(lambda at: covariance.score(covariance.factor(at), G), 1e-4)
    np.testing.assert_allclose(covariance.curvature(L, G), bends, atol=1e-5)


def test_a_term_is_printed_as_its_covariance_is():
    own = RandomEffect("g", ("a", "b"), intercept=False, covariance=Alike())
    assert str(own) == "Alike(0 + a + b | g)"
    assert str(RandomEffect("g", ("a",), covariance="diag")) == "diag(1 + a | g)"
    assert str(RandomEffect("g", ("a",), sd=1.0)) == "(1 + a || g)"
    assert str(RandomEffect("g", sd=1.0)) == "(1 | g)"


CONDITIONS = ("a", "b", "c")


@pytest.fixture(scope="module")
def table():
    """40 groups in three conditions, twice each; eta."""
    rng = np.random.default_rng(0)
    g, condition = np.divmod(np.repeat(np.arange(120), 3), 3)
    X = pd.DataFrame({"g": g, "condition": condition, "x": rng.normal(size=360)})
    X = X.assign(**{name: (condition == k) * 1.0 for k, name in enumerate(CONDITIONS)})
    eta = (
        0.5 + 0.3 * X["x"] + rng.normal(0, 0.5, 40)[g] + rng.normal(0, 0.4, 120)[3 * g + condition]
    )
    return X, eta, rng


def fitted(terms, X, y, **parameters):
    return MixedEffectsRegressor(terms, fixed_effects=["x"], random_state=0, **parameters).fit(X, y)


@pytest.mark.parametrize("e_step", ["exact", "cg", "laplace"])
def test_one_variance_is_that_of_an_interaction(table, e_step):
    X, eta, rng = table
    y = eta + rng.normal(0, 0.6, len(X)) if e_step != "laplace" else rng.poisson(np.exp(eta))
    family = "poisson" if e_step == "laplace" else "gaussian"
    term = RandomEffect("g", CONDITIONS, intercept=False, covariance=Alike())
    ours, theirs = (
        fitted(terms, X, y, family=family, e_step=e_step, tol=1e-6)
        for terms in ([term], ["(1 | g:condition)"])
    )
    assert ours.loglik_ == pytest.approx(theirs.loglik_, abs=1e-6)
    assert ours.variance_components_["name"].tolist()[0] == "a"
    for column in ("sd", "std_error"):
        found = ours.variance_components_[column]
        np.testing.assert_allclose(found, theirs.variance_components_[column], rtol=1e-3)
    columns = ["estimate", "std_error"]
    np.testing.assert_allclose(
        ours.fixed_effects_[columns], theirs.fixed_effects_[columns], rtol=1e-4
    )
    np.testing.assert_allclose(ours.predict(X), theirs.predict(X), rtol=1e-2)
    np.testing.assert_array_equal(ours.cov_re_["g"], ours.cov_re_["g"].iloc[0, 0] * np.eye(3))


@pytest.mark.parametrize("e_step", ["exact", "laplace"])
def test_compound_symmetry_is_that_of_nested_terms(table, e_step):
    """s^2 is the sum of the two variances, and c the share of the first."""
    X, eta, rng = table
    y = eta + rng.normal(0, 0.6, len(X)) if e_step != "laplace" else rng.poisson(np.exp(eta))
    family = "poisson" if e_step == "laplace" else "gaussian"
    term = RandomEffect("g", CONDITIONS, intercept=False, covariance=CompoundSymmetry())
    ours, theirs = (
        fitted(terms, X, y, family=family, e_step=e_step, tol=1e-6)
        for terms in ([term], ["g", "(1 | g:condition)"])
    )
    assert ours.loglik_ == pytest.approx(theirs.loglik_, abs=1e-6)
    between, within = theirs.variance_components_["sd"][:2] ** 2
    sd, corr = ours.variance_components_["sd"][0], ours.variance_components_["corr"][1]
    assert sd**2 == pytest.approx(between + within, rel=1e-4)
    assert corr == pytest.approx(between / (between + within), rel=1e-3)
    assert (ours.variance_components_["std_error"][:2] > 0).all()
    np.testing.assert_allclose(ours.coef_, theirs.coef_, rtol=1e-5)


@pytest.mark.slow
def test_one_variance_by_hmc(table):
    X, eta, rng = table
    y = rng.poisson(np.exp(eta))
    term = RandomEffect("g", CONDITIONS, intercept=False, covariance=Alike())
    ours, theirs = (
        fitted(terms, X, y, family="poisson", e_step=e_step)
        for terms, e_step in (([term], "hmc"), (["(1 | g:condition)"], "laplace"))
    )
    assert ours.converged_
    gap = np.abs(ours.variance_components_["sd"][0] - theirs.variance_components_["sd"][0])
    assert gap < 0.15 * theirs.variance_components_["std_error"][0]
    np.testing.assert_allclose(
        ours.fixed_effects_["std_error"], theirs.fixed_effects_["std_error"], rtol=0.03
    )
