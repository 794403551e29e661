"""The latent part of a model at a given theta: its mode, its metric, its motion with theta.

Every solve is one of the mixed-model equations of a Gaussian model, with the weights of the
curvature of the rows' log densities and a residual variance of 1.
"""

from dataclasses import replace
from functools import cached_property

import numpy as np

from sklmm.engine.equations.layout import Layout
from sklmm.engine.equations.mixed_model import SOLVE_TOL, Equations
from sklmm.engine.equations.whole import Whole
from sklmm.engine.latent import small
from sklmm.engine.likelihood.evaluation import observes
from sklmm.engine.linalg.conjugate_gradients import conjugate_gradients
from sklmm.engine.linalg.newton import STEP
from sklmm.engine.theta.space import Space

#: Rounds of refinement of dm / dtheta, at most.
REFINEMENTS = 20
NEWTON_STEPS = 50
#: Decrement, in units of log p(y, x), at which Newton's method ends: for a likelihood, and for a
#: centre of the chains.
NEWTON_TOL = 1e-10
CENTRE_TOL = 1e-2


class Latent:
    """Arrays and steps of a problem under a likelihood, compiled but of small tables.

    `direct` asks for an exact log |C| and, whatever the number of rows, for steps in NumPy, where C
    can be factorised; and `observed` for the observed curvature in Laplace's log |C|, which a
    density that is not concave in its predictor does not have.
    """

    def __init__(self, problem, likelihood, parameters, reml=None, direct=False, observed=True):
        reml = problem.reml if reml is None else reml
        self.like = likelihood
        self.full = replace(problem, reml=reml)
        self.space = Space(self.full, parameters)
        rows = problem.rows if reml else problem.rows.without_fixed()
        self.problem = replace(problem, rows=rows)
        self.layout = Layout(self.problem)
        self.fixed = problem.rows.X[:, :0] if reml else problem.rows.X
        self.n_rows = rows.n_rows
        self.exact = direct
        self.direct = direct and likelihood.distribution is None
        self.observed = observed and observes(likelihood)
        #: Of a table whose steps are not compiled but for those of every iteration.
        self.rows = small.Rows.of(self.problem, self.layout, self.space.size, self.direct)

    @cached_property
    def compiled(self):
        """Arrays and steps in TensorFlow, which a small table of a built-in family never needs."""
        from sklmm.engine.latent.compiled import CompiledLatent

        return CompiledLatent(self)

    def observations(self):
        """y and the weights of the observations, one each for all their predictors."""
        d = self.like.n_predictors
        return self.full.rows.y[::d], self.full.rows.weights[::d]

    def eta(self, beta, linear):
        """Linear predictor [..., n_rows] from coefficients in theta and W x."""
        offset = 0.0 if self.full.rows.offset is None else self.full.rows.offset
        return offset + self.fixed @ beta + linear

    def log_densities(self, theta, x, some):
        """w_i log f(y_i | eta_i) of `some` observations [n, C], at x [P, C] of effects alone."""
        d, table = self.like.n_predictors, self.full.rows
        rows = slice(some.start * d, some.stop * d)
        linear = self.fixed[rows] @ theta.beta[:, None] + np.zeros(x.shape[1])
        if table.offset is not None:
            linear += table.offset[rows, None]
        effects = self.layout.effects(theta.factors, x)
        for refs, z, b in zip(table.refs, table.z, effects, strict=True):
            linear += np.einsum("na,nac->nc", z[rows], b[refs[rows]])
        y, w = (a[some] for a in self.observations())
        raw = np.repeat(theta.raw[:, None], x.shape[1], axis=1)
        return w[:, None] * np.asarray(self.like.log_prob(y, linear, raw))

    def gradient(self, theta, x, delta=None):
        """(log p(y, x) [C], gradient in x [P, C], weights [n_rows, C]) at x [P, C]."""
        if delta is None:
            delta = np.zeros((self.space.size, x.shape[1]))
        if self.rows is not None:
            return small.gradient(self, theta, x, delta)
        return self.compiled.gradient(theta, x, delta)

    def mode(self, theta, x, tol=NEWTON_TOL):
        """argmax_x log p(y, x) from x [P], by Newton steps and halving: (x, Equations)."""
        x = np.asarray(x, float)
        value, gradient, weights = (a[..., 0] for a in self.gradient(theta, x[:, None]))
        equations = self._equations(theta, x, weights)
        for _ in range(NEWTON_STEPS):
            step = equations.solve(gradient[:, None])[:, 0]
            decrement = step @ gradient
            if not decrement > tol:
                break
            length = 1.0
            while length > 1e-3:
                trial = x + length * step
                new = [a[..., 0] for a in self.gradient(theta, trial[:, None])]
                if new[0] >= value - 1e-9 * abs(value):
                    break
                length /= 2
            else:
                break
            x = trial
            value, gradient, weights = new
            equations = self._equations(theta, x, weights)
        return x, equations

    def equations(self, theta, weights):
        """The mixed-model equations at theta's factors and the weights [n_rows]."""
        factors = tuple(theta.factors)
        if self.rows is not None and self.rows.dense:
            return Whole(self.rows, weights, factors)
        return Equations.weighted(self.problem, weights, factors, self.layout, self.exact)

    def _equations(self, theta, x, weights):
        """Those of a Newton step: of a curvature that makes C positive."""
        try:
            return self.equations(theta, weights)
        except np.linalg.LinAlgError:
            if self.rows is None:
                raise
            return self.equations(theta, small.safe_weights(self, theta, x, weights))

    def motion(self, theta, equations, centre, exact=False):
        """How the mode `centre` [P] moves with theta, and the gradient in x there: [P, m] each.

        By the curvature of the equations or, for an `exact` one, by the observed curvature.
        """
        m = self.space.size
        push = self._slope(theta, centre, np.zeros((len(centre), m)), np.eye(m))
        shift = equations.solve(push)
        if exact:
            shift = self._refined(theta, equations, centre, push, shift)
        return shift * self.layout.real[:, None], push

    def field(self, theta, equations, centre, exact=False):
        """How x moves with theta about `centre` [P], for compiled steps."""
        from sklmm.engine.latent.reparametrization import make_field

        shift, push = self.motion(theta, equations, centre, exact)
        return make_field(equations, self.space, shift, push, centre)

    def _slope(self, theta, x, along, delta):
        """Derivative of the gradient in x [P, m] in the directions (along [P, m], delta [m, m])."""
        both = np.concatenate([STEP * along, -STEP * along], axis=1)
        deltas = np.concatenate([STEP * delta, -STEP * delta], axis=1)
        _, gradient, _ = self.gradient(theta, x[:, None] + both, deltas)
        m = along.shape[1]
        return (gradient[:, :m] - gradient[:, m:]) / (2 * STEP)

    def _refined(self, theta, equations, centre, push, shift):
        """dm / dtheta by the observed curvature, where the equations have the expected one.

        By conjugate gradients, the equations for a preconditioner.
        """
        still = np.zeros((self.space.size, shift.shape[1]))

        def curved(along):
            # Differences want directions of one size.
            size = np.maximum(np.abs(along).max(axis=0, initial=0.0), 1e-300)
            return -self._slope(theta, centre, along / size, still) * size

        shift, _, left = conjugate_gradients(
            curved, equations.solve, push, shift, SOLVE_TOL, REFINEMENTS
        )
        equations.tell(left, SOLVE_TOL)
        return shift

    def scores(self, *args, **kwargs):
        """As `CompiledLatent.scores`."""
        return self.compiled.scores(*args, **kwargs)

    def information(self, *args, **kwargs):
        """As `CompiledLatent.information`."""
        return self.compiled.information(*args, **kwargs)

    def informations(self, *args, **kwargs):
        """As `CompiledLatent.informations`."""
        return self.compiled.informations(*args, **kwargs)

    @property
    def log_constant(self):
        """What log p(y, x) lacks for the table's own units of y and of the coefficients."""
        full = self.full
        out = -full.n * full.log_unit
        if full.reml:
            out += full.p * np.log(np.sqrt(2 * np.pi) * full.y_scale) - 0.5 * full.log_det_basis
        return out
