"""What a fitted model keeps of its rows: numbers that tell whether given rows are the same ones."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from pandas.util import hash_array

from sklmm._threads import each, summed
from sklmm.design.indicators import Indicators

#: Numbers that are hashed at once.
CHUNK = 1 << 15
#: What rows of shares have beside them, or as their weights.
TRIALS = "trials"
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
        hashes = of_answers(response)
        sums = joint_sums(design, _signs(response, hashes))
        return cls(hashed_data(design, response, hashes), sums)

    def check(self, design, response):
        """Raise ValueError, which names the parameter, where the rows are not the same."""
        hashes = of_answers(response)
        for what, value in hashed_data(design, response, hashes).items():
            # Of the precisions of batches it is not known.
            if value != self.data[what] is not None:
                raise ValueError(f"{what}: it must be that of the fit, and it is another.")
        signs = _signs(response, hashes)
        sizes = joint_sums(design, signs, abs)
        if not (np.abs(joint_sums(design, signs) - self.sums) <= ROUNDING * sizes).all():
            raise ValueError(
                "X: each row must be that of the fit for its y: the rows of X and y are in "
                "different orders, or X's values are others."
            )


def of_answers(response):
    """Hashes uint64 [n_rows] of y, with what rows have besides it but for trials."""
    out = hashed(response.y)
    if response.data is not None:
        for k, column in enumerate(response.data.T, 1):
            if response.family.row_data[k - 1] != TRIALS:
                out = out + hashed(column) * np.uint64(2 * k + 1)
    return out


def of_weights(response):
    """The weights [n_rows]; trials are so, too, as they are of a family that has no others."""
    if response.data is None or TRIALS not in response.family.row_data:
        return response.weights
    return response.weights * response.data[:, response.family.row_data.index(TRIALS)]


def hashed_data(design, response, hashes):
    """A number each for y, the weights and the offset, whatever the order of the rows.

    `hashes` are those of y.
    """
    w, offset = of_weights(response), design.offset
    # Rows that are repeated are those of a weight.
    whole = _are_whole(w)
    times = w.astype(np.uint64) if whole and (w != 1).any() else None
    return {
        "y": _total(hashes, times),
        "weights": 0 if whole else _total(hashed(w)),
        "offset": 0 if offset is None else _of_offset(offset, times),
    }


def _are_whole(weights):
    return bool((np.floor(weights) == weights).all())


def _of_offset(offset, times):
    """The number of an offset; one of zeros is none."""
    zeros = hashed(np.broadcast_to(0.0, len(offset)))
    return (_total(hashed(offset), times) - _total(zeros, times)) % 2**64


def hashed(values):
    """Hashes uint64 [n_rows] of numbers; 0 has one sign."""
    if len(values) and values.strides == (0,):
        # Of one number, repeated.
        return np.broadcast_to(hashed(np.array(values[:1])), len(values))
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
    out = []
    for own in (design, *design.models):
        total, fixed, offset, sparse, levels = sums_by_level(own, signs, of)
        out.append(_joint(total, fixed, [*offset, *sparse], levels))
    return np.concatenate(out)


def _joint(total, fixed, others, levels):
    """The sums [k] of a total [1], of columns, and of each term's levels, arrays [n_levels]."""
    parts = [[own @ own for own in of_term] for of_term in levels]
    return np.concatenate([total, fixed, *others, *parts])


def sums_by_level(design, signs, of=lambda values: values):
    """What `joint_sums` are made of, sums over rows all: see there.

    (the total [1], [p] of the fixed part, lists of those of the offset and of the sparse columns, a
    list of arrays [n_levels] of each term.)
    """
    signs = of(signs)
    offset = [] if design.offset is None else [[signs @ of(design.offset)]]
    sparse = [] if design.sparse is None else [signs @ of(design.sparse)]

    def sums(rows):
        own, levels = signs[rows], []
        for block in design.blocks:
            refs, z, size = block.refs[rows], block.loadings(rows), block.n_levels
            if block.tied:
                own_z, at = of(z) * own[:, None, None], refs.ravel()
                columns = own_z.reshape(len(at), -1).T
                levels.append([np.bincount(at, column, size) for column in columns])
                continue
            if isinstance(z, Indicators):
                sums = np.bincount(z.cells(refs), own * of(z.entries[:, 0]), size * block.r)
                levels.append(list(sums.reshape(size, -1).T))
                continue
            columns = [own] if block.z is None else (of(z) * own[:, None]).T
            levels.append([np.bincount(refs, column, size) for column in columns])
        return own.sum(keepdims=True), own @ of(design.X[rows]), levels

    # An indicator's columns are of one pass.
    step = max([CHUNK, *(2 * block.n_levels * _passed(block) for block in design.blocks)])
    total, fixed, levels = summed(sums, len(signs), step)
    return total, fixed, offset, sparse, levels


def _passed(block):
    return block.r if isinstance(block.z, Indicators) else 1


@dataclass(frozen=True)
class FingerprintSums:
    """The sums over rows that a `Fingerprint` is made of, added up from batches of rows.

    whole tells whether all weights are whole numbers. once and repeated are numbers, modulo 2^64,
    of y, the weights and the offset, of each row once and as often as its weight says; total [1],
    fixed [p] and offset [1], and levels, an array [n_levels, r] of each term, are `sums_by_level`.
    """

    whole: bool
    once: dict
    repeated: dict
    total: np.ndarray
    fixed: np.ndarray
    offset: np.ndarray
    levels: tuple

    @classmethod
    def of(cls, design, response):
        """Those of a batch; `response` has the weights as they were given."""
        hashes, w, offset = hashed(response.y), response.weights, design.offset
        whole, weights = _are_whole(w), _total(hashed(w))

        def of(times):
            offsets = 0 if offset is None else _of_offset(offset, times)
            return {"y": _total(hashes, times), "weights": weights, "offset": offsets}

        once = of(None)
        repeated = of(w.astype(np.uint64)) if whole and (w != 1).any() else once
        total, fixed, own, _, levels = sums_by_level(design, _signs(response, hashes))
        levels = tuple(np.column_stack(of_term) for of_term in levels)
        return cls(whole, once, repeated, total, fixed, np.array(own).reshape(-1), levels)

    @classmethod
    def joined(cls, parts, places, sizes):
        """Those of several batches, added in their order.

        `places` of a part are those of its levels among all, an array a term, and `sizes` the
        numbers of all.
        """
        once, repeated = (
            {
                what: sum(numbers[what] for numbers in each) % 2**64
                for what in ("y", "weights", "offset")
            }
            for each in zip(*((part.once, part.repeated) for part in parts), strict=True)
        )
        levels = []
        for k, size in enumerate(sizes):
            joined = np.zeros((size, parts[0].levels[k].shape[1]))
            for part, place in zip(parts, places, strict=True):
                joined[place[k]] += part.levels[k]
            levels.append(joined)
        total, fixed, offset = (
            sum(getattr(part, name) for part in parts) for name in ("total", "fixed", "offset")
        )
        whole = all(part.whole for part in parts)
        return cls(whole, once, repeated, total, fixed, offset, tuple(levels))

    def fingerprint(self, precision=None):
        """The `Fingerprint` of all rows; of precisions, which were divided by their mean."""
        data = dict(self.repeated if self.whole and precision in (None, 1) else self.once)
        data["weights"] = 0 if self.whole else data["weights"]
        unit = 1.0
        # Whole numbers of mean 1 are 1 all.
        if precision is not None and not (self.whole and precision == 1):
            # Their numbers are of the quotients, which batches do not have.
            data["weights"], unit = None, 1 / precision
        levels = [[unit * column for column in own.T] for own in self.levels]
        others = [unit * self.offset] if len(self.offset) else []
        return Fingerprint(data, _joint(unit * self.total, unit * self.fixed, others, levels))


def _signs(response, hashes):
    out, given = np.empty(len(hashes)), of_weights(response)

    def some(rows):
        weights = given[rows] * 2.0**-63
        np.multiply(hashes[rows].view(np.int64), weights, out=out[rows])

    each(some, len(out), CHUNK)
    return out
