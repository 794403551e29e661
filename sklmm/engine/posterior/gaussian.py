r"""The Gaussian posterior of coefficients and effects, of solved equations or draws about a mode.

Its root is [p + Q, m], Cov = root root^T: deviations of (beta, effects) from their mean, over the
root of their number. Of those that are draws what is known is made exact, the covariance of beta
and each effect's variance given beta: what stays random is the correlation of effects.
"""

import numpy as np

from sklmm.engine.equations.henderson import log_prior, loglik
from sklmm.engine.linalg.blocks import by_triangle, congruent, invert, rescaled
from sklmm.engine.posterior.assemble import Posterior
from sklmm.result import own_sds


def posterior_from_equations(eq, seed, n_draws):
    """Exact root of the posterior covariance where p + Q <= n_draws, else from draws.

    The draws' covariance of the coefficients, and each effect's variance given them, are made
    exact; what stays random is the correlation of effects.
    """
    cross, factors = eq.cross, eq.factors
    p, Q = cross.p, cross.Q
    if few := p + Q <= n_draws:
        x, e = np.split(np.eye(p + Q), [p])
    else:
        rng = np.random.default_rng(seed)
        x, e = orthonormal(rng.standard_normal((p, n_draws))), rng.standard_normal((Q, n_draws))
        e /= np.sqrt(n_draws)
    # Draws by Lanczos' method tell log |H| too.
    drawn = eq.H.drawn(e)
    root = drawn.root
    value = loglik(eq, eq.H.log_det)
    covs = [congruent(L.T, V) for L, V in zip(factors, eq.H.variances(drawn), strict=True)]
    beta = by_triangle(eq.S_factor, x, transpose=True)
    given = cross.blocks(cross.lift(factors, root))
    follow = cross.blocks(-eq.follow @ beta)
    beta_cov, columns = eq.solve_s(np.eye(p)), None
    if cross.columns is not None:
        beta, beta_cov, columns = columns_posterior(eq, beta, drawn, few)
    return Posterior(
        cross.coefficients(eq.beta + cross.ols, eq.u),
        tuple(cross.blocks(cross.lift(factors, eq.u))),
        tuple(covs),
        beta_cov,
        joint_root(beta, given, follow, None if few else own_sds(covs)),
        value,
        columns,
        loglik_error=0.0 if few else 0.5 * eq.H.log_det_error,
        unsolved=eq.H.unsolved,
        rough=eq.rough,
        log_prior=log_prior(eq),
    )


def columns_posterior(eq, beta, drawn, few):
    """Sparse columns' part of a posterior, and beta's, in all of X: see `columns.minimum_norm`.

    From draws of beta [p, m] and of the rest given beta, `Drawn`: draws of beta, its covariance,
    and (mean, std, draws) of gamma, the draws of that std unless they are the `few` of an exact
    root.
    """
    cross, columns = eq.cross, eq.cross.columns
    HR, N, d = eq.HR[cross.flat], columns.N, columns.N.shape[1]
    beta, draws = columns.minimum_norm(beta, drawn.root[cross.flat] - HR @ beta)
    cov = eq.solve_s(np.eye(cross.p))
    # Var(gamma) = V: Var((I - N N^T) gamma) takes its diagonal, V N and N^T V N.
    follow = HR @ cov
    own, VN = eq.H.column_variances(drawn, np.column_stack([N, columns.towards_constant()]))
    VN = VN[:, :d] + follow @ (HR.T @ N)
    NVN = N.T @ VN
    own += np.einsum("kp,kp->k", follow, HR) + np.einsum("kd,kd->k", N @ NVN - 2 * VN, N)
    std = np.sqrt(np.maximum(own, 0.0))
    # Cov(beta, gamma) = -follow^T.
    both = np.block([[cov, -follow.T @ N], [-N.T @ follow, NVN]])
    back = np.column_stack([columns.embed(np.eye(cross.p)), columns.B])
    mean = columns.minimum_norm(eq.beta, eq.u[cross.flat])[1] + columns.start
    if not few:
        draws = rescaled(draws[:, None], std[:, None])[:, 0]
    return beta, back @ both @ back.T, (mean, std, draws)


def posterior_from_draws(equations, mean, draws):
    """Posterior from its mean [P], the equations there, and centred draws by them [P, M].

    The effects' SDs are Rao-Blackwellised: Var(u_j) = H_jj^-1 + Var(E[u_j | the rest]), the first
    exact and the second small (Siden, Lindgren, Bolin & Villani 2018, J. Comput. Graph. Stat. 27).
    """
    layout, factors = equations.layout, equations.factors
    p = layout.p
    columns = equations.solve(np.eye(len(mean), p)) if p else draws[:, :0]
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
        covs.append(congruent(L.T, variance))
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
        rough=equations.rough,
    )


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
        # Of the tall matrix: NumPy 1.26's LAPACK has no SVD of some wide ones without full rank.
        noise = orthonormal(noise - noise @ given.T @ np.linalg.pinv(given.T))
    else:
        noise = noise / np.sqrt(m)
    moved = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T @ noise
    follow = layout.effects(last.estimate.factors, shift[:, :p] @ moved)
    ends = np.cumsum([b.shape[0] * b.shape[1] for b in follow])[:-1]
    parts = zip(np.split(given, ends), follow, strict=True) if follow else ()
    root = joint_root(moved, [part.reshape(b.shape) for part, b in parts], follow)
    return posterior._replace(beta=beta, beta_cov=None, root=root)
