"""M-steps: parameters from moments.

`newton_step` is a damped Newton step on theta = (vech L_k, log sigma). The observed information is
the average information plus the curvature of Sigma = L L^T, -2 (I (x) G_k), which alone survives
where a variance is 0 (there the gradient in L vanishes but G_k is negative): a singular fit is a
regular maximum in L, reached quadratically. `em_step` is the closed-form EM step, never leaving the
space.
"""

from typing import NamedTuple

import numpy as np

from sklmm.covariances.unstructured import vech_indices
from sklmm.engine.linalg.newton import ascent
from sklmm.engine.theta.space import Theta, residual_sd

MIN_SIGMA = 1e-5
#: The least log sigma.
MIN_RAW = np.log(MIN_SIGMA)
SINGULAR_SD = 1e-4
RAISED_SD = 0.05
#: Share of the largest information up to which a direction has none (residual and group variance
#: confounded).
FLAT = 1e-9
MAX_STEP = 1.0


class Step(NamedTuple):
    """A step in theta [m], its information [m, m], and its length in standard errors."""

    delta: np.ndarray
    information: np.ndarray
    decrement: float


def gradient(theta, moments):
    """dl/dtheta [m]: 2 G_k L_k on the lower triangle, and the gradient in log sigma if that is."""
    parts = []
    for L, G in zip(theta.factors, moments.score, strict=True):
        rows, columns = vech_indices(len(L))
        parts.append(2 * (G @ L)[rows, columns])
    return np.concatenate([*parts, np.full(len(theta.raw), moments.score_sigma)])


def observed_information(theta, moments):
    """Average information less the curvature term 2 G_k in each column of L_k."""
    information = moments.information.copy()
    first = 0
    for L, G in zip(theta.factors, moments.score, strict=True):
        rows, columns = vech_indices(len(L))
        same = columns[:, None] == columns[None, :]
        part = slice(first, first + len(rows))
        information[part, part] -= 2 * G[np.ix_(rows, rows)] * same
        first += len(rows)
    return information


def newton_step(space, theta, moments, damping=0.0):
    """Newton step with absolute eigenvalues, so that it climbs from a saddle too."""
    free = space.free
    if (theta.raw <= MIN_RAW).any() and moments.score_sigma < 0:
        free[-1] = False
    delta = np.zeros(space.size)
    information = observed_information(theta, moments)
    if not free.any():
        return Step(delta, information, 0.0)
    g = gradient(theta, moments)[free]
    step, decrement = ascent(information[np.ix_(free, free)], g, damping, FLAT)
    delta[free] = step * min(1.0, MAX_STEP / max(np.abs(step).max(), 1e-300))
    return Step(delta, information, decrement)


def move(space, theta, delta):
    """Theta after a step; columns of L keep a nonnegative diagonal."""
    moved = space.moved(theta, delta)
    factors = [L * np.where(np.diag(L) < 0, -1.0, 1.0) for L in moved.factors]
    return Theta(moved.beta, tuple(factors), np.maximum(moved.raw, MIN_RAW))


def em_step(problem, theta, moments):
    """Closed-form EM step: Sigma_k + (2 / J_k) Sigma_k G_k Sigma_k, sigma^2 (1 + g / n)."""
    factors = []
    for block, L, G in zip(problem.blocks, theta.factors, moments.score, strict=True):
        if block.sd is None:
            inner = np.eye(block.r) + 2 / block.n_levels * (L.T @ G @ L)
            values, vectors = np.linalg.eigh(inner)
            inner = (vectors * np.maximum(values, 0.01)) @ vectors.T
            L = L @ np.linalg.cholesky(inner)
        factors.append(L)
    raw = theta.raw + 0.5 * np.log(max(1 + moments.score_sigma / problem.n, 0.01))
    return theta._replace(factors=tuple(factors), raw=np.maximum(raw, MIN_RAW))


def is_singular(factor, sigma):
    """Whether a covariance is on the boundary: an SD at 0 or a correlation at +-1."""
    return np.linalg.svd(factor, compute_uv=False).min() < SINGULAR_SD * sigma


def leave_boundary(problem, theta, moments):
    """Theta with a variance raised from 0 where the log-likelihood rises with it, else None.

    At L = 0 the gradient in L vanishes whatever the sign of G, so Newton would stop at a saddle.
    """
    factors, moved, sigma = [], False, residual_sd(problem, theta)
    for block, L, G in zip(problem.blocks, theta.factors, moments.score, strict=True):
        vectors, sizes, _ = np.linalg.svd(L)
        null = vectors[:, sizes < SINGULAR_SD * sigma]
        if block.sd is None and null.shape[1]:
            values, turned = np.linalg.eigh(null.T @ G @ null)
            up = (null @ turned)[:, values > 1e-6 * block.n_levels]
            if up.shape[1]:
                moved = True
                L = np.linalg.cholesky(
                    L @ L.T + (RAISED_SD * sigma) ** 2 * (up @ up.T) + 1e-12 * np.eye(block.r)
                )
        factors.append(L)
    return theta._replace(factors=tuple(factors)) if moved else None
