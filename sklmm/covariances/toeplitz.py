r"""Toeplitz correlations: one for each distance between places that follow one another.

Any such matrix is made of partial autocorrelations, each between -1 and 1 by itself; they are the
sines of the angles. Rows of C are those of the normalised lattice filter, whose rotations

    f_t^(m - 1) = cos_m f_t^(m) + sin_m b_(t-1)^(m - 1),
    b_t^(m)     = cos_m b_(t-1)^(m - 1) - sin_m f_t^(m)

make the process f^(0) = b^(0) of its innovations f_t^(t) (Barndorff-Nielsen & Schou 1973, J.
Multivariate Anal. 3, 408-419; Gray & Markel 1975, IEEE Trans. ASSP 23, 268-270).
"""

from dataclasses import dataclass

import numpy as np

from sklmm.covariances.correlation import Correlated

#: Rounding of equal distances, and the most partial autocorrelation to start from.
EQUAL = 1e-6
MOST = 0.98


@dataclass(frozen=True)
class Toeplitz(Correlated):
    """A correlation for each lag, the distance of two places in their order.

    glmmTMB's `toep`. The places, times or categories of a column, are equally spaced.

    Parameters
    ----------
    r : int, optional
        Number of coefficients, which a term's column tells.
    heterogeneous : bool, default=True
        Whether each place has an SD of its own.

    Examples
    --------
    >>> from sklmm import RandomEffect, Toeplitz
    >>> str(RandomEffect("child", slopes=["visit"], intercept=False, covariance=Toeplitz()))
    'toep(0 + visit | child)'
    """

    r: int | None = None
    heterogeneous: bool = True
    name = "toep"
    ordered = True

    def over(self, places):
        """The same at these places; ValueError if they are not equally spaced."""
        gaps = np.diff(places)
        if len(gaps) and gaps.max() - gaps.min() > EQUAL * gaps.min():
            i = int(np.argmax(gaps))
            raise ValueError(
                f"toep: the places are not equally spaced, as there are none between {places[i]:g} "
                f"and {places[i + 1]:g}: make the column a categorical with all places, whether "
                "they occur or not, or take ar1, of which gaps are a part."
            )
        return super().over(places)

    @property
    def n_angles(self):
        """One a lag."""
        return self.r - 1

    def turned(self, angles):
        """By the lattice filter."""
        sine, cosine, r = np.sin(angles), np.cos(angles), self.r
        C = np.zeros((*sine.shape[:-1], r, r), sine.dtype)
        C[..., 0, 0] = 1.0
        # b^(m) of the row before, m = 0 to its number.
        backward = [C[..., 0, :]]
        for t in range(1, r):
            f, now = np.zeros_like(C[..., 0, :]), [None] * (t + 1)
            f[..., t] = 1.0
            for m in range(t, 0, -1):
                s, c, b = sine[..., m - 1, None], cosine[..., m - 1, None], backward[m - 1]
                now[m], f = c * b - s * f, c * f + s * b
            C[..., t, :] = now[0] = f
            backward = now
        return C

    def angles(self, C, known):
        """Partial autocorrelations, and signs of the innovations."""
        sign = np.where(np.diag(C) < 0, -1.0, 1.0)
        partial = _partial(self._lags(C @ C.T, known), 1.0)
        return np.arctan2(partial, sign[1:] * sign[:-1] * np.sqrt(1 - partial**2))

    def near(self, R):
        """By the mean correlation of each lag."""
        return np.arcsin(_partial(self._lags(R, np.ones(self.r, bool)), MOST))

    def _lags(self, R, known):
        """Mean correlation [r - 1] of each lag, over rows that are known, and 0 where none are."""
        out = np.zeros(self.r - 1)
        for lag in range(1, self.r):
            some = known[lag:] & known[:-lag]
            out[lag - 1] = np.diagonal(R, -lag)[some].mean() if some.any() else 0.0
        return out

    @property
    def pairs(self):
        """The first place with each other one."""
        return tuple((i, 0) for i in range(1, self.r))

    @property
    def kinds(self):
        """One a lag."""
        return tuple(f"lag {i}" for i in range(1, self.r))


def _partial(lags, most):
    """Partial autocorrelations of autocorrelations, within `most`, by Levinson's recursion."""
    out, weights, left = np.zeros(len(lags)), np.zeros(0), 1.0
    for m, own in enumerate(lags):
        if left <= 0:
            break
        partial = (own - weights @ lags[:m][::-1]) / left
        out[m] = partial = np.clip(partial, -most, most)
        weights = np.append(weights - partial * weights[::-1], partial)
        left *= 1 - partial**2
    return out
