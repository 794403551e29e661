"""Weights: repetitions of rows, routed as scikit-learn routes them, or lme4's precisions."""

import numpy as np
import pytest
import sklearn
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sklmm import Gaussian, MixedEffectsRegressor
from sklmm.datasets import load_cbpp


def test_weights_reach_the_model_through_pipelines_and_folds(sleepstudy):
    X, y = sleepstudy
    weights = 1.0 + np.arange(len(y)) % 3
    model = MixedEffectsRegressor(["Subject"])
    expected = model.fit(X, y, sample_weight=weights).coef_.copy()
    pipeline = make_pipeline(FunctionTransformer(), model)
    pipeline.fit(X, y, mixedeffectsregressor__sample_weight=weights)
    np.testing.assert_array_equal(pipeline[-1].coef_, expected)
    folds = KFold(3, shuffle=True, random_state=0)
    by_hand = [
        model.fit(X.iloc[train], y.iloc[train], weights[train]).score(
            X.iloc[test], y.iloc[test], weights[test]
        )
        for train, test in folds.split(X)
    ]
    with sklearn.config_context(enable_metadata_routing=True):
        routed = MixedEffectsRegressor(["Subject"])
        routed.set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        routed = make_pipeline(FunctionTransformer(), routed)
        weighted = {"sample_weight": weights}
        np.testing.assert_allclose(
            cross_val_score(routed, X, y, cv=folds, params=weighted), by_hand, rtol=1e-12
        )
        grid = {"mixedeffectsregressor__method": ["ml", "reml"]}
        search = GridSearchCV(routed, grid, cv=folds).fit(X, y, sample_weight=weights)
        assert search.cv_results_["mean_test_score"][1] == pytest.approx(np.mean(by_hand))


# sleepstudy$w <- (1 + (0:179) %% 3) / 2
# lmer(Reaction ~ Days + (1 + Days | Subject), sleepstudy, weights = w, REML = ..., control =
#   lmerControl(optCtrl = list(xtol_abs = 1e-12, xtol_rel = 1e-12, ftol_abs = 1e-14,
#   ftol_rel = 1e-14, maxeval = 10000))), lme4 1.1-31
LME4 = {
    "reml": (
        [-889.145731374, 251.80468619, 10.43587148, 6.4469832, 1.5736311],
        [22.0985080571, 5.9521898569, 0.1639209689, 27.3147825579],
    ),
    "ml": (
        [-893.265513371, 251.80708311, 10.43505225, 6.2628250, 1.5282983],
        [21.1249496988, 5.7358193679, 0.1886364167, 27.3175006309],
    ),
}


@pytest.mark.parametrize("method", ["reml", "ml"])
def test_precision_weights_are_those_of_lme4(sleepstudy, estimates, method):
    X, y = sleepstudy
    family = Gaussian(weights="precision")
    model = MixedEffectsRegressor(["(1 + Days | Subject)"], family=family, method=method)
    model.fit(X, y, sample_weight=(1 + np.arange(len(y)) % 3) / 2)
    fixed = model.fixed_effects_
    found = [model.loglik_, *fixed["estimate"], *fixed["std_error"]]
    np.testing.assert_allclose(found, LME4[method][0], rtol=1e-5)
    assert model.loglik_ == pytest.approx(LME4[method][0][0], abs=1e-6)
    np.testing.assert_allclose(estimates(model)[2:], LME4[method][1], rtol=3e-5)


def test_only_the_ratio_of_precisions_matters(sleepstudy):
    X, y = sleepstudy
    weights = 1 + np.arange(len(y)) % 3
    family = Gaussian(weights="precision")
    model = MixedEffectsRegressor(["Subject"], family=family).fit(X, y, sample_weight=weights)
    sd, sigma = model.variance_components_["sd"].iloc[0], model.sigma_
    assert model.bic_ - model.aic_ == pytest.approx(4 * (np.log(len(y)) - 2))
    model.fit(X, y, sample_weight=100 * weights)
    assert model.variance_components_["sd"].iloc[0] == pytest.approx(sd, rel=1e-6)
    assert model.sigma_ == pytest.approx(10 * sigma, rel=1e-6)


@pytest.mark.parametrize("e_step", ["hmc", "laplace"])
def test_precisions_are_for_the_gaussian_kernels(sleepstudy, e_step):
    X, y = sleepstudy
    model = MixedEffectsRegressor(["Subject"], family=Gaussian(weights="precision"), e_step=e_step)
    with pytest.raises(ValueError, match=f"e_step='{e_step}'.*repetitions"):
        model.fit(X, y)
    with pytest.raises(ValueError, match="weights='other'"):
        MixedEffectsRegressor(["Subject"], family=Gaussian(weights="other")).fit(X, y)


@pytest.mark.parametrize("scale", [1e-30, 1e14, 1e100])
def test_precisions_may_be_of_any_size(sleepstudy, scale):
    X, y = sleepstudy
    weights = 1.0 + np.arange(len(y)) % 3
    family = Gaussian(weights="precision")
    model = MixedEffectsRegressor(["Subject"], family=family).fit(X, y, sample_weight=weights)
    coef, sigma, loglik = model.coef_, model.sigma_, model.loglik_
    model.fit(X, y, sample_weight=weights * scale)
    np.testing.assert_allclose(model.coef_, coef, rtol=1e-9)
    assert model.sigma_ / np.sqrt(scale) == pytest.approx(sigma, rel=1e-9)
    assert model.loglik_ == pytest.approx(loglik, abs=1e-7)
    new = X[:3].assign(Subject=999)
    updated = model.update(new, y[:3], sample_weight=weights[:3] * scale).predict(new)
    model.fit(X, y, sample_weight=weights)
    expected = model.update(new, y[:3], sample_weight=weights[:3]).predict(new)
    np.testing.assert_allclose(updated, expected, rtol=1e-8)


def test_trials_are_no_observations_to_bic():
    table = load_cbpp(as_frame=True).frame
    X, trials = table[["herd"]], table["size"].to_numpy()
    y = np.column_stack([table["incidence"], trials - table["incidence"]])
    model = MixedEffectsRegressor(["herd"], family="binomial", e_step="laplace").fit(X, y)
    assert model.bic_ - model.aic_ == pytest.approx(2 * (np.log(len(y)) - 2))
    model.fit(X, y, sample_weight=np.full(len(y), 2.0))
    assert model.bic_ - model.aic_ == pytest.approx(2 * (np.log(2 * len(y)) - 2))
    # All or nothing, so that there are no binomial coefficients.
    model.fit(X, (np.arange(len(y)) % 3 == 0).astype(float), sample_weight=trials)
    assert model.bic_ - model.aic_ == pytest.approx(2 * (np.log(len(y)) - 2))
