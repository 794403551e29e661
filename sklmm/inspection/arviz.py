"""Hand-over to ArviZ: diagnostics of the chains, and the posterior as an ArviZ DataTree."""

from importlib import import_module

import numpy as np
import pandas as pd

from sklmm._fitted.draws import response_draws
from sklmm._fitted.latent import predictor_draws
from sklmm.families.constraints import CONSTRAINTS
from sklmm.families.parts import parameters_by_row
from sklmm.result import covariance_root, natural_entries

#: Variables of the tree beside the terms' and the family's parameters.
COEFFICIENTS, CUTPOINTS, PARAMETERS = "coefficients", "cutpoints", "parameters"


def _imported(module):
    """An optional module, or an ImportError that says how to install it."""
    try:
        return import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{module} is not installed: pip install sklmm[arviz] (arviz-stats and arviz-base)."
        ) from error


def chain_table(labels, result):
    """Effective sample sizes and R-hat of the chains' own estimates, one row a parameter."""
    stats = _imported("arviz_stats.base").array_stats
    chains = result.chains.astype(float) @ labels.matrix.T
    # A pinned parameter does not vary.
    varies = np.ptp(chains, axis=(0, 1)) > 0
    chains, axes = chains[:, :, varies], {"chain_axis": 0, "draw_axis": 1}
    table = pd.DataFrame(
        {
            "ess_bulk": stats.ess(chains, **axes, method="bulk"),
            "ess_tail": stats.ess(chains, **axes, method="tail", prob=(0.05, 0.95)),
            "rhat": stats.rhat(chains, **axes),
        },
        index=np.array(labels.names, object)[varies],
    )
    return table.reindex(pd.Index(labels.names, name="parameter"))


def _path_free(name):
    """A name that a DataTree does not take for a path."""
    return name.replace("/", "_")


def data_tree(model, rng, size, rows=None):
    """DataTree of a fitted estimator, of `size` (chains, draws).

    rows (Design, Response, function) are those of the fit, and the function of a response, of eta
    and of the family's parameters that gives the log densities.
    """
    base, result, labels = _imported("arviz_base"), model.result_, model._fitted.labels
    z = rng.standard_normal((result.coef_root.shape[1], size[0] * size[1]))
    deviations = result.coef_root @ z
    coef = result.coef[:, None] + deviations
    variances, family = _parameter_draws(model, labels, deviations, rng)
    groups = {"posterior": {}}
    coords, dims = {}, {}

    def add(variable, values, **axes):
        """A variable of the posterior from draws [..., n_draws]; axes hold coordinates by name."""
        groups["posterior"][variable] = _by_chain(values, size)
        dims[variable] = list(axes)
        coords.update(axes)

    first = 1 if labels.cutpoints else 0
    add(COEFFICIENTS, coef[first:], coefficient=labels.coef[first:])
    if labels.cutpoints:
        natural = [*(values for _, values in variances), *family.values()]
        natural = np.reshape(natural, (-1, coef.shape[1]))
        cutpoints = labels.matrix[: len(labels.cutpoints)] @ np.concatenate([coef, natural])
        add(CUTPOINTS, cutpoints, cutpoint=labels.cutpoints)
    for name in labels.beside:
        add(_path_free(name), family[name])
    taken = {COEFFICIENTS, CUTPOINTS, *labels.family}
    for term, mine, names in model._fitted.term_blocks():
        draws = [result.effects[k][:, :, None] + result.effects_root[k] @ z for k in mine]
        name = _path_free(term.name)
        name = f"{name}_" if name in taken else name
        levels = [":".join(map(str, v)) if isinstance(v, tuple) else v for v in term.levels]
        coefficients = {f"{name}_coefficient": names}
        add(name, np.concatenate(draws, axis=1), **{f"{name}_level": levels}, **coefficients)
        own = [(*of, values) for (group, *of), values in variances if group == term.name]
        sds = {of: np.abs(values) for kind, of, values in own if kind == "sd"}
        if list(sds) != names:
            # Fewer than coefficients, which then have a name of their own.
            coefficients = {f"{name}_sd": list(sds)}
        add(f"sd_{name}", list(sds.values()), **coefficients)
        if pairs := {of: values.clip(-1, 1) for kind, of, values in own if kind == "corr"}:
            add(f"corr_{name}", list(pairs.values()), **{f"{name}_pair": list(pairs)})
    if result.chains is not None:
        groups["chains"] = {PARAMETERS: result.chains @ labels.matrix.T}
        dims[PARAMETERS] = ["parameter"]
        coords["parameter"] = labels.names
    if rows is not None:
        variable = _path_free(model._fitted.response_name)
        groups |= _of_rows(variable, model, z, family, size, rows, rng)
        dims[variable] = ["row"]
    # More chains than draws are as it should be here, and no slip to warn of.
    tree = base.from_dict(groups, coords=coords, dims=dims, check_conventions=False)
    history = model.history_.rename(columns=_path_free)
    tree["iterations"] = _imported("xarray").DataTree(history.to_xarray())
    return tree


def _by_chain(values, size):
    """Draws [..., n_chains * n_draws] as [n_chains, n_draws, ...]."""
    values = np.moveaxis(values, -1, 0)
    return values.reshape(*size, *values.shape[1:])


def _parameter_draws(model, labels, deviations, rng):
    """Draws of each SD and correlation by its `natural_entries`, and of the family's by name.

    They are of the normal distribution that Wald's intervals are of, given the coefficients' draws;
    the family's positive parameters are drawn in their logarithm, with a standard error of at most
    1. A parameter without a standard error stays at its estimate.
    """
    result, p = model.result_, len(deviations)
    values, first = result.natural, len(result.natural) - len(labels.family)
    cov = np.nan_to_num(result.natural_cov, posinf=0.0, neginf=0.0)
    kinds = ["real"] * first + list(labels.family.values())
    scale = np.ones(p + len(values))
    for i, (kind, value) in enumerate(zip(kinds, values, strict=True), start=p):
        if kind in CONSTRAINTS:
            scale[i] = CONSTRAINTS[kind].slope(value)
        if kind == "positive":
            scale[i] = max(scale[i], np.sqrt(cov[i, i]))
    cov = cov / np.outer(scale, scale)
    slopes = cov[p:, :p] @ np.linalg.pinv(cov[:p, :p], hermitian=True)
    root = covariance_root(cov[p:, p:] - slopes @ cov[:p, p:])
    steps = slopes @ deviations + root @ rng.standard_normal((len(values), deviations.shape[1]))
    draws = [_moved(*one) for one in zip(kinds, values, steps, strict=True)]
    variances = zip(natural_entries(labels.blocks), draws, strict=False)
    return list(variances), dict(zip(labels.family, draws[first:], strict=True))


def _moved(kind, value, step):
    """A parameter's value after a step on the whole line on which it is estimated."""
    if kind not in CONSTRAINTS:
        return value + step
    line = CONSTRAINTS[kind]
    # A 0 stays one.
    with np.errstate(divide="ignore"):
        return line.constrain(line.unconstrain(value) + step)


def _of_rows(variable, model, z, family, size, rows, rng):
    """Groups of the rows of the fit: what was observed, what would be, and its log density."""
    design, response, log_densities = rows
    d = response.n_predictors
    eta = predictor_draws(design, model.result_, z, d)
    own = parameters_by_row(response.models, family, design.models)
    drawn = response_draws(response, eta[:, 0] if d == 1 else eta, own, rng)
    observed = response.y
    if response.family.weights == "trials":
        observed, drawn = observed * response.weights, drawn * response.weights[:, None]
    elif response.classes is not None and not hasattr(model, "classes_"):
        # A regressor's ratings have values; a classifier's classes are their places.
        observed, drawn = (response.classes[codes.astype(int)] for codes in (observed, drawn))
    else:
        observed, drawn = (response.family.decoded(y) for y in (observed, drawn))
    log_likelihood = log_densities(response, eta, family, design.models)
    return {
        "posterior_predictive": {variable: _by_chain(drawn, size)},
        "log_likelihood": {variable: _by_chain(log_likelihood, size)},
        "observed_data": {variable: observed},
    }
