"""A problem in standard units from sums of its rows: what `standardize` makes of the rows.

With the sums' columns M = (1, x', y') (`rows.sufficient`) the standard X is M T and y is M t, and a
term's z is z' A: the standard problem's sums are those of M and z', mapped. So the same numbers
come out as from the rows, to rounding, wherever the sums tell them. What they do not tell is an
error: columns of which so little is independent of others, or a y of which so little is left, that
sums, which are squares, have lost it.
"""

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from scipy import sparse
from scipy.linalg import solve_triangular

from sklmm._threads import in_threads
from sklmm.engine.linalg.blocks import LocalPairs, block_diagonal, csr_rows, cuts
from sklmm.engine.rows.collinearity import TOLERANCE, combination_of
from sklmm.engine.rows.pair_sums import ranks
from sklmm.engine.rows.standardize import (
    PERFECT_FIT,
    RANK_TOLERANCE,
    ROUNDING,
    BlockData,
    Problem,
    rotated,
    well_conditioned,
)
from sklmm.engine.rows.sufficient import Statistics

#: What is left of a column, of its size, up to which sums show it to depend on others, and from
#: which on they show that it does not.
DEPENDENT = 5e-7
INDEPENDENT = 1e-5
#: Share of y's squares, in the sums' units, below which the rest is rounding of sums.
UNTOLD = 1e-12


@dataclass(frozen=True, eq=False)
class SummedRows:
    """What `engine.rows.protocol.Rows` sums over pairs of columns, from `Statistics`.

    X = M T and y = M t of M's columns; of each term A [r, r] with z = z' A. Sums are multiplied by
    `unit`.
    """

    statistics: Statistics
    T: np.ndarray
    t: np.ndarray
    bases: tuple
    unit: float = 1.0
    columns = None
    _known: dict = field(default_factory=dict, repr=False)

    @property
    def n_rows(self):
        """Number of rows."""
        return self.statistics.n_rows

    @property
    def p(self):
        """Number of columns of X."""
        return self.T.shape[1]

    def blocks(self, at=None):
        """Z_k^T w Z_k of every term, [J, r, r] each."""
        if "blocks" not in self._known:
            parts = zip(self.bases, self.statistics.own, strict=True)
            self._known["blocks"] = [A.T @ (self.unit * own) @ A for A, own in parts]
        return self._known["blocks"]

    def fixed(self, at=None):
        """X^T w X [p, p], X^T w y [p], and Z_k^T w X of every term, [J, r, p] each."""
        G = self.unit * self.statistics.table
        return self.T.T @ G @ self.T, self.T.T @ (G @ self.t), self._of_terms(self.T)

    def response(self, beta):
        """y^T w y, X^T w y [p], and Z_k^T w y of every term, [J, r] each, of y less X beta [p]."""
        rest = self.t - self.T @ beta
        Gy = self.unit * self.statistics.table @ rest
        return float(rest @ Gy), self.T.T @ Gy, self._of_terms(rest)

    def _of_terms(self, columns):
        """Z_k^T w M columns of every term, [J, r, ...] each."""
        parts = zip(self.bases, self.statistics.fixed, strict=True)
        return [np.einsum("ab,ja...->jb...", A, self.unit * (own @ columns)) for A, own in parts]

    def pairs(self, k, others, at=None):
        """`LocalPairs` of a term and some others, side by side."""
        if k is None:
            return LocalPairs([sparse.csr_array((0, 0))], 1)
        r = len(self.bases[k])
        if not others:
            return LocalPairs([sparse.csr_array((self._levels(k) * r, 0))], r)
        beside = zip(*(self._pair(k, other) for other in others), strict=True)
        return LocalPairs([p[0] if len(p) == 1 else sparse.hstack(p, "csr") for p in beside], r)

    def _pair(self, k, other):
        """Z_k^T w Z_other, sparse [J r, J' r'], in parts of whole levels of k."""
        sums, A, B = self.statistics.pair(k, other), self.bases[k], self.bases[other]
        if sums.terms[0] != k:
            whole, r = sums.rows(0, self._levels(other)).T.tocsr(), len(A)

        def standard(first, last):
            if sums.terms[0] == k:
                own = sums.rows(first, last)
            else:
                own = csr_rows(whole, first * r, last * r)
            if len(A) == len(B) == 1:
                data = own.data * (self.unit * A[0, 0] * B[0, 0])
                return sparse.csr_array((data, own.indices, own.indptr), own.shape)
            left = block_diagonal(np.broadcast_to(self.unit * A.T, (last - first, *A.shape)))
            right = block_diagonal(np.broadcast_to(B, (self._levels(other), *B.shape)))
            own = (left @ own @ right).tocsr()
            own.sort_indices()
            return own

        ends = cuts(self.statistics.counts[k])
        return in_threads(standard, ends[:-1], ends[1:])

    def _levels(self, k):
        return len(self.statistics.counts[k])

    def same_levels(self, k, other):
        """Whether two terms are over one partition of the rows, however they number its parts."""
        if k == other:
            return True
        partners = self.statistics.pair(k, other).partners
        return partners is not None and self._levels(k) == self._levels(other)

    def _partners(self, k, other):
        """The level of another term over the same partition that each of a term's levels is."""
        if k == other:
            return np.arange(self._levels(k))
        sums = self.statistics.pair(k, other)
        return sums.partners if sums.terms[0] == k else ranks(sums.partners)

    def block_of(self, terms):
        """Z^T w Z [J, r, r] of terms over one partition of the rows, their columns side by side."""
        widths = [len(self.bases[k]) for k in terms]
        ends = np.cumsum([0, *widths])
        places = [slice(a, b) for a, b in pairwise(ends)]
        at = [self._partners(terms[0], k) for k in terms]
        out = np.zeros((self._levels(terms[0]), ends[-1], ends[-1]))
        for i, k in enumerate(terms):
            out[:, places[i], places[i]] = self.blocks()[k][at[i]]
            for j, other in enumerate(terms[:i]):
                # Of each level of k the columns are those of its partner alone.
                C = self.pairs(k, [other]).matrix.tocoo()
                r, q = widths[i], widths[j]
                both = np.zeros((len(out), r, q))
                both[C.row // r, C.row % r, C.col % q] = C.data
                out[:, places[i], places[j]] = both[at[i]]
                out[:, places[j], places[i]] = both[at[i]].transpose(0, 2, 1)
        return out


class FixedPart:
    """The cross-product of the columns of the fixed part about their means, as `whiten` sees it.

    rms, centre and noise [p] are those of the columns in the table's units, `inner` [p, p] the
    cross-product of x' over n.
    """

    def __init__(self, statistics, centred):
        units, G = statistics.units, statistics.table
        self.units, self.n, self.centred = units, G[0, 0], centred
        self.n_rows, p = statistics.n_rows, len(units.shift)
        self.mean = G[0, 1:-1] / self.n if centred else np.zeros(p)
        self.inner = G[1:-1, 1:-1] / self.n - np.outer(self.mean, self.mean)
        self.centre = units.shift + self.mean @ units.back
        raw = units.back.T @ self.inner @ units.back
        self.rms = np.sqrt(np.maximum(np.diag(raw), 0.0))
        self.noise = 8 * np.finfo(float).eps * np.abs(self.centre)
        self.varies = self.rms > np.maximum(self.noise, np.finfo(float).tiny)
        self.scale = np.where(self.varies, self.rms, 1.0)
        scaled = np.where(np.outer(self.varies, self.varies), raw, 0.0)
        self.gram = scaled / np.outer(self.scale, self.scale)

    def standard(self):
        """T [p + 2, rank] of M's columns, basis [n_columns, rank] and log|det|: see `whiten`."""
        first, p = int(self.centred), len(self.gram)
        if self.n_rows > p + first and not well_conditioned(self.gram):
            kept, R = self.triangle()
            own = np.zeros((p, kept.sum()))
            own[kept] = solve_triangular(R[:, kept], np.eye(len(R)))
            basis = self.units.turn @ own
            basis[~kept] = 0.0
            left = np.abs(np.diag(self.units.back))[kept] * np.abs(np.diag(R[:, kept]))
            log_det = 2 * np.log(left).sum()
            T = np.zeros((p + 2, first + len(R)))
            T[1:-1, first:] = own
            basis = np.concatenate([np.zeros((first, len(R))), basis])
            basis = np.column_stack([np.eye(first + p, first), basis])
            T[0, :first] = 1.0
            T[0, first:] = -self.mean @ own
        else:
            gram = np.eye(first + p)
            gram[first:, first:] = self.gram
            varies = np.concatenate([np.ones(first, bool), self.varies])
            rotation, log_det = rotated(gram, varies)
            log_det += 2 * np.log(self.scale[self.varies]).sum()
            basis = rotation.copy()
            basis[first:] /= self.scale[:, None]
            T = np.zeros((p + 2, rotation.shape[1]))
            T[1:-1] = self.units.back @ basis[first:]
            T[0] = rotation[:first].sum(axis=0) - self.mean @ T[1:-1]
        if first:
            basis[0] -= self.centre @ basis[1:]
        return T, basis, float(log_det)

    def triangle(self):
        """Which columns do not depend on earlier ones, bool [p], and R [rank, p] of the x'.

        R^T R is `inner` but for what is left of columns that do. By Cholesky's method; ValueError
        where sums do not tell.
        """
        p, size = len(self.inner), np.sqrt(np.maximum(np.diag(self.inner), 0.0))
        kept, R = np.zeros(p, bool), np.zeros((p, p))
        raw = np.abs(np.diag(self.units.back))
        for j in range(p):
            before = R[: kept.sum(), kept]
            along = solve_triangular(before, self.inner[kept, j], trans=1) if len(before) else []
            left = np.sqrt(max(self.inner[j, j] - np.dot(along, along), 0.0))
            R[: len(before), j] = along
            if not self.varies[j] or left <= DEPENDENT * size[j]:
                continue
            if left < INDEPENDENT * size[j]:
                raise _Unresolved(j)
            if left * raw[j] > max(TOLERANCE * self.scale[j], self.noise[j]):
                R[len(before), j] = left
                kept[j] = True
        # Of columns before it a row has nothing.
        R = R[: kept.sum()]
        for j in np.flatnonzero(~kept):
            R[:, j] = 0.0
            if len(R):
                R[:, j] = solve_triangular(R[:, kept], self.inner[kept, j], trans=1)
        return kept, R

    def combination(self, dropped):
        """`collinearity.combination` of the columns [n_columns] that are `dropped`."""
        first, (_, R) = int(self.centred), self.triangle()
        R = R @ self.units.back
        size = np.sqrt(self.rms**2 + self.centre**2)
        if first:
            R = np.block([[np.ones((1, 1)), self.centre[None]], [np.zeros((len(R), 1)), R]])
            size = np.concatenate([[1.0], size])
        return combination_of(R / np.where(size > 0, size, 1.0), size, dropped)


class _Unresolved(ValueError):
    """Number of a column whose dependence on others the sums do not tell."""


def problem_of(
    statistics, blocks, names, *, fit_intercept, reml, sigma=None, sigma_unit=1.0, unit=1.0
):
    """`Problem` in standard units from sums: what `standardize` makes of the rows.

    `blocks` are the design's, and `names` those of the columns of the fixed part [n_columns].
    Weights are multiplied by `unit`.
    """
    fixed = FixedPart(statistics, fit_intercept)
    try:
        T, basis, log_det = fixed.standard()
    except _Unresolved as error:
        name = names[int(fit_intercept) + error.args[0]]
        raise ValueError(
            f"X: the column {name!r} is nearly a linear combination of those before it, and sums "
            "of batches do not tell how much of it is left. Begin with a batch of at least "
            f"{10 * len(names)} rows from all over the table, which shows it, leave the column "
            "out, or use fit."
        ) from None
    n = unit * statistics.weight
    centre, scale, perfect, t = _units(statistics, T, n, unit, fit_intercept)
    standard, bases = [], []
    for k, block in enumerate(blocks):
        A = _own_basis(statistics, k, block)
        bases.append(A)
        covariance = block.covariance.in_units(scale * np.diag(A))
        standard.append(BlockData(block.n_levels, block.r, covariance))
    own = tuple(map(np.linalg.solve, statistics.units.z_bases, bases))
    return Problem(
        rows=SummedRows(statistics, T, t / scale, own, unit),
        blocks=tuple(standard),
        n=n,
        reml=reml,
        sigma=None if sigma is None else sigma / (scale * sigma_unit),
        y_centre=centre,
        y_scale=scale,
        basis=basis,
        z_bases=tuple(bases),
        log_det_basis=log_det,
        perfect=perfect,
        sigma_unit=sigma_unit,
    )


def _units(statistics, T, n, unit, centred):
    """Centre of y, its residual SD by least squares, whether that is 0, and t of y less the centre.

    As `standardize` has them, of rows.
    """
    units, G = statistics.units, unit * statistics.table
    size, total = unit * statistics.squares, G[0] @ np.concatenate([[0.0], units.slope, [1.0]])
    mean = total / n if centred else 0.0
    centre = units.y_shift + mean if centred else 0.0
    t = np.concatenate([[units.y_shift - centre], units.slope, [1.0]])
    # Of y itself, and of y less the centre.
    whole = size + 2 * units.y_shift * total + n * units.y_shift**2
    about = size - n * mean**2 if centred else whole
    rest = t - T @ (T.T @ (G @ t) / n)
    squares, freedom = max(float(rest @ G @ rest), 0.0), max(n - T.shape[1], 1.0)
    rounding = ROUNDING**2 * whole / n
    # As many independent columns as rows reproduce any y.
    reproduced = T.shape[1] >= statistics.n_rows or about <= 0.0
    if reproduced or squares <= (PERFECT_FIT * about / n + rounding) * freedom:
        return centre, 1.0, True, t
    if squares <= UNTOLD * G[-1, -1]:
        raise ValueError(
            "y: the fixed effects explain it to the last digits that sums of batches have, and "
            "they do not tell what is left. Begin with a batch of more rows from all over the "
            "table, which shows it, or use fit."
        )
    return centre, np.sqrt(squares / freedom), False, t


def _own_basis(statistics, k, block):
    """A [r, r] by which z A has unit mean squares, unrelated: see `standardize`."""
    A0, S = statistics.units.z_bases[k], statistics.own[k].sum(axis=0) / statistics.weight
    r, kind = len(A0), block.covariance.basis
    if block.z is None or kind == "none":
        return np.eye(r)
    back = np.linalg.inv(A0)
    size = np.sqrt(np.diag(back.T @ S @ back))
    scales = np.diag(1 / np.where(size > 0, size, 1.0))
    if kind != "any":
        return scales
    A = np.zeros((r, r))
    for a in range(r):
        own = np.eye(r)[a]
        # Twice, as one pass leaves rounding of the size of what it takes away.
        for _ in range(2):
            own = own - A[:, :a] @ (A[:, :a].T @ (S @ own))
        left = np.sqrt(max(own @ S @ own, 0.0))
        # Of what is left the sums' rounding is a share of the column in their units.
        least = max(RANK_TOLERANCE * size[a] / back[a, a], DEPENDENT * np.sqrt(S[a, a]))
        if left > least:
            A[:, a] = own / left
    depends = ~A.any(axis=0)
    A = A0 @ A
    A[:, depends] = scales[:, depends]
    return A


def moments(statistics, fit_intercept):
    """(number, [n_columns, n_columns], [r, r] of each term) of the rows as `Spread` weighs them.

    Of precisions each row counts as one, and else by its weight: their number, the cross-product
    of the fixed part's columns about their means, and the mean of z z^T.
    """
    units = statistics.units
    table = statistics.table if statistics.plain is None else statistics.plain
    own = statistics.plain_own
    own = [part.sum(axis=0) for part in statistics.own] if own is None else own
    n, first = float(table[0, 0]), int(fit_intercept)
    inner = table[1:-1, 1:-1] - np.outer(table[0, 1:-1], table[0, 1:-1]) / n
    cross = np.zeros([first + len(inner)] * 2)
    cross[first:, first:] = units.back.T @ inner @ units.back
    backs = [np.linalg.inv(A0) for A0 in units.z_bases]
    return n, cross, [back.T @ S @ back / n for back, S in zip(backs, own, strict=True)]
