"""Influence by group beside fits without each group: seconds, their ratio, and the order.

    python -m tests.benchmarks.influence [--cases sleepstudy departments ...] [--fits 100]

Of many groups no more than so many, drawn at random, are left out in fits, whose seconds are scaled
up. Both take turns in this process, three times: the table has medians, processor's seconds, the
rank correlation of Cook's distances with those of the fits, and the ratio of the largest tenth of
changes (the roots) to theirs, its median and range. Where the machine is not alone, the ratio of
the processor's seconds is what to read.
"""

import argparse
import time

import numpy as np
import pandas as pd
from scipy.special import expit
from scipy.stats import spearmanr
from sklearn.base import clone

from sklmm import MixedEffectsClassifier, MixedEffectsRegressor
from sklmm.datasets import load_insteval, load_sleepstudy

TERMS = ["students", "instructors", "departments"]


def simulated(family, n_groups, n, crossed=0, binary=False, **parts):
    """(Model, X, y, by) of groups of n rows, with another factor of so many levels."""
    rng, groups = np.random.default_rng(0), np.repeat(np.arange(n_groups), n)
    X = pd.DataFrame({"x": rng.normal(size=len(groups)), "g": groups})
    X["x"] += 0.5 * rng.normal(size=n_groups)[groups]
    eta, terms = 0.3 + 0.5 * X["x"] + 0.5 * rng.normal(size=n_groups)[groups], ["g"]
    if crossed:
        X["h"], terms = rng.integers(crossed, size=len(X)), ["g", "h"]
        eta += 0.5 * rng.normal(size=crossed)[X["h"]]
    if binary:
        model = MixedEffectsClassifier(terms, fixed_effects=["x"], e_step="laplace")
        return model, X, rng.random(len(X)) < expit(eta), "g"
    model = MixedEffectsRegressor(terms, fixed_effects=["x"], family=family, e_step="laplace")
    y = rng.poisson(np.exp(eta)) if family == "poisson" else np.exp(eta) * rng.gamma(2, 0.5, len(X))
    if parts:
        y = y * (rng.random(len(X)) > 0.3)
    return model.set_params(**parts), X, pd.Series(y), "g"


def insteval(by, binary=False):
    """The same of InstEval, or of its ratings of 4 and 5."""
    X, y = load_insteval(return_X_y=True, as_frame=True)
    if binary:
        model = MixedEffectsClassifier(TERMS, fixed_effects=["service"], e_step="laplace")
        return model, X, y >= 4, by
    return MixedEffectsRegressor(TERMS, fixed_effects=["service"]), X, y, by


def sleepstudy():
    """The same of sleepstudy."""
    X, y = load_sleepstudy(return_X_y=True, as_frame=True)
    return MixedEffectsRegressor(["(1 + Days | Subject)"]), X, y, "Subject"


CASES = {
    "sleepstudy": sleepstudy,
    "logistic, 100 of 8": lambda: simulated(None, 100, 8, binary=True),
    "logistic, 100 of 20": lambda: simulated(None, 100, 20, binary=True),
    "logistic, crossed": lambda: simulated(None, 40, 12, 10, binary=True),
    "counts, crossed": lambda: simulated("poisson", 40, 12, 10),
    "counts with zeros ~ x": lambda: simulated("poisson", 60, 5, zero_inflation="~ x"),
    "gamma by inverse Gaussian": lambda: simulated("inverse_gaussian", 60, 10),
    "gamma by lognormal_mean": lambda: simulated("lognormal_mean", 60, 10),
    "departments": lambda: insteval("departments"),
    "instructors": lambda: insteval("instructors"),
    "students": lambda: insteval("students"),
    "departments, logistic": lambda: insteval("departments", binary=True),
}


def fits_without(model, X, y, groups, labels):
    """Coefficients [m, p] of fits without each of some groups."""
    fits = (clone(model).fit(X[groups != label], y[groups != label]) for label in labels)
    return np.array([np.concatenate([[fit.intercept_], fit.coef_]) for fit in fits])


def measured(case, n_fits):
    """A row of the table."""
    model, X, y, by = CASES[case]()
    model.fit(X, y)
    groups = X[by].to_numpy()
    labels = np.unique(groups)
    some = np.random.default_rng(0).permutation(labels)[:n_fits]
    spent = {"fits": [], "influence": []}
    for _ in range(3):
        start = time.process_time()
        table = model.influence(X, y, by=by)
        between = time.process_time()
        without = fits_without(model, X, y, groups, some)
        spent["influence"].append(between - start)
        spent["fits"].append((time.process_time() - between) * len(labels) / len(some))
    change = np.concatenate([[model.intercept_], model.coef_]) - without
    p = change.shape[1]
    inverse = np.linalg.inv(model.result_.coef_cov[:p, :p])
    want = np.einsum("mp,pq,mq->m", change, inverse, change) / p
    found = table.loc[some, "cooks_distance"].to_numpy()
    largest = np.argsort(want)[-max(len(want) // 10, 1) :]
    ratio = np.sqrt(found[largest] / want[largest])
    fits, own = np.median(spent["fits"]), np.median(spent["influence"])
    return {
        "case": case,
        "groups": len(labels),
        "fits": f"{fits:.3g}",
        "influence": f"{own:.2g}",
        "share": f"1/{fits / own:.0f}",
        "rank": f"{spearmanr(found, want)[0]:.4f}",
        "largest": f"{np.median(ratio):.2f} ({ratio.min():.2f} - {ratio.max():.2f})",
    }


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--fits", type=int, default=100)
    given = parser.parse_args()
    for i, case in enumerate(given.cases):
        row = measured(case, given.fits)
        if i == 0:
            print(*row, sep="\t")
        print(*row.values(), sep="\t", flush=True)


if __name__ == "__main__":
    main()
