"""Adjusted p values and intervals of a family of tests that are looked at together."""

import numpy as np
from numpy.polynomial.chebyshev import chebpts1
from scipy.interpolate import BarycentricInterpolator
from scipy.stats import false_discovery_control, studentized_range, t

ADJUSTMENTS = ("tukey", "sidak", "bonferroni", "holm", "fdr")
#: Quantiles that are found one by one; the inverse of degrees of freedom that are infinite.
NODES = 8
TINY = 1e-300
#: What tables say of them.
TITLES = {
    "tukey": "Tukey's method",
    "sidak": "Sidak's method",
    "bonferroni": "Bonferroni's method",
    "holm": "Holm's method, intervals by Bonferroni's",
    "fdr": "Benjamini and Hochberg's method, intervals by Bonferroni's",
}


def adjusted(ratio, dof, adjust, n_means):
    """p values [q] of |t| ratios by a method of `ADJUSTMENTS`, or None for each by itself.

    Tukey's is for all differences of `n_means` means.
    """
    ratio = np.abs(ratio)
    known = np.isfinite(ratio)
    out = np.full(len(ratio), np.nan)
    ratio, dof, q = ratio[known], dof[known], len(ratio)
    p = 2 * t.sf(ratio, dof)
    if adjust == "tukey":
        p = studentized_range.sf(ratio * np.sqrt(2), n_means, dof)
    elif adjust == "sidak":
        p = -np.expm1(q * np.log1p(-p))
    elif adjust == "bonferroni":
        p = np.minimum(q * p, 1.0)
    elif adjust == "holm":
        p = _holm(p, q)
    elif adjust == "fdr" and len(p):
        p = false_discovery_control(p)
    out[known] = p
    return out


def critical(level, dof, adjust, n_means):
    """Half widths [q] of the intervals, in standard errors, that hold together at a level."""
    q, out = len(dof), np.full(len(dof), np.nan)
    known = ~np.isnan(dof)
    if adjust == "tukey":
        out[known] = _range_quantiles(level, n_means, dof[known]) / np.sqrt(2)
        return out
    outside = 1 - level
    if adjust == "sidak":
        outside = 1 - level ** (1 / max(q, 1))
    elif adjust is not None:
        outside /= max(q, 1)
    out[known] = t.isf(outside / 2, dof[known])
    return out


def _range_quantiles(level, n_means, dof):
    """Quantiles [q] of the studentized range: an integral's root takes a third of a second each.

    Of many they are interpolated in 1 / dof, of which they are a smooth function: to 1e-7 from 3
    degrees of freedom on, and to 2e-5 from 1.
    """
    values, places = np.unique(1 / dof, return_inverse=True)
    if len(values) <= NODES:
        return studentized_range.ppf(level, n_means, 1 / np.maximum(values, TINY))[places]
    at = chebpts1(NODES) * (values[-1] - values[0]) / 2 + (values[-1] + values[0]) / 2
    found = studentized_range.ppf(level, n_means, 1 / at)
    return BarycentricInterpolator(at, found)(values)[places]


def _holm(p, n_tests):
    order = np.argsort(p)
    steps = np.maximum.accumulate(p[order] * (n_tests - np.arange(len(p))))
    out = np.empty(len(p))
    out[order] = np.minimum(steps, 1.0)
    return out
