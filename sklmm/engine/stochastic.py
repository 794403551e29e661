"""Monte Carlo EM: the schedule for kernels that draw the latent variables.

Burn-in takes Newton steps on the noisy score with the complete-data information, until a step is
within its own noise; the metric and the motion of x follow theta. Then both are frozen, the steps
shrink, and the estimate is an average (Polyak & Juditsky 1992): with M the information by Louis'
formula (1982, JRSS B 44, 226-233), complete-data information less the scores' covariance, each
iteration gives a pseudo-value

    psi_t = theta_t + M^-1 g_t,    E[psi_t] = theta-hat to second order,

whose mean is the estimate. Its Monte Carlo error comes from batch means and from the chains'
autocorrelation, whichever is larger. The fit stops when that error, and the step still to go from
the mean of theta_t, are below `tol` standard errors for every parameter.
"""

from copy import deepcopy

import numpy as np

from sklmm.engine.collect import inverse_of_free
from sklmm.engine.e_step.base import (
    Posterior,
    joint_loss,
    mirrored,
    rescaled,
    vech_indices,
)
from sklmm.engine.em import EMStep
from sklmm.engine.importance import marginal_loglik
from sklmm.engine.latent import CENTRE_TOL
from sklmm.engine.start import start_theta

QUIET_STEPS = 3
MAX_BURN_IN = 60
#: Decrement above which the metric, the motion and the information follow theta.
FAR = 0.5
MIN_WINDOW = 12
PLATEAU = 10
GAIN_POWER = 0.7
#: Iterations of the average at which the information is computed.
INFORMATIONS = (1, 7, 19, 43, 91)
#: Share of the complete-data information that the missing data leave at least.
LEAST_OBSERVED = 0.1
MAX_MEMORY = 0.95
NOISE_STEPS = 2.0
MAX_STEP = 2.0
MAX_RAW_STEP = 1.0
MIN_MOVE = 0.01
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
        self.kept, self.sums, self.squares, self.n_total = [], None, None, 0
        self.integrated, self.used, self.observed = None, None, None
        self.unsolved = 0.0

    def steps(self):
        """Yield `EMStep`s; the last one's `estimate` is the average."""
        theta, mode = start_theta(self.latent) if self.start is None else self.start
        self.flat, self.moved = self.space.join(theta), np.zeros(self.space.size)
        yield from self._burn_in(mode)
        yield from self._average()

    def _burn_in(self, mode):
        space, latent = self.space, self.latent
        quiet, t, decrement = 0, 0, np.inf
        while quiet < QUIET_STEPS and t < MAX_BURN_IN:
            t += 1
            theta = space.split(self.flat)
            follow = decrement > FAR
            if follow:
                mode = mode + np.asarray(self.field.shift) @ self.moved if t > 1 else mode
                self.moved = np.zeros(space.size)
                mode, equations = latent.mode(theta, mode, CENTRE_TOL)
                self.mode = mode
                self.field = latent.field(theta, equations, mode)
                self.sampler.place(latent, theta, equations, mode, self.rng)
                self.unsolved = equations.unsolved
            x, info, value, scores = self._draw(theta)
            covariance = chain_covariance(scores)
            if follow:
                self.complete = latent.information(theta, self.field, x, few=True)
            step, decrement = newton(space, self.complete + covariance, scores.mean(axis=1))
            noise = own_noise(space, self.complete, covariance / scores.shape[1])
            quiet = quiet + 1 if decrement < noise else 0
            yield self._step(theta, x, value, info, decrement, cov=invert(space, self.complete))
            self.moved = cap(space, self.flat, step)
            self.flat, self.moved = space.bounded(self.flat, self.moved)

    def _average(self):
        space = self.space
        window, covariances, informations = [], [], []
        self.integrated = _Integrated(np.asarray(self.field.shift)[: self.latent.problem.p])
        while True:
            theta = space.split(self.flat)
            x, info, value, scores = self._draw(theta)
            window.append((self.flat, scores))
            covariances.append(chain_covariance(scores))
            self.integrated.add(self.flat, x)
            self._keep(theta, x)
            if len(window) in INFORMATIONS:
                informations.append(self.latent.information(theta, self.field, x))
            complete = np.mean(informations, axis=0)
            used = window[len(window) // 4 :]
            missing = np.mean(covariances[len(window) // 4 :], axis=0)
            self.used, self.observed = used, observed_information(space, complete, missing)
            estimate, error, drift = average(space, used, self.observed)
            covariance = invert(space, self.observed)
            std = np.sqrt(np.diag(covariance))
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
        x, info = self.sampler.draw(theta, self.rng)
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

    def _keep(self, theta, x):
        effects = self.latent.layout.effects(theta.factors, x)
        beta = x[: self.latent.problem.p]
        flat = np.concatenate([beta, *(b.reshape(-1, x.shape[1]) for b in effects)])
        if self.sums is None:
            self.sums, self.squares = np.zeros(len(flat)), np.zeros(len(flat))
        self.sums += flat.sum(axis=1)
        self.squares += (flat**2).sum(axis=1)
        self.n_total += x.shape[1]
        most = -(-self.n_draws // x.shape[1])
        self.kept = [*self.kept, flat.astype(np.float32)][-most:]

    def posterior(self, last, n_draws):
        """Means and SDs over the draws since burn-in; root from the latest."""
        latent, rng = self.latent, deepcopy(self.rng)
        if not self.kept:
            self._keep(last.estimate, self.x)
        p = latent.problem.p
        draws = np.concatenate(self.kept, axis=1).astype(float)[:, -n_draws:]
        mean = self.sums / self.n_total
        draws -= draws.mean(axis=1, keepdims=True)
        n_draws = draws.shape[1]
        root = draws / np.sqrt(max(n_draws - 1, 1))
        variance = np.maximum(self.squares / self.n_total - mean**2, 0.0)
        beta, beta_cov, given = last.estimate.beta, None, root[p:]
        if latent.full.reml:
            own = root[:p] @ root[:p].T
            slope = root[p:] @ root[:p].T @ np.linalg.pinv(own, hermitian=True)
            beta, beta_cov = mean[:p], own
            if self.integrated is not None:
                beta, beta_cov = self.integrated.mean, self.integrated.covariance
            variance[p:] -= np.einsum("qp,pr,qr->q", slope, beta_cov, slope)
            given = given - slope @ root[:p]
        else:
            root = self.latent.with_coefficients(last, self.field, root, rng)
        first = p
        effects, covs = [], []
        for b in latent.full.blocks:
            part = slice(first, first + b.n_levels * b.r)
            effects.append(mean[part].reshape(b.n_levels, b.r))
            std = np.sqrt(np.maximum(variance[part], 0.0)).reshape(b.n_levels, b.r)
            own = given[part.start - p : part.stop - p].reshape(b.n_levels, b.r, -1)
            own = rescaled(own, std)
            covs.append(np.einsum("jam,jbm->jab", own, own))
            first = part.stop
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

    def __init__(self, shift):
        self.shift = shift
        self.thetas, self.draws, self.within = [], [], 0.0

    def add(self, flat, x):
        """Record the draws x [P, C] at theta."""
        beta = x[: len(self.shift)]
        self.thetas.append(flat)
        self.draws.append(beta)
        self.within = self.within + chain_covariance(beta)

    def moved(self, estimate, n_used):
        """The draws [n, p, C] of the last `n_used` iterations, moved to the estimate."""
        away = estimate - np.array(self.thetas[-n_used:])
        return np.array(self.draws[-n_used:]) + (away @ self.shift.T)[:, :, None]

    def summarize(self, estimate, n_used):
        """Monte Carlo and standard errors [p] from the last `n_used` iterations."""
        draws = np.array(self.draws[-n_used:])
        means = draws.mean(axis=2)
        pseudo = self.moved(estimate, n_used).mean(axis=2)
        self.mean, self.covariance = pseudo.mean(axis=0), self.within / len(self.draws)
        error = np.maximum(batch_error(pseudo), chain_error(draws - means[:, :, None]))
        return error, np.sqrt(np.diag(self.covariance))


def newton(space, information, score):
    """Step in theta [m] by absolute eigenvalues, and its length in standard errors."""
    free = space.free
    delta = np.zeros(space.size)
    if not free.any():
        return delta, 0.0
    part = information[np.ix_(free, free)]
    scale = np.sqrt(np.maximum(np.abs(np.diag(part)), 1e-300))
    values, vectors = np.linalg.eigh(part / np.outer(scale, scale))
    size = np.maximum(np.abs(values), 1e-4 * np.abs(values).max())
    projected = vectors.T @ (score[free] / scale)
    delta[free] = vectors @ (projected / size) / scale
    return delta, float(np.sqrt(np.sum(projected**2 / size)))


def cap(space, flat, step):
    """The step, shortened so that no SD is more than halved or doubled and nothing else leaps."""
    theta = space.split(flat)
    limits = [np.full(space.p, MAX_STEP)]
    for L in theta.factors:
        rows, _ = vech_indices(len(L))
        limits.append(0.5 * np.linalg.norm(L, axis=1)[rows] + MIN_MOVE)
    limits.append(np.full(len(theta.raw), MAX_RAW_STEP))
    return step * min(1.0, float(np.min(np.concatenate(limits) / np.maximum(abs(step), 1e-300))))


def invert(space, information):
    """Covariance [m, m] of the free entries of theta, 0 for pinned ones."""
    return inverse_of_free(space.free, information)


def own_noise(space, information, noise):
    """The length that Monte Carlo noise [m, m] alone gives a Newton step, with some margin."""
    free = np.ix_(space.free, space.free)
    return (
        NOISE_STEPS * np.sqrt(max(np.sum(invert(space, information)[free] * noise[free]), 0)) + 0.1
    )


def observed_information(space, complete, covariance):
    """Louis' formula, kept positive: at least `LEAST_OBSERVED` of the complete-data information."""
    free = np.ix_(space.free, space.free)
    values, vectors = np.linalg.eigh(complete[free])
    root = vectors * np.sqrt(np.maximum(values, 1e-9 * max(values.max(initial=0.0), 1e-300)))
    inverse = np.linalg.inv(root) if len(root) else root
    left, turned = np.linalg.eigh(np.eye(len(root)) - inverse @ covariance[free] @ inverse.T)
    out = np.zeros_like(complete)
    out[free] = root @ (turned * np.maximum(left, LEAST_OBSERVED)) @ turned.T @ root.T
    return out


def average(space, window, information):
    """Estimate, its Monte Carlo errors and the remaining step, each [m]."""
    inverse = invert(space, information)
    theta = np.array([flat for flat, _ in window])
    scores = np.array([s.mean(axis=1) for _, s in window])
    pseudo = theta + scores @ inverse
    away = np.array([inverse @ (s - s.mean(axis=1, keepdims=True)) for _, s in window])
    error = np.maximum(batch_error(pseudo), chain_error(away))
    return pseudo.mean(axis=0), error, scores.mean(axis=0) @ inverse


def chain_covariance(draws):
    """Covariance [m, m] of draws [m, C], from chains that are not each other's mirror images."""
    C = draws.shape[1]
    halves = (draws[:, : C // 2], draws[:, C // 2 :]) if mirrored(C) else (draws,)
    return np.mean([np.atleast_2d(np.cov(half)) for half in halves], axis=0)


def chain_error(away):
    """Standard error of the mean of draws, deviations [n, m, C], from the chains' own memory.

    The chains' autocorrelation at lag 1 is known well, from all of them, where batch means of a
    short window are not: Var / (n C) (1 + rho) / (1 - rho), of pairs where chains are mirrored.
    """
    C = away.shape[2]
    if mirrored(C):
        away = (away[..., : C // 2] + away[..., C // 2 :]) / 2
    n, _, C = away.shape
    variance = (away**2).sum(axis=(0, 2)) / max(n * (C - 1), 1)
    lag = (away[1:] * away[:-1]).sum(axis=(0, 2)) / max((n - 1) * (C - 1), 1)
    rho = np.clip(lag / np.where(variance > 0, variance, 1.0), 0.0, MAX_MEMORY)
    return np.sqrt(variance / (n * C) * (1 + rho) / (1 - rho))


def batch_error(values):
    """Standard error of the mean of a correlated series [n, m], by batch means."""
    n = len(values)
    size = max(int(np.sqrt(n)), 1)
    count = n // size
    if count < 2:
        return np.full(values.shape[1], np.inf)
    means = values[n - size * count :].reshape(count, size, -1).mean(axis=1)
    return means.std(axis=0, ddof=1) / np.sqrt(count)


def longest(step, std):
    """The largest entry of a step, in standard errors of the free parameters."""
    free = std > 0
    return float(np.max(np.abs(step[free]) / std[free], initial=0.0))
