r"""Separation: directions of the fixed part along which the likelihood rises without end.

With d a direction of the coefficients, a row whose y is at the end of its scale (the one of two
classes, a count of 0) is never less likely at beta + t d, t > 0, where x^T d points to that end or
is 0; any other row where x^T d is 0. A direction that is so for all rows, and points strictly for
some, has no maximum on its way (Albert & Anderson 1984, Biometrika 71, 1-10; for counts Correia,
Guimaraes & Zylkin 2019, arXiv:1903.01633). Random effects change nothing: this holds for every
value of theirs.

The rows' conditions are linear, a^T d >= 0, so that linear programs find such directions (Konis
2007, thesis, University of Oxford): maximise the sum of a^T d over |d_j| <= 1. The rows enter a
program as they are violated, for it is those of the fewest coefficients that bind.

They cost much where columns are many, and most fits need none. Let s > 0 be the score along such a
d, scaled so that the largest change a = x^T d of a row that it settles is 1. No other row changes:
with p_i the probability of row i's other outcomes, or the mean of a count, s is the sum of
p_i a_i, and the information I along d at most that of p_i a_i^2 <= s, of logit and log links.
Random effects are averaged over in s, and only take from I. An optimiser stops where the step to
come is below some share t of the standard errors, s / sqrt(I) < t; hence sqrt(I) < t, and the row
with a = 1 has a predictor of a standard error above 1 / t. (Of several predictors, a change is the
difference of two, and one of them has half of that.) A fit that stopped by that rule and knows
each row's predictors better than this has nothing to look for: `is_determined`.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from scipy.optimize import linprog

from sklmm.result import Status

#: In units of the columns' ranges: rounding, and what is more than that.
FEASIBLE = 1e-9
STRICT = 1e-6
#: The longest step, in standard errors, before which a fit stops by itself (`laplace.SMALL`), and
#: the share of its reciprocal that no predictor's standard error may reach.
LAST_STEP = 0.1
SHARE = 0.4
#: Rows whose predictors' standard errors are found at once.
CHUNK = 1 << 15
#: Conditions that a program begins with, for each number of a direction and at most, and that it
#: takes on at once; programs; the work of all of them, iterations times numbers, some seconds: what
#: is not found by then is not told.
FIRST_EACH = 50
FIRST = 2000
MORE = 1000
MOST_PROGRAMS = 50
MOST_WORK = 2_000_000_000
MOST_ITERATIONS = 1_000_000
#: Eigenvalues below this, of columns of unit length, are 0.
RANK_TOLERANCE = 1e-10


class Separation(NamedTuple):
    """What separates a response: directions, and the rows that they settle.

    directions [m, k] span the directions in (coefficients, spacings of the cutpoints); shares [m]
    is one that raises the likelihood, times the columns' ranges `units` [m]; rows [n_rows] tells
    whose y it settles.
    """

    directions: np.ndarray
    shares: np.ndarray
    units: np.ndarray
    rows: np.ndarray


def is_determined(result, response, tol, largest):
    """Whether a converged fit of that tol knows the predictors of all rows too well to separate.

    `largest` says how large the variance of a row's predictor is at most by a covariance of its
    coefficients: see `largest_variance`.
    """
    if not response.family.separable:
        return True
    if getattr(response.family, "link", "logit") not in ("logit", "log"):
        return False
    most, kept = SHARE / max(LAST_STEP, 0.0 if tol == "auto" else tol), ~result.dropped
    cov = np.where(np.outer(kept, kept), result.coef_cov, 0.0)
    n_spacings = response.n_classes - 2 if response.family.classes == "ordered" else 0
    variances = np.diag(result.natural_cov)[len(result.natural_cov) - n_spacings :]
    most -= np.sqrt(np.abs(variances)).sum()
    p = max(len(cov) // response.n_predictors, 1)
    # What a nan is in is not known to be small.
    return most > 0 and all(
        largest(cov[c : c + p, c : c + p]) < most**2 for c in range(0, len(cov), p)
    )


def largest_variance(X, covariance):
    """The largest x^T covariance x of the rows of X, nan where some are."""
    parts = (X[first : first + CHUNK] for first in range(0, len(X), CHUNK))
    return np.max([np.abs(np.einsum("ij,ij->i", X @ covariance, X)).max() for X in parts])


def separation(design, response, dropped):
    """`Separation` of a response by a design's fixed part without `dropped` columns, or None."""
    if not response.family.separable:
        return None
    conditions = Conditions.of(design.X, response, np.flatnonzero(~dropped[: design.X.shape[1]]))
    if not conditions.size:
        return None
    strict = np.zeros((len(conditions.kinds), conditions.eta.shape[1]), bool)
    up = np.zeros(conditions.size)
    while (found := _steepest(conditions, ~strict)) is not None:
        slacks = conditions.slacks(found)
        if not (new := (slacks > STRICT) & ~strict).any():
            break
        strict |= new
        up += found
    if not strict.any():
        return None
    directions = null_space(conditions.gram(~strict))
    if directions.shape[1] == 0:
        # What the programs took for 0 were values of a column that a huge one has beside it.
        return None
    units = conditions.units
    return Separation(
        conditions.own(directions),
        conditions.own(up[:, None])[:, 0] * units,
        units,
        strict.any(axis=1),
    )


def unbounded(result, found, design):
    """The result of separated data: marked as such, and its draws as if nothing were unknown there.

    Along the directions the draws have the standard errors of where the fit stopped, which mean
    nothing: they are taken out of the coefficients so that the other rows' predictors keep theirs.
    """
    coef, p = found.directions[: len(result.coef)], design.X.shape[1]
    weights = np.zeros((len(coef), len(coef)))
    X = design.X[found.rows]
    for c in range(len(coef) // p):
        weights[c * p : (c + 1) * p, c * p : (c + 1) * p] = X.T @ X
    take_out = np.eye(len(coef)) - coef @ np.linalg.pinv(coef.T @ weights @ coef) @ coef.T @ weights
    joint = np.eye(len(result.natural_cov))
    joint[: len(coef), : len(coef)] = take_out
    directions = np.zeros((len(joint), coef.shape[1]))
    in_eta = found.directions * found.units[:, None]
    directions[: len(coef)] = in_eta[: len(coef)]
    directions[len(joint) - len(in_eta) + len(coef) :] = in_eta[len(coef) :]
    if result.unbounded is not None:
        directions = np.column_stack([result.unbounded, directions])
    return replace(
        result,
        status=Status.SEPARATED,
        unbounded=directions,
        coef_cov=_moved(take_out, result.coef_cov),
        coef_root=take_out @ result.coef_root,
        natural_cov=_moved(joint, result.natural_cov),
    )


def _moved(matrix, covariance):
    """Covariance of a linear function of the parameters, nan where theirs is nan."""
    unknown = np.isnan(covariance)
    return np.where(unknown, np.nan, matrix @ np.where(unknown, 0.0, covariance) @ matrix.T)


@dataclass(frozen=True)
class Conditions:
    """Linear conditions on a direction, several a row.

    Condition m of row i is eta[k, m] . (d_1, .., d_D) + cuts[k, m] . spacings >= 0, k = kinds[i]
    and d_c the change of its predictor c; 0 >= 0 where a kind has fewer. Directions are flat, first
    [D, p] of the columns `kept` as (x - centre) / scale, then of the spacings.
    """

    X: np.ndarray
    kinds: np.ndarray
    eta: np.ndarray
    cuts: np.ndarray
    kept: np.ndarray
    centre: np.ndarray
    scale: np.ndarray

    @classmethod
    def of(cls, X, response, kept):
        """The conditions of a response on a direction of the columns `kept` of X."""
        family, y = response.family, response.y
        if family.classes == "ordered":
            kinds, (eta, cuts) = y, _ordered(response.n_classes)
        elif family.classes is not None:
            kinds, (eta, cuts) = y, _classes(response.n_classes)
        else:
            # At the lower end, between, at the upper end.
            kinds = np.where(y == family.least, 0, np.where(y == family.greatest, 2, 1))
            eta, cuts = np.array([[[-1.0], [0.0]], [[1.0], [-1.0]], [[1.0], [0.0]]]), None
        cuts = np.zeros((*eta.shape[:2], 0)) if cuts is None else cuts
        low, high = X.min(axis=0)[kept], X.max(axis=0)[kept]
        # Of a column of years the differences count; where there is an intercept, that is all.
        intercept = len(kept) > 0 and kept[0] == 0 and low[0] == high[0] == 1
        centre = np.clip(0.0, low, high) * intercept
        centre[:1] = 0.0
        scale = np.maximum(high - centre, centre - low)
        return cls(X, kinds.astype(int), eta, cuts, kept, centre, np.where(scale > 0, scale, 1.0))

    @property
    def size(self):
        """How many numbers a direction has."""
        return self.eta.shape[2] * len(self.kept) + self.cuts.shape[2]

    @property
    def units(self):
        """Ranges of all columns and spacings [m], 1 for an intercept and for the spacings."""
        out = np.ones((self.eta.shape[2], self.X.shape[1]))
        out[:, self.kept] = self.scale
        return np.concatenate([out.ravel(), np.ones(self.cuts.shape[2])])

    def own(self, directions):
        """Directions [size, k] in the units of all columns and of the spacings."""
        d, p = self.eta.shape[2], len(self.kept)
        parts = directions[: d * p].reshape(d, p, directions.shape[1]) / self.scale[:, None]
        parts[:, :1] -= np.einsum("p,dpk->dk", self.centre, parts)[:, None]
        out = np.zeros((d, self.X.shape[1], directions.shape[1]))
        out[:, self.kept] = parts
        return np.concatenate([out.reshape(-1, directions.shape[1]), directions[d * p :]])

    def slacks(self, direction):
        """The left sides [n_rows, m] of the conditions on a direction."""
        d, own = self.eta.shape[2], self.own(direction[:, None])[:, 0]
        eta = self.X @ own[: d * self.X.shape[1]].reshape(d, -1).T
        cuts = self.cuts @ own[d * self.X.shape[1] :]
        weights = self.eta.transpose(1, 0, 2)
        parts = [
            (w[self.kinds] * eta).sum(axis=1) + c[self.kinds]
            for w, c in zip(weights, cuts.T, strict=True)
        ]
        return np.stack(parts, axis=1)

    def total(self, counted):
        """Sum of the left sides' coefficients [size] over the `counted` [n_rows, m] conditions."""
        share = np.zeros((len(self.eta), *counted.shape[1:]))
        weights = np.zeros((len(self.kinds), self.eta.shape[2]))
        for m, mine in enumerate(counted.T):
            weights += mine[:, None] * self.eta[self.kinds, m]
            share[:, m] = np.bincount(self.kinds, mine, len(share))
        columns = self._scaled((self.X.T @ weights).T)
        return np.concatenate([columns.ravel(), np.einsum("km,kmq->q", share, self.cuts)])

    def matrix(self, rows, which):
        """The left sides' coefficients [k, size], each once, of conditions `which` of `rows`."""
        kinds = self.kinds[rows]
        columns = self._scaled(self.X[rows])
        parts = self.eta[kinds, which][:, :, None] * columns[:, None]
        out = np.concatenate([parts.reshape(len(rows), -1), self.cuts[kinds, which]], axis=1)
        return np.unique(out[out.any(axis=1)], axis=0)

    def _scaled(self, X):
        """Rows, or sums of rows, in the conditions' columns; an intercept is the first."""
        X = X[:, self.kept]
        return (X - X[:, :1] * self.centre) / self.scale

    def gram(self, counted):
        """Sum of the outer products [size, size] of the `counted` conditions' left sides."""
        out = np.zeros((self.size, self.size))
        p = len(self.kept)
        for kind, conditions in enumerate(self.eta):
            for m, weights in enumerate(conditions):
                rows = np.flatnonzero((self.kinds == kind) & counted[:, m])
                X = self._scaled(self.X[rows])
                full = np.concatenate([weights, self.cuts[kind, m]])
                XX, x, n = X.T @ X, X.sum(axis=0), len(rows)
                d = len(weights)
                left = np.kron(np.outer(weights, weights), XX)
                side = np.outer(np.kron(weights, x), full[d:])
                out[: d * p, : d * p] += left
                out[: d * p, d * p :] += side
                out[d * p :, : d * p] += side.T
                out[d * p :, d * p :] += n * np.outer(full[d:], full[d:])
        return out


def _classes(n):
    """Conditions of unordered classes: the row's own predictor is above each other one."""
    predictors = np.eye(n)[:, 1:]
    others = [np.delete(np.arange(n), k) for k in range(n)]
    eta = np.stack([predictors[k] - predictors[mine] for k, mine in enumerate(others)])
    return eta, None


def _ordered(n):
    """Conditions of ordered classes: eta is between the cutpoints of the row's class.

    The first cutpoint is 0, and another the sum of the spacings before it.
    """
    eta, cuts = np.zeros((n, 2, 1)), np.zeros((n, 2, n - 2))
    eta[:-1, 0], eta[1:, 1] = -1.0, 1.0
    sums = np.tri(n - 1, n - 2, -1)
    cuts[:-1, 0], cuts[1:, 1] = sums, -sums
    return eta, cuts


def _steepest(conditions, counted):
    """A direction that meets all conditions, some of the `counted` ones strictly, or None."""
    n, m = counted.shape
    places, first = np.arange(n * m), min(FIRST_EACH * conditions.size, FIRST)
    if n * m > first:
        places = np.unique(np.random.default_rng(0).integers(n * m, size=first))
    rows = conditions.matrix(places // m, places % m)
    goal = conditions.total(counted)
    if not goal.any():
        return None
    work = MOST_WORK
    for _ in range(MOST_PROGRAMS):
        numbers = max(int(np.count_nonzero(rows)), 1)
        most = max(min(work // numbers, MOST_ITERATIONS), 1)
        found = linprog(
            -goal,
            A_ub=-rows,
            b_ub=np.zeros(len(rows)),
            bounds=(-1, 1),
            options={"primal_feasibility_tolerance": FEASIBLE / 2, "maxiter": most},
        )
        if found.x is None or found.status != 0 or goal @ found.x <= STRICT:
            return None
        work -= found.nit * numbers
        slacks = conditions.slacks(found.x).ravel()
        violated = np.flatnonzero(slacks < -FEASIBLE)
        if not len(violated):
            return found.x
        worst = violated[np.argsort(slacks[violated], kind="stable")[:MORE]]
        rows = np.concatenate([rows, conditions.matrix(worst // m, worst % m)])
    return None


def null_space(gram):
    """Directions [p, k] that no condition moves in, by the sum [p, p] of their outer products."""
    length = np.sqrt(np.diag(gram))
    length = np.where(length > 0, length, 1.0)
    values, vectors = np.linalg.eigh(gram / np.outer(length, length))
    return vectors[:, values < RANK_TOLERANCE] / length[:, None]
