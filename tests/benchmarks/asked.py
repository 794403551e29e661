"""What a fitted model is asked about 10^6 rows: seconds, beside those of `predict`, and memory.

    python -m tests.benchmarks.asked [--rows 1e6] [--families gaussian bernoulli ...] [--tasks ...]
    python -m tests.benchmarks.asked --rows 1e4 --families poisson gamma tweedie zip \
        --tasks interval interval-new

A table of crossed factors of rows / 50 and rows / 125 levels is fitted once a family, and the tasks
take turns in this process, three times: the table has medians, processor's seconds, their ratio to
the task they are measured by, and what the peak of the process's memory rose by. Where the machine
is not alone, the ratios of the processor's seconds are what to read.
"""

import argparse
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.special import expit

from sklmm import MixedEffectsRegressor


class Task(NamedTuple):
    """A function of (model, X, y) and the name of the one that it is measured by."""

    run: object
    by: str | None = None


def new(X, *groups):
    """The rows with levels that the fit had not."""
    return X.assign(**{g: -1 - X[g] for g in groups})


TASKS = {
    "predict-known": Task(lambda m, X, y: m.predict(X)),
    "predict-one-new": Task(lambda m, X, y: m.predict(new(X, "g")), "predict-known"),
    "predict-new": Task(lambda m, X, y: m.predict(new(X, "g", "h")), "predict-known"),
    "left-out": Task(lambda m, X, y: m.predict(X, include_random=False), "predict-known"),
    "std-known": Task(lambda m, X, y: m.predict(X, return_std=True), "predict-known"),
    "std-new": Task(lambda m, X, y: m.predict(new(X, "g", "h"), return_std=True), "std-known"),
    "interval": Task(lambda m, X, y: m.predict_interval(X), "std-known"),
    "interval-new": Task(lambda m, X, y: m.predict_interval(new(X, "g", "h")), "std-known"),
    "residuals": Task(lambda m, X, y: m.quantile_residuals(X, y, random_state=0), "std-known"),
    "residuals-averaged": Task(
        lambda m, X, y: m.quantile_residuals(X, y, conditional=False, random_state=0), "std-known"
    ),
    "means": Task(lambda m, X, y: m.marginal_means("x", X, at={"x": [-1, 1]}), "std-known"),
    "check": Task(lambda m, X, y: m.check(X, y, random_state=0), "std-known"),
}


def table(n_rows, family):
    """(X, y) of two crossed factors."""
    rng = np.random.default_rng(0)
    levels = n_rows // 50, n_rows // 125
    X = pd.DataFrame({g: rng.integers(n, size=n_rows) for g, n in zip("gh", levels, strict=True)})
    X["x"] = rng.standard_normal(n_rows)
    eta = 0.3 + 0.5 * X["x"].to_numpy()
    for g, n, sd in zip("gh", levels, (1.0, 0.5), strict=True):
        eta += sd * rng.standard_normal(n)[X[g]]
    return X, RESPONSES[family](eta, rng)


def tweedie(eta, rng):
    """Sums of numbers of exponential jumps, by their power 1.5."""
    return rng.gamma(np.maximum(rng.poisson(np.exp(eta)), 1e-12)).round(9)


def zip_(eta, rng):
    """Counts, a third of them 0."""
    return np.where(rng.random(len(eta)) < 1 / 3, 0, rng.poisson(np.exp(eta)))


#: y by its predictor; Poisson's are counts of thousands, whose distribution is steep.
RESPONSES = {
    "gaussian": lambda eta, rng: eta + rng.standard_normal(len(eta)),
    "bernoulli": lambda eta, rng: (rng.random(len(eta)) < expit(eta)).astype(float),
    "poisson": lambda eta, rng: rng.poisson(np.exp(eta + 7)),
    "gamma": lambda eta, rng: rng.gamma(2.0, np.exp(eta) / 2),
    "tweedie": tweedie,
    "zip": zip_,
}
#: Zeros with effects of their own.
ZIP = {"family": "poisson", "zero_inflation": "~ (1 | g)"}


def peak(since_now=False):
    """Peak of this process's memory [GB], nan where the system does not tell."""
    if since_now and (kept := Path("/proc/self/clear_refs")).exists():
        kept.write_text("5")
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(s.split()[1]) / 1e6 for s in lines if s.startswith("VmHWM")), float("nan"))


def measured(family, n_rows, names):
    """{name: (seconds, processor's seconds, GB)} of the tasks."""
    X, y = table(n_rows, family)
    e_step = "auto" if family == "gaussian" else "laplace"
    given = ZIP if family == "zip" else {"family": family}
    model = MixedEffectsRegressor(["g", "h"], e_step=e_step, random_state=0, **given)
    model.fit(X, y)
    found = {name: [] for name in names}
    for _ in range(3):
        for name, runs in found.items():
            before = peak(since_now=True)
            wall, cpu = time.perf_counter(), time.process_time()
            TASKS[name].run(model, X, y)
            spent = time.perf_counter() - wall, time.process_time() - cpu
            runs.append((*spent, peak() - before))
    return {name: np.median(runs, axis=0) for name, runs in found.items()}


def main():
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=float, default=1e6)
    parser.add_argument(
        "--families", nargs="+", default=["gaussian", "bernoulli"], choices=list(RESPONSES)
    )
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    options = parser.parse_args()
    # What others are measured by.
    names = dict.fromkeys([*(TASKS[n].by for n in options.tasks if TASKS[n].by), *options.tasks])
    print("| family | task | s | cpu s | ratio | cpu ratio | GB more |")
    print("|---|---|---|---|---|---|---|")
    for family in options.families:
        found = measured(family, int(options.rows), names)
        for name, (wall, cpu, memory) in found.items():
            base = found.get(TASKS[name].by, (wall, cpu))
            ratios = [a / b for a, b in zip((wall, cpu), base, strict=False)]
            cells = f"{wall:.2f} | {cpu:.2f} | {ratios[0]:.2f} | {ratios[1]:.2f} | {memory:.2f}"
            print(f"| {family} | {name} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
