"""Parameters of a Gaussian model, and the order of a covariance factor's entries."""

from functools import cache
from typing import NamedTuple

import numpy as np


class Params(NamedTuple):
    """theta in standard units: factors, a tuple of lower triangles [r_k, r_k], and sigma."""

    factors: tuple
    sigma: float


@cache
def vech_indices(r):
    """Rows and columns of a lower triangle, column by column."""
    columns, rows = np.triu_indices(r)
    return rows, columns


def n_theta(factors):
    """Length of theta, log sigma included."""
    return sum(len(L) * (len(L) + 1) // 2 for L in factors) + 1


def initial_params(problem):
    """Half the variance to the residual and half to the terms, in equal parts."""
    free = [b for b in problem.blocks if b.sd is None]
    share = 0.5 / len(free) if free else 0.0
    factors = tuple(
        np.eye(b.r) * (np.sqrt(share / b.r) if b.sd is None else b.sd) for b in problem.blocks
    )
    sigma = problem.sigma if problem.sigma is not None else np.sqrt(0.5 if free else 1.0)
    return Params(factors, float(sigma))
