"""Passes over the rows of a table, in blocks that stay in cache, by threads: sums that add up.

A sum comes out the same whatever the number of threads: blocks and the groups in which they are
added up depend on the number of rows alone.
"""

from functools import reduce

from sklmm._threads import in_threads

#: Rows of a block.
BLOCK = 1 << 16
#: Groups of blocks, of which each is one thread's at a time.
GROUPS = 8


def blocks(n_rows, step=BLOCK):
    """Slices of at most so many rows that follow each other."""
    return [slice(first, min(first + step, n_rows)) for first in range(0, n_rows, step)]


def groups(n_rows, step=BLOCK):
    """The blocks in groups of neighbours, lists of slices; one of no rows where there are none."""
    found = blocks(n_rows, step) or [slice(0, 0)]
    size = -(-len(found) // GROUPS)
    return [found[first : first + size] for first in range(0, len(found), size)]


def summed(function, n_rows, step=BLOCK):
    """Sum over the blocks of function(rows), arrays and numbers in tuples and lists, of a slice."""

    def group(own):
        return reduce(added, map(function, own))

    return reduce(added, in_threads(group, groups(n_rows, step)))


def each(function, n_rows, step=BLOCK):
    """List of function(rows) for every block, which may write into arrays of its own."""
    found = in_threads(lambda own: [function(rows) for rows in own], groups(n_rows, step))
    return [answer for own in found for answer in own]


def added(one, two):
    """What two blocks answer, added; arrays of the first are overwritten."""
    if isinstance(one, tuple | list):
        return type(one)(map(added, one, two))
    one += two
    return one
