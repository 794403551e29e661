"""Tidy tables against broom.mixed's of lme4's, lmerTest's and glmmTMB's fits."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone

from sklmm import Binomial, MixedEffectsClassifier, MixedEffectsRegressor
from sklmm.datasets import load_cbpp, load_sleepstudy, load_wine

DATA = Path(__file__).parents[1] / "data"
#: Made by broom.R.
BROOM = json.loads((DATA / "broom.json").read_text())


@cache
def sleepstudy():
    X, y = load_sleepstudy(return_X_y=True, as_frame=True)
    return MixedEffectsRegressor(["(1 + Days | Subject)"], dof="satterthwaite").fit(X, y), X, y


@cache
def machines():
    table = pd.read_csv(DATA / "Machines.csv")
    X, y = table.drop(columns="score"), table["score"]
    terms = ["(1 | Worker:Machine)", "Worker"]
    model = MixedEffectsRegressor(terms, fixed_effects="~ Machine", method="ml", tol=1e-6)
    return model.fit(X, y), X, y


@cache
def cbpp():
    X, y = load_cbpp(return_X_y=True, as_frame=True)
    model = MixedEffectsRegressor(
        ["herd"], fixed_effects="~ C(period)", family=Binomial(), e_step="laplace"
    )
    share = (y / X["size"]).rename("share")
    return model.fit(X, share, sample_weight=X["size"]), X, share


@cache
def zinb():
    table = pd.read_csv(DATA / "zinb.csv")
    X, y = table.drop(columns="y"), table["y"]
    model = MixedEffectsRegressor(
        ["(1 + x | g)"],
        fixed_effects=["x", "z"],
        family="negative_binomial",
        zero_inflation="~ z + (1 | h)",
        e_step="laplace",
    )
    return model.fit(X, y), X, y


MODELS = {"sleepstudy": sleepstudy, "machines": machines, "cbpp": cbpp, "zinb": zinb}


@pytest.fixture(scope="module", params=MODELS)
def pair(request):
    """(what broom.mixed says, model, X, y)."""
    return BROOM[request.param], *MODELS[request.param]()


def ours(term):
    """The name that a term of R's has here."""
    term = term.replace("(Intercept)", "Intercept")
    for factor in ("Machine", "period"):
        name = f"C({factor})" if factor == "period" else factor
        term = term.replace(factor, f"{name}[T.") + "]" if term.startswith(factor) else term
    return term


def test_estimates(pair):
    broom, model, *_ = pair
    expected, found = pd.DataFrame(broom["tidy"]), model.tidy(conf_int=True)
    assert set(expected) <= set(found)
    keys = [name for name in ("effect", "component", "group", "term") if name in expected]
    expected["term"] = expected["term"].map(ours)
    expected, found = (t.fillna({"group": ""}).set_index(keys) for t in (expected, found))
    # The order of rows within a kind is each program's own; a dispersion is glmmTMB's sigma.
    assert set(expected.index) <= set(found.index)
    assert set(found.index.get_level_values("term")) - {"dispersion"} <= set(
        expected.index.get_level_values("term")
    )
    found = found.loc[expected.index]
    np.testing.assert_allclose(found["estimate"], expected["estimate"], rtol=2e-3, atol=2e-4)
    fixed = expected["statistic"].notna().to_numpy()
    # glmer's standard errors are by differences.
    for name in expected.columns.difference(["estimate", "p.value"]):
        np.testing.assert_allclose(
            found[name][fixed].astype(float), expected[name][fixed].astype(float), rtol=0.02
        )
    if "p.value" in expected:
        p, q = found["p.value"][fixed], expected["p.value"][fixed]
        np.testing.assert_allclose(np.log(p), np.log(q.astype(float)), rtol=0.03)


def test_effects_of_levels(pair):
    broom, model, *_ = pair
    expected, found = pd.DataFrame(broom["values"]), model.tidy("ran_vals", conf_int=True)
    assert set(expected) <= set(found)
    expected["term"] = expected["term"].map(ours)
    found["level"] = found["level"].astype(str)
    keys = ["group", "level", "term"]
    found = found[found["component"] == "cond"].set_index(keys).loc[expected.set_index(keys).index]
    # glmmTMB's SDs have the coefficients' uncertainty too.
    names = ["estimate", "std.error", "conf.low", "conf.high"][
        : 1 if "component" in expected else 4
    ]
    for name in names:
        np.testing.assert_allclose(found[name], expected[name], rtol=5e-3, atol=2e-3)


def test_criteria(pair):
    broom, model, *_ = pair
    expected, found = pd.DataFrame(broom["glance"]), model.glance()
    assert set(expected) <= set(found)
    assert len(found) == 1
    for name in expected:
        if name == "sigma" and not model._fitted.family.closed_form:
            # R has 1, or a parameter of the family.
            assert np.isnan(found[name][0])
        elif name == "deviance" and not model._fitted.family.closed_form:
            np.testing.assert_allclose(found[name], -2 * expected["logLik"], atol=0.02)
        else:
            np.testing.assert_allclose(found[name], expected[name], atol=0.02)


def test_rows(pair):
    broom, model, X, y = pair
    expected, found = pd.DataFrame(broom["augment"]), model.augment(X, y)
    pd.testing.assert_frame_equal(found[X.columns], X, check_frame_type=False)
    for name in {".fitted", ".fixed"} & set(expected):
        np.testing.assert_allclose(found[name][:3], expected[name], rtol=2e-3, atol=2e-3)
    np.testing.assert_allclose(found[".mu"], model.predict(X))
    np.testing.assert_allclose(found[".resid"], y - found[".mu"], atol=1e-9)
    if model._fitted.family.closed_form or "component" in broom["tidy"][0]:
        # glmmTMB's are at the modes, and glmer's of the deviance.
        np.testing.assert_allclose(found[".resid"][:3], expected[".resid"], rtol=0.02, atol=0.08)


def test_tables_of_several_models_are_one():
    models = {name: make()[0] for name, make in MODELS.items()}
    for table in ("tidy", "glance"):
        tables = {name: getattr(model, table)() for name, model in models.items()}
        assert len({tuple(own) for own in tables.values()}) == 1
        both = pd.concat(tables, names=["model"])
        assert list(both.index.get_level_values("model").unique()) == list(models)
        assert len(both) == sum(map(len, tables.values()))
        assert both["component" if table == "tidy" else "nobs"].notna().all()


def test_parts_of_a_model_are_components():
    table = pd.read_csv(DATA / "zinb.csv")
    model = MixedEffectsRegressor(
        ["g"],
        fixed_effects=["x"],
        family="negative_binomial",
        zero_inflation="~ z",
        dispersion="~ x",
        e_step="laplace",
    ).fit(table.drop(columns="y"), table["y"])
    rows = model.tidy(conf_int=True, conf_level=0.5)
    fixed = rows[rows["effect"] == "fixed"].set_index(["component", "term"])
    assert list(fixed.index) == [
        (component, term)
        for component, terms in {"cond": "x", "zi": "z", "disp": "x"}.items()
        for term in ("Intercept", terms)
    ]
    for component, own in {
        "zi": model.zero_inflation_effects_,
        "disp": model.dispersion_effects_,
    }.items():
        np.testing.assert_array_equal(fixed.loc[component]["estimate"], own["estimate"])
        np.testing.assert_array_equal(fixed.loc[component]["p.value"], own["p"])
    # Coefficients of a dispersion are no parameters beside.
    random = rows[rows["effect"] == "ran_pars"]
    assert list(random["term"]) == ["sd__Intercept"]
    interval = model.conf_int(0.5).loc["sd(g, Intercept)"]
    np.testing.assert_array_equal(random[["conf.low", "conf.high"]].iloc[0], interval)


def test_classes():
    X, y = load_wine(return_X_y=True, as_frame=True)
    model = MixedEffectsClassifier(
        ["judge"], family="ordinal", fixed_effects="~ temp", e_step="laplace"
    ).fit(X, y)
    rows = model.tidy().set_index("term")
    assert rows.loc["1|2", "estimate"] == model.fixed_effects_.loc["1|2", "estimate"]
    assert list(rows.index[-1:]) == ["sd__Intercept"]
    with pytest.raises(ValueError, match=r"5 classes .* use predict_proba"):
        model.augment(X, y)
    high = pd.Series(np.where(y > 3, "a", "b"), name="liked")
    two = MixedEffectsClassifier(["judge"], fixed_effects="~ temp", e_step="laplace").fit(X, high)
    found = two.augment(X, high)
    np.testing.assert_array_equal(found["liked"], high == "b")
    np.testing.assert_allclose(found[".mu"], two.predict_proba(X)[:, 1])
    assert ((found[".fitted"] > 0) == (found[".mu"] > 0.5)).all()


def test_rows_that_miss_values_and_a_formulas_response():
    table = load_sleepstudy(as_frame=True).frame.astype({"Days": float})
    table.loc[3, "Days"], table.loc[7, "Reaction"] = np.nan, np.nan
    model = MixedEffectsRegressor.from_formula("Reaction ~ Days + (1 | Subject)", missing="drop")
    found = model.fit(table).augment(table)
    assert list(found.index[found[".mu"].isna()]) == [3]
    assert list(found.index[found[".resid"].isna()]) == [3, 7]
    assert found[".fixed"].isna().sum() == found[".fitted"].isna().sum() == 1
    new = model.augment(table.drop(columns="Reaction"))
    assert list(new) == ["Days", "Subject", ".fitted", ".fixed", ".mu"]
    np.testing.assert_array_equal(new[".mu"], found[".mu"])


def test_counts_in_two_columns_are_shares():
    X, y = load_cbpp(return_X_y=True, as_frame=True)
    counts = pd.DataFrame({"cases": y, "others": X["size"] - y})
    model = MixedEffectsRegressor(["herd"], fixed_effects=[], family="binomial", e_step="laplace")
    found = model.fit(X, counts).augment(X, counts)
    np.testing.assert_allclose(found["cbind(cases, others)"], y / X["size"])
    bare = clone(model).set_params(random_effects=[0]).fit(X.to_numpy(), counts)
    bare = bare.augment(X.to_numpy(), counts)
    assert list(bare)[: X.shape[1]] == [f"x{i}" for i in range(X.shape[1])]
    names = ["cbind(cases, others)", ".fitted", ".fixed", ".mu", ".resid"]
    assert list(bare)[X.shape[1] :] == names
    np.testing.assert_allclose(bare[names], found[names], atol=1e-4)


def test_a_column_that_has_the_response_s_name_stays():
    X, y = load_sleepstudy(return_X_y=True, as_frame=True)
    model = MixedEffectsRegressor(["Subject"]).fit(X, y.rename("Days"))
    found = model.augment(X, y.rename("Days"))
    assert list(found)[:4] == ["Days", "Subject", ".y", ".fitted"]
    np.testing.assert_array_equal(found["Days"], X["Days"])
    np.testing.assert_array_equal(found[".y"], y)


def test_bounds_have_no_residuals():
    X, y = load_sleepstudy(return_X_y=True, as_frame=True)
    bounds = np.column_stack([np.minimum(y, 350.0), np.where(y > 350, np.inf, y)])
    model = MixedEffectsRegressor(["Subject"], e_step="laplace").fit(X, bounds)
    with pytest.raises(ValueError, match=r"y: it has bounds, .* see quantile_residuals"):
        model.augment(X, bounds)
    assert list(model.augment(X))[-3:] == [".fitted", ".fixed", ".mu"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"effects": "random"}, r"effects='random' is not available: use 'fixed'"),
        ({"effects": []}, r"effects=\[\] is not"),
        ({"conf_level": 95}, "conf_level=95 must be a number between 0 and 1"),
    ],
)
def test_what_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        sleepstudy()[0].tidy(**arguments)
