"""Predictions from a design and a fitted result; NumPy only.

Gaussian and Student t models are linear in the effects: the mean is that of eta, and

    Var(y_new) = Var(y | eta) + Var(eta).

The logarithm of a lognormal response is so, and mean and variance are of the lognormal distribution
with that one's. For the other families the response's mean and its probabilities are averages over
eta, and its variance is that of the mean plus the mean of Var(y | eta). Of a row whose effects are
known they are averages over posterior draws (`_fitted.latent`); a row with effects that are not has
a normal eta, of the posterior's variance and the prior's, and averages are integrals
(`_fitted.expectation`). A model without random effects has none, and its mean is that at the
estimate.
"""

import numpy as np

from sklmm._fitted.expectation import expected, links_of, weighted
from sklmm._fitted.latent import (
    BLOCK,
    TENSOR_BLOCK,
    deviations,
    linear_predictor,
    new_effects,
    of_rows,
    predictor_moments,
    root_covariance,
    row_blocks,
)
from sklmm._fitted.shares import averaged_shares
from sklmm._threads import in_threads


def predict_mean(design, result, family, include, params, d=1, prior=True):
    """Mean response [n_rows]; `include` says for each term whether its effects count.

    Effects that are not known, or do not count, are averaged over their `prior`, or else are 0.
    Here and below `params` are the family's parameters, arrays [n_rows, 1] of those by row.
    """
    if family.scale_equivariant and (d == 1 or family.mean_is_eta):
        eta = linear_predictor(design, result, include, d)
        if family.mean_is_eta:
            return eta if d == 1 else eta[:, 0]
        variance = np.zeros(design.n_rows)
        if design.blocks:
            variance = predictor_moments(design, result, include, prior=prior).variance
        return _spread(family, params, variance, "mean", eta)

    def mean(eta, weights, rows):
        return weighted(family.mean(eta, of_rows(params, rows)), weights)

    found = _averaged(mean, design, result, family, include, d, prior)
    return np.empty(0) if found is None else found


def predict_probabilities(design, result, family, include, d, params, prior=True):
    """Probabilities of the classes [n_rows, K]."""
    if family.classes == "two":
        second = predict_mean(design, result, family, include, params, prior=prior)
        return np.stack([1 - second, second], axis=1)

    def probabilities(eta, weights, rows):
        return weighted(family.probabilities(eta, of_rows(params, rows)), weights)

    found = _averaged(probabilities, design, result, family, include, d, prior)
    return np.zeros((0, d + 1)) if found is None else found


def predict_variance(design, result, family, include, params, d=1, trials=None):
    """Variance of a new observation [n_rows], or of the mean of some independent ones.

    `trials` [n_rows] are the numbers of these, whose effects are the same.
    """
    trials = np.ones(design.n_rows) if trials is None else trials
    if family.scale_equivariant and d == 1:
        eta, variance, _ = predictor_moments(design, result, include)
        if family.mean_is_eta:
            own = family.variance(np.zeros((design.n_rows, 1)), params)[:, 0]
            return variance + own / trials
        return _spread(family, params, variance, "variance", eta)

    def variance(eta, weights, rows):
        own = of_rows(params, rows)
        mean = family.mean(eta, own)
        about = mean - weighted(mean, weights)[:, None]
        return weighted(family.variance(eta, own) / trials[rows, None] + about**2, weights)

    found = _averaged(variance, design, result, family, include, d)
    return np.empty(0) if found is None else found


def _spread(family, params, variance, moment, eta):
    """A moment [n_rows] of a family of which eta is normal with a variance [n_rows]."""
    params = family.spread(params, variance[:, None])
    return getattr(family, moment)(eta[:, None], params)[:, 0]


def _averaged(function, design, result, family, include, d, prior=True):
    """`function` as `expected` has it, of all rows of a design."""
    center, links = linear_predictor(design, result, include, d).reshape(-1, d), links_of(family, d)
    numbers = TENSOR_BLOCK if family.density is None else BLOCK
    held = [
        c for c, name in enumerate(getattr(family, "names", ()), 1) if name in family.unaveraged
    ]

    def one(rows):
        mean = center[rows]
        places = np.arange(rows.start, rows.start + len(mean))
        root = deviations(design, result, include, rows, d)
        added, new = new_effects(design, result, include, rows, d)
        if not prior or not new.any():
            return drawn(mean, root, places)
        if new.all():
            return integrated(mean, root, added, places)
        known = ~new
        found = drawn(mean[known], root[known], places[known])
        out = np.empty((len(mean), *found.shape[1:]))
        out[known] = found
        out[new] = integrated(mean[new], root[new], added[new], places[new])
        return out

    def drawn(mean, root, places):
        # A model without effects has its mean at the estimate.
        m = root.shape[2] if design.every_block else 1
        eta = mean[:, :, None]
        if design.every_block:
            root *= np.sqrt(m)
            eta = np.add(root, eta, out=root)
        return function(eta[:, 0] if d == 1 else eta, np.full((1, m), 1 / m), places)

    def integrated(mean, root, added, places):
        def at(eta, weights, rows):
            return function(eta, weights, places[rows])

        covariance = root_covariance(root, added)
        covariance[:, held] = covariance[:, :, held] = 0.0
        if family.classes == "unordered" and d > 2:
            return averaged_shares(mean, covariance)
        return expected(at, mean, covariance, links, numbers)

    parts = in_threads(one, row_blocks(design, result, d, numbers))
    return np.concatenate(parts) if parts else None
