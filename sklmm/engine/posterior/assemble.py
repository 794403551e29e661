"""From the loop's last step to an `EMResult`: the table's units, standard errors, the verdict."""

import numpy as np

from sklmm.engine.algorithms.m_step import MIN_SIGMA, is_singular
from sklmm.result import EMResult, Status

MAX_TRACE = 512
MAX_TRACE_NUMBERS = 4_000_000
#: Share of a variance that a negative part of theta's covariance may take away.
INDEFINITE = 0.01


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
        self.draws.append(
            tuple(self.problem.effects(k, b).astype(np.float32) for k, b in enumerate(draw))
        )
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


def perfect(problem, parameters):
    """y is in the span of the fixed part: coefficients by least squares, every variance 0."""
    beta = problem.rows.fixed()[1] / problem.n
    names = sum(b.r * (b.r + 1) // 2 for b in problem.blocks) + len(parameters)
    n_columns = problem.basis.shape[0]
    natural_cov = np.zeros((n_columns + names, n_columns + names))
    # A variance of 0 is on its bound, where it has no standard error.
    free = [np.full(b.r * (b.r + 1) // 2, b.sd is None) for b in problem.blocks]
    free.append([isinstance(kind, str) for kind in parameters.values()])
    unknown = np.flatnonzero(np.concatenate([problem.dropped, *free]))
    natural_cov[unknown] = natural_cov[:, unknown] = np.nan
    zeros = [np.zeros((b.n_levels, b.r)) for b in problem.blocks]
    return EMResult(
        coef=problem.coef(beta),
        coef_cov=natural_cov[:n_columns, :n_columns],
        covariances=tuple(
            problem.covariance(k, np.eye(b.r) * (b.sd or 0.0)) for k, b in enumerate(problem.blocks)
        ),
        # A Student t without scale is a point, whatever its df.
        family={
            name: 0.0 if name == "sigma" else 3.0 if isinstance(kind, str) else kind
            for name, kind in parameters.items()
        },
        effects=tuple(zeros),
        effects_cov=tuple(np.zeros((b.n_levels, b.r, b.r)) for b in problem.blocks),
        coef_root=np.zeros((n_columns, 1)),
        effects_root=tuple(z[:, :, None].astype(np.float32) for z in zeros),
        natural_cov=natural_cov,
        mc_error=np.zeros(n_columns + names),
        loglik=np.inf,
        n_obs=problem.n,
        rank=problem.rank,
        n_variance_parameters=names,
        reml=problem.reml,
        history=[],
        status=Status.PERFECT,
        moving=None,
        trace=None,
        **_sparse_part(problem, None),
    )


def collect(algorithm, last, posterior, history, trace, undetermined, stopped=False):
    """EMResult in the table's units; `stopped` before the algorithm was done.

    `undetermined` [n_natural] are `identify`'s.
    """
    space, theta = algorithm.space, last.estimate
    problem = space.problem
    p, q = problem.p, len(problem.basis)
    jacobian = np.zeros((q + len(space.natural(theta)), p + space.size - space.p))
    jacobian[:q, :p] = problem.basis * problem.y_scale
    jacobian[q:, p:] = space.jacobian(theta)[:, space.p :]
    cov = _joint(last.covariance, jacobian.shape[1])
    if posterior.beta_cov is not None:
        cov[:p, :p] = posterior.beta_cov
    natural_cov = jacobian @ cov @ jacobian.T
    unknown = undetermined | _without_error(space, theta, last.covariance)
    unknown = np.concatenate([problem.dropped, unknown])
    untold = indefinite(last.covariance, jacobian) & ~unknown
    unknown = np.flatnonzero(unknown | untold)
    natural_cov[unknown] = natural_cov[:, unknown] = np.nan
    # A noisy algorithm stopped before it could estimate its error does not know it.
    mc_error = np.full(len(jacobian), np.nan if algorithm.stochastic else 0.0)
    if last.spread is not None and np.isfinite(last.spread).all():
        spread = jacobian @ _joint(last.spread, jacobian.shape[1]) @ jacobian.T
        mc_error = np.sqrt(np.maximum(np.diag(spread), 0.0))
    status, moving = _verdict(algorithm, last, history, natural_cov, mc_error)
    if moving is not None and undetermined.any():
        # It has no standard error to compare its steps with.
        moving = q + int(np.argmax(undetermined))
    status = Status.STOPPED if stopped else status
    chains = None
    if posterior.chains is not None:
        estimate = np.concatenate([problem.coef(posterior.beta), space.natural(theta)])
        centre = np.concatenate([posterior.beta, space.join(theta)[space.p :]])
        chains = (estimate + (posterior.chains - centre) @ jacobian.T).astype(np.float32)
    root = posterior.root
    roots, first = [], p
    for k, b in enumerate(problem.blocks):
        part = root[first : first + b.n_levels * b.r].reshape(b.n_levels, b.r, -1)
        # A slope's far origin makes an intercept's deviations large beside those of a row.
        roots.append(problem.effects(k, part).astype(np.float32 if b.r == 1 else np.float64))
        first += b.n_levels * b.r
    return EMResult(
        coef=problem.coef(posterior.beta),
        coef_cov=natural_cov[:q, :q],
        covariances=tuple(problem.covariance(k, L) for k, L in enumerate(theta.factors)),
        family=space.family(theta.raw),
        effects=tuple(problem.effects(k, e) for k, e in enumerate(posterior.effects)),
        effects_cov=tuple(
            problem.effects_covariance(k, V) for k, V in enumerate(posterior.effects_cov)
        ),
        coef_root=problem.coef_deviation(root[:p].T).T,
        effects_root=tuple(roots),
        natural_cov=natural_cov,
        mc_error=mc_error,
        loglik=posterior.loglik,
        loglik_error=posterior.loglik_error,
        n_obs=problem.n,
        rank=problem.rank,
        n_variance_parameters=int(space.free[space.p :].sum()),
        reml=problem.reml,
        history=history,
        status=status,
        moving=moving,
        trace=trace.collect(),
        chains=chains,
        undetermined=undetermined,
        indefinite=untold,
        unsolved=posterior.unsolved,
        **_sparse_part(problem, posterior.columns),
    )


def _sparse_part(problem, posterior):
    """The fields of the sparse columns; without a posterior least squares' coefficients."""
    columns = problem.columns
    if columns is None:
        return {}
    if posterior is None:
        posterior = columns.start, np.zeros(columns.k), np.zeros((columns.k, 1))
    coef, std, root = (columns.natural(part, problem.y_scale) for part in posterior)
    if not problem.perfect:
        std[~columns.varies] = np.nan
    return {"sparse_coef": coef, "sparse_std": std, "sparse_root": root.astype(np.float32)}


def _joint(cov, size):
    """[size, size] from a covariance of all of (beta, theta) or of its last entries."""
    out = np.zeros((size, size))
    if cov is not None:
        first = size - len(cov)
        out[first:, first:] = cov
    return out


def indefinite(cov, jacobian):
    """Rows of a Jacobian [k, m] whose variance an indefinite covariance of theta does not tell.

    It is the inverse of an information away from a maximum, and belongs to the last entries of the
    Jacobian's columns.
    """
    if cov is None or not len(cov):
        return np.zeros(len(jacobian), bool)
    scale = np.sqrt(np.abs(np.diag(cov)))
    scale = np.where(scale > 0, scale, 1.0)
    values, vectors = np.linalg.eigh(cov / np.outer(scale, scale))
    parts = (jacobian[:, -len(cov) :] @ (scale[:, None] * vectors)) ** 2
    return parts @ np.maximum(-values, 0.0) > INDEFINITE * (parts @ np.maximum(values, 0.0))


def _verdict(algorithm, last, history, natural_cov, mc_error):
    """How the fit ended, and which estimate moves most if it did not converge."""
    if last.done:
        if _singular(algorithm.space, last.estimate).any():
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
    std = np.sqrt(np.maximum(np.diag(natural_cov), 0.0))
    with np.errstate(invalid="ignore"):
        relative = np.where(std > 0, change / np.where(std > 0, std, 1.0), 0.0)
    if not (std > 0).any():
        relative = change
    return Status.MAX_ITER, int(np.argmax(relative))


def _singular(space, theta):
    """Which of `natural` belong to a covariance on its boundary, or are a sigma of 0."""
    unit = space.problem.sigma_scale
    sigma = space.family(theta.raw).get("sigma", unit) / unit
    blocks = [
        np.full(b.r * (b.r + 1) // 2, b.sd is None and is_singular(L, sigma))
        for b, L in zip(space.problem.blocks, theta.factors, strict=True)
    ]
    family = np.zeros(len(space.parameters), bool)
    family[:] = sigma <= MIN_SIGMA
    return np.concatenate([*blocks, family])


def _without_error(space, theta, covariance):
    """Entries of `natural` without a standard error: singular blocks; all after Adam."""
    singular = _singular(space, theta)
    if covariance is None:
        return np.ones_like(singular)
    singular[len(singular) - len(space.parameters) :] = False
    return singular
