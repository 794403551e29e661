r"""The equations of a Gaussian model solved at one theta: its likelihood, score and information.

In standard units, with spherical effects u (lme4's notation),

    y = X beta + Z Lambda u + e,   u ~ N(0, I),   e ~ N(0, sigma^2 W^{-1}), Lambda = blockdiag(I (x)
    L_k),   Sigma_k = L_k L_k^T,   V = Z Lambda Lambda^T Z^T + sigma^2 W^{-1}.

Fisher's identity gives the gradient of the (restricted) log-likelihood l,

    G_k = dl / dSigma_k = (c_k c_k^T - K_k) / 2,   c = Z^T P y,   K = Z^T P Z summed by level
    (of levels with a relationship A, A_ij c_i c_j^T and A_ij K_ij summed over all pairs of them),

    dl / dlog(sigma) = r^T W r / sigma^2 - (n - p - tr Lambda^T K Lambda),

with r the residuals. The average information of theta = (theta_1, ..., theta_K, log sigma),
without log sigma where it is pinned, is AI-REML's (Gilmour, Thompson & Cullis 1995, Biometrics 51,
1440-1450); the observed one is less the curvature of Sigma_k in theta_k. All of it but the traces
of K is a solve of the mixed-model equations, and no step goes back to the rows.
"""

from copy import copy
from functools import cached_property
from typing import NamedTuple

import numpy as np

from sklmm.engine.equations.mixed_model import Equations
from sklmm.engine.linalg.blocks import by_factor, lower_factor
from sklmm.engine.theta.space import slopes

#: Of solves for the information, no less: it is a metric, and standard errors.
INFORMATION_TOL = 1e-4


class Solution(Equations):
    """The equations of a Gaussian model, solved for y: beta, u and the residual.

    beta is that of y less its least-squares fit, in the cross-products' X, its mode or mean where
    coefficients have a prior. `probed` is S^-1 applied
    to `probes` [Q_R, c].
    """

    def __init__(self, factors, s2, cross, H, probes=None):
        super().__init__(factors, s2, cross, H)
        right = cross.lift(factors, cross.Fy, transpose=True) / s2
        if probes is None:
            solved = H.solve(right, "data")
        else:
            solved, self.probed = H.solve(right, "data", probes)
        # X's columns, which the base class would make alone, and y's in one batch.
        lifted = cross.lift(factors, solved)
        image = cross.product(lifted, H.raised.get("data"))
        self.R, self.HR, self.follow, self.GHR = (
            both[:, :-1] for both in (right, solved, lifted, image)
        )
        free = cross.xy / s2 - self.R.T @ solved[:, -1]
        if self.coef_prior is not None:
            free += self.coef_prior.gradient(cross.ols)
        self.beta = self.solve_s(free[:, None])[:, 0]
        self.u = solved[:, -1] - self.HR @ self.beta
        # Of the effects: coefficients of sparse columns have no prior.
        random = self.u[: cross.n_random]
        self.uu = float(np.sum(random * cross.prior.times(random)))
        b = lifted[:, -1] - self.follow @ self.beta
        zwr = cross.zy - cross.F @ self.beta - (image[:, -1] - self.GHR @ self.beta)
        xwr = cross.xy - cross.xx @ self.beta - cross.F.T @ b
        self.c = zwr / s2  # Z^T P y
        fitted = self.beta @ (cross.xy + xwr) + b @ (cross.zy + zwr)
        self.sse = max(float(cross.yy - fitted), 0.0)

    @cached_property
    def S_factor(self):
        """The lower factor of S: LinAlgError where S is singular, for a step to be taken back."""
        return lower_factor(self.S)

    def displaced(self, step):
        """The same at coefficients beta + step [p], which are no longer the likeliest.

        Of a full likelihood: REML's has no coefficients. u are the means of the effects given them.
        """
        out, follow, prior = copy(self), self.HR @ step, self.cross.prior
        out.beta, out.u, out.c = self.beta + step, self.u - follow, self.c - self.ZVX @ step
        out.uu, told = float(out.u @ prior.times(out.u)), prior.times(follow)
        # With r the residuals and N = X - Z Lambda HR, and the prior's P, X^T w r = 0 and
        # N^T w N = s2 (S - HR^T P HR).
        more = 2 * told @ self.u + step @ self.S @ step - told @ follow
        out.sse = self.sse + self.s2 * float(more)
        return out

    def _residual_vector(self):
        """Sums of 2 r, log sigma's working vector: of none where that is pinned."""
        free = int(self.cross.problem.sigma is None)
        zq = np.tile(2 * self.s2 * self.c[:, None], free)
        return zq, np.zeros((self.cross.p, free)), np.full((free, free), 4 * self.sse)

    def information(self, u, c, vectors=None):
        """AI = q^T P q / 2 and d beta / d theta = -(X^T V^-1 X)^-1 X^T V^-1 q.

        The working vectors of AI-REML (Gilmour, Thompson & Cullis 1995) are q = [Z a, 2 r], the
        last one where sigma is estimated; or others of the rows, `vectors`: (Z^T w q, X^T w q,
        q^T w q).
        """
        cross, factors = self.cross, self.factors
        changes = slopes(cross.problem, factors)
        vectors = self._residual_vector() if vectors is None else vectors
        m, free = sum(map(len, changes)), vectors[0].shape[1]
        A, first = np.zeros((cross.Q, m)), 0
        c = [cross.prior.relate(k, own) for k, own in enumerate(c)]
        for s, *part in zip(cross.slices, factors, changes, u, c, strict=True):
            own = working_effects(*part)
            A[s, first : first + len(own)] = own.reshape(len(own), s.stop - s.start).T
            first += len(own)
        # Z^T w q, X^T w q and q^T w q.
        zq, xq = np.empty((cross.Q, m + free)), np.empty((cross.p, m + free))
        zq[:, :m], xq[:, :m] = cross.product(A), cross.F.T @ A
        zq[:, m:], xq[:, m:] = vectors[:2]
        qq = np.zeros((m + free, m + free))
        qq[:m] = A.T @ zq
        qq[m:, :m], qq[m:, m:] = qq[:m, m:].T, vectors[2]
        lq = cross.lift(factors, zq, transpose=True)
        solved = self.solved(xq / self.s2, lq / self.s2, "information", INFORMATION_TOL)
        information = 0.5 * (qq - xq.T @ solved[0] - lq.T @ solved[1]) / self.s2
        return (information + information.T) / 2, -solved[0]


def working_effects(factor, changes, u, c):
    """Effects a [m, n_levels, r] with Z a = dV / dtheta_m P y for each parameter of a covariance.

    For V = Z L L^T Z^T, the changes D_m = dL / dtheta_m [m, r, r] and c = Z^T P y [n_levels, r]:
    dV / dtheta_m P y = Z (D_m L^T + L D_m^T) c, and L^T c = u. Of related levels c is A Z^T P y.
    """
    return u @ changes.transpose(0, 2, 1) + c @ (changes @ factor.T)


class Evaluation(NamedTuple):
    """What the likelihood is at one theta.

    beta [p]; score, a tuple of G_k [r_k, r_k]; score_sigma, the gradient in log sigma; gradient
    [m] in theta; information [m, m], the average one, and the observed one; loglik, with the log
    density of the coefficients' prior, or None where log |H| is not known; noise [n_probes, m],
    independent replicates of the gradient's Monte Carlo error, or None; joint, log p(y, u) in
    standard units; sensitivity [p, m], d beta / d theta; solutions, those of the equations by
    series, from which solves at another theta may start; unsolved, the largest relative residual of
    a solve that ended before its tolerance, or 0. What is not asked for, both informations and the
    sensitivity, is None.
    """

    theta: NamedTuple
    beta: np.ndarray
    score: tuple
    score_sigma: float
    gradient: np.ndarray
    information: np.ndarray
    observed: np.ndarray
    loglik: float | None
    noise: np.ndarray | None
    joint: float
    sensitivity: np.ndarray
    solutions: dict
    unsolved: float


def evaluate(theta, equations, traces, deviations, inform=True, vectors=None):
    """`Evaluation` from the solved equations at theta.

    `traces` are the summed blocks [r_k, r_k] of Z^T V^-1 Z, and `deviations` [n_probes, r_k, r_k]
    those by probe, or None. `inform` asks for the informations and the sensitivity, by `vectors` as
    `Solution.information` has them.
    """
    eq, cross = equations, equations.cross
    problem = cross.problem
    u, c = cross.blocks(eq.u), cross.blocks(eq.c)
    if problem.reml and cross.p:
        traces = [K - D for K, D in zip(traces, eq.projected_traces(), strict=True)]
    score, trace = [], 0.0
    for k, (K, L, cj) in enumerate(zip(traces, theta.factors, c, strict=True)):
        score.append(0.5 * (cj.T @ cross.prior.relate(k, cj) - K))
        trace += float(((K @ L) * L).sum())
    dof = problem.n - problem.rank * problem.reml
    if problem.reml and eq.coef_prior is not None:
        # What the prior tells of the coefficients the rows need not.
        dof += np.trace(eq.solve_s(eq.coef_prior.precision))
    score_sigma = eq.sse / eq.s2 - (dof - trace)
    pairs = list(zip([b.covariance for b in problem.blocks], theta.factors, score, strict=True))
    gradient = [covariance.score(L, G) for covariance, L, G in pairs]
    information = observed = sensitivity = None
    if inform:
        information, sensitivity = eq.information(u, c, vectors)
        observed, first = information.copy(), 0
        for slope, (covariance, L, G) in zip(gradient, pairs, strict=True):
            part = slice(first, first + len(slope))
            observed[part, part] -= covariance.curvature(L, G)
            first = part.stop
        sensitivity = cross.embed(sensitivity)
    return Evaluation(
        theta=theta,
        beta=cross.coefficients(eq.beta + cross.ols, eq.u),
        score=tuple(score),
        score_sigma=score_sigma,
        gradient=np.concatenate([*gradient, np.full(len(theta.raw), score_sigma)]),
        information=information,
        observed=observed,
        loglik=log_posterior(eq, eq.H.log_det),
        noise=None if deviations is None else _noise(problem, theta, deviations),
        joint=-0.5 * (problem.n * np.log(2 * np.pi * eq.s2) + eq.sse / eq.s2 + eq.uu),
        sensitivity=sensitivity,
        solutions=eq.H.solutions,
        unsolved=eq.H.unsolved,
    )


def loglik(equations, log_det):
    """Log-likelihood in y's units from log |H|; None where that is not known.

    REML's has log |X^T V^-1 X| in X's own columns, as lme4's. No prior is in it: ML's is that of
    the coefficients, REML's has them integrated out without.
    """
    if log_det is None:
        return None
    problem, s2 = equations.cross.problem, equations.s2
    log_det = problem.n * np.log(s2) + log_det
    dof = problem.n
    quadratic = equations.sse / s2 + equations.uu
    if problem.reml and problem.p:
        factor = equations.S_factor
        if equations.coef_prior is not None:
            factor = lower_factor(equations.XVX)
            quadratic -= _gain(equations, factor)
        dof -= problem.p
        log_det += 2 * np.log(factor.diagonal()).sum() + problem.log_det_basis
    return float(-0.5 * (dof * np.log(2 * np.pi * problem.y_scale**2) + log_det + quadratic))


def log_prior(equations):
    """What the coefficients' prior adds to the log-likelihood.

    By ML its log density; by REML the log of its mean over the coefficients given y, as it is
    integrated with them.
    """
    prior, cross = equations.coef_prior, equations.cross
    if prior is None:
        return 0.0
    value = prior.value(equations.beta + cross.ols)
    if cross.problem.reml:
        factor = lower_factor(equations.XVX)
        ends = (np.log(one.diagonal()).sum() for one in (factor, equations.S_factor))
        value += np.subtract(*ends) - 0.5 * _gain(equations, factor)
    return float(value)


def log_posterior(equations, log_det):
    """The log-likelihood with the coefficients' prior, None where it is not known."""
    value = loglik(equations, log_det)
    return value if value is None else value + log_prior(equations)


def _gain(equations, factor):
    """What the quadratic form loses from the coefficients to the likeliest, by X^T V^-1 X's factor.

    There the likelihood's gradient is 0, and here it is what the prior's is less.
    """
    pull = equations.coef_prior.gradient(equations.beta + equations.cross.ols)
    return float(pull @ by_factor(factor, pull[:, None])[:, 0])


def _noise(problem, theta, deviations):
    """Errors [n_probes, m] of the gradient in theta from those of the traces."""
    out, total = [], 0.0
    parts = zip(theta.factors, slopes(problem, theta.factors), deviations, strict=True)
    for L, D, deviation in parts:
        out.append(-np.einsum("sab,mab->sm", deviation @ L, D))
        total = total + np.einsum("ba,sbc,ca->s", L, deviation, L)
    return np.column_stack([*out, total] if len(theta.raw) else out)
