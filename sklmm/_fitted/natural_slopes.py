"""How a covariance of effects moves with the SDs and correlations that are reported of it."""

import numpy as np

from sklmm.covariances.base import reported_slopes
from sklmm.result import covariance_root


def natural_slopes(covariance, matrix):
    """Derivatives [k, r, r] of a matrix [r, r] in the k values that its covariance reports.

    They are those by the covariance's parameters, times the inverse of what is reported by these.
    Where there are fewer parameters than values, these move together.
    """
    if not len(covariance.reported):
        return np.zeros((0, *matrix.shape))
    L = covariance.nearest(covariance_root(matrix))
    changes = covariance.slopes(L)
    half = changes @ L.T
    by_params = half + half.transpose(0, 2, 1)
    shown = reported_slopes(L, changes, covariance.reported)
    return np.tensordot(np.linalg.pinv(shown).T, by_params, 1)
