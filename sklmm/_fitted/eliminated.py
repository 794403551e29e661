"""The inverse of a weighted least-squares problem's matrix, in parts.

The effects of the largest term, `first`, whose levels are independent given all else, are
eliminated, and the inverse S^-1 of what remains is dense. With D their own blocks of the matrix and
C their rows in the other columns, T = D^-1 C and S = B - C^T D^-1 C, the parts of the inverse are

    S^-1,    -T S^-1,    D^-1 + T S^-1 T^T.

The matrix is a sum over rows, so that the problem without some of them is what a subtraction
leaves.
"""

from typing import NamedTuple

import numpy as np
from scipy.linalg import lapack
from scipy.sparse import csr_array

#: Columns of a sparse product that are made dense at a time.
COLUMNS = 512


class Sums(NamedTuple):
    """Products of the columns of rows [X, rest, Z] times sqrt(w); Z is of `first`, or all None.

    XX [p, p], RX [q, p], RR [q, q], ZX [J r, p], ZR [J r, q] and of each level ZZ [J, r, r], of
    which RR and ZR are sparse.
    """

    XX: np.ndarray
    RX: np.ndarray
    RR: csr_array
    ZX: np.ndarray | None = None
    ZR: csr_array | None = None
    ZZ: np.ndarray | None = None

    @classmethod
    def of(cls, X, rest, Z, r):
        """Those of rows, whose Z has the r columns of one level each."""
        sums = cls(X.T @ X, rest.T @ X, (rest.T @ rest).tocsr())
        if Z is None:
            return sums
        z, levels = Z.data.reshape(-1, r), Z.indices[::r] // r
        ZZ = np.empty((Z.shape[1] // r, r, r))
        for a in range(r):
            for b in range(r):
                ZZ[:, a, b] = np.bincount(levels, z[:, a] * z[:, b], len(ZZ))
        return sums._replace(ZX=Z.T @ X, ZR=(Z.T @ rest).tocsr(), ZZ=ZZ)

    def less(self, other):
        """Those of these rows without some."""
        pairs = zip(self, other, strict=True)
        return Sums(*(None if own is None else own - less for own, less in pairs))


class Inverse:
    """A^-1 of rows' sums and of the prior: S [p + q, p + q] is S^-1, D [J, r, r] is D^-1.

    `prior` are the precisions [p] of the coefficients, and `precision` [q, q], sparse, that of the
    other terms' effects; those of `first` have precision 1.
    """

    def __init__(self, sums, prior, precision):
        self.p = p = len(prior)
        q = sums.RR.shape[0]
        S = np.empty((p + q, p + q))
        S[:p, :p], S[p:, :p] = sums.XX + np.diag(prior), sums.RX
        S[p:, p:] = (sums.RR + precision).toarray()
        self.D = None
        if sums.ZZ is not None:
            self._eliminate(sums, S)
        S[:p, p:] = S[p:, :p].T
        self.S = _inverted(S)

    def _eliminate(self, sums, S):
        """Take the effects of `first` out of S, and keep D^-1 and T."""
        p, r = self.p, sums.ZZ.shape[1]
        self.D = np.linalg.inv(sums.ZZ + np.eye(r))
        # With D^-1 = K K^T what is taken out is a square.
        K = _diagonal_blocks(np.linalg.cholesky(self.D))
        of_X, of_rest = K.T @ sums.ZX, (K.T @ sums.ZR).tocsr()
        turned = of_rest.T.tocsr()
        S[:p, :p] -= of_X.T @ of_X
        S[p:, :p] -= turned @ of_X
        for first in range(0, len(S) - p, COLUMNS):
            own = slice(first, min(first + COLUMNS, len(S) - p))
            S[p:, p:][own] -= (turned[own] @ of_rest).toarray()
        self.T_X, self.T_rest = K @ of_X, (K @ of_rest).tocsr()

    def solve(self, others, of_first):
        """A^-1 of (coefficients and others, effects of `first` or None), in these two parts."""
        if of_first is None:
            return self.S @ others, None
        p = self.p
        left = others - np.concatenate([self.T_X.T @ of_first, self.T_rest.T @ of_first])
        own = self.S @ left
        J, r, _ = self.D.shape
        first = np.einsum("jab,jb->ja", self.D, of_first.reshape(J, r)).ravel()
        return own, first - self.T_X @ own[:p] - self.T_rest @ own[p:]

    def of_first(self, at):
        """Of effects of `first` at some places, with all of a level: -T S^-1, D^-1 + T S^-1 T^T."""
        p, r, T_X = self.p, self.D.shape[1], self.T_X[at]
        TS = T_X @ self.S[:p]
        if others := self.T_rest.shape[1]:
            T_rest = self.T_rest[at]
            TS += T_rest @ self.S[p:]
        own = T_X @ TS[:, :p].T
        if others:
            own += T_rest @ TS[:, p:].T
        levels = np.arange(len(at)).reshape(-1, r)
        own[levels[:, :, None], levels[:, None]] += self.D[at[::r] // r]
        return -TS, own

    def spread_of_first(self):
        """The sum over the levels of `first` of D^-1 + T S^-1 T^T, that of S^-1 times T^T T."""
        p, S, out = self.p, self.S, self.D.sum(axis=0)
        r = len(out)
        for a in range(r):
            for b in range(r):
                X, rest = self.T_X[b::r], self.T_rest[b::r]
                both = (self.T_rest[a::r].T @ rest).tocoo()
                out[a, b] += np.sum(S[:p, :p] * (self.T_X[a::r].T @ X))
                out[a, b] += np.sum(S[p:, :p] * (self.T_rest[a::r].T @ X))
                out[a, b] += np.sum(S[p:, :p] * (rest.T @ self.T_X[a::r]))
                out[a, b] += both.data @ S[p + both.row, p + both.col]
        return out

    def spread_of_others(self, start, n_levels, r):
        """The sum over the levels of another term, from S^-1's place `start` on, of its blocks."""
        stop, levels = start + n_levels * r, np.arange(n_levels)
        own = self.S[start:stop, start:stop].reshape(n_levels, r, n_levels, r)
        return own[levels, :, levels].sum(axis=0)


def _diagonal_blocks(blocks):
    """The sparse block-diagonal matrix of [J, r, r]."""
    J, r, _ = blocks.shape
    rows = np.arange(J * r).reshape(J, r)
    columns = np.broadcast_to(rows[:, None], (J, r, r))
    return csr_array((blocks.ravel(), columns.ravel(), np.arange(J * r + 1) * r), (J * r, J * r))


def _inverted(S):
    """The inverse of a positive definite matrix, in its place."""
    factor, info = lapack.dpotrf(S.T, lower=False, overwrite_a=True)
    if info:
        raise np.linalg.LinAlgError("X: its columns do not determine the coefficients.")
    inverse, _ = lapack.dpotri(factor, lower=False, overwrite_c=True)
    for j in range(len(inverse)):
        inverse[j + 1 :, j] = inverse[j, j + 1 :]
    # Rows, not LAPACK's columns, one after another: sparse products would copy them so each time.
    return inverse.T
