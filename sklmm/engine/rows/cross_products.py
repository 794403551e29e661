"""Cross-products of rows in this process's memory, at the table's weights or at new ones."""

from dataclasses import dataclass, field

import numpy as np
from scipy import sparse

from sklmm.engine.rows.pairs import LocalPairs
from sklmm.engine.rows.sparse_fixed import Columns

#: Rows times effects up to which Z is dense: SciPy's overhead would be longer than the product.
DENSE = 1 << 16


@dataclass(frozen=True, eq=False)
class LocalCrossProducts:
    """What `engine.rows.protocol.Rows` sums over pairs of columns, of arrays in standard units.

    y [n_rows], X [n_rows, p], weights [n_rows]; of each term refs int32 [n_rows], the rows' levels,
    how many levels it has, and its columns z [n_rows, r]; offset [n_rows] or None, and the sparse
    columns of the fixed part, or None. An observation has d rows. New weights, `at`, are an array
    [n_rows].
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
        w, of_terms = self._weights(at), zip(self.refs, self.z, self.levels, strict=True)
        found = [cross_product(refs, z, w, J) for refs, z, J in of_terms]
        if at is None:
            self._known["blocks"] = found
        return found

    def block_of(self, terms):
        """Z^T w Z [J, r, r] of terms over one partition of the rows, their columns side by side."""
        first = terms[0]
        if len(terms) == 1:
            return self.blocks()[first]
        z = np.concatenate([self.z[k] for k in terms], axis=1)
        return cross_product(self.refs[first], z, self.weights, self.levels[first])

    def same_levels(self, k, other):
        """Whether two terms are over one partition of the rows, however they number its parts."""
        one, two = self.refs[k], self.refs[other]
        if one is two or self.levels[k] != self.levels[other]:
            return one is two
        partner = np.zeros(self.levels[k], two.dtype)
        partner[one] = two
        return np.array_equal(partner[one], two)

    def fixed(self, at=None):
        """X^T w X [p, p], X^T w y [p], and Z_k^T w X of every term, [J, r, p] each.

        Of sparse columns the last is X_s^T w X [k, p].
        """
        X, w = self.X, self._weights(at)
        sums = self._sums(X, w)
        if self.columns is not None:
            sums.append(self.columns.F)
        return weighed(X.T, w) @ X, X.T @ weighed(self.y, w), sums

    def response(self, beta):
        """y^T w y, X^T w y [p], and Z_k^T w y of every term, [J, r] each, of y less X beta [p].

        Of sparse columns the last is X_s^T w y [k].
        """
        y = self.y - self.X @ beta
        wy = weighed(y, self.weights)
        sums = [zy[:, :, 0] for zy in self._sums(y[:, None], self.weights)]
        if self.columns is not None:
            sums.append(self.columns.back @ y)
        return float(wy @ y), self.X.T @ wy, sums

    def _sums(self, rows, w):
        """Z_k^T w rows of every term, [J, r, c] each, of rows [n_rows, c]."""
        out = []
        for refs, z, J in zip(self.refs, self.z, self.levels, strict=True):
            sums = np.zeros((J, z.shape[1], rows.shape[1]))
            # bincount would convert the references anew each time.
            refs = refs.astype(np.intp)
            for a in range(z.shape[1]):
                wz = weighed(z[:, a], w)
                for c in range(rows.shape[1]):
                    sums[:, a, c] = np.bincount(refs, wz * rows[:, c], J)
            out.append(sums)
        return out

    def pairs(self, k, others, at=None):
        """`LocalPairs` of a term and some others, side by side; number K is the sparse columns."""
        if k is None:
            return LocalPairs(sparse.csr_array((0, self.columns.k if others else 0)), 1)
        parts, r = [self._pair(k, other, at) for other in others], self.z[k].shape[1]
        if len(parts) != 1:
            parts = [sparse.hstack([sparse.csr_array((self.levels[k] * r, 0)), *parts], "csr")]
        return LocalPairs(parts[0], r)

    def gram(self, at=None):
        """[X, Z]^T w [X, Z], dense [p + Q, p + Q]."""
        key = "dense", self.p
        if key not in self._known:
            Z = self._Z.toarray() if sparse.issparse(self._Z) else self._Z
            self._known[key] = np.concatenate([self.X, Z], axis=1)
        A = self._known[key]
        return (A.T * self._weights(at)) @ A

    @property
    def _Z(self):
        """Z of all terms [n_rows, Q], sparse or, where it is small, dense."""
        if "Z" not in self._known:
            of_terms = zip(self.refs, self.z, self.levels, strict=True)
            parts = [sparse.csr_array((self.n_rows, 0)), *(loadings(*own) for own in of_terms)]
            Z = sparse.hstack(parts, "csr")
            self._known["Z"] = Z.toarray() if self.n_rows * Z.shape[1] <= DENSE else Z
        return self._known["Z"]

    def _pair(self, k, other, at):
        """Z_k^T w Z_other, sparse [J_k r_k, J_other r_other]."""
        if other == len(self.z):
            return (self.columns.back @ loadings(self.refs[k], self.z[k], self.levels[k])).T.tocsr()
        z, q, w = self.z[k], self.z[other], self._weights(at)
        if at is None and z.shape[1] == q.shape[1] == 1:
            out = self._sorted(k, other, weighed(z[:, 0] * q[:, 0], w))
            out.sum_duplicates()
            return out
        order, starts, columns, ends = self._pattern(k, other, keep=at is not None)
        data = np.empty((len(columns), z.shape[1], q.shape[1]))
        for a in range(z.shape[1]):
            wz = weighed(z[:, a], w)
            for b in range(q.shape[1]):
                data[:, a, b] = np.add.reduceat((wz * q[:, b])[order], starts)
        shape = self.levels[k] * z.shape[1], self.levels[other] * q.shape[1]
        if data.shape[1:] == (1, 1):
            return sparse.csr_array((data.ravel(), columns, ends), shape)
        return sparse.bsr_array((data, columns, ends), shape).tocsr()

    def _pattern(self, k, other, keep):
        """Where pairs of levels are: rows in their order, each pair's first, and CSR's indices."""
        if (k, other) in self._known:
            return self._known[k, other]
        rows = self._sorted(k, other, np.arange(self.n_rows, dtype=np.int32))
        first = np.diff(rows.indices, prepend=-1) != 0
        first[rows.indptr[:-1][rows.indptr[:-1] < self.n_rows]] = True
        starts = np.flatnonzero(first)
        ends = np.searchsorted(starts, rows.indptr).astype(np.int32)
        found = rows.data, starts, rows.indices[starts], ends
        if keep:
            self._known[k, other] = found
        return found

    def _sorted(self, k, other, values):
        """Values [n_rows] by pairs of levels, CSR, equal pairs side by side."""
        shape = self.levels[k], self.levels[other]
        out = sparse.coo_array((values, (self.refs[k], self.refs[other])), shape)
        # By columns and then by rows: two passes sort the pairs.
        out.has_canonical_format = True
        out = out.tocsc().tocsr()
        out.has_canonical_format = False
        return out

    def _weights(self, at):
        return self.weights if at is None else at


def cross_product(refs, z, weights, n_levels):
    """z^T w z of every level, [n_levels, r, r]."""
    r = z.shape[1]
    out = np.empty((n_levels, r, r))
    # bincount would convert the references anew each time.
    refs = refs.astype(np.intp)
    for a in range(r):
        for b in range(a, r):
            out[:, a, b] = out[:, b, a] = np.bincount(
                refs, weighed(z[:, a] * z[:, b], weights), minlength=n_levels
            )
    return out


def weighed(array, weights):
    """Array [..., n_rows] times the weights; itself, without a copy, where they are all 1."""
    return array if (weights == 1).all() else array * weights


def loadings(refs, z, n_levels):
    """Z, sparse [n_rows, n_levels * r]."""
    n, r = z.shape
    columns = refs.astype(np.int64)[:, None] * r + np.arange(r)
    ends = np.arange(n + 1) * r
    return sparse.csr_array((z.ravel(), columns.ravel(), ends), (n, n_levels * r))
