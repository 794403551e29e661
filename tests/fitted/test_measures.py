"""R^2 and intraclass correlations."""

import numpy as np
import pandas as pd
import pytest

from sklmm import (
    Bernoulli,
    Gaussian,
    MixedEffectsClassifier,
    MixedEffectsRegressor,
)
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


def test_means_that_are_not_the_links_have_no_such_variance():
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"g": np.arange(120) % 6, "x": rng.normal(size=120)})
    counts = 1 + rng.poisson(1.5, 120)
    model = MixedEffectsRegressor(["g"], family="truncated_poisson", e_step="laplace")
    for name in ("r2", "icc"):
        with pytest.raises(ValueError, match="its mean is not exp"):
            getattr(model.fit(X, counts), name)()


def test_nominal_columns_have_no_variance():
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"g": np.arange(120) % 6, "x": rng.normal(size=120)})
    y = np.digitize(rng.logistic(X["x"]), [-1, 1])
    model = MixedEffectsClassifier(["g"], family="ordinal", nominal=["x"], e_step="laplace")
    with pytest.raises(ValueError, match="nominal=None for r2"):
        model.fit(X, y).r2()
    (share,) = model.icc()
    variance = model.variance_components_["sd"].iloc[0] ** 2
    assert share == pytest.approx(variance / (variance + np.pi**2 / 3))
