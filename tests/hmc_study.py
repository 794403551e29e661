"""Monte Carlo EM by either sampler over simulated models, beside quadrature or Laplace.

    python -m tests.hmc_study [--models 60] [--seeds 2] [--seed 0] [--samplers numpy tensorflow]

Poisson, logistic and negative binomial models, means from .1 to 1e5. Of one term the truth is
adaptive quadrature, written apart from the library's. Of two or three crossed terms with many
events a level it is the Laplace approximation, which is exact there. It prints each fit, and of
each sampler the quantiles of its standard errors over the right ones and of its estimates' distance
to the right ones, in their Monte Carlo errors. Some twenty minutes on one core.
"""

import argparse
import time
import warnings
from itertools import product

import numpy as np
import pandas as pd

from sklmm import HMC, MixedEffectsRegressor
from tests.quadrature import Model

FAMILIES = ("poisson", "bernoulli", "negative_binomial")
SAMPLERS = {"numpy": HMC(backend="numpy"), "tensorflow": "hmc"}


def simulated(seed):
    """(family, number of terms, table, y) of one model."""
    rng = np.random.default_rng([16, seed])
    family = FAMILIES[seed % 3]
    n_terms = 1 if seed % 2 == 0 or family == "bernoulli" else int(rng.integers(2, 4))
    n = int(rng.choice([300, 600, 1200]))
    table = pd.DataFrame({"x": rng.normal(size=n)})
    eta = 0.3 * table["x"].to_numpy()
    for k in range(n_terms):
        J = int(rng.choice([12, 25, 50]))
        table[f"g{k}"] = rng.permutation(np.arange(n) % J)
        eta = eta + rng.choice([0.3, 0.6, 1.0]) * rng.normal(size=J)[table[f"g{k}"]]
    if family == "bernoulli":
        return family, n_terms, table, (rng.random(n) < 1 / (1 + np.exp(-eta - rng.normal()))) * 1.0
    least = np.log(0.1 if n_terms == 1 else 300)
    mu = np.exp(rng.uniform(least, np.log(1e5)) + eta)
    if family == "negative_binomial":
        dispersion = 0.3 if n_terms == 1 else 0.01
        mu = mu * rng.gamma(1 / dispersion, dispersion, n)
    return family, n_terms, table, rng.poisson(mu).astype(float)


def errors(model):
    """Standard errors of the coefficients and of the SDs."""
    return np.concatenate(
        [model.fixed_effects_["std_error"], model.variance_components_["std_error"]]
    )


def fitted(table, y, family, n_terms, **parameters):
    """The fit of a simulated model."""
    terms = [f"g{k}" for k in range(n_terms)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return MixedEffectsRegressor(terms, family=family, **parameters).fit(table, y)


def right(family, n_terms, table, y):
    """(standard errors, estimates) of the coefficients and the SDs."""
    laplace = fitted(table, y, family, n_terms, e_step="laplace")
    coef = laplace.fixed_effects_["estimate"].to_numpy()
    sds = laplace.variance_components_["sd"].to_numpy()
    if n_terms > 1:
        return errors(laplace), np.concatenate([coef, sds])
    X = np.column_stack([np.ones(len(y)), table["x"]])
    phi = list(laplace.family_params_.values())
    start = [*coef, max(sds[0], 0.05), *phi]
    found = Model(family, X, table["g0"], y).fit(start)
    return found.std_error, np.append(found.coef, found.sd)


def compared(model, std, estimates, n_terms):
    """Standard errors over the right ones, and the largest distance in Monte Carlo errors."""
    sds = model.variance_components_["sd"].to_numpy()[:n_terms]
    ours = np.concatenate([model.fixed_effects_["estimate"], sds])
    k = len(estimates)
    return errors(model)[: len(std)] / std, np.max(
        np.abs(ours[:k] - estimates) / model.mc_error_.to_numpy()[:k]
    )


def main():
    """Print the fits and the quantiles."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--samplers", nargs="+", choices=SAMPLERS, default=list(SAMPLERS))
    options = parser.parse_args()
    rows = []
    for number in range(options.seed, options.seed + options.models):
        family, n_terms, table, y = simulated(number)
        label = f"{number} {family} terms={n_terms} n={len(y)} mean={y.mean():.3g}"
        std, estimates = right(family, n_terms, table, y)
        for sampler, seed in product(options.samplers, range(options.seeds)):
            clock = time.process_time()
            e_step = SAMPLERS[sampler]
            model = fitted(table, y, family, n_terms, e_step=e_step, random_state=seed)
            status = model.result_.status.name
            line = f"{label} {sampler} seed={seed}: {status} after {model.n_iter_}"
            if status == "SINGULAR":
                print(line, flush=True)
                continue
            ratio, away = compared(model, std, estimates, n_terms)
            rows.append((sampler, status, np.nanmin(ratio), np.nanmax(ratio), away))
            print(
                f"{line}, standard errors x {np.round(ratio, 3).tolist()}, estimates off by "
                f"{away:.1f} Monte Carlo errors, {time.process_time() - clock:.1f} s",
                flush=True,
            )
    table = pd.DataFrame(rows, columns=["sampler", "status", "least", "most", "off"])
    print(table.groupby(["sampler", "status"]).size().to_string())
    for sampler, good in table[table["status"] == "CONVERGED_MC"].groupby("sampler"):
        print(sampler)
        print(good[["least", "most", "off"]].describe(percentiles=[0.05, 0.5, 0.95]).round(3))
        bad = (good["least"] < 0.9) | (good["most"] > 1.1)
        print(f"of {len(good)} that converged {bad.sum()} have a standard error off by over 10 %")


if __name__ == "__main__":
    main()
