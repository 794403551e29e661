"""Log-likelihoods of every family, link and part: sums of log densities that SciPy has.

Models without random effects, at whatever estimates a fit ends; and the same models of y in other
units, whose log-likelihoods differ by the Jacobian alone.
"""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.special import expit, gammaln, log_expit, logsumexp, ndtr

from sklmm import InverseGaussian, MixedEffectsClassifier, MixedEffectsRegressor
from sklmm._fitted.latent import linear_predictor
from sklmm.engine.likelihood.pointwise import log_densities
from sklmm.families.binomial import log_binomial
from sklmm.families.registry import FAMILIES

N = 80
RNG = np.random.default_rng(0)
X = pd.DataFrame({"x": RNG.uniform(size=N), "z": RNG.normal(size=N)})
WEIGHTS = RNG.integers(1, 3, N).astype(float)
MU = 2 + 0.5 * X["x"].to_numpy()
SHARE = 0.3 + 0.2 * X["x"].to_numpy()
TRIALS = RNG.integers(3, 9, N)
#: Rows that a part makes 0.
EMPTY = RNG.random(N) < 0.3

INVERSE_LINKS = {
    "identity": lambda eta: eta,
    "log": np.exp,
    "sqrt": np.square,
    "inverse": lambda eta: 1 / eta,
    "inverse_squared": lambda eta: eta**-0.5,
    "logit": expit,
    "probit": ndtr,
    "cloglog": lambda eta: -np.expm1(-np.exp(eta)),
    "loglog": lambda eta: np.exp(-np.exp(-eta)),
    "cauchit": lambda eta: 0.5 + np.arctan(eta) / np.pi,
}


def nbinom(y, mu, size):
    return stats.nbinom.logpmf(y, size, size / (size + mu))


def truncated(log_pmf):
    return lambda y, mu, **p: log_pmf(y, mu, **p) - np.log1p(-np.exp(log_pmf(0, mu, **p)))


def generalized_poisson(y, mu, dispersion):
    s = (1 + dispersion) ** -0.5
    theta, rest = s * mu, (1 - s) * y
    return np.log(theta) + (y - 1) * np.log(theta + rest) - theta - rest - gammaln(y + 1)


def tweedie(y, mu, dispersion, power):
    """Of a Poisson number of gamma jumps."""
    rate = mu ** (2 - power) / (dispersion * (2 - power))
    shape, scale = (2 - power) / (power - 1), dispersion * (power - 1) * mu ** (power - 1)
    jumps = np.arange(1, 200)[:, None]
    some = np.where(y > 0, y, 1.0)
    of_jumps = stats.gamma.logpdf(some, jumps * shape, scale=scale)
    total = logsumexp(stats.poisson.logpmf(jumps, rate) + of_jumps, axis=0)
    return np.where(y > 0, total, -rate)


def lognormal_mean(y, mu, sd):
    v = np.log1p((sd / mu) ** 2)
    return stats.lognorm.logpdf(y, np.sqrt(v), scale=mu * np.exp(-v / 2))


def censored(y, mu, sigma):
    lower, upper = y.T
    seen, cdf = lower == upper, stats.norm(mu, sigma).cdf
    lower, upper = (
        np.where(np.isnan(lower), -np.inf, lower),
        np.where(np.isnan(upper), np.inf, upper),
    )
    mass = np.where(seen, 1.0, cdf(upper) - cdf(lower))
    return np.where(seen, stats.norm.logpdf(np.where(seen, lower, 0.0), mu, sigma), np.log(mass))


def beta_binomial(y, mu, precision):
    return stats.betabinom.logpmf(y[:, 0], y.sum(axis=1), mu * precision, (1 - mu) * precision)


def ordered_beta(y, mu, precision, cut1, cut_gap, eta):
    some, one = expit(eta - cut1), expit(eta - cut1 - cut_gap)
    within = stats.beta.logpdf(np.clip(y, 1e-9, 1 - 1e-9), mu * precision, (1 - mu) * precision)
    within = within + np.log(some - one)
    return np.where(y == 0, np.log1p(-some), np.where(y == 1, np.log(one), within))


LOG_DENSITIES = {
    "gaussian": lambda y, mu, sigma: stats.norm.logpdf(y, mu, sigma),
    "censored_gaussian": censored,
    "student_t": lambda y, mu, sigma, df: stats.t.logpdf(y, df, mu, sigma),
    "poisson": stats.poisson.logpmf,
    "negative_binomial": lambda y, mu, dispersion: nbinom(y, mu, 1 / dispersion),
    "nbinom1": lambda y, mu, dispersion: nbinom(y, mu, mu / dispersion),
    "generalized_poisson": generalized_poisson,
    "truncated_poisson": truncated(stats.poisson.logpmf),
    "truncated_negative_binomial": truncated(
        lambda y, mu, dispersion: nbinom(y, mu, 1 / dispersion)
    ),
    "gamma": lambda y, mu, shape: stats.gamma.logpdf(y, shape, scale=mu / shape),
    "tweedie": tweedie,
    "lognormal": lambda y, mu, sigma: stats.lognorm.logpdf(y, sigma, scale=np.exp(mu)),
    "lognormal_mean": lognormal_mean,
    "inverse_gaussian": lambda y, mu, dispersion: stats.invgauss.logpdf(
        y, mu * dispersion, scale=1 / dispersion
    ),
    "beta": lambda y, mu, precision: stats.beta.logpdf(y, mu * precision, (1 - mu) * precision),
    "ordered_beta": ordered_beta,
    "bernoulli": stats.bernoulli.logpmf,
    "binomial": lambda y, mu: stats.binom.logpmf(y[:, 0], y.sum(axis=1), mu),
    "beta_binomial": beta_binomial,
}


def responses():
    rng = np.random.default_rng(1)
    normal = rng.normal(MU, 1.0)
    counts = rng.poisson(MU * rng.gamma(0.7, 1 / 0.7, N))
    beta = rng.beta(SHARE * 2, (1 - SHARE) * 2)
    successes = rng.binomial(TRIALS, beta)
    positive = rng.gamma(3.0, MU / 3.0)
    jumps = rng.gamma(0.7 * rng.poisson(1.5, N), MU)
    bounds = np.column_stack([normal, normal])
    bounds[:8, 0], bounds[8:16, 1], bounds[16:24, 1] = np.nan, np.nan, normal[16:24] + 0.7
    shares = beta.copy()
    shares[:6], shares[6:11] = 0.0, 1.0
    tries = np.column_stack([successes, TRIALS - successes])
    given = {"gaussian": normal, "student_t": normal, "censored_gaussian": bounds}
    given |= dict.fromkeys(("poisson", "negative_binomial", "nbinom1"), counts)
    given |= {"generalized_poisson": counts, "truncated_poisson": 1 + counts}
    given |= {"truncated_negative_binomial": 1 + counts, "tweedie": jumps}
    given |= dict.fromkeys(("gamma", "inverse_gaussian", "lognormal", "lognormal_mean"), positive)
    given |= {"beta": beta, "ordered_beta": shares, "bernoulli": rng.binomial(1, SHARE)}
    return given | dict.fromkeys(("binomial", "beta_binomial"), tries)


RESPONSES = responses()
#: Those whose y may be in other units.
SCALED = (
    *("gaussian", "censored_gaussian", "student_t", "gamma", "inverse_gaussian"),
    *("lognormal", "lognormal_mean", "tweedie"),
)


def parts_of(family, link):
    """Parts alone and together; together alone by links that are not the default."""
    zeros = ("zero_inflation",) * (family.zeros is not None)
    dispersion = ("dispersion",) * (family.dispersion_parameter is not None)
    apart = {zeros, dispersion} if (link,) in ((None,), family.links[:1]) else set()
    return sorted({(), zeros + dispersion} | apart)


CASES = [
    (name, link, parts)
    for name, family in FAMILIES.items()
    for link in family.links or (None,)
    for parts in parts_of(family, link)
    if family.classes not in ("ordered", "unordered")
]


def fitted(name, link, parts, y, max_iter=4):
    family = FAMILIES[name](**({"link": link} if link else {}))
    estimator = MixedEffectsClassifier if family.classes else MixedEffectsRegressor
    given = {"fixed_effects": ["x"], "e_step": "laplace", "method": "ml", "max_iter": max_iter}
    model = estimator(None, family=family, **given, **dict.fromkeys(parts, "~ z"))
    return model.fit(X, y, sample_weight=WEIGHTS)


def log_density(model, name, link, parts, y):
    """log f [n] of a fitted model, from its coefficients."""
    family, own = FAMILIES[name], LOG_DENSITIES[name]
    eta = model.intercept_ + X["x"].to_numpy() * model.coef_[0]
    mu = INVERSE_LINKS[link or "identity"](eta)
    params = {k: v for k, v in model.result_.family.items() if ":" not in k}
    columns = np.column_stack([np.ones(N), X["z"]])
    line = {part: columns @ getattr(model, f"{part}_effects_")["estimate"] for part in parts}
    if "dispersion" in parts:
        params[family.dispersion_parameter] = np.exp(line["dispersion"])
    if name == "ordered_beta":
        params["eta"] = eta
    if "zero_inflation" not in parts:
        return own(y, mu, **params)
    log_zero, log_rest = log_expit(line["zero_inflation"]), log_expit(-line["zero_inflation"])
    none = (y if y.ndim == 1 else y[:, 0]) == 0
    if family.zeros == "hurdle":
        some = log_rest + own(np.where(none, family.inner, y), mu, **params)
        return np.where(none, log_zero, some)
    some = log_rest + own(y, mu, **params)
    return np.where(none, np.logaddexp(log_zero, some), some)


def response(name, parts):
    y = RESPONSES[name]
    if "zero_inflation" not in parts:
        return y
    if y.ndim == 2:
        return np.where(EMPTY[:, None], [0, 5], y)
    return np.where(EMPTY, 0 * y, y)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(("name", "link", "parts"), CASES)
def test_is_the_sum_of_log_densities(name, link, parts):
    y = response(name, parts)
    model = fitted(name, link, parts, y)
    own = log_density(model, name, link, parts, y)
    assert model.loglik_ == pytest.approx(WEIGHTS @ own, rel=1e-9)
    design, bound = model._training(X, y, WEIGHTS)
    eta = linear_predictor(design, model.result_)[:, None, None]
    of_rows = log_densities(bound, eta, model.result_.family, design.models)[:, 0]
    if name == "binomial":
        # Repetitions of a row are more trials there, of which order says nothing.
        trials = y.sum(axis=1)
        more = [log_binomial(w * y[:, 0], w * trials) / w for w in (WEIGHTS, 1)]
        own = own + more[0] - more[1]
    np.testing.assert_allclose(of_rows, WEIGHTS * own, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("name", "link", "parts"),
    [case for case in CASES if case[0] in SCALED and case[1:] != ("log", ("dispersion",))],
)
def test_another_unit_of_y_is_the_same_model(name, link, parts):
    y = response(name, parts)
    model = fitted(name, link, parts, y, 100)
    assert model.converged_
    masses = y[:, 0] != y[:, 1] if y.ndim == 2 else y == 0
    for unit in (1e4,) if name == "tweedie" else (1e-4, 1e4):
        other = fitted(name, link, parts, unit * y, 100)
        jacobian = WEIGHTS @ ~masses * np.log(unit)
        assert other.loglik_ == pytest.approx(model.loglik_ - jacobian, rel=1e-9)


@pytest.mark.parametrize("link", ["log", "identity", "inverse", "inverse_squared"])
def test_a_pinned_dispersion_has_a_unit(link):
    """That of 1 / y."""
    y = RESPONSES["inverse_gaussian"]
    table = X.assign(g=np.arange(N) % 8)
    found = []
    for unit in (1.0, 1e3):
        family = InverseGaussian(link, dispersion=0.4 / unit)
        model = MixedEffectsRegressor(["g"], fixed_effects=["x"], family=family, e_step="laplace")
        found.append(model.fit(table, unit * y).loglik_ + N * np.log(unit))
        assert model.family_params_ == {"dispersion": 0.4 / unit}
    assert found[1] == pytest.approx(found[0], rel=1e-9)


@pytest.mark.parametrize("name", ["poisson", "negative_binomial"])
@pytest.mark.parametrize("link", ["identity", "sqrt"])
def test_large_counts_are_fitted_by_any_link(name, link):
    """Their coefficients are thousands; a column of two values has the groups' means."""
    half = pd.DataFrame({"x": np.arange(N) % 2})
    y = np.random.default_rng(0).poisson(np.where(half["x"], 2e5, 8e4))
    family = FAMILIES[name](link)
    model = MixedEffectsRegressor(None, fixed_effects=["x"], family=family).fit(half, y)
    means = pd.Series(y).groupby(half["x"]).mean()
    np.testing.assert_allclose(model.predict(half)[:2], means, rtol=1e-6)
