"""Newton's method for the maximum of a log-likelihood: its step, and the information it takes.

Where the likelihood is not concave everywhere the step is that of a trust region. About a point the
change of the log-likelihood is taken for g^T d - d^T B d / 2, with the score g and an information B
that may be indefinite. It is believed within a radius, and its maximum there (More & Sorensen 1983,
SIAM J. Sci. Stat. Comput. 4, 553-572) comes from the eigenvalues of B with their signs: so a
saddle, such as a variance of 0 where the likelihood rises with it, is left.
"""

from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq

from sklmm.engine.linalg.blocks import eigen

#: Length of the steps by which gradients are differenced, in float64.
STEP = 1e-4
#: Share of the largest information below which an entry of theta has none, beside those that are
#: `flat`: rounding.
ROUNDING = 1e-3
#: Rise of the log-likelihood over a radius of 1 that counts as none: such a direction is unknown.
FLAT = 1e-6
#: Shares of the promised rise below and above which the radius shrinks and grows.
POOR, GOOD = 0.25, 0.75
SHRINK, GROW = 0.25, 2.0
LARGEST_RADIUS = 8.0
#: Share of the largest eigenvalue of a scaled information below which one is 0.
UNKNOWN = 1e-10
#: Share of |y - B d| |d| below which the update by rank one is unsafe.
UNSAFE = 1e-8


def ascent(information, score, damping=0.0, flat=0.0, least=0.0):
    """The step [m] from an information [m, m] and a score [m], and its length in standard errors.

    The information's eigenvalues, each entry in units of its own, count by their absolute values:
    so the step climbs from a saddle too. Of their largest, `damping` is the share that is added to
    all of them, `least` the share that they have at least, and `flat` the one up to which a
    direction is left alone.
    """
    if not len(score):
        return np.zeros(0), 0.0
    own = np.abs(information.diagonal())
    scale = np.sqrt(np.maximum(own, ROUNDING * flat * own.max() + 1e-300))
    values, vectors = eigen(information / (scale[:, None] * scale))
    size = np.abs(values)
    size = np.maximum(size, least * size.max())
    unknown = size <= flat * size.max()
    inverse = np.where(unknown, 0.0, 1.0 / np.where(unknown, 1.0, size + damping * size.max()))
    along = vectors.T @ (score / scale)
    length = float(np.sqrt(np.sum(inverse * along**2)))
    return vectors @ (inverse * along) / scale, length


def inverse(information, noise=0.0):
    """The covariance [m, m] of parameters whose information [m, m] may be singular.

    `noise` is the share of its entries up to which they may be rounding.
    """
    scale, values, vectors, known = _scaled_eigen(information, noise)
    own = np.where(known, 1.0 / np.where(known, values, 1.0), 0.0)
    return (vectors * own) @ vectors.T / (scale[:, None] * scale)


def unknown_ways(information):
    """Unit vectors [m, k] along which there is no information, those that `inverse` has 0 for.

    They are not those whose image by `inverse` is 0: these depend on the scale of the parameters.
    """
    scale, _, vectors, known = _scaled_eigen(information)
    ways = vectors[:, ~known] / scale[:, None]
    ways /= np.abs(ways).max(axis=0, initial=0.0)
    return ways / np.linalg.norm(ways, axis=0)


def _scaled_eigen(information, noise=0.0):
    """(scale [m], eigenvalues and -vectors of the information in its units, which are known)."""
    # Its entries may be of very different sizes: some are known far better than others.
    scale = np.sqrt(np.maximum(np.abs(information.diagonal()), 1e-300))
    part = information / (scale[:, None] * scale)
    values, vectors = eigen((part + part.T) / 2)
    size = np.abs(values)
    return scale, values, vectors, size > max(UNKNOWN, noise) * size.max(initial=0.0)


def by_differences(score, m, centre=None):
    """The information [m, m] at 0 of a `score`, a function of a displacement [m] of theta.

    By differences to both sides, or to one where the score at 0, `centre` [m], is at hand.
    """
    columns = []
    for e in STEP * np.eye(m):
        if centre is None:
            columns.append((score(-e) - score(e)) / (2 * STEP))
        else:
            columns.append((centre - score(e)) / STEP)
    out = np.reshape(columns, (m, m))
    return (out + out.T) / 2


class Ahead(NamedTuple):
    """A step, its length and the rise it promises; Newton's decrement, and whether B is positive.

    The decrement is that of the whole Newton step, in standard errors; inf where B is indefinite.
    """

    step: np.ndarray
    length: float
    rise: float
    decrement: float
    positive: bool


def look(information, score, limits, radius, flat=FLAT):
    """`Ahead` from B [m, m] and g [m]; `limits` [m] are the coordinates' units of the radius.

    `flat` is the rise over them that counts as none.
    """
    if not len(score):
        return Ahead(np.zeros(0), 0.0, 0.0, 0.0, True)
    values, vectors = np.linalg.eigh(information * np.outer(limits, limits))
    slope = vectors.T @ (score * limits)
    rounding = np.finfo(float).eps * np.abs(values).max() * len(values)
    unknown = (np.abs(values) <= flat + rounding) & (np.abs(slope) <= flat)
    known, gain = values[~unknown], slope[~unknown]
    positive = bool((known > 0).all())
    decrement = float(np.sqrt(np.sum(gain**2 / known))) if positive else np.inf
    move = np.zeros_like(values)
    move[~unknown] = _within(known, gain, radius)
    rise = float(slope @ move - 0.5 * values @ move**2)
    return Ahead(limits * (vectors @ move), float(np.linalg.norm(move)), rise, decrement, positive)


def _within(values, slope, radius):
    """The maximum of slope . d - values . d^2 / 2 over |d| <= radius."""
    lowest = values.min(initial=np.inf)
    if lowest > 0:
        newton = slope / values
        if np.linalg.norm(newton) <= radius:
            return newton
    least = max(0.0, -lowest)
    least += 1e-10 * (least + np.abs(values).max(initial=0.0)) + 1e-300

    def excess(shift):
        return np.linalg.norm(slope / (values + shift)) - radius

    if excess(least) > 0:
        most = least + 2 * np.linalg.norm(slope) / radius
        return slope / (values + brentq(excess, least, most, rtol=1e-6))
    # The score knows nothing of the direction that rises: along it, to the edge.
    step = slope / (values + least)
    k = int(np.argmin(values))
    rest = radius**2 - (step @ step - step[k] ** 2)
    step[k] = np.copysign(np.sqrt(max(rest, 0.0)), slope[k])
    return step


def updated_radius(radius, ahead, ratio):
    """The radius after a step that made `ratio` of the rise it promised."""
    if not ratio >= POOR:
        return SHRINK * ahead.length
    if ratio > GOOD and ahead.length > 0.8 * radius:
        return min(GROW * radius, LARGEST_RADIUS)
    return radius


def updated(information, step, fall):
    """B after the score fell by `fall` [m] along `step`: symmetric, of rank one, maybe indefinite.

    Conn, Gould & Toint (1991), Math. Program. 50, 177-195.
    """
    missing = fall - information @ step
    along = missing @ step
    if abs(along) <= UNSAFE * np.linalg.norm(missing) * np.linalg.norm(step):
        return information
    return information + np.outer(missing, missing) / along
