"""R^2, intraclass correlations and comparisons of models."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import chi2

from sklmm import (
    Bernoulli,
    Gaussian,
    MixedEffectsClassifier,
    MixedEffectsRegressor,
    Poisson,
    anova,
)
from sklmm._fitted.fingerprint import hashed, hashed_data
from sklmm.datasets import load_epil2


def test_sleepstudys_are_those_of_rs_performance(sleepstudy):
    """performance::r2 and icc of lmer's REML fit: .279, .799 and .722."""
    model = MixedEffectsRegressor(["(1 + Days | Subject)"]).fit(*sleepstudy)
    np.testing.assert_allclose(model.r2(), [0.279, 0.799], atol=5e-4)
    np.testing.assert_allclose(model.icc(), [0.722], atol=5e-4)


@pytest.mark.parametrize("link", ["logit", "probit"])
def test_binary_responses_have_their_links_variance(link):
    rng = np.random.default_rng(0)
    g, x = np.arange(4000) % 100, rng.normal(size=4000)
    noise = rng.logistic(size=4000) if link == "logit" else rng.normal(size=4000)
    y = 1.5 * x + rng.normal(size=100)[g] + noise > 0
    model = MixedEffectsClassifier(["g"], family=Bernoulli(link=link), e_step="laplace")
    model.fit(pd.DataFrame({"g": g, "x": x}), y)
    own = np.pi**2 / 3 if link == "logit" else 1.0
    sd = model.variance_components_["sd"][0]
    assert model.icc()["g"] == pytest.approx(sd**2 / (sd**2 + own))
    fixed = np.var(model.coef_[0] * x, ddof=1)
    assert model.r2()["marginal"] == pytest.approx(fixed / (fixed + sd**2 + own))


def test_counts_have_that_of_a_log_normal():
    frame = load_epil2(as_frame=True).frame
    model = MixedEffectsRegressor(["subject"], family="poisson", e_step="laplace")
    model.fit(frame[["subject", "Base"]], frame["y"])
    sd = model.variance_components_["sd"][0]
    mean = np.exp(model.intercept_ + model.coef_[0] * frame["Base"] + sd**2 / 2).mean()
    own = np.log1p(1 / mean)
    assert model.icc()["subject"] == pytest.approx(sd**2 / (sd**2 + own))


def test_weights_are_repetitions(sleepstudy):
    X, y = sleepstudy
    weight = 1 + np.arange(len(y)) % 3
    again = np.repeat(np.arange(len(y)), weight)
    model = MixedEffectsRegressor(["(1 + Days | Subject)"])
    weighted = model.fit(X, y, sample_weight=weight).r2()
    np.testing.assert_allclose(weighted, model.fit(X.iloc[again], y.iloc[again]).r2(), rtol=1e-6)


def test_precisions_have_no_unit(sleepstudy):
    X, y = sleepstudy
    family = Gaussian(weights="precision")
    model = MixedEffectsRegressor(["(1 + Days | Subject)"], family=family)
    plain = MixedEffectsRegressor(["(1 + Days | Subject)"]).fit(X, y)
    model.fit(X, y, sample_weight=np.full(len(y), 100.0))
    np.testing.assert_allclose(model.r2(), plain.r2(), rtol=1e-6)
    np.testing.assert_allclose(model.icc(), plain.icc(), rtol=1e-6)
    weight = 1.0 + np.arange(len(y)) % 3
    one = model.fit(X, y, sample_weight=weight).r2()
    np.testing.assert_allclose(model.fit(X, y, sample_weight=1e6 * weight).r2(), one, rtol=1e-6)


def test_families_without_such_a_variance_say_so():
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"g": np.arange(120) % 6, "x": rng.normal(size=120)})
    model = MixedEffectsRegressor(["g"], family="beta", e_step="laplace")
    with pytest.raises(ValueError, match="family='beta'"):
        model.fit(X, rng.beta(2, 2, 120)).r2()
    model = MixedEffectsClassifier(None).fit(X[["x"]], np.arange(120) % 3)
    with pytest.raises(ValueError, match="family='categorical'"):
        model.icc()


def fitted(sleepstudy, terms, method="ml", **parameters):
    return MixedEffectsRegressor(terms, method=method, **parameters).fit(*sleepstudy)


def test_anova_is_lme4s(sleepstudy):
    """lme4's anova of (Days | Subject) against (1 | Subject): chi2 42.139 on 2, p 7.072e-10."""
    large, small = fitted(sleepstudy, ["(1 + Days | Subject)"]), fitted(sleepstudy, ["Subject"])
    table = anova(large, small)
    assert table.index.tolist() == [1, 0]
    assert table["n_parameters"].tolist() == [4, 6]
    np.testing.assert_allclose(table["loglik"], [-897.0393, -875.9697], atol=1e-3)
    assert table["chi2"].iloc[1] == pytest.approx(42.139, abs=2e-3)
    assert table["p"].iloc[1] == pytest.approx(7.072e-10, rel=2e-3)
    assert table[["chi2", "df", "p"]].iloc[0].isna().all()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"method": "reml"}, "methods: fit all by method='ml'; they have"),
        ({"family": "student_t", "e_step": "laplace"}, "families"),
    ],
)
def test_anova_refuses_what_cannot_be_compared(sleepstudy, parameters, message):
    first = fitted(sleepstudy, ["Subject"])
    with pytest.raises(ValueError, match=message):
        anova(first, fitted(sleepstudy, ["Subject"], **parameters))


def test_anova_refuses_laplaces_likelihood_beside_an_estimate_and_another_link():
    frame = load_epil2(as_frame=True).frame
    X, y = frame[["subject", "Base"]], frame["y"]
    laplace = MixedEffectsRegressor(["subject"], family="poisson", e_step="laplace").fit(X, y)
    other = MixedEffectsRegressor(["subject"], family="poisson", random_state=0).fit(X, y)
    with pytest.raises(ValueError, match="likelihoods: fit all by the same e_step"):
        anova(laplace, other)
    glm = MixedEffectsRegressor(None, fixed_effects=["Base"], family="poisson").fit(X, y)
    assert anova(glm, other)["p"].iloc[1] < 1e-9
    root = MixedEffectsRegressor(["subject"], family=Poisson(link="sqrt"), e_step="laplace")
    with pytest.raises(ValueError, match="links"):
        anova(laplace, root.fit(X, y))


def test_anova_refuses_remls_of_different_fixed_parts_and_other_rows(sleepstudy):
    X, y = sleepstudy
    one = fitted(sleepstudy, ["Subject"], "reml")
    other = fitted(sleepstudy, ["Subject"], "reml", fixed_effects=[])
    with pytest.raises(ValueError, match="fixed parts"):
        anova(one, other)
    same = fitted(sleepstudy, ["(1 + Days | Subject)"], "reml")
    assert anova(one, same)["chi2"].iloc[1] == pytest.approx(42.84, abs=0.01)
    fewer = MixedEffectsRegressor(["Subject"]).fit(X[:100], y[:100])
    with pytest.raises(ValueError, match="numbers of observations"):
        anova(one, fewer)
    with pytest.raises(ValueError, match="at least two"):
        anova(one)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": 1.0}, "different y: fit all to one response.*; model 1's is not model 0's"),
        ({"weights": 0.5}, "different weights: "),
        ({"offset": "z"}, "different offset: "),
    ],
)
def test_anova_refuses_likelihoods_of_other_data(sleepstudy, change, message):
    X, y = sleepstudy
    X = X.assign(z=np.arange(180.0))
    weights = np.ones(180) + np.tile([-1, 1], 90) * change.get("weights", 0)
    one = MixedEffectsRegressor(["Subject"], fixed_effects=["Days"], method="ml").fit(X, y)
    other = MixedEffectsRegressor(["Subject"], fixed_effects=["Days"], method="ml")
    other.set_params(offset=change.get("offset"))
    moved = y.where(np.arange(180) != 7, y + change.get("y", 0))
    other.fit(X, moved, sample_weight=weights)
    with pytest.raises(ValueError, match=message):
        anova(one, other)


def test_anova_takes_any_order_and_weights_for_repeated_rows(sleepstudy):
    X, y = sleepstudy
    X = X.assign(zero=0.0)
    one = MixedEffectsRegressor(["Subject"], fixed_effects=["Days"], method="ml", offset="zero")
    one.fit(X, y, sample_weight=np.full(180, 2))
    twice = pd.concat([X, X[::-1]]), pd.concat([y, y[::-1]])
    other = MixedEffectsRegressor(["Subject"], fixed_effects=[], method="ml").fit(*twice)
    assert anova(one, other)["chi2"].iloc[1] > 0


def test_the_data_of_a_fit_are_known_in_any_order_and_number():
    rng = np.random.default_rng(0)
    n = 40_000
    y, offset, order = rng.normal(size=n), rng.normal(size=n), rng.permutation(n)

    def known(y, weights, offset):
        rows = SimpleNamespace(offset=offset), SimpleNamespace(y=y, weights=weights)
        return hashed_data(*rows, hashed(y))

    one = known(y, np.full(n, 2.0), offset)
    assert one == known(np.tile(y[order], 2), np.ones(2 * n), np.tile(offset[order], 2))
    assert known(y, np.ones(n), None) == known(y, np.ones(n), np.zeros(n))
    for other in ((y + 1e-15, np.full(n, 2.0), offset), (y, np.full(n, 2.0), -offset)):
        assert known(*other) != one


@pytest.mark.parametrize("family", ["gaussian", "poisson"])
def test_the_rows_of_the_fit_are_whole_ones(family):
    """X and y in another order together are the same data; one of them alone is not."""
    rng = np.random.default_rng(2)
    X = pd.DataFrame(
        {"x": 1e6 + rng.normal(size=90), "z": rng.normal(size=90), "g": np.arange(90) // 10}
    )
    y = pd.Series(rng.poisson(np.exp(X["z"] / 2)))
    parameters = {"fixed_effects": ["x"], "offset": "z", "family": family}
    model = MixedEffectsRegressor(["(1 + z | g)"], e_step="laplace", **parameters)
    weight = 1 + np.arange(90) % 2
    model.fit(X, y, sample_weight=weight)
    order = rng.permutation(np.repeat(np.arange(90), weight))
    model._training(X.iloc[order], y.iloc[order], None)
    model.update(X[:1].assign(g=-1), y[:1])
    # A level that comes first moves the others.
    model._training(X[::-1], y[::-1], weight[::-1])
    for column in X:
        moved = X.assign(**{column: np.roll(X[column], 2)})
        with pytest.raises(ValueError, match="X: each row must be that of the fit for its y"):
            model._training(moved, y, weight)


def test_anova_refuses_more_parameters_with_less_likelihood(sleepstudy):
    X, y = sleepstudy
    small = MixedEffectsRegressor(["Subject"], method="ml").fit(X, y)
    large = MixedEffectsRegressor(["(1 + Days | Subject)"], method="ml")
    large.fit(X.sample(frac=1, random_state=0), y.to_numpy())
    with pytest.raises(ValueError, match=r"model 0 has more parameters than model 1 .* nested"):
        anova(large, small)


def test_poisson_is_negative_binomials_bound():
    rng = np.random.default_rng(1)
    X = pd.DataFrame({"x": rng.normal(size=200), "z": rng.normal(size=200)})
    y = rng.negative_binomial(20, 20 / (20 + np.exp(1 + 0.3 * X["x"])))
    small, wide = (
        MixedEffectsRegressor(fixed_effects=c, family="poisson").fit(X, y)
        for c in (["x"], ["x", "z"])
    )
    large, wider = (
        MixedEffectsRegressor(fixed_effects=c, family="negative_binomial").fit(X, y)
        for c in (["x"], ["x", "z"])
    )
    table = anova(large, small)
    assert table.index.tolist() == [1, 0]
    statistic = 2 * (large.loglik_ - small.loglik_)
    assert statistic > 0.5
    assert table["p"].iloc[1] == pytest.approx(chi2.sf(statistic, 1) / 2)
    statistic = 2 * (wider.loglik_ - small.loglik_)
    mixture = (chi2.sf(statistic, 1) + chi2.sf(statistic, 2)) / 2
    assert anova(small, wider)["p"].iloc[1] == pytest.approx(mixture)
    # The one with fewer parameters is not within the other.
    with pytest.raises(ValueError, match="families: "):
        anova(wide, MixedEffectsRegressor(fixed_effects=[], family="negative_binomial").fit(X, y))


def test_a_model_without_a_likelihood_is_told(sleepstudy):
    one, other = fitted(sleepstudy, ["Subject"]), fitted(sleepstudy, ["(1 + Days | Subject)"])
    # As it is where many crossed effects are connected.
    other.loglik_ = np.nan
    with pytest.raises(ValueError, match=r"model 1 \(random effects 'Subject'\) has no log-lik"):
        anova(one, other)
    assert "No log-likelihood, AIC and BIC: " in other.summary()
