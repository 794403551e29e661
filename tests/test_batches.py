"""Gaussian models from batches of rows: the same fit as on all rows at once."""

import pickle
import warnings
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone

from sklmm import Exact, Gaussian, MixedEffectsRegressor, RandomEffect, Relationship, anova
from sklmm.datasets import make_crossed
from sklmm.result import Status

#: Of the levels of g, in another order, and of two that are not in the table.
RELATED = Relationship(0.6 ** np.abs(np.subtract.outer(range(11), range(11))), range(10, -1, -1))
TERMS = [
    ["g"],
    ["g", "h"],
    ["(1 + x | g)", "h"],
    ["(1 + x || g)", "(1 | h)"],
    ["(1 | h/g)"],
    ["(0 + x | g)", "(1 | g)", "h"],
    ["(1 + t | h)", "(0 + x | h)"],
    [RandomEffect("g", sd=0.7), "(1 | g:h)"],
    [RandomEffect("g", covariance=RELATED)],
    [RandomEffect("g", ["x"], covariance=RELATED), "g", "h"],
    None,
]
FAMILIES = [Gaussian(), Gaussian(sigma=0.8), Gaussian(weights="precision")]


def table(rng, n):
    """X, y and weights of n rows, in which nothing is near 0."""
    X = pd.DataFrame(
        {
            "x": 30 + rng.normal(size=n),
            "t": 1.7e4 + 5 * rng.normal(size=n),
            "g": rng.integers(0, 9, n),
            "h": np.array(list("pqrst"))[rng.integers(0, 5, n)],
            "w": rng.normal(size=n),
        }
    )
    effects = rng.normal(size=9)[X["g"]] + 0.5 * rng.normal(size=5)[X["h"].map("pqrst".index)]
    return X, 100 + 0.4 * X["x"] - 0.1 * X["t"] + effects + rng.normal(size=n)


def parts(rng, n, most=6):
    """Random parts of a random order of n rows, some of them empty."""
    cuts = np.sort(rng.integers(0, n + 1, rng.integers(0, most)))
    return np.split(rng.permutation(n), cuts)


def outcome(fit):
    """(Estimator or the error's text, messages of its warnings)."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            model = fit()
        except ValueError as error:
            model = str(error)
    return model, sorted(str(w.message) for w in caught)


def assert_same(model, whole, X, rtol=1e-6, atol=1e-8):
    """Two fits are one, to a share of standard errors, or of sizes."""
    one, two = model.result_, whole.result_
    assert one.status is two.status
    std = np.sqrt(np.maximum(np.nan_to_num(np.diag(two.natural_cov)), 0.0))
    size = np.abs(np.concatenate([two.coef, two.natural]))
    gap = np.abs(np.concatenate([one.coef - two.coef, one.natural - two.natural]))
    if two.status is Status.SINGULAR:
        # An SD of 0 has no correlation: their matrices are compared.
        for own, other in zip(one.covariances, two.covariances, strict=True):
            np.testing.assert_allclose(own, other, rtol=10 * rtol, atol=atol * two.sigma**2)
        gap[len(two.coef) : -1] = 0.0
    assert (gap <= rtol * std + atol * (size + max(two.sigma, 1e-8))).all(), gap
    np.testing.assert_array_equal(one.dropped, two.dropped)
    for name, effects in whole.random_effects_.items():
        own = model.random_effects_[name]
        assert own.index.equals(effects.index), name
        std = whole.random_effects_std_[name].to_numpy()
        assert (np.abs(own - effects).to_numpy() <= rtol * std + 10 * atol * (1 + std)).all(), name
    scale = max(np.abs(whole.predict(X)).max(), 1.0)
    for own, other in zip(model.predict(X, True), whole.predict(X, True), strict=True):
        np.testing.assert_allclose(own, other, rtol=0, atol=(10 * atol + rtol / 10) * scale)
    if np.isfinite(whole.loglik_):
        assert model.loglik_ == pytest.approx(whole.loglik_, rel=1e-9, abs=1e-6)
    assert (one.rank, one.reml) == (two.rank, two.reml)
    assert one.n_obs == pytest.approx(two.n_obs)
    own, other = model._fitted.spread, whole._fitted.spread
    np.testing.assert_allclose(own.fixed, other.fixed, rtol=10 * atol, atol=1e-12 * scale**2)
    np.testing.assert_allclose(own.random, other.random, rtol=1e-4, atol=1e-8)
    assert own.noise == pytest.approx(other.noise)


MODELS = st.fixed_dictionaries(
    {
        "random_effects": st.sampled_from(TERMS),
        "family": st.sampled_from(FAMILIES),
        "method": st.sampled_from(["reml", "ml"]),
        "e_step": st.sampled_from(["exact", "cg"]),
        "offset": st.sampled_from([None, "w"]),
        "fit_intercept": st.booleans(),
    }
)
ROWS = {"seed": st.integers(0, 2**31), "n": st.integers(40, 90), "weighted": st.booleans()}


@settings(max_examples=30, deadline=None, derandomize=True, database=None)
@given(parameters=MODELS, **ROWS)
def test_any_parts_in_any_order_give_the_fit_of_the_whole_table(parameters, seed, n, weighted):
    check_parts(parameters, seed, n, weighted)


@pytest.mark.slow
@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(parameters=MODELS, **ROWS)
def test_many_parts_in_any_order_give_the_fit_of_the_whole_table(parameters, seed, n, weighted):
    check_parts(parameters, seed, n, weighted)


def check_parts(parameters, seed, n, weighted):
    rng = np.random.default_rng(seed)
    X, y = table(rng, n)
    weights = rng.integers(0, 4, n) if weighted else np.ones(n)
    # Up to the maximum: on the way to it steps without a likelihood to compare magnify rounding,
    # and to an end of the range, where steps shrink by a share, an early end is far.
    known = {"fixed_effects": ["x", "t"], "random_state": 0, "tol": 1e-8, "max_iter": 500}
    model = MixedEffectsRegressor(**parameters, **known)
    batches = [(X.iloc[p], y.iloc[p], weights[p]) for p in parts(rng, n)]
    whole, told = outcome(lambda: clone(model).fit(X, y, weights))
    found, also = outcome(lambda: clone(model).fit_batches(batches))
    if isinstance(whole, str):
        assert isinstance(found, str)
        return
    assert_same(found, whole, X)
    assert told == also
    if model.family.weights == "repeats":
        assert found._fitted.fingerprint.data == whole._fitted.fingerprint.data


@pytest.mark.parametrize("terms", [["g0", "g1"], ["(1 + x0 | g0)", "g1"]])
def test_conjugate_gradients_have_the_probes_of_the_whole_table(terms):
    X, y, _ = make_crossed(20_000, (900, 600), random_state=0)
    model = MixedEffectsRegressor(terms, e_step="cg", random_state=3)
    whole = clone(model).fit(X, y)
    order = np.random.default_rng(0).permutation(len(X))
    batches = [(X.iloc[p], y[p]) for p in np.array_split(order, 7)]
    found = clone(model).fit_batches(batches)
    assert found.n_iter_ == whole.n_iter_
    assert_same(found, whole, X[:1000])
    assert found.mc_error_.to_numpy() == pytest.approx(whole.mc_error_.to_numpy(), rel=1e-4)


def test_a_column_of_seconds_and_one_nearly_collinear_lose_no_digits():
    rng = np.random.default_rng(0)
    n, g = 4000, rng.integers(0, 40, 4000)
    seconds = 1.7e9 + rng.uniform(0, 3e5, n)
    X = pd.DataFrame({"s": seconds, "near": (seconds - 1.7e9) / 1e5 + 1e-5 * rng.normal(size=n)})
    y = 1e6 + 1e-5 * (seconds - 1.7e9) * (1 + rng.normal(size=40)[g]) + rng.normal(size=n)
    model = MixedEffectsRegressor(["(1 + s | g)"])
    whole = clone(model).fit(X.assign(g=g), y)
    found = clone(model).fit_batches((X[p].assign(g=g[p]), y[p]) for p in slices(n, 8))
    std = whole.fixed_effects_["std_error"]
    gap = (found.fixed_effects_["estimate"] - whole.fixed_effects_["estimate"]) / std
    assert np.abs(gap).max() < 1e-6
    assert found.result_.sigma == pytest.approx(whole.result_.sigma, rel=1e-9)
    np.testing.assert_allclose(
        found.predict(X.assign(g=g)), whole.predict(X.assign(g=g)), rtol=1e-12
    )


def slices(n, k):
    ends = np.linspace(0, n, k + 1).astype(int)
    return [slice(a, b) for a, b in pairwise(ends)]


def nearly_collinear(share, first=200):
    """A table whose column b has hardly anything besides a, and nothing in the first rows."""
    rng = np.random.default_rng(0)
    own, g = rng.normal(size=1200), np.arange(1200) % 20
    own[:first] = 0.0
    a = 5 + 3 * rng.normal(size=1200)
    X = pd.DataFrame({"a": a, "b": 2 * a + 6 * share * own, "g": g})
    return X, a + own + g % 3 + rng.normal(size=1200)


@pytest.mark.parametrize("share", [1e-4, 2e-6, 3e-7, 1e-8])
def test_what_is_left_of_a_column_that_the_first_batch_does_not_have_is_told(share):
    X, y = nearly_collinear(share)
    model = MixedEffectsRegressor(["g"])
    batches = [(X[p], y[p]) for p in slices(1200, 6)]
    whole, told = outcome(lambda: clone(model).fit(X, y))
    found, also = outcome(lambda: clone(model).fit_batches(batches))
    assert whole.result_.dropped.any() == (share == 1e-8)
    np.testing.assert_array_equal(found.result_.dropped, whole.result_.dropped)
    assert [text.split(":")[0] for text in also] == [text.split(":")[0] for text in told]
    # b has rounding, of which the numbers are a share.
    assert found.sigma_ == pytest.approx(whole.sigma_, rel=1e-6)
    assert found.loglik_ == pytest.approx(whole.loglik_, abs=1e-4)


@pytest.mark.parametrize("share", [2e-6, 3e-7, 1.5e-7])
def test_what_sums_do_not_tell_is_an_error_that_says_so(share):
    X, y = nearly_collinear(share)
    # Of a few first rows the sums' units are those of single columns.
    batches = [(X[p], y[p]) for p in (slice(0, 15), slice(15, 600), slice(600, 1200))]
    with pytest.raises(ValueError, match=r"'b' is nearly a linear combination .* use fit"):
        MixedEffectsRegressor(["g"]).fit_batches(batches)


@pytest.mark.parametrize("size", [1e2, 1e3, 1e5, 1e6])
def test_a_change_that_is_large_beside_what_is_left_is_told_or_an_error(size):
    rng = np.random.default_rng(1)
    era, g = np.repeat([0.0, 1.0], [300, 900]), rng.integers(0, 20, 1200)
    X = pd.DataFrame({"era": era, "x": rng.normal(size=1200), "g": g})
    y = size * era + X["x"] + rng.normal(size=20)[g] + rng.normal(size=1200)
    model = MixedEffectsRegressor(["g"], tol=1e-8)
    batches = [(X[p], y[p]) for p in slices(1200, 4)]
    if size > 1e4:
        with pytest.raises(ValueError, match=r"^y: the fixed effects explain it .* use fit"):
            model.fit_batches(batches)
        # Rows from all over the table show it.
        batches = [(X[i::4], y[i::4]) for i in range(4)]
    found, whole = clone(model).fit_batches(batches), clone(model).fit(X, y)
    assert found.sigma_ == pytest.approx(whole.sigma_, rel=1e-8)
    assert found.loglik_ == pytest.approx(whole.loglik_, abs=1e-5)


def test_columns_that_are_left_out_are_those_of_the_whole_table():
    X, y, _ = make_crossed(400, (20, 8), random_state=0)
    X = X.assign(same=2 * X["x0"] - 1, one=3.0, zero=0.0)
    model = MixedEffectsRegressor(["g0", "g1"])
    with pytest.warns(UserWarning, match="'same', 'one', 'zero'"):
        whole = clone(model).fit(X, y)
    with pytest.warns(UserWarning, match="'same', 'one', 'zero'"):
        found = clone(model).fit_batches((X[p], y[p]) for p in slices(400, 5))
    assert_same(found, whole, X)
    one, two = (m._fitted.spec.estimable for m in (found, whole))
    np.testing.assert_allclose(one.combination, two.combination, atol=1e-7)
    with pytest.warns(UserWarning, match="in 1 row"):
        found.predict(X[:3].assign(same=[2 * X["x0"][0] - 1, 9.0, 2 * X["x0"][2] - 1]))


def test_a_fixed_part_of_which_nothing_is_left():
    X, y = table(np.random.default_rng(0), 90)
    X = X.assign(one=3.0, two=1e6)
    model = MixedEffectsRegressor(["g"], fixed_effects=["one", "two"])
    with pytest.warns(UserWarning, match="'one', 'two'"):
        whole = clone(model).fit(X, y)
    with pytest.warns(UserWarning, match="'one', 'two'"):
        found = clone(model).fit_batches((X[p], y[p]) for p in slices(90, 3))
    assert_same(found, whole, X)


def test_no_more_rows_than_columns_and_a_perfect_fit():
    X, y, _ = make_crossed(8, (3, 2), random_state=0)
    X = X.assign(**{f"z{i}": np.random.default_rng(i).normal(size=8) for i in range(9)})
    model = MixedEffectsRegressor(["g0"])
    whole, found = (
        clone(model).fit(X, y),
        clone(model).fit_batches([(X[:5], y[:5]), (X[5:], y[5:])]),
    )
    assert found.result_.status is whole.result_.status
    np.testing.assert_allclose(found.coef_, whole.coef_, rtol=1e-6)
    X, y, _ = make_crossed(300, (12, 7), random_state=0)
    X = X.astype({"x0": float})
    target = 3 + 2 * X["x0"]
    with pytest.warns(UserWarning, match="'x0' alone reproduce y"):
        found = clone(model).fit_batches((X[p], target[p]) for p in slices(300, 3))
    assert found.sigma_ == 0
    assert found.coef_[-1] == pytest.approx(2.0)


def test_arrays_and_labels_of_every_kind_are_as_in_one_table():
    rng = np.random.default_rng(0)
    X, y = table(rng, 240)
    kinds = X.assign(
        g=pd.to_datetime("2020-01-01") + pd.to_timedelta(X["g"], "D"),
        h=pd.Categorical(X["h"], categories=list("tsrqp")),
    )
    for given_X in (kinds, X[["x", "g"]].to_numpy(), X[["x", "g"]].to_numpy().astype(object)):
        terms = ["g", "h"] if isinstance(given_X, pd.DataFrame) else [1]
        model = MixedEffectsRegressor(terms, e_step=Exact(), random_state=0)
        whole = clone(model).fit(given_X, y)
        found = clone(model).fit_batches((given_X[p], y[p]) for p in slices(240, 4))
        assert_same(found, whole, given_X)


def test_one_pass_is_enough_and_a_callable_starts_anew():
    X, y, _ = make_crossed(300, (12, 7), random_state=0)
    model, passes = MixedEffectsRegressor(["g0"]), []

    def batches():
        passes.append(1)
        yield from ((X[p], y[p]) for p in slices(300, 3))

    first = model.fit_batches(batches).coef_
    assert model.fit_batches(batches).coef_ == pytest.approx(first)
    assert len(passes) == 2
    used = batches()
    model.fit_batches(used)
    with pytest.raises(ValueError, match="An iterator is used up after one fit"):
        model.fit_batches(used)


def test_anova_and_reports_that_take_the_rows_again_know_them():
    X, y, _ = make_crossed(300, (12, 7), random_state=0)
    small, large = (MixedEffectsRegressor(t, method="ml") for t in (["g0"], ["g0", "g1"]))
    small.fit(X, y)
    large.fit_batches((X[p], y[p]) for p in slices(300, 4))
    whole = clone(large).fit(X, y)
    pd.testing.assert_frame_equal(anova(small, large), anova(small, whole))
    shuffled = np.random.default_rng(0).permutation(300)
    profiles = [
        m.conf_int(method="profile", X=X.iloc[shuffled], y=y[shuffled]) for m in (large, whole)
    ]
    pd.testing.assert_frame_equal(*profiles, rtol=1e-6)
    with pytest.raises(ValueError, match="different orders"):
        large.conf_int(method="profile", X=X, y=y[shuffled])


class TestPartialFit:
    def test_every_call_gives_the_fit_of_all_rows_so_far(self):
        X, y, _ = make_crossed(1200, (80, 30), random_state=0)
        model = MixedEffectsRegressor(["(1 + x0 | g0)", "g1"], random_state=0)
        for end in (100, 101, 400, 1200):
            start = 0 if not hasattr(model, "result_") else int(model.result_.n_obs)
            assert model.partial_fit(X[start:end], y[start:end]) is model
            whole = clone(model).fit(X[:end], y[:end])
            assert_same(model, whole, X)
            copy = pickle.loads(pickle.dumps(model))
            np.testing.assert_array_equal(copy.predict(X), model.predict(X))
            model = copy

    def test_an_error_leaves_the_estimator_and_its_sums_as_they_were(self):
        X, y, _ = make_crossed(300, (12, 7), random_state=0)
        model = MixedEffectsRegressor(["g0"]).partial_fit(X[:100], y[:100])
        before = pickle.dumps(model)
        with pytest.raises(TypeError, match=r"kind string, .* in the rows before: the two"):
            model.partial_fit(X[100:].assign(g0="a"), y[100:])
        with pytest.raises(ValueError, match="NaN"):
            model.partial_fit(X[100:].assign(x0=np.nan), y[100:])
        with pytest.raises(ValueError, match="feature names"):
            model.partial_fit(X[["x0", "g0"]], y)
        assert pickle.dumps(model) == before
        model.partial_fit(X[100:], y[100:])
        assert_same(model, clone(model).fit(X, y), X)

    def test_a_clone_begins_anew_and_a_fit_forgets(self):
        X, y, _ = make_crossed(300, (12, 7), random_state=0)
        model = MixedEffectsRegressor(["g0"]).partial_fit(X[:100], y[:100])
        assert clone(model).partial_fit(X[100:], y[100:]).result_.n_obs == 200
        model.fit(X[:50], y[:50])
        with pytest.warns(UserWarning, match=r"begins anew .*keep_sums=True"):
            model.partial_fit(X[100:], y[100:])
        assert model.result_.n_obs == 200
        model.fit_batches([(X[:100], y[:100])], keep_sums=True).partial_fit(X[100:], y[100:])
        assert model.result_.n_obs == 300

    def test_other_parameters_want_other_sums(self):
        X, y, _ = make_crossed(300, (12, 7), random_state=0)
        model = MixedEffectsRegressor(["g0"]).partial_fit(X[:100], y[:100])
        with pytest.raises(ValueError, match=r"begin anew, with sklearn.base.clone"):
            model.set_params(random_effects=["g1"]).partial_fit(X[100:], y[100:])
        model.set_params(random_effects=["g0"], method="ml").partial_fit(X[100:], y[100:])
        assert_same(model, clone(model).fit(X, y), X)

    @pytest.mark.parametrize(
        ("first", "then"),
        [
            ({"random_effects": ["g0"]}, {"random_effects": ("g0",)}),
            ({"random_effects": ["g0"]}, {"random_effects": ["(1 | g0)"]}),
            ({"random_effects": ["g0"]}, {"random_effects": np.array(["g0"])}),
            ({"fixed_effects": ["x0"]}, {"fixed_effects": np.array(["x0"])}),
            ({"fixed_effects": "~ x0+g1"}, {"fixed_effects": "~ x0 + g1"}),
            ({"fixed_effects": "~ x0"}, {"fixed_effects": "~ x0 + 1"}),
            ({"fixed_effects": ["g1", "x0"]}, {"fixed_effects": None}),
        ],
    )
    def test_the_same_columns_in_other_words(self, first, then):
        X, y, _ = make_crossed(300, (12, 7), random_state=0)
        model = MixedEffectsRegressor(**{"random_effects": ["g0"], **first})
        model = pickle.loads(pickle.dumps(model.partial_fit(X[:100], y[:100])))
        model.set_params(**then).partial_fit(X[100:], y[100:])
        assert_same(model, clone(model).fit(X, y), X)

    @pytest.mark.parametrize(
        "then",
        [
            {"fixed_effects": ["x0"]},
            {"fixed_effects": "~ x0 * g1"},
            {"fixed_effects": "~ 0 + x0 + g1"},
            {"fit_intercept": False},
            {"offset": "x0"},
            {"missing": "drop"},
            {"random_effects": ["(1 + x0 | g0)"]},
            {"random_effects": [RandomEffect("g0", sd=1.0)]},
            {"family": Gaussian(weights="precision")},
        ],
    )
    @pytest.mark.parametrize("first", ["~ x0 + g1", ["x0", "g1"]])
    def test_other_columns(self, first, then):
        X, y, _ = make_crossed(300, (12, 7), random_state=0)
        model = MixedEffectsRegressor(["g0"], fixed_effects=first).partial_fit(X[:100], y[:100])
        with pytest.raises(ValueError, match=r"begin anew, with sklearn.base.clone"):
            model.set_params(**then).partial_fit(X[100:], y[100:])

    def test_names_that_NumPy_does_not_print(self):
        X = pd.DataFrame(np.eye(3, 1200), columns=[f"c{i}" for i in range(1200)])
        X, y = X.assign(g=["a", "b", "a"]), np.arange(3.0)
        model = MixedEffectsRegressor(["g"], fixed_effects=X.columns[:1200].delete(500).to_numpy())
        before = model.partial_fit(X, y)._sums
        model.set_params(fixed_effects=X.columns[:1200].delete(600).to_numpy())
        with pytest.raises(ValueError, match=r"begin anew, with sklearn.base.clone"):
            model.partial_fit(X, y)
        assert model._sums is before


def half(number):
    return Decimal(int(number)) / 2


@pytest.fixture(scope="module")
def rows():
    return table(np.random.default_rng(0), 120)


class TestTraps:
    """What differs between batches: as in one table, or an error that names batch and column."""

    def fit(self, *tables, y, **parameters):
        model = MixedEffectsRegressor(["g", "h"], fixed_effects=["x"], **parameters)
        start, batches = 0, []
        for X in tables:
            batches.append((X, y[start : start + len(X)]))
            start += len(X)
        return model.fit_batches(batches)

    def test_integers_here_and_strings_there(self, rows):
        X, y = rows
        other = X[60:].assign(g=X["g"][60:].astype(str))
        with pytest.raises(
            TypeError,
            match=r"^batch 1: The grouping column 'g' .*kind string, .*kind integer.* in batch 0:",
        ):
            self.fit(X[:60], other, y=y)

    def test_integers_here_and_whole_floats_there(self, rows):
        X, y = rows
        found = self.fit(X[:60], X[60:].assign(g=X["g"][60:].astype(float)), y=y)
        assert_same(found, self.fit(X, y=y), X)

    @pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 2, 0], [0, 2, 1]])
    @pytest.mark.parametrize("column", ["g", "g:h"])
    @pytest.mark.parametrize(
        ("kinds", "match"),
        [
            # The first batch has two levels, as a head.
            ([lambda g: g % 2, lambda g: g % 2 == 1, lambda g: g], "boolean"),
            ([lambda g: (g % 2).astype(str), lambda g: g % 2 == 1, lambda g: g % 2], "kind"),
            ([lambda g: np.where(g, "True", "False"), lambda g: g > 1, lambda g: g % 2], "kind"),
            ([lambda g: np.where(g, "True", "true"), lambda g: g > 1, lambda g: g > 2], "kind"),
            ([lambda g: g * 1.0, lambda g: list(map(half, g)), lambda g: g], "kind"),
            ([lambda g: g / 2, lambda g: list(map(Decimal, g.tolist())), lambda g: g], "kind"),
        ],
    )
    def test_kinds_that_differ_are_an_error_in_any_order(self, rows, kinds, match, order, column):
        X, y = rows
        parts = [X[a : a + 40] for a in (0, 40, 80)]
        parts = [X.assign(g=own(X["g"].to_numpy())) for X, own in zip(parts, kinds, strict=True)]
        model = MixedEffectsRegressor([f"(1 | {column})"], fixed_effects=["x"])
        with pytest.raises(TypeError, match=match):
            model.fit_batches((parts[i], y[parts[i].index]) for i in order)

    @pytest.mark.parametrize("kinds", [["float64", "float32"], ["float32", "float64"]])
    def test_fractions_of_two_types_are_an_error(self, rows, kinds):
        X, y = rows
        X = X.assign(g=X["g"] / 10)
        parts = [X[a : a + 60].astype({"g": kind}) for a, kind in zip((0, 60), kinds, strict=True)]
        with pytest.raises(TypeError, match=r"^batch 1: .*kind float32 and of kind float64, .*as"):
            self.fit(*parts, y=y)

    def test_kinds_that_are_compared_are_so_in_any_order(self, rows):
        X, y = rows
        parts = [X[a : a + 40] for a in (0, 40, 80)]
        model = MixedEffectsRegressor(["g"], fixed_effects=["x"])
        for g, kinds in [
            (X["g"] % 2, [int, bool, float]),
            (X["g"], ["int8", "float32", "float64"]),
            (X["g"] / 2, ["float32", "float32", "float32"]),
        ]:
            whole = clone(model).fit(X.assign(g=g), y)
            own = [X.assign(g=g[X.index].astype(k)) for X, k in zip(parts, kinds, strict=True)]
            for order in ([0, 1, 2], [2, 1, 0], [1, 0, 2]):
                found = clone(model).fit_batches((own[i], y[own[i].index]) for i in order)
                assert found.coef_ == pytest.approx(whole.coef_)
                assert found.random_effects_["g"].shape == whole.random_effects_["g"].shape

    @pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 2, 0], [0, 2, 1]])
    def test_orders_that_disagree_are_an_error_in_any_order(self, rows, order):
        X, y = rows
        one, two = (pd.CategoricalDtype(list(c), ordered=True) for c in ("pqrst", "tsrqp"))
        parts = [
            X[a : a + 40].astype({"h": kind}) for a, kind in ((0, "str"), (40, one), (80, two))
        ]
        model = MixedEffectsRegressor(["h"], fixed_effects=["x"])
        with pytest.raises(ValueError, match=r"'h' .*in another order"):
            model.fit_batches((parts[i], y[parts[i].index]) for i in order)

    def test_a_missing_group_in_one_batch(self, rows):
        X, y = rows
        bad = X[60:].astype({"g": object}).assign(g=[None, *X["g"][61:]])
        with pytest.raises(ValueError, match=r"^batch 1: The grouping column 'g' has 1 missing"):
            self.fit(X[:60], bad, y=y)
        found = self.fit(X[:60], bad, y=y, missing="drop")
        keep = np.arange(120) != 60
        assert_same(found, self.fit(X[keep], y=y[keep]), X)
        assert found._fitted.n_missing == 1

    def test_a_missing_number_or_answer_in_one_batch(self, rows):
        X, y = rows
        with pytest.raises(ValueError, match=r"^batch 1: .*'x'"):
            self.fit(X[:60], X[60:].assign(x=np.nan), y=y)
        with pytest.raises(ValueError, match=r"^batch 1: Input y contains NaN"):
            self.fit(X[:60], X[60:], y=y.where(y.index < 100))

    def test_a_batch_that_is_empty_or_of_weight_0(self, rows):
        X, y = rows
        model = MixedEffectsRegressor(["g", "h"], fixed_effects=["x"])
        batches = [(X[:0], y[:0]), (X[:60], y[:60]), (X[:9], y[:9], np.zeros(9)), (X[60:], y[60:])]
        assert_same(clone(model).fit_batches(batches), clone(model).fit(X, y), X)
        with pytest.raises(ValueError, match="there is no row to fit"):
            model.fit_batches(batches[:1])
        assert not hasattr(model, "n_features_in_")

    def test_categories_that_differ_and_orders_that_disagree(self, rows):
        X, y = rows
        whole = self.fit(X, y=y)
        parts = X[:60], X[60:]
        own = [p.assign(h=p["h"].astype("category").cat.remove_unused_categories()) for p in parts]
        assert_same(self.fit(*own, y=y), whole, X)
        one, two = (pd.CategoricalDtype(list(c), ordered=True) for c in ("pqrst", "tsrqp"))
        ordered = X[:60].astype({"h": one}), X[60:].astype({"h": two})
        with pytest.raises(ValueError, match=r"^batch 1: The grouping column 'h' .*declare one"):
            self.fit(*ordered, y=y)
        found = self.fit(X[:60].astype({"h": two}), X[60:].astype({"h": two}), y=y)
        assert found.random_effects_["h"].index.tolist() == list("tsrqp")
        assert_same(found, self.fit(X.astype({"h": two}), y=y), X)

    def test_columns_that_differ(self, rows):
        X, y = rows
        with pytest.raises(ValueError, match=r"^batch 1: .*feature names"):
            self.fit(X[:60], X[60:].drop(columns="w"), y=y)
        with pytest.raises(TypeError, match=r"^batch 1: X: it is an array"):
            self.fit(X[:60], X[60:].to_numpy(), y=y)

    def test_other_shapes_and_negative_weights(self, rows):
        X, y = rows
        model = MixedEffectsRegressor(["g"], fixed_effects=["x"])
        for none in (None, lambda: None):
            with pytest.raises(TypeError, match=r"^batches: it is a NoneType, and must be"):
                model.fit_batches(none)
        with pytest.raises(TypeError, match=r"^batch 0: it is a DataFrame, .*\(X, y\)"):
            model.fit_batches([X])
        with pytest.raises(ValueError, match=r"^batch 1: .*inconsistent numbers"):
            model.fit_batches([(X, y), (X, y[:5])])
        with pytest.raises(ValueError, match=r"^batch 1: sample_weight: -1"):
            model.fit_batches([(X, y), (X, y, np.full(len(X), -1.0))])

    def test_a_single_level_in_all_batches(self, rows):
        X, y = rows
        with pytest.raises(ValueError, match="'g' has a single level"):
            self.fit(X[:60].assign(g=1), X[60:].assign(g=1), y=y)

    def test_a_batch_with_one_level_is_fine(self, rows):
        X, y = rows
        order = np.argsort(X["g"].to_numpy(), kind="stable")
        X, y = X.iloc[order].reset_index(drop=True), y.iloc[order].reset_index(drop=True)
        ends = np.flatnonzero(np.diff(X["g"], prepend=-1))
        tables = [X[a:b] for a, b in zip(ends, [*ends[1:], 120], strict=True)]
        assert_same(self.fit(*tables, y=y), self.fit(X, y=y), X)

    def test_formulas_by_rows_alone(self, rows):
        X, y = rows
        fit = MixedEffectsRegressor(["g"], fixed_effects="~ x * w + np.exp(w)").fit_batches
        found = fit([(X[:60], y[:60]), (X[60:], y[60:])])
        whole = MixedEffectsRegressor(["g"], fixed_effects="~ x * w + np.exp(w)").fit(X, y)
        assert_same(found, whole, X)
        for text in ("~ bs(x, df=4)", "~ I(x / x.std())", "~ I(x.cumsum())"):
            with pytest.raises(ValueError, match=r"^batch 0: fixed_effects="):
                MixedEffectsRegressor(["g"], fixed_effects=text).fit_batches([(X, y)])

    @pytest.mark.parametrize("text", ["~ h * x", "~ C(k) + b", "~ b:x + d"])
    def test_factors_have_the_levels_of_the_first_batch(self, rows, text):
        X, y = rows
        k, b = np.arange(len(X)) % 3, np.arange(len(X)) % 7 < 3
        d = pd.Categorical(np.array(["low", "mid", "high"])[k], ["low", "mid", "high", "none"])
        X = X.assign(k=k, b=b, d=d)
        model = MixedEffectsRegressor(["g"], fixed_effects=text)
        found = clone(model).fit_batches([(X[:60], y[:60]), (X[60:], y[60:])])
        assert_same(found, clone(model).fit(X, y), X)
        first = (X["h"] != "q") & (X["k"] != 2)
        with pytest.raises(ValueError, match=r"^batch 1: .*not seen in batch 0, and a factor"):
            clone(model).fit_batches([(X[first], y[first]), (X, y)])

    def test_threads_leave_the_filters_of_warnings_as_they_are(self, rows):
        X, y = rows
        model, before = MixedEffectsRegressor(["g"], fixed_effects="~ h * x"), warnings.filters[:]
        with ThreadPoolExecutor(4) as pool:
            fits = [
                pool.submit(clone(model).fit_batches, [(X, y)] * (1 + i % 3)) for i in range(24)
            ]
            unseen = pool.submit(clone(model).fit_batches, [(X[X["h"] != "q"], y), (X, y)])
        assert all(fit.result().n_iter_ for fit in fits)
        assert isinstance(unseen.exception(), ValueError)
        assert warnings.filters == before

    def test_formulas_of_whole_columns_that_a_first_batch_does_not_show(self, rows):
        X, y = rows
        model = MixedEffectsRegressor(["g"], fixed_effects="~ I(x - x.mean())")
        for first in (X[:1], X[:20].assign(x=0.0)):
            with pytest.raises(ValueError, match=r"^batch 1: fixed_effects="):
                model.fit_batches([(first, y[: len(first)]), (X, y)])

    @pytest.mark.parametrize("size", [1, 30])
    @pytest.mark.parametrize(
        "text",
        ["x - x.max()", "x - x.min()", "x / x.max()", "x.rank()", "x.diff().fillna(0)",
         "x - x.mean()",
         "x.clip(upper=x.quantile(.9))", "x / (1 + x.std(ddof=0))", "x - x.iloc[0]", "x.cumsum()"],
    )  # fmt: skip
    @pytest.mark.parametrize("reverse", [False, True])
    def test_formulas_of_whole_columns_that_are_sorted(self, rows, text, size, reverse):
        X, y = rows
        X = X.sort_values("x", ascending=not reverse, ignore_index=True)
        batches = [(X[i : i + size], y[i : i + size]) for i in range(0, 120, size)]
        with pytest.raises(
            ValueError, match=rf"^batch {int(size == 1)}: fixed_effects=.* all rows"
        ):
            MixedEffectsRegressor(["g"], fixed_effects=f"~ I({text})").fit_batches(batches)

    def test_formulas_of_single_rows_in_batches_of_single_rows(self, rows):
        X, y = rows
        X = X.assign(
            d=pd.to_datetime("2020-01-01") + pd.to_timedelta(X["w"], "D"),
            k=np.arange(len(X)) % 3,
            b=X["w"] > 0,
        )
        text = "~ x * b + np.exp(w) + C(k) + h:w + I(d.dt.hour) + np.where(w > 0, w, 0)"
        model = MixedEffectsRegressor(["g"], fixed_effects=text)
        whole = clone(model).fit(X, y)
        batches = [(X[:40], y[:40]), *((X[i : i + 1], y[i : i + 1]) for i in range(40, 120))]
        assert_same(clone(model).fit_batches(batches), whole, X)
        sums = clone(model).fit_batches(batches, keep_sums=True)
        assert_same(pickle.loads(pickle.dumps(sums)), whole, X)

    @pytest.mark.parametrize(
        ("parameters", "match"),
        [
            ({"family": "poisson"}, "family='poisson' has no sums"),
            ({"e_step": "hmc"}, "e_step='hmc'"),
            ({"m_step": "adam", "e_step": "hmc"}, "m_step='adam'"),
        ],
    )
    def test_what_reads_rows_again(self, rows, parameters, match):
        X, y = rows
        model = MixedEffectsRegressor(["g"], fixed_effects=["x"], **parameters)
        with pytest.raises(ValueError, match=match):
            model.fit_batches([(X, y)])
        assert not hasattr(model, "result_")
