"""The estimator against lme4, least squares and the dense likelihood; its fitted attributes."""

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize, minimize_scalar
from scipy.stats import multivariate_normal, norm
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LinearRegression

from sklmm import Gaussian, MixedEffectsRegressor, RandomEffect
from sklmm.datasets import make_crossed
from sklmm.result import Status
from tests.published import MODELS, gaussian_fit, gaussian_tables, lme4_sds


@pytest.fixture(scope="module")
def data():
    return gaussian_tables()


@pytest.fixture(params=MODELS)
def name(request):
    return request.param


@pytest.fixture(params=["reml", "ml"])
def method(request):
    return request.param


@pytest.fixture
def case(name, method, data, reference):
    """A fitted model and lme4's answer."""
    return gaussian_fit(name, method, data), reference[f"{name}_{method}"]


def test_standard_deviations_are_lme4s(case):
    model, answer = case
    sds = model.variance_components_["sd"].dropna().to_numpy()
    expected = lme4_sds(answer)
    assert model.sigma_ == pytest.approx(answer["sigma"], rel=1e-3)
    np.testing.assert_allclose(
        sds[:-1], expected, rtol=1e-3, atol=1e-3 * answer["sigma"] * (expected == 0).any()
    )


def test_correlations_are_lme4s(case):
    model, answer = case
    expected = []
    for part in answer["varcorr"].values():
        corr = np.atleast_2d(part["corr"])
        expected += [corr[i, j] for i in range(len(corr)) for j in range(i)]
    corr = model.variance_components_["corr"].dropna()
    np.testing.assert_allclose(corr, expected, rtol=1e-3)


def test_coefficients_are_lme4s(case):
    model, answer = case
    coef = [model.intercept_, *model.coef_]
    np.testing.assert_allclose(coef, list(answer["fixef"].values()), rtol=1e-3)


def test_standard_errors_of_coefficients_are_lme4s(case):
    model, answer = case
    expected = list(answer["fixef_se"].values())
    np.testing.assert_allclose(model.fixed_effects_["std_error"], expected, rtol=5e-3)


def test_likelihood_is_lme4s_and_no_lower(case):
    model, answer = case
    assert model.loglik_ == pytest.approx(answer["logLik"], abs=0.01)
    assert model.loglik_ > answer["logLik"] - 1e-6
    assert model.aic_ == pytest.approx(answer["AIC"], abs=0.01)
    assert model.bic_ == pytest.approx(answer["BIC"], abs=0.01)


def test_a_fit_is_singular_exactly_where_lme4s_is(case):
    model, answer = case
    singular = (lme4_sds(answer) == 0).any()
    assert model.result_.status is (Status.SINGULAR if singular else Status.CONVERGED)


def test_singular_fit_says_so_in_words(data):
    model = MixedEffectsRegressor(["Batch"]).fit(*data["dyestuff2"])
    assert model.converged_
    assert "singular fit: a variance is 0" in model.summary()
    X, y = data["dyestuff2"]
    np.testing.assert_allclose(model.predict(X), np.mean(y), rtol=1e-6)


def test_sleepstudy_effects_and_their_sds_are_lme4s(sleep_model, reference):
    answer = reference["sleepstudy_ranef"]
    effects = sleep_model.random_effects_["Subject"]
    expected = pd.DataFrame(answer["ranef"])
    assert effects.index.astype(str).tolist() == answer["levels"]
    assert effects.columns.tolist() == ["Intercept", "Days"]
    # lme4's theta stops at a gradient of 1e-4 or so: small effects differ by 1e-4 of their SD.
    np.testing.assert_allclose(effects, expected, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(
        sleep_model.random_effects_std_["Subject"], answer["condsd"], rtol=1e-3
    )


def test_no_random_effects_is_least_squares():
    X, y, _ = make_crossed(200, (5,), n_features=3, random_state=0)
    X = X[["x0", "x1", "x2"]].astype(float)
    model = MixedEffectsRegressor().fit(X, y)
    ols = LinearRegression().fit(X, y)
    np.testing.assert_allclose(model.coef_, ols.coef_, rtol=1e-9)
    assert model.intercept_ == pytest.approx(ols.intercept_, rel=1e-9)
    np.testing.assert_allclose(model.predict(X), ols.predict(X), rtol=1e-9)
    residual = y - ols.predict(X)
    assert model.sigma_ == pytest.approx(np.sqrt(residual @ residual / (200 - 4)), rel=1e-6)
    ml = MixedEffectsRegressor(method="ml").fit(X, y)
    assert ml.sigma_ == pytest.approx(np.sqrt(residual @ residual / 200), rel=1e-6)


def sleep_terms(X, covariance):
    refs = X["Subject"].factorize(sort=True)[0]
    z = np.column_stack([np.ones(len(X)), X["Days"]])[:, : len(covariance)]
    return [(refs, z, np.atleast_2d(covariance), 18)]


def fixed_matrix(X):
    return np.column_stack([np.ones(len(X)), X["Days"]])


@pytest.mark.parametrize("reml", [True, False])
def test_pinned_sd_maximises_the_likelihood_in_the_rest(sleepstudy, dense_model, reml):
    X, y = sleepstudy
    term = RandomEffect("Subject", sd=20.0)
    model = MixedEffectsRegressor([term], method="reml" if reml else "ml").fit(X, y)

    def loss(sigma):
        return -dense_model(fixed_matrix(X), y, sleep_terms(X, [[400.0]]), sigma).loglik(reml)

    best = minimize_scalar(loss, bounds=(10, 60), method="bounded", options={"xatol": 1e-6})
    assert model.variance_components_["sd"][0] == pytest.approx(20.0, rel=1e-12)
    assert model.sigma_ == pytest.approx(best.x, rel=1e-4)
    assert model.loglik_ == pytest.approx(-best.fun, abs=1e-5)


def test_pinned_slope_sd_is_in_units_of_its_column(sleepstudy, dense_model):
    X, y = sleepstudy
    term = RandomEffect("Subject", slopes=["Days"], intercept=False, sd=5.0)
    model = MixedEffectsRegressor([term]).fit(X, y)
    z = X[["Days"]].to_numpy(float)
    refs = X["Subject"].factorize(sort=True)[0]

    def loss(sigma):
        return -dense_model(fixed_matrix(X), y, [(refs, z, np.array([[25.0]]), 18)], sigma).loglik(
            True
        )

    best = minimize_scalar(loss, bounds=(10, 60), method="bounded", options={"xatol": 1e-6})
    assert model.cov_re_["Subject"].to_numpy() == pytest.approx(25.0, rel=1e-12)
    assert model.sigma_ == pytest.approx(best.x, rel=1e-4)


def test_pinned_sigma_maximises_the_likelihood_in_the_rest(sleepstudy, dense_model):
    X, y = sleepstudy
    model = MixedEffectsRegressor(["(1 + Days | Subject)"], family=Gaussian(sigma=30.0)).fit(X, y)

    def loss(theta):
        L = np.array([[theta[0], 0.0], [theta[1], theta[2]]])
        return -dense_model(fixed_matrix(X), y, sleep_terms(X, L @ L.T), 30.0).loglik(True)

    best = minimize(
        loss, [20.0, 0.0, 5.0], method="Nelder-Mead", options={"fatol": 1e-9, "xatol": 1e-6}
    )
    assert model.sigma_ == pytest.approx(30.0, rel=1e-12)
    assert model.loglik_ == pytest.approx(-best.fun, abs=1e-6)
    assert model.result_.n_variance_parameters == 3


def test_nested_term_is_the_same_as_columns_built_by_hand(data):
    X, y = data["pastes"]
    by_hand = X[["batch"]].assign(pair=X["batch"] + "/" + X["cask"])
    nested = MixedEffectsRegressor(["(1 | batch/cask)"]).fit(X[["batch", "cask"]], y)
    manual = MixedEffectsRegressor(["batch", "pair"]).fit(by_hand, y)
    np.testing.assert_allclose(
        nested.variance_components_["sd"], manual.variance_components_["sd"], rtol=1e-9
    )
    np.testing.assert_allclose(
        nested.random_effects_["batch:cask"], manual.random_effects_["pair"], rtol=1e-7, atol=1e-9
    )
    np.testing.assert_allclose(
        nested.predict(X[["batch", "cask"]]), manual.predict(by_hand), rtol=1e-9
    )


def test_strings_positions_and_term_objects_mean_the_same(sleepstudy):
    X, y = sleepstudy
    days, subject = X.columns.get_loc("Days"), X.columns.get_loc("Subject")
    spellings = [
        ["(1 + Days | Subject)"],
        ["Days | Subject"],
        [RandomEffect("Subject", slopes=["Days"])],
        [RandomEffect(subject, slopes=(days,))],
    ]
    covariances = [MixedEffectsRegressor(t).fit(X, y).cov_re_["Subject"] for t in spellings]
    for covariance in covariances[1:]:
        pd.testing.assert_frame_equal(covariance, covariances[0])
    intercepts = [["Subject"], [subject], ["(1 | Subject)"], [RandomEffect("Subject")]]
    sigmas = [MixedEffectsRegressor(t).fit(X, y).sigma_ for t in intercepts]
    assert len(set(sigmas)) == 1
    array = MixedEffectsRegressor([subject]).fit(X.to_numpy(float), y)
    assert array.sigma_ == sigmas[0]


def test_uncorrelated_slopes_are_two_terms_on_one_factor(sleepstudy):
    X, y = sleepstudy
    bars = MixedEffectsRegressor(["(1 + Days || Subject)"]).fit(X, y)
    terms = MixedEffectsRegressor(["(1 | Subject)", "(0 + Days | Subject)"]).fit(X, y)
    np.testing.assert_allclose(
        bars.variance_components_["sd"], terms.variance_components_["sd"], rtol=1e-9
    )
    assert bars.cov_re_["Subject"].loc["Intercept", "Days"] == 0.0
    np.testing.assert_allclose(bars.predict(X), terms.predict(X), rtol=1e-9)


def test_fixed_effects_choose_and_order_the_columns():
    X, y, _ = make_crossed(300, (10,), n_features=3, coef=(1.0, 2.0, 3.0), random_state=0)
    every = MixedEffectsRegressor(["g0"]).fit(X, y)
    assert every.fixed_effects_.index.tolist() == ["Intercept", "x0", "x1", "x2"]
    some = MixedEffectsRegressor(["g0"], fixed_effects=["x2", "x0"]).fit(X, y)
    same = MixedEffectsRegressor(["g0"]).fit(X[["g0", "x2", "x0"]], y)
    assert some.fixed_effects_.index.tolist() == ["Intercept", "x2", "x0"]
    np.testing.assert_array_equal(some.coef_, same.coef_)


def test_without_intercept_the_line_goes_through_the_origin(sleepstudy, dense_model):
    X, y = sleepstudy
    model = MixedEffectsRegressor(["Subject"], fit_intercept=False).fit(X, y)
    tau = model.variance_components_["sd"][0]
    oracle = dense_model(X[["Days"]], y, sleep_terms(X, [[tau**2]]), model.sigma_)
    assert model.intercept_ == 0.0
    np.testing.assert_allclose(model.coef_, oracle.beta, rtol=1e-8)
    assert model.loglik_ == pytest.approx(oracle.loglik(True), abs=1e-6)


def test_max_iter_warns_and_names_the_parameter_still_moving(sleepstudy):
    model = MixedEffectsRegressor(["(1 + Days | Subject)"], max_iter=2)
    with pytest.warns(ConvergenceWarning, match=r"max_iter=2 .* still moves most") as caught:
        model.fit(*sleepstudy)
    moved = model.history_.filter(regex=r"^(sd|corr|sigma)").diff().iloc[-1].abs()
    std_error = model.variance_components_["std_error"].to_numpy()
    assert repr((moved / std_error).idxmax()) in str(caught[0].message)
    assert model.result_.status is Status.MAX_ITER
    assert not model.converged_
    assert model.n_iter_ == 2


def test_warm_start_goes_on_from_the_last_fit(sleepstudy):
    model = MixedEffectsRegressor(["(1 + Days | Subject)"], warm_start=True).fit(*sleepstudy)
    cold = model.n_iter_
    before = model.sigma_
    model.fit(*sleepstudy)
    assert model.n_iter_ < cold
    assert model.sigma_ == pytest.approx(before, rel=1e-4)


def test_y_among_the_columns_is_named(sleepstudy):
    X, y = sleepstudy
    model = MixedEffectsRegressor(["Subject"])
    with pytest.warns(UserWarning, match=r"column\(s\) 'copy' alone reproduce y.*Leave it out"):
        model.fit(X.assign(copy=2 * y), y)
    assert model.result_.status is Status.PERFECT


def test_an_offset_that_is_y_is_nobodys_column(sleepstudy):
    X, y = sleepstudy
    X = X.assign(known=y - 2, other=np.cos(y))
    model = MixedEffectsRegressor(["Subject"], fixed_effects=["Days", "other"], offset="known")
    assert model.fit(X, y).result_.status is Status.PERFECT


def test_constant_response_is_a_perfect_fit(sleepstudy):
    X, _ = sleepstudy
    for constant in (0.0, 3.5, 0.1, 7.3):
        model = MixedEffectsRegressor(["(1 + Days | Subject)"]).fit(X, np.full(len(X), constant))
        assert model.result_.status is Status.PERFECT
        assert model.converged_
        mean, std = model.predict(X, return_std=True)
        np.testing.assert_allclose(mean, constant, atol=1e-12)
        np.testing.assert_array_equal(std, 0.0)
        assert "perfect fit" in model.summary()
        # Of coefficients the data are sure; a variance of 0 is on its bound.
        assert (model.fixed_effects_["std_error"] == 0).all()
        assert model.variance_components_["std_error"].isna().all()


def test_constant_within_levels_is_a_fit_with_finite_predictions(sleepstudy):
    X, _ = sleepstudy
    y = X["Subject"].factorize()[0].astype(float)
    model = MixedEffectsRegressor(["Subject"]).fit(X, y)
    np.testing.assert_allclose(model.predict(X), y, atol=1e-3)
    assert model.converged_


@pytest.mark.parametrize("e_step", ["exact", "cg", "hmc"])
def test_same_random_state_gives_the_same_numbers(e_step, estimates):
    X, y, _ = make_crossed(1500, (60, 40), random_state=0)
    model = MixedEffectsRegressor(["g0", "g1"], e_step=e_step, random_state=3)
    first = estimates(model.fit(X, y))
    mean, std = model.predict(X, return_std=True)
    pd.testing.assert_series_equal(estimates(model.fit(X, y)), first, rtol=1e-12)
    again, again_std = model.predict(X, return_std=True)
    np.testing.assert_allclose(again, mean, rtol=1e-12)
    np.testing.assert_allclose(again_std, std, rtol=1e-12)


def test_another_seed_moves_cg_by_its_monte_carlo_error(estimates, standard_errors):
    X, y, _ = make_crossed(3000, (600, 520), random_state=0)
    fits = [
        MixedEffectsRegressor(["g0", "g1"], e_step="cg", random_state=seed).fit(X, y)
        for seed in range(4)
    ]
    values = np.array([estimates(f) for f in fits])
    error = np.array([f.mc_error_ for f in fits]).mean(axis=0)
    stopping = 1e-3 * standard_errors(fits[0]).to_numpy()
    assert (np.ptp(values, axis=0)[-3:] > 0).all()
    for i in range(4):
        for j in range(i):
            gap = np.abs(values[i] - values[j])
            assert (gap < 4 * error + stopping).all()


def test_the_loss_of_every_e_step_is_in_the_tables_units(sleepstudy):
    """-log p(y, b) at the mode of b, by draws half the number of effects more on average."""
    terms, n_effects = ["(1 + Days | Subject)"], 36
    last = {}
    for e_step in ("exact", "cg", "laplace", "hmc"):
        model = MixedEffectsRegressor(terms, method="ml", e_step=e_step, random_state=0)
        last[e_step] = model.fit(*sleepstudy).history_.iloc[-1]
    b, cov = model.random_effects_["Subject"].to_numpy(), model.cov_re_["Subject"].to_numpy()
    X, y = sleepstudy
    residual = (y - model.predict(X)).to_numpy()
    loss = -norm.logpdf(residual, scale=model.sigma_).sum()
    loss -= multivariate_normal.logpdf(b, cov=cov).sum()
    assert last["exact"]["loss"] == pytest.approx(loss, abs=0.2)
    assert last["cg"]["loss"] == pytest.approx(last["exact"]["loss"], abs=1e-4)
    assert last["laplace"]["loss"] == pytest.approx(last["exact"]["loss"], abs=1e-2)
    assert last["laplace"]["loglik"] == pytest.approx(last["exact"]["loglik"], abs=1e-4)
    # 128 draws, each with a standard deviation of sqrt(36 / 2).
    assert last["hmc"]["loss"] - loss == pytest.approx(n_effects / 2, abs=4 * 18**0.5 / 128**0.5)


def test_history_has_a_row_an_iteration_that_ends_at_the_estimate(sleep_model):
    history = sleep_model.history_
    assert len(history) == sleep_model.n_iter_
    assert history.index.tolist() == list(range(1, sleep_model.n_iter_ + 1))
    assert history["loglik"].iloc[-1] == pytest.approx(sleep_model.loglik_, abs=1e-5)
    assert (np.diff(history["loglik"]) > -1e-6).all()
    assert history["sigma"].iloc[-1] == pytest.approx(sleep_model.sigma_, rel=1e-4)
    assert history["step"].iloc[-1] < 1e-3 < history["step"].iloc[0]
    assert (history["seconds"] > 0).all()


@pytest.mark.parametrize(
    ("family", "weighted"), [("gaussian", False), (Gaussian(weights="precision"), True)]
)
def test_verbose_prints_the_history(sleepstudy, capsys, family, weighted):
    X, y = sleepstudy
    weights = 1.0 + np.arange(len(y)) % 3 if weighted else None
    model = MixedEffectsRegressor(["Subject"], family=family, verbose=10)
    lines = model.fit(X, y, weights).history_, capsys.readouterr().out.splitlines()
    for loss, line in zip(lines[0]["loss"], lines[1], strict=True):
        assert line.startswith("iteration ")
        assert f"loss {loss:.6g} " in line


def test_wald_intervals_are_estimates_and_quantiles(sleep_model):
    table = sleep_model.conf_int(0.9)
    fixed = sleep_model.fixed_effects_
    half = 1.6448536 * fixed["std_error"]
    np.testing.assert_allclose(table["lower"][:2], fixed["estimate"] - half, rtol=1e-6)
    np.testing.assert_allclose(table["upper"][:2], fixed["estimate"] + half, rtol=1e-6)
    assert table.index.tolist()[2:] == sleep_model.mc_error_.index.tolist()[2:]


def test_variance_standard_errors_are_the_curvature_of_the_likelihood(sleepstudy, dense_model):
    X, y = sleepstudy
    model = MixedEffectsRegressor(["Subject"], method="ml").fit(X, y)
    at = model.variance_components_["sd"].to_numpy()

    def loglik(sds):
        return dense_model(fixed_matrix(X), y, sleep_terms(X, [[sds[0] ** 2]]), sds[1]).loglik(
            False
        )

    h, eye = 1e-2, np.eye(2)
    hessian = [
        [
            sum(
                a * b * loglik(at + h * (a * eye[i] + b * eye[j])) for a in (1, -1) for b in (1, -1)
            )
            / (4 * h**2)
            for j in range(2)
        ]
        for i in range(2)
    ]
    expected = np.sqrt(np.diag(np.linalg.inv(-np.array(hessian))))
    # The average information is the mean of observed and expected information.
    np.testing.assert_allclose(model.variance_components_["std_error"], expected, rtol=0.05)


def test_mc_error_of_the_exact_kernel_is_zero(sleep_model):
    assert (sleep_model.mc_error_ == 0).all()


def test_model_graph_names_effects_and_response(sleep_model):
    assert dict(sleep_model.model_graph()) == {"Subject": (), "y": ("Subject",)}
