"""How a fit must change when its data do: order, names, units, repetitions."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from sklearn.base import clone

from sklmm import MixedEffectsRegressor

TERMS = ["(1 + x | a)", "b"]
COEFFICIENTS = ["Intercept", "x", "w"]
few = settings(
    deadline=None,
    max_examples=8,
    derandomize=True,
    database=None,
    # Seeds do not shrink.
    phases=(Phase.explicit, Phase.generate),
)


@st.composite
def tables(draw):
    """Crossed data with every effect present: X, y."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, a, b = draw(st.integers(60, 120)), draw(st.integers(5, 9)), draw(st.integers(4, 7))
    X = pd.DataFrame(
        {
            "a": rng.permutation(np.arange(n) % a),
            "x": rng.normal(1.0, 2.0, n),
            "b": rng.permutation(np.arange(n) % b),
            "w": rng.uniform(-1, 1, n),
        }
    )
    slopes = rng.normal(0, 0.8, a)[X["a"]]
    y = 2.0 + rng.normal(0, 1.5, a)[X["a"]] + (0.5 + slopes) * X["x"] - X["w"]
    return X, y + rng.normal(0, 1.2, b)[X["b"]] + rng.normal(0, 0.7, n)


def fit(X, y, method="reml", **kwargs):
    return MixedEffectsRegressor(TERMS, method=method, tol=1e-9).fit(X, y, **kwargs)


def parameters(model):
    """Coefficients, covariances by name, sigma."""
    parts = [model.fixed_effects_["estimate"].to_numpy(), [model.sigma_]]
    parts += [c.to_numpy().ravel() for c in model.cov_re_.values()]
    return np.concatenate(parts)


def scale_of(model):
    return 1e-6 * np.abs(parameters(model)).max()


def assert_same(model, other, **kwargs):
    np.testing.assert_allclose(
        parameters(model), parameters(other), rtol=1e-5, atol=scale_of(other), **kwargs
    )


@few
@given(tables(), st.integers(0, 2**32 - 1))
def test_row_order_does_not_matter(table, seed):
    X, y = table
    order = np.random.default_rng(seed).permutation(len(y))
    model, shuffled = fit(X, y), fit(X.iloc[order], y.iloc[order])
    assert_same(shuffled, model)
    assert shuffled.loglik_ == pytest.approx(model.loglik_, abs=1e-6)
    np.testing.assert_allclose(shuffled.predict(X), model.predict(X), atol=1e-5)


@few
@given(tables(), st.permutations(range(9)))
def test_names_of_levels_do_not_matter(table, names):
    X, y = table
    renamed = X.assign(a=X["a"].map(lambda level: f"level {names[level]}"), b=-10 * X["b"])
    model, other = fit(X, y), fit(renamed, y)
    assert_same(other, model)
    np.testing.assert_allclose(other.predict(renamed), model.predict(X), atol=1e-5)
    for level in X["a"].unique():
        np.testing.assert_allclose(
            other.random_effects_["a"].loc[f"level {names[level]}"],
            model.random_effects_["a"].loc[level],
            atol=1e-5,
        )


@few
@given(tables(), st.floats(-8, 8), st.sampled_from([-1, 1]))
def test_scaling_y_scales_everything(table, exponent, sign):
    X, y = table
    c = sign * 10**exponent
    model, scaled = fit(X, y), fit(X, c * y)
    np.testing.assert_allclose(scaled.sigma_, abs(c) * model.sigma_, rtol=1e-5)
    np.testing.assert_allclose(scaled.coef_ / c, model.coef_, rtol=1e-5, atol=1e-7)
    for name, covariance in model.cov_re_.items():
        np.testing.assert_allclose(scaled.cov_re_[name] / c**2, covariance, rtol=1e-4, atol=1e-5)
    mean, std = model.predict(X, return_std=True)
    other_mean, other_std = scaled.predict(X, return_std=True)
    np.testing.assert_allclose(other_mean / c, mean, atol=1e-4)
    np.testing.assert_allclose(other_std / abs(c), std, rtol=1e-4)
    # The density of n (ML) values in new units.
    change = fit(X, c * y, "ml").loglik_ - fit(X, y, "ml").loglik_
    assert change == pytest.approx(-len(y) * np.log(abs(c)), abs=1e-5)


@few
@given(tables(), st.floats(-1e4, 1e4))
def test_shifting_y_shifts_the_intercept_alone(table, shift):
    X, y = table
    model, shifted = fit(X, y), fit(X, y + shift)
    expected = parameters(model)
    expected[0] += shift
    np.testing.assert_allclose(parameters(shifted), expected, rtol=1e-5, atol=1e-5)
    assert shifted.loglik_ == pytest.approx(model.loglik_, abs=1e-5)


@few
@given(tables(), st.floats(-6, 6), st.sampled_from(["w", "x"]))
def test_scaling_a_column_scales_its_coefficient_and_slopes(table, exponent, column):
    X, y = table
    c = 10**exponent
    model, scaled = fit(X, y, "ml"), fit(X.assign(**{column: c * X[column]}), y, "ml")
    estimate, other = (m.fixed_effects_["estimate"] for m in (model, scaled))
    units = pd.Series({name: c if name == column else 1.0 for name in COEFFICIENTS})
    np.testing.assert_allclose(other * units, estimate, rtol=1e-5, atol=1e-6)
    covariance, new = (m.cov_re_["a"] for m in (model, scaled))
    outer = np.outer(units[["Intercept", "x"]], units[["Intercept", "x"]])
    np.testing.assert_allclose(new * outer, covariance, rtol=1e-4, atol=1e-5)
    assert scaled.loglik_ == pytest.approx(model.loglik_, abs=1e-5)
    assert scaled.sigma_ == pytest.approx(model.sigma_, rel=1e-5)


@few
@given(tables(), st.floats(-50, 50))
def test_moving_the_origin_of_a_slope_keeps_the_likelihood(table, shift):
    X, y = table
    model, moved = fit(X, y, "ml"), fit(X.assign(x=X["x"] + shift), y, "ml")
    assert moved.loglik_ == pytest.approx(model.loglik_, abs=1e-4)
    T = np.array([[1.0, -shift], [0.0, 1.0]])
    expected = T @ model.cov_re_["a"].to_numpy() @ T.T
    np.testing.assert_allclose(
        moved.cov_re_["a"], expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max()
    )


@pytest.mark.parametrize(
    ("e_step", "origin", "unit"), [("exact", 1.6e9, 86400.0), ("cg", 2015.0, 5.0)]
)
def test_unix_seconds_and_years_are_slopes_like_others(e_step, origin, unit):
    rng = np.random.default_rng(4)
    X = pd.DataFrame({"g": np.repeat(np.arange(12), 8), "x": rng.uniform(-1, 1, 96)})
    slope = 0.6 + rng.normal(0, 0.5, 12)
    y = rng.normal(0, 0.6, 12)[X["g"]] + slope[X["g"]] * X["x"] + rng.normal(0, 0.4, 96)
    new, found = slice(0, 9), []
    for table, units in ((X, 1.0), (X.assign(x=origin + unit * X["x"]), unit)):
        model = MixedEffectsRegressor(["(1 + x | g)"], e_step=e_step, random_state=0, tol=1e-6)
        model.set_params(warm_start=True).fit(table, y)
        components = model.variance_components_.set_index("name")
        interval = {"method": "profile", "X": table, "y": y} if e_step == "exact" else {}
        own = {
            "coefficient": units * model.fixed_effects_.loc["x", ["estimate", "std_error"]],
            "sd": units * components.loc["x", ["sd", "std_error"]].astype(float),
            "interval": units * model.conf_int(**interval).loc["sd(g, x)"],
            "effects": units * model.random_effects_["g"]["x"],
            "their sd": units * model.random_effects_std_["g"]["x"],
            "mean and sd": model.predict(table, return_std=True),
            "of a new level": model.predict(table.assign(g=-1), return_std=True),
            "draws": model.sample_y(table, 3, random_state=0),
        }
        assert model.fit(table, y).n_iter_ <= 2
        own["updated"] = model.update(table[new], y[new]).predict(table)
        found.append(own)
    for what, values in found[0].items():
        np.testing.assert_allclose(found[1][what], values, rtol=1e-4, err_msg=what)


@few
@given(tables(), st.integers(0, 2**32 - 1), st.sampled_from(["reml", "ml"]))
def test_weights_repeat_rows(table, seed, method):
    X, y = table
    weight = np.random.default_rng(seed).integers(0, 4, len(y))
    weight[:60] = np.maximum(weight[:60], 1)
    again = np.repeat(np.arange(len(y)), weight)
    weighted = fit(X, y, method, sample_weight=weight)
    repeated = fit(X.iloc[again], y.iloc[again], method)
    np.testing.assert_allclose(parameters(weighted), parameters(repeated), rtol=1e-7, atol=1e-9)
    assert weighted.loglik_ == pytest.approx(repeated.loglik_, rel=1e-9)
    assert weighted.bic_ == pytest.approx(repeated.bic_, rel=1e-9)
    np.testing.assert_allclose(weighted.predict(X), repeated.predict(X), rtol=1e-7, atol=1e-7)


@few
@given(tables(), st.permutations(TERMS), st.permutations(["x", "w"]))
def test_order_of_terms_and_columns_does_not_matter(table, terms, columns):
    X, y = table
    model = fit(X, y)
    other = MixedEffectsRegressor(terms, fixed_effects=columns, tol=1e-9).fit(X, y)
    assert other.loglik_ == pytest.approx(model.loglik_, abs=1e-6)
    np.testing.assert_allclose(other.predict(X), model.predict(X), atol=1e-4)
    np.testing.assert_allclose(
        other.fixed_effects_["estimate"][COEFFICIENTS],
        model.fixed_effects_["estimate"],
        rtol=1e-5,
        atol=1e-6,
    )


@few
@given(tables())
def test_fixed_columns_take_their_share_out_of_y(table):
    X, y = table
    model, moved = fit(X, y), fit(X, y + 3.0 * X["w"] - 2.0 * X["x"])
    change = moved.fixed_effects_["estimate"] - model.fixed_effects_["estimate"]
    np.testing.assert_allclose(change, [0.0, -2.0, 3.0], atol=1e-5)
    np.testing.assert_allclose(moved.cov_re_["a"], model.cov_re_["a"], rtol=1e-4, atol=1e-5)


@settings(few, max_examples=4)
@given(st.integers(0, 2**32 - 1))
def test_weights_repeat_rows_of_counts(seed):
    rng = np.random.default_rng(seed)
    # As many rows each time, weighted and repeated: one compilation.
    g, weight = np.arange(48) % 6, rng.permutation(np.repeat([1, 1, 2, 3], 12))
    X = pd.DataFrame({"g": g, "x": rng.normal(size=48)})
    y = rng.poisson(np.exp(0.5 + 0.5 * X["x"] + rng.normal(0, 0.8, 6)[g]))
    again = np.repeat(np.arange(48), weight)
    model = MixedEffectsRegressor(
        ["g"], family="poisson", e_step="laplace", tol=1e-9, random_state=0
    )
    weighted = clone(model).fit(X, y, sample_weight=weight)
    repeated = clone(model).fit(X.iloc[again], y[again])
    np.testing.assert_allclose(weighted.coef_, repeated.coef_, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(weighted.cov_re_["g"], repeated.cov_re_["g"], rtol=1e-7)
    assert weighted.loglik_ == pytest.approx(repeated.loglik_, rel=1e-9)
    np.testing.assert_allclose(weighted.predict(X), repeated.predict(X), rtol=1e-6)
