"""One entry point for the estimators: problem, kernel and schedule from plain parameters."""

import numpy as np

from sklmm.engine.e_step import make_kernel
from sklmm.engine.e_step.base import Params, initial_params
from sklmm.engine.em import deterministic, fit
from sklmm.engine.m_step import RAISED_SD
from sklmm.engine.problem import in_own_units, standardize

#: Posterior draws kept by Monte Carlo kernels; an exact root is kept up to this many unknowns.
N_DRAWS = 64
EXACT_ROOT = 2048
DETERMINISTIC_TOL = 1e-3
MONTE_CARLO_TOL = 0.07


def run(
    design,
    y,
    weights,
    *,
    fit_intercept,
    reml,
    sigma,
    e_step,
    m_step,
    max_iter,
    tol,
    seed,
    start,
    device,
    on_step,
):
    """Fit a Design: `EMResult`. See `MixedEffectsRegressor` for the parameters."""
    if m_step is not None:
        from sklmm.engine.adam import fit_by_adam

        problem = in_own_units(design, y, weights, reml=reml, sigma=sigma)
        return fit_by_adam(problem, e_step, m_step, max_iter, seed, N_DRAWS, device, on_step)
    problem = standardize(design, y, weights, fit_intercept=fit_intercept, reml=reml, sigma=sigma)
    if problem.n <= problem.p and not problem.perfect:
        raise ValueError(
            f"sample_weight: the weights sum to {problem.n:.4g}, no more than the {problem.p} "
            "fixed coefficients. A weight counts repetitions of its row: do not normalise the "
            "weights."
        )
    kernel = make_kernel(e_step, device)
    path, default_tol, n_draws = deterministic, DETERMINISTIC_TOL, N_DRAWS
    if kernel.stochastic:
        from sklmm.engine.stochastic import stochastic

        path, default_tol = stochastic, MONTE_CARLO_TOL
    elif problem.p + problem.n_effects <= EXACT_ROOT:
        n_draws = EXACT_ROOT
    return fit(
        problem,
        kernel,
        max_iter=max_iter,
        tol=default_tol if tol is None else tol,
        seed=seed,
        n_draws=n_draws,
        start=_warm(problem, start),
        on_step=on_step,
        path=path,
    )


def _warm(problem, start):
    """Params from a previous fit's (covariances, sigma), off the boundary; pins stay pinned."""
    params = initial_params(problem)
    if start is None or start[1] == 0 or len(start[0]) != len(problem.blocks):
        return params
    sigma = start[1] / problem.y_scale if problem.sigma is None else problem.sigma
    factors = []
    for k, (block, covariance) in enumerate(zip(problem.blocks, start[0], strict=True)):
        if block.sd is not None or covariance.shape != (block.r, block.r):
            factors.append(params.factors[k])
            continue
        scale = problem.z_scales[k] / problem.y_scale
        values, vectors = np.linalg.eigh(covariance * np.outer(scale, scale))
        values = np.maximum(values, (RAISED_SD * sigma) ** 2)
        factors.append(np.linalg.cholesky((vectors * values) @ vectors.T))
    return Params(tuple(factors), sigma)
