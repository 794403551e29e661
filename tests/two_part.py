"""Maxima of models on simulated tables, found without this package, to compare fits with.

`tests/data/two_part.json` has for each model the coefficients, their standard errors on the scale
of the coefficients or of the parameter that the name says ("log phi"), the SD of the groups'
intercepts, the family's parameters, the log-likelihood with all constants, and the same of
Laplace's approximation. They are of 61-point adaptive Gauss-Hermite quadrature in NumPy, confirmed
by R's `integrate` and, where there is one, by a package of R (glmmTMB, ordinal, survival, lme4,
blme). A table is in `tests/data/two_part`.
"""

import json
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

TERMS = ("(Intercept)", "x", "z")
DATA = Path(__file__).parent / "data"


@lru_cache
def reference():
    """All models by name."""
    return json.loads((DATA / "two_part.json").read_text())


def table(name):
    """The table of a model, or one by its own name."""
    if name in reference():
        name = Path(reference()[name]["data"]).name.partition(".")[0]
    return pd.read_csv(DATA / "two_part" / f"{name}.csv.gz")


def check_maximum(model, name, *, laplace=False, coef=TERMS, tol=1e-3, loglik=1e-4):
    """Whether a fit's coefficients, their standard errors, SD and log-likelihood are a model's.

    Estimates within `tol` standard errors, of the SD and the standard errors of themselves; the
    log-likelihood within `loglik`, 1e-3 of Laplace's. The family's parameters are returned.
    """
    exact = reference()[name]
    found = exact["laplace"] if laplace else exact
    std = np.array([found["se"][k] for k in coef])
    values = np.array([found["coef"][k] for k in coef])
    fitted = model.fixed_effects_
    np.testing.assert_allclose((fitted["estimate"] - values) / std, 0, atol=tol)
    np.testing.assert_allclose(fitted["std_error"], std, rtol=max(tol, 1e-3))
    if found["sd"] is not None:
        np.testing.assert_allclose(model.variance_components_["sd"].iloc[0], found["sd"], rtol=tol)
    atol = max(loglik, 1e-3 * laplace)
    np.testing.assert_allclose(model.loglik_, found["loglik"], rtol=0, atol=atol)
    return found["family"]
