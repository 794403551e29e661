"""Priors of coefficients and SDs: estimates that are a posterior's mode."""

import json
from functools import cache
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize
from scipy.special import expit
from scipy.stats import gamma, norm, poisson
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

from sklmm import (
    HMC,
    GammaPrior,
    MixedEffectsClassifier,
    MixedEffectsRegressor,
    RandomEffect,
    anova,
)
from sklmm.result import Status

DATA = Path(__file__).parent / "data"
#: Exact maxima by quadrature and dense likelihoods, which R's integrate and blme confirm.
KNOWN = json.loads((DATA / "two_part.json").read_text())
GAMMAS = [name for name in KNOWN if name.startswith("gamma_")]
SEPARATED = {
    "sep_quasi_normal2.5": ("y_quasi", ["x", "z"], 2.5),
    "sep_quasi_normal10_2.5": ("y_quasi", ["x", "z"], {"(Intercept)": 10, "x": 2.5, "z": 2.5}),
    "sep_full_normal2.5": ("y_full", ["x"], 2.5),
}


@cache
def table(name):
    return pd.read_csv(DATA / f"{name}.csv")


def separated(name, e_step="auto", **parameters):
    y, columns, prior = SEPARATED[name]
    X = table("separated")
    model = MixedEffectsClassifier(
        ["g"], fixed_effects=columns, coef_prior=prior, e_step=e_step, random_state=0, **parameters
    )
    return model.fit(X, X[y])


def assert_known(model, known, of_se, std=1e-3):
    """Whether estimates and standard errors are those known, to a share of standard errors."""
    fixed = model.fixed_effects_.rename(index={"Intercept": "(Intercept)"})
    se = pd.Series(known["se"])[list(known["coef"])]
    away = (fixed["estimate"] - pd.Series(known["coef"])) / se
    assert np.abs(away).max() < of_se
    np.testing.assert_allclose(fixed["std_error"][se.index], se, rtol=std)
    sd = model.variance_components_["sd"].iloc[0]
    if known["sd"] == 0:
        assert sd < 1e-3
        return
    log_se = known["se"]["log sd"]
    assert abs(np.log(sd / known["sd"])) / log_se < of_se
    # The SD of an SD is that of its logarithm times it, at a maximum over either.
    assert model.variance_components_["std_error"].iloc[0] / sd == pytest.approx(log_se, rel=std)


@pytest.mark.parametrize("name", SEPARATED)
def test_separated_data_have_the_exact_mode_by_default(name):
    model, known = separated(name), KNOWN[name]
    assert_known(model, known, 1e-4)
    assert model.loglik_ == pytest.approx(known["loglik"], abs=1e-4)
    assert model.log_posterior_ == pytest.approx(known["log_posterior"], abs=1e-6)
    assert model.converged_


@pytest.mark.parametrize("name", ["sep_quasi_normal2.5", "sep_quasi_normal10_2.5"])
def test_laplace_has_its_own_mode(name):
    model, known = separated(name, "laplace"), KNOWN[name]["laplace"]
    assert_known(model, known, 1e-4)
    assert model.loglik_ == pytest.approx(known["loglik"], abs=1e-4)


def test_monte_carlo_em_has_the_mode_within_its_error():
    model, known = separated("sep_quasi_normal2.5", HMC(backend="numpy")), "sep_quasi_normal2.5"
    known = KNOWN[known]
    away = (model.fixed_effects_["estimate"].to_numpy() - list(known["coef"].values())) / (
        model.mc_error_[["Intercept", "x", "z"]]
    )
    assert np.abs(away).max() < 4
    assert_known(model, known, 0.1, 0.05)
    error = 1e-3 + 4 * model.loglik_error_
    assert model.log_posterior_ == pytest.approx(known["log_posterior"], abs=error)


def test_without_effects_the_mode_is_that_of_penalised_logistic_regression():
    X = table("separated")
    model = MixedEffectsClassifier(fixed_effects=["x", "z"], coef_prior={"z": 1.5}).fit(
        X, X["y_quasi"]
    )
    W = np.column_stack([np.ones(len(X)), X["x"], X["z"]])

    def loss(beta):
        eta = W @ beta
        return -np.sum(X["y_quasi"] * eta - np.logaddexp(0, eta)) - norm.logpdf(beta[2], scale=1.5)

    found = minimize(loss, np.zeros(3), method="BFGS", options={"gtol": 1e-8})
    np.testing.assert_allclose([model.intercept_, *model.coef_], found.x, atol=1e-5)
    assert model.log_posterior_ == pytest.approx(-found.fun, abs=1e-8)


@pytest.mark.parametrize("prior", [None, {"x": 2.5}])
def test_columns_without_a_prior_still_separate(prior):
    X = table("separated")
    model = MixedEffectsClassifier(["g"], fixed_effects=["x", "z"], coef_prior=prior)
    with pytest.warns(match="'z'"):
        model.fit(X, X["y_quasi"])
    assert model.result_.status is Status.SEPARATED


@pytest.mark.parametrize("name", GAMMAS)
def test_gamma_priors_are_blmes(name):
    shape, rate, relative, on, method = name.split("_")[1:]
    prior = GammaPrior(
        float(shape),
        float(rate),
        on={"sd": "sd", "var": "variance"}[on],
        relative=relative == "rel",
    )
    X, known = table("zerovar"), KNOWN[name]
    for e_step in ["exact", "cg"] if method == "reml" else ["exact"]:
        model = MixedEffectsRegressor(
            ["g"], fixed_effects=["x"], method=method, e_step=e_step, sd_prior=prior
        ).fit(X, X["y"])
        assert_known(model, known, 1e-3)
        away = np.log(model.sigma_ / known["family"]["sigma"]) / known["se"]["log sigma"]
        assert abs(away) < 1e-3
        assert model.loglik_ == pytest.approx(known["loglik"], abs=1e-3)
        assert model.log_posterior_ == pytest.approx(known["log_posterior_kernel"], abs=1e-6)
        assert model.result_.status is Status.CONVERGED


class Dense:
    """A Gaussian model of crossed factors by its dense matrices, with priors of all parameters.

    Parameters are log SDs of both factors and log sigma; the coefficients have normal priors, and
    the first SD, relative to sigma, a gamma one.
    """

    sds, shape, rate = np.array([5.0, 0.2, np.inf]), 2.0, 0.7

    def __init__(self, reml):
        rng = np.random.default_rng(3)
        n = 100
        self.g, self.h, self.reml = rng.integers(0, 12, n), rng.integers(0, 9, n), reml
        x = rng.normal(3, 2, n)
        self.W = np.column_stack([np.ones(n), x, rng.normal(size=n) + 0.3 * x])
        effects = 0.5 * rng.normal(size=12)[self.g] + 0.8 * rng.normal(size=9)[self.h]
        self.y = 40 + self.W @ [2.0, 0.9, -0.4] + effects + 1.3 * rng.normal(size=n)
        self.Z = [np.equal.outer(own, np.arange(own.max() + 1)) * 1.0 for own in (self.g, self.h)]

    @property
    def X(self):
        return pd.DataFrame({"a": self.W[:, 1], "b": self.W[:, 2], "g": self.g, "h": self.h})

    def at(self, theta, priors=True):
        """(log posterior or likelihood, coefficients, their covariance)."""
        s, t, sigma = np.exp(theta)
        V = s**2 * self.Z[0] @ self.Z[0].T + t**2 * self.Z[1] @ self.Z[1].T
        V += sigma**2 * np.eye(len(V))
        back = np.linalg.inv(V)
        D = np.diag(self.sds**-2.0) * priors
        precision = self.W.T @ back @ self.W + D
        beta = np.linalg.solve(precision, self.W.T @ back @ self.y)
        r = self.y - self.W @ beta
        value = -0.5 * (len(r) * np.log(2 * np.pi) + np.linalg.slogdet(V)[1] + r @ back @ r)
        if priors:
            known = np.isfinite(self.sds)
            value += norm.logpdf(beta[known], scale=self.sds[known]).sum()
            value += gamma.logpdf(s / sigma, self.shape, scale=1 / self.rate)
        if self.reml:
            value += 1.5 * np.log(2 * np.pi) - 0.5 * np.linalg.slogdet(precision)[1]
        return value, beta, np.linalg.inv(precision)

    def likelihood(self, theta, beta):
        """Without the priors: by ML at the given coefficients."""
        value, own, covariance = self.at(theta, False)
        if self.reml:
            return value
        return value - 0.5 * (beta - own) @ np.linalg.solve(covariance, beta - own)


@cache
def dense_mode(method):
    """The `Dense` model, and log SDs and log sigma at its mode."""
    dense = Dense(method == "reml")
    start = np.array([-0.7, -0.2, 0.2])
    found = minimize(lambda theta: -dense.at(theta)[0], start, options={"gtol": 1e-6})
    return dense, found.x


@pytest.mark.parametrize("e_step", ["exact", "cg"])
@pytest.mark.parametrize("method", ["reml", "ml"])
def test_gaussian_models_with_all_priors_are_a_dense_posteriors(method, e_step):
    dense, known = dense_mode(method)
    model = MixedEffectsRegressor(
        ["g", "h"],
        method=method,
        e_step=e_step,
        coef_prior={"(Intercept)": 5.0, "a": 0.2},
        sd_prior={"g": GammaPrior(dense.shape, dense.rate)},
        tol=1e-6,
    ).fit(dense.X, dense.y)
    value, beta, covariance = dense.at(known)
    np.testing.assert_allclose(model.variance_components_["sd"], np.exp(known), rtol=1e-4)
    np.testing.assert_allclose([model.intercept_, *model.coef_], beta, rtol=1e-5)
    np.testing.assert_allclose(
        model.fixed_effects_["std_error"], np.sqrt(np.diag(covariance)), rtol=1e-4
    )
    assert model.log_posterior_ == pytest.approx(value, abs=1e-6)
    assert model.loglik_ == pytest.approx(dense.likelihood(known, beta), abs=1e-3)


def test_laplaces_reml_is_the_exact_one_of_a_gaussian_model():
    dense, known = dense_mode("reml")
    model = MixedEffectsRegressor(
        ["g", "h"],
        method="reml",
        e_step="laplace",
        coef_prior={"(Intercept)": 5.0, "a": 0.2},
        sd_prior={"g": GammaPrior(dense.shape, dense.rate)},
        tol=1e-6,
    ).fit(dense.X, dense.y)
    value, beta, covariance = dense.at(known)
    np.testing.assert_allclose(model.variance_components_["sd"], np.exp(known), rtol=1e-4)
    np.testing.assert_allclose([model.intercept_, *model.coef_], beta, rtol=1e-5)
    std = model.fixed_effects_["std_error"]
    np.testing.assert_allclose(std, np.sqrt(np.diag(covariance)), rtol=1e-4)
    assert model.log_posterior_ == pytest.approx(value, abs=1e-6)


def test_separated_data_have_a_mode_by_laplaces_reml():
    X = table("separated")
    model = MixedEffectsClassifier(
        ["g"], fixed_effects=["x", "z"], method="reml", e_step="laplace", coef_prior=2.5
    ).fit(X, X["y_quasi"])
    assert model.result_.status is Status.CONVERGED
    known = norm.logpdf(model.fixed_effects_["estimate"], scale=2.5).sum()
    assert model.log_posterior_ - model.loglik_ == pytest.approx(known, abs=1e-6)


@pytest.mark.parametrize("e_step", ["quadrature", "laplace", HMC(backend="numpy")])
def test_the_mode_of_an_sd_is_that_over_pinned_ones(e_step):
    X, prior = table("separated"), GammaPrior(3.0, 4.0, on="variance")

    def fitted(**parameters):
        model = MixedEffectsClassifier(fixed_effects=["x"], random_state=0, **parameters)
        return model.fit(X, X["y_quasi"])

    def loss(sd):
        step = "laplace" if e_step == "laplace" else "quadrature"
        own = fitted(random_effects=[RandomEffect("g", sd=float(sd[0]))], e_step=step)
        return -own.loglik_ - gamma.logpdf(sd[0] ** 2, 3.0, scale=1 / 4.0)

    model = fitted(random_effects=["g"], e_step=e_step, sd_prior=prior)
    found = minimize(loss, [0.7], method="Nelder-Mead", options={"xatol": 1e-4, "fatol": 1e-7})
    chains = isinstance(e_step, HMC)
    sd = model.variance_components_["sd"].iloc[0]
    error = 5 * model.mc_error_["sd(g, Intercept)"] if chains else 2e-4
    assert sd == pytest.approx(found.x[0], abs=error)
    error = 1e-3 + 4 * model.loglik_error_ if chains else 1e-5
    assert model.log_posterior_ == pytest.approx(-found.fun, abs=error)


@pytest.mark.parametrize("e_step", ["exact", "cg", "laplace"])
def test_a_singular_fit_of_crossed_terms_becomes_regular(sleepstudy, e_step):
    X, y = sleepstudy
    terms, prior = ["(1 + Days | Subject)", "Days"], GammaPrior(2.0)
    model = MixedEffectsRegressor(terms, fixed_effects=["Days"], e_step=e_step)
    assert model.fit(X, y).result_.status is Status.SINGULAR
    model.set_params(sd_prior=prior).fit(X, y)
    assert model.result_.status is Status.CONVERGED
    assert model.variance_components_["std_error"].notna().all()
    # Every SD of a term has it, in the table's units.
    ratios = model.variance_components_["sd"].dropna().iloc[:-1] / model.sigma_
    assert model.log_posterior_ - model.loglik_ == pytest.approx(np.log(ratios).sum(), abs=1e-10)
    one = clone(model).set_params(sd_prior={"Days": prior}).fit(X, y)
    sd = one.variance_components_["sd"].iloc[3] / one.sigma_
    assert one.log_posterior_ - one.loglik_ == pytest.approx(np.log(sd), abs=1e-10)


def test_parameters_are_scikit_learns(tmp_path, sleepstudy):
    X, y = sleepstudy
    model = MixedEffectsRegressor(["Subject"], coef_prior=100.0, sd_prior=GammaPrior(2.0))
    other = clone(model).set_params(sd_prior__shape=3.0)
    assert (model.sd_prior.shape, other.sd_prior.shape) == (2.0, 3.0)
    search = GridSearchCV(model, {"coef_prior": [1.0, None], "sd_prior__shape": [2.0]}, cv=3)
    assert search.fit(X, y).best_params_["coef_prior"] is None
    model.fit(X, y)
    joblib.dump(model, tmp_path / "model")
    again = joblib.load(tmp_path / "model")
    assert again.log_posterior_ == model.log_posterior_ < model.loglik_
    assert again.sd_prior.shape == 2.0
    warm = model.set_params(warm_start=True).fit(X, y)
    assert warm.log_posterior_ == pytest.approx(again.log_posterior_, abs=1e-6)
    assert "log posterior" in model.summary()
    assert ", with priors" in model.summary()


def test_update_and_bootstrap_keep_working(sleepstudy):
    X, y = sleepstudy
    model = MixedEffectsRegressor(["Subject"], coef_prior=100.0, sd_prior="gamma").fit(X, y)
    found = model.conf_int(method="bootstrap", X=X, y=y, n_resamples=3, random_state=0)
    assert found.notna().all(axis=None)
    before = model.random_effects_["Subject"].loc[308].iloc[0]
    model.update(X[:5], y[:5] + 100)
    assert model.random_effects_["Subject"].loc[308].iloc[0] > before


def test_without_priors_the_log_posterior_is_the_log_likelihood(sleepstudy):
    model = MixedEffectsRegressor(["Subject"]).fit(*sleepstudy)
    assert model.log_posterior_ == model.loglik_


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({"coef_prior": {"day": 1.0}}, "'day' is no coefficient of this model, which has"),
        ({"coef_prior": {"Days": -1.0}}, "the SD of 'Days' is -1.0"),
        ({"coef_prior": 0.0}, "coef_prior"),
        ({"coef_prior": 1.0, "fixed_effects": "~ C(Days) * C(Subject)"}, "fewer columns than rows"),
        ({"coef_prior": 1.0, "m_step": "adam", "e_step": "hmc"}, "m_step='adam' has no priors"),
        ({"coef_prior": 1.0, "e_step": "hmc"}, "use method='ml', or e_step='laplace'"),
        ({"sd_prior": {"Day": "gamma"}}, "'Day' is no term of this model, which has 'Subject'"),
        ({"sd_prior": {"Subject": "wishart"}}, "'wishart' is not available: use 'gamma'"),
        ({"sd_prior": GammaPrior(1.0)}, "shape=1.0 must be a number above 1"),
        ({"sd_prior": GammaPrior(rate=-1.0)}, "rate=-1.0"),
        ({"sd_prior": GammaPrior(on="corr")}, "on='corr' must be 'sd' or 'variance'"),
        (
            {"random_effects": [RandomEffect("Subject", sd=1.0)], "sd_prior": {"Subject": "gamma"}},
            "the SDs of 'Subject' are pinned",
        ),
    ],
)
def test_wrong_priors_are_errors(sleepstudy, parameters, text):
    with pytest.raises(ValueError, match=text):
        MixedEffectsRegressor(**{"random_effects": ["Subject"]} | parameters).fit(*sleepstudy)


def test_a_residual_sd_of_each_row_is_no_unit(sleepstudy):
    model = MixedEffectsRegressor(["Subject"], dispersion="~ Days", method="ml", sd_prior="gamma")
    with pytest.raises(ValueError, match="relative=False"):
        model.fit(*sleepstudy)


@pytest.mark.parametrize("e_step", ["exact", "cg"])
def test_models_of_the_residual_sd_have_priors_by_rows(sleepstudy, e_step):
    """Laplace's approximation of a Gaussian model is exact."""
    priors = {
        "sd_prior": GammaPrior(relative=False),
        "coef_prior": {"Days": 1.0, "sigma: Days": 0.02},
    }
    models = [
        MixedEffectsRegressor(
            ["Subject"], dispersion="~ Days", method="ml", e_step=own, tol=1e-6, **priors
        ).fit(*sleepstudy)
        for own in (e_step, "laplace")
    ]
    np.testing.assert_allclose(
        *(model.fixed_effects_["estimate"] for model in models), rtol=1e-4, atol=1e-5
    )
    sds = [model.variance_components_[["sd", "std_error"]] for model in models]
    np.testing.assert_allclose(*sds, rtol=1e-3)
    parts = [own.dispersion_effects_[["estimate", "std_error"]] for own in models]
    np.testing.assert_allclose(*parts, rtol=1e-3)
    assert models[0].log_posterior_ == pytest.approx(models[1].log_posterior_, abs=1e-6)
    assert models[0].loglik_ == pytest.approx(models[1].loglik_, abs=1e-3)


def test_models_of_parameters_have_priors_by_name():
    """Of a ZIP model without effects, whose zeros are told by no row of one group."""
    rng = np.random.default_rng(1)
    X = pd.DataFrame({"x": rng.normal(size=300), "z": rng.integers(0, 2, 300)})
    y = rng.poisson(np.exp(1 + 0.4 * X["x"])) * (1 - X["z"] * rng.integers(0, 2, 300))
    sds = {"zero: Intercept": 2.0, "zero: z": 3.0, "x": 0.5}
    model = MixedEffectsRegressor(
        fixed_effects=["x"], family="poisson", zero_inflation="~ z", coef_prior=sds
    ).fit(X, y)

    def loss(theta):
        eta, zero = theta[0] + theta[1] * X["x"], theta[2] + theta[3] * X["z"]
        pi = expit(zero)
        p = (1 - pi) * poisson.pmf(y, np.exp(eta)) + pi * (y == 0)
        return (
            -np.log(np.maximum(p, 1e-300)).sum()
            - norm.logpdf(theta[1:], scale=[0.5, 2.0, 3.0]).sum()
        )

    found = minimize(loss, np.zeros(4), options={"gtol": 1e-6})
    zero = model.zero_inflation_effects_["estimate"]
    known = [model.intercept_, *model.coef_, *zero]
    np.testing.assert_allclose(known, found.x, atol=1e-4)
    assert model.log_posterior_ == pytest.approx(-found.fun, abs=1e-6)


def test_cutpoints_have_no_prior(sleepstudy):
    X, y = sleepstudy
    model = MixedEffectsClassifier(
        fixed_effects=["Days"], family="ordinal", coef_prior={"(Intercept)": 1.0}
    )
    with pytest.raises(ValueError, match="cutpoints have no prior"):
        model.fit(X, pd.cut(y, 3, labels=False))
    model.set_params(coef_prior=0.01).fit(X, pd.cut(y, 3, labels=False))
    free = clone(model).set_params(coef_prior=None).fit(X, pd.cut(y, 3, labels=False))
    assert abs(model.coef_[0]) < 0.3 * abs(free.coef_[0])
    assert model.log_posterior_ - model.loglik_ == pytest.approx(
        norm.logpdf(model.coef_[0], scale=0.01)
    )


def test_what_has_no_priors_says_which_does(sleepstudy):
    X, y = sleepstudy
    model = MixedEffectsRegressor(["Subject"], method="ml", coef_prior=100.0)
    with pytest.raises(ValueError, match="use fit of a whole table"):
        model.partial_fit(X, y)
    with pytest.raises(ValueError, match="use fit of a whole table"):
        model.fit_batches([(X, y)])
    model.fit(X, y)
    with pytest.raises(ValueError, match="use 'wald'"):
        model.conf_int(method="profile", X=X, y=y)
    with pytest.raises(ValueError, match="fit all without priors"):
        anova(model, clone(model).set_params(coef_prior=None).fit(X, y))


def test_a_name_without_its_class_stands_for_all():
    X = table("separated")
    sds = {"Intercept": 10.0, "x": 1.0, "1: z": 3.0, "2: z": 2.0}
    model = MixedEffectsClassifier(fixed_effects=["x", "z"], coef_prior=sds)
    model.fit(X, X["y_quasi"] + (X["x"] > 1))
    scales = [10.0, 1.0, 3.0, 10.0, 1.0, 2.0]
    known = norm.logpdf(model.fixed_effects_["estimate"], scale=scales).sum()
    assert model.result_.log_prior == pytest.approx(known)
    assert model.result_.status is Status.CONVERGED
