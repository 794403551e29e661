"""The systems: how each fits a table, and where it may live."""

import sys
import time
from pathlib import Path

import numpy as np

R_FIT = {
    "lme4": """
suppressMessages(library(lme4))
fit <- function(f, d) lmer(f, d, REML = TRUE)
sds <- function(m) as.data.frame(VarCorr(m))$sdcor
""",
    "glmmtmb": """
suppressMessages(library(glmmTMB))
fit <- function(f, d) glmmTMB(f, d, REML = TRUE)
sds <- function(m) c(sapply(VarCorr(m)$cond, function(v) sqrt(v[1])), sigma(m))
""",
}
R_MAIN = """
a <- commandArgs(TRUE)
d <- read.csv(a[1])
groups <- grep("^g", names(d), value = TRUE)
columns <- grep("^x", names(d), value = TRUE)
for (g in groups) d[[g]] <- factor(d[[g]])
f <- as.formula(paste("y ~", paste(c(columns, sprintf(a[2], groups)), collapse = " + ")))
first <- system.time(m <- fit(f, d))[["elapsed"]]
cat(sprintf("RESULT %f nan %s", first, paste(sprintf("%.5f", sds(m)), collapse = " ")))
"""


def r_script(system, folder):
    """The Rscript's path."""
    path = Path(folder) / f"{system}.R"
    path.write_text(R_FIT[system] + R_MAIN)
    return path


def frame(data, term):
    """(table, y, terms) for sklmm."""
    import pandas as pd

    names = [f"g{k}" for k in range(data["groups"].shape[1])]
    X = pd.DataFrame(data["groups"], columns=names)
    for k in range(data["columns"].shape[1]):
        X[f"x{k}"] = data["columns"][:, k]
    return X, data["y"], [term % g for g in names]


def sklmm(data, workload):
    """(fit, estimates, other tasks) of sklmm's estimator."""
    from sklearn.model_selection import KFold, cross_val_score

    from sklmm import MixedEffectsClassifier, MixedEffectsRegressor

    X, y, terms = frame(data, workload.term)
    fixed = [c for c in X if c.startswith("x")]
    if workload.family == "gaussian":
        model = MixedEffectsRegressor(terms, fixed_effects=fixed, random_state=0)
    else:
        family = "auto" if workload.family == "bernoulli" else workload.family
        model = MixedEffectsClassifier(terms, fixed_effects=fixed, family=family, random_state=0)

    def fit():
        return model.fit(X, y)

    def estimates(fitted):
        return fitted.variance_components_["sd"].to_numpy()

    def cross_validate():
        return cross_val_score(model, X, y, cv=KFold(5, shuffle=True, random_state=0))

    return fit, estimates, {"predict": lambda m: m.predict(X), "cross_validate": cross_validate}


def gpboost(data, workload):
    """The same of GPBoost's GPModel."""
    import gpboost
    from sklearn.model_selection import KFold

    X = np.column_stack([np.ones(len(data["y"])), data["columns"]])
    groups, y = data["groups"], data["y"].astype(float)
    likelihood = {"gaussian": "gaussian", "bernoulli": "bernoulli_logit"}[workload.family]

    def fit(rows=slice(None)):
        model = gpboost.GPModel(group_data=groups[rows], likelihood=likelihood)
        return model.fit(y[rows], X[rows])

    def estimates(model):
        return np.sqrt(np.ravel(model.get_cov_pars(format_pandas=False)))

    def cross_validate():
        scores = []
        for train, test in KFold(5, shuffle=True, random_state=0).split(X):
            mean = fit(train).predict(group_data_pred=groups[test], X_pred=X[test])["mu"]
            scores.append(1 - np.mean((y[test] - mean) ** 2) / np.var(y[test]))
        return np.array(scores)

    return fit, estimates, {"cross_validate": cross_validate}


def statsmodels(data, workload):
    """MixedLM, for one grouping factor."""
    import statsmodels.regression.mixed_linear_model as lmm

    X = np.column_stack([np.ones(len(data["y"])), data["columns"]])

    def fit():
        Z = X if "x0" in workload.term else None
        return lmm.MixedLM(data["y"], X, groups=data["groups"][:, 0], exog_re=Z).fit()

    return fit, lambda m: np.sqrt([*np.diag(m.cov_re), m.scale]), {}


def tutorial(data, workload):
    """The loop of TensorFlow's tutorial, by sklmm's Adam M-step, in the tutorial's settings."""
    from sklmm import HMC, Adam, Gaussian, MixedEffectsRegressor

    X, y, terms = frame(data, workload.term)
    e_step = HMC(step_size=0.015, num_leapfrog_steps=3, n_chains=1, n_warmup=1000, n_steps=5)
    model = MixedEffectsRegressor(
        terms,
        family=Gaussian(sigma=1.0),
        e_step=e_step,
        m_step=Adam(0.01),
        max_iter=1500,
        random_state=0,
    )
    return lambda: model.fit(X, y), lambda m: m.variance_components_["sd"].to_numpy(), {}


SYSTEMS = {"sklmm": sklmm, "gpboost": gpboost, "statsmodels": statsmodels, "tutorial": tutorial}


def work(system, workload, path, again):
    """In a process of its own: fit once or twice, and print the seconds and the estimates."""
    data = dict(np.load(path))
    fit, estimates, tasks = SYSTEMS[system](data, workload)
    task = tasks.get(workload.task, fit)
    fitted = fit() if workload.task == "predict" else None
    seconds = []
    for _ in range(1 + again):
        start = time.perf_counter()
        found = task(fitted) if workload.task == "predict" else task()
        seconds.append(time.perf_counter() - start)
    values = {"fit": estimates, "cross_validate": np.atleast_1d}.get(workload.task, lambda _: [])
    warm = seconds[1] if again else float("nan")
    print("RESULT", seconds[0], warm, *(f"{v:.5f}" for v in np.ravel(values(found))))
    sys.stdout.flush()
