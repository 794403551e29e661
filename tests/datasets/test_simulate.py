"""make_crossed: the simulated data follow the stated model, reproducibly and in little memory.

Moments are compared within five standard errors of their own Monte Carlo distribution.
"""

import time
import tracemalloc

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from sklmm.datasets import _simulate, make_crossed


def fixed_part(X, truth):
    x = X.filter(regex="^x").to_numpy(np.float64)
    return truth.intercept + x @ truth.coef


def random_part(X, truth):
    return sum(b[X[name].to_numpy()] for name, b in truth.effects.items())


def top_tenth_share(refs, n_levels):
    """Share of the rows that the most frequent tenth of the levels has."""
    counts = np.sort(np.bincount(refs, minlength=n_levels))[::-1]
    return counts[: n_levels // 10].sum() / counts.sum()


def test_columns_types_and_shapes():
    X, y, truth = make_crossed(500, (30, 20, 10), n_features=2, random_state=0)
    assert X.columns.tolist() == ["g0", "g1", "g2", "x0", "x1"]
    assert X.dtypes.tolist() == [np.int32] * 3 + [np.float32] * 2
    assert (X.shape, y.shape, y.dtype) == ((500, 5), (500,), np.float32)
    assert truth.sds == {"g0": 1.0, "g1": 1 / 2, "g2": 1 / 3}
    assert {name: b.shape for name, b in truth.effects.items()} == {
        "g0": (30,),
        "g1": (20,),
        "g2": (10,),
    }
    assert truth.coef.tolist() == [0.5, 0.5]


def test_one_factor_may_be_given_as_a_number():
    X, _, truth = make_crossed(50, 7, n_features=0, sds=0.3, random_state=0)
    assert X.columns.tolist() == ["g0"]
    assert truth.sds == {"g0": 0.3}
    assert truth.coef.shape == (0,)


def test_without_noise_the_response_is_its_linear_predictor():
    X, y, truth = make_crossed(
        2_000,
        (40, 30),
        n_features=2,
        intercept=-3.0,
        coef=[2.0, -1.0],
        sds=(1.5, 0.5),
        sigma=0.0,
        random_state=1,
    )
    eta = fixed_part(X, truth) + random_part(X, truth)
    np.testing.assert_allclose(y, eta, rtol=1e-6, atol=1e-6)
    assert (truth.intercept, truth.coef.tolist()) == (-3.0, [2.0, -1.0])


def test_residuals_have_the_stated_distribution_and_ignore_the_predictor():
    n = 200_000
    X, y, truth = make_crossed(n, (3_000, 500), sigma=0.7, random_state=2)
    eta = fixed_part(X, truth) + random_part(X, truth)
    e = y - eta
    assert abs(e.mean()) < 5 * 0.7 / np.sqrt(n)
    assert abs(e.std() - 0.7) < 5 * 0.7 / np.sqrt(2 * n)
    assert abs(stats.skew(e)) < 5 * np.sqrt(6 / n)
    assert abs(stats.kurtosis(e)) < 5 * np.sqrt(24 / n)
    assert abs(np.corrcoef(e, eta)[0, 1]) < 5 / np.sqrt(n)


def test_effects_have_the_stated_sds():
    _, _, truth = make_crossed(10, (50_000, 20_000), sds=(0.4, 2.0), random_state=3)
    for name, sd in truth.sds.items():
        b = truth.effects[name]
        assert abs(b.mean()) < 5 * sd / np.sqrt(b.size)
        assert abs(b.std() - sd) < 5 * sd / np.sqrt(2 * b.size)


def test_features_are_standard_normal_and_independent_of_the_factors():
    n = 100_000
    X, _, truth = make_crossed(n, (1_000, 500), n_features=2, random_state=4)
    x0, x1 = X["x0"].to_numpy(), X["x1"].to_numpy()
    assert abs(x0.mean()) < 5 / np.sqrt(n)
    assert abs(x0.std() - 1) < 5 / np.sqrt(2 * n)
    assert abs(np.corrcoef(x0, x1)[0, 1]) < 5 / np.sqrt(n)
    assert abs(np.corrcoef(x0, truth.effects["g0"][X["g0"]])[0, 1]) < 5 / np.sqrt(n)


def test_factors_are_crossed_independently_and_in_random_order():
    X, *_ = make_crossed(20_000, (5, 4), random_state=5)
    assert stats.chi2_contingency(pd.crosstab(X["g0"], X["g1"])).pvalue > 1e-4
    g0 = X["g0"].to_numpy()
    assert stats.chi2_contingency(pd.crosstab(g0[:-1], g0[1:])).pvalue > 1e-4


@pytest.mark.parametrize("popularity", [1.0, 1.5, 2.0])
def test_popularity_is_heavy_tailed_as_documented(popularity):
    n_levels = 20_000
    X, *_ = make_crossed(2_000_000, n_levels, popularity=popularity, n_features=0, random_state=6)
    expected = stats.norm.cdf(popularity - stats.norm.ppf(0.9))
    # About 5 SDs of the share over draws of the weights, 0.4 to 1.2 per cent (100 replications).
    tolerance = {1.0: 0.02, 1.5: 0.04, 2.0: 0.06}[popularity]
    assert top_tenth_share(X["g0"], n_levels) == pytest.approx(expected, abs=tolerance)


def test_popularity_zero_is_uniform():
    X, *_ = make_crossed(50_000, (100, 10), popularity=(0.0, 2.0), random_state=7)
    assert stats.chisquare(np.bincount(X["g0"])).pvalue > 1e-4
    assert stats.chisquare(np.bincount(X["g1"])).pvalue < 1e-4


@pytest.mark.parametrize("n_samples", [300, 301, 5_000])
def test_every_level_occurs_when_rows_suffice(n_samples):
    X, *_ = make_crossed(n_samples, (300, 50), popularity=3.0, random_state=8)
    assert X[["g0", "g1"]].nunique().tolist() == [300, 50]


def test_fewer_rows_than_levels_are_allowed():
    X, y, _ = make_crossed(20, (1_000, 5), random_state=9)
    assert len(y) == 20
    assert X["g0"].between(0, 999).all()


def test_a_seed_reproduces_everything_and_another_seed_nothing():
    (X, y, truth), (X_same, y_same, truth_same) = (
        make_crossed(1_000, (60, 40), random_state=11) for _ in range(2)
    )
    pd.testing.assert_frame_equal(X, X_same)
    np.testing.assert_array_equal(y, y_same)
    np.testing.assert_array_equal(truth.effects["g1"], truth_same.effects["g1"])

    X_other, y_other, truth_other = make_crossed(1_000, (60, 40), random_state=12)
    assert (X["g0"] != X_other["g0"]).any()
    assert not np.isin(X["x0"], X_other["x0"]).any()
    assert not np.isin(truth.effects["g0"], truth_other.effects["g0"]).any()
    assert (y != y_other).any()


def test_a_random_state_instance_advances_and_a_seed_leaves_numpys_global_state():
    rng = np.random.RandomState(0)
    first, second = (make_crossed(100, (9, 5), random_state=rng)[1] for _ in range(2))
    assert (first != second).any()

    before = np.random.get_state()[1].copy()  # noqa: NPY002
    make_crossed(100, (9, 5), random_state=0)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


@pytest.mark.parametrize("chunk_rows", [1, 333, 10_000])
def test_results_do_not_depend_on_chunking(monkeypatch, chunk_rows):
    X, y, _ = make_crossed(2_000, (60, 40), random_state=13)
    monkeypatch.setattr(_simulate, "_CHUNK_ROWS", chunk_rows)
    X_chunked, y_chunked, _ = make_crossed(2_000, (60, 40), random_state=13)
    pd.testing.assert_frame_equal(X, X_chunked)
    np.testing.assert_array_equal(y, y_chunked)


def test_a_column_does_not_depend_on_the_others():
    small, *_ = make_crossed(1_000, 60, n_features=1, random_state=14)
    large, *_ = make_crossed(1_000, (60, 40), n_features=3, random_state=14)
    pd.testing.assert_frame_equal(small, large[["g0", "x0"]])


def test_memory_stays_near_the_size_of_the_result():
    tracemalloc.start()
    try:
        X, y, _ = make_crossed(4_000_000, (2_000, 800), random_state=15)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1.25 * (X.memory_usage(index=False).sum() + y.nbytes)


@pytest.mark.scale
def test_32_million_rows_take_well_below_a_minute():
    start = time.perf_counter()
    X, y, _ = make_crossed(32_000_000, (200_948, 84_432), random_state=16)
    assert time.perf_counter() - start < 30
    assert X[["g0", "g1"]].nunique().tolist() == [200_948, 84_432]
    assert np.isfinite(y).all()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"n_samples": 0}, ValueError, "n_samples must be at least 1"),
        ({"n_samples": 1e5}, TypeError, "n_samples must be an integer"),
        ({"n_levels": (10, 0)}, ValueError, "n_levels must be at least 1"),
        ({"n_levels": (10, 2.5)}, TypeError, "n_levels must be an integer"),
        ({"n_levels": 2**31}, ValueError, "n_levels must be at least 1 and below"),
        ({"n_features": -1}, ValueError, "n_features must be at least 0"),
        ({"sds": (1.0,)}, ValueError, r"sds has shape \(1,\), but there are 2 factors"),
        ({"sds": (1.0, -1.0)}, ValueError, "sds must be finite and at least 0"),
        ({"sigma": -1.0}, ValueError, "sigma must be finite and at least 0"),
        ({"coef": [1.0, 2.0]}, ValueError, r"coef has shape \(2,\), but there are 1 features"),
        ({"coef": np.nan}, ValueError, "coef must be finite, got nan"),
        ({"popularity": (1.0, 2.0, 3.0)}, ValueError, "popularity has shape"),
        ({"popularity": np.inf}, ValueError, "popularity must be finite"),
    ],
)
def test_bad_arguments_are_named_in_the_error(arguments, error, message):
    with pytest.raises(error, match=message):
        make_crossed(**{"n_samples": 20, **arguments})
