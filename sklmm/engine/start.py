"""Starting values: a model of the mean alone, then the joint mode of coefficients and effects."""

import numpy as np
from scipy.optimize import minimize

from sklmm.engine.cross import invert
from sklmm.engine.graphs import graphs
from sklmm.engine.latent import CENTRE_TOL, Latent
from sklmm.engine.theta import MAX_RAW, Theta
from sklmm.engine.unknowns import precision_blocks

#: SD of the effects over that of the working response: their spread is found by EM.
RELATIVE_SD = 0.5
MAX_ROWS = 20_000


def start_theta(latent, rounds=0):
    """(Theta, mode [P]) to start from; the SDs after `rounds` of EM at the joint mode."""
    problem, like, space = latent.full, latent.like, latent.space
    y, w = latent.observations()
    offset = np.zeros(len(y)) if problem.offset is None else problem.offset
    constant, raw = _constant(like, y, w, offset, len(space.estimated))
    eta = (np.tile(constant, len(y)) + np.repeat(offset, len(constant)))[:, None]
    W = graphs(like).curvature(y, eta, raw[:, None])[0][:, 0]
    weight = np.repeat(w, like.n_predictors)
    working = 1 / np.sqrt(max(weight @ W / weight.sum(), 1e-12))
    factors = tuple(
        np.eye(b.r) * (RELATIVE_SD * working / np.sqrt(b.r) if b.sd is None else b.sd)
        for b in problem.blocks
    )
    # Least squares of the constant predictor: exact where there is an intercept.
    rows = np.repeat(w, like.n_predictors)
    target = np.tile(constant, len(y))
    beta = problem.X.T @ (rows * target) / problem.n
    if not problem.blocks and not problem.reml:
        # Newton's method needs no start, and a mode at infinity would be one of rounding.
        return Theta(beta, (), raw), np.zeros(0)
    joint = Latent(problem, like, space.parameters, reml=True, direct=latent.direct)
    x = np.zeros(joint.layout.size)
    x[: problem.p] = beta
    theta = Theta(np.zeros(0), factors, raw)
    x, equations = joint.mode(theta, x, CENTRE_TOL)
    for _ in range(rounds):
        theta, x = _spread(theta, x, equations)
        x, equations = joint.mode(theta, x, CENTRE_TOL)
    if problem.reml:
        return theta, x
    return Theta(x[: problem.p], theta.factors, raw), x[problem.p :]


def _spread(theta, x, equations):
    """The EM step of the factors, each level's variance being that given all the others; and x.

    A start's SD may be a hundred times too small where the rows of a level tell much: the effects
    hardly know of it, and one step finds their spread.
    """
    layout, problem = equations.layout, equations.problem
    beta, parts = layout.split(x[:, None])
    precision = precision_blocks(problem, equations.params)
    factors, effects = [], []
    for L, u, H, block in zip(theta.factors, parts, precision, problem.blocks, strict=True):
        new = L
        if block.sd is None:
            u = u[:, :, 0]
            second = (u.T @ u + invert(H).sum(axis=0)) / len(u)
            new = L @ np.linalg.cholesky(second)
            u = np.linalg.solve(new, L @ u.T).T[:, :, None]
        factors.append(new)
        effects.append(u)
    return theta._replace(factors=tuple(factors)), layout.join(beta, effects)[:, 0]


def _constant(like, y, w, offset, n_raw):
    """Linear predictors [d] and raw parameters of independent, identically distributed y."""
    if len(y) > MAX_ROWS:
        rows = np.linspace(0, len(y) - 1, MAX_ROWS).astype(int)
        y, w, offset = y[rows], w[rows], offset[rows]
    d, total = like.n_predictors, w.sum()
    known, share = np.repeat(offset, d)[:, None], w / total

    def loss(values):
        eta = known + np.tile(values[:d, None], [len(y), 1])
        rows, by_eta, of_raw = graphs(like).slopes(y, share, eta, values[d:, None])
        value = -float(share @ rows[:, 0])
        if not np.isfinite(value):
            return 1e10, np.zeros_like(values)
        by_constant = by_eta.reshape(-1, d).sum(axis=0)
        return value, -np.nan_to_num(np.concatenate([by_constant, of_raw[:, 0]]))

    mean = float(w @ y / total)
    guesses = {0.0, mean, np.log(mean) if mean > 0 else 0.0}
    starts = [np.concatenate([np.full(d, g), np.zeros(n_raw)]) for g in sorted(guesses)]
    best = min(starts, key=lambda s: loss(s)[0])
    # To the last digit, so that tables with the same likelihood have the same start.
    found = minimize(loss, best, jac=True, method="L-BFGS-B", options={"ftol": 0, "gtol": 1e-12})
    values = found.x if np.isfinite(found.fun) else best
    return values[:d], np.clip(values[d:], -MAX_RAW, MAX_RAW)
