"""Rows with missing values: told, or left out as if they had not been there."""

import numpy as np
import pandas as pd
import pytest

from sklmm import MixedEffectsClassifier, MixedEffectsRegressor
from sklmm.datasets import load_cbpp

OUT = [7, 9, 20, 30]
KEPT = np.setdiff1d(np.arange(180), OUT)


@pytest.fixture
def damaged(sleepstudy):
    """sleepstudy with two answers, a day and a subject missing, and one value that nobody reads."""
    X, y = (part.set_axis([f"r{i}" for i in range(180)]) for part in sleepstudy)
    X = X.astype({"Days": float, "Subject": object}).assign(other=1.0)
    X.loc["r20", "Days"] = X.loc["r50", "other"] = np.nan
    X.loc["r30", "Subject"] = None
    return X, y.where(~np.isin(np.arange(180), OUT[:2]))


def model(**parameters):
    return MixedEffectsRegressor(["Subject"], **{"fixed_effects": ["Days"], **parameters})


def test_a_missing_answer_is_told_by_its_row(damaged):
    X, y = damaged
    with pytest.raises(ValueError, match=r"2 missing .* row 7 \(index 'r7'\).* missing='drop'"):
        model().fit(X, y)
    labels = np.where(y.isna(), None, "low")
    with pytest.raises(ValueError, match=r"2 missing .* row 7 \(index 'r7'\)"):
        MixedEffectsClassifier(["Subject"], fixed_effects=["Days"]).fit(X, labels)
    # A list's index is a method, and an array has none.
    with pytest.raises(ValueError, match=r"2 missing .* row 7\. "):
        MixedEffectsRegressor([0], fixed_effects=[]).fit(X[["Subject"]].to_numpy(), y.tolist())


@pytest.mark.parametrize("formula", [False, True])
def test_rows_that_miss_a_value_are_left_out(formula, damaged):
    X, y = damaged
    fixed = "~ Days" if formula else ["Days"]
    fitted = model(fixed_effects=fixed, missing="drop").fit(X, y)
    other = model(fixed_effects=fixed).fit(X.iloc[KEPT], y.iloc[KEPT])
    assert fitted.loglik_ == other.loglik_
    assert "Number of obs: 176 (4 rows with missing values left out)" in fitted.summary()
    # The missing subject is the population, the missing day no row to predict.
    mean, std = fitted.predict(X, return_std=True)
    assert np.flatnonzero(np.isnan(mean)).tolist() == np.flatnonzero(np.isnan(std)).tolist() == [20]
    np.testing.assert_array_equal(mean[KEPT], other.predict(X.iloc[KEPT]))
    assert np.isnan(fitted.predict(X.iloc[20:21])).tolist() == [True]
    assert np.isnan(fitted.sample_y(X.iloc[19:21], 2)).tolist() == [[False] * 2, [True] * 2]
    assert fitted.score(X, y) == pytest.approx(
        fitted.score(X.drop(index=["r7", "r9", "r20"]), y.drop(["r7", "r9", "r20"]))
    )
    assert fitted.conf_int(method="profile", X=X, y=y, parm=["sigma"]).notna().all(axis=None)


def test_arrays_too(damaged):
    X, y = damaged
    values = X[["Subject", "Days"]].astype(float).to_numpy()
    fitted = MixedEffectsRegressor([0], missing="drop").fit(values, y.tolist())
    other = MixedEffectsRegressor([0]).fit(values[KEPT], y.iloc[KEPT])
    assert fitted.loglik_ == other.loglik_
    assert np.isnan(fitted.predict(values[18:22])).tolist() == [False, False, True, False]
    assert np.isnan(fitted.predict(values[20:21])).all()


def test_classes_of_rows_that_miss_a_value_are_nan(damaged):
    X, y = damaged
    labels = np.where(y.isna(), None, np.where(y > 300, "high", "low"))
    fitted = MixedEffectsClassifier(fixed_effects=["Days"], missing="drop").fit(X, labels)
    assert fitted.result_.n_obs == 177
    before, missing, after = fitted.predict(X)[19:22]
    assert (before, after) == ("high", "low")
    assert np.isnan(missing)
    assert np.isnan(fitted.predict_proba(X)).any(axis=1).nonzero()[0].tolist() == [20]
    numbers = MixedEffectsClassifier(fixed_effects=["Days"], missing="drop").fit(X[9:], y[9:] > 300)
    np.testing.assert_array_equal(pd.isna(numbers.predict(X[19:22])), [False, True, False])


def test_no_row_without_a_missing_value_is_an_error(damaged):
    X, y = damaged
    with pytest.raises(ValueError, match="every row misses a value"):
        model(missing="drop").fit(X, y * np.nan)


def test_rows_of_weight_zero_may_miss_anything(damaged):
    X, y = damaged
    weight = np.where(np.isin(np.arange(180), OUT), 0.0, 1.0)
    fitted = model().fit(X, y, sample_weight=weight)
    assert fitted.loglik_ == model().fit(X.iloc[KEPT], y.iloc[KEPT]).loglik_


def test_a_share_of_no_trials_says_nothing():
    X, y = load_cbpp(return_X_y=True, as_frame=True)
    y, trials = np.asarray(y, float), np.asarray(X.pop("size"), float)
    y[[0, 4]] = trials[[0, 4]] = 0.0
    with np.errstate(invalid="ignore"):
        share = y / trials
    assert np.isnan(share[[0, 4]]).all()
    counts = np.column_stack([y, trials - y])
    fits = [
        MixedEffectsRegressor(["herd"], family="binomial", e_step="laplace").fit(X, *data)
        for data in ((counts,), (share, trials))
    ]
    assert fits[0].loglik_ == pytest.approx(fits[1].loglik_)
    assert fits[0].result_.n_obs == fits[1].result_.n_obs == len(X) - 2
