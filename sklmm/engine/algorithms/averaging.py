"""Newton's method on noisy scores: its steps in theta, the information, and the average.

Scores [m, C] are those of C parallel chains, and the information is that of the complete data, from
which Louis' formula makes the observed one.
"""

from typing import NamedTuple

import numpy as np

from sklmm.engine.linalg.chains import CovarianceNoise, batch_error, chain_error, deviations
from sklmm.engine.linalg.newton import FLAT, ascent, inverse

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
#: Share of the tolerance that the complete-data information may take of the standard errors' noise
#: before all draws tell it.
NOISY = 0.3
#: Iterations of the average at which the information is computed: from a quarter of them on, two.
INFORMATIONS = (5, 10, 20, 40, 80, 160)


def newton(information, score):
    """Step in theta [m] by absolute eigenvalues, and its length in standard errors.

    Entries of which the data tell nothing stay, as the logit of more zeros where there are none:
    what is left of their scores and information is rounding.
    """
    told, step = _told(information), np.zeros(len(score))
    step[told], length = ascent(
        information[np.ix_(told, told)], score[told], least=LEAST_INFORMATION
    )
    return step, length


def _told(information):
    """Which entries [m] of theta have information: a step of 1 changes the likelihood."""
    return np.abs(information.diagonal()) > FLAT


def _covariance(information):
    """Its inverse, 0 where there is no information."""
    told = _told(information)
    return inverse(np.where(told & told[:, None], information, 0.0))


def _unknown(information):
    """Variances [m] of what it says nothing of, which are large, and 0 of all else."""
    own = np.maximum(np.abs(information.diagonal()), FLAT**2)
    return np.where(_told(information), 0.0, 1 / own)


def cap(space, flat, step):
    """The step, shortened so that no SD is more than halved or doubled and nothing else leaps."""
    theta = space.split(flat)
    limits = [np.full(space.p, MAX_STEP)]
    for covariance, L in zip(space.covariances, theta.factors, strict=True):
        lengths = 0.5 * np.linalg.norm(L, axis=1) + MIN_MOVE
        limits.append(covariance.in_params(L, lengths))
    limits.append(np.full(len(theta.raw), MAX_RAW_STEP))
    shares = np.concatenate(limits) / np.maximum(abs(step), 1e-300)
    return step * float(np.min(shares, initial=1.0))


def own_noise(information, noise):
    """The most that Monte Carlo noise [m, m] alone is likely to give a Newton step of length."""
    return NOISE_STEPS * np.sqrt(max(np.sum(inverse(information) * noise), 0))


def _relative_to(complete, covariance):
    """Root R [m, m] of the complete-data information, and R^-1 covariance R^-T."""
    scale = np.sqrt(np.maximum(np.abs(np.diag(complete)), 1e-300))
    values, vectors = np.linalg.eigh(complete / np.outer(scale, scale))
    size = np.sqrt(np.maximum(values, 1e-9 * max(np.abs(values).max(initial=0.0), 1e-300)))
    back = (vectors / size).T / scale
    return scale[:, None] * vectors * size, back @ covariance @ back.T


def missing_share(complete, covariance):
    """The largest share of the complete-data information that the scores' covariance takes."""
    _, share = _relative_to(complete, covariance)
    return float(np.linalg.eigvalsh(share).max(initial=0.0))


def observed_information(complete, covariance):
    """Louis' formula, kept positive: at least `LEAST_OBSERVED` of the complete-data information."""
    root, share = _relative_to(complete, covariance)
    left, turned = np.linalg.eigh(np.eye(len(root)) - share)
    return root @ ((turned * np.maximum(left, LEAST_OBSERVED)) @ turned.T) @ root.T


def average(used, information):
    """Estimate, its Monte Carlo errors and the remaining step, each [m], from used `Draws`."""
    covariance = _covariance(information)
    theta = np.array([draws.flat for draws in used])
    scores = np.array([draws.score for draws in used])
    pseudo = theta + scores @ covariance
    away = np.array([covariance @ (draws.scores - draws.score[:, None]) for draws in used])
    error = np.maximum(batch_error(pseudo), chain_error(away))
    return pseudo.mean(axis=0), error, scores.mean(axis=0) @ covariance


class Average(NamedTuple):
    """The average over the `used` draws of a window.

    The estimate [m], its covariance [m, m] and standard errors [m], the Monte Carlo errors of the
    estimate and of the standard errors, and the remaining step, [m] each; the information [m, m],
    complete and missing together; and what tells the covariance's noise.
    """

    used: list
    estimate: np.ndarray
    covariance: np.ndarray
    std: np.ndarray
    error: np.ndarray
    std_error: np.ndarray
    drift: np.ndarray
    information: np.ndarray
    noise: CovarianceNoise


class Window:
    """The draws since burn-in, of which the last three quarters are averaged.

    The complete-data information [m, m] is burn-in's until the draws' own takes its place.
    """

    def __init__(self, complete, tol):
        self.complete, self.tol = complete, tol
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

    def inform(self, informations):
        """Take it from the last draws, [m, m, n]."""
        known = self.informations | {self.size: informations}
        self.informations = {t: draws for t, draws in known.items() if t > self.first}
        means = [draws.mean(axis=2) for draws in self.informations.values()]
        self.complete = np.mean(means, axis=0)

    def average(self):
        """The `Average` over what is used of the window."""
        used = self.draws[self.first :]
        missing = np.mean([draws.covariance for draws in used], axis=0)
        observed = observed_information(self.complete, missing)
        estimate, error, drift = average(used, observed)
        covariance = _covariance(observed)
        std = np.sqrt(np.diag(covariance))
        away = deviations(np.array([draws.scores for draws in used]))
        noise = CovarianceNoise(covariance, away, list(self.informations.values()))
        units = np.eye(len(std))
        complete = 0.5 * np.sqrt(noise.complete(units))
        self.noisy = longest(complete, std**2) > NOISY * self.tol
        information = self.complete + missing
        std_error = noise.errors(units)
        covariance = covariance + np.diag(_unknown(observed))
        return Average(used, estimate, covariance, std, error, std_error, drift, information, noise)


def longest(step, std):
    """The largest entry of a step, in standard errors of the free parameters."""
    free = std > 0
    return float(np.max(np.abs(step[free]) / std[free], initial=0.0))
