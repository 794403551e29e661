"""The EM loop: a Python generator that yields one `EMStep` per iteration.

Deterministic kernels climb by EM and then damped Newton until the step is below `tol` standard
errors. Stochastic kernels take the same steps on noisy moments, then average (see `stochastic`).
"""

import time
from typing import NamedTuple

import numpy as np

from sklmm.engine.e_step.base import Moments, Params, initial_params
from sklmm.engine.m_step import Step, em_step, free_mask, is_singular, move, newton_step
from sklmm.result import EMResult, Status, natural

N_EM_STEPS = 2
MAX_TRACE = 512
MAX_TRACE_NUMBERS = 4_000_000
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
        following = move(params, step.delta)
        if iteration <= N_EM_STEPS and not done and damping == 0:
            following = em_step(problem, params, moments)
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


def theta_covariance(problem, information):
    """Inverse information [m, m] of the free entries of theta, 0 for the pinned ones."""
    free = free_mask(problem)
    inverse = np.zeros_like(information)
    if free.any():
        part = information[np.ix_(free, free)]
        inverse[np.ix_(free, free)] = np.linalg.pinv(
            (part + part.T) / 2, rcond=1e-10, hermitian=True
        )
    return inverse


def variance_error(problem, params, cov):
    """Standard errors of `natural`'s entries from the covariance [m, m] of theta (delta method)."""
    m = len(cov)

    def at(delta):
        factors, first = [], 0
        for L in params.factors:
            rows, columns = np.triu_indices(len(L))[::-1]
            new = L.copy()
            new[rows, columns] += delta[first : first + len(rows)]
            first += len(rows)
            factors.append(new)
        return natural(
            [problem.covariance(k, L) for k, L in enumerate(factors)],
            params.sigma * np.exp(delta[-1]) * problem.y_scale,
        )

    h = 1e-6
    jacobian = np.column_stack([(at(h * e) - at(-h * e)) / (2 * h) for e in np.eye(m)])
    return np.sqrt(np.maximum(np.einsum("ia,ab,ib->i", jacobian, cov, jacobian), 0.0))


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
        return _perfect(problem)
    params = initial_params(problem) if start is None else start
    state = kernel.init(problem)
    history, clock, last, trace = [], time.perf_counter(), None, _Trace(problem)
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
    return _collect(problem, kernel, last, posterior, history, trace)


def _perfect(problem):
    """y is in the span of the fixed part: coefficients by least squares, every variance 0."""
    beta = problem.X.T @ (problem.weights * problem.y) / problem.n
    names = sum(b.r * (b.r + 1) // 2 for b in problem.blocks) + 1
    n_columns = problem.basis.shape[0]
    zeros = [np.zeros((b.n_levels, b.r)) for b in problem.blocks]
    return EMResult(
        coef=problem.coef(beta),
        coef_cov=np.zeros((n_columns, n_columns)),
        covariances=tuple(np.zeros((b.r, b.r)) for b in problem.blocks),
        sigma=0.0,
        effects=tuple(zeros),
        effects_std=tuple(zeros),
        coef_root=np.zeros((n_columns, 1)),
        effects_root=tuple(z[:, :, None].astype(np.float32) for z in zeros),
        variance_se=np.zeros(names),
        mc_error=np.zeros(n_columns + names),
        loglik=np.inf,
        n_obs=problem.n,
        rank=problem.p,
        n_variance_parameters=names,
        reml=problem.reml,
        history=[],
        status=Status.PERFECT,
        moving=None,
        theta=None,
        trace=None,
    )


class _Trace:
    """One chain's effects by iteration, thinned so that it stays small."""

    def __init__(self, problem):
        self.problem = problem
        self.most = min(MAX_TRACE, max(MAX_TRACE_NUMBERS // max(problem.n_effects, 1), 1))
        self.every, self.iterations, self.draws = 1, [], []

    def add(self, iteration, draw):
        if draw is None or iteration % self.every:
            return
        self.iterations.append(iteration)
        self.draws.append(
            tuple(self.problem.effects(k, b).astype(np.float32) for k, b in enumerate(draw))
        )
        if len(self.draws) > self.most:
            self.every *= 2
            keep = [i % self.every == 0 for i in self.iterations]
            self.iterations = [i for i, k in zip(self.iterations, keep, strict=True) if k]
            self.draws = [d for d, k in zip(self.draws, keep, strict=True) if k]

    def collect(self):
        """(iterations [t], one array [t, n_levels, r] a block), or None without draws."""
        if not self.draws:
            return None
        return np.array(self.iterations), tuple(
            np.stack(parts) for parts in zip(*self.draws, strict=True)
        )


def _collect(problem, kernel, last, posterior, history, trace):
    params = last.estimate
    covariances = tuple(problem.covariance(k, L) for k, L in enumerate(params.factors))
    p = problem.p
    covariance = theta_covariance(problem, last.step.information)
    variance_se = variance_error(problem, params, covariance)
    mc_error = np.zeros(len(problem.basis) + len(variance_se))
    if last.spread is not None:
        coef_spread = problem.basis @ last.spread[:p, :p] @ problem.basis.T
        mc_error[: len(problem.basis)] = np.sqrt(np.diag(coef_spread)) * problem.y_scale
        mc_error[len(problem.basis) :] = variance_error(problem, params, last.spread[p:, p:])
    moving = None
    if not last.done:
        status = Status.MAX_ITER
        before = history[-2 if len(history) > 1 else -1]["natural"]
        change = np.abs(history[-1]["natural"] - before)
        if last.spread is not None and kernel.stochastic:
            change = mc_error[len(problem.basis) :]
        moving = int(np.argmax(change / np.where(variance_se > 0, variance_se, np.inf)))
    elif is_singular(params):
        status = Status.SINGULAR
    else:
        status = Status.CONVERGED if last.spread is None else Status.CONVERGED_MC
    root = posterior.root
    coef_root = problem.coef_deviation(root[:p].T).T
    roots, first = [], p
    for k, b in enumerate(problem.blocks):
        part = root[first : first + b.n_levels * b.r].reshape(b.n_levels, b.r, -1)
        roots.append(problem.effects(k, part).astype(np.float32))
        first += b.n_levels * b.r
    beta_cov = problem.basis @ posterior.beta_cov @ problem.basis.T * problem.y_scale**2
    return EMResult(
        coef=problem.coef(posterior.beta),
        coef_cov=beta_cov,
        covariances=covariances,
        sigma=params.sigma * problem.y_scale,
        effects=tuple(problem.effects(k, e) for k, e in enumerate(posterior.effects)),
        effects_std=tuple(problem.effects(k, e) for k, e in enumerate(posterior.effects_std)),
        coef_root=coef_root,
        effects_root=tuple(roots),
        variance_se=variance_se,
        mc_error=mc_error,
        loglik=posterior.loglik,
        n_obs=problem.n,
        rank=p,
        n_variance_parameters=int(free_mask(problem).sum()),
        reml=problem.reml,
        history=history,
        status=status,
        moving=moving,
        theta=params,
        trace=trace.collect(),
    )
