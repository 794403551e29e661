"""The engine's entry: what the estimators call, and nothing else of the engine.

An algorithm is imported when it is asked for, as are TensorFlow and what it compiles.
"""

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np
from sklearn.base import clone

from sklmm._threads import keep_freed_memory
from sklmm.engine.algorithms.loop import fit
from sklmm.engine.algorithms.reml import Reml
from sklmm.engine.algorithms.start import warm_by_row, warm_gaussian, warm_theta
from sklmm.engine.latent.mode import Latent
from sklmm.engine.likelihood.likelihood import Likelihood
from sklmm.engine.likelihood.pointwise import log_densities
from sklmm.engine.limits import (
    DRAWS,
    EXACT_ROOT,
    blas,
    factorisable,
    gaussian_draws,
    integrable,
    nonlinear_draws,
)
from sklmm.engine.posterior.assemble import perfect
from sklmm.engine.rows.collinearity import combination
from sklmm.engine.rows.cross_products import LocalCrossProducts
from sklmm.engine.rows.local import LocalRows
from sklmm.engine.rows.nested import Nesting
from sklmm.engine.rows.standardize import stacked, standardize
from sklmm.engine.runtime.compilation import on_cpu, placed, require_tensorflow, telling
from sklmm.engine.theta.space import MIN_RAW
from sklmm.priors import Priors
from sklmm.result import EMResult, at_infinity
from sklmm.steps import (
    HMC,
    NUTS,
    Adam,
    ConjugateGradient,
    EStep,
    Exact,
    Laplace,
    MStep,
    Quadrature,
)

__all__ = [
    "Settings",
    "combination",
    "graph",
    "has_profile",
    "has_quadrature",
    "log_densities",
    "on_cpu",
    "profile",
    "resolve_e_step",
    "resolve_m_step",
    "run",
    "update",
]

DETERMINISTIC_TOL = 1e-3
GLM_TOL = 1e-8
MONTE_CARLO_TOL = 0.03
PROFILE_TOL = 1e-6
MOST_ITERATIONS = 200

#: Steps by the names of the parameter e_step; those of closed-form families.
E_STEPS = {
    "exact": Exact,
    "cg": ConjugateGradient,
    "laplace": Laplace,
    "quadrature": Quadrature,
    "hmc": partial(HMC, backend="tensorflow"),
    "nuts": NUTS,
}
GAUSSIAN_ONLY = (Exact, ConjugateGradient)


class Settings(NamedTuple):
    """How a model is fitted: see `MixedEffectsRegressor`.

    `e_step` and `m_step` are resolved, m_step None but for Adam; tol is None where the step has
    one; `start` is the EMResult to start from, or None. `rows` makes the backend that the rows
    are kept by, `engine.rows.protocol.Rows`, of standardised arrays; None is this process.
    `priors` are those of the design's columns and blocks, or None.
    """

    fit_intercept: bool
    reml: bool
    e_step: EStep
    m_step: MStep | None = None
    max_iter: int = MOST_ITERATIONS
    tol: float | None = None
    seed: int = 0
    start: EMResult | None = None
    device: str | None = None
    dof: str | None = None
    rows: Callable | None = None
    priors: Priors | None = None


def has_quadrature(design, family, n_predictors=1):
    """Whether "auto" takes quadrature: for nested factors, with points that are affordable.

    A `CustomFamily` has kinks that no rule integrates well.
    """
    if family.is_custom or family.closed_form or any(design.coupled):
        return False
    times = 1 if design.predicted else n_predictors
    terms = [(b.refs, b.n_levels, times * b.r) for b in design.every_block]
    if (nesting := Nesting.of(terms)) is None:
        return False
    largest = nesting.largest * n_predictors
    return integrable(design.n_rows * n_predictors, largest, nesting.effects)


def resolve_e_step(
    e_step,
    family,
    sizes,
    sparse=False,
    device=None,
    quadrature=False,
    m_step="auto",
    coupled=(),
    related=False,
):
    """An `EStep` from the estimator's parameter: a name, an instance, or "auto" by family and size.

    `sizes` are the blocks' numbers of effects, and `coupled` says which have levels that depend on
    each other given all other terms, as relatives do (`related`), and levels to several of which a
    row belongs. A model with a `sparse` fixed part is fitted
    by conjugate gradients. `quadrature` says that it may be taken: see `has_quadrature`.

    Without random effects the Laplace approximation is the maximum likelihood of any family, and
    least squares that of the Gaussian, whatever the E-step.
    """
    gaussian, n_effects = family.closed_form or family.quadratic, sum(sizes)
    if isinstance(e_step, str) and e_step in E_STEPS:
        step = E_STEPS[e_step]()
    elif isinstance(e_step, EStep):
        e_step._validate_params()
        step = e_step
    elif e_step == "auto":
        dense = not sparse and factorisable(sizes, coupled=coupled)
        if gaussian:
            step = Exact() if dense else ConjugateGradient()
        elif related or (any(coupled) and family.is_custom):
            step = Laplace()
        else:
            step = Quadrature() if quadrature else HMC()
    else:
        raise ValueError(
            f"e_step={e_step!r} is not available: use 'auto', {', '.join(map(repr, E_STEPS))}, or "
            "a configured instance such as HMC(n_chains=8)."
        )
    if isinstance(step, Quadrature) and step.n_points == 1:
        # One point knows nothing of the posterior's spread, and the score needs it.
        step = Laplace()
    step = _with_backend(step, family, device, m_step)
    least_squares = isinstance(step, GAUSSIAN_ONLY)
    _check_coupled(step, e_step, family, coupled, related)
    if not least_squares and family.weights == "precision":
        raise ValueError(
            f"e_step={e_step!r} takes weights as repetitions of rows: use 'auto', 'exact' or 'cg' "
            "with Gaussian(weights='precision')."
        )
    if least_squares and not gaussian:
        raise ValueError(
            f"e_step={step!r} is for family='gaussian' or 'lognormal', not {family.name!r}: use "
            "'auto', 'quadrature', 'hmc', 'nuts' or 'laplace'."
        )
    if isinstance(step, Laplace) and family.classes == "unordered" and n_effects:
        raise ValueError(
            "e_step='laplace' is for one linear predictor, and family='categorical' has one for "
            "each class but the first: use 'auto', 'quadrature', 'hmc' or 'nuts'."
        )
    if sparse and isinstance(step, Exact):
        raise ValueError(
            "e_step='exact' factorises the equations densely, and X has too many sparse columns "
            "for that: use 'auto' or 'cg'."
        )
    if n_effects or sparse:
        return step
    return Exact() if gaussian else Laplace()


def _check_coupled(step, e_step, family, coupled, related):
    """ValueError where a step takes levels as independent given all other terms, and they are not.

    As `resolve_e_step` has the arguments; NumPy's chains only want them independent a priori.
    """
    if related and family.classes == "unordered":
        raise ValueError(
            f"family={family.name!r} has no E-step that takes levels with a known relationship: "
            "fit each class against the others, with two classes."
        )
    chains = isinstance(step, HMC) and step.backend == "numpy" and not related
    if not any(coupled) or chains or isinstance(step, (*GAUSSIAN_ONLY, Laplace)):
        return
    what = "those with a known relationship" if related else "those of a row's memberships"
    other = "'auto', 'exact' or 'cg'" if family.closed_form else "'auto' or 'laplace'"
    if not related and not family.closed_form:
        other = "'auto', 'laplace' or HMC(backend='numpy')"
        other = "HMC(backend='numpy')" if family.classes == "unordered" else other
    raise ValueError(
        f"e_step={e_step!r} takes the levels of a term as independent given all other terms, which "
        f"{what} are not: use {other}."
    )


def _with_backend(step, family, device, m_step):
    """The step with a backend, if it leaves that open."""
    if not isinstance(step, HMC):
        return step
    if step.backend == "numpy" and family.is_custom:
        raise ValueError(
            f"e_step={step!r} is for a density in NumPy, which family={family!r} has not: use "
            "backend='auto' or 'tensorflow'."
        )
    if step.backend != "auto":
        return step
    on_gpu = device is not None and "GPU" in device.upper()
    compiled = family.is_custom or m_step != "auto" or on_gpu
    return clone(step).set_params(backend="tensorflow" if compiled else "numpy")


def resolve_m_step(m_step, e_step, family):
    """An `Adam`, or None for the closed-form and Newton M-step."""
    if m_step == "auto":
        if isinstance(e_step, HMC) and e_step.n_chains == 1:
            raise ValueError(
                "HMC: n_chains=1 leaves the Monte Carlo error unknown; use at least 2 chains, or "
                "m_step='adam'."
            )
        return None
    if m_step == "adam":
        m_step = Adam()
    if isinstance(m_step, Adam):
        m_step._validate_params()
        if family.quadratic:
            raise ValueError(
                f"m_step={m_step!r} trains one residual SD, and not one that depends on columns: "
                "use m_step='auto', or dispersion=None."
            )
        if not family.closed_form:
            raise ValueError(
                f"m_step={m_step!r} is for family='gaussian' or 'lognormal', not {family.name!r}: "
                "use 'auto'."
            )
        if not isinstance(e_step, HMC):
            raise ValueError(
                f"m_step={m_step!r} takes a step on posterior draws: it needs e_step='hmc', not "
                f"{e_step!r}."
            )
        if e_step.backend == "numpy":
            raise ValueError(
                f"m_step={m_step!r} takes its draws from chains in TensorFlow, not from "
                f"{e_step!r}: use backend='auto' or 'tensorflow'."
            )
        return m_step
    raise ValueError(f"m_step={m_step!r} is not available: use 'auto', 'adam' or Adam(...).")


def run(design, response, settings, watch=None):
    """Fit a Design to a Response: `EMResult`; `watch` as in `algorithms.loop.fit`."""
    keep_freed_memory()
    with blas(design.sizes, design.X.shape[1], design.coupled):
        return run_problem(_problem(design, response, settings), response, settings, watch)


def run_problem(problem, response, settings, watch):
    """`run` of a `Problem` in standard units."""
    step = settings.m_step or settings.e_step
    if (
        problem.perfect
        and response.family.scale_equivariant
        and (response.models or "sigma" not in response.parameters)
    ):
        raise ValueError(
            "dispersion: the fixed part alone reproduces y, which leaves no residual SD to model: "
            "use dispersion=None."
        )
    if problem.perfect and response.parameters["sigma"] == "positive":
        return perfect(problem, response.parameters)
    with _tensorflow(settings.device, step, response.family, watch):
        try:
            algorithm = _ALGORITHMS[type(step)](problem, response, settings)
            return fit(
                algorithm,
                max_iter=settings.max_iter,
                log_constant=float(response.log_constant + response.masses * problem.log_unit),
                n_obs=response.n_obs,
                watch=watch,
            )
        except np.linalg.LinAlgError as error:
            raise ValueError(
                "random_effects: the model's equations are singular to working precision. The "
                "terms explain y to the last digit (are there as many effects as rows?), or "
                "sample_weight, a pinned sd or the family's sigma is extreme: leave out a term, or "
                "pin the residual SD near y's, family=Gaussian(sigma=...)."
            ) from error


def _problem(design, response, settings):
    """The problem in standard units; in the table's own for Adam."""
    family, y, weights = response.family, response.y, response.weights
    gaussian = family.closed_form
    own = {"fit_intercept": settings.fit_intercept, "reml": settings.reml}
    own["sigma"] = family.sigma if gaussian else None
    if settings.m_step is not None:
        require_tensorflow(f"m_step={settings.m_step!r}")
        from sklmm.engine.algorithms.tutorial import in_own_units

        return in_own_units(design, y, weights, **own)
    problem = standardize(
        design,
        y,
        weights,
        **own,
        scale_y=family.scale_equivariant,
        sigma_unit=response.sigma_unit,
        eta_power=family.eta_power,
        parameter_powers=family.parameter_powers,
        rows=settings.rows or _rows(settings.e_step, response),
    )
    if gaussian or family.quadratic:
        check_degrees(problem)
    if settings.priors is not None:
        problem = replace(problem, priors=settings.priors)
    if isinstance(settings.e_step, GAUSSIAN_ONLY) and response.models:
        from sklmm.engine.rows.widened import heteroscedastic

        problem = heteroscedastic(problem, design, response, MIN_RAW)
    elif design.models or response.data is not None:
        from sklmm.engine.rows.widened import widened

        problem = widened(problem, design, response)
    return problem if problem.perfect else stacked(problem, response.n_predictors)


def check_degrees(problem):
    """ValueError for weights that sum to no more than there are coefficients."""
    if problem.n <= problem.rank and not problem.perfect:
        raise ValueError(
            f"sample_weight: the weights sum to {problem.n:.4g}, no more than the {problem.rank} "
            "fixed coefficients. A weight counts repetitions of its row: do not normalise the "
            "weights."
        )


def _rows(step, response):
    """Backend of rows in this process: for a step that only sums, or that passes over them."""
    sums = isinstance(step, GAUSSIAN_ONLY) and not response.models
    return LocalCrossProducts if sums else LocalRows


def _reml(problem, response, settings):
    step, seed = settings.e_step, settings.seed
    if settings.dof == "kenward-roger":
        from sklmm.engine.posterior.kenward_roger import check

        check(problem, response, step)
    tol = DETERMINISTIC_TOL if settings.tol is None else settings.tol
    n_draws, n_columns = EXACT_ROOT, 0 if problem.columns is None else problem.columns.k
    if not isinstance(step, Exact) or problem.p + problem.n_effects > EXACT_ROOT:
        n_draws = gaussian_draws(problem.n_effects + n_columns)
    if response.models:
        from sklmm.engine.algorithms.reml_by_row import RemlByRow

        parameters = response.parameters
        start = settings.start and warm_by_row(problem, parameters, settings.start)
        return RemlByRow(problem, parameters, step, tol, seed, n_draws, start, settings.dof)
    start = settings.start and warm_gaussian(problem, settings.start)
    return Reml(problem, step, tol, seed, n_draws, start, settings.dof)


def _latent(problem, response, settings):
    """Laplace's approximation, quadrature, or a sampler, of the latent part of a model."""
    family, step = response.family, settings.e_step
    parameters = {
        name: kind if isinstance(kind, str) else kind / problem.unit_of(name)
        for name, kind in response.parameters.items()
    }
    like = Likelihood.of(family, response.n_classes, response.models)
    like = replace(like, pinned=tuple((k, parameters[k]) for k, _ in like.pinned))
    # Compiled steps know a likelihood by identity: equal ones must be one.
    like = _LIKELIHOODS.setdefault(like, like)
    laplace, quadrature = isinstance(step, Laplace), isinstance(step, Quadrature)
    observed = laplace and step.curvature == "observed"
    if quadrature:
        from sklmm.engine.algorithms import quadrature as rule

        groups = rule.partitions(problem, step)
    # Densities are evaluated many times.
    problem = replace(problem, rows=problem.rows.ordered())
    latent = Latent(problem, like, parameters, direct=laplace or quadrature, observed=observed)
    _check_tensorflow(latent, family, step)
    start = settings.start and warm_theta(latent, settings.start)
    n_draws = DRAWS[1] if family.closed_form else nonlinear_draws(problem.n_effects)
    if quadrature:
        tol = DETERMINISTIC_TOL if settings.tol is None else settings.tol
        return rule.Quadrature(latent, groups, tol, settings.seed, n_draws, start, step.n_points)
    if laplace:
        from sklmm.engine.algorithms.laplace import Laplace as LaplaceFit

        tol = DETERMINISTIC_TOL if problem.blocks else GLM_TOL
        tol = tol if settings.tol is None else settings.tol
        return LaplaceFit(latent, tol, settings.seed, n_draws, start, step.n_probes)
    from sklmm.engine.algorithms.mcem import MonteCarlo

    tol = MONTE_CARLO_TOL if settings.tol is None else settings.tol
    return MonteCarlo(latent, _sampler(step), tol, settings.seed, n_draws, start)


def _sampler(step):
    """The chains of an E-step."""
    if isinstance(step, HMC) and step.backend == "numpy":
        from sklmm.engine.latent.chains import Chains

        return Chains(step)
    from sklmm.engine.latent.hmc import HMCSampler
    from sklmm.engine.latent.nuts import NUTSSampler

    return {HMC: HMCSampler, NUTS: NUTSSampler}[type(step)](step)


def _tutorial(problem, response, settings):
    from sklmm.engine.algorithms.tutorial import AdamLoop

    if not all(b.covariance.linear for b in problem.blocks):
        raise ValueError(
            f"m_step={settings.m_step!r} is for covariances that are linear in their parameters, "
            "us and diag: with cs, ar1 and toep use m_step='auto'."
        )
    return AdamLoop(problem, settings)


_LIKELIHOODS = {}
_ALGORITHMS = {
    Exact: _reml,
    ConjugateGradient: _reml,
    Laplace: _latent,
    Quadrature: _latent,
    HMC: _latent,
    NUTS: _latent,
    Adam: _tutorial,
}


def has_profile(design, family, n_predictors, e_step):
    """Whether the likelihood that a step maximises, or quadrature's, is known without noise."""
    if family.closed_form or family.quadratic or isinstance(e_step, Quadrature):
        return True
    if isinstance(e_step, Laplace):
        return factorisable(design.sizes, "gradient", design.coupled)
    return has_quadrature(design, family, n_predictors)


def profile(design, response, *, e_step, fit_intercept, start, matrix, bounds):
    """`Profile` of a model fitted by ML, from the EMResult of any fit of it.

    One that is not Gaussian is fitted by the `e_step` if that is quadrature or Laplace's, and else
    by quadrature. The parameters are rows of `matrix` times (coefficients, natural), between
    `bounds`, two arrays.
    """
    from sklmm.engine.algorithms.profile import Profile

    with blas(design.sizes, design.X.shape[1], design.coupled):
        algorithm = _by_ml(design, response, e_step, fit_intercept, start)
        result = fit(algorithm, max_iter=MOST_ITERATIONS)
        cov = np.nan_to_num(result.natural_cov)
        std = np.sqrt(np.maximum(np.einsum("ia,ab,ib->i", matrix, cov, matrix), 0.0))
        std[(matrix != 0) @ np.isnan(np.diag(result.natural_cov))] = np.nan
        # Of an estimate at infinity no curvature tells how far to look.
        far = at_infinity(start, matrix)
        std[far] = np.abs(matrix[far] @ np.concatenate([result.coef, result.natural]))
        return Profile(algorithm, algorithm.theta, std, matrix, bounds)


def _by_ml(design, response, e_step, fit_intercept, start):
    """The algorithm by which `profile` fits a model."""
    if response.family.quadratic:
        settings = Settings(fit_intercept, False, Exact(), tol=PROFILE_TOL, start=start)
        return _reml(_problem(design, response, settings), response, settings)
    if response.family.closed_form:
        problem = standardize(
            design,
            response.y,
            response.weights,
            fit_intercept=fit_intercept,
            reml=False,
            sigma=response.family.sigma,
            sigma_unit=response.sigma_unit,
            rows=LocalCrossProducts,
        )
        return Reml(problem, Exact(), PROFILE_TOL, 0, DRAWS[0], warm_gaussian(problem, start))
    step = e_step if isinstance(e_step, Laplace | Quadrature) else Quadrature()
    settings = Settings(fit_intercept, False, step, tol=PROFILE_TOL, start=start)
    return _latent(_problem(design, response, settings), response, settings)


def update(result, design, response, places, curvature):
    """The EMResult of a fitted model with new rows: see `algorithms.update.update`."""
    from sklmm.engine.algorithms.update import update

    return update(result, design, response, places, curvature)


def graph(labels, result):
    """Each random variable of a fitted model with those it depends on, by TFP."""
    require_tensorflow("model_graph")
    from sklmm.engine.runtime import tfp_graph

    return tfp_graph.graph(labels, result)


def _in_numpy(step, family):
    """Whether a step computes without TensorFlow."""
    if isinstance(step, GAUSSIAN_ONLY):
        return True
    plain = isinstance(step, Laplace | Quadrature) or getattr(step, "backend", None) == "numpy"
    return plain and not family.is_custom


@contextmanager
def _tensorflow(device, step, family, watch):
    """The context of steps that compile: `watch` is told, and a device may be asked for."""
    if isinstance(step, GAUSSIAN_ONLY):
        yield
        return
    if _in_numpy(step, family) and on_cpu(device):
        device = None
    with telling(getattr(watch, "compiling", None)), placed(device):
        yield


def _check_tensorflow(latent, family, e_step):
    """ImportError where a fit needs TensorFlow and there is none."""
    fit = f"family={family.name!r} with e_step={e_step!r}"
    if latent.like.distribution is not None:
        require_tensorflow(f"family={family!r}")
    elif not _in_numpy(e_step, family):
        other = "'auto'" if family.closed_form else "'laplace'"
        known = latent.like.n_predictors == 1
        require_tensorflow(fit, f", or use e_step={other}, which does not" if known else "")
