"""Estimators of Dask collections beside the local ones."""

import inspect
import io
from copy import copy
from dataclasses import replace

import dask
import dask.array as da
import dask.dataframe as dd
import joblib
import numpy as np
import pandas as pd
import pytest
from distributed import Client, LocalCluster, get_worker
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score

from sklmm import (
    ConjugateGradient,
    Exact,
    Gaussian,
    MixedEffectsClassifier,
    MixedEffectsRegressor,
    RandomEffect,
)
from sklmm.dask import DaskMixedEffectsClassifier, DaskMixedEffectsRegressor
from sklmm.datasets import load_insteval, make_crossed
from sklmm.families import Gamma
from tests.dask.test_cluster import assert_empty
from tests.test_batches import RELATED, assert_same, table


@pytest.fixture(scope="module")
def frame():
    """Rows in a shuffled order of their index, with columns that no model reads."""
    X, y = table(np.random.default_rng(0), 400)
    rng = np.random.default_rng(1)
    frame = X.assign(stars=y, times=rng.integers(0, 4, 400), note="text")
    return frame.set_index(rng.permutation(400))


def on_dask(local):
    """The estimator of collections with the parameters of a local one."""
    return DaskMixedEffectsRegressor(**local.get_params(deep=False))


@pytest.fixture(scope="module")
def local(frame):
    model = MixedEffectsRegressor(["(1 + x | g)", "h"], fixed_effects=["x", "t"], random_state=0)
    return model.fit(frame, frame["stars"])


@pytest.fixture(scope="module")
def model(client, local, frame):
    table = dd.from_pandas(frame, npartitions=5, sort=False)
    return on_dask(local).fit(table, table["stars"])


@pytest.mark.parametrize(
    "parameters",
    [
        {"random_effects": ["g", "h"], "e_step": "cg"},
        {"random_effects": ["(1 | h/g)"], "offset": "w", "method": "ml"},
        {"random_effects": ["(1 + x || g)"], "family": Gaussian(weights="precision")},
        {"random_effects": None, "e_step": Exact(), "tol": 1e-4},
        {"random_effects": ["g"], "dof": "satterthwaite", "fit_intercept": False},
        {"random_effects": ["ar1(0 + times | g)", "(1 + h | g)"]},
        {"random_effects": [RandomEffect("g", covariance=RELATED), "h"]},
        {"random_effects": ["(1 | mm(g, times))", "h"]},
    ],
)
def test_a_fit_is_the_local_one(client, frame, parameters):
    whole = MixedEffectsRegressor(fixed_effects=["x", "t"], random_state=0, **parameters)
    model = on_dask(whole)
    columns = dd.from_pandas(frame, npartitions=4, sort=False)
    weights = None
    if "family" in parameters:
        weights = "times"
    own = [columns, columns["stars"], None if weights is None else columns[weights]]
    whole.fit(frame, frame["stars"], None if weights is None else frame[weights])
    assert_same(model.fit(*own).to_local(), whole, frame)
    pd.testing.assert_frame_equal(model.fixed_effects_, whole.fixed_effects_, rtol=1e-5)


@pytest.mark.parametrize("priors", [{"coef_prior": 1.0}, {"sd_prior": "gamma"}])
def test_priors_are_for_tables_of_one_machine(frame, priors):
    table = dd.from_pandas(frame, npartitions=2)
    with pytest.raises(ValueError, match="use fit of a whole table"):
        DaskMixedEffectsRegressor(["g"], **priors).fit(table, table["stars"])


def test_a_formula_takes_the_response_from_the_table(client, frame):
    columns = dd.from_pandas(frame, npartitions=3, sort=False)
    formula = "stars ~ x * w + (1 | g)"
    whole = MixedEffectsRegressor.from_formula(formula).fit(frame)
    model = DaskMixedEffectsRegressor.from_formula(formula).fit(columns)
    assert_same(model.to_local(), whole, frame)
    assert model.predict(columns).name == "stars"
    assert model.score(columns, columns["stars"]) == pytest.approx(
        whole.score(frame, frame["stars"])
    )


def test_arrays(client, frame):
    values = frame[["g", "x", "t"]].to_numpy(float)
    blocks = da.from_array(values, chunks=(90, 2))
    y = frame["stars"].to_numpy()
    whole = MixedEffectsRegressor([0]).fit(values, y)
    model = DaskMixedEffectsRegressor([0]).fit(blocks, da.from_array(y, chunks=70))
    assert_same(model.to_local(), whole, values)
    assert model.n_features_in_ == 3
    found = model.predict(blocks, return_std=True)
    for own, other in zip(found, whole.predict(values, return_std=True), strict=True):
        assert own.chunks == ((90, 90, 90, 90, 40),)
        np.testing.assert_allclose(own.compute(), other, rtol=1e-8)


def test_partitions_of_files_and_what_is_made_of_them(client, frame, tmp_path):
    for i in range(8):
        frame[50 * i : 50 * i + 50].to_parquet(tmp_path / f"{i}.parquet")
    columns = dd.read_parquet(tmp_path)
    whole = MixedEffectsRegressor(["g"], fixed_effects=["x"]).fit(frame, frame["stars"])
    for X, y in (
        (columns, columns["stars"]),
        (columns[["x", "g"]], columns[["stars"]]),
        (columns[["x", "g"]], dd.from_pandas(frame["stars"], npartitions=8, sort=False)),
    ):
        assert_same(on_dask(whole).fit(X, y).to_local(), whole, frame)
    values = columns[["g", "x"]].to_dask_array(), columns["stars"].to_dask_array()
    whole = MixedEffectsRegressor([0]).fit(frame[["g", "x"]].to_numpy(float), frame["stars"])
    own = on_dask(whole).fit(*values)
    assert_same(own.to_local(), whole, frame[["g", "x"]].to_numpy(float))
    found = own.predict(values[0]).compute()
    np.testing.assert_allclose(found, whole.predict(frame[["g", "x"]].to_numpy(float)), rtol=1e-8)


def test_all_of_insteval(client):
    X, y = load_insteval(return_X_y=True, as_frame=True)
    X = X.assign(service=X["service"].astype(float))
    whole = MixedEffectsRegressor(
        ["students", "instructors", "departments"], fixed_effects=["service"], random_state=0
    ).fit(X, y)
    rows = np.random.default_rng(0).permutation(len(X))
    columns = dd.from_pandas(X.assign(y=y).iloc[rows], npartitions=7, sort=False)
    model = on_dask(whole).fit(columns, columns["y"])
    assert_same(model.to_local(), whole, X[:1000])
    assert abs(model.score(columns, columns["y"]) - whole.score(X, y)) < 1e-9


def test_conjugate_gradients_with_the_same_probes(client):
    X, y = make_crossed(30_000, n_levels=(6000, 2500), random_state=0)[:2]
    whole = MixedEffectsRegressor(["g0", "g1"], random_state=0).fit(X, y)
    columns = dd.from_pandas(X.assign(y=y), npartitions=20, sort=False)
    model = on_dask(whole).fit(columns[list(X)], columns["y"])
    assert type(whole.e_step_) is type(model.e_step_) is ConjugateGradient
    assert_same(model.to_local(), whole, X[:1000])


@pytest.mark.scale
@pytest.mark.parametrize(("n_workers", "n_partitions"), [(1, 5), (2, 11), (3, 40)])
def test_a_million_rows_by_any_number_of_workers(n_workers, n_partitions, tmp_path):
    X, y = make_crossed(1_000_000, n_levels=(20_000, 8_000), random_state=0)[:2]
    whole = MixedEffectsRegressor(["g0", "g1"], random_state=0).fit(X, y)
    for i, rows in enumerate(np.array_split(np.arange(len(X)), n_partitions)):
        X.iloc[rows].assign(y=y[rows]).to_parquet(tmp_path / f"{i:02}.parquet", index=False)
    columns = dd.read_parquet(tmp_path)
    known = {"n_workers": n_workers, "threads_per_worker": 1, "dashboard_address": ":0"}
    with LocalCluster(**known) as cluster, Client(cluster):
        model = on_dask(whole).fit(columns[list(X)], columns["y"])
    assert_same(model.to_local(), whole, X[:1000])


class TestState:
    def test_parameters_are_the_local_ones(self, model, local):
        assert model.get_params(deep=False).keys() == local.get_params(deep=False).keys()
        other = clone(model).set_params(tol=1e-4)
        assert other.tol == 1e-4
        assert not hasattr(other, "result_")

    def test_the_local_model_is_a_plain_one(self, model, local, frame):
        own = model.to_local()
        assert type(own) is MixedEffectsRegressor
        assert_same(own, local, frame)
        assert own.feature_names_in_.tolist() == list(frame)
        assert own._fitted.spec.columns == local._fitted.spec.columns
        assert str(own.summary()) == str(model.summary())
        own.update(frame[:20], frame["stars"][:20])

    def test_it_is_saved_as_the_local_one_and_without_its_client(self, client, model, frame):
        model.client = client
        for own in (model, model.to_local()):
            file = io.BytesIO()
            joblib.dump(own, file)
            assert b"distributed" not in file.getvalue()
            again = joblib.load(file)
            assert type(again) is type(own)
            np.testing.assert_array_equal(again.coef_, model.coef_)
            assert "_client" not in vars(again)
        np.testing.assert_array_equal(again.predict(frame), model.to_local().predict(frame))

    def test_what_reads_rows_of_one_machine_is_not_there(self, model, frame):
        for name in ("partial_fit", "fit_batches", "fit_parquet", "update", "sample_y", "augment"):
            assert not hasattr(model, name)
            assert not hasattr(DaskMixedEffectsClassifier(), name)
        for name in ("predict_interval", "predict_quantiles"):
            assert not hasattr(model, name)
        with pytest.raises(AttributeError, match=r"to_local\(\).*MixedEffectsRegressor"):
            model.update(frame, frame["stars"])
        columns = dd.from_pandas(frame, npartitions=2)
        with pytest.raises(TypeError, match=r"to_local\(\)"):
            model.conf_int(method="profile", X=columns, y=columns["stars"])
        with pytest.raises(TypeError, match=r"to_local\(\)"):
            model.check(columns, columns["stars"])
        pd.testing.assert_frame_equal(model.tidy(), model.to_local().tidy())
        pd.testing.assert_frame_equal(model.conf_int(), model.to_local().conf_int())

    def test_a_generator_goes_on_as_after_a_local_fit(self, client, frame):
        columns = dd.from_pandas(frame, npartitions=2, sort=False)
        ends = []
        for kind, X in ((MixedEffectsRegressor, frame), (DaskMixedEffectsRegressor, columns)):
            rng = np.random.RandomState(3)
            kind(["g"], fixed_effects=["x"], random_state=rng).fit(X, X["stars"])
            ends.append(rng.randint(2**31 - 1))
        assert ends[0] == ends[1]

    def test_warm_starts_begin_at_the_fit_before(self, client, model, frame):
        columns = dd.from_pandas(frame, npartitions=5, sort=False)
        other = clone(model).set_params(warm_start=True).fit(columns, columns["stars"])
        first = other.n_iter_
        assert other.fit(columns, columns["stars"]).n_iter_ < first
        assert_same(other.to_local(), model.to_local(), frame, rtol=1e-3, atol=1e-5)

    def test_progress_is_printed_in_this_process(self, client, frame, capsys):
        columns = dd.from_pandas(frame, npartitions=3, sort=False)
        model = DaskMixedEffectsRegressor(["g"], fixed_effects=["x"], verbose=10)
        model.fit(columns, columns["stars"])
        assert "iteration    1" in capsys.readouterr().out

    def test_callbacks_look_on_in_this_process(self, client, frame):
        class Onlooker:
            def __init__(self):
                self.coefs = []

            def setup(self, estimator, context):
                pass

            teardown = on_fit_task_begin = setup

            def on_fit_task_end(self, estimator, context, *, fitted_estimator, **data):
                if context.task_name != "fit":
                    self.coefs.append(fitted_estimator.coef_)

        columns = dd.from_pandas(frame, npartitions=3, sort=False)
        model, onlooker = DaskMixedEffectsRegressor(["g"], fixed_effects=["x"]), Onlooker()
        model.set_callbacks(onlooker).fit(columns, columns["stars"])
        assert len(onlooker.coefs) == model.n_iter_
        np.testing.assert_allclose(onlooker.coefs[-1], model.coef_, rtol=1e-3)

    def test_warnings_of_the_solver_are_given_here(self, client, frame):
        columns = dd.from_pandas(frame.assign(u=frame["x"]), npartitions=3, sort=False)
        model = DaskMixedEffectsRegressor(["g"], fixed_effects=["x", "u"])
        with pytest.warns(UserWarning, match="'u'") as caught:
            model.fit(columns, columns["stars"])
        assert caught[0].filename == __file__


class TestWhatIsRefused:
    @pytest.mark.parametrize(
        ("kind", "message", "given"),
        [
            (TypeError, "X: it is a pandas DataFrame", lambda c, f: (f, c["stars"])),
            (TypeError, "y: it is a pandas Series.*from_pandas", lambda c, f: (c, f["stars"])),
            (TypeError, "sample_weight: .* list", lambda c, f: (c, c["stars"], [1.0])),
            (ValueError, "X: it has 1 dim", lambda c, f: (c["x"], c["stars"])),
            (ValueError, "requires y", lambda c, f: (c,)),
            (ValueError, "'x' is not in X", lambda c, f: (c[["g"]], c["stars"])),
        ],
    )
    def test_other_tables(self, client, frame, kind, message, given):
        columns = dd.from_pandas(frame, npartitions=2)
        model = DaskMixedEffectsRegressor(["g"], fixed_effects=["x"])
        with pytest.raises(kind, match=message):
            model.fit(*given(columns, frame))
        assert not hasattr(model, "result_")

    def test_a_client_that_is_closed(self, client, frame):
        other = Client(client.scheduler.address, set_as_default=False)
        columns = dd.from_pandas(frame, npartitions=2)
        model = DaskMixedEffectsRegressor(["g"], fixed_effects=["x"])
        model.client = other
        assert model.fit(columns, columns["stars"]).client is other
        other.close()
        with pytest.raises(RuntimeError, match="client is closed: start another"):
            model.fit(columns, columns["stars"])
        model.client = None
        assert model.client is client

    def test_without_any_client(self, model, no_client):
        own = copy(model)
        own.client = None
        assert own.client is None
        assert inspect.getmembers(own)


class TestClients:
    @pytest.fixture
    def own(self, no_client):
        """The only client, which is none that is used by default, of a thread."""
        workers = {"n_workers": 1, "threads_per_worker": 1, "processes": False}
        own = Client(**workers, dashboard_address=":0", set_as_default=False)
        yield own
        own.close()

    @pytest.mark.parametrize("family", ["gaussian", "poisson"])
    def test_all_is_done_by_the_one_that_is_set(self, own, frame, family):
        def on_a_worker(part):
            get_worker()
            return part

        counts = frame.assign(stars=frame["stars"].round().abs())
        columns = dd.from_pandas(counts, npartitions=3, sort=False)
        columns = columns.map_partitions(on_a_worker, meta=columns._meta)
        model = DaskMixedEffectsRegressor(["g"], fixed_effects=["x"], family=family)
        if family == "poisson":
            model.set_params(e_step="laplace")
        model.client = own
        model.fit(columns, columns["stars"])
        expected = model.to_local().score(counts, counts["stars"])
        assert model.score(columns, columns["stars"]) == pytest.approx(expected)

    @pytest.mark.parametrize("family", ["gaussian", "poisson"])
    def test_a_fit_in_a_task_has_its_thread_for_others(self, own, frame, family):
        counts = frame.assign(stars=frame["stars"].round().abs())
        columns = dd.from_pandas(counts, npartitions=3, sort=False)
        model = DaskMixedEffectsRegressor(["g"], fixed_effects=["x"], family=family)
        if family == "poisson":
            model.set_params(e_step="laplace")

        def fit(model):
            return model.fit(columns, columns["stars"]).to_local()

        task = own.submit(fit, model)
        found = task.result(timeout=60)
        local = clone(found).fit(counts, counts["stars"])
        np.testing.assert_allclose(found.coef_, local.coef_, rtol=1e-6)
        task.release()
        assert_empty(own)


class TestPredictions:
    def test_they_are_lazy_and_stand_beside_their_rows(self, model, local, frame):
        columns = dd.from_pandas(frame, npartitions=6, sort=False)
        found = model.predict(columns)
        assert isinstance(found, dd.Series)
        assert found.npartitions == 6
        assert (found.dtype, found.name) == (np.float64, "stars")
        mean, std = model.predict(columns, return_std=True)
        assert std.name == "std"
        own, other, spread = dask.compute(found, mean, std)
        assert own.index.equals(frame.index)
        assert own.equals(other)
        expected = local.predict(frame, return_std=True)
        np.testing.assert_allclose(own, expected[0], rtol=1e-8)
        np.testing.assert_allclose(spread, expected[1], rtol=1e-6)
        joined = columns.assign(found=found).compute()
        pd.testing.assert_series_equal(joined["found"], own, check_names=False)
        fixed = model.predict(columns, include_random=False).compute()
        np.testing.assert_allclose(fixed, local.predict(frame, include_random=False), rtol=1e-8)

    def test_a_response_that_is_called_as_the_other_column(self, model, local, frame):
        columns, other = dd.from_pandas(frame, npartitions=3, sort=False), model.to_local()
        other._fitted = replace(other._fitted, response_name="std")
        named = copy(model)
        vars(named).update(vars(other))
        mean, std = named.predict(columns, return_std=True)
        assert mean.name == std.name == "std"
        expected = local.predict(frame, return_std=True)
        np.testing.assert_allclose(mean.compute(), expected[0], rtol=1e-8)
        np.testing.assert_allclose(std.compute(), expected[1], rtol=1e-6)

    def test_a_family_that_workers_cannot_import(self, client, frame):
        class Own(Gamma):
            pass

        counts = frame.assign(stars=frame["stars"].abs() + 0.1)
        columns = dd.from_pandas(counts, npartitions=3, sort=False)
        known = {"fixed_effects": ["x"], "family": Own(), "e_step": "laplace"}
        model = DaskMixedEffectsRegressor(["g"], **known).fit(columns, columns["stars"])
        np.testing.assert_allclose(model.predict(columns), model.to_local().predict(counts))
        expected = model.to_local().score(counts, counts["stars"])
        assert model.score(columns, columns["stars"]) == pytest.approx(expected)

    def test_nothing_is_computed_before_it_is_asked_for(self, model, frame):
        def fails(part):
            raise ZeroDivisionError

        columns = dd.from_pandas(frame, npartitions=2)
        found = model.predict(columns.map_partitions(fails, meta=columns._meta))
        with pytest.raises(ZeroDivisionError):
            found.compute()

    def test_partitions_that_a_filter_has_emptied(self, model, local, frame):
        columns = dd.from_pandas(frame, npartitions=6, sort=False)
        some = columns[columns["g"] == 3]
        some = some[some["x"] > 30.5]
        found = model.predict(some)
        expected = frame[(frame["g"] == 3) & (frame["x"] > 30.5)]
        found = found.compute()
        assert found.index.equals(expected.index)
        np.testing.assert_allclose(found, local.predict(expected), rtol=1e-8)

    @pytest.mark.filterwarnings("ignore:Running on a single-machine scheduler")
    def test_without_a_cluster(self, model, frame):
        columns = dd.from_pandas(frame, npartitions=2, sort=False)
        found = model.predict(columns).compute(scheduler="sync")
        np.testing.assert_array_equal(found, model.to_local().predict(frame))

    def test_a_model_is_sent_once(self, client, model, frame):
        columns = dd.from_pandas(frame, npartitions=40, sort=False)
        graph = model.predict(columns).optimize().__dask_graph__()
        assert sum("sklmm-model" in str(key) for key in dict(graph)) == 1

    def test_what_is_wrong_is_said_at_once(self, model, frame):
        columns = dd.from_pandas(frame, npartitions=2, sort=False)
        with pytest.raises(ValueError, match="'x', which are not there"):
            model.predict(columns[["t", "g", "h"]])
        with pytest.raises(ValueError, match="include_random: 'k' is not a term"):
            model.predict(columns, include_random=["k"])
        with pytest.raises(TypeError, match=r"pandas DataFrame.*MixedEffectsRegressor"):
            model.predict(frame)

    def test_rows_that_miss_values(self, client, frame):
        holes = frame.copy()
        holes.iloc[5, holes.columns.get_loc("x")] = np.nan
        columns = dd.from_pandas(holes, npartitions=3, sort=False)
        whole = MixedEffectsRegressor(["g"], fixed_effects=["x"], missing="drop")
        whole.fit(holes, holes["stars"])
        model = on_dask(whole).fit(columns, columns["stars"])
        assert_same(model.to_local(), whole, frame)
        assert model._fitted.n_missing == 1
        found = model.predict(columns).compute()
        assert np.flatnonzero(found.isna()).tolist() == [5]
        assert model.score(columns, columns["stars"], columns["times"]) == pytest.approx(
            whole.score(holes, holes["stars"], holes["times"])
        )

    def test_classes(self, client, frame):
        good = pd.Series(np.where(frame["stars"] > frame["stars"].median(), "good", "bad"))
        good = good.set_axis(frame.index).rename("verdict")
        whole = MixedEffectsClassifier(["g"], fixed_effects=["x"], e_step="laplace")
        whole.fit(frame, good)
        model = DaskMixedEffectsClassifier(**whole.get_params(deep=False))
        vars(model).update(vars(whole))
        columns = dd.from_pandas(frame.assign(verdict=good), npartitions=3, sort=False)
        found = model.predict(columns)
        assert found.name == "verdict"
        assert (found.compute() == whole.predict(frame)).all()
        shares = model.predict_proba(columns)
        assert list(shares.columns) == ["bad", "good"]
        np.testing.assert_allclose(shares.compute(), whole.predict_proba(frame), rtol=1e-12)
        link = model.decision_function(columns).compute()
        np.testing.assert_allclose(link, whole.decision_function(frame), rtol=1e-9)
        assert model.score(columns, columns["verdict"]) == whole.score(frame, good)
        assert type(model.to_local()) is MixedEffectsClassifier


class TestLocalEstimatorsOnACluster:
    """Cross-validation and grids through joblib's backend, of tables that a worker can hold."""

    def test_cross_validation(self, client, frame):
        model = MixedEffectsRegressor(["g"], fixed_effects=["x", "t"])
        known = {"X": frame, "y": frame["stars"], "cv": KFold(3, shuffle=True, random_state=0)}
        alone = cross_val_score(model, **known)
        with joblib.parallel_config(backend="dask"):
            np.testing.assert_array_equal(cross_val_score(model, **known), alone)

    def test_a_grid(self, client, frame):
        grid = {"random_effects": [["g"], ["h"], ["g", "h"]]}
        model = MixedEffectsRegressor(fixed_effects=["x", "t"])
        alone = GridSearchCV(model, grid, cv=3).fit(frame, frame["stars"])
        with joblib.parallel_config(backend="dask"):
            found = GridSearchCV(model, grid, cv=3).fit(frame, frame["stars"])
        np.testing.assert_array_equal(
            found.cv_results_["mean_test_score"], alone.cv_results_["mean_test_score"]
        )
        np.testing.assert_array_equal(found.predict(frame), alone.predict(frame))
