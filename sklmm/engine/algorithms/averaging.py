"""Newton's method on noisy scores: its steps in theta, the information, and the average.

Scores [m, C] are those of C parallel chains, and the information is that of the complete data, from
which Louis' formula makes the observed one.
"""

from typing import NamedTuple

import numpy as np

from sklmm.covariances.unstructured import vech_indices
from sklmm.engine.latent.chains import (
    batch_error,
    chain_error,
    information_noise,
    mean_information,
    std_error_noise,
)
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
#: Iterations of the average at which the information is computed: from a quarter of them on, two.
INFORMATIONS = (5, 10, 20, 40, 80, 160)


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


def average(space, used, information):
    """Estimate, its Monte Carlo errors and the remaining step, each [m], from used `Draws`."""
    inverse = invert(space, information)
    theta = np.array([draws.flat for draws in used])
    scores = np.array([draws.score for draws in used])
    pseudo = theta + scores @ inverse
    away = np.array([inverse @ (draws.scores - draws.score[:, None]) for draws in used])
    error = np.maximum(batch_error(pseudo), chain_error(away))
    return pseudo.mean(axis=0), error, scores.mean(axis=0) @ inverse


class Average(NamedTuple):
    """The average over the `used` draws of a window.

    The estimate [m], its covariance [m, m] and standard errors [m], their Monte Carlo errors
    [m] and the remaining step [m]; and the information [m, m] that is complete, and missing.
    """

    used: list
    estimate: np.ndarray
    covariance: np.ndarray
    std: np.ndarray
    error: np.ndarray
    drift: np.ndarray
    complete: np.ndarray
    missing: np.ndarray


class Window:
    """The draws since burn-in, of which the last three quarters are averaged.

    The complete-data information [m, m] is burn-in's until the draws' own takes its place.
    """

    def __init__(self, space, complete, tol):
        self.space, self.complete, self.tol = space, complete, tol
        self.draws, self.informations, self.noisy = [], {}, False

    @property
    def size(self):
        """Number of iterations."""
        return len(self.draws)

    @property
    def first(self):
        """Number of the first one that is used."""
        return self.size // 4

    def add(self, draws):
        """Add an iteration's `Draws`, without those of the latent variables, which are large."""
        self.draws.append(draws._replace(x=None, pull=None))

    @property
    def needs_information(self):
        """Whether the last draws are to tell the complete-data information."""
        return self.size in INFORMATIONS or self.noisy

    def inform(self, columns):
        """Take its columns, each [m, n_draws], from the last draws."""
        known = self.informations | {self.size: columns}
        self.informations = {t: columns for t, columns in known.items() if t > self.first}
        means = [mean_information(columns, self.space.p) for columns in self.informations.values()]
        self.complete = np.mean(means, axis=0)

    def average(self):
        """The `Average` over what is used of the window."""
        space, used = self.space, self.draws[self.first :]
        covariances = [draws.covariance for draws in used]
        missing = np.mean(covariances, axis=0)
        observed = observed_information(space, self.complete, missing)
        estimate, error, drift = average(space, used, observed)
        covariance = invert(space, observed)
        std = np.sqrt(np.diag(covariance))
        # What is missing may be far more than what is observed, whose error then is large.
        parts = np.einsum("am,tmn,na->ta", covariance, covariances, covariance)
        also = information_noise(list(self.informations.values()), covariance)
        self.noisy = self.informations and longest(0.5 * np.sqrt(also), std**2) > self.tol
        n_chains = used[-1].scores.shape[1]
        error = np.maximum(error, std_error_noise(parts, std, n_chains, also))
        return Average(used, estimate, covariance, std, error, drift, self.complete, missing)


def longest(step, std):
    """The largest entry of a step, in standard errors of the free parameters."""
    free = std > 0
    return float(np.max(np.abs(step[free]) / std[free], initial=0.0))
