"""Ranges of a family's parameters, and the whole line on which they are estimated."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.special import expit, logit


class Constraint(NamedTuple):
    """A range: maps from the whole line and to it, the slope of the former by its value, and ends.

    They are of arrays as of numbers.
    """

    constrain: Callable
    unconstrain: Callable
    slope: Callable
    bounds: tuple


FREE = -np.inf, np.inf
CONSTRAINTS = {
    "positive": Constraint(np.exp, np.log, lambda value: value, (0.0, np.inf)),
    "real": Constraint(lambda raw: raw, lambda value: value, lambda value: 1.0, FREE),
    "unit": Constraint(expit, logit, lambda value: value * (1 - value), (0.0, 1.0)),
    "one_to_two": Constraint(
        lambda raw: 1 + expit(raw),
        lambda value: logit(value - 1),
        lambda value: (value - 1) * (2 - value),
        (1.0, 2.0),
    ),
}
#: Those of a family of your own.
OFFERED = ("positive", "real", "unit")


def bounds_of(kind):
    """(lower, upper) of a parameter by its constraint; one that is pinned, to a number, is free."""
    return CONSTRAINTS[kind].bounds if kind in CONSTRAINTS else FREE
