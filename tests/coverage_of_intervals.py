"""Coverage of prediction intervals of new observations, over simulated sets of every family.

    python -m tests.coverage_of_intervals [name ...] [--sets N]

100 groups have 10 rows each. Models are fitted to eight rows of 80 groups; the other two rows of
each are new observations of known levels, and the last 20 groups are unseen ones. Effects are
drawn anew in each set, and draws are those of NumPy and SciPy, not of the families.

Intervals of whole numbers hold more than 95 %: the ends are values of y, which may have much
probability. So a y at an end is also counted "at random": as within with the share of that
value's probability by which all in all 95 % are within. It is that share which is to be 95 %.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from scipy.special import expit

from sklmm import MixedEffectsRegressor
from sklmm._fitted.latent import predictor_moments
from sklmm._fitted.mixtures import Mixture
from tests import coverage_of_responses as draws
from tests.studies import asked

N_SETS, N_GROUPS, N_ROWS = 20, 100, 10
N_KNOWN, N_FITTED = 80, 8
COVERAGE = 0.95
INTERCEPT, COEF, SD = 1.5, 0.3, 0.6
TRIALS = 20


class Model(NamedTuple):
    """A family, draws of y, and the mean's intercept; its parts as in `coverage_of_responses`."""

    family: str
    draw: object
    intercept: float = INTERCEPT
    parts: dict = {}
    trials: bool = False


def student_t(eta, parts, rng):
    return eta + 0.6 * rng.standard_t(4, len(eta))


def beta(eta, parts, rng):
    return rng.beta(*(6 * np.stack([expit(eta), expit(-eta)])))


def binomial(eta, parts, rng):
    return rng.binomial(TRIALS, expit(eta)) / TRIALS


def beta_binomial(eta, parts, rng):
    return rng.binomial(TRIALS, beta(eta, parts, rng)) / TRIALS


def ordinal(eta, parts, rng):
    return np.searchsorted(np.arange(-1.5, 4.0), eta + rng.logistic(size=len(eta))).astype(float)


def zeros(draw, groups=False):
    def drawn(eta, parts, rng):
        effects = draws.PART_SD["zero"] * parts["effects"] if groups else 0.0
        away = rng.random(len(eta)) < expit(draws.ZERO[0] + draws.ZERO[1] * parts["z"] + effects)
        return np.where(away, 0.0, draw(eta, parts, rng))

    return drawn


def gaussian_by_row(eta, parts, rng):
    log_sd = draws.LOG_DISPERSION[0] + draws.LOG_DISPERSION[1] * parts["z"]
    return rng.normal(eta, np.exp(log_sd + draws.PART_SD["sigma"] * parts["effects"]))


def _simple(draw, **more):
    return Model(draw.__name__, draw, **more)


_COUNTS = (draws.poisson, draws.negative_binomial, draws.nbinom1, draws.generalized_poisson)
_TRUNCATED = (draws.truncated_poisson, draws.truncated_negative_binomial)
_REALS = (draws.gaussian, student_t, draws.lognormal, draws.inverse_gaussian, draws.gamma)
MODELS = {
    **{draw.__name__: _simple(draw) for draw in (*_REALS, draws.tweedie)},
    **{draw.__name__: _simple(draw, intercept=0.0) for draw in (beta, draws.ordered_beta)},
    **{draw.__name__: _simple(draw) for draw in (*_COUNTS, *_TRUNCATED)},
    "binomial": _simple(binomial, intercept=0.0, trials=True),
    "beta_binomial": _simple(beta_binomial, intercept=0.0, trials=True),
    "ordinal": _simple(ordinal),
    "zero-inflated poisson": Model(
        "poisson", zeros(draws.poisson), parts={"zero_inflation": "~ z"}
    ),
    "hurdle gamma, groups in both": Model(
        "gamma", zeros(draws.gamma, True), parts={"zero_inflation": "~ z + (1 | g)"}
    ),
    "hurdle negative_binomial": Model(
        "truncated_negative_binomial",
        zeros(draws.truncated_negative_binomial),
        parts={"zero_inflation": "~ z"},
    ),
    "gaussian, dispersion by groups": Model(
        "gaussian", gaussian_by_row, parts={"dispersion": "~ z + (1 | g)"}
    ),
}


def covered(name, seed):
    """Shares of new rows within, of known and of unseen levels; and with ends at random."""
    model, rng = MODELS[name], np.random.default_rng(seed)
    n = N_GROUPS * N_ROWS
    X = pd.DataFrame({"g": np.repeat(np.arange(N_GROUPS), N_ROWS)})
    X["x"], X["z"] = rng.normal(size=(2, n))
    effects, others = rng.normal(size=(2, N_GROUPS))
    eta = model.intercept + COEF * X["x"].to_numpy() + SD * effects[X["g"]]
    parts = {"z": X["z"].to_numpy(), "effects": others[X["g"]]}
    y = np.asarray(model.draw(eta, parts, rng), float)
    weights = np.full(n, float(TRIALS)) if model.trials else None
    unseen = (X["g"] >= N_KNOWN).to_numpy()
    new = np.arange(n) % N_ROWS >= N_FITTED
    fitted = MixedEffectsRegressor(
        ["g"], fixed_effects=["x"], family=model.family, e_step="auto", **model.parts
    )
    train = ~(unseen | new)
    fitted.fit(X[train], y[train], None if weights is None else weights[train])
    out = {}
    for kind, rows in [("known", new & ~unseen), ("unseen", unseen)]:
        own = None if weights is None else weights[rows]
        found = fitted.predict_interval(X[rows], COVERAGE, sample_weight=own)
        out[kind] = np.mean((y[rows] >= found[:, 0] - 1e-9) & (y[rows] <= found[:, 1] + 1e-9))
        u = _places(fitted, X[rows], y[rows], own, rng)
        out[f"{kind}, ends at random"] = np.mean(np.abs(u - 0.5) <= COVERAGE / 2)
    return out


def _places(fitted, X, y, weights, rng):
    """Of each y a number between P(Y < y) and P(Y <= y)."""
    _, design, include = fitted._new_design(X)
    model, result = fitted._fitted, fitted.result_
    params = model.parameters(result, design)
    if weights is not None:
        params = params | {"trials": weights[:, None]}
    if model.classes is not None:
        y = np.searchsorted(model.classes, y).astype(float)
    moments = predictor_moments(design, result, include, model.n_predictors)
    mixture = Mixture(model.family, moments, params)
    below, up_to = mixture.settled_cdf(y, True), mixture.settled_cdf(y)
    return below + rng.random(len(y)) * (up_to - below)


def study(name, n_sets=N_SETS, n_jobs=1):
    """Means of `covered` over sets, a Series."""
    sets = Parallel(n_jobs=n_jobs)(delayed(covered)(name, seed) for seed in range(n_sets))
    return pd.DataFrame(sets).mean()


def main():
    names, n_sets = asked(__doc__, MODELS, N_SETS)
    for i, name in enumerate(names):
        found = study(name, n_sets, n_jobs=2)
        if i == 0:
            print(f"| model | {' | '.join(found.index)} |\n|{'---|' * (1 + len(found))}")
        print(f"| {name} | {' | '.join(f'{100 * v:.1f} %' for v in found)} |", flush=True)


if __name__ == "__main__":
    # By its name, of which other processes find the functions.
    from tests import coverage_of_intervals

    coverage_of_intervals.main()
