"""What is kept of a fitted model: its numbers, each with the unit that a change is measured in.

The unit of an estimate is its standard error; of a standard error, itself; of a random effect, its
posterior SD; of a mean prediction and its SD, that SD over sqrt(n), which is what n rows know of a
mean (1 / sqrt(n) of a probability); of a log-likelihood, sqrt(n), as it varies over data sets. The
Monte Carlo error of an estimate and its standard error is that which the fit tells; effects and
predictions are taken to have the largest one, in units of their SDs. Adam's fits state none: their
numbers are to be the same from the same seed.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import norm

#: Entries that are kept of effects and predictions, evenly spaced.
KEPT = 64
#: Share of an SD that the effects and predictions of fits by Monte Carlo may be off in any case.
LEAST_ERROR = 0.03


@dataclass
class Quantity:
    """Values [k], their units and their Monte Carlo errors."""

    value: np.ndarray
    unit: np.ndarray
    error: np.ndarray
    names: list

    @classmethod
    def of(cls, value, unit, error=0.0, names=None):
        """Broadcast to the values; a value without a unit is its own."""
        value = np.ravel(np.asarray(value, float))
        unit = np.broadcast_to(np.ravel(unit), value.shape).astype(float)
        own = np.where(np.isfinite(value) & (value != 0), np.abs(value), 1.0)
        unit = np.where(np.isfinite(unit) & (unit > 0), unit, own)
        error = np.broadcast_to(np.ravel(error), value.shape).astype(float)
        error = np.where(np.isnan(error), 0.0, error)
        return cls(value, unit, error, list(range(len(value)) if names is None else names))

    def array(self):
        """As it is saved, [3, k]."""
        return np.stack([self.value, self.unit, self.error])


def spread(n):
    """Places of the entries that are kept of n."""
    return np.unique(np.linspace(0, n - 1, min(n, KEPT)).astype(int))


def parameters(model):
    """Estimate and std_error by the names of `mc_error_`: coefficients, SDs, the family's."""
    fixed = model.fixed_effects_
    estimate, std = fixed["estimate"].to_dict(), fixed["std_error"].to_dict()
    for _, row in model.variance_components_.iterrows():
        kind = "corr" if pd.isna(row["sd"]) else "sd"
        residual = row["group"] == "Residual"
        name = "sigma" if residual else f"{kind}({row['group']}, {row['name']})"
        estimate[name], std[name] = row[kind], row["std_error"]
    # Of one standard error either way.
    upper = model.conf_int(level=2 * norm.cdf(1) - 1)["upper"]
    for name, value in model.family_params_.items():
        if name not in (*estimate, "cutpoints"):
            estimate[name], std[name] = value, upper[name] - value
    return pd.DataFrame({"estimate": estimate, "std_error": std})


def larger_error(model):
    """The Monte Carlo error of each parameter's estimate, or of its standard error if larger.

    That is what `mc_error_` was before there was a `std_mc_error_`.
    """
    return np.fmax(model.mc_error_, getattr(model, "std_mc_error_", model.mc_error_))


def relative_error(model, table):
    """The largest Monte Carlo error of a parameter, in standard errors."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = (larger_error(model) / table["std_error"]).to_numpy(float)
    ratio = ratio[np.isfinite(ratio)]
    return max(ratio.max(initial=0.0), LEAST_ERROR) if ratio.any() else 0.0


def record(model, X, extra=None):
    """{name: Quantity} of a fitted model and its predictions of the rows X.

    `extra` are other numbers of the model, (value, unit) by name.
    """
    table = parameters(model)
    std, share = table["std_error"], relative_error(model, table)
    error = larger_error(model).reindex(table.index).fillna(0.0)
    n, names = X.shape[0], list(table.index)
    out = {
        "estimate": Quantity.of(table["estimate"], std, error, names),
        "std_error": Quantity.of(std, std, error, names),
        "loglik": Quantity.of(model.loglik_, np.sqrt(n), model.loglik_error_),
    }
    if "df" in model.fixed_effects_:
        df = model.fixed_effects_["df"]
        out["df"] = Quantity.of(df, df, names=list(df.index))
    for k, (term, effects) in enumerate(model.random_effects_.items()):
        rows = spread(len(effects))
        sd = model.random_effects_std_[term].to_numpy()[rows].ravel()
        out[f"effects {k}"] = Quantity.of(effects.to_numpy()[rows], sd, share * sd)
        # Of a level's SD a few draws tell little: no bound where they are what tells it.
        out[f"effects_std {k}"] = Quantity.of(sd, sd, np.inf if share else 0.0)
    rows = spread(n)
    rows = X.iloc[rows] if hasattr(X, "iloc") else X[rows]
    for name, (value, sd) in predictions(model, rows).items():
        out[name] = Quantity.of(value, sd / np.sqrt(n), share * sd)
    for name, (value, unit) in (extra or {}).items():
        out[name] = Quantity.of(value, unit, share * np.ravel(unit))
    return out


def predictions(model, rows):
    """(values, SDs) of means, SDs and population means by name; of classes, of probabilities."""
    if hasattr(model, "predict_proba"):
        found = model.predict_proba(rows)
        population = model.predict_proba(rows, include_random=False)
        one = np.ones(found.size)
        return {"probability": (found, one), "population": (population, one)}
    mean, sd = model.predict(rows, return_std=True)
    population = model.predict(rows, include_random=False)
    return {"mean": (mean, sd), "std": (sd, sd), "population": (population, sd)}
