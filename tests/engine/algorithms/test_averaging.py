"""Newton's method on noisy scores: of a quadratic likelihood, and with missing data."""

from types import SimpleNamespace

import numpy as np

from sklmm.engine.algorithms.averaging import (
    LEAST_OBSERVED,
    average,
    missing_share,
    newton,
    observed_information,
)

#: Three parameters, of very different units.
UNIT = np.array([1e-4, 1.0, 1e3])
COMPLETE = np.array([[3.0, 0.2, 1.0], [0.2, 1.0, 0.1], [1.0, 0.1, 2.0]]) / np.outer(UNIT, UNIT)
BEST = np.array([2.0, 0.5, -1.0]) * UNIT


def test_pseudo_values_average_to_the_maximum_wherever_the_scores_were_taken():
    rng = np.random.default_rng(0)
    thetas = UNIT * rng.normal(size=(40, 3))
    noise = rng.normal(size=(20, 3, 4)) / UNIT[:, None]
    noise = np.concatenate([noise, -noise])
    scores = [
        (COMPLETE @ (BEST - t))[:, None] + away for t, away in zip(thetas, noise, strict=True)
    ]
    window = [
        SimpleNamespace(flat=t, scores=s, score=s.mean(axis=1))
        for t, s in zip(thetas, scores, strict=True)
    ]
    estimate, error, drift = average(window, COMPLETE)
    np.testing.assert_allclose(estimate, BEST, rtol=1e-10)
    np.testing.assert_allclose(drift, BEST - thetas.mean(axis=0), rtol=1e-10)
    assert (error > 0).all()


def test_a_step_ends_at_the_maximum_and_goes_uphill_where_there_is_none():
    score = COMPLETE @ BEST
    step, decrement = newton(COMPLETE, score)
    np.testing.assert_allclose(step, BEST, rtol=1e-10)
    np.testing.assert_allclose(decrement**2, score @ BEST, rtol=1e-10)
    assert score @ newton(-COMPLETE, score)[0] > 0


def test_louis_formula_stays_positive():
    observed = observed_information(COMPLETE, 0.3 * COMPLETE)
    np.testing.assert_allclose(observed, 0.7 * COMPLETE, rtol=1e-10)
    np.testing.assert_allclose(missing_share(COMPLETE, 0.3 * COMPLETE), 0.3, rtol=1e-10)
    observed = observed_information(COMPLETE, 2 * COMPLETE)
    np.testing.assert_allclose(observed, LEAST_OBSERVED * COMPLETE, rtol=1e-10)


def test_an_entry_of_which_nothing_is_known_stays_where_it_is():
    """Its score and information, of a logit far from 0, are rounding; and change no other's."""
    information = np.diag([4.0, 1e-12])
    information[0, 1] = information[1, 0] = 1e-9
    step, length = newton(information, np.array([2.0, 1e-8]))
    np.testing.assert_allclose(step, [0.5, 0.0])
    np.testing.assert_allclose(length, 1.0)
    window = [
        SimpleNamespace(flat=np.array([0.0, -20.0]), scores=s, score=s.mean(axis=1))
        for s in np.random.default_rng(1).normal(2.0, [[[0.1], [1e-8]]], (20, 2, 4))
    ]
    estimate, error, _ = average(window, information)
    assert abs(estimate[0] - 0.5) < 0.05
    assert (estimate[1], error[1]) == (-20.0, 0.0)
