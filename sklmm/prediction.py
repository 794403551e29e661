"""Predictions from a design and a fitted result; NumPy only.

    mean = X beta + sum_k z_k^T b_k[j_k],     Var(y_new) = sigma^2 + |X R_beta + sum_k z_k^T
    R_k[j_k]|^2

with R R^T the posterior covariance. A level that is unseen, missing or left out has effect 0 and
adds its prior variance z^T Sigma z instead.
"""

import numpy as np

CHUNK = 1 << 22


def predict_mean(design, result, include):
    """Mean response [n_rows]; `include` says for each term whether its effects count."""
    mean = design.X @ result.coef
    for block, effects in zip(design.blocks, result.effects, strict=True):
        if include[block.term]:
            mean += _lookup(block, effects)
    return mean


def _lookup(block, effects, rows=slice(None)):
    """z^T b[refs] for [n_levels, r] or [n_levels, r, m] effects, 0 where refs is -1."""
    refs = block.refs[rows]
    known = refs >= 0
    if effects.shape[1] == 1 and block.z is None:
        taken = effects[:, 0]
        out = taken[np.where(known, refs, 0)]
    else:
        z = block.z[rows] if block.z is not None else np.ones((len(refs), 1))
        out = np.einsum("na,na...->n...", z, effects[np.where(known, refs, 0)])
    out = np.asarray(out, dtype=np.float64)
    out[~known] = 0.0
    return out


def predict_variance(design, result, include):
    """Variance of a new observation [n_rows]."""
    n_rows, m = len(design.X), result.coef_root.shape[1]
    variance = np.full(n_rows, result.sigma**2)
    size = max(CHUNK // max(m, 1), 1)
    for first in range(0, n_rows, size):
        rows = slice(first, first + size)
        root = design.X[rows] @ result.coef_root
        for block, effects in zip(design.blocks, result.effects_root, strict=True):
            if include[block.term]:
                root += _lookup(block, effects, rows)
        variance[rows] += np.einsum("nm,nm->n", root, root)
    for block, cov in zip(design.blocks, result.covariances, strict=True):
        z = np.ones((n_rows, 1)) if block.z is None else block.z
        new = (block.refs < 0) if include[block.term] else np.ones(n_rows, bool)
        variance[new] += np.einsum("na,ab,nb->n", z[new], cov, z[new])
    return variance


def sample(design, unseen, result, n_samples, rng):
    """Draws from the posterior predictive distribution, [n_rows, n_samples].

    `unseen` holds for each term an index of its unseen levels [n_rows], -1 elsewhere: rows of one
    unseen level share its effect.
    """
    mean = predict_mean(design, result, [True] * len(unseen))
    out = np.repeat(mean[:, None], n_samples, axis=1)
    xi = rng.standard_normal((result.coef_root.shape[1], n_samples))
    out += design.X @ (result.coef_root @ xi)
    for block, roots, cov in zip(
        design.blocks, result.effects_root, result.covariances, strict=True
    ):
        out += _lookup(block, roots @ xi)
        index = unseen[block.term]
        if (new := index >= 0).any():
            values, vectors = np.linalg.eigh(cov)
            factor = vectors * np.sqrt(np.maximum(values, 0.0))
            draws = rng.standard_normal((index.max() + 1, block.r, n_samples))
            z = np.ones((len(index), 1)) if block.z is None else block.z
            out[new] += np.einsum("na,nam->nm", z[new] @ factor, draws[index[new]])
    return out + result.sigma * rng.standard_normal(out.shape)
