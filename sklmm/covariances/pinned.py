"""Independent coefficients of known SDs: nothing is estimated."""

from dataclasses import dataclass

import numpy as np

from sklmm.covariances.base import Covariance


@dataclass(frozen=True)
class Pinned(Covariance):
    """Independent coefficients of the SDs `sds`, a tuple [r]."""

    sds: tuple
    basis = "scale"
    n_params = 0
    saturates = False

    @property
    def r(self):
        """Number of coefficients."""
        return len(self.sds)

    def factor(self, params):
        """The known SDs on the diagonal."""
        return np.diag(np.array(self.sds, float))

    def fitted(self, root):
        """No parameters, whatever the effects."""
        return np.zeros(0)

    def params(self, L):
        """No parameters."""
        return np.zeros(0)

    def in_units(self, sizes):
        """The same SDs in those units."""
        return Pinned(tuple(float(sd / size) for sd, size in zip(self.sds, sizes, strict=True)))

    @property
    def reported(self):
        """The SDs."""
        return tuple((i, i) for i in range(self.r))
