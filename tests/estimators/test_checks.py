"""`check`: performance's numbers, what it finds in data that are not the model's, and its words."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sklmm import MixedEffectsClassifier, MixedEffectsRegressor
from sklmm._fitted.checks import inflation
from sklmm.datasets import load_cbpp, load_epil2, load_sleepstudy, load_wine

DATA = Path(__file__).parents[1] / "data"
#: Made by performance.R.
PERFORMANCE = json.loads((DATA / "performance.json").read_text())


def fitted(formula, table, **params):
    # Posterior draws, of which residuals are made, are the fit's own.
    params |= {"e_step": "laplace", "random_state": 0}
    return MixedEffectsRegressor.from_formula(formula, **params).fit(table)


@pytest.fixture(scope="module")
def epil():
    table = load_epil2(as_frame=True).frame
    formula = "y ~ Base * trt + Age + C(period) + (1 | subject)"
    return fitted(formula, table, family="poisson"), table


@pytest.fixture(scope="module")
def zinb():
    return pd.read_csv(DATA / "zinb.csv")


@pytest.fixture(scope="module")
def counts(zinb):
    """Models of the counts with more zeros than theirs, by family."""
    formula = "y ~ x + z + x:z + (1 | g)"
    return {
        family: (fitted(formula, zinb, family=family), zinb)
        for family in ("poisson", "negative_binomial")
    }


@pytest.mark.parametrize("name", ["epil", "poisson", "negative_binomial"])
def test_numbers_are_those_of_performance(epil, counts, name):
    expected = PERFORMANCE[name]
    model, table = epil if name == "epil" else counts[name]
    rows = model.check(table, random_state=0)
    own = rows.loc["overdispersion"]
    told = expected["dispersion"]
    np.testing.assert_allclose(own["value"], told["dispersion_ratio"], rtol=0.01)
    np.testing.assert_allclose(own["statistic"], told["chisq_statistic"], rtol=0.01)
    np.testing.assert_allclose(own["p"], told["p_value"], rtol=0.1, atol=1e-300)
    # There at the effects' modes, here at a draw of them.
    np.testing.assert_allclose(rows.loc["zeros", "value"], expected["zeros"]["ratio"], rtol=0.2)
    assert f"{expected['zeros']['observed.zeros']} zeros" in rows.loc["zeros", "meaning"]
    spec, cov = model._fitted.spec, model.result_.natural_cov
    p = len(spec.coef_names)
    found = inflation(spec, cov[:p, :p])
    vif = {term.replace("factor(", "C("): v for term, v in expected["vif"].items()}
    assert {term.replace("C(trt)", "trt") for term in found} == set(vif)
    for term, value in found.items():
        np.testing.assert_allclose(value, vif[term], rtol=0.01)
    assert rows.loc["collinearity", "value"] == max(found.values())


def test_shares_of_trials_are_overdispersed_as_in_performance():
    X, y = load_cbpp(return_X_y=True, as_frame=True)
    model = MixedEffectsRegressor(
        ["herd"], fixed_effects="~ C(period)", family="binomial", e_step="laplace"
    )
    counts = pd.DataFrame({"cases": y, "others": X["size"] - y})
    rows = model.fit(X, counts).check(X, counts, random_state=0)
    assert "zeros" not in rows.index
    row = rows.loc["overdispersion"]
    expected = PERFORMANCE["cbpp"]["dispersion"]
    np.testing.assert_allclose(row["value"], expected["dispersion_ratio"], rtol=0.01)
    np.testing.assert_allclose(row["p"], expected["p_value"], rtol=0.05)
    assert row["verdict"] == "ok"


def test_each_part_of_a_model_has_its_collinearity(zinb):
    model = fitted(
        "y ~ x + z + (1 | g)", zinb, family="negative_binomial", zero_inflation="~ x + z"
    )
    rows, expected = model.check(zinb, random_state=0), PERFORMANCE["inflated"]
    for check, values in {
        "collinearity": expected["vif"]["x"],
        "collinearity (zero_inflation)": expected["zero_inflation"]["x"],
    }.items():
        np.testing.assert_allclose(rows.loc[check, "value"], values, rtol=0.01)
    assert rows.loc["zeros", "verdict"] == "ok"


def test_inflation_is_that_of_a_regression_on_the_other_columns():
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.normal(size=(400, 3)), columns=["a", "b", "c[0]"])
    X["c[1]"] = X["a"] + 0.1 * rng.normal(size=400)
    y = rng.normal(size=400)
    model = MixedEffectsRegressor().fit(X, y)
    found = inflation(model._fitted.spec, model.result_.coef_cov)
    # Brackets in names of columns are nothing but names.
    assert list(found) == list(X)
    for name, value in found.items():
        others = np.column_stack([np.ones(400), X.drop(columns=name)])
        left = X[name] - others @ np.linalg.lstsq(others, X[name], rcond=None)[0]
        np.testing.assert_allclose(value, X[name].var(ddof=0) / np.mean(left**2), rtol=1e-6)
    row = model.check(X, y, random_state=0).loc["collinearity"]
    assert row["verdict"] == "problem"
    assert "a (98" in row["meaning"]
    assert "c[1] (98" in row["meaning"]
    assert "b (" not in row["meaning"]


def test_levels_with_brackets_are_of_one_term():
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"x": rng.normal(size=300), "level": rng.choice(["[0, 1]", "[1, 2]"], 300)})
    model = MixedEffectsRegressor(fixed_effects="~ x + level:C(x > 0, levels=[False, True])")
    found = inflation(model.fit(X, rng.normal(size=300))._fitted.spec, model.result_.coef_cov)
    assert list(found) == ["x", "level:C(x > 0, levels=[False, True])"]
    # Of two terms either is as inflated as the other.
    assert found["x"] == pytest.approx(found["level:C(x > 0, levels=[False, True])"])


def test_columns_that_are_one_but_for_rounding_have_no_finite_inflation():
    X = pd.DataFrame(np.random.default_rng(0).normal(size=(50, 3)), columns=["a", "b", "c"])
    model = MixedEffectsRegressor().fit(X, X["c"] + np.cos(np.arange(50)))
    cov = np.diag([1.0, 1.0, 4.0, 1.0])
    cov[1, 2] = cov[2, 1] = -2.0
    found = inflation(model._fitted.spec, cov)
    assert found["a"] > 1e12
    assert found["b"] > 1e12
    np.testing.assert_allclose(found["c"], 1.0)


def test_what_to_do_about_zeros(counts, zinb):
    rng = np.random.default_rng(0)
    table = zinb.assign(y=1 + rng.poisson(1, len(zinb)))
    row = (
        fitted("y ~ x + (1 | g)", table, family="poisson").check(table, random_state=0).loc["zeros"]
    )
    assert (row["value"], row["verdict"]) == (np.inf, "problem")
    assert "truncated" in row["meaning"]
    assert "zero_inflation" not in row["meaning"]
    table["y"] += 100
    rows = fitted("y ~ x + (1 | g)", table, family="poisson").check(table, random_state=0)
    assert "zeros" not in rows.index
    model, table = counts["poisson"]
    assert "Model them by" in model.check(table, random_state=0).loc["zeros", "meaning"]


def test_how_a_fit_ended():
    X, y = load_sleepstudy(return_X_y=True, as_frame=True)
    rng = np.random.default_rng(1)
    noise = pd.Series(rng.normal(size=len(X)))
    short = MixedEffectsRegressor(["(1 + Days | Subject)"], family="gamma", max_iter=1)
    with pytest.warns(match="max_iter"):
        short.fit(X, y)
    row = short.check(X, y, random_state=0).loc["convergence"]
    assert row["verdict"] == "problem"
    assert "raise max_iter" in row["meaning"]
    centred = noise - noise.groupby(X["Subject"]).transform("mean")
    singular = MixedEffectsRegressor(["Subject"]).fit(X, centred)
    rows = singular.check(X, centred, random_state=0)
    assert rows.loc["convergence", "verdict"] == "ok"
    assert rows.loc["singular fit", ["value", "verdict"]].tolist() == [0.0, "doubtful"]
    assert "Subject" in rows.loc["singular fit", "meaning"]
    with pytest.warns(match="reproduce"):
        perfect = MixedEffectsRegressor(["Subject"]).fit(X, 2.0 * X["Days"])
    assert list(perfect.check(X, 2.0 * X["Days"]).index) == ["convergence", "singular fit"]


def test_counts_that_are_not_poisson_are_a_problem(epil):
    model, table = epil
    rows = model.check(table, random_state=0)
    assert rows.loc["overdispersion", "verdict"] == "problem"
    assert rows.loc["dispersion of residuals", "verdict"] == "problem"
    assert "negative_binomial" in rows.loc["overdispersion", "meaning"]
    better = fitted("y ~ Base + trt + Age + (1 | subject)", table, family="negative_binomial")
    assert "problem" not in set(better.check(table, random_state=0)["verdict"])


@pytest.mark.slow
@pytest.mark.parametrize("family", ["poisson", "negative_binomial"])
def test_problems_are_found_where_they_are(family):
    """Sets of 600 negative-binomial counts: of 40, a binomial count of 2 % is at most 4."""
    n_sets, wrong = 40, {}
    for seed in range(n_sets):
        rng = np.random.default_rng(seed)
        X = pd.DataFrame({"g": rng.integers(40, size=600), "x": rng.normal(size=600)})
        mean = np.exp(0.5 + 0.4 * X["x"] + 0.5 * rng.normal(size=40)[X["g"]])
        y = rng.poisson(mean * rng.gamma(2.0, 0.5, size=600))
        model = MixedEffectsRegressor(
            ["g"], fixed_effects=["x"], family=family, e_step="laplace", random_state=seed
        )
        rows = model.fit(X, y).check(X, y, random_state=seed)
        for check in rows.index[rows["verdict"] == "problem"]:
            wrong[check] = wrong.get(check, 0) + 1
    if family == "negative_binomial":
        assert all(found <= 4 for found in wrong.values()), wrong
    else:
        assert wrong["overdispersion"] >= 0.95 * n_sets
        assert wrong["uniformity of residuals"] >= 0.75 * n_sets


def test_a_gross_error_is_an_outlier():
    X, y = load_sleepstudy(return_X_y=True, as_frame=True)
    rng = np.random.default_rng(0)
    y = 250 + rng.normal(size=18).repeat(10) + 10 * X["Days"] + rng.normal(size=180)
    before = MixedEffectsRegressor(["Subject"]).fit(X, y).check(X, y, random_state=0)
    assert before.loc["outliers", ["value", "verdict"]].tolist() == [0, "ok"]
    y[17] += 60
    after = MixedEffectsRegressor(["Subject"]).fit(X, y).check(X, y, random_state=0)
    assert after.loc["outliers", "value"] == 1
    assert after.loc["outliers", "verdict"] != "ok"


def test_what_a_model_has_no_check_of_is_left_out():
    X, y = load_wine(return_X_y=True, as_frame=True)
    two = MixedEffectsClassifier(["judge"], fixed_effects="~ temp", e_step="laplace")
    rows = two.fit(X, y > 3).check(X, y > 3, random_state=0)
    kinds = ["uniformity of residuals", "dispersion of residuals", "outliers"]
    assert list(rows.index) == ["convergence", "singular fit", *kinds]
    plain = MixedEffectsRegressor(fixed_effects=[]).fit(X[["judge"]], y.astype(float))
    assert list(plain.check(X[["judge"]], y.astype(float), random_state=0).index) == [
        "convergence",
        *kinds,
    ]
    several = MixedEffectsClassifier(["judge"], fixed_effects="~ temp + contact")
    labels = np.array(["a", "b", "c"])[np.digitize(y.astype(int), [3, 4])]
    several.fit(X, labels)
    assert list(several.check(X, labels).index) == ["convergence", "singular fit", "collinearity"]


def test_findings_are_sentences_and_a_table(epil):
    model, table = epil
    rows = model.check(table, random_state=3)
    text = repr(rows)
    assert max(map(len, text.splitlines())) <= 100
    words = " ".join(text.split())
    for check, row in rows.iterrows():
        assert f"{row['verdict']} {check} (" in words
        assert row["meaning"] in words
        assert row["meaning"].endswith(".")
    assert list(rows) == ["value", "statistic", "p", "verdict", "meaning"]
    # A part of it is a table like others, of which nothing is cut.
    assert rows.loc["overdispersion", "meaning"] in repr(rows[["meaning"]])
    pd.testing.assert_frame_equal(rows, model.check(table, random_state=3))
    assert "<table" in rows._repr_html_()


def test_rows_are_those_of_the_fit(epil):
    model, table = epil
    with pytest.raises(ValueError, match="rows of the fit"):
        model.check(table[:100])
