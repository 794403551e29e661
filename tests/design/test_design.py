"""Columns to arrays, at fit and again at predict."""

import numpy as np
import pandas as pd
import pytest

from sklmm.design.design import DesignSpec
from sklmm.design.terms import resolve_terms


def learn(table, terms, fixed_effects=None, fit_intercept=True):
    return DesignSpec.learn(table, resolve_terms(terms), fixed_effects, fit_intercept)


@pytest.fixture
def table():
    return pd.DataFrame(
        {
            "g": ["b", "a", "c", "a", "b", "c"],
            "h": [20, 10, 10, 20, 20, 10],
            "x": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
        }
    )


def test_fixed_matrix_is_the_intercept_and_every_column_that_groups_nothing(table):
    spec, design = learn(table, ["g", "h"])
    assert spec.coef_names == ("Intercept", "x")
    np.testing.assert_array_equal(design.X, np.column_stack([np.ones(6), table["x"]]))
    spec, design = learn(table, ["g"], fit_intercept=False)
    assert spec.coef_names == ("h", "x")
    np.testing.assert_array_equal(design.X, table[["h", "x"]])


def test_a_slope_column_stays_a_fixed_effect(table):
    spec, _ = learn(table, ["(1 + x | g)"], None)
    assert spec.fixed_names == ("h", "x")


def test_levels_are_sorted_and_refs_point_at_them(table):
    spec, design = learn(table, ["g"])
    assert spec.terms[0].levels.tolist() == ["a", "b", "c"]
    assert design.blocks[0].refs.dtype == np.int32
    assert design.blocks[0].refs.tolist() == [1, 0, 2, 0, 1, 2]


def test_interaction_has_a_level_for_each_combination_there_is(table):
    spec, design = learn(table, ["(1 | g:h)"])
    levels = spec.terms[0].levels
    assert levels.tolist() == [("a", 10), ("a", 20), ("b", 20), ("c", 10)]
    assert [levels[r] for r in design.blocks[0].refs] == list(
        zip(table["g"], table["h"], strict=True)
    )


def test_nested_terms_are_the_factor_and_the_interaction(table):
    spec, design = learn(table, ["(1 | h/g)"])
    assert [t.name for t in spec.terms] == ["h", "h:g"]
    assert design.sizes == [2, 4]


@pytest.mark.parametrize(
    ("term", "expected"),
    [
        ("(1 + x | g)", [[1, 1], [1, 2], [1, 3]]),
        ("(0 + x | g)", [[1], [2], [3]]),
        ("(1 + x || g)", [[1, 1], [1, 2], [1, 3]]),
        ("g", None),
    ],
)
def test_slopes_of_a_block(table, term, expected):
    _, design = learn(table, [term])
    (block,) = design.blocks
    if expected is None:
        assert block.z is None
    else:
        np.testing.assert_array_equal(block.z[:3], expected)
    assert block.r == (1 if expected is None else len(expected[0]))
    assert design.sizes == [3 * block.r]


def test_a_new_table_is_read_by_the_levels_of_training(table):
    spec, design = learn(table, ["g", "(1 | g:h)"])
    again = spec.apply(table)
    np.testing.assert_array_equal(again.X, design.X)
    for block, known in zip(again.blocks, design.blocks, strict=True):
        np.testing.assert_array_equal(block.refs, known.refs)
    new = pd.DataFrame({"g": ["c", "z", None, "a"], "h": [10, 10, 20, 30], "x": [0.0] * 4})
    applied = spec.apply(new)
    assert applied.blocks[0].refs.tolist() == [2, -1, -1, 0]
    assert applied.blocks[1].refs.tolist() == [3, -1, -1, -1]


@pytest.mark.parametrize(
    "convert",
    [
        lambda s: s.astype(object),
        lambda s: s.astype("string"),
        lambda s: s.astype("category"),
        lambda s: s.astype(pd.CategoricalDtype(["c", "b", "a", "unused"], ordered=True)),
    ],
    ids=["object", "string", "category", "ordered"],
)
def test_levels_are_the_labels_of_any_string_type(table, convert):
    spec, _ = learn(table.assign(g=convert(table["g"])), ["g"])
    assert sorted(spec.terms[0].levels) == ["a", "b", "c"]
    assert (
        spec.apply(table).blocks[0].refs.tolist()
        == spec.apply(table.assign(g=convert(table["g"]))).blocks[0].refs.tolist()
    )


@pytest.mark.parametrize(
    ("labels", "kinds"),
    [
        (["b", 1, "c", 1, "b", "c"], "int and str"),
        ([True, 2, True, 3, 2, 2], "bool and int"),
        ([(1, 2), (3, 4)] * 3, "tuple"),
    ],
)
def test_labels_of_mixed_types_are_refused_by_name(table, labels, kinds):
    mixed = table.assign(g=pd.Series(labels, dtype=object))
    with pytest.raises(TypeError, match=f"'g' holds labels of type {kinds}, which have no order"):
        learn(mixed, ["g"])
    with pytest.raises(TypeError, match=f"'g' holds labels of type {kinds}"):
        learn(mixed, ["(1 | h:g)"])


def test_arrays_are_split_by_position(table):
    array = np.column_stack([table["h"], table["x"], table["x"] ** 2])
    spec, design = learn(array, [0])
    assert spec.coef_names == ("Intercept", "1", "2")
    np.testing.assert_array_equal(design.X[:, 1:], array[:, 1:])
    assert spec.terms[0].levels.tolist() == [10.0, 20.0]
    assert learn(array, [-3])[0].terms[0].levels.tolist() == [10.0, 20.0]


@pytest.mark.parametrize("dtype", ["int8", "bool", "Int64", "Float64", "float32", "boolean"])
def test_fixed_columns_of_any_numeric_type_are_floats(table, dtype):
    values = table["x"] > 3 if dtype in ("bool", "boolean") else table["x"]
    _, design = learn(table.assign(x=values.astype(dtype)), ["g"], ["x"])
    assert design.X.dtype == np.float64
    np.testing.assert_array_equal(design.X[:, 1], values.astype(float))


def test_strings_of_digits_are_no_numbers(table):
    for fixed, effects in ((["x"], ["g"]), ([], ["(0 + x | g)"])):
        with pytest.raises(ValueError, match=r"column 'x' holds '1.0'.* digits.*astype\(float\)"):
            learn(table.assign(x=table["x"].astype(str)), effects, fixed)


def test_nullable_missing_value_is_a_missing_value(table):
    missing = table.assign(x=table["x"].astype("Int64").mask(table["x"] == 3))
    with pytest.raises(ValueError, match=r"NaN .* 'x'"):
        learn(missing, ["g"], ["x"])


def test_two_terms_on_one_factor_are_told_apart_by_name(table):
    spec, _ = learn(table, ["(1 | g)", "(0 + x | g)"])
    assert [t.name for t in spec.terms] == ["(1 | g)", "(0 + x | g)"]
