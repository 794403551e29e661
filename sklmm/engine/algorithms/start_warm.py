"""Starting values from the result of a fit of the same shape, for `warm_start`."""

import numpy as np

from sklmm.engine.theta.space import RAISED_SD, Theta
from sklmm.families.base import CONSTRAINTS


def warm_gaussian(problem, start):
    """Theta from a previous fit's result, off the boundary, or None; pins stay pinned."""
    if not start.sigma > 0 or len(start.covariances) != len(problem.blocks):
        return None
    sigma = start.sigma / problem.sigma_scale if problem.sigma is None else problem.sigma
    raw = np.array([np.log(sigma)] if problem.sigma is None else [])
    return Theta(np.zeros(0), _factors(problem, start, sigma), raw)


def warm_theta(latent, start):
    """(Theta, mode) from a previous fit of the same shape, or None."""
    problem, space = latent.full, latent.space
    if len(start.covariances) != len(problem.blocks):
        return None
    if list(start.family) != list(space.parameters) or len(start.coef) != len(problem.basis):
        return None
    family = {**start.family}
    if "sigma" in family:
        family["sigma"] /= problem.y_scale
    if not all(np.isfinite(v) for v in family.values()) or family.get("sigma") == 0:
        return None
    raw = [CONSTRAINTS[space.parameters[n]][1](family[n]) for n in space.estimated]
    coef = start.coef.copy()
    if problem.y_centre:
        coef[0] -= problem.y_centre
    beta = np.linalg.lstsq(problem.basis, coef / problem.y_scale, rcond=None)[0]
    factors = _factors(problem, start, family.get("sigma", 1.0))
    x = np.zeros(latent.layout.size)
    x[: latent.problem.p] = beta[: latent.problem.p]
    return Theta(beta[: space.p], factors, np.array(raw, float)), x


def _factors(problem, start, sigma):
    out = []
    for k, (block, covariance) in enumerate(zip(problem.blocks, start.covariances, strict=True)):
        if covariance.shape != (block.r, block.r):
            out.append(block.covariance.nearest(np.eye(block.r)))
            continue
        back = np.linalg.inv(problem.y_scale * problem.z_bases[k])
        values, vectors = np.linalg.eigh(back @ covariance @ back.T)
        values = np.maximum(values, (RAISED_SD * sigma) ** 2)
        root = np.linalg.cholesky((vectors * values) @ vectors.T)
        out.append(block.covariance.nearest(root))
    return tuple(out)
