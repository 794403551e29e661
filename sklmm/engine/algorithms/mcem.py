"""Monte Carlo EM: the schedule for kernels that draw the latent variables.

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

A motion made at another theta leaves more of the information missing. Where the data tell much of
each effect that is soon nearly all of it, and M a small difference of large and noisy matrices. So
the motion is made anew whenever the scores' covariance says so, and the average starts again.
"""

from copy import deepcopy

import numpy as np

from sklmm.engine.algorithms.averaging import (
    average,
    cap,
    invert,
    longest,
    missing_share,
    newton,
    observed_information,
    own_noise,
)
from sklmm.engine.algorithms.loop import Iteration, joint_loss
from sklmm.engine.algorithms.start_glm import start_theta
from sklmm.engine.latent.chains import (
    chain_covariance,
    information_noise,
    mean_information,
    std_error_noise,
)
from sklmm.engine.latent.mode import CENTRE_TOL
from sklmm.engine.posterior.from_chains import Integrated, Kept
from sklmm.engine.posterior.importance import marginal_loglik

QUIET_STEPS = 3
MAX_BURN_IN = 60
#: How far beyond its own Monte Carlo noise a step may go for burn-in to end, and for the metric,
#: the motion and the information to stay where they are.
QUIET = 0.1
STILL = 0.01
#: Missing over complete-data information at which the motion is made anew, and that over a fresh
#: motion's.
MOST_MISSING = 1.0
MOST_STALE = 4.0
MIN_WINDOW = 12
PLATEAU = 10
GAIN_POWER = 0.7
#: Iterations of the average at which the information is computed: from a quarter of them on, two.
INFORMATIONS = (5, 10, 20, 40, 80, 160)
#: Numbers in what is kept of the chains' own estimates.
MOST_KEPT = 1 << 22


class MonteCarlo:
    """One fit: the sampler's state, the draws kept, and the generator of `Iteration`s."""

    stochastic = True

    def __init__(self, latent, sampler, tol, seed, n_draws, start=None):
        self.latent = latent
        self.space = latent.space
        self.sampler = sampler
        self.tol = tol
        self.rng = np.random.default_rng(seed)
        self.start = start
        self.n_draws = n_draws
        self.kept, self.integrated = Kept(latent, n_draws), None
        self.used, self.observed = None, None
        self.unsolved = 0.0

    def steps(self):
        """Yield `Iteration`s; the last one's `estimate` is the average."""
        theta, mode = start_theta(self.latent) if self.start is None else self.start
        self.flat, self.moved = self.space.join(theta), np.zeros(self.space.size)
        self.mode, self.field = mode, None
        while True:
            yield from self._burn_in()
            yield from self._average()

    def _burn_in(self):
        space = self.space
        quiet, t, follow = 0, 0, True
        while quiet < QUIET_STEPS and t < MAX_BURN_IN:
            t += 1
            theta = space.split(self.flat)
            if follow:
                self._follow(theta)
            x, rate, value, scores = self._draw(theta)
            covariance = chain_covariance(scores)
            if follow:
                self.complete = self.latent.information(theta, self.field, x, few=True)
                self.missing = missing_share(space, self.complete, covariance)
            step, decrement = newton(space, self.complete + covariance, scores.mean(axis=1))
            noise = own_noise(space, self.complete, covariance / scores.shape[1])
            stale = self._stale(covariance)
            quiet = quiet + 1 if decrement < noise + QUIET and not stale else 0
            follow = decrement > noise + STILL or stale
            yield self._step(theta, x, value, rate, decrement, cov=invert(space, self.complete))
            self.moved = cap(space, self.flat, step)
            self.flat, self.moved = space.bounded(self.flat, self.moved)

    def _follow(self, theta):
        """Make the metric and the motion of x anew at theta."""
        latent, start = self.latent, self.mode
        if self.field is not None:
            start = start + np.asarray(self.field.shift) @ self.moved
        self.moved = np.zeros(self.space.size)
        self.mode, equations = latent.mode(theta, start, CENTRE_TOL)
        self.field = latent.field(theta, equations, self.mode)
        self.sampler.place(latent, theta, equations, self.mode, self.rng)
        self.unsolved = equations.unsolved

    def _stale(self, covariance):
        """Whether theta has left the motion behind, as the scores' covariance tells."""
        missing = missing_share(self.space, self.complete, covariance)
        return missing > max(MOST_MISSING, MOST_STALE * self.missing)

    def _average(self):
        """Yield `Iteration`s until the fit is done, or the motion is stale."""
        space = self.space
        window, covariances, informations = [], [], {}
        complete, noisy = self.complete, False
        self.kept = Kept(self.latent, self.n_draws)
        beta_spread, spreads = self.sampler.spread()
        shift = np.asarray(self.field.shift)[: self.latent.problem.p]
        self.integrated = Integrated(shift, beta_spread)
        while not (covariances and self._stale(covariances[-1])):
            theta = space.split(self.flat)
            x, rate, value, scores = self._draw(theta)
            window.append((self.flat, scores))
            covariances.append(chain_covariance(scores))
            self.integrated.add(self.flat, x, self.pull)
            self.kept = self.kept.plus(theta, x, self.pull, spreads)
            first = len(window) // 4
            if len(window) in INFORMATIONS or noisy:
                balance = np.asarray(self.field.push).T @ self.pull
                informations[len(window)] = self.latent.informations(
                    theta, self.field, x, balance=balance
                )
                informations = {t: columns for t, columns in informations.items() if t > first}
                means = [mean_information(columns, space.p) for columns in informations.values()]
                complete = np.mean(means, axis=0)
            used = window[first:]
            missing = np.mean(covariances[first:], axis=0)
            self.used, self.observed = used, observed_information(space, complete, missing)
            estimate, error, drift = average(space, used, self.observed)
            covariance = invert(space, self.observed)
            std = np.sqrt(np.diag(covariance))
            # What is missing may be far more than what is observed, whose error then is large.
            parts = np.einsum("am,tmn,na->ta", covariance, covariances[first:], covariance)
            also = information_noise(list(informations.values()), covariance)
            noisy = informations and longest(0.5 * np.sqrt(also), std**2) > self.tol
            error = np.maximum(error, std_error_noise(parts, std, scores.shape[1], also))
            beta_error, beta_std = self.integrated.summarize(estimate, len(used))
            relative = max(longest(error, std), longest(drift, std), longest(beta_error, beta_std))
            done = len(used) >= MIN_WINDOW and relative < self.tol
            yield self._step(
                theta,
                x,
                value,
                rate,
                relative,
                done,
                space.split(estimate),
                covariance,
                np.diag(np.concatenate([beta_error, error]) ** 2),
                left=max(len(window) * ((relative / self.tol) ** 2 - 1), MIN_WINDOW - len(used), 1),
            )
            # More than the information, so that its own noise makes no step too long.
            step, decrement = newton(space, complete + missing, scores.mean(axis=1))
            gain = min(1.0, (PLATEAU / len(window)) ** GAIN_POWER)
            self.moved = gain / max(decrement, 1.0) * step
            self.flat, self.moved = space.bounded(self.flat, self.moved)

    def _draw(self, theta):
        """Draws at theta, the chains moved along with it.

        Returns x, the acceptance rate, log p(y, x) and the scores.
        """
        self.sampler.shift(np.asarray(self.field.shift) @ self.moved)
        x, self.pull, rate = self.sampler.draw(theta, self.rng)
        self.x = x
        value, scores = self.latent.scores(theta, self.field, x)
        return x, rate, value, scores

    def _step(
        self,
        theta,
        x,
        value,
        rate,
        decrement,
        done=False,
        estimate=None,
        cov=None,
        spread=None,
        left=np.nan,
    ):
        estimate = theta if estimate is None else estimate
        p = self.latent.problem.p
        beta = x[:p].mean(axis=1) if self.latent.full.reml else theta.beta
        return Iteration(
            theta=theta._replace(beta=beta),
            loss=joint_loss(self.latent.full, theta.factors, -value.mean()),
            loglik=np.nan,
            decrement=decrement,
            done=done,
            estimate=estimate,
            covariance=self.space.with_beta(cov),
            spread=spread,
            acceptance_rate=rate,
            draw=self._one_draw(theta, x),
            left=left,
        )

    def _one_draw(self, theta, x):
        effects = self.latent.layout.effects(theta.factors, x[:, :1])
        return tuple(b[:, :, 0] for b in effects)

    def _loglik(self, theta, rng):
        theta = theta._replace(beta=theta.beta[: self.space.p])
        return marginal_loglik(self.latent, theta, self.mode, rng)

    def posterior(self, last):
        """Means and covariances over the draws since burn-in; root from the latest."""
        rng, kept = deepcopy(self.rng), self.kept
        if not kept.n:
            # Stopped in the burn-in.
            kept = kept.plus(last.estimate, self.x, self.pull, self.sampler.spread()[1])
        if self.latent.full.reml:
            posterior = kept.posterior(self.integrated)
        else:
            posterior = kept.given_coefficients()
            shift = np.asarray(self.field.shift)
            root = self.latent.with_coefficients(last, shift, posterior.root, rng)
            posterior = posterior._replace(beta=last.estimate.beta, root=root)
        found = self._loglik(last.estimate, rng)
        if found is not None:
            value = found.value + self.latent.log_constant
            posterior = posterior._replace(loglik=value, loglik_error=found.error)
        return posterior._replace(unsolved=self.unsolved, chains=self._chains(last))

    def _chains(self, last):
        """Each chain's estimates of (beta, theta) over the averaged iterations, [C, n, p + m]."""
        if self.used is None:
            return None
        estimate = self.space.join(last.estimate)
        thetas = np.array([flat for flat, _ in self.used])
        scores = np.array([s for _, s in self.used])
        own = thetas[:, :, None] + invert(self.space, self.observed) @ scores
        if self.latent.full.reml:
            own = np.concatenate([self.integrated.moved(estimate, len(own)), own], axis=1)
        most = max(MOST_KEPT // max(own[:, :, 0].size, 1), 2)
        return own[:, :, :most].transpose(2, 0, 1)
