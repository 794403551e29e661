"""Standard units from sums of a table's rows: what `standardize` finds of the rows themselves.

With the sums' columns M = (1, x', y') (`rows.sufficient`) the standard X is M T and y is M t, and a
term's z is z' A. What the sums do not tell is an error: columns of which so little is independent
of others, or a y of which so little is left, that sums, which are squares, have lost it.
"""

from typing import NamedTuple

import numpy as np
from scipy.linalg import solve_triangular

from sklmm.engine.rows.collinearity import TOLERANCE, combination_of
from sklmm.engine.rows.standardize import (
    PERFECT_FIT,
    RANK_TOLERANCE,
    ROUNDING,
    Problem,
    rotated,
    standard_block,
    well_conditioned,
)
from sklmm.engine.rows.sufficient import Units

#: What is left of a column, of its size in the sums, up to which it may be their rounding, and from
#: which on they tell it.
ROUNDED = 1.5e-7
TOLD = 1e-5
#: Rounding of what is left of a column's squares, of the size of what it is the difference of.
SQUARES = 4 * np.finfo(float).eps
#: What is left of a slope, of its size, that is none.
DEPENDENT = 5e-7
#: Share of y's squares, in the sums' units, below which what is left has not eight digits.
UNTOLD = np.finfo(float).eps / 1e-8


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
        # Of the x': what the sums hold, and what of it is none of the column in the table's units.
        self.size = np.sqrt(np.diag(G)[1:-1] / self.n)
        least = np.maximum(TOLERANCE * self.scale, self.noise)
        self.least = least / np.abs(np.diag(units.back))
        own = np.sqrt(np.maximum(np.diag(self.inner), 0.0))
        self.counts = self.varies & (own > self.least)

    def standard(self):
        """T [p + 2, rank] of M's columns, basis [n_columns, rank] and log|det|: see `whiten`."""
        first, p = int(self.centred), len(self.gram)
        if self.n_rows > p + first and not well_conditioned(self.gram):
            kept, R = self.triangle()
            own = np.zeros((p, kept.sum()))
            if len(R):
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
        where sums do not tell. A column is left out where it has nothing left but rounding.
        """
        p = len(self.inner)
        kept, R = np.zeros(p, bool), np.zeros((p, p))
        sizes = np.abs(self.inner) + np.abs(np.outer(self.mean, self.mean))
        for j in range(p):
            before, own = R[: kept.sum(), kept], np.append(np.flatnonzero(kept), j)
            along = solve_triangular(before, self.inner[kept, j], trans=1) if len(before) else []
            left = np.sqrt(max(self.inner[j, j] - np.dot(along, along), 0.0))
            R[: len(before), j] = along
            parts = np.append(solve_triangular(before, along) if len(before) else [], 1.0)
            rounding = np.sqrt(SQUARES * np.abs(parts) @ sizes[np.ix_(own, own)] @ np.abs(parts))
            if not self.counts[j] or left <= min(rounding, ROUNDED * self.size[j]):
                continue
            if left < TOLD * self.size[j]:
                raise _Unresolved(j)
            if left > self.least[j]:
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


class StandardUnits(NamedTuple):
    """The standard units of a table, by sums of its rows: what `standardize` finds of the rows.

    The standard X is M T of the sums' columns M, y is M t, and z of each term is z' A, A of `bases`
    [r, r]; t is None where y is only divided, by `y_unit`. `problem` is the `Problem`, without its
    rows.
    """

    units: Units
    T: np.ndarray
    t: np.ndarray | None
    bases: tuple
    problem: Problem
    y_unit: float = 1.0


def standard_units(
    statistics,
    blocks,
    names,
    *,
    fit_intercept,
    reml,
    sigma=None,
    sigma_unit=1.0,
    unit=1.0,
    scale_y=True,
    eta_power=0,
    parameter_powers=(),
    mean_y=1.0,
):
    """`StandardUnits` from the `Statistics` of a table's rows.

    `blocks` are the design's, and `names` those of the columns of the fixed part [n_columns].
    Weights are multiplied by `unit`. Where y is not to be shifted and scaled, `mean_y` is its mean.
    """
    fixed = FixedPart(statistics, fit_intercept)
    try:
        T, basis, log_det = fixed.standard()
    except _Unresolved as error:
        name = names[int(fit_intercept) + error.args[0]]
        raise ValueError(
            f"X: the column {name!r} is nearly a linear combination of those before it, and sums "
            "of parts of the table do not tell how much of it is left. Let the first batch, or "
            f"partition, have at least {10 * len(names)} rows from all over the table, which show "
            "it, leave the column out, or use fit of the whole table."
        ) from None
    n = unit * statistics.weight
    centre, scale, perfect, t, y_unit = 0.0, 1.0, False, None, 1.0
    if scale_y:
        centre, scale, perfect, t = _units(statistics, T, n, unit, fit_intercept)
        t = t / scale
    elif eta_power:
        scale, y_unit = mean_y**eta_power, mean_y
    standard, bases = [], []
    for k, block in enumerate(blocks):
        A = _own_basis(statistics, k, block)
        bases.append(A)
        standard.append(standard_block(block, A, scale))
    problem = Problem(
        rows=None,
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
        power=eta_power or 1,
        parameter_powers=parameter_powers,
    )
    own = tuple(map(np.linalg.solve, statistics.units.z_bases, bases))
    return StandardUnits(statistics.units, T, t, own, problem, y_unit)


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
            "y: the fixed effects explain it to the last digits that sums of parts of the table "
            "have, and they do not tell what is left. Let the first batch, or partition, have "
            "more rows from all over the table, which show it, or use fit of the whole table."
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


def moments(statistics, fit_intercept, blocks):
    """(number, [n_columns, n_columns], [r, r] of each term) of the rows as `Spread` weighs them.

    Of precisions each row counts as one, and else by its weight: their number, the cross-product
    of the fixed part's columns about their means, and the mean of A_jj z z^T, where A_jj is how a
    row's level is related to itself, 1 of a term of independent ones. `blocks` are the design's.
    """
    units = statistics.units
    table = statistics.table if statistics.plain is None else statistics.plain
    own = statistics.plain_own
    if own is None:
        own = [
            part.sum(axis=0)
            if block.relation is None
            else np.tensordot(block.relation.variances, part, 1)
            for block, part in zip(blocks, statistics.own, strict=True)
        ]
    n, first = float(table[0, 0]), int(fit_intercept)
    inner = table[1:-1, 1:-1] - np.outer(table[0, 1:-1], table[0, 1:-1]) / n
    cross = np.zeros([first + len(inner)] * 2)
    cross[first:, first:] = units.back.T @ inner @ units.back
    backs = [np.linalg.inv(A0) for A0 in units.z_bases]
    return n, cross, [back.T @ S @ back / n for back, S in zip(backs, own, strict=True)]
