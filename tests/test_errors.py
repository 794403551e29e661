"""Bad input: an error that names the column and the value, and an estimator left as it was."""

import numpy as np
import pandas as pd
import pytest

from sklmm import HMC, Gaussian, MixedEffectsRegressor, RandomEffect
from sklmm.steps import Adam
from tests.unchanged import assert_unchanged, snapshot

N = 12


def table(**changes):
    columns = {"g": list("abc") * 4, "x": np.arange(N, dtype=float), "w": np.tile([0.5, 1.5], 6)}
    return pd.DataFrame({**columns, **changes})


def with_value(column, row, value):
    X = table()
    X[column] = X[column].astype(object)
    X.at[row, column] = value
    return X if column == "g" else X.infer_objects()


Y = np.arange(N) % 5 + np.linspace(0, 1, N)

# name -> parameters, X, y, sample_weight, exception, message
BAD = {
    "unknown grouping column": (
        {"random_effects": ["h"]},
        table(),
        Y,
        None,
        ValueError,
        r"random_effects: column 'h' .* 'g', 'x', 'w'",
    ),
    "unknown slope column": (
        {"random_effects": ["(1 + z | g)"]},
        table(),
        Y,
        None,
        ValueError,
        r"column 'z' is not in X",
    ),
    "unknown fixed column": (
        {"fixed_effects": ["q"]},
        table(),
        Y,
        None,
        ValueError,
        r"fixed_effects: column 'q'",
    ),
    "fixed column named twice": (
        {"fixed_effects": ["x", "x"]},
        table(),
        Y,
        None,
        ValueError,
        r"column 'x' stands twice",
    ),
    "position out of range": (
        {"random_effects": [7]},
        table(),
        Y,
        None,
        ValueError,
        r"position 7 is out of range .* 3 columns",
    ),
    "missing group": (
        {},
        with_value("g", 4, None),
        Y,
        None,
        ValueError,
        r"'g' has 1 missing value\(s\) \(NaN or None\), the first in row 4.*missing='drop'",
    ),
    "nan group": (
        {},
        with_value("g", 4, np.nan),
        Y,
        None,
        ValueError,
        r"'g' has 1 missing value\(s\) \(NaN or None\), the first in row 4.*missing='drop'",
    ),
    "nan in a fixed column": ({}, with_value("x", 3, np.nan), Y, None, ValueError, r"NaN .* 'x'"),
    "inf in a fixed column": (
        {},
        with_value("w", 3, np.inf),
        Y,
        None,
        ValueError,
        r"infinity .* 'w'",
    ),
    "nan in a slope column": (
        {"random_effects": ["(0 + x | g)"], "fixed_effects": ["w"]},
        with_value("x", 3, np.nan),
        Y,
        None,
        ValueError,
        r"NaN .* slope .* 'x'",
    ),
    "string in a fixed column": (
        {},
        with_value("x", 2, "low"),
        Y,
        None,
        ValueError,
        r"'x' holds 'low', which is not numeric",
    ),
    "slope column of digits": (
        {"random_effects": ["(1 + g2 | g)"], "fixed_effects": ["x"]},
        table(g2=list("12") * 6),
        Y,
        None,
        ValueError,
        r"slope column 'g2' holds '1'",
    ),
    "term without a bar's side": (
        {"random_effects": ["(1 | )"]},
        table(),
        Y,
        None,
        ValueError,
        r"cannot read the term '\(1 \| \)'",
    ),
    "term with open parenthesis": (
        {"random_effects": ["(1 | g"]},
        table(),
        Y,
        None,
        ValueError,
        r"cannot read the term '\(1 \| g'",
    ),
    "term with a star": (
        {"random_effects": ["(1 + x * w | g)"]},
        table(),
        Y,
        None,
        ValueError,
        r"'x \* w' is not a column name",
    ),
    "term without coefficients": (
        {"random_effects": ["(0 | g)"]},
        table(),
        Y,
        None,
        ValueError,
        r"'\(0 \| g\)': no coefficient varies",
    ),
    "coefficient in two terms": (
        {"random_effects": ["g", "(1 + x | g)"]},
        table(),
        Y,
        None,
        ValueError,
        r"intercept of 'g' stands in two terms",
    ),
    "terms not a list": (
        {"random_effects": "g"},
        table(),
        Y,
        None,
        TypeError,
        r"random_effects='g' must be a list of terms",
    ),
    "term of another type": (
        {"random_effects": [1.5]},
        table(),
        Y,
        None,
        TypeError,
        r"1.5 is of type float",
    ),
    "one level": ({}, table(g=["a"] * N), Y, None, ValueError, r"'g' has a single level \('a'\)"),
    "one level left by weights": (
        {},
        table(),
        Y,
        (table()["g"] == "b").astype(float),
        ValueError,
        r"'g' has a single level \('b'\)",
    ),
    "unhashable label": (
        {},
        with_value("g", 1, [3]),
        Y,
        None,
        TypeError,
        r"'g' .*unhashable type: 'list'",
    ),
    "negative weight": (
        {},
        table(),
        Y,
        np.r_[np.ones(N - 1), -2.0],
        ValueError,
        r"-2.0 in row 11 is not a finite, nonnegative",
    ),
    "nan weight": ({}, table(), Y, np.r_[np.nan, np.ones(N - 1)], ValueError, r"nan in row 0"),
    "weights all zero": ({}, table(), Y, np.zeros(N), ValueError, r"every weight is zero"),
    "too few weights": (
        {},
        table(),
        Y,
        np.ones(3),
        ValueError,
        r"sample_weight.shape == \(3,\), expected \(12,\)",
    ),
    "empty frame": ({}, table().iloc[:0], Y[:0], None, ValueError, r"0 sample\(s\)"),
    "frame without columns": (
        {"random_effects": None},
        table()[[]],
        Y,
        None,
        ValueError,
        r"0 feature\(s\)",
    ),
    "y too short": (
        {},
        table(),
        Y[:-1],
        None,
        ValueError,
        r"inconsistent numbers of samples: \[12, 11\]",
    ),
    "y with nan": ({}, table(), np.r_[Y[:-1], np.nan], None, ValueError, r"y contains NaN"),
    "y of two columns": (
        {"family": "student_t"},
        table(),
        np.column_stack([Y, Y]),
        None,
        ValueError,
        r"1d array",
    ),
    "y of three columns": ({}, table(), np.column_stack([Y, Y, Y]), None, ValueError, r"3\)"),
    "bounds in the wrong order": (
        {},
        table(),
        np.column_stack([Y + 1, Y]),
        None,
        ValueError,
        r"two bounds, lower <= upper",
    ),
    "y of strings": (
        {},
        table(),
        np.array(list("abcdefghijkl")),
        None,
        ValueError,
        r"could not convert string to float",
    ),
    "no y": ({}, table(), None, None, ValueError, r"requires y"),
    "unknown e_step": (
        {"e_step": "gibbs"},
        table(),
        Y,
        None,
        ValueError,
        r"e_step='gibbs' is not available: use 'auto', 'exact', 'cg', 'laplace', 'quadrature', "
        "'hmc', 'nuts'",
    ),
    "unknown m_step": (
        {"m_step": "sgd"},
        table(),
        Y,
        None,
        ValueError,
        r"m_step='sgd' is not available",
    ),
    "adam without draws": (
        {"m_step": Adam(), "e_step": "exact"},
        table(),
        Y,
        None,
        ValueError,
        r"needs e_step='hmc'",
    ),
    "unknown method": (
        {"method": "map"},
        table(),
        Y,
        None,
        ValueError,
        r"'method' parameter .* Got 'map'",
    ),
    "unknown family": (
        {"family": "cauchy"},
        table(),
        Y,
        None,
        ValueError,
        r"family='cauchy' is not available",
    ),
    "pinned sigma not positive": (
        {"family": Gaussian(sigma=-1.0)},
        table(),
        Y,
        None,
        ValueError,
        r"sigma=-1.0 must be a positive",
    ),
    "unknown handling": (
        {"handle_unknown": "ignore"},
        table(),
        Y,
        None,
        ValueError,
        r"'handle_unknown' .* Got 'ignore'",
    ),
    "no iterations": ({"max_iter": 0}, table(), Y, None, ValueError, r"'max_iter' .* Got 0"),
    "negative tol": ({"tol": -1.0}, table(), Y, None, ValueError, r"'tol' .* Got -1.0"),
    "device that is none": (
        {"device": "TPU-9", "e_step": "hmc"},
        table(),
        Y,
        None,
        ValueError,
        r"device='TPU-9'",
    ),
    "device not there": (
        {"device": "GPU:7", "e_step": HMC(n_warmup=1)},
        table(),
        Y,
        None,
        ValueError,
        r"device='GPU:7' is not available",
    ),
    "no chains": (
        {"e_step": HMC(n_chains=0)},
        table(),
        Y,
        None,
        ValueError,
        r"'n_chains' parameter of HMC .* Got 0",
    ),
}


@pytest.fixture(params=BAD.values(), ids=BAD)
def bad(request):
    return request.param


def test_bad_input_is_an_error_that_names_it_and_leaves_a_new_estimator_new(bad):
    parameters, X, y, weight, error, message = bad
    model = MixedEffectsRegressor(**{"random_effects": ["g"], **parameters})
    before = snapshot(model)
    with pytest.raises(error, match=message):
        model.fit(X, y, sample_weight=weight)
    assert_unchanged(model, before)


def test_bad_input_leaves_a_fitted_estimator_fitted(bad):
    parameters, X, y, weight, error, message = bad
    model = MixedEffectsRegressor(["g"]).fit(table(), Y)
    expected = model.predict(table())
    model.set_params(**{"random_effects": ["g"], **parameters})
    before = snapshot(model)
    with pytest.raises(error, match=message):
        model.fit(X, y, sample_weight=weight)
    assert_unchanged(model, before)
    np.testing.assert_array_equal(model.predict(table()), expected)


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (table().drop(columns="w"), r"Feature names seen at fit time, yet now missing:\n- w"),
        (table()[["x", "g", "w"]], r"[Ff]eature names must be in the same order"),
        (with_value("x", 1, np.nan), r"NaN .* 'x'"),
        (with_value("x", 1, "low"), r"'x' holds 'low'"),
    ],
    ids=["missing column", "other order", "nan", "string"],
)
def test_bad_input_at_predict_names_the_column(X, message):
    model = MixedEffectsRegressor(["g"]).fit(table(), Y)
    with pytest.raises(ValueError, match=message):
        model.predict(X)


@pytest.mark.parametrize("sd", [0.0, -1.0, "big"])
def test_pinned_sd_must_be_positive(sd):
    with pytest.raises(ValueError, match=rf"'g': sd={sd!r} must be a positive number"):
        RandomEffect("g", sd=sd)


@pytest.mark.parametrize("e_step", ["exact", "cg"])
def test_interruption_leaves_the_estimator_as_it_was(e_step, monkeypatch):
    model = MixedEffectsRegressor(["g"], e_step=e_step, verbose=1)
    before = snapshot(model)

    def interrupt(self, iteration, record, left):
        raise KeyboardInterrupt

    monkeypatch.setattr("sklmm._estimators.progress.Watch._print", interrupt)
    with pytest.raises(KeyboardInterrupt):
        model.fit(table(), Y)
    assert_unchanged(model, before)
