"""The posterior of coefficients and effects from draws about its mode."""

import numpy as np

from sklmm.engine.linalg.blocks import invert
from sklmm.engine.posterior.assemble import Posterior
from sklmm.result import own_sds


def posterior_from_draws(equations, mean, beta_columns, draws):
    """Posterior from the mean [p + Q'], C^-1's columns of beta, and centred draws [p + Q', M].

    The effects' SDs are Rao-Blackwellised: Var(u_j) = H_jj^-1 + Var(E[u_j | the rest]), the first
    exact and the second small (Siden, Lindgren, Bolin & Villani 2018, J. Comput. Graph. Stat. 27).
    """
    layout, factors = equations.layout, equations.factors
    p = layout.p
    beta_cov, _ = layout.split(beta_columns)
    beta_cov = (beta_cov + beta_cov.T) / 2
    given_beta = draws.copy()
    if p:
        given_beta -= beta_columns @ np.linalg.solve(beta_cov, draws[:p])
    given_beta[:p] = 0.0
    _, own = layout.split(given_beta)
    _, pull = layout.split(equations.apply(given_beta))
    covs = []
    blocks = equations.own_blocks()
    for L, H, u, Hu in zip(factors, blocks, own, pull, strict=True):
        inverse = invert(H)
        rest = u - np.einsum("jab,jbm->jam", inverse, Hu)
        variance = inverse + np.einsum("jam,jbm->jab", rest, rest) / u.shape[2]
        covs.append(np.einsum("ab,jbc,dc->jad", L, variance, L, optimize=True))
    root = _root(draws, given_beta, beta_cov, own_sds(covs), factors, layout)
    beta, u_mean = layout.split(mean[:, None])
    effects = tuple(
        (np.einsum("ab,jbm->jam", L, u))[:, :, 0] for L, u in zip(factors, u_mean, strict=True)
    )
    unsolved = equations.unsolved
    return Posterior(beta[:, 0], effects, tuple(covs), beta_cov, root, None, unsolved=unsolved)


def _root(draws, given_beta, beta_cov, stds, factors, layout):
    """Root of the posterior covariance [p + Q, M] from draws, their known parts made exact.

    The draws of beta get the covariance `beta_cov`, and each effect given beta the SD it is known
    to have; what stays random is the correlation of effects.
    """
    p, n_draws = layout.p, draws.shape[1]
    beta = draws[:p] / np.sqrt(n_draws)
    follows = draws - given_beta
    if 0 < p < n_draws:
        sample, target = (np.linalg.cholesky(c) for c in (beta @ beta.T, beta_cov))
        # The effects follow beta along its regression.
        slope = follows @ draws[:p].T @ np.linalg.inv(draws[:p] @ draws[:p].T)
        beta = target @ np.linalg.solve(sample, beta)
        follows = slope @ beta
    else:
        follows = follows / np.sqrt(n_draws)
    _, own = layout.split(given_beta / np.sqrt(n_draws))
    _, shared = layout.split(follows)
    parts = [beta]
    for L, u, s, std in zip(factors, own, shared, stds, strict=True):
        b = np.einsum("ab,jbm->jam", L, u)
        size = np.sqrt(np.sum(b**2, axis=2))
        b *= np.divide(std, size, out=np.ones_like(std), where=size > 0)[:, :, None]
        parts.append((b + np.einsum("ab,jbm->jam", L, s)).reshape(-1, n_draws))
    return np.concatenate(parts)
