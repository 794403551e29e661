"""The unknowns of the mixed-model equations: where they lie, padded."""

import numpy as np

from sklmm.engine.equations.crossproducts import FEW
from sklmm.engine.runtime.buckets import bucket, pad


class Layout:
    """Where beta and each block's levels lie in a flat, padded vector of unknowns."""

    def __init__(self, problem):
        self.p = problem.p
        self.small = [k for k, b in enumerate(problem.blocks) if b.n_levels * b.r <= FEW]
        self.shapes = [
            (b.n_levels if k in self.small else bucket(b.n_levels), b.r)
            for k, b in enumerate(problem.blocks)
        ]
        self.levels = [b.n_levels for b in problem.blocks]
        self.size = self.p + sum(J * r for J, r in self.shapes)

    @property
    def real(self):
        """Which unknowns are not padding."""
        parts = [
            np.arange(J * r) < levels * r
            for (J, r), levels in zip(self.shapes, self.levels, strict=True)
        ]
        return np.concatenate([np.ones(self.p, bool), *parts])

    @property
    def border(self):
        """Which unknowns are beta or of a term of few levels."""
        parts = [np.full(J * r, k in self.small) for k, (J, r) in enumerate(self.shapes)]
        return np.concatenate([np.ones(self.p, bool), *parts])

    @property
    def of_border(self):
        """Which of the terms are of few levels."""
        return tuple(k in self.small for k in range(len(self.shapes)))

    @property
    def starts(self):
        """Where the terms of few levels begin among the border's entries."""
        sizes = [self.shapes[k][0] * self.shapes[k][1] for k in self.small]
        return [self.p + sum(sizes[:i]) for i in range(len(sizes))]

    def places(self, cross):
        """Where the effects of a `Cross`, [Q], lie among the unknowns."""
        starts = self.p + np.cumsum([0, *(J * r for J, r in self.shapes)])
        out = np.empty(cross.Q, np.intp)
        for part, start in zip(cross.slices, starts[:-1], strict=True):
            out[part] = start + np.arange(part.stop - part.start)
        return out

    def split(self, flat):
        """[p + Q', c] -> [p, c] and a list of [n_levels, r, c], without the padding."""
        flat = np.asarray(flat)
        parts, first = [], self.p
        for (J, r), levels in zip(self.shapes, self.levels, strict=True):
            block = flat[first : first + J * r].reshape(J, r, -1)[:levels]
            parts.append(block)
            first += J * r
        return flat[: self.p], parts

    def effects(self, factors, flat):
        """b = L u of each block [n_levels, r, c], from unknowns flat [p + Q', c]."""
        _, parts = self.split(flat)
        return [np.einsum("ab,jbc->jac", L, u) for L, u in zip(factors, parts, strict=True)]

    def join(self, beta, parts):
        """The inverse of `split`, padding with zeros."""
        columns = [beta]
        for (J, r), part in zip(self.shapes, parts, strict=True):
            columns.append(pad(part, J).reshape(J * r, -1))
        return np.concatenate(columns)
