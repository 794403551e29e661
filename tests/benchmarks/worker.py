"""The measured process of a Python system: `python worker.py SYSTEM WORKLOAD TABLE TREE`.

It does the task of a workload, which is given as JSON, and prints what it took as a line of JSON.
Each system imports what it needs and no more.
"""

import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np

#: A second task is repeated, and its median taken, for as long as this [s].
ENOUGH = 0.3


def sds(model):
    """SDs of sklmm's estimator."""
    return model.variance_components_["sd"].to_numpy()


def sklmm(data, workload):
    """(fit, estimates, other tasks) of sklmm's estimator; a task takes a fitted model.

    The data are arrays, or a folder of files.
    """
    if workload.task == "fit_parquet":
        model = of_files(workload)
        return lambda: model.fit_parquet(data, y="y"), sds, {}

    import pandas as pd

    from sklmm import Bernoulli, MixedEffectsClassifier, MixedEffectsRegressor

    if "pedigree" in data:
        return animal_model(data, workload)
    X = pd.DataFrame({f"g{k}": column for k, column in enumerate(data["groups"].T)}, copy=False)
    groups = list(X)
    fixed = [f"x{k}" for k in range(data["columns"].shape[1])]
    own = [workload.term] * len(X.columns) if isinstance(workload.term, str) else workload.term
    terms = [term % g for term, g in zip(own, X, strict=True)]
    for name, column in zip(fixed, data["columns"].T, strict=True):
        X[name] = column
    if workload.factor is not None:
        name = fixed[workload.factor]
        X[name] = pd.Categorical(X[name].astype(int).map(dict(enumerate("abc"))))
        # A formula codes its factors.
        fixed = " + ".join(fixed)
    y = data["y"]
    family = {"probit": Bernoulli(link="probit"), "bernoulli": "auto"}
    classes = workload.family in ("bernoulli", "probit", "ordinal")
    # A checkout of before it had them is not asked for them.
    parts = {
        "dispersion": workload.dispersion,
        "zero_inflation": workload.zero_inflation,
        "dof": workload.dof,
    }
    parts = {name: part for name, part in parts.items() if part is not None}
    model = (MixedEffectsClassifier if classes else MixedEffectsRegressor)(
        terms,
        fixed_effects=fixed,
        family=family.get(workload.family, workload.family),
        e_step=workload.e_step,
        random_state=0,
        **parts,
    )

    def cross_validate(_):
        from sklearn.model_selection import KFold, cross_val_score

        return cross_val_score(model, X, y, cv=KFold(5, shuffle=True, random_state=0))

    def predict(model, rows):
        return model.predict_proba(rows) if classes else model.predict(rows)

    tasks = {
        "predict": lambda m: predict(m, X),
        "predict_new": lambda m: predict(m, X.assign(**{g: -1 - X[g] for g in groups})),
        "marginal_means": lambda m: (
            m.marginal_means("x0", X, at={"x0": [-1.0, 0.0, 1.0]}).table["estimate"].to_numpy()
        ),
        "interval": lambda m: m.predict_interval(X),
        "residuals": lambda m: m.quantile_residuals(X, y, random_state=0),
        "check": lambda m: m.check(X, y, random_state=0)["value"].to_numpy(),
        "influence": lambda m: m.influence(X, y, by=groups[0])["cooks_distance"].to_numpy(),
        "robust": lambda m: m.fixed_effects_table(X, y, cov="CR2", cluster=groups[0])[
            "std_error"
        ].to_numpy(),
        "cross_validate": cross_validate,
        "profile": lambda m: m.conf_int(method="profile", X=X, y=y)["lower"].to_numpy(),
        "loglik": lambda m: np.array([m.loglik_, m.loglik_error_]),
    }
    return lambda: model.fit(X, y), sds, tasks


def animal_model(data, workload):
    """sklmm's estimator of animals and herds; the pedigree's inverse is part of a fit."""
    import pandas as pd

    from sklmm import MixedEffectsRegressor, RandomEffect, Relationship

    X = pd.DataFrame({"animal": data["groups"][:, 0], "herd": data["groups"][:, 1]})
    X["x"], y = data["columns"][:, 0], data["y"]
    pedigree = pd.DataFrame(data["pedigree"], columns=["id", "sire", "dam"])

    def fit():
        relationship = Relationship.from_pedigree(pedigree)
        terms = [RandomEffect("animal", covariance=relationship), "herd"]
        model = MixedEffectsRegressor(
            terms, fixed_effects=["x"], e_step=workload.e_step, random_state=0
        )
        return model.fit(X, y)

    return fit, sds, {}


def of_files(workload):
    """sklmm's estimator for all columns of a folder of files."""
    from sklmm import MixedEffectsRegressor

    return MixedEffectsRegressor([workload.term % g for g in ("g0", "g1")], random_state=0)


def in_memory(path, workload):
    """sklmm's estimator on a table that pandas reads of all files."""
    import pandas as pd

    def fit():
        table = pd.read_parquet(path)
        return model.fit(table.drop(columns="y"), table["y"])

    model = of_files(workload)
    return fit, sds, {}


def gpboost(data, workload):
    """The same of GPBoost's GPModel; of ratings those of 4 and more."""
    import gpboost

    X = np.column_stack([np.ones(len(data["y"])), data["columns"]])
    groups, y = data["groups"], data["y"].astype(float)
    if workload.family == "ordinal":
        y = (y >= 4).astype(float)
    likelihood = {
        "bernoulli": "bernoulli_logit",
        "ordinal": "bernoulli_logit",
        "probit": "bernoulli_probit",
    }.get(workload.family, workload.family)
    if (zeros := workload.zero_inflation) is not None:
        # The other refuses crossed effects, by the negative curvature of some zeros.
        kind = "" if zeros == "~ 1" else "regression_"
        likelihood = f"zero_inflated_{kind}{likelihood}_fisher_laplace"

    def fit(rows=slice(None)):
        model = gpboost.GPModel(group_data=groups[rows], likelihood=likelihood)
        return model.fit(y[rows], X[rows])

    def estimates(model):
        return np.sqrt(np.ravel(model.get_cov_pars(format_pandas=False)))

    def cross_validate(_):
        from sklearn.model_selection import KFold

        scores = []
        for train, test in KFold(5, shuffle=True, random_state=0).split(X):
            mean = fit(train).predict(group_data_pred=groups[test], X_pred=X[test])["mu"]
            if workload.family == "gaussian":
                scores.append(1 - np.mean((y[test] - mean) ** 2) / np.var(y[test]))
            else:
                scores.append(np.mean((mean > 0.5) == y[test]))
        return np.array(scores)

    return fit, estimates, {"cross_validate": cross_validate}


def glmm(data, workload):
    """glmm with 25 points of quadrature, after scikit-learn, which a user of both imports."""
    import glmm
    import sklearn  # noqa: F401

    table = {f"x{k}": column for k, column in enumerate(data["columns"].T)}
    groups = {f"g{k}": column.astype(str) for k, column in enumerate(data["groups"].T)}
    formula = f"y ~ {' + '.join([*table, *(workload.term % g for g in groups)])}"
    table = table | groups | {"y": data["y"]}
    family = {"gaussian": {}, "bernoulli": {"family": "binomial", "nagq": 25}}[workload.family]

    def estimates(m):
        return np.sqrt(np.ravel(m.varcorr[0])[[0]])

    return lambda: glmm.fit(table, formula, **family), estimates, {}


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
    import pandas as pd

    from sklmm import HMC, Adam, Gaussian, MixedEffectsRegressor

    X = pd.DataFrame({f"g{k}": column for k, column in enumerate(data["groups"].T)})
    terms = list(X)
    X["x0"] = data["columns"][:, 0]
    model = MixedEffectsRegressor(
        terms,
        family=Gaussian(sigma=1.0),
        e_step=HMC(step_size=0.015, num_leapfrog_steps=3, n_chains=1, n_warmup=1000, n_steps=5),
        m_step=Adam(0.01),
        max_iter=1500,
        random_state=0,
    )
    return lambda: model.fit(X, data["y"]), sds, {}


SYSTEMS = {
    f.__name__.replace("_", "-"): f
    for f in (sklmm, in_memory, gpboost, glmm, statsmodels, tutorial)
}


def timed(task):
    """(wall and processor seconds, the result) of a task."""
    wall, cpu = time.perf_counter(), time.process_time()
    found = task()
    return (time.perf_counter() - wall, time.process_time() - cpu), found


def peak():
    """Largest resident memory of this process [GB], nan where the system does not tell."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(s.split()[1]) / 1e6 for s in lines if s.startswith("VmHWM")), float("nan"))


def work(system, workload, path):
    """{first, second, rest, memory, estimates}: rest is what all after the first task took."""
    data = path if Path(path).is_dir() else dict(np.load(path))
    fit, estimates, tasks = SYSTEMS[system](data, workload)
    task, model = tasks.get(workload.task), None
    if workload.task not in ("fit", "cross_validate", "loglik", "fit_parquet"):
        model = fit()
    run = (lambda: task(model)) if task and workload.task != "loglik" else fit
    first, found = timed(run)
    memory, many = peak(), []
    if workload.task == "loglik":
        spent, found = timed(lambda: task(found))
        many = [spent]
    elif workload.again and system != "tutorial":
        while sum(wall for wall, _ in many) < ENOUGH:
            many.append(timed(run)[0])
    values = np.ravel(found if task else estimates(found))
    values = values[np.isfinite(values)] if len(values) <= 10 else values[:0]
    return {
        "first": first,
        "second": np.median(many, axis=0).tolist() if many else None,
        "rest": np.sum(many, axis=0).tolist() if many else (0.0, 0.0),
        "memory": memory,
        "estimates": values.tolist(),
    }


if __name__ == "__main__":
    system, workload, table, tree = sys.argv[1:]
    # In the place of this script's folder.
    sys.path[0] = tree
    print("RESULT", json.dumps(work(system, SimpleNamespace(**json.loads(workload)), table)))
