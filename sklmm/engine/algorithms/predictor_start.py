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


def start_of_predictors(latent, rounds):
    """(Theta, mode [P]), as `start_theta` has them."""
    problem, like, rows = latent.full, latent.like, latent.rows
    mean, terms = problem.joint.mean, problem.joint.terms
    if (priors := problem.priors) is not None:
        own = priors.coef[: len(mean.basis)], priors.sds[: len(mean.blocks)]
        mean = replace(mean, priors=priors._replace(coef=own[0], sds=own[1]))
    mean = replace(mean, rows=mean.rows.ordered(), reml=problem.reml)
    shared = {**latent.space.parameters, **dict(like.predicted)}
    own = Latent(mean, like.of_means, shared, direct=latent.direct, observed=latent.observed)
    theta, x = start_theta(own, rounds)
    first = len(theta.raw) - len(like.predicted)
    beta, found = own.layout.split(x[:, None])
    betas = [beta[:, 0] if problem.reml else theta.beta]
    for c, ((_, kind), raw) in enumerate(zip(like.predicted, theta.raw[first:], strict=True), 1):
        betas.append(rows.least_squares(c, np.clip(raw, -FURTHEST[kind], FURTHEST[kind])))
    roots = [np.eye(b.r) * RELATIVE_SD for b in problem.blocks]
    effects = [np.zeros((b.n_levels, b.r, 1)) for b in problem.blocks]
    for term, L, u in zip(terms, theta.factors, found, strict=False):
        roots[term.block][term.columns, term.columns] = L
        effects[term.block][:, term.columns] = u
    factors = tuple(b.covariance.nearest(L) for b, L in zip(problem.blocks, roots, strict=True))
    beta = np.concatenate(betas)
    inner = beta[:, None] if problem.reml else np.zeros((0, 1))
    mode = latent.layout.join(inner, effects)[:, 0]
    return Theta(beta[: latent.space.p], factors, theta.raw[:first]), mode
