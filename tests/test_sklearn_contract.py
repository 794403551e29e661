"""scikit-learn's own checks and tools on the estimator."""

import numpy as np
import polars
import pytest
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.ensemble import StackingRegressor
from sklearn.linear_model import LinearRegression, RidgeCV
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from sklmm import HMC, Adam, ConjugateGradient, Exact, Gaussian, MixedEffectsRegressor, RandomEffect
from sklmm.datasets import make_crossed


@pytest.fixture(scope="module")
def crossed():
    X, y, _ = make_crossed(600, (40, 10), random_state=0)
    return X.assign(kind=np.where(X["x0"] > 0, "high", "low")), y


# Some of its tables have columns that are combinations of others, or a level for each row.
@pytest.mark.filterwarnings("ignore:The fixed-effects column")
@pytest.mark.filterwarnings("ignore:The data do not identify .*level for each row")
@pytest.mark.filterwarnings("ignore:partial_fit begins anew")
@parametrize_with_checks([MixedEffectsRegressor(), MixedEffectsRegressor(random_effects=[0])])
@pytest.mark.usefixtures("array_api")
def test_scikit_learns_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"random_effects": ["(1 + x | g)", RandomEffect("h", sd=1.0)], "family": Gaussian(2.0)},
        {"e_step": HMC(n_chains=3), "m_step": Adam(0.1)},
    ],
)
def test_clone_and_repr_keep_every_parameter(parameters):
    model = MixedEffectsRegressor(**parameters)
    copy = clone(model)
    assert repr(copy) == repr(model)
    assert eval(repr(model), globals()).get_params().keys() == model.get_params().keys()
    for name, value in parameters.items():
        assert repr(getattr(copy, name)) == repr(value)
    if "e_step" in parameters:
        assert copy.e_step is not model.e_step


def test_set_params_reaches_into_e_step_m_step_and_family():
    model = MixedEffectsRegressor(e_step=HMC(), m_step=Adam(), family=Gaussian())
    model.set_params(e_step__step_size=0.015, m_step__learning_rate=0.5, family__sigma=2.0)
    assert model.e_step.step_size == 0.015
    assert model.m_step.learning_rate == 0.5
    assert model.family.sigma == 2.0
    with pytest.raises(ValueError, match="Invalid parameter 'probes'"):
        MixedEffectsRegressor(e_step=ConjugateGradient()).set_params(e_step__probes=3)


def test_grid_search_chooses_the_terms_and_reaches_inside_the_e_step(crossed):
    X, y = crossed
    X = X.drop(columns="kind")
    search = GridSearchCV(
        MixedEffectsRegressor(fixed_effects=["x0"], e_step=ConjugateGradient(), random_state=0),
        {"random_effects": [["g1"], ["g0", "g1"]], "e_step__tol": [1e-5, 1e-8]},
        cv=KFold(3, shuffle=True, random_state=0),
    ).fit(X, y)
    assert search.best_params_["random_effects"] == ["g0", "g1"]
    assert search.best_estimator_.e_step.tol == search.best_params_["e_step__tol"]
    by_hand = MixedEffectsRegressor(["g0", "g1"], fixed_effects=["x0"], e_step=Exact())
    expected = cross_val_score(by_hand, X, y, cv=KFold(3, shuffle=True, random_state=0))
    assert search.best_score_ == pytest.approx(expected.mean(), abs=1e-3)


def test_set_output_keeps_grouping_columns_through_a_pipeline(crossed):
    X, y = crossed
    columns = make_column_transformer(
        (StandardScaler(), ["x0"]),
        (OneHotEncoder(drop="first", sparse_output=False), ["kind"]),
        remainder="passthrough",
        verbose_feature_names_out=False,
    ).set_output(transform="pandas")
    pipe = make_pipeline(columns, MixedEffectsRegressor(["g0", "g1"])).fit(X, y)
    x = (X["x0"] - X["x0"].mean()) / X["x0"].std(ddof=0)
    low = (X["kind"] == "low").astype(float)
    manual = X[["g0", "g1"]].assign(x0=x, kind_low=low)
    model = MixedEffectsRegressor(["g0", "g1"]).fit(manual, y)
    assert pipe[-1].feature_names_in_.tolist() == ["x0", "kind_low", "g0", "g1"]
    np.testing.assert_allclose(pipe[-1].coef_, model.coef_, rtol=1e-5)
    np.testing.assert_allclose(pipe.predict(X), model.predict(manual), rtol=1e-5)


def test_group_k_fold_predicts_unseen_levels_by_the_population(crossed):
    X, y = crossed
    X = X.drop(columns="kind")
    model = MixedEffectsRegressor(["g0"], fixed_effects=["x0"])
    folds = GroupKFold(4)
    scores = cross_val_score(model, X, y, cv=folds, groups=X["g0"])
    train, test = next(folds.split(X, y, X["g0"]))
    model.fit(X.iloc[train], y[train])
    line = model.intercept_ + model.coef_[0] * X["x0"].iloc[test]
    residual, total = y[test] - line, y[test] - y[test].mean()
    assert scores[0] == pytest.approx(1 - (residual @ residual) / (total @ total), rel=1e-6)


def test_stacking_passes_frames_on_and_beats_its_worse_half(crossed):
    X, y = crossed
    mixed = MixedEffectsRegressor(["g0", "g1"], fixed_effects=["x0"])
    fixed = make_pipeline(make_column_transformer(("passthrough", ["x0"])), LinearRegression())
    stack = StackingRegressor([("mixed", mixed), ("fixed", fixed)], RidgeCV(), cv=5).fit(X, y)
    assert stack.score(X, y) > fixed.fit(X, y).score(X, y) + 0.1
    weights = stack.final_estimator_.coef_
    assert weights[0] > abs(weights[1])


@pytest.mark.slow
def test_cross_validation_in_processes_gives_the_same_scores(crossed):
    X, y = crossed
    model = MixedEffectsRegressor(["g0", "g1"], fixed_effects=["x0"], e_step="cg", random_state=0)
    serial = cross_val_score(model, X, y, cv=3, n_jobs=1)
    np.testing.assert_allclose(cross_val_score(model, X, y, cv=3, n_jobs=2), serial, rtol=1e-9)


def test_a_fold_with_constant_response_does_not_stop_cross_validation(crossed):
    X, _ = crossed
    X = X.drop(columns="kind")
    y = np.zeros(len(X))
    y[:200] = np.random.default_rng(0).standard_normal(200)
    scores = cross_val_score(MixedEffectsRegressor(["g0", "g1"]), X, y, cv=3, error_score="raise")
    assert np.isfinite(scores).all()


def test_score_is_r_squared(crossed):
    X, y = crossed
    model = MixedEffectsRegressor(["g0"], fixed_effects=["x0"]).fit(X, y)
    residual, total = y - model.predict(X), y - y.mean()
    assert model.score(X, y) == pytest.approx(1 - (residual @ residual) / (total @ total))


def test_html_repr_shows_the_fitted_estimator(crossed):
    X, y = crossed
    model = MixedEffectsRegressor(["g0"], fixed_effects=["x0"]).fit(X, y)
    assert "MixedEffectsRegressor" in model._repr_html_()


def test_feature_names_are_those_of_the_frame(crossed):
    X, y = crossed
    model = MixedEffectsRegressor(["g0"], fixed_effects=["x0"]).fit(X, y)
    assert model.feature_names_in_.tolist() == ["g0", "g1", "x0", "kind"]
    assert model.n_features_in_ == 4


def test_polars_frames_are_read_like_pandas_ones(crossed):
    X, y = crossed
    X = X.assign(g0="level " + X["g0"].astype(str)).drop(columns="kind")
    frame = polars.from_dict({name: X[name].to_numpy() for name in X.columns})
    model = MixedEffectsRegressor(["g0", "g1"]).fit(X, y)
    fitted = MixedEffectsRegressor(["g0", "g1"]).fit(frame, y)
    np.testing.assert_allclose(fitted.predict(frame), model.predict(X), rtol=1e-9)
    assert fitted.random_effects_["g0"].index.tolist() == model.random_effects_["g0"].index.tolist()
