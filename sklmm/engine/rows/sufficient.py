"""Sufficient statistics of a Gaussian model: sums over rows, made of batches of them and joined.

A batch of rows is read once and let go. What is kept is as large as the terms' levels and the pairs
of them that occur: with M = (1, x', y') and z' the columns in the `Units` of all batches,

    M^T w M,   Z_k^T w M,   Z_k^T w Z_k,   Z_k^T w Z_l,

and a few totals. A first batch tells the units: there it has columns about 0 and of size 1, and its
y less what least squares explain there, so that no digits are lost where a column or y is far from
0, or columns are nearly collinear: the linear map to any other units is one of sums
(`rows.summed`).

The sums of a batch are by its own levels. Batches are joined in their order, whatever place their
levels have among all of them.
"""

from dataclasses import dataclass
from itertools import combinations, product
from typing import NamedTuple

import numpy as np
from scipy.linalg import solve_triangular

from sklmm._threads import each, in_threads, summed
from sklmm.engine.rows.collinearity import independent, orthonormal, triangle
from sklmm.engine.rows.cross_products import LocalCrossProducts, weighed
from sklmm.engine.rows.pair_sums import PairSums, block_ends
from sklmm.engine.rows.standardize import ones, well_conditioned

#: Rows a column from which on a first batch tells how columns and y depend on each other.
TELLING = 10
#: Share of a column's size that counts as none of it.
NONE_LEFT = 1e-10
ROUNDING = 8 * np.finfo(float).eps


class Units(NamedTuple):
    """Those of the sums: x' = (x - shift) turn, y' = y - y_shift - x' slope, z' = z z_bases.

    x are the columns of the fixed part but the intercept's [p], and y lacks the offset; turn [p, p]
    is upper triangular with the inverse `back`. Precisions are divided by `weight`. Pairs of two
    terms are kept by the levels of the one that comes earlier in `order`, that of more effects.
    """

    shift: np.ndarray
    turn: np.ndarray
    back: np.ndarray
    y_shift: float
    slope: np.ndarray
    z_bases: tuple
    weight: float
    order: tuple

    @staticmethod
    def of(design, y, weights, *, fit_intercept, precision=False):
        """Units of a first batch; the first column of design.X is the intercept's if it has one."""
        x, y, centred = *_columns(design, y, fit_intercept), fit_intercept
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
        # Rows of the term that is eliminated, which a first batch mostly tells, are wanted.
        order = sorted(range(len(bases)), key=lambda k: -design.sizes[k])
        return Units(shift, turn, back, y_shift, slope, bases, largest, tuple(order))

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

    Those that depend on others there are taken less that, and keep their unit: sums then tell what
    is left of them elsewhere, however little it is.
    """
    R = triangle(lambda rows: own[rows].T, weights)
    kept = independent(R, np.zeros(len(own.T)))
    turn = np.eye(len(kept))
    turn[:, kept] = orthonormal(R, kept)[0]
    Q, before = np.linalg.qr(R[:, kept])
    places = np.flatnonzero(kept)
    # A column that is constant here, but for rounding, does not depend on others.
    varies = weights @ own**2 > 0.5 * weights.sum()
    for j in np.flatnonzero(~kept & varies):
        m = np.searchsorted(places, j)
        turn[places[:m], j] = -solve_triangular(before[:m, :m], Q[:, :m].T @ R[:, j])
    return turn


def _z_basis(block, weights, n):
    """Upper triangle A0 [r, r] of a block's columns z A0: about 0 and of unit size in a batch.

    By Gram and Schmidt's procedure, where the covariance takes any basis; else 1.
    """
    if block.z is None or block.covariance.basis != "any":
        return np.eye(block.r)
    out, A = np.array(block.z), np.eye(block.r)
    if block.tied:
        weights, out = np.repeat(weights, out.shape[1]), out.reshape(-1, block.r)
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
    """Sums of some rows, see above.

    table [p + 2, p + 2], M^T w M; squares, the sum of w (y - y_shift)^2; of each term counts [J],
    own [J, r, r] and fixed [J, r, p + 2]; of each two terms `PairSums`, which may be kept apart. Of
    precisions `plain` and `plain_own` are table and the sum of own without weights, but for A_jj of
    related levels (`standard_units.moments`), else None.
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
    def of(cls, units, design, y, weights, *, fit_intercept, precision=False):
        """Those of a batch, by the levels that `design` has."""
        x, y = _columns(design, y, fit_intercept)
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
        table, _, fixed = rows.fixed()
        if all(block.z is None for block in design.blocks):
            # 1 is a column of M.
            own = [sums[:, :, :1].copy() for sums in fixed]
        else:
            own = rows.blocks()
        rest, plain, plain_own = y - units.y_shift, None, None
        if precision:
            plain = summed(lambda some: M[some].T @ M[some], rows.n_rows)
            plain_own = tuple(
                rows.blocks(np.ones(rows.n_rows))[k].sum(axis=0)
                if block.tied
                else (z.T * block.own) @ z
                for k, (block, z) in enumerate(zip(design.blocks, rows.z, strict=True))
            )
        return cls(
            units=units,
            n_rows=rows.n_rows,
            largest_y=float(np.abs(y).max()),
            log_weights=float(np.log(weights).sum()) if precision else 0.0,
            inverse_weights=float((1 / weights).sum()) if precision else 0.0,
            squares=float(weighed(rest, weights) @ rest),
            table=table,
            counts=tuple(
                np.bincount(refs.ravel(), minlength=J)
                for refs, J in zip(rows.refs, rows.levels, strict=True)
            ),
            own=tuple(own),
            fixed=tuple(fixed),
            pairs=tuple(
                PairSums.of(
                    terms,
                    tuple(rows.z[k].shape[-1] for k in terms),
                    [C for C, _ in rows.pairs(terms[0], [terms[1]]).parts],
                )
                for terms in pairs_of([block.tied for block in design.blocks], units.order)
            ),
            plain=plain,
            plain_own=plain_own,
        )

    @classmethod
    def joined(cls, parts, places, sizes):
        """Those of several batches in the same units, added in their order.

        `places` of a part are those of its levels among all, an array a term, and `sizes` the
        numbers of all. Pairs that the parts have are joined too.
        """

        def total(name):
            values = [getattr(part, name) for part in parts]
            return None if values[0] is None else sum(values[1:], values[0])

        def of_term(name, k):
            own = [getattr(part, name)[k] for part in parts]
            return _placed(own, [at[k] for at in places], sizes[k])

        def joined(pairs):
            terms = pairs[0].terms
            own = [tuple(at[k] for k in terms) for at in places]
            widths = pairs[0].widths
            ends = block_ends(sums["counts"][terms[0]], sizes[terms[1]] * widths[1])
            return PairSums.joined(pairs, own, tuple(sizes[k] for k in terms), ends)

        plain_own = parts[0].plain_own
        if plain_own is not None:
            plain_own = tuple(map(sum, zip(*(part.plain_own for part in parts), strict=True)))
        names, terms = ("counts", "own", "fixed"), range(len(sizes))
        which = list(product(names, terms))
        placed = dict(zip(which, in_threads(of_term, *zip(*which, strict=True)), strict=True))
        sums = {name: tuple(placed[name, k] for k in terms) for name in names}
        totals = "n_rows", "log_weights", "inverse_weights", "squares", "table", "plain"
        return cls(
            units=parts[0].units,
            largest_y=max(part.largest_y for part in parts),
            **{name: total(name) for name in totals},
            **sums,
            pairs=tuple(map(joined, zip(*(part.pairs for part in parts), strict=True))),
            plain_own=plain_own,
        )

    @property
    def weight(self):
        """Sum of the weights."""
        return float(self.table[0, 0])

    def pair(self, k, other):
        """The `PairSums` of two terms, whichever of them is the first one there."""
        return next(own for own in self.pairs if set(own.terms) == {k, other})


def pairs_of(tied, order):
    """Pairs of terms whose sums are kept: each two in this order, and one that is tied by itself.

    A row belongs to several levels of that, so that Z_k^T w Z_k is not block diagonal.
    """
    return [*combinations(order, 2), *((k, k) for k in order if tied[k])]


def _columns(design, y, fit_intercept):
    """x [n_rows, p] of a design, and y less its offset."""
    y = y if design.offset is None else y - design.offset
    return design.X[:, int(fit_intercept) :], y


def _loadings(block, basis):
    """z' [n_rows, r] of a block."""
    if block.z is None:
        return ones(len(block.refs))
    z = np.asarray(block.z)
    return z if np.array_equal(basis, np.eye(len(basis))) else z @ basis


def _placed(parts, places, size):
    """Sum [J, ...] of the parts' sums by their own levels, each at its places."""
    out = np.zeros((size, *parts[0].shape[1:]), parts[0].dtype)
    for own, place in zip(parts, places, strict=True):
        out[place] += own
    return out
