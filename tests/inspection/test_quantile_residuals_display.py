"""`QuantileResidualsDisplay`: what is on its axes, of few rows and of many."""

import numpy as np
import pandas as pd
import pytest

from sklmm import MixedEffectsClassifier, MixedEffectsRegressor
from sklmm.inspection import QuantileResidualsDisplay
from tests.simulate import simulate


@pytest.fixture(scope="module")
def counts():
    X, y, _, _ = simulate("poisson", 0)
    return (
        X,
        y,
        MixedEffectsRegressor(["g"], fixed_effects=["x"], family="poisson", e_step="laplace").fit(
            X, y
        ),
    )


def test_uniform_ones_are_on_the_diagonal(counts):
    X, y, model = counts
    display = QuantileResidualsDisplay.from_estimator(model, X, y, random_state=0)
    theory, own = display.ax_.lines[-1].get_data()
    assert np.abs(theory - own).max() < 1.358 / np.sqrt(len(y))
    assert display.ax_.get_title().startswith("Kolmogorov-Smirnov p = 0.")


def test_the_means_are_those_of_the_effects_drawn(counts):
    X, y, model = counts
    display = QuantileResidualsDisplay.from_estimator(
        model, X, y, kind="dispersion", random_state=0
    )
    np.testing.assert_array_equal(display.residuals, model.quantile_residuals(X, y, random_state=0))
    fitted = model.predict(X)
    assert 0.9 < np.corrcoef(display.predicted, fitted)[0, 1] < 0.9999
    assert display.ax_.get_title().startswith("dispersion ")


def test_zeros_are_counted(counts):
    X, y, model = counts
    display = QuantileResidualsDisplay.from_estimator(model, X, y, kind="zeros", random_state=0)
    found, mean, sd, _ = display.zeros
    assert found == np.sum(y == 0)
    assert abs(found - mean) < 4 * sd
    with pytest.raises(ValueError, match="made for another kind"):
        display.plot(kind="group")
    gaussian = MixedEffectsRegressor(["g"]).fit(X, np.log(y + 1))
    with pytest.raises(ValueError, match="has no zeros of its own"):
        QuantileResidualsDisplay.from_estimator(gaussian, X, np.log(y + 1), kind="zeros")


def test_groups_are_a_column_or_levels(counts):
    X, y, model = counts
    display = QuantileResidualsDisplay.from_estimator(model, X, y, kind="group", random_state=0)
    assert len(display.ax_.get_yticks()) == 40
    half = np.where(np.arange(len(y)) % 2, "odd", "even")
    display = QuantileResidualsDisplay.from_estimator(model, X, y, kind="group", group=half)
    assert {t.get_text() for t in display.ax_.get_yticklabels()} == {"odd", "even"}
    one = QuantileResidualsDisplay.from_estimator(
        model, X.assign(z=half), y, kind="group", group="z", random_state=1
    )
    assert one.groups.tolist() == half.tolist()
    with pytest.raises(ValueError, match="'nothing' is neither a term of the model nor a column"):
        QuantileResidualsDisplay.from_estimator(model, X, y, kind="group", group="nothing")
    with pytest.raises(ValueError, match=f"group: it has 3 labels and X {len(y)} rows"):
        QuantileResidualsDisplay.from_estimator(model, X, y, kind="group", group=half[:3])


@pytest.mark.parametrize("kind", ["array", "polars"])
def test_groups_are_columns_of_any_table(counts, kind):
    X, y, _ = counts
    table = X[["g", "x"]].assign(half=np.arange(len(y)) % 2)
    table, group, term = {
        "array": (table.to_numpy(), 2, 0),
        "polars": (pytest.importorskip("polars").from_pandas(table), "half", "g"),
    }[kind]
    model = MixedEffectsRegressor([term], family="poisson", e_step="laplace").fit(table, y)
    display = QuantileResidualsDisplay.from_estimator(model, table, y, kind="group", group=group)
    assert display.groups.tolist() == (np.arange(len(y)) % 2).tolist()


def test_a_term_of_two_columns_is_one_of_their_pairs(counts):
    X, y, _ = counts
    X = X.assign(half=np.where(np.arange(len(y)) % 2, "odd", "even"))
    model = MixedEffectsRegressor(["(1 | half:g)"], fixed_effects=["x"]).fit(X, y)
    for group in (None, "half:g"):
        display = QuantileResidualsDisplay.from_estimator(model, X, y, kind="group", group=group)
        assert display.groups.tolist() == (X["half"] + ":" + X["g"].astype(str)).tolist()


def test_classes_have_theirs():
    X, y, _, _ = simulate("ordinal", 0)
    model = MixedEffectsClassifier(["g"], family="ordinal", e_step="laplace").fit(X, y)
    display = QuantileResidualsDisplay.from_estimator(model, X, y, kind="dispersion")
    assert display.predicted.max() <= 3


def test_many_rows_and_groups_are_few_things_to_draw():
    rng, n = np.random.default_rng(0), 50_000
    display = QuantileResidualsDisplay(
        residuals=rng.random(n),
        predicted=rng.normal(size=n),
        groups=pd.Series(rng.integers(6000, size=n)),
        zeros=None,
    )
    display.plot()
    assert len(display.ax_.lines[-1].get_xdata()) <= 512
    display.plot(kind="dispersion")
    assert len(display.ax_.collections[0].get_array()) < 2000
    display.plot(kind="group")
    assert len(display.ax_.patches) == 60
