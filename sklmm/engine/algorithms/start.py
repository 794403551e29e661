"""Starting values: a model of the mean alone, the joint mode of coefficients and effects, EM.

Or, for `warm_start`, the result of a fit of the same shape.
"""

import numpy as np
from scipy.optimize import minimize
from scipy.special import logit

from sklmm.design.indicators import quadratic
from sklmm.engine.latent.mode import CENTRE_TOL, Latent
from sklmm.engine.likelihood.likelihood import evaluation
from sklmm.engine.linalg.blocks import invert
from sklmm.engine.theta.space import RAISED_SD, Theta, residual_sd
from sklmm.families.constraints import CONSTRAINTS

#: SD of the effects over that of the working response: their spread is found by EM.
RELATIVE_SD = 0.5
MAX_ROWS = 20_000
#: Rows that tell the parameters' EM steps, of which the first Newton step is a better one.
FEW_ROWS = 4096
#: Rounds of EM at most, the change of logarithms that is too small for another, and the most that
#: a round changes a parameter's.
EM_ROUNDS = 8
NEAR = 0.2
MOST_CHANGE = 3.0
#: Log-likelihood that such a change is to gain.
LEAST_GAIN = 0.01
#: A predictor beyond it is no logarithm or logit, but grows with y, and is its own unit.
LARGE = 50.0
#: Tables with the same likelihood have the same start to the last digits.
EXACTLY = {"method": "L-BFGS-B", "options": {"ftol": 0, "gtol": 1e-12}}


def start_theta(latent, rounds=EM_ROUNDS):
    """(Theta, mode [P]) to start from: SDs and parameters after at most `rounds` of EM."""
    problem, like, space = latent.full, latent.like, latent.space
    if like.predicted:
        from sklmm.engine.algorithms.predictor_start import start_of_predictors

        return start_of_predictors(latent, rounds)
    constant, raw = _constant(like, problem.rows.sample(MAX_ROWS), len(space.estimated))
    raw = space.clipped(raw)
    weight, beta = problem.rows.constant(evaluation(like), constant, raw)
    working = 1 / np.sqrt(max(weight / (problem.n * problem.d), 1e-12))
    factors = tuple(
        b.covariance.nearest(np.eye(b.r) * (RELATIVE_SD * working / np.sqrt(b.r)))
        for b in problem.blocks
    )
    # Least squares of the constant predictor: exact where there is an intercept.
    beta = beta / problem.n
    if not problem.blocks and not problem.reml:
        # Newton's method needs no start, and a mode at infinity would be one of rounding.
        return Theta(beta, (), raw), np.zeros(0)
    joint = Latent(problem, like, space.parameters, reml=True, direct=latent.direct)
    x = np.zeros(joint.layout.size)
    x[: problem.p] = beta
    theta = Theta(np.zeros(0), factors, raw)
    x, equations = joint.mode(theta, x, CENTRE_TOL)
    for _ in range(rounds):
        before, raw = theta, _parameters(joint, theta, x, equations)
        theta, x = _spread(joint, theta, x, equations)
        theta = theta._replace(raw=raw)
        x, equations = joint.mode(theta, x, CENTRE_TOL)
        if _near(before, theta):
            break
    if problem.reml:
        return theta, x
    return Theta(x[: problem.p], theta.factors, theta.raw), x[problem.p :]


def _near(before, after):
    """Whether a round changed each SD so little that Newton's method does better."""
    sizes = [
        np.log(np.linalg.norm(new, axis=1) / np.linalg.norm(old, axis=1))
        for new, old in zip(after.factors, before.factors, strict=True)
    ]
    return np.abs(np.concatenate([*sizes, after.raw - before.raw])).max(initial=0.0) < NEAR


def _parameters(joint, theta, x, equations):
    """The EM step of the raw parameters: eta is spread about the mode as each level's effects are.

    A precision of the mean alone may be a millionth of what it is given the effects.
    """
    space = joint.space
    if not space.estimated:
        return theta.raw
    rows = joint.rows.sample(FEW_ROWS)
    eta, variance = rows.predictor(joint.coefs([theta], x[:, None])[0]), np.zeros(rows.n_rows)
    of_terms = zip(theta.factors, equations.own_blocks(), rows.refs, rows.z, strict=True)
    for L, H, refs, z in of_terms:
        variance += quadratic(z @ L, invert(H), refs)
    eta = eta + np.sqrt(variance)[:, None] * [1, -1]
    y, w = rows.observations
    w = w / w.sum()

    def loss(raw):
        value, _, of_raw = evaluation(joint.like).slopes(y, w, eta, np.column_stack([raw, raw]))
        return -float((w @ value).mean()), -np.nan_to_num(of_raw.mean(axis=1))

    # Far from 0 the likelihood may know nothing of a parameter: also from where it does.
    near = np.clip(theta.raw, -MOST_CHANGE, MOST_CHANGE)
    starts = [near] if np.array_equal(near, theta.raw) else [near, theta.raw]
    found = [minimize(loss, start, jac=True, bounds=_around(start), **EXACTLY) for start in starts]
    found = min(found, key=lambda one: one.fun)
    gain = (loss(theta.raw)[0] - found.fun) * joint.full.n
    return space.clipped(found.x) if gain > LEAST_GAIN else theta.raw


def _around(raw):
    return [(value - MOST_CHANGE, value + MOST_CHANGE) for value in raw]


def _spread(joint, theta, x, equations):
    """The EM step of the factors, each level's variance being that given all the others; and x.

    A start's SD may be a hundred times too small where the rows of a level tell much: the effects
    hardly know of it, and one step finds their spread.
    """
    layout, blocks = joint.layout, joint.full.blocks
    beta, parts = layout.split(x[:, None])
    priors = layout.split(np.concatenate([beta, joint.prior.times(x[layout.p :, None], layout.p)]))
    factors, effects = [], []
    of_terms = zip(theta.factors, parts, priors[1], equations.own_blocks(), blocks, strict=True)
    for k, (L, u, prior, H, block) in enumerate(of_terms):
        u = u[:, :, 0]
        given = invert(H)
        if joint.prior.relates(k):
            given = joint.prior.own(k, len(L)) @ given
        second = (u.T @ prior[:, :, 0] + given.sum(axis=0)) / len(u)
        new = block.covariance.nearest(L @ np.linalg.cholesky(second))
        factors.append(new)
        effects.append(np.linalg.solve(new, L @ u.T).T[:, :, None])
    return theta._replace(factors=tuple(factors)), layout.join(beta, effects)[:, 0]


def _constant(like, rows, n_raw):
    """Linear predictors [d] and raw parameters of independent, identically distributed y."""
    (y, w), d = rows.observations, rows.d
    offset, total = rows.offset, w.sum()
    if offset is None and y.ndim > 1:
        offset = np.zeros(len(y) * d)
    elif offset is None:
        # Equal observations are one.
        y, same = np.unique(y, return_inverse=True)
        w, offset = np.bincount(same, w), np.zeros(len(y) * d)
    known, share = offset[:, None], w / total

    def loss(values):
        eta = known + np.tile(values[:d, None], [len(y), 1])
        rows, by_eta, of_raw = evaluation(like).slopes(y, share, eta, values[d:, None])
        value = -float(share @ rows[:, 0])
        if not np.isfinite(value):
            return 1e10, np.zeros_like(values)
        by_constant = by_eta.reshape(-1, d).sum(axis=0)
        return value, -np.nan_to_num(np.concatenate([by_constant, of_raw[:, 0]]))

    mean = float(w @ (y if y.ndim == 1 else y[:, 0]) / total)
    guesses = {0.0, mean, np.log(mean) if mean > 0 else 0.0}
    guesses |= {np.sqrt(mean)} if mean > LARGE else set()
    guesses |= {logit(mean)} if 0 < mean < 1 else set()
    starts = [np.concatenate([np.full(d, g), np.zeros(n_raw)]) for g in sorted(guesses)]
    best = min(starts, key=lambda s: loss(s)[0])
    unit = np.where(np.abs(best) > LARGE, np.abs(best), 1.0)

    def loss_in_units(values):
        value, slope = loss(unit * values)
        return value, unit * slope

    found = minimize(loss_in_units, best / unit, jac=True, **EXACTLY)
    values = unit * found.x if np.isfinite(found.fun) else best
    # A t's degrees of freedom, say: of the mean alone any large number is as good as another.
    nearer = np.concatenate([values[:d], np.clip(values[d:], -MOST_CHANGE, MOST_CHANGE)])
    values = values if (loss(nearer)[0] - loss(values)[0]) * total > LEAST_GAIN else nearer
    return values[:d], values[d:]


def warm_gaussian(problem, start):
    """Theta from a previous fit's result, off the boundary, or None; pins stay pinned."""
    if not start.sigma > 0 or len(start.covariances) != len(problem.blocks):
        return None
    sigma = start.sigma / problem.sigma_scale if problem.sigma is None else problem.sigma
    raw = np.array([np.log(sigma)] if problem.sigma is None else [])
    return Theta(np.zeros(0), _factors(problem, start, sigma), raw)


def warm_by_row(problem, parameters, start):
    """The same where the log residual SD is linear in columns: of a fit with the same ones."""
    if list(start.family) != list(parameters) or len(start.covariances) != len(problem.blocks):
        return None
    (model,) = problem.models
    raw = model.standard([start.family[name] for name in model.names])
    if not np.isfinite(raw).all():
        return None
    theta = Theta(np.zeros(0), (), raw)
    return theta._replace(factors=_factors(problem, start, residual_sd(problem, theta)))


def warm_theta(latent, start):
    """(Theta, mode) from a previous fit of the same shape, or None."""
    problem, space = latent.full, latent.space
    n_terms = len(problem.blocks if problem.joint is None else problem.joint.terms)
    if len(start.covariances) != n_terms:
        return None
    if list(start.family) != list(space.parameters) or len(start.coef) != len(problem.basis):
        return None
    family = {name: value / problem.unit_of(name) for name, value in start.family.items()}
    if not all(np.isfinite(v) for v in family.values()) or family.get("sigma") == 0:
        return None
    for model in problem.models:
        own = model.standard([family[name] for name in model.names])
        family.update(zip(model.names, own, strict=True))
    raw = [CONSTRAINTS[space.parameters[n]].unconstrain(family[n]) for n in space.estimated]
    coef = start.coef.copy()
    if problem.y_centre:
        coef[0] -= problem.y_centre
    beta = np.linalg.lstsq(problem.basis, coef / problem.y_scale, rcond=None)[0]
    factors = _factors(problem, start, family.get("sigma", 1.0))
    x = np.zeros(latent.layout.size)
    x[: latent.problem.p] = beta[: latent.problem.p]
    return Theta(beta[: space.p], factors, np.array(raw, float)), x


def _factors(problem, start, sigma):
    out, covariances = [], start.covariances
    if problem.joint is not None:
        covariances = problem.joint.together(covariances)
    for k, (block, covariance) in enumerate(zip(problem.blocks, covariances, strict=True)):
        if covariance.shape != (block.r, block.r):
            out.append(block.covariance.nearest(np.eye(block.r)))
            continue
        back = np.linalg.inv(problem.y_scale / block.size * problem.z_bases[k])
        values, vectors = np.linalg.eigh(back @ covariance @ back.T)
        values = np.maximum(values, (RAISED_SD * sigma) ** 2)
        root = np.linalg.cholesky((vectors * values) @ vectors.T)
        out.append(block.covariance.nearest(root))
    return tuple(out)
