import os
import threading
import time
import warnings

import joblib
import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from sklmm._threads import in_threads, n_threads, single_blas


def blas():
    """Threads of each BLAS library."""
    return [lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas"]


@pytest.fixture
def two_threads(monkeypatch):
    """As on two quiet cores, whatever there is."""
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    with threadpool_limits(2):
        if min(blas()) < 2:
            pytest.skip("BLAS was built or started for one thread")
        yield


@pytest.mark.parametrize(("value", "expected"), [("2,1", 2), ("1", 1), ("many", None), ("", None)])
def test_the_share_of_the_cores(monkeypatch, value, expected):
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    assert n_threads() == min(expected or joblib.cpu_count(), *blas())


def test_a_limit_on_blas_is_one_on_threads(two_threads):
    assert n_threads() == 2
    with threadpool_limits(1, user_api="blas"):
        assert n_threads() == 1
    assert n_threads() == 2


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_workers_of_joblib_share_the_cores(backend):
    """Those of processes each their part, those of threads one pool beside themselves."""

    def name(_):
        time.sleep(0.01)
        return threading.current_thread().name

    def used(_):
        return os.getpid(), set(in_threads(name, range(6)))

    workers = joblib.Parallel(2, backend=backend)(joblib.delayed(used)(i) for i in range(4))
    threads = {(pid, name) for pid, names in workers for name in names if "sklmm" in name}
    assert len(threads) <= max(joblib.cpu_count(), 2) - 1


def test_answers_come_in_order_and_from_several_threads(two_threads):
    def slow(i, j):
        time.sleep(0.02 if i == 0 else 0.0)
        return i * j, threading.current_thread().name

    answers = in_threads(slow, range(20), range(1, 21))
    assert [value for value, _ in answers] == [i * (i + 1) for i in range(20)]
    assert len({name for _, name in answers}) == 2


def test_a_call_within_a_call_does_not_wait_for_the_same_threads(two_threads):
    inner = in_threads(
        lambda i: (n_threads(), sum(in_threads(lambda j: i + j, range(3)))), [1, 2, 3]
    )
    assert inner == [(1, 6), (1, 9), (1, 12)]


def test_an_error_is_the_callers_and_its_context_the_functions(two_threads):
    with pytest.raises(ZeroDivisionError):
        in_threads(lambda i: 1 / i, [1, 0, 1])
    if np.lib.NumpyVersion(np.__version__) >= "2.0.0":
        # Before, this setting is a thread's own.
        with np.errstate(divide="ignore"), warnings.catch_warnings():
            warnings.simplefilter("error")
            in_threads(lambda i: np.ones(2) / i, np.zeros(4))
    assert min(blas()) == 2


def test_blas_is_held_to_one_thread_and_what_was_before_comes_back(two_threads):
    held = []

    def hold():
        with single_blas():
            held.append(blas())

    with single_blas():
        with single_blas():
            assert set(blas()) == {1}
        assert n_threads() == 2
        other = threading.Thread(target=hold)
        other.start()
        other.join()
        assert set(blas()) == {1}
    assert set(held[0]) == {1}
    assert set(blas()) == {2}
    hold()
    assert set(blas()) == {2}
    with pytest.raises(KeyError), single_blas():
        raise KeyError
    assert set(blas()) == {2}
