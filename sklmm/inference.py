"""Tables of a fitted model: fixed effects, variance components, intervals, information criteria."""

import numpy as np
import pandas as pd
from scipy.stats import norm

from sklmm.result import natural, natural_names


def fixed_effects_table(names, result, level=0.95):
    """Estimate, std_error, z, p and Wald interval, one row a coefficient."""
    std = np.sqrt(np.maximum(np.diag(result.coef_cov), 0.0))
    with np.errstate(divide="ignore", invalid="ignore"):
        z = result.coef / std
    half = norm.ppf(0.5 + level / 2) * std
    return pd.DataFrame(
        {
            "estimate": result.coef,
            "std_error": std,
            "z": z,
            "p": 2 * norm.sf(np.abs(z)),
            "ci_lower": result.coef - half,
            "ci_upper": result.coef + half,
        },
        index=pd.Index(names, name="coefficient"),
    )


def block_labels(terms, blocks):
    """(term name, coefficient names) of each block of a design."""
    return [(terms[b.term].name, terms[b.term].cnames[b.first : b.first + b.r]) for b in blocks]


def variance_components_table(labels, result):
    """One row an SD or correlation: group, name, variance, sd, corr, std_error."""
    rows, first = [], 0
    values = natural(result.covariances, result.sigma)
    for term, cnames in labels:
        r = len(cnames)
        for a, name in enumerate(cnames):
            sd, se = values[first + a], result.variance_se[first + a]
            rows.append((term, name, sd**2, sd, np.nan, se))
        at = first + r
        for i in range(r):
            for j in range(i):
                se = result.variance_se[at]
                rows.append((term, f"{cnames[j]}, {cnames[i]}", np.nan, np.nan, values[at], se))
                at += 1
        first = at
    rows.append(("Residual", "", values[-1] ** 2, values[-1], np.nan, result.variance_se[-1]))
    return pd.DataFrame(rows, columns=["group", "name", "variance", "sd", "corr", "std_error"])


def wald_intervals(names, labels, result, level):
    """Wald intervals of the coefficients and of SDs, correlations and sigma."""
    index = [*names, *natural_names(labels)]
    estimate = np.concatenate([result.coef, natural(result.covariances, result.sigma)])
    std = np.concatenate([np.sqrt(np.diag(result.coef_cov)), result.variance_se])
    half = norm.ppf(0.5 + level / 2) * std
    return pd.DataFrame(
        {"lower": estimate - half, "upper": estimate + half},
        index=pd.Index(index, name="parameter"),
    )


def information_criteria(result):
    """(AIC, BIC), from the REML criterion under REML as lme4 does; nan without a log-likelihood."""
    if result.loglik is None:
        return np.nan, np.nan
    k = result.n_parameters
    return -2 * result.loglik + 2 * k, -2 * result.loglik + k * np.log(result.n_obs)
