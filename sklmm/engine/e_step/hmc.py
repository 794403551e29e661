r"""The Hamiltonian Monte Carlo E-step: `tfp.mcmc.HamiltonianMonteCarlo`, chains in parallel.

The chains draw x = (beta, u), beta flat a priori, in coordinates whitened by conjugate gradients'
own preconditioner M: x = T v, T T^T = M^-1, with M's blocks D, border B and Schur complement S,

    x_F = S^{-1/2} v_F,      x_L = D^{-1/2} v_L - D^-1 B x_F.

So one scalar step size fits every level, and the stiff direction "all effects of a term up, the
intercept down" is whitened away. The draws are of REML's posterior; for ML they are moved to beta =
beta-hat along the regression of u on beta, C^-1_{u beta} (C^-1_{beta beta})^-1.

The gradient G_k comes from Fisher's identity in either of two unbiased forms, whichever is quieter:
L^-T (sum_j E[u_j u_j^T] - J I) L^-1 / 2, or E[s_j s_j^T + d^2 log p / db_j^2] / 2 summed over
levels, with s_j the score in b_j, which is finite where Sigma_k = 0.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from sklmm.engine.e_step.base import Kernel, Moments, joint_loss, vech_indices
from sklmm.engine.e_step.cg import CGKernel, information, posterior_from_draws
from sklmm.engine.model import tfp
from sklmm.engine.operator import (
    Border,
    Layout,
    border_of,
    flatten,
    from_rows,
    solve_levels,
    split,
    sum_levels,
    tensors,
    to_rows,
    turn,
    with_border,
)
from sklmm.engine.xla import check_device, compiled, tf

TARGET_ACCEPTANCE = 0.8
#: Longest and shortest trajectory in whitened units, drawn uniformly: M >= C leaves some directions
#: two to four times wider than 1, but pi turns a direction of width 1 onto itself, b^2 unmoved.
TRAJECTORY = 4.5
SHORTEST = 0.25
JITTER = 0.2
WARMUP_LEAPFROGS = 8
MAX_LEAPFROGS = 64
INFORMATION_TOL = 1e-3
KEPT_STEPS = 16


class Frame(NamedTuple):
    """Where the chains live at one theta: M's System, roots of D^-1 [n_levels, r, r] and S^-1."""

    system: object
    roots: tuple
    schur_root: object


@dataclass
class _State:
    problem: object
    layout: Layout
    border: Border
    data: object
    device: str | None
    v: object = None
    step_size: float | None = None
    leapfrogs: int = 0
    beta: np.ndarray | None = None
    q: object = None
    iteration: int = 0
    kept: list = field(default_factory=list)
    total: np.ndarray | None = None
    n_total: int = 0
    collecting: bool = False


def unwhiten(data, frame, v):
    """x = T v: [p + Q', C]."""
    p, system_ = data.X.shape[1], frame.system
    beta, parts = split(system_, p, v)
    turned = [turn(R, part) for R, part in zip(frame.roots, parts, strict=True)]
    edge = frame.schur_root @ border_of(system_, beta, parts)
    inner = tf.concat([tf.zeros_like(beta), *(flatten(part) for part in turned)], axis=0)
    inner -= solve_levels(system_, p, system_.border @ edge)
    return with_border(system_, p, inner, edge)


def pull_back(data, frame, g):
    """T^T g: [p + Q', C]."""
    p, system_ = data.X.shape[1], frame.system
    beta, parts = split(system_, p, g)
    edge = border_of(system_, beta, parts) - tf.matmul(
        system_.border, solve_levels(system_, p, g), transpose_a=True
    )
    edge = tf.matmul(frame.schur_root, edge, transpose_a=True)
    turned = [turn(R, part, transpose=True) for R, part in zip(frame.roots, parts, strict=True)]
    inner = tf.concat([tf.zeros_like(beta), *(flatten(part) for part in turned)], axis=0)
    return with_border(system_, p, inner, edge)


def _target(data, frame):
    """log p(v | y) for chains first, [C, p + Q'] -> [C], with its score computed alongside."""
    p = data.X.shape[1]

    @tf.custom_gradient
    def log_prob(v):
        x = unwhiten(data, frame, tf.transpose(v))
        residual = data.y[:, None] - to_rows(data, frame.system, x)
        weighted = residual * (data.w * frame.system.precision)[:, None]
        u = tf.concat([tf.zeros_like(x[:p]), x[p:]], axis=0)
        value = -0.5 * (tf.reduce_sum(weighted * residual, axis=0) + tf.reduce_sum(u**2, axis=0))
        pull = from_rows(data, frame.system, weighted, tf.ones_like(value)) - u
        score = tf.transpose(pull_back(data, frame, pull))
        return value, lambda upstream: upstream[:, None] * score

    return log_prob


@compiled
def log_density(data, frame, v):
    """The chains' target, for tests against the joint distribution."""
    return _target(data, frame)(v)


@compiled
def hmc_warmup(data, frame, v, step_size, seed, n_warmup):
    """Dual-averaging adaptation of one step size: (v, step size, acceptance rate)."""
    inner = tfp.mcmc.HamiltonianMonteCarlo(
        _target(data, frame), step_size, num_leapfrog_steps=WARMUP_LEAPFROGS
    )
    kernel = tfp.mcmc.DualAveragingStepSizeAdaptation(
        inner,
        num_adaptation_steps=tf.cast(0.9 * tf.cast(n_warmup, v.dtype), tf.int32),
        target_accept_prob=tf.constant(TARGET_ACCEPTANCE, v.dtype),
    )
    results = kernel.bootstrap_results(v)

    def body(i, v, results, accepted):
        v, results = kernel.one_step(
            v, results, seed=tf.random.experimental.stateless_fold_in(seed, i)
        )
        rate = tf.reduce_mean(tf.exp(tf.minimum(results.inner_results.log_accept_ratio, 0.0)))
        return i + 1, v, results, rate

    zero = tf.zeros([], v.dtype)
    _, v, results, rate = tf.while_loop(
        lambda i, *_: i < n_warmup, body, (tf.constant(0), v, results, zero)
    )
    return v, results.new_step_size, rate


@compiled
def hmc_transitions(data, frame, v, step_size, fewest, most, seed, n_steps):
    """`n_steps` transitions with jittered steps and lengths: (v, acceptance rate)."""
    target = _target(data, frame)

    def body(i, v, accepted):
        here, also = tf.unstack(
            tf.random.experimental.stateless_split(
                tf.random.experimental.stateless_fold_in(seed, i)
            )
        )
        jitter = tf.random.stateless_uniform([], here, 1 - JITTER, 1 + JITTER, v.dtype)
        leapfrogs = tf.random.stateless_uniform([], also, fewest, most + 1, tf.int32)
        kernel = tfp.mcmc.HamiltonianMonteCarlo(target, step_size * jitter, leapfrogs)
        v, results = kernel.one_step(v, kernel.bootstrap_results(v), seed=here)
        return i + 1, v, accepted + tf.reduce_mean(tf.cast(results.is_accepted, v.dtype))

    _, v, accepted = tf.while_loop(
        lambda i, *_: i < n_steps, body, (tf.constant(0), v, tf.zeros([], v.dtype))
    )
    return v, accepted / tf.cast(n_steps, v.dtype)


@compiled
def hmc_moments(data, frame, v, slope, centre, ml, q_start, max_iter):
    """Sufficient statistics of the draws v [C, p + Q'] by chain, and the average information.

    `slope` [p + Q', p] is the regression of x on beta; with `ml` = 1 the draws are moved to
    `centre`.
    """
    p, system_ = data.X.shape[1], frame.system
    x = unwhiten(data, frame, tf.transpose(v))
    moved = x - ml * tf.matmul(slope, x[:p] - centre[:, None])
    residual = data.y[:, None] - to_rows(data, system_, moved)
    weighted = residual * (data.w * system_.precision)[:, None]
    sse = tf.reduce_sum(residual**2 * data.w[:, None], axis=0)
    seconds, scores, mean_u, mean_c = [], [], [], []
    for k, part in enumerate(split(system_, p, moved)[1]):
        s = sum_levels(data, k, weighted, part.shape[0])
        seconds.append(tf.einsum("jac,jbc->abc", part, part))
        scores.append(tf.einsum("jac,jbc->abc", s, s))
        mean_u.append(tf.reduce_mean(part, axis=2, keepdims=True))
        mean_c.append(tf.reduce_mean(s, axis=2, keepdims=True))
    mean_residual = tf.reduce_mean(residual, axis=1, keepdims=True)
    info, q, _ = information(
        data, system_, mean_u, mean_c, mean_residual, q_start, INFORMATION_TOL, max_iter
    )
    return x, sse, tuple(seconds), tuple(scores), info, q


class HMCKernel(Kernel):
    """Whitened, adapted, multi-chain HMC."""

    stochastic = True

    def __init__(
        self,
        step_size=None,
        num_leapfrog_steps=None,
        n_chains=24,
        n_warmup=60,
        n_steps=1,
        device=None,
    ):
        self.step_size = step_size
        self.num_leapfrog_steps = num_leapfrog_steps
        self.n_chains = n_chains
        self.n_warmup = n_warmup
        self.n_steps = n_steps
        self.device = device
        self._equations = CGKernel(device=device)

    def init(self, problem, seed):
        """Data on the device; chains start at 0."""
        device = check_device(self.device)
        layout = Layout(problem)
        border = Border(problem, layout)
        with tf.device(device):
            data = tensors(problem)
        return _State(problem, layout, border, data, device)

    def _frame(self, params, state):
        problem, layout = state.problem, state.layout
        system_ = state.border.system(problem, params)
        roots = []
        for (J, r), levels, block in zip(layout.shapes, layout.levels, system_.blocks, strict=True):
            # 0 for padding: its v moves freely, and u stays 0.
            root = np.zeros((J, r, r))
            inverse = block.numpy()[:levels]
            if inverse.any():
                root[:levels] = np.sqrt(inverse) if r == 1 else np.linalg.cholesky(inverse)
            roots.append(tf.constant(root))
        values, vectors = np.linalg.eigh(system_.schur.numpy())
        # The symmetric root: the chains keep v when theta changes, so T must be continuous in it.
        schur_root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
        return Frame(system_, tuple(roots), tf.constant(schur_root))

    def step(self, params, state, seed):
        """Transitions from the previous draws, and the moments they give.

        The chains keep their whitened coordinates when theta changes, so their spread follows it.
        """
        rng = np.random.default_rng([seed, state.iteration])
        state.iteration += 1
        with tf.device(state.device):
            frame = self._frame(params, state)
            v = state.v
            if v is None:
                v = tf.zeros([self.n_chains, state.layout.size], tf.float64)
            if state.step_size is None:
                v = self._warm_up(state, frame, v, rng)
            state.v, accepted = hmc_transitions(
                state.data,
                frame,
                v,
                tf.constant(state.step_size, tf.float64),
                tf.constant(self._fewest(state)),
                tf.constant(state.leapfrogs),
                _seed(rng),
                tf.constant(self.n_steps),
            )
            moments, draw = self._moments(params, state, frame)
        info = {
            "draw": draw,
            "acceptance_rate": float(accepted),
            "step_size": state.step_size,
            "leapfrogs": state.leapfrogs,
        }
        return moments, state, info

    def _fewest(self, state):
        if self.num_leapfrog_steps is not None:
            return state.leapfrogs
        return max(int(SHORTEST * state.leapfrogs), 1)

    def _warm_up(self, state, frame, v, rng):
        d = v.shape[1]
        start = self.step_size if self.step_size is not None else d**-0.25
        state.step_size = float(start)
        if self.n_warmup > 0:
            v, adapted, _ = hmc_warmup(
                state.data,
                frame,
                v,
                tf.constant(start, tf.float64),
                _seed(rng),
                tf.constant(self.n_warmup),
            )
            if self.step_size is None:
                state.step_size = float(adapted)
        leapfrogs = self.num_leapfrog_steps or int(np.ceil(TRAJECTORY / state.step_size))
        state.leapfrogs = int(np.clip(leapfrogs, 1, MAX_LEAPFROGS))
        return v

    def _moments(self, params, state, frame):
        problem, layout = state.problem, state.layout
        p, ml = problem.p, not problem.reml
        slope = np.zeros((layout.size, p))
        if ml and p:
            columns = self._beta_columns(state, frame.system)
            slope = columns @ np.linalg.inv(columns[:p])
        m = sum(b.r * (b.r + 1) // 2 for b in problem.blocks) + 1
        if state.q is None:
            state.q = tf.zeros([layout.size, m], tf.float64)
        centre = np.zeros(p) if state.beta is None else state.beta
        x, sse, seconds, scores, info, state.q = hmc_moments(
            state.data,
            frame,
            state.v,
            tf.constant(slope),
            tf.constant(centre),
            tf.constant(float(ml), tf.float64),
            state.q,
            tf.constant(2000),
        )
        x, sse = np.asarray(x), np.asarray(sse)
        beta = x[:p].mean(axis=1)
        gain = 1.0 if state.beta is None else max(1 / state.iteration, 0.1)
        state.beta = centre + gain * (beta - centre)
        if state.collecting:
            self._keep(state, x)
        score, chains = [], []
        for b, L, second, s in zip(problem.blocks, params.factors, seconds, scores, strict=True):
            G = _fisher(b, L, np.asarray(second), np.asarray(s), params.sigma)
            rows, columns = vech_indices(b.r)
            chains.append(2 * np.einsum("abc,bd->cad", G, L)[:, rows, columns])
            score.append(G.mean(axis=2))
        gradient_sigma = sse / params.sigma**2 - problem.n
        _, first_chain = layout.split(x[:, :1])
        draw = tuple(u[:, :, 0] @ L.T for u, L in zip(first_chain, params.factors, strict=True))
        moments = Moments(
            beta=beta,
            score=tuple(score),
            score_sigma=float(gradient_sigma.mean()),
            information=np.asarray(info),
            loglik=None,
            noise=np.column_stack([*chains, gradient_sigma]),
            loss=joint_loss(
                problem,
                params,
                float(sse[0]),
                [float(np.trace(np.asarray(S)[:, :, 0])) for S in seconds],
            ),
        )
        return moments, draw

    def _keep(self, state, x):
        state.total = x.sum(axis=1) + (0 if state.total is None else state.total)
        state.n_total += x.shape[1]
        state.kept = [*state.kept, x.astype(np.float32)][-KEPT_STEPS:]

    def _beta_columns(self, state, system_):
        p = state.problem.p
        right = np.zeros((state.layout.size, p))
        right[:p] = np.eye(p)
        return self._equations._solve(state, system_, right, 1e-4)

    def beta_std(self, params, state):
        """Standard errors of beta at `params`, from (X^T V^-1 X)^-1."""
        if not state.problem.p:
            return np.zeros(0)
        with tf.device(state.device):
            columns = self._beta_columns(state, state.border.system(state.problem, params))
        return np.sqrt(np.diag(columns[: state.problem.p]))

    def posterior(self, params, state, seed, n_draws):
        """Means over the draws since burn-in; root from the latest."""
        with tf.device(state.device):
            system_ = state.border.system(state.problem, params)
            columns = self._beta_columns(state, system_)
            if not state.kept:
                state.collecting = True
                self.step(params, state, seed)
            draws = np.concatenate(state.kept, axis=1).astype(np.float64)
            draws -= draws.mean(axis=1, keepdims=True)
            draws *= np.sqrt(draws.shape[1] / max(draws.shape[1] - 1, 1))
            mean = state.total / state.n_total
            return posterior_from_draws(state, system_, params, mean, columns, draws)


def _seed(rng):
    return tf.constant(rng.integers(0, 2**31 - 1, 2), tf.int32)


def _fisher(block, L, second, score, sigma):
    """G_k chain by chain [r, r, C], each entry in the quieter of the two forms.

    In the axes of L = U diag(s) V^T, the first form's noise exceeds the second's where the data say
    less about a level than the prior, kappa < 1.
    """
    U, s, Vt = np.linalg.svd(L)
    curvature = U.T @ block.crossprod.sum(axis=0) @ U / sigma**2
    kappa = s**2 * np.diag(curvature) / block.n_levels
    strong = np.outer(kappa, kappa) > 1
    scale = np.where(strong, np.outer(s, s), 1.0)[:, :, None]
    centred = second - block.n_levels * np.eye(block.r)[:, :, None]
    by_effects = np.einsum("ab,bcs,dc->ads", Vt, centred, Vt) / scale
    by_scores = np.einsum("ba,bcs,cd->ads", U, score, U) - curvature[:, :, None]
    G = 0.5 * np.where(strong[:, :, None], by_effects, by_scores)
    return np.einsum("ab,bcs,dc->ads", U, G, U)
