"""Work on a Dask cluster: tasks of a fit, whose errors are its own, and of which none stays.

Everything that a fit asks of a cluster goes through a `Session`. A task of ours that finds
something wrong does not raise: what it answers is a `Fault`, which tasks that build on it hand on.
So workers log no tracebacks, and the caller gets the error that a fit on one machine raises.
"""

import math
from collections import Counter
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import count
from types import NoneType
from uuid import uuid4

import dask
from dask import delayed
from distributed import (
    CancelledError,
    KilledWorker,
    as_completed,
    get_client,
    get_worker,
    worker_client,
)
from distributed.comm import get_address_host

from sklmm._threads import keep_freed_memory, sharing

#: Partitions that are asked at a time for the first with rows: so many times those before.
MORE = 8
START = "from dask.distributed import Client; client = Client()"


@dataclass(frozen=True)
class Fault:
    """What is wrong: the error of a task, as it is to be raised where the fit was called."""

    kind: type
    message: str

    def error(self):
        """The exception."""
        return self.kind(self.message)


def last_client():
    """The client that was started last, or in a task that of its worker; None if there is none."""
    try:
        return get_client()
    except ValueError:
        return None


def running_client(client):
    """The client, if it is one that fit can wait for; RuntimeError otherwise."""
    if client is None:
        raise RuntimeError(
            f"There is no Dask client: start one before fit, `{START}` for this machine, or "
            "Client(address) for a scheduler that runs already."
        )
    if client.status != "running":
        raise RuntimeError(
            f"The Dask client is {client.status}: start another, `{START}`, and set it, "
            "`model.client = client`, or set None for the one started last."
        )
    if client.asynchronous:
        raise RuntimeError(
            "The Dask client is asynchronous, and fit waits for its answers: start another, "
            f"`{START}`, and set it, `model.client = client`."
        )
    return client


@contextmanager
def session(client):
    """A `Session`, of whose tasks none is left at its end, whatever that is."""
    own = Session(client)
    with _thread_of_a_task():
        try:
            yield own
        finally:
            own.close()


def _thread_of_a_task():
    """Within a task of a worker its thread is free for other tasks: those that it waits for."""
    try:
        get_worker()
    except ValueError:
        return nullcontext()
    return worker_client()


class Session:
    """The tasks of one fit on the cluster of a client.

    `token` is its own: no other's tasks have it in their keys.
    """

    def __init__(self, client):
        self.client = client
        self.token = uuid4().hex
        self._numbers = count()
        self._futures = {}

    def submit(self, name, function, *arguments, which=None, **settings):
        """The future of function(*arguments), among them futures and lists of them.

        `which` says in errors what the task is about; `settings` are those of `Client.submit`.
        """
        settings = {"key": self._key(name), "pure": False, **settings}
        return self._kept([self.client.submit(answer, function, which, *arguments, **settings)])[0]

    def later(self, name, function, *arguments, which=None):
        """The same as a Delayed, for `compute`; among the arguments may be others."""
        task = delayed(answer, pure=False)
        return task(function, which, *arguments, dask_key_name=self._key(name))

    def _key(self, name):
        # Tasks that are told apart by a number alone are one group to the scheduler.
        return f"sklmm-{name}-{self.token}-{next(self._numbers)}"

    def compute(self, tasks):
        """Futures of Delayed objects."""
        return self._kept(self.client.compute(tasks, optimize_graph=False))

    def first(self, task, rows):
        """The future of the first answer that is not None, or None, and futures of rows.

        `rows` are Delayed, and `task` makes one of their number: they are done in groups that
        grow, so that many without an answer are few to wait for. Rows that are read stay until
        they are released, so that they are read once. Of many, those that are not yet read when
        the answer is known are let go: they might fill the workers.
        """
        read, begin, size = [], 0, 1
        while begin < len(rows):
            numbers = range(begin, min(begin + size, len(rows)))
            # Without the tasks of all other rows.
            some = dask.optimize(*rows[begin : numbers.stop], *map(task, numbers))
            futures = self.compute(list(some))
            own, found = futures[: len(numbers)], futures[len(numbers) :]
            for future in found:
                self.wait([future])
                if future.type is not NoneType:
                    late = [one for one in own if size > MORE and not one.done()]
                    self.release(late)
                    read += [one for one in own if one not in late]
                    self.release([one for one in found if one is not future])
                    return future, read
            self.release(found)
            read += own
            begin, size = numbers.stop, MORE * size
        return None, read

    def _kept(self, futures):
        self._futures.update((future.key, future) for future in futures)
        return futures

    def release(self, futures):
        """Let futures go: what no other task needs is forgotten."""
        for future in futures:
            self._futures.pop(future.key, None)
            future.release()

    def result(self, future):
        """What a future has come to; the error of its task is raised here, as ours."""
        self.wait([future])
        return future.result()

    def results(self, futures):
        """The `result` of each of some futures."""
        self.wait(futures)
        return self.client.gather(futures)

    def nbytes(self, futures):
        """Bytes that what some futures have come to takes, by `__sizeof__`; errors as in `result`.

        The scheduler knows them: no worker is asked.
        """
        self.wait(futures)
        known = self.client.nbytes([future.key for future in futures], summary=False)
        # Less than 0 of what is just made again, as its worker has died.
        return sum(max(own, 0) for own in known.values())

    def wait(self, futures):
        """Wait until all have come to something; of several faults the first in order is raised."""
        left, first = {future: i for i, future in enumerate(futures)}, None
        for future in as_completed(futures, loop=self.client.loop):
            place = left.pop(future)
            if future.status != "finished":
                raise self._failed(future)
            if future.type is Fault and (first is None or place < first[0]):
                first = place, future
            if first is not None and all(place > first[0] for place in left.values()):
                raise first[1].result().error()

    def _failed(self, future):
        """The error to be raised for a future that failed, or is lost."""
        error = future.exception() if future.status == "error" else None
        if isinstance(error, KilledWorker):
            return RuntimeError(
                f"{error.allowed_failures + 1} worker(s) died, one after another, at one task, "
                f"{error.task!r}. The system ends processes that need more memory than there is: "
                "make partitions smaller, X.repartition(partition_size='100MB'), or give each "
                "worker more memory, Client(memory_limit=...)."
            )
        if error is None or isinstance(error, CancelledError):
            return RuntimeError(
                "A partition is lost: its worker died, and Dask does not know how to make it "
                "again. Give a table that Dask reads or computes (dask.dataframe.read_parquet, or "
                "persist), not data that were scattered to workers."
            )
        return error.with_traceback(None)

    def host_threads(self):
        """Threads of all workers of each host together, by the host's address."""
        threads = Counter()
        for address, n in self.client.nthreads().items():
            threads[get_address_host(address)] += n
        return dict(threads)

    def least_memory(self):
        """Bytes that the smallest worker may use; infinite where nothing limits them."""
        workers = self.client.scheduler_info(n_workers=-1)["workers"].values()
        return min((own["memory_limit"] or math.inf for own in workers), default=math.inf)

    def close(self):
        """Let all go that is left: the scheduler forgets it, and stops what has not begun."""
        # Not Client.cancel: the scheduler fails at a key with dependents that no client holds.
        self.release(list(self._futures.values()))


def answer(function, which, *arguments):
    """What a task answers: function(*arguments), or a `Fault`.

    Arguments that are faults themselves, or lists with some, are handed on: the first of them.
    """
    for argument in arguments:
        parts = argument if isinstance(argument, list) else [argument]
        for part in parts:
            if isinstance(part, Fault):
                return part
    keep_freed_memory()
    try:
        with sharing(1):
            return function(*arguments)
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        return Fault(kind, str(error) if which is None else f"{which}: {error}")


@contextmanager
def whole_host(threads):
    """Work with all threads of this worker's host, whose other workers wait.

    `threads` are those of `Session.host_threads`.
    """
    with sharing(threads.get(get_address_host(get_worker().address), 1)):
        yield
