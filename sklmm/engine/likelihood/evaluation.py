"""A likelihood row by row, for NumPy arrays of any number of rows and columns.

A density in NumPy is that of the family (`sklmm.families.density`). A custom family's functions are
graphs of TensorFlow that are traced once: that takes a tenth of a second, where compiling takes
several, and a call a tenth of what its operations take one by one.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from sklmm.families.base import CONSTRAINTS
from sklmm.families.namespace import NUMPY

#: Likelihoods whose functions are kept.
KEPT = 64
#: Curvatures stay above this fraction of their median, of MEDIAN_ROWS rows at most.
FLOOR = 1e-7
MEDIAN_ROWS = 1024


class Evaluation(NamedTuple):
    """Functions of y [n], eta [n * d, C] and raw [., C].

    by_row: log f [n, C], its derivative in eta, and `curvature`: W [n * d, C] alone, the expected
    curvature, for families of classes the observed one, above 0. observed, likewise: less the
    second derivative of log f, of any sign (a custom family has only one kind). slopes, of the
    weights w [n] after y: log f, and the derivatives of its weighted sum in eta and raw.
    """

    by_row: object
    curvature: object
    observed: object
    slopes: object


def observes(like):
    """Whether Laplace's log |C| can have the observed curvature: where log f is (nearly) concave.

    Elsewhere C may lose its rank at a mode, and -log |C| / 2 has no bound. The beta density, gamma
    by the identity link and negative binomial by sqrt and identity are convex only for an eta that
    is far on one side of y: they keep the observed one, as TMB does.
    """
    return like.distribution is not None or like.link not in like.density.convex_links


@lru_cache(maxsize=KEPT)
def evaluation(like):
    """`Evaluation` of a likelihood."""
    if like.distribution is not None:
        from sklmm.engine.likelihood.traced import traced_evaluation

        return Evaluation(*traced_evaluation(like))

    def at(y, eta, raw):
        y, eta, raw = np.asarray(y, float), np.asarray(eta, float), np.asarray(raw, float)
        parameters = {name: np.full((1, 1), value) for name, value in like.pinned}
        for name, kind, values in zip(like.names, like.constraints, raw, strict=True):
            parameters[name] = CONSTRAINTS[kind][0](values)[None, :]
        return like.density(NUMPY, y[:, None], eta, parameters, like.link)

    # Beyond what float64 can say a density is 0, and an overflow on the way there is no news.
    @np.errstate(all="ignore")
    def by_row(y, eta, raw):
        density = at(y, eta, raw)
        return density.value, density.score, _above_floor(density.expected, eta)

    @np.errstate(all="ignore")
    def curvature(y, eta, raw):
        return (_above_floor(at(y, eta, raw).expected, eta),)

    @np.errstate(all="ignore")
    def observed(y, eta, raw):
        return (np.broadcast_to(at(y, eta, raw).observed, np.shape(eta)),)

    @np.errstate(all="ignore")
    def slopes(y, w, eta, raw):
        density = at(y, eta, raw)
        d, C = like.n_predictors, eta.shape[1]
        found = density.slopes
        of_raw = [w @ np.broadcast_to(found[name], (len(y), C)) for name in like.names]
        by_eta = np.repeat(w, d)[:, None] * density.score
        return density.value, by_eta, np.reshape(of_raw, (len(of_raw), C))

    return Evaluation(by_row, curvature, observed, slopes)


def _above_floor(weights, eta):
    weights = np.broadcast_to(np.maximum(weights, 0.0), np.shape(eta))
    # A median, as the mean is that of one row where its curvature is huge: of some rows, for speed.
    median = np.median(weights[:: len(weights) // MEDIAN_ROWS + 1], axis=0, keepdims=True)
    floor = FLOOR * np.where(median > 0, median, weights.mean(axis=0, keepdims=True))
    return np.maximum(weights, np.maximum(floor, np.finfo(np.float32).tiny))
