"""Independent coefficients: L is diagonal, its entries the SDs of either sign (lme4's ``||``)."""

from dataclasses import dataclass

import numpy as np

from sklmm.covariances.base import TINY, Covariance


@dataclass(frozen=True)
class Diagonal(Covariance):
    """Independent coefficients, of a variance each; z's columns may be scaled, but not mixed.

    lme4's ``||`` and glmmTMB's `diag`; homogeneous it is one term for the combinations of the group
    and a factor, ``(1 | group:factor)``.

    Parameters
    ----------
    r : int, optional
        Number of coefficients, which a term's columns tell.
    homogeneous : bool, default=False
        Whether all have one variance.

    Examples
    --------
    >>> from sklmm import Diagonal, RandomEffect
    >>> str(RandomEffect("subject", slopes=["days"], covariance=Diagonal()))
    'diag(1 + days | subject)'
    """

    r: int | None = None
    homogeneous: bool = False
    name = "diag"

    @property
    def basis(self):
        """With one variance the columns' units are part of the model."""
        return "none" if self.homogeneous else "scale"

    @property
    def n_params(self):
        """An SD a coefficient, or one."""
        return 1 if self.homogeneous else self.r

    @property
    def saturates(self):
        """Also one variance of each row is one with the residual's."""
        return not self.homogeneous

    def factor(self, params):
        """The SDs on the diagonal."""
        return np.diag(np.broadcast_to(params, self.r))

    def params(self, L):
        """The diagonal."""
        return np.diag(L)[: self.n_params]

    def fitted(self, root):
        """Root mean squares."""
        sds = np.linalg.norm(root, axis=1)
        return np.sqrt(np.mean(sds**2, keepdims=True)) if self.homogeneous else sds

    def oriented(self, L):
        """Without the signs."""
        return np.abs(L)

    @property
    def reported(self):
        """The SDs."""
        return tuple((i, i) for i in range(self.n_params))

    def named(self, names, stem):
        """By the coefficients; one SD by all."""
        return (stem or ", ".join(names),) if self.homogeneous else tuple(names)

    def at_boundary(self, L, least):
        """Each SD has a boundary of its own."""
        return np.abs(self.params(L)) < least

    def leave_boundary(self, L, G, least, size, gain):
        """Raised are SDs one by one."""
        sds = self.params(L)
        rise = np.mean(np.diag(G), keepdims=True) if self.homogeneous else np.diag(G)
        up = (np.abs(sds) < least) & (rise > gain)
        raised = np.sqrt(sds**2 + size**2 + TINY**2)
        return self.factor(np.where(up, raised, sds)) if up.any() else None
