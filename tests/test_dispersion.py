"""Gaussian models whose residual SD depends on columns: references, other ways, and all reports."""

import pickle

import numpy as np
import pandas as pd
import pytest
from scipy.stats import chi2, norm, ttest_ind
from sklearn.base import clone

from sklmm import ConjugateGradient, Gamma, Gaussian, MixedEffectsRegressor, Relationship
from sklmm.datasets import load_sleepstudy
from tests.two_part import DATA, reference, table

METHODS = ("reml", "ml")


def fitted(formula, rows, **params):
    """A regressor fitted to a table by a formula."""
    return MixedEffectsRegressor.from_formula(formula, **params).fit(rows)


def sleepstudy():
    """The sleepstudy data with a column that says whether a day is a late one."""
    rows = load_sleepstudy(as_frame=True).frame
    return rows.assign(late=(rows["Days"] >= 5).astype(float))


def crossed(n=600, seed=0):
    """Crossed factors, a slope, weights, and an SD that a factor and a number tell."""
    rng = np.random.default_rng(seed)
    g, h, f = (rng.integers(k, size=n) for k in (40, 15, 3))
    x, z = rng.standard_normal((2, n))
    sd = np.exp(np.array([-0.5, 0.0, 0.7])[f] + 0.3 * z)
    effects = rng.standard_normal((40, 2)) * [0.8, 0.4]
    y = 1 + 0.5 * x + effects[g, 0] + effects[g, 1] * x + 0.6 * rng.standard_normal(15)[h]
    y = y + sd * rng.standard_normal(n)
    names = {"g": g, "h": h, "f": np.array(list("abc"))[f]}
    return pd.DataFrame({"y": y, "x": x, "z": z, **names})


@pytest.mark.parametrize("e_step", ["exact", "cg", "laplace"])
@pytest.mark.parametrize("method", METHODS)
def test_a_residual_sd_by_factor_has_its_dense_likelihood_s_maximum(method, e_step):
    """Estimates to a thousandth of a standard error, and standard errors to .3 per mille."""
    known = reference()[f"gaussian_disp_{method}"]
    model = fitted(
        "y ~ x + z + (1 | g)", table("dispersion"), dispersion="~ f", method=method, e_step=e_step
    )
    family, std = known["family"], known["se"]
    logs = np.log([family["sigma_a"], family["sigma_b/sigma_a"], family["sigma_c/sigma_a"]])
    names = ["log sigma_a", "log(sigma_b/sigma_a)", "log(sigma_c/sigma_a)"]
    values = np.array([*known["coef"].values(), known["sd"], *logs])
    stds = [std[name] for name in [*known["coef"], "log sd", *names]]
    stds[3] *= known["sd"]
    estimate, error = (part.to_numpy() for part in model._fitted.estimates(model.result_))
    np.testing.assert_allclose((estimate - values) / stds, 0, atol=1e-3)
    # Laplace's ML has the curvature of coefficients and SDs together, as glmmTMB's Hessian has it.
    joint = e_step == "laplace" and method == "ml"
    np.testing.assert_allclose(error / stds, 1, atol=3e-3 if joint else 3e-4)
    assert model.loglik_ == pytest.approx(known["loglik"], abs=1e-6)
    assert type(model.e_step_).__name__.lower() in (e_step, "conjugategradient")


# glmmTMB 1.1.5's, whose coefficients of dispersion are log variances, and nlme 3.1's varIdent.
SLEEP = {
    "reml": ([252.036530, 10.130285], 31.78965, 6.1206727 / 2, 1.2958838 / 2, -884.3779132),
    "ml": ([252.038155, 10.129336], 30.83140, 6.1131862 / 2, 1.2983988 / 2, -888.0237081),
}
VARIDENT = {"reml": (21.33472, 1.9116040), "ml": (21.25529, 1.9139599)}


@pytest.mark.parametrize("method", METHODS)
def test_late_days_vary_more_as_in_nlme_and_glmmtmb(method):
    """sleepstudy with another SD from the fifth day on."""
    coef, sd, first, more, loglik = SLEEP[method]
    model = fitted(
        "Reaction ~ Days + (1 | Subject)", sleepstudy(), dispersion="~ late", method=method
    )
    gamma = model.dispersion_effects_["estimate"].to_numpy()
    np.testing.assert_allclose(gamma, [first, more], atol=1e-4)
    std = np.sqrt(np.diag(model.result_.coef_cov))
    np.testing.assert_allclose((model.result_.coef - coef) / std, 0, atol=1e-3)
    assert np.sqrt(model.result_.covariances[0][0, 0]) == pytest.approx(sd, rel=3e-4)
    sigma, ratio = VARIDENT[method]
    np.testing.assert_allclose(np.exp(gamma), [sigma, ratio], rtol=1e-4)
    assert model.loglik_ == pytest.approx(loglik, abs=1e-6)


LONGITUDINAL = {
    "reml": (
        [2.0481456, 0.7298847],
        [1.0305408, 0.4672084],
        [0.6561845, -0.0245311],
        -1453.0354311,
    ),
    "ml": ([2.0479540, 0.7298537], [1.0251707, 0.4553045], [0.6539739, -0.0243177], -1450.1682631),
}


@pytest.mark.parametrize("method", METHODS)
def test_an_sd_that_time_tells_as_in_glmmtmb(method):
    """Crossed factors and a numeric column; glmmTMB's log variances are twice the log SDs."""
    coef, sds, gamma, loglik = LONGITUDINAL[method]
    rows = pd.read_csv(DATA / "longitudinal.csv")
    model = fitted("y ~ x + (1 | id) + (1 | site)", rows, dispersion="~ t", method=method)
    std = model._fitted.estimates(model.result_)[1].to_numpy()
    found = [*model.result_.coef, *(np.sqrt(c[0, 0]) for c in model.result_.covariances)]
    found += [*model.dispersion_effects_["estimate"]]
    want = np.array([*coef, *sds, *np.array(gamma) / 2])
    np.testing.assert_allclose((found - want) / std, 0, atol=1e-3)
    assert model.loglik_ == pytest.approx(loglik, abs=1e-6)


def dense_loglik(model, rows, weights=None, log_sd=None):
    """The log-likelihood at a model's estimates, of matrices that are written out."""
    result, n = model.result_, len(rows)
    X = np.column_stack([np.ones(n), rows["x"]])
    if weights is None:
        weights = np.ones(n, int)
    V = np.zeros((n, n))
    G = (rows["g"].to_numpy()[:, None] == rows["g"].to_numpy()).astype(float)
    V += G * (X @ result.covariances[0] @ X.T)
    V += result.covariances[1][0, 0] * (rows["h"].to_numpy()[:, None] == rows["h"].to_numpy())
    V[np.diag_indices(n)] += np.exp(2 * log_sd)
    some = np.repeat(np.arange(n), weights)
    same = some[:, None] == some
    noise = np.exp(2 * log_sd)[some]
    V = V[np.ix_(some, some)] - noise[:, None] * (same & ~np.eye(len(some), dtype=bool))
    r = rows["y"].to_numpy()[some] - X[some] @ result.coef
    value = np.linalg.slogdet(V)[1] + r @ np.linalg.solve(V, r) + len(some) * np.log(2 * np.pi)
    if model.method == "reml":
        value += np.linalg.slogdet(X[some].T @ np.linalg.solve(V, X[some]))[1]
        value -= X.shape[1] * np.log(2 * np.pi)
    return -value / 2


@pytest.mark.parametrize("method", METHODS)
def test_crossed_factors_with_slopes_weights_and_offset_have_their_dense_likelihood(method):
    """loglik_ is that of dense matrices, and Laplace's way finds the same maximum."""
    rows = crossed(200).assign(w=np.random.default_rng(1).standard_normal(200) / 3)
    weights = np.random.default_rng(2).integers(1, 3, size=200)
    models = [
        MixedEffectsRegressor.from_formula(
            "y ~ x + (1 + x | g) + (1 | h)",
            dispersion="~ f + z + offset(w)",
            method=method,
            e_step=e_step,
            tol=1e-6,
        ).fit(rows, sample_weight=weights)
        for e_step in ("exact", "laplace")
    ]
    gamma = np.array(models[0].dispersion_effects_["estimate"].to_numpy())
    D = np.column_stack([np.ones(200), rows["f"] == "b", rows["f"] == "c", rows["z"]])
    value = dense_loglik(models[0], rows, weights, D @ gamma + rows["w"].to_numpy())
    assert models[0].loglik_ == pytest.approx(value, abs=1e-6)
    assert models[1].loglik_ == pytest.approx(value, abs=1e-4)
    one, two = (m._fitted.estimates(m.result_)[0] for m in models)
    std = models[0]._fitted.estimates(models[0].result_)[1]
    np.testing.assert_allclose((one - two) / std, 0, atol=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_probes_stand_for_traces_and_leverages(method):
    """Conjugate gradients: within their Monte Carlo error of the exact fit, which is not 0."""
    rows = crossed(4000, seed=3)
    rows["h"] = np.random.default_rng(5).integers(700, size=len(rows))
    rows["y"] += 0.7 * np.random.default_rng(4).standard_normal(700)[rows["h"]]
    rows["g"] = np.random.default_rng(6).integers(1000, size=len(rows))
    params = {"dispersion": "~ f + z", "method": method}
    exact = fitted("y ~ x + (1 | g) + (1 | h)", rows, e_step="exact", **params)
    probed = fitted(
        "y ~ x + (1 | g) + (1 | h)", rows, e_step=ConjugateGradient(n_probes=32), **params
    )
    error = probed.result_.mc_error
    away = [*exact.result_.coef - probed.result_.coef]
    away += [*exact.result_.natural - probed.result_.natural]
    assert (error > 0).all()
    assert (np.abs(away) < 4 * error).all()
    std = exact._fitted.estimates(exact.result_)[1].to_numpy()
    assert (error < 0.2 * std).all()


@pytest.mark.parametrize("method", METHODS)
def test_known_precisions_are_an_offset(method):
    """Half the log of known variances as offset, and `Gaussian(weights="precision")`."""
    rows = sleepstudy().assign(w=np.random.default_rng(0).uniform(0.2, 4, 180))
    rows["half_log_var"] = -0.5 * np.log(rows["w"])
    formula = "Reaction ~ Days + (1 + Days | Subject)"
    model = fitted(formula, rows, dispersion="~ 1 + offset(half_log_var)", method=method)
    other = MixedEffectsRegressor.from_formula(
        formula, family=Gaussian(weights="precision"), method=method
    ).fit(rows.drop(columns="half_log_var"), sample_weight=rows["w"])
    assert model.loglik_ == pytest.approx(other.loglik_, abs=1e-5)
    assert np.exp(model.dispersion_effects_["estimate"].iloc[0]) == pytest.approx(
        other.sigma_, rel=1e-4
    )
    np.testing.assert_allclose(model.result_.coef, other.result_.coef, rtol=1e-5)
    np.testing.assert_allclose(
        model.result_.covariances[0], other.result_.covariances[0], rtol=1e-3, atol=0.01
    )


def test_satterthwaite_s_rule_is_welch_s_of_two_groups_with_their_own_sd():
    """Degrees of freedom of a difference of two means are scipy's."""
    rng = np.random.default_rng(0)
    one, two = rng.normal(0, 1, 12), rng.normal(1, 3, 30)
    rows = pd.DataFrame({"y": np.r_[one, two], "f": np.r_[np.zeros(12), np.ones(30)]})
    model = fitted("y ~ f", rows, dispersion="~ f", dof="satterthwaite")
    welch = ttest_ind(two, one, equal_var=False)
    found = model.fixed_effects_.loc["f"]
    assert found["df"] == pytest.approx(welch.df, rel=1e-3)
    assert found["t"] == pytest.approx(welch.statistic, rel=1e-4)


def test_one_residual_sd_is_the_plain_model():
    """`dispersion="~ 1"`: estimates, standard errors and degrees of freedom."""
    rows, params = crossed(), {"dof": "satterthwaite"}
    plain = fitted("y ~ x + (1 | g) + (1 | h)", rows, **params)
    model = fitted("y ~ x + (1 | g) + (1 | h)", rows, dispersion="~ 1", **params)
    pd.testing.assert_frame_equal(model.fixed_effects_, plain.fixed_effects_, rtol=1e-3)
    assert model.loglik_ == pytest.approx(plain.loglik_, abs=1e-6)
    assert model.sigma_ == pytest.approx(plain.sigma_, rel=1e-5)
    np.testing.assert_allclose(model.r2(), plain.r2(), rtol=1e-4)
    np.testing.assert_allclose(model.icc(), plain.icc(), rtol=1e-4)
    assert model.summary().startswith("Linear mixed model fit by REML\n")


def test_predictions_have_the_row_s_own_sd():
    """`return_std`, draws, sigma_ and R^2: of what the columns of a row say."""
    rows = crossed()
    model = fitted("y ~ x + (1 | g) + (1 | h)", rows, dispersion="~ f")
    gamma = model.dispersion_effects_["estimate"].to_numpy()
    own = np.exp(gamma[0] + np.array([0, *gamma[1:]]))
    sd = own[np.searchsorted(["a", "b", "c"], rows["f"])]
    new = rows[:3].assign(f=["a", "b", "c"], x=0.0, g=-1, h=-1)
    std = model.predict(new, return_std=True)[1]
    other = np.sqrt(std**2 - own**2)
    np.testing.assert_allclose(other, other[0])
    draws = model.sample_y(new, 4000, random_state=0)
    np.testing.assert_allclose(draws.std(axis=1), std, rtol=0.06)
    assert model.sigma_ == pytest.approx(np.sqrt((sd**2).mean()), rel=1e-6)
    shares = model.icc()
    variances = [c[0, 0] for c in model.result_.covariances]
    np.testing.assert_allclose(shares, variances / (sum(variances) + model.sigma_**2))
    pytest.importorskip("arviz_base")
    tree = model.to_arviz(0, X=rows)
    value = tree["log_likelihood"]["y"].mean(["chain", "draw"]).to_numpy()
    assert value.shape == (600,)
    eta = model.predict(rows)
    away = norm.logpdf(rows["y"], eta, sd) - value
    assert 0 < away.mean() < 0.2


def test_a_profile_s_limits_are_where_fits_with_the_parameter_held_say():
    """Twice the fall of the log-likelihood is the quantile of chi^2, for SDs and coefficients."""
    rows, quantile = sleepstudy(), chi2.ppf(0.95, 1)
    formula = "Reaction ~ Days + (1 | Subject)"
    model = fitted(formula, rows, dispersion="~ late", method="ml")
    names = ["Days", "sigma: late"]
    found = model.conf_int(method="profile", X=rows, parm=names)
    for value in found.loc["sigma: late"]:
        held = rows.assign(w=value * rows["late"])
        other = fitted(formula, held, dispersion="~ 1 + offset(w)", method="ml")
        assert 2 * (model.loglik_ - other.loglik_) == pytest.approx(quantile, rel=1e-3)
    for value in found.loc["Days"]:
        held = rows.assign(w=value * rows["Days"])
        other = fitted(
            "Reaction ~ 1 + offset(w) + (1 | Subject)", held, dispersion="~ late", method="ml"
        )
        assert 2 * (model.loglik_ - other.loglik_) == pytest.approx(quantile, rel=1e-3)


def test_bootstrap_intervals_are_about_wald_s():
    """Data drawn from the model have each row's own SD."""
    rows = sleepstudy()
    model = fitted("Reaction ~ Days + (1 | Subject)", rows, dispersion="~ late")
    wald = model.conf_int()
    drawn = model.conf_int(method="bootstrap", X=rows, n_resamples=40, random_state=0)
    width = (wald["upper"] - wald["lower"]).to_numpy()[:, None]
    assert (np.abs(drawn - wald) < 0.35 * width).all(axis=None)


def test_new_rows_weigh_by_their_own_sd():
    """`update`: the posterior of a group by its old and new rows, at the fit's parameters."""
    rows = sleepstudy()
    model = fitted("Reaction ~ Days + (1 | Subject)", rows, dispersion="~ late")
    new = rows[rows["Subject"] == 308].assign(Subject=1)
    model.update(new)
    sd = np.exp(
        model.dispersion_effects_["estimate"].to_numpy() @ np.array([np.ones(10), new["late"]])
    )
    rest = new["Reaction"] - model.intercept_ - model.coef_[0] * new["Days"]
    precision = 1 / model.result_.covariances[0][0, 0] + (sd**-2).sum()
    value = model.random_effects_["Subject"].loc[1, "Intercept"]
    assert value == pytest.approx((rest / sd**2).sum() / precision, rel=1e-8)
    std = model.result_.effects_cov[0][model.random_effects_["Subject"].index.get_loc(1)]
    assert std[0, 0] == pytest.approx(1 / precision, rel=1e-8)


def test_a_fit_goes_on_from_the_last_one_and_keeps_through_a_pickle():
    """`warm_start` begins at the maximum, in one iteration."""
    rows = crossed()
    model = MixedEffectsRegressor.from_formula("y ~ x + (1 | g) + (1 | h)", dispersion="~ f + z")
    before = model.fit(rows).result_.natural
    model.set_params(warm_start=True).fit(rows)
    assert model.n_iter_ == 1
    np.testing.assert_allclose(model.result_.natural, before, rtol=1e-3)
    again = pickle.loads(pickle.dumps(model))
    for one, two in zip(*(m.predict(rows, return_std=True) for m in (model, again)), strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("formula", ["y ~ x", "y ~ x + (1 | g)"])
def test_rows_that_the_model_reproduces_have_the_least_sd_and_no_standard_error(formula):
    """The likelihood rises as a cell's SD falls to 0: it is held, and a warning says so."""
    rows = crossed()
    rows.loc[rows["f"] == "a", "y"] = 2 * rows["x"]
    with pytest.warns(UserWarning, match="dispersion: the residual SD of 184 row.s., row 1 the"):
        model = fitted(formula, rows, dispersion="~ f")
    assert model.result_.status.name == "SINGULAR"
    assert np.exp(model.dispersion_effects_["estimate"].iloc[0]) == pytest.approx(0, abs=1e-4)
    assert np.isnan(model._fitted.estimates(model.result_)[1].iloc[-3:]).all()
    assert model.coef_[0] == pytest.approx(2, abs=1e-5)


def test_lognormal_responses_have_an_sd_by_row_too():
    """It is the Gaussian model of the logarithms, less their sum."""
    rows = sleepstudy()
    model = fitted("Reaction ~ Days + (1 | Subject)", rows, dispersion="~ late", family="lognormal")
    logs = rows.assign(Reaction=np.log(rows["Reaction"]))
    other = fitted("Reaction ~ Days + (1 | Subject)", logs, dispersion="~ late")
    np.testing.assert_allclose(model.result_.natural, other.result_.natural)
    assert model.loglik_ == pytest.approx(other.loglik_ - logs["Reaction"].sum())
    sd = np.exp(
        model.dispersion_effects_["estimate"].to_numpy() @ np.array([np.ones(180), rows["late"]])
    )
    median = np.exp(other.predict(rows))
    assert (model.predict(rows) > median * np.exp(sd**2 / 2)).all()
    assert np.isfinite(model.predict(rows, return_std=True)[1]).all()


def test_a_student_t_has_a_scale_by_row_too():
    """Its own way, by quadrature here; predictions have the row's own SD."""
    rows = sleepstudy()
    model = fitted("Reaction ~ Days + (1 | Subject)", rows, dispersion="~ late", family="student_t")
    assert type(model.e_step_).__name__ == "Quadrature"
    std = model.predict(rows, return_std=True)[1]
    assert std[rows["late"] == 1].min() > std[rows["late"] == 0].max()
    assert 0 < model.r2()["marginal"] < model.r2()["conditional"] < 1


def _refusals():
    X, y = load_sleepstudy(return_X_y=True, as_frame=True)
    model = MixedEffectsRegressor(["Subject"], dispersion=["Days"])
    perfect = MixedEffectsRegressor(["Subject"], fixed_effects=["Days"], dispersion=["Days"])
    yield lambda: model.partial_fit(X, y), "dispersion=.'Days'.: fit_batches, fit_parquet and p"
    yield lambda: model.fit_batches([(X, y)]), "use fit of a whole table, or dispersion=None"
    yield lambda: perfect.fit(X, 2 * X["Days"]), "dispersion: the fixed part alone reproduces y"
    adam = clone(model).set_params(e_step="hmc", m_step="adam")
    yield lambda: adam.fit(X, y), "one residual SD, and not one that depends on columns"
    precise = clone(model).set_params(family=Gaussian(weights="precision"))
    yield lambda: precise.fit(X, y), "known precisions are an offset"
    labels = clone(model).set_params(dispersion="~ C(Days)").fit(X, y)
    yield lambda: labels.predict(X.assign(Days=11)), "dispersion: The fixed-effects column 'Days'"
    prior = clone(model).set_params(sd_prior="gamma")
    yield lambda: prior.fit(X, y), "relative to the residual SD, of which `dispersion` has one a"


@pytest.mark.parametrize("k", range(7))
def test_what_does_not_apply_says_what_does(k):
    """Errors name the parameter and the remedy."""
    run, text = list(_refusals())[k]
    with pytest.raises(ValueError, match=text):
        run()


# glmmTMB 1.1.5: coefficients of dispformula=~z, the log-likelihood, and what makes ours of them.
GLMMTMB = {
    "gamma": ("positive", "y_ln", [1.110599992, 0.071050345], -998.3381269, np.asarray),
    "beta": ("proportions", "s", [1.568537163, -0.095359943], 233.7801412, np.asarray),
    "negative_binomial": ("counts", "y_nbd", [0.207421921, 0.818378749], -1718.321457, np.negative),
    "beta_binomial": (
        "proportions",
        "cbind(y_bb, fail)",
        [1.952016019, -0.195975947],
        -2070.891014,
        np.asarray,
    ),
    "tweedie": ("positive", "y_tw", [0.264788232, -0.112517564], -1318.242409, np.asarray),
    "nbinom1": ("counts", "y_nb1", [0.321759604, -0.203268107], -1719.818677, np.asarray),
    "generalized_poisson": (
        "counts",
        "y_gp",
        # Of cells: phi = 1 + dispersion.
        [0.7588394909, -0.0456775111],
        -1686.595554,
        lambda log_phi: np.log(np.expm1([log_phi[0], sum(log_phi)])) @ [[1, -1], [0, 1]],
    ),
}


@pytest.mark.parametrize("family", GLMMTMB)
def test_coefficients_are_glmmtmb_s_by_the_guide_s_table(family):
    """Log shape, precision and size, the last of the other sign, by Laplace's approximation."""
    name, y, log_parameter, loglik, ours = GLMMTMB[family]
    rows = table(name)
    if name == "proportions":
        rows["s"] = (rows["y_bb"] + 0.5) / (rows["size"] + 1)
        rows["fail"] = rows["size"] - rows["y_bb"]
    own = Gamma(link="log") if family == "gamma" else family
    model = fitted(
        f"{y} ~ x + z + (1 | g)", rows, family=own, dispersion="~ z", e_step="laplace", tol=1e-5
    )
    found = model.dispersion_effects_
    away = found["estimate"].to_numpy() - ours(np.array(log_parameter))
    np.testing.assert_allclose(away / found["std_error"], 0, atol=2e-3)
    assert model.loglik_ == pytest.approx(loglik, abs=1e-5)


@pytest.mark.parametrize("offset", [True, False])
def test_weights_of_glmmtmb_are_repetitions_and_lme4_s_are_precisions(offset):
    """sleepstudy, ML, weights of 2.5 from the fifth day on."""
    rows, formula = sleepstudy(), "Reaction ~ Days + (1 | Subject)"
    weights = 1 + 1.5 * rows["late"]
    if offset:
        # lme4 1.1-31, weights=w: log sigma, the subjects' SD and the log-likelihood.
        rows["half_log_var"] = -0.5 * np.log(weights)
        part = "~ 1 + offset(half_log_var)"
        model = fitted(formula, rows, method="ml", dispersion=part)
        log_sigma = model.dispersion_effects_["estimate"].iloc[0]
        known = 3.727083632, 41.31804741, -911.2123857
    else:
        # glmmTMB 1.1.5, weights=w.
        model = MixedEffectsRegressor.from_formula(formula, method="ml")
        model.fit(rows, sample_weight=weights)
        log_sigma, known = np.log(model.sigma_), (6.848031395 / 2, 41.85727815, -1557.147294)
    sd = np.sqrt(model.result_.covariances[0][0, 0])
    np.testing.assert_allclose([log_sigma, sd, model.loglik_], known, rtol=1e-5)


def _kinds():
    rows = pd.read_csv(DATA / "longitudinal.csv")
    yield "ar1", rows, "y ~ x + ar1(0 + t | id) + (1 | site)", "~ x", None
    records = pd.read_csv(DATA / "pedigree_records.csv")
    pedigree = Relationship.from_pedigree(pd.read_csv(DATA / "pedigree.csv"))
    animal = {"animal": pedigree}
    yield "animal", records, "y ~ x + (1 | animal) + (1 | herd)", "~ x", animal
    rows = crossed()
    rows["k"] = np.random.default_rng(1).integers(40, size=len(rows))
    yield "members", rows, "y ~ x + (1 | mm(g, k)) + (1 | h)", "~ z", None
    yield "nested", rows.assign(k=rows["g"] % 7), "y ~ x + (1 | k / g)", "~ f", None
    # Where z is 0 the SD is 1, whatever the data say: the average information alone is right there.
    yield "no intercept", rows, "y ~ x + (1 | g)", "~ 0 + z", None


@pytest.mark.parametrize("e_step", ["exact", "cg"])
@pytest.mark.parametrize("kind", range(5))
def test_terms_of_all_kinds_have_laplace_s_maximum(kind, e_step):
    """Indicators of times, relatives, memberships, nested terms; by a factor and by probes."""
    _, rows, formula, part, relationships = list(_kinds())[kind]
    models = [
        MixedEffectsRegressor.from_formula(
            formula, relationships, dispersion=part, e_step=own, random_state=0
        ).fit(rows)
        for own in (e_step, "laplace")
    ]
    assert models[0].n_iter_ < 10
    assert models[0].loglik_ == pytest.approx(models[1].loglik_, abs=1e-4)
    std = models[0]._fitted.estimates(models[0].result_)[1]
    one, two = (model._fitted.estimates(model.result_)[0] for model in models)
    # A variance of 0 has no standard error.
    np.testing.assert_allclose((one - two) / std.fillna(1.0), 0, atol=3e-3)


@pytest.mark.parametrize("e_step", ["exact", "cg"])
def test_an_sd_that_correlated_effects_of_a_row_each_leave_no_part_ends_at_the_maximum(e_step):
    """Levels that share one block; the likelihood rises ever more slowly as a group's SD falls."""
    rng = np.random.default_rng(4)
    rows = pd.DataFrame({"g": np.repeat(np.arange(12), 8), "t": np.tile(np.arange(8), 12)})
    rows = rows.assign(x=rng.standard_normal(96), sex=rows["g"] % 2)
    rows["y"] = 0.5 * rows["x"] + 0.5 * rng.standard_normal(12)[rows["g"]]
    rows["y"] += np.where(rows["sex"] == 1, 0.7, 1.0) * rng.standard_normal(96)
    model, other = (
        fitted("y ~ x + ar1(0 + t | g)", rows, dispersion="~ sex", e_step=own, random_state=0)
        for own in (e_step, "laplace")
    )
    assert model.converged_
    assert model.loglik_ == pytest.approx(other.loglik_, abs=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_known_residual_sds_are_an_offset_alone(method):
    """The model of meta-analyses has no parameter of the residual, by every E-step."""
    rows = crossed(200).assign(known=np.random.default_rng(1).standard_normal(200) / 3)
    plain = MixedEffectsRegressor(
        ["g"],
        fixed_effects=["x"],
        family=Gaussian(sigma=1, weights="precision"),
        method=method,
    ).fit(rows, rows["y"], sample_weight=np.exp(-2 * rows["known"]))
    e_steps = ["exact", "cg", "laplace"] + ["quadrature"] * (method == "ml")
    for e_step in e_steps:
        model = fitted(
            "y ~ x + (1 | g)", rows, dispersion="~ 0 + offset(known)", method=method, e_step=e_step
        )
        assert model.loglik_ == pytest.approx(plain.loglik_, abs=1e-6)
        assert model.aic_ == pytest.approx(plain.aic_, abs=1e-6)
        np.testing.assert_allclose(model.result_.coef, plain.result_.coef, atol=1e-5)
        np.testing.assert_allclose(model.result_.covariances, plain.result_.covariances, rtol=1e-3)
        assert model.dispersion_effects_ is None
        root = np.sqrt(np.mean(np.exp(2 * rows["known"])))
        assert model.sigma_ == pytest.approx(root, rel=1e-12)
    std = model.predict(rows[:5], return_std=True)[1]
    far = rows[:5].assign(known=rows["known"][:5] + 1)
    more = model.predict(far, return_std=True)[1] ** 2 - std**2
    np.testing.assert_allclose(more, np.exp(2 * rows["known"][:5]) * np.expm1(2), rtol=1e-9)


@pytest.mark.parametrize("part", ["~ z", "~ f"])
def test_a_residual_that_vanishes_in_all_rows_is_singular_as_without_a_part(part):
    """All rows have the least SD, whatever the columns, whose coefficients have no error."""
    rows = crossed(200)
    rows["y"] = 1.0 * rows["g"]
    plain, model = (fitted("y ~ x + (1 | g)", rows, dispersion=own) for own in (None, part))
    assert plain.result_.status is model.result_.status
    assert model.result_.status.name == "SINGULAR"
    assert model.sigma_ < 1e-4
    assert model.dispersion_effects_["std_error"].isna().all()
    assert model.loglik_ == pytest.approx(plain.loglik_, abs=1e-2)


@pytest.mark.parametrize("e_step", ["exact", "cg"])
def test_rows_without_a_residual_leave_their_sd_undetermined(e_step):
    """Of a restricted likelihood: the model is that of the other rows."""
    rows = crossed(200)
    rows["k"] = np.where(np.arange(200) == 5, "solo", "rest")
    with pytest.warns(UserWarning, match=r"do not identify 'sigma: k\[T.solo\]'.* alone in a col"):
        model = fitted("y ~ x + k + (1 | g)", rows, dispersion="~ k", e_step=e_step)
    others = fitted("y ~ x + (1 | g)", rows[rows["k"] == "rest"], dispersion="~ 1", e_step=e_step)
    assert model.loglik_ == pytest.approx(others.loglik_, abs=1e-6)
    errors = model.dispersion_effects_["std_error"]
    assert np.isnan(errors.iloc[1])
    assert errors.iloc[0] == pytest.approx(
        others.dispersion_effects_["std_error"].iloc[0], rel=1e-3
    )


@pytest.mark.parametrize("term", ["mm(g, k)", "ar1(0 + t | g)"])
def test_predictions_beside_memberships_and_times_are_those_of_dense_matrices(term):
    """Means are the best linear unbiased ones; their variances have the rows' own residual."""
    rows = crossed(120).assign(k=np.random.default_rng(1).integers(40, size=120))
    rows["t"] = rows.groupby("g").cumcount()
    formula = f"y ~ x + (1 | {term})" if term.startswith("mm") else f"y ~ x + {term}"
    model = fitted(formula, rows, dispersion="~ z", e_step="exact")
    if term.startswith("mm"):
        Z = (np.eye(40)[rows["g"]] + np.eye(40)[rows["k"]]) / 2
        K = Z @ Z.T * model.result_.covariances[0][0, 0]
    else:
        sd, phi = model.result_.natural[:2]
        same = np.equal.outer(rows["g"].to_numpy(), rows["g"].to_numpy())
        K = same * sd**2 * phi ** np.abs(np.subtract.outer(*[rows["t"].to_numpy()] * 2))
    first, slope = model.dispersion_effects_["estimate"]
    noise = np.exp(2 * (first + slope * rows["z"]))
    X, V = np.column_stack([np.ones(120), rows["x"]]), K + np.diag(noise)
    W = X - K @ np.linalg.solve(V, X)
    C = np.linalg.inv(X.T @ np.linalg.solve(V, X))
    mean = X @ model.result_.coef
    mean = mean + K @ np.linalg.solve(V, rows["y"] - mean)
    variance = np.diag(K - K @ np.linalg.solve(V, K) + W @ C @ W.T) + noise
    found = model.predict(rows, return_std=True)
    np.testing.assert_allclose(found[0], mean, atol=1e-9)
    np.testing.assert_allclose(found[1] ** 2, variance, rtol=1e-6)
