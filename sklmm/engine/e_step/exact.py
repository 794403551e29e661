"""The exact E-step: a Cholesky factorisation in float64 of all but the largest term.

With the mixed-model equations in spherical effects,

    C = [X^T w X, X^T w Z Lambda; ., Lambda^T Z^T w Z Lambda + sigma^2 I] / sigma^2,

every moment is closed form (`engine.elimination`). For a few thousand effects beside the largest
term, and the oracle every other kernel is tested against.
"""

import numpy as np
from scipy.linalg import cho_solve, cholesky, solve_triangular

from sklmm.engine.e_step.base import (
    Kernel,
    Moments,
    Posterior,
    joint_loss,
    n_theta,
    working_effects,
)
from sklmm.engine.elimination import Cross, Elimination


class _Equations:
    """The factorised mixed-model equations at one value of theta."""

    def __init__(self, params, cross):
        problem, s2 = cross.problem, params.sigma**2
        self.s2 = s2
        self.H = Elimination(cross, params.factors, s2)
        self.R = cross.lift(params.factors, cross.F, transpose=True) / s2  # H_uX
        ly = cross.lift(params.factors, cross.zy, transpose=True) / s2
        solved = self.H.solve(np.column_stack([self.R, ly]))
        self.HR, Hy = solved[:, :-1], solved[:, -1]
        self.S = cross.xx / s2 - self.R.T @ self.HR  # X^T V^-1 X
        self.S_factor = cholesky(self.S, lower=True) if problem.p else self.S
        self.beta = self.solve_s(cross.xy / s2 - self.R.T @ Hy)
        self.u = Hy - self.HR @ self.beta
        fitted = problem.X @ self.beta + cross.Z @ cross.lift(params.factors, self.u)
        self.residual = problem.y - fitted
        self.weighted = problem.weights * self.residual
        self.c = cross.Z.T @ self.weighted / s2  # Z^T P y

    def solve_s(self, right):
        return cho_solve((self.S_factor, True), right) if len(self.S) else right

    def solve(self, right_beta, right_u):
        """C^-1 applied to a right-hand side in (beta, u)."""
        Hu = self.H.solve(right_u)
        beta = self.solve_s(right_beta - self.R.T @ Hu)
        return beta, Hu - self.HR @ beta


class ExactKernel(Kernel):
    """Cholesky factorisation of the mixed-model equations; deterministic."""

    def init(self, problem, seed):
        """Cross-products, computed once."""
        return Cross(problem)

    def step(self, params, state, seed):
        """Exact moments at `params`."""
        problem = state.problem
        eq = _Equations(params, state)
        s2 = eq.s2
        sse = float(eq.weighted @ eq.residual)
        u, c = state.blocks(eq.u), state.blocks(eq.c)
        traces = eq.H.traces()
        if problem.reml and problem.p:
            # Z^T V^-1 X, of which REML takes away the part in beta.
            ZVX = (state.F - state.product(state.lift(params.factors, eq.HR))) / s2
            D = state.blocks(solve_triangular(eq.S_factor, ZVX.T, lower=True).T)
            traces = [K - np.einsum("jaq,jbq->ab", Dk, Dk) for K, Dk in zip(traces, D, strict=True)]
        score, trace = [], 0.0
        for K, L, cj in zip(traces, params.factors, c, strict=True):
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
        zq = np.column_stack([state.product(A), 2 * eq.s2 * eq.c])
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
        log_det = problem.n * np.log(eq.s2) + eq.H.log_det
        dof = problem.n
        if problem.reml and problem.p:
            dof -= problem.p
            log_det += 2 * np.log(np.diag(eq.S_factor)).sum() + problem.log_det_basis
        quadratic = sse / eq.s2 + uu
        return float(-0.5 * (dof * np.log(2 * np.pi * problem.y_scale**2) + log_det + quadratic))

    def posterior(self, params, state, seed, n_draws):
        """Exact root of the posterior covariance where p + Q <= n_draws, else `n_draws` draws."""
        p = state.problem.p
        eq = _Equations(params, state)
        variances = eq.H.variances()
        stds = [
            np.sqrt(np.einsum("ab,jbc,ac->ja", L, V, L, optimize=True))
            for L, V in zip(params.factors, variances, strict=True)
        ]
        beta_cov = eq.solve_s(np.eye(p))
        s_root = solve_triangular(eq.S_factor, np.eye(p), lower=True).T if p else eq.S
        if p + state.Q > n_draws:
            rng = np.random.default_rng(seed)
            x, e = (rng.standard_normal((k, n_draws)) / np.sqrt(n_draws) for k in (p, state.Q))
        else:
            x, e = np.split(np.eye(p + state.Q), [p])
        beta = s_root @ x
        effects = state.lift(params.factors, eq.H.root(e) - eq.HR @ beta)
        root = [part.reshape(-1, effects.shape[1]) for part in state.blocks(effects)]
        means = state.blocks(state.lift(params.factors, eq.u))
        loglik = self._loglik(state, eq, float(eq.weighted @ eq.residual), float(eq.u @ eq.u))
        return Posterior(
            eq.beta,
            tuple(means),
            tuple(stds),
            beta_cov,
            np.concatenate([beta, *root]),
            loglik,
        )
