"""Latent variables of small tables in NumPy, where compiling would take longer than running.

W = [X, Z_1 L_1, ..., Z_K L_K] is a dense matrix here, and C = W^T w W + (0, I) is factorised.
"""

import numpy as np
from scipy.linalg import LinAlgError, cho_solve, cholesky, solve_triangular

#: Rows, and unknowns, of a small table.
MOST_ROWS = 512
MOST_UNKNOWNS = 1024


class Rows:
    """W of a problem [n_rows, P] for any factors, in the places of a `Layout`."""

    def __init__(self, problem, layout):
        self.problem, self.layout = problem, layout

    @classmethod
    def of(cls, problem, layout):
        """`Rows`, or None where the table is not small."""
        small = len(problem.y) <= MOST_ROWS and layout.size <= MOST_UNKNOWNS
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
        W = rows.matrix(factors)
        self.C = (W.T * weights) @ W
        prior = np.arange(self.p, len(self.C))
        self.C[prior, prior] += 1.0
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
    still, flat = latent.rows.matrix(theta.factors), latent.space.join(theta)
    matrices, eta, raw = [], np.empty((latent.n_rows, x.shape[1])), []
    for c, change in enumerate(delta.T):
        moved = latent.space.split(flat + change) if change.any() else theta
        matrices.append(latent.rows.matrix(moved.factors) if change.any() else still)
        eta[:, c] = latent.eta(moved.beta, matrices[c] @ x[:, c])
        raw.append(moved.raw)
    raw = np.column_stack(raw)
    y, w = latent.observations()
    if like.distribution is None:
        rows, score = (np.asarray(a) for a in like.log_prob_and_score(y, eta, raw))
    else:
        rows, score = _expanded(latent, theta, still @ x, y, eta, raw)
    each = np.repeat(w, d)[:, None]
    weighted = each * score
    slope = np.column_stack([M.T @ weighted[:, c] for c, M in enumerate(matrices)])
    slope[p:] -= x[p:]
    value = w @ rows - 0.5 * np.sum(x[p:] ** 2, axis=0)
    return value, slope, each * np.asarray(like.curvature(y, eta, raw))


def _expanded(latent, theta, linear, y, eta, raw):
    """Log density and score of a custom family, to second order about theta's own eta."""
    like = latent.like
    about = latent.eta(theta.beta, linear.T).T
    rows, score = (np.asarray(a) for a in like.log_prob_and_score(y, about, raw))
    still = np.repeat(theta.raw[:, None], eta.shape[1], axis=1)
    away, W = eta - about, np.asarray(like.curvature(y, about, still))
    return rows + away * (score - 0.5 * W * away), score - W * away
