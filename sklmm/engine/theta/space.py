"""theta = (beta, vech L_1, ..., vech L_K, raw phi): its layout, its bounds, and its natural units.

`raw` holds the family's estimated parameters on the whole line: log for positive ones, logit for
those in (0, 1). Under REML beta is integrated out and is no part of theta; of a Gaussian model
fitted by ML it is a function of the rest.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.linalg import block_diag
from scipy.special import expit, logit

from sklmm.covariances.unstructured import vech_indices
from sklmm.result import natural

CONSTRAINTS = {
    "positive": (np.exp, np.log),
    "real": (lambda raw: raw, lambda value: value),
    "unit": (expit, logit),
}
#: A log or logit beyond this is at the edge of its range, a dispersion of 0 or a shape of infinity:
#: float64 has no digits of y that would tell.
MAX_RAW = 36.0


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

    @property
    def estimated(self):
        """Names of the family's estimated parameters."""
        return [name for name, kind in self.parameters.items() if isinstance(kind, str)]

    @property
    def size(self):
        """Length of theta."""
        sizes = [b.r * (b.r + 1) // 2 for b in self.problem.blocks]
        return self.p + sum(sizes) + len(self.estimated)

    @property
    def free(self):
        """Which entries are estimated: not those of a pinned SD."""
        parts = [np.full(b.r * (b.r + 1) // 2, b.sd is None) for b in self.problem.blocks]
        ones = np.ones(len(self.estimated), bool)
        return np.concatenate([np.ones(self.p, bool), *parts, ones])

    def join(self, theta):
        """Flat theta; under REML without the beta that an estimate shows."""
        parts = [L[vech_indices(len(L))] for L in theta.factors]
        return np.concatenate([theta.beta[: self.p], *parts, theta.raw])

    def split(self, flat):
        """The inverse of `join`."""
        factors, first = [], self.p
        for b in self.problem.blocks:
            L = np.zeros((b.r, b.r))
            rows, columns = vech_indices(b.r)
            L[rows, columns] = flat[first : first + len(rows)]
            factors.append(L)
            first += len(rows)
        return Theta(flat[: self.p], tuple(factors), flat[first:])

    def moved(self, theta, step):
        """Theta after a step [m]; the columns of L keep the signs that the step gives them."""
        return self.split(self.join(theta) + step)

    def with_beta(self, square):
        """A covariance of all of (beta, theta) from one of theta [m, m], 0 on a beta beside it."""
        first = self.problem.p - self.p
        return np.pad(square, [(first, 0), (first, 0)])

    def bounded(self, flat, step):
        """(flat + step, step) with logarithms and logits kept within `MAX_RAW` of 0."""
        new = flat + step
        first = self.size - len(self.estimated)
        new[first:] = self.clipped(new[first:])
        return new, new - flat

    def clipped(self, raw):
        """Raw parameters within their bounds."""
        real = [self.parameters[name] == "real" for name in self.estimated]
        return np.where(real, raw, np.clip(raw, -MAX_RAW, MAX_RAW))

    def family(self, raw):
        """All family parameters by name, in the table's units."""
        values = dict(zip(self.estimated, raw, strict=True))
        out = {}
        for name, kind in self.parameters.items():
            value = CONSTRAINTS[kind][0](values[name]) if name in values else kind
            out[name] = float(value) * (self.problem.sigma_scale if name == "sigma" else 1.0)
        return out

    def natural(self, theta):
        """SDs, correlations and family parameters in the table's units."""
        covariances = [self.problem.covariance(k, L) for k, L in enumerate(theta.factors)]
        return natural(covariances, list(self.family(theta.raw).values()))

    def jacobian(self, theta):
        """D natural / d theta [n_natural, size]."""
        problem, h = self.problem, 1e-6
        blocks = [
            slopes(problem.factor(k, L), problem.factor(k, np.eye(len(L))))
            for k, L in enumerate(theta.factors)
        ]
        family = np.zeros((len(self.parameters), len(theta.raw)))
        for i, e in enumerate(h * np.eye(len(theta.raw))):
            up, down = (list(self.family(theta.raw + d).values()) for d in (e, -e))
            family[:, i] = np.subtract(up, down) / (2 * h)
        return block_diag(np.zeros((0, self.p)), *blocks, family)


def residual_sd(problem, theta):
    """The residual SD of a Gaussian model at theta, in standard units."""
    return float(np.exp(theta.raw[0])) if len(theta.raw) else problem.sigma


def slopes(factor, basis):
    """Derivatives of a covariance's SDs and correlations in vech L, for F = basis L: [m, m].

    In closed form: at a slope's far origin a correlation differs from 1 in its last digits only.
    """
    r = len(factor)
    sd = np.linalg.norm(factor, axis=1)
    safe = np.where(sd > 0, sd, 1.0)[:, None]
    unit, pairs = factor / safe, np.tril_indices(r, -1)
    columns = []
    for a, b in zip(*vech_indices(r), strict=True):
        change = basis[:, a] / safe[:, 0]
        along = unit[:, b] * change
        turned = -along[:, None] * unit
        turned[:, b] += change
        corr = turned @ unit.T
        columns.append(np.concatenate([along * sd * (sd > 0), (corr + corr.T)[pairs]]))
    return np.column_stack(columns)
