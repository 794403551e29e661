"""Offsets and precision weights."""

import numpy as np
import pandas as pd
import pytest

from sklmm import Gaussian, MixedEffectsClassifier, MixedEffectsRegressor


def owls(seed, n_nests=60, each=12):
    """Counts per brood of known size: log rate 0.5 - 0.4 x, SD of the nests 0.6."""
    rng = np.random.default_rng(seed)
    nest = np.repeat(np.arange(n_nests), each)
    brood = rng.integers(1, 8, len(nest))
    x = rng.normal(size=len(nest))
    rate = np.exp(0.5 - 0.4 * x + 0.6 * rng.normal(size=n_nests)[nest])
    X = pd.DataFrame({"nest": nest, "x": x, "log_brood": np.log(brood)})
    return X, rng.poisson(brood * rate)


@pytest.mark.parametrize("seed", range(3))
def test_counts_with_an_exposure_recover_the_truth(seed):
    X, y = owls(seed)
    model = MixedEffectsRegressor(
        ["nest"], family="poisson", offset="log_brood", random_state=seed
    ).fit(X, y)
    assert list(model.fixed_effects_.index) == ["Intercept", "x"]
    gap = model.fixed_effects_["estimate"] - [0.5, -0.4]
    assert (np.abs(gap) < 3 * model.fixed_effects_["std_error"]).all()
    row = model.variance_components_.iloc[0]
    assert abs(row["sd"] - 0.6) < 3 * row["std_error"]
    doubled = X.assign(log_brood=X["log_brood"] + np.log(2))
    np.testing.assert_allclose(model.predict(doubled), 2 * model.predict(X), rtol=1e-9)


def test_a_sum_of_k_counts_is_a_count_of_exposure_k():
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"g": np.arange(200) % 20, "x": rng.normal(size=200)})
    k = rng.integers(1, 5, 200)
    rate = np.exp(0.2 + 0.3 * X["x"] + 0.5 * rng.normal(size=20)[X["g"]])
    counts = [rng.poisson(r, n) for r, n in zip(rate, k, strict=True)]
    single = X.loc[X.index.repeat(k)]
    model = MixedEffectsRegressor(["g"], family="poisson", e_step="laplace", tol=1e-6)
    apart = model.fit(single, np.concatenate(counts))
    expected = [*apart.fixed_effects_["estimate"], *apart.fixed_effects_["std_error"]]
    expected += [apart.variance_components_["sd"].iloc[0]]
    model.set_params(offset="log_k")
    together = model.fit(X.assign(log_k=np.log(k)), [c.sum() for c in counts])
    found = [*together.fixed_effects_["estimate"], *together.fixed_effects_["std_error"]]
    found += [together.variance_components_["sd"].iloc[0]]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_gaussian_offset_is_subtracted_and_added_again(sleepstudy, sleep_model):
    X, y = sleepstudy
    shift = 100 * np.cos(np.arange(len(y)))
    model = MixedEffectsRegressor(
        ["(1 + Days | Subject)"], fixed_effects=["Days"], offset="shift"
    ).fit(X.assign(shift=shift), y + shift)
    assert model.coef_ == pytest.approx(sleep_model.coef_, rel=1e-9)
    mean, std = model.predict(X.assign(shift=shift), return_std=True)
    expected, expected_std = sleep_model.predict(X, return_std=True)
    np.testing.assert_allclose(mean, expected + shift, rtol=1e-9)
    np.testing.assert_allclose(std, expected_std, rtol=1e-9)


def test_what_no_offset_can_be_is_named(sleepstudy):
    X, y = sleepstudy
    with pytest.raises(ValueError, match="offset: column 'nope' is not in X"):
        MixedEffectsRegressor(["Subject"], offset="nope").fit(X, y)
    with pytest.raises(ValueError, match=r"offset column\(s\) 'bad'"):
        MixedEffectsRegressor(["Subject"], offset="bad").fit(X.assign(bad=np.nan), y)
    three = np.arange(len(y)) % 3
    with pytest.raises(ValueError, match=r"offset='Days'.*categorical"):
        MixedEffectsClassifier(["Subject"], offset="Days").fit(X, three)


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
