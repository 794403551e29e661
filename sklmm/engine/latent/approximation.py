r"""Laplace's log-likelihood at one theta, and its gradient: exact, in NumPy, or by deviations.

    l(theta) = log p(y, m) - log |C| / 2,   C = W^T diag(w) W + (0, I),   W = [X, Z_1 L_1, ...],

with m the mode of x and w the curvature of the rows' log densities there. The gradient of log |C|
needs of C^-1 only what it is at each row's own levels, which the rows look up, and the motion of
the mode, dm / dtheta = C^-1 d (gradient in x) / dtheta, one solve against it.

Of tables whose C is not factorised draws tell C^-1, with a noise that is the same for every theta,
so that steps converge.
"""

from functools import cached_property

import numpy as np

from sklmm.engine.linalg.newton import STEP
from sklmm.engine.rows.protocol import Coefs
from sklmm.engine.theta.space import slopes

#: Newton's decrement at x below which what is left of the way to the mode is of second order.
NEAR = 1e-4
#: Without effects, rows times columns of theta that are worked on at once.
MOST_CELLS = 1 << 23
#: Parts of the draws that tell their Monte Carlo error.
REPLICATES = 4
#: Share of a factor's largest singular value below which the gradient says nothing in Sigma.
LEAST = 1e-6


class Approximation:
    """Laplace's approximation at theta, about the mode [P].

    loglik, None where C is not factorised; score [m], the gradient in theta; joint, log p(y, mode);
    and `equations`, whose C is that of log |C|. Each is computed when it is asked for. `probes` are
    the (seed, number) of draws, where they tell C^-1.
    """

    def __init__(self, latent, theta, mode, probes=None):
        self.latent, self.theta, self.mode, self.probes = latent, theta, mode, probes
        p = latent.layout.p
        self.coefs, _ = latent.coefs([theta], mode[:, None])
        self.rows = latent.rows.expand(latent.densities, self.coefs, theta.raw, latent.observed)
        self._factorise()
        self._prior = latent.prior.times(mode[p:], p)
        self.joint = self.rows.value - 0.5 * mode[p:] @ self._prior
        #: The log density of coefficients among the unknowns.
        self.log_prior = 0.0
        if latent.coef_prior is not None:
            self.log_prior = float(latent.coef_prior.value(mode[:p]))
            self.joint = self.joint + self.log_prior

    def _factorise(self):
        """`equations`, and `moving` with the observed curvature, by which the mode moves.

        Where that makes no positive C, x is no strict mode, and a safe one stands in for it.
        """
        latent, self.bend, weights = self.latent, self.rows.bend, self.rows.weights
        try:
            self.moving = latent.equations(self.theta, self.bend)
        except np.linalg.LinAlgError:
            safe = latent.rows.safe(latent.densities, self.coefs, self.theta.raw, self.bend)
            self.bend, self.moving = safe, latent.equations(self.theta, safe)
            weights = safe if latent.observed else weights
        same = weights is self.bend
        self.equations = self.moving if same else latent.equations(self.theta, weights)

    @property
    def _noise(self):
        """Of the draws [Q, n], or None."""
        if self.probes is None:
            return None
        seed, number = self.probes
        size = self.equations.n_unknowns - self.latent.layout.p
        return np.random.default_rng(seed).standard_normal((size, number))

    def _pulled(self, *sums):
        """W^T rows [P, C] of sums over levels, their columns side by side."""
        columns = [self.latent.pulled([self.theta], own) for own in sums]
        return np.concatenate(columns, axis=1)

    @cached_property
    def _slope(self):
        """The gradient in x [P, 1], of a rough mode not 0, and the way to the mode, C^-1 of it."""
        slope, p = self._pulled(self.rows.score), self.latent.layout.p
        slope[p:, 0] -= self._prior
        if self.latent.coef_prior is not None:
            slope[:p, 0] += self.latent.coef_prior.gradient(self.mode[:p])
        return slope, self.moving.solve(slope)

    @cached_property
    def _leverage(self):
        """The inverse C^-1, and the derivatives of -log |C| / 2 in eta, as `Coefs`, and in raw."""
        inverse = self.equations.inverse(self._noise)
        return inverse, *self.rows.leverage(inverse)

    @cached_property
    def loglik(self):
        """Laplace's log-likelihood, with what it gains on the way from a rough mode to the mode."""
        if self.probes is not None:
            return None
        value = float(self.joint - 0.5 * self.equations.log_det())
        slope, ahead = (column[:, 0] for column in self._slope)
        if not slope @ ahead < NEAR:
            return value
        return float(value + 0.5 * slope @ ahead + self._pulled(self._leverage[1])[:, 0] @ ahead)

    @cached_property
    def score(self):
        """The gradient in theta [m]."""
        return self._joined(self._gradient)

    def replicates(self):
        """The gradient by parts of the draws [m, n]: their covariance is its Monte Carlo error."""
        parts, out = np.array_split(self._noise, REPLICATES, axis=1), []
        for part in parts:
            inverse = self.equations.inverse(part)
            out.append(self._joined(self._gradient_by(inverse, *self.rows.leverage(inverse))))
        return np.transpose(out)

    def _joined(self, gradient):
        of_beta, of_factors, of_raw = gradient
        changes = slopes(self.latent.full, self.theta.factors)
        pairs = zip(of_factors, changes, strict=True)
        of_params = [np.einsum("ab,mab->m", slope, D) for slope, D in pairs]
        return np.concatenate([of_beta, *of_params, of_raw])

    @cached_property
    def _gradient(self):
        return self._gradient_by(*self._leverage)

    def _gradient_by(self, inverse, of_eta, of_raw):
        """The gradient in beta, in the entries of each factor [r, r], and in raw."""
        latent, theta = self.latent, self.theta
        # What the mode's motion adds, and what is left of the gradient in x at a rough mode.
        v = self._slope[1] + self.moving.solve(self._pulled(of_eta))
        coefs = latent.coefs([theta._replace(beta=0 * theta.beta)], v)[0]
        image = latent.rows.product(coefs, self.bend)
        score = self.rows.score
        (_, u), (_, moved) = map(latent.layout.split, (self.mode[:, None], v))
        of_beta = (score.beta + of_eta.beta - image.beta)[: latent.space.p, 0]
        of_factors = []
        for k, T in enumerate(inverse.row_traces()):
            along = score.effects[k] + of_eta.effects[k] - image.effects[k]
            slope = np.einsum("jac,jbc->ab", along, u[k]) - T
            of_factors.append(slope + np.einsum("jac,jbc->ab", score.effects[k], moved[k]))
        turned = self._pulled(self.rows.score_in_raw)
        return of_beta, of_factors, self.rows.of_raw + of_raw + v[:, 0] @ turned

    @cached_property
    def _motion(self):
        """How the mode moves with theta, dm / dtheta [P, m]; and the curvature of log p(y, m).

        Of that, less its second derivatives [m, m], only the part that a change of the factors
        itself has, and not that of the curvature of Sigma in them: of a Gaussian model f^T P f,
        f = (dV / dtheta) P y.
        """
        latent, space, layout = self.latent, self.latent.space, self.latent.layout
        m, first = space.size, space.p
        if not m:
            return np.zeros((layout.size, 0)), np.zeros((0, 0))
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
        image = latent.rows.product(moved, self.bend)
        related = [latent.prior.relate(k, of_block) for k, of_block in enumerate(own)]
        own, related = (layout.join(np.zeros((layout.p, m)), each) for each in (own, related))
        push = own - self._pulled(image)
        push[:, first:] = self._pulled(self.rows.score_in_raw)
        shift = self.moving.solve(push) * layout.real[:, None]
        curvature = own.T @ related - push.T @ shift + inner(moved, image)
        curvature[:, first:] -= inner(moved, self.rows.score_in_raw)
        curvature[first:] -= inner(self.rows.score_in_raw, moved)
        curvature[first:, first:] -= self.rows.raw_in_raw
        return shift, curvature

    def shift(self):
        """How the mode moves with theta, dm / dtheta [P, m]."""
        return self._motion[0]

    def information(self):
        """What tells less the second derivatives [m, m] without another theta: two parts of them.

        They are REML's average information (Gilmour, Thompson & Cullis 1995, Biometrics 51,
        1440-1450), as log |C| takes away half of what log p(y, m) knows of the factors; and what
        is due to the curvature of Sigma in them, 0 on average at the true theta.
        """
        space, average = self.latent.space, self._motion[1].copy()
        bend = np.zeros_like(average)
        for part in space.parts:
            average[part] *= np.sqrt(0.5)
            average[:, part] *= np.sqrt(0.5)
        of_terms = zip(
            space.covariances, space.parts, self.theta.factors, self._gradient[1], strict=True
        )
        for covariance, part, L, slope in of_terms:
            G = 0.5 * slope @ np.linalg.pinv(L, rcond=LEAST)
            bend[part, part] = -covariance.curvature(L, (G + G.T) / 2)
        return average, bend


def inner(one, two):
    """Sums [m, c] of the products of two `Coefs`, [., m] and [., c]."""
    out = one.beta.T @ two.beta
    for a, b in zip(one.effects, two.effects, strict=True):
        rows = a.shape[0] * a.shape[1]
        out = out + a.reshape(rows, a.shape[2]).T @ b.reshape(rows, b.shape[2])
    return out


class WithoutEffects:
    """The likelihood at theta of a model without latent variables, as `Approximation` has it."""

    mode, log_prior = np.zeros(0), 0.0

    def __init__(self, latent, theta):
        self.latent, self.theta = latent, theta
        values, scores = _slopes(latent, [theta])
        self.joint, self.score = float(values[0]), scores[:, 0]
        self.loglik = self.joint

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
        out, nothing = np.zeros((2, m, m))
        for first in range(0, m, some):
            away = STEP * np.eye(m)[first : first + some]
            _, both = _slopes(self.latent, [space.split(flat + h) for h in (*away, *-away)])
            up, down = np.split(both, 2, axis=1)
            out[:, first : first + some] = (down - up) / (2 * STEP)
        return (out + out.T) / 2, nothing


def _slopes(latent, thetas):
    """Log-likelihood [C] and gradient [m, C], a column for each theta."""
    coefs, raw = latent.coefs(thetas, np.zeros((0, len(thetas))))
    value, score, of_raw = latent.rows.slopes(latent.densities, coefs, raw)
    return value, np.concatenate([score.beta[: latent.space.p], of_raw])
