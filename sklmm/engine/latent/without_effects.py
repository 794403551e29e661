"""The likelihood of a model that has no latent variables."""

import numpy as np

from sklmm.engine.linalg.newton import STEP

#: Rows times columns of theta that are worked on at once.
MOST_CELLS = 1 << 23


class WithoutEffects:
    """The likelihood at theta, and its slopes, as `approximation.Approximation` has them."""

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
