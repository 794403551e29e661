"""Predictions, their standard deviations and draws, against lme4 and the dense BLUP formulas."""

import numpy as np
import pandas as pd
import pytest

from sklmm import MixedEffectsClassifier, MixedEffectsRegressor
from sklmm._fitted import prediction
from sklmm.datasets import make_crossed

NAMES = ["g0", "g1"]


@pytest.fixture(scope="module")
def crossed():
    X, y, _ = make_crossed(300, (12, 8), sds=(1.0, 0.7), random_state=1)
    return X, y


@pytest.fixture(scope="module")
def model(crossed):
    return MixedEffectsRegressor(NAMES).fit(*crossed)


@pytest.fixture(scope="module")
def new_rows(crossed):
    """Known, unseen and missing levels in every combination."""
    pairs = [(a, b) for a in (0.0, 5.0, 99.0, None) for b in (3.0, 7.0, -1.0, None)]
    frame = pd.DataFrame(pairs, columns=NAMES)
    return frame.assign(x0=np.linspace(-2, 2, len(frame)))[crossed[0].columns]


@pytest.fixture(scope="module")
def oracle(model, crossed, dense_model):
    """Function from new rows and the terms that count to BLUP and its variance."""
    X, y = crossed
    covariances = [model.cov_re_[name].to_numpy() for name in NAMES]
    levels = [model.random_effects_[name].index for name in NAMES]
    ones = np.ones((len(X), 1))
    terms = [
        (index.get_indexer(X[name]), ones, cov, len(index))
        for name, cov, index in zip(NAMES, covariances, levels, strict=True)
    ]
    dense = dense_model(np.column_stack([ones, X["x0"]]), y, terms, model.sigma_)

    def predict(new, include=NAMES):
        one = np.ones((len(new), 1))
        loadings = []
        for name, index in zip(NAMES, levels, strict=True):
            refs = index.get_indexer(new[name]) if name in include else np.full(len(new), -1)
            refs[new[name].isna()] = -1
            loadings.append(dense.loadings(refs, one, len(index)))
        prior = sum(cov[0, 0] for cov in covariances)
        return dense.predict(np.column_stack([one, new["x0"]]), np.hstack(loadings), prior)

    return predict


def test_sleepstudy_predictions_are_lme4s(sleep_model, reference):
    answer = reference["sleepstudy_predict"]
    new = pd.DataFrame(answer["newdata"]).astype({"Subject": int, "Days": int})
    np.testing.assert_allclose(sleep_model.predict(new), answer["conditional"], rtol=1e-3)
    np.testing.assert_allclose(
        sleep_model.predict(new, include_random=False), answer["population"], rtol=1e-3
    )


@pytest.mark.parametrize("include", [True, False, ["g0"], ["g1"], [], "g1", ["g1", "g0"]])
def test_mean_and_std_are_blup_and_its_prediction_error(model, oracle, new_rows, include):
    counted = (
        {True: NAMES, False: []}.get(include, include) if isinstance(include, bool) else include
    )
    expected, variance = oracle(new_rows, counted)
    mean, std = model.predict(new_rows, return_std=True, include_random=include)
    np.testing.assert_allclose(mean, expected, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(std**2, variance, rtol=1e-5)
    np.testing.assert_array_equal(model.predict(new_rows, include_random=include), mean)


def test_std_of_cg_is_the_exact_one_within_its_draws(crossed, new_rows, oracle):
    model = MixedEffectsRegressor(NAMES, e_step="cg", random_state=0).fit(*crossed)
    _, variance = oracle(new_rows)
    _, std = model.predict(new_rows, return_std=True)
    # 64 draws: the relative error of the posterior's part is chi-squared's, sqrt(2 / 64) at most.
    np.testing.assert_allclose(std**2, variance, rtol=4 * np.sqrt(2 / 64))
    known = new_rows[NAMES].isin({"g0": [0.0, 5.0], "g1": [3.0, 7.0]}).all(axis=1)
    posterior = variance[known] - model.sigma_**2
    assert (
        np.abs(std[known] ** 2 - variance[known]) < 4 * np.sqrt(2 / 64) * posterior + 1e-3
    ).all()


def test_predictions_do_not_depend_on_the_other_rows(model, new_rows):
    together, std = model.predict(new_rows, return_std=True)
    for row in range(len(new_rows)):
        alone, alone_std = model.predict(new_rows.iloc[[row]], return_std=True)
        assert alone[0] == pytest.approx(together[row], rel=1e-12)
        assert alone_std[0] == pytest.approx(std[row], rel=1e-6)


def test_unseen_level_of_a_slope_term_gets_the_population_line(sleep_model):
    new = pd.DataFrame({"Days": [0, 4, 9], "Subject": [999, 999, 999]})
    mean, std = sleep_model.predict(new, return_std=True)
    line = sleep_model.intercept_ + sleep_model.coef_[0] * new["Days"]
    z = np.column_stack([np.ones(3), new["Days"]])
    covariance = sleep_model.cov_re_["Subject"].to_numpy() + sleep_model.result_.coef_cov
    np.testing.assert_allclose(mean, line, rtol=1e-12)
    variance = np.einsum("na,ab,nb->n", z, covariance, z) + sleep_model.sigma_**2
    np.testing.assert_allclose(std**2, variance, rtol=1e-6)


@pytest.mark.parametrize("e_step", ["exact", "cg"])
@pytest.mark.parametrize("levels", ["known", "unseen"])
def test_intervals_cover_new_rows_at_their_nominal_rate(e_step, levels):
    rng = np.random.default_rng(5)
    n_levels, n_rows, n_new = 400, 1600, 20_000
    root = np.linalg.cholesky([[1.0, 0.3], [0.3, 0.5]])
    effects = rng.standard_normal((n_levels, 2)) @ root.T

    def rows(group, b):
        x = rng.standard_normal(len(group))
        y = 2.0 + 0.5 * x + b[:, 0] + b[:, 1] * x + 0.8 * rng.standard_normal(len(group))
        return pd.DataFrame({"x": x, "g": group}), y

    group = rng.integers(0, n_levels, n_rows)
    model = MixedEffectsRegressor(["(1 + x | g)"], e_step=e_step, random_state=0)
    model.fit(*rows(group, effects[group]))
    if levels == "known":
        new = rng.choice(np.unique(group), n_new)
        X, y = rows(new, effects[new])
    else:
        X, y = rows(n_levels + np.arange(n_new), rng.standard_normal((n_new, 2)) @ root.T)
    mean, std = model.predict(X, return_std=True)
    coverage = np.mean(np.abs(y - mean) < 1.959964 * std)
    # 20,000 rows: Monte Carlo error .15 %, below .5 % with the clustering in known levels.
    assert 0.93 <= coverage <= 0.97


def test_draws_have_the_predictive_mean_and_std(model, new_rows):
    mean, std = model.predict(new_rows, return_std=True)
    draws = model.sample_y(new_rows, n_samples=20_000, random_state=0)
    assert draws.shape == (len(new_rows), 20_000)
    assert (np.abs(draws.mean(axis=1) - mean) < 4.5 * std / np.sqrt(20_000)).all()
    np.testing.assert_allclose(draws.std(axis=1), std, rtol=4.5 / np.sqrt(2 * 20_000))


def test_draws_of_one_unseen_level_share_its_effect(model, crossed):
    new = pd.DataFrame({"g0": [99.0, 99.0, 98.0, None, None], "g1": [3.0] * 5, "x0": [0.0] * 5})
    new = new[crossed[0].columns]
    draws = model.sample_y(new, n_samples=40_000, random_state=0)
    covariance = np.cov(draws)
    prior = model.cov_re_["g0"].to_numpy()[0, 0]
    shared = covariance[2, 0]
    error = 4.5 * covariance[0, 0] / np.sqrt(40_000)
    assert covariance[0, 1] - shared == pytest.approx(prior, abs=2 * error)
    assert covariance[3, 4] == pytest.approx(shared, abs=2 * error)
    assert covariance[0, 3] == pytest.approx(shared, abs=2 * error)


def test_draws_of_known_levels_carry_the_posterior_covariance(model, crossed, dense_model):
    new = crossed[0].iloc[[0, 1]].assign(g0=5, g1=[3, 7])
    draws = model.sample_y(new, n_samples=40_000, random_state=1)
    root = model.result_.coef_root
    X = np.column_stack([np.ones(2), new["x0"]])
    rows = X @ root + model.result_.effects_root[0][5, 0] + model.result_.effects_root[1][[3, 7], 0]
    expected = rows @ rows.T + model.sigma_**2 * np.eye(2)
    np.testing.assert_allclose(np.cov(draws), expected, atol=4.5 * expected[0, 0] / np.sqrt(40_000))


def test_draws_follow_random_state(model, new_rows):
    first = model.sample_y(new_rows, 3, random_state=7)
    np.testing.assert_array_equal(model.sample_y(new_rows, 3, random_state=7), first)
    assert not (model.sample_y(new_rows, 3, random_state=8) == first).any()


def test_unknown_level_is_an_error_on_request(crossed, new_rows):
    model = MixedEffectsRegressor(NAMES, handle_unknown="error").fit(*crossed)
    known = new_rows.iloc[[0, 1]]
    np.testing.assert_array_equal(
        model.predict(known), MixedEffectsRegressor(NAMES).fit(*crossed).predict(known)
    )
    with pytest.raises(ValueError, match=r"'g1' has the unknown .* '-1.0' in row 1"):
        model.predict(new_rows.iloc[[0, 2]])
    with pytest.raises(ValueError, match=r"'g0' has the unknown .* 'nan' in row 0"):
        model.predict(new_rows.iloc[[12]])


def test_include_random_names_the_terms_there_are(model, new_rows):
    with pytest.raises(ValueError, match=r"'g2' is not a term of this model, which has 'g0', 'g1'"):
        model.predict(new_rows, include_random=["g2"])


def test_interaction_is_unseen_where_the_combination_is():
    frame = pd.DataFrame({"a": list("uuvv") * 5, "b": list("stst") * 5})
    frame = frame[~((frame["a"] == "v") & (frame["b"] == "t"))]
    y = np.random.default_rng(0).standard_normal(len(frame)) + (frame["a"] == "u") * 2.0
    model = MixedEffectsRegressor(["(1 | a:b)"]).fit(frame, y)
    new = pd.DataFrame({"a": ["u", "v", None, "u"], "b": ["t", "t", "s", "s"]})
    effects = model.random_effects_["a:b"]["Intercept"]
    expected = model.intercept_ + np.array([effects["u", "t"], 0, 0, effects["u", "s"]])
    np.testing.assert_allclose(model.predict(new), expected, rtol=1e-12)


@pytest.mark.parametrize(
    "convert",
    [
        lambda s: s.astype(str),
        lambda s: s.astype("category"),
        lambda s: s.astype("Int64"),
        lambda s: s.astype(float),
        lambda s: pd.to_datetime(s, unit="D"),
        lambda s: s.astype(bool),
    ],
    ids=["str", "category", "Int64", "float", "datetime", "bool"],
)
def test_grouping_columns_may_be_of_any_type(crossed, convert):
    X, y = crossed
    X = X.assign(g0=X["g0"] % 2) if convert(X["g0"]).dtype == bool else X
    plain = MixedEffectsRegressor(NAMES).fit(X, y)
    converted = X.assign(g0=convert(X["g0"]))
    model = MixedEffectsRegressor(NAMES).fit(converted, y)
    np.testing.assert_allclose(model.predict(converted), plain.predict(X), rtol=1e-8)
    np.testing.assert_allclose(
        model.predict(converted.iloc[:3]), plain.predict(X.iloc[:3]), rtol=1e-8
    )


@pytest.mark.parametrize("family", ["poisson", "ordinal"])
def test_predictions_do_not_depend_on_threads_nor_means_on_blocks(monkeypatch, family):
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"g": np.arange(240) % 12, "x": rng.normal(size=240)})
    y = np.minimum(rng.poisson(np.exp(0.5 * X["x"] + np.linspace(-1, 1, 12)[X["g"]])), 3)
    classes = family == "ordinal"
    make = MixedEffectsClassifier if classes else MixedEffectsRegressor
    model = make(["g"], family=family, e_step="laplace", random_state=0).fit(X, y)
    # Unseen levels' effects are drawn.
    new = X.assign(g=X["g"] + 3)

    def predict():
        if classes:
            return [model.predict_proba(new)]
        return list(model.predict(new, return_std=True))

    whole = predict()
    monkeypatch.setattr(prediction, "BLOCK", 7 * model.result_.coef_root.shape[1])
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    parts = predict()
    np.testing.assert_allclose(parts[0], whole[0], rtol=1e-12)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    for one, two in zip(parts, predict(), strict=True):
        np.testing.assert_array_equal(one, two)
