"""What is timed: a table, its response's kind, and the systems that can fit it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

SLOPES = "(1 + x0 | %s)"
MIXED = ("sklmm", "gpboost", "lme4", "glmmtmb")


@dataclass(frozen=True)
class Workload:
    """A table [groups, columns, y] by `load`; `task` is fit, predict or cross_validate.

    `term` is that of every grouping column %s.
    """

    name: str
    load: object
    systems: tuple = ("sklmm", "gpboost")
    family: str = "gaussian"
    task: str = "fit"
    term: str = "(1 | %s)"

    def write(self, folder):
        """data.npz for Python's systems, data.csv for R's where one takes part."""
        groups, columns, y = self.load()
        path = Path(folder)
        np.savez(path / "data.npz", groups=groups, columns=columns, y=y)
        if set(self.systems) & {"lme4", "glmmtmb"}:
            frame = pd.DataFrame(groups, columns=[f"g{k}" for k in range(groups.shape[1])])
            for k in range(columns.shape[1]):
                frame[f"x{k}"] = columns[:, k]
            frame.assign(y=y).to_csv(path / "data.csv", index=False)


def _insteval(threshold=None):
    from sklmm.datasets import load_insteval

    X, y = load_insteval(return_X_y=True, as_frame=True)
    groups = X[["students", "instructors", "departments"]].to_numpy().astype(np.int32)
    y = y.to_numpy(float)
    y = y if threshold is None else (y >= threshold).astype(float)
    return groups, X[["service"]].to_numpy(float), y


def _crossed(n_rows, n_levels):
    from sklmm.datasets import make_crossed

    X, y, _ = make_crossed(n_rows, n_levels, random_state=0)
    return X[["g0", "g1"]].to_numpy(), X[["x0"]].to_numpy(), y


def _nested():
    """500 / 10,000 / 100,000 levels in 10^6 rows."""
    rng = np.random.default_rng(0)
    cask = rng.integers(0, 100_000, 10**6).astype(np.int32)
    groups = np.column_stack([cask // 200, cask // 10, cask])
    x = rng.normal(size=(len(cask), 1))
    y = 2 + 0.5 * x[:, 0] + rng.normal(size=len(cask))
    for refs, sd in zip(groups.T, (0.8, 0.6, 0.5), strict=True):
        y += rng.normal(0, sd, refs.max() + 1)[refs]
    return groups, x, y


def _slopes():
    """Intercepts and slopes of 20,000 levels in 200,000 rows, independent of each other."""
    rng = np.random.default_rng(0)
    group = rng.integers(0, 20_000, 200_000).astype(np.int32)
    x = rng.normal(size=(len(group), 1))
    intercepts, slopes = rng.normal(0, [[0.8], [0.5]], (2, 20_000))
    y = 2 + intercepts[group] + (0.5 + slopes[group]) * x[:, 0] + rng.normal(size=len(group))
    return group[:, None], x, y


def _sleepstudy():
    from sklmm.datasets import load_sleepstudy

    X, y = load_sleepstudy(return_X_y=True, as_frame=True)
    subjects = pd.factorize(X["Subject"])[0].astype(np.int32)
    return subjects[:, None], X[["Days"]].to_numpy(float), np.asarray(y, float)


def _sized(rows, levels):
    return lambda: _crossed(rows, levels)


WORKLOADS = {
    w.name: w
    for w in [
        Workload("sleepstudy", _sleepstudy, ("sklmm", "lme4", "statsmodels"), term=SLOPES),
        Workload("insteval", _insteval, (*MIXED, "tutorial")),
        Workload("insteval-cv", _insteval, ("sklmm", "gpboost"), task="cross_validate"),
        Workload("insteval-logistic", lambda: _insteval(4), ("sklmm", "gpboost"), "bernoulli"),
        Workload("insteval-ordinal", _insteval, ("sklmm",), "ordinal"),
        Workload("crossed-1e5", _sized(10**5, (2_000, 800))),
        Workload("crossed-1e6", _sized(10**6, (20_000, 8_000))),
        Workload("crossed-1e7", _sized(10**7, (60_000, 20_000))),
        Workload("crossed-3.2e7", _sized(32_000_000, (200_948, 84_432)), ("sklmm",)),
        Workload("nested-1e6", _nested),
        Workload("slopes-2e5", _slopes, ("sklmm", "lme4"), term=SLOPES),
        Workload("slopes-apart-2e5", _slopes, ("sklmm", "lme4"), term="(1 + x0 || %s)"),
        Workload("predict-1e6", _sized(10**6, (20_000, 8_000)), ("sklmm",), task="predict"),
    ]
}
