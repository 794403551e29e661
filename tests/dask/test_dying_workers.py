"""Workers that die in the middle of a fit: the same numbers, whoever makes them."""

import os
import signal
from contextlib import contextmanager

import dask.dataframe as dd
import numpy as np
import pytest
from distributed import Client, LocalCluster

from sklmm import MixedEffectsRegressor
from sklmm.dask import DaskMixedEffectsRegressor, sums
from tests.dask.test_cluster import assert_empty
from tests.dask.test_faults import MODEL, of_parts
from tests.test_batches import assert_same, table

#: Partitions enough for sums of some to be joined before the last.
N = 20


@pytest.fixture(scope="module")
def cluster():
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def client(cluster):
    with Client(cluster) as client:
        yield client


@pytest.fixture(scope="module")
def frame():
    X, y = table(np.random.default_rng(0), 600)
    return X.assign(stars=y)


def fit(columns):
    return DaskMixedEffectsRegressor(**MODEL).fit(columns, columns["stars"]).to_local()


def numbers(model):
    """All that a fit has estimated."""
    result = model.result_
    arrays = [result.coef, result.coef_cov, result.natural, *result.effects, *result.effects_std]
    return np.concatenate([np.ravel(own) for own in arrays])


def dies_once(path):
    """Let this process die, if it is the first that asks."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def dying_at(client, name, path):
    """Workers of which the first that calls a function of `sums` dies there."""

    def install():
        before = getattr(sums, name)

        def dies(*arguments):
            dies_once(path)
            return before(*arguments)

        setattr(sums, name, dies)
        return before.__name__

    client.run(install)
    yield
    assert os.path.exists(path)


@pytest.fixture(scope="module")
def whole(client, frame):
    """The fit of one worker."""
    return fit(of_parts(as_it_is, frame, N))


def as_it_is(number, part):
    return part


def test_the_numbers_of_one_two_and_three_workers(client, cluster, frame, whole):
    local = MixedEffectsRegressor(**MODEL).fit(frame, frame["stars"])
    assert_same(whole, local, frame)
    for n in (2, 3):
        cluster.scale(n)
        client.wait_for_workers(n)
        np.testing.assert_array_equal(numbers(fit(of_parts(as_it_is, frame, N))), numbers(whole))
    cluster.scale(2)


@pytest.mark.parametrize("moment", ["begin", "add", "join", "solve"])
def test_a_worker_that_dies(client, frame, whole, tmp_path, moment):
    client.wait_for_workers(2)
    with dying_at(client, moment, str(tmp_path / "died")):
        model = fit(of_parts(as_it_is, frame, N))
    np.testing.assert_array_equal(numbers(model), numbers(whole))
    assert_empty(client)


def test_a_worker_that_dies_reading_a_partition(client, frame, whole, tmp_path):
    def make(number, part):
        if number == 7:
            dies_once(str(tmp_path / "died"))
        return part

    np.testing.assert_array_equal(numbers(fit(of_parts(make, frame, N))), numbers(whole))


def test_a_partition_at_which_every_worker_dies(client, frame):
    def make(number, part):
        if number == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return part

    client.run_on_scheduler(lambda dask_scheduler: setattr(dask_scheduler, "allowed_failures", 1))
    model = DaskMixedEffectsRegressor(**MODEL)
    before = vars(model).copy()
    columns = of_parts(make, frame)
    with pytest.raises(RuntimeError, match=r"^2 workers died.*repartition"):
        model.fit(columns, columns["stars"])
    assert vars(model) == before
    client.run_on_scheduler(lambda dask_scheduler: setattr(dask_scheduler, "allowed_failures", 3))
    assert_empty(client)


def test_scattered_partitions_of_a_dead_worker(client, frame):
    client.wait_for_workers(2)
    addresses = list(client.nthreads())
    parts = np.array_split(np.arange(len(frame)), 4)
    parts = [frame.iloc[own] for own in parts]
    futures = [client.scatter(own, workers=[addresses[i % 2]]) for i, own in enumerate(parts)]
    columns = dd.from_delayed(futures, meta=frame.iloc[:0], verify_meta=False)
    whole = MixedEffectsRegressor(**MODEL).fit(frame, frame["stars"])
    assert_same(fit(columns), whole, frame)
    pid = client.run(os.getpid, workers=[addresses[0]])[addresses[0]]
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(RuntimeError, match="lost"):
        fit(columns)
    assert_empty(client)
