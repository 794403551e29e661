"""Offsets: exposures of counts, and shifts of a Gaussian response."""

import numpy as np
import pandas as pd
import pytest

from sklmm import MixedEffectsClassifier, MixedEffectsRegressor


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
    total = pd.Series([c.sum() for c in counts], name="total")
    together = model.fit(X.assign(log_k=np.log(k)), total)
    assert together.summary().splitlines()[0].endswith("maximum likelihood (Laplace approximation)")
    assert "\ntotal ~ 1 + x + offset(log_k) + (1 | g)\n" in together.summary()
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
