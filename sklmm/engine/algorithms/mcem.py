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
from sklmm.engine.algorithms.loop import EMStep
from sklmm.engine.algorithms.start_glm import start_theta
from sklmm.engine.equations.score import Posterior, joint_loss
from sklmm.engine.latent.chains import (
    batch_error,
    chain_covariance,
    chain_error,
    excess,
    information_noise,
    mean_information,
    std_error_noise,
)
from sklmm.engine.latent.mode import CENTRE_TOL
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
    """One fit: the sampler's state, the draws kept, and the generator of `EMStep`s."""

    stochastic = True

    def __init__(self, latent, sampler, tol, seed, start=None, n_draws=64):
        self.latent = latent
        self.space = latent.space
        self.sampler = sampler
        self.tol = tol
        self.rng = np.random.default_rng(seed)
        self.start = start
        self.n_draws = n_draws
        self.kept, self.moments = [], None
        self.integrated, self.used, self.observed = None, None, None
        self.unsolved = 0.0

    def steps(self):
        """Yield `EMStep`s; the last one's `estimate` is the average."""
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
            x, info, value, scores = self._draw(theta)
            covariance = chain_covariance(scores)
            if follow:
                self.complete = self.latent.information(theta, self.field, x, few=True)
                self.missing = missing_share(space, self.complete, covariance)
            step, decrement = newton(space, self.complete + covariance, scores.mean(axis=1))
            noise = own_noise(space, self.complete, covariance / scores.shape[1])
            stale = self._stale(covariance)
            quiet = quiet + 1 if decrement < noise + QUIET and not stale else 0
            follow = decrement > noise + STILL or stale
            yield self._step(theta, x, value, info, decrement, cov=invert(space, self.complete))
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
        """Yield `EMStep`s until the fit is done, or the motion is stale."""
        space = self.space
        window, covariances, informations = [], [], {}
        complete, noisy = self.complete, False
        self.kept, self.moments = [], None
        beta_spread, spreads = self.sampler.spread()
        shift = np.asarray(self.field.shift)[: self.latent.problem.p]
        self.integrated = _Integrated(shift, beta_spread)
        while not (covariances and self._stale(covariances[-1])):
            theta = space.split(self.flat)
            x, info, value, scores = self._draw(theta)
            window.append((self.flat, scores))
            covariances.append(chain_covariance(scores))
            self.integrated.add(self.flat, x, self.pull)
            self._keep(theta, x, spreads)
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
                info,
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
        """Draws at theta, the chains moved along with it: (x, info, log p(y, x), scores)."""
        self.sampler.shift(np.asarray(self.field.shift) @ self.moved)
        x, self.pull, info = self.sampler.draw(theta, self.rng)
        self.x = x
        value, scores = self.latent.scores(theta, self.field, x)
        return x, info, value, scores

    def _step(
        self,
        theta,
        x,
        value,
        info,
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
        return EMStep(
            theta=theta._replace(beta=beta),
            loss=joint_loss(self.latent.full, theta.factors, -value.mean()),
            loglik=np.nan,
            decrement=decrement,
            info={**info, "draw": self._one_draw(theta, x), "left": left},
            done=done,
            estimate=estimate,
            covariance=cov,
            spread=spread,
        )

    def _one_draw(self, theta, x):
        effects = self.latent.layout.effects(theta.factors, x[:, :1])
        return tuple(b[:, :, 0] for b in effects)

    def _keep(self, theta, x, spread):
        """Add what draws x say of the effects' means and covariances; keep some draws."""
        layout = self.latent.layout
        effects = layout.effects(theta.factors, x)
        beta = x[: self.latent.problem.p]
        flat = np.concatenate([beta, *(b.reshape(-1, x.shape[1]) for b in effects)])
        pulls = layout.effects(theta.factors, self.pull)
        new = [beta.mean(axis=1)]
        for L, b, pull, own in zip(theta.factors, effects, pulls, spread, strict=True):
            own = np.einsum("ab,jbc,dc->jad", L, own[: len(b)], L)
            new += [b.mean(axis=2) + pull.mean(axis=2), own + excess(b, pull)]
        old = self.moments or (0, [0.0] * len(new))
        self.moments = old[0] + 1, [a + b for a, b in zip(old[1], new, strict=True)]
        most = -(-self.n_draws // x.shape[1])
        self.kept = [*self.kept, flat.astype(np.float32)][-most:]

    def posterior(self, last, n_draws):
        """Means and covariances over the draws since burn-in; root from the latest."""
        latent, rng = self.latent, deepcopy(self.rng)
        if self.moments is None:
            self._keep(last.estimate, self.x, self.sampler.spread()[1])
        p, (n, sums) = latent.problem.p, self.moments
        draws = np.concatenate(self.kept, axis=1).astype(float)[:, -n_draws:]
        draws -= draws.mean(axis=1, keepdims=True)
        n_draws = draws.shape[1]
        root = draws / np.sqrt(max(n_draws - 1, 1))
        beta, beta_cov, slope = last.estimate.beta, None, np.zeros((len(root) - p, p))
        if latent.full.reml:
            beta_cov = root[:p] @ root[:p].T
            slope = root[p:] @ root[:p].T @ np.linalg.pinv(beta_cov, hermitian=True)
            beta = sums[0] / n
            if self.integrated is not None:
                beta, beta_cov = self.integrated.mean, self.integrated.covariance
        else:
            root = self.latent.with_coefficients(last, np.asarray(self.field.shift), root, rng)
        first, effects, covs = 0, [], []
        for b, mean, cov in zip(latent.full.blocks, sums[1::2], sums[2::2], strict=True):
            follows = slope[first : first + b.n_levels * b.r].reshape(b.n_levels, b.r, p)
            first += b.n_levels * b.r
            cov = cov / n
            if p:
                cov = cov - np.einsum("jap,pq,jbq->jab", follows, beta_cov, follows)
            values, vectors = np.linalg.eigh(cov)
            effects.append(mean / n)
            covs.append(np.einsum("jab,jb,jcb->jac", vectors, np.maximum(values, 0), vectors))
        found = self._loglik(last.estimate, rng)
        value = None if found is None else found.value + latent.log_constant
        error = 0.0 if found is None else found.error
        return Posterior(
            beta,
            tuple(effects),
            tuple(covs),
            beta_cov,
            root,
            value,
            loglik_error=error,
            unsolved=self.unsolved,
            chains=self._chains(last),
        )

    def _loglik(self, theta, rng):
        theta = theta._replace(beta=theta.beta[: self.space.p])
        return marginal_loglik(self.latent, theta, self.mode, rng)

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


class _Integrated:
    """Mean and covariance of coefficients that REML integrates out, over the averaged iterations.

    The means are moved from each theta_t to the estimate along `shift`, d beta / d theta [p, m].
    """

    def __init__(self, shift, spread):
        self.shift, self.spread = shift, spread
        self.thetas, self.draws, self.within = [], [], []

    def add(self, flat, x, pull):
        """Record the draws x and their pull [P, C] at theta."""
        beta, pull = x[: len(self.shift)], pull[: len(self.shift)]
        self.thetas.append(flat)
        self.draws.append(beta + pull)
        self.within.append(self.spread + excess(beta, pull))

    def moved(self, estimate, n_used):
        """The draws [n, p, C] of the last `n_used` iterations, moved to the estimate."""
        away = estimate - np.array(self.thetas[-n_used:])
        return np.array(self.draws[-n_used:]) + (away @ self.shift.T)[:, :, None]

    def summarize(self, estimate, n_used):
        """Monte Carlo and standard errors [p] from the last `n_used` iterations."""
        draws = np.array(self.draws[-n_used:])
        means = draws.mean(axis=2)
        pseudo = self.moved(estimate, n_used).mean(axis=2)
        self.mean, self.covariance = pseudo.mean(axis=0), np.mean(self.within, axis=0)
        std = np.sqrt(np.diag(self.covariance))
        error = np.maximum(batch_error(pseudo), chain_error(draws - means[:, :, None]))
        parts = np.diagonal(self.within, axis1=1, axis2=2)
        return np.maximum(error, 0.5 * batch_error(parts) / std), std
