r"""The likelihood of nested factors by adaptive Gauss-Hermite quadrature, and its score.

Given the parameters the levels of the coarsest factor are independent, and so are, given their
effects, the levels within each. With f the density of a level's rows and phi the normal one,

    p(y_j | v) = int phi(u) f(y_j | u, v) du,    p(y_i) = int phi(v) prod_j p(y_j | v) dv,

an integral of as many dimensions as a level has effects, for each level and for each point of those
that it lies within (Rabe-Hesketh, Skrondal & Pickles 2005, J. Econometrics 128, 301-323). Points
are about the mode of all of a tree's effects, in units of the curvature there: of a level, given
those it lies within (Pinheiro & Chao 2006, J. Comput. Graph. Stat. 15, 58-81). One point is
Laplace's approximation.

The score is the posterior's mean of the complete data's, at the same points (Fisher's identity):
where they are held, it is the slope of the sum to the last digit.
"""

from typing import NamedTuple

import numpy as np
from scipy.linalg import block_diag

from sklmm._threads import in_threads
from sklmm.engine.latent.points import Points
from sklmm.engine.limits import integrable
from sklmm.engine.linalg.blocks import invert, roots
from sklmm.engine.rows.nested import NestedRows
from sklmm.engine.theta.space import bends, slopes

NEWTON_STEPS = 100
#: Newton's decrement of a tree at which its mode is found, and that which counts as rounding.
NEWTON_TOL = 1e-8
ROUNDING = 1e-10
SHORTEST = 1e-6


class Nodes(NamedTuple):
    """Where a level's points are, of each depth: centre - tie (x - x-hat) + root z.

    centre [n, r]; tie [n, r, q] to the q effects x of the levels it lies within, whose modes are
    x-hat; root [n, r, r]. joint is log p(y, mode) and curvature [n, R, R] that of the finest
    levels' log densities in the effects b of their paths.
    """

    centres: list
    ties: list
    roots: list
    joint: float
    curvature: np.ndarray


class Integral:
    """The integral of a `Latent`'s rows whose terms are nested: `groups` as by `nesting`."""

    def __init__(self, latent, groups):
        self.latent, self.space = latent, latent.space
        self.nested = NestedRows(latent.rows, groups)
        self.depths = self.nested.depths
        self.modes = [np.zeros((d.n, d.own.stop - d.own.start)) for d in self.depths]

    def n_nodes(self, n_points):
        """Points of a path."""
        return n_points**self.nested.width

    def affordable(self, n_points):
        """Whether so many points a dimension are."""
        nested, widths = self.nested, [d.own.stop - d.own.start for d in self.depths]
        largest = np.diff(self.depths[0].first).max() * nested.d
        return integrable(nested.n * nested.d, largest, widths, "doubled", n_points)

    def _factor(self, theta):
        """Lambda of a path, [R, R]."""
        return block_diag(*(theta.factors[k] for d in self.depths for k in d.terms))

    def _paths(self, parts):
        """Each depth's [n, r, ...] on the paths of the finest levels, [n, R, ...]."""
        out = parts[0]
        for depth, own in zip(self.depths[1:], parts[1:], strict=True):
            out = np.concatenate([out[depth.parent], own], axis=1)
        return out

    def adapted(self, theta):
        """`Nodes` about the mode at theta, from the last mode by Newton's steps.

        A tree's step is halved until its density rises.
        """
        nested, factor = self.nested, self._factor(theta)
        fixed, densities = nested.fixed(theta.beta), self.latent.densities

        def look(u):
            path = self._paths(u) @ factor.T
            value, slope, bend = nested.curvatures(densities, fixed, path, theta.raw)
            joint = value
            for k in range(len(self.depths) - 1, -1, -1):
                joint = joint - 0.5 * np.einsum("nr,nr->n", u[k], u[k])
                joint = nested.up(k, joint) if k else joint
            return np.where(np.isnan(joint), -np.inf, joint), slope, bend

        u = self.modes
        seen = look(u)
        if not np.isfinite(seen[0]).all():
            u = [np.zeros_like(own) for own in u]
            seen = look(u)
        for _ in range(NEWTON_STEPS):
            steps, ties, covariances, decrement = self._step(u, *seen[1:], factor)
            going = decrement > NEWTON_TOL + ROUNDING * np.abs(seen[0])
            if not going.any():
                break
            length = np.where(going, 1.0, 0.0)
            while True:
                trial = self._moved(u, steps, length)
                new = look(trial)
                worse = (length > 0) & ~(new[0] >= seen[0] - ROUNDING * np.abs(seen[0]))
                if not worse.any():
                    break
                length[worse] = np.where(length[worse] > SHORTEST, length[worse] / 2, 0.0)
            if not length.any():
                break
            u, seen = trial, new
        if not np.isfinite(seen[0]).all():
            raise np.linalg.LinAlgError("the density of a level is 0")
        self.modes = u
        covariances = [roots(V) for V in covariances]
        return Nodes(u, ties, covariances, float(seen[0].sum()), seen[2])

    def _moved(self, u, steps, length):
        out = []
        for depth, own, step in zip(self.depths, u, steps, strict=True):
            length = length[depth.parent] if out else length
            out.append(own + length[:, None] * step)
        return out

    def _step(self, u, slope, bend, factor):
        """Newton's step [n, r] of each depth, ties and covariances, and each tree's decrement.

        The finest levels are eliminated first: what they leave is their parents' own.
        """
        g, M = slope @ factor, factor.T @ bend @ factor
        steps, ties, covariances = ([None] * len(u) for _ in range(3))
        decrement = 0.0
        for k in range(len(u) - 1, -1, -1):
            own, before = self.depths[k].own, slice(0, self.depths[k].own.start)
            V = invert(M[:, own, own] + np.eye(u[k].shape[1]))
            gradient = g[:, own] - u[k]
            ties[k], steps[k] = V @ M[:, own, before], np.einsum("nab,nb->na", V, gradient)
            covariances[k] = V
            decrement = decrement + np.einsum("na,na->n", steps[k], gradient)
            if k:
                across = M[:, before, own]
                rest = g[:, before] - np.einsum("nab,nb->na", across, steps[k])
                g = self.nested.up(k, rest)
                M = self.nested.up(k, M[:, before, before] - across @ ties[k])
                decrement = self.nested.up(k, decrement)
        path = steps[0]
        for k, depth in enumerate(self.depths[1:], 1):
            path = path[depth.parent]
            steps[k] = steps[k] - np.einsum("nab,nb->na", ties[k], path)
            path = np.concatenate([path, steps[k]], axis=1)
        return steps, ties, covariances, decrement

    def loglik(self, theta, nodes, n_points, asked=()):
        """(log p(y), its score [m], answers) at theta by the points of `nodes`.

        `asked` are functions of a part's `Points` with an array [n, ...] for each depth; the
        answers those of all parts together.
        """
        nested, factor = self.nested, self._factor(theta)
        fixed, densities = nested.fixed(theta.beta), self.latent.densities

        def look(part):
            points = Points(self, part, nodes, n_points)
            sight = nested.look(part, densities, fixed, self._turned(factor, points), theta.raw)
            value = points.integrate(sight.value)
            sums = sight.sums(points.shares[-1], points.effects)
            return value, *sums, [ask(points) for ask in asked]

        *found, told = zip(*in_threads(look, nested.parts(self.n_nodes(n_points))), strict=True)
        total, by_beta, by_factor, by_raw = map(sum, found)
        of_factors = np.einsum("ab,mab->m", by_factor, self._changes(theta))
        score = np.concatenate([by_beta[: self.space.p], of_factors, by_raw])
        return float(total), score, [joined(parts) for parts in zip(*told, strict=True)]

    def information(self, theta, nodes, n_points, moving=False):
        """(information, motion) at theta by the points of `nodes`, in all but the parameters raw.

        Less the second derivatives [p + m, p + m] of the sum that `loglik` has; and, if `moving` is
        asked for, how the means of each depth's effects move with the coefficients, [n, r, p]. For
        `curved` densities.
        """
        nested, factor, p = self.nested, self._factor(theta), self.space.p
        fixed, changes = nested.fixed(theta.beta), self._changes(theta)

        def look(part):
            points = Points(self, part, nodes, n_points)
            effects = self._turned(factor, points)
            sight = nested.look(part, self.latent.densities, fixed, effects, theta.raw, bent=True)
            points.integrate(sight.value)
            share = points.shares[-1]
            inner = points.conditional(sight.slopes_by_level(points.effects, changes))
            found = sight.curvature(share, points.effects, changes) - points.covariance(*inner)
            inner = ([own[:p] for own in depths] for depths in inner)
            motion = points.motion(*inner) if moving else []
            return found, sight.sums(share, points.effects)[1], motion

        found, by_factor, motion = zip(
            *in_threads(look, nested.parts(self.n_nodes(n_points))), strict=True
        )
        information = sum(found) - self._bent(theta, sum(by_factor))
        return information, joined(motion) if moving else None

    @property
    def curved(self):
        """Whether the densities' second derivatives are known."""
        return self.latent.densities.bends is not None

    def _changes(self, theta):
        """The derivatives [m, R, R] of a path's factor in the covariances' parameters."""
        out = []
        for own, changes in zip(self.columns, slopes(self.latent.full, theta.factors), strict=True):
            out.append(np.zeros((len(changes), self.nested.width, self.nested.width)))
            out[-1][:, own, own] = changes
        return np.concatenate(out)

    def _bent(self, theta, by_factor):
        """What a factor's own second derivatives add to those [p + m, p + m] of a log-likelihood.

        It has the derivatives [R, R] in the path's factor.
        """
        p = self.space.p
        parts = [
            np.einsum("ab,mnab->mn", by_factor[own, own], second)
            for own, second in zip(
                self.columns, bends(self.latent.full, theta.factors), strict=True
            )
        ]
        return block_diag(np.zeros((p, p)), *parts)

    def _turned(self, factor, points):
        """b = Lambda u of each depth's points [r, n, N]."""
        out = []
        for depth, u in zip(self.depths, points.effects, strict=True):
            L = factor[depth.own, depth.own]
            out.append(L[0, 0] * u if len(L) == 1 else np.einsum("ab,bnk->ank", L, u))
        return out

    @property
    def columns(self):
        """Each term's columns in the path."""
        pairs = [pair for d in self.depths for pair in zip(d.terms, d.columns, strict=True)]
        return [columns for _, columns in sorted(pairs, key=lambda pair: pair[0])]

    def by_term(self, parts, still, square=False):
        """Each term's array [n_levels, r, ...] from those of each depth [n, r, ...].

        Of covariances `square` [n, r, r]. A level without rows has the value that is `still`, [r]
        or [r, r] of each term.
        """
        out = [None] * len(still)
        for depth, part in zip(self.depths, parts, strict=True):
            for k, columns, levels in zip(depth.terms, depth.columns, depth.levels, strict=True):
                mine = slice(columns.start - depth.own.start, columns.stop - depth.own.start)
                own = part[:, mine, mine] if square else part[:, mine]
                shape = self.latent.full.blocks[k].n_levels, *own.shape[1:]
                out[k] = np.array(np.broadcast_to(still[k], shape))
                out[k][levels] = own
        return out

    def level_curvatures(self, nodes):
        """Z^T w Z [n, r, r] of each term, by which a chart knows its scales."""
        M, out = nodes.curvature, [None] * len(self.latent.full.blocks)
        for k in range(len(self.depths) - 1, -1, -1):
            depth = self.depths[k]
            for term, own in zip(depth.terms, depth.columns, strict=True):
                out[term] = M[:, own, own]
            M = self.nested.up(k, M) if k else M
        return out


def joined(parts):
    """Each depth's array of all levels, from those of the parts."""
    return [np.concatenate(depth) for depth in zip(*parts, strict=True)]
