"""What a fit tells its user at its end: warnings, and the record of its iterations."""

import warnings

import numpy as np
import pandas as pd
from sklearn.exceptions import ConvergenceWarning

from sklmm.result import natural_names

#: Families whose coefficients can run to infinity, and the standard error of a column's
#: contribution to eta beyond which one has.
SEPARABLE = ("bernoulli", "binomial", "ordinal", "categorical", "poisson", "negative_binomial")
SEPARATED = 30.0
#: Links under which no finite coefficient is that uncertain.
SEPARABLE_LINKS = ("logit", "probit", "cloglog", "log")
#: Share of the largest contribution to y below which a column's is none, and share of y itself.
TINY = 1e-6
ROUNDING = 1e-12


def history_table(labels, history):
    """One row an iteration: loss, step, seconds, and every reported parameter."""
    columns = ["loss", "loglik", "acceptance_rate", "step", "seconds"]
    rows = [
        [*(record[c] for c in columns), *labels.estimates(record["coef"], record["natural"])]
        for record in history
    ]
    index = pd.RangeIndex(1, len(rows) + 1, name="iteration")
    return pd.DataFrame(rows, columns=[*columns, *labels.names], index=index)


def warn_of_no_convergence(labels, result, max_iter):
    """Name the parameter that still moves."""
    names = [*labels.coef, *natural_names(labels.blocks, labels.family)]
    warnings.warn(
        f"The fit stopped at max_iter={max_iter} before convergence; {names[result.moving]!r} "
        "still moves most. Increase max_iter, or remove a term that the data do not support (see "
        "variance_components_).",
        ConvergenceWarning,
        stacklevel=5,
    )


def warn_of_dropped(spec, result):
    """Name the columns that depend linearly on earlier ones."""
    names = [repr(n) for n, out in zip(spec.coef_names, result.dropped, strict=False) if out]
    if names:
        warnings.warn(
            f"The fixed-effects column(s) {_listed(names)} are linear combinations of those before "
            "them (a constant beside an intercept, the last dummy of a factor, a copy): left "
            "out of the model, with coefficient 0. Remove them from fixed_effects.",
            UserWarning,
            stacklevel=5,
        )


def warn_of_perfect_fit(spec, design, y, result):
    """Name the columns that y is computed from.

    A constant y is nobody's mistake, and as many columns as rows reproduce any.
    """
    part = np.abs(result.coef) * design.X.std(axis=0)
    if part.max(initial=0.0) <= ROUNDING * np.abs(y).max() or result.rank >= len(y):
        return
    names = [repr(n) for n, p in zip(spec.coef_names, part, strict=True) if p > TINY * part.max()]
    who = "columns" if spec.sparse else f"column(s) {_listed(names)}"
    warnings.warn(
        f"The fixed-effects {who} alone reproduce y, so every variance is 0: y, or something "
        "computed from it, is among them. Leave it out of X, or of fixed_effects.",
        UserWarning,
        stacklevel=5,
    )


def _listed(names):
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" * (len(names) > 10))


def separated(family, design, result):
    """Number of the coefficient that runs to infinity by its standard error in eta, or None."""
    if family.name not in SEPARABLE or getattr(family, "link", "logit") not in SEPARABLE_LINKS:
        return None
    scale = design.X.std(axis=0)
    scale = np.where(scale > 0, scale, np.abs(design.X).max(axis=0))
    scale = np.tile(scale, len(result.coef) // max(len(scale), 1))
    variance = np.nan_to_num(np.diag(result.coef_cov), posinf=0.0)
    wide = scale * np.sqrt(np.maximum(variance, 0.0))
    return int(np.argmax(wide)) if wide.max(initial=0.0) > SEPARATED else None


def warn_of_separation(labels, coefficient):
    """Name the coefficient that runs to infinity."""
    warnings.warn(
        f"The coefficient {labels.coef[coefficient]!r} has no finite maximum likelihood estimate, "
        "or one that the data hardly bound: it separates the classes perfectly, or a class or "
        "count never occurs. Remove the column, merge levels, or collect rows of the other kind.",
        ConvergenceWarning,
        stacklevel=5,
    )
