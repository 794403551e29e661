"""The estimators' parameters `coef_prior` and `sd_prior`, as the priors of a design."""

from numbers import Real

import numpy as np

from sklmm._fitted.tables import coefficient_names
from sklmm.design.terms import INTERCEPT
from sklmm.families.messages import listed
from sklmm.families.parts import PARTS
from sklmm.priors import GammaPrior, Priors
from sklmm.steps import ConjugateGradient, Exact, Laplace

#: Other names of the intercept.
INTERCEPTS = ("(Intercept)", INTERCEPT)


def resolve_priors(model, spec, design, response, e_step, reml):
    """`Priors` of a design's columns and blocks; ValueError that names the parameter and entry."""
    _check_algorithm(model, e_step, reml)
    coef, parts = _coefficients(model.coef_prior, spec, response)
    _check_rows(model, coef, spec, design)
    return Priors(coef, _deviations(model.sd_prior, spec, design, response), parts)


def check_whole(model, where):
    """ValueError for a model whose rows may not come in parts; `where` is what takes them."""
    for name in PARTS:
        if getattr(model, name, None) is not None:
            raise ValueError(
                f"{name}={getattr(model, name)!r}: {where}, from parts of a table, model the mean "
                f"alone: use fit of a whole table, or {name}=None."
            )
    for name in ("coef_prior", "sd_prior"):
        if getattr(model, name) is not None:
            raise ValueError(
                f"{name}={getattr(model, name)!r}: {where}, from parts of a table, have no priors: "
                f"use fit of a whole table, or {name}=None."
            )


def _check_algorithm(model, e_step, reml):
    """ValueError for algorithms without priors."""
    name = "sd_prior" if model.coef_prior is None else "coef_prior"
    if model.m_step != "auto":
        raise ValueError(
            f"{name}={getattr(model, name)!r}: m_step={model.m_step!r} has no priors: use "
            "m_step='auto'."
        )
    integrated = isinstance(e_step, Exact | ConjugateGradient | Laplace)
    if model.coef_prior is not None and reml and not integrated:
        raise ValueError(
            f"coef_prior={model.coef_prior!r}: REML by e_step={e_step!r} integrates the "
            "coefficients out with a flat prior: use method='ml', or e_step='laplace'."
        )


def _check_rows(model, coef, spec, design):
    """ValueError for as many columns as rows: engines look for the solution of minimum norm."""
    if np.isfinite(coef).any() and design.n_rows <= len(spec.coef_names):
        raise ValueError(
            f"coef_prior={model.coef_prior!r} is for fewer columns than rows, and X has "
            f"{len(spec.coef_names)} coefficients and {design.n_rows} rows: leave out columns."
        )


def _coefficients(prior, spec, response):
    """SDs [n_columns] of the coefficients, of all predictors one after another; inf without.

    And those of coefficients of parameters' models, by name. A number is for those of the mean.
    """
    names, every = list(spec.coef_names), coefficient_names(spec, response)
    n = len(every) if response.family.classes == "unordered" else len(names)
    cutpoints = response.family.classes == "ordered"
    of_parts = [name for own in response.models for name in own.names]
    out, parts = np.full(len(every), np.inf), {}
    if prior is None:
        return out, parts
    if not isinstance(prior, dict):
        out[:n] = prior
        if cutpoints:
            # It is minus the first cutpoint: none of them has a prior.
            out[0] = np.inf
        return out, parts
    for key, sd in prior.items():
        if not isinstance(sd, Real) or isinstance(sd, bool) or not 0 < sd < np.inf:
            raise ValueError(
                f"coef_prior: the SD of {key!r} is {sd!r}, and must be a positive number; without "
                "a prior leave the name out."
            )
        wanted = INTERCEPT if key in INTERCEPTS else key
        mine = [j for j in range(n) if wanted in (every[j], names[j % len(names)])]
        mine += [j for j in range(n, len(every)) if wanted == every[j]]
        if cutpoints and wanted == INTERCEPT:
            raise ValueError(
                f"coef_prior: {key!r} is not for an ordinal model, whose cutpoints have no prior: "
                "leave it out."
            )
        if key in of_parts:
            parts[key] = float(sd)
        elif not mine:
            raise ValueError(
                f"coef_prior: {key!r} is no coefficient of this model, which has "
                f"{listed([*every, *of_parts])}."
            )
        out[mine] = sd
    return out, parts


def _deviations(prior, spec, design, response):
    """A `GammaPrior` or None of each block, those of one term's predictors one after another."""
    names = [term.name for term in spec.every_term]
    d = 1 if design.predicted else response.n_predictors
    if not isinstance(prior, dict):
        found = dict.fromkeys(names, prior)
    else:
        found = dict.fromkeys(names) | prior
        for key, own in prior.items():
            if key not in names:
                has = f"which has {listed(names)}" if names else "which has none"
                raise ValueError(f"sd_prior: {key!r} is no term of this model, {has}.")
            if own is not None and not design.every_block[names.index(key)].covariance.n_params:
                raise ValueError(
                    f"sd_prior: the SDs of {key!r} are pinned, and have no prior: leave it out."
                )
    made = {name: _gamma(own) for name, own in found.items()}
    by_row = [model.parameter for model in response.models]
    by_row += response.family.names if design.predicted else []
    if "sigma" in by_row:
        for name, own in made.items():
            if own is not None and own.relative:
                raise ValueError(
                    f"sd_prior: that of {name!r} is relative to the residual SD, of which "
                    "`dispersion` has one a row: use GammaPrior(relative=False)."
                )
    return tuple(made[name] for name in names for _ in range(d))


def _gamma(prior):
    """A `GammaPrior` of an entry, or None."""
    if prior is None:
        return None
    prior = GammaPrior() if isinstance(prior, str) and prior == "gamma" else prior
    if not isinstance(prior, GammaPrior):
        raise ValueError(f"sd_prior={prior!r} is not available: use 'gamma' or a GammaPrior.")
    prior.check()
    return prior
