"""Quantiles of a new observation: what prediction intervals are made of.

Of a normal y (or logarithm of y) they are in closed form; of other families that of the `Mixture`
is searched, all rows of a block at a time: from a bracket about the mean by secants of Phi^-1(F),
which is nearly straight in a number that y is a function of, and every third time by halves.
"""

import numpy as np
from scipy.special import expit, logit, ndtri

from sklmm._fitted.latent import predictor_moments
from sklmm._fitted.mixtures import FEWEST, MOST, TOLERANCE, Mixture
from sklmm._threads import in_threads

#: Steps of a search, and of widening a bracket.
_STEPS, _WIDENINGS = 150, 60
#: The share of a first step that is taken from a y that is near.
_AGAIN = 0.1
#: In SDs of a normal distribution: what is near enough, and what stands for infinity.
_NEAR, _FAR = 1e-6, 40.0


def predict_quantiles(design, result, family, include, params, q, d=1):
    """Quantiles [n_rows, len(q)] of a new y in each row, at q in (0, 1).

    `include` says for each term whether its effects are known; those that are not, and the new
    ones, vary by their prior.
    """
    moments, q = predictor_moments(design, result, include, d), np.asarray(q, float)
    if d == 1 and family.normal:
        sd = np.sqrt(moments.variance[:, None] + np.square(params["sigma"]))
        with np.errstate(over="ignore"):
            return family.decoded(moments.mean[:, None] + sd * ndtri(q))
    mixture, order = Mixture(family, moments, params), np.argsort(q)

    def one(rows):
        part = mixture.rows(rows)
        found = np.stack([_quantile(part, q[c]) for c in order], axis=1)
        out = np.empty_like(found)
        # None lies below that of a smaller q, to the last digit.
        out[:, order] = np.maximum.accumulate(found, axis=1)
        return out

    parts = in_threads(one, mixture.blocks())
    return np.concatenate([np.empty((0, len(q))), *parts])


def _quantile(mixture, q):
    """The least y [n] with F(y) >= q, by as many points of eta as tell it."""
    out, n_points = _search(mixture, q, FEWEST), FEWEST
    left = np.arange(len(out))
    while len(left) and n_points < MOST:
        part, y = mixture.rows(left), out[left]
        # Two finer rules, as with steps between the points one may agree by chance.
        left = left[
            ~(_is_quantile(part, y, q, 2 * n_points) & _is_quantile(part, y, q, 3 * n_points))
        ]
        n_points *= 2
        if len(left):
            out[left] = _search(mixture.rows(left), q, n_points, out[left])
    return out


def _is_quantile(mixture, y, q, n_points):
    """Whether F(y) >= q, and no smaller y has that, nearly."""
    up_to = mixture.cdf(y, False, n_points)
    if mixture.family.steps(mixture.params) is not None:
        below = mixture.cdf(y, True, n_points)
    else:
        low, high = mixture.family.limits(mixture.params)
        below = np.where((y > low) & (y < high), up_to, 0.0)
    return (up_to >= q - TOLERANCE) & (below <= q + TOLERANCE)


def _search(mixture, q, n_points, near=None):
    """The least y [n] with F(y) >= q by a number of points; a y that is `near` it helps."""
    family, params = mixture.family, mixture.params
    (low, high), steps = family.limits(params), family.steps(params)
    out = np.empty(len(mixture.moments.mean))
    left = np.ones(len(out), bool)
    # The ends of y's range may have probabilities of their own.
    if np.isfinite(low):
        left = mixture.cdf(np.full(len(out), low), False, n_points) < q
        out[~left] = low
    if np.isfinite(high) and left.any():
        end = left & (mixture.cdf(np.full(len(out), high), True, n_points) < q)
        out[end], left = high, left & ~end
    if not (rows := np.flatnonzero(left)).size:
        return out
    scale = _Scale(low, high) if steps is None else _Steps(low, high, np.ravel(steps), rows)
    t, width = scale.start(*_center(mixture.rows(rows)))
    if near is not None:
        t, width = scale.start(near[rows], width)[0], np.maximum(_AGAIN * width, scale.whole)

    def gap(t, some):
        """How far Phi^-1(F) is above its target."""
        cdf = mixture.rows(rows[some]).cdf(scale.y(t, some), False, n_points)
        return np.clip(ndtri(cdf), -_FAR, _FAR) - ndtri(q)

    found = _between(gap, *_bracket(gap, t, width, scale), scale)
    out[rows] = scale.y(found, np.arange(len(rows)))
    return out


class _Scale:
    """What a continuous y is searched by, in which its support is the real line."""

    whole = False

    def __init__(self, low, high):
        self.low, self.span = low, high - low

    def y(self, t, some):
        """The y of these t in some rows."""
        if not np.isfinite(self.low):
            return t
        with np.errstate(over="ignore"):
            return self.low + (self.span * expit(t) if np.isfinite(self.span) else np.exp(t))

    def start(self, center, width):
        """t at a center, and how much it is to vary."""
        if not np.isfinite(self.low):
            return center, width
        t = np.maximum(center - self.low, 1e-300)
        ones = np.ones(len(t))
        if np.isfinite(self.span):
            return logit(np.clip(t / self.span, 1e-12, 1 - 1e-12)), ones
        return np.log(t), ones

    def ends(self, some):
        """Bounds of t in some rows, beyond which there is no y."""
        return -np.inf, np.inf


class _Steps:
    """Whole numbers t, of which y = t / size is made, sizes of all rows or of each."""

    whole = True

    def __init__(self, low, high, size, rows):
        self.size = size if len(size) == 1 else size[rows]
        self.low, self.high = low * self.size, high * self.size

    def y(self, t, some):
        """The y of these t in some rows."""
        return t / _of(self.size, some)

    def start(self, center, width):
        """t at a center, and how much it is to vary."""
        t = np.clip(np.floor(center * self.size), self.low, self.high)
        return t, np.maximum(np.ceil(width * self.size), 1.0)

    def ends(self, some):
        """Bounds of t in some rows; F is below its target at the lower one."""
        return _of(self.low, some), _of(self.high, some)


def _of(values, some):
    return values if len(values) == 1 else values[some]


def _center(mixture):
    """A mean and an SD [n] of y at the means of eta, or other numbers where there are none."""
    eta, n = mixture.moments.mean[..., None], len(mixture.moments.mean)
    with np.errstate(all="ignore"):
        try:
            center = mixture.family.mean(eta, mixture.params)[:, 0]
            width = np.sqrt(mixture.family.variance(eta, mixture.params)[:, 0])
        except ValueError:
            center, width = np.zeros(n), np.ones(n)
    good = np.isfinite(center) & (np.abs(center) < 1e15)
    center = np.where(good, center, 0.0)
    return center, np.where(np.isfinite(width) & (width > 0) & (width < 1e15), width, 1.0)


def _bracket(gap, t, width, scale):
    """(lower and upper t, the gaps there): below the target, and at or above it."""
    every = np.arange(len(t))
    at = gap(t, every)
    below = at < 0
    lower = np.where(below, t, -np.inf)
    upper = np.where(below, np.inf, t)
    g_lower, g_upper = np.where(below, at, -_FAR), np.where(below, _FAR, at)
    left, reach = every, width.copy()
    for _ in range(_WIDENINGS):
        low, high = scale.ends(left)
        up = below[left]
        new = np.where(up, t[left] + reach[left], t[left] - reach[left])
        new = np.clip(new, low, high)
        at = gap(new, left)
        # At an end of the range the answer is known: below it at the lower, above at the upper.
        crossed = np.where(up, (at >= 0) | (new >= high), (at < 0) | (new <= low))
        move_upper = np.where(crossed, up, ~up)
        u, low_rows = left[move_upper], left[~move_upper]
        upper[u], g_upper[u] = new[move_upper], at[move_upper]
        lower[low_rows], g_lower[low_rows] = new[~move_upper], at[~move_upper]
        left = left[~crossed]
        if not len(left):
            break
        reach[left] *= 2
    return lower, upper, g_lower, g_upper


def _between(gap, lower, upper, g_lower, g_upper, scale):
    """The least t at or above the target: by secants, and every third time by halves."""
    out, left = upper.copy(), np.arange(len(upper))
    for step in range(_STEPS):
        a, b, ga, gb = lower[left], upper[left], g_lower[left], g_upper[left]
        done = (b - a <= 1) if scale.whole else (b - a <= 1e-12 * (1 + np.abs(b)))
        out[left[done]] = b[done]
        left = left[~done]
        if not len(left):
            break
        a, b, ga, gb = a[~done], b[~done], ga[~done], gb[~done]
        t = (a + b) / 2 if step % 3 == 2 else b - gb * (b - a) / np.maximum(gb - ga, 1e-300)
        t = np.clip(np.floor(t), a + 1, b - 1) if scale.whole else np.clip(t, a, b)
        at = gap(t, left)
        above = at >= 0
        # The end that stays counts for half, lest it stay for ever.
        upper[left[above]], g_upper[left[above]] = t[above], at[above]
        g_lower[left[above]] /= 2
        lower[left[~above]], g_lower[left[~above]] = t[~above], at[~above]
        g_upper[left[~above]] /= 2
        if not scale.whole:
            near = np.abs(at) <= _NEAR
            out[left[near]] = t[near]
            left = left[~near]
    out[left] = upper[left]
    return out
