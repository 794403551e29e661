r"""What an E-step kernel is, and what the M-step sees of it.

In standard units, with spherical effects u (lme4's notation),

    y = X beta + Z Lambda u + e,   u ~ N(0, I),   e ~ N(0, sigma^2 W^{-1}), Lambda = blockdiag(I (x)
    L_k),   Sigma_k = L_k L_k^T,   V = Z Lambda Lambda^T Z^T + sigma^2 W^{-1}.

A kernel returns the gradient of the (restricted) log-likelihood l as Fisher's identity gives it,

    G_k = dl / dSigma_k,     g = dl / dlog(sigma),

and the average information of theta = (vech L_1, ..., vech L_K, log sigma), without log sigma
where it is pinned (Gilmour, Thompson & Cullis 1995, Biometrics 51, 1440-1450). The EM step is a
function of G_k: Sigma_k + (2 / J_k) Sigma_k G_k Sigma_k, so one `Moments` serves both M-steps.

A kernel is ``init(problem, seed) -> state`` and
``step(theta, state, seed) -> (moments, state, info)``.
"""

from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np

from sklmm.covariances.unstructured import vech_indices


class Moments(NamedTuple):
    """All that the M-step sees of the posterior.

    beta [p]; score, a tuple of G_k [r_k, r_k]; score_sigma, the gradient in log sigma; information
    [m, m] in theta; loglik or None where the kernel has none; noise [n_probes, m], independent
    replicates of the gradient's Monte Carlo error, or None; loss, -log p(y, b | theta); sensitivity
    [p, m], d beta / d theta, or None.
    """

    beta: np.ndarray
    score: tuple
    score_sigma: float
    information: np.ndarray
    loglik: float | None
    noise: np.ndarray | None
    loss: float
    sensitivity: np.ndarray | None = None


class Posterior(NamedTuple):
    """The posterior at the estimate, standard units.

    beta [p]; effects, a tuple of [n_levels, r]; effects_cov, each level's own covariance given
    beta, a tuple of [n_levels, r, r]; beta_cov [p, p]; deviations of (beta, effects) about their
    means: root [p + Q, n_columns] with root @ root.T (an estimate of) the posterior covariance;
    loglik or None, and its Monte Carlo standard error; unsolved, the largest relative residual of a
    solve that ended before its tolerance, or 0; columns, mean [k], std [k] and root
    [k, n_columns] of the sparse columns' coefficients, or None; chains [C, n, p + m], each chain's
    estimates of (beta, theta) by iteration, or None.
    """

    beta: np.ndarray
    effects: tuple
    effects_cov: tuple
    beta_cov: np.ndarray
    root: np.ndarray
    loglik: float | None
    columns: tuple | None = None
    loglik_error: float = 0.0
    unsolved: float = 0.0
    chains: np.ndarray | None = None


def rescaled(b, std):
    """Deviations b [n_levels, r, m] with the root mean squares `std` [n_levels, r]."""
    size = np.sqrt(np.einsum("jam,jam->ja", b, b))
    return b * np.divide(std, size, out=np.ones_like(std), where=size > 0)[:, :, None]


class Kernel(ABC):
    """An E-step: stateless, given the problem's state."""

    #: Whether its moments carry fresh Monte Carlo error at every step.
    stochastic = False

    @abstractmethod
    def init(self, problem, seed):
        """State for a problem: what is computed, and drawn, once for all steps."""

    @abstractmethod
    def step(self, theta, state, seed):
        """(moments, state, info) at `theta`; `info` is a dict for `history_`."""

    @abstractmethod
    def posterior(self, theta, state, seed, n_draws):
        """Posterior at the estimate."""


def working_effects(factor, u, c):
    """d(Z_k L u)-directions: a [n_levels, r, m_k] with Z_k a = dV/dL_ab P y for each (a, b).

    For V = Z L L^T Z^T and c = Z^T P y:  dV/dL_ab P y = Z (E_ab L^T + L E_ba) c, L^T c = u.
    """
    rows, columns = vech_indices(len(factor))
    out = np.empty((*u.shape, len(rows)))
    for m, (a, b) in enumerate(zip(rows, columns, strict=True)):
        out[:, :, m] = c[:, a, None] * factor[:, b]
        out[:, a, m] += u[:, b]
    return out


def joint_loss(problem, factors, loss):
    """-log p(y, b) in the table's units, from that of y and spherical effects in standard ones.

    But for the effects' constant, which -0.5 u^T u lacks.
    """
    for block, factor, A in zip(problem.blocks, factors, problem.z_bases, strict=True):
        own = np.abs(np.diag(factor) * np.diag(A)) * problem.y_scale
        own = np.log(np.maximum(own, 1e-150)) + 0.5 * np.log(2 * np.pi)
        loss += block.n_levels * own.sum()
    return float(loss + problem.n * problem.log_unit)
