"""A density of which chains of both backends are to have the moments."""

import numpy as np
from scipy.integrate import quad


def log_density(v, sin=np.sin, wiggle=0.5):
    """Skewed and with light tails, in the functions of an array library."""
    return -0.5 * v**2 - 0.1 * v**4 + wiggle * sin(v)


def assert_moments(states, axes):
    """The first four moments of states are those by quadrature.

    Means over `axes`, of draws and of a mirrored pair, are independent.
    """
    total = quad(lambda v: np.exp(log_density(v)), -8, 8)[0]
    for power in (1, 2, 3, 4):
        moment = quad(lambda v, k=power: v**k * np.exp(log_density(v)), -8, 8)[0] / total
        pairs = (states**power).mean(axis=axes).ravel()
        assert abs(pairs.mean() - moment) < 4.5 * pairs.std() / np.sqrt(pairs.size)
