"""Times and categories that a covariance is along: which are one, and in which order they stand."""

import re

import numpy as np
import pandas as pd
import pytest

from sklmm import MixedEffectsRegressor


@pytest.fixture(scope="module")
def panel():
    rng = np.random.default_rng(0)
    n, r = 40, 5
    b = rng.multivariate_normal(
        np.zeros(r), 0.6 ** np.abs(np.subtract.outer(np.arange(r), np.arange(r))), size=n
    )
    X = pd.DataFrame({"id": np.repeat(np.arange(n), r), "t": np.tile(np.arange(8, 8 + r), n)})
    X["x"] = rng.normal(size=len(X))
    return X, 1 + 0.5 * X["x"] + b.ravel() + 0.5 * rng.normal(size=len(X))


def fit(X, y, term="ar1(0 + t | id)", **parameters):
    return MixedEffectsRegressor([term], fixed_effects=["x"], **parameters).fit(X, y)


def test_times_that_differ_by_rounding_are_one(panel):
    X, y = panel
    whole = fit(X, y)
    odd = np.arange(len(X)) % 2 == 1
    noisy = np.where((X["t"] == 10) & odd, 0.1 + 0.2, np.round((X["t"] - 7) / 10, 1))
    model = fit(X.assign(t=noisy), y)
    assert model.loglik_ == pytest.approx(whole.loglik_, abs=1e-8)
    assert list(model.random_effects_["id"]) == [f"t[0.{i}]" for i in range(1, 6)]
    assert model.variance_components_["name"][1] == "t: phi (0.1 apart)"
    # At predict too, and of single precision beside double.
    expected = whole.predict(X)
    np.testing.assert_allclose(model.predict(X.assign(t=noisy)), expected, atol=1e-6)
    again = 0.1 * (X["t"] - 7)
    np.testing.assert_allclose(model.predict(X.assign(t=again)), expected, atol=1e-6)
    single = again.astype(np.float32)
    np.testing.assert_allclose(model.predict(X.assign(t=single)), expected, atol=1e-6)
    np.testing.assert_allclose(
        fit(X.assign(t=single), y).predict(X.assign(t=noisy)), expected, atol=1e-6
    )


def test_phi_does_not_depend_on_the_unit_of_time(panel):
    X, y = panel
    for unit, name in [(86400, "86400"), (86400e9, "8.64e+13"), (1 / 365.25, "0.00273785")]:
        parts = [fit(X.assign(t=X["t"] * u), y).variance_components_ for u in (1, unit)]
        assert parts[1]["name"][1] == f"t: phi ({name} apart)"
        for column in ("sd", "corr", "std_error"):
            np.testing.assert_allclose(parts[0][column], parts[1][column], rtol=1e-3)


def test_dates_are_refused_with_a_remedy_that_works(panel):
    X, y = panel
    days = pd.to_timedelta(X["t"], unit="D")
    dates = pd.Timestamp("2020-01-01") + days
    objects = [dates.dt.date, days.astype(object), dates.dt.to_period("D").astype(object)]
    for times in (dates, days, dates.dt.to_period("D"), *objects):
        X = X.assign(t=times)
        with pytest.raises(TypeError, match=r"holds dates, .* of days") as error:
            fit(X, y)
        remedy = re.search(r"days, (.*) for example", str(error.value))[1]
        X = X.assign(t=eval(remedy, {"X": X, "pd": pd}))
        assert fit(X, y).variance_components_["name"][1] == "t: phi (1 apart)"


def test_categories_stand_in_the_order_of_their_values_or_the_declared_one(panel):
    X, y = panel
    whole = fit(X, y)
    text = X["t"].astype(str)
    shuffled = [10, 8, 12, 9, 11]
    for f in (
        pd.Categorical(text),
        pd.Categorical(X["t"], categories=shuffled),
        pd.Categorical(text.map("visit {}".format), [f"visit {i}" for i in range(8, 13)], True),
    ):
        model = fit(X.assign(t=f), y)
        assert model.loglik_ == pytest.approx(whole.loglik_, abs=1e-8)
        np.testing.assert_allclose(model.predict(X.assign(t=f)), whole.predict(X), atol=1e-8)
    declared = fit(X.assign(t=pd.Categorical(X["t"], shuffled, ordered=True)), y)
    assert abs(declared.loglik_ - whole.loglik_) > 0.1
    with pytest.raises(ValueError, match=r"like 'visit 8', have none: .*ordered=True"):
        fit(X.assign(t=pd.Categorical(text.map("visit {}".format))), y)


def test_two_columns_have_no_one_order(panel):
    X, y = panel
    with pytest.raises(ValueError, match=r"of one column, and there are 2: .*\(0 \+ x \| id\)"):
        fit(X, y, "ar1(0 + t + x | id)")


@pytest.mark.parametrize("term", ["diag(0 + arm | id)", "(0 + arm || id)", "(1 + arm | id)"])
def test_effects_that_no_row_has_leave_the_residual_its_rows(term):
    """Each subject is in one arm: there are as many effects as rows, but a third of them known."""
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"id": np.repeat(np.arange(60), 3), "x": rng.normal(size=180)})
    X["arm"] = pd.Categorical(np.array(["a", "b", "c"])[X["id"] % 3])
    y = X["x"] + rng.normal(size=60)[X["id"]] * np.array([1, 2, 0.5])[X["id"] % 3]
    y = y + rng.normal(size=180)
    batches = [(X[:90], y[:90]), (X[90:], y[90:])]
    model = MixedEffectsRegressor([term], fixed_effects=["x"])
    # Nothing is known of an arm beside another one.
    with pytest.warns(UserWarning, match="do not identify 'corr"):
        related = fit(X, y, "cs(0 + arm | id)")
    if term.startswith("(1"):
        with pytest.warns(UserWarning, match="do not identify .*arm"):
            apart = fit(X, y, term)
        with pytest.warns(UserWarning, match="do not identify .*arm"):
            model.fit_batches(batches)
    else:
        apart = fit(X, y, term)
        model.fit_batches(batches)
    assert apart.loglik_ == pytest.approx(related.loglik_, abs=1e-4)
    assert model.loglik_ == pytest.approx(related.loglik_, abs=1e-4)
    # One row a cell is refused as ever.
    one = X.assign(arm=pd.Categorical(np.tile(["a", "b", "c"], 60)))
    with pytest.raises(ValueError, match="no fewer than the 180 rows"):
        fit(one, y, term)
    with pytest.raises(ValueError, match="no fewer than the 180 rows"):
        model.fit_batches([(one, y)])


@pytest.mark.parametrize("term", ["toep(0 + t | id)", "ar1(0 + t | id, hom=FALSE)"])
def test_places_of_which_nothing_tells_are_left_out(panel, term):
    """Categories without rows at either end; one between others keeps the distance of these."""
    rng = np.random.default_rng(1)
    X, y = (pd.concat([own, own], ignore_index=True) for own in panel)
    y = y + 0.5 * rng.normal(size=len(y))
    few = fit(X.assign(t=pd.Categorical(X["t"])), y, term)
    more = fit(X.assign(t=pd.Categorical(X["t"], range(6, 14))), y, term)
    pd.testing.assert_frame_equal(more.variance_components_, few.variance_components_, rtol=1e-6)
    assert np.isfinite(more.variance_components_["std_error"]).all()
    some, missing = X["t"] != 10, X[X["t"] != 10].assign(t=lambda own: pd.Categorical(own["t"]))
    gap = missing.assign(t=missing["t"].cat.set_categories(range(8, 13)))
    with pytest.warns(UserWarning, match=r"do not identify 'sd\(id, t\[10\]\)'"):
        shown = fit(gap, y[some], term).variance_components_.set_index("name")["std_error"]
    assert np.isfinite(shown[[f"t[{place}]" for place in (8, 9, 11, 12)]]).all()
    # Batches may have the others later.
    model = MixedEffectsRegressor([term], fixed_effects=["x"])
    X = X.assign(t=pd.Categorical(X["t"]))
    last = X["t"] == 12
    model.fit_batches([(X[~last], y[~last]), (X[last], y[last])])
    assert model.loglik_ == pytest.approx(few.loglik_, abs=1e-4)
