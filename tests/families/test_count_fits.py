"""Fits of counts and Tweedie responses at exact maxima, and at those of Laplace's approximation."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sklmm import HMC, MixedEffectsRegressor

DATA = Path(__file__).parents[1] / "data"
#: Exact maxima by 61 points of quadrature, which R's integrate confirms.
KNOWN = json.loads((DATA / "two_part.json").read_text())
#: The table and response of an entry, our family, and the parameters that R's packages have of it.
MODELS = {
    "nbinom1": ("counts", "y_nb1", "nbinom1", lambda p: {"phi": p["dispersion"]}),
    "genpois": ("counts", "y_gp", "generalized_poisson", lambda p: {"phi": 1 + p["dispersion"]}),
    "tweedie": (
        "positive",
        "y_tw",
        "tweedie",
        lambda p: {"phi": p["dispersion"], "p": p["power"]},
    ),
}


def fit(name, e_step):
    """The model of an entry."""
    table, y, family, _ = MODELS[name]
    table = pd.read_csv(DATA / "two_part" / f"{table}.csv.gz")
    model = MixedEffectsRegressor(["g"], family=family, e_step=e_step, random_state=0)
    return model.fit(table[["g", "x", "z"]], table[y])


def working(coef, sd, family):
    """Parameters on the scales of the entries' standard errors."""
    known = {"log sd": np.log(sd), "log phi": np.log(family["phi"])}
    if "p" in family:
        known["logit(p-1)"] = np.log((family["p"] - 1) / (2 - family["p"]))
    return pd.Series({**coef, **known})


def distance(name, model, answer):
    """How far the estimates are from an answer's, in standard errors."""
    coef = model.fixed_effects_["estimate"].rename({"Intercept": "(Intercept)"})
    own = MODELS[name][3](model.family_params_)
    found = working(coef, model.variance_components_["sd"].iloc[0], own)
    theirs = working(answer["coef"], answer["sd"], answer["family"])
    return ((found - theirs) / pd.Series(KNOWN[name]["se"])).abs().max()


@pytest.mark.parametrize(("e_step", "part"), [("auto", None), ("laplace", "laplace")])
@pytest.mark.parametrize("name", MODELS)
def test_exact_maxima_and_laplaces(name, e_step, part):
    answer = KNOWN[name] if part is None else KNOWN[name][part]
    model = fit(name, e_step)
    assert distance(name, model, answer) < 1e-3
    assert model.loglik_ == pytest.approx(answer["loglik"], abs=1e-4)
    std = model.fixed_effects_["std_error"].rename({"Intercept": "(Intercept)"})
    np.testing.assert_allclose(std, pd.Series(answer["se"])[std.index], rtol=1e-3)


@pytest.mark.parametrize("name", MODELS)
def test_monte_carlo_em_is_within_its_error(name):
    # It stops where the Monte Carlo error is some twentieth of the standard error.
    model = fit(name, HMC(n_chains=32))
    assert distance(name, model, KNOWN[name]) < 0.1
    assert abs(model.loglik_ - KNOWN[name]["loglik"]) < 4 * model.loglik_error_ + 0.05


def positive(y):
    """The table of counts' rows where a response is not 0, and that response."""
    table = pd.read_csv(DATA / "two_part" / "counts.csv.gz")
    table = table[table[y] > 0]
    return table[["g", "x", "z"]], table[y]


def test_truncated_counts_are_those_of_a_hurdle_model():
    """Of a hurdle model's two parts that of the counts is a model of the rows above 0."""
    answer = KNOWN["hurdle_poisson"]
    model = MixedEffectsRegressor(["g"], fixed_effects=["x"], family="truncated_poisson")
    model.fit(*positive("y_hu"))
    found = [model.intercept_, *model.coef_, model.variance_components_["sd"].iloc[0]]
    theirs = [answer["coef"]["(Intercept)"], answer["coef"]["x"], answer["sd"]]
    np.testing.assert_allclose(found, theirs, rtol=1e-5)


def test_a_truncated_negative_binomial_is_glmmtmbs():
    """glmmTMB 1.1.5: glmmTMB(y_nb1 ~ x + z + (1 | g), family = truncated_nbinom2)."""
    X, y = positive("y_nb1")
    model = MixedEffectsRegressor(["g"], family="truncated_negative_binomial", e_step="laplace")
    fixed = model.fit(X, y).fixed_effects_
    np.testing.assert_allclose(
        fixed["estimate"], [1.01182829, 0.355521755, -0.297479737], rtol=1e-5
    )
    np.testing.assert_allclose(fixed["std_error"], [0.0738615, 0.0382944, 0.0737136], rtol=1e-3)
    own = model.variance_components_["sd"].iloc[0], 1 / model.family_params_["dispersion"]
    np.testing.assert_allclose(own, [0.3205685, 3.157121], rtol=1e-4)
    assert model.loglik_ == pytest.approx(-1229.960778, abs=1e-5)


@pytest.mark.parametrize("name", ["truncated_poisson", "truncated_negative_binomial"])
def test_a_cell_of_ones_separates_truncated_counts(name):
    X, y = positive("y_hu")
    X = X.assign(z=np.arange(len(X)) % 10 == 0)
    y = y.where(~X["z"], 1)
    model = MixedEffectsRegressor(["g"], family=name, e_step="laplace")
    with pytest.warns(UserWarning, match="'z' has no finite maximum.*y is 1 in all"):
        model.fit(X.astype({"z": float}), y)
    assert np.isinf(model.fixed_effects_["std_error"].iloc[2])
