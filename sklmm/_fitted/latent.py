"""The linear predictor eta of rows by a fitted result: its posterior, and what new effects add.

    eta = o + X beta + sum_k z_k^T b_k[j_k]

with o the offset. Coefficients and effects have the posterior mean and a root R of the posterior
covariance, R R^T, of which columns of R sqrt(m) are draws. An effect that is not known (its level
unseen or missing), or not wanted (its term left out), is one of the prior: it adds 0 to the mean
and its prior variance to that of eta. A time that the fit had not has the mean that known ones
tell, and adds the variance that is left.

Rows are taken in blocks whose draws stay in cache, by threads; blocks are the same whatever the
number of threads.
"""

from typing import NamedTuple

import numpy as np

from sklmm._threads import in_threads
from sklmm.design.indicators import applied, quadratic

#: Numbers of a block's draws; and where TensorFlow works on them, which takes long to begin.
BLOCK, TENSOR_BLOCK = 1 << 17, 1 << 22


class Moments(NamedTuple):
    """Of eta in each row: mean [n], variance [n], and which rows have a `new` effect, bool [n].

    Of d > 1 predictors a row mean [n, d] and covariance [n, d, d].
    """

    mean: np.ndarray
    variance: np.ndarray
    new: np.ndarray


def predictor_moments(design, result, include=None, d=1, prior=True):
    """The `Moments` of rows; `include` says for each term whether its effects count.

    Without `prior` new effects are 0, and add no variance.
    """
    mean = linear_predictor(design, result, include, d)
    variance = np.empty((design.n_rows, d, d))
    new = np.zeros(design.n_rows, bool)

    def one(rows):
        root = deviations(design, result, include, rows, d)
        added, new[rows] = new_effects(design, result, include, rows, d)
        variance[rows] = root_covariance(root, added if prior else None)

    in_threads(one, row_blocks(design, result, d))
    return Moments(mean, variance[:, 0, 0] if d == 1 else variance, new)


def linear_predictor(design, result, include=None, d=1):
    """Posterior mean of eta: [n_rows], or [n_rows, d] for several predictors a row.

    `include` says for each term whether its effects count, as all do by default.
    """
    columns = [_predictor(own, result, include) for own in design.predictors(d)]
    return columns[0] if d == 1 else np.stack(columns, axis=1)


def _predictor(own, result, include):
    eta = own.X @ result.coef[own.columns]
    if own.sparse is not None:
        eta += own.sparse @ result.sparse_coef
    for term, k, block in own.blocks:
        if include is None or include[term]:
            eta += _lookup(block, result.effects[k])
    return eta if own.offset is None else eta + own.offset


def _lookup(block, effects, rows=slice(None)):
    """z^T b[refs] for [n_levels, r] or [n_levels, r, m] effects, 0 where refs is negative."""
    refs = block.refs[rows]
    if block.tied:
        return applied(refs, block.z[rows] * (refs >= 0)[:, :, None], effects)
    if block.z is None:
        out = effects[:, 0].take(refs, axis=0, mode="wrap")
    else:
        out = applied(refs, block.z[rows], effects)
    if (unknown := refs < 0).any():
        out[unknown] = 0.0
    return out


def row_blocks(design, result, d=1, numbers=BLOCK):
    """Slices of rows, of so many numbers of draws each."""
    size = max(numbers // max(result.coef_root.shape[1] * d, 1), 1)
    return [slice(first, first + size) for first in range(0, design.n_rows, size)]


def of_rows(params, rows):
    """Parameters of a family in some rows: those by row are arrays [n_rows, 1]."""
    return {name: value[rows] if np.ndim(value) else value for name, value in params.items()}


def deviations(design, result, include, rows, d=1):
    """Root of the posterior covariance of eta, [n, d, m], in a slice of rows."""
    out = []
    for own in design.predictors(d):
        root = own.X[rows] @ result.coef_root[own.columns]
        if own.sparse is not None:
            root += own.sparse[rows] @ result.sparse_root
        for term, k, block in own.blocks:
            if include is None or include[term]:
                root += _lookup(block, result.effects_root[k], rows)
        out.append(root)
    return out[0][:, None] if d == 1 else np.stack(out, axis=1)


def root_covariance(root, added=None):
    """Covariance [n, d, d] of eta of its root [n, d, m], with independent variances [n, d] added.

    Which those of new effects are: predictors share none.
    """
    d = root.shape[1]
    if d == 1:
        found = np.einsum("ncm,ncm->n", root, root)[:, None, None]
    else:
        found = root @ root.transpose(0, 2, 1)
    if added is not None:
        found[:, range(d), range(d)] += added
    return found


def new_effects(design, result, include, rows, d=1):
    """(Variances [n, d] that new effects add, which rows have one [n]) in a slice of rows."""
    n = len(range(*rows.indices(design.n_rows)))
    added, any_new = np.zeros((n, d)), np.zeros(n, bool)
    for c, own in enumerate(design.predictors(d)):
        for term, k, block in own.blocks:
            wanted = include is None or include[term]
            new = np.flatnonzero(_new(block, wanted, rows))
            if len(new):
                cov = result.covariances[k]
                added[new, c] += _prior_variance(block, cov, new + rows.start, wanted)
                any_new[new] = True
            if block.between is not None:
                left = block.between.variance(rows)
                added[:, c] += left
                any_new |= left > 0
    return added, any_new


def _new(block, wanted, rows):
    """Which of some rows have an effect of this block that is not known, or not wanted."""
    refs = block.refs[rows]
    if not wanted:
        return np.ones(len(refs), bool)
    return (refs < 0).any(axis=1) if block.tied else refs < 0


def _prior_variance(block, covariance, rows, wanted):
    """Prior variance [n] that effects of a block give to eta in some rows, which are `_new`.

    Of related levels that of one which is related to itself by 1, as a founder is.
    """
    z, refs = block.loadings(rows), block.refs[rows]
    if block.tied and wanted:
        z = z * (refs < 0)[:, :, None]
    return quadratic(z, covariance, refs)


def predictor_draws(design, result, z, d=1):
    """eta [n_rows, d, S] at joint draws of coefficients and effects, made of z [m, S].

    A row's new effects are 0.
    """
    mean = linear_predictor(design, result, d=d).reshape(-1, d, 1)
    out = np.empty((len(mean), d, z.shape[1]))
    for rows in row_blocks(design, result, d):
        out[rows] = mean[rows] + deviations(design, result, None, rows, d) @ z
    return out
