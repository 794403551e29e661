"""Sparse tables: the same answers as dense ones, and memory that follows the entries."""

import json
import subprocess
import sys
import textwrap

import joblib
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.compose import make_column_transformer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from sklmm import ConjugateGradient, Gaussian, MixedEffectsRegressor, RandomEffect
from sklmm.design import columns as design
from sklmm.engine.rows import sparse_fixed as columns
from sklmm.engine.rows import standardize

pytestmark = pytest.mark.filterwarnings("ignore:.*linear combinations:UserWarning")


@pytest.fixture(autouse=True)
def least_norm(monkeypatch):
    """Collinear dense columns are left out, sparse ones share: so do the references here."""
    monkeypatch.setattr(standardize, "well_conditioned", lambda gram: True)


@pytest.fixture(scope="module")
def data():
    """Groups g and h, a column x, one-hot columns of two factors, and y."""
    rng = np.random.default_rng(0)
    n = 3000
    g, h, a, b = (rng.integers(j, size=n) for j in (60, 25, 40, 12))
    x = rng.normal(size=n)
    y = 1 + 0.5 * x + rng.normal(size=40)[a] + rng.normal(size=12)[b] + rng.normal(size=n)
    y += 0.7 * rng.normal(size=60)[g] + 0.4 * rng.normal(size=25)[h]
    return g, h, x, np.eye(40)[a], np.eye(12)[b], y


@pytest.fixture
def keep_sparse(monkeypatch):
    """As if no sparse table were small."""
    monkeypatch.setattr(design, "SMALL_COLUMNS", 0)


def both(X, y, monkeypatch, *args, **parameters):
    """The model of the dense table, and that of the sparse one, kept sparse."""
    model = MixedEffectsRegressor(*args, random_state=0, **parameters)
    dense = model.fit(X, y)
    monkeypatch.setattr(design, "SMALL_COLUMNS", 0)
    kept = MixedEffectsRegressor(*args, random_state=0, **parameters).fit(sparse.csr_array(X), y)
    assert kept.result_.sparse_coef.size > 0
    return dense, kept


def tables(data):
    """Fixed parts by name: of full rank, short of it in every way, and in any order."""
    _, _, x, one, two, _ = data
    return {
        "first level dropped": np.column_stack([x, one[:, 1:]]),
        "collinear with the intercept": np.column_stack([one, x]),
        "two factors": np.column_stack([one, x, two]),
        "repeated, constant and empty": np.column_stack([one[:, :20], one, x, 0 * x + 2, 0 * x]),
    }


@pytest.mark.parametrize("make", [sparse.csr_matrix, sparse.csc_array, sparse.coo_array])
def test_small_sparse_tables_give_the_numbers_of_dense_ones(data, make):
    g, h, _, _, _, y = data
    X = np.column_stack([g, h, tables(data)["two factors"]])
    dense = MixedEffectsRegressor([0, 1]).fit(X, y)
    model = MixedEffectsRegressor([0, 1]).fit(make(X), y)
    pd.testing.assert_frame_equal(model.fixed_effects_, dense.fixed_effects_)
    np.testing.assert_allclose(model.predict(make(X)), dense.predict(X), rtol=0, atol=1e-10)
    np.testing.assert_allclose(model.predict(X), dense.predict(X), rtol=0, atol=1e-10)
    assert model.loglik_ == pytest.approx(dense.loglik_, rel=1e-12)


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("name", tables.__call__((0, 0, np.zeros(1), *2 * [np.eye(1)], 0)))
def test_columns_kept_sparse_have_the_coefficients_of_dense_ones(
    data, name, fit_intercept, monkeypatch
):
    g, h, _, _, _, y = data
    X = np.column_stack([g, h, tables(data)[name]])
    if not fit_intercept:
        # A full column that sparse ones span keeps their common part, and is no least norm.
        X = X[:, X.std(axis=0) > 0]
    terms = [RandomEffect(0, sd=0.7), RandomEffect(1, sd=0.4)]
    dense, kept = both(
        X, y, monkeypatch, terms, family=Gaussian(1.0), fit_intercept=fit_intercept, tol=1e-6
    )
    assert kept.result_.rank == dense.result_.rank
    expected, found = dense.fixed_effects_, kept.fixed_effects_
    assert found.index.tolist() == expected.index.tolist()
    std = expected["std_error"].to_numpy()
    gap = np.abs(found["estimate"] - expected["estimate"])
    assert (gap < 1e-6 * np.where(std > 0, std, 1.0)).all()
    # Standard errors have the posterior draws' Monte Carlo error.
    np.testing.assert_allclose(found["std_error"], std, rtol=0.05, atol=1e-12)
    np.testing.assert_allclose(kept.coef_, dense.coef_, rtol=0, atol=1e-6)
    for term in dense.random_effects_:
        np.testing.assert_allclose(
            kept.random_effects_[term], dense.random_effects_[term], rtol=0, atol=1e-6
        )


@pytest.mark.parametrize("terms", [[0, 1], [0], []])
def test_variances_agree_with_those_beside_dense_columns(data, terms, monkeypatch, estimates):
    g, h, _, _, _, y = data
    X = np.column_stack([g, h, tables(data)["two factors"]])
    parameters = {"e_step": ConjugateGradient(n_probes=256)} if terms else {"e_step": "cg"}
    model = MixedEffectsRegressor(terms, random_state=0).fit(X, y)
    monkeypatch.setattr(design, "SMALL_COLUMNS", 0)
    kept = MixedEffectsRegressor(terms, random_state=0, **parameters).fit(sparse.csr_array(X), y)
    expected = model.variance_components_
    gap = (kept.variance_components_["sd"] - expected["sd"]) / expected["std_error"]
    assert np.abs(gap).max() < 0.03
    # Their errors are those that mc_error_ tells of, but for the data's own.
    assert (kept.mc_error_[-len(expected) :].to_numpy() < 0.03 * expected["std_error"]).all()


def test_slopes_and_weights_beside_sparse_columns(data, monkeypatch):
    g, _, x, one, _, y = data
    X = np.column_stack([g, x, one])
    weights = np.random.default_rng(1).integers(0, 3, size=len(y))
    dense = MixedEffectsRegressor([RandomEffect(0, slopes=[1])]).fit(X, y, weights)
    monkeypatch.setattr(design, "SMALL_COLUMNS", 0)
    model = MixedEffectsRegressor(
        [RandomEffect(0, slopes=[1])], e_step=ConjugateGradient(n_probes=128), random_state=0
    ).fit(sparse.csc_array(X), y, weights)
    np.testing.assert_allclose(
        model.coef_, dense.coef_, rtol=0, atol=0.01 * dense.fixed_effects_["std_error"].max()
    )
    np.testing.assert_allclose(model.sigma_, dense.sigma_, rtol=1e-3)


def test_the_loss_counts_effects_and_no_coefficients(data, monkeypatch):
    g, h, x, one, _, y = data
    X = np.column_stack([g, h, 100 * x, one[:, 1:]])
    terms = [RandomEffect(0, sd=0.7), RandomEffect(1, sd=0.4)]
    dense, kept = both(X, y, monkeypatch, terms, family=Gaussian(1.0))
    expected = dense.history_["loss"].iloc[-1]
    assert kept.history_["loss"].iloc[-1] == pytest.approx(expected, abs=1e-3)


def test_predictions_of_columns_kept_sparse(data, monkeypatch):
    g, h, _, _, _, y = data
    X = np.column_stack([g, h, tables(data)["collinear with the intercept"]])
    terms = [RandomEffect(0, sd=0.7), RandomEffect(1, sd=0.4)]
    dense, kept = both(X, y, monkeypatch, terms, family=Gaussian(1.0))
    new = X[:400].copy()
    new[::7, 0] = 999
    expected, std = dense.predict(new, return_std=True)
    for table in (sparse.csr_array(new), sparse.csc_matrix(new), new):
        mean, found = kept.predict(table, return_std=True)
        np.testing.assert_allclose(mean, expected, atol=1e-6)
        np.testing.assert_allclose(found, std, rtol=0.02)
    draws = kept.sample_y(sparse.csr_array(new), 2000, random_state=0)
    np.testing.assert_allclose(draws.mean(axis=1), expected, atol=0.15)
    np.testing.assert_allclose(draws.std(axis=1), std, rtol=0.1)
    population = kept.predict(sparse.csr_array(new), include_random=False)
    np.testing.assert_allclose(population, dense.predict(new, include_random=False), atol=1e-6)


def test_a_table_too_large_to_be_dense_at_predict_stays_sparse(data, monkeypatch):
    g, h, _, _, _, y = data
    X = np.column_stack([g, h, tables(data)["two factors"]])
    model = MixedEffectsRegressor([0, 1]).fit(sparse.csr_array(X), y)
    mean, std = model.predict(X, return_std=True)
    monkeypatch.setattr(design, "LARGEST_NUMBERS", 0)
    assert sparse.issparse(model._fitted.spec.apply(sparse.csr_array(X)).X)
    found = model.predict(sparse.csr_array(X), return_std=True)
    np.testing.assert_allclose(found, [mean, std], rtol=1e-10)
    frame = pd.DataFrame.sparse.from_spmatrix(sparse.csr_array(X))
    assert sparse.issparse(model._fitted.spec.apply(frame.astype({0: float, 3: float})).X)


@pytest.mark.usefixtures("keep_sparse")
def test_frames_keep_their_sparse_columns_and_their_order(data):
    g, h, x, one, two, y = data
    frame = pd.DataFrame({"g": g, "x": x, "a": one.argmax(axis=1), "h": h, "z": x**2})
    frame = pd.get_dummies(frame, columns=["a"], sparse=True)
    frame.insert(1, "b", pd.arrays.SparseArray(two[:, 0], fill_value=0.0))
    # A column that is mostly 1 is a dense one.
    frame.insert(3, "c", pd.arrays.SparseArray(1 - two[:, 1], fill_value=1.0))
    model = MixedEffectsRegressor(["g", "h"], random_state=0).fit(frame, y)
    names = [name for name in frame.columns if name not in ("g", "h")]
    assert model.fixed_effects_.index.tolist() == ["Intercept", *names]
    assert model.conf_int().index[: len(names) + 1].tolist() == ["Intercept", *names]
    assert model.result_.sparse_coef.shape == (41,)
    assert model.mc_error_.index[:4].tolist() == ["Intercept", "x", "c", "z"]
    assert model.history_.columns[5:9].tolist() == ["Intercept", "x", "c", "z"]
    plain = pd.DataFrame(frame.to_numpy(float), columns=frame.columns)
    dense = MixedEffectsRegressor(["g", "h"]).fit(plain, y)
    gap = model.fixed_effects_["estimate"] - dense.fixed_effects_["estimate"]
    assert (np.abs(gap) < 0.01 * dense.fixed_effects_["std_error"]).all()
    np.testing.assert_allclose(model.predict(frame), dense.predict(plain), atol=0.02)
    np.testing.assert_allclose(model.predict(plain), model.predict(frame), atol=1e-10)
    by_hand = model.intercept_ + plain[names].to_numpy() @ model.coef_
    np.testing.assert_allclose(model.predict(frame, include_random=False), by_hand, atol=1e-8)
    text = model.summary()
    assert "(41 sparse columns)" in text
    assert "a_7" not in text


def test_a_pipeline_encodes_to_a_sparse_table(data, monkeypatch):
    g, h, x, one, _, y = data
    frame = pd.DataFrame({"g": g, "h": h, "x": x, "kind": one.argmax(axis=1)})
    encode = make_column_transformer(
        ("passthrough", ["g", "h", "x"]), (OneHotEncoder(), ["kind"]), sparse_threshold=1.0
    )
    dense = make_pipeline(encode, MixedEffectsRegressor([0, 1])).fit(frame, y)
    monkeypatch.setattr(design, "SMALL_COLUMNS", 0)
    model = make_pipeline(encode, MixedEffectsRegressor([0, 1], random_state=0)).fit(frame, y)
    # x, which is full, is a dense column.
    assert model[-1].result_.sparse_coef.shape == (40,)
    np.testing.assert_allclose(model.predict(frame), dense.predict(frame), atol=0.02)
    assert model.score(frame, y) == pytest.approx(dense.score(frame, y), abs=1e-4)


@pytest.mark.usefixtures("keep_sparse")
def test_many_repeated_columns_are_held_by_a_small_penalty(data, monkeypatch):
    g, h, x, one, _, y = data
    X = np.column_stack([g, h, one[:, 1:], x])
    plain = MixedEffectsRegressor([0, 1], random_state=0).fit(sparse.csr_array(X), y)
    monkeypatch.setattr(columns, "SEARCHED", 8)
    monkeypatch.setattr(columns, "HELD", 1)
    X = np.column_stack([g, h, one[:, 1:], x, one[:, 1:]])
    model = MixedEffectsRegressor([0, 1], random_state=0).fit(sparse.csr_array(X), y)
    np.testing.assert_allclose(
        model.predict(sparse.csr_array(X)), plain.predict(sparse.csr_array(X[:, :42])), atol=0.01
    )
    np.testing.assert_allclose(model.sigma_, plain.sigma_, rtol=2e-3)
    np.testing.assert_allclose(model.coef_[:39] + model.coef_[40:], plain.coef_[:39], atol=0.01)


@pytest.mark.parametrize("gap", [1e-2, 1e-4])
def test_nearly_collinear_columns_are_told_apart(data, gap, monkeypatch):
    g, _, _, one, _, y = data
    near = one[:, 1:4].copy()
    near[np.flatnonzero(near.any(axis=1))[:5]] *= 1 + gap * np.arange(1, 6)[:, None]
    X = np.column_stack([g, one[:, 1:], near])
    dense, kept = both(X, y, monkeypatch, [RandomEffect(0, sd=0.7)], family=Gaussian(1.0))
    assert kept.result_.rank == dense.result_.rank == 43
    gap = np.abs(kept.coef_ - dense.coef_) / dense.fixed_effects_["std_error"].to_numpy()[1:]
    assert gap.max() < 1e-3


@pytest.mark.usefixtures("keep_sparse")
def test_scale_and_offset_of_y_and_columns_change_nothing_else(data):
    g, h, x, one, _, y = data
    X = np.column_stack([g, h, x, one])
    model = MixedEffectsRegressor([0, 1], random_state=0).fit(sparse.csr_array(X), y)
    X[:, 2:] *= np.logspace(-8, 8, 41)
    scaled = MixedEffectsRegressor([0, 1], random_state=0).fit(sparse.csr_array(X), 1e5 * y + 1e7)
    std = model.fixed_effects_["std_error"].to_numpy()[1:]
    gap = scaled.coef_ * np.logspace(-8, 8, 41) / 1e5 - model.coef_
    # Without a full rank the least norm is that of columns in units of their SD.
    assert (np.abs(gap) < 1e-3 * std).all()
    assert scaled.sigma_ / 1e5 == pytest.approx(model.sigma_, rel=1e-5)


@pytest.mark.usefixtures("keep_sparse")
def test_y_in_the_span_of_sparse_columns_is_a_perfect_fit(data):
    g, _, x, one, _, _ = data
    X = sparse.csr_array(np.column_stack([g, x, one]))
    y = 3 + x + one @ np.arange(40.0)
    model = MixedEffectsRegressor([0])
    with pytest.warns(UserWarning, match="fixed-effects columns alone reproduce y"):
        model.fit(X, y)
    assert model.result_.status.name == "PERFECT"
    np.testing.assert_allclose(model.predict(X), y, atol=1e-6)
    assert (model.fixed_effects_["std_error"] == 0).all()


@pytest.mark.usefixtures("keep_sparse")
def test_a_persisted_model_predicts_the_same(data, tmp_path):
    g, h, x, one, _, y = data
    X = sparse.csr_array(np.column_stack([g, h, x, one]))
    model = MixedEffectsRegressor([0, 1], random_state=0).fit(X, y)
    joblib.dump(model, tmp_path / "model.joblib")
    loaded = joblib.load(tmp_path / "model.joblib")
    np.testing.assert_array_equal(
        loaded.predict(X, return_std=True), model.predict(X, return_std=True)
    )


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"method": "ml"}, "GB as dense ones"),
        ({"m_step": "adam", "e_step": "hmc"}, "GB as dense ones"),
        ({"family": "poisson"}, "GB as dense ones"),
        ({"e_step": "exact"}, "use 'auto' or 'cg'"),
    ],
)
def test_what_needs_dense_columns_says_so_where_they_are_too_many(
    data, parameters, says, monkeypatch
):
    g, _, _, one, _, y = data
    X = sparse.csr_array(np.column_stack([g, one]))
    monkeypatch.setattr(design, "SMALL_COLUMNS", 0)
    monkeypatch.setattr(design, "LARGEST_NUMBERS", 1000)
    model = MixedEffectsRegressor([0], **parameters)
    with pytest.raises(ValueError, match=says):
        model.fit(X, np.round(np.abs(y)))
    assert not hasattr(model, "result_")


def test_ml_makes_columns_dense_where_they_fit(data, keep_sparse):
    g, _, x, one, _, y = data
    X = np.column_stack([g, x, one])
    model = MixedEffectsRegressor([0], method="ml").fit(sparse.csr_array(X), y)
    expected = MixedEffectsRegressor([0], method="ml").fit(X, y).loglik_
    assert model.loglik_ == pytest.approx(expected, rel=1e-12)


@pytest.mark.usefixtures("keep_sparse")
def test_infinite_and_missing_entries_name_their_column(data):
    g, _, _, one, _, y = data
    X = sparse.csr_array(np.column_stack([g, one]))
    X.data[X.indices == 5] = np.nan
    with pytest.raises(ValueError, match=r"fixed-effects column\(s\) 5"):
        MixedEffectsRegressor([0]).fit(X, y)


@pytest.mark.slow
def test_fifty_thousand_sparse_columns_fit_within_two_gigabytes():
    code = """
        import json, time
        import numpy as np
        from scipy import sparse
        from sklmm import MixedEffectsRegressor
        rng = np.random.default_rng(0)
        n, k, J = 200_000, 50_000, (5_000, 500)
        g, h = (rng.integers(j, size=n) for j in J)
        which, x, truth = rng.integers(k, size=n), rng.normal(size=n), rng.normal(size=k)
        y = 1 + 0.5 * x + truth[which] + rng.normal(size=n)
        y += 0.7 * rng.normal(size=J[0])[g] + 0.4 * rng.normal(size=J[1])[h]
        rows = np.arange(n)
        one = sparse.csr_array((np.ones(n), (rows, which)), (n, k))
        X = sparse.hstack([np.column_stack([g, h, x]), one], "csr")

        def peak():
            # Not getrusage's, which begins with the parent's.
            lines = open("/proc/self/status")
            return int(next(line for line in lines if "VmHWM" in line).split()[1])

        before, start = peak(), time.perf_counter()
        model = MixedEffectsRegressor([0, 1], random_state=0).fit(X, y)
        seconds = time.perf_counter() - start
        mean, std = model.predict(X, return_std=True)
        seen = np.bincount(which, minlength=k) > 0
        table = model.fixed_effects_.iloc[2:][seen]
        # The intercept takes the rows' mean.
        gap = table["estimate"].to_numpy() - truth[seen] + truth[which].mean()
        z = gap / table["std_error"].to_numpy()
        sd, se = (model.variance_components_[c] for c in ("sd", "std_error"))
        print(json.dumps(dict(
            gigabytes=peak() / 2**20,
            before=before / 2**20, seconds=seconds, n_iter=model.n_iter_,
            converged=bool(model.converged_),
            finite=bool(np.isfinite(model.coef_).all() and np.isfinite(std).all()),
            sd=sd.tolist(), se=se.tolist(), x=model.coef_[0],
            x_se=model.fixed_effects_["std_error"].iloc[1], z=float(np.sqrt(np.mean(z**2))),
            mc=(model.mc_error_.iloc[2:].to_numpy() / se.to_numpy()).tolist(),
            residual=float(np.sqrt(np.mean((y - mean) ** 2))),
        )))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    print(seen)
    assert seen["gigabytes"] < 2
    assert seen["converged"]
    assert seen["finite"]
    errors = (np.array(seen["sd"]) - [0.7, 0.4, 1.0]) / seen["se"]
    assert np.abs(errors).max() < 3
    assert abs(seen["x"] - 0.5) < 3 * seen["x_se"]
    # Coefficients are off the truth as their standard errors say.
    assert seen["z"] == pytest.approx(1, abs=0.02)


@pytest.mark.usefixtures("keep_sparse")
def test_update_refuses_columns_kept_sparse(data):
    g, _, x, one, _, y = data
    S = sparse.csr_array(np.column_stack([g, x, one]))
    model = MixedEffectsRegressor([0], random_state=0).fit(S, y)
    with pytest.raises(ValueError, match="X: the model keeps its sparse columns apart"):
        model.update(S[:5], y[:5])
