"""The engine's input: a design in standard units, and the way back.

Every length-like quantity is scaled so that tolerances mean the same whatever the units of the
table:

    y' = (y - m) / s,   X' = X B with X'^T w X' = n I,   z' = z A with unit mean squares

X B is made anew of each slice of rows that is read (`Whitened`). B comes from the eigenvectors of
the scaled cross-product of the centred columns. A column that depends linearly on earlier ones is
left out, its row of B 0 (`engine.rows.collinearity`); but with no more rows than columns directions
without variation are, so that the solution is that of minimum norm.

A is upper triangular, by Gram and Schmidt's procedure: a term whose coefficients may be correlated
is the same model in any basis of its columns, b = A b', Sigma = A Sigma' A^T, and in this one a
slope's origin, be it that of Unix seconds, is near its data. Of independent coefficients A is the
scale alone: there the origin is part of the model (`Covariance.basis`).
"""

from dataclasses import dataclass, replace

import numpy as np

from sklmm._threads import each, summed
from sklmm.design.indicators import Indicators
from sklmm.engine.linalg.blocks import eigen, lower_factor, turn_all
from sklmm.engine.rows.collinearity import independent, orthonormal, triangle
from sklmm.engine.rows.cross_products import weighed
from sklmm.engine.rows.local import LocalRows
from sklmm.engine.rows.protocol import Rows
from sklmm.engine.rows.sparse_fixed import Columns
from sklmm.priors import Priors

#: Residual variance, as a share of y's, that counts as none; and that where conjugate gradients
#: found the coefficients.
PERFECT_FIT = 1e-20
SOLVED_FIT = 1e-18
RANK_TOLERANCE = 1e-11
#: What Cholesky's method leaves of a column, of its size, that shows it to be independent.
WELL_CONDITIONED = 1e-3
EPS, TINY = np.finfo(float).eps, np.finfo(float).tiny
ROUNDING = 4 * EPS
#: Size of a relationship, or its inverse, from which it is brought to 1.
UNUSUAL = 3.0
#: Numbers of a whitened X that is kept.
KEPT = 1 << 16


@dataclass(frozen=True)
class BlockData:
    """Number of levels, and of coefficients a level, and their `Covariance`.

    `relation` is a known `Relationship` of the levels, the table's less its `size`, or None where
    they are independent. Of a `tied` term a row may belong to several levels, so that Z^T w Z is
    not block diagonal.
    """

    n_levels: int
    r: int
    covariance: object
    relation: object = None
    tied: bool = False
    size: float = 1.0

    @property
    def coupled(self):
        """Whether levels depend on each other given all other terms."""
        return self.tied or self.relation is not None


@dataclass(frozen=True)
class Problem:
    """`rows` in standard units, the blocks' sizes, and the scales that lead back.

    Weights count repetitions of a row: `n` is their sum. `reml` integrates the coefficients out,
    `sigma` is the pinned residual SD (in standard units) or None, and `sigma_unit` what it is
    multiplied by besides y's scale. `perfect` says that the fixed part alone reproduces y. The
    rows' y lacks what `columns.start`, of the sparse columns, explains. y_scale is eta's unit,
    y's to the `power`; `parameter_powers` are the family's. d is the number of linear predictors
    a row of the table has, a row each here; where they have columns and terms of their own, `joint`
    is the `Joint` of `engine.rows.joining`, and its terms are the table's. `models` are the
    `LinearUnits` of `engine.rows.widened`, of parameters by row. `priors` are in the table's units,
    None without any.
    """

    rows: Rows
    blocks: tuple
    n: float
    reml: bool
    basis: np.ndarray
    z_bases: tuple
    sigma: float | None = None
    y_centre: float = 0.0
    y_scale: float = 1.0
    log_det_basis: float = 0.0
    perfect: bool = False
    sigma_unit: float = 1.0
    power: int = 1
    parameter_powers: tuple = ()
    d: int = 1
    models: tuple = ()
    priors: Priors | None = None
    joint: object = None

    @property
    def order(self):
        """Places of what terms report, in their order, among what the blocks do."""
        counts = [len(b.covariance.reported) for b in self.blocks]
        return np.arange(sum(counts)) if self.joint is None else self.joint.order(counts)

    @property
    def log_unit(self):
        """log of what y is divided by."""
        return np.log(self.y_scale) / self.power

    @property
    def sigma_scale(self):
        """The residual SD's unit."""
        return self.y_scale * self.sigma_unit

    def unit_of(self, parameter):
        """The unit of one of the family's parameters, by name."""
        if parameter == "sigma":
            return self.sigma_scale
        return float(np.exp(dict(self.parameter_powers).get(parameter, 0) * self.log_unit))

    @property
    def p(self):
        """Rank of the fixed part."""
        return self.rows.p

    @property
    def columns(self):
        """The sparse columns of the fixed part, or None."""
        return self.rows.columns

    @property
    def dropped(self):
        """Columns that depend on earlier ones, where there are rows to tell: bool [n_columns]."""
        return ~self.basis.any(axis=1) & (self.rows.n_rows > len(self.basis))

    @property
    def rank(self):
        """Rank of the fixed part, the sparse columns included."""
        if self.columns is None or self.perfect:
            return self.p
        return self.columns.Q.shape[1] + self.columns.rank

    @property
    def n_effects(self):
        """Total number of random effects, Q."""
        return sum(b.n_levels * b.r for b in self.blocks)

    def coef(self, beta):
        """Coefficients in the columns' own units, [..., p] -> [..., n_columns]."""
        coef = self.coef_deviation(beta)
        # Only a model with an intercept, its first column, is centred.
        if self.y_centre:
            coef[..., 0] += self.y_centre
        return coef

    def coef_deviation(self, beta):
        """The same for differences of coefficients, which no centre shifts."""
        return np.asarray(beta) @ self.basis.T * self.y_scale

    def factor(self, block, L):
        """A factor [r, r] of the covariance of block number `block`, from that in standard units.

        Not triangular.
        """
        return self.y_scale / self.blocks[block].size * self.z_bases[block] @ L

    def covariance(self, block, L):
        """Covariance [r, r] of block number `block` from its factor in standard units."""
        factor = self.factor(block, L)
        return factor @ factor.T

    def effects(self, block, b):
        """Random effects in y's units, [n_levels, r, ...]."""
        A = self.y_scale * self.z_bases[block]
        return turn_all(A, b) if b.ndim == 3 else b @ A.T

    def effects_covariance(self, block, V):
        """Covariances of a block's effects in y's units, [n_levels, r, r]."""
        A = self.y_scale * self.z_bases[block]
        return A @ V @ A.T


class Whitened:
    """X B [n_rows, rank], made anew of every slice of rows that is asked for, or whole as an array.

    Who sums over rows reads each block once or twice, and a table may have 10^8 of them. That of a
    small table is kept.
    """

    def __init__(self, columns, rotation, n_rows):
        self._columns, self._rotation = columns, rotation
        self.shape, self._whole = (n_rows, rotation.shape[1]), None
        if n_rows * rotation.shape[1] <= KEPT:
            self._whole = self[:]

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, rows):
        if self._whole is not None:
            return self._whole[rows]
        return (self._rotation.T @ self._columns(rows)).T

    def __array__(self, dtype=None, copy=None):
        # By columns: those of whole tables are worked on.
        out = np.empty(self.shape[::-1]).T

        def fill(rows):
            out[rows] = self[rows]

        each(fill, len(self))
        return out


def well_conditioned(gram):
    """Whether a cross-product [p, p] of unit columns is that of clearly independent ones."""
    try:
        return lower_factor(gram).diagonal().min(initial=np.inf) > WELL_CONDITIONED
    except np.linalg.LinAlgError:
        return False


def whiten(X, weights, n, fit_intercept):
    """X B with orthonormal columns up to n, B [n_columns, rank], and log|det| of the map."""
    n_rows, p = X.shape
    centre = np.zeros(p)
    if fit_intercept:
        centre = summed(lambda rows: weighed(X[rows].T, weights[rows]).sum(axis=1), n_rows) / n
        centre[0] = 0.0
    # An overflow-free scale for columns as large as 1e300.
    sizes = each(lambda rows: np.abs(X[rows]).max(axis=0, initial=0.0), n_rows)
    peak = np.maximum(np.max(sizes, axis=0), TINY)
    varies = np.ones(p, bool)

    def columns(rows):
        out = X[rows].T - centre[:, None]
        out /= peak[:, None]
        if not varies.all():
            # Not 0 times what may be as large as 1e300.
            out[~varies] = 0.0
        return out

    def cross_product(rows):
        own = columns(rows)
        return weighed(own, weights[rows]) @ own.T

    gram = summed(cross_product, n_rows) / n
    noise = EPS * (np.abs(centre) / peak) * 8
    rms = np.sqrt(gram.diagonal())
    varies = rms > np.maximum(noise, TINY)
    scale = np.where(varies, rms, 1.0)
    gram = np.where(varies[:, None] & varies, gram, 0.0) / (scale[:, None] * scale)
    if n_rows > p and not well_conditioned(gram):
        R = triangle(columns, weights)
        kept = independent(R, noise / scale)
        rotation, log_det = orthonormal(R, kept)
    else:
        rotation, log_det = rotated(gram, varies)
        kept = varies
    rotation /= scale[:, None]
    basis = rotation / peak[:, None]
    if fit_intercept:
        basis[0] -= centre @ basis
    # log|X^T w X| = log|n I| + log_det for an X of full rank.
    log_det = float(log_det + 2 * np.sum(np.log((scale * peak)[kept])))
    return Whitened(columns, rotation, n_rows), basis, log_det


def rotated(gram, varies):
    """Rotation [p, rank] to orthonormal columns, and log|det|, of a cross-product of unit columns.

    That of columns that do not vary is 0. Directions without variation are left out.
    """
    values, vectors = eigen(gram)
    keep = values > RANK_TOLERANCE * max(values.max(initial=0.0), 1.0)
    rotation, log_det = vectors[:, keep] / np.sqrt(values[keep]), np.log(values[keep]).sum()
    if keep.all():
        # The symmetric root: unrelated columns have equal eigenvalues, and any eigenvectors.
        rotation = rotation @ vectors.T
    # Rounding's share of a constant column would be its coefficient's.
    rotation[~varies] = 0.0
    return rotation, log_det


def standard_blocks(design, weights, n, y_scale):
    """The blocks, their z A [n_rows, r], and those A."""
    blocks, zs, bases = [], [], []
    for b in design.blocks:
        z, A = ones(len(weights)), np.eye(1)
        if b.z is not None:
            # Of several levels a row, each is one.
            own = b.z.reshape(-1, b.r) if b.tied else b.z
            own_weights = np.repeat(weights, b.z.shape[1]) if b.tied else weights
            z, A = _own_basis(own, own_weights, n, b.covariance.basis)
            z = z.reshape(b.z.shape) if b.tied else z
        blocks.append(standard_block(b, A, y_scale))
        zs.append(z)
        bases.append(A)
    return tuple(blocks), tuple(zs), tuple(bases)


def standard_block(block, A, y_scale):
    """`BlockData` of a design's block whose columns are z A [r, r], and y in units of `y_scale`."""
    relation, size = _unit_relation(block.relation)
    covariance = block.covariance.in_units(y_scale * np.diag(A) / size)
    return BlockData(block.n_levels, block.r, covariance, relation, block.tied, size)


def _unit_relation(relation):
    """A relationship less its size, and that, the SD that it gives a level where Sigma is 1.

    It is itself, of size 1, where that is near 1. Any multiple of it is the same model.
    """
    if relation is None:
        return None, 1.0
    size = float(np.sqrt(relation.variances.mean()))
    return (relation, 1.0) if 1 / UNUSUAL < size < UNUSUAL else (relation.scaled(size), size)


def ones(n_rows):
    """A column [n_rows, 1] of ones that takes no memory, and is not to be written to."""
    return np.broadcast_to(1.0, (n_rows, 1))


def levels_of(design):
    """The terms' references, and their numbers of levels."""
    blocks = design.blocks
    return tuple(b.refs for b in blocks), tuple(b.n_levels for b in blocks)


def _own_basis(z, weights, n, basis):
    """z A [n_rows, r] with unit mean squares, unrelated over the rows, and A [r, r].

    That is in "any" `basis`; where "scale" is all that may change A is diagonal, and else 1. A
    column that depends on those before it is scaled only.
    """
    if basis == "none":
        return z, np.eye(z.shape[1])
    if isinstance(z, Indicators):
        # Of each row one column is not 0: they are unrelated as they are.
        size = np.sqrt(z.sums(weights) / n)
        size = np.where(size > 0, size, 1.0)
        return z.scaled(1 / size), np.diag(1 / size)
    size = np.sqrt(weights @ z**2 / n)
    size = np.where(size > 0, size, 1.0)
    A = np.diag(1 / size)
    out = z / size
    for a in range(1, len(A) if basis == "any" else 1):
        rest, own = out[:, a].copy(), A[:, a].copy()
        # Twice, as one pass leaves rounding of the size of what it takes away.
        for _ in range(2):
            along = out[:, :a].T @ weighed(rest, weights) / n
            rest -= out[:, :a] @ along
            own -= A[:, :a] @ along
        left = np.sqrt(weighed(rest, weights) @ rest / n)
        if left > RANK_TOLERANCE:
            out[:, a], A[:, a] = rest / left, own / left
    return out, A


def standardize(
    design,
    y,
    weights,
    *,
    fit_intercept,
    reml,
    sigma=None,
    scale_y=True,
    sigma_unit=1.0,
    eta_power=0,
    parameter_powers=(),
    rows=LocalRows,
):
    """Problem in standard units from a Design, y [n_rows] and weights [n_rows].

    `scale_y` is for families whose y may be shifted and scaled; of others eta's unit is y's to the
    `eta_power`, or they keep y as it is, and their parameters have the units `parameter_powers`, as
    `Family` says. The residual SD is in units of `sigma_unit` times
    y's. `rows` makes `engine.rows.protocol.Rows` of arrays, as `LocalRows` does.
    """
    n = float(weights.sum())
    X, basis, log_det = whiten(design.X, weights, n, fit_intercept)
    centre, scale, perfect, offset = 0.0, 1.0, False, design.offset
    columns = None
    if design.sparse is not None:
        columns = Columns(design.sparse, np.asarray(X), weights, n, fit_intercept)
    if scale_y:
        if offset is not None:
            y, offset = y - offset, None
        centre, scale, perfect, y = _units(X, y, weights, n, fit_intercept, columns)
        y /= scale
    elif eta_power:
        unit = float(weights @ y / n)
        y, scale = y / unit, unit**eta_power
        offset = None if offset is None else offset / scale
    blocks, zs, z_bases = standard_blocks(design, weights, n, scale)
    return Problem(
        rows=rows(y, X, weights, *levels_of(design), zs, offset, columns),
        blocks=blocks,
        n=n,
        reml=reml,
        sigma=None if sigma is None else sigma / (scale * sigma_unit),
        y_centre=centre,
        y_scale=scale,
        basis=basis,
        z_bases=z_bases,
        log_det_basis=log_det,
        perfect=perfect,
        sigma_unit=sigma_unit,
        power=eta_power or 1,
        parameter_powers=parameter_powers,
    )


def _units(X, y, weights, n, fit_intercept, columns=None):
    """Centre of y, its residual SD by least squares, whether that is 0, and y less the centre.

    With sparse columns y is also less what they explain, and `columns` learn it and their rank.
    """
    rank, least = X.shape[1], PERFECT_FIT
    mean, size = _moments(X, y, weights)[:2]
    centre = mean / n if fit_intercept else 0.0
    # Of y's size the centred values have the rounding.
    rounding = ROUNDING**2 * size / n
    given, y = y, np.empty(len(y))
    # By threads, as new memory takes longer than the differences.
    each(lambda rows: np.subtract(given[rows], centre, out=y[rows]), len(y))
    _, total, along = _moments(X, y, weights)
    if columns is not None:
        least = SOLVED_FIT
        columns.start = columns.least_squares(y - np.asarray(X) @ (along / n))
        y -= columns.matrix @ columns.start
        along = _moments(X, y, weights)[2]

    def left(rows):
        rest = y[rows] - X[rows] @ (along / n)
        return float(weighed(rest, weights[rows]) @ rest)

    squares = summed(left, len(y))
    if total == 0.0 or squares <= (least * total / n + rounding) * max(n - rank, 1.0):
        return centre, 1.0, True, y
    if columns is not None:
        rank = columns.identify().Q.shape[1] + columns.rank
    scale = np.sqrt(squares / max(n - rank, 1.0))
    if columns is not None:
        columns.start = columns.start / scale
    return centre, scale, False, y


def _moments(X, y, weights):
    """1^T w y, y^T w y and X^T w y."""

    def moments(rows):
        wy = weighed(y[rows], weights[rows])
        return float(wy.sum()), float(wy @ y[rows]), X[rows].T @ wy

    return summed(moments, len(y))


def stacked(problem, d):
    """The problem of `d` linear predictors a row, each with coefficients and effects of its own.

    The rows of one observation are adjacent, i * d + c; the coefficients of one predictor too, and
    block k becomes the blocks k * d + c, whose z is 0 on the rows of the other predictors.
    """
    if d == problem.d:
        return problem
    return replace(
        problem,
        rows=problem.rows.stacked(d),
        blocks=tuple(b for b in problem.blocks for _ in range(d)),
        basis=np.kron(np.eye(d), problem.basis),
        z_bases=tuple(A for A in problem.z_bases for _ in range(d)),
        log_det_basis=d * problem.log_det_basis,
        d=d,
    )
