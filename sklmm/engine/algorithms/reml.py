r"""REML and ML of Gaussian models: Newton's method on the likelihood of theta.

Each iteration looks at one theta = (theta_k, log sigma). The observed information is the average
information less the curvature of Sigma = L L^T in theta_k, which alone survives where a variance is
0 (there the gradient in L vanishes but G_k is negative): a singular fit is a regular
maximum in L, reached quadratically. A step that lowers the log-likelihood is taken back and damped.
The first steps, if they are long, are EM's, which never leave the space.

With one design and one response for all iterations, nothing of them is read but cross-products.
"""

from itertools import count
from typing import NamedTuple

import numpy as np

from sklmm.engine.algorithms.loop import Iteration, joint_loss
from sklmm.engine.algorithms.m_step import em_step, gradient, leave_boundary, move, newton_step
from sklmm.engine.algorithms.reml_cg import Probed
from sklmm.engine.algorithms.start_moments import moment_start
from sklmm.engine.equations.crossproducts import CrossProducts
from sklmm.engine.equations.elimination import Dense
from sklmm.engine.equations.henderson import Solution
from sklmm.engine.equations.score import evaluate
from sklmm.engine.linalg.newton import by_differences, inverse
from sklmm.engine.posterior.from_equations import posterior_from_equations
from sklmm.engine.posterior.satterthwaite import satterthwaite
from sklmm.engine.theta.space import Space, residual_sd
from sklmm.steps import Exact

N_EM_STEPS = 2
#: Newton steps longer than this, in y's residual SD or log sigma, are EM's to take at first.
FAR = 0.3
#: Share of the log-likelihood by which it may fall without a step being taken back: rounding.
MIN_GAIN = 1e-9
#: The damping of the first step that is taken back, how it grows with each such step and falls with
#: each other, and the one that is none.
FIRST_DAMPING = 0.05
DAMPING_FACTOR = 4
NO_DAMPING = 0.01
#: Steps to singular equations that are taken back, at most.
MOST_RETREATS = 8


class Factorised(NamedTuple):
    """The equations by Cholesky's method: in float64, with exact traces."""

    cross: CrossProducts

    def equations(self, theta, before=None, probed=False):
        """The equations at theta, solved."""
        s2 = residual_sd(self.cross.problem, theta) ** 2
        return Solution(theta.factors, s2, self.cross, Dense(self.cross, theta.factors, s2))

    def traces(self, equations):
        """Summed blocks of Z^T V^-1 Z, and no deviations of them."""
        return equations.H.traces(), None


class Reml:
    """The fit of a Gaussian problem by `step`, an `Exact` or a `ConjugateGradient`.

    `dof` is "satterthwaite" where the posterior is to have degrees of freedom.
    """

    stochastic = False

    def __init__(self, problem, step, tol, seed, n_draws, start=None, dof=None):
        self.problem, self.space = problem, Space.gaussian(problem)
        self.tol, self.seed, self.n_draws, self.dof = tol, seed, n_draws, dof
        cross = CrossProducts(problem)
        self.solver = Factorised(cross) if isinstance(step, Exact) else Probed(cross, step, seed)
        self.theta = moment_start(cross) if start is None else start
        self.seen = None

    def steps(self):
        """Yield `Iteration`s."""
        space, best, damping, retreats = self.space, None, 0.0, 0
        for iteration in count(1):
            try:
                seen = self.seen = self.look(self.theta, self.seen)
            except np.linalg.LinAlgError:
                # Singular to working precision: the step before was too long.
                retreats += 1
                if best is None or retreats > MOST_RETREATS:
                    raise
                seen = None
            if best is not None and _is_worse(seen, best):
                seen, damping = best, max(DAMPING_FACTOR * damping, FIRST_DAMPING)
            else:
                best, damping = seen, damping / DAMPING_FACTOR if damping > NO_DAMPING else 0.0
            step = newton_step(space, seen.theta, seen, damping)
            raised = None
            if step.decrement < self.tol:
                raised = leave_boundary(self.problem, seen.theta, seen)
            if raised is not None:
                self.theta = raised
            elif (
                iteration <= N_EM_STEPS
                and np.abs(step.delta).max(initial=0.0) > FAR
                and damping == 0
            ):
                self.theta = em_step(self.problem, seen.theta, seen)
            else:
                self.theta = move(space, seen.theta, step.delta)
            covariance = inverse(step.information)
            yield Iteration(
                theta=seen.theta._replace(beta=seen.beta),
                loss=joint_loss(self.problem, seen.theta.factors, -seen.joint),
                loglik=np.nan if seen.loglik is None else seen.loglik,
                decrement=step.decrement,
                done=step.decrement < self.tol and raised is None,
                estimate=self.theta._replace(beta=seen.beta),
                covariance=space.with_beta(covariance),
                spread=_probes_spread(seen, covariance),
            )

    def look(self, theta, before=None):
        """`Evaluation` at theta, its solves started from those of the evaluation `before`."""
        equations = self.solver.equations(theta, before, probed=True)
        return evaluate(theta, equations, *self.solver.traces(equations))

    def equations(self, theta):
        """The equations at theta, solved as accurately as the solver is asked to."""
        return self.solver.equations(theta, self.seen)

    def gradient(self, theta):
        """dl / dtheta [m]."""
        return gradient(self.space, theta, self.look(theta, self.seen))

    def covariance(self, theta):
        """The covariance [m, m] of theta by the observed information, differences of gradients."""
        information = by_differences(
            lambda delta: self.gradient(self.space.moved(theta, delta)), self.space.size
        )
        return inverse(information)

    def posterior(self, last):
        """`Posterior` at the estimate of an iteration."""
        equations = self.equations(last.estimate)
        posterior = posterior_from_equations(equations, self.seed, self.n_draws)
        if self.dof is None:
            return posterior
        covariance = self.covariance(last.estimate)
        return posterior._replace(dof=satterthwaite(equations, covariance))


def _is_worse(new, old):
    """Whether the log-likelihood has fallen, or does not exist; False where it is not known."""
    if new is None or new.loglik is None:
        return new is None
    return not new.loglik > old.loglik - MIN_GAIN * (1 + abs(old.loglik))


def _probes_spread(seen, covariance):
    """Covariance [p + m, p + m] of (beta, theta) by the gradient's noise, None without such."""
    if seen.noise is None:
        return None
    # d theta = M^-1 dg, and beta follows theta.
    path = np.concatenate([seen.sensitivity, np.eye(len(covariance))]) @ covariance
    return path @ (np.cov(seen.noise.T) / len(seen.noise)) @ path.T
