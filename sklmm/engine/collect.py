"""From the loop's last step to an `EMResult`: the table's units, standard errors, the verdict."""

import numpy as np

from sklmm.engine.m_step import MIN_SIGMA, free_mask, is_singular
from sklmm.result import EMResult, Status, natural

MAX_TRACE = 512
MAX_TRACE_NUMBERS = 4_000_000


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


class Trace:
    """One chain's effects by iteration, thinned so that it stays small."""

    def __init__(self, problem):
        self.problem = problem
        self.most = min(MAX_TRACE, max(MAX_TRACE_NUMBERS // max(problem.n_effects, 1), 1))
        self.every, self.iterations, self.draws = 1, [], []

    def add(self, iteration, draw):
        """Keep a draw in standard units, if it is one to keep."""
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


def perfect(problem):
    """y is in the span of the fixed part: coefficients by least squares, every variance 0."""
    beta = problem.X.T @ (problem.weights * problem.y) / problem.n
    names = n_natural(problem)
    n_columns = problem.basis.shape[0]
    zeros = [np.zeros((b.n_levels, b.r)) for b in problem.blocks]
    return EMResult(
        coef=problem.coef(beta),
        coef_cov=np.zeros((n_columns, n_columns)),
        covariances=tuple(
            problem.covariance(k, np.eye(b.r) * (b.sd or 0.0)) for k, b in enumerate(problem.blocks)
        ),
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
        trace=None,
    )


def collect(problem, kernel, last, posterior, history, trace):
    """EMResult in the table's units."""
    params = last.estimate
    covariances = tuple(problem.covariance(k, L) for k, L in enumerate(params.factors))
    p = problem.p
    covariance = theta_covariance(problem, last.step.information)
    variance_se = variance_error(problem, params, covariance)
    variance_se[_unidentified(problem, params, last.step.information)] = np.nan
    # A noisy kernel stopped before it could estimate its error does not know it.
    mc_error = np.full(len(problem.basis) + len(variance_se), np.nan if kernel.stochastic else 0.0)
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
    elif params.sigma <= MIN_SIGMA or any(is_singular(L, params.sigma) for L in params.factors):
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
        trace=trace.collect(),
    )


def _unidentified(problem, params, information):
    """Entries of `natural` without a standard error: singular blocks; all after Adam."""
    if not information.any():
        return np.ones(n_natural(problem), bool)
    mask = [
        np.full(b.r * (b.r + 1) // 2, b.sd is None and is_singular(L, params.sigma))
        for b, L in zip(problem.blocks, params.factors, strict=True)
    ]
    return np.concatenate([*mask, [False]])


def n_natural(problem):
    """Number of SDs, correlations and sigma."""
    return sum(b.r * (b.r + 1) // 2 for b in problem.blocks) + 1
