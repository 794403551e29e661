"""The latent part of a model at a given theta: its mode, its metric, its motion with theta.

Every solve is one of the mixed-model equations of a Gaussian model, with the weights of the
curvature of the rows' log densities and a residual variance of 1.
"""

from dataclasses import replace
from functools import cached_property

import numpy as np

from sklmm.engine.equations.crossproducts import prior_of
from sklmm.engine.equations.layout import Layout
from sklmm.engine.equations.mixed_model import Equations
from sklmm.engine.equations.whole import Whole
from sklmm.engine.latent.reparametrization import Field
from sklmm.engine.likelihood.likelihood import evaluation, observes
from sklmm.engine.limits import factorisable, is_small
from sklmm.engine.linalg.blocks import turn_all
from sklmm.engine.linalg.newton import STEP
from sklmm.engine.rows.protocol import Coefs
from sklmm.engine.theta.priors import normal_prior
from sklmm.engine.theta.space import Space

NEWTON_STEPS = 50
#: Decrement, in units of log p(y, x), at which Newton's method ends: for a likelihood, and for a
#: centre of the chains.
NEWTON_TOL = 1e-10
CENTRE_TOL = 1e-2
#: Decrement of a step after which the curvature is hardly another.
CHORD = 1e-2
#: And of one after which another's would be less than rounding.
LAST = 1e-4
#: Decrement of a first step beyond which its start is far from a mode.
LONG = 1.0


class Latent:
    """A problem's rows under a likelihood, and the unknowns x = (beta under REML, u).

    `direct` asks for an exact log |C| and its gradient, where C can be factorised, and for Newton
    steps by the observed curvature; `observed`, for that in Laplace's log |C|, which a density that
    is not concave in its predictor does not have.
    """

    def __init__(self, problem, likelihood, parameters, reml=None, direct=False, observed=True):
        reml = problem.reml if reml is None else reml
        self.like = likelihood
        self.full = replace(problem, reml=reml)
        self.space = Space(self.full, parameters)
        self.rows, self.n_rows = problem.rows, problem.rows.n_rows
        inner = problem.rows if reml else problem.rows.without_fixed()
        self.problem = replace(problem, rows=inner)
        self.layout = Layout(self.problem)
        #: The prior precision of the effects, which begin with number p of the unknowns.
        self.prior = prior_of(problem.blocks, self.layout.parts)
        #: That of coefficients among the unknowns, or None.
        self.coef_prior = None if problem.priors is None else normal_prior(self.problem)
        self.direct = direct
        #: Whether Newton's steps, and so the motion, are by the observed curvature.
        self.sees = direct or (likelihood.density is not None and likelihood.density.scattered)
        self.observed = observed and observes(likelihood)
        self.whole = is_small(self.n_rows, self.layout.size, self.space.size)
        sizes = [b.n_levels * b.r for b in problem.blocks]
        #: Whether Laplace's gradient is exact, and C^-1 not told by draws.
        coupled = [b.coupled for b in problem.blocks]
        exact = self.direct and factorisable(sizes, "gradient", coupled)
        self.approximated = self.whole or exact

    @property
    def densities(self):
        """The likelihood row by row."""
        return evaluation(self.like)

    @cached_property
    def compiled(self):
        """Arrays and points in TensorFlow, for its samplers."""
        from sklmm.engine.latent.compiled import CompiledLatent

        return CompiledLatent(self)

    def coefs(self, thetas, x):
        """(`Coefs`, raw [q, C]) at thetas and x [P, C], one for each column."""
        beta, u = self.layout.split(x)
        if self.space.p:
            beta = np.column_stack([theta.beta[: self.space.p] for theta in thetas])
        return Coefs(beta, self._times(thetas, u)), np.column_stack([t.raw for t in thetas])

    def _times(self, thetas, parts, transpose=False):
        """L_k, or its transpose, of each column's theta times effects [J, r, C] of each term."""
        if all(theta is thetas[0] for theta in thetas):
            factors = [L.T if transpose else L for L in thetas[0].factors]
            pairs = zip(factors, parts, strict=True)
            return tuple(turn_all(L, u) for L, u in pairs)
        axes = "cba,jbc->jac" if transpose else "cab,jbc->jac"
        of_columns = [np.array(own) for own in zip(*(t.factors for t in thetas), strict=True)]
        return tuple(np.einsum(axes, L, u) for L, u in zip(of_columns, parts, strict=True))

    def pulled(self, thetas, sums):
        """W^T rows [P, C] from sums of rows over levels, `Coefs`, for each column's theta."""
        effects = self._times(thetas, sums.effects, transpose=True)
        return self.layout.join(sums.beta[: self.layout.p], effects)

    def gradient(self, theta, x, delta=None):
        """(log p(y, x) [C], gradient in x [P, C], the first one's weights) at x [P, C].

        And at theta + delta [m, C].
        """
        p, space = self.layout.p, self.space
        thetas = [theta] * x.shape[1]
        about = None if self.like.distribution is None else self.coefs(thetas, x)
        if delta is not None:
            flat = space.join(theta._replace(beta=theta.beta[: space.p]))
            thetas = [space.split(flat + change) for change in delta.T]
        kind = "observed" if self.sees else "expected"
        value, score, at = self.rows.evaluate(self.densities, *self.coefs(thetas, x), kind, about)
        slope = self.pulled(thetas, score)
        prior = self.prior.times(x[p:], p)
        slope[p:] -= prior
        if self.coef_prior is not None:
            slope[:p] += self.coef_prior.gradient(x[:p])
            value = value + self.coef_prior.value(x[:p])
        return value - 0.5 * np.sum(x[p:] * prior, axis=0), slope, at

    def mode(self, theta, x, tol=NEWTON_TOL):
        """argmax_x log p(y, x) from x [P] by Newton's method: x, and the `Equations` there."""
        x, at, equations = self._climbed(theta, x, tol)
        if equations is None or (self.direct and not equations.factorised):
            equations = self._equations(theta, x, at)
        if self.sees and not self.direct:
            try:
                # It is that at other factors too, where negative weights may make C not positive.
                _ = equations.marginal
            except np.linalg.LinAlgError:
                equations = self._safe(theta, x, at)
        return x, equations

    def top(self, theta, *starts):
        """The mode, without its equations: from the first start, or the best where that is far."""
        # A density with kinks has steps that nothing promises.
        last = LAST if self.like.distribution is None else 0.0
        return self._climbed(theta, starts[0], NEWTON_TOL, starts[1:], last)[0]

    def _climbed(self, theta, x, tol, others=(), last=0.0):
        """The mode, the weights there, and the last step's equations, None where they are others'.

        Newton steps and halving. Where a step is short the next one has the same equations. Other
        starts are looked at where the first step from x is long. A step with less than the `last`
        decrement is taken without a look at where it leads: no weights.
        """
        x, equations = np.asarray(x, float), None
        value, gradient, at = self.gradient(theta, x[:, None])
        if others and not np.isfinite(value[0]):
            return self._climbed(theta, self._best(theta, (x, *others)), tol, (), last)
        for _ in range(NEWTON_STEPS):
            own = equations is None
            equations = self._equations(theta, x, at, rough=True) if own else equations
            step = equations.solve(gradient)[:, 0]
            decrement = step @ gradient[:, 0]
            if others and not decrement < LONG:
                return self._climbed(theta, self._best(theta, (x, *others)), tol, (), last)
            if not decrement > tol:
                return x, at, equations if own else None
            if decrement < last:
                return x + step, None, None
            length = 1.0
            while length > 1e-3:
                trial = x + length * step
                new = self.gradient(theta, trial[:, None])
                if new[0][0] >= value[0] - 1e-9 * abs(value[0]):
                    break
                length /= 2
            else:
                return x, at, equations if own else None
            x, others = trial, ()
            value, gradient, at = new
            if not decrement < CHORD:
                equations = None
        return x, at, equations if equations is None or own else None

    def _best(self, theta, starts):
        """The start of the largest log p(y, x)."""
        value = self.gradient(theta, np.column_stack(starts))[0]
        return starts[int(np.argmax(np.where(np.isfinite(value), value, -np.inf)))]

    def equations(self, theta, at, rough=False):
        """The mixed-model equations at theta's factors and the rows' weights.

        Those of a Newton step are solved as is fastest, and have no exact log |C|.
        """
        factors = tuple(theta.factors)
        if self.whole:
            return Whole(self.problem, at, factors, self.layout)
        exact = self.direct and not rough
        return Equations.weighted(self.problem, at, factors, self.layout, exact)

    def _equations(self, theta, x, at, rough=False):
        """Those of a Newton step: of a curvature that makes C positive."""
        try:
            return self.equations(theta, at, rough)
        except np.linalg.LinAlgError:
            if not self.approximated and (self.direct or not self.sees):
                raise
            return self._safe(theta, x, at, rough)

    def _safe(self, theta, x, at, rough=False):
        """Equations by weights that are positive."""
        coefs, raw = self.coefs([theta], x[:, None])
        safe = self.rows.safe(self.densities, coefs, raw[:, 0], at)
        return self.equations(theta, safe, rough)

    def motion(self, theta, equations, centre):
        """How the mode `centre` [P] moves with theta, and the gradient in x there: [P, m] each."""
        m = self.space.size
        if not m:
            return (np.zeros((len(centre), 0)),) * 2
        push = self._slope(theta, centre, np.zeros((len(centre), m)), np.eye(m))
        shift = equations.solve(push)
        return shift * self.layout.real[:, None], push

    def field(self, theta, equations, centre):
        """How x moves with theta about `centre` [P]."""
        shift, push = self.motion(theta, equations, centre)
        return Field(equations, self.space, theta, shift, push, centre)

    def _slope(self, theta, x, along, delta):
        """Derivative of the gradient in x [P, m] in the directions (along [P, m], delta [m, m])."""
        both = np.concatenate([STEP * along, -STEP * along], axis=1)
        deltas = np.concatenate([STEP * delta, -STEP * delta], axis=1)
        _, gradient, _ = self.gradient(theta, x[:, None] + both, deltas)
        m = along.shape[1]
        return (gradient[:, :m] - gradient[:, m:]) / (2 * STEP)

    @property
    def log_constant(self):
        """What log p(y, x) lacks for the table's own units of y and of the coefficients."""
        full = self.full
        out = -full.n * full.log_unit
        if full.reml:
            out += full.p * np.log(np.sqrt(2 * np.pi) * full.y_scale) - 0.5 * full.log_det_basis
        return out
