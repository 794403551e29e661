"""Grouped data of every family, with the truth."""

import numpy as np
import pandas as pd

from sklmm import families

#: Family parameters of the truth.
PARAMETERS = {
    "gaussian": {"sigma": 0.8},
    "student_t": {"sigma": 0.6, "df": 5.0},
    "poisson": {},
    "negative_binomial": {"dispersion": 0.4},
    "gamma": {"shape": 3.0},
    "beta": {"precision": 8.0},
    "bernoulli": {},
    "binomial": {},
    "ordinal": {"spacing_1": 1.0, "spacing_2": 1.2},
    "categorical": {},
}
TRIALS = 5


def simulate(name, seed, n_groups=40, n_rows=13, sd=0.7, intercept=0.3, coef=-0.5):
    """(X, y, weights, truth): one grouping factor g, one column x.

    truth names the parameters as `conf_int` does.
    """
    rng = np.random.default_rng(seed)
    family = families.resolve_family(name)
    n = n_groups * n_rows
    X = pd.DataFrame({"g": np.repeat(np.arange(n_groups), n_rows), "x": rng.normal(size=n)})
    truth = {"Intercept": intercept, "x": coef, "sd(g, Intercept)": sd} | PARAMETERS[name]
    b = sd * rng.standard_normal(n_groups)
    eta = intercept + coef * X["x"].to_numpy() + b[X["g"]]
    weights = None
    if name == "binomial":
        weights = np.full(n, TRIALS)
        y = rng.binomial(TRIALS, 1 / (1 + np.exp(-eta))) / TRIALS
    elif name == "categorical":
        c = sd * rng.standard_normal(n_groups)
        eta = np.stack([eta, -intercept - coef * X["x"].to_numpy() + c[X["g"]]], axis=1)
        y = family.sample(eta, {}, rng)
        truth = {
            "1.0: Intercept": intercept,
            "1.0: x": coef,
            "2.0: Intercept": -intercept,
            "2.0: x": -coef,
            "sd(g, 1.0: Intercept)": sd,
            "sd(g, 2.0: Intercept)": sd,
        }
    else:
        y = family.sample(eta, PARAMETERS[name], rng)
    if name == "ordinal":
        cuts = -intercept + np.cumsum([0.0, 1.0, 1.2])
        truth = dict(zip(["0.0|1.0", "1.0|2.0", "2.0|3.0"], cuts, strict=True))
        truth |= {"x": coef, "sd(g, Intercept)": sd}
    return X, y, weights, truth
