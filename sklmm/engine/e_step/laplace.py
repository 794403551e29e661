r"""The Laplace approximation: the posterior of x is taken as N(m, C^-1) about its mode.

    l(theta) = log p(y, m; theta) - log |C| / 2,    C = Z^T W(eta_hat) Z + I.

The gradient has the term of the motion of W with the mode (as lme4's and TMB's). log |C| enters
through deviations d with mean d d^T = C^-1: an exact root for few unknowns, otherwise draws with a
noise fixed for the fit, so that Newton's method converges; what they leave of error is reported.
"""

import numpy as np

from sklmm.engine import small
from sklmm.engine.draws import posterior_from_draws
from sklmm.engine.e_step.base import joint_loss
from sklmm.engine.em import EMStep
from sklmm.engine.equations import EXACT_TOL
from sklmm.engine.start import start_theta
from sklmm.engine.stochastic import cap, invert, newton
from sklmm.engine.theta import observed_information

#: Unknowns, and numbers in a [n_rows, n_columns] array, up to which the root is exact.
EXACT_UNKNOWNS = 512
EXACT_NUMBERS = 1 << 23
N_PROBES = 32
#: Decrement above which the information is computed afresh; below it is updated.
FAR_STEP = 2.0
MAX_HALVINGS = 8
#: Of steps shorter than SMALL standard errors, the share of the last one that is no progress.
SMALL = 0.1
CREEP = 0.5


class Laplace:
    """Quasi-Newton ascent of the Laplace approximation, from the complete-data information."""

    stochastic = False

    def __init__(self, latent, tol, seed, start=None, n_probes=N_PROBES):
        self.latent = latent
        self.space = latent.space
        self.tol = tol
        self.seed = seed
        self.start = start
        self.n_probes = n_probes
        #: Without latent variables the information is exact, and Newton's method quadratic.
        self.plain = not latent.layout.size
        unknowns = latent.layout.real.sum()
        few = unknowns <= EXACT_UNKNOWNS and unknowns * latent.n_rows <= EXACT_NUMBERS
        self.exact = bool(few or latent.rows is not None)

    def steps(self):
        """Yield `EMStep`s."""
        space = self.space
        theta, self.mode = start_theta(self.latent) if self.start is None else self.start
        flat, information, before, decrement = space.join(theta), None, None, np.inf
        while True:
            flat, found, stalled = self._climb(flat, before)
            theta, (value, scores, loglik) = space.split(flat), found
            score = scores.mean(axis=1)
            if information is None or decrement > FAR_STEP or self.plain:
                information = self._information(theta)
            elif not stalled:
                information = secant(information, flat - before[0], before[1] - score)
            last = decrement
            step, decrement = newton(space, information, score)
            before = flat, score, found
            following, _ = space.bounded(flat, cap(space, flat, step))
            # Newton's method only creeps where the maximum is at infinity: separated data.
            creeping = CREEP * last < decrement < SMALL
            done = stalled or decrement < self.tol or (self.plain and creeping)
            covariance = invert(space, information)
            if done:
                covariance = self._covariance(theta, information)
                # Newton's last step is worth taking where its information is exact.
                theta = space.split(following) if self.plain and not stalled else theta
            spread = None
            if done and not self.exact:
                spread = covariance @ np.cov(scores) @ covariance / scores.shape[1]
            yield EMStep(
                theta=self._shown(space.split(flat)),
                loss=joint_loss(self.latent.full, theta.factors, -value),
                loglik=np.nan if loglik is None else loglik + self.latent.log_constant,
                decrement=decrement,
                info={},
                done=done,
                estimate=self._shown(theta if done else space.split(following)),
                covariance=covariance,
                spread=spread,
            )
            flat = following

    def _climb(self, flat, before):
        """(theta, its evaluation, False), the step to theta shortened until the likelihood rises.

        Where no length of it does, rounding is all that is left: (theta before, ..., True).
        """
        for _ in range(MAX_HALVINGS):
            found = self.evaluate(self.space.split(flat))
            if before is None or not self.exact:
                return flat, found, False
            last = before[2][2]
            if found[2] >= last - 1e-10 * abs(last):
                return flat, found, False
            flat = before[0] + 0.25 * (flat - before[0])
        self.evaluate(self.space.split(before[0]))
        return before[0], before[2], True

    def evaluate(self, theta):
        """(log p(y, m), scores [m, C], log-likelihood or None) at theta."""
        latent = self.latent
        self.mode, self.equations = latent.mode(theta, self.mode)
        self.field = latent.field(theta, self.equations, self.mode, EXACT_TOL)
        joint = float(latent.gradient(theta, self.mode[:, None])[0][0])
        if latent.rows is not None:
            loglik, gradient = small.laplace(latent, theta, self.mode, np.asarray(self.field.shift))
            return joint, gradient[:, None], loglik
        self.deviations, log_det = self._deviations()
        _, scores = latent.scores(theta, self.field, self.deviations, laplace=True)
        loglik = None if log_det is None else joint - 0.5 * log_det
        return joint, scores, loglik

    def _deviations(self):
        """Columns with mean d d^T = C^-1, and log |C| or None."""
        if not self.exact:
            rng = np.random.default_rng(self.seed)
            return self.equations.draws(rng, self.n_probes), None
        real, inverse = self.latent.layout.real, self.equations.inverse()
        n = len(inverse)
        out = np.zeros((len(real), max(n, 1)))
        out[real, :n] = np.linalg.cholesky(inverse) * np.sqrt(n)
        return out, -np.linalg.slogdet(inverse)[1] if n else 0.0

    def _information(self, theta):
        if self.latent.rows is not None and self.latent.like.distribution is None:
            if self.plain:
                return small.plain_information(self.latent, theta)
            return small.information(self.latent, theta, self.mode, np.asarray(self.field.shift))
        if self.latent.rows is not None:
            self.deviations, _ = self._deviations()
        return self.latent.information(theta, self.field, self.deviations, laplace=True)

    def _covariance(self, theta, information):
        """From differences of the gradient, the mode following, where that is cheap."""
        space = self.space
        if self.exact and not self.plain:
            flat = space.join(theta)
            information = observed_information(
                lambda e: self.evaluate(space.split(flat + e))[1].mean(axis=1), space.size
            )
            self.evaluate(theta)
        return invert(space, information)

    def _shown(self, theta):
        if not self.latent.full.reml:
            return theta
        return theta._replace(beta=self.mode[: self.latent.problem.p])

    def posterior(self, last, n_draws):
        """The Gaussian posterior at the estimate, by draws."""
        theta = last.estimate._replace(beta=last.estimate.beta[: self.space.p])
        joint, _, loglik = self.evaluate(theta)
        rng = np.random.default_rng([self.seed, 1])
        equations, p = self.equations, self.latent.problem.p
        draws = equations.draws(rng, n_draws)
        columns = equations.solve(np.eye(len(draws))[:, :p]) if p else draws[:, :0]
        posterior = posterior_from_draws(equations, self.mode, columns, draws)
        if loglik is None and (log_det := equations.log_det()) is not None:
            loglik = joint - 0.5 * log_det
        if loglik is not None:
            loglik += self.latent.log_constant
        posterior = posterior._replace(loglik=loglik)
        if p:
            return posterior
        root = self.latent.with_coefficients(last, self.field, posterior.root, rng)
        return posterior._replace(beta=last.estimate.beta, beta_cov=None, root=root)


def secant(information, step, change):
    """BFGS update of the information [m, m] with the score's fall `change` along `step`."""
    along = step @ change
    image = information @ step
    if not along > 1e-10 * np.linalg.norm(step) * np.linalg.norm(change):
        return information
    return (
        information
        + np.outer(change, change) / along
        - np.outer(image, image) / max(step @ image, 1e-300)
    )
