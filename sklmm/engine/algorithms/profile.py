r"""Profile likelihood intervals of a model's parameters, from a likelihood without noise.

Of a parameter psi(theta, beta) the profile l(v) is the maximum at psi = v, and an interval holds
the v at which

    zeta(v) = sign(v - psi-hat) sqrt(2 (l-hat - l(v)))

is between normal quantiles, as lme4's `profile` has it (Bates, Maechler, Bolker & Walker 2015, J.
Stat. Softw. 67(1), sec. 5.1). What is held is so by a constraint on theta. Of a coefficient
b^T beta of a Gaussian model the other ones are least squares', which leaves a problem in theta,

    l(v) = max_theta  l(theta) - (v - b^T beta-hat)^2 / (2 b^T C b),    C = (X^T V^-1 X)^-1.

The coefficients of other models are in theta, and their likelihood is quadrature's or Laplace's.

With each l(v) comes its slope, the constraint's multiplier, and with them that of zeta, which is
nearly linear: the cubic through two of its points tells the limit that a quantile has.
"""

import warnings
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize
from sklearn.exceptions import ConvergenceWarning

from sklmm.engine.algorithms import edges
from sklmm.engine.limits import blas
from sklmm.engine.theta.space import MIN_SIGMA, is_singular, residual_sd, residual_vanishes
from sklmm.families.constraints import CONSTRAINTS

#: Limits are looked for up to so many half widths of the Wald interval from the estimate, each
#: time at a distance of so many times the one before, at least and at most; and so many times. One
#: in so many points halves the range, whatever their cubic tells.
FARTHEST = 60.0
OUTWARDS = (1.01, 2.5)
MOST_POINTS = 80
HALVING = 4
#: Of the half width: a limit's precision, and the step to it from a point of the profile, with its
#: slope, that is as precise; and how near to a bound of the parameter is at it.
PRECISE = 1e-4
SURE = 1e-2
NEAR = 1e-3
#: Half width, in a parameter's own unit, where an estimate has no standard error.
UNKNOWN = 0.2
#: Slope of a parameter in standard errors of theta, in its own unit, that is none.
FLAT = 1e-8
#: Distance from a constraint, in standard errors, that is none.
HELD = 1e-3
#: What a log-likelihood is higher by than the estimates' if these are no maximum.
HIGHER = 0.01
#: Difference of zeta between neighbours that is none of a profile's, and how many are passed.
JUMP = 0.1
MOST_JUMPS = 3
#: Rise of zeta over half a width or more, from this zeta on, that is none: what is beyond is flat.
LEVEL = 1e-5
RISEN = 0.1
#: Distance to what a cubic tells beyond its points, in units of theirs.
MOST_AHEAD = 1.5
#: What a theta without a likelihood has for one.
WORST = 1e10


class Profile:
    """Profiles about the maximum `theta` of a `Reml` by factorisation, `Quadrature` or `Laplace`.

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
        #: At an end of the range `root` misses ways that a covariance which bends has from there.
        bent = not all(c.linear for c in self.space.covariances)
        self.known = not (bent and (self._singular() or residual_vanishes(self.space, theta)))
        #: theta = theta-hat + root z: z is in standard errors, and in units of theta to edges.
        self.root = np.eye(self.space.size)
        root, ways, back = edges.split(
            algorithm.information(theta),
            lambda d: _loss(self, d)[0] + self.best,
            self.space.join(theta),
        )
        self.root = np.column_stack([root, ways])
        #: z where the likelihood has fallen a little on the way back from edges, and 0.
        self.back = np.concatenate([np.zeros(root.shape[1]), back])

    def at(self, z):
        """Theta-hat + root z."""
        return self.space.moved(self.theta, self.root @ z)

    def value(self, i, z):
        """Parameter i at theta-hat + root z."""
        theta, uses = self.at(z), np.flatnonzero(self.matrix[i])
        coef = self.coef if self.space.profiled else self.problem.coef(theta.beta)
        # Others may be too large for a number where a search tries what is far away.
        with np.errstate(over="ignore"):
            every = np.concatenate([coef, self.space.natural(theta)])
        return self.matrix[i, uses] @ every[uses]

    def slope(self, i, z):
        """D value / d z there."""
        with np.errstate(over="ignore", invalid="ignore"):
            jacobian, p = self.space.jacobian(self.at(z)), self.space.p
        basis = self.problem.basis * self.problem.y_scale
        of_coef, of_natural = np.split(self.matrix[i], [len(basis)])
        uses = np.flatnonzero(of_natural)
        out = of_natural[uses] @ jacobian[uses]
        out[:p] += of_coef @ basis[:, :p]
        return out @ self.root

    def starts(self, start):
        """Where to begin: at `start` and, with a variance of 0, where it is none as well.

        At 0 the gradient vanishes, though the profile may rise with the variance. So it does at an
        edge, and near the estimate of one.
        """
        starts = [start, start + 1.0] if self._singular() else [start]
        if self.back.any():
            starts += [np.where(self.back == 0, z, self.back) for z in starts]
        return starts

    def edge(self, i):
        """On which side of parameter i its estimate is at an edge: -1, 1 or, of most, 0."""
        if not self.back.any():
            return 0
        moved = self.value(i, self.back) - self.value(i, 0 * self.back)
        inner = np.linalg.norm(self.slope(i, self.back)[self.back == 0])
        return 0 if abs(moved) <= inner else -int(np.sign(moved))

    def _singular(self):
        """Whether a covariance of the estimate is on its boundary."""
        pairs = zip(self.problem.blocks, self.theta.factors, strict=True)
        return any(is_singular(b, L, self.sigma) for b, L in pairs)

    def raw_entry(self, i):
        """(place in theta, function from values to it) of a parameter of the family, else None."""
        names, uses = list(self.space.parameters), np.flatnonzero(self.matrix[i])
        first = self.matrix.shape[1] - len(names)
        if len(uses) != 1 or uses[0] < first or self.matrix[i, uses[0]] != 1:
            return None
        name = names[uses[0] - first]
        kind, estimated = self.space.parameters[name], self.space.estimated
        if name not in estimated or kind == "real":
            return None
        unit, raw = self.problem.unit_of(name), CONSTRAINTS[kind].unconstrain
        place = self.space.size - len(estimated) + estimated.index(name)
        return place, lambda value: float(raw(value / unit))

    @staticmethod
    def best_of(loss, starts, options):
        """SciPy's result for the least of a loss."""
        found = [minimize(loss, z, jac=True, **options) for z in starts]
        if held := options.get("constraints"):
            # One that ends beside the constraint has no say.
            found = [f for f in found if abs(held["fun"](f.x)) < HELD] or found
        return min(found, key=lambda f: f.fun)

    def interval(self, i, quantile):
        """(lower, upper) of entry i of (coefficients, natural): where zeta is -+ quantile.

        They are nan where they are not known: of a covariance that is not linear in theta and ends
        singular, beside a sigma of 0, or where the maxima beside them are lost on the way.
        """
        if side := self.edge(i):
            # On that side nothing tells where the parameter ends.
            limits = self.bounds[0][i], self.bounds[1][i]
            found = self._limit(_Held(self, i), i, -side, quantile, self._underway)
            return (limits[0], found) if side < 0 else (found, limits[1])
        uses, q = np.flatnonzero(self.matrix[i]), len(self.problem.basis)
        if np.isnan(self.std[i]) and (uses < q).any():
            return np.nan, np.nan
        if self.std[i] == 0:
            return self.estimate[i], self.estimate[i]
        if not self.known:
            return np.nan, np.nan
        profiled = self.space.profiled and (uses < q).all()
        own = _Profiled(self, i) if profiled else _Held(self, i)
        with blas([b.n_levels * b.r for b in self.problem.blocks], self.problem.p):
            found = tuple(self._limit(own, i, side, quantile, self._begin) for side in (-1, 1))
        # Where one is lost the other is doubtful.
        return (np.nan, np.nan) if np.isnan(found).any() else found

    def units(self):
        """Of coefficients (1), SDs (the residual one, of its column), correlations (1), family."""
        problem, out = self.problem, []
        for b, A in zip(problem.blocks, problem.z_bases, strict=True):
            sizes = self.sigma * problem.y_scale / b.size * np.linalg.norm(A, axis=1)
            out += [sizes[i] if i == j else 1.0 for i, j in b.covariance.reported]
        out = [*np.ones(len(problem.basis)), *(out[i] for i in problem.order)]
        family = [abs(value) or 1.0 for value in self.space.family(self.theta.raw).values()]
        return np.abs(self.matrix) @ [*out, *family]

    def _begin(self, own, i, side, quantile):
        """(`_Point` at the estimate, half width of the Wald interval)."""
        width = quantile * self.std[i]
        if not width > 0:
            width = UNKNOWN * own.unit
        slope, z = side * quantile / width, np.zeros(self.root.shape[1])
        return _Point(self.estimate[i], -quantile, slope, z), width

    def _underway(self, own, i, side, quantile):
        """The same of an estimate at an edge: a point on the way back, and a unit of theta."""
        z = self.back
        while True:
            value, width = self.value(i, z), quantile * np.linalg.norm(self.slope(i, z))
            point = self._point(own, value, _Point(value, 0.0, 0.0, z), None, side, quantile)
            if not point.excess >= 0:
                return point, width
            z = z - np.sign(self.back)

    def _limit(self, own, i, side, quantile, begin):
        """The value on one side where |zeta| is the quantile, or the bound if it is so nowhere."""
        inside, width = begin(own, i, side, quantile)
        estimate, bound = inside.value, self.bounds[(side + 1) // 2][i]
        nearest = bound - side * NEAR * min(width, abs(bound - estimate) or width)
        outside, last, value, jumps = None, inside, estimate + side * width, 0
        for k in range(MOST_POINTS):
            at_bound = side * (value - nearest) >= 0
            value = nearest if at_bound else value
            if side * (value - inside.value) <= 0:
                return bound
            before, last = last, self._point(own, value, inside, outside, side, quantile)
            if np.isnan(last.excess):
                return np.nan
            ahead = last.crossing(before)
            if last.excess >= 0:
                outside = last
            else:
                far = side * (value - estimate) > FARTHEST * width
                level = outside is None and last.is_level(inside, width, quantile)
                if at_bound or far or level:
                    return bound
                inside = last
            known = side * (ahead - inside.value) > 0
            known &= outside is None or side * (outside.value - ahead) > 0
            if known and abs(ahead - value) < SURE * width:
                return float(np.clip(ahead, *(limit[i] for limit in self.bounds)))
            found = outside is not None and abs(outside.value - inside.value) < PRECISE * width
            if found and outside.excess - inside.excess < JUMP:
                break
            if found:
                # A profile does not jump: the others ended at a lower maximum, as from far away.
                outside, jumps = None, jumps + 1
                if jumps > MOST_JUMPS:
                    return np.nan
            if outside is None:
                nearer, farther = (estimate + far * (value - estimate) for far in OUTWARDS)
                ahead = ahead if known else farther
                value = side * np.clip(side * ahead, side * nearer, side * farther)
            else:
                halve = not known or k % HALVING == HALVING - 1
                value = (inside.value + outside.value) / 2 if halve else ahead
        return bound if outside is None else outside.value

    def _point(self, own, value, inside, outside, side, quantile):
        """The `_Point` of the profile at a value, between or beyond others."""
        z = inside.z
        if outside is not None:
            # Where the others are is nearly linear in the value.
            way = (outside.z - z) / (outside.value - inside.value)
            z = z + way * (value - inside.value)
        loglik, z, slope = own.maximum(value, z)
        if loglik > self.best + HIGHER:
            warnings.warn(
                f"method='profile': with a parameter held at {value:.4g} the log-likelihood is "
                f"higher by {loglik - self.best:.2g} than at the estimates: these are a local "
                "maximum, and intervals about it are too wide. Leave out what few rows tell, or "
                "fit from another start.",
                ConvergenceWarning,
                stacklevel=2,
            )
        zeta = np.sqrt(max(2 * (self.best - loglik), 0.0))
        return _Point(value, zeta - quantile, -slope / zeta if zeta > 0 else np.nan, z)


class _Point(NamedTuple):
    """A point of a profile: |zeta| less the quantile there, its slope, and where the others are."""

    value: float
    excess: float
    slope: float
    z: np.ndarray

    def is_level(self, other, width, quantile):
        """Whether zeta, which is not 0, has not risen from another point inside the limit."""
        near = abs(self.value - other.value) < width / 2 or self.excess < RISEN - quantile
        return not near and abs(self.excess - other.excess) < LEVEL

    def crossing(self, other):
        """The value without excess, by the cubic in zeta through two points; nan is unknown."""
        if not self.slope * other.slope > 0:
            return np.nan
        step = self.excess - other.excess
        t = -other.excess / step if step else np.inf
        if not 0 <= t <= MOST_AHEAD:
            return self.value - self.excess / self.slope
        return (
            (1 + 2 * t) * (1 - t) ** 2 * other.value
            + t * (1 - t) ** 2 * step / other.slope
            + t**2 * (3 - 2 * t) * self.value
            + t**2 * (t - 1) * step / self.slope
        )


class _Held:
    """The profile of what a constraint on theta holds."""

    def __init__(self, profile, i):
        self.profile, self.i = profile, i
        self.unit = std if (std := profile.std[i]) > 0 else profile.units()[i]
        #: A parameter of the family is held by its logarithm or logit, linear in z.
        self.raw = profile.raw_entry(i)

    def value(self, z):
        """What is held, at z."""
        if self.raw is None:
            return self.profile.value(self.i, z)
        return self.profile.space.join(self.profile.at(z))[self.raw[0]]

    def slope(self, z):
        """D value / d z there."""
        if self.raw is None:
            return self.profile.slope(self.i, z)
        return self.profile.root[self.raw[0]]

    def maximum(self, value, start):
        """(l(value), z there, l's slope in the value) from a z nearby."""
        profile, slope = self.profile, self.slope
        held_at = value if self.raw is None else self.raw[1](value)

        def loss(z):
            return _loss(profile, z)

        starts, scale = [], 1.0
        for z in profile.starts(start):
            along = slope(z)
            if (size := np.linalg.norm(along)) > FLAT * (self.unit if self.raw is None else 1.0):
                starts.append(z + along * (held_at - self.value(z)) / size**2)
                scale = size
        if not starts:
            # The design leaves it undetermined: any value is as good as the estimate.
            return profile.best, start, 0.0
        held = {
            "type": "eq",
            "fun": lambda z: (self.value(z) - held_at) / scale,
            "jac": lambda z: slope(z) / scale,
        }
        options = {"method": "SLSQP", "constraints": held, "options": {"ftol": 1e-9}}
        found = profile.best_of(loss, starts, options)
        along = profile.slope(self.i, found.x)
        return -found.fun, found.x, -(found.jac @ along) / max(along @ along, 1e-300)


class _Profiled:
    """The profile of a coefficient of a Gaussian model."""

    def __init__(self, profile, i):
        self.profile, self.i = profile, i

    def maximum(self, value, start):
        """(l(value), z there, l's slope in the value) from a z nearby."""
        profile, problem = self.profile, self.profile.problem
        uses = profile.matrix[self.i, : len(problem.basis)]
        row, seen = uses @ problem.basis * problem.y_scale, {}

        def held(equations):
            # The other coefficients follow as least squares have them.
            along = equations.solve_s(row[:, None])[:, 0]
            beta = equations.cross.ols + equations.beta
            seen["multiplier"] = (value - uses @ problem.coef(beta)) / (row @ along)
            return equations.displaced(along * seen["multiplier"])

        def loss(z):
            return _loss(profile, z, held)

        if not len(start):
            return -loss(start)[0], start, -seen["multiplier"]
        options = {"method": "BFGS", "options": {"gtol": 1e-5}}
        found = profile.best_of(loss, profile.starts(start), options)
        loss(found.x)
        if not seen:
            # No theta that was tried has a likelihood.
            return np.nan, start, np.nan
        return -found.fun, found.x, -seen["multiplier"]


def _loss(profile, z, held=lambda equations: equations):
    """(-l, its gradient in z) at theta-hat + root z, by what is `held` of the equations."""
    theta = profile.at(z)
    edge = profile.space.profiled and residual_sd(profile.problem, theta)
    if edge and not MIN_SIGMA < edge < 1 / MIN_SIGMA:
        return WORST, np.zeros_like(z)
    try:
        equations = held(profile.algorithm.equations(theta))
        seen = profile.algorithm.evaluation(theta, equations, inform=False)
    except np.linalg.LinAlgError:
        return WORST, np.zeros_like(z)
    return -seen.loglik, -seen.gradient @ profile.root
