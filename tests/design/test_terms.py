"""The term grammar of lme4, and RandomEffect."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sklmm.covariances import Diagonal, Pinned, Unstructured
from sklmm.design.terms import (
    RandomEffect,
    check_repeated,
    parse_term,
    resolve_terms,
)

# string -> the terms it stands for, written out
GRAMMAR = {
    "(1 | g)": ["(1 | g)"],
    "1|g": ["(1 | g)"],
    "(x | g)": ["(1 + x | g)"],
    "(1 + x | g)": ["(1 + x | g)"],
    "(x + 1 | g)": ["(1 + x | g)"],
    "(+ 1 + x | g)": ["(1 + x | g)"],
    "(0 + x | g)": ["(0 + x | g)"],
    "(-1 + x | g)": ["(0 + x | g)"],
    "(x - 1 | g)": ["(0 + x | g)"],
    "(1 + x + z | g)": ["(1 + x + z | g)"],
    "(1 + x || g)": ["(1 + x || g)"],
    "(1 | a:b)": ["(1 | a:b)"],
    "(1 | a:b:c)": ["(1 | a:b:c)"],
    "(1 | a/b)": ["(1 | a)", "(1 | a:b)"],
    "(1 | a/b/c)": ["(1 | a)", "(1 | a:b)", "(1 | a:b:c)"],
    "(1 | a:b/c)": ["(1 | a:b)", "(1 | a:b:c)"],
    "(0 + x || a/b)": ["(0 + x || a)", "(0 + x || a:b)"],
    "(1 + `x cm` | `my group`)": ["(1 + x cm | my group)"],
    "  ( 1+x|g )  ": ["(1 + x | g)"],
}

BROKEN = [
    "(1 | )",
    "( | g)",
    "(1 | g",
    "1 | g)",
    "(1 | g | h)",
    "(1 ||| g)",
    "(1 + | g)",
    "(x + x | g)",
    "(0 | g)",
    "(x * z | g)",
    "(1 | a +)",
    "(1 | a + b)",
    "(1 | a::b)",
    "(1 | a/)",
    "((1 | g))",
    "|",
]


@pytest.mark.parametrize(("text", "expected"), GRAMMAR.items(), ids=list(GRAMMAR))
def test_a_term_stands_for(text, expected):
    assert [str(t) for t in parse_term(text)] == expected


@pytest.mark.parametrize("text", BROKEN)
def test_a_broken_term_is_quoted_in_the_error(text):
    with pytest.raises(ValueError, match="cannot read the term") as error:
        parse_term(text)
    assert repr(text) in str(error.value)


names = st.from_regex(r"[A-Za-z][A-Za-z0-9_.]{0,8}", fullmatch=True)


@settings(deadline=None, max_examples=50, derandomize=True, database=None)
@given(
    st.lists(names, min_size=1, max_size=3, unique=True),
    st.lists(names, max_size=3, unique=True),
    st.booleans(),
    st.booleans(),
)
def test_a_term_reads_back_what_it_prints(columns, slopes, intercept, correlated):
    intercept = intercept or not slopes
    group = columns[0] if len(columns) == 1 else tuple(columns)
    term = RandomEffect(group, tuple(slopes), intercept, correlated)
    assert parse_term(str(term)) == [term]


def test_terms_come_from_names_positions_strings_and_objects():
    terms = resolve_terms(["a", 2, "(1 | b/c)", RandomEffect("d", slopes="x", intercept=False)])
    assert [str(t) for t in terms] == ["(1 | a)", "(1 | 2)", "(1 | b)", "(1 | b:c)", "(0 + x | d)"]
    assert resolve_terms(None) == []
    assert resolve_terms([]) == []


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        (["g", "g"], "intercept of 'g' stands in two terms"),
        (["(0 + x | g)", "(1 + x | g)"], "slope 'x' of 'g' stands in two terms"),
        (["(1 | a:b)", "(1 | b:a)"], "intercept of 'b:a' stands in two terms"),
        (["(1 | a/b)", "a"], "intercept of 'a' stands in two terms"),
    ],
)
def test_a_coefficient_stands_once(terms, message):
    with pytest.raises(ValueError, match=message):
        check_repeated(resolve_terms(terms))


def test_an_intercept_is_not_the_slope_of_column_1():
    check_repeated([RandomEffect(0, slopes=[1])])


@pytest.mark.parametrize("entry", [True, 1.0, None, ("a", "b"), b"g"])
def test_entries_of_another_type_are_named(entry):
    with pytest.raises(TypeError, match=f"is of type {type(entry).__name__}"):
        resolve_terms([entry])


def test_a_term_has_one_covariance():
    places = range(3)
    assert RandomEffect("g", ("x", "z")).over(places) == Unstructured(3)
    assert RandomEffect("g", ("x", "z"), correlated=False).over(places) == Diagonal(3)
    assert RandomEffect("g", ("x",), sd=2).over(range(2)) == Pinned((2.0, 2.0))
    assert RandomEffect("g", ("x", "z"), covariance="diag").over(places) == Diagonal(3)


@pytest.mark.parametrize(
    ("parameters", "error", "match"),
    [
        ({"covariance": "ar7"}, ValueError, "'ar7' is not known.*'diag'"),
        ({"covariance": 3}, TypeError, "int.*Unstructured"),
        ({"covariance": Diagonal}, TypeError, "Unstructured"),
        ({"covariance": "us", "correlated": False}, ValueError, "beside correlated=False"),
        ({"covariance": "us", "sd": 1.0}, ValueError, "beside sd=1.0"),
    ],
)
def test_a_covariance_is_a_name_or_an_object(parameters, error, match):
    with pytest.raises(error, match=match):
        RandomEffect("g", ("x",), **parameters)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"group": ()}, "names no column"),
        ({"group": "g", "intercept": False}, "'g' has neither an intercept nor slopes"),
        ({"group": "g", "sd": -2}, "sd=-2 must be a positive number"),
    ],
)
def test_impossible_random_effects_are_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        RandomEffect(**arguments)
