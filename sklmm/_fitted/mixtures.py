"""The distribution of a new y in each row: the family's, averaged over a normal linear predictor.

    F_i(y) = E F(y | eta),    eta ~ N(mean_i, variance_i),

is a trapezoidal sum over eta, which converges as fast as F(y | eta) is smooth between two points.
It is so by a few where y varies more than its mean does; for counts of a large mean and effects of
a large SD F is a step in eta, and the points are doubled until they tell the same. How many suffice
is not known beforehand, as it is of means (`_fitted.expectation`): F is as steep as y is certain.

Along a row's other predictors, of zeros or a dispersion, F is as smooth as these are.
"""

from math import prod
from typing import NamedTuple

import numpy as np

from sklmm._fitted.expectation import links_of, lower_root, rough_rule, sds
from sklmm._fitted.latent import BLOCK, TENSOR_BLOCK, Moments, of_rows
from sklmm.families import Family

#: SDs within which the points are, and how many there are at first and at most.
_REACH = 5.0
FEWEST, MOST = 11, 704
#: What two rules may differ by.
TOLERANCE = 1e-4


class Mixture(NamedTuple):
    """Some rows' distributions: the family, `Moments` of eta, its parameters by row or the same."""

    family: Family
    moments: Moments
    params: dict

    @property
    def _d(self):
        """Predictors a row."""
        return 1 if self.moments.mean.ndim == 1 else self.moments.mean.shape[1]

    def rows(self, rows):
        """Those of some of the rows, a slice or places."""
        moments = Moments(*(part[rows] for part in self.moments))
        return Mixture(self.family, moments, of_rows(self.params, rows))

    def blocks(self, n_points=FEWEST):
        """Slices of rows whose points are as many numbers as stay in cache."""
        numbers = TENSOR_BLOCK if self.family.density is None else 2 * BLOCK
        count = n_points * self._d * prod(len(x) for x, _ in self._others())
        n_rows, size = len(self.moments.mean), max(numbers // count, 1)
        return [slice(first, first + size) for first in range(0, n_rows, size)]

    def cdf(self, y, below=False, n_points=FEWEST):
        """P(Y <= y) [n] of y [n], or P(Y < y), by so many points of eta."""
        low, high = self.family.limits(self.params)
        inner = y > low if below else y < high
        if not inner.all():
            # What is known at the ends is not summed: most of a few whole numbers are there.
            out, rows = np.full(len(y), 0.0 if below else 1.0), np.flatnonzero(inner)
            out[rows] = self.rows(rows).cdf(y[rows], below, n_points)
            return out
        if len(blocks := self.blocks(n_points)) > 1:
            parts = [self.rows(rows).cdf(y[rows], below, n_points) for rows in blocks]
            return np.concatenate(parts)
        eta, weights = self._points(n_points)
        return self.family.cdf(y[:, None], eta, self.params, below) @ weights

    def settled_cdf(self, y, below=False):
        """`cdf` by as many points in each row as it needs."""
        out, left, n_points = self.cdf(y, below), np.arange(len(y)), FEWEST
        if not self.moments.variance.any():
            return out
        while len(left) and n_points < MOST:
            part = self.rows(left)
            fine, finer = (part.cdf(y[left], below, k * n_points) for k in (2, 3))
            # Two, as with steps between the points one may agree by chance.
            moved = np.maximum(np.abs(fine - out[left]), np.abs(finer - out[left])) > TOLERANCE
            out[left], left, n_points = finer, left[moved], 2 * n_points
        return out

    def _points(self, n_points):
        """Points [n, Q] of eta, or [n, d, Q], and their weights [Q]."""
        mean, variance, _ = self.moments
        step = 2 * _REACH / (n_points - 1)
        x = step * (np.arange(n_points) - (n_points - 1) / 2)
        weights = np.exp(-0.5 * x**2)
        weights /= weights.sum()
        if not variance.any():
            return mean[..., None], np.ones(1)
        if mean.ndim == 1:
            return mean[:, None] + np.sqrt(variance)[:, None] * x, weights
        axes = [(x, weights), *self._others()]
        grid = np.meshgrid(*[x for x, _ in axes], indexing="ij")
        shares = np.meshgrid(*[share for _, share in axes], indexing="ij")
        places = np.stack([axis.ravel() for axis in grid])
        points = mean[:, :, None] + lower_root(variance) @ places
        return points, np.prod(shares, axis=0).ravel()

    def _others(self):
        """Points and weights along each other predictor of a row, by the largest of its SDs."""
        if self._d == 1:
            return []
        links = links_of(self.family, self._d)[1:]
        largest = sds(self.moments.variance)[:, 1:].max(axis=0, initial=0.0)
        return [rough_rule(link, sd) for link, sd in zip(links, largest, strict=True)]
