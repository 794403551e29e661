r"""Satterthwaite's degrees of freedom of coefficients.

With C(theta) = (X^T V^-1 X)^-1 and A the covariance of theta, a coefficient l^T beta has

    df = 2 (l^T C l)^2 / (g^T A g),    g_i = d l^T C l / d theta_i = l^T C M_i C l,

M_i = X^T V^-1 (dV / d theta_i) V^-1 X (Satterthwaite 1946, Biometrics Bull. 2, 110-114; Kuznetsova,
Brockhoff & Christensen 2017, J. Stat. Softw. 82(13), on lmerTest's). A is the inverse of the
observed information: differences of the gradient, as the average information of Newton's method is
that of a maximum only in balanced data.
"""

import numpy as np
from scipy.linalg import solve_triangular

from sklmm.engine.theta.space import slopes


def satterthwaite(equations, covariance):
    """Degrees of freedom [n_columns] at a maximum, from the covariance [m, m] of theta.

    nan of a coefficient without a variance.
    """
    problem = equations.cross.problem
    basis = problem.basis
    if not problem.p:
        return np.full(len(basis), np.nan)
    C, changes = coefficient_slopes(equations)
    variance = np.einsum("cp,pq,cq->c", basis, C, basis)
    g = np.einsum("cp,ipq,cq->ci", basis, changes, basis)
    spread = np.einsum("ci,ij,cj->c", g, covariance, g)
    known = spread > 0
    # Where theta is known, and the coefficient's variance with it, t is normal.
    out = np.where(known, 2 * variance**2 / np.where(known, spread, 1.0), np.inf)
    return np.where(variance > 0, out, np.nan)


def coefficient_slopes(equations):
    """C [p, p] and its derivatives [m, p, p] in theta = (theta_1, ..., theta_K, log sigma).

    Without the last where sigma is pinned.
    """
    cross, factors = equations.cross, equations.factors
    S = equations.S
    half = solve_triangular(equations.S_factor, np.eye(len(S)), lower=True)
    C = half.T @ half
    ZVX = cross.blocks((cross.F - equations.GHR) / equations.s2)
    out, random = [], np.zeros_like(S)
    for L, D, z in zip(factors, slopes(cross.problem, factors), ZVX, strict=True):
        both = np.einsum("jap,jbq->abpq", z, z)
        half = np.einsum("mab,abpq->mpq", D @ L.T, both)
        out.extend(half + half.transpose(0, 2, 1))
        random += np.einsum("ab,abpq->pq", L @ L.T, both)
    if cross.problem.sigma is None:
        out.append(2 * (S - random))
    out = np.reshape(out, (len(out), *S.shape))
    return C, np.einsum("ap,ipq,qb->iab", C, out, C)
