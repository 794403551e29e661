"""A fitted model as tidy tables, in the columns of R's broom.mixed.

Tables of several models have the same columns, and so are one by ``pd.concat``. Names of terms are
a fit's own, with broom.mixed's prefixes of what is no coefficient: "sd__Days" is the SD of the
coefficients named "Days", "cor__Intercept.Days" a correlation, and "sd__Observation", of the group
"Residual", the residual SD.
"""

import numpy as np
import pandas as pd
from scipy.stats import norm

from sklmm._fitted import tables
from sklmm._tables import Table
from sklmm.result import natural_entries

#: What glmmTMB calls the parts of a model.
COMPONENTS = {"zero_inflation": "zi", "dispersion": "disp", "nominal": "nominal"}
PREFIXES = {"sd": "sd__", "corr": "cor__"}
#: broom.mixed's names of the columns of a table of coefficients.
TESTS = {
    "estimate": "estimate",
    "std_error": "std.error",
    "z": "statistic",
    "t": "statistic",
    "df": "df",
    "p": "p.value",
    "ci_lower": "conf.low",
    "ci_upper": "conf.high",
}
INTERVAL = ["conf.low", "conf.high"]


def tidy(fitted, result, effects, level):
    """The rows of each kind of `effects`, "fixed", "ran_pars" and "ran_vals", one below the other.

    A `level` of None leaves out the intervals.
    """
    makers = {"fixed": _fixed, "ran_pars": _random_parameters, "ran_vals": _random_values}
    parts = [makers[kind](fitted, result, level or 0.95).assign(effect=kind) for kind in effects]
    names = ["effect", "component", "group"] + ["level"] * ("ran_vals" in effects)
    names += ["term", "estimate", "std.error", "statistic", "df", "p.value"]
    names += INTERVAL if level else []
    columns = {name: np.concatenate([_column(part, name) for part in parts]) for name in names}
    return Table(columns)


def _column(part, name):
    if name in part:
        return part[name].to_numpy()
    return np.full(len(part), np.nan, object if name in ("group", "level") else float)


def _fixed(fitted, result, level):
    found = {"cond": tables.fixed_effects_table(fitted.labels, result, level)}
    for part, component in COMPONENTS.items():
        if names := fitted.part_names(part):
            table = tables.part_effects_table(fitted.labels, result, names, level)
            found[component] = table
    parts = [
        pd.DataFrame(table).rename(columns=TESTS).assign(component=component, term=table.index)
        for component, table in found.items()
    ]
    return pd.concat(parts, ignore_index=True)


def _random_parameters(fitted, result, level):
    labels, homes = fitted.labels, _homes(fitted)
    estimate, std, n = tables.reported(labels, result)
    rows = []
    for term, kind, name in natural_entries(labels.blocks):
        component, group = homes[term]
        rows.append((component, group, PREFIXES[kind] + name.replace(", ", ".")))
    # Coefficients of other parts of the model are rows of the fixed effects.
    apart = {name for part in COMPONENTS for name in fitted.part_names(part)}
    for name in labels.beside:
        term = "sd__Observation" if name == "sigma" else name
        rows.append(("cond", "Residual", None if name in apart else term))
    out = pd.DataFrame(rows, columns=["component", "group", "term"])
    out["estimate"], out["std.error"] = estimate.to_numpy()[n:], std.to_numpy()[n:]
    out[INTERVAL] = tables.wald_intervals(labels, result, level).to_numpy()[n:]
    return out[out["term"].notna()]


def _random_values(fitted, result, level):
    homes, half, parts = _homes(fitted), norm.ppf(0.5 + level / 2), []
    stds = fitted.by_term(result.effects_std)
    for term, means in fitted.by_term(result.effects).items():
        component, group = homes[term]
        estimate, std = means.to_numpy().ravel(), stds[term].to_numpy().ravel()
        levels = means.index
        if isinstance(levels, pd.MultiIndex):
            levels = [":".join(map(str, level)) for level in levels]
        part = {
            "component": component,
            "group": group,
            "level": np.repeat(np.asarray(levels, object), means.shape[1]),
            "term": np.tile(means.columns, len(means)),
            "estimate": estimate,
            "std.error": std,
            "conf.low": estimate - half * std,
            "conf.high": estimate + half * std,
        }
        parts.append(pd.DataFrame(part))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame({"component": []})


def _homes(fitted):
    """(component, group) of each term, by its name, which in other parts begins with a prefix."""
    homes = {term.name: ("cond", term.name) for term in fitted.spec.terms}
    for part, own in fitted.spec.models:
        for term in own.terms:
            homes[term.name] = COMPONENTS[part], term.name.partition(": ")[2]
    return homes


def glance(result, loglik):
    """One row of criteria: those of a REML fit are of its REML criterion, as lme4's."""
    n, deviance = result.n_obs, -2 * loglik
    aic, bic = tables.information_criteria(result)
    row = {
        "nobs": int(n) if float(n).is_integer() else n,
        "sigma": result.sigma,
        "logLik": loglik,
        "AIC": aic,
        "BIC": bic,
        "REMLcrit": deviance if result.reml else np.nan,
        "deviance": np.nan if result.reml else deviance,
        "df.residual": n - result.n_parameters,
    }
    return Table([row])
