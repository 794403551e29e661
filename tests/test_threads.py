import os
import platform
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import joblib
import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from sklmm._threads import (
    Shared,
    ahead,
    in_threads,
    n_threads,
    return_freed_memory,
    sharing,
    single_blas,
)


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


def test_who_shares_a_machine_says_how_many(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with sharing(3):
        assert n_threads() == 3
        assert in_threads(lambda _: n_threads(), range(2)) == [1, 1]
        with sharing(2):
            assert n_threads() == 2
        assert n_threads() == 3
    assert n_threads() == 1


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
@pytest.mark.parametrize("limit", [None, "65536"])
def test_freed_memory_is_kept_whatever_the_environment_says(limit):
    code = """
import resource
import numpy as np
from sklmm._threads import keep_freed_memory

keep_freed_memory()
for _ in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        np.ones(10**6)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    env = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    env |= {"MALLOC_TRIM_THRESHOLD_": limit} if limit else {}
    found = subprocess.run(
        [sys.executable, "-c", code], env=env, check=True, capture_output=True, text=True
    )
    # 20 x 8 MB are 39,000 pages.
    assert int(found.stdout) < 2000


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


def test_what_is_done_ahead_comes_in_order_and_little_of_it_waits(two_threads):
    taken, done = [], []

    def items():
        for i in range(20):
            # Whoever gives them is asked in one thread, the caller's.
            taken.append(threading.current_thread())
            yield i

    def slow(i):
        time.sleep(0.01 if i % 2 else 0.0)
        done.append(threading.current_thread().name)
        return i, n_threads(), blas()

    found = []
    for answer in ahead(slow, items(), 5):
        found.append(answer)
        assert len(taken) <= len(found) + 2
        assert min(blas()) <= 2
    assert [i for i, *_ in found] == list(range(20))
    assert {(n, max(own)) for _, n, own in found} == {(1, 1)}
    assert set(taken) == {threading.main_thread()}
    assert len(set(done)) == 2
    assert list(ahead(slow, [], 5)) == []
    # One after another, each when it is asked for.
    assert next(ahead(lambda i: (i, threading.current_thread()), items(), 1)) == (0, taken[0])


def test_the_first_error_is_told_of_what_is_done_ahead(two_threads):
    def items():
        yield from (1, 2, 0, 3)
        raise KeyError("the last")

    found = []
    with pytest.raises(ZeroDivisionError):
        found.extend(ahead(lambda i: 1 / i, items(), 2))
    with pytest.raises(KeyError, match="the last"):
        found.extend(ahead(lambda i: i, items(), 2))


def test_blas_is_free_while_what_is_ahead_waits(two_threads):
    begun = ahead(lambda i: i, range(10), 2)
    assert next(begun) == 0
    # Two more may still be worked on.
    deadline = time.monotonic() + 10
    while min(blas()) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert min(blas()) == 2
    begun.close()


def test_freed_memory_is_returned_or_nothing_is_done():
    assert return_freed_memory() is None


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


def test_blas_is_held_until_the_last_thread_lets_it_go(two_threads):
    held, first, left = [], threading.Event(), threading.Event()

    def hold():
        with single_blas():
            first.set()
            left.wait(5)

    other = threading.Thread(target=hold)
    other.start()
    first.wait(5)
    with single_blas():
        left.set()
        other.join()
        held.append(blas())
    assert (set(held[0]), set(blas())) == ({1}, {2})
    # The other way round: the one who limited it is not the one who lets it go, and lives on.
    other, first, left = threading.Thread(target=hold), threading.Event(), threading.Event()
    with single_blas():
        other.start()
        first.wait(5)
    assert set(blas()) == {1}
    left.set()
    other.join()
    assert set(blas()) == {2}


def test_who_limits_blas_after_a_fit_is_obeyed_in_any_thread(two_threads):
    def limited():
        with threadpool_limits(1, user_api="blas"):
            return blas()

    with single_blas():
        pass
    with ThreadPoolExecutor(1) as pool:
        assert set(pool.submit(limited).result()) == {1}
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(1) as pool:
        pool.submit(in_threads, abs, [1, 2]).result()
        assert set(blas()) == {1}
    assert set(blas()) == {2}


def test_a_shared_context_is_left_by_the_last_thread_in_it():
    told = []

    @contextmanager
    def make():
        told.append("in")
        yield
        told.append("out")

    shared, inside, leave = Shared(make), threading.Barrier(3), threading.Event()

    def work():
        with shared:
            inside.wait()
            leave.wait()

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    inside.wait()
    with pytest.raises(ZeroDivisionError), shared:
        1 / 0  # noqa: B018
    assert told == ["in"]
    leave.set()
    for thread in threads:
        thread.join()
    assert told == ["in", "out"]
    with shared:
        assert told == ["in", "out", "in"]


def test_threads_that_begin_at_once_find_the_same_libraries():
    code = """
import sys, threading
sys.setswitchinterval(1e-6)
from sklmm._threads import in_threads, n_threads
from threadpoolctl import threadpool_info
def blas():
    return [b["num_threads"] for b in threadpool_info() if b["user_api"] == "blas"]
before = blas()
def many():
    for _ in range(50):
        in_threads(abs, [1, 2])
threads = [threading.Thread(target=many) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert blas() == before, (before, blas())
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_caller_works_alone_while_the_interpreter_ends(two_threads):
    code = """
import threading, time
from sklmm._threads import ahead, in_threads
def late():
    threading.main_thread().join()
    print(in_threads(abs, [-1, -2, -3]), list(ahead(abs, [-4, -5], 2)))
threading.Thread(target=late).start()
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (found.stdout, found.stderr) == ("[1, 2, 3] [4, 5]\n", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_process_forked_while_blas_is_held_has_its_threads(two_threads):
    with single_blas():
        with warnings.catch_warnings():
            # Of Python 3.12: there are threads.
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if not pid:
            os._exit(min(blas()))
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 2
    assert set(blas()) == {2}
