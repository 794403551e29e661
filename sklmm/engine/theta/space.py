"""theta = (beta, theta_1, ..., theta_K, raw phi): its layout, its bounds, and its natural units.

theta_k are the parameters of the covariance of block k (`sklmm.covariances`), Sigma_k = L_k L_k^T.
`raw` holds the family's estimated parameters on the whole line: log for positive ones, logit for
those in (0, 1). Under REML beta is integrated out and is no part of theta; of a Gaussian model
fitted by ML it is a function of the rest.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from sklmm.covariances.base import reported_slopes
from sklmm.families.constraints import CONSTRAINTS

#: A log or logit beyond this is at the edge of its range, a dispersion of 0 or a shape of infinity:
#: float64 has no digits of y that would tell.
MAX_RAW = 36.0
#: The least residual SD of a Gaussian model in standard units, and its logarithm.
MIN_SIGMA = 1e-5
MIN_RAW = np.log(MIN_SIGMA)
#: SDs of effects, as shares of the residual one: that below which a covariance is on its boundary,
#: and one that leaves it.
SINGULAR_SD = 1e-4
RAISED_SD = 0.05
#: Share of the least SD of effects below which a residual SD that correlations tell ends at 0.
LEAST_SHARE = 1e-2


class Theta(NamedTuple):
    """Parameters in standard units: beta [p], factors L_k [r_k, r_k], raw [m]."""

    beta: np.ndarray
    factors: tuple
    raw: np.ndarray


@dataclass(frozen=True)
class Space:
    """Layout of theta for a problem; `parameters` maps names to constraints or pinned numbers.

    `profiled` says that the coefficients are functions of the rest of theta, and none of it.
    """

    problem: object
    parameters: dict
    profiled: bool = False

    @classmethod
    def gaussian(cls, problem):
        """The space of a Gaussian model whose coefficients are least squares' for each theta."""
        parameters = {"sigma": "positive" if problem.sigma is None else problem.sigma}
        return cls(problem, parameters, profiled=True)

    @property
    def p(self):
        """Coefficients in theta: none under REML, nor where they are profiled out."""
        return 0 if self.problem.reml or self.profiled else self.problem.p

    @cached_property
    def estimated(self):
        """Names of the family's estimated parameters."""
        return [name for name, kind in self.parameters.items() if isinstance(kind, str)]

    @cached_property
    def size(self):
        """Length of theta."""
        return self.p + sum(c.n_params for c in self.covariances) + len(self.estimated)

    @cached_property
    def covariances(self):
        """The `Covariance` of each block."""
        return [b.covariance for b in self.problem.blocks]

    @cached_property
    def parts(self):
        """Places of each covariance's parameters in flat theta, slices."""
        ends = self.p + np.cumsum([0, *(c.n_params for c in self.covariances)])
        return [slice(*pair) for pair in pairwise(ends.tolist())]

    def join(self, theta):
        """Flat theta; under REML without the beta that an estimate shows."""
        parts = [c.params(L) for c, L in zip(self.covariances, theta.factors, strict=True)]
        return np.concatenate([theta.beta[: self.p], *parts, theta.raw])

    def split(self, flat):
        """The inverse of `join`."""
        pairs = zip(self.covariances, self.parts, strict=True)
        factors = tuple(covariance.factor(flat[part]) for covariance, part in pairs)
        return Theta(flat[: self.p], factors, flat[self.size - len(self.estimated) :])

    def settled(self, flat):
        """Flat theta as its factors tell it, which of two parameters for one factor have one.

        The root of an SD's has no sign: derivatives are those at the positive one.
        """
        if all(c.linear for c in self.covariances):
            return flat
        out = flat.copy()
        for covariance, part in zip(self.covariances, self.parts, strict=True):
            if not covariance.linear:
                out[part] = covariance.params(covariance.factor(flat[part]))
        return out

    def moved(self, theta, step):
        """Theta after a step [m]; the columns of L keep the signs that the step gives them."""
        return self.split(self.join(theta) + step)

    def with_beta(self, square):
        """A covariance of all of (beta, theta) from one of theta [m, m], 0 on a beta beside it."""
        first = self.problem.p - self.p
        out = np.zeros((first + len(square),) * 2)
        out[first:, first:] = square
        return out

    def beside_beta(self, directions):
        """Directions of all of (beta, theta) from those of theta [m, k]."""
        return np.pad(directions, [(self.problem.p - self.p, 0), (0, 0)])

    def bounded(self, flat, step):
        """(flat + step, step), settled, with logarithms and logits within `MAX_RAW` of 0."""
        new = self.settled(flat + step)
        first = self.size - len(self.estimated)
        new[first:] = self.clipped(new[first:])
        return new, new - flat

    def clipped(self, raw):
        """Raw parameters within their bounds."""
        real = [self.parameters[name] == "real" for name in self.estimated]
        return np.where(real, raw, np.clip(raw, -MAX_RAW, MAX_RAW))

    def family(self, raw):
        """All family parameters by name, in the table's units."""
        values, out = dict(zip(self.estimated, raw, strict=True)), {}
        for model in self.problem.models:
            own = model.natural([values[name] for name in model.names])
            values.update(zip(model.names, own, strict=True))
        for name, kind in self.parameters.items():
            value = CONSTRAINTS[kind].constrain(values[name]) if name in values else kind
            out[name] = float(value) * self.problem.unit_of(name)
        return out

    def natural(self, theta):
        """SDs, correlations and family parameters in the table's units."""
        out = []
        for k, (covariance, L) in enumerate(zip(self.covariances, theta.factors, strict=True)):
            out += reported(self.problem.covariance(k, L), covariance.reported)
        out = [out[i] for i in self.problem.order]
        return np.array([*out, *self.family(theta.raw).values()])

    def log_prior(self, theta):
        """`theta.priors.LogPrior` of theta, None without priors.

        Of coefficients that are no part of theta the equations know theirs.
        """
        if self.problem.priors is None:
            return None
        from sklmm.engine.theta.priors import log_prior

        return log_prior(self, theta)

    def jacobian(self, theta):
        """D natural / d theta [n_natural, size]."""
        problem, h, columns = self.problem, 1e-6, []
        n_family, ends = len(self.parameters), len(theta.raw)
        for k, (covariance, L) in enumerate(zip(self.covariances, theta.factors, strict=True)):
            changes = problem.factor(k, covariance.slopes(L))
            columns.append(reported_slopes(problem.factor(k, L), changes, covariance.reported))
        out = np.zeros((sum(map(len, columns)) + n_family, self.size))
        first = 0
        for part, own in zip(self.parts, columns, strict=True):
            out[first : first + len(own), part] = own
            first += len(own)
        out[:first] = out[self.problem.order]
        for i, e in enumerate(h * np.eye(ends)):
            up, down = (list(self.family(theta.raw + d).values()) for d in (e, -e))
            out[first:, self.size - ends + i] = np.subtract(up, down) / (2 * h)
        return out


def residual_sd(problem, theta):
    """The residual SD of a Gaussian model at theta, in standard units; a mean one of SDs by row."""
    if problem.sigma is not None:
        return problem.sigma
    log_sd = problem.models[0].mean @ np.append(theta.raw, 1.0) if problem.models else theta.raw[0]
    return float(np.exp(log_sd))


def residual_vanishes(space, theta):
    """Whether a Gaussian model's sigma ends at 0 beside a covariance that is not linear in theta.

    Where correlations alone tell it from effects of a row each, the likelihood is flat there.
    """
    if all(c.linear for c in space.covariances):
        return False
    if list(space.parameters) != ["sigma"] or not space.estimated:
        return False
    sigma = residual_sd(space.problem, theta)
    sds = np.concatenate([np.linalg.norm(L, axis=1) for L in theta.factors])
    sds = sds[sds > SINGULAR_SD * sigma]
    return bool(len(sds)) and bool(sigma < LEAST_SHARE * sds.min())


def is_singular(block, factor, sigma):
    """Whether a block's covariance is on its boundary: an SD at 0 or a correlation at +-1."""
    return block.covariance.at_boundary(factor, SINGULAR_SD * sigma).any()


def slopes(problem, factors):
    """The derivatives [m_k, r, r] of each factor in its covariance's parameters."""
    return [b.covariance.slopes(L) for b, L in zip(problem.blocks, factors, strict=True)]


def bends(problem, factors):
    """The second derivatives [m_k, m_k, r, r] of each factor in its covariance's parameters."""
    return [b.covariance.bends(L) for b, L in zip(problem.blocks, factors, strict=True)]


def reported(covariance, entries):
    """SDs and correlations, a list, of the `entries` (i, j) of a covariance [r, r]."""
    sd = np.sqrt(np.maximum(np.diagonal(covariance), 0.0))
    safe, sd = np.where(sd > 0, sd, 1.0).tolist(), sd.tolist()
    own = covariance.tolist()
    return [sd[i] if i == j else own[i][j] / (safe[i] * safe[j]) for i, j in entries]
