r"""Coordinates t of theta in which a quadratic is a good model of the log-likelihood about a point.

In the logarithm of a large SD the log-likelihood is nearly quadratic; near 0 it is so in the SD
itself, of either sign, where a variance of 0 is a regular maximum or a saddle. Between the two

    L_aa = c_a sinh(t),

with c_a the SD from which on a level's own rows tell its effect better than the prior does; and, of
an SD that falls, at least the SD. A positive parameter of the family, which may be largest at 0 or
infinity, is phi = phi_0 t^2 where it falls and phi_0 / t^2 where it rises: there t = 0 is near.
"""

import numpy as np

#: A coefficient's unit, where that of the predictor is 1.
COEFFICIENT = 2.0
#: The least t of a parameter of the family, 1 at the point.
LEAST = 1e-2


def scales(G):
    """C_a of terms with these Z^T w Z of their levels, [r_k] each."""
    known = [np.einsum("jaa->a", own) / max(len(own), 1) for own in G]
    return [1 / np.sqrt(np.maximum(k, 1e-300)) for k in known]


class Chart:
    """The map between t and flat theta of a `Space`, about a point and its score, both flat [m].

    `unit` is the predictor's, where that is not 1.
    """

    def __init__(self, space, sizes, flat, score, unit=1.0):
        self.flat = flat
        self.limits = np.ones(space.size)
        self.limits[: space.p] = COEFFICIENT * unit
        self.c, self.sd = np.ones(space.size), np.zeros(space.size, bool)
        blocks = zip(space.covariances, space.parts, sizes, space.split(flat).factors, strict=True)
        for covariance, part, size, L in blocks:
            c = covariance.in_params(L, size)
            falls = flat[part] * score[part] < 0
            self.c[part] = np.where(falls, np.maximum(c, np.abs(flat[part])), c)
            self.sd[part] = covariance.is_sd
            limits = covariance.in_params(L, np.sqrt(size**2 + np.sum(L**2, axis=1)))
            self.limits[part] = np.where(self.sd[part], 1.0, limits)
        self.edge = np.zeros(space.size, bool)
        kinds = [space.parameters[name] == "positive" for name in space.estimated]
        self.edge[space.size - len(kinds) :] = kinds
        self.sign = np.where(score < 0, 2.0, -2.0)
        self.t = flat.copy()
        self.t[self.sd] = np.arcsinh(flat[self.sd] / self.c[self.sd])
        self.t[self.edge] = 1.0

    def back(self, t):
        """Flat theta of t."""
        flat = np.where(self.sd, self.c * np.sinh(np.where(self.sd, t, 0.0)), t)
        change = self.sign * np.log(np.where(self.edge, np.maximum(t, LEAST), 1.0))
        return np.where(self.edge, self.flat + change, flat)

    def slope(self, t):
        """D flat / d t, a diagonal [m]."""
        safe = np.where(self.edge, np.maximum(t, LEAST), 1.0)
        slope = np.where(self.sd, self.c * np.cosh(np.where(self.sd, t, 0.0)), 1.0)
        return np.where(self.edge, self.sign / safe, slope)

    def bend(self, t, score):
        """What the chart's own curvature adds to the information, for a score in t [m]."""
        safe = np.where(self.edge, np.maximum(t, LEAST), 1.0)
        ratio = np.where(self.sd, np.tanh(np.where(self.sd, t, 0.0)), 0.0)
        return -np.diag(score * np.where(self.edge, -1 / safe, ratio))

    def share(self, t):
        """Of curvatures that are 0 on average, the share [m] that a step is best told.

        A variance's likelihood by well-known effects, -J log s - Q / (2 s^2), is nearly the
        parabola in log s of half of it; by effects of which little is known, that of all of it.
        """
        return np.where(self.sd, 1 - 0.5 * np.tanh(np.where(self.sd, t, 0.0)) ** 2, 1.0)
