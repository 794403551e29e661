r"""Directions along which a likelihood rises for ever: its maximum is at an edge of the parameters.

A probability or a dispersion of 0, a shape of infinity and the coefficient of a column that
separates the rows are infinitely far away in theta, and a fit stops on the way. Where it does the
likelihood is flat, and standard errors tell nothing. What tells of such a direction is the way
back: there the log-likelihood falls, as it does not beyond the estimate. Where it has fallen a
little a step of 1, of a logarithm, a logit or a linear predictor, is of the right size.
"""

from itertools import pairwise

import numpy as np
from scipy.linalg import qr
from scipy.optimize import bisect

from sklmm.engine.linalg.newton import inverse, unknown_ways

#: Variance of theta along a direction from which on it may be one.
WIDE = 25.0
#: Fall of the log-likelihood on the way back, and the one beyond the estimate that is none.
FALL = 0.5
NONE = 1e-3
#: How far beyond the estimate and how far back is looked, and how precisely.
BEYOND = 8.0
STEPS = (0.0, *2.0 ** np.arange(10))
PRECISE = 0.1


def split(information, fall, theta):
    """(root [m, k], edges [m, l], back [l]) of the covariance that `theta` [m] has by [m, m].

    Edges are unit vectors, and `back` the distances along them at which the likelihood has fallen;
    `fall(d)` is how much lower it is at theta + d.
    """
    values, vectors = np.linalg.eigh(inverse(information))
    unknown = unknown_ways(information)
    # Its zeros stand for those.
    told = np.argsort(np.abs(values))[unknown.shape[1] :]
    values, vectors = values[told], vectors[:, told]
    narrow, wide = (values > 0) & (values <= WIDE), values > WIDE
    root, wider = (vectors[:, own] * np.sqrt(values[own]) for own in (narrow, wide))
    span = np.linalg.qr(np.column_stack([vectors[:, ~narrow], unknown]))[0]
    for candidates in (_along_axes(span), _along(span, theta)):
        back = [way_back(lambda s, d=vector: fall(s * d)) for vector in candidates.T]
        edge = np.array([far is not None for far in back], bool)
        if edge.any():
            break
    if not edge.any():
        return np.concatenate([root, wider], axis=1), span[:, :0], np.zeros(0)
    # Beside an edge what else is hardly known is so because of where the fit has stopped.
    root = np.concatenate([root, candidates[:, ~edge]], axis=1)
    return root, candidates[:, edge], np.array([far for far in back if far is not None])


def _along_axes(span):
    """Unit vectors [m, l] of the same span, each with an entry that is 0 in the others.

    Of several parameters at an edge each has its own.
    """
    if not span.shape[1]:
        return span
    _, _, places = qr(span.T, pivoting=True)
    turned = span @ np.linalg.inv(span[places[: span.shape[1]]])
    return turned / np.linalg.norm(turned, axis=0)


def _along(span, theta):
    """An orthonormal basis of the span [m, l] whose first vector is the way that theta has gone.

    The coefficients of columns that separate the rows grow together.
    """
    basis = np.linalg.qr(np.column_stack([span @ (span.T @ theta), span]))[0]
    return basis[:, : span.shape[1]]


def way_back(fall):
    """How far from an edge, with a sign, the log-likelihood has fallen by `FALL`; None is no edge.

    `fall(s)` is how much lower it is at a distance, to one side or the other.
    """
    for sign in (1.0, -1.0):
        if fall(-sign * BEYOND) > NONE:
            continue
        for near, far in pairwise(STEPS):
            if fall(sign * far) >= FALL:
                return sign * bisect(lambda s, a=sign: fall(a * s) - FALL, near, far, xtol=PRECISE)
    return None
