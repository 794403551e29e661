r"""Profile likelihood intervals of a model's parameters, from its exact likelihood.

Of a parameter psi(theta, beta) the profile l(v) is the maximum at psi = v, and an interval holds
the v at which

    zeta(v) = sign(v - psi-hat) sqrt(2 (l-hat - l(v)))

is between normal quantiles, as lme4's `profile` has it (Bates, Maechler, Bolker & Walker 2015, J.
Stat. Softw. 67(1), sec. 5.1). What is held is so by a constraint on theta. Of a coefficient
b^T beta of a Gaussian model the other ones are least squares', which leaves a problem in theta,

    l(v) = max_theta  l(theta) - (v - b^T beta-hat)^2 / (2 b^T C b),    C = (X^T V^-1 X)^-1.

The coefficients of other models are in theta, and their likelihood is quadrature's.
"""

from functools import partial

import numpy as np
from scipy.optimize import brentq, minimize

from sklmm.engine.limits import blas
from sklmm.engine.posterior.gaussian import coefficient_slopes
from sklmm.engine.theta.space import MIN_SIGMA, is_singular, residual_sd

#: Steps outwards, in units of the Wald interval's half width, at which a limit is looked for.
OUTWARDS = (1.0, 1.5, 2.5, 4.0, 7.0, 12.0, 25.0, 60.0)
#: Of the half width: a limit's precision; and how near to a bound of the parameter is at it.
PRECISE = 1e-4
NEAR = 1e-3
#: Half width, in a parameter's own unit, where an estimate has no standard error.
UNKNOWN = 0.2
#: Slope of a parameter in standard errors of theta, in its own unit, that is none.
FLAT = 1e-8
#: Distance from a constraint, in standard errors, that is none.
HELD = 1e-3
#: What a theta without a likelihood has for one.
WORST = 1e10


class Profile:
    """Profiles about the maximum `theta` that a `Reml` by factorisation or `Quadrature` reached.

    Parameters are rows of `matrix` times (coefficients, natural), between `bounds`, two arrays;
    `std` are the standard errors of (coefficients, natural), nan where there is none.
    """

    def __init__(self, algorithm, theta, std, matrix, bounds):
        self.algorithm, self.space = algorithm, algorithm.space
        self.problem, self.theta = self.space.problem, theta
        self.matrix, self.bounds = matrix, bounds
        #: What an SD of effects is measured by.
        self.sigma = residual_sd(self.problem, theta) if self.space.profiled else 1.0
        seen = algorithm.look(theta)
        self.best = seen.loglik
        self.coef = self.problem.coef(seen.beta)
        self.estimate = matrix @ np.concatenate([self.coef, self.space.natural(theta)])
        self.std = std
        values, vectors = np.linalg.eigh(algorithm.covariance(theta)[0])
        known = values > 1e-12 * max(values.max(initial=0.0), 1e-300)
        #: theta = theta-hat + root z: z is in standard errors.
        self.root = vectors[:, known] * np.sqrt(values[known])

    def at(self, z):
        """Theta-hat + root z."""
        return self.space.moved(self.theta, self.root @ z)

    def value(self, i, z):
        """Parameter i at theta-hat + root z."""
        theta = self.at(z)
        coef = self.coef if self.space.profiled else self.problem.coef(theta.beta)
        return self.matrix[i] @ np.concatenate([coef, self.space.natural(theta)])

    def slope(self, i, z):
        """D value / d z there."""
        jacobian, p = self.space.jacobian(self.at(z)), self.space.p
        basis = self.problem.basis * self.problem.y_scale
        of_coef, of_natural = np.split(self.matrix[i], [len(basis)])
        out = of_natural @ jacobian
        out[:p] += of_coef @ basis[:, :p]
        return out @ self.root

    def starts(self, start):
        """Where to begin: at `start` and, with a variance of 0, where it is none as well.

        At 0 the gradient vanishes, though the profile may rise with the variance.
        """
        pairs = zip(self.problem.blocks, self.theta.factors, strict=True)
        singular = any(is_singular(b, L, self.sigma) for b, L in pairs)
        return [start, start + 1.0] if singular else [start]

    @staticmethod
    def best_of(loss, starts, options):
        """(maximum of -loss, where)."""
        found = [minimize(loss, z, jac=True, **options) for z in starts]
        if held := options.get("constraints"):
            # One that ends beside the constraint has no say.
            found = [f for f in found if abs(held["fun"](f.x)) < HELD] or found
        best = min(found, key=lambda f: f.fun)
        return -best.fun, best.x

    def interval(self, i, quantile):
        """(lower, upper) of entry i of (coefficients, natural): where zeta is -+ quantile."""
        uses, q = np.flatnonzero(self.matrix[i]), len(self.problem.basis)
        if np.isnan(self.std[i]) and (uses < q).any():
            return np.nan, np.nan
        if self.std[i] == 0:
            return self.estimate[i], self.estimate[i]
        profiled = self.space.profiled and (uses < q).all()
        own = _Profiled(self, i) if profiled else _Held(self, i)
        with blas([b.n_levels * b.r for b in self.problem.blocks], self.problem.p):
            return tuple(self._limit(own, i, side, quantile) for side in (-1, 1))

    def units(self):
        """Of coefficients (1), SDs (the residual one, of its column), correlations (1), family."""
        problem, out = self.problem, [1.0] * len(self.problem.basis)
        for b, A in zip(problem.blocks, problem.z_bases, strict=True):
            sizes = self.sigma * problem.y_scale * np.linalg.norm(A, axis=1)
            out += [sizes[i] if i == j else 1.0 for i, j in b.covariance.reported]
        family = [abs(value) or 1.0 for value in self.space.family(self.theta.raw).values()]
        return np.abs(self.matrix) @ [*out, *family]

    def _limit(self, own, i, side, quantile):
        estimate, width = self.estimate[i], quantile * self.std[i]
        if not width > 0:
            width = UNKNOWN * own.unit
        bound = self.bounds[(side + 1) // 2][i]
        inside, known = estimate, {estimate: (-quantile, np.zeros(self.root.shape[1]))}

        def excess(value, start):
            if value not in known:
                loglik, z = own.maximum(value, start)
                known[value] = np.sqrt(max(2 * (self.best - loglik), 0.0)) - quantile, z
            return known[value][0]

        for step in OUTWARDS:
            value = estimate + side * step * width
            at_bound = side * (value - bound) >= 0
            if at_bound:
                value = bound - side * NEAR * min(width, abs(bound - estimate) or width)
            if side * (value - inside) <= 0:
                return bound
            z = known[inside][1]
            if excess(value, z) >= 0:
                # Where the others are is nearly linear in the value.
                way = (known[value][1] - z) / (value - inside)
                limits = {"xtol": PRECISE * width, "rtol": 1e-12}
                between = partial(_on_the_way, excess, inside, z, way)
                return brentq(between, inside, value, **limits)
            if at_bound:
                return bound
            inside = value
        return bound


def _on_the_way(excess, inside, z, way, value):
    return excess(value, z + way * (value - inside))


class _Held:
    """The profile of what a constraint on theta holds."""

    def __init__(self, profile, i):
        self.profile, self.i = profile, i
        self.unit = std if (std := profile.std[i]) > 0 else profile.units()[i]

    def maximum(self, value, start):
        """(l(value), z there) from a z nearby."""
        profile = self.profile

        def loss(z):
            return _loss(profile, z)[:2]

        def slope(z):
            return profile.slope(self.i, z)

        starts, scale = [], 1.0
        for z in profile.starts(start):
            along = slope(z)
            if (size := np.linalg.norm(along)) > FLAT * self.unit:
                starts.append(z + along * (value - profile.value(self.i, z)) / size**2)
                scale = size
        if not starts:
            # The design leaves it undetermined: any value is as good as the estimate.
            return profile.best, start
        held = {
            "type": "eq",
            "fun": lambda z: (profile.value(self.i, z) - value) / scale,
            "jac": lambda z: slope(z) / scale,
        }
        options = {"method": "SLSQP", "constraints": held, "options": {"ftol": 1e-9}}
        return profile.best_of(loss, starts, options)


class _Profiled:
    """The profile of a coefficient of a Gaussian model."""

    def __init__(self, profile, i):
        self.profile, self.i = profile, i

    def maximum(self, value, start):
        """(l(value), z there) from a z nearby."""
        profile, problem = self.profile, self.profile.problem
        row = profile.matrix[self.i, : len(problem.basis)] @ problem.basis * problem.y_scale

        def loss(z):
            base, slope, seen, equations = _loss(profile, z, inform=True)
            if seen is None:
                return base, slope
            C, changes = coefficient_slopes(equations)
            variance = row @ C @ row
            away = value - profile.matrix[self.i, : len(problem.basis)] @ problem.coef(seen.beta)
            bend = np.einsum("p,ipq,q->i", row, changes, row)
            more = -away / variance * (row @ seen.sensitivity)
            more = more - 0.5 * (away / variance) ** 2 * bend
            return base + 0.5 * away**2 / variance, slope + more @ profile.root

        if not len(start):
            return -loss(start)[0], start
        return profile.best_of(
            loss, profile.starts(start), {"method": "BFGS", "options": {"gtol": 1e-5}}
        )


def _loss(profile, z, inform=False):
    """(-l, its gradient in z, the evaluation, the equations) at theta-hat + root z, or None twice.

    `inform` asks for the information and what comes with it.
    """
    theta = profile.at(z)
    nothing = WORST, np.zeros_like(z), None, None
    edge = profile.space.profiled and residual_sd(profile.problem, theta)
    if edge and not MIN_SIGMA < edge < 1 / MIN_SIGMA:
        return nothing
    try:
        equations = profile.algorithm.equations(theta)
        seen = profile.algorithm.evaluation(theta, equations, inform)
    except np.linalg.LinAlgError:
        return nothing
    return -seen.loglik, -seen.gradient @ profile.root, seen, equations
