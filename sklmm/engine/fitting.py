"""One entry point for the estimators: problem, kernel and schedule from plain parameters."""

from sklmm.engine.e_step import make_kernel
from sklmm.engine.em import deterministic, fit
from sklmm.engine.problem import in_own_units, standardize

#: Posterior draws kept by Monte Carlo kernels; an exact root is kept up to this many unknowns.
N_DRAWS = 64
EXACT_ROOT = 512
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
    kernel = make_kernel(e_step, device)
    path, default_tol, n_draws = deterministic, DETERMINISTIC_TOL, N_DRAWS
    if kernel.stochastic:
        from sklmm.engine.stochastic import stochastic

        path, default_tol = stochastic, MONTE_CARLO_TOL
    elif problem.p + problem.n_effects <= EXACT_ROOT:
        n_draws = EXACT_ROOT
    if start is not None and [L.shape for L in start.factors] != [
        (b.r, b.r) for b in problem.blocks
    ]:
        start = None
    return fit(
        problem,
        kernel,
        max_iter=max_iter,
        tol=default_tol if tol is None else tol,
        seed=seed,
        n_draws=n_draws,
        start=start,
        on_step=on_step,
        path=path,
    )
