"""The loop of every algorithm: its iterations, what is recorded of them, and the result.

An algorithm has a `space` of theta, a `tol`, whether it is `stochastic`, `steps()`, a generator of
`Iteration`s, and `posterior(last)`, the `Posterior` of a fit that ends at an iteration,
which leaves the algorithm as it is. They are `reml.Reml`, `laplace.Laplace`, `mcem.MonteCarlo` and
`tutorial.AdamLoop`.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from sklmm.engine.posterior.assemble import Trace, assemble, undetermined
from sklmm.engine.theta.space import Theta


class Iteration(NamedTuple):
    """One iteration: the theta it looked at, what it saw there, its step, and a verdict.

    loss is -log p(y, b); loglik is nan where it is not known; decrement, the step's length in
    standard errors. `estimate` is where a fit that stops here ends; covariance [p + m, p + m] is
    that of (beta, theta), 0 for a beta that is no part of theta, and spread [p + m, p + m] its
    Monte Carlo covariance; None where there is none. `errors` makes the two of an iteration that
    comes without them, as only the last one's are asked for. draw, a tuple of [n_levels, r], is one
    chain's, and left the number of iterations still to go: nan where it is not known, None where
    the steps tell. flat [p + m, k] are directions of (beta, theta) along which the information is
    0, None where that was not looked at.
    """

    theta: Theta
    loss: float
    loglik: float
    decrement: float
    done: bool
    estimate: Theta
    covariance: np.ndarray | None = None
    spread: np.ndarray | None = None
    acceptance_rate: float = np.nan
    draw: tuple | None = None
    left: float | None = None
    errors: Callable | None = None
    flat: np.ndarray | None = None

    def whole(self):
        """The same, with what `errors` makes."""
        if self.errors is None:
            return self
        covariance, spread = self.errors()
        return self._replace(covariance=covariance, spread=spread, errors=None)


def joint_loss(problem, factors, loss):
    """-log p(y, b) in the table's units, from that of y and spherical effects in standard ones.

    But for the effects' constant, which -0.5 u^T u lacks.
    """
    for block, factor, A in zip(problem.blocks, factors, problem.z_bases, strict=True):
        own = np.abs(factor.diagonal() * A.diagonal()) * problem.y_scale
        own = np.log(np.maximum(own, 1e-150) * np.sqrt(2 * np.pi))
        loss += block.n_levels * own.sum()
        if block.relation is not None:
            loss -= 0.5 * block.r * block.relation.log_det
    return float(loss + problem.n * problem.log_unit)


def _record(problem, space, step, seconds, log_constant):
    return {
        "loss": step.loss - log_constant,
        "loglik": step.loglik + log_constant,
        "acceptance_rate": step.acceptance_rate,
        "step": step.decrement,
        "seconds": seconds,
        "coef": problem.coef(step.theta.beta),
        "natural": space.natural(step.theta),
    }


def fit(algorithm, *, max_iter, log_constant=0.0, n_obs=None, watch=None):
    """Run an algorithm and assemble an `EMResult`.

    Parameters
    ----------
    algorithm : Reml, MonteCarlo, Laplace or AdamLoop
    max_iter : int
    log_constant : float
        What the algorithm's log-likelihoods lack.
    n_obs : float, optional
        Number of observations, where it is not the sum of the weights.
    watch : callable, optional
        Called as each iteration begins. What it returns is called as the iteration ends, with
        (iteration, record dict, iterations left or nan, a function that makes the `EMResult` of a
        fit that stops here), and may return True to stop the fit.

    Returns
    -------
    EMResult
    """
    problem, steps = algorithm.space.problem, algorithm.steps()
    history, trace, untold = [], Trace(problem), undetermined(algorithm.space)

    def result():
        stopped = not last.done and len(history) < max_iter
        ended = last.whole()
        posterior = algorithm.posterior(ended)
        found = assemble(
            algorithm,
            ended,
            posterior,
            list(history),
            trace,
            _untold(algorithm.space, ended.estimate.factors, untold),
            stopped=stopped,
            log_constant=log_constant,
        )
        return found if n_obs is None else replace(found, n_obs=n_obs)

    while True:
        end = watch() if watch is not None else None
        clock = time.perf_counter()
        last = next(steps)
        seconds = time.perf_counter() - clock
        history.append(_record(problem, algorithm.space, last, seconds, log_constant))
        trace.add(len(history), last.draw)
        stop = last.done or len(history) == max_iter
        if end is not None:
            left = 0 if last.done else _iterations_left(algorithm, last, history)
            stop |= bool(end(len(history), history[-1], left, result))
        if stop:
            return result()


def _untold(space, factors, before):
    """`undetermined` by factors that may be at an end; `before` is that of none which is."""
    pairs = zip(space.covariances, factors, strict=True)
    return before if all(c.at(L) is c for c, L in pairs) else undetermined(space, factors)


def _iterations_left(algorithm, last, history):
    """What the algorithm says, or else what the geometric fall of its last two steps does."""
    if last.left is not None:
        return last.left
    before, now = (
        record["step"] for record in (history[-2 if len(history) > 1 else -1], history[-1])
    )
    return np.log(now / algorithm.tol) / np.log(before / now) if 0 < now < before else np.nan
