"""The EM loop's schedule for Monte Carlo kernels.

Burn-in takes EM steps and then Newton steps on the noisy gradient, until a step is within its own
noise. From then on the steps shrink and the estimate is an average (Polyak & Juditsky 1992): with
the averaged information M, each iteration gives a pseudo-value

    psi_t = theta_t + M^-1 g_t,    E[psi_t] = theta-hat to second order,

whose mean is the estimate and whose batch means give its Monte Carlo error. The fit stops when that
error, and the step still to go from the mean of theta_t, are below `tol` standard errors for every
parameter, coefficients included.
"""

import numpy as np

from sklmm.engine.collect import theta_covariance
from sklmm.engine.e_step.base import Params
from sklmm.engine.em import N_EM_STEPS, EMStep
from sklmm.engine.m_step import (
    Step,
    em_step,
    free_mask,
    gradient,
    move,
    newton_step,
    observed_information,
)

QUIET_STEPS = 5
MIN_WINDOW = 40
PLATEAU = 10
MAX_BURN_IN = 60
GAIN_POWER = 0.7
SMOOTHING = 0.3


def stochastic(problem, kernel, state, params, tol, seed):
    """Yield `EMStep`s; the last one's `estimate` is the average."""
    quiet, t, information = 0, 0, None
    while quiet < QUIET_STEPS and t < MAX_BURN_IN:
        t += 1
        moments, state, info = kernel.step(params, state, seed)
        information = _smoothed(information, observed_information(params, moments))
        step = newton_step(problem, params, moments, information=information)
        quiet = (
            quiet + 1
            if t > N_EM_STEPS and step.decrement < _own_noise(problem, step, moments)
            else 0
        )
        following = (
            em_step(problem, params, moments) if t <= N_EM_STEPS else move(params, step.delta)
        )
        yield EMStep(params, moments, step, info, False, following, None)
        params = following
    beta_std = kernel.beta_std(params, state)
    state.collecting = True
    window, done = [], False
    while not done:
        moments, state, info = kernel.step(params, state, seed)
        information = _smoothed(information, observed_information(params, moments))
        step = newton_step(problem, params, moments, information=information)
        window.append((params, moments))
        used = window[len(window) // 3 :]
        estimate, mean_information, error, drift = average(problem, used, beta_std)
        std = _standard_errors(problem, mean_information, beta_std)
        relative = max(_longest(error, std), _longest(drift, std))
        done = len(used) >= MIN_WINDOW and relative < tol
        beta = np.mean([m.beta for _, m in used], axis=0)
        verdict = Step(step.delta, mean_information, relative)
        averaged = moments._replace(beta=beta)
        spread = np.diag(error**2)
        yield EMStep(params, averaged, verdict, info, done, estimate, spread)
        gain = min(1.0, (PLATEAU / len(window)) ** GAIN_POWER)
        # What is left to go is noise: no step longer than a standard error.
        params = move(params, gain / max(step.decrement, 1.0) * step.delta)


def _smoothed(before, now):
    """Running mean: the curvature of a single E-step is noisy, most of all near a boundary."""
    return now if before is None else (1 - SMOOTHING) * before + SMOOTHING * now


def _own_noise(problem, step, moments):
    """Twice the length that Monte Carlo noise alone gives a Newton step."""
    free = free_mask(problem)
    cov = np.atleast_2d(np.cov(moments.noise[:, free].T)) / len(moments.noise)
    inverse = np.linalg.pinv(step.information[np.ix_(free, free)], hermitian=True)
    return 2 * np.sqrt(max(np.trace(inverse @ cov), 0.0)) + 0.1


def average(problem, window, beta_std):
    """Estimate, averaged information, Monte Carlo errors and remaining step of (beta, theta)."""
    information = np.mean([observed_information(p, m) for p, m in window], axis=0)
    inverse = theta_covariance(problem, information)
    first = window[0][0]
    theta = np.array([_flat(p) for p, _ in window])
    gradients = np.array([gradient(p, m) for p, m in window])
    pseudo = theta + gradients @ inverse
    beta = np.array([m.beta for _, m in window])
    error = np.maximum(
        batch_error(np.column_stack([beta, pseudo])),
        _independent_error(window, inverse, beta_std),
    )
    mean = pseudo.mean(axis=0)
    estimate = move(first, mean - _flat(first))
    drift = np.concatenate([np.zeros(beta.shape[1]), gradients.mean(axis=0) @ inverse])
    return estimate, information, error, drift


def _flat(params: Params):
    parts = []
    for L in params.factors:
        columns, rows = np.triu_indices(len(L))
        parts.append(L[rows, columns])
    return np.concatenate([*parts, [np.log(params.sigma)]])


def _independent_error(window, inverse, beta_std):
    """The error if all draws were independent: short windows' batch means may understate it."""
    n_draws = len(window) * len(window[0][1].noise)
    per_draw = np.mean([np.atleast_2d(np.cov(m.noise.T)) for _, m in window], axis=0)
    variance = np.diag(inverse @ per_draw @ inverse) / n_draws
    return np.concatenate([beta_std / np.sqrt(n_draws), np.sqrt(np.maximum(variance, 0.0))])


def batch_error(values):
    """Standard error of the mean of a correlated series [n, m], by batch means."""
    n = len(values)
    size = max(int(np.sqrt(n)), 1)
    count = n // size
    if count < 2:
        return np.full(values.shape[1], np.inf)
    means = values[n - size * count :].reshape(count, size, -1).mean(axis=1)
    return means.std(axis=0, ddof=1) / np.sqrt(count)


def _standard_errors(problem, information, beta_std):
    variance = np.diag(theta_covariance(problem, information))
    return np.concatenate([beta_std, np.sqrt(np.maximum(variance, 0.0))])


def _longest(step, std):
    """The largest entry of a step, in standard errors of the free parameters."""
    free = std > 0
    return float(np.max(np.abs(step[free]) / std[free], initial=0.0))
