"""The weighted least-squares problem of a fit, and the inverse of its matrix in parts.

Of rows [x_i, z_i] with precisions w_i and residuals e_i, and with the effects' prior, it has the
posterior of coefficients and effects given the variances. For families other than the Gaussian w is
a row's expected information and w e its score, in the mean over the posterior of eta: what the
likelihood of the coefficients has, whose effects are integrated out.

The effects of the largest term, whose levels are independent given all else, are eliminated, and
the inverse of what remains is dense.
"""

from typing import NamedTuple

import numpy as np
from scipy.linalg import lapack
from scipy.sparse import block_diag, csr_array, identity, kron
from scipy.sparse import hstack as joined

from sklmm._fitted.expectation import hermite
from sklmm._fitted.latent import linear_predictor, of_rows
from sklmm._threads import each, in_threads, single_blas
from sklmm.families.special import NUMPY
from sklmm.result import covariance_root

#: Numbers of rows that are made dense at a time.
NUMBERS = 1 << 23
#: Rows up to which levels are taken together.
TOGETHER = 128
#: Columns of a sparse product that are made dense at a time.
COLUMNS = 512
#: Of Gauss-Hermite quadrature of a standard normal distribution.
NODES, SHARES = hermite(9)
#: Steps to where the averages over eta are stationary.
STEPS = 2
#: The derivative of a family's parameter in its unconstrained one, by constraint.
RATES = {
    "positive": lambda value: value,
    "real": lambda value: 1.0,
    "unit": lambda value: value * (1 - value),
    "one_to_two": lambda value: (value - 1) * (2 - value),
}


class Working(NamedTuple):
    """Rows in the weighted problem: roots sqrt(w) and r = sqrt(w) e, both [n].

    slopes [n, k] are the scores of the family's parameters, or of their coefficients in a model's
    other parts; none of a Gaussian one's.
    """

    root: np.ndarray
    residual: np.ndarray
    slopes: np.ndarray

    @classmethod
    def of(cls, response, parameters, models, eta, variance):
        """That of another family, its parameters by name, in the mean over normal eta.

        `models` are the designs of the other parts; eta's means and variances are [n].
        """
        family, own, n = response.family, response.with_data(parameters), len(eta)
        rates = _rates(response, parameters, models)
        score, information = np.empty(n), np.empty(n)
        slopes = np.zeros((n, len(response.parameters)))

        def some(rows):
            at = eta[rows, None] + np.sqrt(variance[rows, None]) * NODES
            link = getattr(family, "link", "identity")
            density = family.density(NUMPY, response.y[rows, None], at, of_rows(own, rows), link)
            score[rows] = np.broadcast_to(density.score, at.shape) @ SHARES
            information[rows] = np.broadcast_to(density.expected, at.shape) @ SHARES
            for name, slope in density.slopes.items():
                if name in rates:
                    places, rate = rates[name]
                    slope = np.broadcast_to(slope, at.shape) @ SHARES
                    rate = rate if np.ndim(rate) == 0 else rate[rows]
                    slopes[rows, places] = slope[:, None] * rate

        each(some, n)
        w = response.weights
        root = np.sqrt(w * np.maximum(information, np.finfo(float).tiny))
        return cls(root, w * score / root, w[:, None] * slopes)


def _rates(response, parameters, models):
    """(Columns of `slopes`, derivatives there of its unconstrained value) of parameters by name.

    Of a parameter with a model these are its coefficients and their columns [n, k].
    """
    names = list(response.parameters)
    out = {
        name: ([names.index(name)], 1 / RATES[kind](parameters[name]))
        for name, kind in response.parameters.items()
        if kind in RATES and name in parameters
    }
    for model in response.models:
        X = next(own.X for own in models if own.component == model.component)
        out[model.parameter] = [names.index(name) for name in model.names], X
    return out


class Rows:
    """[X, Z] of a design in coefficients and standardised effects, and A^-1 in parts.

    Effects are b = L u of each level, with L L^T the term's covariance, so that a variance of 0 is
    no exception. Those of the largest term are `first`, the others come after the coefficients.
    `prior` are the precisions [p] of coefficients.
    """

    @classmethod
    def of(cls, design, response, result, parameters, prior):
        """The rows of a fit; `parameters` are the family's, and for `prior` see above."""
        offset = 0.0 if design.offset is None else design.offset
        if response.family.closed_form:
            root = np.sqrt(response.weights) * response.sigma_unit / result.sigma
            y = root * (response.y - offset)
            rows = cls(design, Working(root, y, np.zeros((len(y), 0))), result, prior)
            rows.working = rows.working._replace(residual=y - rows.fitted(y))
            rows.sigma, rows.counts = result.sigma, response.weights
            if response.family.weights == "precision":
                rows.counts = np.ones(len(y))
            return rows
        eta, variance = linear_predictor(design, result), np.zeros(design.n_rows)
        known = response, parameters, design.models
        rows = cls(design, Working.of(*known, eta, variance), result, prior)
        if not design.blocks:
            return rows
        # An E-step's effects are modes or means. The averages are stationary at neither.
        for _ in range(STEPS):
            variance = rows.leverage() / rows.working.root**2
            working = Working.of(*known, eta, variance)
            rows, root = cls(design, working, result, prior), working.root
            eta = offset + rows.fitted(root * (eta - offset) + working.residual) / root
        last = Working.of(*known, eta, variance)
        rows.working = last._replace(root=root, residual=last.residual * last.root / root)
        return rows

    def __init__(self, design, working, result, prior):
        self._given = design, result, prior
        self.kept = kept = ~result.dropped[: design.X.shape[1]]
        self.working, self.X, self.p = working, design.X[:, kept], int(kept.sum())
        #: Of `fitted`; and the residual SD of a Gaussian model and its rows' repetitions.
        self.coef, self.effects = np.zeros(self.p), (None, np.zeros(0))
        self.prior = prior[kept]
        self.sigma = self.counts = None
        sizes = [0 if b.coupled else b.n_levels * b.r for b in design.blocks]
        self.first = int(np.argmax(sizes)) if any(sizes) else None
        self.blocks = design.blocks
        self.covariances = result.covariances
        self.roots = [covariance_root(cov) for cov in result.covariances]
        rest = [k for k in range(len(design.blocks)) if k != self.first]
        parts = [_sparse(self.blocks[k], self.roots[k], working.root) for k in rest]
        n, precisions = len(working.root), [_precision(self.blocks[k]) for k in rest]
        self.rest = joined(parts, format="csr") if rest else csr_array((n, 0))
        X = working.root[:, None] * self.X
        p, q = self.p, self.rest.shape[1]
        S = np.empty((p + q, p + q))
        S[:p, :p] = X.T @ X + np.diag(self.prior)
        S[p:, :p] = self.rest.T @ X
        S[:p, p:] = S[p:, :p].T
        _add_product(S[p:, p:], self.rest, self.rest, new=True)
        if q:
            every = block_diag(precisions).tocoo()
            S[p + every.row, p + every.col] += every.data
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

    def without(self, rows):
        """The problem without some rows, whose weights are 0 in it."""
        root = self.working.root.copy()
        root[rows] = 0.0
        design, result, prior = self._given
        return Rows(design, self.working._replace(root=root), result, prior)

    def spread(self):
        """Of each term the sum over its levels of its effects' covariances, [r, r]."""
        out, start = [], self.p
        for k, block in enumerate(self.blocks):
            r = block.r
            if k == self.first:
                out.append(self._spread_of_first())
                continue
            stop, levels = start + block.n_levels * r, np.arange(block.n_levels)
            own = self.inverse[start:stop, start:stop].reshape(block.n_levels, r, -1, r)
            out.append(own[levels, :, levels].sum(axis=0))
            start = stop
        return out

    def _spread_of_first(self):
        """That of D^-1 + T S^-1 T^T, the sum of products of S^-1 and T^T T."""
        p, out = self.p, self.D.sum(axis=0)
        r = len(out)
        for a in range(r):
            for b in range(r):
                X, rest = self.T_X[b::r], self.T_rest[b::r]
                both = (self.T_rest[a::r].T @ rest).tocoo()
                out[a, b] += np.sum(self.inverse[:p, :p] * (self.T_X[a::r].T @ X))
                out[a, b] += np.sum(self.inverse[p:, :p] * (self.T_rest[a::r].T @ X))
                out[a, b] += np.sum(self.inverse[p:, :p] * (rest.T @ self.T_X[a::r]))
                out[a, b] += both.data @ self.inverse[p + both.row, p + both.col]
        return out

    def moments(self, rows):
        """U^T r of some rows, in (coefficients and others, effects of `first` or None)."""
        root, r = self.working.root[rows], self.working.residual[rows]
        others = np.concatenate([self.X[rows].T @ (root * r), self.rest[rows].T @ r])
        return others, None if self.first is None else self.Z[rows].T @ r

    def fitted(self, response):
        """Fitted values [n] of a response, both times sqrt(w); its coefficients and effects stay.

        Standardised effects are those of `first`, or None, and of the others.
        """
        X, p = self.working.root[:, None] * self.X, self.p
        others = np.concatenate([X.T @ response, self.rest.T @ response])
        of_first = None if self.first is None else self.Z.T @ response
        own, first = self.solve(others, of_first)
        self.coef, self.effects = own[:p], (first, own[p:])
        out = X @ own[:p] + self.rest @ own[p:]
        return out if first is None else out + self.Z @ first

    def solve(self, others, of_first):
        """A^-1 of (coefficients and others, effects of `first` or None), in these two parts."""
        if of_first is None:
            return self.inverse @ others, None
        p = self.p
        left = others - np.concatenate([self.T_X.T @ of_first, self.T_rest.T @ of_first])
        own = self.inverse @ left
        J, r, _ = self.D.shape
        first = np.einsum("jab,jb->ja", self.D, of_first.reshape(J, r)).ravel()
        return own, first - self.T_X @ own[:p] - self.T_rest @ own[p:]

    def leverage(self):
        """h [n]: the posterior variance of eta times w."""
        out = np.empty(len(self.working.root))

        def some(members):
            U, inverse, _ = self.touched(members)
            out[members] = np.einsum("nm,nm->n", U @ inverse, U)

        in_threads(some, self.neighbours())
        return out

    def neighbours(self):
        """Numbers of rows in parts, those of a level of the largest term together."""
        n, step = len(self.working.root), max(NUMBERS // len(self.inverse), 1)
        refs = np.zeros(n, int) if self.first is None else self.blocks[self.first].refs
        ends = np.cumsum(np.bincount(refs))
        # Small levels share a part.
        ends = ends[np.diff(ends // TOGETHER, prepend=0) > 0]
        parts = np.split(np.argsort(refs, kind="stable"), ends)
        return [part[i : i + step] for part in parts for i in range(0, len(part), step)]

    def touched(self, rows):
        """(U [n, m], A^-1 of its columns [m, m], their places) of some rows.

        U are the rows times sqrt(w), without columns of zeros. Coefficients come first, then the
        others, then effects of `first`; places are arrays of these and of those.
        """
        places, of_rest = _dense(self.rest, rows)
        kept = np.concatenate([np.arange(self.p), self.p + places])
        parts = [self.working.root[rows, None] * self.X[rows], of_rest]
        if self.first is None:
            none = np.zeros(0, np.intp)
            return np.concatenate(parts, axis=1), self.inverse[np.ix_(kept, kept)], (places, none)
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
        inverse[m:, m:] = TS @ T.T
        r = self.D.shape[1]
        own = m + np.arange(len(at)).reshape(-1, r)
        inverse[own[:, :, None], own[:, None]] += self.D[at[::r] // r]
        return np.concatenate([*parts, Z], axis=1), inverse, (places, at)


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
    # Threads of BLAS wait for one another longer here than they work, where cores are shared.
    with single_blas():
        factor, info = lapack.dpotrf(S.T, lower=False, overwrite_a=True)
        if info:
            raise np.linalg.LinAlgError("X: its columns do not determine the coefficients.")
        inverse, _ = lapack.dpotri(factor, lower=False, overwrite_c=True)
    for j in range(len(inverse)):
        inverse[j + 1 :, j] = inverse[j, j + 1 :]
    return inverse
