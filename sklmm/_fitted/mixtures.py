"""The distribution of a new y in each row: the family's, averaged over a normal linear predictor.

    F_i(y) = E F(y | eta),    eta ~ N(mean_i, variance_i),

is a trapezoidal sum, which converges as fast as F(y | eta) is smooth between two points. As a
function of eta it falls from 1 to 0 about the eta at which y is expected, within a few SDs w of y
there: for counts of a large mean and effects of a large SD s it is nearly a step. So points are
equally far from one another in t,

    eta = a + w sinh t,

a that eta: w apart where F falls, and further where only the normal density changes. Where w is as
large as s, they are equally far from one another in eta. How many suffice is not known beforehand,
as it is of means (`_fitted.expectation`): they are doubled until they tell the same.

Along a row's other predictors, of zeros or a dispersion, F is as smooth as these are.
"""

from math import prod
from typing import NamedTuple

import numpy as np

from sklmm._fitted.expectation import links_of, lower_root, rough_rule, sds
from sklmm._fitted.latent import BLOCK, TENSOR_BLOCK, Moments, of_rows
from sklmm.families import Family

#: SDs within which the points are, and how many there are at first and at most.
_REACH = 4.5
FEWEST, MOST = 12, 768
#: What two rules may differ by.
TOLERANCE = 1e-4
#: Within what w is, in SDs of eta: points are as good as equally far from one another beyond.
_NARROWEST, _WIDEST = 1e-9, 1e3
#: SDs of y in one unit of t.
_WIDE = 1.5
#: Points that seldom suffice not, where w in SDs of eta is up to so much, and beyond.
_STEEP, _POINTS = (0.05, 0.2, 0.5, 3.0), np.array([36, 24, 18, FEWEST, 9])


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
        if not self.moments.variance.any():
            mean = self.moments.mean[..., None]
            return self.family.cdf(y[:, None], mean, self.params, below)[:, 0]
        x, weights = self._points(y, n_points)
        # Weights add up to 1 but for rounding.
        return np.minimum(np.einsum("nq,nq->n", self._given(y, below, x), weights), 1.0)

    def settled_cdf(self, y, below=False):
        """`cdf` by as many points in each row as it needs."""
        out, left, n_points = self.cdf(y, below), np.arange(len(y)), FEWEST
        if not self.moments.variance.any():
            return out
        while len(left) and n_points < MOST:
            part = self.rows(left)
            finer = [part.cdf(y[left], below, k * n_points) for k in self.finer()]
            moved = np.max([np.abs(rule - out[left]) for rule in finer], axis=0) > TOLERANCE
            out[left], left, n_points = finer[-1], left[moved], 2 * n_points
        return out

    def enough(self):
        """How many points each row begins with [n], by how fast F falls about its mean."""
        if not self._is_located:
            return np.full(len(self.moments.mean), FEWEST)
        with np.errstate(all="ignore"):
            mean = self.family.mean(self.moments.mean[..., None], self.params)[:, 0]
        return _POINTS[np.searchsorted(_STEEP, self._fall(mean)[1])]

    def finer(self):
        """How many times as many points those rules have that are to tell the same."""
        # With steps between the points one may agree by chance.
        return (2,) if self._is_located else (2, 3)

    @property
    def _is_located(self):
        """Whether the family tells where in eta F falls."""
        return self.rows(slice(1))._located(np.ones(1)) is not None

    def _points(self, y, n_points):
        """Points x [n, Q] in SDs of the first predictor, and their weights, for y [n]."""
        center, width = self._fall(y)
        ends = [np.arcsinh((end - center) / width) for end in (-_REACH, _REACH)]
        t = np.linspace(*ends, n_points, axis=1)
        x = center[:, None] + width[:, None] * np.sinh(t)
        weights = np.exp(-0.5 * x**2) * np.cosh(t)
        return x, weights / weights.sum(axis=1, keepdims=True)

    def _fall(self, y):
        """Where F(y | eta) falls [n], from the mean of eta, and w [n], both in SDs of eta."""
        mean, variance, _ = self.moments
        if self._d > 1:
            mean, variance = mean[:, 0], variance[:, 0, 0]
        center, width = np.zeros(len(y)), np.full(len(y), _WIDEST)
        if (located := self._located(y)) is not None:
            with np.errstate(all="ignore"):
                at, w = ((located[0][:, 0] - mean), located[1][:, 0]) / np.sqrt(variance)
            known = np.isfinite(at) & np.isfinite(w)
            center[known] = np.clip(at[known], -_REACH, _REACH)
            width[known] = np.clip(_WIDE * w[known], _NARROWEST, _WIDEST)
        return center, width

    def _located(self, y):
        """`Family.located` of y [n] in these rows, the other predictors at their means."""
        family, params = self.family, self.params
        if self._d > 1:
            _, params = family.apart(self.moments.mean[..., None], params)
            family = family.family
        try:
            return family.located(y[:, None], params)
        except ValueError:
            # A family of one's own may have no variance.
            return None

    def _given(self, y, below, x):
        """P(Y <= y) [n, Q], or P(Y < y), at points of the first predictor."""
        mean, variance, _ = self.moments
        if self._d == 1:
            eta = mean[:, None] + np.sqrt(variance)[:, None] * x
            return self.family.cdf(y[:, None], eta, self.params, below)
        # One axis for each predictor: what does not depend on the others is worked out once.
        n, d = mean.shape
        others = self._others()
        by_row = (n, *[1] * d)
        axes = [x.reshape(n, -1, *[1] * (d - 1))]
        axes += [own.reshape(-1, *[1] * (d - 1 - c)) for c, (own, _) in enumerate(others, 1)]
        root = lower_root(variance)
        eta = [
            sum(root[:, c, k].reshape(by_row) * axes[k] for k in range(c + 1))
            + mean[:, c].reshape(by_row)
            for c in range(d)
        ]
        params = {
            name: np.reshape(value, (-1, *by_row[1:])) if np.ndim(value) else value
            for name, value in self.params.items()
        }
        first, params = self.family.of_predictors(eta, params)
        value = self.family.family.cdf(y.reshape(by_row), first, params, below)
        value = np.broadcast_to(value, (n, x.shape[1], *[len(own) for own, _ in others]))
        for _, weights in reversed(others):
            value = value @ weights
        return value

    def _others(self):
        """Points and weights along each other predictor of a row, by the largest of its SDs."""
        if self._d == 1:
            return []
        links = links_of(self.family, self._d)[1:]
        largest = sds(self.moments.variance)[:, 1:].max(axis=0, initial=0.0)
        return [rough_rule(link, sd) for link, sd in zip(links, largest, strict=True)]
