"""Simulated sets of responses, and of models of several parts, for `tests.coverage`.

100 groups have 10 rows each; where two factors cross, each of 40 x 30 pairs of levels has one.
Draws are those of NumPy and SciPy, not of the families themselves.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats
from scipy.special import expit, ndtri

from sklmm import HMC, MixedEffectsClassifier, MixedEffectsRegressor, families

N_GROUPS, N_ROWS = 100, 10
INTERCEPT, COEF, SD = 0.5, 0.3, 0.6
CUTS = np.array([-1.0, 0.3, 1.5])
#: The parts' intercepts and coefficients of z: of the logit of more zeros, of a log dispersion.
ZERO, LOG_DISPERSION = (-1.0, 0.5), (-0.7, 0.3)
#: The SD of a group's effects in one of them.
PART_SD = {"zero": 0.8, "sigma": 0.4}
#: By which z moves the cutpoints of a model with nominal effects.
SHIFTS = np.array([-0.3, -0.5, -0.7])
#: The ordinal family's names of the cutpoints.
CUT_NAMES = ("0|1", "1|2", "2|3")


class Model(NamedTuple):
    """A response, what is estimated of it, and the truth.

    Its part, of zeros or of the dispersion, has effects of the groups too if it is `of_groups`.
    draw(eta, parts, rng) -> y, `parts` being {"z": the column, "dispersion": a modelled one}.
    """

    draw: Callable
    own: dict
    options: dict
    zero: bool = False
    dispersion: str | None = None
    crossed: bool = False
    classes: bool = False
    of_groups: bool = False

    @property
    def truth(self):
        """Values by their names in `conf_int`."""
        out = {} if self.classes else {"Intercept": INTERCEPT}
        out |= {"x": COEF} | {f"sd({g}, Intercept)": SD for g in self.groups}
        if self.zero:
            out |= dict(zip(("zero: Intercept", "zero: z"), ZERO, strict=True))
        if self.dispersion:
            names = f"{self.dispersion}: Intercept", f"{self.dispersion}: z"
            out |= dict(zip(names, LOG_DISPERSION, strict=True))
        if self.of_groups:
            out[f"sd({self.part}: g, Intercept)"] = PART_SD[self.part]
        return out | self.own

    @property
    def part(self):
        """What the tables call it."""
        return "zero" if self.zero else self.dispersion

    @property
    def apart(self):
        """Names of the SDs and of the family's parameters, which are no coefficients."""
        return [n for n in self.truth if n.startswith("sd(") or (n in self.own and "|" not in n)]

    @property
    def groups(self):
        """The grouping columns."""
        return ["g", "h"] if self.crossed else ["g"]

    def simulate(self, rng):
        """(X, y)."""
        n = N_GROUPS * N_ROWS
        X = pd.DataFrame({"g": np.repeat(np.arange(N_GROUPS), N_ROWS)})
        if self.crossed:
            n = 1200
            X = pd.DataFrame(dict(zip("gh", np.divmod(np.arange(n), 30), strict=True)))
        X["x"], X["z"] = rng.normal(size=(2, n))
        eta = COEF * X["x"].to_numpy() + (0 if self.classes else INTERCEPT)
        for g in self.groups:
            eta = eta + rng.normal(0, SD, X[g].max() + 1)[X[g]]
        parts, effects = {"z": X["z"].to_numpy()}, 0.0
        if self.of_groups:
            effects = rng.normal(0, PART_SD[self.part], N_GROUPS)[X["g"]]
        if self.dispersion:
            log_value = LOG_DISPERSION[0] + LOG_DISPERSION[1] * parts["z"] + effects
            parts["dispersion"] = np.exp(log_value)
        y = self.draw(eta, parts, rng)
        if self.zero:
            y = np.where(rng.random(n) < expit(ZERO[0] + ZERO[1] * parts["z"] + effects), 0.0, y)
        return X, y

    def fit(self, seed):
        """Intervals and estimates of a set, a table."""
        X, y = self.simulate(np.random.default_rng(seed))
        kind = MixedEffectsClassifier if self.classes else MixedEffectsRegressor
        formula = "~ z + (1 | g)" if self.of_groups else "~ z"
        parts = {"zero_inflation": formula} if self.zero else {}
        parts |= {"dispersion": formula} if self.dispersion else {}
        model = kind(self.groups, fixed_effects=["x"], random_state=0, **parts, **self.options)
        with np.errstate(all="ignore"):
            model.fit(X, y)
        return model.conf_int().assign(estimate=model._fitted.estimates(model.result_)[0])


def poisson(eta, parts, rng):
    return rng.poisson(np.exp(eta)).astype(float)


def negative_binomial(eta, parts, rng, dispersion=0.5):
    shape = 1 / parts.get("dispersion", dispersion)
    return rng.poisson(rng.gamma(shape, np.exp(eta) / shape)).astype(float)


def nbinom1(eta, parts, rng, dispersion=0.5):
    return rng.negative_binomial(np.exp(eta) / dispersion, 1 / (1 + dispersion)).astype(float)


def generalized_poisson(eta, parts, rng, dispersion=0.5):
    """A branching process: ancestors, and generations of their children until there are none."""
    rate = 1 - (1 + dispersion) ** -0.5
    some = rng.poisson((1 - rate) * np.exp(eta))
    total = some.astype(float)
    while some.any():
        some = rng.poisson(rate * some)
        total += some
    return total


def truncated(distribution, rng):
    """Draws of a distribution of SciPy given that they are not 0."""
    none = distribution.cdf(0)
    return distribution.ppf(none + (1 - none) * rng.random(np.shape(none))).astype(float)


def truncated_poisson(eta, parts, rng):
    return truncated(stats.poisson(np.exp(eta)), rng)


def truncated_negative_binomial(eta, parts, rng, dispersion=0.5):
    share = 1 / (1 + dispersion * np.exp(eta))
    return truncated(stats.nbinom(1 / dispersion, share), rng)


def gamma(eta, parts, rng, shape=2.0):
    shape = parts.get("dispersion", shape)
    return rng.gamma(shape, np.exp(eta) / shape)


def gaussian(eta, parts, rng, sigma=0.8):
    return rng.normal(eta, parts.get("dispersion", sigma))


def lognormal(eta, parts, rng):
    return np.exp(gaussian(eta, parts, rng))


def inverse_gaussian(eta, parts, rng, dispersion=0.3):
    return rng.wald(np.exp(eta), 1 / dispersion)


def tweedie(eta, parts, rng, dispersion=1.0, power=1.5):
    """Sums of a Poisson number of gamma variables."""
    mu, q = np.exp(eta), 2 - power
    jumps = rng.poisson(mu**q / (dispersion * q))
    return rng.gamma(jumps * q / (power - 1), dispersion * (power - 1) * mu ** (power - 1))


def beta_binomial(eta, parts, rng, precision=5.0):
    """(successes, failures) of 5 to 14 trials."""
    trials, mu = rng.integers(5, 15, len(eta)), expit(eta)
    successes = rng.binomial(trials, rng.beta(mu * precision, (1 - mu) * precision))
    return np.column_stack([successes, trials - successes])


def ordered_beta(eta, parts, rng, precision=4.0, low=-1.0, gap=2.5):
    u, mu = rng.logistic(size=len(eta)), expit(eta)
    y = rng.beta(mu * precision, (1 - mu) * precision)
    y = np.clip(y, 1e-12, 1 - 1e-12)
    return np.where(eta + u < low, 0.0, np.where(eta + u > low + gap, 1.0, y))


def tobit(eta, parts, rng):
    """Known from -0.2 to 1.5, and there often by the half unit alone."""
    y = gaussian(eta, parts, rng)
    lower = np.maximum(np.floor(2 * y) / 2, -0.2)
    upper = np.minimum(np.ceil(2 * y) / 2, 1.5)
    seen = rng.random(len(y)) < 0.7
    lower, upper = np.where(seen, y, lower), np.where(seen, y, upper)
    low, high = y < -0.2, y > 1.5
    lower, upper = np.where(low, -np.inf, lower), np.where(low, -0.2, upper)
    return np.column_stack([np.where(high, 1.5, lower), np.where(high, np.inf, upper)])


#: Quantiles of the latent variable, by the link: P(y <= k) = F(cut_k - eta).
QUANTILES = {
    "logit": lambda u: np.log(u) - np.log1p(-u),
    "probit": ndtri,
    "cloglog": lambda u: np.log(-np.log1p(-u)),
    "loglog": lambda u: -np.log(-np.log(u)),
    "cauchit": lambda u: np.tan(np.pi * (u - 0.5)),
}


def ordinal(link):
    def draw(eta, parts, rng):
        latent = eta + QUANTILES[link](rng.random(len(eta)))
        return np.searchsorted(CUTS, latent)

    return draw


def nominal(eta, parts, rng):
    latent = eta + rng.logistic(size=len(eta))
    cuts = CUTS + parts["z"][:, None] * SHIFTS
    return (latent[:, None] > cuts).sum(axis=1)


def _regressor(draw, family=None, own=(), zero=False, **kind):
    options = {"family": family or draw.__name__}
    if kind.get("crossed"):
        options["e_step"] = HMC()
    return Model(draw, dict(own), options, zero, **kind)


def _ordinal(link):
    own = dict(zip(CUT_NAMES, CUTS, strict=True))
    return Model(ordinal(link), own, {"family": families.Ordinal(link=link)}, classes=True)


MODELS = {
    "nbinom1": _regressor(nbinom1, own={"dispersion": 0.5}),
    "generalized_poisson": _regressor(generalized_poisson, own={"dispersion": 0.5}),
    "truncated_poisson": _regressor(truncated_poisson),
    "truncated_negative_binomial": _regressor(truncated_negative_binomial, own={"dispersion": 0.5}),
    "tweedie": _regressor(tweedie, own={"dispersion": 1.0, "power": 1.5}),
    "lognormal": _regressor(lognormal, own={"sigma": 0.8}),
    "inverse_gaussian": _regressor(inverse_gaussian, own={"dispersion": 0.3}),
    "beta_binomial": _regressor(beta_binomial, own={"precision": 5.0}),
    "ordered_beta": _regressor(ordered_beta, own={"precision": 4.0, "cut1": -1.0, "cut_gap": 2.5}),
    "censored gaussian": _regressor(tobit, "gaussian", {"sigma": 0.8}),
    **{f"ordinal, {link}": _ordinal(link) for link in QUANTILES},
    "ordinal, nominal": Model(
        nominal,
        dict(zip(CUT_NAMES, CUTS, strict=True))
        | {f"{name}: z": shift for name, shift in zip(CUT_NAMES, SHIFTS, strict=True)},
        {"family": "ordinal", "nominal": ["z"]},
        classes=True,
    ),
    "zero-inflated poisson": _regressor(poisson, zero=True),
    # Of larger dispersions 1,000 counts hardly tell their own zeros from others.
    "zero-inflated negative_binomial": _regressor(
        partial(negative_binomial, dispersion=0.2), "negative_binomial", {"dispersion": 0.2}, True
    ),
    "hurdle poisson": _regressor(truncated_poisson, zero=True),
    "hurdle negative_binomial": _regressor(
        truncated_negative_binomial, own={"dispersion": 0.5}, zero=True
    ),
    "hurdle gamma": _regressor(gamma, own={"shape": 2.0}, zero=True),
    "gaussian, dispersion": _regressor(gaussian, dispersion="sigma"),
    "negative_binomial, dispersion": _regressor(negative_binomial, dispersion="dispersion"),
    "gamma, dispersion": _regressor(gamma, dispersion="shape"),
    "zero-inflated poisson, groups in both": _regressor(poisson, zero=True, of_groups=True),
    "hurdle gamma, groups in both": _regressor(
        gamma, own={"shape": 2.0}, zero=True, of_groups=True
    ),
    "gaussian, dispersion, groups in both": _regressor(
        gaussian, dispersion="sigma", of_groups=True
    ),
    "zero-inflated poisson, crossed": _regressor(poisson, zero=True, crossed=True),
}
