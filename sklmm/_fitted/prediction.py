"""Predictions from a design and a fitted result; NumPy only.

Gaussian and Student t models are linear in the effects: the mean is that of eta, and

    Var(y_new) = Var(y | eta) + Var(eta).

The logarithm of a lognormal response is so, and mean and variance are of the lognormal distribution
with that one's. For the other families the columns of R sqrt(m) are posterior draws of eta
(`_fitted.latent`), and the response's mean, its probabilities and its variance are averages over
them (a model without random effects has none, and its mean is that at the estimate).
"""

import numpy as np

from sklmm._fitted.latent import (
    BLOCK,
    deviations,
    linear_predictor,
    new_effects,
    predictor_moments,
    row_blocks,
)
from sklmm._threads import in_threads

#: Numbers of a block's draws where TensorFlow works on them, which takes long to begin.
TENSOR_BLOCK = 1 << 22


def _blocks(design, result, d, family):
    numbers = TENSOR_BLOCK if family.density is None else BLOCK
    return row_blocks(design, result, d, numbers)


def _averaged(function, design, result, family, include, d=1):
    """`function` of each block's draws of eta [n, d, m], or [n, m] for d = 1, and its rows, joined.

    They are at the estimate alone, m = 1, where there are no effects to average over.
    """
    eta, scale = linear_predictor(design, result, include, d), np.sqrt(result.coef_root.shape[1])

    def one(rows):
        draws = eta[rows].reshape(-1, d, 1)
        if design.every_block:
            draws = deviations(design, result, include, rows, d)
            draws *= scale
            draws += eta[rows].reshape(-1, d, 1)
        return function(draws[:, 0] if d == 1 else draws, rows)

    parts = in_threads(one, _blocks(design, result, d, family))
    return np.concatenate(parts) if parts else None


def of_rows(params, rows):
    """Parameters of a family in a slice of rows: those by row are arrays [n_rows, 1]."""
    return {name: value[rows] if np.ndim(value) else value for name, value in params.items()}


def predict_mean(design, result, family, include, params, d=1):
    """Mean response [n_rows]; `include` says for each term whether its effects count.

    Here and below `params` are the family's parameters, arrays [n_rows, 1] of those by row.
    """
    if family.scale_equivariant and (d == 1 or family.mean_is_eta):
        eta = linear_predictor(design, result, include, d)
        if family.mean_is_eta:
            return eta if d == 1 else eta[:, 0]
        variance = np.zeros(design.n_rows)
        if design.blocks:
            variance = predictor_moments(design, result, include, prior=False).variance
        return _spread(family, params, variance, "mean", eta)

    def mean(eta, rows):
        return family.mean(eta, of_rows(params, rows)).mean(axis=1)

    found = _averaged(mean, design, result, family, include, d)
    return np.empty(0) if found is None else found


def predict_probabilities(design, result, family, include, d, params):
    """Probabilities of the classes [n_rows, K]."""
    if family.classes == "two":
        second = predict_mean(design, result, family, include, params)
        return np.stack([1 - second, second], axis=1)

    def probabilities(eta, rows):
        return family.probabilities(eta, of_rows(params, rows)).mean(axis=1)

    found = _averaged(probabilities, design, result, family, include, d)
    return np.zeros((0, d + 1)) if found is None else found


def predict_variance(design, result, family, include, params, rng=None, d=1):
    """Variance of a new observation [n_rows]."""
    if not family.scale_equivariant or d > 1:
        return _variance_by_draws(design, result, family, include, params, rng, d)
    eta, variance, _ = predictor_moments(design, result, include)
    if family.mean_is_eta:
        return variance + family.variance(np.zeros((design.n_rows, 1)), params)[:, 0]
    return _spread(family, params, variance, "variance", eta)


def _spread(family, params, variance, moment, eta):
    """A moment [n_rows] of a family of which eta is normal with a variance [n_rows]."""
    params = family.spread(params, variance[:, None])
    return getattr(family, moment)(eta[:, None], params)[:, 0]


def _variance_by_draws(design, result, family, include, params, rng, d):
    eta = linear_predictor(design, result, include, d).reshape(-1, d, 1)
    scale = np.sqrt(result.coef_root.shape[1])

    def one(rows, rng):
        every = deviations(design, result, include, rows, d)
        every *= scale
        every += eta[rows]
        added, _ = new_effects(design, result, include, rows, d)
        at, of = np.nonzero(added)
        sd = np.sqrt(added[at, of])
        every[at, of] += sd[:, None] * rng.standard_normal((len(sd), every.shape[2]))
        draws, own = every[:, 0] if d == 1 else every, of_rows(params, rows)
        mean, within = family.mean(draws, own), family.variance(draws, own).mean(axis=1)
        return within + mean.var(axis=1)

    blocks = _blocks(design, result, d, family)
    # A stream of its own a block, so that the order in which threads take them is none.
    return np.concatenate([np.empty(0), *in_threads(one, blocks, rng.spawn(len(blocks)))])
