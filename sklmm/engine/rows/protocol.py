"""What the engine asks of a table's rows, wherever they are.

Rows know coefficients beta [p, c] and effects b = Lambda u, [J, r, c] of each term, never theta.
All that leaves them is a sum over rows, so that rows in several places add up what each of them
answers; arrays of the size of the table stay. Rows in parts are parted by whole levels of the
term that has most effects: then a pair of levels is in one part, and `Pairs.own` and
`Pairs.squares`, which square what has been summed, are sums over parts too.
"""

from typing import Protocol


class Pairs(Protocol):
    """C = Z_k^T w Z, sparse [J * r, Q], of one term and others; Q columns, whole levels of those.

    It stays with the rows: vectors go there and come back.
    """

    shape: tuple

    def down(self, flat):
        """C flat: [Q, c] goes, each level's [J * r, c] comes back from the part that has it."""

    def up(self, flat):
        """C^T flat: [J * r, c] goes, a sum [Q, c] comes back."""

    def around(self, blocks, flat):
        """C^T blocks C flat, for blocks [J, r, r] of the levels: a sum [Q, c]."""

    def own(self, blocks, place, q):
        """Diagonal blocks of C^T blocks C: a sum [J', q, q], of the columns at `place`, a slice."""

    def squares(self, e, r):
        """(S r [J * r, c], S^T e [Q, c]) for S the squared entries of C."""

    @property
    def matrix(self):
        """C, a CSR matrix in this process: what a factor of the equations is made of."""


class Rows(Protocol):
    """The rows of a table in standard units, their terms numbered from 0.

    `at` are weights that the rows keep, or None for the table's own.
    """

    n_rows: int
    p: int
    columns: object

    def without_fixed(self):
        """The rows of a model without coefficients: p = 0."""

    def stacked(self, d):
        """Rows of `d` linear predictors, each with coefficients and effects of its own."""

    def same_levels(self, k, other):
        """Whether two terms are over one partition of the rows, however they number its parts."""

    def block_of(self, terms):
        """Z^T w Z, a sum [J, r, r], of terms over one partition, their columns side by side."""

    def blocks(self, at=None):
        """Z_k^T w Z_k of every term, sums [J, r, r]."""

    def fixed(self, at=None):
        """X^T w X, X^T w y and Z_k^T w X of every term: sums [p, p], [p] and [J, r, p]."""

    def response(self, beta):
        """y^T w y, X^T w y and Z_k^T w y of y less X beta: a number, and sums [p] and [J, r]."""

    def pairs(self, k, others, at=None):
        """`Pairs` of term k and of some other terms side by side; the sparse columns come last."""
