"""The same model, however its table and its terms are written, gives the same numbers."""

import datetime

import numpy as np
import pandas as pd
import polars
import pytest

from sklmm import MixedEffectsRegressor, RandomEffect

N = 160


@pytest.fixture(scope="module")
def data():
    """Labels in an order that strings, integers and categories share; X and y."""
    rng = np.random.default_rng(3)
    g, h = rng.permutation(np.arange(N) % 12), rng.permutation(np.arange(N) % 7)
    X = pd.DataFrame(
        {
            "pupil": np.array([f"pupil {k:02d}" for k in g], dtype=object),
            "school": h + 3,
            "x": rng.normal(1.0, 2.0, N),
            "hours": rng.integers(0, 20, N).astype(float),
        }
    )
    y = 1.0 + rng.normal(size=12)[g] + rng.normal(size=7)[h] + rng.normal(0.5, 0.4, 12)[g] * X["x"]
    return X, (y - 0.1 * X["hours"] + rng.normal(0, 0.7, N)).to_numpy()


TERMS = ["(1 + x | pupil)", "school"]
BY_POSITION = [RandomEffect(0, slopes=[2]), 1]
SPELLINGS = {
    "names in a term": ["1 + x | pupil", "(1 | school)"],
    "slope alone": ["x | pupil", "school"],
    "objects": [RandomEffect("pupil", slopes=["x"]), RandomEffect("school")],
    "objects by position": [RandomEffect(0, slopes=(2,)), RandomEffect(1)],
    "positions from the end": [RandomEffect(-4, slopes=-2), -3],
    "backquotes": ["(1 + `x` | `pupil`)", "`school` | school".replace("`school` |", "1 |")],
}


def fit(X, y, terms=TERMS, **parameters):
    return MixedEffectsRegressor(terms, **parameters).fit(X, y)


def numbers(model, X):
    """All that a fit says, in one array."""
    mean, std = model.predict(X, return_std=True)
    parts = [model.fixed_effects_["estimate"], model.fixed_effects_["std_error"], [model.loglik_]]
    parts += [table.to_numpy().ravel() for table in model.cov_re_.values()]
    parts += [table.to_numpy().ravel() for table in model.random_effects_.values()]
    return np.concatenate([*parts, [model.sigma_], mean, std])


@pytest.fixture(scope="module")
def expected(data):
    X, y = data
    return numbers(fit(X, y), X)


@pytest.mark.parametrize("terms", SPELLINGS.values(), ids=SPELLINGS)
def test_spellings_of_terms(data, expected, terms):
    X, y = data
    np.testing.assert_array_equal(numbers(fit(X, y, terms), X), expected)


def as_polars(X):
    return polars.DataFrame({name: X[name].to_list() for name in X})


def arrow(X):
    pytest.importorskip("pyarrow")
    return X.convert_dtypes(dtype_backend="pyarrow")


#: name -> the table in other types, of the same values and in the same order.
TYPES = {
    "str": lambda X: X.astype({"pupil": "str"}),
    "string": lambda X: X.astype({"pupil": "string"}),
    "category": lambda X: X.astype({"pupil": "category", "school": "category"}),
    "ordered category": lambda X: X.assign(
        pupil=pd.Categorical(X["pupil"], sorted({*X["pupil"], "pupil 99"}), ordered=True)
    ),
    "nullable": lambda X: X.astype({"school": "Int64", "x": "Float64", "hours": "Int64"}),
    "integers": lambda X: X.astype({"hours": "int8"}),
    "arrow": arrow,
    "objects": lambda X: X.astype(object),
    "labels beyond 2^31": lambda X: X.assign(school=X["school"] + 2**40),
    "labels beyond 2^53": lambda X: X.assign(school=X["school"] + 2**60),
    "dates": lambda X: X.assign(school=pd.to_datetime(X["school"], unit="D")),
    "date objects": lambda X: X.assign(
        school=[datetime.date(2020, 1, int(day)) for day in X["school"]]
    ),
    "string index": lambda X: X.set_axis([f"row {i}" for i in range(N)]),
    "repeated index": lambda X: X.set_axis(np.arange(N) % 3),
    "names by number": lambda X: X.set_axis([7, 8, 9, 10], axis=1),
    "polars": as_polars,
    "polars categorical": lambda X: as_polars(X).with_columns(
        polars.col("pupil").cast(polars.Enum(sorted(set(X["pupil"]))))
    ),
}


@pytest.mark.parametrize("convert", TYPES.values(), ids=TYPES)
def test_types_of_columns(data, expected, convert):
    X, y = data
    table = convert(X)
    terms = TERMS if "pupil" in table.columns else BY_POSITION
    model = fit(table, y, terms)
    np.testing.assert_array_equal(numbers(model, table), expected)
    assert model.random_effects_[next(iter(model.cov_re_))].shape == (12, 2)


@pytest.mark.parametrize(
    "convert",
    [
        lambda X: X.to_numpy(object),
        lambda X: X.to_numpy(object).tolist(),
        lambda X: X.assign(pupil=X["pupil"].str[-2:].astype(float)).to_numpy(float),
        lambda X: np.asfortranarray(
            X.assign(pupil=X["pupil"].str[-2:].astype(float)).to_numpy(float)
        ),
    ],
    ids=["objects", "lists", "floats", "floats by column"],
)
def test_arrays_by_position(data, expected, convert):
    X, y = data
    array = convert(X)
    model = fit(array, y, BY_POSITION)
    np.testing.assert_array_equal(numbers(model, array), expected)
    assert model.n_features_in_ == 4
    assert not hasattr(model, "feature_names_in_")
    # One row at a time, and unseen or missing labels of rows that are otherwise the same.
    np.testing.assert_allclose(model.predict(array[:1]), model.predict(array)[:1], rtol=1e-12)


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA, pd.NaT])
def test_missing_group_of_an_object_array_is_the_populations(data, missing):
    X, y = data
    model = fit(X.to_numpy(object), y, BY_POSITION)
    new = X.to_numpy(object)[:2]
    new[0, 0], new[1, 0] = missing, "pupil of another school"
    without = model.predict(X.to_numpy(object)[:2], include_random=["1"])
    np.testing.assert_allclose(model.predict(new), without, rtol=1e-12)
    new[0, 2] = missing
    with pytest.raises(ValueError, match=r"NaN .* column\(s\) 2"):
        model.predict(new)


def test_an_array_stands_for_the_frame_it_came_from_and_the_other_way_round(data, expected):
    X, y = data
    named = fit(X, y)
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        from_array = named.predict(X.to_numpy(object))
    np.testing.assert_array_equal(from_array, named.predict(X))
    positional = fit(X.to_numpy(object), y, BY_POSITION)
    with pytest.warns(UserWarning, match="was fitted without feature names"):
        from_frame = positional.predict(X)
    np.testing.assert_array_equal(from_frame, named.predict(X))


def test_order_of_rows_and_labels_moves_rounding_alone(data, expected):
    X, y = data
    order = np.random.default_rng(0).permutation(N)
    other = fit(X.iloc[order], y[order])
    np.testing.assert_allclose(numbers(other, X), expected, rtol=1e-6, atol=1e-6)
    backwards = X.assign(
        pupil=pd.Categorical(X["pupil"], sorted(set(X["pupil"]), reverse=True), ordered=True)
    )
    model = fit(backwards, y)
    np.testing.assert_allclose(model.predict(backwards), fit(X, y).predict(X), rtol=1e-6)
    assert model.random_effects_["pupil"].index[0] == "pupil 11"


def test_float32_is_its_values(data):
    X, y = data
    single = X.astype({"x": "float32"})
    np.testing.assert_array_equal(
        numbers(fit(single, y), single),
        numbers(fit(single.astype({"x": float}), y), single.astype({"x": float})),
    )


@pytest.mark.parametrize("dtype", ["bool", "boolean", "Int64", "object", "uint8"])
def test_targets_of_any_numeric_type(data, dtype):
    X, y = data
    y = y > np.median(y)
    target = pd.Series(y).astype(dtype)
    np.testing.assert_array_equal(numbers(fit(X, target), X), numbers(fit(X, y.astype(float)), X))


def test_weights_of_any_numeric_type(data):
    X, y = data
    weight = np.arange(N) % 3 + 1
    expected = MixedEffectsRegressor(TERMS).fit(X, y, sample_weight=weight.astype(float))
    for given in (
        weight,
        list(weight),
        pd.Series(weight, index=X.index[::-1]),
        pd.array(weight, dtype="Int64"),
        polars.Series(weight),
    ):
        model = MixedEffectsRegressor(TERMS).fit(X, y, sample_weight=given)
        np.testing.assert_array_equal(numbers(model, X), numbers(expected, X))


BAD_COLUMNS = {
    "datetime": (lambda n: pd.date_range("2020", periods=n), "Timestamp"),
    "timedelta": (lambda n: pd.timedelta_range(0, periods=n, freq="h"), "Timedelta"),
    "category": (lambda n: pd.Categorical(["low", "high"] * (n // 2)), "low"),
    "complex": (lambda n: 1j * np.arange(n), "0j"),
    "date": (lambda n: [datetime.date(2020, 1, 1 + i % 28) for i in range(n)], "datetime.date"),
    "lists": (lambda n: pd.Series([[i] for i in range(n)], dtype=object), r"\[0\]"),
}


@pytest.mark.parametrize(("make", "value"), BAD_COLUMNS.values(), ids=BAD_COLUMNS)
def test_fixed_columns_that_are_no_numbers_are_refused_by_name(data, make, value):
    X, y = data
    X = X.assign(hours=make(N))
    with pytest.raises((TypeError, ValueError), match=f"fixed-effects column 'hours' .*{value}"):
        fit(X, y)
    with pytest.raises((TypeError, ValueError), match="fixed-effects column 3 holds"):
        fit(X.to_numpy(object), y, BY_POSITION)
    if value != "low":
        with pytest.raises((TypeError, ValueError), match="slope column 'hours' holds"):
            fit(X, y, ["(1 + hours | pupil)"], fixed_effects=["x"])


def test_a_category_of_integers_is_no_number(data):
    X, y = data
    with pytest.raises(TypeError, match="column 'hours' holds CategoricalDtype"):
        fit(X.astype({"hours": "category"}), y)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": 1e200}, "X's column 'x' is of size"),
        ({"x": 1e-200}, "X's column 'x' is of size"),
        ({"y": 1e200}, "y is of size"),
        ({"weight": 1e200}, "sample_weight: the weights sum to"),
    ],
)
def test_sizes_that_floating_point_cannot_square_are_refused(data, changes, message):
    X, y = data
    X = X.assign(x=X["x"] * changes.get("x", 1.0))
    weight = np.full(N, changes.get("weight", 1.0))
    with pytest.raises(ValueError, match=message):
        MixedEffectsRegressor(TERMS).fit(X, y * changes.get("y", 1.0), sample_weight=weight)


def test_polars_integers_beside_missing_ones_stay_what_they_are():
    rng = np.random.default_rng(0)
    ids, x = rng.integers(0, 12, 150) + 2**60, rng.normal(size=150)
    y = x + (ids % 12) + rng.normal(size=150)
    X = polars.DataFrame({"id": ids, "x": x})
    model = MixedEffectsRegressor(["id"]).fit(X, y)
    first = polars.int_range(polars.len()) == 0
    holes = X.with_columns(polars.when(~first).then(polars.col("id")).alias("id"))
    np.testing.assert_array_equal(model.predict(holes)[1:], model.predict(X)[1:])
    population = model.predict(X, include_random=False)
    assert model.predict(holes)[0] == pytest.approx(population[0])
