"""The Hamiltonian Monte Carlo E-step: `SplitHMC` and Metropolis-Hastings steps.

As `engine.latent.chains`, of which it is the other backend: chains in parallel live in whitened
coordinates, in float32 unless its rounding shows. Log-likelihoods are summed in float64.
"""

import numpy as np

from sklmm.engine.latent import tuning
from sklmm.engine.latent.frame import Frame
from sklmm.engine.latent.split_hmc import SplitHMC, antithetic, metropolis
from sklmm.engine.latent.unknowns import from_rows, to_rows
from sklmm.engine.latent.whitening import Slots, pull_back, tensors, unwhiten
from sklmm.engine.runtime.tensorflow import compiled, tf
from sklmm.engine.runtime.tfp_graph import tfp


def _total(rows):
    """Sum over rows [n, C], in float64."""
    return tf.reduce_sum(tf.cast(rows, tf.float64), axis=0)


def target(like, arrays, point, frame, offset):
    """log p(y, x(v)) - offset for chains first, [C, P] -> [C], its score computed alongside."""
    p = arrays.X.shape[1]
    terms = frame.terms._replace(factors=point.factors)
    fixed = arrays.offset + arrays.fixed @ point.beta[:, None]
    d = like.n_predictors
    y, w = arrays.y[::d], arrays.w[::d, None]
    raw = point.raw[:, None]

    @tf.custom_gradient
    def log_prob(v):
        whitened = tf.transpose(v)
        x = unwhiten(frame, p, whitened)
        eta = to_rows(arrays, terms, x) + fixed
        rows, score = like.log_prob_and_score(y, eta, raw)
        u = tf.concat([tf.zeros_like(x[:p]), x[p:]], axis=0)
        # Of padding x is 0: its v, which the model leaves free, is N(0, 1).
        spare = frame.padding * whitened
        value = _total(w * rows) - 0.5 * _total(u**2 + spare**2) - offset
        score = tf.repeat(w, d, axis=0) * score if d > 1 else w * score
        pull = from_rows(arrays, terms, score) - u
        pulled = tf.transpose(pull_back(frame, p, pull) - spare)
        return tf.cast(value, v.dtype), lambda upstream: upstream[:, None] * pulled

    return log_prob


def log_prob_and_gradient(like, arrays, point, frame, offset, v):
    """Of `target`, at chains that are looked at once, for which no graph is worth tracing."""
    return tfp.math.value_and_gradient(target(like, arrays, point, frame, offset), v)


@compiled
def hmc_transitions(like, arrays, point, frame, offset, v, step_size, fewest, most, seed, n_steps):
    """`n_steps` transitions with jittered steps and lengths.

    Returns v [C, P], x and its pull [P, C], and the acceptance probability.
    """
    function = target(like, arrays, point, frame, offset)

    def body(i, v, accepted, _):
        here, also = tf.unstack(
            tf.random.experimental.stateless_split(
                tf.random.experimental.stateless_fold_in(seed, i)
            )
        )
        jitter = tuning.JITTER
        jitter = tf.random.stateless_uniform([], here, 1 - jitter, 1 + jitter, v.dtype)
        leapfrogs = tf.random.stateless_uniform([], also, fewest, most + 1, tf.int32)
        proposal = SplitHMC(function, step_size * jitter, leapfrogs)
        v, results, chance = metropolis(proposal, v, proposal.bootstrap_results(v), here)
        return i + 1, v, accepted + tf.reduce_mean(chance), results.grads_target_log_prob

    _, v, accepted, gradient = tf.while_loop(
        lambda i, *_: i < n_steps,
        body,
        (tf.constant(0), v, tf.zeros([], v.dtype), tf.zeros_like(v)),
    )
    return v, *columns(arrays, frame, v, gradient), accepted / tf.cast(n_steps, v.dtype)


def columns(arrays, frame, v, gradient):
    """x and its pull T T^T grad log p [P, C], from v and the gradient in v [C, P], in float64.

    The pull is a Newton step's if T T^T is the posterior's covariance, and has mean 0.
    """
    p = arrays.X.shape[1]
    x = unwhiten(frame, p, tf.transpose(v))
    still = frame._replace(centre=tf.zeros_like(frame.centre))
    pull = unwhiten(still, p, tf.transpose(gradient))
    return tf.cast(x, tf.float64), tf.cast(pull, tf.float64)


class HMCSampler:
    """Chains in a frame, as a step of `sklmm.steps` asks; the step size's adaptation fades."""

    #: Of draws and their pull.
    precision = float

    def __init__(self, e_step):
        self.e_step = e_step
        self.v, self.frame, self.updates = None, None, 0

    def place(self, latent, theta, equations, mode, rng):
        """Put the chains in the frame about `mode`; their whitened coordinates stay."""
        if self.v is None:
            self.slots = Slots(latent.layout)
            self.arrays = latent.compiled.arrays(np.float32)
            self.latent, self.dtype = latent, np.float32
            chains = self.e_step.n_chains or tuning.default_chains(latent.n_rows)
            self.v = antithetic(
                tf.constant(rng.standard_normal((chains, self.slots.size)), tf.float32)
            )
            self.step = tuning.first_step(self.e_step, latent.layout.real.sum())
        first = self.frame is None
        self.centre = mode
        # So that float32 keeps the differences.
        self.offset = tf.constant(latent.gradient(theta, mode[:, None])[0])
        self.exact = exact = Frame.of(equations, mode)
        unknown = first or latent.like.names
        if unknown and self.dtype == np.float32 and self._rounds(theta, exact):
            self.dtype, self.arrays = np.float64, latent.compiled.arrays(np.float64)
            self.v = tf.cast(self.v, tf.float64)
        self.frame = tensors(exact, theta.factors, self.dtype)
        if first:
            for _ in range(tuning.WARM_UPS if self.e_step.n_warmup else 0):
                self.draw(theta, rng, max(self.e_step.n_warmup // tuning.WARM_UPS, 1))

    def _rounds(self, theta, frame):
        """Whether float32 is too rough."""
        v, found = self.v[: tuning.LOOKED_AT], []
        compiled = self.latent.compiled
        for dtype in (np.float32, np.float64):
            arrays = self.arrays if dtype == self.dtype else compiled.arrays(dtype)
            point, here = compiled.point(theta, dtype), tensors(frame, theta.factors, dtype)
            both = log_prob_and_gradient(
                self.latent.like, arrays, point, here, self.offset, tf.cast(v, dtype)
            )
            found.append([part.numpy() for part in both])
        return tuning.rounding(found) > tuning.MOST_ROUNDING

    def shift(self, change):
        """Move the chains with their centre by `change` [P]."""
        self.centre = self.centre + change
        self.frame = self.frame._replace(
            centre=tf.constant(self.slots.put(self.centre), self.dtype)
        )

    def draw(self, theta, rng, n_steps=None):
        """Draws x and their pull [P, C] after `n_steps` transitions, and the acceptance rate."""
        self.v, x, pull, rate = self.transitions(theta, rng, n_steps or self.e_step.n_steps)
        if self.e_step.step_size is None:
            self.updates += 1
            gain = self.updates**-tuning.ADAPTATION_POWER
            self.step = tuning.adapted(self.step, rate, gain)
        return self.slots.take(x.numpy()), self.slots.take(pull.numpy()), rate

    def spread(self):
        """Of the frame: `Frame.spread`."""
        return self.exact.spread()

    def arguments(self, theta):
        """What the chains' target and state are."""
        point = self.latent.compiled.point(theta, self.dtype)
        return self.latent.like, self.arrays, point, self.frame, self.offset, self.v

    def transitions(self, theta, rng, n_steps):
        """(v, x, pull, acceptance rate) after `n_steps` transitions."""
        fewest, most = tuning.lengths(self.e_step, self.step)
        v, x, pull, accepted = hmc_transitions(
            *self.arguments(theta),
            tf.constant(self.step, self.dtype),
            tf.constant(fewest),
            tf.constant(most),
            tf.constant(rng.integers(0, 2**31 - 1, 2), tf.int32),
            tf.constant(n_steps),
        )
        return v, x, pull, float(accepted)
