"""Marginal means against R's emmeans (tests/data/emmeans.R), integration and the delta method."""

import json
import pickle
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.integrate import quad
from scipy.special import expit, logit
from scipy.stats import norm, studentized_range

from sklmm import MixedEffectsClassifier, MixedEffectsRegressor, Quadrature
from sklmm._fitted.contrasts import Contrasts
from sklmm._fitted.marginal_means import Means, covariance_slopes
from sklmm._fitted.multiplicity import adjusted, critical
from sklmm.datasets import load_cbpp, load_sleepstudy, load_wine

DATA = Path(__file__).parents[1] / "data"
REFERENCE = json.loads((DATA / "emmeans.json").read_text())
RULES = ("kenward-roger", "satterthwaite")
COLUMNS = {
    "estimate": ("estimate", "emmean", "prob", "rate", "response", "fit"),
    "std_error": ("SE", "se.fit"),
    "df": ("df",),
    "ci_lower": ("lower.CL", "asymp.LCL"),
    "ci_upper": ("upper.CL", "asymp.UCL"),
    "t": ("t.ratio",),
    "z": ("z.ratio",),
    "p": ("p.value",),
}


def check(found, reference, columns=tuple(COLUMNS), atol=1e-4, sign=1):
    """Compare columns of a table with those of a reference, as many as both have."""
    reference, compared = pd.DataFrame(reference), 0
    for column in columns:
        for name in COLUMNS[column]:
            if column in found and name in reference:
                wanted = reference[name].astype(float)
                np.testing.assert_allclose(found[column], wanted, atol=atol, rtol=1e-4)
                compared += 1
    assert compared >= 2


@lru_cache
def machines():
    table = pd.read_csv(DATA / "Machines.csv")
    i = np.arange(len(table))
    table["shift"] = np.where(i * i % 3 == 0, 2, 5)
    table["x"] = np.sin(i)
    return table, (i % 7 != 3) & (i % 5 != 1)


@lru_cache
def unbalanced(dof):
    table, keep = machines()
    table = table[keep]
    model = MixedEffectsRegressor(["Worker"], fixed_effects="~ Machine * shift + x", dof=dof)
    return model.fit(table, table["score"]), table


@lru_cache
def cbpp():
    X = load_cbpp(as_frame=True).frame
    i = np.arange(len(X))
    X = X.assign(period=pd.Categorical(X["period"]), half=pd.Categorical(i % 2), z=np.cos(i))
    model = MixedEffectsRegressor(
        ["herd"],
        fixed_effects="~ period + half + z",
        family="binomial",
        e_step="laplace",
        tol=1e-5,
    )
    return model.fit(X, X["incidence"] / X["size"], X["size"]), X


@lru_cache
def zip_model():
    X = pd.read_csv(DATA / "zinb.csv")
    X["half"] = pd.Categorical(np.arange(len(X)) % 2)
    model = MixedEffectsRegressor(
        ["g"],
        fixed_effects="~ x + half",
        zero_inflation="~ x + half",
        family="poisson",
        e_step="laplace",
        handle_unknown="typical",
    )
    return model.fit(X, X["y"]), X


@pytest.mark.parametrize("dof", RULES)
def test_means_and_pairs_of_machines(dof):
    table, _ = machines()
    model = MixedEffectsRegressor(["Worker", "(1 | Worker:Machine)"], fixed_effects="~ Machine")
    model = model.set_params(dof=dof).fit(table, table["score"])
    means, reference = model.marginal_means("Machine"), REFERENCE[f"balanced_{dof}"]
    check(means.table, reference["means"])
    check(means.pairwise().table, reference["pairs"])
    assert list(means.pairwise().table.index) == ["A - B", "A - C", "B - C"]


@pytest.mark.parametrize("dof", RULES)
def test_numbers_of_two_values_count_equally_or_take_their_mean(dof):
    (model, table), reference = unbalanced(dof), REFERENCE[f"machines_{dof}"]
    means = model.marginal_means("Machine", table)
    check(means.table, reference["means"])
    check(means.pairwise().table, reference["pairs"])
    assert "shift (2, 5), a number of two values" in "\n".join(means.notes)
    held = model.marginal_means("Machine", table, two_values="mean")
    check(held.table, reference["held"])
    check(held.pairwise().table, reference["held_pairs"])
    assert f"shift = {table['shift'].mean():.4g}" in "\n".join(held.notes)


@pytest.mark.parametrize("dof", RULES)
def test_by_and_at(dof):
    (model, table), reference = unbalanced(dof), REFERENCE[f"machines_{dof}"]
    by = model.marginal_means("Machine", table, by="shift")
    check(by.table, reference["by"])
    pairs = by.pairwise().table
    check(pairs, reference["by_pairs"])
    assert pairs.index[0] == (2, "A - B")
    # Without a table, as no column is left to have its mean.
    at = model.marginal_means("Machine", at={"x": 0.25, "shift": [1, 4]})
    check(at.table, reference["at"])


@pytest.mark.parametrize("dof", RULES)
@pytest.mark.parametrize("adjust", ["sidak", "holm", "fdr", "bonferroni", None])
def test_adjustments(dof, adjust):
    (model, table), reference = unbalanced(dof), REFERENCE[f"machines_{dof}"]
    pairs = model.marginal_means("Machine", table).pairwise(adjust)
    check(pairs.table, reference[str(adjust).lower()])


def test_weights_of_a_contrast():
    (model, table), name = unbalanced("kenward-roger"), "A - mean(B, C)"
    means = model.marginal_means("Machine", table)
    found = means.contrasts({name: [1, -0.5, -0.5]})
    check(found.table, REFERENCE["machines_kenward-roger"]["custom"])
    with pytest.raises(ValueError, match="has shape"):
        means.contrasts({name: [1, -1]})
    with pytest.raises(ValueError, match="weights has no contrast: give"):
        means.contrasts({})
    with pytest.raises(ValueError, match="use 'sidak'"):
        means.contrasts({name: [1, -0.5, -0.5]}, adjust="tukey")
    with pytest.raises(ValueError, match="adjust='none'"):
        means.pairwise("none")


def test_a_mean_that_is_not_estimable_is_nan():
    table, keep = machines()
    cell = table[keep & ~((table["Machine"] == "B") & (table["shift"] == 5))]
    cell = cell.assign(late=cell["shift"].astype("category"))
    model = MixedEffectsRegressor(["Worker"], fixed_effects="~ Machine * late", dof="satterthwaite")
    with pytest.warns(UserWarning, match="linear combinations"):
        model.fit(cell, cell["score"])
    reference = REFERENCE["empty_cell"]
    check(model.marginal_means("Machine").table, reference["machines"])
    # emmeans' first factor is the fastest.
    found = model.marginal_means(["late", "Machine"])
    check(found.table, reference["means"])
    check(found.pairwise(None).table, reference["pairs"])


def test_logistic_means_on_the_link_and_response_scale():
    (model, X), reference = cbpp(), REFERENCE["cbpp"]
    model = pickle.loads(pickle.dumps(model)).set_params(handle_unknown="typical")
    link = model.marginal_means("period", X, scale="link")
    check(link.table, reference["link"])
    check(link.pairwise().table, reference["pairs"])
    assert "df" not in link.table
    response = model.marginal_means("period", X)
    check(response.table, reference["regrid"], ["estimate", "std_error"])
    check(response.pairwise().table, reference["regrid_pairs"])
    cells = model.marginal_means(["half", "period"], X)
    # Where nothing is averaged over, the interval is that of the link, transformed back.
    check(cells.table, reference["response"])
    assert "at effects of 0 of herd" in cells.notes[0]


def averaged(function, sd):
    """The mean of a function of a normal variable of mean 0."""
    return quad(lambda u: function(sd * u) * norm.pdf(u), -12, 12)[0]


def test_population_means_are_integrals_over_the_effects():
    model, X = cbpp()
    found = model.marginal_means("period", X)
    assert "averaged over herd" in found.notes[0]
    sd, cov = model.cov_re_["herd"].iloc[0, 0] ** 0.5, model.result_.natural_cov
    for period, own in found.table.iterrows():
        # Of the two levels of half.
        dummies = [float(period == other) for other in (2, 3, 4)]
        x = np.array([[1, *dummies, half, X["z"].mean()] for half in (0, 1)])
        eta = x @ model.result_.coef
        value = np.mean([averaged(lambda b, e=e: expit(e + b), sd) for e in eta])
        steep = [averaged(lambda b, e=e: expit(e + b) * expit(-e - b), sd) for e in eta]
        # And in the SD.
        by_sd = [averaged(lambda b, e=e: expit(e + b) * expit(-e - b) * b / sd, sd) for e in eta]
        slope = np.append(steep @ x / 2, np.mean(by_sd))
        assert own["estimate"] == pytest.approx(value, abs=1e-6)
        assert own["std_error"] == pytest.approx(np.sqrt(slope @ cov @ slope), rel=1e-4)


def test_zeros_count_in():
    (model, X), reference = zip_model(), REFERENCE["zip"]
    both = ["estimate", "std_error"]
    at = {"x": 0.3}
    check(model.marginal_means("half", at=at).table, reference["response"], both, 2e-4)
    check(model.marginal_means("half", X, scale="link").table, reference["link"], both, 2e-4)
    conditional = model.marginal_means("half", X, component="conditional")
    check(conditional.table, reference["conditional"], both, 2e-4)
    # glmmTMB's have 1993 degrees of freedom.
    ends = ["ci_lower", "ci_upper"]
    check(conditional.table, reference["conditional"], ends, 5e-4)
    zero = model.marginal_means("half", at=at, component="zero")
    check(zero.table, reference["zero"], both + ends, 2e-4)
    zero = model.marginal_means([], at=at, component="zero", scale="link")
    check(zero.table, reference["zero_link"], both, 2e-4)
    assert zero.table.index.tolist() == ["overall"]


def test_parts_with_random_effects_have_a_predictor():
    X = pd.read_csv(DATA / "zinb.csv")
    model = MixedEffectsRegressor(
        ["g"], fixed_effects="~ x", zero_inflation="~ z + (1 | g)", family="poisson",
        e_step="laplace",
    ).fit(X, X["y"])  # fmt: skip
    found = model.marginal_means("z", X, component="zero", scale="link").table
    a, b = model.zero_inflation_effects_["estimate"]
    np.testing.assert_allclose(found["estimate"], [a, a + b], rtol=1e-9)
    errors = model.zero_inflation_effects_["std_error"]
    assert found["std_error"].iloc[0] == pytest.approx(errors["Intercept"])
    sd = model.cov_re_["zero: g"].iloc[0, 0] ** 0.5
    mean = averaged(lambda b: expit(a + b), sd)
    found = model.marginal_means("z", X, component="zero")
    assert found.table["estimate"].iloc[0] == pytest.approx(mean, abs=1e-5)
    assert found.notes[0] == "Expected zero part of the response, averaged over zero: g."
    other = model.marginal_means("z", X, component="conditional").notes[0]
    assert other == "Expected conditional part of the response, averaged over g."


def test_classes_have_a_probability_each():
    X, y = load_wine(return_X_y=True, as_frame=True)
    model = MixedEffectsClassifier(
        ["judge"], fixed_effects="~ temp + contact", family="ordinal", e_step="laplace"
    ).fit(X, y)
    means = model.marginal_means("temp", by="contact")
    assert means.table.index.names == ["contact", "class", "temp"]
    assert means.table[["ci_lower", "ci_upper"]].stack().between(0, 1).all()
    found = means.table["estimate"].groupby(["contact", "temp"]).sum()
    np.testing.assert_allclose(found, 1.0)
    cuts, sd = model.family_params_["cutpoints"], model.cov_re_["judge"].iloc[0, 0] ** 0.5
    warm = model.fixed_effects_["estimate"].iloc[-2]
    below = [averaged(lambda b, c=c: expit(c - warm - b), sd) for c in cuts]
    proba = np.diff([0.0, *below, 1.0])
    np.testing.assert_allclose(means.table["estimate"].loc["no", :, "warm"], proba, atol=1e-6)
    pairs = means.pairwise().table
    own = means.table["estimate"].loc["no", 3]
    assert pairs["estimate"].loc["no", 3, "cold - warm"] == pytest.approx(own["cold"] - own["warm"])
    # Cumulative logits: shifts of the predictor are coefficients.
    link = model.marginal_means("temp", scale="link").pairwise().table
    assert -link["estimate"].iloc[0] == pytest.approx(model.fixed_effects_["estimate"].iloc[-2])
    two = MixedEffectsClassifier(["judge"], fixed_effects="~ temp", e_step="laplace")
    means = two.fit(X, np.where(y > 3, "high", "low")).marginal_means("temp")
    assert means.table.index.tolist() == ["cold", "warm"]
    assert means.notes[0] == "Expected probability of low, averaged over judge."


def test_intervals_stay_where_means_can_be():
    """Of few rows symmetric ones of probabilities and of counts would leave them."""
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"g": np.arange(40) % 8, "a": np.where(np.arange(40) < 20, "low", "some")})
    y = np.where(X["a"] == "low", np.arange(40) == 3, rng.integers(2, size=40)).astype(float)
    for family, highest in (("bernoulli", 1.0), ("poisson", np.inf)):
        model = MixedEffectsRegressor(
            ["g"], fixed_effects="~ a", family=family, e_step="laplace"
        ).fit(X, y)
        means = model.marginal_means("a")
        value, std = (means.table[name].to_numpy() for name in ("estimate", "std_error"))
        assert (value - norm.ppf(0.975) * std)[0] < 0
        low, high = (means.table[name].to_numpy() for name in ("ci_lower", "ci_upper"))
        assert (low > 0).all()
        assert (high < highest).all()
        scale, there = ("logit", logit) if family == "bernoulli" else ("log", np.log)
        np.testing.assert_allclose(there(low) + there(high), 2 * there(value), atol=1e-9)
        assert f"on the {scale} scale" in means.notes[-1]
        pairs = means.pairwise()
        assert "scale" not in pairs.notes[-1]
        ends = pairs.table[["ci_lower", "ci_upper"]].mean(axis=1)
        np.testing.assert_allclose(ends, pairs.table["estimate"])


def ends_of(means):
    return means.table[["ci_lower", "ci_upper"]].to_numpy().T


def test_intervals_of_ratings_are_between_the_least_and_the_greatest():
    """Means of a regressor's classes are in the ratings' units, and no probabilities."""
    X, y = load_wine(return_X_y=True, as_frame=True)
    X = X.assign(temp=X["temp"].astype(str))
    model = MixedEffectsRegressor(
        ["judge"], fixed_effects="~ temp", family="ordinal", e_step="laplace"
    )
    means = model.fit(X, 10.0 * y).marginal_means("temp")
    value, (low, high) = means.table["estimate"].to_numpy(), ends_of(means)
    share, slope = (value - 10) / 40, means.table["std_error"] / 40
    half = norm.ppf(0.975) * slope / (share * (1 - share))
    np.testing.assert_allclose(low, 10 + 40 * expit(logit(share) - half))
    np.testing.assert_allclose(high, 10 + 40 * expit(logit(share) + half))


def test_counts_without_zeros_have_a_mean_above_one():
    i = np.arange(60)
    X = pd.DataFrame({"g": i % 6, "a": np.where(i < 30, "p", "q")})
    y = np.where(i % 3 == 0, 0, 1 + (i % 13 == 5))
    model = MixedEffectsRegressor(
        ["g"],
        fixed_effects="~ a",
        family="truncated_poisson",
        zero_inflation="~ 1",
        e_step="laplace",
    ).fit(X, y)
    means = model.marginal_means("a", component="conditional")
    value, std = (means.table[name].to_numpy() for name in ("estimate", "std_error"))
    assert (value * np.exp(-2 * std / value)).min() < 1
    low, high = ends_of(means)
    assert (low > 1).all()
    np.testing.assert_allclose((low - 1) * (high - 1), (value - 1) ** 2)


def test_parts_without_a_standard_error_give_none_to_means():
    """Coefficients of a dispersion that the data do not tell are not known."""
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"g": np.arange(120) % 12, "a": np.array(["p", "q", "r"])[np.arange(120) % 3]})
    X = X.assign(x=rng.normal(size=120))
    model = MixedEffectsRegressor(
        ["g"],
        fixed_effects="~ a + x",
        family="negative_binomial",
        dispersion="~ a",
        e_step="laplace",
    ).fit(X, rng.poisson(rng.gamma(2, np.exp(0.3 + 0.3 * X["x"]) / 2)))
    # Which fits end so hangs on rounding.
    cov = model.result_.natural_cov.copy()
    cov[-3:], cov[:, -3:] = np.nan, np.nan
    model.result_ = replace(model.result_, natural_cov=cov)
    means = model.marginal_means("a", X, component="dispersion")
    assert means.table["estimate"].notna().all()
    assert means.table[["std_error", "ci_lower", "ci_upper"]].isna().all(axis=None)
    assert means.pairwise().table["p"].isna().all()
    # Of the counts' mean they tell nothing.
    assert model.marginal_means("a", X).table.notna().all(axis=None)


def test_a_mean_next_to_its_limit_may_be_anywhere_beyond():
    means = Means(np.array([1e-9]), np.ones((1, 1)), False, (0.0, np.inf))
    low, high = means.intervals(Contrasts(means.values, np.array([[1e-9]]), np.full(1, np.inf)), 2)
    assert (low, high) == (0.0, np.inf)


def test_columns_without_a_formula():
    X, y = load_sleepstudy(return_X_y=True, as_frame=True)
    X = X.assign(late=(X["Days"] > 4).astype(float))
    for table in (X, X.to_numpy(float)):
        named = isinstance(table, pd.DataFrame)
        late, group = ("late", "Subject") if named else (2, 1)
        model = MixedEffectsRegressor([group]).fit(table, y)
        found = model.marginal_means(late, table).table["estimate"].to_numpy()
        beta = np.array([model.intercept_, *model.coef_])
        rows = [[1, X["Days"].mean(), value] for value in (0, 1)]
        np.testing.assert_allclose(found, np.array(rows) @ beta)


def test_weights_of_rows_repeat_them():
    (model, table), weights = unbalanced("satterthwaite"), np.arange(40) % 3
    table, weights = table.iloc[:30], weights[:30]
    found = model.marginal_means("Machine", table, sample_weight=weights).table
    repeated = model.marginal_means("Machine", table.loc[table.index.repeat(weights)]).table
    np.testing.assert_allclose(found, repeated)


@pytest.mark.parametrize(
    "term", ["(1 + x | g)", "(1 + x || g)", "cs(0 + f | g)", "ar1(0 + f | g)", "diag(0 + f | g)"]
)
def test_covariances_move_with_their_sds_and_correlations(term):
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"g": np.arange(300) % 30, "x": rng.normal(size=300)})
    X["f"] = pd.Categorical(np.array(["a", "b", "c"])[rng.integers(3, size=300)], ordered=True)
    effects = rng.normal(size=(30, 3)) @ np.array([[0.5, 0.3, 0.1], [0, 0.4, 0.2], [0, 0, 0.4]])
    own = effects[X["g"], X["f"].cat.codes] + effects[X["g"], 0] * X["x"]
    model = MixedEffectsRegressor([term], fixed_effects="~ x", family="poisson", e_step="laplace")
    model.fit(X, rng.poisson(np.exp(0.5 + 0.2 * X["x"] + own)))
    result, spec = model.result_, model._fitted.spec
    design = spec.apply(X[:3])
    covariance, sigma = design.blocks[0].covariance, result.covariances[0]

    def told(matrix):
        sd = np.sqrt(np.diag(matrix))
        values = [sd[i] if i == j else matrix[i, j] / sd[i] / sd[j] for i, j in covariance.reported]
        return np.array(values)

    slopes, step = covariance_slopes(design, result, 1)[0], 1e-6
    np.testing.assert_allclose(told(sigma), result.natural[: len(slopes)], atol=1e-8)
    found = [(told(sigma + step * s) - told(sigma - step * s)) / (2 * step) for s in slopes]
    np.testing.assert_allclose(found, np.eye(len(slopes)), atol=1e-5)
    # It stays one of the covariance's own.
    moved = sigma + 1e-4 * slopes[0]
    L = covariance.nearest(np.linalg.cholesky(moved))
    np.testing.assert_allclose(L @ L.T, moved, atol=1e-6)


def test_averages_that_differ_by_variances_alone_are_as_uncertain_as_these():
    X, y = load_sleepstudy(return_X_y=True, as_frame=True)
    X = X.assign(late=np.where(X["Days"] > 4, "late", "early"))
    model = MixedEffectsRegressor(
        ["(0 + late | Subject)"], fixed_effects="~ 1", family="gamma", e_step="laplace"
    ).fit(X, y)
    pairs = model.marginal_means("late").pairwise().table
    sd = model.variance_components_["sd"].to_numpy()[:2]
    cov = model.result_.natural_cov[1:3, 1:3]
    means = np.exp(model.intercept_ + sd**2 / 2)
    slope = means * sd * [1, -1]
    assert pairs["estimate"].iloc[0] == pytest.approx(means[0] - means[1])
    b, cross = means[0] - means[1], model.result_.natural_cov[0]
    error = slope @ cov @ slope + b * b * cross[0] + 2 * b * cross[1:3] @ slope
    assert pairs["std_error"].iloc[0] == pytest.approx(np.sqrt(error), rel=1e-4)


def test_variances_of_0_leave_the_coefficients_errors():
    X = pd.DataFrame({"g": np.arange(200) % 20, "f": np.array(["a", "b"])[np.arange(200) // 100]})
    y = np.arange(200) // 20 % 2
    with_effects = MixedEffectsClassifier(
        ["(1 + f | g)"], fixed_effects="~ f", e_step="laplace"
    ).fit(X.assign(f=pd.Categorical(X["f"])), y)
    plain = MixedEffectsClassifier(None, fixed_effects="~ f").fit(X, y)
    assert with_effects.variance_components_["sd"].min() < 1e-3
    assert "count as known" in with_effects.marginal_means("f").notes[-2]
    found, wanted = (m.marginal_means("f").table for m in (with_effects, plain))
    np.testing.assert_allclose(found, wanted, rtol=1e-3)


def test_an_offset_takes_its_mean():
    X = load_cbpp(as_frame=True).frame.assign(log_size=lambda t: np.log(t["size"]))
    model = MixedEffectsRegressor(
        ["herd"], fixed_effects="~ C(period)", offset="log_size", family="poisson", e_step="laplace"
    ).fit(X, X["incidence"])
    found = model.marginal_means("period", X, scale="link").table["estimate"]
    table = model.fixed_effects_["estimate"]
    assert found[1] == pytest.approx(table["Intercept"] + X["log_size"].mean())


@pytest.mark.parametrize(
    ("match", "kwargs"),
    [
        ("specs: 'Worker' is no column", {"specs": "Worker"}),
        ("at: 'y' is no column", {"specs": "Machine", "at": {"y": 1}}),
        ("at: 'x' has no values", {"specs": "Machine", "at": {"x": [], "shift": 2}}),
        ("column 'x' is no factor", {"specs": "Machine", "at": {"shift": 2}}),
        ("scale='logit'", {"specs": "Machine", "scale": "logit"}),
        ("component='zero': the model has no", {"specs": "Machine", "component": "zero"}),
        ("two_values='both'", {"specs": "Machine", "two_values": "both"}),
        ("level=95", {"specs": "Machine", "level": 95}),
        ("has 120000 rows", {"specs": "x", "at": {"x": range(40_000), "shift": 2}}),
        ("'D', not seen", {"specs": "Machine", "at": {"x": 1, "shift": 2, "Machine": ["D"]}}),
    ],
)
def test_errors_name_what_is_wrong(match, kwargs):
    model, _ = unbalanced("satterthwaite")
    with pytest.raises(ValueError, match=match):
        model.marginal_means(**kwargs)


def test_tables_say_their_intervals_and_survive_pickling():
    model, table = unbalanced("kenward-roger")
    means = model.marginal_means("Machine", table, level=0.9)
    text = "90 % confidence intervals (t with Kenward-Roger degrees of freedom)"
    assert f"{text}." in repr(means)
    pairs = pickle.loads(pickle.dumps(means)).pairwise()
    assert f"p values and {text}: Tukey's method for 3 means." in repr(pairs)
    assert "<p>" in pairs._repr_html_()
    pd.testing.assert_frame_equal(pairs.table, means.pairwise().table)
    with pytest.raises(ValueError, match="one mean alone"):
        model.marginal_means([], table).pairwise()


def test_gaussian_quadrature_and_defaults_agree():
    model, X = cbpp()
    other = MixedEffectsRegressor(
        ["herd"], fixed_effects="~ period + half + z", family="binomial", e_step=Quadrature()
    ).fit(X, X["incidence"] / X["size"], X["size"])
    found, wanted = (m.marginal_means("period", X).table["estimate"] for m in (other, model))
    np.testing.assert_allclose(found, wanted, atol=5e-3)


def test_adjusted_p_values_and_intervals_agree():
    # At the half width of an interval the adjusted p is what is outside it.
    dof = np.array([3.5, 12.0, np.inf])
    for adjust in ("tukey", "sidak", "bonferroni"):
        half = critical(0.9, dof, adjust, 3)
        np.testing.assert_allclose(adjusted(half, dof, adjust, 3), 0.1, rtol=1e-5)
    p = adjusted(np.array([1.0, np.nan, 3.0]), np.full(3, np.inf), "holm", 3)
    assert np.isnan(p[1])
    assert p[2] == pytest.approx(6 * norm.sf(3.0))


def test_quantiles_of_many_degrees_of_freedom_are_interpolated():
    dof = np.array([3.0, 4.1, 7.2, 12.9, 30.0, 55.5, 100.0, 1000.0, np.inf])
    found = critical(0.95, dof, "tukey", 4)
    wanted = studentized_range.ppf(0.95, 4, dof[[0, 3, -1]]) / np.sqrt(2)
    np.testing.assert_allclose(found[[0, 3, -1]], wanted, rtol=1e-6)
