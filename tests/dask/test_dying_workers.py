"""Workers that die in the middle of a fit: the same numbers, whoever makes them."""

import os
import signal

import dask.dataframe as dd
import numpy as np
import pytest
from distributed import Client, LocalCluster, WorkerPlugin

from sklmm import MixedEffectsRegressor
from sklmm.dask import DaskMixedEffectsRegressor, sums
from tests.dask.test_cluster import assert_empty
from tests.dask.test_faults import MODEL, of_parts
from tests.test_batches import assert_same, table

#: Partitions enough for sums of some to be joined before the last.
N = 2 * sums.MANY + 4


@pytest.fixture(scope="module")
def cluster():
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as cluster:
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


#: Functions of `sums` that are tasks.
MOMENTS = ("head_of", "add", "join", "solve")


class Dying(WorkerPlugin):
    """Let the first worker that calls a function of `sums` die there, one for each function."""

    name = "dying"

    def __init__(self, folder):
        self.folder = folder

    def setup(self, worker):
        for name in MOMENTS:
            before = getattr(sums, name)

            def dies(*arguments, name=name, before=before):
                dies_once(f"{self.folder}/{name}")
                return before(*arguments)

            setattr(sums, name, dies)


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
        client.wait_for_workers(n, timeout=60)
        np.testing.assert_array_equal(numbers(fit(of_parts(as_it_is, frame, N))), numbers(whole))


def test_workers_that_die_at_any_moment(client, frame, whole, tmp_path):
    def make(number, part):
        if number == 7:
            dies_once(str(tmp_path / "reading"))
        return part

    client.register_plugin(Dying(str(tmp_path)))
    model = fit(of_parts(make, frame, N))
    client.unregister_worker_plugin("dying")
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted((*MOMENTS, "reading"))
    np.testing.assert_array_equal(numbers(model), numbers(whole))
    assert_empty(client)


def test_scattered_partitions_of_a_dead_worker(client, frame):
    client.wait_for_workers(2, timeout=60)
    one, two = list(client.nthreads())[:2]
    parts = [frame.iloc[own] for own in np.array_split(np.arange(len(frame)), 4)]
    futures = [client.scatter(own, workers=[(one, two)[i % 2]]) for i, own in enumerate(parts)]
    columns = dd.from_delayed(futures, meta=frame.iloc[:0], verify_meta=False)
    whole = MixedEffectsRegressor(**MODEL).fit(frame, frame["stars"])
    assert_same(fit(columns), whole, frame)
    os.kill(client.run(os.getpid, workers=[one])[one], signal.SIGKILL)
    with pytest.raises(RuntimeError, match="lost"):
        fit(columns)
    assert_empty(client, futures)


def test_a_partition_at_which_workers_die(client, frame):
    def make(number, part):
        if number == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return part

    client.run_on_scheduler(lambda dask_scheduler: setattr(dask_scheduler, "allowed_failures", 0))
    model = DaskMixedEffectsRegressor(**MODEL)
    before = vars(model).copy()
    columns = of_parts(make, frame)
    with pytest.raises(RuntimeError, match=r"^1 worker\(s\) died.*repartition"):
        model.fit(columns, columns["stars"])
    assert vars(model) == before
    assert_empty(client)
