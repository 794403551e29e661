"""Rows in shards that are elsewhere: what they answer are sums of the shards' answers.

What is as long as the table, as weights, stays with each shard: here
are handles of it, which an `Executor` hands out. It calls a plain function (`rows.shard`) with what
each shard keeps, and brings the answers, or has them kept. Cross-products of pairs of levels are
gathered: their pattern once, and then their values.
"""

from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
from scipy import sparse

from sklmm.engine.linalg.blocks import LocalPairs, csr_rows, cuts
from sklmm.engine.rows import shard
from sklmm.engine.rows.local import LocalRows
from sklmm.engine.rows.pair_sums import index_type
from sklmm.engine.rows.protocol import Each


class InProcess:
    """The `Executor` of shards in this process."""

    n_threads = 1

    def told(self, function, *arguments):
        """The answers of all shards, a list."""
        return list(self._answers(function, arguments))

    def first(self, function, *arguments):
        """The first answer that is not None, or None."""
        answers = self._answers(function, arguments)
        return next((own for own in answers if own is not None), None)

    def _answers(self, function, arguments):
        n = next(len(own) for own in arguments if isinstance(own, Each))
        for i in range(n):
            yield function(*(own[i] if isinstance(own, Each) else own for own in arguments))

    def summed(self, function, *arguments):
        """The sum of the answers."""
        return shard.added(self.told(function, *arguments))

    def kept(self, function, *arguments):
        """The same, `Each`."""
        return Each(self.told(function, *arguments))

    def joined(self, function, parts, groups, *arguments):
        """What the function says of each group of parts, `Each`."""
        return self.kept(function, Each([parts[i] for i in own] for own in groups), *arguments)


class Weights:
    """The rows' weights, which the shards keep: as `which` attribute of `kept`, or as that itself.

    `answers` are those that were given about them.
    """

    def __init__(self, kept, which=None):
        self.kept, self.which, self.answers = kept, which, {}


class JoinedPattern:
    """The pairs of levels of all shards, and where each shard's are among them."""

    def __init__(self, parts, shape):
        """From the (values, columns, ends of the rows) of every shard, CSR's."""
        keys = []
        for _, columns, ends in parts:
            rows = np.repeat(np.arange(shape[0]), np.diff(ends))
            keys.append(rows * np.int64(shape[1]) + columns)
        union = np.unique(np.concatenate(keys))
        self.shape, self.places = shape, [np.searchsorted(union, own) for own in keys]
        rows, self.columns = np.divmod(union, shape[1])
        kind = index_type(shape[1], len(union))
        self.columns = self.columns.astype(kind)
        self.ends = np.searchsorted(rows, np.arange(shape[0] + 1)).astype(kind)

    def matrix(self, parts):
        """CSR matrix of the shards' values, added up."""
        values = np.zeros(len(self.columns))
        for place, own in zip(self.places, parts, strict=True):
            values[place] += own
        return sparse.csr_array((values, self.columns, self.ends), self.shape)

    def of_each(self, values):
        """Each shard's own ones of values in the order of the matrix."""
        return [values[place] for place in self.places]


@dataclass(frozen=True, eq=False)
class PartedRows:
    """`engine.rows.protocol.Rows` in shards, `LocalRows` that have all levels of all terms.

    `parts` are the shards' handles, `shapes` the (levels, columns) of each term, and `sorted_by`
    the term by which each shard's rows are sorted, or None. Weights, `at`, are `Weights`.
    """

    executor: object
    parts: Each
    n_rows: int
    p: int
    shapes: tuple
    d: int = 1
    sorted_by: int | None = None
    columns = None
    #: `JoinedPattern` of two terms, which rows of another X or offset share.
    _patterns: dict = field(default_factory=dict, repr=False)
    _known: dict = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, executor, parts, p, shapes):
        """From handles of `LocalRows`."""
        n_rows = executor.summed(shard.n_rows, parts)
        return cls(executor, parts, n_rows, p, tuple(shapes))

    def _sum(self, function, *arguments):
        return self.executor.summed(function, *arguments)

    def _sum_of(self, method, *arguments):
        return self._sum(method, self.parts, *arguments)

    def _with(self, method, *arguments, **changed):
        parts = self.executor.kept(method, self.parts, *arguments)
        return replace(self, parts=parts, **changed, _known={})

    def without_fixed(self):
        """The rows of a model without coefficients."""
        return self._with(LocalRows.without_fixed, p=0)

    def ordered(self):
        """Each shard's rows sorted by the term with most effects."""
        sizes = [J * r for J, r in self.shapes]
        by = int(np.argmax(sizes)) if sizes else None
        return self._with(LocalRows.ordered, sorted_by=by)

    def held(self, beta):
        """The rows of a model whose coefficients are beta [p]: they are in the offset."""
        return self._with(LocalRows.held, beta, p=0)

    def bare(self):
        """The same rows, without what they have worked out of themselves."""
        return self._with(LocalRows.bare)

    def stacked(self, d):
        """Rows of `d` linear predictors, each with coefficients and effects of its own."""
        shapes = tuple(shape for shape in self.shapes for _ in range(d))
        known = {"n_rows": self.n_rows * d, "p": self.p * d, "shapes": shapes, "d": d}
        return self._with(LocalRows.stacked, d, **known, sorted_by=None, _patterns={})

    def same_levels(self, k, other):
        """Whether two terms are over one partition of the rows, however they number its parts."""
        if k == other or self.shapes[k][0] != self.shapes[other][0]:
            return k == other
        if ("same", k, other) not in self._known:
            found = self.executor.told(shard.partners, self.parts, k, other)
            self._known["same", k, other] = shard.agree(found)
        return self._known["same", k, other]

    def block_of(self, terms):
        """Z^T w Z [J, r, r] of terms over one partition of the rows, their columns side by side."""
        return self._sum_of(LocalRows.block_of, terms)

    def blocks(self, at=None):
        """Z_k^T w Z_k of every term, [J, r, r] each."""
        return self._ask("blocks", at)

    def fixed(self, at=None):
        """X^T w X [p, p], X^T w y [p], and Z_k^T w X of every term, [J, r, p] each."""
        return self._ask("fixed", at)

    def gram(self, at=None):
        """[X, Z]^T w [X, Z], dense [p + Q, p + Q]."""
        return self._ask("gram", at)

    def _ask(self, request, at):
        """What the shards answer about some weights.

        Of new weights all is asked at once that was of those before: each call takes its time,
        however little is asked.
        """
        own = self._known.setdefault("own", Weights(None)) if at is None else at
        known = own.answers.setdefault(self.p, {})
        usual = []
        if not known and at is not None:
            usual, self._known["asked"] = self._known.get("asked", []), []
        if at is not None and request not in self._known["asked"]:
            self._known["asked"].append(request)
        if request not in known:
            wanted = [request, *(other for other in usual if other != request)]
            known.update(zip(wanted, self._answers(wanted, own), strict=True))
        return known[request]

    def _answers(self, requests, at):
        asked = [
            one if isinstance(one, str) else (*one, one[1:] not in self._patterns)
            for one in requests
        ]
        found = self.executor.told(shard.answers, self.parts, at.kept, at.which, asked)
        return [self._joined(*one) for one in zip(requests, zip(*found, strict=True), strict=True)]

    def _joined(self, request, parts):
        """One answer from those of the shards."""
        if isinstance(request, str):
            return shard.added(parts)
        terms = request[1:]
        if terms not in self._patterns:
            (J, r), (K, q) = (self.shapes[k] for k in terms)
            self._patterns[terms] = JoinedPattern(parts, (J * r, K * q))
            parts = [values for values, _, _ in parts]
        return self._patterns[terms].matrix(parts)

    def pairs(self, k, others, at=None):
        """`LocalPairs` of a term and some others, side by side."""
        if k is None:
            return LocalPairs([sparse.csr_array((0, 0))], 1)
        J, r = self.shapes[k]
        if not others:
            return LocalPairs([sparse.csr_array((J * r, 0))], r)
        beside = [self._ask(("pair", k, other), at) for other in others]
        C = beside[0] if len(beside) == 1 else sparse.hstack(beside, "csr")
        entries = np.diff(C.indptr).reshape(J, r).sum(axis=1)
        ends = [r * end for end in cuts(entries)]
        return LocalPairs([csr_rows(C, *own) for own in pairwise(ends)], r)

    def product(self, coefs, at=None):
        """[X, Z]^T w [X, Z] coefs, as `Coefs`."""
        kept, which = (None, None) if at is None else (at.kept, at.which)
        return self._sum_of(shard.product, coefs, kept, which)

    def response(self, beta):
        """y^T w y, X^T w y [p], and Z_k^T w y of every term, [J, r] each, of y less X beta [p]."""
        return self._sum_of(LocalRows.response, beta)

    def evaluate(self, likelihood, coefs, raw, curvature="expected", about=None):
        """Sum of w log f [C], its score in the coefs, and the first's curvature's weights."""
        arguments = likelihood, coefs, raw, curvature, about
        kept = self.executor.kept(shard.evaluate, self.parts, *arguments)
        value, score = self._sum(shard.told, kept)
        return value, score, Weights(kept, "weights")

    def scored(self, likelihood, coefs, raw):
        """Sum of w log f [C] in float64 and its score in the coefs, in the precision of these."""
        return self._sum_of(LocalRows.scored, likelihood, coefs, raw)

    def score(self, likelihood, coefs, raw):
        """The score of w log f in the coefs alone, in the precision of these."""
        return self._sum_of(LocalRows.score, likelihood, coefs, raw)

    def slopes(self, likelihood, coefs, raw):
        """Sum of w log f [C], its score in the coefs, and in raw [q, C]."""
        return self._sum_of(LocalRows.slopes, likelihood, coefs, raw)

    def information(self, likelihood, coefs, raw, own, shared):
        """Less the second derivatives of the sum of w log f along directions [m, m, C]."""
        return self._sum_of(LocalRows.information, likelihood, coefs, raw, own, shared)

    def safe(self, likelihood, coefs, raw, at):
        """Weights that are positive."""
        given = likelihood, coefs, raw, at.kept, at.which
        return Weights(self.executor.kept(shard.safe, self.parts, *given))

    def expand(self, likelihood, coefs, raw, observed):
        """`PartedExpansion` at coefs [., 1] and raw [q]."""
        return PartedExpansion(self, likelihood, coefs, raw, observed)

    def remainder(self, likelihood, coefs, raw, at, *, exact, held):
        """`PartedRemainder` at coefs [., 1], raw [q] and weights `at`."""
        given = likelihood, coefs, raw, at.kept, at.which, exact, held
        return PartedRemainder(
            self.executor, self.executor.kept(shard.remainder, self.parts, *given)
        )

    def constant(self, likelihood, eta, raw):
        """At constant predictors eta [d], the sum of the curvature's weights, and X^T w eta [p]."""
        return self._sum_of(LocalRows.constant, likelihood, eta, raw)

    def sample(self, most):
        """At most so many observations from all over the table, as `LocalRows`, in order."""
        if ("sample", most) not in self._known:
            self._known["sample", most] = self._sampled(most)
        return self._known["sample", most]

    def _sampled(self, most):
        n = self.n_rows // self.d
        wanted = np.arange(n) if n <= most else np.linspace(0, n - 1, most).astype(int)
        if self.sorted_by is None:
            counts = np.array(self.executor.told(shard.n_rows, self.parts))[:, None] // self.d
        else:
            counts = np.array(self.executor.told(shard.counts, self.parts, self.sorted_by))
        owner, place = _places(counts, wanted)
        some = Each(place[owner == i] for i in range(len(self.parts)))
        found = shard.concatenated(self.executor.told(shard.taken, self.parts, some))
        order = np.argsort(np.argsort(owner, kind="stable"))
        return shard.taken(found, order)

    def at_pairs(self, inverse):
        """What rows read of an `engine.rows.protocol.Inverse`, plain: `Each` what a shard reads."""
        if hasattr(inverse, "deviations"):
            known = (getattr(inverse, name) for name in shard.Drawn._fields)
            return shard.Drawn(*known)
        if inverse.eliminated is None:
            known = inverse.fixed, inverse.follow, inverse.rest, inverse.remaining
            return shard.Looked(*known)
        E, (J, r) = inverse.eliminated, self.shapes[inverse.eliminated]
        own, across = [None] * len(self.shapes), {}
        own[E], turning = np.empty((2, J, r, r))
        beside = {k: [] for k, _ in inverse.rest}
        for levels in inverse.slabs():
            own[E][levels], turning[levels], found = inverse.slab(levels)
            for k, first in inverse.rest:
                rows, at = self._entries(E, k, levels)
                beside[k].append(found[rows - levels.start * r, first + at])
        for k, values in beside.items():
            across[E, k] = self._patterns[E, k].of_each(np.concatenate(values))
        for i, (k, first) in enumerate(inverse.rest):
            places = first + np.arange(np.prod(self.shapes[k])).reshape(self.shapes[k])
            own[k] = inverse.remaining[places[:, :, None], places[:, None]]
            for other, begin in inverse.rest[:i]:
                rows, at = self._entries(k, other)
                values = inverse.remaining[first + rows, begin + at]
                across[k, other] = self._patterns[k, other].of_each(values)
        return Each(
            shard.AtPairs(
                inverse.fixed,
                inverse.follow,
                own,
                {terms: values[i] for terms, values in across.items()},
                E,
                turning,
            )
            for i in range(len(self.parts))
        )

    def _entries(self, k, other, levels=None):
        """Rows and columns of the entries of the pairs of two terms, of some levels of the first.

        In the order of their matrix.
        """
        if (k, other) not in self._patterns:
            self.pairs(k, [other])
        pattern, r = self._patterns[k, other], self.shapes[k][1]
        first, last = (
            (0, pattern.shape[0]) if levels is None else (levels.start * r, levels.stop * r)
        )
        ends = pattern.ends[first : last + 1]
        rows = np.repeat(np.arange(first, last), np.diff(ends))
        return rows, pattern.columns[ends[0] : ends[-1]]


class PartedExpansion:
    """`engine.rows.protocol.Expansion` of `PartedRows`."""

    def __init__(self, rows, likelihood, coefs, raw, observed):
        self._rows, executor = rows, rows.executor
        given = likelihood, coefs, raw, observed
        self._kept = executor.kept(LocalRows.expand, rows.parts, *given)
        found = executor.summed(shard.summary, self._kept)
        self.value, self.score, self.of_raw, self.score_in_raw, self.raw_in_raw, differs = found
        self.bend = Weights(self._kept, "bend")
        self.weights = Weights(self._kept, "weights") if differs else self.bend

    def leverage(self, inverse):
        """Derivatives of -log |C| / 2 through the weights: in eta, as coefs [., 1], and in raw."""
        plain = self._rows.at_pairs(inverse)
        return self._rows.executor.summed(shard.leverage, self._kept, plain)


class PartedRemainder:
    """`engine.rows.protocol.Remainder` of `PartedRows`."""

    def __init__(self, executor, kept):
        self._executor, self._kept = executor, kept

    def spread(self, blocks, columns):
        """Take note of variances, by which `split` knows a Laplacian."""
        self._kept = self._executor.kept(shard.spread, self._kept, blocks, columns)

    def pull(self, coefs, tau):
        """The score of quadratic + tau rest at the deviations `coefs`, in their precision."""
        return self._executor.summed(shard.pull, self._kept, coefs, tau)

    def split(self, coefs):
        """Quadratic [C], rest [C], scores of both side by side, `Coefs` [., 2 C], Laplacian [C]."""
        return self._executor.summed(shard.split, self._kept, coefs)


def _places(counts, wanted):
    """The shard of each observation that is `wanted`, a number among all, and its number there.

    `counts` [shards, J] are those of each level, by which all are sorted, shard after shard.
    """
    ends = np.cumsum(counts.sum(axis=0))
    level = np.searchsorted(ends, wanted, side="right")
    away = wanted - np.concatenate([[0], ends])[level]
    within = np.cumsum(counts, axis=0)
    owner = (away >= within[:, level]).sum(axis=0)
    before = np.concatenate([np.zeros((1, counts.shape[1]), int), within])
    starts = np.cumsum(counts, axis=1) - counts
    return owner, starts[owner, level] + away - before[owner, level]
