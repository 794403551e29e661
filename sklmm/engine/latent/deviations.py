"""Laplace's log-likelihood at one theta by deviations from the mode, with its compiled gradient.

log |C| enters the gradient through deviations d [P, n] with mean d d^T = C^-1: an exact root of
C^-1, or probes with a noise that is the same for every theta, so that steps converge. It is the way
of custom families, and of tables whose C is not factorised.
"""

import numpy as np


class Deviations:
    """Laplace's approximation at theta, about the mode [P] with its equations.

    joint, log p(y, mode); scores [m, n] by deviation; loglik, None where it is not known; `probes`
    are (seed, number), or None for an exact root.
    """

    def __init__(self, latent, theta, mode, equations, probes=None):
        self.latent, self.theta, self.mode, self.equations = latent, theta, mode, equations
        self.field = latent.field(theta, equations, mode, exact=True)
        self.joint = float(latent.gradient(theta, mode[:, None])[0][0])
        self.loglik = None
        if probes is None:
            n = equations.n_unknowns
            self.deviations = equations.root(np.sqrt(n) * np.eye(n, max(n, 1)))
            self.loglik = self.joint - 0.5 * equations.log_det()
        else:
            seed, number = probes
            self.deviations = equations.probes(np.random.default_rng(seed), number)
        _, self.scores = latent.compiled.scores(theta, self.field, self.deviations, laplace=True)

    def information(self):
        """That of the complete data [m, m], averaged over the deviations."""
        compiled = self.latent.compiled
        return compiled.information(self.theta, self.field, self.deviations, laplace=True)

    def shift(self):
        """How the mode moves with theta, [P, m]."""
        return np.asarray(self.field.shift)
