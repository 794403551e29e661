"""Onlookers: scikit-learn's callbacks, and the lines of `verbose`."""

import re
import signal

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from sklearn.callback import ProgressBar, ScoringMonitor
from sklearn.model_selection import GridSearchCV

from sklmm import HMC, Adam, ConjugateGradient, MixedEffectsClassifier, MixedEffectsRegressor
from sklmm._estimators.progress import Watch
from sklmm.callbacks import StopOnInterrupt
from sklmm.datasets import make_crossed
from sklmm.engine.algorithms.reml import Reml
from sklmm.result import Status
from tests.unchanged import assert_unchanged, snapshot


class Recorder:
    """A callback that notes its hooks, and may stop the fit or fail."""

    def __init__(self, stop_at=None, fail_at=None):
        self.stop_at, self.fail_at = stop_at, fail_at
        self.calls, self.fitted, self.weights = [], [], []

    def setup(self, estimator, context):
        self.calls.append("setup")

    def teardown(self, estimator, context):
        self.calls.append("teardown")

    def on_fit_task_begin(self, estimator, context):
        self.calls.append(f"begin {context.task_name}")

    def on_fit_task_end(self, estimator, context, *, X, y, metadata, fitted_estimator):
        self.calls.append(f"end {context.task_name}")
        iteration = context.task_id + 1
        if context.task_name == "fit":
            return None
        if iteration == self.fail_at:
            raise RuntimeError("no more")
        self.fitted.append(fitted_estimator)
        self.weights.append(metadata)
        assert len(X) == len(y)
        return iteration == self.stop_at


@pytest.fixture(scope="module")
def data():
    X, y, _ = make_crossed(300, (20, 8), random_state=0)
    return X, y


def model(e_step="exact", **parameters):
    return MixedEffectsRegressor(["g0", "g1"], e_step=e_step, random_state=0, **parameters)


PARAMETERS = [
    {"e_step": "exact"},
    {"e_step": "cg"},
    {"e_step": "laplace"},
    {"e_step": HMC(n_chains=8)},
    {"e_step": "hmc", "m_step": Adam(), "max_iter": 12},
    pytest.param({"e_step": "nuts"}, marks=pytest.mark.slow),
]


@pytest.mark.parametrize("parameters", PARAMETERS, ids=str)
def test_every_iteration_has_its_task_and_a_fitted_model(parameters, data):
    X, y = data
    plain = model(**parameters).fit(X, y)
    recorder = Recorder()
    watched = model(**parameters).set_callbacks(recorder).fit(X, y)
    n = watched.n_iter_
    iterations = ["begin EM iteration", "end EM iteration"] * n
    assert recorder.calls == ["setup", "begin fit", *iterations, "end fit", "teardown"]
    # A glance at the fit leaves its numbers as they are.
    np.testing.assert_array_equal(watched.predict(X), plain.predict(X))
    np.testing.assert_array_equal(watched.history_["loss"], plain.history_["loss"])
    for k, fitted in enumerate(recorder.fitted, start=1):
        assert fitted.n_iter_ == k
        assert (fitted.result_.status is Status.STOPPED) == (k < n)
        assert np.isfinite(fitted.predict(X)).all()
    np.testing.assert_array_equal(recorder.fitted[-1].predict(X), plain.predict(X))
    assert recorder.fitted[-1].loglik_ == plain.loglik_ or np.isnan(plain.loglik_)
    assert recorder.weights == [None] * n


def test_to_look_at_a_fit_by_quadrature_leaves_its_points_to_be_doubled():
    """Few rows of a group with a large SD need many points: a glance is no reason to stay with few.

    To the last bit, as the points' places are those of the fit's own modes.
    """
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"x": rng.normal(size=600), "g": np.repeat(np.arange(200), 3)})
    y = rng.random(600) < expit(X["x"] - 0.5 + 3 * rng.normal(size=200)[X["g"]])
    parameters = {"e_step": "quadrature", "random_state": 0}
    plain = MixedEffectsClassifier(["g"], **parameters).fit(X, y)
    watched = MixedEffectsClassifier(["g"], **parameters).set_callbacks(Recorder())
    watched.fit(X, y)
    assert watched.loglik_ == plain.loglik_
    np.testing.assert_array_equal(watched.history_["loss"], plain.history_["loss"])
    np.testing.assert_array_equal(watched.predict_proba(X), plain.predict_proba(X))


def test_to_look_at_the_fit_leaves_the_next_solves_as_they_are():
    """Conjugate gradients start from the last step's solutions, not from those of a glance."""
    X, y, _ = make_crossed(3000, (700, 600), random_state=0)
    parameters = {"e_step": ConjugateGradient(n_probes=4), "random_state": 0}
    plain = MixedEffectsRegressor(["g0", "g1"], **parameters).fit(X, y)
    watched = MixedEffectsRegressor(["g0", "g1"], **parameters)
    watched.set_callbacks(Recorder()).fit(X, y)
    for column in ("step", "loss"):
        np.testing.assert_array_equal(watched.history_[column], plain.history_[column])
    np.testing.assert_array_equal(watched.predict(X), plain.predict(X))


@pytest.mark.parametrize("e_step", ["exact", HMC(n_chains=8)], ids=str)
def test_a_callback_stops_the_fit(e_step, data):
    stopped = model(e_step).set_callbacks(Recorder(stop_at=2)).fit(*data)
    assert stopped.n_iter_ == 2
    assert stopped.result_.status is Status.STOPPED
    assert not stopped.converged_
    assert "stopped by a callback" in stopped.summary()
    assert np.isfinite(stopped.predict(data[0])).all()


def test_to_stop_a_fit_that_is_done_changes_nothing(data):
    n = model().fit(*data).n_iter_
    assert model().set_callbacks(Recorder(stop_at=n)).fit(*data).converged_


@pytest.mark.parametrize("fitted", [False, True])
def test_a_failing_callback_leaves_the_estimator_as_it_was(fitted, data):
    X, y = data
    recorder = Recorder(fail_at=2)
    estimator = model()
    if fitted:
        estimator.fit(X, y)
    estimator.set_callbacks(recorder)
    before = snapshot(estimator)
    with pytest.raises(RuntimeError, match="no more"):
        estimator.fit(X, -y)
    assert_unchanged(estimator, before)
    assert recorder.calls[-1] == "teardown"


def test_an_error_of_the_input_tears_down_too(data):
    X, y = data
    recorder = Recorder()
    with pytest.raises(ValueError, match="NaN"):
        model().set_callbacks(recorder).fit(X, np.full(len(y), np.nan))
    assert recorder.calls == ["setup", "begin fit", "teardown"]


def test_weights_are_metadata(data):
    X, y = data
    recorder, weight = Recorder(), np.full(len(y), 2.0)
    model().set_callbacks(recorder).fit(X, y, weight)
    assert all(metadata["sample_weight"] is weight for metadata in recorder.weights)


def test_the_score_by_iteration(data):
    X, y = data
    monitor = ScoringMonitor(scoring="r2")
    fitted = model("cg").set_callbacks(monitor).fit(X, y)
    scores = monitor.get_logs().data_as_pandas["r2"].to_numpy()
    assert len(scores) == fitted.n_iter_ + 1
    assert scores[-1] == scores[0] == fitted.score(X, y)


def test_a_progress_bar_through_a_grid_search(data, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    search = GridSearchCV(model(), {"method": ["reml", "ml"]}, cv=2)
    search.set_callbacks(ProgressBar(max_propagation_depth=2)).fit(*data)
    shown = capsys.readouterr().out
    assert "GridSearchCV" in shown
    assert "MixedEffectsRegressor" in shown
    assert "100%" in shown


@pytest.mark.parametrize(
    "parameters",
    [{}, {"e_step": HMC(n_chains=8)}, {"e_step": "hmc", "m_step": Adam(), "max_iter": 25}],
    ids=["exact", "hmc", "adam"],
)
def test_verbose_prints_lines(parameters, data, capsys):
    fitted = model(**parameters, verbose=1).fit(*data)
    lines = capsys.readouterr().out.splitlines()
    lines = [line for line in lines if not line.startswith("compiling")]
    assert len(lines) == 1 + fitted.n_iter_ // 10 + (fitted.n_iter_ % 10 > 0)
    pattern = (
        r"iteration +(\d+)  loss [-\d.e+]+(  acceptance [01]\.\d\d)?(  step \S+ SE)?  [\d.]+ s"
    )
    found = [re.match(pattern, line) for line in lines]
    assert all(found), lines
    assert int(found[-1][1]) == fitted.n_iter_
    assert ("acceptance" in lines[-1]) == ("e_step" in parameters)
    assert lines[-1].endswith("about 0.0 s left")
    model(**parameters, verbose=5).fit(*data)
    assert len(capsys.readouterr().out.splitlines()) > len(lines)


def test_verbose_says_what_is_compiled_and_no_infinite_step(capsys):
    watch = Watch(model(verbose=1), None, {}, None)
    watch.compiling("hmc_transitions")
    record = {"seconds": 1.0, "loss": 2.0, "acceptance_rate": 0.5, "step": np.inf}
    watch._print(1, record, np.inf)
    assert capsys.readouterr().out.splitlines() == [
        "compiling hmc transitions, once for tables of about this size",
        "iteration    1  loss 2  acceptance 0.50  1.0 s",
    ]
    Watch(model(), None, {}, None).compiling("hmc_transitions")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_stops_with_the_estimate_reached(times, data, monkeypatch):
    look, stop = Reml.look, StopOnInterrupt()

    def interrupted(self, *args, **kwargs):
        for _ in range(times):
            signal.raise_signal(signal.SIGINT)
        return look(self, *args, **kwargs)

    monkeypatch.setattr(Reml, "look", interrupted)
    before = signal.getsignal(signal.SIGINT)
    estimator = model().set_callbacks(stop)
    if times == 2:
        with pytest.raises(KeyboardInterrupt):
            estimator.fit(*data)
        assert not hasattr(estimator, "result_")
    else:
        assert estimator.fit(*data).result_.status is Status.STOPPED
        assert estimator.n_iter_ == 1
        assert np.isfinite(estimator.predict(data[0])).all()
    assert stop.interrupted
    assert signal.getsignal(signal.SIGINT) is before
    monkeypatch.undo()
    assert estimator.fit(*data).converged_


def test_silence_is_the_default(data, capsys):
    model().fit(*data)
    assert capsys.readouterr().out == ""
