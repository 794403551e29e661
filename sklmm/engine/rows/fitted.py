"""What a fitted model asks of rows in shards, in the table's units."""

import numpy as np

from sklmm.engine.rows import shard
from sklmm.engine.rows.protocol import Coefs

#: Share of a column's largest value that is rounding of its way to standard units and back.
ROUNDING = 1e-10


class FittedRows:
    """Rows in shards, `PartedRows` in `StandardUnits`, of one predictor or of several.

    As they are before they are `stacked`.
    """

    def __init__(self, rows, standard):
        self.rows, self.problem = rows, standard.problem
        self._back = [np.linalg.inv(A) for A in self.problem.z_bases]
        self._executor, self._parts = rows.executor, rows.parts

    @property
    def n_rows(self):
        """Number of rows."""
        return self.rows.n_rows

    def _coefs(self, result, effects=True):
        """The coefficients and effects of an EMResult of one predictor."""
        problem = self.problem
        coef = result.coef / problem.y_scale
        beta = np.linalg.lstsq(problem.basis, coef, rcond=None)[0]
        pairs = zip(self._back, result.effects, strict=True)
        parts = [own @ A.T / problem.y_scale * effects for A, own in pairs]
        return Coefs(beta[:, None], tuple(own[:, :, None] for own in parts))

    def log_link_mean(self, result):
        """Sum of w times the mean response of a log link, over the effects' distribution too."""
        pairs = zip(self._back, result.covariances, strict=True)
        given = self._coefs(result, False), [A @ cov @ A.T for A, cov in pairs]
        scale = self.problem.y_scale
        return self._executor.summed(shard.log_link_mean, self._parts, scale, *given)

    def n_below(self, result, edge):
        """Rows whose predictor is at an edge or below."""
        given = self.problem.y_scale, self._coefs(result), edge
        return self._executor.summed(shard.n_below, self._parts, *given)

    def largest_variance(self, covariance):
        """The largest variance of a row's fixed part, by that of the coefficients."""
        back = np.linalg.pinv(self.problem.basis)
        own = back @ covariance @ back.T
        return np.max(self._executor.told(shard.largest_variance, self._parts, own))

    def sample(self, most, fit_intercept):
        """(X, y, weights) of at most so many rows from all over the table.

        Columns of X [n, n_columns] that depend on others are 0.
        """
        found = self.rows.sample(most)
        X = found.X @ np.linalg.pinv(self.problem.basis)
        # What was 0, or 1, is so to the last digit.
        X[np.abs(X) < ROUNDING * np.abs(X).max(axis=0)] = 0.0
        X[:, : int(fit_intercept)] = 1.0
        return X, found.y, found.weights
