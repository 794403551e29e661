"""Profiles of estimates at an edge of their range: a dispersion or a probability of 0, infinity.

Each limit is checked by another likelihood, a sum over points of the effects, that is maximised
with the parameter held there.
"""

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize
from scipy.special import expit, logsumexp
from scipy.stats import bernoulli, betabinom, binom, chi2, nbinom, norm, poisson, t
from sklearn.exceptions import ConvergenceWarning

from sklmm import MixedEffectsClassifier, MixedEffectsRegressor
from sklmm.engine.algorithms.edges import split
from sklmm.engine.algorithms.profile import Profile

#: Half of the 95 % quantile of chi2_1.
FALL = chi2.ppf(0.95, 1) / 2


def table():
    """15 groups of 8 rows."""
    rng = np.random.default_rng(4)
    X = pd.DataFrame({"g": np.arange(120) % 15, "x": rng.normal(size=120)})
    X["eta"] = 0.8 + 0.3 * X["x"] + 0.5 * rng.normal(size=15)[X["g"]]
    return X, rng


def poisson_case():
    X, _ = table()
    # The counts nearest to their means: fewer zeros and less variance than Poisson's.
    return X[["g", "x"]], np.round(np.exp(X["eta"]))


def binomial_case():
    X, _ = table()
    trials = 3 + np.arange(120) % 5
    successes = np.round(trials * expit(X["eta"]))
    return X[["g", "x"]], np.column_stack([successes, trials - successes])


def normal_case():
    X, _ = table()
    # Quantiles of the uniform distribution: shorter tails than the normal's.
    noise = np.random.default_rng(0).permutation(np.linspace(-1.7, 1.7, 120))
    return X[["g", "x"]], X["eta"] + noise


def separated_case():
    X, rng = table()
    X["x"] = np.arange(120) % 2.0
    return X[["g", "x"]], np.where(X["x"] == 1, 0, rng.random(120) < expit(X["eta"]))


def log_poisson(y, eta, zero):
    own = poisson.logpmf(y, np.exp(eta))
    return np.where(
        y == 0, np.logaddexp(np.log(zero), np.log1p(-zero) + own), np.log1p(-zero) + own
    )


def log_binomial(y, eta, precision):
    p, n = expit(eta), y.sum(axis=-1)
    if np.isinf(precision):
        return binom.logpmf(y[..., 0], n, p)
    return betabinom.logpmf(y[..., 0], n, p * precision, (1 - p) * precision)


def log_nbinom(y, eta, dispersion):
    return nbinom.logpmf(y, 1 / dispersion, 1 / (1 + dispersion * np.exp(eta)))


def log_student(y, eta, log_sigma, df):
    law = norm if np.isinf(df) else t(df)
    return law.logpdf((y - eta) / np.exp(log_sigma)) - log_sigma


def loglik(log_f, X, y, coef, log_sd):
    """Of intercepts of the groups, by the trapezoidal rule."""
    u = np.linspace(-7, 7, 81)
    eta = coef[0] + coef[1] * X["x"].to_numpy()[:, None] + np.exp(log_sd) * u
    rows = log_f(np.asarray(y)[:, None], eta)
    groups = np.zeros((X["g"].max() + 1, 81))
    np.add.at(groups, X["g"].to_numpy(), rows)
    weights = norm.logpdf(u) + np.log(u[1] - u[0])
    return float(logsumexp(groups + weights, axis=1).sum())


def highest(log_f, X, y, *starts, coef=None):
    """The maximum over the coefficients, the SD and what else log_f takes, of several starts."""

    def loss(p):
        own = p[:2] if coef is None else (p[0], coef)
        value = -loglik(lambda y, eta: log_f(y, eta, *p[3:]), X, y, own, p[2])
        return value if np.isfinite(value) else 1e10

    return max(-minimize(loss, [0.5, 0.3, -0.7, *start], method="BFGS").fun for start in starts)


def fit(case, family, e_step="quadrature", **params):
    X, y = case()
    model = MixedEffectsRegressor(
        ["g"], fixed_effects=["x"], family=family, e_step=e_step, method="ml", **params
    )
    return model.fit(X, y), X, y


@pytest.mark.parametrize("e_step", ["quadrature", "laplace"])
@pytest.mark.filterwarnings("ignore:zero_inflation")
def test_a_probability_of_zeros_that_is_0(e_step):
    model, X, y = fit(poisson_case, "poisson", e_step, zero_inflation="~ 1")
    found = model.conf_int(method="profile", X=X, y=y, parm="zero: Intercept").iloc[0]
    assert found["lower"] == -np.inf
    best = highest(lambda y, eta: log_poisson(y, eta, 1e-300), X, y, ())
    held = highest(lambda y, eta: log_poisson(y, eta, expit(found["upper"])), X, y, ())
    assert best - held == pytest.approx(FALL, abs=2e-3 if e_step == "quadrature" else 2e-2)


@pytest.mark.parametrize("e_step", ["quadrature", "laplace"])
def test_a_dispersion_that_is_0(e_step):
    model, X, y = fit(poisson_case, "negative_binomial", e_step)
    found = model.conf_int(method="profile", X=X, y=y, parm="dispersion").iloc[0]
    assert found["lower"] == 0
    best = highest(lambda y, eta: log_poisson(y, eta, 1e-300), X, y, ())
    held = highest(lambda y, eta: log_nbinom(y, eta, found["upper"]), X, y, ())
    assert best - held == pytest.approx(FALL, abs=2e-3 if e_step == "quadrature" else 2e-2)


def test_a_precision_that_is_infinite():
    model, X, y = fit(binomial_case, "beta_binomial")
    found = model.conf_int(method="profile", X=X, y=y, parm="precision").iloc[0]
    assert found["upper"] == np.inf
    best = highest(lambda y, eta: log_binomial(y, eta, np.inf), X, y, ())
    held = highest(lambda y, eta: log_binomial(y, eta, found["lower"]), X, y, ())
    assert best - held == pytest.approx(FALL, abs=2e-3)


def test_degrees_of_freedom_that_are_infinite_and_what_is_beside_them():
    """Where sigma is held low the tails are heavy: the others leave their edge."""
    model, X, y = fit(normal_case, "student_t")
    found = model.conf_int(method="profile", X=X, y=y, parm=["sigma", "df"])
    assert found.loc["df", "upper"] == np.inf
    best = highest(lambda y, eta, s: log_student(y, eta, s, np.inf), X, y, (0.0,))
    df = found.loc["df", "lower"]
    held = highest(lambda y, eta, s: log_student(y, eta, s, df), X, y, (0.0,))
    assert best - held == pytest.approx(FALL, abs=2e-3)
    for sigma in found.loc["sigma"]:
        s = np.log(sigma)
        held = max(
            highest(lambda y, eta, r, s=s: log_student(y, eta, s, np.exp(r)), X, y, (2.0,), (5.0,)),
            highest(lambda y, eta, s=s: log_student(y, eta, s, np.inf), X, y, ()),
        )
        assert best - held == pytest.approx(FALL, abs=3e-3)


@pytest.mark.parametrize("e_step", ["quadrature", "laplace"])
def test_a_column_that_separates(e_step):
    X, y = separated_case()
    model = MixedEffectsClassifier(["g"], fixed_effects=["x"], e_step=e_step)
    with pytest.warns(ConvergenceWarning, match="no finite maximum"):
        model.fit(X, y)
    found = model.conf_int(method="profile", X=X, y=y, parm="x").iloc[0]
    assert found["lower"] == -np.inf

    def log_f(y, eta):
        return bernoulli.logpmf(y, expit(eta))

    best, held = (highest(log_f, X, y, (), coef=x) for x in (-40.0, found["upper"]))
    assert best - held == pytest.approx(FALL, abs=2e-3 if e_step == "quadrature" else 5e-2)


@pytest.mark.filterwarnings("ignore:zero_inflation")
def test_zeros_and_a_dispersion_at_once():
    """Each as if the other were not there: it stays at its edge."""
    model, X, y = fit(poisson_case, "negative_binomial", zero_inflation="~ 1")
    parm = ["zero: Intercept", "dispersion"]
    both = model.conf_int(method="profile", X=X, y=y, parm=parm)
    for family, zeros, name in (("poisson", "~ 1", parm[0]), ("negative_binomial", None, parm[1])):
        model, X, y = fit(poisson_case, family, zero_inflation=zeros)
        alone = model.conf_int(method="profile", X=X, y=y, parm=name)
        np.testing.assert_allclose(both.loc[name], alone.loc[name], rtol=1e-3)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:zero_inflation")
def test_columns_of_zeros_that_leave_as_a_ray():
    """One row has a zero for certain: its column and the intercept grow together."""
    rng = np.random.default_rng(2)
    X = pd.DataFrame({"g": np.arange(200) % 20, "x": rng.normal(size=200)})
    X["z"] = rng.normal(size=200)
    y = rng.poisson(np.exp(1 + 0.3 * X["x"] + 0.5 * rng.normal(size=20)[X["g"]]))
    model = MixedEffectsRegressor(
        ["g"], fixed_effects=["x"], family="poisson", zero_inflation="~ z"
    )
    found = model.fit(X, y).conf_int(method="profile", X=X, y=y, parm=[-2, -1])
    (lower, upper), (low, high) = found.to_numpy()
    assert (lower, high) == (-np.inf, np.inf)
    z = X["z"].to_numpy()[:, None]

    def log_f(y, eta, intercept, slope):
        return log_poisson(y, eta, np.clip(expit(intercept + slope * z), 1e-300, 1 - 1e-16))

    best = highest(lambda y, eta: log_f(y, eta, -283.0, 103.5), X, y, ())
    held = highest(lambda y, eta, b: log_f(y, eta, upper, b), X, y, (-upper / 3,))
    assert best - held == pytest.approx(FALL, abs=5e-3)
    held = highest(lambda y, eta, a: log_f(y, eta, a, low), X, y, (-3 * low,))
    assert best - held == pytest.approx(FALL, abs=5e-3)


def test_estimates_that_are_no_maximum_are_told(monkeypatch):
    """A likelihood that is higher beside them makes intervals about them too wide."""
    model, X, y = fit(poisson_case, "poisson")
    begin = Profile.__init__

    def lower(self, *args):
        begin(self, *args)
        self.best -= 0.2

    monkeypatch.setattr(Profile, "__init__", lower)
    with pytest.warns(ConvergenceWarning, match="higher by .* a local maximum"):
        model.conf_int(0.05, method="profile", X=X, y=y, parm="x")


def test_edges_of_a_likelihood_in_closed_form():
    """l = -exp(a) - exp(-b) - c^2 / 8, of which a and b have no maximum and c has one."""

    def fall(d):
        a, b, c = theta + d
        return np.exp(a) + np.exp(-b) + c**2 / 8 - np.exp(theta[0]) - np.exp(-theta[1])

    theta = np.array([-20.0, 15.0, 0.0])
    root, ways, back = split(np.diag([np.exp(-20), np.exp(-15), 0.25]), fall, theta)
    np.testing.assert_allclose(np.abs(root), [[0], [0], [2.0]])
    np.testing.assert_allclose(np.abs(ways), np.eye(3)[:, :2], atol=1e-12)
    found = theta + ways @ back
    np.testing.assert_allclose(found[:2], [np.log(0.5), -np.log(0.5)], atol=0.11)
    # What is only hardly known has its standard error, and what is unknown none.
    root, ways, back = split(np.diag([1e-4, 0.0]), lambda d: d[0] ** 2 / 2e4, np.zeros(2))
    np.testing.assert_allclose(np.abs(root), [[100.0], [0.0]])
    assert ways.shape == (2, 0)
    assert back.shape == (0,)


def test_an_edge_across_parameters_of_different_units():
    """l = -(a + 30 b)^2 / 2 - exp(c), c along (30, -1): no information is left of c at -40."""
    known, way = np.array([1.0, 30.0]), np.array([30.0, -1.0]) / np.sqrt(901)

    def fall(d):
        return (known @ d) ** 2 / 2 + np.exp(way @ d - 40) - np.exp(-40)

    root, ways, back = split(np.outer(known, known), fall, -40 * way)
    np.testing.assert_allclose(np.abs(known @ root), [1.0])
    np.testing.assert_allclose(ways[:, 0] * np.sign(ways[0, 0]), way, atol=1e-9)
    assert abs(back[0]) == pytest.approx(40 + np.log(0.5), abs=0.11)


@pytest.mark.filterwarnings("ignore:The coefficient 'c' has no finite")
def test_a_separated_column_beside_a_dispersion_of_0():
    rng = np.random.default_rng(1)
    X = pd.DataFrame({"x": rng.normal(size=120), "g": rng.integers(0, 10, 120)})
    X["c"] = (rng.choice(list("abc"), 120) == "c") * 1.0
    rng.integers(0, 6, 120)
    eta = 0.3 + 0.3 * X["x"] + 0.5 * rng.normal(size=10)[X["g"]]
    # The negative binomial's fit stops where c is -35, and nothing is left to tell it by.
    y = np.where(X["c"] == 1, 0, rng.poisson(np.exp(eta)))
    limits = []
    for family in ("poisson", "negative_binomial"):
        model = MixedEffectsRegressor(
            ["g"], fixed_effects=["x", "c"], family=family, method="ml", e_step="laplace"
        ).fit(X, y)
        table = model.conf_int(method="profile", X=X, y=y, parm="c")
        assert table.loc["c", "lower"] == -np.inf
        limits.append(table.loc["c", "upper"])
    # Rows of zeros tell of no dispersion.
    assert limits[1] == pytest.approx(limits[0], abs=1e-3)


def test_zeros_that_a_dispersion_tells_as_well_have_a_profile_that_ends_level():
    rng = np.random.default_rng(1)
    X = pd.DataFrame({"x": rng.normal(size=120), "g": rng.integers(0, 10, 120)})
    rng.choice(list("abc"), 120)
    rng.integers(0, 6, 120)
    eta = 0.3 + 0.3 * X["x"] + 0.5 * rng.normal(size=10)[X["g"]]
    y = rng.poisson(np.exp(eta)) * (rng.random(120) < 0.7)
    model, without = (
        MixedEffectsRegressor(
            ["g"],
            fixed_effects=["x"],
            family="negative_binomial",
            method="ml",
            e_step="laplace",
            zero_inflation=zeros,
        ).fit(X, y)
        for zeros in ("~ x", None)
    )
    # Without zeros of their own, an intercept of -infinity, the slope may be anything.
    assert 2 * (model.loglik_ - without.loglik_) < chi2.ppf(0.95, 1)
    names = ["zero: Intercept", "zero: x"]
    found = model.conf_int(method="profile", X=X, y=y, parm=names)
    assert found["lower"].tolist() == [-np.inf, -np.inf]
    assert found.loc["zero: x", "upper"] == np.inf
    assert np.isfinite(found.loc["zero: Intercept", "upper"])
