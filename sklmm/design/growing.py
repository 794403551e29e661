"""Levels of a model's factors that grow from batch to batch of rows.

Each batch has levels of its own, sorted. Those of several batches are united, and sorted as those
of a fit to all rows at once. A categorical column has an order of its own: that of its categories,
as long as all batches declare the same.
"""

from dataclasses import dataclass, replace
from functools import partial, reduce

import numpy as np
import pandas as pd

from sklmm._state import PlainState
from sklmm.design.agreement import Facts
from sklmm.design.design import Block, Design, DesignSpec
from sklmm.design.formula import columns_of, prepared
from sklmm.design.levels import learn_levels, parts_of
from sklmm.design.variables import NotSeen

#: Difference, of a column's size, between a formula on a table and on some rows that is rounding.
ROUNDING = 1e-12
#: Kinds of levels that are places among the labels of a `Relationship`: see `design.related`.
PLACES = ("place",)
#: Rows that tell whether a formula is of single rows, at most, and those kept for others to tell.
SOME = 1000
KEPT = 4


@dataclass(frozen=True)
class GrowingSpec(PlainState):
    """A `DesignSpec` with the levels of some batches of rows.

    `facts` has for each grouping column what batches say of it besides its levels. `shown` are, of
    a formula, (some rows of the first batch as it reads them, its columns there): a row beside them
    is as elsewhere.
    """

    spec: DesignSpec
    facts: dict
    shown: tuple | None = None

    @classmethod
    def learn(cls, table, *parameters, **known):
        """(GrowingSpec, Design) of a first batch: see `DesignSpec.learn`."""
        spec, design = DesignSpec.learn(table, *parameters, **known, fewest=1)
        for term in spec.terms:
            if not len(term.levels):
                raise ValueError(
                    f"random_effects: the columns of the term '{term.effect}' hold no label: begin "
                    "with rows that have some."
                )
        shown = None
        if spec.formula is not None:
            _check_by_row(spec.formula, table, design.X)
            some = np.unique(np.linspace(0, len(table) - 1, KEPT).astype(int))
            shown = prepared(spec.formula, table.iloc[some]), design.X[some]
        facts = _facts(table, spec.terms, [term.levels for term in spec.terms])
        return cls(spec, facts, shown), design

    def head(self):
        """The spec with two levels of each term at most: enough to tell their kinds."""
        terms = [replace(term, levels=term.levels[:2]) for term in self.spec.terms]
        return self._with(terms, self.facts)

    def of_batch(self, table, where):
        """(GrowingSpec, Design) of a batch by its own levels, in the types of these levels.

        Errors say `where` these are from, "in batch 0".
        """
        try:
            design, found = self.spec.relearn(table)
        except NotSeen as error:
            raise ValueError(
                f"{error.what} holds {error.labels}, not seen {where}, and a factor that has "
                "coefficients has the levels of the first rows: begin with rows that have them "
                f"all, or {error.otherwise}."
            ) from None
        if self.spec.formula is not None:
            _check_by_row(self.spec.formula, table, design.X, self.shown)
        facts = _facts(table, self.spec.terms, found)
        for column, before in self.facts.items():
            before.joined(facts[column], column, where)
        terms = [
            term.of_batch(own, where) for term, own in zip(self.spec.terms, found, strict=True)
        ]
        return self._with(terms, facts), design

    @staticmethod
    def joined(parts):
        """(GrowingSpec of all parts, places of each part's levels among all, an array a term).

        Of the parts that one spec has made `of_batch`. Their order decides nothing but which of
        two types of number labels have, and which error is raised.
        """
        first = parts[0]
        facts = {
            column: reduce(partial(Facts.joined, column=column), (p.facts[column] for p in parts))
            for column in first.facts
        }
        terms, places = [], []
        for own in zip(*(part.spec.terms for part in parts), strict=True):
            term, at = _united(own, facts)
            terms.append(term)
            places.append(at)
        return first._with(terms, facts), list(zip(*places, strict=True)) or [()] * len(parts)

    def narrowed(self, design):
        """(GrowingSpec, Design) of a part's rows, with those of related levels that occur there."""
        if all(block.relation is None for block in design.blocks):
            return self, design
        from sklmm.design.related import narrowed

        parts = [
            (term, block) if block.relation is None else narrowed(term, block)
            for term, block in zip(self.spec.terms, design.blocks, strict=True)
        ]
        terms, blocks = zip(*parts, strict=True)
        return self._with(terms, self.facts), replace(design, blocks=blocks)

    def whole(self, head):
        """(GrowingSpec with all levels of related terms, places of these levels among them).

        `head` is the GrowingSpec that made the parts of this one, and has the relationships.
        """
        terms, places = [], []
        for term, own in zip(head.spec.terms, self.spec.terms, strict=True):
            if own.kinds != PLACES:
                terms.append(own)
                places.append(np.arange(len(own.levels)))
                continue
            from sklmm.design.related import whole

            full, at = whole(term, own)
            terms.append(full)
            places.append(at)
        return self._with(terms, self.facts), places

    def sizes(self):
        """Number of levels of each term."""
        return [len(term.levels) for term in self.spec.terms]

    def design(self):
        """A `Design` of no rows with these levels."""
        spec, blocks = self.spec, []
        for term in spec.terms:
            z = np.zeros((0, len(term.cnames))) if term.effect.slopes else None
            refs = np.zeros(0, np.int32)
            if term.effect.tied:
                m = len(term.effect.columns)
                refs, z = np.zeros((0, m), np.int32), np.zeros((0, m, len(term.cnames)))
            own = len(term.levels), term.covariance, term.effect.relation
            blocks.append(Block(refs, z, *own))
        return Design(np.zeros((0, len(spec.coef_names))), tuple(blocks))

    def check(self):
        """ValueError for a term of a single level."""
        for term in self.spec.terms:
            if len(term.levels) == 1 and term.effect.relation is None:
                raise ValueError(
                    f"The grouping factor {term.name!r} has a single level ({term.levels[0]!r}) in "
                    "all rows so far: a variance between levels needs at least two. Remove the "
                    "term, or begin with more rows."
                )

    def _with(self, terms, facts):
        return replace(self, spec=replace(self.spec, terms=tuple(terms)), facts=facts)


def _facts(table, terms, levels):
    """The `Facts` of a batch by grouping column; `levels` are the batch's own, an Index a term.

    Those of related terms are compared with the relationship's labels alone, and memberships', of
    several columns, with those of the first batch.
    """
    return {
        column: Facts.of(table, column, labels)
        for term, own in zip(terms, levels, strict=True)
        if term.effect.relation is None and not term.effect.tied
        for column, labels in zip(term.effect.columns, parts_of(own), strict=True)
    }


def _united(terms, facts):
    """(`TermSpec` with the levels of all, sorted; places of each one's levels among them)."""
    first, sizes = terms[0], [len(term.levels) for term in terms]
    if first.kinds == PLACES:
        from sklmm.design.related import united

        return united(terms)
    if len({term.kinds for term in terms}) == 1:
        levels, met = first.levels.append([term.levels for term in terms[1:]]), None
    else:
        # Labels of two types of number are compared one part after another.
        term, met = first, [np.arange(len(first.levels))]
        for other in terms[1:]:
            levels, places = term.joined(other.levels)
            term = replace(term, levels=levels)
            met.append(places)
        levels = term.levels
    columns = first.effect.columns
    if first.effect.tied:
        # In one of its columns stand all labels.
        table = pd.DataFrame(dict.fromkeys(columns), range(len(levels)))
        table[columns[0]] = levels.array
        refs, levels, kinds = learn_levels(table, first.effect, first.name, fewest=1)
        return replace(first, levels=levels, kinds=kinds), _parted(refs[:, 0], sizes, met)
    parts = [levels] if len(columns) == 1 else map(levels.get_level_values, range(len(columns)))
    table = {}
    for column, labels in zip(columns, parts, strict=True):
        if (known := facts[column].categories) is not None:
            labels = pd.Categorical(labels, known[0], ordered=known[1])
        table[column] = pd.Series(labels.array if isinstance(labels, pd.Index) else labels)
    places, levels, kinds = learn_levels(pd.DataFrame(table), first.effect, first.name, fewest=1)
    for column, labels in zip(columns, parts_of(levels), strict=True):
        facts[column].check_truth(labels, column)
    return replace(first, levels=levels, kinds=kinds), _parted(places, sizes, met)


def _parted(places, sizes, met):
    """Places of each part's levels: of so many one after another, or of those that were `met`."""
    if met is None:
        return np.split(places, np.cumsum(sizes[:-1]))
    return [places[own] for own in met]


def _check_by_row(formula, table, X, shown=None):
    """ValueError for a formula whose columns in a row are decided by other rows too.

    X are its columns on the table, and `shown` rows of another one with theirs.
    """
    stateful, n = bool(formula.spec.transform_state), len(table)
    if not stateful:
        data, some = prepared(formula, table), min(n // 2, SOME)
        single = [slice(i, i + 1) for i in (n // 3, 2 * n // 3)] if n > 1 else []
        # Of sorted rows a peak is in one half.
        parts = [(data[rows], X[rows]) for rows in (slice(0, some), slice(n - some, n), *single)]
        if shown is not None:
            beside, own = shown
            known = pd.concat([beside, data[-1:]], ignore_index=True)
            parts.append((known, np.concatenate([own, X[-1:]])))
        size = np.maximum.reduce(
            [np.abs(own).max(axis=0, initial=0.0) for _, own in [*parts, (0, X)]]
        )
        stateful = not all(_is_same(formula, *part, size) for part in parts if len(part[0]))
    if stateful:
        raise ValueError(
            f"fixed_effects={formula.text!r}: a column of it is made of all rows, as of a spline's "
            "knots or a mean, and batches have some of them at a time: give functions of single "
            "rows, or columns made before the model."
        )


def _is_same(formula, data, X, size):
    """Whether a formula's columns on `prepared` rows are X, to rounding of their `size`."""
    try:
        own = columns_of(formula, data)
    except ValueError:
        # As of an SD, which a row has not.
        return False
    return bool((np.abs(own - X) <= ROUNDING * size).all())
