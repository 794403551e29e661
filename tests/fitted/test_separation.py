"""Separated data: found by the design alone, named by cell, and harmless to what is finite."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from sklmm import MixedEffectsClassifier, MixedEffectsRegressor
from sklmm._fitted.separation import separation
from sklmm.families import Bernoulli, Binomial, Categorical, NegativeBinomial, Ordinal, Poisson
from sklmm.result import Status

RNG = np.random.default_rng(0)
N = 240
F = np.arange(N) % 3
X = np.column_stack([np.ones(N), RNG.normal(size=N), F == 1, F == 2])
COUNTS = RNG.poisson(1.5, size=N)
CODES = RNG.integers(3, size=N)


def found(family, y, X=X):
    response = family.bind(y)
    dropped = np.zeros(X.shape[1] * response.n_predictors, bool)
    return separation(SimpleNamespace(X=X), response, dropped)


def infinite(result):
    return np.flatnonzero((np.abs(result.directions) > 1e-9).any(axis=1)).tolist()


def at(cell, value, y):
    return np.where(cell == F, value, y)


@pytest.mark.parametrize(
    ("family", "y", "expected"),
    [
        (Bernoulli("probit"), at(1, 0, CODES > 0), [2]),
        (Bernoulli(), at(0, 1, CODES > 0), [0, 2, 3]),
        (Binomial("cloglog"), at(2, 1.0, CODES / 2), [3]),
        (Poisson(), at(1, 0, COUNTS), [2]),
        (NegativeBinomial(), at(0, 0, COUNTS), [0, 2, 3]),
        # Coefficients, then the spacing of the cutpoints.
        (Ordinal(), at(1, 0, CODES), [2]),
        (Ordinal("probit"), at(2, 2, CODES), [3]),
        # One class of three is missing: the second's coefficients stand before the third's.
        (Categorical(), at(1, 2 * (CODES > 0), CODES), [2]),
        (Categorical(), at(1, 1 + (CODES > 0), CODES), [2, 6]),
    ],
    ids=str,
)
def test_an_empty_cell_sends_its_coefficients_to_infinity(family, y, expected):
    result = found(family, y)
    assert infinite(result) == expected
    assert (F[result.rows] == F[result.rows][0]).all()
    assert result.rows.sum() == N // 3


@pytest.mark.parametrize(
    ("family", "y"),
    [
        (Bernoulli(), CODES > 0),
        (Binomial(), at(1, 0.5, CODES / 2)),
        (Poisson(), COUNTS),
        # A mean of 0 is at a finite eta there.
        (Poisson("sqrt"), at(1, 0, COUNTS)),
        (Ordinal(), CODES),
        # The middle class has both others to fall to.
        (Ordinal(), at(1, 1, CODES)),
        (Categorical(), CODES),
    ],
    ids=str,
)
def test_overlap_is_none(family, y):
    assert found(family, y) is None


def test_a_model_without_columns_has_nothing_to_separate():
    assert found(Bernoulli(), CODES > 0, X[:, :0]) is None
    assert found(Bernoulli(), CODES > 0, np.zeros((N, 1))) is None
    assert found(Poisson(), np.zeros(N), X[:, :1]) is not None


def test_one_column_against_the_order_of_its_values():
    """Two classes are separated by x where no value of one lies strictly among the other's."""
    seen = set()
    for _ in range(60):
        x, y = RNG.integers(-3, 3, size=7) * 10.0 ** RNG.integers(-6, 6), RNG.random(7) < 0.5
        if y.all() or not y.any() or np.ptp(x) == 0:
            continue
        low, high = x[y], x[~y]
        expected = low.max() <= high.min() or high.max() <= low.min()
        column = 2e3 * np.ptp(x) + x
        assert (
            found(Bernoulli(), y, np.column_stack([np.ones(7), column])) is not None
        ) == expected
        seen.add(bool(expected))
    assert seen == {False, True}


def test_a_rare_column_among_many_rows_is_found():
    n = 5000
    rare, x = np.zeros(n), RNG.normal(size=n)
    rare[4321] = 1.0
    y = RNG.random(n) < 0.5
    result = found(Bernoulli(), y, np.column_stack([np.ones(n), x, rare]))
    assert infinite(result) == [2]
    assert np.flatnonzero(result.rows).tolist() == [4321]


def test_a_huge_value_in_one_row_is_no_separation():
    """The other values are 0 beside it only as far as the programs see."""
    x = X[:, 1].copy()
    x[0], y = 1e10, CODES > 0
    y = np.where(np.arange(N) == 0, True, y)
    assert found(Bernoulli(), y, np.column_stack([np.ones(N), x])) is None


@pytest.mark.parametrize("terms", [None, ["g"]])
def test_programs_are_for_fits_that_may_be_separated(monkeypatch, terms):
    """A rare column of one class is looked for, and nothing where each predictor is known."""
    seen = []

    def spy(*args):
        seen.append(args)
        return separation(*args)

    monkeypatch.setattr("sklmm._estimators.base.separation", spy)
    table = pd.DataFrame({"x": X[:, 1], "g": np.arange(N) % 12, "rare": np.arange(N) == 7})
    y = (CODES > 0) | table["rare"]
    model = MixedEffectsClassifier(terms, fixed_effects=["x"], e_step="laplace")
    assert model.fit(table, y).converged_
    assert not seen
    with pytest.warns(UserWarning, match="'rare' has no"):
        model.set_params(fixed_effects=["x", "rare"]).fit(table, y)
    assert len(seen) == 1
    # Far from the maximum nothing is proof.
    with pytest.warns(UserWarning, match="max_iter"):
        model.set_params(fixed_effects=["x"], max_iter=1, tol=1e-9).fit(table, y)
    assert len(seen) == 2


def test_what_is_finite_is_as_without_the_cell():
    table = pd.DataFrame({"g": np.arange(N) % 12, "x": X[:, 1], "f": np.array(list("abc"))[F]})
    u = RNG.normal(0, 0.5, 12)[table["g"]]
    y = at(1, 0, RNG.poisson(np.exp(0.5 + 0.3 * X[:, 1] + u)))
    model = MixedEffectsRegressor(["g"], fixed_effects="~ x + f", family="poisson")
    model.set_params(e_step="laplace")
    with pytest.warns(UserWarning, match=r"'f\[T.b\]' has no .*: y is 0 in all 80 rows .* f = 'b'"):
        model.fit(table, y)
    assert model.result_.status is Status.SEPARATED
    rest = table["f"] != "b"
    other = MixedEffectsRegressor(["g"], fixed_effects="~ x + f", family="poisson")
    other.set_params(e_step="laplace").fit(table[rest], y[rest])
    names = ["Intercept", "x", "f[T.c]"]
    columns = ["estimate", "std_error", "ci_lower"]
    np.testing.assert_allclose(
        model.fixed_effects_.loc[names, columns], other.fixed_effects_[columns], atol=2e-3
    )
    far = model.fixed_effects_.loc["f[T.b]"]
    assert np.isinf(far["std_error"])
    assert np.isnan(far["p"])
    assert (far["ci_lower"], far["ci_upper"]) == (-np.inf, np.inf)
    assert model.conf_int().loc["f[T.b]"].tolist() == [-np.inf, np.inf]
    # Draws of a coefficient with an SD of a hundred would have means of e^1000.
    mean, std = model.predict(table, return_std=True)
    assert mean[~rest].max() < 1e-3
    assert std[~rest].max() < 0.05
    np.testing.assert_allclose(mean[rest], other.predict(table[rest]), rtol=0.05)


def test_a_level_of_a_grouping_column_of_one_class_is_no_separation():
    g = np.arange(N) % 12
    y = (CODES > 0) & (g > 0)
    table = pd.DataFrame({"g": g, "x": X[:, 1]})
    model = MixedEffectsClassifier(["g"], e_step="laplace").fit(table, y)
    assert model.converged_


@pytest.mark.parametrize(
    ("estimator", "y", "match"),
    [
        (
            MixedEffectsClassifier(fixed_effects=["x"]),
            np.where(X[:, 1] > 0, "yes", "no"),
            r"'x' has .*y is '(yes|no)' in all \d+ rows with x from",
        ),
        (
            MixedEffectsClassifier(fixed_effects=["x", "z"]),
            X[:, 1] + np.cos(np.arange(N)) > 0,
            r"'x' has .*, nor have 'z': together they settle y in 240 of 240 rows",
        ),
        (
            MixedEffectsRegressor(fixed_effects=["b"], family="poisson"),
            at(0, 0, COUNTS),
            r"'b' has .*y is 0 in all 80 rows with b = 0",
        ),
        (
            MixedEffectsRegressor(fixed_effects=[], family="poisson"),
            np.zeros(N),
            r"'Intercept' has .*y is 0 in every row",
        ),
        (
            MixedEffectsClassifier(fixed_effects="~ f", family="ordinal"),
            at(1, 2, CODES),
            r"'f\[T.b\]' has .*y is 2 in all 80 rows with f = 'b'",
        ),
    ],
)
def test_the_message_names_the_rows(estimator, y, match):
    table = pd.DataFrame(
        {"x": X[:, 1], "z": np.cos(np.arange(N)), "b": (F > 0) * 1.0, "f": np.array(list("abc"))[F]}
    )
    with pytest.warns(UserWarning, match=match):
        model = estimator.set_params(e_step="laplace").fit(table, y)
    assert model.result_.status is Status.SEPARATED
    assert not np.isnan(model.fixed_effects_["std_error"]).any()
