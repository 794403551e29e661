"""Independent coefficients: L is diagonal, its entries the SDs of either sign (lme4's ``||``)."""

from dataclasses import dataclass

import numpy as np

from sklmm.covariances.base import TINY, Covariance


@dataclass(frozen=True)
class Diagonal(Covariance):
    """Independent coefficients of a variance each; z's columns may be scaled, but not mixed."""

    r: int | None = None
    basis = "scale"
    name = "diag"

    @property
    def n_params(self):
        """An SD a coefficient."""
        return self.r

    def factor(self, params):
        """The SDs on the diagonal."""
        return np.diag(params)

    def params(self, L):
        """The diagonal."""
        return np.diag(L)

    def fitted(self, root):
        """Root mean squares."""
        return np.linalg.norm(root, axis=1)

    def oriented(self, L):
        """Without the signs."""
        return np.abs(L)

    @property
    def reported(self):
        """The SDs."""
        return tuple((i, i) for i in range(self.r))

    def at_boundary(self, L, least):
        """Each SD has a boundary of its own."""
        return np.abs(np.diag(L)) < least

    def leave_boundary(self, L, G, least, size, gain):
        """Raised are SDs one by one."""
        sds = np.diag(L)
        up = (np.abs(sds) < least) & (np.diag(G) > gain)
        raised = np.sqrt(sds**2 + size**2 + TINY**2)
        return np.diag(np.where(up, raised, sds)) if up.any() else None
