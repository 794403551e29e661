"""The covariance of any correlations, its factor a lower triangle."""

from functools import cache

import numpy as np


@cache
def vech_indices(r):
    """Rows and columns of a lower triangle, column by column."""
    columns, rows = np.triu_indices(r)
    return rows, columns
