"""What a Gaussian model knows of its rows: sums, of a batch of them and of batches joined.

A first batch makes a `Head`, which is small: it says in which units others are summed. By it each
batch makes an `Accumulated`, by its own levels, wherever its rows are; those of all batches are
joined in their order (`Accumulated.joined`). In several processes that goes in pieces, each of
which is a function of plain arguments:

1. `united`: the levels of all, and their places, from the parts without their pairs (`apart`);
2. `added`: the sums of all but the pairs;
3. `PairSums.between`, of a part: its rows of a range of levels; `PairSums.added`, of all parts'
   rows of the range in their order;
4. `PairSums.beside`: the ranges, one after another; `Accumulated.with_pairs`.

Sums do not depend on what the ranges are, nor on who makes which; those that a fit works on are
`rows.pair_sums.block_ends`.
"""

from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from sklmm._fitted.fingerprint import FingerprintSums
from sklmm._state import PlainState
from sklmm.design.growing import GrowingSpec
from sklmm.engine import in_parts as engine
from sklmm.families import Family, Response

#: Parts that are joined at a time.
MANY = 16


@dataclass(frozen=True)
class Head(PlainState):
    """What all batches of a fit share: the columns, two levels of each term, the units.

    `known` are the attributes of `FittedModel` that the first batch tells, `parameters` those that
    decide sums besides the columns, and `where` says in errors where the head's rows are, "in batch
    0".
    """

    growing: GrowingSpec
    units: object
    known: dict
    parameters: tuple
    where: str

    @classmethod
    def of(cls, growing, design, response, known, parameters, where):
        """The head by a first batch."""
        spec = growing.spec
        units = engine.units_of(
            design,
            response.y,
            response.weights,
            fit_intercept=spec.fit_intercept,
            precision=response.family.weights == "precision",
        )
        return cls(growing.head(), units, known, parameters, where)

    def with_rows(self, table, response, n_missing=0):
        """The `Accumulated` of a batch of rows, from which `n_missing` are left out."""
        growing, design = self.growing.of_batch(table, self.where)
        return self.with_design(growing, design, response, n_missing)

    def with_design(self, growing, design, response, n_missing=0):
        """The same, of a batch whose design is at hand."""
        growing, design = growing.narrowed(design)
        statistics = engine.sums_of(
            self.units,
            design,
            response.y,
            response.weights,
            fit_intercept=growing.spec.fit_intercept,
            precision=response.family.weights == "precision",
        )
        fingerprint = FingerprintSums.of(design, response)
        constant = response.log_constant
        return Accumulated(self, growing, statistics, fingerprint, n_missing, constant)


@dataclass(frozen=True)
class Accumulated(PlainState):
    """The sums of some rows; `statistics` are the engine's, `log_constant` that of a `Response`."""

    head: Head
    growing: GrowingSpec
    statistics: object
    fingerprint: FingerprintSums
    n_missing: int
    log_constant: float

    @classmethod
    def joined(cls, parts):
        """The sums of all parts, made by one head, in their order."""
        return parts[0] if len(parts) == 1 else added(parts, *united(parts))

    def whole(self):
        """The same with all levels of related terms, of which parts have those that occur."""
        growing, places = self.growing.whole(self.head.growing)
        if growing.sizes() == self.growing.sizes():
            return replace(self, growing=growing)
        return added([self], growing, [places])

    def apart(self):
        """(These sums without pairs of levels, the `PairSums` of each two terms)."""
        return self.with_pairs(()), self.statistics.pairs

    def with_pairs(self, pairs):
        """The same with other `PairSums`."""
        return replace(self, statistics=replace(self.statistics, pairs=tuple(pairs)))

    def without(self, n_missing):
        """The same, with so many more rows left out, of batches in which none counts."""
        return replace(self, n_missing=self.n_missing + n_missing)

    @property
    def pair_bytes(self):
        """Bytes of the pairs of levels: most of what sums of many rows are."""
        return sum(own.nbytes for own in self.statistics.pairs)

    def __sizeof__(self):
        # For schedulers, which keep tasks where they would have most to move.
        return object.__sizeof__(self) + self.pair_bytes

    @property
    def mean_weight(self):
        """Mean of the weights as they were given."""
        statistics = self.statistics
        return statistics.weight * statistics.units.weight / statistics.n_rows

    def response(self, family: Family):
        """A `Response` of no rows with the constants of these."""
        none, known = np.zeros(0), {"log_constant": self.log_constant}
        if family.weights == "precision":
            statistics = self.statistics
            mean = statistics.weight / statistics.n_rows
            constant = 0.5 * (statistics.log_weights - statistics.n_rows * np.log(mean))
            known = {"log_constant": constant, "sigma_unit": float(np.sqrt(self.mean_weight))}
        return Response(family, none, none, **known)

    def design(self):
        """A `Design` of no rows with the levels of these."""
        return self.growing.design()

    @property
    def noise(self):
        """Mean residual variance of the rows, in units of sigma^2: 1 but for precisions."""
        statistics = self.statistics
        if statistics.plain is None:
            return 1.0
        return statistics.inverse_weights / (statistics.units.weight * statistics.n_rows)

    def marked(self, family):
        """The `Fingerprint` of the rows."""
        return self.fingerprint.fingerprint(
            self.mean_weight if family.weights == "precision" else None
        )


def united(parts):
    """(`GrowingSpec` of all parts, places of each part's levels among all, an array a term)."""
    return GrowingSpec.joined([part.growing for part in parts])


def added(parts, growing, places):
    """The sums of all parts, in their order, by the levels that they have among all."""
    sizes = growing.sizes()
    return Accumulated(
        parts[0].head,
        growing,
        engine.joined_sums([part.statistics for part in parts], places, sizes),
        FingerprintSums.joined([part.fingerprint for part in parts], places, sizes),
        sum(part.n_missing for part in parts),
        sum(part.log_constant for part in parts),
    )


def some_at_a_time(parts):
    """Yield lists of `MANY` parts that come one after another, in the end of fewer."""
    parts = iter(parts)
    return iter(lambda: list(islice(parts, MANY)), [])


class Joining:
    """Parts that come one after another, joined `MANY` at a time: few wait, and few joins are made.

    What is joined depends on the number of parts alone.
    """

    def __init__(self):
        self._tiers = []

    def add(self, part):
        """One more part, after all others."""
        for tier in self._tiers:
            tier.append(part)
            if len(tier) < MANY:
                return
            part = Accumulated.joined(tier)
            tier.clear()
        self._tiers.append([part])

    def joined(self):
        """The sums of all parts, which are let go."""
        parts = [part for tier in reversed(self._tiers) for part in tier]
        self._tiers.clear()
        return Accumulated.joined(parts)
