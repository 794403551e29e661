"""Sufficient statistics of a Gaussian model: sums over rows, added up from batches of them.

A batch of rows is read once and let go. What is kept is as large as the terms' levels and the pairs
of them that occur: with M = (1, x', y') and z' the columns in the `Units` of the first batch,

    M^T w M,   Z_k^T w M,   Z_k^T w Z_k,   Z_k^T w Z_l,

and a few totals. In those units the first batch has columns about 0 and of size 1, and its y less
what least squares explain there, so that no digits are lost where a column or y is far from 0, or
columns are nearly collinear: the linear map to any other units is one of sums (`rows.summed`).

Levels have numbers in the order in which they were first met, so that sums made earlier stay as
they are when others join.
"""

from dataclasses import dataclass, replace
from itertools import combinations
from typing import NamedTuple

import numpy as np
from scipy.linalg import solve_triangular

from sklmm._threads import each, summed
from sklmm.engine.rows.collinearity import independent, orthonormal, triangle
from sklmm.engine.rows.cross_products import LocalCrossProducts, weighed
from sklmm.engine.rows.pair_sums import PairSums
from sklmm.engine.rows.standardize import ones, well_conditioned

#: Rows a column from which on a first batch tells how columns and y depend on each other.
TELLING = 10
#: Share of a column's size that counts as none of it.
NONE_LEFT = 1e-10
ROUNDING = 8 * np.finfo(float).eps


class Units(NamedTuple):
    """Those of the sums: x' = (x - shift) turn, y' = y - y_shift - x' slope, z' = z z_bases.

    x are the columns of the fixed part but the intercept's [p], and y lacks the offset; turn [p, p]
    is upper triangular with the inverse `back`. Precisions are divided by `weight`.
    """

    shift: np.ndarray
    turn: np.ndarray
    back: np.ndarray
    y_shift: float
    slope: np.ndarray
    z_bases: tuple
    weight: float

    @staticmethod
    def of(x, y, weights, design, *, centred, precision):
        """Units of a first batch; `centred` says whether the model has an intercept."""
        largest = float(weights.max()) if precision else 1.0
        weights = weights / largest if precision else weights
        n, p = weights.sum(), x.shape[1]
        shift, y_shift = np.zeros(p), 0.0
        if centred:
            shift, y_shift = weights @ x / n, float(weights @ y / n)
        own = x - shift
        size = np.sqrt(weights @ own**2 / n)
        varies = size > ROUNDING * np.abs(shift)
        # So that a constant column is 0 to the last digit.
        shift = np.where(varies | (not centred), shift, x[0])
        scale = np.where(varies, size, np.abs(shift))
        scale = np.where(scale > 0, scale, 1.0)
        own = (x - shift) / scale
        turn, slope = np.eye(p), np.zeros(p)
        if len(x) > TELLING * p:
            gram = weighed(own.T, weights) @ own / n
            if not well_conditioned(gram):
                turn = _triangular(own, weights)
                own = own @ turn
                gram = weighed(own.T, weights) @ own / n
            rest = y - y_shift
            # Twice: of a y that the columns reproduce no more than rounding is left.
            for _ in range(2):
                step = np.linalg.lstsq(gram, own.T @ weighed(rest, weights) / n, rcond=None)[0]
                rest, slope = rest - own @ step, slope + step
        turn = turn / scale[:, None]
        bases = tuple(_z_basis(block, weights, n) for block in design.blocks)
        back = solve_triangular(turn, np.eye(p)) if p else turn
        return Units(shift, turn, back, y_shift, slope, bases, largest)

    def columns(self, x, y):
        """M = (1, x', y') [n_rows, p + 2] of a batch, each column in one piece."""
        n_rows, p = x.shape
        M = np.empty((p + 2, n_rows)).T
        diagonal = np.array_equal(self.turn, np.diag(np.diag(self.turn)))

        def some(rows):
            own = x[rows] - self.shift
            own = own * np.diag(self.turn) if diagonal else own @ self.turn
            M[rows, 0], M[rows, 1:-1] = 1.0, own
            M[rows, -1] = y[rows] - self.y_shift - own @ self.slope

        each(some, n_rows)
        return M


def _triangular(own, weights):
    """An upper triangle by which a batch's columns of unit size are orthonormal.

    Those that depend on others there keep their direction: they may not elsewhere.
    """
    R = triangle(lambda rows: own[rows].T, weights)
    kept = independent(R, np.zeros(len(own.T)))
    turn = np.eye(len(kept))
    turn[:, kept] = orthonormal(R, kept)[0]
    return turn


def _z_basis(block, weights, n):
    """Upper triangle A0 [r, r] of a block's columns z A0: about 0 and of unit size in a batch.

    By Gram and Schmidt's procedure, where the covariance takes any basis; else 1.
    """
    if block.z is None or block.covariance.basis != "any":
        return np.eye(block.r)
    out, A = block.z.copy(), np.eye(block.r)
    for a in range(block.r):
        size = np.sqrt(weights @ out[:, a] ** 2 / n)
        for _ in range(2):
            along = out[:, :a].T @ weighed(out[:, a], weights) / n
            out[:, a] -= out[:, :a] @ along
            A[:, a] -= A[:, :a] @ along
        left = np.sqrt(weights @ out[:, a] ** 2 / n)
        if left <= NONE_LEFT * size:
            # 0, not rounding: a slope that is constant here.
            out[:, a], left = 0.0, size if a == 0 else 1.0
        unit = left if left > 0 else 1.0
        out[:, a] /= unit
        A[:, a] /= unit
    return A


@dataclass(frozen=True, eq=False)
class Statistics:
    """Sums of all rows so far, see above; they are added to, never changed.

    table [p + 2, p + 2], M^T w M; squares, the sum of w (y - y_shift)^2; of each term counts [J],
    own [J, r, r] and fixed [J, r, p + 2]; of each two terms `PairSums`. Of precisions `plain` and
    `plain_own` are table and the sum of own without weights, else None.
    """

    units: Units
    n_rows: int
    largest_y: float
    log_weights: float
    inverse_weights: float
    squares: float
    table: np.ndarray
    counts: tuple
    own: tuple
    fixed: tuple
    pairs: tuple
    plain: np.ndarray | None = None
    plain_own: tuple | None = None

    @classmethod
    def of(cls, design, y, weights, *, fit_intercept, precision=False, before=None, places=None):
        """Those of a batch and of all `before` it.

        `design` has the batch's own levels, `places` of each term their numbers among all levels
        so far: None for a first batch, whose numbers they are. The first column of design.X is the
        intercept's if the model has one.
        """
        x = design.X[:, int(fit_intercept) :]
        y = y if design.offset is None else y - design.offset
        if before is None:
            known = {"centred": fit_intercept, "precision": precision}
            units = Units.of(x, y, weights, design, **known)
            before = cls._none(units, design, precision)
            places = [np.arange(block.n_levels) for block in design.blocks]
        units = before.units
        weights = weights / units.weight if precision else weights
        M = units.columns(x, y)
        rows = LocalCrossProducts(
            M[:, -1],
            M,
            weights,
            tuple(block.refs for block in design.blocks),
            tuple(block.n_levels for block in design.blocks),
            tuple(map(_loadings, design.blocks, units.z_bases)),
        )
        return before._with(rows, y, places, precision)

    @classmethod
    def _none(cls, units, design, precision):
        m, widths = len(units.shift) + 2, [block.r for block in design.blocks]
        # Rows of the term that is eliminated, which a first batch mostly tells, are wanted.
        order = sorted(range(len(widths)), key=lambda k: -design.sizes[k])
        both = combinations(order, 2)
        pairs = [PairSums.none(own, tuple(widths[k] for k in own)) for own in both]
        return cls(
            units=units,
            n_rows=0,
            largest_y=0.0,
            log_weights=0.0,
            inverse_weights=0.0,
            squares=0.0,
            table=np.zeros((m, m)),
            counts=tuple(np.zeros(0, int) for _ in widths),
            own=tuple(np.zeros((0, r, r)) for r in widths),
            fixed=tuple(np.zeros((0, r, m)) for r in widths),
            pairs=tuple(pairs),
            plain=np.zeros((m, m)) if precision else None,
            plain_own=tuple(np.zeros((r, r)) for r in widths) if precision else None,
        )

    def _with(self, rows, y, places, precision):
        table, _, fixed = rows.fixed()
        rest = y - self.units.y_shift
        levels = [
            max(len(counts), int(place.max(initial=-1)) + 1)
            for counts, place in zip(self.counts, places, strict=True)
        ]
        own = rows.blocks()
        counted = [
            np.bincount(refs, minlength=J) for refs, J in zip(rows.refs, rows.levels, strict=True)
        ]
        pairs = []
        for before in self.pairs:
            k, other = before.terms
            C, at = rows.pairs(k, [other]).matrix, (places[k], places[other])
            pairs.append(before.with_batch(C, at, (levels[k], levels[other])))
        plain = plain_own = None
        if precision:
            plain = self.plain + summed(lambda some: rows.X[some].T @ rows.X[some], rows.n_rows)
            plain_own = tuple(one + z.T @ z for one, z in zip(self.plain_own, rows.z, strict=True))
        return replace(
            self,
            n_rows=self.n_rows + rows.n_rows,
            largest_y=max(self.largest_y, float(np.abs(y).max())),
            log_weights=self.log_weights + (float(np.log(rows.weights).sum()) if precision else 0),
            inverse_weights=self.inverse_weights
            + (float((1 / rows.weights).sum()) if precision else 0),
            squares=self.squares + float(weighed(rest, rows.weights) @ rest),
            table=self.table + table,
            counts=tuple(map(_added, self.counts, counted, places, levels)),
            own=tuple(map(_added, self.own, own, places, levels)),
            fixed=tuple(map(_added, self.fixed, fixed, places, levels)),
            pairs=tuple(pairs),
            plain=plain,
            plain_own=plain_own,
        )

    @property
    def weight(self):
        """Sum of the weights."""
        return float(self.table[0, 0])

    def pair(self, k, other):
        """The `PairSums` of two terms, whichever of them is the first one there."""
        return next(own for own in self.pairs if set(own.terms) == {k, other})


def _loadings(block, basis):
    """z' [n_rows, r] of a block."""
    if block.z is None:
        return ones(len(block.refs))
    return block.z if np.array_equal(basis, np.eye(len(basis))) else block.z @ basis


def _added(before, own, place, n_levels):
    """Sums [J, ...] by level before, and a batch's of the levels at a place, each once."""
    out = np.zeros((n_levels, *before.shape[1:]), before.dtype)
    out[: len(before)] = before
    out[place] += own
    return out
