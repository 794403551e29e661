"""Gaussian models whose pairs of levels stay on the workers of a cluster of two processes."""

import os
import pickle
import signal

import numpy as np
import pytest
from dask.sizeof import sizeof

from sklmm import MixedEffectsRegressor
from sklmm.dask import DaskMixedEffectsRegressor, sums
from sklmm.dask.sharded import OnCluster, Sent
from tests.dask.test_cluster import assert_empty
from tests.dask.test_dying_workers import as_it_is, numbers
from tests.dask.test_faults import of_parts
from tests.test_batches import assert_same, table

MODEL = {"random_effects": ["(1 + x | g)", "h", "k"], "fixed_effects": ["x", "t"]}


@pytest.fixture(autouse=True)
def owners(monkeypatch):
    monkeypatch.setattr(sums, "SHARE", 0.0)


@pytest.fixture(scope="module")
def frame():
    rng = np.random.default_rng(0)
    X, y = table(rng, 600)
    return X.assign(k=rng.integers(0, 30, 600), stars=y)


def fit(frame, **parameters):
    model = DaskMixedEffectsRegressor(**MODEL, **parameters, random_state=0)
    return model.fit(frame, frame["stars"]).to_local()


@pytest.fixture
def calls(monkeypatch):
    """Names of what the workers are asked, with `at`: functions by the number of the call."""
    names = Calls()

    def counted(ask):
        def asked(executor, function, *arguments):
            names.append(function.__name__)
            names.at.pop(len(names), lambda: None)()
            return ask(executor, function, *arguments)

        return asked

    for ask in (OnCluster.told, OnCluster.summed):
        monkeypatch.setattr(OnCluster, ask.__name__, counted(ask))
    return names


class Calls(list):
    def __init__(self):
        self.at = {}


@pytest.mark.parametrize("e_step", ["exact", "cg"])
def test_pairs_that_stay_give_the_fit_of_one_machine(client, frame, calls, e_step):
    model = fit(of_parts(as_it_is, frame, 20), e_step=e_step)
    assert {"exact": "matrix", "cg": "around"}[e_step] in calls
    local = MixedEffectsRegressor(**MODEL, e_step=e_step, random_state=0)
    assert_same(model, local.fit(frame, frame["stars"]), frame)
    assert_empty(client)


def test_partitions_without_rows_and_callbacks(client, frame, capsys):
    def make(number, part):
        return part.iloc[:0] if number == 2 else part

    model = fit(of_parts(make, frame), verbose=1)
    assert "iteration" in capsys.readouterr().out.lower()
    some = frame.drop(index=frame.index[240:360])
    local = MixedEffectsRegressor(**MODEL, random_state=0).fit(some, some["stars"])
    assert_same(model, local, some)


def test_a_worker_that_dies_in_the_loop(client, frame, calls):
    whole = fit(of_parts(as_it_is, frame, 20), e_step="cg")
    middle = len(calls) // 2
    calls.clear()

    def kill():
        assert calls[-1] in ("around", "down", "up")
        os.kill(next(iter(client.run(os.getpid).values())), signal.SIGKILL)

    calls.at[middle] = kill
    again = fit(of_parts(as_it_is, frame, 20), e_step="cg")
    assert not calls.at
    np.testing.assert_array_equal(numbers(again), numbers(whole))
    assert_empty(client)


@pytest.mark.parametrize("copy", [False, True])
def test_what_is_sent_is_opened_by_the_task_alone(copy):
    array = np.arange(6.0)
    sent = Sent((array, lambda: 3), copy)
    for _ in range(2):
        # On its way through the scheduler.
        buffers = []
        state = pickle.dumps(sent, protocol=5, buffer_callback=buffers.append)
        assert len(buffers) == (not copy)
        sent = pickle.loads(state, buffers=[bytearray(own) for own in buffers])
    own, function = sent.given()
    np.testing.assert_array_equal(own, array)
    assert function() == 3
    assert own.flags.writeable
    assert sizeof(sent) > sent.nbytes > array.nbytes
