r"""The matrix-free E-step for Gaussian responses: conjugate gradients on what elimination leaves.

The traces of Z^T V^-1 Z need the inverse of S. For a vector v of the remaining effects that is 1 on
average in v v^T, and u = M v, M = Lambda_R S^-1 Lambda_R^T,

    sum_j (N - N M N)_jj = E sum_j (v - N u)_j (N v)_j^T,     N = Z_R^T V_E^-1 Z_R,

and the part of the eliminated term likewise (Hutchinson 1990): unit vectors for the terms of few
effects, whose trace is then exact, and Rademacher probes for the others. The probes are fixed
during a fit, so the map is deterministic and Newton's method converges. Probing S and not all of Z
leaves out the noise that the eliminated term would add.
"""

from dataclasses import dataclass, field

import numpy as np

from sklmm.engine.cross import Cross, turn
from sklmm.engine.e_step.gaussian import GaussianKernel
from sklmm.engine.iterative import Iterative

#: Relative residual of the solves while theta still moves far.
LOOSEST = 1e-4
#: Fewest and most probes by default, and the rows an effect that one probe makes up for.
PROBES = (2, 8)
PROBED_ROWS = 200


def default_probes(problem, size):
    """As many as leave an error of a few per cent of the standard errors.

    What the probes miss is off S's diagonal, and falls with the number of rows an effect.
    """
    return int(np.clip(np.ceil(PROBED_ROWS * size / len(problem.y)), *PROBES))


@dataclass
class _State:
    """Probes [Q_R, f + S]: the units of the few, then the Rademacher ones; their weights."""

    cross: Cross
    probes: np.ndarray
    weights: np.ndarray
    warm: dict = field(default_factory=dict)
    theta: np.ndarray | None = None


class CGKernel(GaussianKernel):
    """Conjugate gradients, all right-hand sides in one batch."""

    def __init__(self, n_probes=None, tol=1e-8, max_iter=2000):
        self.n_probes = n_probes
        self.tol = tol
        self.max_iter = max_iter

    def init(self, problem, seed):
        """Cross-products and probes."""
        cross = Cross(problem)
        size, f = cross.Q - cross.n_eliminated, cross.n_few
        n_probes = (self.n_probes or default_probes(problem, size)) if size > f else 0
        probes = np.zeros((size, f + n_probes))
        probes[:f, :f] = np.eye(f)
        rng = np.random.default_rng(seed)
        probes[f:, f:] = rng.choice([-1.0, 1.0], (size - f, n_probes))
        weights = np.r_[np.ones(f), np.full(n_probes, 1 / max(n_probes, 1))]
        return _State(cross, probes, weights)

    def eliminate(self, params, state):
        """S by products."""
        return Iterative(
            state.cross,
            params.factors,
            params.sigma**2,
            state.warm,
            self._tolerance(params, state),
            self.max_iter,
        )

    def _tolerance(self, params, state):
        """Of a step: far above the last one's square, Newton's next, there is nothing to gain."""
        theta = np.concatenate([*(L.ravel() for L in params.factors), [params.sigma]])
        before, state.theta = state.theta, theta
        if before is None:
            return self.tol
        moved = np.abs(theta - before).max() / params.sigma
        return float(np.clip(moved**2 / 100, self.tol, max(self.tol, LOOSEST)))

    def traces(self, state, equations):
        """Estimates, and their deviations by probe."""
        cross, H, v = state.cross, equations.H, state.probes
        T = np.eye(len(H.L)) - cross.G_EE @ H.inner
        exact = (T @ cross.G_EE).sum(axis=0) / H.s2
        f = cross.n_few
        if not cross.rest:
            return [exact], None
        vu = np.column_stack([v, H.lift(equations.probed)])
        Nv, Nu = np.split(H.apply_data(vu), 2, axis=1)
        samples = [None] * len(cross.slices)
        turned = turn(T, cross.parted.down(vu)).reshape(len(T), -1, vu.shape[1]) / H.s2
        ahead, behind = np.split(turned, 2, axis=2)
        samples[cross.eliminated] = -np.einsum("jac,jbc->cab", ahead, behind, optimize=True)
        for k, L, part in H.parts():
            shape = (-1, len(L), v.shape[1])
            away = (v - Nu)[part].reshape(shape)
            samples[k] = np.einsum("jac,jbc->cab", away, Nv[part].reshape(shape), optimize=True)
        out, deviations = [], []
        for k, sample in enumerate(samples):
            sample = (sample + sample.transpose(0, 2, 1)) / 2
            K = np.einsum("c,cab->ab", state.weights, sample)
            out.append(K + exact if k == cross.eliminated else K)
            deviations.append(sample[f:] - sample[f:].mean(axis=0) if len(sample) > f else None)
        return out, deviations if v.shape[1] > f + 1 else None

    def info(self, equations):
        """Iterations of the solver."""
        return {"cg_iterations": equations.H.iterations}
