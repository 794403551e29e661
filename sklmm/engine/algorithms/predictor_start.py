"""Starting values where parameters of the family have linear predictors of their own.

The model in which all rows share those parameters has a start (`engine.algorithms.start`). They
begin as constant there, and their effects with a spread that is small on their scales, logarithms
and logits: what rows tell of them is little, and a joint mode of all may be at infinity.
"""

from dataclasses import replace

import numpy as np

from sklmm.engine.algorithms.start import RELATIVE_SD, start_theta
from sklmm.engine.latent.mode import Latent
from sklmm.engine.theta.space import Theta

#: Furthest from 0 that a parameter begins, by its constraint: beyond it rows hardly tell.
FURTHEST = {"unit": 3.0, "positive": 8.0, "real": np.inf}


def _of_mean(problem, rows):
    """The problem of the mean's predictor alone, which comes first, and has these rows."""
    n = sum(problem.predictor(k) == 0 for k in range(len(problem.blocks)))
    others = problem.basis[:, rows.p :].any(axis=1)
    own = slice(int(np.argmax(others)) if others.any() else len(others))
    if (priors := problem.priors) is not None:
        priors = priors._replace(coef=priors.coef[own], sds=priors.sds[:n])
    return replace(
        problem,
        rows=rows,
        blocks=problem.blocks[:n],
        basis=problem.basis[own, : rows.p],
        z_bases=problem.z_bases[:n],
        priors=priors,
        d=1,
        predictors=(),
    )


def start_of_predictors(latent, rounds):
    """(Theta, mode [P]), as `start_theta` has them."""
    problem, like, rows = latent.full, latent.like, latent.rows
    mean = _of_mean(problem, rows.alone(0))
    shared = {**latent.space.parameters, **dict(like.predicted)}
    own = Latent(mean, like.of_means, shared, direct=latent.direct, observed=latent.observed)
    theta, x = start_theta(own, rounds)
    first = len(theta.raw) - len(like.predicted)
    beta, effects = own.layout.split(x[:, None])
    betas = [beta[:, 0] if problem.reml else theta.beta]
    for c, ((_, kind), raw) in enumerate(zip(like.predicted, theta.raw[first:], strict=True), 1):
        predictor, most = rows.alone(c), FURTHEST[kind]
        gap = np.clip(raw, -most, most) - (0.0 if predictor.offset is None else predictor.offset)
        # Least squares: exact where there is an intercept.
        betas.append(predictor.X.T @ (predictor.weights * gap) / problem.n)
    rest = problem.blocks[len(mean.blocks) :]
    factors = [b.covariance.nearest(np.eye(b.r) * RELATIVE_SD / np.sqrt(b.r)) for b in rest]
    beta = np.concatenate(betas)
    effects = [*effects, *(np.zeros((b.n_levels, b.r, 1)) for b in rest)]
    inner = beta[:, None] if problem.reml else np.zeros((0, 1))
    mode = latent.layout.join(inner, effects)[:, 0]
    theta = Theta(beta[: latent.space.p], (*theta.factors, *factors), theta.raw[:first])
    return theta, mode
