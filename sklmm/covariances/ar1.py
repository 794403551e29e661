r"""Autoregression of order 1 along times: Corr(b_s, b_t) = phi^(|t - s| / d)."""

from dataclasses import dataclass, replace

import numpy as np

from sklmm.covariances.correlation import Correlated
from sklmm.covariances.diagonal import Diagonal

#: Rounding of distances that are whole multiples of the smallest.
WHOLE = 1e-6
#: Most correlation to start from, the least where it is positive, and that over the distance where
#: a start looks for one: a share of the times' range, beyond which a level's rows hardly tell it.
MOST, LEAST, TYPICAL = 0.999, 0.05, 0.5
REACH = 0.1
#: Share of an SD, and correlation, to start from once more.
LESS, MUCH = 0.4, 0.7
#: Correlation that is none.
NO_CORRELATION = 1e-3
#: Where 1 - c^2 is none, or c^2.
NONE = 1e-30


@dataclass(frozen=True)
class AR1(Correlated):
    """First-order autoregression along the times or categories of a column.

    Two coefficients at times s and t have the correlation ``phi^(|t - s| / d)``, with phi that over
    the distance d, of neighbouring categories or of two times that follow each other: the smallest
    one, of which a visit that is missing leaves two, or with unequal spacing one of about a tenth
    of the times' range. That is the continuous-time autoregression, for which phi is positive; with
    distances that are whole multiples of the smallest it may be negative. It is glmmTMB's `ar1` and
    `ou`, and nlme's `corAR1` and `corCAR1`, which have phi over one unit of time: phi^(1 / d).

    Parameters
    ----------
    r : int, optional
        Number of coefficients, which a term's column tells.
    heterogeneous : bool, default=False
        Whether each time has an SD of its own.
    times : tuple of float, optional
        Times of the coefficients, which a term's column tells.

    Examples
    --------
    >>> from sklmm import AR1, RandomEffect
    >>> str(RandomEffect("child", slopes=["age"], intercept=False, covariance=AR1()))
    'ar1(0 + age | child)'
    """

    r: int | None = None
    heterogeneous: bool = False
    times: tuple | None = None
    name = "ar1"
    ordered = True
    n_angles = 1

    @property
    def extends(self):
        """With one SD at all times."""
        return not self.heterogeneous

    def over(self, places):
        """The same along these times."""
        return replace(self, r=len(places), times=tuple(places))

    @property
    def _gaps(self):
        """(a distance, all gaps as its multiples, whether these are whole).

        It is the smallest gap where they are, and else one that is far enough to tell phi.
        """
        gaps = np.diff(self.times)
        unit = gaps.min()
        multiples = gaps / unit
        whole = np.round(multiples)
        if (np.abs(multiples - whole) < WHOLE * whole).all():
            return unit, whole, True
        unit = max(unit, REACH * (self.times[-1] - self.times[0]))
        return unit, gaps / unit, False

    @property
    def _start(self):
        """The correlation over the distance of `_gaps` to start from: none of a few whole gaps."""
        unit, _, whole = self._gaps
        reach = max(unit, REACH * (self.times[-1] - self.times[0]))
        return 0.0 if whole and reach == unit else TYPICAL ** (unit / reach)

    def turned(self, angles):
        """Of c = sin(angle), the correlation over a distance, or its square."""
        _, gaps, whole = self._gaps
        sine, cosine = np.sin(angles[..., 0]), np.cos(angles[..., 0])
        c, rest, root = sine, cosine**2, cosine
        if not whole:
            c, rest = sine**2, cosine**2 * (1 + sine**2)
            root = cosine * np.sqrt(1 + sine**2)
        at = np.append(0.0, np.cumsum(gaps))
        lags = np.tril(np.subtract.outer(at, at))
        lags = lags.astype(int) if whole else lags
        powers = np.tril(c[..., None, None] ** lags)
        new = np.ones((*c.shape, self.r), c.dtype)
        new[..., 1:] = root[..., None] * np.sqrt(_share(rest[..., None], gaps))
        return powers * new[..., None, :]

    def angles(self, C, known):
        """By two rows that are about the distance apart."""
        _, gaps, whole = self._gaps
        at = np.append(0.0, np.cumsum(gaps))
        rows = np.flatnonzero(known)
        near = int(np.argmin(np.abs(np.log(np.diff(at[rows])))))
        before, after = rows[near], rows[near + 1]
        gap = at[after] - at[before]
        corr = np.clip(C[after] @ C[before], -1, 1)
        sign = -1.0 if C[rows[rows > 0][0], rows[rows > 0][0]] < 0 else 1.0
        c = np.sign(corr) * np.abs(corr) ** (1 / gap)
        rest = max(1 - c**2, 0.0)
        if after == before + 1 and gap == 1:
            # As it is, without the rounding of what is near 1.
            rest = C[after, after] ** 2
        if whole:
            return np.array([np.arctan2(c, sign * np.sqrt(rest))])
        c = max(c, 0.0)
        return np.array([np.arctan2(np.sqrt(c), sign * np.sqrt(rest / (1 + c)))])

    def near(self, R):
        """By the mean correlation over the gaps that are about the distance."""
        _, gaps, whole = self._gaps
        before = self.pairs[0][1]
        i = np.flatnonzero(gaps == gaps[before])
        corr = float(np.mean(R[i + 1, i]))
        c = np.sign(corr) * np.abs(corr) ** (1 / gaps[before])
        return self._angle(np.clip(c, -MOST if whole else LEAST, MOST))

    def _angle(self, c):
        """The angle [1] of a correlation over the distance."""
        return np.array([np.arcsin(c) if self._gaps[2] else np.arcsin(np.sqrt(c))])

    @property
    def pairs(self):
        """Two neighbours that are about the distance apart."""
        i = int(np.argmin(np.abs(np.log(self._gaps[1]))))
        return ((i + 1, i),)

    @property
    def kinds(self):
        """Over which distance phi is."""
        (after, before), *_ = self.pairs
        return (f"phi ({self.times[after] - self.times[before]:.6g} apart)",)

    @property
    def bounds(self):
        """Phi of unequal spacing is positive."""
        return (*super().bounds[:-1], (-1.0 if self._gaps[2] else 0.0, 1.0))

    def fitted(self, root):
        """Off the end of the range, where the correlation's slope is 0."""
        params, S = super().fitted(root), root @ root.T
        if not (S - np.diag(np.diag(S))).any():
            # Of nothing that is known of it.
            params[-1:] = self._angle(self._start)
        elif not self._gaps[2]:
            params[-1:] = np.maximum(params[-1:], self._angle(LEAST))
        return params

    def between(self, matrix, places):
        """By the correlations over the distances; None where phi < 0 has none over one of them."""
        if self.heterogeneous:
            return None
        unit, gaps, _ = self._gaps
        (i, j), *_ = self.pairs
        variance = matrix[0, 0]
        c = matrix[i, j] / variance if variance > 0 else 0.0
        c = np.sign(c) * np.abs(c) ** (1 / gaps[j])
        every = np.concatenate([self.times, places])
        lags = np.abs(np.subtract.outer(every, every)) / unit
        if c < 0:
            whole = np.round(lags)
            if (np.abs(lags - whole) > WHOLE * np.maximum(whole, 1)).any():
                return None
            lags = whole.astype(int)
        R = c**lags
        old, new = slice(self.r), slice(self.r, None)
        weights = R[new, old] @ np.linalg.pinv(R[old, old], hermitian=True)
        return weights, variance * (R[new, new] - weights @ R[old, new])

    def ends(self, angles):
        """Without correlation even of the nearest two, where it is positive."""
        return not self._gaps[2] and self._nearest(angles) < NO_CORRELATION

    def _nearest(self, angles):
        """The correlation of the nearest two where it is positive."""
        return abs(np.sin(angles[0])) ** (2 * self._gaps[1].min())

    def at(self, L):
        """Without correlation it is that of independent effects."""
        if self.ends(self.params(L)[self._n_sds :]):
            return Diagonal(self.r, homogeneous=not self.heterogeneous)
        return self

    def to_boundary(self, L):
        """Without correlation, where it is little and positive."""
        params = self.params(L)
        near = not self._gaps[2] and 0 < self._nearest(params[-1:]) < LEAST
        return self.factor(np.append(params[:-1], 0.0)) if near else None

    def elsewhere(self, L, least):
        """From an end without correlation at much of it, and less variance."""
        params = self.params(L)
        if not self.ends(params[self._n_sds :]):
            return None
        n = self._n_sds
        sds = params[:n] * (np.sqrt(LESS) if self.heterogeneous else LESS)
        return self.factor(np.append(sds, self._angle(MUCH)))

    def leave_boundary(self, L, G, least, size, gain):
        """Also where the likelihood rises with a correlation from none."""
        new, params = super().leave_boundary(L, G, least, size, gain), self.params(L)
        if new is None and self.ends(params[-1:]):
            raised = self.factor(np.append(params[:-1], self._angle(LEAST)))
            if np.sum(G * (raised @ raised.T - L @ L.T)) > gain * size**2:
                new = raised
        return new


def _share(rest, gaps):
    """(1 - c^(2 gap)) / (1 - c^2), with rest = 1 - c^2."""
    some = np.where(np.abs(rest) < NONE, 0.5, np.where(np.abs(1 - rest) < NONE, 0.5, rest))
    out = -np.expm1(gaps * np.log1p(-some)) / some
    out = np.where(np.abs(1 - rest) < NONE, 1.0, np.where(np.abs(rest) < NONE, gaps, out))
    return np.where(gaps == 1, 1.0, out)
