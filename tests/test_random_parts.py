"""Random effects in the zeros and in the dispersion, beside those of the mean."""

import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.special import logsumexp

from sklmm import HMC, GammaPrior, MixedEffectsRegressor, RandomEffect, anova

DATA = Path(__file__).parent / "data"
#: glmmTMB 1.1.5's coefficients of the mean and of the zeros, SDs of them, and log-likelihood.
GLMMTMB = {
    "zero-inflated counts": (
        {"formula": "y ~ x + (1 | g) + (1 | h)", "family": "negative_binomial"},
        [0.51412726367, 0.52092952548, -1.6260236979, 1.1271393934],
        {"g": 0.6513941434, "h": 0.31757551869, "zero: g": 0.40196971276},
        -3223.456762948,
    ),
    "zero-inflated Poisson": (
        {"formula": "y ~ x + (1 | g)", "family": "poisson"},
        [0.74934055, 0.49069605, -0.77720300, 0.74541515],
        {"g": 0.67242865, "zero: g": 0.40037038},
        -3643.61034485,
    ),
    "hurdle": (
        {"formula": "y ~ x + (1 | g)", "family": "truncated_negative_binomial"},
        [0.50393759989, 0.53901277727, -0.22014189314, 0.56487657341],
        {"g": 0.68738775759, "zero: g": 0.45656563054},
        -3291.2430932548,
    ),
}


@pytest.fixture(scope="module")
def zinb():
    return pd.read_csv(DATA / "zinb.csv")


@pytest.fixture(scope="module")
def counts():
    rng = np.random.default_rng(1)
    n, J = 400, 20
    g, h = rng.integers(J, size=n), rng.integers(6, size=n)
    x, z = rng.normal(size=n), rng.integers(2, size=n)
    mean = np.exp(0.8 + 0.5 * x + rng.normal(0, 0.6, J)[g])
    zero = 1 / (1 + np.exp(1 - 0.8 * z - rng.normal(0, 0.9, J)[g]))
    y = np.where(rng.random(n) < zero, 0, rng.poisson(mean))
    return pd.DataFrame({"g": g, "h": h, "x": x, "z": z, "y": y})


@pytest.fixture(scope="module")
def numbers():
    rng = np.random.default_rng(2)
    n, J = 300, 15
    g, x, z = rng.integers(J, size=n), rng.normal(size=n), rng.random(n)
    sd = np.exp(1 + 0.6 * z + rng.normal(0, 0.5, J)[g])
    y = 100 + 3 * x + rng.normal(0, 4, J)[g] + sd * rng.normal(size=n)
    return pd.DataFrame({"g": g, "x": x, "z": z, "y": y})


def model(formula="y ~ x + (1 | g)", **params):
    given = {"family": "poisson", "zero_inflation": "~ z + (1 | g)", "e_step": "laplace"}
    return MixedEffectsRegressor.from_formula(formula, random_state=0, **given | params)


def dispersion(**params):
    given = {"family": "gaussian", "zero_inflation": None, "dispersion": "~ z + (1 | g)"}
    return model(**given | params)


def sds(fitted):
    table = fitted.variance_components_
    return dict(zip(table["group"], table["sd"], strict=True))


@pytest.mark.parametrize("name", GLMMTMB)
def test_laplace_is_that_of_glmmtmb(zinb, name):
    params, coef, sd, loglik = GLMMTMB[name]
    fitted = model(**params).fit(zinb)
    np.testing.assert_allclose(fitted.result_.coef, coef, rtol=1e-4)
    found = sds(fitted)
    assert {k: found[k] for k in sd} == pytest.approx(sd, rel=1e-4)
    assert fitted.loglik_ == pytest.approx(loglik, abs=1e-5)


def brute_force(table, coef, sds):
    """Log-likelihood of a Gaussian model with effects in the mean and in log sigma, by a grid."""
    u, step = np.linspace(-6, 6, 121, retstep=True)
    w, total = stats.norm.logpdf(u) + np.log(step), 0.0
    for _, own in table.groupby("g"):
        y, x, z = (own[name].to_numpy() for name in ("y", "x", "z"))
        away = (y - coef[0] - coef[1] * x)[:, None] - sds[0] * u
        log_sd = (coef[2] + coef[3] * z)[:, None] + sds[1] * u
        # Sums over the rows of squares over variances, at all pairs of effects.
        value = -0.5 * (away**2).T @ np.exp(-2 * log_sd) - log_sd.sum(axis=0)
        total += logsumexp(value + w[:, None] + w) - 0.5 * len(y) * np.log(2 * np.pi)
    return total


def test_quadrature_of_a_dispersion_is_the_likelihood_and_its_maximum(numbers):
    fitted = dispersion(e_step="auto", tol=1e-5).fit(numbers)
    assert repr(fitted.e_step_) == "Quadrature()"
    coef, natural = fitted.result_.coef, fitted.result_.natural
    value = brute_force(numbers, coef, natural)
    assert fitted.loglik_ == pytest.approx(value, abs=2e-3)
    std, at = np.sqrt(np.diag(fitted.result_.natural_cov)), np.concatenate([coef, natural])
    for k, s in enumerate(std):
        up, down = (
            brute_force(numbers, moved[:4], moved[4:])
            for moved in (at + 0.1 * s * np.eye(6)[k], at - 0.1 * s * np.eye(6)[k])
        )
        # A slope in standard errors.
        assert abs(up - down) / 0.2 < 0.02
    near = dispersion().fit(numbers)
    assert near.loglik_ == pytest.approx(value, abs=1.5)
    np.testing.assert_allclose(near.result_.coef, coef, atol=0.2 * std[:4].max())


def test_a_dispersion_is_in_units_of_the_response(numbers):
    small = dispersion().fit(numbers.assign(y=numbers["y"] * 1e-6))
    large = dispersion().fit(numbers)
    own = large.result_.coef * [1e-6, 1e-6, 1, 1] + [0, 0, np.log(1e-6), 0]
    np.testing.assert_allclose(small.result_.coef, own, rtol=1e-5)
    assert small.loglik_ - large.loglik_ == pytest.approx(len(numbers) * np.log(1e6), rel=1e-8)
    scale = sds(large)["g"] * 1e-6, sds(large)["sigma: g"]
    assert tuple(sds(small).values()) == pytest.approx(scale, rel=1e-5)


def test_monte_carlo_agrees_with_quadrature(counts):
    exact = model(e_step="quadrature").fit(counts)
    drawn = model(e_step=HMC(backend="numpy")).fit(counts)
    names = exact._fitted.labels.names
    (one, std), (other, _) = (own._fitted.estimates(own.result_) for own in (exact, drawn))
    error = np.maximum(4 * drawn.mc_error_[names], 0.05 * std[names])
    assert (np.abs(one - other)[names] < error).all()
    assert drawn.loglik_ == pytest.approx(exact.loglik_, abs=4 * drawn.loglik_error_ + 0.01)
    np.testing.assert_allclose(drawn.predict(counts), exact.predict(counts), rtol=0.1, atol=0.1)


def test_laplace_is_near_quadrature_with_too_small_an_sd(counts):
    near = model(formula="y ~ x + (1 | g)").fit(counts)
    exact = model(e_step="quadrature").fit(counts)
    # Binary data of few rows a level: Laplace's SD is too small.
    assert sds(near)["zero: g"] < sds(exact)["zero: g"]
    assert near.loglik_ == pytest.approx(exact.loglik_, abs=1)


def test_predictions_average_over_both_predictors(counts):
    fitted = model().fit(counts)
    draws = fitted.sample_y(counts, n_samples=1500, random_state=0)
    mean, std = fitted.predict(counts, return_std=True)
    error = draws.std(axis=1) / np.sqrt(1500)
    assert np.mean(np.abs(draws.mean(axis=1) - mean) < 4 * error) > 0.97
    np.testing.assert_allclose(draws.std(axis=1), std, rtol=0.2)
    # Without the zeros' effects the mean is another; an unseen level has none of either.
    other = fitted.predict(counts, include_random=["g"])
    assert np.abs(other - mean).max() > 0.1
    new = counts.assign(g=-1)
    np.testing.assert_allclose(fitted.predict(new), fitted.predict(counts, include_random=False))
    assert (fitted.predict(new, return_std=True)[1] > 0).all()


def test_tables_and_names(counts):
    fitted = model(zero_inflation="~ z + (1 + x || g)").fit(counts)
    assert list(fitted.random_effects_) == ["g", "zero: g"]
    assert list(fitted.cov_re_["zero: g"]) == ["Intercept", "x"]
    assert fitted.random_effects_["zero: g"].shape == (20, 2)
    assert fitted.coef_.shape == (1,)
    names = ["sd(g, Intercept)", "sd(zero: g, Intercept)", "sd(zero: g, x)"]
    assert list(fitted.conf_int().index[-3:]) == names
    assert "zero: z" in fitted.conf_int().index
    assert "zero: g" in str(fitted.summary())


def test_lists_of_terms_are_formulas(counts):
    formula = model().fit(counts)
    X = counts.drop(columns="y")
    for terms in (["z", "(1 | g)"], ["z", RandomEffect("g")]):
        lists = MixedEffectsRegressor(
            ["g"], fixed_effects=["x"], family="poisson", zero_inflation=terms, e_step="laplace"
        ).fit(X, counts["y"])
        assert lists.loglik_ == pytest.approx(formula.loglik_, abs=1e-8)
    places = MixedEffectsRegressor(
        [0],
        fixed_effects=[2],
        family="poisson",
        zero_inflation=[3, RandomEffect(0)],
        e_step="laplace",
        random_state=0,
    ).fit(X.to_numpy(), counts["y"])
    assert places.loglik_ == pytest.approx(formula.loglik_, abs=1e-8)
    np.testing.assert_allclose(places.predict(X.to_numpy()), formula.predict(counts))


def test_updates_saving_and_warm_starts(counts):
    fitted, part = model().fit(counts), counts["g"] != 5
    updated = model().fit(counts[part]).update(counts[~part])
    for term in ("g", "zero: g"):
        new, old = (own.random_effects_[term].loc[5].item() for own in (updated, fitted))
        assert new == pytest.approx(old, abs=0.15)
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.predict(counts), fitted.predict(counts))
    again.set_params(warm_start=True).fit(counts)
    assert again.n_iter_ <= 2
    assert again.loglik_ == pytest.approx(fitted.loglik_, abs=1e-6)


def test_rows_given_again_are_to_be_those_of_the_fit(counts):
    fitted = model(e_step="quadrature").fit(counts)
    other = counts.assign(z=counts["z"].to_numpy()[::-1])
    with pytest.raises(ValueError, match="each row must be that of the fit"):
        fitted.conf_int(method="profile", X=other, parm="zero: z")


def test_several_parts_and_priors(counts):
    both = model(
        family="negative_binomial",
        dispersion="~ z",
        coef_prior={"zero: z": 1e-3},
        sd_prior={"zero: g": "gamma"},
    )
    both.fit(counts)
    names = both._fitted.labels.names
    assert abs(both.result_.coef[3]) < 1e-3
    assert names[:4] == ["Intercept", "x", "zero: Intercept", "zero: z"]
    assert names[-2:] == ["dispersion: Intercept", "dispersion: z"]


def test_errors_name_what_is_available(counts, numbers):
    with pytest.raises(ValueError, match=r"random effects in sigma.*'quadrature', 'hmc'"):
        dispersion(e_step="exact").fit(numbers)
    with pytest.raises(ValueError, match="has no dispersion"):
        model(zero_inflation=None, dispersion="~ (1 | g)").fit(counts)
    with pytest.raises(ValueError, match="linear combination"):
        model(zero_inflation=["z", "z2", "(1 | g)"]).fit(counts.assign(z2=counts["z"]))


def test_sigma_of_an_sd_with_effects_is_the_root_mean_square_of_the_rows():
    """At the effects' means; R^2 and the intraclass correlation of the mean's terms have it."""
    rng = np.random.default_rng(0)
    rows = pd.DataFrame({"g": np.repeat(np.arange(30), 8)}).assign(
        x=rng.standard_normal(240), z=rng.standard_normal(240)
    )
    y = rows["x"] / 2 + rng.standard_normal(30)[rows["g"]] / 2
    y += np.exp(0.4 * rows["z"] - 0.2) * rng.standard_normal(240)
    model = MixedEffectsRegressor(
        ["g"], fixed_effects=["x"], dispersion="~ z + (1 | g)", e_step="laplace"
    ).fit(rows, y)
    first, slope = model.dispersion_effects_["estimate"]
    of_g = list(model.random_effects_.values())[1].iloc[:, 0]
    log_sd = first + slope * rows["z"] + of_g.loc[rows["g"]].to_numpy()
    square = np.mean(np.exp(2 * log_sd))
    assert model.sigma_ == pytest.approx(np.sqrt(square), rel=1e-9)
    between = model.result_.covariances[0][0, 0]
    fixed = np.var(model.coef_[0] * rows["x"], ddof=1)
    total = fixed + between + square
    np.testing.assert_allclose(model.r2(), [fixed / total, (fixed + between) / total], rtol=1e-9)
    assert model.icc().to_dict() == {"g": pytest.approx(between / (between + square), rel=1e-9)}


@pytest.mark.parametrize("prior", [1.0, {"x": 0.1}, {"zero: Intercept": 0.5}])
def test_coefficients_have_priors_beside_effects_of_the_same_levels(counts, prior):
    """As beside an SD's prior, where the two terms are not one block, and that is nearly flat."""
    X, y = counts.drop(columns="y"), counts["y"]
    given = {"fixed_effects": ["x"], "family": "poisson", "zero_inflation": "~ 1 + (1 | g)"}
    given |= {"e_step": "laplace", "coef_prior": prior}
    one = MixedEffectsRegressor(["g"], **given).fit(X, y)
    apart = GammaPrior(shape=1.0 + 1e-7, rate=1e-9, relative=False)
    two = MixedEffectsRegressor(["g"], sd_prior=apart, **given).fit(X, y)
    np.testing.assert_allclose(one.coef_, two.coef_, rtol=1e-4)
    np.testing.assert_allclose(
        one.zero_inflation_effects_["estimate"], two.zero_inflation_effects_["estimate"], rtol=1e-3
    )


def test_effects_of_a_dispersion_are_compared_with_none(numbers):
    X, y = numbers.drop(columns="y"), numbers["y"]
    small, large = (
        MixedEffectsRegressor(["g"], fixed_effects=["x"], dispersion=part, method="ml").fit(X, y)
        for part in ("~ 1", "~ 1 + (1 | g)")
    )
    table = anova(small, large)
    assert table["df"].iloc[1] == 1
    assert table["chi2"].iloc[1] >= 0
