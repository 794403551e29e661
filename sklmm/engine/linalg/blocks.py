"""Matrices of levels' blocks: block diagonal ones, and sparse ones of whole levels in parts.

A block diagonal matrix has one block [r, r] for each level, or one for all of them. The parts of a
sparse one are multiplied by threads (SciPy releases the interpreter's lock).
"""

from functools import cached_property
from itertools import pairwise

import numpy as np
from scipy import sparse
from scipy.linalg.blas import dtrmm
from scipy.linalg.lapack import dpotrf, dpotrs, dsyevd, dtrtri, dtrtrs

from sklmm._threads import GROUPS, each, in_threads
from sklmm._threads import blocks as ranges
from sklmm.engine.linalg.repeated import Repeated

#: Entries of a level up to which one product for all of MANY levels is faster than one for each.
SMALL = 8
MANY = 512
#: From this many rows on, a matrix is made and worked on in so many parts, whatever the number of
#: cores: sums come out the same everywhere.
PARTED = 100_000
PARTS = 4
#: Columns of a product with a sparse matrix that are made at a time: one row of them is a line of a
#: core's cache; more, where all that are read and written at random have no more bytes than these.
LINE = 8
CACHE = 1 << 20
#: Rows of a sum of parts that one thread adds up at a time, at least.
ADDED = 1 << 11
#: Columns of a triangle that is inverted in one piece.
LEAF = 128
#: Numbers of rows' squares that are stored at most.
SQUARES = 1 << 22


def turn(blocks, flat):
    """Each level's own block [J, r, r] times its part of flat [J * r, ...]."""
    J, r, _ = blocks.shape
    if r == 1:
        return blocks.reshape(J, *[1] * (flat.ndim - 1)) * flat
    shaped = flat.reshape(J, r, -1)
    if isinstance(blocks, Repeated):
        return blocks.turn(shaped).reshape(flat.shape)
    # einsum is faster for a column, and several times slower for more.
    if shaped.shape[2] == 1:
        return np.einsum("jab,jbc->jac", blocks, shaped).reshape(flat.shape)
    return (blocks @ shaped).reshape(flat.shape)


def turn_all(L, flat):
    """L applied to every level's part of flat [J * r, ...], or [J, r, c]."""
    r = len(L)
    if r == 1:
        return L[0, 0] * flat
    J, c = (len(flat), flat.shape[2]) if flat.ndim == 3 else (len(flat) // r, flat[:1].size)
    shaped = flat.reshape(J, r, c)
    if c == 1 or (r * c <= SMALL and J > MANY):
        turned = L.T if c == 1 else np.kron(L.T, np.eye(c))
        return (shaped.reshape(J, r * c) @ turned).reshape(flat.shape)
    return (L @ shaped).reshape(flat.shape)


def congruent(L, blocks):
    """L^T B L of each level's block B [J, r, r]."""
    if isinstance(blocks, Repeated):
        return blocks.map(lambda own: congruent(L, own))
    if len(L) ** 2 <= SMALL and len(blocks) > MANY:
        return (blocks.reshape(len(blocks), -1) @ np.kron(L, L)).reshape(blocks.shape)
    return L.T @ blocks @ L


def block_diagonal(blocks):
    """Sparse [J * r, J * r] from [J, r, r]."""
    J, r, _ = blocks.shape
    blocks = np.asarray(blocks)
    return sparse.bsr_array((blocks, np.arange(J), np.arange(J + 1)), shape=(J * r, J * r)).tocsr()


def invert(blocks):
    """Inverse of each level's positive block [J, r, r]; LinAlgError where one is singular."""
    if isinstance(blocks, Repeated):
        return blocks.map(invert)
    if blocks.shape[1] == 1:
        return 1.0 / blocks
    if blocks.shape[1] != 2 or len(blocks) <= MANY:
        return np.linalg.inv(blocks)
    (a, b), (c, d) = blocks.transpose(1, 2, 0)
    determinants = a * d - b * c
    if not (determinants > 0).all():
        raise np.linalg.LinAlgError("a block is not positive")
    return (np.stack([d, -b, -c, a]) / determinants).T.reshape(blocks.shape)


def roots(blocks):
    """Lower factor of each level's block [J, r, r]; LinAlgError where one is not positive."""
    if isinstance(blocks, Repeated):
        return blocks.map(roots)
    if blocks.shape[1] > 1:
        return _finite(np.linalg.cholesky(blocks), "a block")
    if not (blocks > 0).all():
        raise np.linalg.LinAlgError("a block is not positive")
    return _finite(np.sqrt(blocks), "a block")


def log_det(blocks):
    """Sum over the levels of log |B| of positive blocks [J, r, r]; LinAlgError as of `roots`."""
    if isinstance(blocks, Repeated):
        logs = np.log(roots(blocks.blocks).diagonal(axis1=1, axis2=2)).sum(axis=1)
        return 2 * float(blocks.counts @ logs)
    return 2 * float(np.log(roots(blocks).diagonal(axis1=1, axis2=2)).sum())


def _finite(lower, what):
    """The factors [..., n, n]; LinAlgError where a diagonal is not finite.

    LAPACK's libraries differ in whether they tell of numbers that are none: but these, below the
    diagonal too, come to stand on the factor's.
    """
    if not np.isfinite(lower.diagonal(0, -2, -1)).all():
        raise np.linalg.LinAlgError(f"{what} is not positive")
    return lower


def lower_factor(square, clean=True, overwrite=False):
    """Lower factor L of a positive matrix L L^T; LinAlgError where it is not positive.

    Unless it is `clean`, what the matrix has above its diagonal stays there. This and what follows
    is LAPACK without what SciPy does before it, which takes longer than matrices of a few columns.
    """
    if not len(square):
        return square
    lower, info = dpotrf(square, lower=True, clean=clean, overwrite_a=overwrite)
    if info:
        raise np.linalg.LinAlgError("a matrix is not positive")
    return _finite(lower, "a matrix")


def by_factor(lower, right):
    """(L L^T)^-1 right, [n, c]."""
    return dpotrs(lower, right, lower=True)[0] if right.size else right


def by_triangle(lower, right, transpose=False):
    """L^-1 right, or L^-T right, [n, c]; LinAlgError where L is singular."""
    if not right.size:
        return right
    out, info = dtrtrs(lower, right, lower=True, trans=transpose)
    if info:
        raise np.linalg.LinAlgError("a triangle is singular")
    return out


def inverse_triangle(lower):
    """L^-1 [n, n], by halves; LinAlgError where L is singular.

    LAPACK's own takes twice as long on one thread.
    """
    out = np.zeros_like(lower, order="F")
    _invert(lower, out)
    return out


def _invert(lower, out):
    half = len(lower) // 2
    if len(lower) <= LEAF:
        out[:], info = dtrtri(lower, lower=True)
        if info:
            raise np.linalg.LinAlgError("a triangle is singular")
        return
    _invert(lower[:half, :half], out[:half, :half])
    _invert(lower[half:, half:], out[half:, half:])
    across = dtrmm(1.0, out[:half, :half], lower[half:, :half], side=True, lower=True)
    out[half:, :half] = dtrmm(-1.0, out[half:, half:], across, lower=True, overwrite_b=True)


def eigen(square):
    """Eigenvalues in order, and eigenvectors, of a symmetric matrix: its lower triangle is read."""
    if not len(square):
        return np.zeros(0), np.zeros((0, 0))
    values, vectors, info = dsyevd(square, lower=True)
    if info:
        raise np.linalg.LinAlgError("eigenvalues do not converge")
    return values, vectors


def rescaled(b, std):
    """Deviations b [n_levels, r, m] with the root mean squares `std` [n_levels, r]."""
    size = np.sqrt(np.einsum("jam,jam->ja", b, b))
    return b * np.divide(std, size, out=np.ones_like(std), where=size > 0)[:, :, None]


def csr_rows(C, first, last):
    """Rows of a CSR matrix, its numbers not copied."""
    a, b = C.indptr[[first, last]]
    ends = C.indptr[first : last + 1] - a
    return sparse.csr_array((C.data[a:b], C.indices[a:b], ends), (last - first, C.shape[1]))


def csr_bytes(C):
    """Bytes of the arrays of a CSR matrix."""
    return C.data.nbytes + C.indices.nbytes + C.indptr.nbytes


def cuts(counts, parts=PARTS):
    """First levels of the parts, and the last one's end, by the number of rows of each level."""
    ends = np.cumsum(counts)
    if not len(ends) or ends[-1] <= PARTED:
        return [0, len(ends)]
    inner = np.searchsorted(ends, ends[-1] * np.arange(1, parts) / parts)
    return np.unique([0, *inner, len(ends)]).tolist()


class LocalPairs:
    """`engine.rows.protocol.Pairs` of C [J * r, Q], in parts, CSR matrices of whole levels."""

    def __init__(self, parts, r):
        ends = np.cumsum([0, *(part.shape[0] for part in parts)]).tolist()
        self.shape = ends[-1], parts[0].shape[1]
        self.parts = [
            (C, slice(a // r, b // r)) for C, (a, b) in zip(parts, pairwise(ends), strict=True)
        ]
        self.rows = [slice(a, b) for a, b in pairwise(ends)]

    def __getstate__(self):
        # Without what is worked out again.
        return {name: vars(self)[name] for name in ("shape", "parts", "rows")}

    def __sizeof__(self):
        # For schedulers, which keep tasks where they would have most to move.
        return object.__sizeof__(self) + sum(csr_bytes(C) for C, _ in self.parts)

    @cached_property
    def backs(self):
        """The parts' transposes: SciPy takes longer to make a small one than to multiply by it."""
        return [C.T for C, _ in self.parts]

    @cached_property
    def matrix(self):
        """C, a CSR matrix."""
        own = [C for C, _ in self.parts]
        return own[0] if len(own) == 1 else sparse.vstack(own, "csr")

    @cached_property
    def _squared(self):
        """The parts with their entries squared."""

        def squared(part):
            C, _ = part
            return sparse.csr_array((C.data**2, C.indices, C.indptr), C.shape)

        return in_threads(squared, self.parts)

    def down(self, flat):
        """C flat."""
        if not self.shape[1] or not flat.size:
            return np.zeros((self.shape[0], *flat.shape[1:]))
        out, columns = np.empty((self.shape[0], *flat.shape[1:])), self._columns(flat)

        def one(part, rows):
            for some, own in columns:
                out[rows][some] = part[0] @ own

        in_threads(one, self.parts, self.rows)
        return out

    def up(self, flat):
        """C^T flat."""
        if not self.shape[1] or not flat.size:
            return np.zeros((self.shape[1], *flat.shape[1:]))
        columns = self._columns(flat)

        def one(back, rows):
            return [back @ own[rows] for _, own in columns]

        return _beside(columns, in_threads(one, self.backs, self.rows))

    def around(self, blocks, flat):
        """C^T blocks C flat, for blocks [J, r, r]."""
        if not flat.size:
            return np.zeros(flat.shape)
        columns = self._columns(flat)

        def one(part, back):
            C, levels = part
            return [back @ turn(blocks[levels], C @ own) for _, own in columns]

        return _beside(columns, in_threads(one, self.parts, self.backs))

    def _columns(self, flat):
        """(Their places, some columns) of flat [., c], as many as are multiplied at a time."""
        c = flat.shape[1] if flat.ndim > 1 else 1
        most = max(LINE, CACHE // (8 * self.shape[1]))
        if (n := round(c / most)) < 2:
            return [(..., flat)]
        places = [(slice(None), some) for some in ranges(c, -(-c // n))]
        return [(some, np.ascontiguousarray(flat[some])) for some in places]

    def own(self, blocks, place, q):
        """Diagonal blocks [J', q, q] of C^T blocks C, of the columns at a `place`."""

        def one(part, squared):
            C, levels = part
            whole = C.shape[1] == place.stop - place.start
            inner = blocks[levels]
            if q == 1 and inner.shape[1] == 1:
                mine = squared if whole else squared[:, place]
                return (mine.T @ inner.ravel())[:, None, None]
            mine = C if whole else C[:, place]
            out = np.empty((mine.shape[1] // q, q, q))
            scaled = (block_diagonal(inner) @ mine).tocsr()
            for a in range(q):
                for b in range(q):
                    product = mine[:, a::q].multiply(scaled[:, b::q])
                    out[:, a, b] = np.asarray(product.sum(axis=0)).ravel()
            return out

        return sum(in_threads(one, self.parts, self._squared))

    def squares(self, e, r):
        """Of C's squared entries S, S r [J * r, c] and S^T e [Q, c]."""

        def one(squared, rows):
            return squared @ r, squared.T @ e[rows]

        down, up = zip(*in_threads(one, self._squared, self.rows), strict=True)
        return np.concatenate(down), sum(up)


def _beside(columns, parts):
    """Sums [Q, c] over parts of a list of arrays each, one of some columns, which lie side by side.

    Arrays of the first part are overwritten.
    """
    sums = [_total(own) for own in zip(*parts, strict=True)]
    return sums[0] if len(columns) == 1 else np.concatenate(sums, axis=1)


def _total(parts):
    """The sum of arrays [Q, ...], the first of which is overwritten."""
    first, *others = parts

    def some(rows):
        own = first[rows]
        for other in others:
            own += other[rows]

    if others:
        each(some, len(first), max(ADDED, -(-len(first) // GROUPS)))
    return first


class RowSquares:
    """The rows c_j of C [J, q], CSR in canonical form, multiplied with themselves once and for all.

    D C^T diag(w) C D = sum_j w_j D c_j c_j^T D for one w and diagonal D after another, and
    c_j^T D M D c_j of every row for one M after another, are then a product each with what is
    stored: the upper triangle of every c_j c_j^T, in parts, of the columns from one to another.
    """

    def __init__(self, C):
        self.q = C.shape[1]
        self.own = sparse.csr_array((C.data**2, C.indices, C.indptr), C.shape)
        # Each entry with itself and all that follow in its row.
        counts = np.repeat(C.indptr[1:], np.diff(C.indptr)) - np.arange(C.nnz, dtype=np.int32)
        ends = cuts(np.bincount(C.indices, counts, self.q))
        self.parts = in_threads(
            lambda *columns: _products(C, counts, *columns), ends[:-1], ends[1:]
        )

    @staticmethod
    def fits(C):
        """Whether they are few enough to be stored, and their places 32-bit numbers."""
        counts = np.diff(C.indptr).astype(float)
        return C.shape[1] ** 2 < 1 << 31 and counts @ (counts + 1) / 2 <= SQUARES

    def summed(self, w, scale):
        """D C^T diag(w) C D [q, q], its upper triangle, for the diagonal `scale` [q]; 0 below."""
        out = np.empty((self.q, self.q))

        def some(columns, upper):
            own = out[columns]
            np.multiply((upper @ w).reshape(own.shape), scale, out=own)
            own *= scale[columns, None]

        in_threads(some, *zip(*self.parts, strict=True))
        return out

    def forms(self, M, scale):
        """c_j^T D M D c_j [J] by the lower triangle of a symmetric M in Fortran's order."""

        def some(columns, upper):
            own = M.T[columns] * scale
            own *= scale[columns, None]
            return upper.T @ own.ravel()

        found = in_threads(some, *zip(*self.parts, strict=True))
        return 2 * sum(found) - self.own @ (M.diagonal() * scale**2)


def _products(C, counts, first, last):
    """The columns of a part, and each row's products, [(last - first) * q, J], that begin there."""
    q = C.shape[1]
    entries = np.flatnonzero((C.indices >= first) & (C.indices < last)).astype(np.int32)
    own = counts[entries]
    starts = np.concatenate([[0], np.cumsum(own)]).astype(np.int32)
    second = np.repeat(entries - starts[:-1], own)
    second += np.arange(starts[-1], dtype=np.int32)
    places = np.repeat((C.indices[entries] - np.int32(first)) * np.int32(q), own)
    places += C.indices[second]
    products = np.repeat(C.data[entries], own)
    products *= C.data[second]
    parts = products, places, starts[np.searchsorted(entries, C.indptr)]
    return slice(first, last), sparse.csc_array(parts, ((last - first) * q, C.shape[0]))
