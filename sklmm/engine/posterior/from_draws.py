"""The posterior of coefficients and effects from draws about its mode."""

import numpy as np

from sklmm.engine.linalg.blocks import invert
from sklmm.engine.posterior.assemble import Posterior
from sklmm.engine.posterior.root import joint_root
from sklmm.result import own_sds


def posterior_from_draws(equations, mean, draws):
    """Posterior from its mean [P], the equations there, and centred draws by them [P, M].

    The effects' SDs are Rao-Blackwellised: Var(u_j) = H_jj^-1 + Var(E[u_j | the rest]), the first
    exact and the second small (Siden, Lindgren, Bolin & Villani 2018, J. Comput. Graph. Stat. 27).
    """
    layout, factors = equations.layout, equations.factors
    p = layout.p
    columns = equations.solve(np.eye(len(mean))[:, :p]) if p else draws[:, :0]
    beta_cov = (columns[:p] + columns[:p].T) / 2
    # How all unknowns follow beta, and what is their own.
    slope = np.linalg.solve(beta_cov, columns.T).T if p else columns
    given_beta = draws - slope @ draws[:p]
    given_beta[:p] = 0.0
    _, own = layout.split(given_beta)
    _, pull = layout.split(equations.apply(given_beta))
    covs = []
    for L, H, u, Hu in zip(factors, equations.own_blocks(), own, pull, strict=True):
        inverse = invert(H)
        rest = u - np.einsum("jab,jbm->jam", inverse, Hu)
        variance = inverse + np.einsum("jam,jbm->jab", rest, rest) / u.shape[2]
        covs.append(np.einsum("ab,jbc,dc->jad", L, variance, L, optimize=True))
    beta = draws[:p] / np.sqrt(draws.shape[1])
    if 0 < p < draws.shape[1]:
        sample, target = (np.linalg.cholesky(c) for c in (beta @ beta.T, beta_cov))
        beta = target @ np.linalg.solve(sample, beta)
    given, follow = (
        layout.effects(factors, part)
        for part in (given_beta / np.sqrt(draws.shape[1]), slope @ beta)
    )
    return Posterior(
        mean[:p],
        tuple(b[:, :, 0] for b in layout.effects(factors, mean[:, None])),
        tuple(covs),
        beta_cov,
        joint_root(beta, given, follow, own_sds(covs)),
        None,
        unsolved=equations.unsolved,
    )
