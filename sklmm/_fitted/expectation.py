"""Expectations over normal linear predictors, by rules whose error does not grow with their SDs.

Of one predictor eta = m + s x, x ~ N(0, 1), with a mean that is smooth in eta,

    E f(eta) ~ h sum_j phi(x_j) f(m + s x_j),   x_j = j h,

the trapezoidal rule, which converges as exp(-2 pi a / (s h)) where f is analytic within a of the
real line (Trefethen & Weideman 2014): so h is tied to s, and f costs as many points as it has
features within reach, 17 for s = 1 of a logit and some 50 for s = 4. Gauss-Hermite's points lie as
far apart as its weight is wide, and miss the steps of f for large s; for small s few of them do.
Means that grow as exp(k eta) have their mass at x = k s, which the points reach. A mean with an
edge, as max(eta, 0), is integrated on either side of it by the tanh-sinh rule.

Several predictors are integrated one within another, eta = m + L x with L lower triangular. Of more
than three classes without an order that is too much: `_fitted.shares` has them.
"""

from functools import lru_cache

import numpy as np
from scipy.special import roots_hermitenorm

from sklmm.families.links import LINKS, Link, Log, Logit

#: Log of the error that is allowed for, inverted.
_DIGITS = np.log(1e8)
#: SDs within which rules are, and the widest step.
_REACH, _WIDEST = 6.0, 0.8
#: SDs beyond which the normal density is none in floating point.
_FARTHEST = 37.0
#: Points of Gauss-Hermite's rule that suffice for SDs of 2^(number / 2) strips, by that number.
_GAUSS = {-12: 3, -8: 5, -6: 7, -5: 9, -4: 11}
#: Where a mean may grow either way, and points far out be many, to 1e-6.
_GROWING = _GAUSS | {-3: 15, -2: 21}
#: Beyond 256 strips a bounded mean is a step between two points, and the error that of counting it:
#: some 1e-4.
_NUMBERS = np.array([*_GAUSS, *range(-3, 17)])
#: Of probabilities that are told to 1e-4: points of Gauss-Hermite's rule by those numbers up to
#: which they do, and the log of the error and the SDs of what is beyond.
_ROUGH = {-8: 2, -6: 3, -5: 4, -4: 5, -3: 8}
_ROUGH_DIGITS, _ROUGH_REACH = np.log(1e5), 4.5
#: SDs within which, and the step by which, tanh-sinh rules are.
_PANEL, _PANEL_STEP = 7.0, 0.07


class _Unknown(Link):
    """A mean that may grow either way."""

    strip, growth = 1.0, 3.0


class _Straight(Link):
    """A mean that is eta."""

    strip = 10.0


class Softmax(Link):
    """Shares of classes: no sum of exponentials is 0 where their angles are less than pi apart."""

    strip = np.pi / 2


def links_of(family, d=1):
    """What the mean of a row is like in each of its d predictors, subclasses of `Link`."""
    if family.classes == "unordered":
        return (Softmax,) * d
    first = LINKS.get(getattr(family, "link", None), _Unknown)
    if family.mean_is_eta:
        first = _Straight
    kinds = family.kinds.values() if d > 1 else ()
    return (first, *(Logit if kind == "unit" else Log for kind in kinds))


def expected(function, mean, covariance, links, numbers):
    """What `function` says of each row's eta, joined: it averages by weights that it is given.

    Parameters
    ----------
    function : callable
        Of eta [n, d, Q], or [n, Q] for d = 1, at Q points, their weights [n or 1, Q], which sum to
        1, and the rows' places [n].
    mean, covariance : ndarray [n_rows, d], [n_rows, d, d]
    links : tuple of `Link`
        By `links_of`.
    numbers : int
        Numbers of eta that it is given at a time.
    """
    d, root = len(links), lower_root(covariance)
    strips = np.array([link.strip for link in links])
    # SDs in strips along each axis, by `_NUMBERS`: rows of the same ones share points.
    sizes = np.abs(root / strips[:, None]).max(axis=1)
    out = None
    for key, every in of_one_key(numbers_of(sizes)):
        count = _nested(key, links, mean[every[:1]], root[every[:1]])[1].shape[1]
        step = max(numbers // (d * count), 1)
        for first in range(0, len(every), step):
            rows = every[first : first + step]
            eta, weights = _nested(key, links, mean[rows], root[rows])
            value = function(eta[:, 0] if d == 1 else eta, weights, rows)
            if out is None:
                out = np.empty((len(mean), *value.shape[1:]))
            out[rows] = value
    return out


def rough_rule(link, sd):
    """x [q] and weights [q] by which probabilities are averaged over N(0, sd^2), to some 2e-5."""
    number = numbers_of(sd / link.strip)
    count = next((count for most, count in _ROUGH.items() if number <= most), None)
    if count is not None:
        return hermite(count)
    size = 2.0 ** (number / 2)
    return _trapezoid(min(1 / size, np.sqrt(2 * _ROUGH_DIGITS)), _ROUGH_DIGITS, *[_ROUGH_REACH] * 2)


def hermite(count):
    """Points [q] and weights of Gauss-Hermite's rule for a standard normal distribution."""
    x, weights = roots_hermitenorm(count)
    return x, weights / weights.sum()


def weighted(values, weights):
    """Averages [n, ...] of values [n, Q, ...] by weights [n or 1, Q]."""
    if len(weights) == 1:
        return np.moveaxis(values, 1, -1) @ weights[0]
    return np.einsum("nq...,nq->n...", values, np.broadcast_to(weights, values.shape[:2]))


def numbers_of(sizes):
    """Those of `_NUMBERS` that SDs of so many strips belong to."""
    with np.errstate(divide="ignore"):
        places = np.searchsorted(_NUMBERS, np.nan_to_num(2 * np.log2(sizes)))
    return _NUMBERS[np.minimum(places, len(_NUMBERS) - 1)]


def of_one_key(keys):
    """Each key of keys [n, d], a tuple, with its rows."""
    left = np.arange(len(keys))
    while len(left):
        key = keys[left[0]]
        same = (keys[left] == key).all(axis=1)
        yield tuple(key.tolist()), left[same]
        left = left[~same]


def lower_root(covariance):
    """L [n, d, d] with L L^T = covariance, lower triangular, of singular ones too."""
    root = np.zeros_like(covariance)
    for j in range(covariance.shape[1]):
        left = covariance[:, j:, j] - np.einsum("nic,nc->ni", root[:, j:, :j], root[:, j, :j])
        pivot = np.sqrt(np.maximum(left[:, 0], 0.0))
        root[:, j, j] = pivot
        with np.errstate(divide="ignore", invalid="ignore"):
            below = left[:, 1:] / pivot[:, None]
        # What rounding leaves of nothing is nothing.
        some = pivot > 1e-8 * np.sqrt(np.maximum(covariance[:, j, j], 0.0))
        root[:, j + 1 :, j] = np.where(some[:, None], below, 0.0)
    return root


def _nested(key, links, mean, root):
    """Points eta [n, d, Q] and weights [n or 1, Q] of rows of one key: a rule along each axis."""
    d = len(links)
    growth = sum(link.growth * link.strip for link in links)
    both = d > 1 or links[0] is _Unknown
    # Axis c of x is the array's (c + 1)-th.
    eta, weights = mean.reshape(-1, d, *[1] * d), 1.0
    for c, number in enumerate(key):
        if c == 0 and links[0].edge is not None:
            x, own = _beside_edge(links[0].edge, mean[:, 0], root[:, 0, 0])
        else:
            x, own = _along(number, growth, both)
        shape = len(x), *[1] * c, -1, *[1] * (d - 1 - c)
        eta = eta + root[:, :, c].reshape(-1, d, *[1] * d) * x.reshape(shape)[:, None]
        weights = weights * own.reshape(shape)
    n = len(mean)
    return eta.reshape(n, d, -1), weights.reshape(len(weights), -1)


@lru_cache(maxsize=256)
def _along(number, growth, both):
    """x [1, q] and weights for SDs of up to 2^(number / 2) strips."""
    gauss = _GROWING if growth and both else _GAUSS
    if number in gauss:
        return tuple(own[None] for own in hermite(gauss[number]))
    size = 2.0 ** (number / 2)
    # Further from the real line than this the normal density itself grows too much.
    strip = min(1 / size, np.sqrt(2 * _DIGITS))
    last = min(_REACH + growth * size, _FARTHEST)
    rule = _trapezoid(strip, _DIGITS, last if both else _REACH, last)
    return tuple(own[None] for own in rule)


def _trapezoid(strip, digits, first, last):
    """Points [q] from -first to last, and weights, of a mean that is analytic within a strip."""
    step = min(_WIDEST, 2 * np.pi * strip / (digits + strip**2 / 2))
    x = step * np.arange(-np.ceil(first / step), np.ceil(last / step) + 1)
    weights = np.exp(-(x**2) / 2)
    return x, weights / weights.sum()


def _beside_edge(edge, mean, sd):
    """x [n, q] and weights on either side of where eta is at an edge."""
    with np.errstate(divide="ignore", invalid="ignore"):
        at = np.nan_to_num((edge - mean) / sd, posinf=_PANEL, neginf=-_PANEL)
    at = np.clip(at, -_PANEL, _PANEL)[:, None]
    places, weights = _tanh_sinh()
    left, right = at + _PANEL, _PANEL - at
    x = np.concatenate([left * places - _PANEL, at + right * places], axis=1)
    weights = np.concatenate([left * weights, right * weights], axis=1) * np.exp(-(x**2) / 2)
    return x, weights / weights.sum(axis=1, keepdims=True)


@lru_cache(maxsize=1)
def _tanh_sinh():
    """Points in (0, 1) and weights (Takahasi & Mori 1974)."""
    t = _PANEL_STEP * np.arange(-46, 47)
    bent = np.pi / 2 * np.sinh(t)
    return 1 / (1 + np.exp(-2 * bent)), np.cosh(t) / np.cosh(bent) ** 2


def sds(covariance):
    """SDs [n, d] of covariances [n, d, d]."""
    return np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
