"""Rows sorted by the levels of nested factors, whose densities are asked for at many points.

Depth 0 is the coarsest factor, and each level of a finer one lies within one of the depth before:
its parent. So the levels are a tree, the rows of each are adjacent, and sums over them are sums of
neighbours. A row's path has the effects of its levels at every depth, one after another.
"""

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from scipy import sparse

#: Rows times points that are worked on at once: of fewer, threads wait for each other longer than
#: they work.
CELLS = 1 << 17
#: Share of the expected curvature that a row has at least, so that sums of them are positive.
LEAST_CURVATURE = 0.1


class Nesting(NamedTuple):
    """Nested terms: their numbers over each partition of the rows, the coarsest first.

    And the effects of a level of each, and the rows of the coarsest one's largest level.
    """

    groups: list
    effects: list
    largest: int

    @classmethod
    def of(cls, terms):
        """Of terms, (references, levels, effects a level) each; None where they are crossed."""
        refs, levels, widths = zip(*terms, strict=True) if terms else ((), (), ())
        if (groups := nested_groups(refs, levels)) is None:
            return None
        effects = [sum(widths[k] for k in group) for group in groups]
        return cls(groups, effects, np.bincount(refs[groups[0][0]]).max())


def nested_groups(refs, levels):
    """Terms' numbers over each partition of the rows, the coarsest first; None if not nested.

    `refs` are the rows' levels of each term, [n_rows] each, and `levels` how many there are.
    """
    if not len(refs):
        return None
    sizes = [
        np.count_nonzero(np.bincount(own, minlength=J)) for own, J in zip(refs, levels, strict=True)
    ]
    order = sorted(range(len(refs)), key=sizes.__getitem__)
    groups = [[order[0]]]
    for before, k in pairwise(order):
        if not _refines(refs[k], refs[before], levels[k]):
            return None
        if sizes[k] == sizes[before]:
            groups[-1].append(k)
        else:
            groups.append([k])
    return groups


def _refines(fine, coarse, n_levels):
    """Whether each level of `fine` lies within one of `coarse`."""
    if fine is coarse:
        return True
    partner = np.zeros(n_levels, coarse.dtype)
    partner[fine] = coarse
    return np.array_equal(partner[fine], coarse)


class Depth(NamedTuple):
    """One partition: its terms' numbers, each one's columns in the path, and levels [n] by term.

    first [n + 1] are the first observations of the n levels in their order, parent [n] numbers of
    the depth before; `own` the columns of all terms in the path.
    """

    terms: list
    columns: list
    levels: list
    first: np.ndarray
    parent: np.ndarray
    own: slice

    @property
    def n(self):
        """How many levels there are."""
        return len(self.first) - 1


class Part(NamedTuple):
    """Some whole levels of depth 0: slices of the levels of each depth, and of the observations."""

    levels: list
    observations: slice

    def parents(self, depths, k):
        """Numbers within the part of the parents of its levels of depth k."""
        return depths[k].parent[self.levels[k]] - self.levels[k - 1].start

    def starts(self, depths, k):
        """Each first child, of depth k, of the part's levels of the depth before."""
        before = self.levels[k - 1]
        return np.searchsorted(self.parents(depths, k), np.arange(before.stop - before.start))


class NestedRows:
    """`LocalRows` in the order of the tree's levels: `depths` from the coarsest on.

    loadings [n_rows, R] are z of the path's R effects.
    """

    def __init__(self, rows, groups):
        d = rows.d
        order = np.arange(rows.n_rows // d)
        for group in reversed(groups):
            order = order[np.argsort(rows.refs[group[0]][::d][order], kind="stable")]
        self.rows = rows.take((order[:, None] * d + np.arange(d)).ravel())
        self.d, self.n = d, len(order)
        self.depths, first = [], 0
        for group in groups:
            sizes = [rows.z[k].shape[1] for k in group]
            ends = np.cumsum([first, *sizes])
            self.depths.append(self._depth(group, [slice(*pair) for pair in pairwise(ends)]))
            first = int(ends[-1])
        z = [self.rows.z[k] for depth in self.depths for k in depth.terms]
        self.loadings = np.concatenate(z, axis=1)
        self.ones = (self.loadings == 1).all(axis=0)
        #: Distinct columns of loadings, and each column's place among them: those of ones are one.
        kept = self.ones.argmax() if self.ones.any() else 0
        first = np.where(self.ones, kept, np.arange(self.width))
        self.distinct, self.kinds = np.unique(first, return_inverse=True)
        self.y, self.weights = self.rows.observations

    def _depth(self, group, columns):
        refs = [self.rows.refs[k][:: self.d] for k in group]
        starts = np.flatnonzero(np.diff(refs[0], prepend=-1))
        parent = np.zeros(len(starts), np.intp)
        if self.depths:
            parent = np.searchsorted(self.depths[-1].first, starts, side="right") - 1
        own = slice(columns[0].start, columns[-1].stop)
        levels = [own_refs[starts] for own_refs in refs]
        return Depth(group, columns, levels, np.append(starts, self.n), parent, own)

    @property
    def width(self):
        """Effects on a path, R."""
        return self.loadings.shape[1]

    def parts(self, n_points):
        """`Part`s of about `CELLS` observations times points, which do not depend on threads."""
        step = max(CELLS // (n_points * self.d), 1)
        roots = self.depths[0]
        ends = np.searchsorted(roots.first, np.arange(step, self.n + step, step), side="right") - 1
        ends = np.unique(np.concatenate([[0], np.maximum(ends, 1), [roots.n]]))
        out = []
        for a, b in pairwise(ends.tolist()):
            levels = [slice(a, b)]
            for depth in self.depths[1:]:
                inside = np.searchsorted(depth.parent, [levels[-1].start, levels[-1].stop])
                levels.append(slice(*inside.tolist()))
            out.append(Part(levels, slice(int(roots.first[a]), int(roots.first[b]))))
        return out

    def fixed(self, beta):
        """X beta and the offset, [n_rows]."""
        eta = self.rows.X @ beta
        return eta if self.rows.offset is None else eta + self.rows.offset

    def up(self, depth, values):
        """Sums over the levels of a depth by their parents, [n of the depth before, ...]."""
        starts = np.searchsorted(self.depths[depth].parent, np.arange(self.depths[depth - 1].n))
        return np.add.reduceat(values, starts, axis=0)

    def curvatures(self, likelihood, fixed, effects, raw):
        """Of the finest levels log f [n], its slope [n, R] and curvature [n, R, R] in their path.

        At `fixed` predictors [n_rows] and effects [n, R] of the path.
        """
        leaves, Z = self.depths[-1], self.loadings
        counts = np.diff(leaves.first) * self.d
        eta = fixed + np.einsum("na,na->n", Z, np.repeat(effects, counts, axis=0))
        eta, raw, w = eta[:, None], raw[:, None], self.rows.weights
        value, score, expected = likelihood.by_row(self.y, eta, raw)
        score, rows = w * score[:, 0], leaves.first[:-1] * self.d
        slope = np.add.reduceat(Z * score[:, None], rows, axis=0)
        bent = self._bent(likelihood, eta, raw, expected)
        curvature = np.empty((leaves.n, self.width, self.width))
        for a in range(self.width):
            for b in range(a + 1):
                own = np.add.reduceat(Z[:, a] * bent[:, b], rows)
                curvature[:, a, b] = curvature[:, b, a] = own
        return np.add.reduceat(self.weights * value[:, 0], leaves.first[:-1]), slope, curvature

    def _bent(self, likelihood, eta, raw, expected):
        """W Z [n_rows, R], W the rows' curvature, not less than a share of the `expected` one.

        Of predictors that are different ones it is an observation's block.
        """
        if self.rows.own_predictors:
            return self.rows.bent(likelihood, eta, raw, positive=True) * self.loadings
        (bend,) = likelihood.observed(self.y, eta, raw)
        bend = self.rows.weights * np.maximum(bend, LEAST_CURVATURE * expected)[:, 0]
        return bend[:, None] * self.loadings

    def look(self, part, likelihood, fixed, effects, raw, bent=False):
        """`Sight` of a part's rows at the points of its levels' effects, [r, n, N] of each depth.

        A depth has K points for each of those of the depth before, one after another: N = K *
        N_before. A `bent` one knows second derivatives in eta, and none in raw.
        """
        return Sight(self, part, likelihood, fixed, effects, raw, bent)


class Sight:
    """Densities of a part's rows at N points: `value` [n, N], log f summed by finest level."""

    def __init__(self, nested, part, likelihood, fixed, effects, raw, bent=False):
        self.nested, self.part, d = nested, part, nested.d
        some = part.observations
        self.rows = slice(some.start * d, some.stop * d)
        first = nested.depths[-1].first
        self.ends = first[part.levels[-1].start : part.levels[-1].stop + 1] - some.start
        self.counts = np.diff(self.ends)
        eta = self._predictor(effects)
        eta += fixed[self.rows, None]
        y, raw, self.slopes = nested.y[some], raw[:, None], []
        if bent:
            value, score, bend = likelihood.bends(y, eta, raw)
            self.bend = known(bend)
        else:
            value, score, self.slopes = likelihood.parts(y, eta, raw)
        self.score = known(score)
        # A density of 0 may come as one that is not a number.
        value = np.where(np.isnan(value), -np.inf, value)
        (self.value,) = level_sums(self.ends, nested.weights[some, None], value)

    def _predictor(self, effects):
        """Z b at the points, [n_rows, N]: what all rows of a level share is added up by level."""
        nested, same, others = self.nested, 0.0, []
        for k, (depth, b) in enumerate(zip(nested.depths, effects, strict=True)):
            same = self._inside(same, k, b.shape[2]) if k else same
            others = [(z, self._inside(own, k, b.shape[2])) for z, own in others]
            for a, own in zip(range(depth.own.start, depth.own.stop), b, strict=True):
                if nested.ones[a]:
                    same = same + own
                else:
                    others.append((nested.loadings[self.rows, a, None], own))
        counts = self.counts * nested.d
        if np.ndim(same):
            eta = np.repeat(same, counts, axis=0)
        else:
            eta = np.zeros((self.rows.stop - self.rows.start, effects[-1].shape[2]))
        for z, own in others:
            eta += z * np.repeat(own, counts, axis=0)
        return eta

    def _inside(self, values, k, N):
        """[n, N_before] of the depth before at the levels and points of depth k, [n, N]."""
        if not np.ndim(values):
            return values
        values = values[self.part.parents(self.nested.depths, k)]
        return np.tile(values, N // values.shape[1])

    def sums(self, shares, effects):
        """Sums of the slopes of log f at the points' shares [n, N] of each finest level.

        In beta [p]; in a factor of the effects b = L u, for points u of each depth, [R, R]; and in
        raw [q].
        """
        nested, some = self.nested, self.part.observations
        mine = np.repeat(shares, self.counts, axis=0)
        parts = (known(np.broadcast_to(part, mine.shape)) for part in self.slopes)
        raw = [nested.weights[some] @ np.einsum("nk,nk->n", mine, part) for part in parts]
        mine = np.repeat(mine, nested.d, axis=0) if nested.d > 1 else mine
        weights = nested.rows.weights[self.rows]
        of_beta = nested.rows.X[self.rows].T @ (weights * np.einsum("nk,nk->n", mine, self.score))
        return of_beta, self._of_factor(shares, effects), np.reshape(raw, len(raw))

    def slopes_by_level(self, effects, changes):
        """Slopes [p + m, n, N] of log f of each finest level, at its points.

        In beta, and in m parameters by which the path's factor changes as `changes` [m, R, R] say:
        of one predictor.
        """
        nested, p, u = self.nested, self.nested.rows.X.shape[1], self._paths(effects)
        found = self._level_sums([nested.rows.X, nested.loadings[:, nested.distinct]])
        out = np.zeros((p + len(changes), *self.value.shape))
        out[:p] = found[:p]
        for m, a, b in zip(*np.nonzero(changes), strict=True):
            out[p + m] += changes[m, a, b] * found[p + nested.kinds[a]] * u[b]
        return out

    def _level_sums(self, columns):
        """Sums [c, n, N] over the finest levels of scores times columns, a list of [n_rows, .]."""
        columns = np.concatenate([own[self.rows] for own in columns], axis=1)
        columns *= self.nested.rows.weights[self.rows, None]
        return level_sums(self.ends * self.nested.d, columns, self.score)

    def curvature(self, shares, effects, changes):
        """Sums [p + m, p + m] of less the second derivatives of log f at the points' shares.

        In what `slopes_by_level` has slopes in, but for what a change of the `changes` gives.
        """
        nested, R = self.nested, self.nested.width
        bend = self.bend * np.repeat(shares, self.counts, axis=0)
        bend *= nested.rows.weights[self.rows, None]
        u = [np.repeat(own, self.counts, axis=0) for own in self._paths(effects)]
        moments = np.empty((len(bend), R + 1, R + 1))
        moments[:, 0, 0] = bend.sum(axis=1)
        for a in range(R):
            own = bend * u[a]
            moments[:, 0, a + 1] = moments[:, a + 1, 0] = own.sum(axis=1)
            for b in range(a, R):
                both = np.einsum("nk,nk->n", own, u[b])
                moments[:, a + 1, b + 1] = moments[:, b + 1, a + 1] = both
        X = nested.rows.X[self.rows]
        p = X.shape[1]
        # The predictor's slopes are these times (1, u).
        slopes = np.zeros((len(bend), p + len(changes), R + 1))
        slopes[:, :p, 0] = X
        slopes[:, p:, 1:] = np.einsum("na,mab->nmb", nested.loadings[self.rows], changes)
        return np.tensordot(slopes @ moments, slopes, ([0, 2], [0, 2]))

    def _paths(self, effects):
        """The R effects of the finest levels' paths at their points, [n, N] each."""
        out = []
        for k, u in enumerate(effects):
            out = [self._inside(own, k, u.shape[2]) for own in out]
            out += list(u)
        return out

    def _of_factor(self, shares, effects):
        """Sums [R, R] of z score u^T of each depth at the points' shares [n, N]."""
        nested, out = self.nested, np.zeros((self.nested.width,) * 2)
        sums = self._level_sums([nested.loadings[:, nested.distinct]])
        sums *= shares
        for k in range(len(nested.depths) - 1, -1, -1):
            own, u = nested.depths[k].own, effects[k]
            out[own, own] = np.einsum("cnk,bnk->cb", sums, u)[nested.kinds[own]]
            if k:
                starts, before = self.part.starts(nested.depths, k), effects[k - 1].shape[2]
                inner = sums.reshape(*sums.shape[:2], -1, before).sum(axis=2)
                sums = np.add.reduceat(inner, starts, axis=1)
        return out


def level_sums(ends, columns, values):
    """Sums [c, n, N] over each level's rows of values [n_rows, N] times columns [n_rows, c].

    A level's rows are adjacent: `ends` [n + 1] are the first ones, and the last level's end.
    """
    (n_rows, c), n = columns.shape, len(ends) - 1
    rows = np.tile(np.arange(n_rows, dtype=np.int32), c)
    starts = np.append((np.arange(c)[:, None] * n_rows + ends[:-1]).ravel(), c * n_rows)
    by_level = sparse.csr_array((columns.T.ravel(), rows, starts), (c * n, n_rows))
    return (by_level @ values).reshape(c, n, -1)


def known(values):
    """Values that have a say: where a density is 0, or beyond its range, its slopes have none."""
    return values if np.isfinite(values).all() else np.nan_to_num(values, posinf=0.0, neginf=0.0)
