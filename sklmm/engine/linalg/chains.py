"""What draws of parallel chains tell: covariances, and the Monte Carlo errors of means and of them.

Chains may be each other's mirror images (`mirrored`): the second half of them, of the
first.
"""

from typing import NamedTuple

import numpy as np

MAX_MEMORY = 0.95
#: Fewest draws to each control variate.
DRAWS_A_VARIABLE = 3


def deviations(draws):
    """Draws [..., C] less the mean of the chains that are not each other's mirror images."""
    C = draws.shape[-1]
    if not mirrored(C):
        return draws - draws.mean(axis=-1, keepdims=True)
    halves = draws.reshape(*draws.shape[:-1], 2, C // 2)
    return (halves - halves.mean(axis=-1, keepdims=True)).reshape(draws.shape)


def chain_covariance(draws):
    """Covariance [m, m] of draws [m, C], from chains that are not each other's mirror images."""
    C = draws.shape[1]
    halves = (draws[:, : C // 2], draws[:, C // 2 :]) if mirrored(C) else (draws,)
    return np.mean([np.atleast_2d(np.cov(half)) for half in halves], axis=0)


def excess(x, pull):
    """Covariances [..., m, m] of draws [..., m, C], less those of a normal posterior.

    With the pull T T^T grad log p for a control variate: Cov(x, pull) is - T T^T for any posterior,
    so Cov(x, x + pull) is what its covariance has beyond T T^T, and of draws from a normal one it
    is 0 (Mira, Solgi & Imparato 2013, Stat. Comput. 23, 653-662).
    """
    C = x.shape[-1]
    halves = (slice(0, C // 2), slice(C // 2, C)) if mirrored(C) else (slice(0, C),)
    out = 0.0
    for half in halves:
        own, pulled = x[..., half], x[..., half] + pull[..., half]
        away = own - own.mean(axis=-1, keepdims=True)
        away = away @ np.swapaxes(pulled - pulled.mean(axis=-1, keepdims=True), -1, -2)
        out = out + away / ((own.shape[-1] - 1) * len(halves))
    return (out + np.swapaxes(out, -1, -2)) / 2


def chain_error(away):
    """Standard error of the mean of draws, deviations [n, m, C], from the chains' own memory.

    The chains' autocorrelation at lag 1 is known well, from all of them, where batch means of a
    short window are not: Var / (n C) (1 + rho) / (1 - rho), of pairs where chains are mirrored.
    """
    C = away.shape[2]
    if mirrored(C):
        away = (away[..., : C // 2] + away[..., C // 2 :]) / 2
    n, _, C = away.shape
    variance = (away**2).sum(axis=(0, 2)) / max(n * (C - 1), 1)
    lag = (away[1:] * away[:-1]).sum(axis=(0, 2)) / max((n - 1) * (C - 1), 1)
    rho = np.clip(lag / np.where(variance > 0, variance, 1.0), 0.0, MAX_MEMORY)
    return np.sqrt(variance / (n * C) * (1 + rho) / (1 - rho))


def batch_error(values):
    """Standard error of the mean of a correlated series [n, m], by batch means."""
    n = len(values)
    size = max(int(np.sqrt(n)), 1)
    count = n // size
    if count < 2:
        return np.full(values.shape[1], np.inf)
    means = values[n - size * count :].reshape(count, size, -1).mean(axis=1)
    return means.std(axis=0, ddof=1) / np.sqrt(count)


def balanced(values, balance):
    """Draws of a symmetric matrix [m, m, n] less their regression on variables [m, n] of mean 0.

    Control variates: as large as the noise may be, nearly all of it is theirs where the data tell
    much of each effect. Each entry has those of its own two parameters, or of all if there are
    draws enough.
    """
    m, n = balance.shape
    z = balance / np.maximum(balance.std(axis=1, keepdims=True), 1e-300)
    if n >= DRAWS_A_VARIABLE * (m + 1):
        return _unexplained(values.reshape(m * m, n), z).reshape(values.shape)
    out = values.copy()
    for i in range(m):
        for j in range(i + 1):
            own = sorted({i, j})
            if n >= DRAWS_A_VARIABLE * (len(own) + 1):
                out[i, j] = out[j, i] = _unexplained(values[i, j, None], z[own])
    return out


def _unexplained(values, z):
    """Values [k, n] less their regression on variables z [v, n], their means at z = 0."""
    design = np.column_stack([np.ones(z.shape[1]), z.T])
    return values - np.linalg.lstsq(design, values.T, rcond=1e-10)[0][1:].T @ z


class CovarianceNoise(NamedTuple):
    """What tells the Monte Carlo error of a covariance [m, m] by Louis' formula.

    The chains' scores by iteration, deviations [n, m, C] from their mean in each, whose squares
    tell what is missing; and lists of draws of the complete-data information [m, m, c].
    """

    covariance: np.ndarray
    away: np.ndarray
    informations: list

    def complete(self, directions):
        """Monte Carlo variance [k] of the variances along directions [k, m], of the complete part.

        Draws are of chains in mirrored pairs.
        """
        along, out = directions @ self.covariance, np.zeros(len(directions))
        for draws in self.informations:
            n = draws.shape[2]
            own = np.einsum("km,mnc,kn->kc", along, draws, along, optimize=True)
            own = (own[:, : n // 2] + own[:, n // 2 :]) / 2 if mirrored(n) else own
            out += own.var(axis=1, ddof=1) / own.shape[1]
        return out / max(len(self.informations), 1) ** 2

    def errors(self, directions):
        """Monte Carlo errors [k] of the standard errors along directions [k, m]."""
        squares = (directions @ self.covariance @ self.away) ** 2
        variance = np.einsum("ka,ab,kb->k", directions, self.covariance, directions)
        std = np.sqrt(np.maximum(variance, 0.0))
        # What is missing may be far more than what is observed, whose error then is large.
        error = chain_error(squares - squares.mean(axis=(0, 2))[:, None])
        error = np.sqrt(error**2 + self.complete(directions))
        return 0.5 * np.divide(error, std, out=np.zeros_like(std), where=std > 0)


class Series:
    """The running mean of arrays, one an iteration, and its Monte Carlo error.

    The error counts the series' memory at lag 1, which all entries of an array share.
    """

    def __init__(self):
        self.n, self._first, self._last = 0, 0.0, 0.0
        self._sum, self._squares, self._products = 0.0, 0.0, 0.0

    def add(self, values):
        """Add an iteration's values."""
        if not self.n:
            self._first = values
        # Differences from the first: what is large and common has no digits of an error.
        away = values - self._first
        self._sum, self._squares = self._sum + away, self._squares + away**2
        self._products = self._products + away * self._last
        self.n, self._last = self.n + 1, away

    def mean(self):
        """The mean of all iterations."""
        return self._first + self._sum / self.n

    def error(self):
        """The standard error of the mean, nan of less than two iterations."""
        if self.n < 2:
            return np.full(np.shape(self._first), np.nan)
        mean = self._sum / self.n
        variance = np.maximum(self._squares - self.n * mean**2, 0.0) / (self.n - 1)
        lag = self._products - mean * (2 * self._sum - self._last) + (self.n - 1) * mean**2
        rho = np.sum(lag) / (self.n - 1) / max(np.sum(variance), 1e-300)
        rho = np.clip(rho, 0.0, MAX_MEMORY)
        return np.sqrt(variance / self.n * (1 + rho) / (1 - rho))


def mirrored(n_chains):
    """Whether chains come in pairs: an even number of them, of two pairs at least."""
    return n_chains % 2 == 0 and n_chains >= 4
