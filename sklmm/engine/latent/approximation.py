r"""Laplace's log-likelihood at one theta, and its gradient: exact, in NumPy, or by deviations.

    l(theta) = log p(y, m) - log |C| / 2,   C = W^T diag(w) W + (0, I),   W = [X, Z_1 L_1, ...],

with m the mode of x and w the curvature of the rows' log densities there. The gradient of log |C|
needs of C^-1 only what it is at each row's own levels, which the rows look up, and the motion of
the mode, dm / dtheta = C^-1 d (gradient in x) / dtheta, one solve against it.

Of custom families, and of tables whose C is not factorised, log |C| enters the gradient through
deviations d [P, n] with mean d d^T = C^-1: an exact root of C^-1, or probes with a noise that is
the same for every theta, so that steps converge; the gradient is compiled.
"""

import numpy as np

from sklmm.engine.linalg.newton import STEP
from sklmm.engine.rows.protocol import Coefs
from sklmm.engine.theta.space import slopes

#: Newton's decrement at x below which what is left of the way to the mode is of second order.
NEAR = 1e-4
#: Without effects, rows times columns of theta that are worked on at once.
MOST_CELLS = 1 << 23


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


class Deviations:
    """Laplace's approximation at theta, about the mode [P] with its equations.

    joint, log p(y, mode); scores [m, n] by deviation; loglik, None where it is not known; `probes`
    are (seed, number), or None for an exact root.
    """

    def __init__(self, latent, theta, mode, equations, probes=None):
        self.latent, self.theta, self.mode, self.equations = latent, theta, mode, equations
        self._shift = latent.motion(theta, equations, mode, exact=True)[0]
        self.joint = float(latent.gradient(theta, mode[:, None])[0][0])
        self.loglik = None
        if probes is None:
            n = equations.n_unknowns
            self.deviations = equations.root(np.sqrt(n) * np.eye(n, max(n, 1)))
            self.loglik = self.joint - 0.5 * equations.log_det()
        else:
            seed, number = probes
            self.deviations = equations.probes(np.random.default_rng(seed), number)
        self.scores = self._compiled("scores")[1]

    def _compiled(self, name):
        from sklmm.engine.latent import deviations

        function = getattr(deviations, name)
        own = self.equations, self._shift, self.mode, self.deviations
        return function(self.latent, self.theta, *own)

    def information(self):
        """That of the complete data [m, m], averaged over the deviations."""
        return self._compiled("information")

    def shift(self):
        """How the mode moves with theta, [P, m]."""
        return self._shift


class WithoutEffects:
    """The likelihood at theta of a model without latent variables, as `Approximation` has it."""

    mode = np.zeros(0)

    def __init__(self, latent, theta):
        self.latent, self.theta = latent, theta
        values, self.scores = _slopes(latent, [theta])
        self.joint = self.loglik = float(values[0])

    @property
    def equations(self):
        """Those of no unknowns."""
        return self.latent.equations(self.theta, None)

    def shift(self):
        """How the mode moves with theta, [0, m]."""
        return np.zeros((0, self.latent.space.size))

    def information(self):
        """Less the second derivatives [m, m], by differences of the gradient."""
        space = self.latent.space
        m, flat = space.size, space.join(self.theta)
        some = max(MOST_CELLS // (2 * self.latent.n_rows), 1)
        out = np.zeros((m, m))
        for first in range(0, m, some):
            away = STEP * np.eye(m)[first : first + some]
            _, both = _slopes(self.latent, [space.split(flat + h) for h in (*away, *-away)])
            up, down = np.split(both, 2, axis=1)
            out[:, first : first + some] = (down - up) / (2 * STEP)
        return (out + out.T) / 2


def _slopes(latent, thetas):
    """Log-likelihood [C] and gradient [m, C], a column for each theta."""
    coefs, raw = latent.coefs(thetas, np.zeros((0, len(thetas))))
    value, score, of_raw = latent.rows.slopes(latent.densities, coefs, raw)
    return value, np.concatenate([score.beta[: latent.space.p], of_raw])
