"""The weighted least-squares problem of a fit, and the inverse of its matrix in parts.

Of rows [x_i, z_i] with precisions w_i and residuals e_i, and with the effects' prior, it has the
posterior of coefficients and effects given the variances. For families other than the Gaussian w is
a row's expected information and w e its score, in the mean over the posterior of eta: what the
likelihood of the coefficients has, whose effects are integrated out.

A single row's leverage and what it does to the coefficients are read off the inverse for all rows
at once; a group of rows has those columns of it that the rows have entries in.
"""

from typing import NamedTuple

import numpy as np
from scipy.sparse import block_diag, csr_array, identity, kron
from scipy.sparse import hstack as joined

from sklmm._fitted.eliminated import Inverse, Sums
from sklmm._fitted.expectation import hermite
from sklmm._fitted.latent import linear_predictor, of_rows
from sklmm._fitted.leverage import of_rows as of_single_rows
from sklmm._threads import each
from sklmm.families.constraints import CONSTRAINTS
from sklmm.families.special import NUMPY
from sklmm.result import covariance_root

#: Of Gauss-Hermite quadrature of a standard normal distribution.
NODES, SHARES = hermite(9)
#: Steps to where the averages over eta are stationary.
STEPS = 2


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
        name: ([names.index(name)], 1 / CONSTRAINTS[kind].slope(parameters[name]))
        for name, kind in response.parameters.items()
        if kind in CONSTRAINTS and name in parameters
    }
    for model in response.models:
        X = next(own.X for own in models if own.component == model.component)
        out[model.parameter] = [names.index(name) for name in model.names], X
    return out


class Rows:
    """Rows U = [X, Z] of a design times sqrt(w), in coefficients and standardised effects; A^-1.

    Effects are b = L u of each level, with L L^T the term's covariance, so that a variance of 0 is
    no exception. Those of the largest term, `first`, are apart, the others come after the
    coefficients. `prior` are the precisions [p] of coefficients.
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
            variance = rows.leverage()[0] / rows.working.root**2
            working = Working.of(*known, eta, variance)
            rows, root = cls(design, working, result, prior), working.root
            eta = offset + rows.fitted(root * (eta - offset) + working.residual) / root
        last = Working.of(*known, eta, variance)
        rows.working = last._replace(root=root, residual=last.residual * last.root / root)
        return rows

    def __init__(self, design, working, result, prior):
        self.kept = kept = ~result.dropped[: design.X.shape[1]]
        self.working, self.p, self.prior = working, int(kept.sum()), prior[kept]
        #: Of `fitted`; and the residual SD of a Gaussian model and its rows' repetitions.
        self.coef, self.effects = np.zeros(self.p), (None, np.zeros(0))
        self.sigma = self.counts = None
        sizes = [0 if b.coupled else b.n_levels * b.r for b in design.blocks]
        self.first = int(np.argmax(sizes)) if any(sizes) else None
        self.blocks, self.covariances = design.blocks, result.covariances
        self.roots = [covariance_root(cov) for cov in result.covariances]
        parts = [
            _sparse(block, root, working.root)
            for block, root in zip(self.blocks, self.roots, strict=True)
        ]
        self.X, self.Z = working.root[:, None] * design.X[:, kept], None
        self.r = 0 if self.first is None else self.blocks[self.first].r
        others = list(self.blocks)
        if self.first is not None:
            self.Z = parts.pop(self.first)
            del others[self.first]
        self.rest = joined(parts, format="csr") if parts else csr_array((len(self.X), 0))
        precisions = [_precision(block) for block in others]
        self.precision = block_diag(precisions, format="csr") if others else csr_array((0, 0))
        self.sums = Sums.of(self.X, self.rest, self.Z, self.r)
        self.inverse = Inverse(self.sums, self.prior, self.precision)

    def without(self, rows):
        """The `Inverse` of the problem without some rows."""
        Z = None if self.Z is None else self.Z[rows]
        left = self.sums.less(Sums.of(self.X[rows], self.rest[rows], Z, self.r))
        return Inverse(left, self.prior, self.precision)

    def spread(self, inverse):
        """Of each term the sum over its levels of its effects' covariances by an A^-1, [r, r]."""
        out, start = [], self.p
        for k, block in enumerate(self.blocks):
            if k == self.first:
                out.append(inverse.spread_of_first())
                continue
            out.append(inverse.spread_of_others(start, block.n_levels, block.r))
            start += block.n_levels * block.r
        return out

    def moments(self, response, rows=slice(None)):
        """U^T of a response times sqrt(w) at some rows: (coefficients and others, `first`'s)."""
        others = np.concatenate([self.X[rows].T @ response, self.rest[rows].T @ response])
        return others, None if self.Z is None else self.Z[rows].T @ response

    def fitted(self, response):
        """Fitted values [n] of a response, both times sqrt(w); its coefficients and effects stay.

        Standardised effects are those of `first`, or None, and of the others.
        """
        own, first = self.inverse.solve(*self.moments(response))
        self.coef, self.effects = own[: self.p], (first, own[self.p :])
        out = self.X @ self.coef + self.rest @ own[self.p :]
        return out if first is None else out + self.Z @ first

    def leverage(self):
        """(h [n], C [n, p]): the diagonal of U A^-1 U^T, the coefficients' columns of U A^-1.

        h is the posterior variance of eta times w.
        """
        return of_single_rows(self.X, self.rest, self.Z, self.inverse)

    def touched(self, rows):
        """(U [n, m], A^-1 of its columns [m, m], their places) of some rows.

        U are the rows times sqrt(w), without columns of zeros. Coefficients come first, then the
        others, then effects of `first`; places are arrays of these and of those.
        """
        places, of_rest = _dense(self.rest, rows)
        kept = np.concatenate([np.arange(self.p), self.p + places])
        parts = [self.X[rows], of_rest]
        if self.first is None:
            none = np.zeros(0, np.intp)
            return np.concatenate(parts, axis=1), self.inverse.S[np.ix_(kept, kept)], (places, none)
        at, Z = _dense(self.Z, rows)
        m, (crossed, own) = len(kept), self.inverse.of_first(at)
        inverse = np.empty((m + len(at), m + len(at)))
        inverse[:m, :m] = self.inverse.S[np.ix_(kept, kept)]
        inverse[m:, :m] = crossed[:, kept]
        inverse[:m, m:] = inverse[m:, :m].T
        inverse[m:, m:] = own
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
