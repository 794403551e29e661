"""The tutorial's loop on InstEval, 80 % of the rows, with the tutorial's own settings."""

import numpy as np
import pytest

from sklmm import HMC, Adam, Gaussian, MixedEffectsRegressor, RandomEffect
from sklmm.datasets import load_dyestuff, load_insteval

TERMS = ["students", "instructors", "departments"]


def tutorial(sd):
    X, y = load_insteval(return_X_y=True, as_frame=True)
    train = np.random.RandomState(0).rand(len(X)) < 0.8
    return MixedEffectsRegressor(
        [RandomEffect(term, sd=sd) for term in TERMS],
        fixed_effects=["service"],
        family=Gaussian(sigma=1.0),
        e_step=HMC(step_size=0.015, num_leapfrog_steps=3, n_chains=1, n_warmup=1000, n_steps=5),
        m_step=Adam(learning_rate=0.01),
        max_iter=1500,
        random_state=0,
    ).fit(X[train], y[train])


@pytest.mark.slow
def test_with_standard_deviations_at_1_the_loop_gives_the_published_trace():
    model = tutorial(sd=1.0)
    loss = model.history_["loss"]
    assert 0.60 < model.history_["acceptance_rate"].mean() < 0.75
    # A draw's loss has an SD of 44 about its mean of 98,214: 97.5 % of them are inside.
    assert 98_000 < loss.iloc[100:].mean() < 98_300
    assert loss.iloc[100:].between(98_000, 98_300).mean() > 0.95
    assert model.variance_components_["sd"].tolist() == pytest.approx([1, 1, 1, 1])
    assert model.history_["Intercept"].iloc[-1] > model.history_["Intercept"].iloc[500]


@pytest.mark.slow
def test_with_standard_deviations_trained_the_loop_is_stuck_at_a_large_department_sd():
    model = tutorial(sd=None)
    history = model.history_
    sd = dict(zip(TERMS, model.variance_components_["sd"], strict=False))
    assert history["loss"].tail(500).between(95_900, 96_200).mean() > 0.99
    assert sd["students"] == pytest.approx(0.36, abs=0.02)
    assert sd["instructors"] == pytest.approx(0.54, abs=0.02)
    # The maximum has an intercept of 3.28 and a department SD of 0.08.
    assert abs(model.intercept_) < 0.6
    assert 2.7 < sd["departments"] < 3.6
    trained = ["Intercept", "service", *(f"sd({t}, Intercept)" for t in TERMS)]
    moved = history[trained].max() - history[trained].min()
    assert (moved > 0.05).all(), moved


def test_adam_climbs_and_takes_every_parameter_along():
    X, y = load_dyestuff(return_X_y=True, as_frame=True)
    model = MixedEffectsRegressor(
        ["Batch"],
        e_step=HMC(step_size=0.05, num_leapfrog_steps=5, n_chains=4, n_warmup=20, n_steps=2),
        m_step=Adam(learning_rate=0.05),
        max_iter=60,
        random_state=0,
    ).fit(X, (y - y.mean()) / y.std())
    history = model.history_
    assert history["loss"].tail(10).mean() < history["loss"].head(10).mean()
    for name in ["Intercept", "sd(Batch, Intercept)", "sigma"]:
        assert history[name].nunique() > 30
    assert model.method == "auto"
    assert not model.result_.reml


def test_adam_refuses_weights_and_other_e_steps():
    X, y = load_dyestuff(return_X_y=True, as_frame=True)
    model = MixedEffectsRegressor(["Batch"], e_step="hmc", m_step="adam", max_iter=2)
    with pytest.raises(ValueError, match="sample_weight"):
        model.fit(X, y, sample_weight=np.full(len(y), 2.0))
    with pytest.raises(ValueError, match="e_step='hmc'"):
        MixedEffectsRegressor(["Batch"], e_step="exact", m_step="adam").fit(X, y)
