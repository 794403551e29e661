"""Latent variables of small tables in NumPy, where compiling would take longer than running.

W = [X, Z_1 L_1, ..., Z_K L_K] is a dense matrix here, and C = W^T w W + (0, I) is factorised.
"""

import numpy as np
from scipy.linalg import LinAlgError, cho_solve, cholesky, solve_triangular

from sklmm.engine.graphs import graphs
from sklmm.engine.theta import STEP, observed_information

#: Rows n of a small table, and operations m n P^2 of making C once for each entry of theta.
MOST_ROWS = 4096
MOST_OPERATIONS = 2e8


class Rows:
    """W of a problem [n_rows, P] for any factors, in the places of a `Layout`."""

    def __init__(self, problem, layout):
        self.problem, self.layout = problem, layout

    @classmethod
    def of(cls, problem, layout, m):
        """`Rows`, or None where the table is not small for a theta [m]."""
        n = len(problem.y)
        small = n <= MOST_ROWS and m * n * layout.size**2 <= MOST_OPERATIONS
        return cls(problem, layout) if small else None

    def matrix(self, factors):
        """W at some factors."""
        problem, first = self.problem, self.layout.p
        n = len(problem.y)
        out = np.zeros((n, self.layout.size))
        out[:, :first] = problem.X
        for b, L, (J, r) in zip(problem.blocks, factors, self.layout.shapes, strict=True):
            places = first + b.refs.astype(np.intp)[:, None] * r + np.arange(r)
            out[np.arange(n)[:, None], places] = b.z @ L
            first += J * r
        return out


class Factorised:
    """C = U^T U at some factors and weights [n_rows]."""

    def __init__(self, rows, factors, weights):
        self.p = rows.layout.p
        self.C = _precision(rows.matrix(factors), weights, self.p)
        try:
            self.U = cholesky(self.C)
        except LinAlgError:
            # Singular to working precision: the least of its eigenvalues are rounding.
            values, vectors = np.linalg.eigh(self.C)
            values = np.maximum(values, np.finfo(float).eps * len(values) * values[-1])
            self.U = np.linalg.qr((vectors * np.sqrt(values)).T)[1]

    def solve(self, right, tol=None):
        """C^-1 right, as exactly as may be."""
        return cho_solve((self.U, False), right) if len(self.U) else right

    def apply(self, flat):
        """C flat, 0 on beta."""
        out = self.C @ flat
        out[: self.p] = 0.0
        return out

    def draws(self, rng, n_draws):
        """Draws from N(0, C^-1) in mirrored pairs, whose covariance is exact where they are enough.

        So that what is nearly quadratic in them has nearly no Monte Carlo error.
        """
        noise = rng.standard_normal((len(self.U), -(-n_draws // 2)))
        if 0 < len(noise) <= noise.shape[1]:
            noise = np.linalg.qr(noise.T)[0].T * np.sqrt(noise.shape[1])
        noise = np.concatenate([noise, -noise], axis=1)[:, :n_draws]
        return solve_triangular(self.U, noise) if len(noise) else noise


def gradient(latent, theta, x, delta):
    """As `complete.latent_gradient`: [C], [P, C], [n_rows, C]."""
    like, d, p = latent.like, latent.like.n_predictors, latent.layout.p
    theta = theta._replace(beta=theta.beta[: latent.space.p])
    matrices, eta, raw = _moved(latent, theta, x, delta)
    y, w = latent.observations()
    if like.distribution is None:
        rows, score, W = graphs(like).by_row(y, eta, raw)
    else:
        rows, score = _expanded(latent, theta, x, y, eta, raw)
        (W,) = graphs(like).curvature(y, eta, raw)
    each = np.repeat(w, d)[:, None]
    weighted = each * score
    slope = np.column_stack([M.T @ weighted[:, c] for c, M in enumerate(matrices)])
    slope[p:] -= x[p:]
    value = w @ rows - 0.5 * np.sum(x[p:] ** 2, axis=0)
    return value, slope, each * W


def laplace(latent, theta, centre, shift):
    """Laplace's log-likelihood at its mode `centre` [P], and its gradient in theta [m].

    The mode moves along shift [P, m]. Of eta, W and C only rates are differences, row by row:
    sums of log densities are too large to be subtracted.
    """
    like, p, m = latent.like, latent.layout.p, latent.space.size
    theta = theta._replace(beta=theta.beta[: latent.space.p])
    (y, w), each = latent.observations(), latent.full.weights
    away = np.concatenate([np.zeros((m, 1)), STEP * np.eye(m), -STEP * np.eye(m)], axis=1)
    matrices, eta, raw = _moved(latent, theta, centre[:, None] + shift @ away, away)
    (W,) = graphs(like).curvature(y, eta, raw)
    M, weights = matrices[0], each * W[:, 0]
    C = _precision(M, weights, p)
    rows, score, of_raw = graphs(like).slopes(y, w, eta[:, :1], raw[:, :1])
    value = w @ rows[:, 0] - 0.5 * centre[p:] @ centre[p:] - 0.5 * np.linalg.slogdet(C)[1]
    gradient = score[:, 0] @ _rate(eta, m) - centre[p:] @ shift[p:]
    gradient[m - len(of_raw) :] += of_raw[:, 0]
    if len(C):
        solved = M @ np.linalg.inv(C)
        gradient -= 0.5 * (each * np.einsum("ia,ia->i", solved, M)) @ _rate(W, m)
        for k in range(latent.space.p, m - len(of_raw)):
            turned = (matrices[1 + k] - matrices[1 + m + k]) / (2 * STEP)
            gradient[k] -= weights @ np.einsum("ia,ia->i", solved, turned)
    return float(value), gradient


def information(latent, theta, centre, shift):
    """Less the second derivatives [m, m] of Laplace's log-likelihood, the mode moving by `shift`.

    By differences of its gradient: not of a density with kinks.
    """
    flat, split = latent.space.join(theta), latent.space.split
    return observed_information(
        lambda e: laplace(latent, split(flat + e), centre + shift @ e, shift)[1], len(flat)
    )


def _precision(W, weights, p):
    """C [P, P] of W and weights [n_rows], the first p unknowns without a prior."""
    C = (W.T * weights) @ W
    prior = np.arange(p, len(C))
    C[prior, prior] += 1.0
    return C


def _rate(values, m):
    """Central differences [n, m] of columns at theta, theta + STEP e_k and theta - STEP e_k."""
    return (values[:, 1 : 1 + m] - values[:, 1 + m :]) / (2 * STEP)


def plain_information(latent, theta):
    """Less the second derivatives [m, m] of a model without effects, by differences of scores."""
    like, p, m = latent.like, latent.space.p, latent.space.size
    y, w = latent.observations()
    away = np.concatenate([STEP * np.eye(m), -STEP * np.eye(m)], axis=1)
    _, eta, raw = _moved(latent, theta, np.zeros((latent.layout.size, 2 * m)), away)
    _, score, of_raw = graphs(like).slopes(y, w, eta, raw)
    gradient = np.zeros((m, 2 * m))
    gradient[:p] = latent.fixed.T @ score
    gradient[p:] = of_raw
    out = (gradient[:, m:] - gradient[:, :m]) / (2 * STEP)
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
    rows, score, W = graphs(latent.like).by_row(y, about, raw)
    if (raw != still).any():
        (W,) = graphs(latent.like).curvature(y, about, still)
    away = eta - about
    return rows + away * (score - 0.5 * W * away), score - W * away
