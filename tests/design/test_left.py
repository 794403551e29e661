"""Factors on the left of a term's bar."""

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_predict

from sklmm import MixedEffectsRegressor, RandomEffect
from sklmm.design.variables import NotSeen


@pytest.fixture(scope="module")
def data():
    """360 rows of 30 subjects in treatments of three kinds of column, and by hand; y."""
    rng = np.random.default_rng(0)
    subject, codes = np.repeat(np.arange(30), 12), rng.integers(0, 3, 360)
    labels = np.array(["mid", "low", "high"])[codes]
    X = pd.DataFrame(
        {
            "x": rng.normal(size=360),
            "subject": subject,
            "text": labels,
            "flag": codes == 1,
            "dose": pd.Categorical(labels, ["low", "mid", "never", "high"]),
            **{f"is_{name}": (labels == name) * 1.0 for name in ("low", "mid", "high")},
        }
    )
    shift = rng.normal(0, [1.0, 0.7, 1.3], (30, 3)) + rng.normal(0, 1, (30, 1))
    return X, 1 + 0.5 * X["x"] + shift[subject, codes] + rng.normal(0, 0.8, 360)


def fit(data, terms, **parameters):
    return MixedEffectsRegressor(terms, fixed_effects=["x"], **parameters).fit(*data)


BY_HAND = {
    "(1 + dose | subject)": ("(1 + is_mid + is_high | subject)", ["dose[T.mid]", "dose[T.high]"]),
    "(0 + dose | subject)": (
        "(0 + is_low + is_mid + is_high | subject)",
        ["dose[low]", "dose[mid]", "dose[high]"],
    ),
    "(1 + text | subject)": ("(1 + is_low + is_mid | subject)", ["text[T.low]", "text[T.mid]"]),
    "(1 + flag || subject)": ("(1 + is_low || subject)", ["flag[T.True]"]),
    "(0 + x + flag + dose | subject)": (
        "(0 + x + not_low + is_low + is_mid + is_high | subject)",
        ["flag[False]", "flag[True]", "dose[T.mid]", "dose[T.high]"],
    ),
}


@pytest.mark.parametrize(("term", "by_hand", "names"), [(k, *v) for k, v in BY_HAND.items()])
def test_a_factor_is_the_columns_that_are_made_by_hand(data, term, by_hand, names):
    X, y = data
    X = X.assign(not_low=1 - X["is_low"])
    if "not_low" in by_hand:
        # The two bases are not one, so only z is compared.
        ours, theirs = (
            MixedEffectsRegressor([t], fixed_effects=["x"], max_iter=1) for t in (term, by_hand)
        )
        with pytest.warns(match="converge|identify"):
            ours, theirs = ours.fit(X, y), theirs.fit(X, y)
    else:
        ours, theirs = fit((X, y), [term]), fit((X, y), [by_hand])
        assert ours.loglik_ == pytest.approx(theirs.loglik_, abs=1e-8)
        np.testing.assert_allclose(
            ours.variance_components_["sd"], theirs.variance_components_["sd"], rtol=1e-10
        )
    effects = ours.random_effects_["subject"]
    assert [name for name in effects if name not in ("x", "Intercept")] == names
    np.testing.assert_allclose(effects, theirs.random_effects_["subject"], rtol=1e-8, atol=1e-10)
    some = X[::7]
    np.testing.assert_allclose(
        ours.predict(some, return_std=True), theirs.predict(some, return_std=True), rtol=1e-8
    )


def test_a_factor_works_wherever_a_term_does(data, tmp_path):
    X, y = data
    table = X.assign(y=y)[["y", "x", "subject", "text"]]
    model = MixedEffectsRegressor.from_formula("y ~ x + (1 + text | subject)")
    search = GridSearchCV(clone(model), {"method": ["reml", "ml"]}, cv=3).fit(table, table["y"])
    assert np.isfinite(search.best_score_)
    model.fit(table)
    assert "corr(subject, Intercept, text[T.low])" in model.history_
    assert "(1 + text | subject)" in model.summary()
    joblib.dump(model, tmp_path / "model")
    again = joblib.load(tmp_path / "model")
    np.testing.assert_array_equal(again.predict(table), model.predict(table))
    # As categories in another order the labels are the same.
    other = table.assign(text=pd.Categorical(table["text"], ["mid", "low", "high"]))
    np.testing.assert_array_equal(again.predict(other), model.predict(table))
    array = table[["x", "subject", "text"]].to_numpy(object)
    term = RandomEffect(1, slopes=[2])
    by_position = MixedEffectsRegressor([term], fixed_effects=[0]).fit(array, y)
    assert by_position.loglik_ == pytest.approx(model.loglik_, abs=1e-9)
    assert list(by_position.random_effects_["1"]) == ["Intercept", "2[T.low]", "2[T.mid]"]
    assert len(cross_val_predict(by_position, array, y, cv=3)) == len(y)
    warm = clone(model).set_params(warm_start=True).fit(table)
    assert warm.fit(table).n_iter_ <= model.n_iter_
    new = model.update(table[:40], table["y"][:40])
    assert np.isfinite(new.predict(table)).all()


def test_batches_have_the_labels_of_the_first_rows(data):
    X, y = data
    whole = fit(data, ["(1 + dose | subject)"])
    model = MixedEffectsRegressor(["(1 + dose | subject)"], fixed_effects=["x"])
    model.fit_batches((X[i : i + 90], y[i : i + 90]) for i in range(0, 360, 90))
    np.testing.assert_allclose(model.loglik_, whole.loglik_, rtol=1e-9)
    few = X["text"] != "mid"
    with pytest.raises(ValueError, match=r"batch 1: .*column 'dose' holds 'mid'.* in batch 0"):
        model.fit_batches([(X[few], y[few]), (X, y)])


def test_labels_that_are_new_or_missing_or_alone_are_told_by_name(data):
    X, y = data
    model = fit(data, ["(1 + text | subject)"])
    with pytest.raises(NotSeen, match=r"'text' holds 'none', not seen .* interaction"):
        model.predict(X.assign(text="none"))
    with pytest.raises(ValueError, match=r"NaN in the slope column.* 'text'"):
        fit((X.assign(text=X["text"].where(X["x"] > -2)), y), ["(1 + text | subject)"])
    with pytest.raises(ValueError, match="single category, 'one', beside an intercept"):
        fit((X.assign(text="one"), y), ["(1 + text | subject)"])
