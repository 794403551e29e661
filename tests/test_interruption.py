"""An interrupted fit leaves the model it began from, and `warm_start` goes on from there."""

import numpy as np
import pytest

from sklmm import MixedEffectsRegressor
from sklmm.datasets import make_crossed
from sklmm.engine.algorithms.reml import Reml
from tests.unchanged import assert_unchanged, snapshot

E_STEPS = ["exact", "cg", "hmc"]


class Stop(Exception):
    """What a callback might raise."""


@pytest.fixture(scope="module")
def data():
    X, y, _ = make_crossed(300, (20, 8), random_state=0)
    return X, y


def sampler(e_step):
    """The class whose method does an iteration's work, and the method's name."""
    if e_step == "hmc":
        from sklmm.engine.latent.hmc import HMCSampler

        return HMCSampler, "draw"
    return Reml, "look"


def interrupt(monkeypatch, e_step, error, iteration):
    """Make the E-step raise at an iteration."""
    kind, name = sampler(e_step)
    work, count = getattr(kind, name), [0]

    def interrupted(self, *args, **kwargs):
        count[0] += 1
        if count[0] == iteration:
            raise error
        return work(self, *args, **kwargs)

    monkeypatch.setattr(kind, name, interrupted)


@pytest.mark.parametrize(
    ("e_step", "iteration", "error"),
    [
        ("exact", 1, KeyboardInterrupt),
        ("exact", 2, Stop),
        ("cg", 1, MemoryError),
        ("cg", 2, KeyboardInterrupt),
        pytest.param("hmc", 5, KeyboardInterrupt, marks=pytest.mark.slow),
    ],
)
def test_first_fit_leaves_an_unfitted_model_that_can_be_fitted(
    e_step, iteration, error, data, monkeypatch
):
    model = MixedEffectsRegressor(["g0", "g1"], e_step=e_step, random_state=0, warm_start=True)
    before = snapshot(model)
    with monkeypatch.context() as patch:
        interrupt(patch, e_step, error, iteration)
        with pytest.raises(error):
            model.fit(*data)
    assert_unchanged(model, before)
    other = MixedEffectsRegressor(["g0", "g1"], e_step=e_step, random_state=0).fit(*data)
    np.testing.assert_array_equal(model.fit(*data).predict(data[0]), other.predict(data[0]))


@pytest.mark.parametrize("e_step", E_STEPS)
def test_refit_leaves_the_fitted_model_and_warm_start_goes_on_from_it(e_step, data, monkeypatch):
    X, y = data
    model = MixedEffectsRegressor(["g0", "g1"], e_step=e_step, random_state=0, warm_start=True)
    model.fit(X, y)
    before, expected = snapshot(model), model.predict(X, return_std=True)
    with monkeypatch.context() as patch:
        interrupt(patch, e_step, KeyboardInterrupt, 2)
        # Other columns: what a fit learns of them is taken back too.
        with pytest.raises(KeyboardInterrupt):
            model.fit(X.rename(columns={"x0": "other"}), -3 * y)
    assert_unchanged(model, before)
    np.testing.assert_array_equal(model.predict(X, return_std=True), expected)
    cold = model.n_iter_
    model.fit(X, y)
    assert model.n_iter_ < cold if e_step != "hmc" else model.converged_
    np.testing.assert_allclose(model.sigma_, before["sigma_"], rtol=1e-2)


def test_an_exception_of_the_progress_report_is_an_interruption(data, monkeypatch):
    model = MixedEffectsRegressor(["g0", "g1"], verbose=1).fit(*data)
    before = snapshot(model)

    def report(self, iteration, record, left):
        raise Stop

    monkeypatch.setattr("sklmm._estimators.progress.Watch._print", report)
    with pytest.raises(Stop):
        model.fit(*data)
    assert_unchanged(model, before)
