"""Fit the published data sets and simulations beside the truth, and write docs/accuracy.md.

    python -m tests.accuracy

It takes some ten minutes on two cores. The tests assert the same within bounds.
"""

import argparse
from pathlib import Path

import numpy as np

from sklmm import HMC, MixedEffectsRegressor, __version__
from sklmm.datasets import load_insteval
from tests import coverage
from tests.published import (
    MODELS,
    QUADRATURE,
    answers,
    fitted,
    fixed,
    gaussian_fit,
    gaussian_tables,
    lme4_sds,
)
from tests.simulate import PARAMETERS, coverage_and_bias

TERMS = ["students", "instructors", "departments"]
SEEDS = range(5)
SAMPLERS = {"NumPy": HMC(backend="numpy"), "TensorFlow": "hmc"}
N_SETS = 40


def against_lme4(name, method, model, answer):
    """A row: how far our estimates are from lme4's."""
    table = model.fixed_effects_
    ours = model.variance_components_["sd"].dropna().to_numpy()
    theirs = np.append(lme4_sds(answer), answer["sigma"])
    coef, std = (np.array(list(answer[key].values())) for key in ("fixef", "fixef_se"))
    return {
        "model": name,
        "method": method,
        "SDs": f"{np.max(np.abs(ours - theirs)) / min(theirs[theirs > 0]):.1e}",
        "coefficients": f"{np.max(np.abs(table['estimate'] - coef) / std):.1e}",
        # InstEval's are those of ML in either entry.
        "standard errors": ""
        if "note" in answer
        else f"{np.max(np.abs(table['std_error'] / std - 1)):.1e}",
        "logLik": f"{model.loglik_ - answer['logLik']:+.1e}",
    }


def gaussian_rows():
    """One a model of lme4's and a method."""
    reference, tables = answers(), gaussian_tables()
    insteval = load_insteval(return_X_y=True, as_frame=True)
    for method in ("reml", "ml"):
        for name in MODELS:
            model = gaussian_fit(name, method, tables)
            yield against_lme4(name, method, model, reference[f"{name}_{method}"])
        model = MixedEffectsRegressor(TERMS, fixed_effects=["service"], method=method)
        model.fit(*insteval)
        yield against_lme4("insteval", method, model, reference[f"insteval_{method}"])


def quadrature_rows():
    """One a parameter of the generalized models: the truth, and ours by each way."""
    reference = answers()
    for name, keys in QUADRATURE.items():
        coef, _, sd = fixed(reference[keys[0]])
        truth, exact = np.append(coef, sd), fitted(name, e_step="quadrature")
        std = np.append(
            exact.fixed_effects_.loc[coef.index, "std_error"],
            exact.variance_components_["std_error"].iloc[0],
        )
        found = {"quadrature": [estimates(exact, coef)]}
        for sampler, e_step in SAMPLERS.items():
            fits = [fitted(name, e_step=e_step, random_state=seed) for seed in SEEDS]
            found[sampler] = [estimates(model, coef) for model in fits]
        found["Laplace"] = [estimates(fitted(name, e_step="laplace"), coef)]
        off = {way: np.abs(np.array(ours) - truth) / std for way, ours in found.items()}
        for k, parameter in enumerate([*coef.index, "SD"]):
            row = {"data": name, "parameter": parameter, "truth": f"{truth[k]:.3f}"}
            for way, ours in found.items():
                ends = [min(point[k] for point in ours), max(point[k] for point in ours)]
                row[way] = " to ".join(dict.fromkeys(f"{value:.3f}" for value in ends))
                row[f"{way} off by"] = f"{off[way][:, k].max():.1e}"
            yield row


def estimates(model, coef):
    """Coefficients named as those of `coef`, and the SD."""
    sd = model.variance_components_["sd"].iloc[0]
    return np.append(model.fixed_effects_.loc[coef.index, "estimate"], sd)


def simulation_rows():
    """One a family: coverage of 95 % intervals and the largest bias over its parameters."""
    for name in PARAMETERS:
        covered, bias = coverage_and_bias(name, N_SETS)
        yield {
            "family": name,
            "parameters": len(bias),
            "coverage": f"{covered.mean():.3f}",
            "largest bias": f"{bias.abs().max():.2f}",
        }


def markdown(rows):
    """A table of dicts."""
    rows = list(rows)
    lines = [f"| {' | '.join(rows[0])} |", "|---" * len(rows[0]) + "|"]
    cells = [[str(value).replace("|", r"\|") for value in row.values()] for row in rows]
    lines += [f"| {' | '.join(row)} |" for row in cells]
    return "\n".join(lines)


def page():
    """The page's text."""
    return f"""# Accuracy

Made by `python -m tests.accuracy`, with sklmm {__version__}. The tests hold it to bounds.

## Gaussian models beside lme4

lme4 1.1-31, REML and ML. SDs: the largest difference, as a share of the smallest SD; coefficients:
in standard errors; standard errors: relative; logLik: ours less lme4's, so that a positive one is a
higher maximum.

{markdown(gaussian_rows())}

## Other families beside quadrature

The truth is adaptive Gauss-Hermite quadrature of 50 (toenail) or 25 points, by lme4 and ordinal.
"Off by" is the largest distance, in standard errors. Quadrature is what `"auto"` takes of these;
NumPy and TensorFlow are Monte Carlo EM, `HMC(backend="numpy")` and `e_step="hmc"`, over 5 seeds,
which stops at a Monte Carlo error of 0.03 standard errors. Laplace's approximation is
`e_step="laplace"`, which `glmer` and `clmm` maximise by default.

{markdown(quadrature_rows())}

## Simulations

{N_SETS} data sets of 40 levels and 13 rows each (26 for Student's t), by HMC and REML: the share of
95 % Wald intervals that cover the truth, over all parameters, and the largest bias of a parameter,
in Monte Carlo standard errors of {N_SETS} sets.

{markdown(simulation_rows())}

{covariances()}
"""


def covariances():
    """The page's section on covariances, whose table `python -m tests.coverage` prints."""
    return f"""## Covariances of the effects

{coverage.N_SETS} data sets of {coverage.N_GROUPS} groups at {coverage.N_PLACES} places, twice each
with a fifth of the rows missing, by REML: the share of 95 % intervals that cover the truth, over
all parameters (coefficients, SDs, correlations) and of the least and the most covered one, and the
largest bias of a parameter, in Monte Carlo standard errors. `python -m tests.coverage` prints it.

{markdown(coverage.rows())}"""


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", default="docs/accuracy.md")
    Path(parser.parse_args().out).write_text(page())


if __name__ == "__main__":
    main()
