"""The EM loop: a Python generator that yields one `EMStep` per iteration.

Deterministic kernels climb by EM and then damped Newton until the step is below `tol` standard
errors. Stochastic kernels take the same steps on noisy moments, then average (see `stochastic`).
"""

import time
from typing import NamedTuple

import numpy as np

from sklmm.engine.collect import Trace, collect, perfect, theta_covariance
from sklmm.engine.e_step.base import Moments, Params, initial_params
from sklmm.engine.m_step import Step, em_step, leave_boundary, move, newton_step
from sklmm.result import natural

N_EM_STEPS = 2
MIN_GAIN = 1e-9


class EMStep(NamedTuple):
    """One iteration: the parameters it evaluated, what it saw, the step it takes, and a verdict.

    spread is the Monte Carlo covariance of (beta, theta) [p + m, p + m], None for exact moments.
    """

    params: Params
    moments: Moments
    step: Step
    info: dict
    done: bool
    estimate: Params
    spread: np.ndarray | None


def deterministic(problem, kernel, state, params, tol, seed):
    """Ascend to the maximum; a step that lowers the log-likelihood is taken back and damped."""
    best, damping, iteration = None, 0.0, 0
    while True:
        iteration += 1
        moments, state, info = kernel.step(params, state, seed)
        if best is not None and _worse(moments, best[1]):
            damping = max(4 * damping, 0.05)
            params, moments = best
        else:
            damping = damping / 4 if damping > 0.01 else 0.0
            best = params, moments
        step = newton_step(problem, params, moments, damping)
        done = step.decrement < tol
        raised = leave_boundary(problem, params, moments) if done else None
        done = done and raised is None
        if raised is not None:
            following = raised
        elif iteration <= N_EM_STEPS and not done and damping == 0:
            following = em_step(problem, params, moments)
        else:
            following = move(params, step.delta)
        spread = _probe_spread(problem, step, moments)
        yield EMStep(params, moments, step, info, done, following, spread)
        params = following


def _probe_spread(problem, step, moments):
    if moments.noise is None:
        return None
    # d theta = M^-1 dg, and beta follows theta.
    inverse = theta_covariance(problem, step.information)
    path = np.concatenate([moments.sensitivity, np.eye(len(inverse))]) @ inverse
    return path @ (np.cov(moments.noise.T) / len(moments.noise)) @ path.T


def _worse(new, old):
    if new.loglik is None:
        return False
    return not new.loglik > old.loglik - MIN_GAIN * (1 + abs(old.loglik))


def _record(problem, step, seconds):
    natural_values = natural(
        [problem.covariance(k, L) for k, L in enumerate(step.params.factors)],
        step.params.sigma * problem.y_scale,
    )
    return {
        "loss": step.moments.loss,
        "loglik": np.nan if step.moments.loglik is None else step.moments.loglik,
        "acceptance_rate": step.info.get("acceptance_rate", np.nan),
        "step": step.step.decrement,
        "seconds": seconds,
        "coef": problem.coef(step.moments.beta),
        "natural": natural_values,
    }


def fit(
    problem, kernel, *, max_iter, tol, seed, n_draws, start=None, on_step=None, path=deterministic
):
    """Run the loop and collect an `EMResult`.

    Parameters
    ----------
    problem : Problem
    kernel : Kernel
    max_iter : int
    tol : float
        In standard errors.
    seed : int
    n_draws : int
        Columns of the posterior root, at most.
    start : Params, optional
        In standard units; default `initial_params`.
    on_step : callable, optional
        Called with (iteration, record dict) after each iteration.
    path : generator function
        `deterministic`, `stochastic` or `adam`.

    Returns
    -------
    EMResult
    """
    if problem.perfect and problem.sigma is None:
        return perfect(problem)
    params = initial_params(problem) if start is None else start
    state = kernel.init(problem, seed)
    history, clock, last, trace = [], time.perf_counter(), None, Trace(problem)
    for last in path(problem, kernel, state, params, tol, seed):
        now = time.perf_counter()
        history.append(_record(problem, last, now - clock))
        trace.add(len(history), last.info.get("draw"))
        clock = now
        if on_step is not None:
            on_step(len(history), history[-1])
        if last.done or len(history) == max_iter:
            break
    posterior = kernel.posterior(last.estimate, state, seed, n_draws)
    return collect(problem, kernel, last, posterior, history, trace)
