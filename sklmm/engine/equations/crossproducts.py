"""Cross-products of the rows, at one vector of weights: all that a model's equations know of them.

Those of a Gaussian model are made once a fit; of others, once a Newton step, by new weights.

The effects are flat, [Q, ...]: those of the largest term, E, first, then the others, R, terms of
few effects before the rest. With G = Z^T w Z,

    G_EE block diagonal, C = Z_E^T w Z_R sparse, G_RR sparse, F = Z^T w X, Z^T w y, X^T w X, ...

The coefficients of sparse columns (`engine.rows.sparse_fixed`) come last in R, as effects without a
prior.

y is what least squares on X, with coefficients `ols`, leave.

The equations of spherical effects u are solved with E eliminated level by level:

    H = Lambda^T G Lambda / s^2 + I = [ D    B^T ]     D block diagonal, one block per level of E,
                                      [ B   H_RR ]     S = H_RR - B D^{-1} B^T.

What is left is the Schur complement S [Q_R, Q_R]: factorised (`equations.schur_cholesky`) or solved
by conjugate gradients (`equations.schur_cg`). One grouping factor costs no more than its rows,
however many its levels. MixedModels.jl orders its blocked factor in the same way (Bates, Maechler,
Bolker & Walker 2015, J. Stat. Softw. 67(1), 1-48, on lme4's). A term whose levels are coupled, by a
known relationship or by rows that belong to several of them, is never eliminated; where all are,
nothing is.
"""

from functools import cached_property
from typing import ClassVar, NamedTuple

import numpy as np
from scipy import sparse

from sklmm.engine.linalg.blocks import (
    RowSquares,
    block_diagonal,
    congruent,
    invert,
    log_det,
    roots,
    turn,
    turn_all,
)
from sklmm.engine.linalg.repeated import Repeated

#: A term of at most this many effects counts as one of few.
FEW = 64


class Independent:
    """The prior precision P of spherical effects u where all are independent: I.

    `equations.prior.Related` is that of terms with related levels. Effects are flat, and begin with
    number `first` of all.
    """

    log_det = 0.0

    def times(self, flat, first=0):
        """P applied to [., ...]."""
        return flat

    def root(self, flat, first=0):
        """B^T applied to [., ...], for P = B^T B."""
        return flat

    def back(self, flat, first=0):
        """B^-1 applied to [., ...]."""
        return flat

    def relate(self, k, levels):
        """A applied to [n_levels, ...] of term k, the levels' covariance but for that of coefs."""
        return levels

    def own(self, k, r):
        """P's blocks [., r, r] of each level of term k."""
        return np.eye(r)

    def relates(self, k):
        """Whether the levels of term k are related."""
        return False

    def add_to(self, square, first=0):
        """Add P - I to a dense matrix of effects."""


def prior_of(blocks, slices):
    """The prior precision of a problem's blocks, at their slices of all effects."""
    if all(block.relation is None for block in blocks):
        return Independent()
    from sklmm.engine.equations.prior import Related

    return Related(blocks, slices)


class CrossProducts:
    """Cross-products of a problem's rows; `slices` has the place of each of its blocks.

    `at` are the weights, as `rows.protocol.Rows` hands them out, or None for the table's own: then
    y, less what least squares explain, is there too, as it is where it is `explained`.
    """

    def __init__(self, problem, at=None, explained=False):
        self.problem, self.rows, self.at = problem, problem.rows, at
        self.columns = columns = problem.columns
        self.p = problem.p if columns is None else columns.Q.shape[1]
        sizes = [b.n_levels * b.r for b in problem.blocks]
        apart = [k for k, b in enumerate(problem.blocks) if not b.coupled]
        self.eliminated = max(apart, key=lambda k: sizes[k]) if apart else None
        self.rest = sorted(
            (k for k in range(len(sizes)) if k != self.eliminated), key=lambda k: sizes[k] > FEW
        )
        self.order = order = [self.eliminated, *self.rest] if apart else self.rest
        ends = np.cumsum([0] + [sizes[k] for k in order])
        place = {k: slice(ends[i], ends[i + 1]) for i, k in enumerate(order)}
        self.slices = [place[k] for k in range(len(sizes))]
        self.prior = prior_of(problem.blocks, self.slices)
        self.n_eliminated = int(ends[1]) if apart else 0
        self.n_random = self.Q = int(ends[-1])
        if columns is not None:
            self.Q += columns.k
        self.flat = slice(self.n_random, self.Q)
        self.n_few = sum(sizes[k] for k in self.rest if sizes[k] <= FEW)
        self.G = self.rows.blocks(at)
        if at is None:
            # Each product and inverse of equal blocks is worked out once.
            self.G = [Repeated.of(own) if own.shape[1] > 2 else own for own in self.G]
        self.G_EE = self.G[self.eliminated] if apart else np.zeros((0, 1, 1))
        # The sparse columns count as a last term.
        self._others = self.rest if columns is None else [*self.rest, len(sizes)]
        #: X^T w X [p, p] and Z^T w X [Q, p].
        self.xx, xy, F = self.rows.fixed(at)
        self.xx, self.F = self._keep(self._keep(self.xx).T), self._keep(self.joined(F, problem.p))
        if at is None or explained:
            self.ols = np.linalg.lstsq(self.xx, self._keep(xy), rcond=None)[0]
            # Of y less X ols: sums of y itself would lose the residuals' digits.
            weights = () if at is None else (at,)
            self.yy, xy, zy = self.rows.response(self.embed(self.ols), *weights)
            self.xy = self._keep(xy)
            #: Z^T w [X, y]: F and this last column.
            self.Fy = np.column_stack([self.F, self.joined(zy)])
            self.F, self.zy = self.Fy[:, :-1], self.Fy[:, -1]

    @cached_property
    def pairs(self):
        """`rows.protocol.Pairs` of Z_E^T w Z_R; of one term there are none to ask for."""
        return self.rows.pairs(self.eliminated, self._others, self.at)

    @cached_property
    def G_RR(self):
        """Z_R^T w Z_R, sparse, but the sparse columns' own part, which is `Columns.product`'s."""
        if not self._others:
            return sparse.csr_array((0, 0))
        parts = [[None] * len(self._others) for _ in self._others]
        for i, k in enumerate(self._others):
            parts[i][i] = self._own(k)
            for j, other in enumerate(self._others[:i]):
                parts[j][i] = self.rows.pairs(other, [k], self.at).matrix
                parts[i][j] = parts[j][i].T
        return sparse.block_array(parts, format="csr")

    def _own(self, k):
        """Z_k^T w Z_k, sparse, of a remaining term; 0 of the sparse columns."""
        if k == len(self.G):
            return block_diagonal(np.zeros((self.columns.k, 1, 1)))
        if self.problem.blocks[k].tied:
            return self.rows.pairs(k, [k], self.at).matrix
        return block_diagonal(self.G[k])

    @property
    def C(self):
        """Z_E^T w Z_R, sparse."""
        return self.pairs.matrix

    @cached_property
    def row_squares(self):
        """C's `RowSquares`, or None where there are blocks, one theta alone, or too many."""
        pays = self.at is None and all(b.r == 1 for b in self.problem.blocks)
        pays = pays and self.eliminated is not None
        return RowSquares(self.C) if pays and RowSquares.fits(self.C) else None

    def joined(self, parts, *width):
        """[Q, *width] of each block's [n_levels, r, *width], and last the sparse columns'."""
        out = np.empty((self.Q, *width))
        for place, part in zip([*self.slices, self.flat], parts, strict=False):
            out[place] = part.reshape(out[place].shape)
        return out

    def _keep(self, fixed):
        """Sums [..., p] with X from those with all of its columns."""
        return fixed if self.columns is None else self.columns.keep(fixed)

    def remaining(self, r):
        """G_RR applied to [Q_R, c]."""
        if not self._others:
            return r
        out = self.G_RR @ r
        if self.columns is not None:
            first = self.n_random - self.n_eliminated
            out[first:] += self.columns.product(r[first:])
        return out

    def coefficients(self, beta, u):
        """The fixed part's coefficients in X from those in the X of these cross-products."""
        if self.columns is None:
            return beta
        return self.columns.minimum_norm(beta, u[self.flat])[0]

    def embed(self, beta):
        """Derivatives [p, ...] of coefficients, likewise."""
        return beta if self.columns is None else self.columns.embed(beta)

    def blocks(self, flat):
        """Split [Q, ...] into [n_levels, r, ...] per block of the problem."""
        return [
            flat[s].reshape((s.stop - s.start) // b.r, b.r, *flat.shape[1:])
            for s, b in zip(self.slices, self.problem.blocks, strict=True)
        ]

    def lift(self, factors, flat, transpose=False):
        """Lambda or Lambda^T applied to [Q, ...]."""
        turned = [
            turn_all(factors[k].T if transpose else factors[k], flat[self.slices[k]])
            for k in self.order
        ]
        turned += [flat[self.flat]] if self.columns is not None else []
        if not turned:
            return flat.copy()
        return np.concatenate(turned) if len(turned) > 1 else turned[0]

    def product(self, flat, raised=None):
        """G applied to [Q, ...]; `raised` is Z_E^T w Z_R of its rest, where that is known."""
        e, r = flat[: self.n_eliminated], flat[self.n_eliminated :]
        own = turn(self.G_EE, e)
        if not len(r):
            return own
        raised = self.pairs.down(r) if raised is None else raised
        return np.concatenate([own + raised, self.pairs.up(e) + self.remaining(r)])

    def squares(self, member):
        """G's squared entries times member [Q, c]."""
        e, r = member[: self.n_eliminated], member[self.n_eliminated :]
        if not len(r):
            return turn(self.G_EE**2, e)
        down, up = self.pairs.squares(e, r)
        down += turn(self.G_EE**2, e)
        up += self.G_RR.power(2) @ r
        if self.columns is not None:
            first = self.n_random - self.n_eliminated
            up[first:] += self.columns.squares(r[first:])
        return np.concatenate([down, up])

    def diagonal(self):
        """G's diagonal, [Q]."""
        out = self.G_EE.diagonal(axis1=1, axis2=2).ravel()
        if self._others:
            out = np.concatenate([out, self.G_RR.diagonal()])
        if self.columns is not None:
            out[self.flat] = self.columns.diagonal
        return out


class Drawn(NamedTuple):
    """Draws by a root of H^-1 [Q, m], and what variances by draws ask of them.

    follow, how E's effects follow the others, D^-1 B^T r [., m] of these, r; and image [Q_L, m], S
    applied to r at the effects of terms of many levels, or None where S has a factor.
    """

    root: np.ndarray
    follow: np.ndarray
    image: np.ndarray | None


class Elimination:
    """H of one theta: D^-1 [J, r, r] of E; S is a subclass's.

    `log_det` is log |H| less the prior's, None where it is not known, and `log_det_error` its Monte
    Carlo error.
    """

    #: Largest relative residual of a solve that ended before its tolerance.
    unsolved = 0.0
    #: Share of draws that ended before their tolerance which their last step still changes.
    rough = 0.0
    log_det = None
    log_det_error = 0.0
    #: Solutions by their series, from which others may start.
    solutions: ClassVar[dict] = {}

    def __init__(self, cross, factors, s2):
        self.cross, self.s2, self.n = cross, s2, cross.n_eliminated
        self.factors = factors
        #: C Lambda_R of the last solution's rest, by series.
        self.raised = {}
        self.L = np.eye(1) if cross.eliminated is None else factors[cross.eliminated]
        self.D = congruent(self.L, cross.G_EE) / s2 + np.eye(len(self.L))
        self.inverse = invert(self.D)

    @cached_property
    def inner(self):
        """L D^-1 L^T / s^2 [J, r, r], which a term alone hardly needs."""
        return congruent(self.L.T, self.inverse) / self.s2

    def log_det_eliminated(self):
        """log |D|."""
        return log_det(self.D)

    def parts(self):
        """The remaining blocks, their factors and their places among the remaining effects."""
        for k in self.cross.rest:
            s = self.cross.slices[k]
            yield k, self.factors[k], slice(s.start - self.n, s.stop - self.n)

    def lift(self, flat, transpose=False):
        """Lambda_R, or its transpose, applied to [Q_R, ...]."""
        out = np.empty_like(flat)
        first = self.cross.n_random - self.n
        out[first:] = flat[first:]
        for _, L, part in self.parts():
            out[part] = turn_all(L.T if transpose else L, flat[part])
        return out

    @cached_property
    def _turning(self):
        """D^-1 L^T / s^2, [J, r, r]."""
        return self.inverse @ (self.L.T / self.s2)

    def _push(self, e):
        """B D^-1 e."""
        lowered = self.cross.pairs.up(turn(self._turning.transpose(0, 2, 1), e))
        return self.lift(lowered, transpose=True)

    def _pull(self, r):
        """D^-1 B^T r."""
        return turn(self._turning, self._raise(r))

    def follow(self, r):
        """How the eliminated effects follow, D^-1 B^T r, less, the others r [Q_R, c]."""
        return self._pull(r) if len(r) else np.zeros((self.n, r.shape[1]))

    def _raise(self, r):
        """C Lambda_R r."""
        return self.cross.pairs.down(self.lift(r))

    def solve(self, right, series=None, also=None, tol=0.0):
        """H^-1 applied to [Q, c], and S^-1 to `also` [Q_R, c'] if there is such.

        A `series` of right-hand sides that are similar from theta to theta has a name: iterative
        solves start from the last solution of the same series. They may be as rough as `tol`.
        """
        e, r = right[: self.n], right[self.n :]
        if not len(r) and also is None:
            return turn(self.inverse, e)
        r = r - self._push(e)
        if also is not None:
            both = self.solve_rest(np.column_stack([r, also]), series, tol)
            r, also = np.split(both, [r.shape[1]], axis=1)
        else:
            r = self.solve_rest(r, series, tol)
        raised = self._raise(r)
        if series is not None:
            self.raised[series] = raised
        x = np.concatenate([turn(self.inverse, e) - turn(self._turning, raised), r])
        return x if also is None else (x, also)

    def root(self, noise):
        """A root of H^-1 applied to [Q, m]: of N(0, I), draws from N(0, H^-1)."""
        return self.drawn(noise).root

    def drawn(self, noise):
        """The same as `Drawn`."""
        e, (r, image) = turn(roots(self.inverse), noise[: self.n]), self.root_rest(noise[self.n :])
        if not len(r):
            return Drawn(e, np.zeros_like(e), image)
        follow = self._pull(r)
        return Drawn(np.concatenate([e - follow, r]), follow, image)
