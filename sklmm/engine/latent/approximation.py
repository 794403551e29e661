r"""Laplace's log-likelihood at one theta, and its exact gradient, in NumPy.

    l(theta) = log p(y, m) - log |C| / 2,   C = W^T diag(w) W + (0, I),   W = [X, Z_1 L_1, ...],

with m the mode of x and w the curvature of the rows' log densities there. The gradient of log |C|
needs of C^-1 only what it is at each row's own levels, which the rows look up, and the motion of
the mode, dm / dtheta = C^-1 d (gradient in x) / dtheta, one solve against it.
"""

import numpy as np

from sklmm.engine.rows.protocol import Coefs
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
        p, rows = latent.layout.p, latent.rows
        self.coefs, _ = latent.coefs([theta], mode[:, None])
        self.rows = rows.expand(latent.densities, self.coefs, theta.raw, latent.observed)
        self._factorise(known)
        self.joint = self.rows.value - 0.5 * mode[p:] @ mode[p:]
        gradient, rest = self._gradient()
        self.scores = gradient[:, None]
        self.loglik = float(self.joint - 0.5 * self.equations.log_det() + rest)

    def _factorise(self, known):
        """`equations`, and `moving` with the observed curvature, by which the mode moves.

        Where that makes no positive C, x is no strict mode, and a safe one stands in for it.
        """
        latent, self.bend, weights = self.latent, self.rows.bend, self.rows.weights
        try:
            self.moving = self._equations(known, self.bend)
        except np.linalg.LinAlgError:
            safe = latent.rows.safe(latent.densities, self.coefs, self.theta.raw, self.bend)
            self.bend, self.moving = safe, self._equations(known, safe)
            weights = safe if latent.observed else weights
        self.equations = self._equations(self.moving, weights)

    def _equations(self, known, at):
        if known is not None and np.array_equal(known.weights, at):
            return known
        return self.latent.equations(self.theta, at)

    def _pulled(self, *sums):
        """W^T rows [P, C] of sums over levels, their columns side by side."""
        columns = [self.latent.pulled([self.theta], own) for own in sums]
        return np.concatenate(columns, axis=1)

    def _gradient(self):
        """The gradient [m], and what the log-likelihood gains on the way from x to the mode."""
        latent, theta, p = self.latent, self.theta, self.latent.layout.p
        inverse = self.equations.inverse()
        of_eta, of_raw = self.rows.leverage(inverse)  # of -log |C| / 2
        # What the mode's motion adds, and what is left of the gradient in x at a rough mode.
        both = self._pulled(self.rows.score, of_eta)
        both[p:, 0] -= self.mode[p:]
        ahead, pulled = self.moving.solve(both).T
        v = (ahead + pulled)[:, None]
        coefs = latent.coefs([theta._replace(beta=0 * theta.beta)], v)[0]
        image = latent.rows.product(coefs, self.bend)
        score = self.rows.score
        (_, u), (_, moved) = map(latent.layout.split, (self.mode[:, None], v))
        out = [(score.beta + of_eta.beta - image.beta)[:, 0]] if latent.space.p else []
        changes = slopes(latent.full, theta.factors)
        for k, (T, of_block) in enumerate(zip(inverse.row_traces(), changes, strict=True)):
            along = score.effects[k] + of_eta.effects[k] - image.effects[k]
            slope = np.einsum("jac,jbc->ab", along, u[k]) - T
            slope += np.einsum("jac,jbc->ab", score.effects[k], moved[k])
            out.append(np.einsum("ab,mab->m", slope, of_block))
        turned = self._pulled(self.rows.score_in_raw)
        out.append(self.rows.of_raw + of_raw + v[:, 0] @ turned)
        slope = both[:, 0]
        near = slope @ ahead < NEAR
        return np.concatenate(out), 0.5 * slope @ ahead + both[:, 1] @ ahead if near else 0.0

    def shift(self):
        """How the mode moves with theta, dm / dtheta [P, m]."""
        latent, space, layout = self.latent, self.latent.space, self.latent.layout
        m, first = space.size, space.p
        if not m:
            return np.zeros((layout.size, 0))
        _, u = layout.split(self.mode[:, None])
        score = self.rows.score.effects
        own, effects = ([np.zeros((*b.shape[:2], m)) for b in u] for _ in range(2))
        moved = Coefs(np.zeros((len(self.coefs.beta), m)), effects)
        moved.beta[:, :first] = np.eye(len(moved.beta), first)
        for k, of_block in enumerate(slopes(latent.full, self.theta.factors)):
            part = slice(first, first + len(of_block))
            moved.effects[k][:, :, part] = np.einsum("mab,jbc->jam", of_block, u[k])
            own[k][:, :, part] = np.einsum("mab,jac->jbm", of_block, score[k])
            first = part.stop
        push = layout.join(np.zeros((layout.p, m)), own)
        push -= self._pulled(latent.rows.product(moved, self.bend))
        push[:, first:] = self._pulled(self.rows.score_in_raw)
        return self.moving.solve(push) * layout.real[:, None]
