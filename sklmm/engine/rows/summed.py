"""A problem in standard units from sums of its rows: what `standardize` makes of the rows.

With the sums' columns M = (1, x', y') (`rows.sufficient`) the standard X is M T and y is M t, and a
term's z is z' A (`rows.standard_units`): the standard problem's sums are those of M and z', mapped.
So the same numbers come out as from the rows, to rounding, wherever the sums tell them.
"""

from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
from scipy import sparse

from sklmm.engine.linalg.blocks import LocalPairs
from sklmm.engine.rows.pair_sums import ranks
from sklmm.engine.rows.standard_units import standard_units
from sklmm.engine.rows.sufficient import Statistics


@dataclass(frozen=True, eq=False)
class SummedRows:
    """What `engine.rows.protocol.Rows` sums over pairs of columns, from `Statistics`.

    X = M T and y = M t of M's columns; of each term A [r, r] with z = z' A. Sums are multiplied by
    `unit`.
    """

    statistics: Statistics
    T: np.ndarray
    t: np.ndarray
    bases: tuple
    unit: float = 1.0
    columns = None
    _known: dict = field(default_factory=dict, repr=False)

    @property
    def n_rows(self):
        """Number of rows."""
        return self.statistics.n_rows

    @property
    def p(self):
        """Number of columns of X."""
        return self.T.shape[1]

    def blocks(self, at=None):
        """Z_k^T w Z_k of every term, [J, r, r] each."""
        if "blocks" not in self._known:
            parts = zip(self.bases, self.statistics.own, strict=True)
            self._known["blocks"] = [A.T @ (self.unit * own) @ A for A, own in parts]
        return self._known["blocks"]

    def fixed(self, at=None):
        """X^T w X [p, p], X^T w y [p], and Z_k^T w X of every term, [J, r, p] each."""
        G = self.unit * self.statistics.table
        return self.T.T @ G @ self.T, self.T.T @ (G @ self.t), self._of_terms(self.T)

    def response(self, beta):
        """y^T w y, X^T w y [p], and Z_k^T w y of every term, [J, r] each, of y less X beta [p]."""
        rest = self.t - self.T @ beta
        Gy = self.unit * self.statistics.table @ rest
        return float(rest @ Gy), self.T.T @ Gy, self._of_terms(rest)

    def _of_terms(self, columns):
        """Z_k^T w M columns of every term, [J, r, ...] each."""
        parts = zip(self.bases, self.statistics.fixed, strict=True)
        return [np.einsum("ab,ja...->jb...", A, self.unit * (own @ columns)) for A, own in parts]

    def pairs(self, k, others, at=None):
        """`Pairs` of a term and some others, side by side."""
        if k is None:
            width = sum(self._levels(other) * len(self.bases[other]) for other in others)
            return LocalPairs([sparse.csr_array((0, width))], 1)
        counts, A = self.statistics.counts[k], self.bases[k]
        if not others:
            return LocalPairs([sparse.csr_array((len(counts) * len(A), 0))], len(A))
        first, *more = (self.statistics.pair(k, other).by(k) for other in others)
        bases = [A, *(self.bases[other] for other in others)]
        return first.standard(more, bases, self.unit, counts)

    def _levels(self, k):
        return len(self.statistics.counts[k])

    def same_levels(self, k, other):
        """Whether two terms are over one partition of the rows, however they number its parts."""
        if k == other:
            return True
        partners = self.statistics.pair(k, other).partners
        return partners is not None and self._levels(k) == self._levels(other)

    def _partners(self, k, other):
        """The level of another term over the same partition that each of a term's levels is."""
        if k == other:
            return np.arange(self._levels(k))
        sums = self.statistics.pair(k, other)
        return sums.partners if sums.terms[0] == k else ranks(sums.partners)

    def block_of(self, terms):
        """Z^T w Z [J, r, r] of terms over one partition of the rows, their columns side by side."""
        widths = [len(self.bases[k]) for k in terms]
        ends = np.cumsum([0, *widths])
        places = [slice(a, b) for a, b in pairwise(ends)]
        at = [self._partners(terms[0], k) for k in terms]
        out = np.zeros((self._levels(terms[0]), ends[-1], ends[-1]))
        for i, k in enumerate(terms):
            out[:, places[i], places[i]] = self.blocks()[k][at[i]]
            for j, other in enumerate(terms[:i]):
                # Of each level of k the columns are those of its partner alone.
                C = self.pairs(k, [other]).matrix.tocoo()
                r, q = widths[i], widths[j]
                both = np.zeros((len(out), r, q))
                both[C.row // r, C.row % r, C.col % q] = C.data
                out[:, places[i], places[j]] = both[at[i]]
                out[:, places[j], places[i]] = both[at[i]].transpose(0, 2, 1)
        return out


def problem_of(statistics, blocks, names, *, unit=1.0, **known):
    """`Problem` in standard units from sums: what `standardize` makes of the rows.

    Arguments are those of `standard_units`.
    """
    found = standard_units(statistics, blocks, names, unit=unit, **known)
    rows = SummedRows(statistics, found.T, found.t, found.bases, unit)
    return replace(found.problem, rows=rows)
