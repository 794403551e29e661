"""Covariances of several terms over the same levels, side by side: independent of each other."""

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from scipy.linalg import block_diag

from sklmm.covariances.base import Covariance


@dataclass(frozen=True)
class Beside(Covariance):
    """The block diagonal covariance of coefficients of which `parts` are the covariances."""

    parts: tuple

    @property
    def r(self):
        """Number of coefficients of all."""
        return sum(part.r for part in self.parts)

    @property
    def n_params(self):
        """Number of parameters of all."""
        return sum(part.n_params for part in self.parts)

    @property
    def linear(self):
        """Whether all are."""
        return all(part.linear for part in self.parts)

    @property
    def saturates(self):
        """Whether one does."""
        return any(part.saturates for part in self.parts)

    @property
    def is_sd(self):
        """Which parameters are SDs."""
        return np.concatenate([part.is_sd for part in self.parts])

    @property
    def columns(self):
        """The coefficients of each part, slices."""
        return _slices([part.r for part in self.parts])

    @property
    def reports(self):
        """What each part reports, slices of all that is."""
        return _slices([len(part.reported) for part in self.parts])

    @property
    def _own(self):
        """Each part with its coefficients and its parameters."""
        params = _slices([part.n_params for part in self.parts])
        return zip(self.parts, self.columns, params, strict=True)

    def factor(self, params):
        """The parts' factors on the diagonal."""
        return block_diag(*(part.factor(params[mine]) for part, _, mine in self._own))

    def params(self, L):
        """Those of the parts' factors."""
        return np.concatenate([part.params(L[own, own]) for part, own, _ in self._own])

    def fitted(self, root):
        """Each part's by itself."""
        return np.concatenate([part.fitted(root[own]) for part, own, _ in self._own])

    @property
    def reported(self):
        """What the parts report, one after another."""
        return tuple(
            (own.start + i, own.start + j) for part, own, _ in self._own for i, j in part.reported
        )

    def in_units(self, sizes):
        """The parts in those units."""
        return Beside(tuple(part.in_units(sizes[own]) for part, own, _ in self._own))

    def oriented(self, L):
        """Each part's own."""
        return block_diag(*(part.oriented(L[own, own]) for part, own, _ in self._own))

    def slopes(self, L):
        """Those of the parts, 0 elsewhere."""
        out = np.zeros((self.n_params, self.r, self.r))
        for part, own, mine in self._own:
            out[mine, own, own] = part.slopes(L[own, own])
        return out

    def bends(self, L):
        """Those of the parts, 0 elsewhere."""
        out = np.zeros((self.n_params, self.n_params, self.r, self.r))
        for part, own, mine in self._own:
            out[mine, mine, own, own] = part.bends(L[own, own])
        return out

    def directions(self):
        """Those of the parts, 0 elsewhere."""
        out = np.zeros((self.n_params, self.r, self.r))
        for part, own, mine in self._own:
            out[mine, own, own] = part.directions()
        return out

    def at(self, L):
        """Itself where all parts are."""
        found = tuple(part.at(L[own, own]) for part, own, _ in self._own)
        same = all(one is other for one, other in zip(found, self.parts, strict=True))
        return self if same else replace(self, parts=found)

    def at_boundary(self, L, least):
        """Each part's own."""
        return np.concatenate([part.at_boundary(L[own, own], least) for part, own, _ in self._own])

    def to_boundary(self, L):
        """A factor with the parts at their ends that are near one."""
        return self._changed(L, lambda part, own: part.to_boundary(L[own, own]))

    def elsewhere(self, L, least):
        """A factor with the parts elsewhere that have such a start."""
        return self._changed(L, lambda part, own: part.elsewhere(L[own, own], least))

    def leave_boundary(self, L, G, least, size, gain):
        """A factor with the parts raised that are to be."""
        return self._changed(
            L, lambda part, own: part.leave_boundary(L[own, own], G[own, own], least, size, gain)
        )

    def _changed(self, L, change):
        """L with the parts changed of which `change` makes another factor, None without any."""
        out, found = L.copy(), False
        for part, own, _ in self._own:
            if (new := change(part, own)) is not None:
                out[own, own], found = new, True
        return out if found else None


def _slices(sizes):
    ends = np.cumsum([0, *sizes])
    return [slice(int(a), int(b)) for a, b in pairwise(ends)]
