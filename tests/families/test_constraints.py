"""Ranges of parameters: their maps are inverse to each other, and slopes and ends are the maps'."""

import numpy as np
import pytest
from scipy.optimize import approx_fprime

from sklmm.families.constraints import CONSTRAINTS, bounds_of


@pytest.mark.parametrize("kind", CONSTRAINTS)
def test_maps_slopes_and_ends_are_of_one_range(kind):
    constraint, raw = CONSTRAINTS[kind], np.linspace(-3, 3, 7)
    values = constraint.constrain(raw)
    np.testing.assert_allclose(constraint.unconstrain(values), raw, atol=1e-12)
    slopes = [approx_fprime(own, lambda at: constraint.constrain(at)[0])[0] for own in raw[:, None]]
    np.testing.assert_allclose(constraint.slope(values) * np.ones(7), slopes, rtol=1e-5)
    with np.errstate(over="ignore"):
        ends = constraint.constrain(np.array([-800.0, 800.0]))
    np.testing.assert_allclose(np.clip(ends, *bounds_of(kind)), ends)
    np.testing.assert_array_less(bounds_of(kind)[0], values)
    np.testing.assert_array_less(values, bounds_of(kind)[1])
    if kind != "real":
        finite = np.isfinite(bounds_of(kind))
        np.testing.assert_allclose(ends[finite], np.array(bounds_of(kind))[finite])


def test_a_pinned_parameter_has_no_ends():
    assert bounds_of(0.5) == (-np.inf, np.inf)
