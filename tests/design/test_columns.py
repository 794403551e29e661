"""Columns are found by what they are called, whatever they are called and whatever holds them."""

import numpy as np
import pandas as pd
import polars
import pytest
from sklearn.inspection import partial_dependence

from sklmm import MixedEffectsRegressor, RandomEffect

N = 80
RNG = np.random.default_rng(4)
X = pd.DataFrame(
    {
        "g": RNG.integers(6, size=N),
        "h": [f"h{i}" for i in RNG.integers(4, size=N)],
        "x": RNG.normal(size=N),
        "w": RNG.normal(size=N),
    }
)
Y = RNG.normal(size=6)[X["g"]] + X["x"] + 0.3 * X["w"] + RNG.normal(0, 0.3, N)
TERMS = ["(1 + w | g)", "h"]
NEW = X[:9].assign(other="nothing to do with it")[["other", "w", "h", "x", "g"]]


def assert_same(found, expected):
    """But for rounding: formulaic lays columns out otherwise."""
    np.testing.assert_allclose(found, expected, rtol=1e-9)


@pytest.fixture(scope="module")
def reference():
    return MixedEffectsRegressor(TERMS).fit(X, Y)


@pytest.fixture(scope="module", params=[["x", "w"], "~ x + w", "y ~ x + w"], ids=str)
def named(request):
    model = MixedEffectsRegressor(TERMS, fixed_effects=request.param)
    return model.fit(X.assign(y=Y, unused=1), Y)


def test_named_columns_are_found_in_any_order_among_others(named, reference):
    expected, sd = reference.predict(X[:9], return_std=True)
    mean, std = named.predict(NEW, return_std=True)
    assert_same(mean, expected)
    assert_same(std, sd)
    assert named.predict(NEW[:0]).shape == (0,)
    assert_same(named.score(NEW, Y[:9]), reference.score(X[:9], Y[:9]))
    assert named.sample_y(polars.DataFrame(NEW.to_dict("list")), random_state=0).shape == (9, 1)
    with pytest.raises(ValueError, match="feature names should match"):
        reference.predict(NEW)


def test_a_population_has_no_groups(named, reference):
    expected = reference.predict(X[:9], include_random=False)
    columns = NEW[["w", "x"]]
    assert_same(named.predict(columns, include_random=False), expected)
    found = named.predict(columns.assign(h=X["h"]), include_random=["h"])
    assert_same(found, reference.predict(X[:9], include_random=["h"]))
    for include_random, missing in ((True, "'g', 'h'"), (["g"], "'g'")):
        with pytest.raises(ValueError, match=rf"X: the model uses the column\(s\) {missing}, whi"):
            named.predict(columns, include_random=include_random)


def test_a_population_with_rows_left_out_has_no_groups():
    model = MixedEffectsRegressor(TERMS, fixed_effects=["x", "w"], missing="drop").fit(X, Y)
    columns = NEW[["w", "x"]].astype(float)
    expected = model.predict(columns, include_random=False)
    assert_same(expected, model.predict(NEW, include_random=False))
    columns.iloc[3, 0] = np.nan
    found = model.predict(columns, False, False)
    assert_same(found, np.where(np.arange(9) == 3, np.nan, expected))


def test_a_column_that_stands_twice_is_refused_where_it_is_used(named):
    twice = pd.concat([NEW, NEW[["other"]]], axis=1)
    assert_same(named.predict(twice), named.predict(NEW))
    with pytest.raises(ValueError, match="X: column 'w' stands twice"):
        named.predict(pd.concat([NEW, NEW[["w"]]], axis=1))


def test_update_takes_columns_by_name(reference):
    model = MixedEffectsRegressor(TERMS, fixed_effects=["x", "w"]).fit(X, Y)
    twin = MixedEffectsRegressor(TERMS).fit(X, Y).update(X[:9], Y[:9])
    assert_same(model.update(NEW, Y[:9]).predict(NEW), twin.predict(X[:9]))


ODD = ["g|1", "1|g", "(1 | g)", "g:h", "a/b", "(g)", "g + 1", "g`x", "~ g", "Größe (cm)"]


@pytest.mark.parametrize("name", ODD)
def test_a_name_that_looks_like_a_term_is_a_name(name, reference):
    table = X.rename(columns={"g": name})
    model = MixedEffectsRegressor([RandomEffect(name, slopes="w"), "h"]).fit(table, Y)
    assert_same(model.predict(table), reference.predict(X))
    plain = MixedEffectsRegressor([name, "h"]).fit(table, Y)
    expected = MixedEffectsRegressor(["g", "h"]).fit(X, Y).predict(X)
    assert_same(plain.predict(table), expected)
    if "`" not in name:
        table["y"] = Y
        formula = f"y ~ x + w + (1 + w | `{name}`) + (1 | h)"
        whole = MixedEffectsRegressor.from_formula(formula).fit(table)
        assert_same(whole.predict(table), reference.predict(X))
        fixed = table.rename(columns={"x": f"x {name}"})
        formula = formula.replace("x +", f"`x {name}` +", 1)
        whole = MixedEffectsRegressor.from_formula(formula).fit(fixed)
        assert_same(whole.predict(fixed), reference.predict(X))


PATHS = pd.MultiIndex.from_tuples([("id", "g"), ("id", "h"), ("number", "x"), ("number", "w")])


@pytest.mark.parametrize(
    ("terms", "fixed"),
    [
        ([RandomEffect(0, slopes=[3]), 1], None),
        ([RandomEffect(("id", "g"), slopes=[("number", "w")]), ("id", "h")], None),
        ([RandomEffect([("id", "g")], slopes=[3]), 1], [("number", "x"), ("number", "w")]),
    ],
    ids=["positions", "names", "named"],
)
def test_names_of_several_levels_are_tuples(terms, fixed, reference):
    table = X.set_axis(PATHS, axis=1)
    model = MixedEffectsRegressor(terms, fixed_effects=fixed).fit(table, Y)
    assert_same(model.predict(table), reference.predict(X))
    if fixed:
        assert_same(model.predict(table[PATHS[::-1]]), reference.predict(X))


# As pyarrow 14 makes frames of pandas.
@pytest.mark.filterwarnings("ignore:Passing a BlockManager:DeprecationWarning")
def test_arrow_tables_and_lazy_frames(reference):
    pa = pytest.importorskip("pyarrow")
    table = pa.Table.from_pandas(X)
    model = MixedEffectsRegressor(TERMS).fit(table, Y)
    assert_same(model.predict(table), reference.predict(X))
    with_hole = pa.table({"g": [2**60 + 1, None], "h": ["h1", "h2"], "x": [0.0, 1.0]})
    large = MixedEffectsRegressor(["g"], fixed_effects=["x"]).fit(X.assign(g=X["g"] + 2**60), Y)
    known = pd.DataFrame({"g": [2**60 + 1, -1], "x": [0.0, 1.0]})
    assert_same(large.predict(with_hole), large.predict(known))
    with pytest.raises(TypeError, match=r"LazyFrame .* X.collect\(\)"):
        model.predict(polars.DataFrame(X).lazy())


@pytest.mark.parametrize("container", ["frame", "objects"])
def test_partial_dependence_of_one_feature_two_and_a_group(container, reference):
    model, table, at = reference, X, list(X.columns).index
    if container == "objects":
        table = X.to_numpy(object)
        model = MixedEffectsRegressor([RandomEffect(0, slopes=[3]), 1]).fit(table, Y)
    options = {"grid_resolution": 5, "categorical_features": [0, 1]}
    one = partial_dependence(model, table, [at("x")], **options)
    slopes = one["average"][0] - model.coef_[0] * one["grid_values"][0]
    np.testing.assert_allclose(slopes, slopes[0])
    two = partial_dependence(model, table, [at("h"), at("x")], **options)["average"][0]
    effects = model.random_effects_[list(model.random_effects_)[1]]["Intercept"].to_numpy()
    np.testing.assert_allclose(two - two[:1], (effects[:, None] - effects[0]).repeat(5, 1))


@pytest.mark.parametrize("kind", [float, object])
def test_nobody_named_the_columns_of_an_array(kind):
    table = X[["x", "w", "g"]]
    model = MixedEffectsRegressor([2], fixed_effects=[0, 1]).fit(table.to_numpy().astype(kind), Y)
    with pytest.warns(UserWarning, match="fitted without feature names"):
        found = model.predict(table)
    assert_same(found, model.predict(table.to_numpy()))
