r"""The mixed-model equations of a Gaussian model with the largest term eliminated level by level.

In spherical effects u, with E the largest term, R all the others and G = Z^T w Z,

    H = Lambda^T G Lambda / s^2 + I = [ D    B^T ]     D block diagonal, one block per level of E,
                                      [ B   H_RR ]     S = H_RR - B D^{-1} B^T.

Only S is dense: time is O(Q_R^2 Q) a factorisation, memory O(Q_R^2), and one grouping factor costs
no more than its rows, however many its levels. MixedModels.jl orders its blocked Cholesky factor in
the same way (Bates, Maechler, Bolker & Walker 2015, J. Stat. Softw. 67(1), section 5, on lme4's).
"""

from functools import cached_property

import numpy as np
from scipy import sparse
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.linalg.lapack import dpotri

#: Numbers in a dense slab of C^T.
SLAB = 1 << 22
#: Share of a block's information in 1 from which I - S^-1 keeps ten digits of it.
WELL_SCALED = 1e-5


class Cross:
    """Cross-products of a problem, once a fit: G = Z^T w Z in parts, F = Z^T w X, Z^T w y.

    Effects are flat [Q, ...], those of the eliminated block first; `slices` has each block's place.
    """

    def __init__(self, problem):
        self.problem = problem
        sizes = [b.n_levels * b.r for b in problem.blocks]
        self.eliminated = int(np.argmax(sizes)) if sizes else None
        order = sorted(range(len(sizes)), key=lambda k: k != self.eliminated)
        ends = np.cumsum([0] + [sizes[k] for k in order])
        place = {k: slice(ends[i], ends[i + 1]) for i, k in enumerate(order)}
        self.slices = [place[k] for k in range(len(sizes))]
        self.rest = [k for k in order if k != self.eliminated]
        self.Q, self.n_eliminated = int(ends[-1]), int(ends[1]) if sizes else 0
        parts = [_loadings(problem.blocks[k]) for k in order]
        n_rows = len(problem.y)
        self.Z = sparse.hstack(parts, format="csr") if parts else sparse.csr_array((n_rows, 0))
        empty = sparse.csr_array((n_rows, 0))
        rest = sparse.hstack(parts[1:], format="csr") if self.rest else empty
        weighted = rest.multiply(problem.weights[:, None]).tocsr()
        first = parts[0] if parts else empty
        self.C = (first.T @ weighted).tocsr()
        self.G_RR = (rest.T @ weighted).toarray()
        self.G_EE = problem.blocks[self.eliminated].crossprod if sizes else np.zeros((0, 1, 1))
        self.F = self.Z.T @ (problem.X * problem.weights[:, None])
        self.zy = self.Z.T @ (problem.weights * problem.y)
        self.xy = problem.X.T @ (problem.weights * problem.y)
        self.xx = (problem.X * problem.weights[:, None]).T @ problem.X

    def blocks(self, flat):
        """Split [Q, ...] into [n_levels, r, ...] per block."""
        return [
            flat[s].reshape(b.n_levels, b.r, *flat.shape[1:])
            for s, b in zip(self.slices, self.problem.blocks, strict=True)
        ]

    def lift(self, factors, flat, transpose=False):
        """Lambda or Lambda^T applied to [Q, ...]."""
        out = np.empty_like(flat)
        pattern = "ba,jb...->ja..." if transpose else "ab,jb...->ja..."
        for s, L, part in zip(self.slices, factors, self.blocks(flat), strict=True):
            out[s] = np.einsum(pattern, L, part).reshape(flat[s].shape)
        return out

    def product(self, flat):
        """G applied to [Q, c]."""
        e, r = flat[: self.n_eliminated], flat[self.n_eliminated :]
        own = turn(self.G_EE, e)
        return np.concatenate([own + self.C @ r, self.C.T @ e + self.G_RR @ r])


def _loadings(block):
    """Z_k as a sparse matrix [n_rows, n_levels * r]."""
    n_rows, r = block.z.shape
    columns = (block.refs[:, None] * np.int64(r) + np.arange(r)).ravel()
    indptr = np.arange(0, n_rows * r + 1, r)
    return sparse.csr_array((block.z.ravel(), columns, indptr), (n_rows, block.n_levels * r))


def turn(blocks, flat):
    """Each level's own block [J, r, r] times its part of flat [J * r, ...]."""
    J, r, _ = blocks.shape
    shaped = flat.reshape(J, r, *flat.shape[1:])
    return np.einsum("jab,jb...->ja...", blocks, shaped).reshape(flat.shape)


def block_diagonal(blocks):
    """Sparse [J * r, J * r] from [J, r, r]."""
    J, r, _ = blocks.shape
    return sparse.bsr_array((blocks, np.arange(J), np.arange(J + 1)), shape=(J * r, J * r)).tocsr()


class Elimination:
    """H of one theta, factorised: D^-1 [J, r, r], and the lower factor U [Q_R, Q_R] of S."""

    def __init__(self, cross, factors, s2):
        self.cross, self.s2, self.n = cross, s2, cross.n_eliminated
        self.factors = factors
        self.L = factors[cross.eliminated] if cross.slices else np.eye(1)
        D = self.L.T @ cross.G_EE @ self.L / s2 + np.eye(len(self.L))
        self.inverse = np.linalg.inv(D)
        self.inner = self.L @ self.inverse @ self.L.T / s2
        # Z_E^T w Z_R Lambda_R.
        self.C = self._lifted()
        S = self._lift_both(cross.G_RR)
        S -= self._around(self.C, self.inner)
        S /= s2
        S[np.diag_indices(len(S))] += 1.0
        # Symmetric: its transpose is in LAPACK's order, and needs no copy.
        self.U = cholesky(S.T, lower=True, overwrite_a=True, check_finite=False) if len(S) else S
        self.log_det = float(np.linalg.slogdet(D)[1].sum() + 2 * np.log(np.diag(self.U)).sum())

    @staticmethod
    def _around(C, blocks):
        """C^T blocks C, dense [Q_R, Q_R], for blocks [J, r, r]."""
        if blocks.shape[1] > 1:
            return (C.T @ (block_diagonal(blocks) @ C)).toarray()
        scaled = C.copy()
        scaled.data *= np.repeat(blocks.ravel(), np.diff(C.indptr))
        return (C.T @ scaled).toarray()

    def _parts(self):
        """The remaining blocks, their factors and their places among the remaining effects."""
        for k in self.cross.rest:
            s = self.cross.slices[k]
            yield k, self.factors[k], slice(s.start - self.n, s.stop - self.n)

    def _lift(self, flat, transpose=False):
        """Lambda_R, or its transpose, applied to [Q_R, ...]."""
        out = np.empty_like(flat)
        for _, L, part in self._parts():
            out[part] = turn_all(L.T if transpose else L, flat[part])
        return out

    def _lift_both(self, square):
        """Lambda_R^T square Lambda_R."""
        out = self._lift(square, transpose=True)
        for _, L, part in self._parts():
            if len(L) == 1:
                out[:, part] *= L[0, 0]
            else:
                out[:, part] = turn_all(L.T, out[:, part].T).T
        return out

    def _lifted(self):
        """C Lambda_R, sparse."""
        C = self.cross.C.copy()
        if all(len(L) == 1 for _, L, _ in self._parts()):
            C.data *= self._lift(np.ones(C.shape[1]))[C.indices]
            return C
        levels = self.cross.problem.blocks
        parts = [np.tile(L, (levels[k].n_levels, 1, 1)) for k, L, _ in self._parts()]
        return (C @ sparse.block_diag([block_diagonal(b) for b in parts], "csr")).tocsr()

    @cached_property
    def _remaining(self):
        """S^-1 [Q_R, Q_R], its lower triangle."""
        return dpotri(self.U, lower=True)[0] if len(self.U) else self.U

    def _push(self, e):
        """B D^-1 e."""
        return self.C.T @ turn_all(self.L, turn(self.inverse, e)) / self.s2

    def _pull(self, r):
        """D^-1 B^T r."""
        return turn(self.inverse, turn_all(self.L.T, self.C @ r) / self.s2)

    def solve(self, right):
        """H^-1 applied to [Q, ...]."""
        e, r = right[: self.n], right[self.n :]
        r = r - self._push(e)
        r = cho_solve((self.U, True), r, check_finite=False) if len(self.U) else r
        return np.concatenate([turn(self.inverse, e) - self._pull(r), r])

    def root(self, noise):
        """H^{-T/2} applied to [Q, m]: a matrix whose square is H^-1, for noise = I."""
        e, r = noise[: self.n], noise[self.n :]
        if len(self.U):
            r = solve_triangular(self.U, r, lower=True, trans="T", check_finite=False)
        return np.concatenate([turn(np.linalg.cholesky(self.inverse), e) - self._pull(r), r])

    def traces(self):
        """Sum over levels of the blocks of Z^T V^-1 Z, [r, r] for each block of the problem.

        For E:  sum_j T_j (G_j / s^2 - C_j S^-1 C_j^T T_j^T / s^4),  T_j = I - G_j L D_j^-1 L^T /
        s^2, whose second part is the trace of S^-1 times C^T (T_a^T T_b) C. For the others L^T K L
        = sum_j (I - S^-1)_jj, and where L is nearly singular the definition.
        """
        cross, width = self.cross, len(self.L)
        out = [None] * len(cross.slices)
        if not cross.slices:
            return out
        T = np.eye(width) - cross.G_EE @ self.inner
        out[cross.eliminated] = K = (T @ cross.G_EE).sum(axis=0) / self.s2
        if not cross.rest:
            return out
        inverse = self._remaining
        for a in range(width):
            for b in range(a + 1):
                P = self._around(self.C, T[:, a, :, None] * T[:, b, None, :])
                # P is symmetric for a = b only; BLAS wants both in the same order.
                own = np.diag(inverse) @ np.diag(P)
                twice = P if a == b else 0.5 * (P + P.T)
                value = 2 * np.dot(inverse.T.ravel(), twice.ravel()) - own
                K[[a, b], [b, a]] -= value / self.s2**2
        for k, L, part in self._parts():
            r = len(L)
            own = own_blocks(inverse, part, r)
            gain = (np.eye(r) - own).sum(axis=0)
            gain = np.tril(gain) + np.tril(gain, -1).T
            if np.linalg.eigvalsh(gain).min() > WELL_SCALED * len(own):
                back = np.linalg.inv(L)
                out[k] = back.T @ gain @ back
            else:
                out[k] = self._trace(part, r)
        return out

    def _trace(self, part, r):
        """Summed blocks of N - N Lambda_R S^-1 Lambda_R^T N, N = Z_R^T V_E^-1 Z_R."""
        cross = self.cross
        N = cross.G_RR[:, part] - cross.C.T @ (block_diagonal(self.inner) @ cross.C[:, part])
        N = np.asarray(N) / self.s2
        half = solve_triangular(
            self.U, self._lift(N, transpose=True), lower=True, check_finite=False
        )
        columns = half.reshape(len(half), -1, r)
        size = columns.shape[1]
        own = N[part].reshape(size, r, size, r)[np.arange(size), :, np.arange(size)].sum(axis=0)
        return own - np.einsum("qja,qjb->ab", columns, columns, optimize=True)

    def variances(self):
        """Each level's block of H^-1, [n_levels, r, r] for each block of the problem."""
        cross = self.cross
        out = [None] * len(cross.slices)
        if cross.slices:
            lower = self.inverse @ self.L.T / self.s2
            out[cross.eliminated] = self.inverse + lower @ self._forms() @ lower.transpose(0, 2, 1)
        for k, L, part in self._parts():
            own = own_blocks(self._remaining, part, len(L))
            out[k] = np.tril(own) + np.tril(own, -1).transpose(0, 2, 1)
        return out

    def _forms(self):
        """C_j S^-1 C_j^T for every level j of E, [J, r, r]."""
        J, r = self.inverse.shape[:2]
        out = np.zeros((J, r, r))
        step = max(SLAB // max(len(self.U) * r, 1), 1)
        for first in range(0, J if len(self.U) else 0, step):
            rows = self.C[first * r : (first + step) * r].toarray().T
            half = solve_triangular(
                self.U, rows, lower=True, overwrite_b=True, check_finite=False
            ).reshape(len(rows), -1, r)
            out[first : first + step] = np.einsum("qja,qjb->jab", half, half)
        return out


def turn_all(L, flat):
    """L applied to every level's part of flat [J * r, ...]."""
    if len(L) == 1:
        return L[0, 0] * flat
    return np.einsum("ab,jb...->ja...", L, flat.reshape(-1, len(L), *flat.shape[1:])).reshape(
        flat.shape
    )


def own_blocks(square, part, r):
    """The diagonal blocks [n_levels, r, r] of a part of a matrix."""
    size = (part.stop - part.start) // r
    levels = np.arange(size)
    return square[part, part].reshape(size, r, size, r)[levels, :, levels]
