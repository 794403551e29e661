"""Levels of a model's factors that grow from batch to batch of rows.

While batches come, levels stand in the order in which they were met; in the end they are sorted as
those of a fit to all rows at once. A categorical column has an order of its own: that of its
categories, as long as all batches declare the same.
"""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from sklmm._state import PlainState
from sklmm.design.columns import take
from sklmm.design.design import DesignSpec
from sklmm.design.formula import apply_formula
from sklmm.design.levels import TermSpec, learn_levels

#: Difference, of a column's size, between a formula on a table and on half of it that is rounding.
ROUNDING = 1e-12


@dataclass(frozen=True)
class GrowingSpec(PlainState):
    """A `DesignSpec` whose levels stand in the order in which they were met.

    `declared` has for each grouping column the (categories, whether they are ordered) of its
    batches, or None where they have none, or have different ones.
    """

    spec: DesignSpec
    declared: dict

    @classmethod
    def learn(cls, table, *parameters, **known):
        """(GrowingSpec, Design) of a first batch: see `DesignSpec.learn`."""
        spec, design = DesignSpec.learn(table, *parameters, **known, fewest=1)
        if spec.formula is not None:
            _check_by_row(spec.formula, table, design.X)
        columns = {c for term in spec.terms for c in term.effect.columns}
        return cls(spec, {c: _categories(table, c) for c in columns}), design

    def with_rows(self, table):
        """(GrowingSpec, Design by the batch's own levels, their places among all) of a batch."""
        design, found = self.spec.relearn(table)
        terms, places = [], []
        for term, own in zip(self.spec.terms, found, strict=True):
            levels, at = term.joined(own)
            terms.append(term if levels is term.levels else replace(term, levels=levels))
            places.append(at)
        declared = {
            column: _agreed(before, _categories(table, column), column)
            for column, before in self.declared.items()
        }
        return GrowingSpec(replace(self.spec, terms=tuple(terms)), declared), design, places

    def sorted(self):
        """(DesignSpec of all rows, each term's levels' places in the order they were met)."""
        found = [self._sorted(term) for term in self.spec.terms]
        spec = replace(self.spec, terms=tuple(term for term, _ in found))
        return spec, [order for _, order in found]

    def _sorted(self, term):
        columns, levels = term.effect.columns, term.levels
        parts = [levels] if len(columns) == 1 else map(levels.get_level_values, range(len(columns)))
        table = {}
        for column, labels in zip(columns, parts, strict=True):
            if (known := self.declared[column]) is not None:
                labels = pd.Categorical(labels, known[0], ordered=known[1])
            table[column] = pd.Series(labels.array if isinstance(labels, pd.Index) else labels)
        if len(levels) == 1:
            raise ValueError(
                f"The grouping factor {term.name!r} has a single level ({levels[0]!r}) in all rows "
                "so far: a variance between levels needs at least two. Remove the term, or begin "
                "with more rows."
            )
        places, levels, kinds = learn_levels(pd.DataFrame(table), term.effect, term.name)
        order = np.empty(len(places), int)
        order[places] = np.arange(len(places))
        return TermSpec(term.effect, term.name, levels, term.cnames, kinds), order


def _categories(table, column):
    """(Categories, whether they are ordered) of a column; None of one that has none."""
    dtype = take(table, column).dtype
    if not isinstance(dtype, pd.CategoricalDtype):
        return None
    return dtype.categories, bool(dtype.ordered)


def _agreed(before, now, column):
    """What two batches declare of a column alike; ValueError for orders that contradict."""
    if before is None or now is None:
        return None
    (one, ordered), (two, also) = before, now
    if ordered and also:
        common = one.get_indexer(two)
        common = common[common >= 0]
        if (np.diff(common) < 0).any():
            raise ValueError(
                f"The grouping column {column!r} has the ordered categories {_shown(two)}, and "
                f"had them in another order in the batches before, {_shown(one)}: declare one "
                "order in all."
            )
    return before if ordered == also and one.equals(two) else None


def _shown(categories):
    return " < ".join(map(repr, categories[:5].tolist())) + " < ..." * (len(categories) > 5)


def _check_by_row(formula, table, X):
    """ValueError for a formula whose columns in a row are decided by other rows too."""
    name = f"fixed_effects={formula.text!r}"
    factors = [v.name for v in formula.variables if v.levels is not None]
    if factors or any(has_factor for _, has_factor in formula.members):
        shown = f" {', '.join(map(repr, factors))}" if factors else "s"
        raise ValueError(
            f"{name}: the factor{shown} may have other levels in later batches: make columns of "
            "it before the model, by a OneHotEncoder with its categories given for example, or "
            "make it a grouping factor in random_effects."
        )
    half = table[: (len(table) + 1) // 2]
    stateful = bool(formula.spec.transform_state)
    if not stateful and len(half) < len(table):
        own, size = apply_formula(formula, half), np.abs(X).max(axis=0, initial=0.0)
        stateful = (np.abs(own - X[: len(half)]) > ROUNDING * size).any()
    if stateful:
        raise ValueError(
            f"{name}: a column of it is made of all rows, as of a spline's knots or a mean, and "
            "batches have some of them at a time: give functions of single rows, or columns made "
            "before the model."
        )
