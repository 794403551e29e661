r"""Cluster-robust covariances of a Gaussian model's coefficients, and their degrees of freedom.

With V the model's covariance of y, block diagonal by cluster j, W = V^-1 and M = (X^T W X)^-1,

    Var(beta) = M [sum_j E_j e_j e_j^T E_j^T] M,      e = y - X beta,      E_j = X_j^T W_j A_j.

The A_j of "CR0" are 1, those of "CR2" make the sum unbiased where V is right: A_j = L G^(-1/2) L^T,
V_j = L L^T, G = L^T (V_j - X_j M X_j^T) L; those of "CR3" are (1 - X_j M X_j^T W_j)^-1, the
jackknife's. "CR1", "CR1p" and "CR1S" multiply CR0's sum by J / (J - 1), J / (J - p) and
J (N - 1) / ((J - 1) (N - p)), for J clusters. Its degrees of freedom are those of quadratic forms
in normal numbers under the model (`hotelling`), of the covariance of two clusters' parts

    P_jk = M E_j (V_j 1(j = k) - X_j M X_k^T) E_k^T M.

With one residual variance nothing of a cluster's rows counts but the triangle R of [Z_j, X_j, e_j]:
what is orthogonal to these columns has the variance sigma^2, and neither X nor e. Precisions have
no such triangle for CR2, whose root is another by rows that are scaled.

References
----------
Bell & McCaffrey (2002), Survey Methodology 28, 169-181.
Pustejovsky & Tipton (2018), J. Bus. Econ. Stat. 36, 672-683; the R package clubSandwich 0.5.8.
"""

from typing import NamedTuple

import numpy as np
from scipy.linalg import solve_triangular

from sklmm._fitted.clusters import levels_clusters
from sklmm._fitted.hotelling import PairSums, check_size, joint_test
from sklmm._threads import in_threads
from sklmm.result import covariance_root

KINDS = ("CR0", "CR1", "CR1p", "CR1S", "CR2", "CR3")
#: Numbers of a batch of clusters at a time, and of the triangles that are kept between two passes.
BATCH = 1 << 21
KEPT = 1 << 25
#: Rows or columns of a cluster beyond which its matrices are too large.
LARGEST = 4000
#: Ratio of the sizes that are made one by rows and columns of zeros.
STEP = 1.2
#: Eigenvalues of a cluster's hat matrix from here on are 1: it alone tells a coefficient.
ALONE = 1 - 1e-9


class Cells(NamedTuple):
    """Clusters of one shape: their numbers, rows each, and levels of each block, at most."""

    clusters: np.ndarray
    n_rows: int
    n_levels: tuple


class Rows:
    """The rows of a design in the order of their clusters, and the triangles of these.

    Parameters
    ----------
    design : Design
        Whose levels are nested in the clusters.
    y, weights : ndarray [n_rows]
    clusters : ndarray of int [n_rows]
        0..J-1.
    result : EMResult
    own : bool
        Whether rows have residual variances of their own that a triangle does not keep.
    """

    def __init__(self, design, y, weights, clusters, result, own):
        self.design, self.weights, self.own = design, weights, own
        self.kept = ~result.dropped[: design.X.shape[1]]
        # Orthogonal columns: sums of squares of a year or a time stamp hide what it varies by.
        self.X, triangle = np.linalg.qr(design.X[:, self.kept])
        #: The coefficients from those of X's columns.
        self.turn = solve_triangular(triangle, np.eye(len(triangle)))
        self.y = y if design.offset is None else y - design.offset
        self.coef = np.nan_to_num(result.coef)
        self.order = np.argsort(clusters, kind="stable")
        self.sizes = np.bincount(clusters)
        self.first = np.cumsum(self.sizes) - self.sizes
        self.roots = [covariance_root(cov) / result.sigma for cov in result.covariances]
        # Each level's place among those of its cluster.
        self.places, counts = [], []
        for block in design.blocks:
            of = levels_clusters(block, clusters)
            n = np.bincount(of, minlength=len(self.sizes))
            place, order = np.empty(len(of), np.intp), np.argsort(of, kind="stable")
            place[order] = np.arange(len(of)) - (np.cumsum(n) - n)[of[order]]
            self.places.append(place)
            counts.append(n)
        self.counts = np.array(counts, np.intp).reshape(-1, len(self.sizes))

    @property
    def p(self):
        """Number of coefficients."""
        return int(self.kept.sum())

    def cells(self):
        """All clusters, in `Cells`."""
        shapes = _rounded(np.vstack([self.sizes, self.counts]))
        _, groups = np.unique(shapes, axis=1, return_inverse=True)
        order = np.argsort(groups.ravel(), kind="stable")
        ends = np.cumsum(np.bincount(groups.ravel()))
        out = []
        for members in np.split(order, ends[:-1]):
            shape = np.vstack([self.sizes, self.counts])[:, members].max(axis=1).tolist()
            width = self.width(shape[1:])
            k = shape[0] if self.own else min(shape[0], width)
            at_a_time = max(BATCH // (max(shape[0], k) * width), 1)
            out += [
                Cells(members[i : i + at_a_time], shape[0], tuple(shape[1:]))
                for i in range(0, len(members), at_a_time)
            ]
        return out

    def width(self, n_levels):
        """Number of columns of [Z, X, e] of clusters with so many levels of each block."""
        pairs = zip(n_levels, self.design.blocks, strict=True)
        return sum(n * block.r for n, block in pairs) + self.p + 1

    def triangle(self, cells):
        """[Z G^(1/2) / sigma, X, e] [B, k, width] of clusters, turned to few rows, and its noise.

        The noise is 1, or the reciprocals of the precisions [B, k].
        """
        out, width = None, self.width(cells.n_levels)
        if self.own or cells.n_rows <= width:
            return self._filled(cells, 0, cells.n_rows)
        step = max(BATCH // (len(cells.clusters) * width), width)
        for start in range(0, cells.n_rows, step):
            part, _ = self._filled(cells, start, min(start + step, cells.n_rows))
            part = part if out is None else np.concatenate([out, part], axis=1)
            out = np.linalg.qr(part, mode="r")
        return out, 1.0

    def _filled(self, cells, start, stop):
        """The columns of the rows start..stop of each cluster, zeros where it has fewer."""
        sizes, B = self.sizes[cells.clusters], len(cells.clusters)
        place = np.arange(start, stop)
        which, at = np.nonzero(place < sizes[:, None])
        rows = self.order[self.first[cells.clusters[which]] + start + at]
        scale = np.ones(len(rows)) if self.own else np.sqrt(self.weights[rows])
        out = np.zeros((B, stop - start, self.width(cells.n_levels)))
        first = 0
        parts = zip(self.design.blocks, self.places, self.roots, cells.n_levels, strict=True)
        for block, places, root, n in parts:
            z = np.asarray(block.loadings(rows)) @ root * scale.reshape(-1, *[1] * block.refs.ndim)
            refs = block.refs[rows]
            if not block.tied:
                z, refs = z[:, None], refs[:, None]
            for m in range(refs.shape[1]):
                columns = first + places[refs[:, m], None] * block.r + np.arange(block.r)
                out[which[:, None], at[:, None], columns] += z[:, m]
            first += n * block.r
        out[which, at, first:-1] = self.X[rows] * scale[:, None]
        out[which, at, -1] = (self.y[rows] - self.design.X[rows] @ self.coef) * scale
        noise = np.ones((B, stop - start))
        if self.own:
            noise[which, at] = 1 / self.weights[rows]
        return out, noise


def _rounded(sizes):
    """Sizes, those that are nearly the same made one."""
    return np.ceil(np.log(np.maximum(sizes, 1)) / np.log(STEP)) + (sizes > 0)


class Robust:
    """A robust covariance of the coefficients, and degrees of freedom of tests by it.

    `clusters` are codes 0..J-1 [n_rows], of which the levels of all terms are parts.
    """

    def __init__(self, design, response, result, clusters, kind):
        constant = (response.weights == response.weights[0]).all()
        own = response.family.weights == "precision" and kind == "CR2" and not constant
        # Precisions were divided by their mean.
        weights = response.weights * response.sigma_unit**2
        self.rows = Rows(design, response.y, weights, clusters, result, own)
        self.kind, self.N, self.cells = kind, response.weights.sum(), self.rows.cells()
        _check_sizes(self.rows, self.cells, kind)
        sizes = (len(c.clusters) * self.rows.width(c.n_levels) ** 2 for c in self.cells)
        self.kept = {} if sum(sizes) < KEPT else None
        parts = self._each(lambda own: own.gram.sum(axis=0))
        self.bread = np.linalg.inv(sum(parts))

    def _each(self, function):
        """What a function of `_Whitened` clusters answers, of all cells."""

        def one(i):
            triangle = self.kept.get(i) if self.kept is not None else None
            triangle = triangle or self.rows.triangle(self.cells[i])
            if self.kept is not None:
                self.kept[i] = triangle
            return function(_Whitened(*triangle, self.rows.p))

        return in_threads(one, range(len(self.cells)))

    def covariance(self, *tests):
        """(covariance [n, n] of the coefficients, nu [m] of each of `tests`), nan where dropped.

        A test is L [m, q, n], of m hypotheses of q rows: see `hotelling`.
        """
        kept, turn = self.rows.kept, self.rows.turn
        tests = [L[..., kept] @ turn for L in tests]
        for L in tests:
            check_size(*L.shape[1:])

        def sums(own):
            components, h, R = _components(own, self.bread, self.kind)
            return components.T @ components, [PairSums.of(L, h, R) for L in tests]

        meats, pairs = zip(*self._each(sums), strict=True)
        cov = np.full((len(kept), len(kept)), np.nan)
        cov[np.ix_(kept, kept)] = self._scale() * turn @ sum(meats) @ turn.T
        return cov, [PairSums.sum(parts).dof() for parts in zip(*pairs, strict=True)]

    def _scale(self):
        """What CR0's sum is multiplied by."""
        J, p, N = len(self.rows.sizes), self.rows.p, self.N
        if self.kind == "CR1p":
            return J / (J - p)
        return {"CR1": J / (J - 1), "CR1S": J * (N - 1) / ((J - 1) * (N - p))}.get(self.kind, 1.0)

    def coefficients(self):
        """(covariance [n, n], degrees of freedom [n]) of the coefficients; nan where dropped."""
        kept = self.rows.kept
        cov, (found,) = self.covariance(np.eye(len(kept))[kept][:, None])
        dof = np.full(len(kept), np.nan)
        dof[kept] = found
        return cov, dof

    def joint_test(self, L, difference):
        """(F, q, ddf, p) of L b - r [q], L [q, n] of rank q."""
        cov, ((dof,),) = self.covariance(L[None])
        return joint_test(difference, L @ np.nan_to_num(cov) @ L.T, dof)


def _check_sizes(rows, cells, kind):
    J, p = len(rows.sizes), rows.p
    if J < 2 or (kind == "CR1p" and p >= J):
        raise ValueError(
            f"cluster: there {'is' if J == 1 else 'are'} {J}, and cov={kind!r} needs more than "
            f"{p if kind == 'CR1p' else 1}: name a column with more clusters."
        )
    for c in cells:
        k = c.n_rows if rows.own else min(c.n_rows, rows.width(c.n_levels))
        if k > LARGEST:
            what = "rows with precisions" if rows.own else "effects and coefficients"
            other = "use cov='CR3', or " if rows.own else ""
            raise ValueError(
                f"cluster: one has {k} {what}, whose matrices would be too large beyond {LARGEST}: "
                f"{other}name a column with smaller clusters."
            )


class _Whitened:
    """Clusters [B] with V = L L^T: X and e, and L^-1 X and L^-1 e; gram [B, p, p] is X^T W X."""

    def __init__(self, triangle, noise, p):
        F, self.X, self.e = triangle[..., : -p - 1], triangle[..., -p - 1 : -1], triangle[..., -1:]
        V = F @ F.transpose(0, 2, 1)
        diagonal = np.arange(V.shape[1])
        V[:, diagonal, diagonal] += noise
        self.L = np.linalg.cholesky(V)
        both = np.linalg.solve(self.L, triangle[..., -p - 1 :])
        self.white_X, self.white_e = both[..., :-1], both[..., -1:]
        self.gram = self.white_X.transpose(0, 2, 1) @ self.white_X


def _components(own, M, kind):
    """M E e [B, p] of clusters, and of M E times the covariance of y between two of them h and R.

    That is R [B, p, p] of one with itself, less h h^T, h [B, p, p] M E X times a root of M.
    """
    EX, EVE, Ee = _adjusted(own, M, kind)
    return (M @ Ee)[..., 0], M @ EX @ np.linalg.cholesky(M), M @ EVE @ M


def _adjusted(own, M, kind):
    """E X [B, p, p], E V E^T [B, p, p] and E e [B, p, 1] of clusters."""
    transposed = own.white_X.transpose(0, 2, 1)
    if kind == "CR2":
        adjusted = _bell_mccaffrey(own, M)
        turned = own.L.transpose(0, 2, 1) @ adjusted
        E = adjusted.transpose(0, 2, 1)
        return E @ own.X, turned.transpose(0, 2, 1) @ turned, E @ own.e
    EX = EVE = own.gram
    Ee = transposed @ own.white_e
    if kind == "CR3":
        rest = np.eye(len(M)) - own.gram @ M
        if _alone(own.gram, M).any():
            raise ValueError(
                "cov='CR3' leaves out a cluster at a time, and without one of them a coefficient "
                "is not determined: use cov='CR2'."
            )
        EX, Ee = np.linalg.solve(rest, EX), np.linalg.solve(rest, Ee)
        EVE = np.linalg.solve(rest, EX.transpose(0, 2, 1))
    return EX, EVE, Ee


def _alone(gram, M):
    """How many directions [B] of the coefficients only one cluster tells."""
    root = np.linalg.cholesky(M)
    return (np.linalg.eigvalsh(root.T @ gram @ root) > ALONE).sum(axis=1)


def _bell_mccaffrey(own, M):
    """E^T = A W X [B, k, p]: L G^(-1/2) L^-1 X, whose G is L^T (V - X M X^T) L."""
    turned = own.L.transpose(0, 2, 1) @ own.L
    X = own.L.transpose(0, 2, 1) @ own.X
    G = turned @ turned - X @ M @ X.transpose(0, 2, 1)
    values, vectors = np.linalg.eigh(G)
    # Rounding hides zeros beside large values; how many there are the coefficients tell.
    lost = np.arange(G.shape[1]) < _alone(own.gram, M)[:, None]
    power = np.where(lost, 0.0, np.maximum(values, np.finfo(float).tiny) ** -0.5)
    inner = vectors.transpose(0, 2, 1) @ own.white_X
    return own.L @ (vectors @ (power[..., None] * inner))
