"""Formulas: formulaic's columns in the fixed part, the response and the terms of lme4's formula."""

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklmm import MixedEffectsClassifier, MixedEffectsRegressor
from sklmm.datasets import load_cbpp


@pytest.fixture(scope="module")
def table(sleepstudy):
    """sleepstudy with a column of strings, one of categories, one with a blank in its name."""
    X, y = sleepstudy
    rows = np.arange(len(X))
    return X.assign(
        Reaction=y,
        shift=np.where(rows % 3 == 0, "late", "early"),
        kind=pd.Categorical(rows % 4),
        **{"log dose": np.cos(rows)},
    )


def without_response(table):
    return table.drop(columns="Reaction")


def test_an_lme4_formula_takes_the_response_from_the_table(table, sleep_model):
    model = MixedEffectsRegressor.from_formula("Reaction ~ Days + (1 + Days | Subject)")
    model.fit(table)
    assert "Reaction ~ 1 + Days + (1 + Days | Subject)" in model.summary()
    assert model.coef_ == pytest.approx(sleep_model.coef_, rel=1e-12)
    assert model.loglik_ == pytest.approx(sleep_model.loglik_, abs=1e-9)
    assert list(model.feature_names_in_) == list(without_response(table).columns)
    expected = model.predict(without_response(table))
    np.testing.assert_array_equal(model.predict(table), expected)
    np.testing.assert_array_equal(clone(model).fit(table).predict(table), expected)
    again = clone(model).fit(without_response(table), table["Reaction"])
    np.testing.assert_array_equal(again.predict(table), expected)


def test_columns_are_those_of_dummies_made_by_hand(table):
    formula = MixedEffectsRegressor(["Subject"], fixed_effects="~ Days * shift + C(kind)")
    formula.fit(without_response(table), table["Reaction"])
    early = (table["shift"] == "late").astype(float)
    by_hand = table[["Subject", "Days"]].assign(
        late=early, both=early * table["Days"], **{f"k{k}": table["kind"] == k for k in (1, 2, 3)}
    )
    model = MixedEffectsRegressor(["Subject"]).fit(by_hand, table["Reaction"])
    by_formula = formula.fixed_effects_["estimate"]
    assert by_formula["Days:shift[T.late]"] == pytest.approx(
        model.fixed_effects_.loc["both", "estimate"], rel=1e-8
    )
    np.testing.assert_allclose(
        formula.predict(without_response(table)), model.predict(by_hand), rtol=1e-9
    )
    assert formula.loglik_ == pytest.approx(model.loglik_, abs=1e-6)


def test_knots_and_centres_are_those_of_training(table, tmp_path):
    X, y = without_response(table), table["Reaction"]
    model = MixedEffectsRegressor(
        ["Subject"], fixed_effects="~ bs(Days, df=4) + center(`log dose`)"
    ).fit(X, y)
    expected = model.predict(X)
    np.testing.assert_allclose(model.predict(X.iloc[7:8]), expected[7:8], rtol=1e-12)
    joblib.dump(model, tmp_path / "model")
    np.testing.assert_array_equal(joblib.load(tmp_path / "model").predict(X), expected)
    assert cross_val_predict(model, X, y, cv=3).shape == y.shape


@pytest.mark.parametrize("fit_intercept", [True, False])
def test_without_an_intercept_every_level_has_a_coefficient(table, fit_intercept):
    text = "~ 0 + shift" if fit_intercept else "~ shift"
    model = MixedEffectsRegressor(["Subject"], fixed_effects=text, fit_intercept=fit_intercept)
    model.fit(without_response(table), table["Reaction"])
    assert list(model.fixed_effects_.index) == ["shift[early]", "shift[late]"]
    assert model.intercept_ == 0.0


def test_a_classifier_has_formulas_too():
    table = load_cbpp(as_frame=True).frame
    rows = table.loc[table.index.repeat(3)].assign(case=np.arange(3 * len(table)) % 3 == 0)
    rows["case"] = np.where(rows["case"], "yes", "no")
    formula = "case ~ C(period) + (1 | herd)"
    model = MixedEffectsClassifier.from_formula(formula, e_step="laplace").fit(rows)
    assert list(model.classes_) == ["no", "yes"]
    assert list(model.predict(rows.drop(columns="case"))) == list(model.predict(rows))


@pytest.mark.parametrize(
    ("formula", "says"),
    [
        ("~ nope", "nope"),
        ("~ Days +* shift", "Operator"),
        ("~ Days | shift", "one right-hand side"),
        ("~ shift + offset(Days)", "the parameter offset"),
        ("~ np.log(Days)", "'np.log.Days.' is not finite"),
        ("nope ~ Days", "the response 'nope' is not a column"),
    ],
)
def test_a_formula_that_cannot_be_read_is_shown(table, formula, says):
    model = MixedEffectsRegressor(["Subject"], fixed_effects=formula)
    y = None if formula.startswith("nope") else table["Reaction"]
    with pytest.raises(ValueError, match=says) as caught:
        model.fit(without_response(table), y)
    assert "fixed_effects=" in str(caught.value)
    assert not hasattr(model, "result_")


@pytest.mark.parametrize(
    ("formula", "says"),
    [
        ("Days + (1 | Subject)", "no response"),
        ("Reaction ~ Days + (1 + log(Days) | Subject)", "columns, no functions"),
    ],
)
def test_from_formula_refuses(formula, says):
    with pytest.raises(ValueError, match=says):
        MixedEffectsRegressor.from_formula(formula)


def test_arrays_have_no_names(table):
    X = table[["Days", "Subject"]].to_numpy(dtype=float)
    with pytest.raises(ValueError, match="DataFrame"):
        MixedEffectsRegressor([1], fixed_effects="~ Days").fit(X, table["Reaction"])


@pytest.mark.parametrize(
    ("column", "value", "says"),
    [
        ("shift", "nightly", "column 'shift' holds 'nightly'"),
        ("shift", None, "NaN in the fixed-effects column.* 'shift'"),
        ("Days", np.nan, "NaN in the fixed-effects column.* 'Days'"),
    ],
)
def test_what_a_formula_cannot_code_is_named(table, column, value, says):
    X, y = without_response(table), table["Reaction"]
    model = MixedEffectsRegressor(["Subject"], fixed_effects="~ Days + C(shift)").fit(X, y)
    new = X.astype({"Days": float})
    new.loc[3, column] = value
    with pytest.raises(ValueError, match=says):
        model.predict(new)
    if value != "nightly":
        with pytest.raises(ValueError, match=says):
            clone(model).fit(new, y)


@pytest.mark.parametrize("dtype", ["object", "str", "string", "category"])
def test_strings_of_every_type_are_categories(table, dtype):
    X = without_response(table).astype({"shift": dtype})
    model = MixedEffectsRegressor(["Subject"], fixed_effects="~ Days:shift")
    model.fit(X, table["Reaction"])
    assert list(model.fixed_effects_.index)[1:] == ["Days:shift[early]", "Days:shift[late]"]


@pytest.mark.parametrize("factor", ["C(Days > 4)", "C(np.round(Days / 3))", "C(kind, contr.sum)"])
def test_levels_are_those_of_the_evaluated_factor(table, factor):
    X, y = without_response(table), table["Reaction"]
    model = MixedEffectsRegressor(["Subject"], fixed_effects=f"~ {factor}").fit(X, y)
    np.testing.assert_allclose(model.predict(X[::7]), model.predict(X)[::7], rtol=1e-12)


@pytest.mark.parametrize(
    ("factor", "says"),
    [
        (
            "`shift (h)`",
            r"column 'shift \(h\)' holds 'nightly', not seen when the model was fitted",
        ),
        (
            "C(`shift (h)`, contr.sum)",
            r"'shift \(h\)' holds 'nightly', not seen when the model was",
        ),
        ("C(Days + 1)", r"fixed_effects=.*not seen when the model was fitted"),
    ],
)
def test_unseen_levels_of_any_factor_are_refused(table, factor, says):
    X, y = without_response(table).rename(columns={"shift": "shift (h)"}), table["Reaction"]
    model = MixedEffectsRegressor(["Subject"], fixed_effects=f"~ {factor}").fit(X, y)
    with pytest.raises(ValueError, match=says):
        model.predict(X.assign(**{"shift (h)": "nightly", "Days": 99}))


def test_a_response_is_a_column(table):
    model = MixedEffectsRegressor.from_formula("log(Reaction) ~ Days + (1 | Subject)")
    with pytest.raises(ValueError, match=r"'log.Reaction.' must be a column"):
        model.fit(table, table["Reaction"])


@pytest.mark.parametrize("name", ["yield (kg)", "my-y", "a ~ b", "log(y)"])
def test_a_response_in_backquotes_has_any_name(table, name):
    X, y = without_response(table), table["Reaction"]
    model = MixedEffectsRegressor(["Subject"], fixed_effects=f"`{name}` ~ Days").fit(X, y)
    expected = model.predict(X)
    whole = X.assign(**{name: y})
    np.testing.assert_array_equal(model.predict(whole), expected)
    model = MixedEffectsRegressor.from_formula(f"`{name}` ~ Days + (1 | Subject)").fit(whole)
    np.testing.assert_allclose(model.predict(X), expected, rtol=1e-12)
    assert f"`{name}` ~ 1 + Days" in model.summary()


def test_update_takes_the_response_from_the_table_too(table):
    model = MixedEffectsRegressor.from_formula("Reaction ~ Days + (1 | Subject)").fit(table)
    twin = clone(model).fit(table)
    new = table[:4].assign(Subject=999)
    twin.update(without_response(new), new["Reaction"])
    np.testing.assert_array_equal(model.update(new).predict(new), twin.predict(new))


@pytest.mark.parametrize(
    ("formula", "says"),
    [
        ("~ . - Days", r"'\.' is not read: name the columns"),
        ("~ (Days + shift", "a bracket is not closed"),
        ("~ I(Days^2)", r"exclusive or: write x \*\* 2"),
        ("~ factor(shift)", r"a factor is C\(column\)"),
        ("~ as.factor(shift)", r"a factor is C\(column\)"),
        ("~ s(Days)", r"a smooth function of a column is bs\("),
        ("~ offset(log(Days))", "computed beforehand, in the parameter offset"),
        ("log(Reaction) ~ Days", r"add it to the table, .* TransformedTargetRegressor.* cbind"),
    ],
)
def test_what_another_grammar_writes_is_told_in_ours(table, formula, says):
    model = MixedEffectsRegressor(["Subject"], fixed_effects=formula)
    with pytest.raises(ValueError, match=f"fixed_effects=.*{says}"):
        model.fit(without_response(table), table["Reaction"])


def test_a_spline_beyond_the_rows_of_the_fit_says_how_to_go_on(table):
    X, y = without_response(table), table["Reaction"]
    early = X["Days"] < 6
    model = MixedEffectsRegressor(["Subject"], fixed_effects="~ bs(Days, df=4)")
    with pytest.raises(ValueError, match='extrapolation="extend"'):
        model.fit(X[early], y[early]).predict(X)
    model.set_params(fixed_effects='~ bs(Days, df=4, extrapolation="extend")')
    assert np.isfinite(model.fit(X[early], y[early]).predict(X)).all()


@pytest.mark.parametrize("whole", ["Reaction ~ Days + (1 | Subject)", "~ Days"])
def test_a_formula_is_no_list_of_terms(table, whole):
    for terms in (whole, [whole]):
        with pytest.raises(TypeError, match=r"whole formula: make the estimator by from_formula"):
            MixedEffectsRegressor(terms).fit(without_response(table), table["Reaction"])


@pytest.mark.parametrize("formula", ["y ~ x + offset(`log t`) + (1 | g)", "y ~ offset(w) + (1|g)"])
def test_an_offset_in_a_formula_is_the_parameter(formula):
    rng = np.random.default_rng(0)
    rows = pd.DataFrame(rng.normal(size=(40, 4)), columns=["y", "x", "w", "log t"])
    rows["g"] = np.arange(40) % 4
    offset = "log t" if "log" in formula else "w"
    model = MixedEffectsRegressor.from_formula(formula).fit(rows)
    fixed = ["x"] if "x +" in formula else []
    other = MixedEffectsRegressor(["g"], fixed_effects=fixed, offset=offset).fit(rows, rows["y"])
    np.testing.assert_allclose(model.predict(rows), other.predict(rows))
    with pytest.raises(TypeError, match="offset"):
        MixedEffectsRegressor.from_formula(formula, offset="x")


def test_two_columns_of_counts_on_the_left():
    rows = load_cbpp(as_frame=True).frame
    rows = rows.assign(healthy=rows["size"] - rows["incidence"])
    options = {"family": "binomial", "e_step": "laplace", "random_state": 0}
    formula = "cbind(incidence, healthy) ~ C(period) + (1 | herd)"
    model = MixedEffectsRegressor.from_formula(formula, **options).fit(rows)
    counts = rows[["incidence", "healthy"]]
    other = MixedEffectsRegressor(["herd"], fixed_effects="~ C(period)", **options)
    other.fit(rows[["herd", "period"]], counts)
    np.testing.assert_allclose(model.coef_, other.coef_)
    np.testing.assert_array_equal(model.predict(rows), other.predict(rows))
    assert "cbind(incidence, healthy) ~" in model.summary()
    with pytest.raises(ValueError, match=r"response 'cbind\(incidence, healthy\)' is not a column"):
        clone(model).fit(rows.drop(columns="healthy"))


@pytest.mark.parametrize("fixed_effects", [None, ["Days"], "~ Days"])
def test_a_transformer_before_the_model_must_keep_names(table, fixed_effects):
    X, y = without_response(table)[["Subject", "Days"]], table["Reaction"]
    scaled = make_column_transformer((StandardScaler(), ["Days"]), remainder="passthrough")
    model = make_pipeline(scaled, MixedEffectsRegressor(["Subject"], fixed_effects=fixed_effects))
    with pytest.raises(ValueError, match=r'set_output\(transform="pandas"\)'):
        model.fit(X, y)
    scaled.set_output(transform="pandas")
    with pytest.raises(ValueError, match="verbose_feature_names_out=False"):
        model.fit(X, y)
    scaled.set_params(verbose_feature_names_out=False)
    plain = MixedEffectsRegressor(["Subject"]).fit(X, y)
    np.testing.assert_allclose(model.fit(X, y).predict(X), plain.predict(X))
