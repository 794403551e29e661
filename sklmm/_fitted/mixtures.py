"""The distribution of a new y in each row: the family's, averaged over a normal linear predictor.

    F_i(y) = E F(y | eta),    eta ~ N(mean_i, variance_i),

is a trapezoidal sum over eta, which converges as fast as F(y | eta) is smooth between two points.
It is so by a few where y varies more than its mean does; for counts of a large mean and effects of
a large SD F is a step in eta, and the points are doubled until they tell the same.
"""

from typing import NamedTuple

import numpy as np

from sklmm._fitted.latent import Moments
from sklmm.families import Family

#: SDs within which the points are, and how many there are at first and at most.
_REACH = 5.0
FEWEST, MOST = 11, 704
#: What two rules may differ by.
TOLERANCE = 1e-4
#: Those of a row's other predictors, on which the distribution depends smoothly.
_NODES, _SHARES = np.polynomial.hermite_e.hermegauss(9)
_SHARES = _SHARES / _SHARES.sum()


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
        params = {k: v[rows] if np.ndim(v) else v for k, v in self.params.items()}
        return Mixture(self.family, Moments(*(part[rows] for part in self.moments)), params)

    def cdf(self, y, below=False, n_points=FEWEST):
        """P(Y <= y) [n] of y [n], or P(Y < y), by so many points of eta."""
        low, high = self.family.limits(self.params)
        inner = y > low if below else y < high
        if not inner.all():
            # What is known at the ends is not summed: most of a few whole numbers are there.
            out, rows = np.full(len(y), 0.0 if below else 1.0), np.flatnonzero(inner)
            out[rows] = self.rows(rows).cdf(y[rows], below, n_points)
            return out
        blocks = mixture_blocks(len(y), self._d, self.family, n_points)
        if len(blocks) > 1:
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
        root, others = _lower_root(variance), self._d - 1
        grid = np.meshgrid(x, *[_NODES] * others, indexing="ij")
        shares = np.meshgrid(weights, *[_SHARES] * others, indexing="ij")
        places = np.stack([axis.ravel() for axis in grid])
        return mean[:, :, None] + root @ places, np.prod(shares, axis=0).ravel()


def _lower_root(covariance):
    """L [n, d, d], lower triangular, with L L^T = covariance, of singular ones too."""
    d = covariance.shape[1]
    sd = np.sqrt(covariance[:, range(d), range(d)])
    unit = np.where(sd > 0, sd, 1.0)
    correlation = covariance / (unit[:, :, None] * unit[:, None, :])
    # A hair more than it is, and 1 where there is none.
    correlation[:, range(d), range(d)] = 1 + 1e-9
    return np.linalg.cholesky(correlation) * sd[:, :, None]


def mixture_blocks(n_rows, d, family, n_points=FEWEST):
    """Slices of rows whose points are as many numbers as stay in cache."""
    # TensorFlow takes long to begin.
    numbers = 1 << (22 if family.density is None else 18)
    size = max(numbers // (n_points * d * len(_NODES) ** (d - 1)), 1)
    return [slice(first, first + size) for first in range(0, n_rows, size)]
