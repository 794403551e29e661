r"""From the loop's last step to an `EMResult`: the table's units, standard errors, the verdict.

Some SDs and correlations the design may leave undetermined, whatever the response. V is linear in
the covariances and in sigma^2, so the data tell their parameters only where the changes D_i of V
are linearly independent: where the matrix of tr D_i D_k is regular. That is asked of terms over one
partition of the rows. There V is block diagonal, and with G_j = Z_j^T w Z_j of level j and the
changes S_i of a covariance

    tr D_i D_k = sum_j tr G_j S_i G_j S_k.

A column of slopes that is constant within the levels is what usually makes the D_i dependent. Of
terms whose levels are coupled nothing is asked: their V is another.
Several linear predictors share no row; where they have the same Z each, what holds of one holds of
all.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from sklmm.engine.linalg.blocks import eigen
from sklmm.engine.linalg.chains import CovarianceNoise, batch_error
from sklmm.engine.linalg.repeated import Repeated
from sklmm.engine.posterior.degrees import Degrees
from sklmm.engine.theta.space import MIN_SIGMA, SINGULAR_SD, reported, residual_vanishes
from sklmm.result import EMResult, LogLikelihood, Status, degrees_of_freedom, own_sds

MAX_TRACE = 512
MAX_TRACE_NUMBERS = 4_000_000
#: Share of a variance that a negative part of theta's covariance may take away.
INDEFINITE = 0.01
#: Eigenvalue of the D_i's correlations that is 0, and share of an entry in a null vector that is.
NULL = 1e-8
SHARE = 1e-5


class Trace:
    """One chain's effects by iteration, thinned so that it stays small."""

    def __init__(self, problem):
        self.problem = problem
        self.most = min(MAX_TRACE, max(MAX_TRACE_NUMBERS // max(problem.n_effects, 1), 1))
        self.every, self.iterations, self.draws = 1, [], []

    def add(self, iteration, draw):
        """Keep a draw in standard units, if it is one to keep."""
        if draw is None or iteration % self.every:
            return
        self.iterations.append(iteration)
        effects = [self.problem.effects(k, b).astype(np.float32) for k, b in enumerate(draw)]
        joint = self.problem.joint
        self.draws.append(tuple(effects if joint is None else joint.effects(effects)))
        if len(self.draws) > self.most:
            self.every *= 2
            keep = [i % self.every == 0 for i in self.iterations]
            self.iterations = [i for i, k in zip(self.iterations, keep, strict=True) if k]
            self.draws = [d for d, k in zip(self.draws, keep, strict=True) if k]

    def collect(self):
        """(iterations [t], one array [t, n_levels, r] a block), or None without draws."""
        if not self.draws:
            return None
        return np.array(self.iterations), tuple(
            np.stack(parts) for parts in zip(*self.draws, strict=True)
        )


class Noise(NamedTuple):
    """What draws tell of the Monte Carlo errors of what is no estimate of a parameter.

    theta, of theta's covariance; beta, each iteration's covariance [n, p, p] of the coefficients
    that REML integrates out, or None; effects and variances, the Monte Carlo errors of the effects'
    means and variances, tuples of [n_levels, r] in the table's units.
    """

    theta: CovarianceNoise
    beta: np.ndarray | None
    effects: tuple
    variances: tuple

    def by_term(self, joint):
        """The same by the terms of a `joint` problem."""
        if joint is None:
            return self
        effects, variances = (tuple(joint.effects(own)) for own in (self.effects, self.variances))
        return self._replace(effects=effects, variances=variances)

    def of_standard_errors(self, jacobian, q):
        """Those of the standard errors [q + n_natural] of (coef, natural)."""
        first = jacobian.shape[1] - len(self.theta.covariance)
        out = self.theta.errors(jacobian[:, first:])
        if self.beta is not None:
            variances = np.einsum(
                "qi,nij,qj->nq", jacobian[:q, :first], self.beta, jacobian[:q, :first]
            )
            std = np.sqrt(variances.mean(axis=0))
            out[:q] = 0.5 * batch_error(variances) / np.where(std > 0, std, 1.0)
        return out

    def of_effects(self, covariances):
        """Those of the effects' SDs, from their covariances, tuples of [n_levels, r]."""
        pairs = zip(self.variances, own_sds(covariances), strict=True)
        return tuple(0.5 * error / np.where(sd > 0, sd, 1.0) for error, sd in pairs)


class Posterior(NamedTuple):
    """The posterior at the estimate, standard units.

    beta [p]; effects, a tuple of [n_levels, r]; effects_cov, each level's own covariance given
    beta, a tuple of [n_levels, r, r]; beta_cov [p, p]; deviations of (beta, effects) about their
    means: root [p + Q, n_columns] with root @ root.T (an estimate of) the posterior covariance;
    loglik or None, and its Monte Carlo standard error, or else `estimate`, which tells both when it
    is called with what the former lacks; unsolved, the largest relative residual of a
    solve that ended before its tolerance, or 0; rough, the same of draws; columns, mean [k],
    std [k] and root [k, n_columns] of the sparse columns' coefficients, or None; chains
    [C, n, p + m], each chain's estimates of (beta, theta) by iteration, or None; `degrees`, what is
    known of the coefficients' covariance, or None; noise, a `Noise` of draws, or None; log_prior,
    what the prior of coefficients that are no part of theta adds to the log-likelihood.
    """

    beta: np.ndarray
    effects: tuple
    effects_cov: tuple
    beta_cov: np.ndarray
    root: np.ndarray
    loglik: float | None
    columns: tuple | None = None
    loglik_error: float = 0.0
    estimate: Callable | None = None
    unsolved: float = 0.0
    rough: float = 0.0
    chains: np.ndarray | None = None
    degrees: Degrees | None = None
    noise: Noise | None = None
    log_prior: float = 0.0


def perfect(problem, parameters):
    """y is in the span of the fixed part: coefficients by least squares, every variance 0."""
    covariances = [b.covariance for b in problem.blocks]
    q, columns = len(problem.basis), problem.columns
    factors = [c.nearest(np.zeros((c.r, c.r))) for c in covariances]
    # A Student t without scale is a point, whatever its df.
    family = {
        name: 0.0 if name == "sigma" else 3.0 if isinstance(kind, str) else kind
        for name, kind in parameters.items()
    }
    pairs = enumerate(zip(covariances, factors, strict=True))
    natural = [
        *(reported(problem.covariance(k, L), c.reported) for k, (c, L) in pairs),
        [*family.values()],
    ]
    natural = np.concatenate(natural).astype(float)
    names = len(natural)
    natural_cov = np.zeros((q + names, q + names))
    # A variance of 0 is on its bound, where it has no standard error.
    free = [c.n_params > 0 for c in covariances for _ in c.reported]
    free += [isinstance(kind, str) for kind in parameters.values()]
    unknown = np.flatnonzero(np.concatenate([problem.dropped, free]))
    natural_cov[unknown] = natural_cov[:, unknown] = np.nan
    posterior = Posterior(
        beta=problem.rows.fixed()[1] / problem.n,
        effects=tuple(np.zeros((b.n_levels, b.r)) for b in problem.blocks),
        effects_cov=tuple(np.zeros((b.n_levels, b.r, b.r)) for b in problem.blocks),
        beta_cov=None,
        root=np.zeros((problem.p + problem.n_effects, 1)),
        loglik=np.inf,
        columns=columns and (columns.start, np.zeros(columns.k), np.zeros((columns.k, 1))),
    )
    return EMResult(
        **_in_table_units(problem, factors, posterior),
        natural=natural,
        family=family,
        coef_cov=natural_cov[:q, :q],
        natural_cov=natural_cov,
        mc_error=np.zeros(q + names),
        std_mc_error=np.zeros(q + names),
        n_variance_parameters=names,
        history=[],
        status=Status.PERFECT,
        moving=None,
        trace=None,
    )


def assemble(
    algorithm, last, posterior, history, trace, unidentified, *, stopped=False, log_constant=0.0
):
    """EMResult of a fit that ends at the iteration `last`, `stopped` before it was done.

    `unidentified` [n_natural] are those of `undetermined`; the posterior's log-likelihood lacks
    `log_constant`.
    """
    space, theta = algorithm.space, last.estimate
    problem = space.problem
    p, q = problem.p, len(problem.basis)
    natural, singular = space.natural(theta), _singular(space, theta)
    if hasattr(algorithm, "vanished"):
        # Of a residual SD by row.
        lost = np.zeros((2, len(natural)), bool)
        first = len(natural) - len(space.parameters)
        lost[:, first:] = algorithm.vanished(theta), algorithm.arbitrary()
        singular, unidentified = singular | lost[0], unidentified | lost[1]
    prior = space.log_prior(theta)
    jacobian = np.zeros((q + len(natural), p + space.size - space.p))
    jacobian[:q, :p] = problem.basis * problem.y_scale
    jacobian[q:, p:] = space.jacobian(theta)[:, space.p :]
    cov = np.zeros([jacobian.shape[1]] * 2) if last.covariance is None else last.covariance.copy()
    if posterior.beta_cov is not None:
        cov[:p, :p] = posterior.beta_cov
    natural_cov = jacobian @ cov @ jacobian.T
    coef_cov, degrees = natural_cov[:q, :q].copy(), posterior.degrees
    if degrees is not None and degrees.added is not None:
        natural_cov[:q, :q] += jacobian[:q, :p] @ degrees.added @ jacobian[:q, :p].T
    unknown = unidentified | _without_error(space, singular, last.covariance)
    if hasattr(algorithm, "vanished"):
        unknown |= lost[0]
    # What the information says of sigma there is rounding.
    unknown[-1:] |= residual_vanishes(space, theta)
    unknown = np.concatenate([problem.dropped, unknown])
    untold = indefinite(last.covariance, jacobian) & ~unknown
    unknown = np.flatnonzero(unknown | untold)
    natural_cov[unknown] = natural_cov[:, unknown] = np.nan
    coef_cov[np.isnan(natural_cov[:q, :q])] = np.nan
    # A noisy algorithm stopped before it could estimate its error does not know it.
    mc_error = np.full(len(jacobian), np.nan if algorithm.stochastic else 0.0)
    if last.spread is not None and np.isfinite(last.spread).all():
        spread = jacobian @ last.spread @ jacobian.T
        mc_error = np.sqrt(np.maximum(np.diag(spread), 0.0))
    noise, unknown = posterior.noise, algorithm.stochastic or last.spread is not None
    std_error = np.full(len(jacobian), np.nan if unknown else 0.0)
    if noise is not None:
        std_error = noise.of_standard_errors(jacobian, q)
    status, moving = _verdict(algorithm, last, history, natural_cov, mc_error, singular.any())
    if moving is not None and unidentified.any():
        # It has no standard error to compare its steps with.
        moving = q + int(np.argmax(unidentified))
    shown = _in_table_units(problem, theta.factors, posterior, log_constant)
    if noise is not None:
        noise = noise.by_term(problem.joint)
        shown["effects_mc_error"] = noise.effects
        shown["effects_std_mc_error"] = noise.of_effects(shown["effects_cov"])
    return EMResult(
        **shown,
        natural=natural,
        family=space.family(theta.raw),
        coef_cov=coef_cov,
        natural_cov=natural_cov,
        **_degrees(degrees, coef_cov, jacobian[:q, :p]),
        mc_error=mc_error,
        std_mc_error=std_error,
        n_variance_parameters=space.size - space.p,
        history=history,
        status=Status.STOPPED if stopped else status,
        moving=moving,
        trace=trace.collect(),
        chains=_chains(space, theta, posterior, jacobian),
        undetermined=unidentified,
        indefinite=untold,
        flat=None if last.flat is None else jacobian @ last.flat,
        log_prior=None if prior is None else posterior.log_prior + prior.value,
    )


def _likelihood(posterior, log_constant):
    """`LogLikelihood` of a posterior whose own lacks a constant."""
    if posterior.estimate is not None:
        return LogLikelihood(estimate=partial(posterior.estimate, log_constant))
    if posterior.loglik is None:
        return LogLikelihood()
    return LogLikelihood(posterior.loglik + log_constant, posterior.loglik_error)


def _in_table_units(problem, factors, posterior, log_constant=0.0):
    """The fields of an EMResult that are a posterior's, and the problem's."""
    roots, first = [], problem.p
    for k, b in enumerate(problem.blocks):
        part = posterior.root[first : first + b.n_levels * b.r].reshape(b.n_levels, b.r, -1)
        # A slope's far origin makes an intercept's deviations large beside those of a row.
        roots.append(problem.effects(k, part).astype(np.float32 if b.r == 1 else np.float64))
        first += b.n_levels * b.r
    out = {
        "coef": problem.coef(posterior.beta),
        "coef_root": problem.coef_deviation(posterior.root[: problem.p].T).T,
        "covariances": tuple(problem.covariance(k, L) for k, L in enumerate(factors)),
        "effects": tuple(problem.effects(k, e) for k, e in enumerate(posterior.effects)),
        "effects_cov": tuple(
            np.asarray(problem.effects_covariance(k, V))
            for k, V in enumerate(posterior.effects_cov)
        ),
        "effects_root": tuple(roots),
        "n_obs": problem.n,
        "rank": problem.rank,
        "reml": problem.reml,
        "likelihood": _likelihood(posterior, log_constant),
    }
    out |= {"unsolved": posterior.unsolved, "rough": posterior.rough}
    if (joint := problem.joint) is not None:
        for name in ("covariances", "effects_cov"):
            out[name] = tuple(joint.covariances(out[name]))
        for name in ("effects", "effects_root"):
            out[name] = tuple(joint.effects(out[name]))
    if (columns := problem.columns) is not None:
        coef, std, root = (columns.natural(a, problem.y_scale) for a in posterior.columns)
        if not problem.perfect:
            std[~columns.varies] = np.nan
        out |= {"sparse_coef": coef, "sparse_std": std, "sparse_root": root.astype(np.float32)}
    return out


def _degrees(degrees, covariance, jacobian):
    """The fields of an EMResult that are `Degrees`, in the table's units."""
    if degrees is None:
        return {}
    root = jacobian @ degrees.root @ jacobian.T
    dof = degrees_of_freedom(np.eye(len(jacobian)), np.nan_to_num(covariance), root)
    return {"dof": dof, "dof_rule": degrees.rule, "dof_root": root}


def _chains(space, theta, posterior, jacobian):
    """Each chain's estimates [C, n, q + n_natural] of (coef, natural), or None."""
    if posterior.chains is None:
        return None
    estimate = np.concatenate([space.problem.coef(posterior.beta), space.natural(theta)])
    centre = np.concatenate([posterior.beta, space.join(theta)[space.p :]])
    return (estimate + (posterior.chains - centre) @ jacobian.T).astype(np.float32)


def indefinite(cov, jacobian):
    """Rows of a Jacobian [k, m] whose variance an indefinite covariance [m, m] does not tell.

    It is the inverse of an information away from a maximum.
    """
    if cov is None or not len(cov):
        return np.zeros(len(jacobian), bool)
    scale = np.sqrt(np.abs(cov.diagonal()))
    scale = np.where(scale > 0, scale, 1.0)
    values, vectors = eigen(cov / (scale[:, None] * scale))
    parts = (jacobian @ (scale[:, None] * vectors)) ** 2
    return parts @ np.maximum(-values, 0.0) > INDEFINITE * (parts @ np.maximum(values, 0.0))


def _verdict(algorithm, last, history, natural_cov, mc_error, singular):
    """How the fit ended, and which estimate moves most if it did not converge."""
    if last.done:
        if singular:
            return Status.SINGULAR, None
        exact = last.spread is None
        return (Status.CONVERGED if exact else Status.CONVERGED_MC), None
    now, before = (
        np.concatenate([record["coef"], record["natural"]])
        for record in (history[-1], history[-2 if len(history) > 1 else -1])
    )
    change = np.abs(now - before)
    if algorithm.stochastic and np.isfinite(mc_error).all():
        change = mc_error
    std = np.sqrt(np.maximum(natural_cov.diagonal(), 0.0))
    # One that runs to infinity has no standard error, but digits.
    size = np.where(std > 0, std, np.abs(now))
    relative = np.where(size > 0, change / np.where(size > 0, size, 1.0), 0.0)
    return Status.MAX_ITER, int(np.argmax(relative))


def _singular(space, theta):
    """Which of `natural` belong to a covariance on its boundary, or are a sigma of 0."""
    unit = space.problem.sigma_scale
    sigma = space.family(theta.raw).get("sigma", unit) / unit
    blocks = [
        covariance.at_boundary(L, SINGULAR_SD * sigma)
        for covariance, L in zip(space.covariances, theta.factors, strict=True)
    ]
    family = np.zeros(len(space.parameters), bool)
    family[:] = sigma <= MIN_SIGMA
    blocks = np.concatenate([np.zeros(0, bool), *blocks])
    return np.concatenate([blocks[space.problem.order], family])


def _without_error(space, singular, covariance):
    """Entries of `natural` without a standard error: of `singular` blocks; all after Adam."""
    if covariance is None:
        return np.ones_like(singular)
    out = singular.copy()
    out[len(out) - len(space.parameters) :] = False
    return out


def undetermined(space, factors=None):
    """Which of `natural`'s entries the design leaves undetermined, bool [n_natural].

    By the directions of the parameters in general, or of those that the `factors` leave.
    """
    covariances = space.covariances
    if factors is not None:
        covariances = [c.at(L) for c, L in zip(covariances, factors, strict=True)]
    problem, sigma = space.problem, False
    # Whether V has a sigma^2 which is estimated.
    residual = list(space.parameters) == ["sigma"] and bool(space.estimated)
    d = problem.d if problem.joint is None else 1
    found = [np.zeros((b.r, b.r), bool) for b in problem.blocks[::d]]
    for group in _partitions(problem.rows, [b.coupled for b in problem.blocks], d):
        for null in _null_vectors(problem, [k * d for k in group], covariances, residual):
            sigma |= bool(abs(null[-1, -1]) > SHARE)
            first = 0
            for k in group:
                A = problem.z_bases[k * d]
                part = slice(first, first + len(A))
                size = np.linalg.norm(A, axis=1)
                found[k] |= np.abs(A @ null[part, part] @ A.T) > SHARE * np.outer(size, size)
                first += len(A)
    flags = []
    for b, own in zip(problem.blocks[::d], found, strict=True):
        own = own | np.diag(own)[:, None] | np.diag(own)
        flags += d * [np.array([own[entry] for entry in b.covariance.reported])]
    flags = np.concatenate([np.zeros(0, bool), *flags])[problem.order]
    return np.concatenate([flags, np.full(len(space.parameters), sigma)])


def _partitions(rows, coupled, d):
    """Numbers of the blocks over each partition of the rows, without `coupled` ones."""
    groups = []
    for k in range(len(coupled) // d):
        if coupled[k * d]:
            continue
        for group in groups:
            if rows.same_levels(group[0] * d, k * d):
                group.append(k)
                break
        else:
            groups.append([k])
    return groups


def _null_vectors(problem, group, covariances, residual):
    """Changes of the covariances [R + 1, R + 1], sigma^2's last, that leave V as it is."""
    blocks = [problem.blocks[k] for k in group]
    G, counts = problem.rows.block_of(group), 1.0
    if isinstance(G, Repeated):
        G, counts = G.blocks, G.counts[:, None, None]
    ends = np.cumsum([0, *(b.r for b in blocks)])
    directions = [covariances[k].directions() for k in group]
    m, changes = sum(map(len, directions)), []
    for own, first, last in zip(directions, ends[:-1], ends[1:], strict=True):
        changes.append(np.zeros((len(own), ends[-1], ends[-1])))
        changes[-1][:, first:last, first:last] = own
    changes = np.concatenate(changes)
    moved = G @ changes[:, None]
    gram = np.empty((m + residual, m + residual))
    turned = (counts * moved).transpose(0, 1, 3, 2).reshape(m, G.size)
    gram[:m, :m] = moved.reshape(m, G.size) @ turned.T
    if residual:
        gram[m, :m] = gram[:m, m] = np.einsum("mjaa->m", counts * moved)
        gram[m, m] = problem.n
    scale = np.sqrt(gram.diagonal())
    scale = np.where(scale > 0, scale, 1.0)
    values, vectors = eigen(gram / (scale[:, None] * scale))
    for vector in (vectors[:, values < NULL] / scale[:, None]).T:
        null = np.zeros((ends[-1] + 1, ends[-1] + 1))
        null[:-1, :-1] = sum(x * S for x, S in zip(vector, changes, strict=False))
        null[-1, -1] = vector[-1] if residual else 0.0
        yield null / np.abs(null).max()
