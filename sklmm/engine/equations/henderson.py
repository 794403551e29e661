"""What the E-steps of Gaussian models share: moments from cross-products and an elimination.

With the mixed-model equations in spherical effects,

    C = [X^T w X, X^T w Z Lambda; ., Lambda^T Z^T w Z Lambda + sigma^2 I] / sigma^2,

every moment but the traces of Z^T P Z is a solve of them, and no step goes back to the rows.
"""

from abc import abstractmethod

import numpy as np
from scipy.linalg import cho_solve, cholesky, solve_triangular

from sklmm.engine.equations.score import (
    Kernel,
    Moments,
    Posterior,
    joint_loss,
    rescaled,
    working_effects,
)
from sklmm.engine.theta.space import residual_sd
from sklmm.result import own_sds


class Equations:
    """The mixed-model equations at one value of theta, H eliminated; beta, u and the residual.

    beta is that of y less its least-squares fit, in the cross-products' X. `probed` is S^-1 applied
    to `probes` [Q_R, c].
    """

    def __init__(self, factors, s2, cross, H, probes=None):
        self.factors, self.cross, self.H, self.s2 = factors, cross, H, s2
        self.R = cross.lift(factors, cross.F, transpose=True) / s2  # H_uX
        ly = cross.lift(factors, cross.zy, transpose=True) / s2
        right = np.column_stack([self.R, ly])
        if probes is None:
            solved = H.solve(right, "data")
        else:
            solved, self.probed = H.solve(right, "data", probes)
        self.HR, Hy = solved[:, :-1], solved[:, -1]
        b = cross.lift(factors, self.HR)
        self.GHR = cross.product(b)
        # X^T V^-1 X, in a form that is positive whatever the solver's error.
        random = self.HR[: cross.n_random]
        S = (cross.xx - 2 * cross.F.T @ b + b.T @ self.GHR) / s2 + random.T @ random
        self.S = (S + S.T) / 2
        self.S_factor = cholesky(self.S, lower=True) if cross.p else self.S
        self.beta = self.solve_s(cross.xy / s2 - self.R.T @ Hy)
        self.u = Hy - self.HR @ self.beta
        # Of the effects: coefficients of sparse columns have no prior.
        self.uu = float(np.sum(self.u[: cross.n_random] ** 2))
        b = cross.lift(factors, self.u)
        zwr = cross.zy - cross.F @ self.beta - cross.product(b)
        xwr = cross.xy - cross.xx @ self.beta - cross.F.T @ b
        self.c = zwr / s2  # Z^T P y
        fitted = self.beta @ (cross.xy + xwr) + b @ (cross.zy + zwr)
        self.sse = max(float(cross.yy - fitted), 0.0)

    def solve_s(self, right):
        """(X^T V^-1 X)^-1 right."""
        return cho_solve((self.S_factor, True), right) if len(self.S) else right

    def solve(self, right_beta, right_u, name):
        """C^-1 applied to a right-hand side in (beta, u)."""
        Hu = self.H.solve(right_u, name)
        beta = self.solve_s(right_beta - self.R.T @ Hu)
        return beta, Hu - self.HR @ beta

    def information(self, u, c):
        """AI = q^T P q / 2 and d beta / d theta = -(X^T V^-1 X)^-1 X^T V^-1 q.

        The working vectors of AI-REML (Gilmour, Thompson & Cullis 1995) are q = [Z a, 2 r], the
        last one where sigma is estimated.
        """
        cross, factors = self.cross, self.factors
        effects = [working_effects(L, uj, cj) for L, uj, cj in zip(factors, u, c, strict=True)]
        A = np.zeros((cross.Q, sum(a.shape[2] for a in effects)))
        first = 0
        for s, a in zip(cross.slices, effects, strict=True):
            A[s, first : first + a.shape[2]] = a.reshape(-1, a.shape[2])
            first += a.shape[2]
        zq, xq = cross.product(A), cross.F.T @ A
        qq = A.T @ zq
        if cross.problem.sigma is None:
            zr = 2 * self.s2 * self.c
            both = (A.T @ zr)[:, None]
            qq = np.block([[qq, both], [both.T, np.array([[4 * self.sse]])]])
            zq, xq = np.column_stack([zq, zr]), np.column_stack([xq, np.zeros(cross.p)])
        lq = cross.lift(factors, zq, transpose=True)
        beta, v = self.solve(xq / self.s2, lq / self.s2, "information")
        information = 0.5 * (qq - xq.T @ beta - lq.T @ v) / self.s2
        return (information + information.T) / 2, -beta

    def projected_columns(self):
        """(X^T V^-1 X)^-1/2 X^T V^-1 Z by block, [n_levels, r, p]: REML's part of the traces."""
        cross = self.cross
        ZVX = (cross.F - self.GHR) / self.s2
        return cross.blocks(solve_triangular(self.S_factor, ZVX.T, lower=True).T)


class GaussianKernel(Kernel):
    """Moments and posterior; subclasses eliminate, and find the traces."""

    @abstractmethod
    def eliminate(self, factors, s2, state, tol=None):
        """The `Elimination` at theta, its solves to `tol` or as accurate as they are."""

    def equations(self, theta, state):
        """The mixed-model equations at theta, solved to the kernel's own tolerance."""
        factors, s2 = theta.factors, residual_sd(state.cross.problem, theta) ** 2
        return Equations(factors, s2, state.cross, self.eliminate(factors, s2, state))

    def tolerance(self, factors, sigma, state):
        """The tolerance of a step's solves, or None where they are as accurate as they are."""
        return None

    @abstractmethod
    def traces(self, state, equations):
        """Summed blocks of Z^T V^-1 Z by block, and their deviations [S, r, r] by probe or None."""

    def loglik(self, equations):
        """Log-likelihood in y's units; REML's has log|X^T V^-1 X| in X's own columns, as lme4's.

        None where log |H| is not known.
        """
        problem, H = equations.cross.problem, equations.H
        if H.log_det is None:
            return None
        log_det = problem.n * np.log(equations.s2) + H.log_det
        dof = problem.n
        if problem.reml and problem.p:
            dof -= problem.p
            log_det += 2 * np.log(np.diag(equations.S_factor)).sum() + problem.log_det_basis
        quadratic = equations.sse / equations.s2 + equations.uu
        return float(-0.5 * (dof * np.log(2 * np.pi * problem.y_scale**2) + log_det + quadratic))

    def step(self, theta, state, seed):
        """Moments at `theta`."""
        problem, factors = state.cross.problem, theta.factors
        sigma = residual_sd(problem, theta)
        H = self.eliminate(factors, sigma**2, state, self.tolerance(factors, sigma, state))
        eq = Equations(factors, sigma**2, state.cross, H, state.probes)
        u, c = state.cross.blocks(eq.u), state.cross.blocks(eq.c)
        traces, deviations = self.traces(state, eq)
        if problem.reml and state.cross.p:
            own = [np.einsum("jaq,jbq->ab", D, D) for D in eq.projected_columns()]
            traces = [K - D for K, D in zip(traces, own, strict=True)]
        score, trace = [], 0.0
        for K, L, cj in zip(traces, factors, c, strict=True):
            score.append(0.5 * (np.einsum("ja,jb->ab", cj, cj) - K))
            trace += np.trace(L.T @ K @ L)
        dof = problem.n - problem.rank * problem.reml
        loss = 0.5 * (problem.n * np.log(2 * np.pi * eq.s2) + eq.sse / eq.s2 + eq.uu)
        information, sensitivity = eq.information(u, c)
        moments = Moments(
            beta=state.cross.coefficients(eq.beta + state.cross.ols, eq.u),
            score=tuple(score),
            score_sigma=eq.sse / eq.s2 - (dof - trace),
            information=information,
            loglik=self.loglik(eq),
            noise=None if deviations is None else noise(theta, deviations),
            loss=joint_loss(problem, factors, loss),
            sensitivity=state.cross.embed(sensitivity),
        )
        return moments, state, self.info(eq)

    def info(self, equations):
        """What `history_` tells of a step."""
        return {}

    def posterior(self, theta, state, seed, n_draws):
        """Exact root of the posterior covariance where p + Q <= n_draws, else from draws.

        The draws' covariance of the coefficients, and each effect's variance given them, are made
        exact; what stays random is the correlation of effects.
        """
        cross = state.cross
        p, Q, factors = cross.p, cross.Q, theta.factors
        eq = self.equations(theta, state)
        if few := p + Q <= n_draws:
            x, e = np.split(np.eye(p + Q), [p])
        else:
            rng = np.random.default_rng(seed)
            x, e = (rng.standard_normal((k, n_draws)) / np.sqrt(n_draws) for k in (p, Q))
            if p <= n_draws:
                x = np.linalg.qr(x.T)[0].T
        root = eq.H.root(e)
        covs = [
            np.einsum("ab,jbc,dc->jad", L, V, L, optimize=True)
            for L, V in zip(factors, eq.H.variances(root), strict=True)
        ]
        s_root = solve_triangular(eq.S_factor, np.eye(p), lower=True).T if p else eq.S
        beta = s_root @ x
        given = cross.blocks(cross.lift(factors, root))
        if not few:
            stds = own_sds(covs)
            given = [rescaled(b, std) for b, std in zip(given, stds, strict=True)]
        follow = cross.blocks(cross.lift(factors, eq.HR @ beta))
        effects = [(b - f).reshape(-1, beta.shape[1]) for b, f in zip(given, follow, strict=True)]
        beta_cov, columns = eq.solve_s(np.eye(p)), None
        if cross.columns is not None:
            beta, beta_cov, columns = columns_posterior(eq, beta, root, few)
        return Posterior(
            cross.coefficients(eq.beta + cross.ols, eq.u),
            tuple(cross.blocks(cross.lift(factors, eq.u))),
            tuple(covs),
            beta_cov,
            np.concatenate([beta, *effects]),
            self.loglik(eq),
            columns,
            loglik_error=0.0 if few else 0.5 * eq.H.log_det_error,
            unsolved=eq.H.unsolved,
        )


def columns_posterior(eq, beta, root, few):
    """Sparse columns' part of a posterior, and beta's, in all of X: see `columns.minimum_norm`.

    From draws of beta [p, m] and of the rest given beta [Q, m]: draws of beta, its covariance, and
    (mean, std, draws) of gamma, the draws of that std unless they are the `few` of an exact root.
    """
    cross, columns = eq.cross, eq.cross.columns
    HR, N, d = eq.HR[cross.flat], columns.N, columns.N.shape[1]
    beta, draws = columns.minimum_norm(beta, root[cross.flat] - HR @ beta)
    cov = eq.solve_s(np.eye(cross.p))
    # Var(gamma) = V: Var((I - N N^T) gamma) takes its diagonal, V N and N^T V N.
    follow = HR @ cov
    own, VN = eq.H.column_variances(root, np.column_stack([N, columns.towards_constant()]))
    VN = VN[:, :d] + follow @ (HR.T @ N)
    NVN = N.T @ VN
    own += np.einsum("kp,kp->k", follow, HR) + np.einsum("kd,kd->k", N @ NVN - 2 * VN, N)
    std = np.sqrt(np.maximum(own, 0.0))
    # Cov(beta, gamma) = -follow^T.
    both = np.block([[cov, -follow.T @ N], [-N.T @ follow, NVN]])
    back = np.column_stack([columns.embed(np.eye(cross.p)), columns.B])
    mean = columns.minimum_norm(eq.beta, eq.u[cross.flat])[1] + columns.start
    if not few:
        draws = rescaled(draws[:, None], std[:, None])[:, 0]
    return beta, back @ both @ back.T, (mean, std, draws)


def noise(theta, deviations):
    """Errors [S, m] of the gradient in theta from those of the traces."""
    out, total = [], 0.0
    for L, deviation in zip(theta.factors, deviations, strict=True):
        columns, rows = np.triu_indices(len(L))
        out.append(-np.einsum("sab,bd->sad", deviation, L)[:, rows, columns])
        total = total + np.einsum("ba,sbc,ca->s", L, deviation, L)
    return np.column_stack([*out, total] if len(theta.raw) else out)
