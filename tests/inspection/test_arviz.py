"""Chains as ArviZ sees them, and the posterior handed over to it."""

import sys
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm

from sklmm import HMC, Gaussian, MixedEffectsClassifier, MixedEffectsRegressor, RandomEffect
from sklmm.datasets import load_toenail, load_wine, make_crossed
from sklmm.inspection.arviz import chain_table

# The oldest versions that are tested together have none: it needs NumPy 2.
arviz_base = pytest.importorskip("arviz_base")


@pytest.fixture(scope="module")
def toenail():
    X, y = load_toenail(return_X_y=True, as_frame=True)
    X = X[["patientID", "time"]]
    return MixedEffectsClassifier(["patientID"], e_step="hmc", random_state=0).fit(X, y)


def test_chains_mean_the_estimate_and_their_error_is_that_of_the_fit(toenail, estimates):
    chains = toenail.result_.chains
    table = toenail.chain_diagnostics()
    assert table.index.tolist() == toenail.mc_error_.index.tolist()
    estimate, _ = toenail._fitted.estimates(toenail.result_)
    np.testing.assert_allclose(chains.mean(axis=(0, 1)), estimate, rtol=1e-3, atol=1e-3)
    assert (table["rhat"] < 1.3).all()
    assert (table["ess_bulk"] > chains.shape[0]).all()
    assert (table["ess_tail"] > chains.shape[0]).all()
    # Mirrored chains have less error than their number alone says.
    error = chains.std(axis=(0, 1)) / np.sqrt(table["ess_bulk"])
    ratio = toenail.mc_error_ / error
    assert ratio.between(0.1, 3).all(), ratio


def test_chains_that_do_not_mix_show(toenail):
    """Each chain about a mean of its own."""
    chains = toenail.result_.chains.copy()
    apart = chains + 3 * chains.std() * np.arange(len(chains))[:, None, None]
    table = chain_table(toenail._fitted.labels, replace(toenail.result_, chains=apart))
    assert (table["rhat"] > 2).all()
    assert (table["ess_bulk"] < toenail.chain_diagnostics()["ess_bulk"] / 2).all()


def test_cutpoints_and_pinned_parameters():
    X, y = load_wine(return_X_y=True, as_frame=True)
    model = MixedEffectsClassifier(
        [RandomEffect("judge", sd=1.0)],
        fixed_effects=["temp"],
        family="ordinal",
        e_step=HMC(backend="numpy"),
        random_state=0,
    )
    X = X.assign(temp=(X["temp"] == "warm").astype(float))
    table = model.fit(X, y).chain_diagnostics()
    assert table.index.tolist()[:4] == ["1|2", "2|3", "3|4", "4|5"]
    assert table.loc["sd(judge, Intercept)"].isna().all()
    assert table.drop(index="sd(judge, Intercept)").notna().all(axis=None)
    tree = model.to_arviz(0, X=X, y=y)
    posterior, fixed = tree["posterior"], model.fixed_effects_
    assert (posterior["sd_judge"] == 1).all()
    cutpoints = posterior["cutpoints"]
    assert cutpoints.coords["cutpoint"].values.tolist() == ["1|2", "2|3", "3|4", "4|5"]
    assert (cutpoints.diff("cutpoint") > 0).all()
    assert posterior["coefficients"].coords["coefficient"].values.tolist() == ["temp"]
    error = fixed["std_error"][:4].to_numpy()
    assert (abs(cutpoints.median(("chain", "draw")) - fixed["estimate"][:4]) < 0.2 * error).all()
    np.testing.assert_allclose(cutpoints.std(("chain", "draw")), error, rtol=0.2)
    # Places of the classes; the mean is the model's.
    assert tree["observed_data"]["rating"].values.tolist() == (y - 1).tolist()
    drawn = tree["posterior_predictive"]["rating"]
    expected = model.predict_proba(X) @ np.arange(5)
    np.testing.assert_allclose(drawn.mean(("chain", "draw")), expected, atol=0.15)


def test_models_without_chains_say_so(sleep_model):
    with pytest.raises(ValueError, match="left no chains"):
        sleep_model.chain_diagnostics()


def test_the_posterior_is_that_of_the_fit(sleep_model):
    tree = sleep_model.to_arviz(0)
    posterior = tree["posterior"]
    assert posterior.sizes["draw"] == 500
    coef = posterior["coefficients"].mean(("chain", "draw"))
    error = sleep_model.fixed_effects_["std_error"] / np.sqrt(500)
    assert (abs(coef - sleep_model.fixed_effects_["estimate"]) < 4 * error).all()
    effects = posterior["Subject"]
    assert effects.coords["Subject_level"].values.tolist() == list(
        sleep_model.random_effects_["Subject"].index
    )
    slope = effects.sel(Subject_level=308, Subject_coefficient="Days")
    assert float(slope.mean()) == pytest.approx(
        sleep_model.random_effects_["Subject"].loc[308, "Days"], abs=0.6
    )
    # Jointly: a subject's line is better known than its intercept and slope are.
    line = posterior["coefficients"].sel(coefficient="Days") + slope
    assert float(line.std()) < float(slope.std()) * 1.05
    assert "chains" not in tree
    assert tree["iterations"].sizes["iteration"] == sleep_model.n_iter_
    one, two = sleep_model.to_arviz(1), sleep_model.to_arviz(1)
    assert one["posterior"].equals(two["posterior"])


def test_parameters_are_drawn_as_walds_intervals_are_made(sleep_model):
    posterior = sleep_model.to_arviz(0)["posterior"]
    row = sleep_model.variance_components_
    assert posterior["sd_Subject"].coords["Subject_coefficient"].values.tolist() == [
        "Intercept",
        "Days",
    ]
    assert posterior["corr_Subject"].coords["Subject_pair"].values.tolist() == ["Intercept, Days"]
    for variable, estimate, error in (
        (posterior["sd_Subject"][..., 0], row["sd"][0], row["std_error"][0]),
        (posterior["sd_Subject"][..., 1], row["sd"][1], row["std_error"][1]),
        (posterior["corr_Subject"][..., 0], row["corr"][2], row["std_error"][2]),
        (posterior["sigma"], sleep_model.sigma_, row["std_error"][3]),
    ):
        assert variable.shape == (4, 500)
        assert float(variable.mean()) == pytest.approx(estimate, abs=0.15 * error)
        assert float(variable.std()) == pytest.approx(error, rel=0.08)


def test_rows_of_the_fit_add_what_was_observed_and_what_would_be(sleepstudy, sleep_model):
    X, y = sleepstudy
    tree = sleep_model.to_arviz(0, X=X, y=y)
    np.testing.assert_array_equal(tree["observed_data"]["Reaction"], y)
    posterior = tree["posterior"]
    subject, days = X["Subject"].to_numpy(), X["Days"].to_numpy()
    lines = posterior["coefficients"].to_numpy()[:, :, None] + (
        posterior["Subject"].sel(Subject_level=subject).to_numpy()
    )
    eta = lines[..., 0] + lines[..., 1] * days
    expected = norm.logpdf(y.to_numpy(), eta, posterior["sigma"].to_numpy()[..., None])
    np.testing.assert_allclose(tree["log_likelihood"]["Reaction"], expected, rtol=1e-9)
    mean, std = sleep_model.predict(X, return_std=True)
    drawn = tree["posterior_predictive"]["Reaction"]
    assert drawn.dims == ("chain", "draw", "row")
    np.testing.assert_allclose(drawn.mean(("chain", "draw")), mean, atol=4 * std.max() / 2000**0.5)
    np.testing.assert_allclose(drawn.std(("chain", "draw")), std, rtol=0.1)
    with pytest.raises(ValueError, match="X: it must hold the rows of the fit, 180"):
        sleep_model.to_arviz(X=X[:100], y=y[:100])
    with pytest.raises(ValueError, match="n_draws=0 must be at least 1"):
        sleep_model.to_arviz(n_draws=0)


def test_loo_is_the_exact_one_of_known_variances(sleepstudy):
    """y_i given the others is normal, of mean y_i - (P y)_i / P_ii and of variance 1 / P_ii."""
    pytest.importorskip("xarray_einstats")
    import arviz_stats

    X, _ = sleepstudy
    days = X["Days"].to_numpy()
    Z = (X["Subject"].to_numpy()[:, None] == X["Subject"].unique()).astype(float)
    V = 400 * Z @ Z.T + 784 * np.eye(180)
    rng = np.random.default_rng(0)
    y = 250 + 10 * days + np.linalg.cholesky(V) @ rng.standard_normal(180)
    term, family = RandomEffect("Subject", sd=20.0), Gaussian(sigma=28.0)
    model = MixedEffectsRegressor([term], fixed_effects=["Days"], family=family).fit(X, y)
    fixed, V_inv = np.column_stack([np.ones(180), days]), np.linalg.inv(V)
    VX = V_inv @ fixed
    P = V_inv - VX @ np.linalg.solve(fixed.T @ VX, VX.T)
    exact = norm.logpdf((P @ y) / np.diag(P), scale=np.diag(P) ** -0.5)
    tree = model.to_arviz(0, X=X, y=y)
    found = arviz_stats.loo(tree, pointwise=True)
    assert found.elpd == pytest.approx(exact.sum(), abs=1.5)
    good = found.pareto_k.to_numpy() < 0.5
    assert good.mean() > 0.9
    np.testing.assert_allclose(found.elpd_i.to_numpy()[good], exact[good], atol=0.3)
    pit = arviz_stats.loo_pit(tree)["y"].to_numpy()
    np.testing.assert_allclose(pit[good], norm.cdf((P @ y) / np.diag(P) ** 0.5)[good], atol=0.06)


def test_chains_are_handed_over(toenail, recwarn):
    tree = toenail.to_arviz(0)
    parameters = tree["chains"]["parameters"]
    assert parameters.dims == ("chain", "draw", "parameter")
    assert parameters.coords["parameter"].values.tolist() == toenail.mc_error_.index.tolist()
    assert arviz_base.extract(tree, group="chains").sizes["sample"] == parameters[..., 0].size
    assert not recwarn.list


def test_crossed_terms_and_slopes_have_a_variable_each():
    X, y, _ = make_crossed(400, (20, 8), random_state=0)
    model = MixedEffectsRegressor(["(1 + x0 || g0)", "g1"], family=Gaussian()).fit(X, y)
    posterior = model.to_arviz(0)["posterior"]
    assert model.to_arviz(0, n_chains=2, n_draws=7)["posterior"]["g1"].shape == (2, 7, 8, 1)
    assert posterior["g0"].shape == (4, 500, 20, 2)
    assert posterior["g1"].shape == (4, 500, 8, 1)
    assert posterior["sd_g0"].shape == (4, 500, 2)
    # Independent coefficients have no correlation to draw.
    assert "corr_g0" not in posterior


def test_names_that_a_tree_would_misread():
    X, y, _ = make_crossed(400, (20, 8), random_state=0)
    X = X.rename(columns={"g0": "coefficients", "g1": "a/b"})
    terms = ["coefficients", RandomEffect(("coefficients", "a/b"))]
    model = MixedEffectsRegressor(terms, fixed_effects=["x0"]).fit(X, y)
    posterior = model.to_arviz(0)["posterior"]
    assert posterior["coefficients"].shape == (4, 500, 2)
    assert posterior["coefficients_"].shape == (4, 500, 20, 1)
    assert posterior["sd_coefficients_"].shape == (4, 500, 1)
    pairs = posterior["coefficients:a_b"]
    first = model.random_effects_["coefficients:a/b"].index[0]
    assert str(pairs.coords["coefficients:a_b_level"].values[0]) == ":".join(map(str, first))


def test_without_arviz_the_remedy_is_named(toenail, monkeypatch):
    for name in ("arviz_base", "arviz_stats.base"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r"pip install sklmm\[arviz\]"):
        toenail.chain_diagnostics()
    with pytest.raises(ImportError, match=r"pip install sklmm\[arviz\]"):
        toenail.to_arviz()
