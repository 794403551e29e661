"""The unknowns x = (beta, u_1, ..., u_K) of compiled steps: where they lie, padded, and flat."""

from functools import cached_property
from itertools import pairwise

import numpy as np

from sklmm.engine.equations.crossproducts import FEW
from sklmm.engine.runtime.compilation import bucket, pad


class Layout:
    """Where beta and each term's levels lie among the unknowns, flat [P, c].

    shapes (n_levels, r) of each term, padded to sizes that compiled steps share, and its `parts`,
    slices of the unknowns; `small`, which terms have few levels. Those, whole, and beta are the
    border: `edges` are slices of its entries, for small terms alone.
    """

    def __init__(self, problem):
        blocks, self.p = problem.blocks, problem.p
        self.levels = [b.n_levels for b in blocks]
        self.small = tuple(b.n_levels * b.r <= FEW for b in blocks)
        self.shapes = [
            (b.n_levels if small else bucket(b.n_levels), b.r)
            for b, small in zip(blocks, self.small, strict=True)
        ]
        sizes = np.array([J * r for J, r in self.shapes], int)
        self.parts, self.size = self._slices(sizes)
        self.edges, self.n_border = self._slices(sizes * self.small)

    def _slices(self, sizes):
        """Slices of so many entries one after another, beta before them, and how many they are."""
        ends = self.p + np.cumsum([0, *sizes])
        return [slice(int(a), int(b)) for a, b in pairwise(ends)], int(ends[-1])

    @cached_property
    def real(self):
        """Which unknowns are not padding: bool [P]."""
        out = np.ones(self.size, bool)
        for part, (_, r), levels in zip(self.parts, self.shapes, self.levels, strict=True):
            out[part.start + levels * r : part.stop] = False
        return out

    @cached_property
    def border(self):
        """Which unknowns are beta or of a term of few levels: bool [P]."""
        out = np.ones(self.size, bool)
        for part, small in zip(self.parts, self.small, strict=True):
            out[part] = small
        return out

    def places(self, cross):
        """Where the effects of `CrossProducts`, [Q], lie among the unknowns."""
        out = np.empty(cross.Q, np.intp)
        for own, part in zip(cross.slices, self.parts, strict=True):
            out[own] = part.start + np.arange(own.stop - own.start)
        return out

    def split(self, flat):
        """[P, c] -> beta [p, c] and a list of [n_levels, r, c], without the padding."""
        flat = np.asarray(flat)
        of_terms = zip(self.parts, self.shapes, self.levels, strict=True)
        parts = [flat[part].reshape(*shape, -1)[:levels] for part, shape, levels in of_terms]
        return flat[: self.p], parts

    def effects(self, factors, flat):
        """b = L u of each term [n_levels, r, c], from unknowns flat [P, c]."""
        _, parts = self.split(flat)
        return [np.einsum("ab,jbc->jac", L, u) for L, u in zip(factors, parts, strict=True)]

    def join(self, beta, parts):
        """The inverse of `split`, padding with zeros."""
        columns = [beta]
        for (J, r), part in zip(self.shapes, parts, strict=True):
            columns.append(pad(part, J).reshape(J * r, -1))
        return np.concatenate(columns)
