"""The main job: InstEval (73,421 rows, 2,972 x 1,128 x 14 levels) against lme4."""

import numpy as np
import pytest
from sklearn.compose import make_column_transformer
from sklearn.metrics import root_mean_squared_error
from sklearn.model_selection import KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from sklmm import MixedEffectsRegressor
from sklmm.result import Status

pytestmark = pytest.mark.slow

TERMS = ["students", "instructors", "departments"]


def model(**parameters):
    return MixedEffectsRegressor(TERMS, fixed_effects=["service"], **parameters)


def sds(fitted):
    """SDs of students, instructors, departments and the residual."""
    return fitted.variance_components_["sd"].to_numpy()


def lme4(answer):
    coef = np.array(list(answer["fixef"].values()))
    return np.array([answer["varcorr_sd"][k] for k in ("s", "d", "dept")] + [answer["sigma"]]), coef


@pytest.fixture(scope="module", params=["reml", "ml"])
def method(request):
    return request.param


@pytest.fixture(scope="module")
def cg_fits(method, insteval):
    return [
        model(method=method, e_step="cg", random_state=seed).fit(*insteval) for seed in range(3)
    ]


@pytest.fixture(scope="module")
def exact_fit(method, insteval):
    return model(method=method).fit(*insteval)


@pytest.fixture(scope="module")
def hmc_fit(insteval):
    return model(e_step="hmc", random_state=0).fit(*insteval)


def test_default_engine_is_exact_and_agrees_with_lme4(exact_fit, method, reference):
    answer = reference[f"insteval_{method}"]
    expected, coef = lme4(answer)
    np.testing.assert_allclose(sds(exact_fit), expected, rtol=1e-3)
    std_error = np.array(list(answer["fixef_se"].values()))
    gap = np.abs([exact_fit.intercept_, exact_fit.coef_[0]] - coef)
    assert (gap < 0.01 * std_error).all()
    # lme4's optimiser stops a little short of the maximum.
    assert exact_fit.loglik_ == pytest.approx(answer["logLik"], abs=0.01)
    assert exact_fit.loglik_ > answer["logLik"] - 1e-6
    assert exact_fit.result_.status is Status.CONVERGED


def test_cg_agrees_with_the_exact_fit_within_its_monte_carlo_error(
    cg_fits, exact_fit, estimates, standard_errors
):
    expected, widths = estimates(exact_fit), standard_errors(exact_fit)
    for fitted in cg_fits:
        gap = np.abs(estimates(fitted) - expected)
        assert (gap < 4 * fitted.mc_error_ + 2e-3 * widths).all()
        np.testing.assert_allclose(standard_errors(fitted), widths, rtol=0.02)
        np.testing.assert_allclose(
            fitted.random_effects_["students"], exact_fit.random_effects_["students"], atol=2e-3
        )


def test_cg_agrees_with_lme4_for_every_seed(cg_fits, method, reference):
    expected, coef = lme4(reference[f"insteval_{method}"])
    std_error = np.array(list(reference[f"insteval_{method}"]["fixef_se"].values()))
    for fitted in cg_fits:
        error = np.abs(sds(fitted) / expected - 1)
        assert (error < [0.003, 0.003, 0.01, 0.003]).all()
        gap = np.abs([fitted.intercept_, fitted.coef_[0]] - coef)
        assert (gap < 0.05 * std_error).all()
        assert fitted.result_.status is Status.CONVERGED_MC


def test_seeds_differ_by_their_monte_carlo_error(cg_fits, estimates, standard_errors):
    values = np.array([estimates(f) for f in cg_fits])
    bound = 4 * np.max([f.mc_error_ for f in cg_fits], axis=0)
    bound += 1e-3 * standard_errors(cg_fits[0]).to_numpy()
    assert (np.ptp(values, axis=0)[-4:] > 0).all()
    assert (np.ptp(values, axis=0) < bound).all()
    assert (bound < 0.2 * standard_errors(cg_fits[0])).all()


def test_standard_errors_of_coefficients_are_lme4s(cg_fits, method, reference):
    if method == "ml":
        expected = list(reference["insteval_ml"]["fixef_se"].values())
        for fitted in cg_fits:
            np.testing.assert_allclose(fitted.fixed_effects_["std_error"], expected, rtol=5e-3)
    else:
        # The reference holds the ML fit's; REML's larger variances widen the intercept's.
        widths = cg_fits[0].fixed_effects_["std_error"]
        np.testing.assert_allclose(widths.iloc[1], 0.01338, rtol=5e-3)
        assert widths.iloc[0] > 0.02841


def test_hmc_from_scratch_agrees_with_lme4(hmc_fit, reference):
    expected, coef = lme4(reference["insteval_reml"])
    error = np.abs(sds(hmc_fit) / expected - 1)
    assert (error < [0.01, 0.01, 0.06, 0.01]).all()
    assert abs(hmc_fit.intercept_ - coef[0]) < 0.1 * 0.02841
    assert hmc_fit.result_.status is Status.CONVERGED_MC


def test_hmc_agrees_with_cg_within_its_monte_carlo_error(hmc_fit, insteval, estimates):
    oracle = model(random_state=0).fit(*insteval)
    gap = np.abs(estimates(hmc_fit) - estimates(oracle))
    bound = 4 * np.hypot(hmc_fit.mc_error_, oracle.mc_error_)
    assert (gap < bound).all(), (gap / bound).to_string()


def test_held_out_ratings_are_predicted_as_well_as_by_lme4(insteval, reference):
    X, y = insteval
    train = np.random.RandomState(0).rand(len(y)) < 0.8
    answer = reference["insteval_split_reml"]
    fitted = model(random_state=0).fit(X[train], y[train])
    rmse = root_mean_squared_error(y[~train], fitted.predict(X[~train]))
    assert rmse == pytest.approx(1.2071, abs=5e-4)
    assert fitted.score(X[~train], y[~train]) == pytest.approx(answer["test_r2"], abs=5e-4)
    population = fitted.predict(X[~train], include_random=False)
    expected = answer["test_rmse_population"]
    assert root_mean_squared_error(y[~train], population) == pytest.approx(expected, abs=5e-4)
    expected, coef = lme4(answer)
    assert (np.abs(sds(fitted) / expected - 1) < [0.003, 0.003, 0.01, 0.003]).all()
    np.testing.assert_allclose([fitted.intercept_, fitted.coef_[0]], coef, atol=0.05 * 0.0134)


def test_cross_validation_through_a_pipeline_in_one_process_and_in_two(insteval):
    X, y = insteval
    columns = make_column_transformer(
        (OneHotEncoder(drop="first", sparse_output=False), ["service"]),
        ("passthrough", TERMS),
        verbose_feature_names_out=False,
    ).set_output(transform="pandas")
    pipe = make_pipeline(columns, MixedEffectsRegressor(TERMS, random_state=0))
    folds = KFold(5, shuffle=True, random_state=0)
    scores = {n: cross_val_score(pipe, X, y, cv=folds, n_jobs=n) for n in (1, 2)}
    assert scores[1].mean() >= 0.1850
    np.testing.assert_allclose(scores[2], scores[1], rtol=1e-6)


def test_known_ratings_are_covered_at_the_nominal_rate(cg_fits, insteval):
    X, y = insteval
    mean, std = cg_fits[0].predict(X.iloc[:20_000], return_std=True)
    standardized = (y[:20_000] - mean) / std
    assert 0.9 < standardized.std() < 1.0
