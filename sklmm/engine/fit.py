"""The engine's entry: what the estimators call, and nothing else of the engine."""

from contextlib import nullcontext
from dataclasses import replace

import numpy as np

from sklmm._limits import EXACT_ROOT
from sklmm.engine.algorithms.kernels import make_kernel
from sklmm.engine.algorithms.loop import Newton, fit
from sklmm.engine.algorithms.m_step import RAISED_SD
from sklmm.engine.algorithms.profile import Profile
from sklmm.engine.algorithms.update import update
from sklmm.engine.pointwise import log_densities
from sklmm.engine.posterior.assemble import perfect
from sklmm.engine.posterior.satterthwaite import satterthwaite
from sklmm.engine.rows.collinearity import combination
from sklmm.engine.rows.standardize import in_own_units, stacked, standardize
from sklmm.engine.runtime.listening import telling
from sklmm.engine.runtime.requirements import require_tensorflow
from sklmm.engine.theta.space import CONSTRAINTS, Theta
from sklmm.steps import ConjugateGradient, Exact, Laplace

__all__ = ["combination", "graph", "log_densities", "profile", "run", "update"]

#: Posterior draws kept by Monte Carlo kernels, and where an exact root would be too large.
N_DRAWS = 64
FEWEST_DRAWS = 16
DETERMINISTIC_TOL = 1e-3
GLM_TOL = 1e-8
MONTE_CARLO_TOL = 0.03
PROFILE_TOL = 1e-6
MOST_ITERATIONS = 200
#: Draws kept for the predictions of nonlinear families: as many as fit, within bounds.
MOST_DRAWS = 512
KEPT_NUMBERS = 1 << 20


def run(
    design,
    response,
    *,
    fit_intercept,
    reml,
    e_step,
    m_step,
    max_iter,
    tol,
    seed,
    start,
    device,
    watch=None,
    dof=None,
):
    """Fit a Design to a Response: `EMResult`. See `MixedEffectsRegressor` for the parameters."""
    family, y, weights = response.family, response.y, response.weights
    gaussian = family.name == "gaussian"
    if m_step is not None:
        require_tensorflow(f"m_step={m_step!r}")
        from sklmm.engine.algorithms.tutorial import fit_by_adam

        problem = in_own_units(
            design, y, weights, fit_intercept=fit_intercept, reml=reml, sigma=family.sigma
        )
        with telling(getattr(watch, "compiling", None)):
            return fit_by_adam(problem, e_step, m_step, max_iter, seed, N_DRAWS, device, watch)
    problem = standardize(
        design,
        y,
        weights,
        fit_intercept=fit_intercept,
        reml=reml,
        sigma=family.sigma if gaussian else None,
        scale_y=family.scale_equivariant,
        sigma_unit=response.sigma_unit,
        eta_power=family.eta_power,
    )
    if gaussian and problem.n <= problem.rank and not problem.perfect:
        raise ValueError(
            f"sample_weight: the weights sum to {problem.n:.4g}, no more than the {problem.rank} "
            "fixed coefficients. A weight counts repetitions of its row: do not normalise the "
            "weights."
        )
    if family.scale_equivariant and problem.perfect and family.sigma is None:
        return perfect(problem, response.parameters)
    problem = stacked(problem, response.n_predictors)
    n_draws, scope = N_DRAWS, nullcontext()
    if isinstance(e_step, Exact | ConjugateGradient):
        if isinstance(e_step, Exact) and problem.p + problem.n_effects <= EXACT_ROOT:
            n_draws = EXACT_ROOT
        else:
            n_columns = 0 if problem.columns is None else problem.columns.k
            few = KEPT_NUMBERS // (2 * max(problem.n_effects + n_columns, 1))
            n_draws = int(np.clip(few, FEWEST_DRAWS, N_DRAWS))
        kernel = make_kernel(e_step)
        tol = DETERMINISTIC_TOL if tol is None else tol
        algorithm = Newton(problem, kernel, tol, seed, _warm(problem, start))
    else:
        if not gaussian:
            n_draws = int(np.clip(KEPT_NUMBERS // max(problem.n_effects, 1), N_DRAWS, MOST_DRAWS))
        algorithm = _for_any_family(problem, response, e_step, tol, seed, start, n_draws)
        scope = _on(device)

    def finish(result):
        n_obs = result.n_obs if response.n_obs is None else response.n_obs
        degrees = None
        if dof == "satterthwaite":
            degrees = satterthwaite(algorithm.space, kernel, algorithm.theta, algorithm.state, seed)
        return replace(result, n_obs=n_obs, dof=degrees)

    with scope, telling(getattr(watch, "compiling", None)):
        try:
            return fit(
                algorithm,
                max_iter=max_iter,
                n_draws=n_draws,
                log_constant=response.log_constant,
                watch=watch,
                finish=finish,
            )
        except np.linalg.LinAlgError as error:
            raise ValueError(
                "random_effects: the model's equations are singular to working precision. The "
                "terms explain y to the last digit (are there as many effects as rows?), or "
                "sample_weight, a pinned sd or the family's sigma is extreme: leave out a term, or "
                "pin the residual SD near y's, family=Gaussian(sigma=...)."
            ) from error


def profile(design, response, *, fit_intercept, start):
    """`Profile` of a Gaussian model fitted by ML, from the EMResult of any fit of it."""
    problem = standardize(
        design,
        response.y,
        response.weights,
        fit_intercept=fit_intercept,
        reml=False,
        sigma=response.family.sigma,
        sigma_unit=response.sigma_unit,
    )
    algorithm = Newton(problem, make_kernel(Exact()), PROFILE_TOL, 0, _warm(problem, start))
    result = fit(algorithm, max_iter=MOST_ITERATIONS, n_draws=FEWEST_DRAWS)
    return Profile(algorithm, np.sqrt(np.maximum(np.diag(result.natural_cov), 0.0)))


def graph(labels, result):
    """Each random variable of a fitted model with those it depends on, by TFP."""
    require_tensorflow("model_graph")
    from sklmm.engine.runtime import tfp_graph

    return tfp_graph.graph(labels, result)


def _on(device):
    if device is None:
        return nullcontext()
    require_tensorflow(f"device={device!r}")
    from sklmm.engine.runtime.tensorflow import check_device, tf

    return tf.device(check_device(device))


def _check_tensorflow(latent, family, e_step):
    """ImportError where a fit needs TensorFlow and there is none."""
    fit = f"family={family.name!r} with e_step={e_step!r}"
    if latent.like.distribution is not None:
        require_tensorflow(f"family={family!r}")
    elif not isinstance(e_step, Laplace):
        other = "'auto'" if family.name == "gaussian" else "'laplace'"
        known = latent.like.n_predictors == 1
        require_tensorflow(fit, f", or use e_step={other}, which does not" if known else "")
    elif latent.rows is None:
        require_tensorflow(f"{fit} and {latent.n_rows} rows")


_LIKELIHOODS = {}


def _for_any_family(problem, response, e_step, tol, seed, start, n_draws):
    from sklmm.engine.algorithms.laplace import Laplace as LaplaceAlgorithm
    from sklmm.engine.latent.mode import Latent
    from sklmm.engine.likelihood import Likelihood

    parameters = {
        name: kind / problem.y_scale if name == "sigma" and not isinstance(kind, str) else kind
        for name, kind in response.parameters.items()
    }
    like = Likelihood.of(response.family, response.n_classes)
    like = replace(like, pinned=tuple((k, parameters[k]) for k, _ in like.pinned))
    # Compiled steps know a likelihood by identity: equal ones must be one.
    like = _LIKELIHOODS.setdefault(like, like)
    laplace = isinstance(e_step, Laplace)
    observed = laplace and e_step.curvature == "observed"
    latent = Latent(problem, like, parameters, direct=laplace, observed=observed)
    _check_tensorflow(latent, response.family, e_step)
    warm = _warm_theta(latent, start)
    if laplace:
        tol = (DETERMINISTIC_TOL if problem.blocks else GLM_TOL) if tol is None else tol
        return LaplaceAlgorithm(latent, tol, seed, warm, e_step.n_probes)
    from sklmm.engine.algorithms.mcem import MonteCarlo

    tol = MONTE_CARLO_TOL if tol is None else tol
    return MonteCarlo(latent, make_kernel(e_step), tol, seed, warm, n_draws)


def _warm(problem, start):
    """Theta from a previous fit's result, off the boundary, or None; pins stay pinned."""
    if start is None or not start.sigma > 0 or len(start.covariances) != len(problem.blocks):
        return None
    sigma = start.sigma / problem.sigma_scale if problem.sigma is None else problem.sigma
    raw = np.array([np.log(sigma)] if problem.sigma is None else [])
    return Theta(np.zeros(0), _warm_factors(problem, start, sigma), raw)


def _warm_theta(latent, start):
    """(Theta, mode) from a previous fit of the same shape, or None."""
    problem, space = latent.full, latent.space
    if start is None or len(start.covariances) != len(problem.blocks):
        return None
    if list(start.family) != list(space.parameters) or len(start.coef) != len(problem.basis):
        return None
    family = {**start.family}
    if "sigma" in family:
        family["sigma"] /= problem.y_scale
    if not all(np.isfinite(v) for v in family.values()) or family.get("sigma") == 0:
        return None
    raw = [CONSTRAINTS[space.parameters[n]][1](family[n]) for n in space.estimated]
    coef = start.coef.copy()
    if problem.y_centre:
        coef[0] -= problem.y_centre
    beta = np.linalg.lstsq(problem.basis, coef / problem.y_scale, rcond=None)[0]
    factors = _warm_factors(problem, start, family.get("sigma", 1.0))
    x = np.zeros(latent.layout.size)
    x[: latent.problem.p] = beta[: latent.problem.p]
    return Theta(beta[: space.p], factors, np.array(raw, float)), x


def _warm_factors(problem, start, sigma):
    out = []
    for k, (block, covariance) in enumerate(zip(problem.blocks, start.covariances, strict=True)):
        if block.sd is not None or covariance.shape != (block.r, block.r):
            out.append(np.eye(block.r) * (block.sd or 1.0))
            continue
        back = np.linalg.inv(problem.y_scale * problem.z_bases[k])
        values, vectors = np.linalg.eigh(back @ covariance @ back.T)
        values = np.maximum(values, (RAISED_SD * sigma) ** 2)
        out.append(np.linalg.cholesky((vectors * values) @ vectors.T))
    return tuple(out)
