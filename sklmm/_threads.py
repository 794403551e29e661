"""The threads of a process: how many are its own, a pool of them, and BLAS held to one.

What is summed over the rows of a table goes by in blocks, by threads. A sum comes out the same
whatever the number of threads: blocks and the groups in which they are added up depend on the
number of rows alone.
"""

import ctypes
import os
import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from contextvars import copy_context
from functools import cache, cached_property, reduce

import joblib
import numpy as np
from threadpoolctl import ThreadpoolController

#: Rows of a block.
BLOCK = 1 << 16
#: Groups of blocks, of which each is one thread's at a time.
GROUPS = 8
#: Bytes of an array that has the C library keep freed memory of its size.
KEPT = 30 << 20
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
#: In a thread that works for `in_threads` `inside` is True; `share` is that of `sharing`.
_local = threading.local()


def n_threads():
    """Threads that a computation may use here; 1 within a call of `in_threads`.

    They are the cores of this process (its affinity, its container's quota), or as many as
    OMP_NUM_THREADS says, which joblib sets for its workers; and no more than BLAS is limited to, as
    threadpoolctl and OPENBLAS_NUM_THREADS do.
    """
    if getattr(_local, "inside", False):
        return 1
    if (share := getattr(_local, "share", None)) is not None:
        return share
    share = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    share = int(share) if share.isdigit() and int(share) > 0 else _cores(os.getpid())
    return min([share, *_blas.counts()])


def in_threads(function, *arguments):
    """``list(map(function, *arguments))`` by the threads of this process, BLAS held to one in each.

    NumPy's and SciPy's compiled loops release the interpreter's lock. The caller's thread works
    too: one that sleeps takes as long to wake as a small block does. All callers of a process share
    the other threads, so that fits in the threads of a caller's own do not multiply them.
    """
    calls = list(zip(*arguments, strict=True))
    # One call asks for no threads: a small table makes many of them.
    if len(calls) < 2 or (n := n_threads()) < 2:
        return [function(*call) for call in calls]
    answers, left = [None] * len(calls), iter(range(len(calls)))

    def work():
        try:
            # Each thread takes the next that is left: the interpreter's lock makes that one step.
            for i in left:
                answers[i] = function(*calls[i])
        finally:
            # Of a call that failed: the other threads end with the ones they are at.
            deque(left, maxlen=0)

    with single_blas():
        others = []
        # While the interpreter ends pools take nothing more: the caller works alone.
        with suppress(RuntimeError):
            pool = _pool(os.getpid(), n - 1)
            while len(others) < min(n, len(calls)) - 1:
                # In the caller's context, which holds np.errstate.
                others.append(pool.submit(copy_context().run, work))
        _local.inside = True
        try:
            work()
        finally:
            _local.inside = False
            # Those that others' calls have kept from beginning have nothing left to do.
            begun = [other for other in others if not other.cancel()]
            wait(begun)
    for other in begun:
        other.result()
    return answers


@contextmanager
def sharing(n):
    """Let what this thread computes use n threads, whatever the environment says.

    For tasks of a scheduler that knows what else its machine does.
    """
    before = getattr(_local, "share", None)
    _local.share = n
    try:
        yield
    finally:
        _local.share = before


def ahead(function, items, at_a_time):
    """Yield ``function(item)`` in the items' order; threads work on the next few meanwhile.

    The items are taken in the caller's thread, one after another, and no more than `at_a_time` wait
    or are worked on. The first error in the items' order is the one that is raised.
    """
    n, items, failed = min(n_threads(), at_a_time), iter(items), None
    if n < 2:
        yield from map(function, items)
        return
    begun = deque()
    try:
        while True:
            try:
                item = next(items)
            except StopIteration:
                break
            except Exception as error:
                # Those before it come first, and so may their errors.
                failed = error
                break
            begun.append(_begun(n, function, item))
            if len(begun) == n:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    finally:
        for other in begun:
            other.cancel()
        wait(begun)
    if failed is not None:
        raise failed


def _begun(n, function, item):
    """The future of function(item) in one of n threads, BLAS held to one there."""

    def work():
        # Not for as long as what is `ahead` is asked for, which may be kept without end.
        with single_blas():
            return function(item)

    try:
        return _pool(os.getpid(), n).submit(copy_context().run, work)
    except RuntimeError:
        # While the interpreter ends pools take nothing more: the caller works alone.
        alone = Future()
        alone.set_result(function(item))
        return alone


@cache
def keep_freed_memory():
    """Let the C library keep what is freed, for the arrays of the next step, in this process.

    glibc gives memory of more than 128 kB back to the system as soon as it is free, and each new
    array then costs a page fault every 4 kB: a fit of a few seconds spent a third of them so. What
    it keeps grows with the largest array that it has seen freed, up to 32 MB (mallopt(3),
    M_MMAP_THRESHOLD); this one is never written to, and takes none. Where the environment has set
    a limit, as Dask's does for its workers, nothing grows, and sums take twice as long: then both
    limits are set to what they would have grown to.
    """
    np.empty(KEPT, np.uint8)
    if "MALLOC_TRIM_THRESHOLD_" in os.environ:
        # A C library that is not glibc has no such function.
        with suppress(AttributeError, OSError, TypeError):
            mallopt = ctypes.CDLL(None).mallopt
            mallopt(M_MMAP_THRESHOLD, KEPT)
            mallopt(M_TRIM_THRESHOLD, 2 * KEPT)


def return_freed_memory():
    """Give back to the system what is free, of all threads: each has memory of its own in glibc.

    For a step that takes much after one in which threads have freed much: malloc_trim(3).
    """
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


class Shared:
    """A context of the whole process: the first thread that is in it enters, the last one leaves.

    `make` makes what is entered. Each by itself, threads would put back what another has set.
    """

    def __init__(self, make):
        self._make, self._lock, self._inside = make, threading.Lock(), 0

    def __enter__(self):
        with self._lock:
            if not self._inside:
                self._context = self._make()
                self._context.__enter__()
            self._inside += 1

    def __exit__(self, *error):
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._context.__exit__(None, None, None)


@contextmanager
def single_blas():
    """Hold BLAS to one thread: what others add to a small product is their waiting for each other.

    It is a setting of the process: the first who holds BLAS limits it, and the last lets it go.
    """
    holder = object()
    try:
        _blas.hold(holder)
        yield
    finally:
        _blas.release(holder)


class _Blas:
    """The BLAS libraries of a process, and the threads that each had `before` it was held."""

    def __init__(self):
        self._lock, self._holders, self._before = threading.Lock(), set(), []

    @cached_property
    def _libraries(self):
        # By the libraries themselves: threadpoolctl's context takes as long as a small fit's step.
        return ThreadpoolController().select(user_api="blas").lib_controllers

    def _now(self):
        return [library.num_threads for library in self._libraries]

    def _limit(self, counts):
        for library, n in zip(self._libraries, counts, strict=True):
            # threadpoolctl 3.8 obeys one thread alone, the first, as long as it lives; here one may
            # limit BLAS and another let it go, and callers of it are to be obeyed afterwards.
            obey_all = getattr(library, "clear_controlling_thread", lambda force: None)
            obey_all(force=True)
            library.set_num_threads(n)
            obey_all(force=True)

    def counts(self):
        """Threads that each library may use, but for those that it is held to here."""
        with self._lock:
            return self._before if self._holders else self._now()

    def hold(self, holder):
        """Limit the libraries to a thread each until all holders have released them."""
        with self._lock:
            if not self._holders:
                self._before = self._now()
            self._holders.add(holder)
            if len(self._holders) == 1:
                self._limit([1] * len(self._before))

    def release(self, holder):
        """The end of a `hold`, which may have been interrupted before it began."""
        with self._lock:
            if holder in self._holders:
                self._holders.remove(holder)
                if not self._holders:
                    self._limit(self._before)

    def forked(self):
        """In a forked process nobody holds BLAS, or has the lock."""
        self._lock = threading.Lock()
        if self._holders:
            self._holders = set()
            self._limit(self._before)


_blas = _Blas()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_blas.forked)


def _enter():
    _local.inside = True


@cache
def _pool(pid, n):
    """N threads of a process beside a caller's: a forked one cannot use its parent's."""
    return ThreadPoolExecutor(n, "sklmm", _enter)


@cache
def _cores(pid):
    # Files of the container are read for it, which takes a tenth of a millisecond.
    return joblib.cpu_count()


def blocks(n_rows, step=BLOCK):
    """Slices of at most so many rows that follow each other."""
    return [slice(first, min(first + step, n_rows)) for first in range(0, n_rows, step)]


def groups(n_rows, step=BLOCK):
    """The blocks in groups of neighbours, lists of slices; one of no rows where there are none."""
    found = blocks(n_rows, step) or [slice(0, 0)]
    size = -(-len(found) // GROUPS)
    return [found[first : first + size] for first in range(0, len(found), size)]


def summed(function, n_rows, step=BLOCK):
    """Sum over the blocks of function(rows), arrays and numbers in tuples and lists, of a slice."""

    def group(own):
        return reduce(added, map(function, own))

    return reduce(added, in_threads(group, groups(n_rows, step)))


def each(function, n_rows, step=BLOCK):
    """List of function(rows) for every block, which may write into arrays of its own."""
    found = in_threads(lambda own: [function(rows) for rows in own], groups(n_rows, step))
    return [answer for own in found for answer in own]


def added(one, two):
    """What two blocks answer, added; arrays of the first are overwritten."""
    if isinstance(one, tuple | list):
        return type(one)(map(added, one, two))
    one += two
    return one
