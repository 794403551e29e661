"""The Hamiltonian Monte Carlo E-step: `SplitHMC` under `tfp.mcmc.MetropolisHastings`.

Chains in parallel live in the whitened coordinates of `engine.frame`, in float32; likelihoods are
summed in blocks and the blocks in float64. Trajectories are of random lengths, a quarter to
nearly half a turn, after which neither x nor x^2 remembers where it began: not all directions turn
at the same rate.
"""

import numpy as np
from scipy.special import ndtri

from sklmm.engine.e_step.split import SplitHMC, antithetic
from sklmm.engine.frame import make_frame, pull_back, unwhiten
from sklmm.engine.model import tfp
from sklmm.engine.operator import from_rows, to_rows
from sklmm.engine.unknowns import bucket
from sklmm.engine.xla import compiled, tf

TARGET_ACCEPTANCE = 0.85
#: The longest trajectory in whitened units, and the shortest's share of it.
TRAJECTORY = 2.8
SHORTEST = 0.5
JITTER = 0.2
FIRST_STEP = 2.0
MAX_LEAPFROGS = 64
BLOCK = 4096
#: The adaptation fades.
ADAPTATION_POWER = 0.6
LEAST_RATE = 0.05
#: With jitter less than 1.72, from where a direction of precision 2 makes split steps unstable: two
#: crossed terms make such ones.
LONGEST_STEP = 1.4
WARM_UPS = 2
#: Chains, by default: as many as rows times chains allow, within bounds.
CHAINS = (16, 128)
CHAIN_ROWS = 1 << 18


def _total(rows):
    """Sum over rows [n, C]: blocks in the rows' own precision, the blocks in float64."""
    n = rows.shape[0]
    size = min(BLOCK, n)
    padded = tf.pad(rows, [[0, -n % size], [0, 0]])
    blocks = tf.reduce_sum(tf.reshape(padded, [-1, size, rows.shape[1]]), axis=1)
    return tf.reduce_sum(tf.cast(blocks, tf.float64), axis=0)


def target(like, arrays, point, frame, offset):
    """log p(y, x(v)) - offset for chains first, [C, P] -> [C], its score computed alongside."""
    data = arrays.data
    p = data.X.shape[1]
    system_ = frame.system._replace(factors=point.factors)
    fixed = arrays.offset + arrays.fixed @ point.beta[:, None]
    y, w, d = data.y[:: like.n_predictors], data.w[:: like.n_predictors, None], like.n_predictors
    raw = point.raw[:, None]

    @tf.custom_gradient
    def log_prob(v):
        whitened = tf.transpose(v)
        x = unwhiten(frame, p, whitened)
        eta = to_rows(data, system_, x) + fixed
        rows, score = like.log_prob_and_score(y, eta, raw)
        u = tf.concat([tf.zeros_like(x[:p]), x[p:]], axis=0)
        # Of padding x is 0: its v, which the model leaves free, is N(0, 1).
        spare = frame.padding * whitened
        value = _total(w * rows) - 0.5 * _total(u**2 + spare**2) - offset
        score = tf.repeat(w, d, axis=0) * score if d > 1 else w * score
        pull = from_rows(data, system_, score, tf.ones_like(x[0])) - u
        pulled = tf.transpose(pull_back(frame, p, pull) - spare)
        return tf.cast(value, v.dtype), lambda upstream: upstream[:, None] * pulled

    return log_prob


def acceptance(results):
    """Mean acceptance probability of a transition, 0 for a divergent chain."""
    chance = tf.exp(tf.minimum(results.log_accept_ratio, 0.0))
    return tf.reduce_mean(tf.where(tf.math.is_finite(chance), chance, tf.zeros_like(chance)))


@compiled
def hmc_transitions(like, arrays, point, frame, offset, v, step_size, fewest, most, seed, n_steps):
    """`n_steps` transitions with jittered steps and lengths: (v, x, acceptance probability)."""
    function = target(like, arrays, point, frame, offset)

    def body(i, v, accepted):
        here, also = tf.unstack(
            tf.random.experimental.stateless_split(
                tf.random.experimental.stateless_fold_in(seed, i)
            )
        )
        jitter = tf.random.stateless_uniform([], here, 1 - JITTER, 1 + JITTER, v.dtype)
        leapfrogs = tf.random.stateless_uniform([], also, fewest, most + 1, tf.int32)
        kernel = tfp.mcmc.MetropolisHastings(SplitHMC(function, step_size * jitter, leapfrogs))
        v, results = kernel.one_step(v, kernel.bootstrap_results(v), seed=here)
        return i + 1, v, accepted + acceptance(results)

    _, v, accepted = tf.while_loop(
        lambda i, *_: i < n_steps, body, (tf.constant(0), v, tf.zeros([], v.dtype))
    )
    x = unwhiten(frame, arrays.data.X.shape[1], tf.transpose(v))
    return v, tf.cast(x, tf.float64), accepted / tf.cast(n_steps, v.dtype)


def default_chains(n_rows):
    """An even number of chains for a table of `n_rows`, one for all of a shape bucket."""
    return 2 * int(np.clip(CHAIN_ROWS // bucket(n_rows), *CHAINS) // 2)


def adapted(step, rate, gain):
    """The step at which the acceptance rate is on target, as 2 Phi(-c step^2) says, or near it.

    Beskos et al. (2013), Bernoulli 19, 1501-1534: the error in energy is normal, its SD ~ step^2.
    """
    wanted, found = ndtri(0.5 * np.clip([TARGET_ACCEPTANCE, rate], LEAST_RATE, 1 - LEAST_RATE))
    return min(step * (wanted / found) ** (0.5 * gain), LONGEST_STEP)


class HMCSampler:
    """Chains in a frame; the adaptation of the step size fades."""

    def __init__(
        self, step_size=None, num_leapfrog_steps=None, n_chains=None, n_warmup=4, n_steps=1
    ):
        self.step_size = step_size
        self.num_leapfrog_steps = num_leapfrog_steps
        self.n_chains = n_chains
        self.n_warmup = n_warmup
        self.n_steps = n_steps
        self.v, self.frame, self.updates = None, None, 0

    def place(self, latent, theta, equations, mode, rng):
        """Put the chains in the frame about `mode`; their whitened coordinates stay."""
        if self.v is None:
            P = latent.layout.size
            self.arrays = latent.compiled.arrays32()
            self.latent = latent
            chains = self.n_chains or default_chains(latent.n_rows)
            self.v = antithetic(tf.constant(rng.standard_normal((chains, P)), tf.float32))
            first = FIRST_STEP * max(latent.layout.real.sum(), 1) ** -0.25
            self.step = self.step_size or min(first, LONGEST_STEP)
        first = self.frame is None
        self.centre = mode
        self.frame = make_frame(equations, mode, np.float32)
        # So that float32 keeps the differences.
        self.offset = tf.constant(latent.gradient(theta, mode[:, None])[0])
        if first:
            for _ in range(WARM_UPS if self.n_warmup else 0):
                self.draw(theta, rng, max(self.n_warmup // WARM_UPS, 1))

    def shift(self, change):
        """Move the chains with their centre by `change` [P]."""
        self.centre = self.centre + change
        self.frame = self.frame._replace(centre=tf.constant(self.centre, tf.float32))

    def draw(self, theta, rng, n_steps=None):
        """Draws x [P, C] after `n_steps` transitions, and what to report of them."""
        self.v, x, rate, leapfrogs = self.transitions(theta, rng, n_steps or self.n_steps)
        info = {"acceptance_rate": rate, "step_size": self.step, "leapfrogs": leapfrogs}
        if self.step_size is None:
            self.updates += 1
            self.step = adapted(self.step, rate, self.updates**-ADAPTATION_POWER)
        return x.numpy(), info

    def arguments(self, theta):
        """What the chains' target and state are."""
        point = self.latent.compiled.point(theta, np.float32)
        return self.latent.like, self.arrays, point, self.frame, self.offset, self.v

    def transitions(self, theta, rng, n_steps):
        """(v, x, acceptance rate, most leapfrogs) after `n_steps` transitions."""
        most = self.num_leapfrog_steps or int(np.ceil(TRAJECTORY / self.step))
        most = int(np.clip(most, 1, MAX_LEAPFROGS))
        fewest = most if self.num_leapfrog_steps else max(int(SHORTEST * most), 1)
        v, x, accepted = hmc_transitions(
            *self.arguments(theta),
            tf.constant(self.step, tf.float32),
            tf.constant(fewest),
            tf.constant(most),
            tf.constant(rng.integers(0, 2**31 - 1, 2), tf.int32),
            tf.constant(n_steps),
        )
        return v, x, float(accepted), most
