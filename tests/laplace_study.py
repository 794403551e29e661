"""Laplace fits of simulated models against the best of other optimizers and starts.

    python -m tests.laplace_study [--models 300] [--seed 0] [--starts 2]

Poisson, logistic and negative binomial models of 1 to 4 terms (crossed, nested, with slopes), 5 to
500 levels, means from .1 to 1e5, some of them with variances of 0. Each fit is polished by SciPy's
BFGS on the same Laplace log-likelihood, from its own end and from perturbed and far starts. It
prints the fits that end more than 1e-3 below the best one found and say that they converged, and
the quantiles of the iterations and evaluations. Some twenty minutes on one core.
"""

import argparse
import time

import numpy as np
import pandas as pd
from scipy.optimize import minimize

from sklmm.engine.algorithms.laplace import Laplace
from tests.engine.latent.test_complete_data import make_latent

GAP = 1e-3
MOST = 200
FAMILIES = ("poisson", "bernoulli", "negative_binomial")


def levels(rng, n, J):
    """References to J levels, some with many more rows than others."""
    if rng.random() < 0.5:
        return rng.integers(J, size=n)
    share = 1 / np.arange(1, J + 1) ** rng.uniform(0.3, 1.0)
    return rng.choice(J, n, p=share / share.sum())


def simulated(seed):
    """(family, terms, table, y) of one model."""
    rng = np.random.default_rng([14, seed])
    family = FAMILIES[seed % 3]
    n_terms = 1 + seed // 3 % 4
    n = int(np.exp(rng.uniform(np.log(100), np.log(4000))))
    table = pd.DataFrame({"x": rng.normal(size=n)})
    eta, terms, names = 0.3 * table["x"].to_numpy(), [], []
    for k in range(n_terms):
        J = int(np.exp(rng.uniform(np.log(5), np.log(min(500, max(n // 3, 6))))))
        name = f"g{k}"
        if names and rng.random() < 0.3:
            # Nested in the last term.
            within = rng.integers(max(2, J // 10), size=n)
            table[name] = pd.factorize(table[names[-1]] * n + within)[0]
            J = int(table[name].max()) + 1
        else:
            table[name] = levels(rng, n, J)
        names.append(name)
        sd = 0.0 if rng.random() < 0.2 else np.exp(rng.uniform(np.log(0.1), np.log(1.5)))
        eta = eta + sd * rng.normal(size=J)[table[name]]
        kind = rng.random()
        if kind < 0.35:
            slope = 0.0 if rng.random() < 0.3 else np.exp(rng.uniform(np.log(0.1), np.log(0.8)))
            rho = rng.uniform(-1, 1)
            own = rho * rng.normal(size=J) + np.sqrt(1 - rho**2) * rng.normal(size=J)
            eta = eta + slope * own[table[name]] * table["x"].to_numpy()
            terms.append(f"(1 + x {'|' if kind < 0.2 else '||'} {name})")
        else:
            terms.append(name)
    if family == "bernoulli":
        return family, terms, table, (rng.random(n) < 1 / (1 + np.exp(-eta - rng.normal()))) * 1
    mean = np.exp(rng.uniform(np.log(0.1), np.log(1e5)))
    mu = mean * np.exp(np.clip(eta, -8, 8))
    if family == "negative_binomial":
        mu = mu * rng.gamma(5.0, 0.2, n) if rng.random() < 0.8 else mu
    return family, terms, table, rng.poisson(mu)


class Fit:
    """The fit of a model, its log-likelihood and the best one that BFGS finds."""

    def __init__(self, seed):
        family, terms, table, y = simulated(seed)
        self.label = f"{seed} {family} n={len(y)} mean={np.mean(y):.3g} {' '.join(terms)}"
        self.latent = make_latent(family, table, y, terms, direct=True)
        self.algorithm = Laplace(self.latent, 1e-3, 0)
        self.count = 0
        approximation = self.algorithm.approximation

        def counted(*args, **kwargs):
            self.count += 1
            return approximation(*args, **kwargs)

        self.algorithm.approximation = counted
        clock, steps = time.process_time(), self.algorithm.steps()
        for self.iterations in range(1, MOST + 1):
            last = next(steps)
            if last.done:
                break
        self.seconds = time.process_time() - clock
        self.evaluations, self.done = self.count, last.done
        self.start = self.latent.space.join(last.estimate)
        self.covariance = last.covariance
        self.loglik = self.value(self.start)[0]

    def value(self, flat):
        """(log-likelihood, gradient)."""
        theta = self.latent.space.split(flat)
        self.algorithm.mode = np.zeros(self.latent.layout.size)
        seen = self.algorithm.approximation(theta)
        return seen.loglik, seen.score

    def polished(self, start):
        """The best log-likelihood of BFGS, in units of the estimate's errors, from a start."""
        std = np.sqrt(np.maximum(np.diag(self.covariance), 0))
        std = np.where(std > 0, np.minimum(std, 1.0), 0.1)

        def minus(step):
            with np.errstate(all="ignore"):
                value, gradient = self.value(start + std * step)
            if not np.isfinite(value):
                return 1e12, np.zeros_like(gradient)
            return -value + self.loglik, -gradient * std

        try:
            found = minimize(
                minus,
                np.zeros(len(std)),
                jac=True,
                method="BFGS",
                options={"maxiter": 100, "gtol": 1e-3},
            )
        except (np.linalg.LinAlgError, ValueError):
            return -np.inf, start
        return -found.fun, start + std * found.x

    def gap(self, n_starts, rng):
        """How far BFGS ends above the fit, from its end and from other starts."""
        if n_starts < 0:
            return np.nan, self.start
        space, best = self.latent.space, [self.polished(self.start)]
        for k in range(n_starts):
            theta = space.split(self.start)
            factors = tuple(
                np.linalg.cholesky(L @ L.T * np.exp(rng.normal()) + np.eye(len(L)) * u**2)
                for L in theta.factors
                for u in [(0.05, 0.5)[k % 2] * np.exp(0.5 * rng.normal())]
            )
            raw = theta.raw + rng.normal(size=len(theta.raw))
            best.append(self.polished(space.join(theta._replace(factors=factors, raw=raw))))
        return max(best, key=lambda found: found[0])


def main():
    """Print the failures and the counts."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--starts", type=int, default=2, help="-1: the fits alone")
    options = parser.parse_args()
    rows = []
    for seed in range(options.seed, options.seed + options.models):
        fit = Fit(seed)
        gap, where = fit.gap(options.starts, np.random.default_rng([15, seed]))
        rows.append((fit.iterations, fit.evaluations, fit.seconds, fit.done, gap))
        word = "ok" if not gap > GAP else ("BAD" if fit.done else "told")
        print(
            f"{word} {fit.label}: {fit.iterations} iterations, {fit.evaluations} evaluations, "
            f"{fit.seconds:.2f} s, done {fit.done}, loglik {fit.loglik:.4f}, gap {gap:.2e}",
            flush=True,
        )
        if word != "ok":
            print("   ", fit.start.round(4), where.round(4), flush=True)
    table = pd.DataFrame(rows, columns=["iterations", "evaluations", "seconds", "done", "gap"])
    print(table.describe(percentiles=[0.5, 0.9, 0.99]).round(3).to_string())
    bad = (table["gap"] > GAP) & table["done"]
    print(
        f"converged {table['done'].sum()} of {len(table)}; told and lower "
        f"{((table['gap'] > GAP) & ~table['done']).sum()}; not told {bad.sum()}"
    )


if __name__ == "__main__":
    main()
