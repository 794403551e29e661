"""The EM loop. An algorithm is a generator of `EMStep`s, one per iteration, and a posterior.

`Newton`, here, is for deterministic kernels of Gaussian models: EM and then damped Newton steps
until one is below `tol` standard errors. `stochastic.MonteCarlo`, `laplace.Laplace` and
`adam.AdamLoop` are the others.
"""

import time
from copy import copy
from typing import NamedTuple

import numpy as np

from sklmm.engine.algorithms.m_step import em_step, leave_boundary, move, newton_step
from sklmm.engine.algorithms.start_moments import moment_start
from sklmm.engine.linalg.newton import inverse_of_free
from sklmm.engine.posterior.assemble import Trace, collect
from sklmm.engine.posterior.identify import undetermined
from sklmm.engine.theta.space import Space, Theta

N_EM_STEPS = 2
#: Newton steps longer than this, in y's residual SD or log sigma, are EM's to take at first.
FAR = 0.3
MIN_GAIN = 1e-9
#: Steps to singular equations that are taken back, each four times more damped than the last.
MOST_RETREATS = 8


class EMStep(NamedTuple):
    """One iteration: the theta it evaluated, what it saw, its step in standard errors, a verdict.

    `estimate` is where a fit that stops here ends; covariance [m, m] that of theta and spread its
    Monte Carlo covariance, with beta's entries first or without them, or None.
    """

    theta: Theta
    loss: float
    loglik: float
    decrement: float
    info: dict
    done: bool
    estimate: Theta
    covariance: np.ndarray | None
    spread: np.ndarray | None


class Newton:
    """Ascend to the maximum; a step that lowers the log-likelihood is taken back and damped."""

    stochastic = False

    def __init__(self, problem, kernel, tol, seed, start=None):
        self.problem = problem
        self.kernel = kernel
        self.tol = tol
        self.seed = seed
        self.theta = start
        self.space = Space.gaussian(problem)

    def steps(self):
        """Yield `EMStep`s."""
        problem, space = self.problem, self.space
        self.state = self.kernel.init(problem, self.seed)
        theta = moment_start(self.state.cross) if self.theta is None else self.theta
        best, damping, iteration, retreats = None, 0.0, 0, 0
        while True:
            iteration += 1
            try:
                moments, self.state, info = self.kernel.step(theta, self.state, self.seed)
            except np.linalg.LinAlgError:
                # Singular to working precision: the step before was too long.
                retreats += 1
                if best is None or retreats > MOST_RETREATS:
                    raise
                moments, info = None, {}
            if best is not None and _worse(moments, best[1]):
                damping = max(4 * damping, 0.05)
                theta, moments = best
            else:
                damping = damping / 4 if damping > 0.01 else 0.0
                best = theta, moments
            step = newton_step(space, theta, moments, damping)
            done = step.decrement < self.tol
            raised = leave_boundary(problem, theta, moments) if done else None
            done = done and raised is None
            if raised is not None:
                following = raised
            elif iteration <= N_EM_STEPS and np.abs(step.delta).max() > FAR and damping == 0:
                following = em_step(problem, theta, moments)
            else:
                following = move(space, theta, step.delta)
            self.theta = following
            yield EMStep(
                theta=theta._replace(beta=moments.beta),
                loss=moments.loss,
                loglik=np.nan if moments.loglik is None else moments.loglik,
                decrement=step.decrement,
                info=info,
                done=done,
                estimate=following._replace(beta=moments.beta),
                covariance=inverse_of_free(space.free, step.information),
                spread=_probe_spread(space, step, moments),
            )
            theta = following

    def posterior(self, last, n_draws):
        """Posterior at the estimate."""
        return self.kernel.posterior(self.theta, self.state, self.seed, n_draws)


def _probe_spread(space, step, moments):
    if moments.noise is None:
        return None
    # d theta = M^-1 dg, and beta follows theta.
    inverse = inverse_of_free(space.free, step.information)
    path = np.concatenate([moments.sensitivity, np.eye(len(inverse))]) @ inverse
    return path @ (np.cov(moments.noise.T) / len(moments.noise)) @ path.T


def _worse(new, old):
    if new is None:
        return True
    if new.loglik is None:
        return False
    return not new.loglik > old.loglik - MIN_GAIN * (1 + abs(old.loglik))


def _record(problem, space, step, seconds, log_constant):
    return {
        "loss": step.loss - log_constant,
        "loglik": step.loglik + log_constant,
        "acceptance_rate": step.info.get("acceptance_rate", np.nan),
        "step": step.decrement,
        "seconds": seconds,
        "coef": problem.coef(step.theta.beta),
        "natural": space.natural(step.theta),
    }


def fit(
    algorithm, *, max_iter, n_draws, log_constant=0.0, watch=None, finish=lambda result: result
):
    """Run an algorithm and collect an `EMResult`.

    Parameters
    ----------
    algorithm : Newton, MonteCarlo, Laplace or AdamLoop
    max_iter : int
    n_draws : int
        Columns of the posterior root, at most.
    log_constant : float
        What the algorithm's log-likelihoods lack.
    watch : callable, optional
        Called as each iteration begins. What it returns is called as the iteration ends, with
        (iteration, record dict, iterations left or nan, a function that makes the `EMResult` of a
        fit that stops here), and may return True to stop the fit.
    finish : callable, optional
        From the algorithm's EMResult to the fit's.

    Returns
    -------
    EMResult
    """
    problem, steps = algorithm.space.problem, algorithm.steps()
    history, trace, untold = [], Trace(problem), undetermined(algorithm.space)

    def result():
        # Of a copy, so that a glance at the fit leaves it as it is.
        here, stopped = copy(algorithm), not last.done and len(history) < max_iter
        posterior = here.posterior(last, n_draws)
        if posterior.loglik is not None:
            posterior = posterior._replace(loglik=posterior.loglik + log_constant)
        return finish(collect(here, last, posterior, list(history), trace, untold, stopped))

    while True:
        end = watch() if watch is not None else None
        clock = time.perf_counter()
        last = next(steps)
        seconds = time.perf_counter() - clock
        history.append(_record(problem, algorithm.space, last, seconds, log_constant))
        trace.add(len(history), last.info.get("draw"))
        stop = last.done or len(history) == max_iter
        if end is not None:
            left = 0 if last.done else _iterations_left(algorithm, last, history)
            stop |= bool(end(len(history), history[-1], left, result))
        if stop:
            return result()


def _iterations_left(algorithm, last, history):
    """What the algorithm says, or else what the geometric fall of its last two steps does."""
    if "left" in last.info:
        return last.info["left"]
    before, now = (
        record["step"] for record in (history[-2 if len(history) > 1 else -1], history[-1])
    )
    return np.log(now / algorithm.tol) / np.log(before / now) if 0 < now < before else np.nan
