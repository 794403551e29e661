r"""The traces of REML without a factor: conjugate gradients on what elimination leaves, and probes.

The traces of Z^T V^-1 Z need the inverse of S. With vectors v of the remaining effects that are I
on average in v v^T (Hutchinson 1990), and y = S^-1 v,

    L^T K L = E sum_j v_j (v - y)_j^T      (of related levels as `equations.prior` has it)

for a term of factor L, K = sum_j (Z^T V^-1 Z)_jj, and the eliminated term's K likewise: unit
vectors for the terms of few effects, or for all where they are not many, whose traces are then
exact, and Rademacher probes for the others. Where L is nearly singular, K is found by its
definition. The probes are fixed during a fit, so the map is deterministic and Newton's method
converges. Probing S and not all of Z leaves out the noise that the eliminated term would add.
"""

from copy import copy

import numpy as np

from sklmm.engine.equations.henderson import Solution
from sklmm.engine.equations.schur_cg import SchurCG
from sklmm.engine.equations.schur_cholesky import SchurCholesky
from sklmm.engine.limits import EXACT_TRACES, factorisable
from sklmm.engine.linalg.blocks import turn
from sklmm.engine.theta.space import residual_sd

#: Relative residual of the solves while theta still moves far.
LOOSEST = 1e-4
#: Share of a block's information in 1 below which its trace is found by definition.
WELL_SCALED = 1e-2
#: Fewest and most probes by default, and the rows an effect that one probe makes up for.
PROBES = (2, 8)
PROBED_ROWS = 200


def default_probes(problem, size):
    """As many as leave an error of a few per cent of the standard errors.

    What the probes miss is off S's diagonal, and falls with the number of rows an effect.
    """
    return int(np.clip(np.ceil(PROBED_ROWS * size / problem.rows.n_rows), *PROBES))


class Probed:
    """The equations by conjugate gradients, all right-hand sides in one batch.

    probes [Q_R, f + S] are the units of f effects, then S Rademacher vectors; weights [f + S].
    """

    def __init__(self, cross, step, seed):
        self.cross, self.tol, self.max_iter = cross, step.tol, step.max_iter
        size, f = cross.Q - cross.n_eliminated, cross.n_few
        if step.n_probes is None and size <= EXACT_TRACES:
            f = size
        needed = size > f and cross.problem.blocks
        n_probes = (step.n_probes or default_probes(cross.problem, size)) if needed else 0
        self.probes = np.zeros((size, f + n_probes))
        self.probes[:f, :f] = np.eye(f)
        rng = np.random.default_rng(seed)
        self.probes[f:, f:] = rng.choice([-1.0, 1.0], (size - f, n_probes))
        #: B^T v, on which S^-1 is applied, and B^-1 v.
        self.roots = cross.prior.root(self.probes, cross.n_eliminated)
        self.backs = cross.prior.back(self.probes, cross.n_eliminated)
        self.weights = np.r_[np.ones(f), np.full(n_probes, 1 / max(n_probes, 1))]
        self.n_units = f

    def at(self, cross):
        """Those of other cross-products of the same terms."""
        out = copy(self)
        out.cross = cross
        return out

    def equations(self, theta, before=None, probed=False):
        """The equations at theta, solved from the solutions of the evaluation `before`.

        `probed` ones have S^-1 applied to the probes too, all as loosely as a step may be.
        """
        sigma = residual_sd(self.cross.problem, theta)
        tol, start, probes = self.tol, {}, self.roots if probed else None
        if before is not None:
            start = before.solutions
            tol = self._loose(theta, before.theta, sigma) if probed else tol
        H = SchurCG(self.cross, theta.factors, sigma**2, start, tol, self.max_iter)
        return Solution(theta.factors, sigma**2, self.cross, H, probes)

    def _loose(self, theta, before, sigma):
        """A tolerance below the square of the last step, which Newton's next one will be.

        An error of the solution counts for more in Z^T P y and in the traces where the rows know
        the effects well.
        """
        problem = self.cross.problem
        moved = [abs(sigma - residual_sd(problem, before))]
        if problem.sigma is not None:
            # Those of a residual SD by row.
            moved += [sigma * abs(change) for change in theta.raw - before.raw]
        moved += [np.abs(L - K).max() for L, K in zip(theta.factors, before.factors, strict=True)]
        known = [
            np.einsum("ba,jbc,ca->", L, G, L) / len(G)
            for L, G in zip(theta.factors, self.cross.G, strict=True)
        ]
        loose = min((max(moved) / sigma) ** 2 / 100, LOOSEST)
        loose /= 1 + max(known, default=0.0) / sigma**2
        return max(float(loose), self.tol)

    def log_det(self, equations):
        """log |H| by a factor where levels are coupled and one is affordable, else None.

        Draws tell little of it there: the whole inverse of a relationship is off the diagonal.
        """
        cross, blocks = equations.cross, equations.cross.problem.blocks
        sizes, coupled = [b.n_levels * b.r for b in blocks], [b.coupled for b in blocks]
        if not any(coupled) or cross.columns is not None:
            return None
        if not factorisable(sizes, "log_det", coupled):
            return None
        return SchurCholesky(cross, equations.factors, equations.s2).log_det

    def pairs(self, equations):
        """Effects b [J, r, 2 C] of each term: of the probes, and then of S^-1 applied to them.

        The eliminated ones follow. The product z^T b b'^T z' of a row's two is on average what its
        leverage has besides that of the eliminated term alone.
        """
        cross, H = self.cross, equations.H
        both = np.column_stack([self.backs, equations.probed])
        flat = np.concatenate([-H.follow(both), both])
        return cross.blocks(cross.lift(equations.factors, flat))

    def traces(self, equations):
        """Estimates of the summed blocks of Z^T V^-1 Z, and their deviations by probe or None."""
        cross, H, v, w = self.cross, equations.H, self.backs, self.roots
        if not cross.slices:
            return [], None
        T = np.eye(len(H.L)) - cross.G_EE @ H.inner
        exact = (T @ cross.G_EE).sum(axis=0) / H.s2
        f = self.n_units
        if cross.n_eliminated == cross.Q:
            return [exact], None
        y = equations.probed
        samples = [None] * len(cross.slices)
        if cross.eliminated is not None:
            lifted = cross.pairs.down(H.lift(np.column_stack([v, y])))
            turned = turn(T, lifted).reshape(len(T), -1, lifted.shape[1]) / H.s2
            ahead, behind = np.split(turned, 2, axis=2)
            samples[cross.eliminated] = -np.einsum("jac,jbc->cab", ahead, behind, optimize=True)
        for k, L, part in H.parts():
            shape = (-1, len(L), v.shape[1])
            left = (v - y)[part].reshape(shape)
            sample = np.einsum("jac,jbc->cab", w[part].reshape(shape), left, optimize=True)
            gain = np.einsum("c,cab->ab", self.weights, sample)
            if np.linalg.eigvalsh((gain + gain.T) / 2).min() > WELL_SCALED * left.shape[0]:
                back = np.linalg.inv(L)
                samples[k] = back.T @ sample @ back
            else:
                samples[k] = _direct(H, v, part, len(L))
        out, deviations = [], []
        for k, sample in enumerate(samples):
            sample = (sample + sample.transpose(0, 2, 1)) / 2
            K = np.einsum("c,cab->ab", self.weights, sample)
            out.append(K + exact if k == cross.eliminated else K)
            deviations.append(sample[f:] - sample[f:].mean(axis=0) if len(sample) > f else None)
        return out, deviations if v.shape[1] > f + 1 else None


def _direct(H, v, part, r):
    """v_j z_j^T summed over the levels of a block, z = (N - N M N) v of it alone."""
    own = np.zeros_like(v)
    own[part] = v[part]
    image = H.apply_data(own)
    solved = H.solve_rest(H.lift(image, transpose=True))
    z = image - H.apply_data(H.lift(solved))
    shape = (-1, r, v.shape[1])
    return np.einsum("jac,jbc->cab", v[part].reshape(shape), z[part].reshape(shape), optimize=True)
