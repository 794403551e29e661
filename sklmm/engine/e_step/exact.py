"""The exact E-step: one dense Cholesky factorisation in float64.

With the mixed-model equations in spherical effects,

    C = [X^T w X, X^T w Z Lambda; ., Lambda^T Z^T w Z Lambda + sigma^2 I] / sigma^2,

every moment is closed form. Cost O(Q^3) a step, memory O(Q^2): for at most a few thousand effects,
and the oracle every other kernel is tested against.
"""

import numpy as np
from scipy import sparse
from scipy.linalg import cho_solve, cholesky, solve_triangular

from sklmm.engine.e_step.base import (
    Kernel,
    Moments,
    Posterior,
    joint_loss,
    n_theta,
    working_effects,
)


class _State:
    """Cross-products of the problem: G = Z^T w Z [Q, Q], F = Z^T w X [Q, p], Z^T w y [Q]."""

    def __init__(self, problem):
        self.problem = problem
        n_rows, w = len(problem.y), problem.weights
        self.slices, parts, start = [], [], 0
        for b in problem.blocks:
            size = b.n_levels * b.r
            columns = (b.refs[:, None] * b.r + np.arange(b.r)).ravel()
            indptr = np.arange(0, n_rows * b.r + 1, b.r)
            parts.append(sparse.csr_array((b.z.ravel(), columns, indptr), shape=(n_rows, size)))
            self.slices.append(slice(start, start + size))
            start += size
        self.Q = start
        Z = sparse.hstack(parts, format="csr") if parts else sparse.csr_array((n_rows, 0))
        ZW = Z.T.multiply(w).tocsr()
        self.G = (ZW @ Z).toarray()
        self.F = ZW @ problem.X
        self.zy = ZW @ problem.y
        self.Z = Z
        self.xy = problem.X.T @ (w * problem.y)
        self.xx = (problem.X * w[:, None]).T @ problem.X

    def blocks(self, flat):
        """Split [Q, ...] into [n_levels, r, ...] per block."""
        return [
            flat[s].reshape(b.n_levels, b.r, *flat.shape[1:])
            for s, b in zip(self.slices, self.problem.blocks, strict=True)
        ]

    def lift(self, factors, flat, transpose=False):
        """Lambda or Lambda^T applied to [Q, ...]."""
        out = np.empty_like(flat)
        for s, L, part in zip(self.slices, factors, self.blocks(flat), strict=True):
            pattern = "ba,jb...->ja..." if transpose else "ab,jb...->ja..."
            out[s] = np.einsum(pattern, L, part).reshape(flat[s].shape)
        return out


class _Equations:
    """The factorised mixed-model equations at one value of theta."""

    def __init__(self, params, state):
        problem, s2 = state.problem, params.sigma**2
        self.s2 = s2
        self.GL = state.lift(params.factors, state.G, transpose=True).T  # G Lambda
        H = state.lift(params.factors, self.GL, transpose=True) / s2
        H[np.diag_indices(state.Q)] += 1.0
        self.H = cholesky(H, lower=True, check_finite=False) if state.Q else H
        self.R = state.lift(params.factors, state.F, transpose=True) / s2  # H_uX
        ly = state.lift(params.factors, state.zy, transpose=True) / s2
        self.HR = cho_solve((self.H, True), self.R) if state.Q else self.R
        Hy = cho_solve((self.H, True), ly) if state.Q else ly
        self.S = state.xx / s2 - self.R.T @ self.HR  # X^T V^-1 X
        self.S_factor = cholesky(self.S, lower=True) if problem.p else self.S
        self.beta = self.solve_s(state.xy / s2 - self.R.T @ Hy)
        self.u = Hy - self.HR @ self.beta
        fitted = problem.X @ self.beta + state.Z @ state.lift(params.factors, self.u)
        self.residual = problem.y - fitted
        self.weighted = problem.weights * self.residual
        self.c = state.Z.T @ self.weighted / s2  # Z^T P y

    def solve_s(self, right):
        return cho_solve((self.S_factor, True), right) if len(self.S) else right

    def solve(self, right_beta, right_u):
        """C^-1 applied to a right-hand side in (beta, u)."""
        Hu = cho_solve((self.H, True), right_u) if len(self.H) else right_u
        beta = self.solve_s(right_beta - self.R.T @ Hu)
        return beta, Hu - self.HR @ beta


class ExactKernel(Kernel):
    """Dense Cholesky of the mixed-model equations; deterministic."""

    def init(self, problem, seed):
        """Cross-products, computed once."""
        return _State(problem)

    def step(self, params, state, seed):
        """Exact moments at `params`."""
        problem = state.problem
        eq = _Equations(params, state)
        s2 = eq.s2
        sse = float(eq.weighted @ eq.residual)
        u, c = state.blocks(eq.u), state.blocks(eq.c)
        # Z^T V^-1 Z = G / s2 - (G Lambda) H^-1 (Lambda^T G) / s2^2; REML removes X as well.
        B = eq.GL.T / s2
        if state.Q:
            B = solve_triangular(eq.H, B, lower=True, check_finite=False)
        D = None
        if problem.reml and problem.p:
            D = solve_triangular(eq.S_factor, (state.F.T - eq.HR.T @ eq.GL.T) / s2, lower=True)
        score, trace = [], 0.0
        for s, b, L, cj in zip(state.slices, problem.blocks, params.factors, c, strict=True):
            K = b.crossprod.sum(axis=0) / s2 - _gram(B[:, s], b.r)
            if D is not None:
                K -= _gram(D[:, s], b.r)
            score.append(0.5 * (np.einsum("ja,jb->ab", cj, cj) - K))
            trace += np.trace(L.T @ K @ L)
        dof = problem.n - problem.p * problem.reml
        uu = [float(np.sum(part**2)) for part in u]
        information, sensitivity = self._information(params, state, eq, u, c, sse)
        moments = Moments(
            beta=eq.beta,
            score=tuple(score),
            score_sigma=sse / s2 - (dof - trace),
            information=information,
            loglik=self._loglik(state, eq, sse, sum(uu)),
            noise=None,
            loss=joint_loss(problem, params, sse, uu),
            sensitivity=sensitivity,
        )
        return moments, state, {}

    def _information(self, params, state, eq, u, c, sse):
        """AI = q^T P q / 2 and d beta / d theta = -(X^T V^-1 X)^-1 X^T V^-1 q.

        The working vectors are q = [Z a, 2 r]; cross-products alone suffice.
        """
        m = n_theta(params.factors)
        A = np.zeros((state.Q, m - 1))
        first = 0
        for s, L, uj, cj in zip(state.slices, params.factors, u, c, strict=True):
            a = working_effects(L, uj, cj)
            A[s, first : first + a.shape[2]] = a.reshape(-1, a.shape[2])
            first += a.shape[2]
        zq = np.column_stack([state.G @ A, 2 * eq.s2 * eq.c])
        xq = np.column_stack([state.F.T @ A, np.zeros(state.problem.p)])
        qq = np.empty((m, m))
        qq[:-1, :-1] = A.T @ zq[:, :-1]
        qq[-1, :-1] = qq[:-1, -1] = A.T @ zq[:, -1]
        qq[-1, -1] = 4 * sse
        lq = state.lift(params.factors, zq, transpose=True)
        beta, v = eq.solve(xq / eq.s2, lq / eq.s2)
        return 0.5 * (qq - xq.T @ beta - lq.T @ v) / eq.s2, -beta

    @staticmethod
    def _loglik(state, eq, sse, uu):
        """Log-likelihood in y's units; REML's has log|X^T V^-1 X| in X's own columns, as lme4's."""
        problem = state.problem
        log_det = problem.n * np.log(eq.s2)
        if state.Q:
            log_det += 2 * np.log(np.diag(eq.H)).sum()
        dof = problem.n
        if problem.reml and problem.p:
            dof -= problem.p
            log_det += 2 * np.log(np.diag(eq.S_factor)).sum() + problem.log_det_basis
        quadratic = sse / eq.s2 + uu
        return float(-0.5 * (dof * np.log(2 * np.pi * problem.y_scale**2) + log_det + quadratic))

    def posterior(self, params, state, seed, n_draws):
        """Exact root of the posterior covariance where p + Q <= n_draws, else `n_draws` draws."""
        problem = state.problem
        eq = _Equations(params, state)
        inverse = solve_triangular(eq.H, np.eye(state.Q), lower=True) if state.Q else eq.H
        scaled = state.lift(params.factors, inverse.T)  # Lambda H^{-T/2}
        std = np.sqrt(np.sum(scaled**2, axis=1))
        beta_cov = eq.solve_s(np.eye(problem.p))
        s_root = (
            solve_triangular(eq.S_factor, np.eye(problem.p), lower=True).T if problem.p else eq.S
        )
        shift = -state.lift(params.factors, eq.HR) @ s_root
        if problem.p + state.Q > n_draws:
            rng = np.random.default_rng(seed)
            x, e = (rng.standard_normal((k, n_draws)) for k in (problem.p, state.Q))
            beta, effects = s_root @ x, shift @ x + scaled @ e
            root = np.concatenate([beta, effects]) / np.sqrt(n_draws)
        else:
            root = np.block([[s_root, np.zeros((problem.p, state.Q))], [shift, scaled]])
        effects = state.lift(params.factors, eq.u)
        loglik = self._loglik(state, eq, float(eq.weighted @ eq.residual), float(eq.u @ eq.u))
        return Posterior(
            eq.beta,
            tuple(state.blocks(effects)),
            tuple(state.blocks(std)),
            beta_cov,
            root,
            loglik,
        )


def _gram(columns, r):
    """Sum over levels of M_j^T M_j for M [k, n_levels * r]: the summed diagonal blocks of M^T M."""
    M = columns.reshape(len(columns), -1, r)
    return np.einsum("qja,qjb->ab", M, M, optimize=True)
