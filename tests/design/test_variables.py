"""Columns of a formula: their kind and their levels are the fit's, in R's rules."""

import pickle
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest

from sklmm import MixedEffectsRegressor
from sklmm.design.variables import uses_of

N = 60
RNG = np.random.default_rng(2)
TABLE = pd.DataFrame(
    {
        "f": RNG.choice(list("abc"), N),
        "k": RNG.integers(3, size=N),
        "b": RNG.random(N) > 0.5,
        "x": RNG.normal(size=N),
        "small": RNG.integers(90, 120, size=N).astype("int8"),
        "also small": RNG.integers(90, 120, size=N).astype("int16"),
    }
)
Y = TABLE["k"] * 2.0 + TABLE["f"].map({"a": 0.0, "b": 5.0, "c": -5.0}) + RNG.normal(size=N)


def fitted(formula, table=TABLE, y=Y):
    """Least squares: there are no random effects."""
    return MixedEffectsRegressor(fixed_effects=f"~ {formula}").fit(table, y)


def names(model):
    return list(model.fixed_effects_.index)


LEVELS = pd.CategoricalDtype([*"zcba"])
ORDERED = pd.CategoricalDtype([*"abcz"], ordered=True)


@pytest.mark.parametrize("at_predict", ["object", LEVELS, ORDERED, "string", "str"], ids=str)
@pytest.mark.parametrize("at_fit", ["object", LEVELS, ORDERED, "string", "str"], ids=str)
def test_a_factor_has_the_levels_of_the_rows_of_the_fit(at_fit, at_predict):
    table = TABLE.astype({"f": at_fit})
    model = fitted("f + x", table)
    first, *others = [c for c in "cba" if at_fit is LEVELS] or [*"abc"]
    assert names(model) == ["Intercept", *(f"f[T.{c}]" for c in others), "x"]
    expected = model.predict(table)
    np.testing.assert_array_equal(model.predict(TABLE.astype({"f": at_predict})), expected)
    new = TABLE.head(2).assign(f=pd.Series([first, "z"]).astype(at_predict))
    with pytest.raises(ValueError, match="column 'f' holds 'z', not seen when the model was fit"):
        model.predict(new)


@pytest.mark.parametrize("formula", ["f", "C(f, contr.sum)", "f:x"])
def test_a_level_that_a_fold_misses_is_refused(formula):
    table = TABLE.astype({"f": LEVELS})
    model = fitted(formula, table[table["f"] != "b"], Y[table["f"] != "b"])
    with pytest.raises(ValueError, match=r"column 'f' holds 'b', not seen .* fit with rows that"):
        model.predict(table)


@pytest.mark.parametrize(
    ("formula", "column", "same", "other"),
    [
        ("C(k)", "k", [float, object, "Int64", "category"], [str, bool, "datetime64[ns]"]),
        ("C(k) + k:x", "k", [float, object, "Int64"], [str]),
        ("C(k > 1)", "k", [float, object, "Int64"], [str]),
        ("b", "b", [int, float, str, object, "boolean"], ["datetime64[ns]"]),
        ("I(b * x)", "b", [int, float, str, object], ["datetime64[ns]"]),
        ("x:f", "f", ["category", "string"], []),
        ("x", "x", [object, "Float64"], [str]),
    ],
)
def test_values_of_another_type_are_the_same_or_an_error(formula, column, same, other):
    model = fitted(formula)
    expected = model.predict(TABLE)
    for dtype in same:
        np.testing.assert_array_equal(model.predict(TABLE.astype({column: dtype})), expected)
    for dtype in other:
        source = TABLE.astype({column: int}) if dtype == "datetime64[ns]" else TABLE
        with pytest.raises(TypeError, match=f"column '{column}' h(as|olds) .* of kind"):
            model.predict(source.astype({column: dtype}))


EMPTY = (TABLE["f"] == "b") & (TABLE["k"] == 2)


@pytest.mark.parametrize(
    "formula",
    ["f * C(k)", "C(k) + f:C(k)", "f:C(k)", "0 + f:C(k)", "C(f, contr.sum) * C(k, contr.sum)"],
)
@pytest.mark.parametrize("empty", [EMPTY, (TABLE["f"] == "a") & (TABLE["k"] == 0)])
def test_a_combination_that_no_row_had_is_refused(formula, empty):
    table, y = TABLE[~empty], Y[~empty]
    with pytest.warns(UserWarning, match="left out"):
        model = fitted(formula, table, y)
    # Of all combinations the model has a mean each.
    means = y.groupby([table["f"], table["k"]]).transform("mean")
    np.testing.assert_allclose(model.predict(table), means, rtol=1e-9)
    f, k = TABLE.loc[empty, ["f", "k"]].iloc[0]
    row = int(np.argmax(empty))
    with pytest.raises(ValueError, match=f"row {row} has .*(f='{f}'|k={k}), .* that no row of"):
        model.predict(TABLE)


def test_a_copy_of_a_factor_is_left_out_without_a_word_at_predict():
    table = TABLE.assign(g=TABLE["f"].map({"a": "p", "b": "q", "c": "q"}))
    with pytest.warns(UserWarning, match="left out"):
        model = fitted("f + g", table)
    np.testing.assert_allclose(model.predict(table), fitted("f").predict(TABLE))
    with pytest.raises(ValueError, match=r"row 0 has f=.*, g='[pq]', a combination"):
        model.predict(table.assign(g=np.where(table["g"] == "p", "q", "p")))


def test_products_of_narrow_integers_do_not_wrap():
    wide = TABLE.astype({"small": float, "also small": float})
    formula = "small:`also small` + I(small ** 2) + {small * `also small` * small}"
    model = fitted(formula)
    np.testing.assert_array_equal(model.coef_, fitted(formula, wide).coef_)
    assert model.predict(TABLE).tolist() == model.predict(wide).tolist()
    product = TABLE["small"].astype(int) * TABLE["also small"].astype(int)
    expected = np.polyfit(product, Y, 1)
    np.testing.assert_allclose(fitted("small:`also small`").coef_, expected[:1], rtol=1e-6)


def test_an_integer_is_a_number_and_a_factor_by_its_own_names():
    table = TABLE.astype({"k": "int8"})
    assert names(fitted("k", table)) == ["Intercept", "k"]
    assert names(fitted("C(k)", table))[1:] == ["C(k)[T.1]", "C(k)[T.2]"]
    assert names(fitted("x:k + C(k)", table))[1:] == ["C(k)[T.1]", "C(k)[T.2]", "x:k"]
    large = table.assign(k=TABLE["k"] + 2**60)
    assert names(fitted("C(k)", large))[1:] == [f"C(k)[T.{2**60 + i}]" for i in (1, 2)]
    assert names(fitted("C(k) + x:k", large))[1] == f"C(k)[T.{2**60 + 1}]"


def test_a_boolean_is_a_factor_of_two_levels():
    means = Y.groupby(TABLE["b"]).mean()
    model = fitted("0 + b")
    assert names(model) == ["b[False]", "b[True]"]
    np.testing.assert_allclose(model.coef_, means, rtol=1e-9)
    assert names(fitted("b")) == ["Intercept", "b[T.True]"]
    assert names(fitted("x:b")) == ["Intercept", "x:b[False]", "x:b[True]"]
    assert names(fitted("I(b * x)")) == ["Intercept", "I(b * x)"]


@pytest.mark.parametrize(
    "numbers",
    [
        lambda x: x.astype(object),
        lambda x: pd.Series([Decimal(f"{v:.6f}") for v in x], dtype=object),
        lambda x: x.astype("Float64"),
        lambda x: pd.arrays.SparseArray(x),
    ],
    ids=["object", "decimal", "nullable", "sparse"],
)
def test_numbers_are_numbers_in_any_type_of_column(numbers):
    table = TABLE.assign(x=numbers(TABLE["x"].round(6)))
    listed = MixedEffectsRegressor(fixed_effects=["x"]).fit(table, Y)
    model = fitted("x", table)
    assert names(model) == names(listed) == ["Intercept", "x"]
    np.testing.assert_allclose(model.coef_, listed.coef_)
    np.testing.assert_allclose(model.coef_, np.polyfit(TABLE["x"], Y, 1)[:1], rtol=1e-4)
    holed = table.assign(x=table["x"].astype(object).where(np.arange(N) != 5, None))
    for fixed_effects in ("~ x", ["x"]):
        with pytest.raises(ValueError, match=r"NaN.* fixed-effects column\(s\) 'x'"):
            MixedEffectsRegressor(fixed_effects=fixed_effects).fit(holed, Y)


@pytest.mark.parametrize(
    ("column", "says"),
    [
        (TABLE["k"].astype(str), r"strings of digits, like '\d': convert .*astype\(float\)"),
        (pd.date_range("2020", periods=N), r"Timestamp\('2020-01-01.*dt.days .*C\(`x`\)"),
        (pd.Series([1, "a"] * (N // 2), dtype=object), "type int and str"),
    ],
    ids=["digits", "dates", "mixed"],
)
def test_columns_that_are_neither_are_refused_by_name(column, says):
    table = TABLE.assign(x=np.asarray(column))
    with pytest.raises(TypeError, match=f"fixed-effects column 'x' holds .*{says}"):
        fitted("x", table)
    if "type" not in says:
        few = table["x"].where(TABLE["k"] > 0, table["x"][0])
        assert len(fitted("C(x)", table.assign(x=few)).coef_) == few.nunique() - 1


def test_variables_are_those_of_the_expressions():
    from formulaic import Formula

    parsed = Formula("x + C(k, contr.sum) + np.log(`also small`) + bs(b, df=small) + C(f):x")
    uses = uses_of([f for term in parsed for f in term.factors], [*TABLE, "df", "log"])
    assert uses == {
        "x": {"bare"},
        "k": {"C"},
        "also small": {"call"},
        "b": {"call"},
        "small": {"call"},
        "f": {"C"},
    }


def test_a_function_is_no_column_of_its_name():
    formula = "np.log1p(k) + log(k + 1) + C(f, contr.sum)"
    others = {"np": "a", "log": np.nan, "C": 1.0, "contr": pd.NaT}
    with pytest.warns(UserWarning, match="linear combinations"):
        model, plain = fitted(formula, TABLE.assign(**others)), fitted(formula)
    np.testing.assert_array_equal(model.coef_, plain.coef_)
    assert model._fitted.spec.predictors == {"k", "f"}
    with pytest.raises(ValueError, match="has the name of a function: rename it"):
        fitted("log + log(k + 1)", TABLE.assign(log=1.0))


def test_what_only_functions_take_is_left_as_it_is():
    table = TABLE.assign(
        t=pd.date_range("2020", periods=N, freq="11D"), f=TABLE["f"].astype(LEVELS)
    )
    months = fitted("C(t.dt.quarter) + np.log(t.dt.month)", table)
    assert names(months)[1:4] == [f"C(t.dt.quarter)[T.{k}]" for k in (2, 3, 4)]
    # By the categories' order, in a function beside or not.
    model = fitted("f + C(f == 'a'):x", table)
    assert names(model)[1:3] == ["f[T.b]", "f[T.a]"]
    with pytest.raises(ValueError, match=r"column 'f' holds 'z'.*not seen"):
        model.predict(table.assign(f=pd.Series(["z"] * N).astype(LEVELS)))


def test_a_loaded_formula_is_the_saved_one():
    table = TABLE.assign(f=TABLE["f"].astype(ORDERED), cut=pd.cut(TABLE["x"], [-9, -1, 1, 9]))
    with pytest.warns(UserWarning, match="left out"):
        model = fitted("f * C(k) + b + cut:x", table[~EMPTY], Y[~EMPTY])
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict(table[~EMPTY]), model.predict(table[~EMPTY]))
    for new in (table[EMPTY], table.assign(f="z"), table.astype({"b": "datetime64[ns]"})):
        with pytest.raises((TypeError, ValueError)) as expected:
            model.predict(new)
        with pytest.raises((TypeError, ValueError)) as found:
            again.predict(new)
        assert str(found.value) == str(expected.value)


@pytest.mark.parametrize(
    ("formula", "label", "what"),
    [
        ("f", "z", "fixed-effects column 'f' holds 'z'"),
        ("x:k + C(k)", 7, "fixed-effects column 'k' holds 7.0"),
        ("C(f, contr.sum):x + np.where(f == 'a', x, 1)", "z", "fixed-effects column 'f' holds 'z'"),
        ("C(k * 1)", 7, "a factor holds .*7"),
    ],
)
def test_an_unseen_level_is_told_in_one_way(formula, label, what):
    model = fitted(formula)
    says = f"{what}.*, not seen when the model was fitted: there is no coefficient for it"
    with pytest.raises(ValueError, match=says):
        model.predict(TABLE.assign(**{"f" if label == "z" else "k": label}))
