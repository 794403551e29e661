r"""The equations that elimination leaves, S x = b, by conjugate gradients without their matrix.

    S = Lambda_R^T (G_RR - C^T inner C) Lambda_R / s^2 + I,

one product with C and one with its transpose an iteration, all right-hand sides in one batch. The
terms of few effects, F, are eliminated too; the preconditioner is the block diagonal of what is
left, T = S_LL - S_LF S_FF^{-1} S_FL. Draws, and log |S|, are Lanczos' (`engine.linalg.krylov`).
Coefficients of sparse columns have their penalty for the I.
"""

from functools import cached_property

import numpy as np
from scipy.linalg import cho_solve, solve_triangular

from sklmm.engine.equations.crossproducts import Elimination
from sklmm.engine.linalg.blocks import invert, roots, turn
from sklmm.engine.linalg.krylov import (
    LogDeterminant,
    conjugate_gradients,
    inverse_root,
    lanczos,
)

#: Draws that one run of Lanczos' method makes at most, and numbers in one vector of its bases.
DRAWS_AT_ONCE = 32
NUMBERS_AT_ONCE = 1 << 22
#: Relative residual of a solution that tells nothing: the equations are singular.
NO_SOLUTION = 1e-3
#: Iterations, for each unknown and besides, that rounding may add to one an unknown.
MOST_ITERATIONS = (4, 100)


class SchurCG(Elimination):
    """S by products; solutions of each series start from those in `start`, and are kept."""

    def __init__(self, cross, factors, s2, start, tol, max_iter):
        super().__init__(cross, factors, s2)
        self.solutions, self.tol, self.max_iter = dict(start), tol, max_iter
        self.iterations = 0
        self.f = f = cross.n_few
        units = np.zeros((cross.Q - self.n, f))
        units[:f] = np.eye(f)
        self.S_F = self.apply(units)  # S's columns of F
        self.root_F = np.linalg.cholesky(self.S_F[:f])
        self.own = list(self._own_of_S())
        blocks = list(self._own_of_T())
        self.roots = [roots(b) for b in blocks]
        self.inverses = [invert(b) for b in blocks]

    @cached_property
    def inverse_roots(self):
        """R^-1 of the preconditioner R R^T, by term."""
        return [invert(b) for b in self.roots]

    def apply_data(self, flat):
        """N = (G_RR - C^T inner C) / s^2 applied to [Q_R, c]."""
        pulled = self.cross.pairs.around(self.inner, flat)
        return (self.cross.remaining(flat) - pulled) / self.s2

    def apply(self, flat):
        """S applied to [Q_R, c]."""
        out, cross = self.lift(self.apply_data(self.lift(flat)), transpose=True), self.cross
        first = cross.n_random - self.n
        out[:first] += cross.prior.times(flat[:first], self.n)
        if cross.columns is not None:
            out[first:] += cross.columns.penalty(flat[first:]) / self.s2
        return out

    def _large(self):
        """Factor, G's blocks, prior and place among T's effects, of each term of many levels."""
        cross = self.cross
        for k, L, part in self.parts():
            if part.start >= self.f:
                place = slice(part.start - self.f, part.stop - self.f)
                yield L, cross.G[k], cross.prior.own(k, len(L)), place
        if (columns := cross.columns) is not None:
            first = cross.n_random - self.n - self.f
            prior = columns.penalty_diagonal()[:, None, None] / self.s2
            place = slice(first, first + columns.k)
            yield np.eye(1), columns.diagonal[:, None, None], prior, place

    def _own_of_S(self):
        """S's diagonal blocks of the terms of many levels, and their places among T's effects."""
        for L, crossprod, prior, part in self._large():
            place = slice(part.start + self.f, part.stop + self.f)
            inside = crossprod - self.cross.pairs.own(self.inner, place, len(L))
            yield L.T @ inside @ L / self.s2 + prior, part

    def _own_of_T(self):
        """T's diagonal blocks, [n_levels, r, r] for each term of many levels."""
        if self.f:
            half = solve_triangular(self.root_F, self.S_F[self.f :].T, lower=True)
        for own, part in self.own:
            if self.f:
                h = half[:, part].reshape(self.f, -1, own.shape[1])
                own = own - np.einsum("fja,fjb->jab", h, h)
            yield own

    def _solve_few(self, right):
        """S_FF^-1 right."""
        return cho_solve((self.root_F, True), right)

    def _apply_left(self, flat):
        """T applied to [Q_L, c]."""
        full = np.concatenate([np.zeros((self.f, flat.shape[1])), flat])
        image = self.apply(full)
        if not self.f:
            return image
        S_FL = self.S_F[self.f :].T
        return image[self.f :] - S_FL.T @ self._solve_few(S_FL @ flat)

    def _turned(self, blocks, flat, transpose=False):
        """A block diagonal matrix, by term, or its transpose, applied to [Q_L, c]."""
        out = np.empty_like(flat)
        for b, (_, part) in zip(blocks, self.own, strict=True):
            out[part] = turn(b.transpose(0, 2, 1) if transpose else b, flat[part])
        return out

    def solve_rest(self, right, series=None, tol=0.0):
        """S^-1 applied to [Q_R, ...]."""
        if right.ndim == 1:
            return self.solve_rest(right[:, None], series, tol)[:, 0]
        f = self.f
        if f:
            S_FL = self.S_F[f:].T
            x_F = self._solve_few(right[:f])
            left = right[f:] - S_FL.T @ x_F
        else:
            left = right
        start = np.zeros_like(left)
        if series in self.solutions:
            # The posterior's series has the data's columns and no probes.
            before = self.solutions[series][:, : left.shape[1]]
            start[:, : before.shape[1]] = before
        x = self._solve_left(left, start, max(self.tol, tol))
        if series is not None:
            self.solutions[series] = x
        if not f:
            return x
        return np.concatenate([x_F - self._solve_few(S_FL @ x), x])

    def _solve_left(self, right, x, tol):
        """T^-1 applied to [Q_L, c], from x."""
        if not len(right):
            return x

        def precondition(flat):
            return self._turned(self.inverses, flat)

        most = min(self.max_iter, MOST_ITERATIONS[0] * len(right) + MOST_ITERATIONS[1])
        x, done, left = conjugate_gradients(self._apply_left, precondition, right, x, tol, most)
        self.iterations += done
        if left > tol:
            self.unsolved = max(self.unsolved, left)
        if left > max(NO_SOLUTION, tol) and most < self.max_iter:
            raise np.linalg.LinAlgError("conjugate gradients do not converge")
        return x

    def root_rest(self, noise):
        """A root of S^-1 applied to [Q_R, m]: R^-T A^(-1/2) noise for A = R^-1 T R^-T.

        And S applied to it, of the effects L: see `Drawn`. The same runs of Lanczos give log |A|,
        and so `log_det`.
        """
        f = self.f
        left = noise[f:]
        own = solve_triangular(self.root_F, noise[:f], lower=True, trans="T") if f else noise[:0]
        if not len(left):
            self._set_log_det(0.0, 0.0)
            return own, left
        log_det, x, image = LogDeterminant(self._whitened, len(left)), [], []
        step = max(min(DRAWS_AT_ONCE, NUMBERS_AT_ONCE // len(left)), 1)
        for i in range(0, left.shape[1], step):
            run = lanczos(self._whitened, left[:, i : i + step])
            self.rough = max(self.rough, run.unsolved)
            log_det.add(run)
            x.append(run.apply(inverse_root))
            image.append(run.image(inverse_root))
        self._set_log_det(log_det.value, log_det.error)
        x = self._turned(self.inverse_roots, np.concatenate(x, axis=1), transpose=True)
        # T x, by Lanczos' recurrence; and S_LF own is the rest of S's.
        image = self._turned(self.roots, np.concatenate(image, axis=1))
        if not f:
            return x, image
        S_LF = self.S_F[f:]
        return np.concatenate([own - self._solve_few(S_LF.T @ x), x]), image + S_LF @ own

    def _whitened(self, flat):
        """A applied to [Q_L, c]."""
        image = self._apply_left(self._turned(self.inverse_roots, flat, transpose=True))
        return self._turned(self.inverse_roots, image)

    def _set_log_det(self, value, error):
        """log |H| from log |A|; it is not that of a model where sparse columns have penalties."""
        if self.cross.columns is None:
            own = [np.log(np.einsum("jaa->ja", R)).sum() for R in (*self.roots, self.root_F[None])]
            self.log_det = self.log_det_eliminated() + 2 * float(sum(own)) + value
            self.log_det -= self.cross.prior.log_det
            self.log_det_error = error

    def variances(self, drawn):
        """Each level's block of H^-1, from its own block of H and draws, `Drawn`.

        Var(u_j) = H_jj^-1 + Var(E[u_j | the rest]), the first exact and the second small (Siden,
        Lindgren, Bolin & Villani 2018, J. Comput. Graph. Stat. 27, 359-376).
        """
        cross = self.cross
        out = [None] * len(cross.slices)
        rest = drawn.root[self.n :]
        if cross.eliminated is not None:
            follow = drawn.follow.reshape(*self.inverse.shape[:2], -1)
            out[cross.eliminated] = self.inverse + np.einsum("jam,jbm->jab", follow, follow)
        if self.f:
            # Exact: the few effects' block of S^-1.
            follow = self._solve_few(self.S_F[self.f :].T).T
            solved = self._solve_left(follow, np.zeros_like(follow), self.tol)
            few = self._solve_few(np.eye(self.f)) + follow.T @ solved
        own = iter(self.own)
        for k, L, part in self.parts():
            width = len(L)
            if part.start < self.f:
                size = (part.stop - part.start) // width
                levels = np.arange(size)
                out[k] = few[part, part].reshape(size, width, size, width)[levels, :, levels]
                continue
            blocks, place = next(own)
            inverse = invert(blocks)
            away = rest[part] - turn(inverse, drawn.image[place])
            away = away.reshape(-1, width, rest.shape[1])
            out[k] = inverse + np.einsum("jam,jbm->jab", away, away)
        return out

    def column_variances(self, drawn, towards):
        """Of V, the sparse columns' block of H^-1: its diagonal [k], and V W for W [k, c].

        As in `variances`, with a = E[u_j | the rest] taken apart along c = W^T u, whose covariance
        with it is known, V W - S_jj^-1 W: only what is left of its variance comes from the draws.
        """
        cross, rest = self.cross, drawn.root[self.n :]
        first = cross.n_random - self.n
        own, place = self.own[-1]
        inverse = 1 / own[:, 0]
        right = np.zeros((cross.Q, towards.shape[1]))
        right[cross.flat] = towards
        VW = self.solve(right)[cross.flat]
        along = VW - inverse * towards
        slope = np.linalg.lstsq(towards.T @ VW, along.T, rcond=1e-12)[0].T
        away = rest[first:] - inverse * drawn.image[place]
        away -= slope @ (towards.T @ rest[first:])
        known = np.einsum("kc,kc->k", slope, along)
        return inverse[:, 0] + known + np.einsum("km,km->k", away, away), VW
