r"""Laplace's log-likelihood at one theta, and its exact gradient, in NumPy.

    l(theta) = log p(y, m) - log |C| / 2,   C = W^T diag(w) W + (0, I),   W = [X, Z_1 L_1, ...],

with m the mode of x and w the curvature of the rows' log densities there. The gradient of log |C|
needs of C^-1 only what it is at each row's own levels (`leverages`), and the motion of the mode,
dm / dtheta = C^-1 d (gradient in x) / dtheta, one solve against it.
"""

import numpy as np

from sklmm.engine.latent.small import safe_weights
from sklmm.engine.likelihood.evaluation import evaluation
from sklmm.engine.linalg.newton import STEP
from sklmm.engine.theta.space import slopes

#: Newton's decrement at x below which what is left of the way to the mode is of second order.
NEAR = 1e-4


class Approximation:
    """Laplace's approximation at theta, about the mode [P].

    loglik; scores [m, 1], its gradient in theta; joint, log p(y, mode); and `equations`, whose C is
    that of log |C|. `known` equations, of the last step to the mode, may be the same.
    """

    def __init__(self, latent, theta, mode, known=None):
        self.latent, self.theta, self.mode = latent, theta, mode
        self.rows, p = latent.rows, latent.layout.p
        self.W = self.rows.matrix(theta.factors)
        self.y, self.w = latent.observations()
        self.eta = latent.eta(theta.beta, self.W @ mode)
        self._read_rows()
        self._factorise(known)
        self.joint = self.log_density - 0.5 * mode[p:] @ mode[p:]
        gradient, rest = self._gradient()
        self.scores = gradient[:, None]
        self.loglik = float(self.joint - 0.5 * self.equations.log_det() + rest)

    def _read_rows(self):
        """The rows' densities, scores and curvatures, and these in eta and raw by differences."""
        like, raw = self.latent.like, self.theta.raw
        n = len(raw)
        h = STEP * min(1.0, max(float(np.sqrt(np.mean(self.eta**2))), STEP))
        eta = np.repeat(self.eta[:, None], 3 + 2 * n, axis=1)
        eta[:, 1] += h
        eta[:, 2] -= h
        away = np.concatenate([np.zeros((n, 3)), STEP * np.eye(n), -STEP * np.eye(n)], axis=1)
        raw = raw[:, None] + away
        _, score, W = evaluation(like).by_row(self.y, eta, raw)
        (bend,) = evaluation(like).observed(self.y, eta, raw)
        W = bend if self.latent.observed else W
        each = self.latent.full.rows.weights

        def rates(values):
            up, down = values[:, 3 : 3 + n], values[:, 3 + n :]
            return each[:, None] * (up - down) / (2 * STEP)

        self.weights, self.bend = each * W[:, 0], each * bend[:, 0]
        self.weights_in_eta = each * (W[:, 1] - W[:, 2]) / (2 * h)
        self.weights_in_raw, self.score_in_raw = rates(W), rates(score)
        rows, self.score, self.of_raw = (
            part[..., 0] for part in evaluation(like).slopes(self.y, self.w, eta[:, :1], raw[:, :1])
        )
        self.log_density = float(self.w @ rows)

    def _factorise(self, known):
        """`equations`, and `moving` with the observed curvature, by which the mode moves.

        Where that makes no positive C, x is no strict mode, and a safe one stands in for it.
        """
        try:
            self.moving = self._equations(known, self.bend)
        except np.linalg.LinAlgError:
            self.bend = safe_weights(self.latent, self.theta, self.mode, self.bend)
            self.moving = self._equations(known, self.bend)
            if self.latent.observed:
                self.weights = self.bend
        self.equations = self._equations(self.moving, self.weights)

    def _equations(self, known, weights):
        if known is not None and np.array_equal(known.weights, weights):
            return known
        return self.latent.equations(self.theta, weights)

    def _directions(self):
        """For each parameter of each block's covariance: (k, z dL [n, r], d eta [n])."""
        changes = slopes(self.latent.full, self.theta.factors)
        for k, (z, of_block) in enumerate(zip(self.latent.full.rows.z, changes, strict=True)):
            u = self.rows.own(self.mode, k)
            for change in of_block:
                load = z @ change
                yield k, load, np.einsum("na,na->n", load, u)

    def _gradient(self):
        """The gradient [m], and what the log-likelihood gains on the way from x to the mode."""
        latent, space = self.latent, self.latent.space
        X, zs = latent.fixed, latent.full.rows.z
        q = len(self.theta.raw)
        out = np.zeros(space.size)
        beta, levels = self.equations.leverages()
        loads = [z @ L for z, L in zip(zs, self.theta.factors, strict=True)]
        height = np.einsum("np,np->n", latent.problem.rows.X, beta)
        for load, g in zip(loads, levels, strict=True):
            height += np.einsum("na,na->n", load, g)
        of_eta = -0.5 * height * self.weights_in_eta  # of -log |C| / 2, in eta
        # What the mode's motion adds, and what is left of the gradient in x at a rough mode.
        slope = self.W.T @ self.score - self.mode
        slope[: latent.layout.p] += self.mode[: latent.layout.p]
        ahead, pulled = self.moving.solve(np.column_stack([slope, self.W.T @ of_eta])).T
        v = ahead + pulled
        Wv = self.W @ v
        along = self.score + of_eta - self.bend * Wv
        out[: space.p] = X.T @ along
        for i, (k, load, change) in enumerate(self._directions(), start=space.p):
            out[i] = along @ change - self.weights @ np.einsum("na,na->n", load, levels[k])
            out[i] += self.score @ np.einsum("na,na->n", load, self.rows.own(v, k))
        if q:
            raw = self.of_raw - 0.5 * height @ self.weights_in_raw + Wv @ self.score_in_raw
            out[space.size - q :] = raw
        near = slope @ ahead < NEAR
        return out, 0.5 * slope @ ahead + of_eta @ (self.W @ ahead) if near else 0.0

    def shift(self):
        """How the mode moves with theta, dm / dtheta [P, m]."""
        latent, space = self.latent, self.latent.space
        push = np.zeros((latent.layout.size, space.size))
        push[:, : space.p] = -(self.W.T @ (self.bend[:, None] * latent.fixed))
        for i, (k, load, change) in enumerate(self._directions(), start=space.p):
            own = self.score[:, None] * load
            push[:, i] = self.rows.sums(own, k) - self.W.T @ (self.bend * change)
        if len(self.theta.raw):
            push[:, space.size - len(self.theta.raw) :] = self.W.T @ self.score_in_raw
        return self.moving.solve(push) * latent.layout.real[:, None]
