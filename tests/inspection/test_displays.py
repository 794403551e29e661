"""Each display from a real fit: what is on its axes."""

from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from sklmm import HMC, MixedEffectsClassifier, MixedEffectsRegressor
from sklmm.datasets import load_cbpp, load_sleepstudy
from sklmm.inspection import (
    ConvergenceDisplay,
    InfluenceDisplay,
    ModelGraphDisplay,
    RandomEffectsDisplay,
    ResidualsDisplay,
    TraceDisplay,
)
from tests.simulate import simulate


@pytest.fixture(scope="module")
def gaussian(sleepstudy):
    return MixedEffectsRegressor(["(1 + Days | Subject)"]).fit(*sleepstudy)


@pytest.fixture(scope="module")
def sampled():
    X, y, _, _ = simulate("poisson", 0)
    return MixedEffectsRegressor(
        ["g"], family="poisson", e_step=HMC(n_chains=16), random_state=0
    ).fit(X, y)


def test_convergence_has_a_line_a_parameter(gaussian):
    display = ConvergenceDisplay.from_estimator(gaussian)
    assert len(display.axes_) == 2
    assert list(display.lines_) == ["loss", *gaussian._fitted.labels.names]
    loss, moves = display.axes_
    assert len(loss.lines) == 1
    np.testing.assert_array_equal(loss.lines[0].get_ydata(), gaussian.history_["loss"])
    assert len(moves.lines) == 6
    last = [line.get_ydata()[-1] for line in moves.lines]
    np.testing.assert_allclose(last, 0, atol=0.01)
    assert loss.get_xlim() == (1, gaussian.n_iter_)
    assert [t.get_text() for t in moves.get_legend().get_texts()] == gaussian._fitted.labels.names


def test_convergence_of_chains_has_their_acceptance(sampled):
    display = ConvergenceDisplay.from_estimator(sampled, parameters=["sd(g, Intercept)"])
    assert len(display.axes_) == 3
    assert list(display.lines_) == ["loss", "sd(g, Intercept)", "acceptance_rate"]
    assert display.axes_[2].get_ylim() == (0, 1)
    with pytest.raises(ValueError, match="parameters: 'sd' is not one of"):
        ConvergenceDisplay.from_estimator(sampled, parameters=["sd"])


def test_trace_has_a_line_a_level(sampled):
    display = TraceDisplay.from_estimator(sampled, levels=3)
    assert len(display.lines_) == len(display.ax_.lines) == 3
    iterations, (draws,) = sampled.result_.trace
    np.testing.assert_array_equal(display.lines_[1].get_xdata(), iterations)
    np.testing.assert_array_equal(display.lines_[1].get_ydata(), draws[:, 1, 0])
    some = TraceDisplay.from_estimator(sampled, levels=[5])
    np.testing.assert_array_equal(some.lines_[0].get_ydata(), draws[:, 5, 0])
    with pytest.raises(ValueError, match="levels: 'none' is not one of 'g'"):
        TraceDisplay.from_estimator(sampled, levels=["none"])


def test_trace_needs_a_chain(gaussian):
    with pytest.raises(ValueError, match="e_step='auto' drew no chain"):
        TraceDisplay.from_estimator(gaussian)


def test_caterpillar_has_an_interval_a_level_in_order(gaussian):
    display = RandomEffectsDisplay.from_estimator(gaussian, coefficient="Days")
    (points,) = (line for line in display.ax_.lines if line.get_marker() == ".")
    effects = gaussian.random_effects_["Subject"]["Days"].sort_values()
    np.testing.assert_array_equal(points.get_xdata(), effects)
    (bars,) = display.ax_.collections
    ends = np.array([path.vertices[:, 0] for path in bars.get_paths()])
    half = 1.959964 * gaussian.random_effects_std_["Subject"]["Days"][effects.index]
    np.testing.assert_allclose(ends[:, 1] - ends[:, 0], 2 * half, rtol=1e-6)
    names = [t.get_text() for t in display.ax_.get_yticklabels()]
    assert names == [str(label) for label in effects.index]
    assert display.ax_.get_ylim() == (-1, 18)


@pytest.mark.parametrize(("n_levels", "shown"), [(10, True), (40, True), (41, False), (200, False)])
def test_names_of_levels_do_not_overlap(n_levels, shown):
    """Names of one height, in a figure of its own and where there is little room."""
    index = [("a school of a rather long name, in a town", k) for k in range(n_levels)]
    effects = pd.Series(np.linspace(-1, 1, n_levels), pd.Index(index, tupleize_cols=False))
    display = RandomEffectsDisplay(
        effects=effects, std=0 * effects + 1, sd=1.0, term="school", coefficient="Intercept"
    ).plot()
    display.figure_.draw_without_rendering()
    names = [t for t in display.ax_.get_yticklabels() if t.get_text().startswith("a school")]
    assert len(names) == (n_levels if shown else 0)
    boxes = [name.get_window_extent() for name in names]
    assert all(low.y1 <= high.y0 for low, high in pairwise(boxes))
    # Not wider than the intervals.
    assert all(box.width < display.ax_.bbox.width for box in boxes)
    _, small = plt.subplots(figsize=(3, 2))
    display.plot(ax=small)
    assert (small.get_ylabel() == "levels in order") == (n_levels > 10)


def test_histogram_and_quantiles_of_effects(gaussian):
    display = RandomEffectsDisplay.from_estimator(gaussian, kind="histogram")
    area = sum(bar.get_height() * bar.get_width() for bar in display.ax_.patches)
    assert area == pytest.approx(1)
    (curve,) = display.ax_.lines
    x, density = curve.get_data()
    assert np.sum(density) * (x[1] - x[0]) == pytest.approx(1, abs=1e-3)
    quantiles = RandomEffectsDisplay.from_estimator(gaussian, kind="qq")
    values = quantiles.ax_.lines[0].get_ydata()
    assert len(values) == 18
    assert (np.diff(values) >= 0).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"term": "Days"}, r"term='Days' is not one of this model, which has 'Subject'"),
        ({"coefficient": "x"}, r"coefficient='x' is not one of"),
        ({"kind": "bar"}, r"kind='bar' is not one of"),
    ],
)
def test_random_effects_display_names_what_it_has(gaussian, options, message):
    with pytest.raises(ValueError, match=message):
        RandomEffectsDisplay.from_estimator(gaussian, **options)


def test_residuals(gaussian, sleepstudy):
    X, y = sleepstudy
    display = ResidualsDisplay.from_estimator(gaussian, X, y)
    fitted, residual = display.ax_.lines[0].get_data()
    np.testing.assert_allclose(fitted + residual, y)
    np.testing.assert_allclose(display.sd, gaussian.sigma_)
    figure, axes = plt.subplots(1, 2)
    histogram = ResidualsDisplay.from_estimator(gaussian, X, y, kind="histogram", ax=axes[0])
    assert histogram.figure_ is figure
    assert histogram.ax_ is axes[0]
    assert "25.6" in histogram.ax_.get_legend().get_texts()[0].get_text()
    quantiles = ResidualsDisplay.from_estimator(gaussian, X, y, kind="qq", ax=axes[1])
    assert len(quantiles.ax_.lines[0].get_ydata()) == len(y)


def test_residuals_of_unseen_levels_vary_as_new_observations_do():
    rng, n = np.random.default_rng(0), 4000
    X = pd.DataFrame({"x": rng.normal(size=n), "g": np.arange(n) // 10})
    eta = 0.2 + 0.5 * X["x"] + 1.5 * rng.normal(size=400)[X["g"]]
    y, trials = rng.binomial(8, expit(eta)) / 8, np.full(n, 8.0)
    seen = (X["g"] < 100).to_numpy()
    model = MixedEffectsRegressor(["g"], family="binomial", e_step="laplace")
    model.fit(X[seen], y[seen], trials[seen])
    display = ResidualsDisplay.from_estimator(model, X, y, trials)
    assert display.residuals[seen].std() == pytest.approx(1, abs=0.1)
    assert display.residuals[~seen].std() == pytest.approx(1, abs=0.15)
    y = eta + rng.normal(size=n)
    gaussian = MixedEffectsRegressor(["g"]).fit(X[seen], y[seen])
    _, std = gaussian.predict(X[~seen], return_std=True)
    display = ResidualsDisplay.from_estimator(gaussian, X[~seen], y[~seen])
    np.testing.assert_allclose(
        display.residuals * display.sd, (y - gaussian.predict(X))[~seen] / std
    )


def test_pearson_residuals_have_variance_1(sampled):
    X, y, _, _ = simulate("poisson", 0)
    display = ResidualsDisplay.from_estimator(sampled, X, y)
    assert display.sd == 1
    assert display.residuals.std() == pytest.approx(1, abs=0.1)


def test_residuals_of_proportions_are_those_of_their_trials():
    frame = load_cbpp(as_frame=True).frame
    y = np.column_stack([frame["incidence"], frame["size"] - frame["incidence"]])
    model = MixedEffectsRegressor(["herd"], family="binomial", e_step="laplace")
    model.fit(frame[["herd"]], y)
    display = ResidualsDisplay.from_estimator(model, frame[["herd"]], y)
    assert display.sd == 1
    assert 0.7 < display.residuals.std() < 1.4


def test_classes_have_no_residuals():
    X, y, _, _ = simulate("bernoulli", 0)
    model = MixedEffectsClassifier(["g"], e_step="laplace").fit(X, y)
    with pytest.raises(ValueError, match="classes have no residuals"):
        ResidualsDisplay.from_estimator(model, X, y)


def test_the_graph_has_a_box_a_variable_and_an_arrow_a_dependence(gaussian):
    display = ModelGraphDisplay.from_estimator(gaussian)
    graph = dict(gaussian.model_graph())
    assert display.boxes_.keys() == graph.keys()
    arrows = [a for a in display.ax_.texts if a.arrow_patch is not None]
    assert len(arrows) == sum(len(parents) for parents in graph.values())
    for name, parents in graph.items():
        for parent in parents:
            assert display.boxes_[parent].xy[1] > display.boxes_[name].xy[1]


def test_a_wrong_number_of_axes_is_told(gaussian):
    with pytest.raises(ValueError, match="ConvergenceDisplay draws on 2 axes, and 1 came"):
        ConvergenceDisplay.from_estimator(gaussian, ax=plt.subplots()[1])


@pytest.mark.parametrize("by", [None, "Subject"])
def test_influence(by):
    X, y = load_sleepstudy(return_X_y=True, as_frame=True)
    model = MixedEffectsRegressor(["(1 + Days | Subject)"]).fit(X, y)
    display = InfluenceDisplay.from_estimator(model, X, y, by=by, n_labels=3)
    largest = display.influence["cooks_distance"].nlargest(3)
    assert {text.get_text() for text in display.ax_.texts} == {str(i) for i in largest.index}
    display.plot(kind="dfbetas")
    assert [t.get_text() for t in display.ax_.get_yticklabels()] == ["Intercept", "Days"]
    # Of many groups each bin has its largest.
    many = pd.DataFrame({"cooks_distance": np.arange(10_000.0)})
    ax = InfluenceDisplay(influence=many).plot(n_labels=1).ax_
    assert len(ax.lines[0].get_ydata()) == 400
    assert ax.lines[0].get_ydata().max() == 9999
