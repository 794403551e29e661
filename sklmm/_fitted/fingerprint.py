"""What a fitted model keeps of its rows: numbers that tell whether given rows are the same ones."""

from typing import NamedTuple

import numpy as np
from pandas.util import hash_array

from sklmm._threads import each, summed

#: Numbers that are hashed at once.
CHUNK = 1 << 15
#: Rounding of sums over rows in another order, relative to the sums of absolute values.
ROUNDING = 1e-10


class Fingerprint(NamedTuple):
    """Numbers by which rows are recognised in any order.

    data holds a number each for y, the weights and the offset: likelihoods are comparable where
    these are equal. sums [k] tell which y stands beside which columns and levels, see `joint_sums`.
    """

    data: dict
    sums: np.ndarray

    @classmethod
    def of(cls, design, response):
        """Fingerprint of a design's and a response's rows."""
        hashes = hashed(response.y)
        sums = joint_sums(design, _signs(response, hashes))
        return cls(hashed_data(design, response, hashes), sums)

    def check(self, design, response):
        """Raise ValueError, which names the parameter, where the rows are not the same."""
        hashes = hashed(response.y)
        for what, value in hashed_data(design, response, hashes).items():
            if value != self.data[what]:
                raise ValueError(f"{what}: it must be that of the fit, and it is another.")
        signs = _signs(response, hashes)
        sizes = joint_sums(design, signs, abs)
        if not (np.abs(joint_sums(design, signs) - self.sums) <= ROUNDING * sizes).all():
            raise ValueError(
                "X: each row must be that of the fit for its y: the rows of X and y are in "
                "different orders, or X's values are others."
            )


def hashed_data(design, response, hashes):
    """A number each for y, the weights and the offset, whatever the order of the rows.

    `hashes` are those of y.
    """
    w, offset = response.weights, design.offset
    # Rows that are repeated are those of a weight, and an offset of zeros is none.
    whole = bool((np.floor(w) == w).all())
    times = w.astype(np.uint64) if whole and (w != 1).any() else None
    if offset is not None:
        offset = _total(hashed(offset), times) - _total(hashed(np.zeros(len(w))), times)
    return {
        "y": _total(hashes, times),
        "weights": 0 if whole else _total(hashed(w)),
        "offset": 0 if offset is None else offset % 2**64,
    }


def hashed(values):
    """Hashes uint64 [n_rows] of numbers; 0 has one sign."""
    out = np.empty(len(values), np.uint64)

    def some(rows):
        out[rows] = hash_array(np.asarray(values[rows], np.float64) + 0.0)

    each(some, len(values), CHUNK)
    return out


def _total(hashes, times=None):
    """Sum of hashes modulo 2^64, each `times` a whole number."""
    return int(np.sum(hashes if times is None else hashes * times))


def joint_sums(design, signs, of=lambda values: values):
    """Sums [k] over the rows that tell which y stands beside which columns and levels.

    A number in [-1, 1), the hash of y, times the weight is summed over all rows, alone and times
    each column of the fixed part and the offset; over the rows of each level, alone or times each
    slope, and there the sums' squares are added up. The order of the whole rows is no matter, nor
    are the levels' names and order, which an update changes; a row of weight 2 counts as two rows.
    `signs` [n_rows] are those numbers times the weights, and `of` is applied to all values.
    """
    signs = of(signs)
    parts = [] if design.offset is None else [[signs @ of(design.offset)]]
    parts += [] if design.sparse is None else [signs @ of(design.sparse)]

    def sums(rows):
        own, levels = signs[rows], []
        for block in design.blocks:
            columns = [own] if block.z is None else (of(block.z[rows]) * own[:, None]).T
            refs = block.refs[rows]
            levels.append([np.bincount(refs, column, block.n_levels) for column in columns])
        return own.sum(keepdims=True), own @ of(design.X[rows]), levels

    step = max([CHUNK, *(2 * block.n_levels for block in design.blocks)])
    total, fixed, levels = summed(sums, len(signs), step)
    parts += [[own @ own for own in of_term] for of_term in levels]
    return np.concatenate([total, fixed, *parts])


def _signs(response, hashes):
    out = np.empty(len(hashes))

    def some(rows):
        weights = response.weights[rows] * 2.0**-63
        np.multiply(hashes[rows].view(np.int64), weights, out=out[rows])

    each(some, len(out), CHUNK)
    return out
