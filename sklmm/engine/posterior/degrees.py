r"""How well the covariance of the coefficients is known: what degrees of freedom are made of.

The covariance C(theta) = (X^T V^-1 X)^-1 of the coefficients is a function of the variance
parameters. With A the covariance of their estimates its own entries have, by the delta method, the
covariance

    Cov(C) = sum_i vec(R_i) vec(R_i)^T,    R_i = sum_k (A^1/2)_ki dC / d theta_k.

By these R_i every combination L beta has degrees of freedom (`sklmm.result.degrees_of_freedom`).

Satterthwaite's are of theta = (theta_1, ..., theta_K, log sigma), the factors' parameters, with

    dC / d theta_k = -C (d X^T V^-1 X / d theta_k) C = C X^T V^-1 (dV / d theta_k) V^-1 X C

(Satterthwaite 1946, Biometrics Bull. 2, 110-114; Kuznetsova, Brockhoff & Christensen 2017, J. Stat.
Softw. 82(13), on lmerTest's). A is the inverse of the observed information: differences of the
gradient, as the average information of Newton's method is that of a maximum only in balanced data.
"""

from typing import NamedTuple

import numpy as np

from sklmm.engine.theta.space import slopes
from sklmm.result import covariance_root


class Degrees(NamedTuple):
    """What `rule` says of the coefficients' covariance [p, p], in standard units.

    root [m, p, p] are the R_i; added [p, p] is what the covariance is to have besides, or None.
    """

    rule: str
    root: np.ndarray
    added: np.ndarray | None = None


def satterthwaite(equations, covariance, residual=None):
    """`Degrees` at a maximum, from the covariance [m, m] of theta.

    `residual` are the M_i [., p, p] of the parameters of the residual variance, where that is not
    sigma^2.
    """
    return Degrees("satterthwaite", turned(coefficient_slopes(equations, residual), covariance))


def turned(changes, covariance):
    """R_i [m, p, p] of the derivatives [m, p, p] in parameters of a covariance [m, m]."""
    return np.einsum("ki,kab->iab", covariance_root(covariance), changes)


def coefficient_slopes(equations, residual=None):
    """dC / dtheta [m, p, p] in theta = (theta_1, ..., theta_K, log sigma).

    Without the last where sigma is pinned, or with the parameters of `residual` in its place.
    """
    cross, factors = equations.cross, equations.factors
    S = equations.S
    C, ZVX = equations.solve_s(np.eye(len(S))), cross.blocks(equations.ZVX)
    out, random = [], np.zeros_like(S)
    of_terms = zip(factors, slopes(cross.problem, factors), ZVX, strict=True)
    for k, (L, D, z) in enumerate(of_terms):
        both = np.einsum("jap,jbq->abpq", z, cross.prior.relate(k, z))
        half = np.einsum("mab,abpq->mpq", D @ L.T, both)
        out.extend(half + half.transpose(0, 2, 1))
        random += np.einsum("ab,abpq->pq", L @ L.T, both)
    if residual is not None:
        out.extend(residual)
    elif cross.problem.sigma is None:
        out.append(2 * (equations.XVX - random))
    out = np.reshape(out, (len(out), *S.shape))
    return C @ out @ C
