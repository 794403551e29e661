"""Latent variables of small tables in NumPy, where compiling would take longer than running.

W = [X, Z_1 L_1, ..., Z_K L_K] is a matrix here, dense or sparse.
"""

import numpy as np
from scipy import sparse

from sklmm.engine.likelihood.evaluation import evaluation
from sklmm.engine.limits import factorisable, is_small
from sklmm.engine.linalg.newton import STEP

#: Rows times columns of theta that are worked on at once.
MOST_CELLS = 1 << 23
#: Share of the expected curvature that Newton's steps to the mode keep of the observed one.
LEAST_CURVATURE = 0.1


class Rows:
    """W of a problem [n_rows, P] for any factors, in the places of a `Layout`: dense or sparse."""

    def __init__(self, problem, layout, dense):
        self.problem, self.layout, self.dense = problem, layout, dense
        n, first, places = problem.rows.n_rows, layout.p, []
        for refs, (J, r) in zip(problem.rows.refs, layout.shapes, strict=True):
            places.append(first + refs.astype(np.intp)[:, None] * r + np.arange(r))
            first += J * r
        self.columns = places
        if not dense:
            fixed = np.tile(np.arange(layout.p), (n, 1))
            self._columns = np.concatenate([fixed, *places], axis=1)
        self._last = None, None

    @classmethod
    def of(cls, problem, layout, m, direct=False):
        """`Rows`, or None where the table is not small for a theta [m], nor to be `direct`."""
        small = is_small(problem.rows.n_rows, layout.size, m)
        sizes = [b.n_levels * b.r for b in problem.blocks]
        direct = direct and factorisable(sizes, "gradient")
        return cls(problem, layout, small) if small or direct else None

    def matrix(self, factors):
        """W at some factors; it is not to be written to."""
        known, found = self._last
        if known is None or not all(map(np.array_equal, known, factors)):
            found = self._made(factors)
            self._last = tuple(L.copy() for L in factors), found
        return found

    def _made(self, factors):
        table, p = self.problem.rows, self.layout.p
        loads = [z @ L for z, L in zip(table.z, factors, strict=True)]
        n = table.n_rows
        if not self.dense:
            data = np.concatenate([table.X, *loads], axis=1)
            ends = np.arange(n + 1) * data.shape[1]
            shape = n, self.layout.size
            return sparse.csr_array((data.ravel(), self._columns.ravel(), ends), shape)
        out = np.zeros((n, self.layout.size))
        out[:, :p] = table.X
        for places, load in zip(self.columns, loads, strict=True):
            out[np.arange(n)[:, None], places] = load
        return out

    def own(self, array, k):
        """Entries [n_rows, r, ...] of an array [P, ...] at each row's own level of block k."""
        return array[self.columns[k]]

    def sums(self, rows, k):
        """Of rows [n_rows, r], sums by level in the places of block k, [P]."""
        places = self.columns[k].ravel()
        return np.bincount(places, rows.ravel(), minlength=self.layout.size)


def gradient(latent, theta, x, delta):
    """As `complete.latent_gradient`: [C], [P, C], [n_rows, C]."""
    like, d, p = latent.like, latent.like.n_predictors, latent.layout.p
    theta = theta._replace(beta=theta.beta[: latent.space.p])
    matrices, eta, raw = _moved(latent, theta, x, delta)
    y, w = latent.observations()
    if like.distribution is None:
        rows, score, W = evaluation(like).by_row(y, eta, raw)
    else:
        rows, score = _expanded(latent, theta, x, y, eta, raw)
        (W,) = evaluation(like).curvature(y, eta, raw)
    if latent.direct:
        (W,) = evaluation(like).observed(y, eta, raw)
    each = np.repeat(w, d)[:, None]
    weighted = each * score
    slope = np.column_stack([M.T @ weighted[:, c] for c, M in enumerate(matrices)])
    slope[p:] -= x[p:]
    value = w @ rows - 0.5 * np.sum(x[p:] ** 2, axis=0)
    return value, slope, each * W


def safe_weights(latent, theta, x, weights):
    """Weights [n_rows] at x [P] that are positive: of the expected curvature, a share at least."""
    eta = latent.eta(theta.beta, latent.rows.matrix(theta.factors) @ x)
    y, _ = latent.observations()
    (W,) = evaluation(latent.like).curvature(y, eta[:, None], theta.raw[:, None])
    return np.maximum(weights, LEAST_CURVATURE * latent.full.rows.weights * W[:, 0])


def plain(latent, theta, columns=None):
    """Log-likelihood and gradient [m] of a model without effects; with `columns` [m, c] away.

    Then the gradients alone, [m, c].
    """
    m = latent.space.size
    away = np.zeros((m, 1)) if columns is None else columns
    _, eta, raw = _moved(latent, theta, np.zeros((latent.layout.size, away.shape[1])), away)
    y, w = latent.observations()
    rows, score, of_raw = evaluation(latent.like).slopes(y, w, eta, raw)
    gradient = np.concatenate([latent.fixed.T @ score, of_raw])
    return gradient if columns is not None else (float(w @ rows[:, 0]), gradient[:, 0])


def plain_information(latent, theta):
    """Less the second derivatives [m, m] of a model without effects, by differences of scores."""
    m = latent.space.size
    some = max(MOST_CELLS // (2 * latent.n_rows), 1)
    out = np.zeros((m, m))
    for first in range(0, m, some):
        away = STEP * np.eye(m)[:, first : first + some]
        both = plain(latent, theta, np.concatenate([away, -away], axis=1))
        up, down = np.split(both, 2, axis=1)
        out[:, first : first + some] = (down - up) / (2 * STEP)
    return (out + out.T) / 2


def _moved(latent, theta, x, delta):
    """(W's, eta [n, C], raw [., C]) at theta + delta [m, C] and x [P, C]."""
    still, flat = latent.rows.matrix(theta.factors), latent.space.join(theta)
    matrices, eta, raw = [], np.empty((latent.n_rows, x.shape[1])), []
    for c, change in enumerate(delta.T):
        moved = latent.space.split(flat + change)
        same = all(map(np.array_equal, moved.factors, theta.factors))
        matrices.append(still if same else latent.rows.matrix(moved.factors))
        eta[:, c] = latent.eta(moved.beta, matrices[c] @ x[:, c])
        raw.append(moved.raw)
    return matrices, eta, np.column_stack(raw)


def _expanded(latent, theta, x, y, eta, raw):
    """Log density and score of a custom family, to second order about theta's own eta at x."""
    still = latent.rows.matrix(theta.factors)
    about = latent.eta(theta.beta, (still @ x).T).T
    still = np.repeat(theta.raw[:, None], eta.shape[1], axis=1)
    rows, score, W = evaluation(latent.like).by_row(y, about, raw)
    if (raw != still).any():
        (W,) = evaluation(latent.like).curvature(y, about, still)
    away = eta - about
    return rows + away * (score - 0.5 * W * away), score - W * away
