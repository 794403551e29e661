r"""The mixed-model equations with the largest term eliminated level by level.

In spherical effects u, with E the largest term, R all the others and G = Z^T w Z,

    H = Lambda^T G Lambda / s^2 + I = [ D    B^T ]     D block diagonal, one block per level of E,
                                      [ B   H_RR ]     S = H_RR - B D^{-1} B^T.

What is left is the Schur complement S [Q_R, Q_R]: factorised (`equations.schur_cholesky`) or solved
by conjugate gradients (`equations.schur_cg`). One grouping factor costs no more than its rows,
however many its levels. MixedModels.jl orders its blocked factor in the same way (Bates, Maechler,
Bolker & Walker 2015, J. Stat. Softw. 67(1), 1-48, on lme4's).
"""

from typing import ClassVar

import numpy as np

from sklmm.engine.linalg.blocks import congruent, invert, roots, turn, turn_all


class Elimination:
    """H of one theta: D^-1 [J, r, r] of E, and inner = L D^-1 L^T / s^2; S is a subclass's.

    `log_det` is log |H|, None where it is not known, and `log_det_error` its Monte Carlo error.
    """

    #: Largest relative residual of a solve that ended before its tolerance.
    unsolved = 0.0
    #: Share of draws that ended before their tolerance which their last step still changes.
    rough = 0.0
    log_det = None
    log_det_error = 0.0
    #: Solutions by their series, from which others may start.
    solutions: ClassVar[dict] = {}

    def __init__(self, cross, factors, s2):
        self.cross, self.s2, self.n = cross, s2, cross.n_eliminated
        self.factors = factors
        self.L = factors[cross.eliminated] if cross.slices else np.eye(1)
        self.D = congruent(self.L, cross.G_EE) / s2 + np.eye(len(self.L))
        self.inverse = invert(self.D)
        self.inner = congruent(self.L.T, self.inverse) / s2

    def log_det_eliminated(self):
        """log |D|."""
        return 2 * float(np.log(np.einsum("jaa->ja", roots(self.D))).sum())

    def parts(self):
        """The remaining blocks, their factors and their places among the remaining effects."""
        for k in self.cross.rest:
            s = self.cross.slices[k]
            yield k, self.factors[k], slice(s.start - self.n, s.stop - self.n)

    def lift(self, flat, transpose=False):
        """Lambda_R, or its transpose, applied to [Q_R, ...]."""
        out = np.empty_like(flat)
        first = self.cross.n_random - self.n
        out[first:] = flat[first:]
        for _, L, part in self.parts():
            out[part] = turn_all(L.T if transpose else L, flat[part])
        return out

    def _push(self, e):
        """B D^-1 e."""
        lowered = self.cross.pairs.up(turn_all(self.L, turn(self.inverse, e)))
        return self.lift(lowered, transpose=True) / self.s2

    def _pull(self, r):
        """D^-1 B^T r."""
        raised = turn_all(self.L.T, self.cross.pairs.down(self.lift(r)))
        return turn(self.inverse, raised) / self.s2

    def solve(self, right, series=None, also=None, tol=0.0):
        """H^-1 applied to [Q, c], and S^-1 to `also` [Q_R, c'] if there is such.

        A `series` of right-hand sides that are similar from theta to theta has a name: iterative
        solves start from the last solution of the same series. They may be as rough as `tol`.
        """
        e, r = right[: self.n], right[self.n :]
        r = r - self._push(e)
        if also is not None:
            both = self.solve_rest(np.column_stack([r, also]), series, tol)
            r, also = np.split(both, [r.shape[1]], axis=1)
        else:
            r = self.solve_rest(r, series, tol)
        x = np.concatenate([turn(self.inverse, e) - self._pull(r), r])
        return x if also is None else (x, also)

    def root(self, noise):
        """A root of H^-1 applied to [Q, m]: of N(0, I), draws from N(0, H^-1)."""
        e, r = noise[: self.n], self.root_rest(noise[self.n :])
        return np.concatenate([turn(roots(self.inverse), e) - self._pull(r), r])
