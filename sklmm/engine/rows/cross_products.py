"""Cross-products of rows in this process's memory, at the table's weights or at new ones.

Of two terms they are sums over the rows of each pair of levels that occurs. A batch of rows makes a
`Fragment`: its pairs in order, as one number each, and their sums. That stays in cache; fragments
of all batches are joined once, each range of levels by itself. Where sums of other values are to
follow, as of the weights of a Newton step, a `Pattern` keeps the order.
"""

from dataclasses import dataclass, field
from itertools import combinations_with_replacement, pairwise, product
from typing import NamedTuple

import numpy as np
from scipy import sparse

from sklmm._threads import BLOCK, blocks, in_threads, summed
from sklmm.design.indicators import Indicators
from sklmm.engine.linalg.blocks import LocalPairs, csr_rows, cuts
from sklmm.engine.linalg.repeated import Repeated
from sklmm.engine.rows.sparse_fixed import Columns

#: Rows times effects up to which Z is dense: SciPy's overhead would be longer than the product.
DENSE = 1 << 16
#: Rows of a batch whose pairs of levels are sorted.
FRAGMENT = 1 << 19


@dataclass(frozen=True, eq=False)
class LocalCrossProducts:
    """What `engine.rows.protocol.Rows` sums over pairs of columns, of arrays in standard units.

    y [n_rows], or [n_rows, m] with what densities read besides, X [n_rows, p] (an array or
    `standardize.Whitened`), weights [n_rows]; of each term refs int32 [n_rows], the rows' levels,
    how many levels it has, and its columns z [n_rows, r], an array or `Indicators`; or refs
    [n_rows, m] and z [n_rows, m, r] where rows have m levels each; offset [n_rows] or None, and the
    sparse columns of the fixed part, or None. An observation has d rows. New weights, `at`, are an
    array [n_rows].
    """

    y: np.ndarray
    X: np.ndarray
    weights: np.ndarray
    refs: tuple
    levels: tuple
    z: tuple
    offset: np.ndarray | None = None
    columns: Columns | None = None
    d: int = 1
    _known: dict = field(default_factory=dict, repr=False)

    def __getstate__(self):
        # Columns of ones take no memory on their way either, and sums of them are the same there.
        # What is known is found again.
        own = {"weights": _packed(self.weights), "z": tuple(map(_packed, self.z)), "_known": {}}
        return vars(self) | own

    def __setstate__(self, state):
        own = {"weights": _unpacked(state["weights"]), "z": tuple(map(_unpacked, state["z"]))}
        vars(self).update(state | own)

    @property
    def n_rows(self):
        """Number of rows."""
        return len(self.y)

    @property
    def p(self):
        """Number of columns of X."""
        return self.X.shape[1]

    def blocks(self, at=None):
        """Z_k^T w Z_k of every term, [J, r, r] each."""
        if at is None and "blocks" in self._known:
            return self._known["blocks"]
        found = [self._block([k], at) for k in range(len(self.z))]
        if at is None:
            self._known["blocks"] = found
        return found

    def block_of(self, terms):
        """Z^T w Z [J, r, r] of terms over one partition of the rows, their columns side by side."""
        return self.blocks()[terms[0]] if len(terms) == 1 else self._block(terms, None)

    def _cells(self, k):
        """Of each of a term's `cells` the levels [n_rows], columns, and how many levels."""
        if ("cells", k) not in self._known:
            self._known["cells", k] = [
                (refs, z, self.levels[k] * self.z[k].shape[-1] // z.shape[1])
                for refs, z in cells(self.refs[k], self.z[k])
            ]
        return self._known["cells", k]

    def _block(self, terms, at):
        first, w = terms[0], self._weights(at)
        if len(terms) == 1 and isinstance(self.z[first], Indicators):
            refs, z, size = self._cells(first)[0]

            def squares(rows):
                own = weighed(weighed(z[rows, 0], z[rows, 0]), w[rows])
                return by_level(refs[rows].astype(np.intp), own, size)

            found = summed(squares, self.n_rows, self._step)
            return Repeated.diagonal_of(found.reshape(self.levels[first], -1).astype(float))
        if self.z[first].ndim == 3:
            return summed(lambda rows: self._tied_block(first, w, rows), self.n_rows, self._step)

        def sums(rows):
            columns = [column for k in terms for column in self.z[k][rows].T]
            out = np.empty((self.levels[first], len(columns), len(columns)))
            levels = self.refs[first][rows].astype(np.intp)
            for a, one in enumerate(columns):
                one = weighed(one, w[rows])
                for b, other in enumerate(columns[: a + 1]):
                    own = by_level(levels, weighed(one, other), len(out))
                    out[:, a, b] = out[:, b, a] = own
            return out

        return summed(sums, self.n_rows, self._step)

    def _tied_block(self, k, w, rows):
        """The levels' own blocks of a term of several levels a row, which may be the same."""
        J, _, r = self.levels[k], *self.z[k].shape[1:]
        refs, z, w, out = self.refs[k][rows], self.z[k][rows], w[rows], np.zeros((J, r, r))
        for (i, j), a, b in product(
            combinations_with_replacement(range(refs.shape[1]), 2), *[range(r)] * 2
        ):
            same = weighed(w, refs[:, i] == refs[:, j])
            own = by_level(refs[:, i].astype(np.intp), same * z[:, i, a] * z[:, j, b], J)
            out[:, a, b] += own
            if i != j:
                out[:, b, a] += own
        return out

    def same_levels(self, k, other):
        """Whether two terms are over one partition of the rows, however they number its parts."""
        one, two = self.refs[k], self.refs[other]
        if one is two or self.levels[k] != self.levels[other] or one.ndim + two.ndim > 2:
            return one is two
        partner = np.zeros(self.levels[k], two.dtype)
        partner[one] = two
        return np.array_equal(partner[one], two)

    def fixed(self, at=None):
        """X^T w X [p, p], X^T w y [p], and Z_k^T w X of every term, [J, r, p] each.

        Of sparse columns the last is X_s^T w X [k, p].
        """
        w = self._weights(at)

        def sums(rows):
            X = self.X[rows]
            wX = weighed(X.T, w[rows])
            return wX @ X, wX @ self.y[rows], self._sums(rows, wX)

        xx, xy, F = summed(sums, self.n_rows, self._step)
        return xx, xy, F if self.columns is None else [*F, self.columns.F]

    def response(self, beta, at=None):
        """y^T w y, X^T w y [p], and Z_k^T w y of every term, [J, r] each, of y less X beta [p].

        Of sparse columns the last is X_s^T w y [k].
        """
        w = self._weights(at)

        def sums(rows):
            X = self.X[rows]
            y = self.y[rows] - X @ beta
            wy = weighed(y, w[rows])
            return float(wy @ y), X.T @ wy, self._sums(rows, wy[None])

        yy, xy, sums = summed(sums, self.n_rows, self._step)
        zy = [own[:, :, 0] for own in sums]
        if self.columns is not None:
            zy.append(self.columns.back @ (self.y - np.asarray(self.X) @ beta))
        return yy, xy, zy

    @property
    def _step(self):
        """Rows of a block: sums by level are to be shorter than what is summed."""
        sizes = (self._cells(k)[0][2] for k in range(len(self.z)))
        return max(BLOCK, 2 * max(sizes, default=0))

    def _sums(self, rows, columns):
        """Z_k^T c of every term, [J, r, m] each, of columns [m, .] of some of the rows, a slice."""
        return [self._sums_of(k, rows, columns) for k in range(len(self.levels))]

    def _sums_of(self, k, rows, columns):
        """The same of one term."""
        total = 0
        for refs, z, J in self._cells(k):
            levels = refs[rows].astype(np.intp)
            sums = np.empty((J, z.shape[1], len(columns)))
            for a, own in enumerate(z[rows].T):
                for c, column in enumerate(columns):
                    sums[:, a, c] = by_level(levels, weighed(column, own), J)
            total = sums + total if np.ndim(total) else sums
        return total.reshape(self.levels[k], self.z[k].shape[-1], len(columns))

    def pairs(self, k, others, at=None):
        """`LocalPairs` of a term and some others, side by side; number K is the sparse columns."""
        if k is None:
            widths = [J * z.shape[-1] for J, z in zip(self.levels, self.z, strict=True)]
            widths += [] if self.columns is None else [self.columns.k]
            return LocalPairs([sparse.csr_array((0, sum(widths[other] for other in others)))], 1)
        r = self.z[k].shape[-1]
        if not others:
            return LocalPairs([sparse.csr_array((self.levels[k] * r, 0))], r)
        beside = zip(*(self._pair(k, other, at) for other in others), strict=True)
        return LocalPairs([p[0] if len(p) == 1 else sparse.hstack(p, "csr") for p in beside], r)

    def _pair(self, k, other, at):
        """Z_k^T w Z_other, sparse [J_k r_k, J_other r_other], in parts of whole levels of k."""
        columns = [(other, 0)]
        if other < len(self.z):
            columns = [(other, j) for j in range(len(self._cells(other)))]
        pairs = product([(k, i) for i in range(len(self._cells(k)))], columns)
        found = [self._pair_of_cells(*pair, at) for pair in pairs]
        return [sum(parts[1:], parts[0]) for parts in zip(*found, strict=True)]

    def _pair_of_cells(self, first, second, at):
        """The same of one of each term's `cells`, whose number stands beside the term's."""
        (k, i), (other, j) = first, second
        one, z, size = self._cells(k)[i]
        ends = self._cuts(k)
        if other == len(self.z):
            whole = (self.columns.back @ loadings(one, z, size)).T.tocsr()
            return [csr_rows(whole, a * z.shape[1], b * z.shape[1]) for a, b in pairwise(ends)]
        two, q, n_columns = self._cells(other)[j]
        if at is not None:
            columns = self._products(first, second, at)
            return in_threads(lambda own: own.matrix(columns), self._patterns(first, second))
        counted = z.shape[1] == q.shape[1] == 1 and all(map(is_ones, (self.weights, z, q)))
        # In one piece, which goes back to the system as a whole.
        pairs = memory(self.n_rows, size, n_columns)

        def fragment(rows):
            values = None
            if not counted:
                values = (z[rows, :, None] * q[rows, None]) * self.weights[rows, None, None]
            return Fragment.of(one[rows], two[rows], n_columns, values, out=pairs[rows])

        fragments = in_threads(fragment, blocks(self.n_rows, FRAGMENT))
        return in_threads(lambda a, b: joined(fragments, a, b, n_columns), ends[:-1], ends[1:])

    def _products(self, first, second, at):
        """Products of the columns of two terms' `cells`, times the weights `at`, by row."""
        (k, i), (other, j) = first, second
        z, q = self._cells(k)[i][1], self._cells(other)[j][1]
        return [[weighed(weighed(a, b), at) for b in q.T] for a in z.T]

    def _patterns(self, first, second):
        """Each part's `Pattern` of one of each term's `cells`, (term, number)."""
        if (first, second) not in self._known:
            (one, _, _), (two, _, n_columns) = (self._cells(k)[i] for k, i in (first, second))
            made = Pattern.each(one, two, self._cuts(first[0]), n_columns)
            self._known[first, second] = made
        return self._known[first, second]

    def at_pairs(self, k, other, values):
        """Of each row's pair of levels, or `cells`, the block [n_rows, r, q] of a matrix.

        It has the entries of `pairs`, and these `values` in their order.
        """
        r, q = (self._cells(own)[0][1].shape[1] for own in (k, other))
        if ("pair", k, other) not in self._known:
            pair, places, first = np.empty(self.n_rows, np.int64), [], 0
            for own in self._patterns((k, 0), (other, 0)):
                size = own.number(pair, first)
                inside = np.arange(size * r * q, dtype=float).reshape(size, r, q)
                places.append(first * r * q + own.csr.matrix(inside).data.astype(np.int64))
                first += size
            self._known["pair", k, other] = pair, np.concatenate(places)
        pair, places = self._known["pair", k, other]
        blocks = np.empty(len(values))
        blocks[places] = values
        return blocks.reshape(-1, r, q)[pair]

    def _cuts(self, k):
        """Where parts of whole levels of term k begin and end among its levels, or `cells`."""
        if ("cuts", k) not in self._known:
            refs, J = self.refs[k], self.levels[k]
            counts = summed(
                lambda rows: np.bincount(refs[rows].ravel(), None, J), len(refs), self._step
            )
            times = self._cells(k)[0][2] // J if J else 1
            self._known["cuts", k] = [times * level for level in cuts(counts)]
        return self._known["cuts", k]

    def gram(self, at=None):
        """[X, Z]^T w [X, Z], dense [p + Q, p + Q]."""
        A = self._dense
        return (A.T * self._weights(at)) @ A

    @property
    def _dense(self):
        """[X, Z], [n_rows, p + Q]."""
        key = "dense", self.p
        if key not in self._known:
            Z = self._Z.toarray() if sparse.issparse(self._Z) else self._Z
            self._known[key] = np.concatenate([self.X, Z], axis=1)
        return self._known[key]

    @property
    def _Z(self):
        """Z of all terms [n_rows, Q], sparse or, where it is small, dense."""
        if "Z" not in self._known:
            parts = [sparse.csr_array((self.n_rows, 0))]
            for k in range(len(self.z)):
                own = [loadings(*each) for each in self._cells(k)]
                parts.append(sum(own[1:], own[0]))
            Z = sparse.hstack(parts, "csr")
            self._known["Z"] = Z.toarray() if self.n_rows * Z.shape[1] <= DENSE else Z
        return self._known["Z"]

    def _weights(self, at):
        return self.weights if at is None else at


def cells(refs, z):
    """[(refs, z), ...]: a term as a sum of plain ones, one for each level that a row has.

    Of `Indicators` it is an intercept, whose levels are pairs of level and place.
    """
    if isinstance(z, Indicators):
        return [(z.cells(refs), z.entries)]
    if z.ndim == 3:
        return [(refs[:, i], z[:, i]) for i in range(z.shape[1])]
    return [(refs, z)]


def by_level(levels, values, n_levels):
    """Sums of values [n] by level, [n_levels]."""
    return np.bincount(levels, None if is_ones(values) else values, n_levels)


def weighed(array, weights):
    """Array [..., n_rows] times the weights; itself, without a copy, where they are all 1."""
    return array if is_ones(weights) else array * weights


def is_ones(array):
    """Whether all numbers are 1; at once of an array that repeats a number, `np.broadcast_to`."""
    if not array.size or array.item(0) != 1:
        return not array.size
    if array.strides[0] == 0:
        array = array[:1]
    return array.size == 1 or bool((array == 1).all())


def _packed(array):
    """The shape of an array that repeats 1 and takes no memory; itself else."""
    if isinstance(array, Indicators):
        return array
    repeats = array.size and array.strides[0] == 0 and is_ones(array)
    return array.shape if repeats else array


def _unpacked(array):
    return np.broadcast_to(1.0, array) if isinstance(array, tuple) else array


def loadings(refs, z, n_levels):
    """Z, sparse [n_rows, n_levels * r]."""
    n, r = z.shape
    columns = refs.astype(np.int64)[:, None] * r + np.arange(r)
    ends = np.arange(n + 1) * r
    return sparse.csr_array((z.ravel(), columns.ravel(), ends), (n, n_levels * r))


class Fragment(NamedTuple):
    """Pairs [m], sorted, and their sums [m, r, q]; pairs with repeats where the sums count them."""

    pairs: np.ndarray
    sums: np.ndarray | None

    @staticmethod
    def of(one, two, n_columns, values=None, *, out):
        """From the levels [n] of two terms and the columns [n, r, q] to sum, None to count rows.

        The second one has `n_columns` levels; `out` [n] is memory for the pairs.
        """
        pairs = numbered(one, two, n_columns, out)
        if values is None:
            pairs.sort()
            return Fragment(pairs, None)
        order = np.argsort(pairs)
        pairs = pairs[order]
        starts = firsts(pairs)
        return Fragment(pairs[starts], np.add.reduceat(values[order], starts))

    def between(self, first, last, n_columns):
        """The pairs of levels from first to before last."""
        some = slice(*_places(self.pairs, [first, last], n_columns))
        return Fragment(self.pairs[some], None if self.sums is None else self.sums[some])


class Csr(NamedTuple):
    """A matrix of levels by levels, whose entries are pairs: CSR's columns and ends of rows."""

    columns: np.ndarray
    ends: np.ndarray
    shape: tuple

    @staticmethod
    def of(pairs, first, last, n_columns):
        """From pairs, each once and in order, of levels from first to before last; overwritten."""
        ends = _places(pairs, np.arange(first, last + 1), n_columns).astype(np.int32)
        before = np.arange(first, last).astype(pairs.dtype) * pairs.dtype.type(n_columns)
        pairs -= np.repeat(before, np.diff(ends))
        return Csr(pairs.astype(np.int32), ends, (last - first, n_columns))

    def matrix(self, sums):
        """CSR matrix [J * r, K * q] of sums [m, r, q], or [m] of numbers."""
        if sums.shape[1:] in ((), (1, 1)):
            parts = np.asarray(sums.reshape(-1), float), self.columns, self.ends
            return sparse.csr_array(parts, self.shape)
        shape = self.shape[0] * sums.shape[1], self.shape[1] * sums.shape[2]
        return sparse.bsr_array((sums, self.columns, self.ends), shape).tocsr()


def memory(n_rows, n_levels, n_columns):
    """An array [n_rows] for pairs of levels: numbers of half the size are sorted twice as fast."""
    return np.empty(n_rows, np.uint32 if n_levels * n_columns < 1 << 32 else np.int64)


def numbered(one, two, n_columns, out):
    """Pairs of levels [n] as a number each, in the order of the first and then the second."""
    out[:] = one
    out *= out.dtype.type(n_columns)
    # Levels are not negative.
    out += two.astype(out.dtype, copy=False)
    return out


def _places(pairs, levels, n_columns):
    """Where the pairs of each of some levels of the first term start among sorted ones."""
    # Of one type, or all pairs would be copied.
    starts = np.asarray(levels).astype(pairs.dtype) * pairs.dtype.type(n_columns)
    return np.searchsorted(pairs, starts)


def firsts(pairs):
    """Where each of some sorted pairs stands first."""
    is_first = np.ones(len(pairs), bool)
    np.not_equal(pairs[1:], pairs[:-1], out=is_first[1:])
    return np.flatnonzero(is_first)


def joined(fragments, first, last, n_columns):
    """CSR matrix of all fragments' sums, of the levels from first to before last."""
    some = [fragment.between(first, last, n_columns) for fragment in fragments]
    pairs = np.concatenate([fragment.pairs for fragment in some])
    counts = some[0].sums is None
    if len(some) > 1 and counts:
        pairs.sort()
    elif len(some) > 1:
        # Of fragments that are sorted: they are merged, and rows keep their order.
        order = np.argsort(pairs, kind="stable")
        pairs = pairs[order]
    starts = firsts(pairs)
    if counts:
        sums = np.full(len(starts), float(len(pairs)))
        sums[:-1] = starts[1:]
        sums -= starts
    else:
        sums = np.concatenate([fragment.sums for fragment in some])
        if len(some) > 1:
            sums = np.add.reduceat(sums[order], starts)
    return Csr.of(pairs[starts], first, last, n_columns).matrix(sums)


class Pattern:
    """Pairs of the levels in a range, and the rows of each, for sums of one vector after another.

    From pairs [n] in order, the rows that have them, and how many rows there are.
    """

    def __init__(self, pairs, rows, n_rows, between, n_columns):
        starts = firsts(pairs)
        self.csr = Csr.of(pairs[starts], *between, n_columns)
        ends = np.append(starts, len(rows)).astype(np.int32)
        # Its product is a sum in compiled code, which other threads do not wait for.
        self._of_rows = sparse.csr_array((np.ones(len(rows)), rows, ends), (len(starts), n_rows))

    @staticmethod
    def each(one, two, cuts, n_columns):
        """A pattern for each range of levels between two neighbours of `cuts`, of levels [n]."""
        out = memory(len(one), cuts[-1], n_columns)
        pairs = numbered(one, two, n_columns, out)
        order = np.argsort(pairs)
        pairs, order = pairs[order], order.astype(np.int32)
        ends = _places(pairs, cuts, n_columns)
        return [
            Pattern(pairs[a:b], order[a:b], len(one), between, n_columns)
            for (a, b), between in zip(pairwise(ends), pairwise(cuts), strict=True)
        ]

    def matrix(self, columns):
        """CSR matrix of the sums of columns, a list of lists [r][q] of values [n_rows]."""
        sums = [[self._of_rows @ values for values in row] for row in columns]
        return self.csr.matrix(np.moveaxis(np.array(sums), 2, 0))

    def number(self, out, first):
        """Write the number of each row's pair, from `first` on, into `out`; how many they are."""
        counts = np.diff(self._of_rows.indptr)
        out[self._of_rows.indices] = first + np.repeat(np.arange(len(counts)), counts)
        return len(counts)
