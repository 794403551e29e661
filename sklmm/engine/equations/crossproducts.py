"""Cross-products of a Gaussian problem, once a fit: all that its likelihood knows of the rows.

The effects are flat, [Q, ...]: those of the largest term, E, first, then the others, R, terms of
few effects before the rest. With G = Z^T w Z,

    G_EE block diagonal, C = Z_E^T w Z_R sparse, G_RR sparse, F = Z^T w X, Z^T w y, X^T w X, ...

The coefficients of sparse columns (`engine.rows.sparse_fixed`) come last in R, as effects without a
prior.

y is what least squares on X, with coefficients `ols`, leave.
"""

import numpy as np
from scipy import sparse

from sklmm.engine.linalg.blocks import block_diagonal, turn, turn_all
from sklmm.engine.rows.pairs import Parted
from sklmm.engine.rows.standardize import weighed

#: A term of at most this many effects counts as one of few.
FEW = 64


class Cross:
    """Cross-products of `problem`; `slices` has the place of each of its blocks."""

    def __init__(self, problem):
        self.problem = problem
        blocks, w, columns = problem.blocks, problem.weights, problem.columns
        X = problem.X if columns is None else columns.keep(problem.X)
        self.columns, self.p = columns, X.shape[1]
        sizes = [b.n_levels * b.r for b in blocks]
        self.eliminated = int(np.argmax(sizes)) if sizes else None
        self.rest = sorted(
            (k for k in range(len(sizes)) if k != self.eliminated), key=lambda k: sizes[k] > FEW
        )
        order = [self.eliminated, *self.rest] if sizes else []
        ends = np.cumsum([0] + [sizes[k] for k in order])
        place = {k: slice(ends[i], ends[i + 1]) for i, k in enumerate(order)}
        self.slices = [place[k] for k in range(len(sizes))]
        self.n_eliminated = int(ends[1]) if sizes else 0
        self.n_random = self.Q = int(ends[-1])
        if columns is not None:
            self.Q += columns.k
        self.flat = slice(self.n_random, self.Q)
        self.n_few = sum(sizes[k] for k in self.rest if sizes[k] <= FEW)
        self.G_EE = blocks[self.eliminated].crossprod if sizes else np.zeros((0, 1, 1))
        self.C = sparse.csr_array((self.n_eliminated, self.Q - self.n_eliminated))
        self.G_RR = sparse.csr_array((self.C.shape[1], self.C.shape[1]))
        if self.C.shape[1] and sizes:
            pairs = [_pair(blocks[self.eliminated], blocks[k], w) for k in self.rest]
            if columns is not None:
                pairs.append(_pair_of_columns(blocks[self.eliminated], columns))
            self.C = sparse.hstack(pairs, "csr") if len(pairs) > 1 else pairs[0]
            self.G_RR = self._remaining(blocks, w)
        self.parted = Parted(self.C, self.G_EE.shape[1])
        self.xx = weighed(X.T, w) @ X
        # Sums of squares of y itself would lose the residuals' digits where X explains most of it.
        self.ols = np.linalg.lstsq(self.xx, X.T @ weighed(problem.y, w), rcond=None)[0]
        y = problem.y - X @ self.ols
        self.F, self.zy = np.zeros((self.Q, self.p)), np.zeros(self.Q)
        for b, s in zip(blocks, self.slices, strict=True):
            # bincount would convert the references anew each time.
            refs = b.refs.astype(np.intp)
            for a in range(b.r):
                wz = weighed(b.z[:, a], w)
                for column in range(self.p):
                    self.F[s, column][a :: b.r] = np.bincount(refs, wz * X[:, column], b.n_levels)
                self.zy[s][a :: b.r] = np.bincount(refs, wz * y, b.n_levels)
        wy = weighed(y, w)
        if columns is not None:
            self.F[self.flat] = columns.keep(columns.F)
            self.zy[self.flat] = columns.back @ y
        self.xy = X.T @ wy
        self.yy = float(wy @ y)

    def _remaining(self, blocks, w):
        parts = [[None] * len(self.rest) for _ in self.rest]
        for i, k in enumerate(self.rest):
            parts[i][i] = block_diagonal(blocks[k].crossprod)
            for j in range(i):
                parts[i][j] = _pair(blocks[k], blocks[self.rest[j]], w)
                parts[j][i] = parts[i][j].T
        if self.columns is None:
            return sparse.block_array(parts, format="csr")
        pairs = [_pair_of_columns(blocks[k], self.columns) for k in self.rest]
        # Their own part is `Columns.product`'s.
        own = sparse.csr_array((self.columns.k, self.columns.k))
        parts = [[*row, pair] for row, pair in zip(parts, pairs, strict=True)]
        return sparse.block_array([*parts, [*(pair.T for pair in pairs), own]], format="csr")

    def remaining(self, r):
        """G_RR applied to [Q_R, c]."""
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
            flat[s].reshape(b.n_levels, b.r, *flat.shape[1:])
            for s, b in zip(self.slices, self.problem.blocks, strict=True)
        ]

    def lift(self, factors, flat, transpose=False):
        """Lambda or Lambda^T applied to [Q, ...]."""
        out = np.empty_like(flat)
        out[self.flat] = flat[self.flat]
        for s, L in zip(self.slices, factors, strict=True):
            out[s] = turn_all(L.T if transpose else L, flat[s])
        return out

    def product(self, flat):
        """G applied to [Q, ...]."""
        e, r = flat[: self.n_eliminated], flat[self.n_eliminated :]
        own = turn(self.G_EE, e)
        return np.concatenate([own + self.parted.down(r), self.parted.up(e) + self.remaining(r)])

    def squares(self, member):
        """G's squared entries times member [Q, c]."""
        e, r = member[: self.n_eliminated], member[self.n_eliminated :]
        down, up = turn(self.G_EE**2, e), self.G_RR.power(2) @ r
        for (C, _), rows in zip(self.parted.parts, self.parted.rows, strict=True):
            C2 = C.power(2)
            down[rows] += C2 @ r
            up += C2.T @ e[rows]
        if self.columns is not None:
            first = self.n_random - self.n_eliminated
            up[first:] += self.columns.squares(r[first:])
        return np.concatenate([down, up])

    def diagonal(self):
        """G's diagonal, [Q]."""
        out = np.concatenate([np.einsum("jaa->ja", self.G_EE).ravel(), self.G_RR.diagonal()])
        if self.columns is not None:
            out[self.flat] = self.columns.diagonal
        return out


def _pair(one, other, w):
    """Z_1^T w Z_2 of two blocks, sparse [J_1 r_1, J_2 r_2]."""
    r, q = one.r, other.r
    shape = (one.n_levels * r, other.n_levels * q)
    out = None
    for a in range(r):
        for b in range(q):
            values = weighed(one.z[:, a] * other.z[:, b], w)
            rows = one.refs if r == 1 else one.refs * r + a
            columns = other.refs if q == 1 else other.refs * q + b
            # By columns and then by rows: two passes sort the pairs, and equal ones are added up
            # once, at the end.
            part = sparse.coo_array((values, (rows, columns)), shape)
            part.has_canonical_format = True
            part = part.tocsc().tocsr()
            part.sum_duplicates()
            out = part if out is None else out + part
    return out


def _pair_of_columns(one, columns):
    """Z_1^T w X_s, sparse [J_1 r_1, k]."""
    return (columns.back @ loadings(one.refs, one.z, one.n_levels)).T.tocsr()


def loadings(refs, z, n_levels):
    """Z, sparse [n_rows, n_levels * r]."""
    n, r = z.shape
    columns = refs.astype(np.int64)[:, None] * r + np.arange(r)
    ends = np.arange(n + 1) * r
    return sparse.csr_array((z.ravel(), columns.ravel(), ends), (n, n_levels * r))
