"""Maximum likelihood of models with one random intercept by adaptive Gauss-Hermite quadrature.

In NumPy, of nothing that the package computes: the right values for other methods.
"""

from typing import NamedTuple

import numpy as np
from numpy.polynomial.hermite_e import hermegauss
from scipy import stats
from scipy.optimize import minimize
from scipy.special import expit

POINTS = 31
STEP = 1e-3


def _poisson(y, eta, phi):
    mu = np.exp(eta)
    return stats.poisson.logpmf(y, mu), y - mu, mu


def _bernoulli(y, eta, phi):
    p = expit(eta)
    return np.where(y > 0, -np.logaddexp(0, -eta), -np.logaddexp(0, eta)), y - p, p * (1 - p)


def _negative_binomial(y, eta, phi):
    mu, spread = np.exp(eta), 1 + phi * np.exp(eta)
    curvature = mu / spread * (1 + phi * y) / spread
    return stats.nbinom.logpmf(y, 1 / phi, 1 / spread), (y - mu) / spread, curvature


#: log density, its slope and less its second derivative in eta, at a parameter phi.
DENSITIES = {
    "poisson": _poisson,
    "bernoulli": _bernoulli,
    "negative_binomial": _negative_binomial,
}


class Quadrature(NamedTuple):
    """Beta [p], SD and phi (or nan) at the maximum, errors of (beta, SD), and effects' moments."""

    coef: np.ndarray
    sd: float
    phi: float
    std_error: np.ndarray
    loglik: float
    effects: np.ndarray
    effects_std: np.ndarray


class Model:
    """y [n] given X [n, p] and the groups' numbers [n]."""

    def __init__(self, family, X, groups, y):
        self.density, self.with_phi = DENSITIES[family], family == "negative_binomial"
        self.X, self.groups, self.y = np.asarray(X, float), np.asarray(groups), np.asarray(y)
        self.J, self.p = int(self.groups.max()) + 1, self.X.shape[1]
        self.mode = np.zeros(self.J)
        nodes, weights = hermegauss(POINTS)
        self.nodes, self.log_weights = nodes, np.log(weights) + 0.5 * nodes**2

    def _sums(self, rows):
        return np.stack([np.bincount(self.groups, r, self.J) for r in rows.T], axis=1)

    def levels(self, values):
        """Log integrand [J, POINTS] with the weights, and effects, at (beta, log SD, log phi)."""
        fixed = self.X @ values[: self.p]
        sd = np.exp(values[self.p])
        phi = np.exp(values[-1]) if self.with_phi else None
        y, u = self.y[:, None], self.mode
        u = u if np.isfinite(u).all() else np.zeros(self.J)
        for _ in range(100):
            _, slope, curve = self.density(y, (fixed + sd * u[self.groups])[:, None], phi)
            H = 1 + sd**2 * self._sums(curve)[:, 0]
            step = (sd * self._sums(slope)[:, 0] - u) / H
            u = u + np.clip(step, -1, 1)
            if np.abs(step).max() < 1e-9:
                break
        self.mode = u
        u = u[:, None] + self.nodes / np.sqrt(H)[:, None]
        value, _, _ = self.density(y, fixed[:, None] + sd * u[self.groups], phi)
        log = self._sums(value) - 0.5 * u**2 - 0.5 * np.log(2 * np.pi * H)[:, None]
        return log + self.log_weights, sd * u

    def loglik(self, values):
        """Log-likelihood."""
        log, _ = self.levels(values)
        most = log.max(axis=1)
        return float(np.sum(most + np.log(np.exp(log - most[:, None]).sum(axis=1))))

    def fit(self, start):
        """`Quadrature` from a start (beta, SD, phi) near it."""
        start = np.asarray(start, float)
        start = np.concatenate([start[: self.p], np.log(start[self.p :])])
        # In units in which the information is near 1.
        scale = 1 / np.sqrt(np.maximum(np.diag(self.information(start)), 1.0))
        best = self.loglik(start)

        def loss(values):
            with np.errstate(all="ignore"):
                value = best - self.loglik(start + scale * values)
            return value if np.isfinite(value) else 1e10

        found = minimize(
            loss,
            np.zeros(len(start)),
            method="BFGS",
            options={"gtol": 1e-3},
        )
        values = start + scale * found.x
        covariance = np.linalg.inv(self.information(values))
        log, effects = self.levels(values)
        share = np.exp(log - log.max(axis=1, keepdims=True))
        share /= share.sum(axis=1, keepdims=True)
        mean = (share * effects).sum(axis=1)
        sd = np.exp(values[self.p])
        error = np.sqrt(np.diag(covariance))[: self.p + 1]
        error[self.p] *= sd
        return Quadrature(
            values[: self.p],
            sd,
            np.exp(values[-1]) if self.with_phi else np.nan,
            error,
            self.loglik(values),
            mean,
            np.sqrt((share * (effects - mean[:, None]) ** 2).sum(axis=1)),
        )

    def information(self, values):
        """Less the second derivatives, by central differences of a step that suits each entry."""
        m = len(values)
        here = self.loglik(values)
        steps = np.full(m, STEP)
        for i in range(m):
            # So long that the log-likelihood falls by about a tenth.
            for _ in range(8):
                e = steps[i] * np.eye(m)[i]
                fall = here - 0.5 * (self.loglik(values + e) + self.loglik(values - e))
                if 0.01 < abs(fall) < 1:
                    break
                steps[i] *= np.clip(np.sqrt(0.1 / max(abs(fall), 1e-6)), 0.03, 30)
        out = np.empty((m, m))
        for i in range(m):
            for j in range(i + 1):
                a, b = steps[i] * np.eye(m)[i], steps[j] * np.eye(m)[j]
                up = self.loglik(values + a + b) + self.loglik(values - a - b)
                down = self.loglik(values + a - b) + self.loglik(values - a + b)
                out[i, j] = out[j, i] = (down - up) / (4 * steps[i] * steps[j])
        return out
