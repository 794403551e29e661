"""`MixedEffectsEncoder`: scikit-learn's checks, effects of other folds, boosting on them."""

import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import Ridge
from sklearn.model_selection import (
    GroupKFold,
    KFold,
    ShuffleSplit,
    cross_val_score,
    cross_validate,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import TargetEncoder
from sklearn.utils.estimator_checks import parametrize_with_checks

from sklmm import (
    Gaussian,
    MixedEffectsClassifier,
    MixedEffectsEncoder,
    MixedEffectsRegressor,
    RandomEffect,
)
from sklmm.datasets import make_crossed
from tests.unchanged import assert_unchanged, snapshot

GROUPS = ["students", "instructors", "departments"]


@pytest.fixture(scope="module")
def crossed():
    X, y, _ = make_crossed(900, (60, 12), random_state=0)
    return X[["g0", "g1"]], y


@parametrize_with_checks([MixedEffectsEncoder(cv=3)])
@pytest.mark.usefixtures("array_api")
def test_scikit_learns_checks(estimator, check):
    check(estimator)


def test_a_label_is_its_effect_and_an_unseen_one_is_0(crossed):
    X, y = crossed
    encoder = MixedEffectsEncoder().fit(X, y)
    model = MixedEffectsRegressor(["g0", "g1"]).fit(X, y)
    rows = pd.DataFrame({"g0": [7, -5], "g1": [3, 3]})
    out = encoder.transform(rows)
    effects = model.random_effects_
    expected = [effects["g0"]["Intercept"][7], effects["g1"]["Intercept"][3]]
    np.testing.assert_allclose(out[0], expected, rtol=1e-6)
    np.testing.assert_allclose(out[1], [0.0, expected[1]], rtol=1e-6)


def test_rows_of_the_fit_are_encoded_by_the_other_folds(crossed):
    X, y = crossed
    folds = KFold(4)
    out = MixedEffectsEncoder(cv=folds).fit_transform(X, y)
    whole = MixedEffectsRegressor(["g0", "g1"]).fit(X, y)
    sds = [np.sqrt(table.iloc[0, 0]) for table in whole.cov_re_.values()]
    pinned = MixedEffectsRegressor(
        [RandomEffect(g, sd=sd) for g, sd in zip(X, sds, strict=True)],
        family=Gaussian(sigma=whole.sigma_),
    )
    for train, test in folds.split(X):
        effects = pinned.fit(X.iloc[train], y[train]).random_effects_
        for k, g in enumerate(X):
            expected = effects[g]["Intercept"].reindex(X[g].iloc[test]).fillna(0.0)
            np.testing.assert_allclose(out[test, k], expected, rtol=1e-6, atol=1e-9)


def test_noise_leaks_into_the_rows_of_the_fit_without_folds_only():
    """Labels of two rows each say nothing of a y that is noise."""
    rng = np.random.default_rng(0)
    g, y = np.repeat(np.arange(300), 2), rng.normal(size=600)
    # With its SD pinned, the factor's effects are noise, and not 0.
    y += np.repeat(0.5 * rng.normal(size=300), 2)
    X = pd.DataFrame({"g": g})
    encoder = MixedEffectsEncoder(random_state=0)
    residual = y - np.repeat(y.reshape(-1, 2).mean(axis=1), 2)
    leaky = encoder.fit(X, y).transform(X)[:, 0]
    assert np.corrcoef(leaky, y)[0, 1] > 0.7
    honest = encoder.fit_transform(X, y)[:, 0]
    # A row and its only neighbour: their residuals are each other's negatives.
    assert np.corrcoef(honest, residual)[0, 1] < 0


def test_the_seed_decides_the_folds(crossed):
    one, two, other = (
        MixedEffectsEncoder(random_state=seed).fit_transform(*crossed) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, two)
    assert abs(one - other).max() > 1e-3


@pytest.mark.parametrize("classes", [["no", "yes"], ["a", "b", "c"]])
def test_classes(crossed, classes):
    X, y = crossed
    codes = np.digitize(y, np.quantile(y, np.arange(1, len(classes)) / len(classes)))
    labels = np.array(classes)[codes]
    encoder = MixedEffectsEncoder(random_state=0).set_output(transform="pandas")
    out = encoder.fit(X, labels).transform(X)
    assert encoder.classes_.tolist() == classes
    reported = classes if len(classes) > 2 else classes[1:]
    names = [f"{g}_{c}" for g in X for c in reported] if len(classes) > 2 else ["g0", "g1"]
    assert out.columns.tolist() == names
    for c in reported:
        model = MixedEffectsRegressor(["g0", "g1"]).fit(X, (labels == c).astype(float))
        expected = model.random_effects_["g1"]["Intercept"].reindex(X["g1"])
        column = out[f"g1_{c}" if len(classes) > 2 else "g1"]
        np.testing.assert_allclose(column, expected, rtol=1e-5, atol=1e-8)


def test_another_model(crossed):
    X, y = crossed
    model = MixedEffectsClassifier(e_step="laplace")
    out = MixedEffectsEncoder(model, cv=2, random_state=0).fit_transform(X, y > y.mean())
    gaussian = MixedEffectsEncoder(cv=2, random_state=0).fit_transform(X, y > y.mean())
    assert np.corrcoef(out[:, 1], gaussian[:, 1])[0, 1] > 0.98
    # On the scale of the logit.
    assert out[:, 1].std() > 3 * gaussian[:, 1].std()


def test_labels_of_any_type_and_missing_ones(crossed):
    X, y = crossed
    plain = MixedEffectsEncoder().fit(X, y).transform(X)
    names = "store " + X["g0"].astype(str).str.zfill(3)
    named = X.assign(g0=names, g1=X["g1"].astype("category"))
    np.testing.assert_allclose(MixedEffectsEncoder().fit(named, y).transform(named), plain)
    holed = X.astype(float).assign(g0=lambda t: t["g0"].where(t["g0"] > 4))
    encoder = MixedEffectsEncoder().fit(holed, y)
    missing = encoder.transform(holed)[holed["g0"].isna(), 0]
    assert np.ptp(missing) == 0
    assert missing[0] != 0


def test_nullable_labels(crossed):
    X, y = crossed
    text = X.assign(g0="s" + X["g0"].astype(str)).mask(X["g0"] < 5).astype("object")
    expected = MixedEffectsEncoder().fit(text, y).transform(text)
    nullable = text.convert_dtypes()
    assert nullable.dtypes.astype(str).tolist() == ["string", "Int64"]
    out = MixedEffectsEncoder().fit(nullable, y).transform(nullable)
    np.testing.assert_allclose(out, expected)


def test_a_constant_column_and_a_label_that_a_fold_misses_are_0(crossed):
    X, y = crossed
    out = MixedEffectsEncoder(random_state=0).fit_transform(X, y)
    rare = X.assign(flag=np.arange(len(X)) == 17, same="a")
    found = MixedEffectsEncoder(random_state=0).fit_transform(rare, y)
    np.testing.assert_allclose(found[:, :2], out, atol=0.05)
    assert found[17, 2] == 0
    assert (found[:, 3] == 0).all()


def test_a_class_of_one_row_is_no_trouble(crossed):
    X, y = crossed
    once = np.where(np.arange(len(y)) == 5, "seldom", "often")
    encoder = MixedEffectsEncoder(MixedEffectsClassifier(e_step="laplace"), cv=KFold(2))
    assert np.isfinite(encoder.fit_transform(X, once)).all()


def test_a_family_as_an_instance_is_the_same_model(crossed):
    X, y = crossed
    one = MixedEffectsEncoder(random_state=0).fit_transform(X, y)
    model = MixedEffectsRegressor(family=Gaussian())
    two = MixedEffectsEncoder(model, random_state=0).fit_transform(X, y)
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("method", ["fit", "fit_transform"])
def test_a_failed_fit_leaves_the_encoder_as_it_was(crossed, method):
    X, y = crossed
    encoder = MixedEffectsEncoder(cv=ShuffleSplit(2) if method == "fit_transform" else 5)
    encoder.fit(X, y)
    before, expected = snapshot(encoder), encoder.transform(X)
    bad = y if method == "fit_transform" else np.where(np.arange(len(y)) == 3, np.nan, y)
    with pytest.raises(ValueError, match=r"NaN|each row once"):
        getattr(encoder, method)(X.add_suffix("_other") % 7, bad)
    assert_unchanged(encoder, before)
    np.testing.assert_array_equal(encoder.transform(X), expected)


@pytest.mark.parametrize(
    ("parameters", "y", "error", "message"),
    [
        ({"target_type": "binary"}, [0, 1, 2] * 10, ValueError, "y has 3 classes"),
        ({"target_type": "ordinal"}, [0, 1, 2] * 10, ValueError, "'target_type' parameter"),
        ({}, [[0.5, 1.5]] * 30, ValueError, "1d array"),
        ({}, None, ValueError, "requires y"),
        ({}, [0.5, 1.5], ValueError, "inconsistent numbers of samples"),
        ({"cv": ShuffleSplit(2)}, list(range(30)), ValueError, "each row once"),
        ({"cv": GroupKFold(2)}, list(range(30)), ValueError, "groups"),
        ({"estimator": "ridge"}, list(range(30)), ValueError, "'estimator' parameter"),
    ],
)
def test_what_is_refused(parameters, y, error, message):
    X = pd.DataFrame({"g": np.arange(30) % 5})
    with pytest.raises(error, match=message):
        MixedEffectsEncoder(**parameters).fit_transform(X, y)


def test_groups_are_routed_to_the_splitter(crossed):
    X, y = crossed
    groups = np.random.default_rng(0).integers(11, size=len(y))
    splitter = GroupKFold(4)
    folds = list(splitter.split(X, y, groups))
    expected = MixedEffectsEncoder(cv=folds).fit_transform(X, y)
    with sklearn.config_context(enable_metadata_routing=True):
        encoder = MixedEffectsEncoder(cv=splitter)
        np.testing.assert_array_equal(encoder.fit_transform(X, y, groups=groups), expected)
        # Folds that know their rows want no groups, nor does an int.
        plain = MixedEffectsEncoder(cv=folds).fit_transform(X, y)
        MixedEffectsEncoder(cv=2).fit_transform(X, y)
    np.testing.assert_array_equal(plain, expected)


def test_groups_reach_the_encoder_of_a_pipeline(crossed):
    X, y = crossed
    groups = pd.Series(np.random.default_rng(0).integers(11, size=len(y)))
    encoder = MixedEffectsEncoder(cv=GroupKFold(3))
    with sklearn.config_context(enable_metadata_routing=True):
        model = make_pipeline(encoder, Ridge(alpha=0.1)).fit(X, y, groups=groups)
        encoded = clone(encoder).fit_transform(X, y, groups=groups)
        # As TargetEncoder does, whose folds of the outer search get the groups too.
        scores = cross_validate(
            make_pipeline(encoder, Ridge()), X, y, cv=GroupKFold(2), params={"groups": groups}
        )
    np.testing.assert_allclose(model[-1].coef_, Ridge(alpha=0.1).fit(encoded, y).coef_)
    assert np.isfinite(scores["test_score"]).all()


def test_groups_that_nobody_takes_are_refused(crossed):
    X, y = crossed
    groups = np.arange(len(y)) % 7
    for make in (MixedEffectsEncoder, TargetEncoder):
        with pytest.raises(ValueError, match="enable_metadata_routing=True"):
            make(cv=GroupKFold(3)).fit_transform(X, y, groups=groups)
        with sklearn.config_context(enable_metadata_routing=True):
            with pytest.raises(TypeError, match=r"unexpected argument\(s\) {'groups'}"):
                make(cv=3).fit_transform(X, y, groups=groups)
            with pytest.raises(ValueError, match="inconsistent numbers of samples"):
                make(cv=GroupKFold(3)).fit_transform(X, y, groups=groups[1:])
            with pytest.raises(ValueError, match="should not be None"):
                make(cv=GroupKFold(3)).fit_transform(X, y, groups=None)


@pytest.mark.slow
def test_boosting_on_insteval_is_at_least_as_good_as_on_target_encoder(insteval):
    X, y = insteval
    scores = []
    for encoder in (
        MixedEffectsEncoder(target_type="continuous", random_state=0),
        TargetEncoder(target_type="continuous"),
    ):
        columns = make_column_transformer((encoder, GROUPS), remainder="passthrough")
        model = make_pipeline(columns, HistGradientBoostingRegressor(random_state=0))
        folds = KFold(5, shuffle=True, random_state=0)
        scores.append(cross_val_score(model, X, y, cv=folds))
    ours, theirs = scores
    assert ours.mean() >= theirs.mean(), scores
    assert (ours > theirs - 0.002).all()


def test_parts_of_a_model_are_refused():
    X, y = pd.DataFrame({"g": np.arange(40) % 8}), np.arange(40.0)
    encoder = MixedEffectsEncoder(MixedEffectsRegressor(dispersion="~ g"))
    with pytest.raises(ValueError, match=r"dispersion='~ g' is not for an encoder"):
        encoder.fit(X, y)
    assert not hasattr(encoder, "estimators_")
