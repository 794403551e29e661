"""Monte Carlo EM: the schedule for samplers that draw the latent variables.

Burn-in takes Newton steps on the noisy score with the complete-data information, until a step is
within its own noise; the metric and the motion of x follow theta. Then both are frozen, the steps
shrink, and the estimate is an average (Polyak & Juditsky 1992): with M the information by Louis'
formula (1982, JRSS B 44, 226-233), complete-data information less the scores' covariance, each
iteration gives a pseudo-value

    psi_t = theta_t + M^-1 g_t,    E[psi_t] = theta-hat to second order,

whose mean is the estimate. Its Monte Carlo error comes from batch means and from the chains'
autocorrelation, whichever is larger. The fit stops when that error, the step still to go from the
mean of theta_t, and the relative error of each standard error are below `tol`, the first two in
standard errors.

Scores take the motion for their own theta, by the curvature of the rows where the metric was made.
Too far from there more of the information is missing, and M a small difference of large and noisy
matrices. So the motion is made anew whenever the scores' covariance says so, and the average starts
again.
"""

from copy import deepcopy
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np

from sklmm._threads import single_blas
from sklmm.engine.algorithms.averaging import (
    Window,
    cap,
    longest,
    missing_share,
    newton,
    own_noise,
)
from sklmm.engine.algorithms.loop import Iteration, joint_loss
from sklmm.engine.algorithms.marginal import marginal
from sklmm.engine.algorithms.start import start_theta
from sklmm.engine.latent.complete_data import CompleteData
from sklmm.engine.latent.mode import CENTRE_TOL
from sklmm.engine.linalg.chains import balanced, chain_covariance
from sklmm.engine.linalg.newton import inverse
from sklmm.engine.posterior.assemble import Noise
from sklmm.engine.posterior.from_chains import Integrated, Kept
from sklmm.engine.posterior.gaussian import with_coefficients
from sklmm.engine.theta.space import Theta

QUIET_STEPS = 2
MAX_BURN_IN = 60
#: How far beyond its own Monte Carlo noise a step may go for burn-in to end, and for the metric,
#: the motion and the information to stay where they are.
QUIET = 0.1
STILL = 0.01
#: Missing over complete-data information at which the motion is made anew, and that over a fresh
#: motion's.
MOST_MISSING = 1.0
MOST_STALE = 4.0
MIN_WINDOW = 10
PLATEAU = 10
GAIN_POWER = 0.7
#: Numbers in what is kept of the chains' own estimates.
MOST_KEPT = 1 << 22


class Draws(NamedTuple):
    """What the chains said at one theta, flat [m].

    x and its pull [P, C], the acceptance rate, log p(y, x) [C], scores [m, C] and their covariance
    [m, m].
    """

    flat: np.ndarray
    theta: Theta
    x: np.ndarray
    pull: np.ndarray
    rate: float
    value: np.ndarray
    scores: np.ndarray
    covariance: np.ndarray

    @property
    def score(self):
        """The chains' mean score [m]."""
        return self.scores.mean(axis=1)


class MonteCarlo:
    """The fit of a latent part by a sampler: burn-in, and then the average.

    Chains follow theta: `mode` [P] and `field`, the motion of x with theta, are those of the last
    theta at which they were made, and `moved` [m] is theta's way since the last draws.
    """

    stochastic = True

    def __init__(self, latent, sampler, tol, seed, n_draws, start=None):
        self.latent, self.space, self.sampler = latent, latent.space, sampler
        self.tol, self.n_draws, self.start = tol, n_draws, start
        self.seed, self.rng = seed, np.random.default_rng(seed)
        self.kept, self.integrated, self.averaged = Kept(latent, n_draws), None, None
        self.unsolved, self.prior = 0.0, None

    def steps(self):
        """Yield `Iteration`s; the last one's `estimate` is the average."""
        theta, self.mode = start_theta(self.latent) if self.start is None else self.start
        self.flat, self.moved = self.space.join(theta), np.zeros(self.space.size)
        self.field = None
        while True:
            yield from self._burn_in()
            yield from self._average()

    def _burn_in(self):
        """Newton steps until they are no longer than their noise."""
        space = self.space
        quiet, t, follow = 0, 0, True
        while quiet < QUIET_STEPS and t < MAX_BURN_IN:
            t += 1
            if follow:
                self._follow()
            draws = self._draw()
            if follow:
                self.complete = self._information().mean(axis=2)
                self.missing = missing_share(self.complete, draws.covariance)
            step, length = newton(self.complete + draws.covariance, draws.score)
            noise = own_noise(self.complete, draws.covariance / draws.scores.shape[1])
            stale = self._is_stale(draws)
            quiet = quiet + 1 if length < noise + QUIET and not stale else 0
            follow = length > noise + STILL or stale
            yield self._iteration(draws, length, inverse(self.complete))
            self._move(cap(space, self.flat, step))

    def _follow(self):
        """Make the metric and the motion of x anew at theta."""
        latent, start, theta = self.latent, self.mode, self.space.split(self.flat)
        if self.field is not None:
            start = start + self.field.shift @ self.moved
        self.moved = np.zeros(self.space.size)
        self.mode, equations = latent.mode(theta, start, CENTRE_TOL)
        self.field = latent.field(theta, equations, self.mode)
        self.sampler.place(latent, theta, equations, self.mode, self.rng)
        self.unsolved = equations.unsolved

    def _draw(self):
        """`Draws` at theta, the chains moved along with it."""
        theta = self.space.split(self.flat)
        # Rows have the threads: products with a column for each chain are small.
        with single_blas():
            self.sampler.shift(self.field.shift @ self.moved)
            x, pull, rate = self.sampler.draw(theta, self.rng)
            precision = self.sampler.precision
            field = self.field.at(self.flat)
            self.seen = seen = CompleteData(self.latent, theta, field, x, precision)
        covariance, scores = chain_covariance(seen.scores), seen.scores
        self.prior = self.space.log_prior(theta)
        if self.prior is not None:
            scores = scores + self.prior.gradient[:, None]
        self.last = Draws(self.flat, theta, x, pull, rate, seen.value, scores, covariance)
        return self.last

    def _information(self):
        """The last draws' complete-data information [m, m, C], less noise that their pull tells.

        It may be most of it: a few draws' information alone makes steps that are far too long.
        """
        out = balanced(self.seen.information(), self.field.push.T @ self.last.pull)
        return out if self.prior is None else out + self.prior.curvature[:, :, None]

    def _move(self, step):
        self.flat, self.moved = self.space.bounded(self.flat, step)

    def _is_stale(self, draws):
        """Whether theta has left the motion behind, as the scores' covariance tells."""
        missing = missing_share(self.complete, draws.covariance)
        return missing > max(MOST_MISSING, MOST_STALE * self.missing)

    def _average(self):
        """Shrinking steps, until the average of their pseudo-values is known to the tolerance.

        Or until the motion is stale.
        """
        space, draws = self.space, None
        window = Window(self.complete, self.tol)
        self.kept, (beta_spread, spreads) = Kept(self.latent, self.n_draws), self.sampler.spread()
        shift = self.field.shift[: self.latent.problem.p]
        self.integrated = Integrated(shift, beta_spread)
        while draws is None or not self._is_stale(draws):
            draws = self._draw()
            self.integrated.add(draws.flat, draws.x, draws.pull)
            self.kept.add(draws.theta, draws.x, draws.pull, spreads)
            window.add(draws)
            if window.needs_information:
                window.inform(self._information())
            self.averaged = found = window.average()
            n = len(found.used)
            point = found.estimate, found.error
            beta_error, beta_std_error, beta_std = self.integrated.summarize(*point, n)
            relative = max(
                *(longest(e, found.std) for e in (found.error, found.std_error, found.drift)),
                *(longest(e, beta_std) for e in (beta_error, beta_std_error)),
            )
            left = window.size * ((relative / self.tol) ** 2 - 1)
            yield self._iteration(
                draws,
                relative,
                found.covariance,
                done=n >= MIN_WINDOW and relative < self.tol,
                estimate=space.split(found.estimate),
                spread=np.diag(np.concatenate([beta_error, found.error]) ** 2),
                left=max(left, MIN_WINDOW - n, 1),
            )
            # More than the information, so that its own noise makes no step too long.
            step, length = newton(found.information, draws.score)
            gain = min(1.0, (PLATEAU / window.size) ** GAIN_POWER)
            self._move(gain / max(length, 1.0) * step)

    def _iteration(self, draws, length, covariance, **verdict):
        """The `Iteration` of draws; without a verdict the fit may end there, and is not done."""
        latent, theta = self.latent, draws.theta
        beta = theta.beta
        if latent.full.reml:
            beta = draws.x[: latent.problem.p].mean(axis=1)
        effects = latent.layout.effects(theta.factors, draws.x[:, :1])
        verdict = {"done": False, "estimate": theta, "spread": None, "left": np.nan} | verdict
        return Iteration(
            theta=theta._replace(beta=beta),
            loss=joint_loss(latent.full, theta.factors, -draws.value.mean()),
            loglik=np.nan,
            decrement=length,
            covariance=self.space.with_beta(covariance),
            acceptance_rate=draws.rate,
            draw=tuple(b[:, :, 0] for b in effects),
            **verdict,
        )

    def posterior(self, last):
        """Means and covariances over the draws since burn-in; root from the latest."""
        latent, rng, kept = self.latent, deepcopy(self.rng), self.kept
        if not kept.n:
            # Stopped in the burn-in.
            kept, spreads = Kept(latent, self.n_draws), self.sampler.spread()[1]
            kept.add(last.estimate, self.last.x, self.last.pull, spreads)
        if latent.full.reml:
            posterior = kept.posterior(self.integrated)
        else:
            own = kept.given_coefficients()
            shift = self.field.at(self.space.join(last.estimate)).shift
            posterior = with_coefficients(own, last, latent.layout, shift, rng)
        theta = last.estimate._replace(beta=last.estimate.beta[: self.space.p])
        if self.averaged is not None:
            within = np.array(self.integrated.within) if latent.full.reml else None
            noise = Noise(self.averaged.noise, within, *kept.errors())
            posterior = posterior._replace(noise=noise)
        # Until it is asked for, the rows are kept, without what was made of them.
        problem = replace(latent.full, rows=latent.full.rows.bare())
        given = problem, latent.like, latent.space.parameters, theta, self.mode, self.seed
        return posterior._replace(
            estimate=partial(marginal, *given),
            unsolved=self.unsolved,
            chains=self._chains(last),
        )

    def _chains(self, last):
        """Each chain's estimates of (beta, theta) over the averaged iterations, [C, n, p + m]."""
        if self.averaged is None:
            return None
        estimate, used = self.space.join(last.estimate), self.averaged.used
        thetas, scores = (np.array([getattr(d, name) for d in used]) for name in ("flat", "scores"))
        own = thetas[:, :, None] + self.averaged.covariance @ scores
        if self.latent.full.reml:
            own = np.concatenate([self.integrated.moved(estimate, len(own)), own], axis=1)
        most = max(MOST_KEPT // max(own[:, :, 0].size, 1), 2)
        return own[:, :, :most].transpose(2, 0, 1)
