"""Related levels where a table comes in parts: those that occur, by their places among all labels.

A relationship may be large, and parts are many: what is kept of a part has the places alone, and
the relationship waits where the parts are joined.
"""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from sklmm.design.growing import PLACES


@dataclass(frozen=True, eq=False)
class Occurring:
    """Those levels of a `relation` that occur in some rows, by their `places` [n_levels]."""

    relation: object
    places: np.ndarray

    @property
    def variances(self):
        """A's diagonal [n_levels] at these levels."""
        return self.relation.variances[self.places]


def narrowed(term, block):
    """The `TermSpec` of a related term, and its `Block`, by the levels that occur in its rows."""
    occurs = np.bincount(block.refs, minlength=block.n_levels) > 0
    places, numbers = np.flatnonzero(occurs), np.cumsum(occurs, dtype=np.int32) - 1
    effect = replace(term.effect, covariance=None)
    own = replace(term, effect=effect, levels=pd.Index(places), kinds=PLACES)
    relation = Occurring(block.relation, places)
    refs = numbers[block.refs]
    return own, replace(block, refs=refs, n_levels=len(places), relation=relation)


def united(terms):
    """(The term with the places of several parts, those of each part's levels among them)."""
    levels = np.unique(np.concatenate([term.levels.to_numpy() for term in terms]))
    places = [np.searchsorted(levels, term.levels.to_numpy()) for term in terms]
    return replace(terms[0], levels=pd.Index(levels)), places


def whole(term, own):
    """(`TermSpec` with all levels, places of its `own` parts' levels among them)."""
    relation = term.effect.relation
    levels = relation.labels.rename(str(term.effect.columns[0]))
    return replace(term, levels=levels), own.levels.to_numpy()
