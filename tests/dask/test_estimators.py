"""Estimators of Dask collections beside the local ones."""

import dask.dataframe as dd
import numpy as np
import pytest

from sklmm import MixedEffectsRegressor
from sklmm.dask import DaskMixedEffectsRegressor
from tests.test_batches import assert_same, table


@pytest.fixture(scope="module")
def rows():
    X, y = table(np.random.default_rng(0), 400)
    X.index = y.index = np.random.default_rng(1).permutation(400)
    return X, y.rename("stars")


def collections(rows, n=5):
    X, y = rows
    joint = dd.from_pandas(X.assign(stars=y), npartitions=n, sort=False)
    return joint[list(X)], joint["stars"]


@pytest.fixture(scope="module")
def models(client, rows):
    model = DaskMixedEffectsRegressor(["g", "h"], random_state=0)
    return model.fit(*collections(rows)), MixedEffectsRegressor(["g", "h"], random_state=0).fit(
        *rows
    )


def test_the_fit_is_the_local_one(models, rows):
    model, local = models
    assert_same(model.to_local(), local, rows[0])
    assert model.to_local().get_params() == local.get_params()
    assert model.feature_names_in_.tolist() == list(rows[0])
    assert type(model.to_local()) is MixedEffectsRegressor
    assert str(model.summary()) == str(model.to_local().summary())
