"""Models whose rows stay on the workers of a cluster and are passed over again and again.

Partitions that follow each other become a shard, a future of rows in standard units, one for each
thread of the workers. The loop of the fit runs in the client. All that it asks of the rows are
tasks that change nothing, on futures: so Dask makes what a dead worker kept again from the
partitions, with the same numbers.
"""

import pickle
from collections import Counter
from itertools import count
from typing import NamedTuple
from weakref import finalize

import cloudpickle
import dask
from dask.delayed import Delayed

from sklmm._estimators.sharded import begun_by, fit_parts
from sklmm._threads import Shared
from sklmm.dask.cluster import Fault
from sklmm.dask.collections import columns_that_count, partitions
from sklmm.dask.state import Solved, columns_known, here, set_fitted, unfitted
from sklmm.engine.in_parts import Each, added

#: Shards whose answers are added at a time, and to which the client sends what is large itself;
#: bytes that are.
MANY = 8
LARGE = 1 << 20


def fit_rows(model, cluster, collections, watch):
    """Set the fitted state of a Dask estimator; the warnings of the fit are returned.

    `cluster` is a `Session`, `collections` are (X, y, weights), and `watch` is None, or leads from
    what makes fitted attributes to what the engine calls at each iteration.
    """
    X, y, sample_weight = collections
    local = unfitted(model)
    pieces = Each(partitions(columns_that_count(model, X), y, sample_weight, cluster.token))
    names = [f"partition {i}" for i in range(len(pieces))]
    executor = OnCluster(cluster)
    begun = begun_by(local, executor, pieces, names)
    own = here(model, begun.model)
    caught = fit_parts(own, begun, executor, pieces, names, watch)
    solved = Solved(columns_known(own), own._fitted, own.result_, caught)
    set_fitted(model, X, solved)
    return solved.warnings


# Dask would warn of effects of many levels: it does not hold them, as data in a graph.
_large_arguments = Shared(
    lambda: dask.config.set({"distributed.admin.large-graph-warning-threshold": "1PB"})
)


class Held:
    """A future, which is let go with the last name of this object."""

    def __init__(self, cluster, future):
        self.future = future
        finalize(self, cluster.release, [future]).atexit = False


class OnCluster:
    """`engine.rows.protocol.Executor` of shards on the workers of a `Session`.

    Handles are `Held` futures, or Delayed partitions.
    """

    def __init__(self, cluster):
        self.cluster = cluster
        #: Futures of partitions that were read before all are asked for.
        self._read = []
        #: The last large argument, which workers have from each other.
        self._given = None
        self._numbers = count()

    @property
    def n_threads(self):
        """Threads of all workers that there are now, of which each may have a shard."""
        return sum(self.cluster.client.nthreads().values())

    def told(self, function, *arguments):
        """The answers of all shards, a list."""
        return self._gathered(self._submitted(function, arguments, copy=False))

    def summed(self, function, *arguments):
        """The sum of the answers of all shards: of many on the workers, of some at a time."""
        futures = self._submitted(function, arguments, copy=False)
        while len(futures) > MANY:
            parts = [futures[first : first + MANY] for first in range(0, len(futures), MANY)]
            sums = [self._submit("sum", added, own) for own in parts]
            # They are needed, and are forgotten when they are not.
            self.cluster.release(futures)
            futures = sums
        return added(self._gathered(futures))

    def first(self, function, *arguments):
        """The first answer that is not None, of partitions in their order, or None."""
        calls, rows = self._all_calls(function, arguments), []
        for _, _, handles in calls:
            rows += handles
        # They stay until all partitions are asked for: each is read once.
        found, self._read = self.cluster.first(
            lambda number: self._reading(function.__name__, calls[number]), rows
        )
        return None if found is None else self._gathered([found])[0]

    def _gathered(self, futures):
        try:
            answers = self.cluster.client.gather(futures)
        except Exception:
            # What failed is told as this library tells it.
            self.cluster.wait(futures)
            raise
        finally:
            self.cluster.release(futures)
        for found in answers:
            if isinstance(found, Fault):
                raise found.error()
        return answers

    def kept(self, function, *arguments):
        """Handles of the answers, which stay on the workers."""
        futures = self._submitted(function, arguments)
        self.cluster.release(self._read)
        self._read = []
        return Each(Held(self.cluster, future) for future in futures)

    def joined(self, function, parts, groups, *arguments):
        """Handles of what the function says of each group of parts, as many for each thread."""
        futures = [[parts[i].future for i in own] for own in groups]
        calls = self._calls(function, arguments, len(groups), first=1)
        out = []
        for own, address, (payload, mine, handles) in zip(
            futures, self._threads_for(futures), calls, strict=True
        ):
            # Should its worker die others are to do it.
            place = {"workers": [address], "allow_other_workers": True}
            call = payload, mine, own, *handles
            out.append(self._submit("shard", called, *call, **place))
        return Each(Held(self.cluster, future) for future in out)

    def _submitted(self, function, arguments, copy=True):
        """A future of the function's answer for each shard."""
        calls, name = self._all_calls(function, arguments, copy), function.__name__
        if any(isinstance(one, Delayed) for _, _, handles in calls for one in handles):
            return self.cluster.compute([self._reading(name, call) for call in calls])
        return [self._submit(name, called, *call[:2], *call[2]) for call in calls]

    def _reading(self, name, call):
        """A Delayed call that reads partitions."""
        return self.cluster.later(name, called, *call[:2], *call[2])

    def _submit(self, name, function, *arguments, **settings):
        # Each task is a group of its own to the scheduler, which takes large groups of tasks that
        # depend on little for those that read data, and has them done by any worker.
        key = f"sklmm-{name}-{self.cluster.token}-shards-{next(self._numbers)}", 0
        with _large_arguments:
            return self.cluster.submit(name, function, *arguments, key=key, **settings)

    def _all_calls(self, function, arguments, copy=True):
        n = next(len(own) for own in arguments if isinstance(own, Each))
        return list(self._calls(function, arguments, n, copy=copy))

    def _calls(self, function, arguments, n, first=0, copy=True):
        """For each of n shards the arguments of `called`: what is common to all, its own, handles.

        `first` arguments of the function are handles that the caller adds before.
        """
        common, own = [Slot("handles", i) for i in range(first)], [[] for _ in range(n)]
        handles = [[] for _ in range(n)]
        for argument in arguments:
            if not isinstance(argument, Each):
                common.append(argument)
                continue
            held = isinstance(argument[0], Held | Delayed)
            common.append(
                Slot("handles", first + len(handles[0])) if held else Slot("own", len(own[0]))
            )
            for i, one in enumerate(argument):
                if held:
                    handles[i].append(one.future if isinstance(one, Held) else one)
                else:
                    own[i].append(one)
        payload = Sent((function, common), copy)
        if n > MANY and payload.nbytes > LARGE:
            # The one before is let go.
            self._given = Held(self.cluster, self._submit("given", itself, payload))
            payload = self._given.future
        for mine, given in zip(own, handles, strict=True):
            yield payload, Sent(mine, copy), given

    def _threads_for(self, groups):
        """The address of a worker for each group of futures, as many groups a thread.

        Of the most rows the worker has most already, where it has a thread left.
        """
        found = self.cluster.client.who_has([future for own in groups for future in own])
        threads = self.cluster.client.nthreads()
        many = -(-len(groups) // max(sum(threads.values()), 1))
        left = {address: n * many for address, n in threads.items()}
        out = []
        for own in groups:
            counts = Counter(address for future in own for address in found.get(future.key, ()))
            free = [address for address, n in left.items() if n > 0] or list(left)
            best = max(free, key=lambda address: counts[address])
            left[best] -= 1
            out.append(best)
        return out


class Slot(NamedTuple):
    """Where an argument comes from that is not the same for all shards."""

    kind: str
    place: int


class Sent:
    """An object on its way to a task: pickled, so that no process but the task's opens it.

    Its arrays go as they are if they are not to be copied: until then nobody may change them.
    """

    def __init__(self, given, copy=True):
        self.buffers = []
        callback = None if copy else self.buffers.append
        self.pickled = cloudpickle.dumps(given, protocol=5, buffer_callback=callback)

    @property
    def nbytes(self):
        """Bytes that are sent."""
        return len(self.pickled) + sum(own.raw().nbytes for own in self.buffers)

    def __sizeof__(self):
        return object.__sizeof__(self) + self.nbytes

    def __getstate__(self):
        return self.pickled, self.buffers

    def __setstate__(self, state):
        self.pickled, buffers = state
        self.buffers = [pickle.PickleBuffer(own) for own in buffers]

    def given(self):
        """The object."""
        return pickle.loads(self.pickled, buffers=self.buffers)


def called(payload, mine, *handles):
    """What a task answers: see `OnCluster._calls`."""
    function, arguments = payload.given()
    given = {"handles": handles, "own": mine.given()}
    return function(*(given[a.kind][a.place] if isinstance(a, Slot) else a for a in arguments))


def itself(given):
    """What is given."""
    return given
