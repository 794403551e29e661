"""Gaussian models of Dask collections: sums of each partition, joined, and solved on a worker.

A Gaussian fit knows its rows by sums (`_estimators.accumulated`). A head, made of some rows of the
first partition that has any, goes to every partition, whose sums are made where it is, and it is
let go. Sums are joined in the partitions' order, in groups that their number alone decides: so
numbers depend neither on timing nor on which workers there are, nor on who dies. The model is
solved in a task too, and the client gets the fitted state. Where pairs of levels would fill a
worker they stay on all of them, in ranges (`_estimators.owners`), and the client solves the model.
"""

from copy import copy
from dataclasses import replace
from typing import NamedTuple

from sklmm._estimators.accumulated import Accumulated
from sklmm._estimators.learning import NO_ROWS, Begun, begin
from sklmm._estimators.owners import owned
from sklmm.dask.cluster import whole_host
from sklmm.dask.collections import columns_that_count, partitions
from sklmm.dask.sharded import Held, OnCluster
from sklmm.dask.state import Solved, columns_known, here, set_fitted, unfitted
from sklmm.engine.in_parts import Each
from sklmm.families import resolve_family
from sklmm.regressor import MixedEffectsRegressor
from sklmm.steps import ConjugateGradient, Exact

#: Partitions of which one is to have rows, to make the head.
FIRST = 4
#: Partitions, or sums of them, that are joined at a time.
MANY = 16
#: Share of a worker's memory from which on the pairs of levels stay on all workers.
SHARE = 0.25


class Summed(NamedTuple):
    """The sums of some partitions, None where no row counts, and rows that miss values there."""

    sums: object
    n_missing: int


class Told(NamedTuple):
    """Of `Summed`: whether any row counts, and `n_missing`."""

    counts: bool
    n_missing: int


def has_sums(model):
    """Whether sums are all that a fit of these parameters knows of the rows."""
    if not isinstance(model, MixedEffectsRegressor) or model.m_step != "auto":
        return False
    exact = isinstance(model.e_step, Exact | ConjugateGradient)
    exact = exact or model.e_step in ("auto", "exact", "cg")
    return exact and resolve_family(model.family).closed_form


def fit_sums(model, cluster, collections, watch):
    """Set the fitted state of a Dask estimator; the warnings of the fit are returned.

    `watch` is None, or leads from what makes fitted attributes to what the engine calls at each
    iteration: then the model is solved in this process.
    """
    X, y, sample_weight = collections
    rows = partitions(columns_that_count(model, X), y, sample_weight, cluster.token)
    local, start = unfitted(model), getattr(model, "result_", None) if model.warm_start else None
    # In one task, as it may have relationships of many levels.
    local = cluster.later("model", itself, local)
    begun, summed = _summed(cluster, local, rows)
    apart = _apart(cluster, begun, summed)
    if watch is None and apart is None:
        threads = cluster.host_threads()
        task = cluster.submit("solve", with_threads, threads, solve, begun, summed, start)
        cluster.wait([*summed, task])
        solved = cluster.result(task)
    else:
        begun = cluster.result(begun)
        summed = cluster.results(summed) if apart is None else [apart]
        solved = solve(Begun(here(model, begun.model), begun.head), summed, start, watch)
    set_fitted(model, X, solved)
    return solved.warnings


def _summed(cluster, local, rows):
    """The future of `Begun`, and those of `Summed`, some of several partitions.

    All are asked for at once, so that what partitions have in common, a shuffled table's pieces for
    example, is made once. The head is by the first of some partitions that has rows; where none of
    them has, all is called off, and asked for anew when one has been found that has.
    """

    def task(number, before=None):
        which = f"partition {number}"
        return cluster.later("begin", begun_by, before, local, which, rows[number], which=which)

    begun = None
    for number in range(min(FIRST, len(rows))):
        begun = task(number, begun)
    begun, *summed = cluster.compute([begun, *_joined(cluster, begun, rows)])
    if cluster.result(begun) is not None:
        return begun, summed
    cluster.release([begun, *summed])
    begun, read = cluster.first(lambda number: task(FIRST + number), rows[FIRST:])
    if begun is None:
        raise ValueError(NO_ROWS)
    summed = cluster.compute(_joined(cluster, begun, rows))
    # They go as soon as they are summed.
    cluster.release(read)
    return begun, summed


def _joined(cluster, begun, rows):
    """Tasks of `Summed`, some of several partitions: how many, their number alone decides."""
    parts = [
        cluster.later("sum", add, begun, own, which=f"partition {i}") for i, own in enumerate(rows)
    ]
    while len(parts) > 2 * MANY:
        # The last are left for the end, when nothing else is to be done beside their join.
        first = len(parts) - len(parts) % MANY - MANY
        groups = [parts[i : i + MANY] for i in range(0, first, MANY)]
        parts = [*(cluster.later("join", join, own) for own in groups), *parts[first:]]
    return parts


def _apart(cluster, begun, summed):
    """`Summed` of all futures, whose pairs of levels stay on the workers; None if one has room."""
    if cluster.nbytes(summed) <= SHARE * cluster.least_memory():
        return None
    told = cluster.results([cluster.submit("tell", told_of, own) for own in summed])
    executor = OnCluster(cluster)
    held = [Held(cluster, own) for own in summed]
    known = [one for one, own in zip(held, told, strict=True) if own.counts]
    parts = executor.kept(sums_of, Each(known))
    # They are let go as soon as the owners have what they need of them.
    del held, known
    head = cluster.result(begun).head
    sums = owned(executor, parts, executor.n_threads, head)
    return Summed(sums, sum(own.n_missing for own in told))


def itself(model):
    """An estimator."""
    return model


def begun_by(before, local, which, rows):
    """`Begun` by a partition, or by one `before` it; None where no row of them counts."""
    return begin(head_of, local, which, rows) if before is None else before


def head_of(model, which, rows):
    """`Begun` by rows of a partition, None where none counts."""
    sums, _ = model._part(None, *rows, where=f"in {which}")
    return None if sums is None else Begun(model, sums.head)


def add(begun, rows):
    """`Summed` of a partition."""
    if begun is None:
        # It is called off.
        return Summed(None, 0)
    sums, n_missing = copy(begun.model)._part(begun.head, *rows)
    # All have the same head, which need not travel with each.
    return Summed(None if sums is None else replace(sums, head=None), n_missing)


def join(parts):
    """`Summed` of some, in their order."""
    known = [part.sums for part in parts if part.sums is not None]
    n_missing = sum(part.n_missing for part in parts)
    return Summed(Accumulated.joined(known) if known else None, n_missing)


def told_of(summed):
    """`Told` of `Summed`."""
    return Told(summed.sums is not None, summed.n_missing)


def sums_of(summed):
    """The sums alone."""
    return summed.sums


def solve(begun, summed, start, watch=None):
    """`Solved`, from the sums of all partitions and the result to start from, or None."""
    model, whole = copy(begun.model), join(summed)
    if start is not None:
        model.result_ = start
    # Sums of rows say how many of them were left out, and partitions without sums too.
    sums = replace(whole.sums.without(whole.n_missing), head=begun.head)
    caught = model._solve(sums, watch, start is not None)
    return Solved(columns_known(model), model._fitted, model.result_, caught)


def with_threads(threads, function, *arguments):
    """What a function says that may use the threads of the workers of this host."""
    with whole_host(threads):
        return function(*arguments)
