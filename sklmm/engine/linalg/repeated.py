"""Blocks of levels of which many are equal: each different one is stored and worked on once.

In a balanced design all levels have the same block Z_j^T w Z_j, and where visits are missing there
are as many as patterns. What is worked out of a block, its inverse and its roots, is then that of
all levels that have it.
"""

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

#: Entries of a block from which on equal ones are looked for, and the share of the levels up to
#: which they are to be different.
LEAST = 9
SHARE = 0.5
#: Levels of a sample that tells at once where all are different.
SAMPLE = 256
#: Differences that are rounding, as a share of the largest entries of an entry's row and column.
ROUNDING = 2.0**-42


class Repeated(NDArrayOperatorsMixin):
    """An array [J, r, s], of which `blocks` [P, r, s] are different: level j has number `which`[j].

    Sums are of `counts` [P] levels of each, as many as have it unless others are said. Operations
    with numbers, matrices, and arrays of the same `which` are those of the blocks; others make an
    array of it.
    """

    __slots__ = ("blocks", "counts", "groups", "is_diagonal", "which")

    def __init__(self, blocks, which, groups=None, is_diagonal=False, counts=None):
        self.blocks, self.which, self.is_diagonal = blocks, which, is_diagonal
        self.groups = groups if groups is not None else _groups(which, len(blocks))
        self.counts = np.diff(self.groups[1]).astype(float) if counts is None else counts

    @staticmethod
    def of(array):
        """`Repeated` of an array [J, r, r] if that pays, else the array itself."""
        if isinstance(array, Repeated) or array[0].size < LEAST or len(array) < 2:
            return array
        # A sample tells where all are different, at little cost.
        some = array[:: max(len(array) // SAMPLE, 1)]
        if len(_distinct(some / _units(some))[0]) == len(some):
            return array
        first, which = _distinct(array / _units(array))
        return Repeated(array[first], which) if len(first) <= SHARE * len(array) else array

    @staticmethod
    def diagonal_of(values):
        """Diagonal blocks from their diagonals [J, r]; an array where most are different."""
        first, which = _distinct(values / max(np.abs(values).max(initial=0.0), 1e-300))
        repeats = len(first) <= SHARE * len(values)
        own = values[first] if repeats else values
        blocks = np.zeros((*own.shape, own.shape[1]))
        places = np.arange(own.shape[1])
        blocks[:, places, places] = own
        return Repeated(blocks, which, is_diagonal=True) if repeats else blocks

    @property
    def shape(self):
        """Of the array that it stands for."""
        return (len(self.which), *self.blocks.shape[1:])

    ndim = 3

    @property
    def dtype(self):
        """Of the numbers."""
        return self.blocks.dtype

    def __len__(self):
        return len(self.which)

    def __array__(self, dtype=None, copy=None):
        own = np.asarray(self.blocks, dtype)
        # Of one block it takes no memory.
        return np.broadcast_to(own[0], self.shape) if len(own) == 1 else own[self.which]

    def __getitem__(self, key):
        levels, *rest = key if isinstance(key, tuple) else (key,)
        if np.ndim(levels) and any(np.ndim(own) for own in rest):
            # An entry of each level, its own.
            return self.blocks[(self.which[levels], *rest)]
        # What is done to the blocks' own axes, and then to the levels.
        own = self.blocks[(slice(None), *rest)] if rest else self.blocks
        return own[self.which[levels]]

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        known = [x for x in inputs if isinstance(x, Repeated)]
        alike = all(x.which is known[0].which for x in known) if known else False
        others = (np.shape(x) for x in inputs if not isinstance(x, Repeated))
        if not (method == "__call__" and alike and not kwargs and all(len(s) < 3 for s in others)):
            inputs = [np.asarray(x) if isinstance(x, Repeated) else x for x in inputs]
            return getattr(ufunc, method)(*inputs, **kwargs)
        return self._like(ufunc(*(x.blocks if isinstance(x, Repeated) else x for x in inputs)))

    def _like(self, blocks):
        return Repeated(blocks, self.which, self.groups, counts=self.counts)

    def map(self, function):
        """What a function makes of the blocks [P, r, s], for the same levels."""
        return self._like(function(self.blocks))

    def transpose(self, *axes):
        """With each block's axes exchanged."""
        return self.map(lambda blocks: blocks.transpose(axes))

    def diagonal(self, offset=0, axis1=1, axis2=2):
        """Diagonals [J, r] of the blocks."""
        return self.blocks.diagonal(offset, axis1, axis2)[self.which]

    def sum(self, axis=0):
        """The sum over all levels [r, s]."""
        return np.tensordot(self.counts, self.blocks, 1)

    def turn(self, shaped):
        """Each level's block times its own part of `shaped` [J, s, c]."""
        if self.is_diagonal:
            return self.diagonal()[:, :, None] * shaped
        if len(self.blocks) == 1:
            return self.blocks[0] @ shaped
        order, ends = self.groups
        sorted_ = bool((self.which[1:] >= self.which[:-1]).all())
        out = np.empty((len(order), self.shape[1], shaped.shape[2]))
        given = shaped if sorted_ else shaped[order]
        for block, first, last in zip(self.blocks, ends[:-1], ends[1:], strict=True):
            np.matmul(block, given[first:last], out=out[first:last])
        if sorted_:
            return out
        back = np.empty_like(out)
        back[order] = out
        return back


def _units(array):
    """The largest entries [r, r] that blocks [J, r, r] may have, by those of their diagonals."""
    size = np.sqrt(np.abs(array).max(axis=0).diagonal())
    size = np.where(size > 0, size, 1.0)
    return size[:, None] * size


def _groups(which, n_blocks):
    """Levels in the order of their blocks, and where those of each block start, and the end."""
    counts = np.bincount(which, minlength=n_blocks)
    return np.argsort(which, kind="stable"), np.concatenate([[0], np.cumsum(counts)])


def _distinct(array):
    """The first of each different part along the first axis, and which of them each part is."""
    whole = np.rint(array.reshape(len(array), -1) * (1 / ROUNDING)).astype(np.int64)
    whole = whole.view(np.uint64)
    # A number for each part: counts are multiples of a large power of 2, to be mixed first.
    for shift in (29, 32):
        whole ^= whole >> np.uint64(shift)
        whole *= np.uint64(0xBF58476D1CE4E5B9)
    odd = np.random.default_rng(0).integers(0, 1 << 63, whole.shape[1], np.uint64) * 2 + 1
    _, first, which = np.unique((whole * odd).sum(axis=1), return_index=True, return_inverse=True)
    return first, which.reshape(-1)
