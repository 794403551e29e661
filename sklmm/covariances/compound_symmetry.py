r"""Compound symmetry: all pairs of coefficients have one correlation."""

from dataclasses import dataclass

import numpy as np

from sklmm.covariances.correlation import Correlated

#: Least distance to an end of the correlation's range, as a share of it, to start from.
INSIDE = 1e-3
#: The same of a second start that is near an end.
NEAR = 0.1
#: Sine or cosine that is none.
END = 1e-4


@dataclass(frozen=True)
class CompoundSymmetry(Correlated):
    """One correlation of all pairs of a level's coefficients.

    It is between -1 / (r - 1) and 1. glmmTMB's `cs`, nlme's `corCompSymm` and, homogeneous, the
    covariance of two nested random intercepts.

    Parameters
    ----------
    r : int, optional
        Number of coefficients, which a term's columns tell.
    heterogeneous : bool, default=True
        Whether each coefficient has an SD of its own.

    Examples
    --------
    >>> from sklmm import CompoundSymmetry, RandomEffect
    >>> term = RandomEffect("child", slopes=["test"], intercept=False, covariance="cs")
    >>> term == RandomEffect(
    ...     "child", slopes=["test"], intercept=False, covariance=CompoundSymmetry()
    ... )
    True
    """

    r: int | None = None
    heterogeneous: bool = True
    name = "cs"
    n_angles = 1
    kinds = ("any two",)

    @property
    def _width(self):
        """Length of the correlation's range."""
        return self.r / (self.r - 1)

    def turned(self, angles):
        """Of 1 - c = width sin(angle)^2."""
        sine, cosine, r = np.sin(angles[..., 0]), np.cos(angles[..., 0]), self.r
        c, root = 1 - self._width * sine**2, np.sqrt(self._width) * sine
        C = np.zeros((*c.shape, r, r), c.dtype)
        C[..., 0], C[..., 0, 0] = c[..., None], 1.0
        for j in range(1, r):
            before = np.sqrt(1 + (j - 1) * c)
            own = np.sqrt(r) * cosine if j == r - 1 else np.sqrt(1 + j * c)
            C[..., j, j] = root * own / before
            if j < r - 1:
                C[..., j + 1 :, j] = (c * root / (before * own))[..., None]
        return C

    def angles(self, C, known):
        """By the first two rows that are known."""
        first, second = np.flatnonzero(known)[:2]
        c = np.clip(C[first] @ C[second], 1 - self._width, 1)
        sine = np.sqrt((1 - c) / self._width)
        if first == 0 and second == 1 and self.r > 2:
            # As it is, without the rounding of what is near 1.
            sine = abs(C[1, 1]) / np.sqrt(self._width * (1 + c))
        cosine = np.sqrt(max(1 - sine**2, 0.0))
        one, last = (-1.0 if C[i, i] < 0 else 1.0 for i in (second, self.r - 1))
        return np.array([np.arctan2(one * sine, one * last * cosine)])

    def near(self, R):
        """By the mean correlation."""
        c = (R.sum() - np.trace(R)) / (self.r * (self.r - 1))
        share = np.clip((1 - c) / self._width, INSIDE, 1 - INSIDE)
        return np.array([np.arcsin(np.sqrt(share))])

    def folded(self, angles):
        """Of either sign of sine and cosine the correlation is the same."""
        return np.arctan2(np.abs(np.sin(angles)), np.abs(np.cos(angles)))

    def ends(self, angles):
        """At either end of the correlation's range."""
        return min(abs(np.sin(angles[0])), abs(np.cos(angles[0]))) < END

    def elsewhere(self, L, least):
        """From an SD of 0 at one like the others, and near the correlation's other end."""
        params, sds = self.params(L), np.linalg.norm(L, axis=1)
        if not self.heterogeneous or (sds >= least).all() or sds.max() < least:
            return None
        share = np.sin(params[-1]) ** 2
        other = np.arcsin(np.sqrt(NEAR if share > (1 - 1 / self.r) else 1 - NEAR))
        sds = np.where(sds < least, sds[sds >= least].mean(), sds)
        return self.factor(np.append(np.sqrt(sds), other))

    @property
    def bounds(self):
        """The correlation's range."""
        return (*super().bounds[:-1], (1 - self._width, 1.0))
