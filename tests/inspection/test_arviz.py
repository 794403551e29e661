"""Chains as ArviZ sees them, and the posterior handed over to it."""

import sys
from dataclasses import replace

import numpy as np
import pytest

from sklmm import Gaussian, MixedEffectsClassifier, MixedEffectsRegressor, RandomEffect
from sklmm.datasets import load_toenail, load_wine, make_crossed
from sklmm.inspection.arviz import chain_table

# The oldest versions that are tested together have none: it needs NumPy 2.
arviz_base = pytest.importorskip("arviz_base")


@pytest.fixture(scope="module")
def toenail():
    X, y = load_toenail(return_X_y=True, as_frame=True)
    X = X[["patientID", "time"]]
    return MixedEffectsClassifier(["patientID"], random_state=0).fit(X, y)


def test_chains_mean_the_estimate_and_their_error_is_that_of_the_fit(toenail, estimates):
    chains = toenail.result_.chains
    table = toenail.chain_diagnostics()
    assert table.index.tolist() == toenail.mc_error_.index.tolist()
    np.testing.assert_allclose(
        chains.mean(axis=(0, 1)), toenail._estimates()[0], rtol=1e-3, atol=1e-3
    )
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
    table = chain_table(toenail._labels, replace(toenail.result_, chains=apart))
    assert (table["rhat"] > 2).all()
    assert (table["ess_bulk"] < toenail.chain_diagnostics()["ess_bulk"] / 2).all()


def test_cutpoints_and_pinned_parameters():
    X, y = load_wine(return_X_y=True, as_frame=True)
    model = MixedEffectsClassifier(
        [RandomEffect("judge", sd=1.0)], fixed_effects=["temp"], family="ordinal", random_state=0
    )
    X = X.assign(temp=(X["temp"] == "warm").astype(float))
    table = model.fit(X, y).chain_diagnostics()
    assert table.index.tolist()[:4] == ["1|2", "2|3", "3|4", "4|5"]
    assert table.loc["sd(judge, Intercept)"].isna().all()
    assert table.drop(index="sd(judge, Intercept)").notna().all(axis=None)


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
    assert posterior["g0"].shape == (1, 500, 20, 2)
    assert posterior["g1"].shape == (1, 500, 8, 1)


def test_names_that_a_tree_would_misread():
    X, y, _ = make_crossed(400, (20, 8), random_state=0)
    X = X.rename(columns={"g0": "coefficients", "g1": "a/b"})
    terms = ["coefficients", RandomEffect(("coefficients", "a/b"))]
    model = MixedEffectsRegressor(terms, fixed_effects=["x0"]).fit(X, y)
    posterior = model.to_arviz(0)["posterior"]
    assert posterior["coefficients"].shape == (1, 500, 2)
    assert posterior["coefficients_"].shape == (1, 500, 20, 1)
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
