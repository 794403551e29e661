r"""Kenward and Roger's covariance of the coefficients, and the degrees of freedom that go with it.

REML's V = sum_r s_r G_r is linear in the variance parameters s, the entries of the terms'
covariances and sigma^2. With P_r = -X^T V^-1 G_r V^-1 X, Q_rs = X^T V^-1 G_r V^-1 G_s V^-1 X,
C = (X^T V^-1 X)^-1 and the covariance W of the estimates of s from the expected information,

    (W^-1)_rs = (tr V^-1 G_r V^-1 G_s - 2 tr C Q_rs + tr C P_r C P_s) / 2,

the coefficients have the adjusted covariance

    C_A = C + 2 C (sum_rs W_rs (Q_rs - P_r C P_s)) C

(Kenward & Roger 1997, Biometrics 53, 983-997; Halekoh & Hojsgaard 2014, J. Stat. Softw. 59(9), on
pbkrtest's). The derivatives are those in s itself: they do not vanish where a variance is 0, as
those in its root do.

Of the rows nothing is read but cross-products. A G_r is Z S_r Z^T with Z^T V^-1 Z = K known, and
sigma^2 is told by V itself, as V = sum_k Z_k Sigma_k Z_k^T + sigma^2 w^-1: so G of sigma^2 is a
combination of V and of the Z_k Sigma_k Z_k^T, which are `directions` besides the parameters'.
"""

import numpy as np

from sklmm.engine.linalg.newton import inverse
from sklmm.engine.posterior.degrees import Degrees, turned
from sklmm.engine.posterior.trace_products import trace_products
from sklmm.steps import Exact

#: Share of V's traces that is their rounding.
ROUNDING = 1e-12


def check(problem, response, step):
    """ValueError for a model that has no such covariance, or none that is affordable."""
    blocks = problem.blocks
    reason = None
    if not problem.reml:
        reason = "for REML, and this fit is by maximum likelihood: use method='reml'"
    elif response.models:
        reason = "for one residual SD, and `dispersion` models it: use dof='satterthwaite'"
    elif problem.priors is not None:
        reason = "for fits without priors: use dof='satterthwaite'"
    elif bent := [b.covariance for b in blocks if not b.covariance.linear]:
        reason = (
            f"for covariances that are linear in their parameters, 'us' and 'diag', and "
            f"{bent[0].name!r} is not: use dof='satterthwaite'"
        )
    elif not isinstance(step, Exact):
        reason = f"by e_step='exact', and this fit is by {step!r}: use dof='satterthwaite'"
    if reason:
        raise ValueError(f"dof='kenward-roger' is {reason}.")


def kenward_roger(equations):
    """`Degrees` at REML's estimate, with what it adds to the coefficients' covariance."""
    problem = equations.cross.problem
    pairs = zip(problem.blocks, equations.factors, strict=True)
    parts = [np.concatenate([b.covariance.directions(), (L @ L.T)[None]]) for b, L in pairs]
    # Of V, and then of each term's parameters and its Sigma; by B sigma^2's take V's place.
    P, Q, T = _forms(equations, parts)
    ends = 1 + np.cumsum([0, *map(len, parts)])
    sigmas = ends[1:] - 1
    B = np.eye(ends[-1])
    B[0, 0], B[0, sigmas] = 1 / equations.s2, -1 / equations.s2
    B = np.delete(B, [*([] if problem.sigma is None else [0]), *sigmas], axis=0)
    P, Q = np.tensordot(B, P, 1), np.einsum("ri,sj,ijpq->rspq", B, B, Q, optimize=True)
    C = equations.solve_s(np.eye(len(equations.S)))
    CP = C @ P
    information = B @ T @ B.T - 2 * np.einsum("pq,rsqp->rs", C, Q)
    information += np.einsum("rpq,sqp->rs", CP, CP)
    noise = 0.0
    if problem.sigma is None:
        # What V^-1 G_r V^-1 of sigma^2 loses as a difference: much, where it is a part of no row's.
        noise = ROUNDING * T[0, 0] / max(equations.s2**2 * (B @ T @ B.T)[0, 0], 1e-300)
    W = inverse(information / 2, noise)
    between = np.einsum("rs,rspq->pq", W, Q) - np.einsum("rs,rpq,sqt->pt", W, P, CP, optimize=True)
    added = 2 * C @ between @ C
    return Degrees("kenward-roger", turned(-CP @ C, W), (added + added.T) / 2)


def _forms(equations, parts):
    """P [m, p, p], Q [m, m, p, p] and tr V^-1 G_r V^-1 G_s [m, m] of V and of all directions.

    `parts` are a term's directions [m_k, r, r].
    """
    cross, N, XVX = equations.cross, equations.ZVX, equations.XVX
    moved = []
    for k, (E, z) in enumerate(zip(parts, cross.blocks(N), strict=True)):
        some = np.zeros((len(E), *N.shape))
        image = np.einsum("mab,jbp->mjap", E, cross.prior.relate(k, z))
        some[:, cross.slices[k]] = image.reshape(some[:, cross.slices[k]].shape)
        moved.append(some)
    # S_r Z^T V^-1 X of each direction.
    SN = np.concatenate([np.zeros((0, *N.shape)), *moved])
    m, _, p = SN.shape
    P, Q, T = np.empty((m + 1, p, p)), np.empty((m + 1, m + 1, p, p)), np.empty((m + 1, m + 1))
    P[0], P[1:] = -XVX, -np.einsum("qp,mqt->mpt", N, SN)
    Q[0], Q[:, 0] = -P, -P
    for r, one in enumerate(SN, 1):
        Q[1:, r] = SN.transpose(0, 2, 1) @ _inner(equations, one)
    T[0, 0] = cross.problem.n
    traces = equations.H.traces()
    T[0, 1:] = T[1:, 0] = [np.sum(e * K) for E, K in zip(parts, traces, strict=True) for e in E]
    T[1:, 1:] = trace_products(equations, parts)
    return P, Q, T


def _inner(equations, columns):
    """Z^T V^-1 Z applied to [Q, c]."""
    cross, s2 = equations.cross, equations.s2
    image = cross.product(columns)
    solved = equations.H.solve(cross.lift(equations.factors, image, transpose=True))
    return (image - cross.product(cross.lift(equations.factors, solved)) / s2) / s2
