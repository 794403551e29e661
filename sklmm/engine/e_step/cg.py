r"""The matrix-free E-step for Gaussian responses: preconditioned conjugate gradients.

With P = V^-1 - V^-1 X (X^T V^-1 X)^-1 X^T V^-1 (V^-1 alone in the traces of ML), every moment is P
applied to something by one solve of the mixed-model equations, P q = w (q - W C^-1 W^T w q / s^2) /
s^2:

- the data: beta, u, c = Z^T P y;
- unit vectors for terms of few levels and Rademacher probes v for the others:
  K_k = sum_j (Z^T P Z)_jj, exact or from v v^T on average 1 (Hutchinson 1990), G_k = (c c^T - K_k)
  / 2;
- the working vectors q of AI-REML (Gilmour, Thompson & Cullis 1995): AI = q^T P q / 2.

The probes are fixed during a fit, so the map is deterministic and Newton's method converges.
"""

from dataclasses import dataclass

import numpy as np

from sklmm.engine.e_step.base import (
    Kernel,
    Moments,
    Posterior,
    joint_loss,
    vech_indices,
)
from sklmm.engine.operator import (
    Border,
    Layout,
    apply_compiled,
    conjugate_gradients,
    from_rows,
    gather_rows,
    invert_blocks,
    noise_right,
    precision_blocks,
    solve,
    split,
    sum_levels,
    tensors,
    to_rows,
)
from sklmm.engine.xla import check_device, compiled, tf

#: Columns of a batch of draws, and the accuracy they and the information need, relative.
DRAWS_AT_ONCE = 16
DRAW_TOL = 1e-4
INFORMATION_TOL = 1e-3


@dataclass
class _State:
    problem: object
    layout: Layout
    border: Border
    data: object
    probes: object
    probe_blocks: list
    warm: dict
    device: str | None


def _working_rows(data, system_, u, c, residual):
    """q [n_rows, m]: the derivative of V in each entry of theta times P y."""
    columns = []
    for k, (L, uk, ck) in enumerate(zip(system_.factors, u, c, strict=True)):
        for a, b in zip(*vech_indices(L.shape[0]), strict=True):
            effect = ck[:, a, None, :] * L[None, :, b, None]
            effect += tf.one_hot(int(a), L.shape[0], dtype=L.dtype)[None, :, None] * uk[:, b, None]
            columns.append(gather_rows(data, k, effect))
    return tf.concat([*columns, 2 * residual], axis=1)


def information(data, system_, u, c, residual, start, tol, max_iter):
    """AI = q^T P q / 2 [m, m], the solution for a warm start, and the iterations."""
    q = _working_rows(data, system_, u, c, residual)
    weighted = q * (data.w * system_.precision)[:, None]
    ones = tf.ones_like(q[0])
    right = from_rows(data, system_, weighted, ones)
    x, iterations = conjugate_gradients(data, system_, right, start, ones, tol, max_iter)
    inside = tf.matmul(weighted, q, transpose_a=True) - tf.matmul(right, x, transpose_a=True)
    return 0.5 * inside, x, iterations


@compiled
def cg_step(data, system_, probes, reml, start, q_start, tol, max_iter):
    """One E-step: the data and the probes in one solve, then the working vectors in another."""
    p = data.X.shape[1]
    _, v = split(system_, p, probes)
    rows = sum(gather_rows(data, k, part) for k, part in enumerate(v))
    rows = tf.concat([data.y[:, None], rows], axis=1)
    mask = tf.concat([tf.ones([1], rows.dtype), reml * tf.ones_like(rows[0, 1:])], axis=0)
    weight = (data.w * system_.precision)[:, None]
    right = from_rows(data, system_, rows * weight, mask)
    x, iterations = conjugate_gradients(data, system_, right, start, mask, tol, max_iter)
    left = rows - to_rows(data, system_, x)
    projected = left * weight
    back = [
        sum_levels(data, k, projected, block.shape[0]) for k, block in enumerate(system_.blocks)
    ]
    traces = tuple(
        tf.einsum("jac,jbc->abc", vk, bk[:, :, 1:]) for vk, bk in zip(v, back, strict=True)
    )
    beta, u = split(system_, p, x[:, :1])
    residual = left[:, :1]
    sse = tf.reduce_sum(data.w[:, None] * residual**2)
    c = [b[:, :, :1] for b in back]
    squares = tuple(tf.einsum("jac,jbc->ab", ck, ck) for ck in c)
    uu = tuple(tf.reduce_sum(part**2) for part in u)
    info, q_x, q_iterations = information(
        data, system_, u, c, residual, q_start, INFORMATION_TOL, max_iter
    )
    return beta[:, 0], sse, squares, uu, traces, info, x, q_x, iterations + q_iterations


class CGKernel(Kernel):
    """Matrix-free conjugate gradients, all right-hand sides in one batch."""

    def __init__(self, n_probes=8, tol=1e-6, max_iter=2000, device=None):
        self.n_probes = n_probes
        self.tol = tol
        self.max_iter = max_iter
        self.device = device

    def init(self, problem, seed):
        """Data on the device, and the probes."""
        device = check_device(self.device)
        layout = Layout(problem)
        rng = np.random.default_rng(seed)
        few = [k in layout.small for k in range(len(problem.blocks))]
        n_units = sum(b.n_levels * b.r for b, f in zip(problem.blocks, few, strict=True) if f)
        probed = [k for k, f in enumerate(few) if not f]
        n_columns = n_units + (self.n_probes if probed else 0)
        parts, column = [], 0
        for b, f in zip(problem.blocks, few, strict=True):
            part = np.zeros((b.n_levels, b.r, n_columns))
            if f:
                size = b.n_levels * b.r
                part.reshape(size, -1)[np.arange(size), column + np.arange(size)] = 1.0
                column += size
            else:
                part[:, :, n_units:] = rng.choice([-1.0, 1.0], (b.n_levels, b.r, self.n_probes))
            parts.append(part)
        with tf.device(device):
            probes = tf.constant(layout.join(np.zeros((problem.p, n_columns)), parts))
            data = tensors(problem)
        return _State(problem, layout, Border(problem, layout), data, probes, probed, {}, device)

    def step(self, params, state, seed):
        """Moments at `params`, each solve started from the previous one's solution."""
        problem = state.problem
        m = sum(b.r * (b.r + 1) // 2 for b in problem.blocks) + 1
        size, n_columns = state.layout.size, state.probes.shape[1] + 1
        with tf.device(state.device):
            start = state.warm.get("x", tf.zeros([size, n_columns], tf.float64))
            q_start = state.warm.get("q", tf.zeros([size, m], tf.float64))
            out = cg_step(
                state.data,
                state.border.system(problem, params),
                state.probes,
                tf.constant(float(problem.reml), tf.float64),
                start,
                q_start,
                tf.constant(self.tol, tf.float64),
                tf.constant(self.max_iter),
            )
        beta, sse, squares, uu, traces, info, x, q_x, iterations = out
        state.warm.update(x=x, q=q_x)
        moments = self._moments(params, state, beta, sse, squares, uu, traces, info)
        moments = moments._replace(sensitivity=-np.asarray(q_x)[: problem.p])
        return moments, state, {"cg_iterations": int(iterations)}

    def _moments(self, params, state, beta, sse, squares, uu, traces, info):
        problem, s2 = state.problem, params.sigma**2
        n_probes = self.n_probes if state.probe_blocks else 0
        score, noise, trace = [], [], 0.0
        trace_noise = np.zeros(max(n_probes, 1))
        for k, (L, square, columns) in enumerate(zip(params.factors, squares, traces, strict=True)):
            columns = np.asarray(columns)
            columns = (columns + columns.transpose(1, 0, 2)) / 2
            rows, cols = vech_indices(len(L))
            if k in state.probe_blocks:
                replicates = columns[:, :, -n_probes:]
                K = replicates.mean(axis=2)
                deviation = replicates - K[:, :, None]
                noise.append(-np.einsum("abc,bd->adc", deviation, L)[rows, cols].T)
                trace_noise += np.einsum("ba,bcs,ca->s", L, deviation, L)
            else:
                K = columns.sum(axis=2)
                noise.append(np.zeros((max(n_probes, 1), len(rows))))
            score.append(0.5 * (np.asarray(square) - K))
            trace += np.trace(L.T @ K @ L)
        dof = problem.n - problem.p * problem.reml
        sse = float(sse)
        return Moments(
            beta=np.asarray(beta),
            score=tuple(score),
            score_sigma=sse / s2 - (dof - trace),
            information=np.asarray(info),
            loglik=None,
            noise=np.column_stack([*noise, trace_noise]) if n_probes > 1 else None,
            loss=joint_loss(problem, params, sse, [float(s) for s in uu]),
        )

    def posterior(self, params, state, seed, n_draws):
        """Means by one solve, SDs and root from `n_draws` perturb-and-solve draws."""
        problem, layout, data = state.problem, state.layout, state.data
        with tf.device(state.device):
            sys_ = state.border.system(problem, params)
            units = np.zeros((layout.size, problem.p + 1))
            units[: problem.p, 1:] = np.eye(problem.p)
            weighted = (problem.weights * problem.y / params.sigma**2)[:, None]
            padded = np.zeros((data.y.shape[0], 1))
            padded[: len(weighted)] = weighted
            units[:, :1] = np.asarray(
                from_rows(data, sys_, tf.constant(padded), tf.ones([1], tf.float64))
            )
            solution = self._solve(state, sys_, units)
            draws = perturb_and_solve(self, state, sys_, seed, n_draws)
        return posterior_from_draws(state, sys_, params, solution[:, 0], solution[:, 1:], draws)

    def _solve(self, state, sys_, right, tol=None):
        right = tf.constant(right)
        ones = tf.ones([right.shape[1]], tf.float64)
        x, _ = solve(
            state.data,
            sys_,
            right,
            tf.zeros_like(right),
            ones,
            tf.constant(self.tol if tol is None else tol, tf.float64),
            tf.constant(self.max_iter),
        )
        return np.asarray(x)


def perturb_and_solve(kernel, state, sys_, seed, n_draws):
    """Draws from N(0, C^-1), [p + Q', n_draws]."""
    rng = np.random.default_rng(seed)
    layout, n_rows = state.layout, state.data.y.shape[0]
    out = []
    for _ in range(-(-n_draws // DRAWS_AT_ONCE)):
        rows = rng.standard_normal((n_rows, DRAWS_AT_ONCE))
        levels = rng.standard_normal((layout.size, DRAWS_AT_ONCE))
        levels[: layout.p] = 0.0
        right = noise_right(state.data, sys_, tf.constant(rows), tf.constant(levels))
        out.append(kernel._solve(state, sys_, right, DRAW_TOL))
    return np.concatenate(out, axis=1)[:, :n_draws]


def posterior_from_draws(state, sys_, params, mean, beta_columns, draws):
    """Posterior from the mean [p + Q'], C^-1's columns of beta, and centred draws [p + Q', M].

    The effects' SDs are Rao-Blackwellised: Var(u_j) = H_jj^-1 + Var(E[u_j | the rest]), the first
    exact and the second small (Siden, Lindgren, Bolin & Villani 2018, J. Comput. Graph. Stat. 27).
    """
    problem, layout = state.problem, state.layout
    p = problem.p
    beta_cov, _ = layout.split(beta_columns)
    beta_cov = (beta_cov + beta_cov.T) / 2
    given_beta = draws.copy()
    if p:
        given_beta -= beta_columns @ np.linalg.solve(beta_cov, draws[:p])
    given_beta[:p] = 0.0
    image = np.asarray(
        apply_compiled(
            state.data, sys_, tf.constant(given_beta), tf.zeros([draws.shape[1]], tf.float64)
        )
    )
    _, own = layout.split(given_beta)
    _, pull = layout.split(image)
    stds = []
    blocks = precision_blocks(problem, params)
    for L, H, u, Hu in zip(params.factors, blocks, own, pull, strict=True):
        inverse = invert_blocks(H)
        rest = u - np.einsum("jab,jbm->jam", inverse, Hu)
        variance = inverse + np.einsum("jam,jbm->jab", rest, rest) / u.shape[2]
        stds.append(np.sqrt(np.einsum("ab,jbc,ac->ja", L, variance, L, optimize=True)))
    root = _root(draws, given_beta, beta_cov, stds, params, layout)
    beta, u_mean = layout.split(mean[:, None])
    effects = tuple(
        (np.einsum("ab,jbm->jam", L, u))[:, :, 0]
        for L, u in zip(params.factors, u_mean, strict=True)
    )
    return Posterior(beta[:, 0], effects, tuple(stds), beta_cov, root, None)


def _root(draws, given_beta, beta_cov, stds, params, layout):
    """Root of the posterior covariance [p + Q, M] from draws, their known parts made exact.

    The draws of beta get the covariance `beta_cov`, and each effect given beta the SD it is known
    to have; what stays random is the correlation of effects.
    """
    p, n_draws = layout.p, draws.shape[1]
    beta = draws[:p] / np.sqrt(n_draws)
    follows = draws - given_beta
    if 0 < p < n_draws:
        sample, target = (np.linalg.cholesky(c) for c in (beta @ beta.T, beta_cov))
        # The effects follow beta along its regression.
        slope = follows @ draws[:p].T @ np.linalg.inv(draws[:p] @ draws[:p].T)
        beta = target @ np.linalg.solve(sample, beta)
        follows = slope @ beta
    else:
        follows = follows / np.sqrt(n_draws)
    _, own = layout.split(given_beta / np.sqrt(n_draws))
    _, shared = layout.split(follows)
    parts = [beta]
    for L, u, s, std in zip(params.factors, own, shared, stds, strict=True):
        b = np.einsum("ab,jbm->jam", L, u)
        size = np.sqrt(np.sum(b**2, axis=2))
        b *= np.divide(std, size, out=np.ones_like(std), where=size > 0)[:, :, None]
        parts.append((b + np.einsum("ab,jbm->jam", L, s)).reshape(-1, n_draws))
    return np.concatenate(parts)
