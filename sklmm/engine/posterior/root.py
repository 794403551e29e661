"""A root of the posterior covariance of (beta, effects), [p + Q, m]: from draws, made exact.

The columns of a root are deviations from the mean, over the root of their number. Of those that are
draws what is known is made exact, the covariance of beta and each effect's variance given beta:
what stays random is the correlation of effects.
"""

import numpy as np

from sklmm.engine.linalg.blocks import rescaled


def joint_root(beta, given, follow, stds=None):
    """The root from that of beta [p, m] and, of each term, effects [n_levels, r, m] in two parts.

    `given` are their deviations at a given beta, with the SDs [n_levels, r] that `stds` has if it
    is not None, and `follow` those by which they follow beta.
    """
    if stds is not None:
        given = [rescaled(b, std) for b, std in zip(given, stds, strict=True)]
    effects = [
        (b + shared).reshape(-1, beta.shape[1]) for b, shared in zip(given, follow, strict=True)
    ]
    return np.concatenate([beta, *effects])


def orthonormal(noise):
    """Standard normal rows [p, m] made orthonormal, or to have a mean square of 1 / m if p > m."""
    m = noise.shape[1]
    return np.linalg.qr(noise.T)[0].T if len(noise) <= m else noise / np.sqrt(m)


def with_coefficients(posterior, last, layout, shift, rng):
    """The posterior of the effects given the coefficients, with these: an iteration's parameters.

    They have the estimate and the covariance of the iteration `last`; the effects follow them along
    `shift` [P, m], the motion of their mode.
    """
    beta, given = last.estimate.beta, posterior.root
    p, m = len(beta), given.shape[1]
    values, vectors = np.linalg.eigh(last.covariance[:p, :p])
    half = rng.standard_normal((p, -(-m // 2)))
    noise = np.concatenate([half, -half], axis=1)[:, :m]
    if 2 * (len(given) + p) <= m:
        # Independent of the effects in the sample, too.
        noise = orthonormal(noise - noise @ np.linalg.pinv(given) @ given)
    else:
        noise = noise / np.sqrt(m)
    moved = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T @ noise
    follow = layout.effects(last.estimate.factors, shift[:, :p] @ moved)
    ends = np.cumsum([b.shape[0] * b.shape[1] for b in follow])[:-1]
    parts = zip(np.split(given, ends), follow, strict=True) if follow else ()
    root = joint_root(moved, [part.reshape(b.shape) for part, b in parts], follow)
    return posterior._replace(beta=beta, beta_cov=None, root=root)
