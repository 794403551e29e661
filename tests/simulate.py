"""Grouped data of every family, with the truth."""

import numpy as np
import pandas as pd
from scipy import stats
from scipy.special import expit, softmax

from sklmm import HMC, MixedEffectsClassifier, MixedEffectsRegressor

#: Family parameters of the truth.
PARAMETERS = {
    "gaussian": {"sigma": 0.8},
    "student_t": {"sigma": 0.6, "df": 3.0},
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
INTERCEPT, COEF, SD = 0.3, -0.5, 0.7
CUTS = np.cumsum([0.0, *PARAMETERS["ordinal"].values()])


def _quantile(name, u, eta):
    """The response at which the family's distribution function, by SciPy, first reaches u."""
    p = PARAMETERS[name]
    if name == "gaussian":
        return stats.norm.ppf(u, eta, p["sigma"])
    if name == "student_t":
        return stats.t.ppf(u, p["df"], eta, p["sigma"])
    if name == "poisson":
        return stats.poisson.ppf(u, np.exp(eta))
    if name == "negative_binomial":
        size = 1 / p["dispersion"]
        return stats.nbinom.ppf(u, size, size / (size + np.exp(eta)))
    if name == "gamma":
        return stats.gamma.ppf(u, p["shape"], scale=np.exp(eta) / p["shape"])
    if name == "beta":
        mu = expit(eta)
        return stats.beta.ppf(u, mu * p["precision"], (1 - mu) * p["precision"])
    if name == "bernoulli":
        return stats.bernoulli.ppf(u, expit(eta))
    if name == "binomial":
        return stats.binom.ppf(u, TRIALS, expit(eta)) / TRIALS
    if name == "ordinal":
        return np.sum(u[:, None] > expit(CUTS - eta[:, None]), axis=1).astype(float)
    shares = softmax(np.column_stack([np.zeros(len(u)), *eta]), axis=1)
    return np.sum(u[:, None] > np.cumsum(shares, axis=1)[:, :-1], axis=1).astype(float)


def _truth(name):
    """Parameters by their names in `conf_int`."""
    if name == "categorical":
        return {
            "1.0: Intercept": INTERCEPT,
            "1.0: x": COEF,
            "2.0: Intercept": -INTERCEPT,
            "2.0: x": -COEF,
            "sd(g, 1.0: Intercept)": SD,
            "sd(g, 2.0: Intercept)": SD,
        }
    coef = {"x": COEF, "sd(g, Intercept)": SD}
    if name == "ordinal":
        return dict(zip(["0.0|1.0", "1.0|2.0", "2.0|3.0"], CUTS - INTERCEPT, strict=True)) | coef
    return {"Intercept": INTERCEPT} | coef | PARAMETERS[name]


def _data(name, x, z, u):
    """(X, y, weights, truth): columns g and x, effects z [2, n_groups] in SDs, uniforms u."""
    n_groups = z.shape[1]
    X = pd.DataFrame({"g": np.repeat(np.arange(n_groups), len(x) // n_groups), "x": x})
    first, second = SD * z[:, X["g"]]
    eta = INTERCEPT + COEF * x + first
    if name == "categorical":
        eta = eta, second - INTERCEPT - COEF * x
    weights = np.full(len(x), TRIALS) if name == "binomial" else None
    return X, _quantile(name, u, eta), weights, _truth(name)


def simulate(name, seed, n_groups=40, n_rows=13):
    """(X, y, weights, truth): one grouping factor g, one column x.

    truth names the parameters as `conf_int` does.
    """
    rng = np.random.default_rng(seed)
    n = n_groups * n_rows
    return _data(name, rng.normal(size=n), rng.normal(size=(2, n_groups)), rng.uniform(size=n))


def study(name, n_sets=40, n_groups=40, n_rows=13, seed=0):
    """Data sets as `simulate`'s, each a plain draw, that balance each other.

    They come in antithetic pairs (effects and noise of opposite sign), and their effects' sums of
    squares from one stratum of their distribution each: the mean of an estimate over them has less
    Monte Carlo error than over independent ones, and a bias shows that chance would hide.
    """
    rng = np.random.default_rng(seed)
    strata = [rng.permutation(n_sets) for _ in range(2)]
    for pair in range(n_sets // 2):
        x, u = rng.normal(size=(2, n_groups * n_rows))
        z = rng.normal(size=(2, n_groups))
        mean = z.mean(axis=1, keepdims=True)
        direction = (z - mean) / np.linalg.norm(z - mean, axis=1, keepdims=True)
        for k, sign in ((2 * pair, 1), (2 * pair + 1, -1)):
            share = np.array([[(own[k] + rng.uniform()) / n_sets] for own in strata])
            radius = np.sqrt(stats.chi2.ppf(share, n_groups - 1))
            yield _data(name, x, sign * (mean + radius * direction), stats.norm.cdf(sign * u))


def coverage_and_bias(name, n_sets=40):
    """(share of 95 % intervals that cover [n_parameters], bias in Monte Carlo errors) of a family.

    By REML: the SD of ML is biased by some -1 / (2 J) in theory, about one of these errors. The
    maximum likelihood of a t's degrees of freedom is biased by a multiple of 1 / n, which twice the
    rows make small. The errors are those of as many independent data sets. Two Series by parameter.
    """
    classes = name in ("ordinal", "categorical")
    estimator = MixedEffectsClassifier if classes else MixedEffectsRegressor
    n_rows = 26 if name == "student_t" else 13
    covered, errors = [], []
    for seed, (X, y, weights, truth) in enumerate(study(name, n_sets, n_rows=n_rows)):
        # .07 standard errors are nothing beside 1 / sqrt(40). A variance near 0 takes many draws.
        model = estimator(["g"], family=name, method="reml", e_step=HMC(n_chains=64))
        model.set_params(tol=0.07, max_iter=1000, random_state=seed)
        interval = model.fit(X, y, sample_weight=weights).conf_int().loc[list(truth)]
        values = pd.Series(truth)
        covered.append((interval["lower"] <= values) & (values <= interval["upper"]))
        errors.append((interval["lower"] + interval["upper"]) / 2 - values)
    errors = pd.DataFrame(errors)
    return pd.DataFrame(covered).mean(), errors.mean() / (errors.std() / np.sqrt(n_sets))
