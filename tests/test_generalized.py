"""Families beyond the Gaussian: quadrature, Laplace, simulations, and data that make trouble."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.linear_model import LogisticRegression, PoissonRegressor

from sklmm import (
    CustomFamily,
    MixedEffectsClassifier,
    MixedEffectsRegressor,
    NegativeBinomial,
    StudentT,
)
from sklmm.datasets import load_cbpp, load_wine
from sklmm.result import Status
from tests.published import DATA, QUADRATURE, fitted, fixed
from tests.simulate import PARAMETERS, coverage_and_bias, simulate


@pytest.mark.parametrize("name", QUADRATURE)
def test_laplace(reference, name):
    """lme4's and clmm's own approximation, to what their optimisers leave; and its likelihood."""
    model = fitted(name, e_step="laplace")
    answer = reference[QUADRATURE[name][1]]
    coef, std, sd = fixed(answer)
    ours = model.fixed_effects_.loc[coef.index]
    assert np.all(np.abs(ours["estimate"] - coef) < 0.03 * std)
    np.testing.assert_allclose(ours["std_error"], std, rtol=0.05)
    assert model.variance_components_["sd"][0] == pytest.approx(sd, rel=5e-3)
    assert model.loglik_ == pytest.approx(answer["logLik"], abs=0.01)
    assert model.loglik_ > answer["logLik"] - 1e-4
    if "AIC" in answer:
        assert model.aic_ == pytest.approx(answer["AIC"], abs=0.02)
        assert model.bic_ == pytest.approx(answer["BIC"], abs=0.02)


def test_laplace_is_biased_where_hmc_is_not(reference):
    """The bounds of `tests.test_samplers` tell the two apart."""
    model = fitted("toenail", e_step="laplace")
    coef, std, sd = fixed(reference["toenail_agq50"])
    gap = np.abs(model.fixed_effects_.loc[coef.index, "estimate"] - coef) / std
    assert gap["Intercept"] > 1
    assert model.variance_components_["sd"][0] > sd + 0.4


def test_reml_integrates_the_coefficients_out():
    """With a flat prior and few groups, the SD rises above the ML one, as in a Gaussian model."""
    ml, reml = (fitted("cbpp", random_state=0, method=m) for m in ("ml", "reml"))
    laplace = fitted("cbpp", e_step="laplace", method="reml")
    sd = [m.variance_components_["sd"][0] for m in (ml, reml, laplace)]
    assert sd[1] > 1.03 * sd[0]
    assert sd[1] == pytest.approx(sd[2], rel=0.03)
    gap = reml.fixed_effects_["estimate"] - laplace.fixed_effects_["estimate"]
    # A posterior mean and a mode.
    assert np.all(np.abs(gap) < 0.3 * reml.fixed_effects_["std_error"])


def test_binomial_counts_equal_proportions_with_trials():
    frame = load_cbpp(as_frame=True).frame
    model, X, y, weights = DATA["cbpp"]()
    counts = np.column_stack([frame["incidence"], frame["size"] - frame["incidence"]])
    one = model.set_params(e_step="laplace").fit(X, y, sample_weight=weights)
    expected = one.fixed_effects_["estimate"]
    two = MixedEffectsRegressor(["herd"], family="binomial", e_step="laplace").fit(X, counts)
    np.testing.assert_allclose(two.fixed_effects_["estimate"], expected, rtol=1e-6)
    expanded = X.loc[X.index.repeat(2)].reset_index(drop=True)
    outcome = np.tile([1, 0], len(X))
    bernoulli = MixedEffectsRegressor(["herd"], family="bernoulli", e_step="laplace").fit(
        expanded, outcome, sample_weight=counts.ravel()
    )
    np.testing.assert_allclose(bernoulli.fixed_effects_["estimate"], expected, rtol=1e-4)


def test_plain_glm_is_maximum_likelihood():
    X, y, _, _ = simulate("poisson", 0)
    ours = MixedEffectsRegressor(fixed_effects=["x"], family="poisson").fit(X, y)
    theirs = PoissonRegressor(alpha=0, tol=1e-10, max_iter=1000).fit(X[["x"]], y)
    np.testing.assert_allclose(ours.coef_, theirs.coef_, rtol=1e-5)
    assert ours.intercept_ == pytest.approx(theirs.intercept_, rel=1e-5)
    X, y, _, _ = simulate("bernoulli", 0)
    ours = MixedEffectsClassifier(fixed_effects=["x"]).fit(X, y)
    theirs = LogisticRegression(C=np.inf, tol=1e-10).fit(X[["x"]], y)
    np.testing.assert_allclose(ours.coef_, theirs.coef_[0], rtol=1e-4)


SIMULATED = list(PARAMETERS)
N_SETS = 40


@pytest.mark.slow
@pytest.mark.parametrize("name", SIMULATED)
def test_coverage_and_bias(name):
    """95 % intervals cover 90 to 99 %; the bias is within two Monte Carlo standard errors."""
    covered, bias = coverage_and_bias(name, N_SETS)
    assert 0.90 <= covered.mean() <= 0.99, covered
    assert np.all(np.abs(bias) < 2), bias.round(2)


def laplace(eta, scale):
    import tensorflow_probability as tfp

    return tfp.distributions.Laplace(eta, scale)


def test_a_custom_family_is_one_line():
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"g": np.repeat(np.arange(40), 15), "x": rng.normal(size=600)})
    b = 0.8 * rng.standard_normal(40)
    y = 1 + 0.5 * X["x"] + b[X["g"]] + rng.laplace(0, 0.6, 600)
    model = MixedEffectsRegressor(
        ["g"], family=CustomFamily(laplace, scale="positive"), random_state=0
    ).fit(X, y)
    assert model.converged_
    assert model.coef_[0] == pytest.approx(0.5, abs=0.1)
    assert model.family_params_["scale"] == pytest.approx(0.6, rel=0.1)
    assert model.variance_components_["sd"][0] == pytest.approx(b.std(), rel=0.1)
    mean, std = model.predict(X, return_std=True)
    assert np.corrcoef(mean, y)[0, 1] > 0.7
    assert std.mean() == pytest.approx(np.sqrt(2) * 0.6, rel=0.15)
    assert model.sample_y(X, 3, random_state=0).shape == (600, 3)
    sd, grid = model.variance_components_["sd"][0], np.linspace(-4, 4, 2001)
    eta = model.intercept_ + model.coef_[0] * X["x"].to_numpy()[:, None] + grid
    logs = stats.laplace.logpdf(y.to_numpy()[:, None], eta, model.family_params_["scale"])
    levels = np.add.reduceat(logs, np.arange(0, 600, 15)) + stats.norm.logpdf(grid, 0, sd)
    right = np.sum(np.log(np.exp(levels).sum(axis=1) * (grid[1] - grid[0])))
    assert model.loglik_error_ < 0.2
    assert model.loglik_ == pytest.approx(right, abs=4 * model.loglik_error_ + 0.02)


def test_a_custom_family_follows_what_its_function_reads():
    rng = np.random.default_rng(0)
    g = np.arange(120) % 8
    X, y = pd.DataFrame({"g": g}), rng.normal(size=8)[g] + rng.laplace(size=120)
    width = 1.0

    def family():
        return CustomFamily(lambda eta: laplace(eta, width))

    one, fits = family(), []
    for width in (1.0, 3.0):  # noqa: B007
        for each in (one, family()):
            model = MixedEffectsRegressor(["g"], family=each, e_step="laplace").fit(X, y)
            fits.append(model.loglik_)
    assert fits[0] == fits[1] != fits[2] == fits[3]


@pytest.mark.parametrize("e_step", ["laplace", "hmc"])
@pytest.mark.parametrize(
    ("function", "says"),
    [
        (lambda eta, scale: laplace(np.exp(eta), scale), "symbolic tf.Tensor"),
        (lambda eta, scale: laplace(eta, scale) if scale > 1 else None, "Python `bool`"),
        (lambda eta, scale: eta / scale, "no attribute 'log_prob'"),
    ],
)
def test_a_custom_family_that_fails_is_told_why(function, says, e_step):
    X, y = pd.DataFrame({"g": np.arange(60) % 6}), np.linspace(-1, 1, 60)
    model = MixedEffectsRegressor(["g"], family=CustomFamily(function, scale="positive"))
    with pytest.raises(ValueError, match=f"family: .*{says}.*tf.where"):
        model.set_params(e_step=e_step).fit(X, y)


def test_a_custom_normal_is_the_gaussian():
    """The same model by autodiff and by hand, without scaling and with it."""

    def normal(eta, sigma):
        import tensorflow_probability as tfp

        return tfp.distributions.Normal(eta, sigma)

    X, y, _, _ = simulate("gaussian", 1)
    exact = MixedEffectsRegressor(["g"], method="ml").fit(X, y)
    custom = MixedEffectsRegressor(
        ["g"], family=CustomFamily(normal, sigma="positive"), e_step="laplace"
    ).fit(X, y)
    assert custom.loglik_ == pytest.approx(exact.loglik_, abs=1e-4)
    np.testing.assert_allclose(custom.coef_, exact.coef_, rtol=1e-4)
    assert custom.family_params_["sigma"] == pytest.approx(exact.sigma_, rel=1e-4)


def test_overdispersed_counts_get_a_dispersion():
    X, y, _, _ = simulate("negative_binomial", 3)
    poisson = MixedEffectsRegressor(["g"], family="poisson", e_step="laplace").fit(X, y)
    negative = MixedEffectsRegressor(["g"], family=NegativeBinomial(), e_step="laplace").fit(X, y)
    assert negative.loglik_ > poisson.loglik_ + 20
    assert negative.family_params_["dispersion"] > 0.2


def test_data_without_overdispersion_reach_the_poisson_limit():
    X, y, _, _ = simulate("poisson", 3)
    poisson = MixedEffectsRegressor(["g"], family="poisson", e_step="laplace").fit(X, y)
    limit = MixedEffectsRegressor(["g"], family="negative_binomial", e_step="laplace").fit(X, y)
    assert limit.family_params_["dispersion"] < 0.1
    np.testing.assert_allclose(limit.coef_, poisson.coef_, atol=0.02)


def test_zero_inflated_counts_fit():
    X, y, _, _ = simulate("poisson", 4)
    y = np.where(np.random.default_rng(0).random(len(y)) < 0.6, 0, y)
    model = MixedEffectsRegressor(["g"], family="negative_binomial", random_state=0).fit(X, y)
    assert np.isfinite(model.fixed_effects_.to_numpy()).all()
    assert model.family_params_["dispersion"] > 0.5


@pytest.mark.parametrize("e_step", ["hmc", "laplace"])
def test_clusters_of_one_class_are_no_trouble(e_step):
    X, y, _, _ = simulate("bernoulli", 5)
    y = np.where(X["g"] < 10, 0, y)
    model = MixedEffectsClassifier(["g"], e_step=e_step, random_state=0).fit(X, y)
    assert np.isfinite(model.fixed_effects_.to_numpy()).all()
    effects = model.random_effects_["g"]["Intercept"]
    assert effects[:10].max() < effects[10:].median()


def test_separation_is_named():
    x = np.linspace(-1, 1, 40)
    X = pd.DataFrame({"dose": x, "noise": np.sin(9 * x)})
    with pytest.warns(UserWarning, match="coefficient 'dose' has no finite maximum"):
        model = MixedEffectsClassifier(fixed_effects=["dose"]).fit(X, x > 0)
    assert model.result_.status is Status.SEPARATED
    assert not model.converged_
    assert "separated: a coefficient has no finite" in model.summary()


@pytest.mark.parametrize("estimator", [MixedEffectsClassifier(["g"]), MixedEffectsClassifier()])
def test_one_class_is_an_error(estimator):
    X, _, _, _ = simulate("bernoulli", 0)
    with pytest.raises(ValueError, match="one class only"):
        estimator.fit(X, np.zeros(len(X)))
    assert not hasattr(estimator, "classes_")


def test_same_seed_same_numbers():
    X, y, _, _ = simulate("poisson", 6)
    one, two, other = (
        MixedEffectsRegressor(["g"], family="poisson", e_step="hmc", random_state=s).fit(X, y)
        for s in (0, 0, 1)
    )
    np.testing.assert_array_equal(one.predict(X), two.predict(X))
    assert one.intercept_ == two.intercept_
    gap = abs(one.fixed_effects_["estimate"] - other.fixed_effects_["estimate"])
    error = np.hypot(one.mc_error_[:2], other.mc_error_[:2])
    assert 0 < gap.max() < 5 * error.max()


def test_student_t_resists_outliers():
    X, y, _, truth = simulate("gaussian", 7)
    y[::50] += 25
    robust = MixedEffectsRegressor(["g"], family=StudentT(), random_state=0).fit(X, y)
    normal = MixedEffectsRegressor(["g"]).fit(X, y)
    assert abs(robust.coef_[0] - truth["x"]) < abs(normal.coef_[0] - truth["x"]) + 0.05
    assert robust.sigma_ < 0.5 * normal.sigma_
    assert robust.family_params_["df"] < 4


def test_ratings_are_predicted_by_the_mean_of_their_classes():
    X, y = load_wine(return_X_y=True, as_frame=True)
    known = {"fixed_effects": "~ temp", "e_step": "laplace", "random_state": 0}
    ratings = MixedEffectsRegressor(["judge"], family="ordinal", **known).fit(X, y)
    classes = MixedEffectsClassifier(["judge"], family="ordinal", **known).fit(X, y)
    expected = classes.predict_proba(X) @ classes.classes_
    np.testing.assert_allclose(ratings.predict(X), expected, rtol=1e-10)
