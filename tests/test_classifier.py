"""`MixedEffectsClassifier`: scikit-learn's checks, labels, probabilities, and tools around it."""

import io

import joblib
import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.base import clone
from sklearn.ensemble import VotingClassifier
from sklearn.metrics import get_scorer, log_loss
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    PredefinedSplit,
    cross_val_predict,
    cross_val_score,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder, StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator

from sklmm import Bernoulli, MixedEffectsClassifier, MixedEffectsRegressor, Ordinal
from tests.simulate import simulate

#: Of draws, repeated rows and weights make other ones. `test_weights_repeat_rows` stands in.
WEIGHTS = {
    "check_sample_weight_equivalence_on_dense_data",
    "check_sample_weight_equivalence_on_sparse_data",
}
#: A dozen formats, a fit of separable classes each.
FORMATS = {"check_estimator_sparse_array", "check_estimator_sparse_matrix"}
#: Checks that look at what random effects may change; each compiles shapes of its own.
QUICK = {
    "check_classifiers_classes",
    "check_classifiers_train",
    "check_dict_unchanged",
    "check_estimators_nan_inf",
    "check_estimators_pickle",
    "check_fit2d_1sample",
    "check_fit_idempotent",
    "check_methods_subset_invariance",
    "check_n_features_in",
    "check_sample_weights_invariance",
}


def checks(model, quick=None):
    for estimator, check in estimator_checks_generator(model):
        name = check.func.__name__ if hasattr(check, "func") else check.__name__
        marks = [pytest.mark.slow] if name in FORMATS else []
        if quick is not None:
            marks = [pytest.mark.slow if name in quick else pytest.mark.scale]
        if quick is None or name not in WEIGHTS:
            yield pytest.param(estimator, check, id=name, marks=marks)


# Some of the checks' data are separable, which we warn of.
@pytest.mark.filterwarnings("ignore:The coefficients? .* no finite maximum:UserWarning")
@pytest.mark.filterwarnings("ignore:The fixed-effects column:UserWarning")
@pytest.mark.parametrize(("estimator", "check"), list(checks(MixedEffectsClassifier())))
@pytest.mark.usefixtures("array_api")
def test_scikit_learns_checks(estimator, check):
    check(estimator)


@pytest.mark.filterwarnings("ignore:The coefficients? .* no finite maximum:UserWarning")
@pytest.mark.filterwarnings("ignore:The fixed-effects column:UserWarning")
@pytest.mark.filterwarnings("ignore:The fit stopped at max_iter:UserWarning")
@pytest.mark.parametrize(
    ("estimator", "check"),
    list(checks(MixedEffectsClassifier(random_effects=[0], random_state=0), QUICK)),
)
def test_scikit_learns_checks_with_random_effects(estimator, check):
    check(estimator)


@pytest.mark.parametrize("terms", [None, ["g"]])
def test_weights_repeat_rows(terms):
    X, y, _, _ = simulate("bernoulli", 8)
    weights = np.random.default_rng(0).integers(0, 4, len(y))
    model = MixedEffectsClassifier(terms, fixed_effects=["x"], e_step="laplace", tol=1e-6)
    one = clone(model).fit(X, y, sample_weight=weights)
    two = clone(model).fit(X.loc[X.index.repeat(weights)], np.repeat(y, weights))
    np.testing.assert_allclose(one.coef_, two.coef_, rtol=1e-6)
    assert one.loglik_ == pytest.approx(two.loglik_, rel=1e-8)


@pytest.fixture(scope="module")
def binary():
    X, y, _, _ = simulate("bernoulli", 0)
    return X, np.where(y == 1, "yes", "no")


@pytest.fixture(scope="module")
def model(binary):
    return MixedEffectsClassifier(["g"], random_state=0).fit(*binary)


def test_labels_probabilities_and_decisions_agree(model, binary):
    X, y = binary
    assert "(adaptive Gauss-Hermite quadrature)" in model.summary()
    probability = model.predict_proba(X)
    assert model.classes_.tolist() == ["no", "yes"]
    np.testing.assert_allclose(probability.sum(axis=1), 1, rtol=1e-12)
    np.testing.assert_array_equal(model.predict(X), model.classes_[probability.argmax(axis=1)])
    decision = model.decision_function(X)
    np.testing.assert_array_equal(decision > 0, model.predict(X) == "yes")
    np.testing.assert_allclose(1 / (1 + np.exp(-decision)), probability[:, 1], rtol=1e-10)
    assert model.score(X, y) == np.mean(model.predict(X) == y)
    assert log_loss(y, probability) < log_loss(y, model.predict_proba(X, include_random=False))
    assert set(np.unique(model.sample_y(X, 2, random_state=0))) == {"no", "yes"}


def test_predictions_average_over_the_posterior(model, binary):
    """The mean over draws of the effects lies nearer to 1/2 than at their mean."""
    X, _ = binary
    b = model.random_effects_["g"]["Intercept"].to_numpy()
    eta = model.intercept_ + X[["x"]].to_numpy() @ model.coef_ + b[X["g"]]
    plug_in = 1 / (1 + np.exp(-eta))
    averaged = model.predict_proba(X)[:, 1]
    clear = np.abs(eta) > 0.8
    assert np.mean(np.abs(averaged - 0.5)[clear] < np.abs(plug_in - 0.5)[clear]) > 0.9
    np.testing.assert_allclose(averaged, plug_in, atol=0.06)


def test_the_label_order_only_changes_signs(binary):
    X, y = binary
    flipped = np.where(y == "yes", "a", "b")
    one = MixedEffectsClassifier(["g"], e_step="laplace").fit(X, y)
    two = MixedEffectsClassifier(["g"], e_step="laplace").fit(X, flipped)
    np.testing.assert_allclose(two.coef_, -one.coef_, rtol=1e-4)
    np.testing.assert_allclose(two.intercept_, -one.intercept_, rtol=1e-3)


def test_three_classes():
    X, y, _, _ = simulate("categorical", 1)
    labels = np.array(["b", "c", "a"])[y.astype(int)]
    # An order means nothing to this family.
    ordered = pd.Categorical(labels, ["c", "b", "a"], ordered=True)
    model = MixedEffectsClassifier(["g"], random_state=0).fit(X, ordered)
    assert model.coef_.shape == (2, 1)
    assert model.intercept_.shape == (2,)
    assert list(model.random_effects_["g"].columns) == ["b: Intercept", "c: Intercept"]
    probability = model.predict_proba(X)
    assert probability.shape == (len(X), 3)
    np.testing.assert_allclose(probability.sum(axis=1), 1, rtol=1e-12)
    assert model.score(X, labels) > np.mean(labels == pd.Series(labels).mode()[0])
    assert not hasattr(model, "decision_function")


ORDINAL = MixedEffectsClassifier(["g"], family="ordinal", e_step="laplace", random_state=0)


def test_two_unordered_classes_are_bernoulli(model, binary):
    X, y = binary
    found = clone(model).set_params(family="categorical").fit(X, y)
    np.testing.assert_array_equal(found.predict_proba(X), model.predict_proba(X))
    assert "Family bernoulli" in str(found.summary())


def test_ordinal_follows_an_ordered_categorical():
    X, y, _, _ = simulate("ordinal", 2)
    names = ["poor", "fair", "unused", "good", "superb", "never"]
    words = np.array(["poor", "fair", "good", "superb"])[y.astype(int)]
    ratings = pd.Categorical(words, categories=names, ordered=True)
    model = clone(ORDINAL).fit(X, ratings)
    # Sorted, as scikit-learn's scorers sort them.
    assert model.classes_.tolist() == ["fair", "good", "poor", "superb"]
    assert model.fixed_effects_.index.tolist() == ["poor|fair", "fair|good", "good|superb", "x"]
    assert np.all(np.diff(model.family_params_["cutpoints"]) > 0)
    assert model.intercept_ == 0
    numeric = clone(ORDINAL).fit(X, y)
    np.testing.assert_allclose(numeric.coef_, model.coef_, rtol=1e-6)
    probit = MixedEffectsClassifier(["g"], family=Ordinal("probit"), e_step="laplace").fit(X, y)
    assert probit.coef_[0] / numeric.coef_[0] == pytest.approx(0.6, abs=0.08)
    # Everything else that is told by class follows the order too.
    np.testing.assert_array_equal(
        model.predict(X), model.classes_[model.predict_proba(X).argmax(1)]
    )
    kept = ["poor", "fair", "good", "superb"]
    by_class = pd.DataFrame(model.predict_proba(X), columns=model.classes_)[kept]
    np.testing.assert_allclose(by_class, numeric.predict_proba(X), rtol=1e-6)
    draws = pd.Categorical(model.sample_y(X, random_state=0)[:, 0], kept).codes
    np.testing.assert_array_equal(draws, numeric.sample_y(X, random_state=0)[:, 0])
    again, same = model.update(X[:20], ratings[:20]), numeric.update(X[:20], y[:20])
    np.testing.assert_allclose(again.random_effects_["g"], same.random_effects_["g"], atol=1e-6)


@pytest.fixture(scope="module")
def answers():
    """Words, their codes, and a table that moves them."""
    X, y, _, _ = simulate("ordinal", 3)
    levels = np.array(["very bad", "bad", "ok", "good"])
    return X, levels[y.astype(int)], levels


ORDERED = {
    "pandas": lambda words, levels: pd.Series(pd.Categorical(words, levels, ordered=True)),
    "a frame": lambda words, levels: pd.DataFrame(
        {"y": pd.Categorical(words, levels, ordered=True)}
    ),
    "polars": lambda words, levels: pl.Series(words, dtype=pl.Enum([*levels, "never"])),
    "halves": lambda words, levels: pd.Categorical(words, levels).codes / 2,
}


@pytest.mark.parametrize("make", ORDERED.values(), ids=ORDERED.keys())
def test_types_with_an_order_keep_it(answers, make):
    X, words, levels = answers
    codes = pd.Categorical(words, levels).codes
    one, other = clone(ORDINAL).fit(X, codes), clone(ORDINAL).fit(X, make(words, levels))
    np.testing.assert_allclose(other.coef_, one.coef_, rtol=1e-9)
    cutpoints = [model.family_params_["cutpoints"] for model in (one, other)]
    np.testing.assert_allclose(*cutpoints, rtol=1e-9)


UNORDERED = {
    "words": lambda words: words,
    "objects": lambda words: words.astype(object),
    "a categorical": lambda words: pd.Series(words, dtype="category"),
    "polars' words": lambda words: pl.Series(words),
    "polars' categories": lambda words: pl.Series(words, dtype=pl.Categorical),
    "digits": lambda words: np.char.str_len(words).astype(str),
    "dates": lambda words: pd.Timestamp("2020") + pd.to_timedelta(np.char.str_len(words), "D"),
    "nanoseconds": lambda words: np.char.str_len(words).astype("datetime64[ns]"),
}


@pytest.mark.parametrize("make", UNORDERED.values(), ids=UNORDERED.keys())
def test_labels_without_an_order_are_refused_by_an_ordinal_model(answers, make):
    X, words, _ = answers
    with pytest.raises(ValueError, match=r"not .* \(row 0\): give pd.Categorical\(y, categories"):
        clone(ORDINAL).fit(X, make(words))


@pytest.mark.parametrize("levels", [["very bad", "bad", "ok", "good"], [4, 1, 3, 2]])
def test_a_regressor_of_ratings_refuses_categories_that_are_none(answers, levels):
    X, words, names = answers
    codes = pd.Categorical(words, names).codes
    y = pd.Categorical.from_codes(codes, levels, ordered=True)
    words = codes.astype(str).astype(object) + " stars"
    with pytest.raises(ValueError, match=r"y: could not .*Labels are for MixedEffectsClassifier"):
        MixedEffectsRegressor(["g"], family="ordinal", e_step="laplace").fit(X, words)
    with pytest.raises(ValueError, match=r"not numbers in their order.*MixedEffectsClassifier"):
        MixedEffectsRegressor(["g"], family="ordinal", e_step="laplace").fit(X, y)


def test_scorers_and_tools_read_the_columns_of_codes_and_of_ordered_categories(answers):
    """OrdinalEncoder's codes serve all; tools that encode y by the alphabet need them."""
    X, words, levels = answers
    codes = OrdinalEncoder(categories=[levels]).fit_transform(words[:, None])[:, 0].astype(int)
    ordered = pd.Categorical(words, levels, ordered=True)
    train, test = np.arange(len(X)) % 2 == 0, np.arange(len(X)) % 2 == 1
    model = clone(ORDINAL).fit(X[train], codes[train])
    named = clone(ORDINAL).fit(X[train], ordered[train])
    probability = model.predict_proba(X[test])
    own = -np.log(probability[np.arange(test.sum()), codes[test]]).mean()
    for scoring in ("neg_log_loss", "roc_auc_ovr", "accuracy"):
        score = get_scorer(scoring)
        by_codes = score(model, X[test], codes[test])
        assert score(named, X[test], words[test]) == pytest.approx(by_codes, rel=1e-6)
        if scoring == "neg_log_loss":
            assert by_codes == pytest.approx(-own, rel=1e-6)
    folds = PredefinedSplit(np.where(test, 0, 1))
    out_of_fold = cross_val_predict(ORDINAL, X, codes, cv=folds, method="predict_proba")
    np.testing.assert_allclose(out_of_fold[test], probability, rtol=1e-6)
    voting = VotingClassifier([("one", ORDINAL)], voting="soft").fit(X[train], codes[train])
    np.testing.assert_allclose(voting.predict_proba(X[test]), probability, rtol=1e-6)


def test_the_order_of_two_classes_changes_nothing(binary):
    X, y = binary
    model = MixedEffectsClassifier(["g"], e_step="laplace", random_state=0).fit(X, y)
    flipped = pd.Categorical(y, ["yes", "no"], ordered=True)
    other = clone(model).fit(X, flipped)
    assert other.classes_.tolist() == ["no", "yes"]
    np.testing.assert_array_equal(other.coef_, model.coef_)
    np.testing.assert_array_equal(other.decision_function(X), model.decision_function(X))
    score = get_scorer("roc_auc")
    assert score(other, X, y) == score(model, X, y)


def test_unseen_levels_get_the_population(model, binary):
    X, _ = binary
    new = X.head(3).assign(g=999)
    np.testing.assert_allclose(
        model.predict_proba(new), model.predict_proba(new, include_random=False), rtol=1e-12
    )
    with pytest.raises(ValueError, match="unknown or missing level '999'"):
        clone(model).set_params(handle_unknown="error", e_step="laplace").fit(*binary).predict(new)


def test_in_a_pipeline_with_cross_validation_and_a_grid(binary):
    X, y = binary
    pipe = make_pipeline(
        StandardScaler().set_output(transform="pandas"),
        MixedEffectsClassifier(fixed_effects=["x"], e_step="laplace"),
    )
    scores = cross_val_score(pipe, X, y, cv=GroupKFold(3), groups=X["g"])
    assert (scores > 0.5).all()
    grid = GridSearchCV(
        MixedEffectsClassifier(["g"], family=Bernoulli(), e_step="laplace"),
        {"family__link": ["logit", "probit"]},
        cv=2,
        scoring="neg_log_loss",
    ).fit(X, y)
    assert grid.best_score_ > -0.7


def test_saved_and_loaded_to_the_bit(model, binary):
    file = io.BytesIO()
    joblib.dump(model, file)
    file.seek(0)
    loaded = joblib.load(file)
    np.testing.assert_array_equal(loaded.predict_proba(binary[0]), model.predict_proba(binary[0]))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"family": "poisson"}, "not a family of classes"),
        ({"e_step": "cg"}, "is for family='gaussian'"),
        ({"m_step": "adam", "random_effects": ["g"]}, "is for family='gaussian'"),
        ({"family": "ordinal"}, "at least three classes"),
        ({"family": Bernoulli("log")}, "link='log' is not available"),
    ],
)
def test_wrong_parameters(binary, parameters, message):
    estimator = MixedEffectsClassifier(**parameters)
    with pytest.raises(ValueError, match=message):
        estimator.fit(*binary)
    assert not hasattr(estimator, "classes_")
