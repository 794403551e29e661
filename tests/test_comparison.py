"""`anova`: likelihood-ratio tests, and what cannot be compared."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import chi2

from sklmm import (
    MixedEffectsRegressor,
    Poisson,
    anova,
)
from sklmm.datasets import load_epil2
from sklmm.result import LogLikelihood


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
    linear = MixedEffectsRegressor(fixed_effects=["x"], family="nbinom1").fit(X, y)
    assert anova(linear, small).index.tolist() == [1, 0]
    with pytest.raises(ValueError, match="families: "):
        anova(linear, wider)


def test_a_model_without_a_likelihood_is_told(sleepstudy):
    one, other = fitted(sleepstudy, ["Subject"]), fitted(sleepstudy, ["(1 + Days | Subject)"])
    # As it is beside sparse columns.
    other.result_ = replace(other.result_, likelihood=LogLikelihood())
    with pytest.raises(ValueError, match=r"model 1 \(random effects 'Subject'\) has no log-lik"):
        anova(one, other)
    assert "No log-likelihood, AIC and BIC: " in other.summary()
