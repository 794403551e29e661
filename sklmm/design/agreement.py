"""What batches of rows say of a grouping column besides its levels, and whether they agree.

Facts of all batches are united, whatever the batches' order: so is what is an error.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from sklmm._state import PlainState
from sklmm.design.columns import take
from sklmm.design.levels import NUMBERS, TRUTH, kind_of, plain, truth


@dataclass(frozen=True)
class Facts(PlainState):
    """What some batches say of a grouping column.

    `categories` are the (categories, whether they are ordered) that all declare, or None; `orders`
    those that are ordered, but for those that are part of others; `kinds` those of the labels,
    `fractions` the kinds of number in which some are no whole ones, and `words` those strings that
    are words for true and false.
    """

    categories: tuple | None
    orders: tuple
    kinds: tuple
    fractions: tuple
    words: tuple

    @classmethod
    def of(cls, table, column, labels):
        """Those of a batch: its table, and the column's different labels there."""
        dtype, categories = take(table, column).dtype, None
        if isinstance(dtype, pd.CategoricalDtype):
            categories = dtype.categories, bool(dtype.ordered)
        kind, fractions = kind_of(labels, f"grouping column {column!r}"), ()
        if kind in NUMBERS and kind != "integer":
            numbers = plain(labels).to_numpy()
            fractions = (kind,) if (numbers != numbers // 1).any() else ()
        orders = (dtype.categories,) if categories is not None and categories[1] else ()
        words = tuple(sorted(TRUTH.keys() & set(labels))) if kind == "string" else ()
        return cls(categories, orders, (kind,), fractions, words)

    def joined(self, other, column, where="in the batches before"):
        """Those of both; an error where they contradict, that says `where` these are from."""
        orders = list(self.orders)
        for own in other.orders:
            for before in self.orders:
                _check_order(before, own, column, where)
            if not any(own.isin(known).all() for known in orders):
                orders = [known for known in orders if not known.isin(own).all()] + [own]
        kinds = tuple(sorted({*self.kinds, *other.kinds}))
        fractions = tuple(sorted({*self.fractions, *other.fractions}))
        if len(fractions) > 1 or (fractions and "decimal" in kinds and len(kinds) > 1):
            raise TypeError(
                f"The grouping column {column!r} has labels of kind {_shown_kinds(kinds)}, and "
                "fractions are not the same in both: convert the column to one type, with astype."
            )
        words = tuple(sorted({*self.words, *other.words}))
        if "boolean" in kinds and "string" in kinds:
            twice = len({TRUTH[word] for word in words}) < len(words)
            if twice or len(kinds) > 2:
                raise self._not_booleans(kinds, column)
        return Facts(self._common(other), tuple(orders), kinds, fractions, words)

    def _common(self, other):
        if self.categories is None or other.categories is None:
            return None
        (one, ordered), (two, also) = self.categories, other.categories
        return self.categories if ordered == also and one.equals(two) else None

    def check_truth(self, labels, column):
        """TypeError where some are booleans and `labels`, those of all, not all true or false.

        0 and 1 are so, and words for them.
        """
        if "boolean" not in self.kinds or len(self.kinds) == 1:
            return
        if truth(plain(labels), kind_of(labels, f"grouping column {column!r}")) is None:
            raise self._not_booleans(self.kinds, column)

    @staticmethod
    def _not_booleans(kinds, column):
        return TypeError(
            f"The grouping column {column!r} has labels of kind {_shown_kinds(kinds)}: booleans "
            "are compared with 0 and 1 alone, or with one word for true and one for false. Convert "
            "the column to one kind."
        )


def _check_order(before, now, column, where):
    common = before.get_indexer(now)
    if (np.diff(common[common >= 0]) < 0).any():
        raise ValueError(
            f"The grouping column {column!r} has the ordered categories {_shown(now)}, and "
            f"had them in another order {where}, {_shown(before)}: declare one order in all."
        )


def _shown(categories):
    return " < ".join(map(repr, categories[:5].tolist())) + " < ..." * (len(categories) > 5)


def _shown_kinds(kinds):
    return " and of kind ".join(kinds)
