"""Tables that are made when they are asked for: of the fit that they are asked of, and saved."""

import pickle

import pandas as pd
import pytest

from sklmm import MixedEffectsRegressor
from sklmm._estimators.attributes import TABLES
from sklmm.datasets import load_sleepstudy


@pytest.fixture(scope="module")
def sleep():
    return load_sleepstudy(return_X_y=True, as_frame=True)


@pytest.fixture
def model(sleep):
    return MixedEffectsRegressor(["Subject"], fixed_effects=["Days"]).fit(*sleep)


def equal(one, other):
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[k], other[k]) for k in one)
    if one is None or other is None:
        return one is other
    return type(one) is type(other) and untimed(one).equals(untimed(other))


def untimed(table):
    return table.drop(columns="seconds", errors="ignore") if table.ndim == 2 else table


def test_there_are_none_before_a_fit_and_they_are_kept_after(model):
    new = MixedEffectsRegressor(["Subject"])
    for name in TABLES:
        assert not hasattr(new, name)
        assert getattr(model, name) is getattr(model, name)
    with pytest.raises(
        AttributeError, match=r"'MixedEffectsRegressor'.*'cov_re_' before it is fit"
    ):
        new.cov_re_  # noqa: B018


def test_another_fit_has_its_own(model, sleep):
    X, y = sleep
    before = model.fixed_effects_
    model.fit(X, 2 * y)
    pd.testing.assert_series_equal(
        model.fixed_effects_["estimate"], 2 * before["estimate"], rtol=1e-5
    )


@pytest.mark.parametrize("asked", [True, False])
def test_an_update_changes_those_of_the_effects_alone(model, sleep, asked):
    X, y = sleep
    fitted = MixedEffectsRegressor(["Subject"], fixed_effects=["Days"]).fit(X, y)
    if asked:
        model._make_tables()
    model.update(X[-1:].assign(Subject=999), y[-1:])
    for name in TABLES:
        same = equal(getattr(model, name), getattr(fitted, name))
        assert same != (name in ("random_effects_", "random_effects_std_"))
    assert 999 in model.random_effects_["Subject"].index


def test_all_are_saved_and_saving_asks_for_none(model):
    before = list(vars(model))
    again = pickle.loads(pickle.dumps(model))
    assert list(vars(model)) == before
    assert set(TABLES) <= vars(again).keys()
    assert all(equal(getattr(again, name), getattr(model, name)) for name in TABLES)
