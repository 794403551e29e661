r"""Rows of several linear predictors, each with columns and terms of its own.

An observation has d rows, i * d + c, one a predictor: passes over rows find them stacked, the
columns and loadings of one predictor 0 on the rows of the others. The curvature of an observation's
log density is a block W_i [d, d], and with A_i its d rows of [X, Z]

    C = sum_i A_i^T W_i A_i + (0, I),     d log |C| = sum_i tr(H_i dW_i),     H_i = A_i C^-1 A_i^T.

What is summed over pairs of columns is weighted by the entry of W_i that belongs to their
predictors, over observations: `joint` has the columns of all side by side, a row each. Off the
diagonal H is told by the leverages of sums of rows,

    2 H_i[a, b] = h(a + b) - h(a) - h(b).
"""

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from sklmm._threads import summed
from sklmm.engine.rows.cross_products import by_level
from sklmm.engine.rows.expansion import LocalExpansion, leverages_of
from sklmm.engine.rows.local import LEAST_CURVATURE, LocalRows
from sklmm.engine.rows.remainder import LocalRemainder


class BlockWeights:
    """Weights W [n, d, d] of observations, as `engine.rows.protocol.Rows` hands them out."""

    #: NumPy leaves products with them to them.
    __array_ufunc__ = None

    def __init__(self, W):
        self.W, self.d = W, W.shape[1]

    def between(self, a, b):
        """The entries [n] of two predictors."""
        return self.W[:, a, b]

    def astype(self, dtype):
        """The same in another precision."""
        return BlockWeights(self.W.astype(dtype, copy=False))

    def __getitem__(self, rows):
        """The weights of some rows, a slice of whole observations."""
        return BlockWeights(self.W[rows.start // self.d : rows.stop // self.d])

    def __mul__(self, other):
        """W times rows [n * d, C], or a number."""
        if np.ndim(other) == 0:
            return BlockWeights(self.W * other)
        by_row = other.reshape(len(self.W), self.d, -1)
        return np.einsum("nab,nbc->nac", self.W, by_row).reshape(other.shape)

    __rmul__ = __mul__


def _loadings(terms, d):
    """Columns [n * d, r] of terms (predictor, ., ., z), 0 on the rows of other predictors."""
    z = terms[0][3]
    r = sum(own[3].shape[-1] for own in terms)
    out, first = np.zeros((len(z) * d, *z.shape[1:-1], r)), 0
    for c, _, _, z in terms:
        out[c::d, ..., first : first + z.shape[-1]] = z
        first += z.shape[-1]
    return out


def rotations(W):
    """T [n, d, d] and D [n, d] with W = T^T diag(D) T, T orthogonal, of symmetric W [n, d, d]."""
    if W.shape[1] > 2:
        values, vectors = np.linalg.eigh(W)
        return vectors.transpose(0, 2, 1), values
    a, b, c = W[:, 0, 0], W[:, 0, 1], W[:, 1, 1]
    angle = 0.5 * np.arctan2(2 * b, a - c)
    cos, sin = np.cos(angle), np.sin(angle)
    T = np.stack([np.stack([cos, sin], axis=1), np.stack([-sin, cos], axis=1)], axis=1)
    across = 2 * b * cos * sin
    first, last = a * cos**2 + across + c * sin**2, a * sin**2 - across + c * cos**2
    return T, np.stack([first, last], axis=1)


def raised(W, expected):
    """Blocks W [n, d, d] with eigenvalues that are a share of the `expected` [n, d] at least."""
    T, D = rotations(W)
    D = np.maximum(D, LEAST_CURVATURE * np.einsum("nab,nb->na", T**2, expected))
    return np.einsum("nka,nk,nkb->nab", T, D, T)


@dataclass(frozen=True, eq=False)
class PredictorRows(LocalRows):
    """`LocalRows` whose d predictors have columns and terms of their own.

    `of` are the predictors [r] of the coefficients of each term, and `ends` [d + 1] where each
    predictor's columns of X begin and end.
    """

    own_predictors = True
    of: tuple = ()
    ends: tuple = ()

    @classmethod
    def stacked_of(cls, parts, groups=None):
        """From `LocalRows` of each predictor, of the same observations.

        `groups` are numbers of all their terms, those over the same levels, that become one term;
        None leaves each term one.
        """
        d, first = len(parts), parts[0]
        ends = np.cumsum([0, *(part.p for part in parts)])
        n, offset = first.n_rows * d, None
        X, terms = np.zeros((n, ends[-1])), []
        if any(part.offset is not None for part in parts):
            offset = np.zeros(n)
        for c, part in enumerate(parts):
            X[c::d, ends[c] : ends[c + 1]] = part.X
            if part.offset is not None:
                offset[c::d] = part.offset
            of_terms = zip(part.refs, part.levels, map(np.asarray, part.z), strict=True)
            terms += [(c, *own) for own in of_terms]
        groups = [[k] for k in range(len(terms))] if groups is None else groups
        return cls(
            y=np.repeat(first.y, d, axis=0),
            X=X,
            weights=np.repeat(first.weights, d),
            refs=tuple(np.repeat(terms[group[0]][1], d, axis=0) for group in groups),
            levels=tuple(terms[group[0]][2] for group in groups),
            z=tuple(_loadings([terms[k] for k in group], d) for group in groups),
            offset=offset,
            d=d,
            of=tuple(
                tuple(c for c, _, _, z in (terms[k] for k in group) for _ in range(z.shape[-1]))
                for group in groups
            ),
            ends=tuple(ends.tolist()),
        )

    def stacked(self, d):
        """These rows: they are stacked."""
        return self

    def _columns(self, c):
        """The columns of X of a predictor, a slice."""
        return slice(self.ends[c], self.ends[c + 1]) if self.p else slice(0, 0)

    def _only(self, wanted):
        """`JointRows`, a row an observation, of the columns of some predictors; 0 in the others."""
        key = "only", self.p, tuple(wanted)
        if key not in self._known:
            d, X = self.d, np.zeros((self.n_rows // self.d, self.p))
            for c in wanted:
                X[:, self._columns(c)] = self.X[c::d, self._columns(c)]
            zs = []
            for z, of in zip(self.z, self.of, strict=True):
                zs.append(np.zeros((len(X), *z.shape[1:])))
                for a, c in enumerate(of):
                    if c in wanted:
                        zs[-1][..., a] = z[c::d][..., a]
            refs = [np.ascontiguousarray(refs[::d]) for refs in self.refs]
            own = self.y[::d], X, self.weights[::d], tuple(refs), self.levels, tuple(zs)
            self._known[key] = JointRows(*own, of=self.of)
        return self._known[key]

    def least_squares(self, c, value):
        """The coefficients of a predictor by which it is nearest to a value, with the offset."""
        X, weights = self.X[c :: self.d, self._columns(c)], self.weights[:: self.d]
        gap = value if self.offset is None else value - self.offset[c :: self.d]
        # Its columns are orthonormal.
        return X.T @ (weights * gap) / weights.sum()

    @property
    def joint(self):
        """`LocalRows` with the columns and the loadings of all predictors in one row."""
        return self._only(range(self.d))

    def _block(self, terms, at):
        blocks = isinstance(at, BlockWeights)
        return self.joint._block(terms, at) if blocks else super()._block(terms, at)

    def _pair(self, k, other, at):
        blocks = isinstance(at, BlockWeights)
        return self.joint._pair(k, other, at) if blocks else super()._pair(k, other, at)

    def fixed(self, at=None):
        """As `LocalRows.fixed`; with blocks of weights X^T w y is not asked for, and is 0."""
        if not isinstance(at, BlockWeights):
            return super().fixed(at)
        joint, p = self.joint, self.p
        shapes = [(J, z.shape[-1], p) for J, z in zip(self.levels, self.z, strict=True)]
        if not p:
            return np.zeros((0, 0)), np.zeros(0), [np.zeros(shape) for shape in shapes]
        places = [self._columns(c) for c in range(self.d)]

        def sums(rows):
            X, W = joint.X[rows], at.W[rows]
            xx, F = np.zeros((p, p)), [np.zeros(shape) for shape in shapes]
            for c, own in enumerate(places):
                # What a predictor's columns meet of all columns.
                seen = np.empty((p, len(X)))
                for b, other in enumerate(places):
                    seen[other] = X[:, other].T * W[:, c, b]
                xx[own] = X[:, own].T @ seen.T
                for k, of in enumerate(self.of):
                    mine = [a for a, b in enumerate(of) if b == c]
                    if mine:
                        F[k][:, mine] = joint._sums_of(k, rows, seen)[:, mine]
            return xx, F

        xx, F = summed(sums, joint.n_rows, joint._step)
        return xx, np.zeros(p), F

    def gram(self, at=None):
        """[X, Z]^T W [X, Z], dense [p + Q, p + Q]."""
        if not isinstance(at, BlockWeights):
            return super().gram(at)
        A = self.joint._dense
        of = np.repeat(np.arange(self.d), np.diff(self.ends)) if self.p else np.zeros(0, int)
        of_terms = [np.tile(own, J) for own, J in zip(self.of, self.levels, strict=True)]
        of = np.concatenate([of, *of_terms])
        out = np.empty((len(of), len(of)))
        for a in range(self.d):
            for b in range(a + 1):
                own = (A[:, of == a].T * at.between(a, b)) @ A[:, of == b]
                out[np.ix_(of == a, of == b)] = own
                out[np.ix_(of == b, of == a)] = own.T
        return out

    def product(self, coefs, at=None):
        """[X, Z]^T W [X, Z] coefs, as `Coefs`."""
        if not isinstance(at, BlockWeights):
            return super().product(coefs, at)
        return self.visited(
            coefs, lambda rows, eta: (at[rows] * eta, ()), coefs.beta.shape[1], bare=True
        )[0]

    def bent(self, likelihood, eta, raw, positive=False):
        """`BlockWeights` of the curvature at eta [n_rows, 1] and raw [q, 1].

        The observed one; `positive` is with eigenvalues that are raised.
        """
        d, out = self.d, np.empty((self.n_rows // self.d, self.d, self.d))

        def visit(rows, _):
            some, (y, w) = slice(rows.start // d, rows.stop // d), self.own(rows)
            W = likelihood.blocks(y, eta[rows], raw)[..., 0]
            if positive:
                W = raised(W, likelihood.curvature(y, eta[rows], raw)[0].reshape(-1, d))
            out[some] = w[:, None, None] * W
            return None, ()

        self.visited(None, visit)
        return BlockWeights(out)

    def evaluate(self, likelihood, coefs, raw, curvature="expected", about=None):
        """As `LocalRows.evaluate`; the weights are of the observed curvature, raised or not."""
        at = np.empty((self.n_rows, 1))

        def visit(rows, eta):
            y, w = self._of(rows, eta.dtype)
            values, score = likelihood.both(y, eta, raw)
            at[rows] = eta[:, :1]
            return self.weights[rows, None] * score, (w @ values,)

        score, (value,) = self._pass(coefs, visit, raw.shape[1])
        return value, score, self.bent(likelihood, at, raw[:, :1], curvature != "observed")

    def safe(self, likelihood, coefs, raw, at):
        """Weights that are positive: `at` with eigenvalues that are raised."""
        eta = self.predictor(coefs)
        (expected,) = likelihood.curvature(self.observations[0], eta, raw[:, None])
        expected = (self.weights * expected[:, 0]).reshape(-1, self.d)
        return BlockWeights(raised(at.W, expected))

    def expand(self, likelihood, coefs, raw, observed):
        """`PredictorExpansion` at coefs [., 1] and raw [q]."""
        return PredictorExpansion(self, likelihood, coefs, raw, observed)

    def remainder(self, likelihood, coefs, raw, at, *, exact, held):
        """`PredictorRemainder` at coefs [., 1], raw [q] and weights `at`."""
        return PredictorRemainder(self, likelihood, coefs, raw, at, exact=exact, held=held)

    def heights(self, inverse):
        """H [n, d, d]: for a row A_i [d, P] of all predictors A_i M A_i^T, M an `Inverse`."""
        d = self.d
        out, pairs = np.empty((self.n_rows // d, d, d)), list(combinations(range(d), 2))
        wanted = [*((c,) for c in range(d)), *pairs]
        found = leverages_of([self._only(own) for own in wanted], inverse)
        for c in range(d):
            out[:, c, c] = found[c]
        for (a, b), both in zip(pairs, found[d:], strict=True):
            out[:, a, b] = out[:, b, a] = (both - found[a] - found[b]) / 2
        return out


@dataclass(frozen=True, eq=False)
class JointRows(LocalRows):
    """Rows of observations with the columns of all predictors, and cross-products at blocks.

    `of` are the predictors [r] of each term's coefficients.
    """

    of: tuple = ()

    def _block(self, terms, at):
        (k,) = terms
        z, of = self.z[k], self.of[k]
        if z.ndim == 3:
            return super()._block(terms, at.between(of[0], of[0]))
        refs, out = self.refs[k].astype(np.intp), np.empty((self.levels[k], z.shape[1], z.shape[1]))
        for a, c in enumerate(of):
            for b, e in enumerate(of[: a + 1]):
                own = by_level(refs, z[:, a] * z[:, b] * at.between(c, e), len(out))
                out[:, a, b] = out[:, b, a] = own
        return out

    def _products(self, first, second, at):
        """Products of the columns of two terms' `cells`, by the weights of their predictors."""
        (k, i), (other, j) = first, second
        z, q = self._cells(k)[i][1], self._cells(other)[j][1]
        return [
            [a * b * at.between(c, e) for b, e in zip(q.T, self.of[other], strict=True)]
            for a, c in zip(z.T, self.of[k], strict=True)
        ]


class PredictorExpansion(LocalExpansion):
    """`engine.rows.protocol.Expansion` of `PredictorRows`: weights and bend are `BlockWeights`."""

    def __init__(self, rows, likelihood, coefs, raw, observed):
        self.rows, self._densities, self._raw, self._observed = rows, likelihood, raw, observed
        self._eta, column = np.empty((rows.n_rows, 1)), raw[:, None]

        def visit(own, eta):
            (y, w), weights = rows.own(own), rows.weights[own]
            if len(raw):
                values, score, of_raw = likelihood.slopes(y, w, eta, column)
            else:
                values, score = likelihood.both(y, eta, column)
                score, of_raw = weights[:, None] * score, np.zeros((0, 1))
            self._eta[own] = eta
            turned, square = likelihood.in_raw(y, w, eta, raw)
            return np.concatenate([score, turned], axis=1), (w @ values, of_raw[:, 0], square)

        self._sum(rows.visited(coefs, visit, 1 + len(raw)))
        self.bend = rows.bent(likelihood, self._eta, column)
        self.weights = self.bend if observed else self._diagonal(column)

    def _diagonal(self, raw):
        """Weights [n_rows] of the expected curvature, of which there is the diagonal."""
        rows = self.rows
        (W,) = self._densities.curvature(rows.observations[0], self._eta, raw)
        return rows.weights * W[:, 0]

    def leverage(self, inverse):
        """Derivatives of -log |C| / 2 through the weights: in eta, as coefs [., 1], and in raw."""
        if not self._observed:
            return super().leverage(inverse)
        rows, heights, d = self.rows, self.rows.heights(inverse), self.rows.d

        def visit(own, _):
            (y, w), some = rows.own(own), slice(own.start // d, own.stop // d)
            share = -0.5 * w[:, None, None] * heights[some]
            in_eta, in_raw = self._densities.bent_blocks(y, share, self._eta[own], self._raw)
            return in_eta[:, None], (in_raw,)

        in_eta, (in_raw,) = rows.visited(None, visit, 1)
        return in_eta, in_raw


class PredictorRemainder(LocalRemainder):
    """`engine.rows.protocol.Remainder` of `PredictorRows`, whose weights are `BlockWeights`."""

    def _weights(self, dtype):
        return self.at.astype(dtype)

    @staticmethod
    def _times(at, a):
        return at * a
