"""Predictions from a design and a fitted result; NumPy only.

Gaussian and Student t models are linear in the effects:

    mean = o + X beta + sum_k z_k^T b_k[j_k],
    Var(y_new) = Var(y | eta) + |X R_beta + sum_k z_k^T R_k[j_k]|^2

with o the offset and R R^T the posterior covariance. The logarithm of a lognormal response is so,
and mean and variance are of the lognormal distribution with that one's. For the other families the
columns of R sqrt(m) are posterior draws, and the response's mean, its probabilities and its
variance are averages over them (a model without random effects has none, and its mean is that at
the estimate).
A level that is unseen, missing or left out has effect 0, and adds its prior variance to `variance`.
A time that the fit had not has the mean that known ones tell, and adds the variance that is left.

Rows are taken in blocks whose draws stay in cache, by threads; blocks are the same whatever the
number of threads.
"""

import numpy as np

from sklmm._threads import in_threads
from sklmm.design.indicators import applied, quadratic
from sklmm.result import covariance_root

#: Numbers of a block's draws; and where TensorFlow works on them, which takes long to begin.
BLOCK = 1 << 17
TENSOR_BLOCK = 1 << 22


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


def _deviations(design, result, include, rows, d):
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


def _blocks(design, result, d=1, family=None):
    """Slices of rows."""
    numbers = TENSOR_BLOCK if family is not None and family.density is None else BLOCK
    size = max(numbers // max(result.coef_root.shape[1] * d, 1), 1)
    return [slice(first, first + size) for first in range(0, design.n_rows, size)]


def _averaged(function, design, result, family, include, d=1):
    """`function` of each block's draws of eta [n, d, m], or [n, m] for d = 1, and its rows, joined.

    They are at the estimate alone, m = 1, where there are no effects to average over.
    """
    eta, scale = linear_predictor(design, result, include, d), np.sqrt(result.coef_root.shape[1])

    def one(rows):
        draws = eta[rows].reshape(-1, d, 1)
        if design.every_block:
            draws = _deviations(design, result, include, rows, d)
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
            _add_posterior(variance, design, result, include)
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
    variance = np.zeros(design.n_rows)
    _add_posterior(variance, design, result, include)
    for block, cov, wanted in zip(design.blocks, result.covariances, include, strict=True):
        new = np.flatnonzero(_new(block, wanted))
        variance[new] += _prior_variance(block, cov, new, wanted)
        if block.between is not None:
            variance += block.between.variance(slice(None))
    if family.mean_is_eta:
        variance += family.variance(np.zeros((design.n_rows, 1)), params)[:, 0]
        return variance
    eta = linear_predictor(design, result, include)
    return _spread(family, params, variance, "variance", eta)


def _spread(family, params, variance, moment, eta):
    """A moment [n_rows] of a family of which eta is normal with a variance [n_rows]."""
    params = family.spread(params, variance[:, None])
    return getattr(family, moment)(eta[:, None], params)[:, 0]


def _add_posterior(variance, design, result, include):
    """Add the posterior variance of eta to that of rows [n_rows]."""

    def add(rows):
        root = _deviations(design, result, include, rows, 1)[:, 0]
        variance[rows] += np.einsum("nm,nm->n", root, root)

    in_threads(add, _blocks(design, result))


def _prior_variance(block, covariance, rows, wanted):
    """Prior variance [n] that effects of a block give to eta in some rows, which are `_new`.

    Of related levels that of one which is related to itself by 1, as a founder is.
    """
    z, refs = block.loadings(rows), block.refs[rows]
    if block.tied and wanted:
        z = z * (refs < 0)[:, :, None]
    return quadratic(z, covariance, refs)


def _new(block, wanted, rows=slice(None)):
    """Which of some rows have an effect of this block that is not known, or not wanted."""
    refs = block.refs[rows]
    if not wanted:
        return np.ones(len(refs), bool)
    return (refs < 0).any(axis=1) if block.tied else refs < 0


def _variance_by_draws(design, result, family, include, params, rng, d):
    eta = linear_predictor(design, result, include, d).reshape(-1, d, 1)
    scale, predictors = np.sqrt(result.coef_root.shape[1]), design.predictors(d)

    def one(rows, rng):
        every = _deviations(design, result, include, rows, d)
        every *= scale
        every += eta[rows]
        for c, predictor in enumerate(predictors):
            draws = every[:, c]
            for term, k, block in predictor.blocks:
                wanted = include[term]
                new = np.flatnonzero(_new(block, wanted, rows))
                variance = _prior_variance(block, result.covariances[k], new + rows.start, wanted)
                sd = np.sqrt(variance)
                draws[new] += sd[:, None] * rng.standard_normal((len(sd), draws.shape[1]))
                if block.between is not None:
                    sd = np.sqrt(block.between.variance(rows))
                    draws += sd[:, None] * rng.standard_normal(draws.shape)
        draws, own = every[:, 0] if d == 1 else every, of_rows(params, rows)
        mean, within = family.mean(draws, own), family.variance(draws, own).mean(axis=1)
        return within + mean.var(axis=1)

    blocks = _blocks(design, result, d, family)
    # A stream of its own a block, so that the order in which threads take them is none.
    return np.concatenate([np.empty(0), *in_threads(one, blocks, rng.spawn(len(blocks)))])


def predictor_draws(design, result, z, d=1):
    """eta [n_rows, d, S] at joint draws of coefficients and effects, made of z [m, S].

    A row's unseen levels have effect 0.
    """
    mean = linear_predictor(design, result, d=d).reshape(-1, d, 1)
    out = np.empty((len(mean), d, z.shape[1]))
    for rows in _blocks(design, result, d):
        out[rows] = mean[rows] + _deviations(design, result, None, rows, d) @ z
    return out


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


def sample(design, unseen, result, family, params, n_samples, rng, d=1):
    """Draws from the posterior predictive distribution, [n_rows, n_samples].

    `unseen` holds for each term an index of its unseen levels, of the shape of its refs, -1
    elsewhere: rows of one unseen level share its effect.
    """
    m = result.coef_root.shape[1]
    if family.scale_equivariant:
        xi = rng.standard_normal((m, n_samples))
    else:
        xi = np.sqrt(m) * np.eye(m)[:, rng.integers(m, size=n_samples)]
    out = predictor_draws(design, result, xi, d)
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
