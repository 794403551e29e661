"""Any covariance: L is a lower triangle, its entries the parameters (lme4's ``|``)."""

from dataclasses import dataclass
from functools import cache

import numpy as np

from sklmm.covariances.base import Covariance


@dataclass(frozen=True)
class Unstructured(Covariance):
    """Any covariance of r coefficients; in any basis of z's columns it is one.

    lme4's ``|`` and glmmTMB's `us`.

    Parameters
    ----------
    r : int, optional
        Number of coefficients, which a term's columns tell.

    Examples
    --------
    >>> from sklmm import RandomEffect, Unstructured
    >>> str(RandomEffect("subject", slopes=["days"], covariance=Unstructured()))
    'us(1 + days | subject)'
    """

    r: int | None = None
    basis = "any"
    name = "us"

    @property
    def n_params(self):
        """The triangle's entries."""
        return self.r * (self.r + 1) // 2

    def factor(self, params):
        """The triangle that has the parameters column by column."""
        L = np.zeros((self.r, self.r))
        L[vech_indices(self.r)] = params
        return L

    def params(self, L):
        """The triangle's entries."""
        return L[vech_indices(self.r)]

    def fitted(self, root):
        """The Cholesky factor's entries."""
        L = root
        if root.shape[1] > self.r or np.triu(root, 1).any():
            L = np.linalg.qr(root.T, mode="r").T
        return self.params(self.oriented(L))

    def oriented(self, L):
        """The triangle with its columns' signs turned."""
        return L * np.where(L.diagonal() < 0, -1.0, 1.0)

    def slopes(self, L):
        """Unit matrices."""
        return _units(self.r)

    def directions(self):
        """Unit matrices, symmetric."""
        return _units(self.r) + _units(self.r).transpose(0, 2, 1)

    @property
    def is_sd(self):
        """The diagonal."""
        rows, columns = vech_indices(self.r)
        return rows == columns


@cache
def vech_indices(r):
    """Rows and columns of a lower triangle, column by column."""
    columns, rows = np.triu_indices(r)
    return rows, columns


@cache
def _units(r):
    rows, columns = vech_indices(r)
    units = np.zeros((len(rows), r, r))
    units[np.arange(len(rows)), rows, columns] = 1.0
    return units
