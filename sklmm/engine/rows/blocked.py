"""Passes over rows in blocks: from linear predictors to sums without an array as long as the table.

A block has few enough rows for its arrays [rows, columns] to stay near a core. Where rows are
sorted by the largest term, blocks hold whole levels of it: their sums are theirs alone, and only
those of the other terms are added up, by groups of blocks that threads take one after the other.
Groups are the same whatever the number of threads, and so are the sums.
"""

from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from scipy import sparse

from sklmm._threads import GROUPS, in_threads
from sklmm.engine.rows.cross_products import cells
from sklmm.engine.rows.protocol import Coefs

#: Bytes of a block's arrays, of which a handful are in use at once, and its fewest rows. Smaller
#: ones stay in a core's cache, and threads then wait for each other at every operation.
BYTES = 1 << 21
FEWEST = 1 << 10
#: Numbers of an array up to which a thread takes longer to wake than the whole takes; blocks at the
#: least of what is larger.
WHOLE = 1 << 17
SHARED = 4
#: Blocks' worth of rows of one level up to which blocks hold whole levels.
LONGEST = 4
#: Rows times effects up to which a block's Z is dense: SciPy's overhead would be longer than the
#: product.
DENSE = 1 << 16
#: Rows of float32 that are added up in float32.
PARTIAL = 16


class Block(NamedTuple):
    """Rows, a slice, and their loadings.

    Z [n, Q] of all terms; `own` [q, n], its transpose for effects that no other block has, at
    `places`, pairs of slices, of all effects and of these; `rest` [., n] for the other terms', all
    of them or those at `touched`.
    """

    rows: slice
    Z: object
    own: object
    places: tuple
    rest: object
    touched: object


class Blocks(NamedTuple):
    """All blocks in order, in groups, and the terms of which each level is in one block."""

    groups: list
    own: list


class Passes:
    """The blocks of a table's terms: refs and z [n_rows, r] of each, and their numbers of levels.

    d adjacent rows are one observation's.
    """

    def __init__(self, refs, z, levels, n_rows, d):
        self.refs, self.z, self.levels, self.n_rows, self.d = refs, z, levels, n_rows, d
        sizes = [J * part.shape[-1] for J, part in zip(levels, z, strict=True)]
        ends = np.cumsum([0, *sizes])
        self.parts = [slice(int(a), int(b)) for a, b in pairwise(ends)]
        self.Q = int(ends[-1])
        self.largest = int(np.argmax(sizes)) if sizes else None
        entries = (part for own in zip(refs, z, strict=True) for _, part in cells(*own))
        self.plain = all((part == 1).all() for part in entries)
        self._blocks, self._shared = {}, {}

    @cached_property
    def _longest(self):
        """Most rows of a level of the largest term, infinite where rows are not sorted by it."""
        if self.largest is None or not in_order(self.refs[self.largest]):
            return np.inf
        return int(np.bincount(self.refs[self.largest]).max(initial=0))

    def blocks(self, n_columns, dtype):
        """`Blocks` for arrays of so many columns."""
        n_columns = max(n_columns, 1)
        size = max(BYTES // (n_columns * np.dtype(dtype).itemsize), 2)
        # Few sizes, as the blocks of each are kept: powers of 4, and one that all cores share out.
        size = max(1 << (size.bit_length() // 2 * 2 - 1), FEWEST)
        size = min(size, -(-self.n_rows // SHARED))
        if self.n_rows <= 2 * FEWEST or self.n_rows * n_columns <= WHOLE:
            size = max(self.n_rows, 1)
        key = size, np.dtype(dtype)
        if key not in self._blocks:
            self._blocks[key] = self._made(size, dtype)
        return self._blocks[key]

    def _made(self, size, dtype):
        n, of_all = self.n_rows, list(range(len(self.z)))
        if size >= n:
            return Blocks([[self._whole(dtype)]], of_all)
        # As many as cores share out evenly, which come in twos and fours.
        count = SHARED * -(-n // (SHARED * size))
        cuts, own = self.d * (np.arange(1, count) * (n // self.d) // count), []
        if self._longest <= LONGEST * size:
            refs = self.refs[self.largest]
            own = [k for k in of_all if refs is self.refs[k] or np.array_equal(refs, self.refs[k])]
            cuts = np.searchsorted(refs, refs[cuts])
        cuts = np.unique([0, *cuts, n]).tolist()
        blocks = [self._block(slice(a, b), own, dtype) for a, b in pairwise(cuts)]
        ends = np.linspace(0, len(blocks), min(GROUPS, len(blocks)) + 1).astype(int).tolist()
        return Blocks([blocks[a:b] for a, b in pairwise(ends)], own)

    def _whole(self, dtype):
        """All rows as one block."""
        rows, terms = slice(0, self.n_rows), range(len(self.z))
        Z = self._loadings(rows, terms, [0] * len(self.z), self.levels, dtype)
        if self.n_rows * self.Q <= DENSE:
            Z = Z.toarray()
        return Block(rows, Z, Z.T, [(slice(0, self.Q),) * 2], None, None)

    def _block(self, rows, own, dtype):
        """Some of the rows, `own` terms being those of which it has whole levels."""
        terms, places, begin = range(len(self.z)), [], 0
        first, spans = [0] * len(self.z), list(self.levels)
        Z = self._loadings(rows, terms, first, spans, dtype)
        for k in own:
            refs, r = self.refs[k], self.z[k].shape[-1]
            first[k], spans[k] = int(refs[rows.start]), int(refs[rows.stop - 1]) + 1
            spans[k] -= first[k]
            start, size = self.parts[k].start + first[k] * r, spans[k] * r
            places.append((slice(start, start + size), slice(begin, begin + size)))
            begin += size
        others, mine, rest, touched = [k for k in terms if k not in own], None, None, None
        if own:
            mine = self._loadings(rows, own, first, spans, dtype).T
        if others:
            rest = self._loadings(rows, others, first, spans, dtype)
            if rest.shape[1] > rest.shape[0]:
                touched, columns = np.unique(rest.indices, return_inverse=True)
                shape, columns = (len(rest.indptr) - 1, len(touched)), columns.astype(np.int32)
                rest = sparse.csr_array((rest.data, columns, rest.indptr), shape)
            rest = rest.T
        return Block(rows, Z, mine, places, rest, touched)

    def _loadings(self, rows, terms, first, spans, dtype):
        """Z of some terms' levels from `first` on, `spans` of them each: CSR."""
        n, begin, columns, values = rows.stop - rows.start, 0, [], []
        for k in terms:
            refs = self.refs[k][rows].astype(np.int64) - first[k]
            for own, z in cells(refs, self.z[k][rows]):
                columns.append(begin + own[:, None] * z.shape[1] + np.arange(z.shape[1]))
                values.append(z)
            begin += spans[k] * self.z[k].shape[-1]
        if not columns:
            return sparse.csr_array((n, 0), dtype=dtype)
        columns = np.concatenate(columns, axis=1)
        kind = np.int32 if max(begin, columns.size) < np.iinfo(np.int32).max else np.int64
        ends = self._ends(n + 1, columns.shape[1], kind)
        if self.plain:
            values = self._ones(columns.size, dtype)
        else:
            values = np.concatenate(values, axis=1).ravel().astype(dtype, copy=False)
        out = sparse.csr_array((values, columns.ravel().astype(kind), ends), (n, begin))
        if not self.plain and self.d > 1:
            # Of an observation's rows a term is in one.
            out.indptr = out.indptr.copy()
            out.eliminate_zeros()
        return out

    def _ones(self, size, dtype):
        """Ones, the same array for all blocks."""
        return self._share((np.dtype(dtype),), size, lambda n: np.ones(n, dtype))

    def _ends(self, size, step, kind):
        """Multiples of `step`, likewise."""
        return self._share((kind, step), size, lambda n: np.arange(n, dtype=kind) * kind(step))

    def _share(self, key, size, make):
        if len(self._shared.get(key, ())) < size:
            self._shared[key] = make(1 << size.bit_length())
        return self._shared[key][:size]

    def run(self, X, offset, coefs, visit, n_columns=None):
        """Sums over rows of what `visit` finds at their linear predictors.

        visit(rows, eta [n, C]) -> what is to be summed back over rows [n, n_columns], or None, and
        a tuple of sums. X [n_rows, p]; `offset` [n_rows] or None; without `coefs` eta is None.
        Returns X^T and Z^T of the former, as `Coefs`, and the sums of the latter.
        """
        dtype, U = np.dtype(float), np.zeros((0, n_columns or 0))
        if coefs is not None:
            dtype, C = coefs.beta.dtype, coefs.beta.shape[1]
            flat = [b.reshape(len(b) * b.shape[1], -1) for b in coefs.effects]
            U = np.concatenate(flat) if flat else np.zeros((0, C), dtype)
        groups, own = self.blocks(U.shape[1], dtype)
        nothing, n_columns = n_columns is None, n_columns or 0
        back = np.zeros((self.Q, n_columns), dtype)
        others = [part for k, part in enumerate(self.parts) if k not in own]
        n_others = sum(part.stop - part.start for part in others)

        def eta_of(block):
            eta = block.Z @ U
            if len(coefs.beta):
                # Coefficients may be the same for all columns.
                eta += X[block.rows].astype(dtype, copy=False) @ coefs.beta
            if offset is not None:
                eta += offset[block.rows, None].astype(dtype, copy=False)
            return eta

        def of_group(blocks):
            rest, beta, sums = np.zeros((n_others, n_columns), dtype), 0.0, None
            for block in blocks:
                rows = block.rows
                score, found = visit(rows, coefs and eta_of(block))
                sums = found if sums is None else tuple(map(np.add, sums, found))
                if score is None:
                    continue
                beta = beta + X[rows].T.astype(dtype, copy=False) @ score
                if block.own is not None:
                    local = block.own @ score
                    for to, at in block.places:
                        back[to] = local[at]
                if block.touched is not None:
                    rest[block.touched] += block.rest @ score
                elif block.rest is not None:
                    rest += block.rest @ score
            return rest, beta, sums

        rests, betas, sums = zip(*in_threads(of_group, groups), strict=True)
        sums = tuple(sum(parts) for parts in zip(*sums, strict=True))
        if nothing:
            return None, sums
        rest, begin = sum(rests[1:], rests[0]), 0
        for part in others:
            size = part.stop - part.start
            back[part] = rest[begin : begin + size]
            begin += size
        shapes = [(J, z.shape[-1], n_columns) for J, z in zip(self.levels, self.z, strict=True)]
        effects = [back[part].reshape(s) for part, s in zip(self.parts, shapes, strict=True)]
        return Coefs(sum(betas), tuple(effects)), sums


def in_order(refs):
    """Whether references are sorted; never those of several levels a row."""
    return refs.ndim == 1 and bool((refs[1:] >= refs[:-1]).all())


def total(rows, weights=None):
    """Weighted sums of rows [n, C] in float64: of few float32 numbers at once, as they round."""
    if rows.dtype != np.float32:
        # BLAS's sums are the quickest.
        return (np.ones(len(rows)) if weights is None else weights) @ rows
    if weights is not None:
        rows = rows * weights[:, None]
    n = len(rows) // PARTIAL * PARTIAL
    parts = rows[:n].reshape(PARTIAL, -1, rows.shape[1]).sum(axis=0)
    return parts.sum(axis=0, dtype=np.float64) + rows[n:].sum(axis=0, dtype=np.float64)
