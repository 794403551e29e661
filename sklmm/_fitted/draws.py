"""Draws of responses: of given rows, and from the posterior predictive distribution of new ones."""

import numpy as np

from sklmm._fitted.latent import predictor_draws
from sklmm.design.indicators import applied
from sklmm.result import covariance_root


def response_draws(response, eta, params, rng):
    """Draws of y, of eta's shape, in the rows of a `Response`, with its trials and precisions.

    They are in the numbers of the `Response`.
    """
    family = response.family
    weights = response.weights.reshape(-1, *[1] * (np.ndim(eta) - 1))
    if family.weights == "trials":
        trials = np.round(weights).astype(int)
        return rng.binomial(trials, family.mean(eta, params)) / trials
    if family.weights == "precision":
        return rng.normal(eta, params["sigma"] / (response.sigma_unit * np.sqrt(weights)))
    params = response.with_data(params, np.ndim(eta))
    return family.encoded(np.asarray(family.sample(eta, params, rng), float))


def joint_draws(family, result, n, rng):
    """z [m, n] by which R z are n joint draws of the coefficients' and effects' deviations.

    R is the root of their posterior covariance, of which other families' columns are draws.
    """
    m = result.coef_root.shape[1]
    if family.scale_equivariant:
        return rng.standard_normal((m, n))
    z = np.zeros((m, n))
    z[rng.integers(m, size=n), np.arange(n)] = np.sqrt(m)
    return z


def sample(design, unseen, result, family, params, n_samples, rng, d=1):
    """Draws from the posterior predictive distribution, [n_rows, n_samples].

    `unseen` holds for each term an index of its unseen levels, of the shape of its refs, -1
    elsewhere: rows of one unseen level share its effect.
    """
    out = predictor_draws(design, result, joint_draws(family, result, n_samples, rng), d)
    predictors = enumerate(design.predictors(d))
    # A term after the other, as they are drawn.
    entries = sorted(
        ((term, c, k, block) for c, own in predictors for term, k, block in own.blocks),
        key=lambda entry: entry[:2],
    )
    for term, c, k, block in entries:
        index = unseen[term]
        if block.between is not None:
            levels = np.where(index < 0, block.refs, block.n_levels + index)
            out[:, c] += block.between.draws(levels, n_samples, rng)
        if not len(new := np.flatnonzero((index >= 0).reshape(len(index), -1).any(axis=1))):
            continue
        z = block.loadings(new) @ covariance_root(result.covariances[k])
        if block.tied:
            z = z * (index[new] >= 0)[:, :, None]
        draws = rng.standard_normal((index.max() + 1, block.r, n_samples))
        out[new, c] += applied(index[new], z, draws)
    return family.sample(out[:, 0] if d == 1 else out, params, rng)
