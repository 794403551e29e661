"""The posterior of coefficients and effects of a Gaussian model, from its solved equations."""

import numpy as np
from scipy.linalg import solve_triangular

from sklmm.engine.equations.henderson import loglik
from sklmm.engine.linalg.blocks import rescaled
from sklmm.engine.posterior.assemble import Posterior
from sklmm.engine.posterior.root import joint_root, orthonormal
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
    root = eq.H.root(e)
    value = loglik(eq, eq.H.log_det)
    covs = [
        np.einsum("ab,jbc,dc->jad", L, V, L, optimize=True)
        for L, V in zip(factors, eq.H.variances(root), strict=True)
    ]
    s_root = solve_triangular(eq.S_factor, np.eye(p), lower=True).T if p else eq.S
    beta = s_root @ x
    given = cross.blocks(cross.lift(factors, root))
    follow = cross.blocks(-cross.lift(factors, eq.HR @ beta))
    beta_cov, columns = eq.solve_s(np.eye(p)), None
    if cross.columns is not None:
        beta, beta_cov, columns = columns_posterior(eq, beta, root, few)
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
    )


def columns_posterior(eq, beta, root, few):
    """Sparse columns' part of a posterior, and beta's, in all of X: see `columns.minimum_norm`.

    From draws of beta [p, m] and of the rest given beta [Q, m]: draws of beta, its covariance, and
    (mean, std, draws) of gamma, the draws of that std unless they are the `few` of an exact root.
    """
    cross, columns = eq.cross, eq.cross.columns
    HR, N, d = eq.HR[cross.flat], columns.N, columns.N.shape[1]
    beta, draws = columns.minimum_norm(beta, root[cross.flat] - HR @ beta)
    cov = eq.solve_s(np.eye(cross.p))
    # Var(gamma) = V: Var((I - N N^T) gamma) takes its diagonal, V N and N^T V N.
    follow = HR @ cov
    own, VN = eq.H.column_variances(root, np.column_stack([N, columns.towards_constant()]))
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
