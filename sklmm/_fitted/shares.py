r"""Shares of many classes without an order, averaged over normal linear predictors.

With Gumbel noise the largest of independent predictors is that of class k with probability

    P_k = int G_k'(u) prod_{j != k} G_j(u) du,    G_k(u) = E exp(-exp(eta_k - u)),

which is its averaged share (McFadden 1974). What all classes but the first have in common is of the
first class as well: shares do not change if all predictors do alike. To covariances E_ij beyond
that shares answer by

    sum_{i < j} E_ij d^2 P_k / d mu_i d mu_j

(Plackett 1954), integrals of the same kind, and to the square of E. Where that is too much, it is
averaged over the points x of a Sobol sequence as what a control variate leaves,

    p(L x) - p(L_0 x) - p'(L_0 x) L_1 x,

L_0 being a root of the covariance without E, L one of the covariance with it, and L_1 the
derivative along E; with p(L x) itself where correlations are so strong that this is no less.

References
----------
McFadden (1974), "Conditional logit analysis of qualitative choice behavior", Frontiers in
Econometrics, 105-142. Plackett (1954), Biometrika 41, 351-360.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.polynomial import Polynomial
from scipy.signal import fftconvolve
from scipy.special import ndtri, softmax
from scipy.stats import qmc

from sklmm._fitted.expectation import Softmax, numbers_of, of_one_key, sds

#: The step along the largest predictor with noise, how far noise is below and above 0, and the SDs
#: of effects that count. The error is 4e-6, and smooth: derivatives are differences of averages.
_STEP, _BELOW, _ABOVE, _REACH = 0.8, 3.0, 9.0, 4.5
#: Tables of G: parts of a step, G and its derivatives, the logarithm of the ratio of two variances
#: with noise, how many are made at a time, how far beyond effects they reach, and SDs that count.
_PHASES, _ORDERS, _RATIO, _TABLES, _FURTHEST, _FARTHEST = 8, 6, 0.04, 4, 40.0, 6.5
#: Chances up to which they are 0.
_ROUNDING = 1e-10
#: The variance of Gumbel noise.
_NOISE = np.pi**2 / 6
#: Share of a variance that may be in common, and the least variance: roots are divided by.
_MOST, _LEAST = 0.9, 1e-8
#: Root mean square of the rows of E, in variances with noise, up to which its first order is told
#: to 3e-5.
_FIRST = 0.026
#: Errors of 2^11 points, by which numbers of them are chosen, and the powers of these by which they
#: fall, as measured for 4 to 20 classes (tests/fitted/test_shares.py): with the control variate in
#: units of the largest variance times |E|^2, E in roots of the rest; without it in SDs.
_CONTROLLED, _PLAIN = (1.2e-4, 0.65), (1e-3, 0.75)
_ALLOWED, _MEASURED_AT = 6e-5, 11
#: Binary logarithms of the fewest and the most points.
_FEWEST, _MOST_POINTS = 8, 20
#: Numbers of a block, which stay in cache, and points at a time.
_BLOCK, _AT_A_TIME = 1 << 16, 1 << 12


class Covariances(NamedTuple):
    """Those of some rows' predictors: of all classes in `common` [n], of each its `own` [n, d].

    `rest` [n, d, d] is what is left of the covariances, E.
    """

    common: np.ndarray
    own: np.ndarray
    rest: np.ndarray

    @property
    def nearest(self):
        """The matrices [n, d, d] without E."""
        return self.common[:, None, None] + self.own[:, None] * np.eye(self.own.shape[1])


def averaged_shares(mean, covariance):
    """Averages [n, d + 1] of softmax(0, eta), eta ~ N(mean, covariance), [n, d] and [n, d, d]."""
    covariances = _parts(covariance)
    plain, log_points = _rules(covariance, covariances)
    sizes = numbers_of(sds(covariance).max(axis=1) / Softmax.strip)
    out = np.empty((len(mean), mean.shape[1] + 1))
    for (alone, count, _), rows in of_one_key(np.column_stack([plain, log_points, sizes])):
        some = Covariances(*(part[rows] for part in covariances))
        if alone:
            out[rows] = _by_points(count, mean[rows], [_root(covariance[rows])])
            continue
        share, first = _first_order(mean[rows], some)
        more = first + _by_points(count, mean[rows], _roots(some)) if count else first
        # Of a share next to 0 what is added may be of an order that is not enough.
        out[rows] = np.maximum(share + more, share / 100)
    return out / out.sum(axis=1, keepdims=True)


def _parts(covariance):
    """The `Covariances` in matrices [n, d, d]: in common is the mean of those of two classes."""
    d, variance = covariance.shape[1], np.diagonal(covariance, axis1=1, axis2=2)
    variance = np.maximum(variance, _LEAST)
    common = (covariance.sum(axis=(1, 2)) - variance.sum(axis=1)) / (d * (d - 1))
    common = np.clip(common, 0.0, _MOST * variance.min(axis=1))
    rest = covariance - common[:, None, None]
    rest[:, range(d), range(d)] = 0.0
    return Covariances(common, variance - common[:, None], rest)


def _rules(covariance, covariances):
    """By row whether shares are averaged over points alone, and log2 of their number or 0."""
    variance = np.diagonal(covariance, axis1=1, axis2=2)
    scale = 1 / (covariances.own + _NOISE)
    size = np.sum((np.square(covariances.rest) @ scale[:, :, None])[:, :, 0] * scale, axis=1)
    plain, log_points = np.zeros((2, len(variance)), int)
    far = np.flatnonzero(size > variance.shape[1] * _FIRST**2)
    if len(far):
        some = Covariances(*(part[far] for part in covariances))
        turned = np.linalg.solve(some.nearest, some.rest)
        square = np.einsum("nij,nji->n", turned, turned)
        largest = variance[far].max(axis=1)
        numbers = [
            _MEASURED_AT + np.log2(np.maximum(error * unit / _ALLOWED, 1e-9)) / power
            for (error, power), unit in ((_CONTROLLED, largest * square), (_PLAIN, largest**0.5))
        ]
        # Of a difference each point is three.
        plain[far] = numbers[1] < numbers[0] + 1.5
        chosen = np.where(plain[far], numbers[1], numbers[0])
        log_points[far] = np.clip(np.ceil(chosen), _FEWEST, _MOST_POINTS)
    return plain, log_points


def _first_order(mean, covariances):
    """(Shares [n, d + 1] without E, what E adds to the first order) of rows of about one size."""
    common, own, rest = covariances
    mean = np.insert(mean, 0, 0.0, axis=1)
    variance = np.column_stack([common, own])
    sd, rest = np.sqrt(variance), np.pad(rest, [(0, 0), (1, 0), (1, 0)])
    low = (mean - _REACH * sd).max(axis=1) - _BELOW
    # E exp(eta) tells where the largest is exponential.
    high = (mean + np.minimum(sd / 2, _REACH) * sd).max(axis=1) + _ABOVE
    # Steps are the same for all rows: sums have no jumps where a row needs one more.
    count = int(np.ceil((high - low).max() / _STEP)) + 1
    size = max(_BLOCK // (mean.shape[1] * _ORDERS * count), 1)
    parts = []
    for rows in (slice(first, first + size) for first in range(0, len(mean), size)):
        chances = _chances(variance[rows], low[rows, None] - mean[rows], count)
        parts.append(_integrals(*chances, rest[rows]))
    return tuple(np.concatenate(part) for part in zip(*parts, strict=True))


def _integrals(chance, slope, bend, rest):
    """`_first_order` of G, G' and G'' of each class, [n, d + 1, U] at points u."""
    # Below all is as good as 0, and a ratio would be rounding.
    some = chance > _ROUNDING
    slope, bend = (
        np.divide(part, chance, out=np.zeros_like(part), where=some) for part in (slope, bend)
    )
    every, tied = chance.prod(axis=1)[:, :, None], rest @ slope
    # The last stands for those further on, where the noise's density falls exponentially.
    every[:, -1] /= -np.expm1(-_STEP)
    # Of a share next to 0 rounding may have either sign.
    share = np.maximum(slope @ every, np.finfo(float).tiny)
    # Pairs, of which those with a class have its second derivative.
    more = slope @ (np.einsum("nku,nku->nu", slope, tied)[:, :, None] / 2 * every)
    bend -= np.square(slope)
    bend *= tied
    more += bend @ every
    total = share.sum(axis=1)
    return share[:, :, 0] / total, more[:, :, 0] / total


def _chances(variance, start, count):
    """G, G' and G'' [n, K, count] of classes, of eta less its mean, from `start` [n, K] on.

    By Taylor's series about the nearest point and variance of a table: a change of the variance is
    one of G by half of it times G''.
    """
    places = np.log1p(variance / _NOISE) / _RATIO
    nearest = np.rint(places).astype(int)
    several = nearest // _TABLES
    made, which = np.unique(several, return_inverse=True)
    which = which.reshape(several.shape) * _TABLES + nearest % _TABLES
    length = 1 << int(np.ceil(np.log2(2 * count + _FURTHEST / _STEP)))
    tables = _tables(tuple(made.tolist()), length)
    at = (start - _origin(nearest)) / (_STEP / _PHASES)
    place = np.rint(at).astype(int)
    along = (at - place) * (_STEP / _PHASES)
    change = (variance - _variance(nearest)) / 2
    series = np.zeros((*start.shape, 2 + _ORDERS))
    series[..., 2] = 1.0
    series[..., 3] = along
    series[..., 4] = along**2 / 2 + change
    series[..., 5] = along**3 / 6 + along * change
    series[..., 6] = (along**2 + change) * change / 2
    series[..., 7] = along * change**2 / 2
    # Of G', G'' the same, of derivatives of one and two orders more.
    weights = np.ascontiguousarray(sliding_window_view(series, _ORDERS, axis=2)[:, :, ::-1])
    column, phase = np.divmod(place, _PHASES)
    # Beyond the end all is as there.
    column = np.minimum(column, length - count)
    windows = sliding_window_view(tables, count, axis=3)
    found = weights @ windows[which, phase, :, column]
    return np.moveaxis(found, 2, 0)


def _variance(places):
    """The variances of tables."""
    return _NOISE * np.expm1(_RATIO * places)


def _origin(places):
    """Where tables begin: all that counts is above."""
    return -_REACH * np.sqrt(_variance(places + 0.5)) - _BELOW - _STEP


@lru_cache(maxsize=8)
def _tables(several, length):
    """G and its derivatives [n, phases, orders, length], `_TABLES` of each of several numbers."""
    return np.stack([_table(_TABLES * k + i, length) for k in several for i in range(_TABLES)])


def _table(place, length):
    """One of `_tables`: of noise alone, spread by normal weights."""
    step, sd = _STEP / _PHASES, np.sqrt(_variance(place))
    reach = int(np.ceil(_FARTHEST * sd / step))
    spread = np.exp(-np.square(np.arange(-reach, reach + 1) * step / max(sd, step)) / 2)
    u = _origin(place) + step * np.arange(-reach, _PHASES * length + reach)
    odds, out, factor = np.exp(np.minimum(-u, 6.0)), [], Polynomial([1.0])
    for _ in range(_ORDERS):
        out.append(fftconvolve(factor(odds) * np.exp(-odds), spread / spread.sum(), "valid"))
        # Derivatives of exp(-odds) times a polynomial in the odds.
        factor = Polynomial([0.0, 1.0]) * (factor - factor.deriv())
    return np.stack(out).reshape(_ORDERS, length, _PHASES).transpose(2, 0, 1)


def _root(covariance):
    """Roots [n, d, d] of covariances, the widest directions first: Sobol's first axes are best."""
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(np.maximum(values, 0.0))[:, None])[:, :, ::-1]


def _roots(covariances):
    """(L, L_0, L_1): L is L_0 times a symmetric matrix, as near to it as covariances are."""
    root = np.linalg.cholesky(covariances.nearest)
    half = np.linalg.solve(root, covariances.rest)
    turned = np.linalg.solve(root, half.transpose(0, 2, 1))
    values, vectors = np.linalg.eigh(turned)
    stretch = vectors * np.sqrt(np.maximum(1 + values, 0.0))[:, None]
    return root @ stretch @ vectors.transpose(0, 2, 1), root, root @ turned / 2


def _by_points(log_points, mean, roots):
    """Averages [n, d + 1] of shares over the points, or of differences of three `_roots`."""
    points = _sobol(mean.shape[1], log_points)
    mean = np.insert(mean, 0, 0.0, axis=1)[:, :, None].astype(points.dtype)
    roots = [np.pad(root, [(0, 0), (1, 0), (0, 0)]).astype(points.dtype) for root in roots]
    out = np.zeros(mean.shape[:2])
    at_a_time = min(_AT_A_TIME, points.shape[1])
    size = max(_BLOCK // (mean.shape[1] * at_a_time), 1)
    for rows in (slice(first, first + size) for first in range(0, len(mean), size)):
        own = [root[rows] for root in roots]
        for first in range(0, points.shape[1], at_a_time):
            x = points[:, first : first + at_a_time]
            share = softmax(mean[rows] + own[0] @ x, axis=1)
            if len(own) > 1:
                control, along = softmax(mean[rows] + own[1] @ x, axis=1), own[2] @ x
                along -= np.sum(control * along, axis=1, keepdims=True)
                share -= control * (1 + along)
            out[rows] += share.sum(axis=2)
    return out / points.shape[1]


@lru_cache(maxsize=4)
def _sobol(d, log_points):
    """Normal points [d, Q] of a Sobol sequence, each beside its opposite."""
    places = qmc.Sobol(d, scramble=False).random_base2(log_points - 1)
    x = ndtri(places + 0.5 / len(places)).T
    return np.stack([x, -x], axis=2).reshape(d, -1).astype(np.float32)
