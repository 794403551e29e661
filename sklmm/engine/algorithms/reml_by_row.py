r"""REML and ML of Gaussian models whose log residual SD is linear in columns of the row.

The steps are `algorithms.reml`'s, with the coefficients gamma of the log SD in the place of log
sigma. Rows weigh exp(-2 s_i), another number at every theta, so that their cross-products are made
anew at each: sums by patterns that are found once. What gamma's score lacks are the rows'
leverages, which a factor of the equations tells, or the probes that tell the traces.
"""

from dataclasses import replace

import numpy as np

from sklmm.engine.algorithms.reml import Factorised, Reml, em_step, moment_start
from sklmm.engine.algorithms.reml_cg import Probed
from sklmm.engine.equations.crossproducts import CrossProducts
from sklmm.engine.equations.henderson import evaluate
from sklmm.engine.equations.inverse import SchurInverse
from sklmm.engine.rows.heteroscedastic import Probes
from sklmm.engine.rows.protocol import Coefs
from sklmm.engine.theta.space import Space
from sklmm.steps import Exact

NOTHING = np.zeros(0)
#: Rows up to which the information at the maximum is measured: the average one differs from it by a
#: share of the order of one over their root.
MEASURED_ROWS = 20_000
#: Share of a coefficient of the log SD along directions that rows with an SD of 0 alone would tell.
LOST = 1e-6


class RemlByRow(Reml):
    """The fit of a Gaussian problem whose rows are `Heteroscedastic`.

    `parameters` are those of its `Space`; all else is as in `Reml`.
    """

    def __init__(self, problem, parameters, step, tol, seed, n_draws, start=None, dof=None):
        self.rows = problem.rows
        #: In units of each row's own SD, and in those of the problem.
        self.scaled = replace(problem, rows=self.rows.rows, models=(), sigma=1.0)
        self.problem = problem = replace(problem, rows=self.rows.rows)
        self.space = Space(problem, parameters, profiled=True)
        self.tol, self.seed, self.n_draws, self.dof = tol, seed, n_draws, dof
        plain = CrossProducts(replace(self.scaled, sigma=None), self.rows.rows.weights, True)
        self.solver = Factorised.of(plain) if isinstance(step, Exact) else Probed(plain, step, seed)
        if start is None:
            start = moment_start(plain)
            raw, covariances = self.rows.constant(start.raw[0]), [L @ L.T for L in start.factors]
            start = start._replace(raw=self.rows.start(raw, plain.ols, covariances))
        self.theta, self.seen = start, None
        self.bent = not all(c.linear for c in self.space.covariances)
        self.measures = self.rows.rows.n_rows <= MEASURED_ROWS
        #: Directions of gamma that say nothing, or None.
        self.flat = self.rows.without_residual() if problem.reml and problem.p else None
        self.again = True

    def _solver(self, theta):
        cross = CrossProducts(self.scaled, self.rows.weights(theta.raw), True)
        return self.solver.at(cross)

    def look(self, theta, before=None, inform=True):
        """`Evaluation` at theta, its solves started from those of the evaluation `before`."""
        equations = self._solver(theta).equations(theta, before, probed=True)
        return self.evaluation(theta, equations, inform)

    def evaluation(self, theta, equations, inform=True):
        """`Evaluation` by solved equations, with the information unless that is not asked for."""
        cross, solver = equations.cross, self.solver.at(equations.cross)
        fixed = follow = height = probes = None
        if self.problem.reml and cross.p:
            fixed, follow = equations.solve_s(np.eye(cross.p)), cross.blocks(equations.follow)
        if isinstance(solver, Factorised):
            inverse = SchurInverse(equations)
            inverse.fixed = np.zeros((0, 0))
            height = self.rows.leverages(inverse)
            traces, deviations = equations.H.traces(inverse.forms), None
        else:
            pairs, inner = solver.pairs(equations), equations.H.inner
            probes = Probes(pairs, solver.weights, cross.eliminated, inner)
            traces, deviations = solver.traces(equations)
        solution = self._coefs(equations)
        told, of_probes = self.rows.tell(theta.raw, solution, fixed, follow, height, probes)
        vectors = None
        if inform:
            q = len(told.score)
            joined = equations.cross.joined(told.vectors.effects, q)
            vectors = joined, told.vectors.beta, told.squares
        seen = evaluate(theta._replace(raw=NOTHING), equations, traces, deviations, inform, vectors)
        scale, observed, noise = self.rows.log_scale(theta.raw), seen.observed, seen.noise
        if inform:
            first = len(observed) - len(told.score)
            observed[first:, first:] += told.floor()
        if noise is not None:
            of_probes = of_probes[solver.n_units :]
            noise = np.column_stack([noise, of_probes - of_probes.mean(axis=0)])
        seen = seen._replace(
            theta=theta,
            gradient=np.concatenate([seen.gradient, told.score]),
            loglik=None if seen.loglik is None else seen.loglik - scale,
            observed=observed,
            noise=noise,
            joint=seen.joint - scale,
            # That of one residual SD, which there is not.
            score_sigma=0.0,
        )
        return self.with_prior(theta, seen, inform)

    def _coefs(self, equations):
        """`Coefs` [., 1] of the solution."""
        cross = equations.cross
        effects = cross.blocks(cross.lift(equations.factors, equations.u))
        beta = equations.beta + cross.ols
        return Coefs(beta[:, None], tuple(b[:, :, None] for b in effects))

    def em_step(self, seen):
        """Theta after a step of EM."""
        theta = em_step(self.problem, seen._replace(theta=seen.theta._replace(raw=NOTHING)))
        return theta._replace(raw=self.rows.em_step(seen.theta.raw))

    def equations(self, theta):
        """The equations at theta, solved as accurately as the solver is asked to."""
        return self._solver(theta).equations(theta, self.seen)

    def _measured(self, theta, seen=None):
        """The information by differences; gamma is held along what says nothing."""
        information, unsolved = super()._measured(theta, seen)
        if self.flat is not None:
            first, size = len(information) - len(self.flat), np.abs(information).max(initial=1.0)
            information[first:, first:] += size * self.flat @ self.flat.T
        return information, unsolved

    def residual_slopes(self, equations):
        """The derivatives of X^T V^-1 X in gamma, less, [q, p, p]: for Satterthwaite's rule."""
        cross = equations.cross
        return (self.rows.squares(cross.at, cross.blocks(equations.follow)),)

    def vanished(self, theta):
        """Which of the family's parameters a residual SD of 0 in some rows leaves untold."""
        return self._along(self.rows.untold(theta.raw))

    def arbitrary(self):
        """Which of the family's parameters have the same likelihood whatever their value."""
        return self._along(self.flat)

    def _along(self, untold):
        """Which of the family's parameters have a part in directions of gamma [q, .] or None."""
        if untold is None:
            return np.zeros(len(self.space.parameters), bool)
        names, basis = self.problem.models[0].names, self.problem.models[0].basis
        lost = np.linalg.norm(basis @ untold, axis=1) > LOST * np.linalg.norm(basis, axis=1)
        return np.isin(list(self.space.parameters), np.array(names)[lost])

    def posterior(self, last):
        """`Posterior` at the estimate of an iteration."""
        posterior, raw = super().posterior(last), last.estimate.raw
        if posterior.loglik is None:
            return posterior
        return posterior._replace(loglik=posterior.loglik - self.rows.log_scale(raw))
