"""Quantiles of a new observation: what prediction intervals are made of.

Of a normal y (or logarithm of y) they are in closed form; of other families that of the `Mixture`
is searched, all rows of a block at a time, by secants of Phi^-1(F), which is nearly straight in a
number that y is a function of, and where these do not end by halves.
"""

import numpy as np
from scipy.special import expit, logit, ndtri

from sklmm._fitted.latent import predictor_moments
from sklmm._fitted.mixtures import MOST, TOLERANCE, Mixture
from sklmm._threads import in_threads

#: Steps of a search, and those that are secants' alone.
_STEPS, _SECANTS = 150, 4
#: The largest whole number that is looked for, and how far from the lowest y others are no more.
_LARGEST, _LEAST = 1e15, 1e-300
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
    counts = mixture.enough()
    out = np.empty(len(counts))
    for n_points in np.unique(counts):
        rows = np.flatnonzero(counts == n_points)
        out[rows] = _settled(mixture.rows(rows), q, n_points)
    return out


def _settled(mixture, q, n_points):
    out = _search(mixture, q, n_points)
    left = np.arange(len(out))
    while len(left) and n_points < MOST:
        part, y = mixture.rows(left), out[left]
        agree = [_is_quantile(part, y, q, k * n_points) for k in part.finer()]
        left = left[~np.all(agree, axis=0)]
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
        below = np.where((y > low + 2 * _LEAST) & (y < high), up_to, 0.0)
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
    part = mixture.rows(rows)
    scale = _Scale(low, high) if steps is None else _Steps(low, high, np.ravel(steps), rows)
    start, width = _start(part, scale, ndtri(q))
    if near is not None:
        start = scale.u(near[rows])

    def gap(t, some):
        """How far Phi^-1(F) is above its target."""
        cdf = part.rows(some).cdf(scale.y(t, some), False, n_points)
        return np.clip(ndtri(cdf), -_FAR, _FAR) - ndtri(q)

    found = _root(gap, start, width, scale)
    out[rows] = scale.y(found, np.arange(len(rows)))
    return out


class _Scale:
    """What a continuous y is searched by: t, of which its support is the real line, as is u."""

    whole = False
    ends = -np.inf, np.inf

    def __init__(self, low, high):
        self.low, self.span = low, high - low
        self.least = np.log(_LEAST) if np.isfinite(low) else -np.inf

    def y(self, t, some):
        """The y of these t in some rows."""
        if not np.isfinite(self.low):
            return t
        with np.errstate(over="ignore"):
            return self.low + (self.span * expit(t) if np.isfinite(self.span) else np.exp(t))

    def u(self, y):
        """u of a y in each row."""
        if not np.isfinite(self.low):
            return y
        t = np.maximum(y - self.low, _LEAST)
        if np.isfinite(self.span):
            return logit(np.clip(t / self.span, 1e-12, 1 - 1e-12))
        return np.log(t)

    def bent(self, t, some):
        """u of t."""
        return t

    def t(self, u, some, lower, upper):
        """t of u, strictly between two others."""
        return np.maximum(u, self.least)


class _Steps:
    """Whole numbers t, of which y = t / size is made, sizes of all rows or of each.

    u is t, or where there is no largest one its logarithm.
    """

    whole = True
    least = -np.inf

    def __init__(self, low, high, size, rows):
        self.size = size if len(size) == 1 else size[rows]
        self.ends = low * self.size, high * self.size
        self._low = self.ends[0] if np.isfinite(low) and not np.isfinite(high) else None

    def y(self, t, some):
        """The y of these t in some rows."""
        return t / _of(self.size, some)

    def u(self, y):
        """u of a y in each row."""
        return self.bent(np.minimum(y * self.size, _LARGEST), slice(None))

    def bent(self, t, some):
        """u of t in some rows."""
        return t if self._low is None else np.log1p(np.maximum(t - _of(self._low, some), 0.0))

    def t(self, u, some, lower, upper):
        """The first t from u on, strictly between two others."""
        if self._low is not None:
            with np.errstate(over="ignore"):
                u = _of(self._low, some) + np.expm1(u)
        return np.clip(np.ceil(u), lower + 1, upper - 1)


def _of(values, some):
    return values if len(values) == 1 else values[some]


def _start(mixture, scale, z):
    """u [n] about z SDs from the middle, and that SD, or other numbers where there are none."""
    mean, variance, _ = mixture.moments
    n = len(mean)
    with np.errstate(invalid="ignore"):
        shift = np.sqrt(variance)
    if mean.ndim == 2:
        # That of the first predictor.
        shift = np.diagonal(shift, axis1=1, axis2=2) * (np.arange(mean.shape[1]) == 0)
    moved = [mean - shift, mean, mean + shift]
    with np.errstate(all="ignore"):
        try:
            family, params = mixture.family, mixture.params
            low, center, high = (family.mean(eta[..., None], params)[:, 0] for eta in moved)
            sd = np.sqrt(family.variance(mean[..., None], params)[:, 0])
        except ValueError:
            low, center, high, sd = np.zeros(n), np.zeros(n), np.zeros(n), np.ones(n)
        # Of a bounded y towards its middle.
        u, up, down = (scale.u(center + c * sd) for c in (0, 1, -1))
        width = np.hypot(np.minimum(up - u, u - down), (scale.u(high) - scale.u(low)) / 2)
    u = np.where(np.isfinite(u) & (np.abs(u) < 1e15), u, 0.0)
    width = np.where(np.isfinite(width) & (width > 0) & (width < 1e15), width, 1.0)
    return u + z * width, width


def _root(gap, u, width, scale):
    """The least t [n] at or above the target: by secants in u within brackets, which are halved."""
    left, out = np.arange(len(u)), np.empty(len(u))
    lower, upper = (np.full(len(u), 1.0) * end for end in scale.ends)
    slope, reach = 1 / width, 2 * width
    last = at_last = np.full(len(u), np.nan)
    for step in range(_STEPS):
        some = upper - lower > (1 if scale.whole else 1e-12 * (1 + np.abs(u)))
        some &= upper > scale.least
        out[left[~some]] = upper[~some]
        if not some.any():
            return out
        parts = left, u, lower, upper, slope, reach, last, at_last
        left, u, lower, upper, slope, reach, last, at_last = (part[some] for part in parts)
        a, b = scale.bent(lower, left), scale.bent(upper, left)
        with np.errstate(invalid="ignore"):
            middle = (a + b) / 2
        # What a secant does not tell, and now and then whatever it does.
        halve = ~((a < u) & (u < b)) | (step > _SECANTS and step % 3 == 2)
        t = scale.t(np.where(halve & np.isfinite(middle), middle, u), left, lower, upper)
        u, at = scale.bent(t, left), gap(t, left)
        above = at >= 0
        lower, upper = np.where(above, lower, t), np.where(above, t, upper)
        if not scale.whole:
            lower = np.where(np.abs(at) <= _NEAR, t, lower)
            upper = np.where(np.abs(at) <= _NEAR, t, upper)
        with np.errstate(all="ignore"):
            secant = (at - at_last) / (u - last)
            slope = np.where((secant > 0) & np.isfinite(secant), secant, slope)
            move = np.clip(-at / slope, -reach, reach)
        if step > _SECANTS:
            # Beyond all that is known it goes ever further.
            known = np.isfinite(np.where(above, lower, upper))
            move = np.where(known, move, np.where(above, -reach, reach))
        last, at_last, u, reach = u, at, u + move, 2 * reach
    out[left] = upper
    return out
