"""Tasks of a fit on a cluster: their errors are ours, and none of them stays."""

import time

import pytest

from sklmm._threads import n_threads
from sklmm.dask.cluster import (
    Fault,
    last_client,
    running_client,
    session,
    whole_host,
)


def fails(number):
    if number % 2:
        raise ValueError(f"the column 'x' has {number}")
    return number


def tasks_left(client):
    return client.run_on_scheduler(lambda dask_scheduler: list(dask_scheduler.tasks))


def assert_empty(client, futures=()):
    """No task is left, but futures of the caller's own."""
    known = {future.key for future in futures}
    for _ in range(100):
        if not (left := set(tasks_left(client)) - known):
            return
        time.sleep(0.05)
    raise AssertionError(left)


def test_without_a_client(no_client):
    assert last_client() is None
    with pytest.raises(RuntimeError, match=r"from dask.distributed import Client; client = Client"):
        running_client(last_client())


def test_tasks_hand_faults_on_and_leave_nothing(client, capfd):
    with session(client) as cluster:
        numbers = [cluster.submit("number", fails, i, which=f"partition {i}") for i in range(4)]
        total = cluster.submit("total", sum, numbers)
        assert cluster.result(numbers[2]) == 2
        with pytest.raises(ValueError, match=r"^partition 1: the column 'x' has 1$"):
            cluster.result(total)
        assert isinstance(total.result(), Fault)
    assert_empty(client)
    assert "Traceback" not in capfd.readouterr().err


def test_errors_of_other_kinds_are_raised_as_they_are(client):
    with session(client) as cluster, pytest.raises(ZeroDivisionError):
        cluster.result(cluster.submit("number", lambda: 1 / 0))


def test_the_scheduler_knows_how_much_answers_take(client):
    with session(client) as cluster:
        known = [cluster.submit("bytes", bytes, size) for size in (10_000, 20_000)]
        assert 30_000 <= cluster.nbytes(known) < 31_000
        with pytest.raises(ValueError, match="has 1"):
            cluster.nbytes([*known, cluster.submit("number", fails, 1)])


def test_threads_of_a_task_are_its_own_and_the_host_s_together(client):
    def both(threads):
        with whole_host(threads):
            return n_threads()

    with session(client) as cluster:
        assert cluster.result(cluster.submit("threads", n_threads)) == 1
        assert cluster.result(cluster.submit("threads", both, cluster.host_threads())) == 2
