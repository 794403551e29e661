"""The posterior of coefficients and effects from draws of parallel chains over the iterations.

Each iteration's draws, with their pulls for control variates (`linalg.chains.excess`), add to the
effects' means and covariances; the draws of the last iterations are the root.
"""

import numpy as np

from sklmm.engine.linalg.chains import Series, batch_error, chain_error, excess
from sklmm.engine.posterior.assemble import Posterior


class Kept:
    """What the draws of the iterations said, of which the last `most` are kept themselves.

    Sums of the coefficients' means [p] and of each block's means [n_levels, r] and covariances
    [n_levels, r, r]; and `Series` of each block's means and variances in the table's units.
    """

    def __init__(self, latent, most):
        self.latent, self.most, self.n, self.sums = latent, most, 0, []
        self.means, self.variances = ([Series() for _ in latent.full.blocks] for _ in range(2))
        #: [p + Q, C] of (beta, effects).
        self.draws = []

    def add(self, theta, x, pull, spread):
        """Add the draws x and their pull [P, C] at theta; `spread` is that of the frame."""
        problem, layout = self.latent.full, self.latent.layout
        effects, pulls = layout.effects(theta.factors, x), layout.effects(theta.factors, pull)
        beta = x[: self.latent.problem.p]
        new, blocks = [beta.mean(axis=1)], zip(theta.factors, effects, pulls, spread, strict=True)
        for k, (L, b, pulled, own) in enumerate(blocks):
            own = np.einsum("ab,jbc,dc->jad", L, own[: len(b)], L)
            mean, cov = b.mean(axis=2) + pulled.mean(axis=2), own + excess(b, pulled)
            new += [mean, cov]
            shown = np.einsum("jaa->ja", problem.effects_covariance(k, cov))
            self.means[k].add(problem.effects(k, mean))
            self.variances[k].add(shown)
        self.sums = [a + b for a, b in zip(self.sums, new, strict=True)] if self.n else new
        self.n += 1
        flat = np.concatenate([beta, *(b.reshape(-1, x.shape[1]) for b in effects)])
        self.draws = [*self.draws, flat.astype(np.float32)][-self.most // x.shape[1] :]

    def errors(self):
        """The Monte Carlo errors of the effects' means and variances, tuples of [n_levels, r]."""
        of_both = self.means, self.variances
        return tuple(tuple(series.error() for series in blocks) for blocks in of_both)

    def root(self):
        """Deviations [p + Q, m] of the last draws, at most `most`: root root^T = Cov."""
        draws = np.concatenate(self.draws, axis=1).astype(float)[:, -self.most :]
        draws -= draws.mean(axis=1, keepdims=True)
        return draws / np.sqrt(max(draws.shape[1] - 1, 1))

    def given_coefficients(self):
        """`Posterior` of the effects of a model whose coefficients are parameters."""
        means, covs = (tuple(part / self.n for part in self.sums[k::2]) for k in (1, 2))
        covs = tuple(_positive(cov) for cov in covs)
        return Posterior(np.zeros(0), means, covs, None, self.root(), None)

    def posterior(self, integrated=None):
        """`Posterior` of coefficients and effects, REML's: the effects' covariances given beta."""
        root, p = self.root(), self.latent.problem.p
        beta, beta_cov = self.sums[0] / self.n, root[:p] @ root[:p].T
        slope = root[p:] @ root[:p].T @ np.linalg.pinv(beta_cov, hermitian=True)
        if integrated is not None:
            beta, beta_cov = integrated.mean, integrated.covariance
        first, covs = 0, []
        for b, cov in zip(self.latent.full.blocks, self.sums[2::2], strict=True):
            follows = slope[first : first + b.n_levels * b.r].reshape(b.n_levels, b.r, p)
            first += b.n_levels * b.r
            cov = cov / self.n - np.einsum("jap,pq,jbq->jab", follows, beta_cov, follows)
            covs.append(_positive(cov))
        effects = tuple(mean / self.n for mean in self.sums[1::2])
        return Posterior(beta, effects, tuple(covs), beta_cov, root, None)


def _positive(covariances):
    """Covariances [n_levels, r, r] without negative eigenvalues."""
    values, vectors = np.linalg.eigh(covariances)
    return np.einsum("jab,jb,jcb->jac", vectors, np.maximum(values, 0), vectors)


class Integrated:
    """Mean and covariance of coefficients that REML integrates out, over the averaged iterations.

    The means are moved from each theta_t to the estimate along `shift`, d beta / d theta [p, m].
    """

    def __init__(self, shift, spread):
        self.shift, self.spread = shift, spread
        self.thetas, self.draws, self.within = [], [], []

    def add(self, flat, x, pull):
        """Record the draws x and their pull [P, C] at theta."""
        beta, pull = x[: len(self.shift)], pull[: len(self.shift)]
        self.thetas.append(flat)
        self.draws.append(beta + pull)
        self.within.append(self.spread + excess(beta, pull))

    def moved(self, estimate, n_used):
        """The draws [n, p, C] of the last `n_used` iterations, moved to the estimate."""
        away = estimate - np.array(self.thetas[-n_used:])
        return np.array(self.draws[-n_used:]) + (away @ self.shift.T)[:, :, None]

    def summarize(self, estimate, error, n_used):
        """Standard errors [p] from the last `n_used` iterations.

        And before them the Monte Carlo errors of the means and of these. The means follow the
        `error` [m] of the estimate of theta.
        """
        draws = np.array(self.draws[-n_used:])
        means = draws.mean(axis=2)
        pseudo = self.moved(estimate, n_used).mean(axis=2)
        self.mean, self.covariance = pseudo.mean(axis=0), np.mean(self.within, axis=0)
        std = np.sqrt(np.diag(self.covariance))
        own = np.maximum(batch_error(pseudo), chain_error(draws - means[:, :, None]))
        error = np.sqrt(own**2 + self.shift**2 @ error**2)
        parts = np.diagonal(self.within, axis1=1, axis2=2)
        return error, 0.5 * batch_error(parts) / std, std
