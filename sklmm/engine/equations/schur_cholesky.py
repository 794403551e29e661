"""The equations that elimination leaves, S x = b, factorised: time O(Q_R^2 Q), memory O(Q_R^2)."""

from functools import cached_property

import numpy as np
from scipy import sparse
from scipy.linalg import cho_solve, solve_triangular
from scipy.linalg.lapack import dlauum

from sklmm._threads import in_threads
from sklmm.engine.equations.crossproducts import Elimination
from sklmm.engine.linalg.blocks import block_diagonal, csr_rows, inverse_triangle, lower_factor

#: Numbers in a dense slab of C, and the share of entries up to which a matrix is sparse.
SLAB = 1 << 19
SPARSE = 0.1
#: Share of a block's information in 1 from which I - S^-1 keeps ten digits of it.
WELL_SCALED = 1e-5


class SchurCholesky(Elimination):
    """S factorised: its lower factor U [Q_R, Q_R]."""

    def __init__(self, cross, factors, s2):
        super().__init__(cross, factors, s2)
        self.U = np.zeros((0, 0))
        self.log_det = self.log_det_eliminated() - cross.prior.log_det
        if cross.n_eliminated < cross.Q:
            self.squares = cross.row_squares
            self.U = self._factor()
            self.log_det += 2 * float(np.log(self.U.diagonal()).sum())

    def _factor(self):
        if self.squares is not None:
            # Nothing is below the diagonal.
            S = self.squares.summed(self.inner.ravel() / -self.s2, self._scale)
        else:
            around = self._product(self.inner)
            around.data *= -1 / self.s2
            S = around.toarray()
        G = sparse.triu(self._lifted(self._lifted(self.cross.G_RR).T.tocsr()), format="csr")
        if G.nnz < SPARSE * S.size:
            S[np.repeat(np.arange(len(S)), np.diff(G.indptr)), G.indices] += G.data / self.s2
        else:
            S += G.toarray() / self.s2
        S[np.diag_indices(len(S))] += 1.0
        self.cross.prior.add_to(S, self.n)
        # What is above the diagonal is read: its transpose is in LAPACK's order, and needs no copy.
        return lower_factor(S.T, clean=self.squares is None, overwrite=True)

    @cached_property
    def _scale(self):
        """Lambda_R as a diagonal [Q_R], or None where it has blocks."""
        if any(len(L) > 1 for _, L, _ in self.parts()):
            return None
        return self.lift(np.ones(self.cross.Q - self.n))

    def _lifted(self, columns):
        """Sparse columns [., Q_R] times Lambda_R, in canonical form."""
        if self._scale is None:
            levels = self.cross.problem.blocks
            tiles = [np.tile(L, (levels[k].n_levels, 1, 1)) for k, L, _ in self.parts()]
            out = (columns @ sparse.block_diag([block_diagonal(b) for b in tiles], "csr")).tocsr()
        else:
            out = columns.copy()
            out.data *= self._scale[out.indices]
        out.sum_duplicates()
        return out

    @cached_property
    def C(self):
        """Z_E^T w Z_R Lambda_R."""
        return self._lifted(self.cross.C)

    def _product(self, blocks):
        """C^T blocks C, sparse [Q_R, Q_R], for blocks [J, r, r]."""
        C = self.C
        if blocks.shape[1] > 1:
            return C.T.tocsr() @ (block_diagonal(blocks) @ C)
        scaled = C.copy()
        scaled.data *= np.repeat(blocks.ravel(), np.diff(C.indptr))
        return C.T.tocsr() @ scaled

    @cached_property
    def _remaining(self):
        """S^-1 [Q_R, Q_R], its lower triangle."""
        if not len(self.U):
            return self.U
        return dlauum(inverse_triangle(self.U), lower=True, overwrite_c=True)[0]

    def _whole(self):
        """S^-1 with both triangles."""
        lower = self._remaining
        # LAPACK leaves the other triangle as it was: 0.
        out = lower + lower.T
        out[np.diag_indices(len(out))] /= 2
        return out

    def remaining(self):
        """Lambda_R S^-1 Lambda_R^T, whole."""
        out = self._whole()
        if self._scale is None:
            return self.lift(self.lift(out).T)
        out *= self._scale[:, None]
        out *= self._scale
        return out

    def solve_rest(self, right, series=None, tol=0.0):
        """S^-1 applied to [Q_R, ...]."""
        return cho_solve((self.U, True), right, check_finite=False) if len(self.U) else right

    def root_rest(self, noise):
        """S^{-T/2} applied to [Q_R, m], and None: see `Drawn`."""
        if not len(self.U):
            return noise, None
        return solve_triangular(self.U, noise, lower=True, trans="T", check_finite=False), None

    def traces(self, forms=None):
        """Sum over levels of the blocks of Z^T V^-1 Z, [r, r] for each block of the problem.

        For E:  sum_j T_j (G_j / s^2 - C_j S^-1 C_j^T T_j^T / s^4),  T_j = I - G_j L D_j^-1 L^T /
        s^2, whose second part is the trace of S^-1 times C^T (T_a^T T_b) C. For the others L^T K L
        = sum_j (I - S^-1)_jj, and for E alone sum_j (I - D_j^-1), where L is not nearly singular.
        C_j S^-1 C_j^T of each level may be known, `forms` [J, r, r].
        """
        cross, width = self.cross, len(self.L)
        out = [None] * len(cross.slices)
        if not cross.slices:
            return out
        if not cross.rest and width > 2:
            size = cross.problem.blocks[cross.eliminated].n_levels
            gain = size * np.eye(width) - self.inverse.sum(axis=0)
            if (K := by_gain(self.L, gain, size)) is not None:
                return [K]
        if cross.eliminated is not None:
            T = np.eye(width) - cross.G_EE @ self.inner
            out[cross.eliminated] = K = (T @ cross.G_EE).sum(axis=0) / self.s2
            if not cross.rest:
                return out
            if forms is not None:
                K -= (T @ forms @ T.transpose(0, 2, 1)).sum(axis=0) / self.s2**2
            elif self.squares is not None:
                K -= (T.ravel() ** 2 @ self._forms().ravel()) / self.s2**2
            else:
                K -= self._explained(T) / self.s2**2
        for k, K in self.traces_of_rest():
            out[k] = K
        return out

    def _explained(self, T):
        """Sum over E's levels j of T_j C_j S^-1 C_j^T T_j^T, [r, r]."""
        width = len(self.L)
        out = np.empty((width, width))
        pairs = [(a, b) for a in range(width) for b in range(a + 1)]

        # Dense work and sparse beside each other.
        def part(pair):
            if pair is None:
                return self._remaining
            return self._product(T[:, pair[0], :, None] * T[:, pair[1], None, :]).toarray()

        inverse, *around = in_threads(part, [None, *pairs])
        for (a, b), P in zip(pairs, around, strict=True):
            # P is symmetric for a = b only; BLAS wants both in the same order.
            own = np.diag(inverse) @ np.diag(P)
            twice = P if a == b else 0.5 * (P + P.T)
            out[a, b] = out[b, a] = 2 * np.dot(inverse.T.ravel(), twice.ravel()) - own
        return out

    def traces_of_rest(self):
        """Yield each remaining block's number and trace."""
        for k, L, part in self.parts():
            r, J = len(L), (part.stop - part.start) // len(L)
            K = by_gain(L, self._gain(k, part, r), J)
            yield k, self._trace(k, part, r) if K is None else K

    def _gain(self, k, part, r):
        """Sum over levels of the blocks of I - Q S^-1 of a term, [r, r]."""
        if self.cross.prior.relates(k):
            J = (part.stop - part.start) // r
            return J * np.eye(r) - self.cross.prior.trace(k, self._remaining[part, part])
        gain = (np.eye(r) - own_blocks(self._remaining, part, r)).sum(axis=0)
        return np.tril(gain) + np.tril(gain, -1).T

    def _trace(self, k, part, r):
        """Summed blocks of N - N Lambda_R S^-1 Lambda_R^T N, N = Z_R^T V_E^-1 Z_R.

        Of related levels the sum over all pairs of them, by their relationship.
        """
        cross = self.cross
        N = cross.G_RR[:, part] - cross.C.T @ (block_diagonal(self.inner) @ cross.C[:, part])
        N = N.toarray() / self.s2
        half = solve_triangular(
            self.U, self.lift(N, transpose=True), lower=True, check_finite=False
        )
        if cross.prior.relates(k):
            square = N[part] - half.T @ half
            related = cross.prior.relate(k, square.reshape(-1, r * len(square)))
            return own_blocks(related.reshape(square.shape), slice(0, len(square)), r).sum(axis=0)
        columns = half.reshape(len(half), -1, r)
        size = columns.shape[1]
        own = N[part].reshape(size, r, size, r)[np.arange(size), :, np.arange(size)].sum(axis=0)
        return own - np.einsum("qja,qjb->ab", columns, columns, optimize=True)

    def variances(self, drawn=None):
        """Each level's block of H^-1, [n_levels, r, r] for each block of the problem."""
        cross = self.cross
        out = [None] * len(cross.slices)
        if cross.eliminated is not None and not len(self.U):
            out[cross.eliminated] = self.inverse
        elif cross.eliminated is not None:
            lower = self.inverse @ self.L.T / self.s2
            out[cross.eliminated] = self.inverse + lower @ self._forms() @ lower.transpose(0, 2, 1)
        for k, L, part in self.parts():
            own = own_blocks(self._remaining, part, len(L))
            out[k] = np.tril(own) + np.tril(own, -1).transpose(0, 2, 1)
        return out

    def _forms(self):
        """C_j S^-1 C_j^T for every level j of E, [J, r, r]."""
        J, r = self.inverse.shape[:2]
        if not len(self.U):
            return np.zeros((J, r, r))
        if self.squares is not None:
            return self.squares.forms(self._remaining, self._scale)[:, None, None]
        C, inverse, step = self.C, self._whole(), max(SLAB // (len(self.U) * r), 1)
        few = C.nnz <= SPARSE * C.shape[0] * C.shape[1]

        def forms(first):
            some = csr_rows(C, first * r, min(first + step, J) * r)
            rows = some.toarray()
            turned = (some if few else rows) @ inverse
            shape = -1, r, len(self.U)
            return np.einsum("jaq,jbq->jab", turned.reshape(shape), rows.reshape(shape))

        return np.concatenate(in_threads(forms, range(0, J, step)))


def by_gain(L, gain, J):
    """L^-T gain L^-1, the trace K of L^T K L = gain; None where gain has lost the digits of that.

    It is a sum over J levels of 1 less what is nearly 1 where they have little information.
    """
    if np.linalg.eigvalsh(gain).min() <= WELL_SCALED * J:
        return None
    back = np.linalg.inv(L)
    return back.T @ gain @ back


def own_blocks(square, part, r):
    """The diagonal blocks [n_levels, r, r] of a part of a matrix."""
    size = (part.stop - part.start) // r
    levels = np.arange(size)
    return square[part, part].reshape(size, r, size, r)[levels, :, levels]
