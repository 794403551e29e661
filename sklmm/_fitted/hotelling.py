r"""Tests of combinations of coefficients by a covariance that clusters estimate: approximate T^2.

Of L beta = r, q rows, with a covariance S of L beta-hat that is estimated, the statistic

    F = (nu - q + 1) / (nu q) (L beta-hat - r)^T S^-1 (L beta-hat - r)

has the F distribution of q and nu - q + 1 degrees of freedom, where S is of Wishart's distribution
with nu, as in Hotelling's T^2. S is a sum over clusters, and nu is such that the variances of its
entries add up to those of Wishart's ("HTZ" of Pustejovsky & Tipton 2018, J. Bus. Econ. Stat. 36,
672-683, after Zhang 2012):

    nu = q (q + 1) / sum_jk [tr(B_jk B_jk) + (tr B_jk)^2],   B_jk = O^-1/2 P_jk O^-1/2,

with P_jk the covariance of the parts of clusters j and k under the model, and O the sum of P_jj.
Of one row that is (tr P)^2 / tr P^2, Satterthwaite's degrees of freedom.
"""

from typing import NamedTuple

import numpy as np
from scipy.stats import f

#: Numbers of the sums of one test that are not too large.
LARGEST = 1 << 22


class PairSums(NamedTuple):
    """Sums over clusters that nu is made of, for m tests of q rows each.

    With P_jk = R_j 1(j = k) - H_j H_k^T: O, the sum of P_jj [m, q, q]; `own`, that of products of
    two entries of P_jj less those of H_j H_j^T [m, q^2, q^2]; and that of H_j's [m, q p, q p].
    """

    O: np.ndarray  # noqa: E741 - as the formula has it.
    own: np.ndarray
    shared: np.ndarray

    @classmethod
    def of(cls, L, h, R):
        """Those of some clusters: L [m, q, p], h [B, p, p] and R [B, p, p] of all coefficients."""
        H = L[:, None] @ h
        common = H @ H.transpose(0, 1, 3, 2)
        P = L[:, None] @ R @ L.transpose(0, 2, 1)[:, None] - common
        return cls(P.sum(axis=1), _products(P) - _products(common), _products(H))

    @classmethod
    def sum(cls, parts):
        """Those of all clusters from those of some each."""
        return cls(*map(sum, zip(*parts, strict=True)))

    def dof(self):
        """Nu [m]."""
        m, q, _ = self.O.shape
        inverse = np.linalg.inv(self.O)
        own = self.own.reshape(m, q, q, q, q)
        total = np.einsum("mabcd,mbc,mda->m", own, inverse, inverse, optimize=True)
        total += np.einsum("mabcd,mba,mdc->m", own, inverse, inverse, optimize=True)
        shared = self.shared.reshape(m, q, -1, q, self.shared.shape[1] // q)
        left = np.einsum("mab,mbicl->maicl", inverse, shared, optimize=True)
        right = np.einsum("maicl,mcd->maidl", shared, inverse, optimize=True)
        total += np.einsum("maicl,mcial->m", left, left, optimize=True)
        total += np.einsum("maicl,maicl->m", left, right, optimize=True)
        return q * (q + 1) / total


def _products(parts):
    """Sums over clusters [m, k, k] of products of two entries of [m, B, ...], k entries each."""
    flat = parts.reshape(*parts.shape[:2], -1)
    return flat.transpose(0, 2, 1) @ flat


def check_size(q, p):
    """ValueError for a test of so many combinations of p coefficients that its sums are large."""
    if (q * p) ** 2 > LARGEST:
        raise ValueError(
            f"cov: the degrees of freedom of a test of {q} combinations of {p} coefficients at "
            f"once would take {(q * p) ** 2:,} sums, and {LARGEST:,} is the most: test fewer at "
            "once, or use cov=None."
        )


def joint_test(difference, cov, dof):
    """(F, q, nu - q + 1, p) of L beta-hat - r [q] by its covariance [q, q] and nu.

    They are nan where there are too few clusters.
    """
    q = len(difference)
    ddf = dof - q + 1
    if not ddf > 0 or np.linalg.matrix_rank(cov, hermitian=True) < q:
        return np.nan, q, np.nan, np.nan
    F = ddf / (dof * q) * float(difference @ np.linalg.solve(cov, difference))
    return F, q, ddf, float(f.sf(F, q, ddf))
