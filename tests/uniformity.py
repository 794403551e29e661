"""How often tests of quantile residuals reject, over simulated sets of the right and a wrong model.

    python -m tests.uniformity [name ...] [--sets N]

A test at 5 % of the right model is to reject about one set in twenty: of 200 sets 2 to 9 %. Of
parameters that are estimated on the same rows, as a residual SD is, the test is a little too mild.
"""

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from scipy.special import expit

from sklmm import MixedEffectsRegressor
from sklmm._fitted.residuals import dispersion, uniformity
from tests.studies import asked

N_SETS, N_GROUPS, N_ROWS = 200, 40, 15
INTERCEPT, COEF, SD = 0.5, 0.4, 0.7
#: The family that is fitted, and the draws of y.
MODELS = {
    "gaussian": ("gaussian", lambda eta, rng: rng.normal(eta, 0.6)),
    "student_t": ("student_t", lambda eta, rng: eta + 0.5 * rng.standard_t(4, len(eta))),
    "poisson": ("poisson", lambda eta, rng: rng.poisson(np.exp(eta))),
    "negative_binomial": (
        "negative_binomial",
        lambda eta, rng: rng.poisson(np.exp(eta) * rng.gamma(2, 0.5, len(eta))),
    ),
    "gamma": ("gamma", lambda eta, rng: rng.gamma(2.0, np.exp(eta) / 2)),
    "beta": ("beta", lambda eta, rng: rng.beta(*(6 * np.stack([expit(eta), expit(-eta)])))),
    "bernoulli": ("bernoulli", lambda eta, rng: rng.binomial(1, expit(eta))),
    "ordinal": (
        "ordinal",
        lambda eta, rng: np.searchsorted([-0.5, 0.5, 1.5], eta + rng.logistic(size=len(eta))),
    ),
    "poisson of negative binomial": (
        "poisson",
        lambda eta, rng: rng.poisson(np.exp(eta) * rng.gamma(2, 0.5, len(eta))),
    ),
}
#: Those of which the other family is the right one.
WRONG = ("poisson of negative binomial",)


def p_values(name, seed, conditional=True):
    """Those of the tests of uniformity and dispersion, of one set."""
    family, draw = MODELS[name]
    rng = np.random.default_rng(seed)
    n = N_GROUPS * N_ROWS
    X = pd.DataFrame({"g": np.repeat(np.arange(N_GROUPS), N_ROWS), "x": rng.normal(size=n)})
    eta = INTERCEPT + COEF * X["x"] + SD * rng.normal(size=N_GROUPS)[X["g"]]
    y = draw(eta.to_numpy(), rng)
    model = MixedEffectsRegressor(["g"], family=family, random_state=seed).fit(X, y)
    u = model.quantile_residuals(X, y, conditional=conditional, random_state=seed)
    return {"uniformity": uniformity(u).p, "dispersion": dispersion(u).p}


def rejections(name, n_sets=N_SETS, n_jobs=1):
    """Share of sets that each test rejects at 5 %, by the test's name."""
    sets = Parallel(n_jobs=n_jobs)(delayed(p_values)(name, seed) for seed in range(n_sets))
    return (pd.DataFrame(sets) < 0.05).mean()


def main():
    names, n_sets = asked(__doc__, MODELS, N_SETS)
    print("| model | sets | uniformity | dispersion |\n|---|---|---|---|")
    for name in names:
        found = rejections(name, n_sets, n_jobs=2)
        shares = " | ".join(f"{100 * share:.1f} %" for share in found)
        print(f"| {name} | {n_sets} | {shares} |", flush=True)


if __name__ == "__main__":
    # By its name, of which other processes find the functions.
    from tests import uniformity

    uniformity.main()
