"""Models of families without sums on a cluster of two processes, beside those of one machine."""

import os
import signal
from collections import Counter

import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from distributed import Client, LocalCluster

from sklmm import HMC, MixedEffectsClassifier, MixedEffectsRegressor
from sklmm.dask import DaskMixedEffectsClassifier, DaskMixedEffectsRegressor, sharded
from sklmm.dask.sharded import OnCluster
from tests.dask.test_cluster import assert_empty

CROSSED = ["students", "instructors", "departments"]
TOL = {"laplace": "auto", "hmc": 0.1}


def small(n=900):
    """A table with a count, classes, weights and an offset."""
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"g": rng.integers(40, size=n).astype(str), "h": rng.integers(20, size=n)})
    X["x"], X["o"] = rng.normal(size=n), rng.normal(size=n) / 10
    eta = 0.3 * X["x"] + rng.normal(size=40)[X["g"].astype(int)] / 2
    eta += rng.normal(size=20)[X["h"]] / 2
    X["count"] = rng.poisson(np.exp(eta + X["o"])) + 0.0
    X["class"] = np.array(["a", "b", "c"])[np.digitize(eta + rng.logistic(size=n), [-1, 1])]
    X["w"] = rng.integers(4, size=n) + 0.0
    return X


def distance(one, two):
    """The largest difference of two models' estimates, in standard errors."""
    values = [np.concatenate([m.result_.coef, m.result_.natural]) for m in (one, two)]
    se = np.sqrt(np.diag(two.result_.natural_cov))
    return np.nanmax(np.abs(values[0] - values[1]) / np.where(se > 0, se, 1))


@pytest.fixture(scope="module")
def ratings(insteval):
    X, y = insteval
    return X[[*CROSSED, "service"]].assign(good=y > 3)


@pytest.fixture(scope="module")
def whole(ratings):
    """The local model of InstEval by each E-step."""
    found = {}

    def fit(name):
        if name not in found:
            e_step = HMC(backend="numpy") if name == "hmc" else name
            model = MixedEffectsClassifier(CROSSED, e_step=e_step, tol=TOL[name], random_state=0)
            found[name] = model.fit(ratings.drop(columns="good"), ratings["good"])
        return found[name]

    return fit


@pytest.mark.parametrize("e_step", ["laplace", "hmc"])
def test_insteval(client, ratings, whole, e_step):
    table, local = dd.from_pandas(ratings, npartitions=5), whole(e_step)
    model = DaskMixedEffectsClassifier(CROSSED, e_step=e_step, tol=TOL[e_step], random_state=0)
    model.fit(table.drop(columns="good"), table["good"])
    if e_step == "laplace":
        assert distance(model, local) < 1e-6
        assert model.loglik_ == pytest.approx(local.loglik_, abs=1e-4)
    else:
        error = local.result_.mc_error
        away = [np.concatenate([m.result_.coef, m.result_.natural]) for m in (model, local)]
        np.testing.assert_array_less(np.abs(away[0] - away[1]), 0.1 * error)
        assert model.loglik_ == pytest.approx(local.loglik_, abs=4 * local.loglik_error_)
    assert model.classes_.tolist() == [False, True]


def test_three_classes(client):
    X = small()
    table, columns = dd.from_pandas(X, npartitions=4), ["g", "x"]
    known = {"random_state": 0, "max_iter": 8, "e_step": HMC(backend="numpy", n_chains=4)}
    with pytest.warns(UserWarning, match="max_iter"):
        local = MixedEffectsClassifier(["g"], **known).fit(X[columns], X["class"])
    model = DaskMixedEffectsClassifier(["g"], **known)
    with pytest.warns(UserWarning, match="max_iter"):
        model.fit(table[columns], table["class"])
    assert distance(model, local) < 1e-3
    assert model.classes_.tolist() == ["a", "b", "c"]


@pytest.mark.parametrize("n", [1, 8])
def test_counts_with_offset_and_weights(client, n):
    X, columns = small(), ["g", "h", "x", "o"]
    table = dd.from_pandas(X, npartitions=n)
    known = {"family": "poisson", "e_step": "laplace", "offset": "o", "random_state": 0}
    local = MixedEffectsRegressor(["(1 + x | g)", "h"], **known)
    local.fit(X[columns], X["count"], X["w"])
    model = DaskMixedEffectsRegressor(["(1 + x | g)", "h"], **known)
    model.fit(table[columns], table["count"], table["w"])
    assert distance(model, local) < 1e-6
    assert model.loglik_ == pytest.approx(local.loglik_)
    found = model.predict(table[columns]).compute()
    np.testing.assert_allclose(found, local.predict(X[columns]), rtol=1e-5)


def test_many_shards_are_added_on_the_workers(monkeypatch):
    X, columns = small(), ["g", "h", "x"]
    table = dd.from_pandas(X, npartitions=9)
    known = {"family": "poisson", "e_step": "laplace", "random_state": 0}
    local = MixedEffectsRegressor(["g", "h"], **known).fit(X[columns], X["count"])
    model = DaskMixedEffectsRegressor(["g", "h"], **known)
    monkeypatch.setattr("sklmm.dask.sharded.MANY", 2)
    monkeypatch.setattr("sklmm.dask.sharded.LARGE", 100)
    threads = {"n_workers": 1, "threads_per_worker": 7, "processes": False}
    with Client(**threads, dashboard_address=":0", set_as_default=False) as own:
        model.client = own
        assert distance(model.fit(table[columns], table["count"]), local) < 1e-6
        assert_empty(own)


def test_workers_that_come_after_the_fit_has_begun(monkeypatch):
    X, columns = small(), ["g", "h", "x"]
    table = dd.from_pandas(X, npartitions=8)
    joined, groups, places = OnCluster.joined, [], []

    def counted(self, function, parts, own, *arguments):
        groups.append(len(own))
        places.append(self._threads_for([[parts[i].future for i in group] for group in own]))
        return joined(self, function, parts, own, *arguments)

    def begun(*given):
        cluster.scale(2)
        own.wait_for_workers(2)
        return begun_by(*given)

    begun_by = sharded.begun_by
    monkeypatch.setattr(sharded, "begun_by", begun)
    monkeypatch.setattr(OnCluster, "joined", counted)
    model = DaskMixedEffectsRegressor(["g"], family="poisson", e_step="laplace")
    workers = {"n_workers": 1, "threads_per_worker": 1, "processes": False}
    with (
        LocalCluster(**workers, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as own,
    ):
        model.client = own
        model.fit(table[columns], table["count"])
        monkeypatch.setattr("sklmm._estimators.sharded.LARGEST", 10_000)
        model.fit(table[columns], table["count"])
    assert groups == [2, 5]
    # Two or three of the five.
    assert min(Counter(places[1]).values()) == 2


def test_a_worker_that_dies_in_the_loop(monkeypatch):
    X, columns = small(), ["g", "h", "x"]
    table = dd.from_pandas(X, npartitions=5)
    model = DaskMixedEffectsRegressor(["g", "h"], family="poisson", e_step="laplace")
    gathered, seen, deaths = OnCluster._gathered, [], []

    def killing(self, futures):
        seen.append(futures)
        if len(seen) in deaths:
            os.kill(next(iter(self.cluster.client.run(os.getpid).values())), signal.SIGKILL)
        return gathered(self, futures)

    monkeypatch.setattr(OnCluster, "_gathered", killing)
    cluster = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0")
    with cluster, Client(cluster, set_as_default=False) as own:
        model.client, found = own, []
        for when in ([], [25]):
            seen.clear()
            deaths[:] = when
            found.append(model.fit(table[columns], table["count"]).result_)
            assert len(seen) > 30
    # To the last bit.
    np.testing.assert_array_equal(found[0].coef, found[1].coef)
    np.testing.assert_array_equal(found[0].natural, found[1].natural)
    assert found[0].loglik == found[1].loglik


def test_no_task_stays(client):
    X, columns = small(), ["g", "h", "x"]
    table = dd.from_pandas(X.assign(count=X["count"] - (X.index == 700) * 99), npartitions=3)
    model = DaskMixedEffectsRegressor(["g"], family="poisson", e_step="laplace")
    with pytest.raises(ValueError, match=r"partition 2: Poisson: y must be"):
        model.fit(table[columns], table["count"])
    assert not hasattr(model, "result_")
    for e_step in ("nuts", HMC(backend="tensorflow")):
        with pytest.raises(ValueError, match="use 'laplace', or 'hmc'"):
            model.set_params(e_step=e_step).fit(table[columns], table["count"])
    assert_empty(client)


def test_a_fit_that_is_interrupted(client, monkeypatch):
    X, columns = small(), ["g", "h", "x"]
    table, gathered, seen = dd.from_pandas(X, npartitions=3), OnCluster._gathered, []

    def interrupted(self, futures):
        seen.append(futures)
        if len(seen) == 20:
            raise KeyboardInterrupt
        return gathered(self, futures)

    monkeypatch.setattr(OnCluster, "_gathered", interrupted)
    model = DaskMixedEffectsRegressor(["g"], family="poisson", e_step="laplace")
    with pytest.raises(KeyboardInterrupt):
        model.fit(table[columns], table["count"])
    assert not hasattr(model, "result_")
    assert_empty(client)


def test_arrays(client):
    X = small()
    columns, y = X[["h", "x"]].to_numpy(), (X["count"] > 1).to_numpy() * 2
    known = {"e_step": "laplace", "random_state": 0}
    local = MixedEffectsClassifier([0], **known).fit(columns, y, X["w"].to_numpy())
    blocks = [da.from_array(own, chunks=250) for own in (columns, y, X["w"].to_numpy())]
    model = DaskMixedEffectsClassifier([0], **known).fit(*blocks)
    assert distance(model, local) < 1e-6
    assert model.classes_.tolist() == [0, 2]
    found = model.predict_proba(blocks[0]).compute()
    np.testing.assert_allclose(found, local.predict_proba(columns), rtol=1e-5)


def test_lines_of_progress(client, capsys):
    X, columns = small(), ["g", "x"]
    table = dd.from_pandas(X, npartitions=2)
    model = DaskMixedEffectsRegressor(["g"], family="poisson", e_step="laplace", verbose=10)
    model.fit(table[columns], table["count"])
    assert "iteration    1" in capsys.readouterr().out
