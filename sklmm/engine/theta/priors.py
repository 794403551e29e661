r"""Log prior densities, in theta's standard units: their values, gradients and curvatures.

Coefficients of the table are a + A beta, a the centre of y in the intercept: with the precisions D
of their normal priors of mean 0,

    log p = -(a + A beta)^T D (a + A beta) / 2 + constant.

A gamma prior of an SD, with log u = c log(sd / sigma), c = 1 or 2 for the variance, adds

    (shape - 1) log u - rate u + constant,

and the SD is the length of the row of the term's factor F = F(theta_k) in the table's units. No
Jacobian is taken: the posterior is maximised over coefficients, SDs and sigma.
"""

from typing import NamedTuple

import numpy as np
from scipy.special import gammaln

from sklmm.engine.theta.space import bends, slopes


class LogPrior(NamedTuple):
    """A log density at theta, its gradient [m], and less its second derivatives [m, m]."""

    value: float
    gradient: np.ndarray
    curvature: np.ndarray


class NormalPrior:
    """The normal prior of the coefficients beta [p] of a problem, flat where the table's have none.

    precision [p, p]; pull [p], the gradient at beta = 0; constant, what the quadratic form lacks.
    """

    def __init__(self, problem):
        sd = problem.priors.coef
        A, known = problem.basis * problem.y_scale, np.isfinite(sd) & problem.basis.any(axis=1)
        centre = np.zeros(len(A))
        if problem.y_centre:
            centre[0] = problem.y_centre
        self._map, self._centre = A[known] / sd[known, None], centre[known] / sd[known]
        self.precision = self._map.T @ self._map
        self.pull = -self._map.T @ self._centre
        self.constant = -float(np.sum(np.log(sd[known] * np.sqrt(2 * np.pi))))

    def value(self, beta):
        """The log density at beta [p], or at each of [p, c]."""
        away = self._map @ beta + (self._centre if beta.ndim == 1 else self._centre[:, None])
        return self.constant - 0.5 * np.sum(away**2, axis=0)

    def gradient(self, beta):
        """The gradient [p] at beta, or [p, c]."""
        pull = self.pull if beta.ndim == 1 else self.pull[:, None]
        return pull - self.precision @ beta


def normal_prior(problem):
    """The `NormalPrior` of a problem's coefficients, None where they have none, or are none."""
    if problem.priors is None or not problem.p or not np.isfinite(problem.priors.coef).any():
        return None
    return NormalPrior(problem)


def log_prior(space, theta):
    """`LogPrior` of all that is theta's: the coefficients where they are, and the SDs."""
    size = space.size
    value, gradient, curvature = 0.0, np.zeros(size), np.zeros((size, size))
    for one in (*_of_coefficients(space, theta), *_of_deviations(space, theta)):
        value += one.value
        gradient += one.gradient
        curvature += one.curvature
    return LogPrior(value, gradient, curvature)


def _of_coefficients(space, theta):
    """Yield the `LogPrior` of the fixed part's coefficients, and of each of a parameter's model."""
    size, problem = space.size, space.problem
    if space.p and (normal := normal_prior(problem)) is not None:
        own, beta = np.eye(size, space.p), theta.beta[: space.p]
        bend = own @ normal.precision @ own.T
        yield LogPrior(float(normal.value(beta)), own @ normal.gradient(beta), bend)
    first = size - len(space.estimated)
    for units in problem.models:
        places = [space.estimated.index(name) for name in units.names]
        coefs = units.natural(theta.raw[places])
        for name, coef, row in zip(units.names, coefs, units.basis, strict=True):
            sd = problem.priors.parts.get(name)
            if sd is not None:
                slope = np.zeros(size)
                slope[np.add(first, places)] = row / sd
                away = coef / sd
                constant = -np.log(sd * np.sqrt(2 * np.pi))
                yield LogPrior(
                    float(constant - 0.5 * away**2), -away * slope, np.outer(slope, slope)
                )


def _of_deviations(space, theta):
    """Yield the `LogPrior` of each SD that has one."""
    size, problem = space.size, space.problem
    if all(prior is None for prior in problem.priors.sds):
        # Terms over the same levels are then one block.
        return
    log_sigma, place = _log_sigma(space, theta)
    of_terms = zip(problem.priors.sds, space.covariances, space.parts, strict=True)
    changes, bent = slopes(problem, theta.factors), bends(problem, theta.factors)
    for k, (prior, covariance, part) in enumerate(of_terms):
        if prior is None or not covariance.n_params:
            continue
        rows = [i for i, j in covariance.reported if i == j]
        factors = (problem.factor(k, own) for own in (theta.factors[k], changes[k], bent[k]))
        F, D, B = (own[..., rows, :] for own in factors)
        for f, d, b in zip(F, np.moveaxis(D, 1, 0), np.moveaxis(B, 2, 0), strict=True):
            slope, second = np.zeros(size), np.zeros((size, size))
            log_sd, slope[part], second[part, part] = _log_length(f, d, b)
            if prior.relative:
                log_sd -= log_sigma
                slope[place] -= 1.0
            power = 2.0 if prior.on == "variance" else 1.0
            value, rise, bend = _gamma(prior, power * log_sd)
            slope, second = power * slope, power * second
            yield LogPrior(value, rise * slope, -rise * second - bend * np.outer(slope, slope))


def _log_length(f, d, b):
    """log |f| of a row [r], with its first and second derivatives, from those of f."""
    square = f @ f
    if not square > 0:
        return -np.inf, np.zeros(len(d)), np.zeros((len(d),) * 2)
    along = d @ f / square
    return 0.5 * np.log(square), along, (d @ d.T + b @ f) / square - 2 * np.outer(along, along)


def _gamma(prior, log_u):
    """The log density of u, its first and second derivatives in log u."""
    tail = prior.rate * np.exp(log_u)
    constant = prior.shape * np.log(prior.rate) - gammaln(prior.shape) if prior.rate else 0.0
    rise = prior.shape - 1
    return float(rise * log_u - tail + constant), float(rise - tail), float(-tail)


def _log_sigma(space, theta):
    """log of the family's sigma, 0 without such, and its places in theta: one, or none."""
    if "sigma" not in space.parameters:
        return 0.0, []
    first, log_sigma = space.size - len(space.estimated), np.log(space.family(theta.raw)["sigma"])
    return log_sigma, [first + k for k, name in enumerate(space.estimated) if name == "sigma"]
