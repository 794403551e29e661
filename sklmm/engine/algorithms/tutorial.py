r"""The tutorial's loop: HMC draws and stochastic gradients by Adam, on the TFP joint distribution.

Every iteration takes `n_steps` transitions of `tfp.mcmc.HamiltonianMonteCarlo` in the effects' own
units from where the chain stands, then one Adam step on -log p(y, b | theta) at the draw reached,
theta = (beta, L_k with log diagonals, log sigma), from 0 and unit SDs. It is the loop of
TensorFlow's tutorial "Linear mixed effects models", kept as it is for comparison: with SDs trained
it takes very long to move the level of y from the effects of a factor of few levels into the
intercept.
"""

import numpy as np

from sklmm.engine.algorithms.loop import Iteration
from sklmm.engine.algorithms.reml_cg import Probed
from sklmm.engine.equations.crossproducts import CrossProducts
from sklmm.engine.limits import DRAWS
from sklmm.engine.posterior.gaussian import posterior_from_equations
from sklmm.engine.rows.local import LocalRows
from sklmm.engine.rows.standardize import BlockData, Problem, levels_of, ones, whiten
from sklmm.engine.runtime.tensorflow import compiled, tf
from sklmm.engine.runtime.tfp_graph import joint_distribution, tfp
from sklmm.engine.theta.space import Space, Theta
from sklmm.steps import ConjugateGradient

DTYPE = tf.float32


def in_own_units(design, y, weights, *, fit_intercept, reml, sigma=None):
    """Problem in the table's own units, those of the tutorial's settings."""
    n = float(weights.sum())
    y = y if design.offset is None else y - design.offset
    _, basis, _ = whiten(design.X, weights, n, fit_intercept)
    kept = basis.any(axis=1)
    zs = tuple(ones(len(y)) if b.z is None else b.z for b in design.blocks)
    blocks = tuple(
        BlockData(b.n_levels, z.shape[1], b.covariance)
        for b, z in zip(design.blocks, zs, strict=True)
    )
    return Problem(
        rows=LocalRows(y, design.X[:, kept], weights, *levels_of(design), zs),
        blocks=blocks,
        n=n,
        reml=reml,
        sigma=sigma,
        basis=np.eye(len(kept))[:, kept],
        z_bases=tuple(np.eye(b.r) for b in blocks),
    )


def _factor(raw, at_zero, slopes, is_sd):
    """L of a covariance that is linear in its parameters: SDs exp(raw), the others raw [m]."""
    return at_zero + tf.tensordot(tf.where(is_sd, tf.exp(raw), raw), slopes, 1)


def _linear(covariance):
    """L at 0 [r, r], its slopes [m, r, r] and which parameters are SDs."""
    zero = covariance.factor(np.zeros(covariance.n_params))
    slopes = covariance.slopes(zero)
    return tf.constant(zero, DTYPE), tf.constant(slopes, DTYPE), tf.constant(covariance.is_sd)


def _log_joint(data, beta, factors, sigma):
    X, y, refs, z, levels = data
    names = [f"b{k}" for k in range(len(refs))]
    sizes = [size.shape[0] for size in levels]
    joint = joint_distribution(names, X, refs, z, sizes, beta, factors, sigma)
    return lambda *b: joint.log_prob(dict(zip(names, b, strict=True)) | {"y": y})


def _values(raw, known):
    """(beta, factors, sigma) from `raw`, what is known of them as it is."""
    beta, raw_factors, raw_sigma = raw
    factors = [_factor(r, *linear) for r, linear in zip(raw_factors, known[0], strict=True)]
    return beta, factors, tf.exp(raw_sigma) if known[1] is None else known[1]


@compiled
def adam_e_step(data, raw, known, b, step_size, leapfrogs, seed, n_steps):
    """`n_steps` HMC transitions at fixed theta: (b, acceptance rate)."""
    target = _log_joint(data, *_values(raw, known))
    kernel = tfp.mcmc.HamiltonianMonteCarlo(target, step_size, leapfrogs)
    results = kernel.bootstrap_results(b)

    def body(i, b, results, accepted):
        here = tf.random.experimental.stateless_fold_in(seed, i)
        b, results = kernel.one_step(b, results, seed=here)
        return i + 1, b, results, accepted + tf.reduce_mean(tf.cast(results.is_accepted, DTYPE))

    _, b, _, accepted = tf.while_loop(
        lambda i, *_: i < n_steps, body, (tf.constant(0), list(b), results, tf.zeros([], DTYPE))
    )
    return b, accepted / tf.cast(n_steps, DTYPE)


@compiled
def adam_gradient(data, raw, known, b):
    """Loss -log p(y, b | theta), averaged over chains, and its gradient in `raw`."""
    flat = tf.nest.flatten(raw)
    with tf.GradientTape() as tape:
        tape.watch(flat)
        log_joint = _log_joint(data, *_values(tf.nest.pack_sequence_as(raw, flat), known))
        loss = -tf.reduce_mean(log_joint(*b))
    return loss, tape.gradient(loss, flat, unconnected_gradients="zero")


class AdamLoop:
    """The loop's chain and its variables."""

    stochastic = True

    def __init__(self, problem, settings):
        if not np.all(problem.rows.weights == 1):
            raise ValueError("m_step='adam' takes no sample_weight: use m_step='auto'.")
        self.problem, self.space = problem, Space.gaussian(problem)
        self.e_step, self.m_step = settings.e_step, settings.m_step
        self.n_chains = self.e_step.n_chains or 1
        self.max_iter, self.seed = settings.max_iter, settings.seed

    def _tensors(self):
        """Data in float32, as the tutorial has them, and the linear covariances and sigma."""
        problem, rows = self.problem, self.problem.rows
        data = (
            tf.constant(rows.X, DTYPE),
            tf.constant(rows.y, DTYPE),
            [tf.constant(refs) for refs in rows.refs],
            [tf.constant(np.asarray(z), DTYPE) for z in rows.z],
            [tf.zeros([b.n_levels, 0]) for b in problem.blocks],
        )
        sigma = None if problem.sigma is None else tf.constant(problem.sigma, DTYPE)
        return data, ([_linear(b.covariance) for b in problem.blocks], sigma)

    def steps(self):
        """Yield one `Iteration` per iteration; it never stops by itself."""
        problem = self.problem
        self.data, self.known = self._tensors()
        #: Sums of the draws of the second half, for the posterior means, and how many they are.
        self.total, self.n_total = [np.zeros((b.n_levels, b.r)) for b in problem.blocks], 0
        rng = np.random.default_rng(self.seed)
        e = self.e_step
        settings = (
            tf.constant(0.015 if e.step_size is None else e.step_size, DTYPE),
            tf.constant(e.num_leapfrog_steps or 3),
        )
        optimizer = tf.keras.optimizers.Adam(self.m_step.learning_rate)
        raw = (
            tf.Variable(tf.zeros([problem.p], DTYPE)),
            [tf.Variable(tf.zeros([b.covariance.n_params], DTYPE)) for b in problem.blocks],
            tf.Variable(tf.zeros([], DTYPE)),
        )
        variables = tf.nest.flatten(raw)
        optimizer.build(variables)
        b = [tf.zeros([self.n_chains, k.n_levels, k.r], DTYPE) for k in problem.blocks]
        if e.n_warmup:
            b, _ = self._transitions(raw, b, settings, rng, e.n_warmup)
        for iteration in range(1, self.max_iter + 1):
            b, accepted = self._transitions(raw, b, settings, rng, e.n_steps)
            loss, gradient = adam_gradient(self.data, _read(raw), self.known, b)
            theta = self._theta(raw)
            draw = tuple(part.numpy()[0].astype(np.float64) for part in b)
            if 2 * iteration > self.max_iter:
                self.total = [t + p.numpy().sum(axis=0) for t, p in zip(self.total, b, strict=True)]
                self.n_total += self.n_chains
            optimizer.apply_gradients(zip(gradient, variables, strict=True))
            yield Iteration(
                theta=theta,
                loss=float(loss),
                loglik=np.nan,
                decrement=np.nan,
                done=False,
                estimate=self._theta(raw),
                covariance=None,
                spread=None,
                acceptance_rate=float(accepted),
                draw=draw,
                left=self.max_iter - iteration,
            )

    def _transitions(self, raw, b, settings, rng, n_steps):
        seed = tf.constant(rng.integers(0, 2**31 - 1, 2), tf.int32)
        return adam_e_step(
            self.data, _read(raw), self.known, b, *settings, seed, tf.constant(n_steps)
        )

    def _theta(self, raw):
        beta, factors, sigma = _values(_read(raw), self.known)
        factors = tuple(np.asarray(L, np.float64) for L in factors)
        raw_sigma = [np.log(float(sigma))] if self.space.estimated else []
        return Theta(np.asarray(beta, np.float64), factors, np.array(raw_sigma))

    def posterior(self, last):
        """Means over the second half's draws; SDs and root by conjugate gradients."""
        solver = Probed(CrossProducts(self.problem), ConjugateGradient(), self.seed)
        equations = solver.equations(last.estimate)
        posterior = posterior_from_equations(equations, self.seed, DRAWS[1])
        posterior = posterior._replace(beta=last.estimate.beta)
        total, n = self.total, self.n_total
        # Of a fit that stopped in the first half the draws are left out.
        return posterior._replace(effects=tuple(t / n for t in total)) if n else posterior


def _read(raw):
    return tf.nest.map_structure(tf.convert_to_tensor, raw)
