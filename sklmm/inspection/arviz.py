"""Hand-over to ArviZ: diagnostics of the chains, and the posterior as an ArviZ DataTree."""

import numpy as np
import pandas as pd

N_DRAWS = 500
#: Variables of the tree beside the terms'.
COEFFICIENTS, PARAMETERS = "coefficients", "parameters"


def _imported(module):
    """An optional module, or an ImportError that says how to install it."""
    from importlib import import_module

    try:
        return import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{module} is not installed: pip install sklmm[arviz] (arviz-stats and arviz-base)."
        ) from error


def chain_table(labels, result):
    """Effective sample sizes and R-hat of the chains' own estimates, one row a parameter.

    Vehtari, Gelman, Simpson, Carpenter & Buerkner (2021), Bayesian Analysis 16, 667-718.
    """
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


def data_tree(model, labels, rng):
    """DataTree of a fitted estimator: posterior, chains, iterations."""
    base, result = _imported("arviz_base"), model.result_
    z = rng.standard_normal((result.coef_root.shape[1], N_DRAWS))
    coef = result.coef[:, None] + result.coef_root @ z
    posterior = {COEFFICIENTS: coef.T[None]}
    coords, dims = {"coefficient": labels.coef}, {COEFFICIENTS: ["coefficient"]}
    for term, mine, names in model._term_blocks():
        draws = [result.effects[k][:, :, None] + result.effects_root[k] @ z for k in mine]
        name = _path_free(term.name)
        name = f"{name}_" if name in (COEFFICIENTS, PARAMETERS) else name
        posterior[name] = np.concatenate(draws, axis=1).transpose(2, 0, 1)[None]
        dims[name] = [f"{name}_level", f"{name}_coefficient"]
        levels = [":".join(map(str, v)) if isinstance(v, tuple) else v for v in term.levels]
        coords |= dict(zip(dims[name], (levels, names), strict=True))
    groups = {"posterior": posterior}
    if result.chains is not None:
        groups["chains"] = {PARAMETERS: result.chains @ labels.matrix.T}
        dims[PARAMETERS] = ["parameter"]
        coords["parameter"] = labels.names
    # More chains than draws are as it should be here, and no slip to warn of.
    tree = base.from_dict(groups, coords=coords, dims=dims, check_conventions=False)
    history = model.history_.rename(columns=_path_free)
    tree["iterations"] = _imported("xarray").DataTree(history.to_xarray())
    return tree
