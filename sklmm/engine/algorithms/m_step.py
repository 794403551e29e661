"""M-steps: parameters from moments.

`newton_step` is a damped Newton step on theta = (theta_k, log sigma). The observed information is
the average information less the curvature of Sigma = L L^T in theta, which alone survives where a
variance is 0 (there the gradient in L vanishes but G_k is negative): a singular fit is a
regular maximum in L, reached quadratically. `em_step` is the closed-form EM step, never leaving the
space.
"""

from typing import NamedTuple

import numpy as np

from sklmm.engine.linalg.newton import ascent
from sklmm.engine.theta.space import Theta, residual_sd

MIN_SIGMA = 1e-5
#: The least log sigma.
MIN_RAW = np.log(MIN_SIGMA)
SINGULAR_SD = 1e-4
RAISED_SD = 0.05
#: Slope of the log-likelihood in a variance of 0, a level, that raises it.
LEAST_GAIN = 1e-6
#: Share of the largest information up to which a direction has none (residual and group variance
#: confounded).
FLAT = 1e-9
MAX_STEP = 1.0


class Step(NamedTuple):
    """A step in theta [m], its information [m, m], and its length in standard errors."""

    delta: np.ndarray
    information: np.ndarray
    decrement: float


def gradient(space, theta, moments):
    """The score [m]: of each covariance's parameters, and of log sigma where it is estimated."""
    blocks = zip(space.covariances, theta.factors, moments.score, strict=True)
    parts = [covariance.score(L, G) for covariance, L, G in blocks]
    return np.concatenate([*parts, np.full(len(theta.raw), moments.score_sigma)])


def observed_information(space, theta, moments):
    """Average information less the curvature of Sigma_k in its parameters."""
    information = moments.information.copy()
    blocks = zip(space.covariances, space.parts, theta.factors, moments.score, strict=True)
    for covariance, part, L, G in blocks:
        information[part, part] -= covariance.curvature(L, G)
    return information


def newton_step(space, theta, moments, damping=0.0):
    """Newton step with absolute eigenvalues, so that it climbs from a saddle too."""
    free = np.ones(space.size, bool)
    if (theta.raw <= MIN_RAW).any() and moments.score_sigma < 0:
        free[-1] = False
    delta = np.zeros(space.size)
    information = observed_information(space, theta, moments)
    if not free.any():
        return Step(delta, information, 0.0)
    g = gradient(space, theta, moments)[free]
    step, decrement = ascent(information[np.ix_(free, free)], g, damping, FLAT)
    delta[free] = step * min(1.0, MAX_STEP / max(np.abs(step).max(), 1e-300))
    return Step(delta, information, decrement)


def move(space, theta, delta):
    """Theta after a step; the diagonals of factors stay nonnegative."""
    moved = space.moved(theta, delta)
    factors = [c.oriented(L) for c, L in zip(space.covariances, moved.factors, strict=True)]
    return Theta(moved.beta, tuple(factors), np.maximum(moved.raw, MIN_RAW))


def em_step(problem, theta, moments):
    """EM step: by Sigma_k + (2 / J_k) Sigma_k G_k Sigma_k, and to sigma^2 (1 + g / n)."""
    factors = []
    for block, L, G in zip(problem.blocks, theta.factors, moments.score, strict=True):
        inner = np.eye(block.r) + 2 / block.n_levels * (L.T @ G @ L)
        values, vectors = np.linalg.eigh(inner)
        inner = (vectors * np.maximum(values, 0.01)) @ vectors.T
        factors.append(block.covariance.nearest(L @ np.linalg.cholesky(inner)))
    raw = theta.raw + 0.5 * np.log(max(1 + moments.score_sigma / problem.n, 0.01))
    return theta._replace(factors=tuple(factors), raw=np.maximum(raw, MIN_RAW))


def is_singular(block, factor, sigma):
    """Whether a block's covariance is on its boundary: an SD at 0 or a correlation at +-1."""
    return block.covariance.at_boundary(factor, SINGULAR_SD * sigma).any()


def leave_boundary(problem, theta, moments):
    """Theta with a variance raised from 0 where the log-likelihood rises with it, else None.

    At L = 0 the gradient in L vanishes whatever the sign of G, so Newton would stop at a saddle.
    """
    factors, sigma = [], residual_sd(problem, theta)
    for block, L, G in zip(problem.blocks, theta.factors, moments.score, strict=True):
        gain = LEAST_GAIN * block.n_levels
        factors.append(
            block.covariance.leave_boundary(L, G, SINGULAR_SD * sigma, RAISED_SD * sigma, gain)
        )
    if all(new is None for new in factors):
        return None
    pairs = zip(factors, theta.factors, strict=True)
    return theta._replace(factors=tuple(L if new is None else new for new, L in pairs))
