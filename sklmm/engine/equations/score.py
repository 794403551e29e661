r"""The log-likelihood of a Gaussian model at one theta, its score and its information.

In standard units, with spherical effects u (lme4's notation),

    y = X beta + Z Lambda u + e,   u ~ N(0, I),   e ~ N(0, sigma^2 W^{-1}), Lambda = blockdiag(I (x)
    L_k),   Sigma_k = L_k L_k^T,   V = Z Lambda Lambda^T Z^T + sigma^2 W^{-1}.

Fisher's identity gives the gradient of the (restricted) log-likelihood l,

    G_k = dl / dSigma_k = (c_k c_k^T - K_k) / 2,   c = Z^T P y,   K = Z^T P Z summed by level,

    dl / dlog(sigma) = r^T W r / sigma^2 - (n - p - tr Lambda^T K Lambda),

with r the residuals. The average information of theta = (theta_1, ..., theta_K, log sigma),
without log sigma where it is pinned, is AI-REML's (Gilmour, Thompson & Cullis 1995, Biometrics 51,
1440-1450).
"""

from typing import NamedTuple

import numpy as np

from sklmm.engine.theta.space import slopes


class Evaluation(NamedTuple):
    """What the likelihood is at one theta.

    beta [p]; score, a tuple of G_k [r_k, r_k]; score_sigma, the gradient in log sigma; information
    [m, m] in theta, the average one; loglik or None where log |H| is not known; noise
    [n_probes, m], independent replicates of the gradient's Monte Carlo error, or None; joint,
    log p(y, u) in standard units; sensitivity [p, m], d beta / d theta; solutions, those of the
    equations by series, from which solves at another theta may start.
    """

    theta: NamedTuple
    beta: np.ndarray
    score: tuple
    score_sigma: float
    information: np.ndarray
    loglik: float | None
    noise: np.ndarray | None
    joint: float
    sensitivity: np.ndarray
    solutions: dict


def evaluate(theta, equations, traces, deviations):
    """`Evaluation` from the solved equations at theta.

    `traces` are the summed blocks [r_k, r_k] of Z^T V^-1 Z, and `deviations` [n_probes, r_k, r_k]
    those by probe, or None.
    """
    eq, cross = equations, equations.cross
    problem = cross.problem
    u, c = cross.blocks(eq.u), cross.blocks(eq.c)
    if problem.reml and cross.p:
        own = [np.einsum("jaq,jbq->ab", D, D) for D in eq.projected_columns()]
        traces = [K - D for K, D in zip(traces, own, strict=True)]
    score, trace = [], 0.0
    for K, L, cj in zip(traces, theta.factors, c, strict=True):
        score.append(0.5 * (np.einsum("ja,jb->ab", cj, cj) - K))
        trace += np.trace(L.T @ K @ L)
    dof = problem.n - problem.rank * problem.reml
    information, sensitivity = eq.information(u, c)
    return Evaluation(
        theta=theta,
        beta=cross.coefficients(eq.beta + cross.ols, eq.u),
        score=tuple(score),
        score_sigma=eq.sse / eq.s2 - (dof - trace),
        information=information,
        loglik=loglik(eq, eq.H.log_det),
        noise=None if deviations is None else _noise(problem, theta, deviations),
        joint=-0.5 * (problem.n * np.log(2 * np.pi * eq.s2) + eq.sse / eq.s2 + eq.uu),
        sensitivity=cross.embed(sensitivity),
        solutions=eq.H.solutions,
    )


def loglik(equations, log_det):
    """Log-likelihood in y's units from log |H|; None where that is not known.

    REML's has log |X^T V^-1 X| in X's own columns, as lme4's.
    """
    if log_det is None:
        return None
    problem, s2 = equations.cross.problem, equations.s2
    log_det = problem.n * np.log(s2) + log_det
    dof = problem.n
    if problem.reml and problem.p:
        dof -= problem.p
        log_det += 2 * np.log(np.diag(equations.S_factor)).sum() + problem.log_det_basis
    quadratic = equations.sse / s2 + equations.uu
    return float(-0.5 * (dof * np.log(2 * np.pi * problem.y_scale**2) + log_det + quadratic))


def _noise(problem, theta, deviations):
    """Errors [n_probes, m] of the gradient in theta from those of the traces."""
    out, total = [], 0.0
    parts = zip(theta.factors, slopes(problem, theta.factors), deviations, strict=True)
    for L, D, deviation in parts:
        out.append(-np.einsum("sab,mab->sm", deviation @ L, D))
        total = total + np.einsum("ba,sbc,ca->s", L, deviation, L)
    return np.column_stack([*out, total] if len(theta.raw) else out)


def working_effects(factor, changes, u, c):
    """Effects a [n_levels, r, m] with Z a = dV / dtheta_m P y for each parameter of a covariance.

    For V = Z L L^T Z^T, the changes D_m = dL / dtheta_m [m, r, r] and c = Z^T P y [n_levels, r]:
    dV / dtheta_m P y = Z (D_m L^T + L D_m^T) c, and L^T c = u.
    """
    out = np.empty((*u.shape, len(changes)))
    for m, D in enumerate(changes):
        out[:, :, m] = u @ D.T + c @ (D @ factor.T)
    return out
