"""Coverage of intervals and bias of estimates, over simulated sets.

    python -m tests.coverage

It prints two tables of docs/accuracy.md, by covariance of the effects and by response, in some
minutes on two cores.
"""

from typing import NamedTuple

import joblib
import numpy as np
import pandas as pd
from scipy import sparse

from sklmm import MixedEffectsRegressor, RandomEffect, Relationship
from tests.coverage_of_responses import MODELS
from tests.studies import asked

N_SETS = 200
#: Where factors cross, which Monte Carlo EM fits.
CROSSED_SETS = 50
N_GROUPS, N_PLACES, N_TIMES, SIGMA = 100, 4, 2, 0.8
INTERCEPT, COEF, HERD = 0.5, 0.3, 0.5
LAGS = np.abs(np.subtract.outer(np.arange(N_PLACES), np.arange(N_PLACES)))
SDS = np.array([1.0, 1.3, 0.8, 1.1])
PHI, CORR = 0.6, 0.4
TOEPLITZ = np.array([1.0, 0.6, 0.3, 0.2])
TIMES = np.array([0.0, 0.7, 1.5, 4.0])
#: Of the unstructured one.
ANY = np.outer(SDS, SDS) * PHI**LAGS


class Case(NamedTuple):
    """A term, the covariance [r, r] of its effects, and its parameters by name."""

    term: str
    cov: np.ndarray
    truth: dict

    def simulate(self, rng):
        """(X, y): groups with effects at each place, some rows each, a fifth of them missing."""
        n = N_GROUPS * N_PLACES * N_TIMES
        g, place = np.divmod(np.repeat(np.arange(n // N_TIMES), N_TIMES), N_PLACES)
        b = rng.normal(size=(N_GROUPS, N_PLACES)) @ np.linalg.cholesky(self.cov).T
        X = pd.DataFrame(
            {
                "g": g,
                "f": pd.Categorical(place),
                "t": place,
                "u": TIMES[place],
                "x": rng.normal(size=n),
            }
        )
        y = INTERCEPT + COEF * X["x"] + b[g, place] + rng.normal(0, SIGMA, n)
        seen = rng.uniform(size=n) < 0.8
        return X[seen], y[seen]

    def fit(self, seed):
        """Intervals and estimates of a set, a table."""
        X, y = self.simulate(np.random.default_rng(seed))
        model = MixedEffectsRegressor([self.term], fixed_effects=["x"]).fit(X, y)
        values = np.append(model.fixed_effects_["estimate"], model.result_.natural)
        return model.conf_int().assign(estimate=values)


class Kin(NamedTuple):
    """Levels of a `Relationship`, in herds, with coefficients of a covariance [r, r]."""

    relationship: Relationship
    cov: np.ndarray
    truth: dict

    def fit(self, seed):
        """As `Case.fit`: three rows a level on average, of most levels."""
        rng, J, r = np.random.default_rng(seed), self.relationship.n_levels, len(self.cov)
        n = 3 * J
        X = pd.DataFrame({"a": rng.integers(J // 5, J, n), "herd": rng.integers(20, size=n)})
        X["x"] = rng.normal(size=n)
        b = self.relationship.back(rng.normal(size=(J, r))) @ np.linalg.cholesky(self.cov).T
        z = np.column_stack([np.ones(n), X["x"]])[:, :r]
        y = INTERCEPT + COEF * X["x"] + (z * b[X["a"]]).sum(axis=1) + rng.normal(0, SIGMA, n)
        y += rng.normal(0, HERD, 20)[X["herd"]]
        term = RandomEffect("a", slopes=["x"][: r - 1], covariance=self.relationship)
        model = MixedEffectsRegressor([term, "herd"], fixed_effects=["x"]).fit(X, y)
        values = np.append(model.fixed_effects_["estimate"], model.result_.natural)
        return model.conf_int().assign(estimate=values)


class Tied(NamedTuple):
    """Rows of two of 80 levels each, by shares, with coefficients of a covariance [r, r]."""

    cov: np.ndarray
    truth: dict

    def fit(self, seed):
        """As `Case.fit`: 400 rows."""
        rng, J, n, r = np.random.default_rng(seed), 80, 400, len(self.cov)
        levels, share = rng.integers(J, size=(n, 2)), rng.uniform(0.1, 0.9, n)
        X = pd.DataFrame({"one": levels[:, 0], "two": levels[:, 1], "w1": share, "w2": 1 - share})
        X["x"] = rng.normal(size=n)
        b = rng.normal(size=(J, r)) @ np.linalg.cholesky(self.cov).T
        z = np.column_stack([np.ones(n), X["x"]])[:, :r]
        y = INTERCEPT + COEF * X["x"] + rng.normal(0, SIGMA, n)
        for weight, own in zip((share, 1 - share), levels.T, strict=True):
            y += weight * (z * b[own]).sum(axis=1)
        term = RandomEffect(["one", "two"], slopes=["x"][: r - 1], weights=["w1", "w2"])
        model = MixedEffectsRegressor([term], fixed_effects=["x"]).fit(X, y)
        values = np.append(model.fixed_effects_["estimate"], model.result_.natural)
        return model.conf_int().assign(estimate=values)


def pedigree(n=200, seed=0):
    """The relationship of generations of 40."""
    rng, parents = np.random.default_rng(seed), np.zeros((n, 2), int)
    for i in range(40, n):
        before = 40 * (i // 40 - 1)
        parents[i] = rng.integers(before, before + 8) + 1, rng.integers(before + 8, before + 40) + 1
    frame = pd.DataFrame({"id": np.arange(1, n + 1), "sire": parents[:, 0], "dam": parents[:, 1]})
    found = Relationship.from_pedigree(frame)
    return Relationship(found.matrix, labels=range(n), kind="precision")


def lattice(side=14, rho=0.95):
    """That of a conditional autoregression."""
    path = sparse.diags_array(np.ones(2), offsets=[-1, 1], shape=(side, side))
    W = sparse.kron(path, sparse.eye_array(side)) + sparse.kron(sparse.eye_array(side), path)
    Q = sparse.diags_array(W.sum(axis=1)) - rho * W
    return Relationship(Q, labels=range(side**2), kind="precision")


def _values(name, cov):
    """SDs and the correlation of an intercept and a slope, or the SD of an intercept."""
    sds = zip(("Intercept", "x"), np.sqrt(np.diag(cov)), strict=False)
    values = {f"sd({name}, {own})": sd for own, sd in sds}
    if len(cov) > 1:
        values[f"corr({name}, Intercept, x)"] = cov[0, 1] / np.sqrt(cov[0, 0] * cov[1, 1])
    return values


def _kin(relationship, cov):
    cov, fixed = np.array(cov), {"Intercept": INTERCEPT, "x": COEF}
    truth = fixed | _values("a", cov) | {"sd(herd, Intercept)": HERD, "sigma": SIGMA}
    return Kin(relationship, cov, truth)


def _tied(cov):
    cov, fixed = np.array(cov), {"Intercept": INTERCEPT, "x": COEF}
    return Tied(cov, fixed | _values("mm(one, two)", cov) | {"sigma": SIGMA})


def _case(term, cov, sds, corrs):
    names = {f"sd(g, {name})": value for name, value in sds.items()}
    names |= {f"corr(g, {name})": value for name, value in corrs.items()}
    return Case(term, cov, {"Intercept": INTERCEPT, "x": COEF, **names, "sigma": SIGMA})


def _each(sds):
    return {f"f[{place}]": sd for place, sd in enumerate(sds)}


def _pairs(matrix):
    return {f"f[{j}], f[{i}]": matrix[i, j] for i in range(N_PLACES) for j in range(i)}


CASES = {
    "us": _case("us(0 + f | g)", ANY, _each(SDS), _pairs(PHI**LAGS)),
    "diag": _case("diag(0 + f | g)", np.diag(SDS**2), _each(SDS), {}),
    "diag, homogeneous": _case("diag(0 + f | g, hom=TRUE)", np.eye(N_PLACES), {"f": 1.0}, {}),
    "cs": _case(
        "cs(0 + f | g)",
        np.outer(SDS, SDS) * np.where(LAGS == 0, 1, CORR),
        _each(SDS),
        {"f: any two": CORR},
    ),
    "cs, homogeneous": _case(
        "cs(0 + f | g, hom=TRUE)",
        np.where(LAGS == 0, 1, CORR),
        {"f": 1.0},
        {"f: any two": CORR},
    ),
    "ar1": _case("ar1(0 + t | g)", PHI**LAGS, {"t": 1.0}, {"t: phi (1 apart)": PHI}),
    "ar1, unequal times": _case(
        "ar1(0 + u | g)",
        PHI ** np.abs(np.subtract.outer(TIMES, TIMES)),
        {"u": 1.0},
        {"u: phi (0.7 apart)": PHI**0.7},
    ),
    "toep": _case(
        "toep(0 + f | g)",
        np.outer(SDS, SDS) * TOEPLITZ[LAGS],
        _each(SDS),
        {f"f: lag {k}": TOEPLITZ[k] for k in range(1, N_PLACES)},
    ),
    "pedigree": _kin(pedigree(), [[1.0]]),
    "pedigree, slopes": _kin(pedigree(), [[1.0, 0.3], [0.3, 0.5]]),
    "CAR": _kin(lattice(), [[1.0]]),
    "memberships": _tied([[1.0]]),
    "memberships, slopes": _tied([[1.0, 0.3], [0.3, 0.5]]),
}


def study(case, n_sets=N_SETS, n_jobs=2):
    """(coverage of 95 % intervals, bias in Monte Carlo errors) of a case, two Series by parameter.

    A case has `fit`, from a seed the `conf_int` of a set and the estimates, and `truth`.
    """
    tables = joblib.Parallel(n_jobs)(joblib.delayed(case.fit)(seed) for seed in range(n_sets))
    truth = pd.Series(case.truth)
    tables = [table.loc[truth.index] for table in tables]
    covered = [(own["lower"] <= truth) & (truth <= own["upper"]) for own in tables]
    errors = pd.DataFrame([own["estimate"] - truth for own in tables])
    return pd.DataFrame(covered).mean(), errors.mean() / (errors.std() / np.sqrt(n_sets))


def covariances(cases, n_sets):
    """Rows of the table by covariance."""
    for name, case in cases.items():
        covered, bias = study(case, n_sets)
        yield {
            "covariance": name,
            "parameters": len(covered),
            "coverage": f"{100 * covered.mean():.1f} %",
            "least": f"{100 * covered.min():.1f} %",
            "most": f"{100 * covered.max():.1f} %",
            "largest bias": f"{bias.abs().max():.1f}",
        }


def responses(models, n_sets):
    """Rows of the table by response: coefficients of all parts, and apart from them all else."""
    for name, model in models.items():
        own = min(n_sets, CROSSED_SETS) if model.crossed else n_sets
        covered, bias = study(model, own)
        row = {"response": name, "sets": own}
        apart = covered.index.isin(model.apart)
        for kind, some in (("coefficients", ~apart), ("SDs, parameters", apart)):
            row[kind] = some.sum()
            row[f"{kind}: coverage"] = f"{100 * covered[some].mean():.1f} %"
            row[f"{kind}: least"] = f"{100 * covered[some].min():.1f} %"
            # With its sign.
            row[f"{kind}: bias"] = f"{bias[some][bias[some].abs().idxmax()]:+.1f}"
        yield row


def main():
    chosen, n_sets = asked(__doc__, {**CASES, **MODELS}, N_SETS)
    for table, cases in ((covariances, CASES), (responses, MODELS)):
        own = {name: cases[name] for name in chosen if name in cases}
        for i, row in enumerate(table(own, n_sets)):
            if i == 0:
                print(f"| {' | '.join(row)} |\n|{'---|' * len(row)}")
            print(f"| {' | '.join(map(str, row.values()))} |", flush=True)


if __name__ == "__main__":
    main()
