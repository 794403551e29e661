r"""The marginal likelihood of any family by importance sampling about the posterior's mode.

Rows connect the levels that they have; what they leave apart, the components c of that graph (each
level, of one grouping factor), is independent given the parameters, so that

    log p(y) = sum_c log E_q[ p(y_c, u_c) / q_c(u_c) ],

q_c a multivariate t about the mode with the curvature of the Laplace approximation, whose tails
cover the posterior's. Each component has its own average, so the error grows with the root of their
number and not with the dimension (Skaug & Fournier 2006, Comput. Stat. Data Anal. 51, 699-709, on
one average for all).
"""

from typing import NamedTuple

import numpy as np
from scipy import sparse
from scipy.special import gammaln, logsumexp

from sklmm.engine.equations.schur_cholesky import SchurCholesky
from sklmm.engine.limits import CONNECTED, factorisable

#: Degrees of freedom of the proposals.
DF = 8
#: Fewest and most draws at once, and rows times draws at once; most draws in all, and rows times
#: draws.
AT_ONCE = (64, 1024)
CELLS = 1 << 20
MOST_DRAWS = 8192
MOST_CELLS = 1 << 28
#: Standard error at which there are draws enough.
ERROR = 0.05
#: Weights whose squares' mean is beyond this have an error that the draws do not show.
MOST_UNEVEN = 20.0


class Estimate(NamedTuple):
    """log p(y) and its standard error."""

    value: float
    error: float


def marginal_loglik(latent, theta, start, rng):
    """`Estimate` at theta, by a mode that is near `start`; None where it is out of reach.

    Under REML the coefficients tie all rows together; a term's levels that another one connects
    make one component of many dimensions, in which the weights become uneven.
    """
    blocks = latent.problem.blocks
    sizes = [b.n_levels * b.r for b in blocks]
    if latent.problem.p or not blocks or not factorisable(sizes, "log_det"):
        return None
    components = _Components(latent)
    if components.sizes.max() > CONNECTED:
        return None
    try:
        with np.errstate(all="ignore"):
            found = _sampled(latent, theta, start, components, rng)
    except np.linalg.LinAlgError:
        return None
    return found if found is not None and np.isfinite(found).all() else None


def _sampled(latent, theta, start, components, rng):
    mode, equations = latent.mode(theta, start)
    cross = equations.cross
    # The mode's own factor, where it has one.
    H = equations.H if equations.factorised else SchurCholesky(cross, equations.factors, 1.0)
    components = components.of(cross)
    at_once = int(np.clip(CELLS // latent.n_rows, *AT_ONCE))
    weights, more = np.zeros((components.n, 0)), 1
    while True:
        fresh = [components.log_weights(latent, theta, mode, H, rng, at_once) for _ in range(more)]
        weights = np.concatenate([weights, *fresh], axis=1)
        if _uneven(weights) > MOST_UNEVEN:
            return None
        found = _estimate(weights, H.log_det)
        m = weights.shape[1]
        if found.error < ERROR or m >= MOST_DRAWS or m * latent.n_rows > MOST_CELLS:
            return found
        # Twice as many in all.
        more = m // at_once


def _relative_variances(log_weights):
    """Of each component's weights [n_components]."""
    scaled = np.exp(log_weights - log_weights.max(axis=1, keepdims=True))
    return scaled.var(axis=1, ddof=1) / scaled.mean(axis=1) ** 2


def _uneven(log_weights):
    return 1 + _relative_variances(log_weights).max(initial=0.0)


def _estimate(log_weights, log_det):
    """The sum of the components' log means, less the bias of the logarithm."""
    m = log_weights.shape[1]
    variance = _relative_variances(log_weights) / m
    means = logsumexp(log_weights, axis=1) - np.log(m)
    value = means.sum() + 0.5 * variance.sum() - 0.5 * log_det
    return Estimate(float(value), float(np.sqrt(variance.sum())))


class _Components:
    """The component of each block's levels, and of each effect of cross-products.

    Rows' levels of the first block are connected with those of the others, and so with all.
    """

    def __init__(self, latent):
        blocks, edges = latent.problem.blocks, [np.zeros((2, 0), int)]
        starts = np.cumsum([0] + [b.n_levels for b in blocks])
        for k in range(1, len(blocks)):
            pairs = latent.rows.pairs(0, [k]).matrix.tocoo()
            places = pairs.row // blocks[0].r, starts[k] + pairs.col // blocks[k].r
            edges.append(np.stack(places))
        edges = np.concatenate(edges, axis=1)
        ones = np.ones(edges.shape[1], bool)
        graph = sparse.coo_array((ones, tuple(edges)), shape=(starts[-1], starts[-1]))
        self.n, label = sparse.csgraph.connected_components(graph, directed=False)
        self.of_first = label[: blocks[0].n_levels]
        self.of_blocks = [
            np.repeat(label[start : start + b.n_levels], b.r)
            for b, start in zip(blocks, starts, strict=False)
        ]
        self.sizes = np.bincount(np.concatenate(self.of_blocks), minlength=self.n)

    def of(self, cross):
        """The same, with the places of the effects [Q] in `cross`."""
        self.cross, self.of_effects = cross, np.empty(cross.Q, int)
        for place, labels in zip(cross.slices, self.of_blocks, strict=True):
            self.of_effects[place] = labels
        return self

    def _sums(self, groups, values):
        """Sums [n_components, m] of values [k, m]."""
        member = sparse.csr_array(
            (np.ones(len(groups)), (groups, np.arange(len(groups)))), shape=(self.n, len(groups))
        )
        return member @ values

    def log_weights(self, latent, theta, mode, H, rng, m):
        """log p(y_c, u_c) - log q_c(u_c) of fresh draws [n_components, m], less q's log |C| / 2."""
        cross, layout = self.cross, latent.layout
        noise = rng.standard_normal((cross.Q, m))
        stretch = np.sqrt(DF / rng.chisquare(DF, (self.n, m)))[self.of_effects]
        # The root of a matrix without entries between components has none either.
        away = H.root(noise) * stretch
        square = self._sums(self.of_effects, (noise * stretch) ** 2)
        _, centre = layout.split(mode[:, None])
        u = [c + part for c, part in zip(centre, cross.blocks(away), strict=True)]
        x = layout.join(np.zeros((0, m)), u)
        flat = np.empty((cross.Q, m))
        for place, part in zip(cross.slices, u, strict=True):
            flat[place] = part.reshape(-1, m)
        size = self.sizes[:, None]
        coefs, raw = latent.coefs([theta] * m, x)
        joint = self._sums(self.of_first, latent.rows.by_level(latent.like.log_prob, coefs, raw, 0))
        joint -= 0.5 * (self._sums(self.of_effects, flat**2) + size * np.log(2 * np.pi))
        proposal = gammaln((DF + size) / 2) - gammaln(DF / 2) - size / 2 * np.log(DF * np.pi)
        proposal = proposal - (DF + size) / 2 * np.log1p(square / DF)
        return joint - proposal
