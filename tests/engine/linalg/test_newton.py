"""One Newton step: of quadratics, saddles and directions without information."""

import numpy as np

from sklmm.engine.linalg.newton import ascent, by_differences, inverse, updated

UNIT = np.array([1e-4, 1.0, 1e3])
INFORMATION = np.array([[3.0, 0.2, 1.0], [0.2, 1.0, 0.1], [1.0, 0.1, 2.0]]) / np.outer(UNIT, UNIT)
BEST = np.array([2.0, 0.5, -1.0]) * UNIT


def test_a_quadratic_s_maximum_is_one_step_away():
    step, length = ascent(INFORMATION, INFORMATION @ BEST)
    np.testing.assert_allclose(step, BEST, rtol=1e-10)
    np.testing.assert_allclose(length**2, BEST @ INFORMATION @ BEST, rtol=1e-10)
    assert ascent(np.zeros((0, 0)), np.zeros(0))[1] == 0


def test_a_step_climbs_from_a_saddle_and_damping_shortens_it():
    score = INFORMATION @ BEST
    assert score @ ascent(-INFORMATION, score)[0] > 0
    assert ascent(INFORMATION, score, damping=1.0)[1] < 0.8 * ascent(INFORMATION, score)[1]


def test_flat_directions_are_left_alone_or_have_the_least_information():
    flat = np.diag([1.0, 1e-25])
    assert ascent(flat, np.array([1.0, 1e-9]), flat=1e-9)[0][1] == 0
    tied = np.array([[1.0, 1.0], [1.0, 1.0]])
    step, _ = ascent(tied, np.array([1.0, -1.0]), least=0.5)
    np.testing.assert_allclose(step, [1.0, -1.0])


def test_the_inverse_of_a_regular_and_of_a_singular_information():
    np.testing.assert_allclose(inverse(INFORMATION), np.linalg.inv(INFORMATION), rtol=1e-8)
    np.testing.assert_allclose(inverse(np.ones((2, 2))), np.full((2, 2), 0.25))


def test_differences_of_a_score_are_the_information():
    A = np.array([[2.0, 0.5], [0.5, 1.0]])
    found = by_differences(lambda delta: -A @ delta + 0.1 * delta**2, 2)
    np.testing.assert_allclose(found, A, atol=1e-10)


def test_what_a_step_tells_is_learnt_and_what_was_known_is_no_news():
    """The second time nothing is missing, and 0 / 0 would be no information."""
    step = np.array([0.1, -0.2, 0.4])
    one = updated(np.eye(3), step, INFORMATION @ step)
    np.testing.assert_allclose(one @ step, INFORMATION @ step, rtol=1e-12)
    np.testing.assert_array_equal(updated(one, step, one @ step), one)
