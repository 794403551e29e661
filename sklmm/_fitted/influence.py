r"""What the rows and groups of a fit do to its coefficients: leverage, deletion, Cook's distance.

Given the variances, the posterior of coefficients and effects is that of a weighted least-squares
problem, of rows [x_i, z_i] with precisions w_i and residuals e_i and with the effects' prior. With
A its matrix, U rows of it times sqrt(w) and r their residuals times sqrt(w), the estimates move by

    -A^-1 U^T (1 - H)^-1 r,      H = U A^-1 U^T,

where these rows are left out. That is exact for a Gaussian model. For other families w is a row's
expected information and w e its score, in the mean over the posterior of eta, and this is one
Newton step. U and r of a group count by the triangle of their QR decomposition alone.

A^-1 is kept in parts: the effects of the largest term, whose levels are independent given all else,
are eliminated, and what remains is dense.

References
----------
Demidenko & Stukel (2005), Stat. Med. 24, 893-909; Christensen, Pearson & Johnson (1992),
Technometrics 34, 38-45; Pregibon (1981), Ann. Statist. 9, 705-724, for other families.
"""

from typing import NamedTuple

import numpy as np
from numpy.polynomial.hermite_e import hermegauss
from scipy.linalg import lapack
from scipy.sparse import block_diag, csr_array, identity, kron
from scipy.sparse import hstack as joined

from sklmm._fitted.latent import linear_predictor
from sklmm._fitted.prediction import of_rows
from sklmm._threads import each, in_threads
from sklmm.families.special import NUMPY
from sklmm.result import covariance_root

#: Coefficients and effects beside the largest term's beyond which A^-1 would be too large.
LARGEST = 10_000
#: Numbers of rows that are made dense at a time.
NUMBERS = 1 << 23
#: Columns of a sparse product that are made dense at a time.
COLUMNS = 512
#: Of Gauss-Hermite quadrature of a standard normal distribution.
NODES, SHARES = hermegauss(9)
SHARES = SHARES / SHARES.sum()
#: Steps to where the averages over eta are stationary.
STEPS = 2
#: 1 - H's least eigenvalue down to which a coefficient is determined without the group.
DETERMINED = 1e-9


class Working(NamedTuple):
    """The weighted least-squares problem of a fit: roots sqrt(w) and r = sqrt(w) e, both [n]."""

    root: np.ndarray
    residual: np.ndarray

    @classmethod
    def gaussian(cls, design, response, result):
        """That of a Gaussian model."""
        root = np.sqrt(response.weights) * response.sigma_unit / result.sigma
        return cls(root, root * (response.y - linear_predictor(design, result)))

    @classmethod
    def of(cls, response, parameters, eta, variance):
        """That of another family, its parameters by name.

        Score and information are averaged over normal distributions of eta with these means and
        variances [n], as the likelihood of the coefficients has them, whose effects are integrated
        out.
        """
        family, own = response.family, response.with_data(parameters)
        score, information = np.empty((2, len(eta)))

        def some(rows):
            at = eta[rows, None] + np.sqrt(variance[rows, None]) * NODES
            link = getattr(family, "link", "identity")
            density = family.density(NUMPY, response.y[rows, None], at, of_rows(own, rows), link)
            score[rows] = np.broadcast_to(density.score, at.shape) @ SHARES
            information[rows] = np.broadcast_to(density.expected, at.shape) @ SHARES

        each(some, len(eta))
        root = np.sqrt(response.weights * np.maximum(information, np.finfo(float).tiny))
        return cls(root, response.weights * score / root)


class Rows:
    """[X, Z] of a design in coefficients and standardised effects, and A^-1 in parts.

    Effects are b = L u of each level, with L L^T the term's covariance, so that a variance of 0 is
    no exception. Those of the largest term are `first`, the others come after the coefficients.
    `prior` are the precisions [p] of coefficients.
    """

    @classmethod
    def of(cls, design, response, result, parameters, prior):
        """The rows of a fit; `parameters` are the family's, and for `prior` see above."""
        if response.family.closed_form:
            return cls(design, Working.gaussian(design, response, result), result, prior)
        eta, variance = linear_predictor(design, result), np.zeros(design.n_rows)
        rows = cls(design, Working.of(response, parameters, eta, variance), result, prior)
        if not design.blocks:
            return rows
        offset = 0.0 if design.offset is None else design.offset
        # An E-step's effects are modes or means. The averages are stationary at neither.
        for _ in range(STEPS):
            variance = of_single_rows(rows).leverage / rows.working.root**2
            working = Working.of(response, parameters, eta, variance)
            rows = cls(design, working, result, prior)
            root = working.root
            eta = offset + rows.fitted(root * (eta - offset) + working.residual) / root
        rows.working = Working.of(response, parameters, eta, variance)
        return rows

    def __init__(self, design, working, result, prior):
        kept = ~result.dropped[: design.X.shape[1]]
        self.working, self.X, self.p = working, design.X[:, kept], int(kept.sum())
        sizes = [0 if b.coupled else b.n_levels * b.r for b in design.blocks]
        self.first = int(np.argmax(sizes)) if any(sizes) else None
        self.blocks = design.blocks
        self.roots = [covariance_root(cov) for cov in result.covariances]
        rest = [k for k in range(len(design.blocks)) if k != self.first]
        parts = [_sparse(self.blocks[k], self.roots[k], working.root) for k in rest]
        n, precisions = len(working.root), [_precision(self.blocks[k]) for k in rest]
        self.rest = joined(parts, format="csr") if rest else csr_array((n, 0))
        X = working.root[:, None] * self.X
        p, q = self.p, self.rest.shape[1]
        S = np.empty((p + q, p + q))
        S[:p, :p] = X.T @ X + np.diag(prior[kept])
        S[p:, :p] = self.rest.T @ X
        S[:p, p:] = S[p:, :p].T
        _add_product(S[p:, p:], self.rest, self.rest, new=True)
        if q:
            S[p:, p:] += block_diag(precisions).toarray()
        if self.first is not None:
            self._eliminate(X, S)
        self.inverse = _inverted(S)

    def _eliminate(self, X, S):
        """Take the effects of the largest term out of S, and keep D^-1 and D^-1 Z^T [X, rest]."""
        block, root = self.blocks[self.first], self.roots[self.first]
        r, p = block.r, self.p
        self.Z = Z = _sparse(block, root, self.working.root)
        z = Z.data.reshape(-1, r)
        D = np.zeros((block.n_levels, r, r))
        for a in range(r):
            for b in range(r):
                D[:, a, b] = np.bincount(block.refs, z[:, a] * z[:, b], block.n_levels)
        D += np.eye(r)
        self.D = np.linalg.inv(D)
        # With D^-1 = K K^T what is taken out is a square.
        K = _diagonal_blocks(np.linalg.cholesky(self.D))
        of_X, of_rest = K.T @ (Z.T @ X), K.T @ (Z.T @ self.rest)
        S[:p, :p] -= of_X.T @ of_X
        S[p:, :p] -= of_rest.T @ of_X
        S[:p, p:] = S[p:, :p].T
        _add_product(S[p:, p:], of_rest, of_rest, sign=-1.0)
        self.T_X, self.T_rest = K @ of_X, (K @ of_rest).tocsr()

    def fitted(self, response):
        """Fitted values [n] of a response, both times sqrt(w)."""
        X, p = self.working.root[:, None] * self.X, self.p
        wanted = np.concatenate([X.T @ response, self.rest.T @ response])
        if self.first is None:
            own = self.inverse @ wanted
            return X @ own[:p] + self.rest @ own[p:]
        of_first = self.Z.T @ response
        wanted -= np.concatenate([self.T_X.T @ of_first, self.T_rest.T @ of_first])
        own = self.inverse @ wanted
        effects = _diagonal_blocks(self.D) @ of_first - self.T_X @ own[:p] - self.T_rest @ own[p:]
        return X @ own[:p] + self.rest @ own[p:] + self.Z @ effects

    def touched(self, rows):
        """(U [n, m], A^-1 of its columns [m, m]) of some rows; the coefficients come first.

        U are the rows times sqrt(w), without columns of zeros.
        """
        places, of_rest = _dense(self.rest, rows)
        kept = np.concatenate([np.arange(self.p), self.p + places])
        parts = [self.working.root[rows, None] * self.X[rows], of_rest]
        if self.first is None:
            return np.concatenate(parts, axis=1), self.inverse[np.ix_(kept, kept)]
        at, Z = _dense(self.Z, rows)
        # Their covariance is D^-1 + T S^-1 T^T, and -T S^-1 with the others. All columns of
        # `places` are among those of T, whose levels have these rows.
        used, T = _dense(self.T_rest, at)
        every = np.concatenate([np.arange(self.p), self.p + used])
        S = self.inverse[np.ix_(every, every)]
        T = np.concatenate([self.T_X[at], T], axis=1)
        TS = T @ S
        m, wanted = len(kept), np.searchsorted(every, kept)
        inverse = np.empty((m + len(at), m + len(at)))
        inverse[:m, :m] = S[np.ix_(wanted, wanted)]
        inverse[m:, :m] = -TS[:, wanted]
        inverse[:m, m:] = inverse[m:, :m].T
        corner = TS @ T.T
        r = self.D.shape[1]
        for i, level in enumerate(at[::r] // r):
            corner[i * r : (i + 1) * r, i * r : (i + 1) * r] += self.D[level]
        inverse[m:, m:] = corner
        return np.concatenate([*parts, Z], axis=1), inverse


def _dense(matrix, rows):
    """(Columns in which some rows of a csr matrix have entries [m], these rows [n, m])."""
    if not matrix.nnz:
        return np.zeros(0, np.intp), np.zeros((len(rows), 0))
    first = matrix.indptr[rows]
    counts = matrix.indptr[rows + 1] - first
    which = np.repeat(np.arange(len(rows)), counts)
    entries = np.arange(len(which)) + np.repeat(first - np.cumsum(counts) + counts, counts)
    columns, places = np.unique(matrix.indices[entries], return_inverse=True)
    out = np.zeros((len(rows), len(columns)))
    out[which, places] = matrix.data[entries]
    return columns, out


def _sparse(block, root, scale):
    """Z L of a block, rows times `scale`, csr [n, n_levels * r]."""
    z, refs = np.asarray(block.loadings(slice(None))) @ root, block.refs
    if not block.tied:
        z, refs = z[:, None], refs[:, None]
    z = z * scale[:, None, None]
    n, m, r = z.shape
    columns = refs[:, :, None] * np.intp(r) + np.arange(r)
    starts = np.arange(n + 1) * (m * r)
    out = csr_array((z.ravel(), columns.ravel(), starts), (n, block.n_levels * r))
    out.sum_duplicates()
    return out


def _precision(block):
    """Prior precision of a block's standardised effects, sparse."""
    if block.relation is None:
        return identity(block.n_levels * block.r)
    return kron(block.relation.matrix, identity(block.r))


def _diagonal_blocks(blocks):
    """The sparse block-diagonal matrix of [J, r, r]."""
    J, r, _ = blocks.shape
    rows = np.arange(J * r).reshape(J, r)
    columns = np.broadcast_to(rows[:, None], (J, r, r))
    return csr_array((blocks.ravel(), columns.ravel(), np.arange(J * r + 1) * r), (J * r, J * r))


def _add_product(out, one, other, sign=1.0, new=False):
    """Add one^T other, sparse, to a dense matrix, or put it there."""
    for first in range(0, other.shape[1], COLUMNS):
        columns = slice(first, first + COLUMNS)
        product = (one.T @ other[:, columns]).toarray()
        out[:, columns] = product if new else out[:, columns] + sign * product


def _inverted(S):
    """The inverse of a positive definite matrix, in its place."""
    factor, info = lapack.dpotrf(S.T, lower=False, overwrite_a=True)
    if info:
        raise ValueError("X: its columns do not determine the coefficients.")
    inverse, _ = lapack.dpotri(factor, lower=False, overwrite_c=True)
    lower = np.tril_indices(len(inverse), -1)
    inverse[lower] = inverse.T[lower]
    return inverse


def check_size(design, n_coefficients):
    """Raise ValueError where A^-1 would be too large."""
    sizes = [b.n_levels * b.r for b in design.blocks]
    free = [0 if b.coupled else size for b, size in zip(design.blocks, sizes, strict=True)]
    left = n_coefficients + sum(sizes) - max(free, default=0)
    if left > LARGEST:
        raise ValueError(
            f"random_effects: influence has a dense matrix of the coefficients and of the effects "
            f"beside the largest term's, {left} here, and no more than {LARGEST}: fit a sample of "
            "the levels, or leave a term out."
        )


class Deletions(NamedTuple):
    """Of each row or group: leverage [m], and what its deletion does.

    `shift` [m, p] is the estimate less the one without it, `added` [m, p] what that adds to the
    variances of the coefficients; nan where they are not determined without it.
    """

    leverage: np.ndarray
    shift: np.ndarray
    added: np.ndarray


def of_single_rows(rows):
    """The `Deletions` of single rows."""
    n, p = rows.X.shape
    out = Deletions(np.empty(n), np.empty((n, p)), np.empty((n, p)))

    def some(members):
        U, inverse = rows.touched(members)
        C = U @ inverse
        leverage = np.einsum("nm,nm->n", C, U)
        left = np.where(1 - leverage > DETERMINED, 1 - leverage, np.nan)
        out.leverage[members] = leverage
        out.shift[members] = C[:, :p] * (rows.working.residual[members] / left)[:, None]
        out.added[members] = C[:, :p] ** 2 / left[:, None]

    in_threads(some, _neighbours(rows))
    return out


def _neighbours(rows):
    """Numbers of rows in parts, those of a level of the largest term together."""
    n, step = len(rows.working.root), max(NUMBERS // len(rows.inverse), 1)
    refs = np.zeros(n, int) if rows.first is None else rows.blocks[rows.first].refs
    parts = np.split(np.argsort(refs, kind="stable"), np.cumsum(np.bincount(refs))[:-1])
    return [part[i : i + step] for part in parts for i in range(0, len(part), step)]


def of_groups(rows, codes, n_groups):
    """The `Deletions` of groups of rows, `codes` [n] 0..n_groups-1; leverage is their rows' sum."""
    p = rows.p
    order = np.argsort(codes, kind="stable")
    members = np.split(order, np.cumsum(np.bincount(codes, minlength=n_groups))[:-1])

    def one(own):
        U, inverse = rows.touched(own)
        r = rows.working.residual[own, None]
        R = np.linalg.qr(np.concatenate([U, r], axis=1), mode="r")
        R, r = R[:, :-1], R[:, -1]
        C = R @ inverse
        H = C @ R.T
        try:
            L = np.linalg.cholesky(np.eye(len(H)) - H)
        except np.linalg.LinAlgError:
            L = np.zeros((1, 1))
        if L.diagonal().min() ** 2 < DETERMINED:
            unknown = np.full(p, np.nan)
            return np.trace(H), unknown, unknown
        white = np.linalg.solve(L, np.column_stack([C[:, :p], r]))
        C, r = white[:, :-1], white[:, -1]
        return np.trace(H), C.T @ r, (C**2).sum(axis=0)

    leverage, shift, added = zip(*in_threads(one, members), strict=True)
    return Deletions(np.array(leverage), np.array(shift), np.array(added))


def cooks_distances(deletions, covariance):
    """Shifts' squares [m] in units of the coefficients' covariance [p, p], divided by p."""
    shift = deletions.shift
    return np.einsum("mp,pm->m", shift, np.linalg.solve(covariance, shift.T)) / shift.shape[1]


def scaled_changes(deletions, covariance):
    """Shifts [m, p] in standard errors of the estimates after the deletion."""
    return deletions.shift / np.sqrt(np.diag(covariance) + deletions.added)
