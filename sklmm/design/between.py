"""Times that the fit had not: their effects, by those of the fit's times.

Of effects b ~ N(0, Sigma) at the fit's times, those at others are

    b_new = W b + e,   W = Sigma_new,old Sigma^-1,   e ~ N(0, Sigma_new - W Sigma_old,new),

so that a row at a new time has W's row for z, and e's variance besides.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Between:
    """Rows at new times: their number [n_rows], -1 at known ones, and e's covariance [m, m]."""

    index: np.ndarray
    cov: np.ndarray

    def variance(self, rows):
        """e's variance [n] in some rows, 0 at known times."""
        index = self.index[rows]
        return np.where(index < 0, 0.0, np.diag(self.cov)[index])

    def draws(self, levels, n_samples, rng):
        """Draws of e [n_rows, n_samples], those of one level at one time once; levels [n_rows]."""
        values, vectors = np.linalg.eigh(self.cov)
        root = vectors * np.sqrt(np.maximum(values, 0.0))
        rows = np.flatnonzero(self.index >= 0)
        known, place = np.unique(levels[rows], return_inverse=True)
        e = root @ rng.standard_normal((len(known), len(root), n_samples))
        out = np.zeros((len(levels), n_samples))
        out[rows] = e[place, self.index[rows]]
        return out


def between(term, table, matrix):
    """(z [n_rows, r] of a term, `Between`), or None where all times are known, or none can be.

    `matrix` is the covariance [r, r] of its effects.
    """
    coded = term.left.coded[0] if len(term.left.coded) == 1 else None
    if coded is None or coded.kind != "time":
        return None
    values, places = coded.times(table)
    new = places < 0
    if not new.any():
        return None
    times, index = np.unique(values[new], return_inverse=True)
    found = term.covariance.between(matrix, times)
    if found is None:
        return None
    weights, cov = found
    z, number = np.zeros((len(values), len(coded.labels))), np.full(len(values), -1)
    known = np.flatnonzero(~new)
    z[known, places[known]] = 1.0
    z[new], number[new] = weights[index], index
    return z, Between(number, cov)
