r"""The points of Gauss-Hermite quadrature over trees of levels, and their posterior shares.

A sum over the points of all paths is taken from the finest levels to the coarsest: each level's
log-likelihood is that of its points, given the point of the level that it lies within. With s the
slope of the complete data's log density at the points and H less its second derivative, the
log-likelihood's information at held points is

    E[H] - Cov(s)

in the posterior's shares (Louis 1982, J. R. Stat. Soc. B 44, 226-233), exactly. The covariance of a
tree's sum is that of the levels' conditional means and, within each level, that about its own.
"""

from functools import lru_cache

import numpy as np
from scipy.special import roots_hermitenorm


@lru_cache
def grid(n_points, r):
    """Points [r, n_points^r] for a normal density, and the logarithms of their weights.

    The weights of a function that is divided by the density of N(0, I).
    """
    points, weights = roots_hermitenorm(n_points)
    log_weights = np.log(weights / weights.sum()) + 0.5 * points**2
    axes = np.meshgrid(*[points] * r, indexing="ij")
    log_weights = np.meshgrid(*[log_weights] * r, indexing="ij")
    return np.reshape(axes, (r, -1)), sum(log_weights).ravel()


class Points:
    """The points of a part: of each depth spherical effects [r, n, N], N those of its path.

    A level has K points for each of those that its parent has, N = K * N_before, which come one
    after another: so sums over the K go by whole rows. shares [n, N] of each depth are what the
    posterior gives to each of its points, and within [n, K, N_before] given its parent's.
    """

    def __init__(self, integral, part, nodes, n_points):
        self.part, self.numbers, self.parents, self.starts = part, [], [], []
        self.effects, self.logs = [], []
        depths, away = integral.depths, None
        for k, some in enumerate(part.levels):
            centre, root = nodes.centres[k][some], nodes.roots[k][some]
            z, log_weights = grid(n_points, centre.shape[1])
            own = np.einsum("nab,bk->ank", root, z)
            if k:
                self.parents.append(part.parents(depths, k))
                self.starts.append(part.starts(depths, k))
                away = away[:, self.parents[-1]]
                tie = np.einsum("nab,bnk->ank", nodes.ties[k][some], away)
                own = (own[:, :, :, None] - tie[:, :, None, :]).reshape(*own.shape[:2], -1)
            if k < len(depths) - 1:
                before = [np.tile(away, len(log_weights))] if k else []
                away = np.concatenate([*before, own])
            own += centre.T[:, :, None]
            log = np.einsum("ank,ank->nk", own, own)
            log *= -0.5
            log_det = np.log(np.einsum("naa->na", root)).sum(axis=1)
            weighed = log.reshape(len(log), len(log_weights), -1)
            weighed += (log_det[:, None] + log_weights)[:, :, None]
            self.effects.append(own)
            self.logs.append(log)
            self.numbers.append(len(log_weights))

    def integrate(self, value):
        """log p(y) of the part, from the finest levels' log densities [n, N]; and the shares."""
        self.within = [None] * len(self.effects)
        for k in range(len(self.effects) - 1, -1, -1):
            share = self.logs[k]
            share += value
            share = share.reshape(len(value), self.numbers[k], -1)
            most = share.max(axis=1, keepdims=True)
            most = np.where(np.isfinite(most), most, 0.0)
            share -= most
            np.exp(share, out=share)
            total = share.sum(axis=1, keepdims=True)
            share /= np.where(total > 0, total, 1.0)
            self.within[k] = share
            with np.errstate(divide="ignore"):
                value = (most + np.log(total))[:, 0]
            if k:
                value = np.add.reduceat(value, self.starts[k - 1], axis=0)
        shares = [self.within[0][:, :, 0]]
        for parent, within in zip(self.parents, self.within[1:], strict=True):
            own = shares[-1][parent][:, None, :] * within
            shares.append(own.reshape(len(own), -1))
        self.shares = shares
        return float(value.sum())

    def means(self):
        """Posterior means of each depth's effects, [n, r]."""
        pairs = zip(self.effects, self.shares, strict=True)
        return [np.einsum("ank,nk->na", u, share) for u, share in pairs]

    def covariances(self):
        """Posterior covariances of each depth's effects, [n, r, r]."""
        out = []
        for u, share, mean in zip(self.effects, self.shares, self.means(), strict=True):
            away = u - mean.T[:, :, None]
            out.append(np.einsum("ank,bnk->nab", away * share, away))
        return out

    def draws(self, n_draws, seed):
        """Draws [n, r, n_draws] of each depth, of a finer one given those it lies within."""
        out, at = [], None
        rng = np.random.default_rng([*seed, self.part.observations.start])
        for k, (u, within) in enumerate(zip(self.effects, self.within, strict=True)):
            n, K, N = within.shape
            uniform = (np.arange(n_draws) + rng.random((n, n_draws))) / n_draws
            uniform = rng.permuted(uniform, axis=1)
            before = np.zeros((n, n_draws), np.intp) if at is None else at[self.parents[k - 1]]
            # One search for all: each row of shares is a unit further on than the one before.
            row = np.arange(n)[:, None] * N + before
            reach = np.cumsum(within.transpose(0, 2, 1).reshape(-1, K), axis=1)
            reach = np.minimum(reach, 1.0) + np.arange(len(reach))[:, None]
            at = np.searchsorted(reach.ravel(), row + uniform) - row * K
            at = np.clip(at, 0, K - 1) * N + before
            out.append(np.take_along_axis(u, at[None], axis=2).transpose(1, 0, 2))
        return out

    def conditional(self, slopes):
        """Of slopes [m, n, N] at the finest levels' points, two lists [m, n, .] over the depths.

        Sums over what lies within a level at its own points, and their means at its parent's.
        """
        sums, means = [], []
        for k in range(len(self.within) - 1, -1, -1):
            within = self.within[k]
            inner = slopes.reshape(len(slopes), *within.shape)
            sums.append(slopes)
            means.append(np.einsum("mnkp,nkp->mnp", inner, within))
            if k:
                slopes = np.add.reduceat(means[-1], self.starts[k - 1], axis=1)
        return sums[::-1], means[::-1]

    def covariance(self, sums, means):
        """The posterior covariance [m, m] of the trees' sums, by what `conditional` has."""
        total, before = 0.0, [np.ones((len(self.shares[0]), 1))]
        before += [share[own] for share, own in zip(self.shares, self.parents, strict=False)]
        for k, share in enumerate(self.shares):
            total = total + gram(sums[k], share) - gram(means[k], before[k])
        return total

    def motion(self, sums, means):
        """Covariances [n, r, m] of each depth's effects with the tree's sum: their means' slopes.

        In the parameters of which the sums are slopes.
        """
        out, last = [], len(sums) - 1
        # What a tree's mean at a point of a path is beside what lies within the level, and beside
        # the tree's own.
        rest = -means[0]
        for k, (u, share, own) in enumerate(zip(self.effects, self.shares, sums, strict=True)):
            weighed = u * share
            at_parent = weighed.reshape(*u.shape[:2], self.numbers[k], -1).sum(axis=2)
            motion = np.einsum("ank,mnk->nam", weighed, own)
            out.append(motion + np.einsum("ank,mnk->nam", at_parent, rest))
            if k < last:
                at = np.tile(rest, self.numbers[k]) + own
                rest = at[:, self.parents[k]] - means[k + 1]
        return out


def gram(columns, weights):
    """Products [m, m] of columns [m, n, N] at weights [n, N]."""
    flat = columns.reshape(len(columns), -1)
    return (flat * weights.ravel()) @ flat.T
