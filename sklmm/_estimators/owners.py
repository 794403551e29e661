"""Sums of a Gaussian model whose pairs of levels stay elsewhere, where they fit no one process.

The term of most effects has its levels cut into ranges, of which each has an owner, where an
executor of `engine.rows.protocol` has them kept. The rest of the sums, which is as long as the
effects, is in this process, and so is the loop of the fit.
"""

from dataclasses import replace

from sklmm._estimators.accumulated import added, united
from sklmm.engine import in_parts as engine


def owned(executor, parts, n_owners, head):
    """The `Accumulated` of all parts, of which `parts` are handles, with so many owners.

    They have been made by the `Head`.
    """
    small = executor.kept(small_of, parts)
    small = executor.joined(all_but_pairs, small, [list(range(len(parts)))], head)
    (sums,) = executor.told(sums_of, small)
    many = engine.Each([*small] * len(parts))
    places = executor.kept(places_of, many, engine.Each(range(len(parts))))
    pairs = executor.kept(pairs_of, parts)
    blocks = sums.design().blocks
    statistics = engine.parted_sums(executor, pairs, places, sums.statistics, n_owners, blocks)
    return replace(sums, statistics=statistics)


def small_of(part):
    """A part's sums without pairs of levels."""
    return part.apart()[0]


def pairs_of(part):
    """A part's `PairSums` of each two terms."""
    return part.apart()[1]


def all_but_pairs(parts, head):
    """(`Accumulated` of all parts without pairs, the places of each part's levels)."""
    growing, places = united(parts)
    growing, whole = growing.whole(head.growing)
    places = [[at[own] for at, own in zip(whole, mine, strict=True)] for mine in places]
    return added(parts, growing, places), places


def sums_of(joined):
    """What `all_but_pairs` has added."""
    return joined[0]


def places_of(joined, number):
    """The places of a part's levels among all, an array a term."""
    return joined[1][number]
