"""Newton's method on noisy scores: its steps in theta, the information, and the average.

Scores [m, C] are those of C parallel chains, and the information is that of the complete data, from
which Louis' formula makes the observed one.
"""

import numpy as np

from sklmm.covariances.unstructured import vech_indices
from sklmm.engine.latent.chains import batch_error, chain_error
from sklmm.engine.linalg.newton import ascent, inverse_of_free

#: Share of the complete-data information that the missing data leave at least.
LEAST_OBSERVED = 0.1
#: Share of the largest information that a step takes every direction to have.
LEAST_INFORMATION = 1e-4
#: Sizes of steps: that of noise alone in its SDs, in coefficients, in the family's raw parameters,
#: and that of an SD of 0.
NOISE_STEPS = 2.0
MAX_STEP = 2.0
MAX_RAW_STEP = 1.0
MIN_MOVE = 0.01


def newton(space, information, score):
    """Step in theta [m] by absolute eigenvalues, and its length in standard errors."""
    free, delta = space.free, np.zeros(space.size)
    both = np.ix_(free, free)
    delta[free], length = ascent(information[both], score[free], least=LEAST_INFORMATION)
    return delta, length


def cap(space, flat, step):
    """The step, shortened so that no SD is more than halved or doubled and nothing else leaps."""
    theta = space.split(flat)
    limits = [np.full(space.p, MAX_STEP)]
    for L in theta.factors:
        rows, _ = vech_indices(len(L))
        limits.append(0.5 * np.linalg.norm(L, axis=1)[rows] + MIN_MOVE)
    limits.append(np.full(len(theta.raw), MAX_RAW_STEP))
    return step * min(1.0, float(np.min(np.concatenate(limits) / np.maximum(abs(step), 1e-300))))


def invert(space, information):
    """Covariance [m, m] of the free entries of theta, 0 for pinned ones."""
    return inverse_of_free(space.free, information)


def own_noise(space, information, noise):
    """The most that Monte Carlo noise [m, m] alone is likely to give a Newton step of length."""
    free = np.ix_(space.free, space.free)
    return NOISE_STEPS * np.sqrt(max(np.sum(invert(space, information)[free] * noise[free]), 0))


def _relative_to(space, complete, covariance):
    """Root R [f, f] of the free entries' complete-data information, and R^-1 covariance R^-T."""
    free = np.ix_(space.free, space.free)
    scale = np.sqrt(np.maximum(np.abs(np.diag(complete[free])), 1e-300))
    values, vectors = np.linalg.eigh(complete[free] / np.outer(scale, scale))
    size = np.sqrt(np.maximum(values, 1e-9 * max(np.abs(values).max(initial=0.0), 1e-300)))
    inverse = (vectors / size).T / scale
    return scale[:, None] * vectors * size, inverse @ covariance[free] @ inverse.T


def missing_share(space, complete, covariance):
    """The largest share of the complete-data information that the scores' covariance takes."""
    _, share = _relative_to(space, complete, covariance)
    return float(np.linalg.eigvalsh(share).max(initial=0.0))


def observed_information(space, complete, covariance):
    """Louis' formula, kept positive: at least `LEAST_OBSERVED` of the complete-data information."""
    root, share = _relative_to(space, complete, covariance)
    left, turned = np.linalg.eigh(np.eye(len(root)) - share)
    out = np.zeros_like(complete)
    observed = (turned * np.maximum(left, LEAST_OBSERVED)) @ turned.T
    out[np.ix_(space.free, space.free)] = root @ observed @ root.T
    return out


def average(space, window, information):
    """Estimate, its Monte Carlo errors and the remaining step, each [m]."""
    inverse = invert(space, information)
    theta = np.array([flat for flat, _ in window])
    scores = np.array([s.mean(axis=1) for _, s in window])
    pseudo = theta + scores @ inverse
    away = np.array([inverse @ (s - s.mean(axis=1, keepdims=True)) for _, s in window])
    error = np.maximum(batch_error(pseudo), chain_error(away))
    return pseudo.mean(axis=0), error, scores.mean(axis=0) @ inverse


def longest(step, std):
    """The largest entry of a step, in standard errors of the free parameters."""
    free = std > 0
    return float(np.max(np.abs(step[free]) / std[free], initial=0.0))
