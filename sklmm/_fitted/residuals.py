"""Quantile residuals: the distribution function of each row's y, uniform under the right model.

Given the effects and coefficients b, u_i = F(y_i | b) are independent and uniform, of y with
probabilities at random between P(Y < y_i) and P(Y <= y_i) (Dunn & Smyth 1996). b is not known. But
(b', y) with b' one draw from the posterior given y has the distribution of (b, y), so the same is
true given b'; at the posterior mean, which is nearer to y than b is, residuals would be too small.

With the effects integrated out over their prior u_i is uniform, too, but those of a group depend on
one another.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from scipy.special import ndtri
from scipy.stats import chi2, kstest, norm

from sklmm._fitted.draws import joint_draws
from sklmm._fitted.latent import Moments, linear_predictor, predictor_moments
from sklmm._fitted.mixtures import Mixture
from sklmm._threads import in_threads
from sklmm.families.parts import parameters_by_row

#: Residuals are not 0 or 1, of which there is no normal quantile.
_LEAST = 1e-12


class QuantileResiduals(NamedTuple):
    """Residuals u [n] in (0, 1) given a draw of the effects, and what they are compared with.

    mean [n] is E[y] given that draw, of which u does not depend under the right model (on the
    posterior mean, which is of y itself, it does). zeros [n] are P(Y = 0), None where y is never 0
    by itself.
    """

    u: np.ndarray
    mean: np.ndarray
    zeros: np.ndarray | None


class Test(NamedTuple):
    """A statistic, what is expected of it under the model, and the two-sided p value."""

    statistic: float
    expected: float
    p: float


def quantile_residuals(design, response, result, rng, conditional=True, with_zeros=False):
    """`QuantileResiduals` of the rows of a fit; their `zeros` are asked for."""
    d, family = response.n_predictors, response.family
    drawn = _drawn(result, family, rng)
    params = _parameters(response, parameters_by_row(response.models, result.family, design.models))
    if conditional:
        eta = linear_predictor(design, drawn, None, d)
        variance = np.zeros((*eta.shape, d) if d > 1 else eta.shape)
        moments = Moments(eta, variance, np.zeros(design.n_rows, bool))
    else:
        none = [False] * len(design.every_block)
        fixed = replace(drawn, coef_root=0 * drawn.coef_root, sparse_root=0 * drawn.sparse_root)
        moments = predictor_moments(design, fixed, none, d)
    if family.normal and d == 1:
        # The variance of a normal eta is one with that of y.
        sigma = np.sqrt(np.square(params["sigma"]) + moments.variance[:, None])
        params = {**params, "sigma": sigma}
        moments = moments._replace(variance=np.zeros(design.n_rows))
    return _residuals(Mixture(family, moments, params), response, rng, with_zeros)


def _residuals(mixture, response, rng, with_zeros):
    family, y = mixture.family, response.family.decoded(response.y)
    lower = upper = y
    if family.open_ended:
        lower, upper = response.data.T
    with_zeros = with_zeros and family.classes is None and _has_zeros(family, mixture.params)

    def one(rows, random):
        part = mixture.rows(rows)
        below, up_to = part.settled_cdf(lower[rows], True), part.settled_cdf(upper[rows])
        u = below + random * (up_to - below)
        mean = part.family.mean(part.moments.mean[..., None], part.params)[:, 0]
        none = part.settled_cdf(np.zeros(len(u))) if with_zeros else None
        return np.clip(u, _LEAST, 1 - _LEAST), mean, none

    blocks = mixture.blocks()
    # One stream, whatever the blocks.
    random = rng.random(len(y))
    parts = in_threads(one, blocks, [random[rows] for rows in blocks])
    u, mean, none = zip(*parts, strict=True)
    joined = np.concatenate(none) if with_zeros else None
    return QuantileResiduals(np.concatenate(u), np.concatenate(mean), joined)


def _has_zeros(family, params):
    """Whether y is at least 0, and 0 with some probability."""
    low, _ = family.limits(params)
    eta = np.zeros((1, 1))
    if low != 0:
        return False
    one = {name: np.ravel(value)[:1] for name, value in params.items()}
    if hasattr(family, "apart"):
        return _has_zeros(family.family, one | dict.fromkeys(family.names, np.full(1, 0.5)))
    return bool(family.cdf(np.zeros((1, 1)), eta, one)[0, 0] > 0)


def _drawn(result, family, rng):
    """The result with one joint draw of coefficients and effects in their estimates' place."""
    z = joint_draws(family, result, 1, rng)[:, 0]
    pairs = zip(result.effects, result.effects_root, strict=True)
    sparse = result.sparse_coef
    return replace(
        result,
        coef=result.coef + result.coef_root @ z,
        sparse_coef=sparse + result.sparse_root @ z if len(sparse) else sparse,
        effects=tuple(mean + root @ z for mean, root in pairs),
    )


def _parameters(response, params):
    """The family's parameters with what the rows have besides y, and their trials or precisions."""
    params, weights = response.with_data(params), response.weights[:, None]
    if response.family.weights == "trials":
        return {**params, "trials": np.round(weights)}
    if response.family.weights == "precision":
        return {**params, "sigma": params["sigma"] / (response.sigma_unit * np.sqrt(weights))}
    return params


def uniformity(u):
    """Kolmogorov & Smirnov's test of residuals."""
    found = kstest(u, "uniform")
    return Test(float(found.statistic), 0.0, float(found.pvalue))


def dispersion(u):
    """The mean square of normal residuals, 1 under the model: chi squared over n."""
    n, square = len(u), float(np.sum(ndtri(u) ** 2))
    p = 2 * min(chi2.cdf(square, n), chi2.sf(square, n))
    return Test(square / n, 1.0, float(min(p, 1.0)))


def zeros(residuals, y):
    """The number of zeros, or None where there can be none: a sum of independent ones."""
    if residuals.zeros is None:
        return None
    p, found = residuals.zeros, float(np.sum(y == 0))
    sd = np.sqrt(np.sum(p * (1 - p)))
    z = (found - p.sum()) / sd if sd > 0 else 0.0
    return Test(found, float(p.sum()), float(2 * norm.sf(abs(z))))
