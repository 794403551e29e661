r"""The border's posterior: beta and the terms of few levels, everything else integrated out.

With b_F = Lambda_F u_F the border's effects, H = [X, Z_F] and L the larger terms, one solve at
Lambda_F = I gives, for all Lambda_F,

    K = H^T w (H - W_L G),     G = C_LL^{-1} W_L^T w H:

the precision that the data give b_F, and how u_L gives way to it. The precision of u_F is then
S = Lambda_F^T K Lambda_F + I, the I not for beta, and u_L follows by -G Lambda_F u_F. The solve may
be rough: what K and G serve is right for any, only slower.
"""

from typing import NamedTuple

import numpy as np

#: Relative tolerance of the solve.
BORDER_TOL = 1e-2


class Marginal(NamedTuple):
    """Posterior of the border.

    precision K [f, f]; inverse S^-1 [f, f]; follow G [P, f], 0 on the border; lift Lambda_F [f, f].
    """

    precision: np.ndarray
    inverse: np.ndarray
    follow: np.ndarray
    lift: np.ndarray


def marginal(equations):
    """`Marginal` of the border of the equations' layout."""
    layout, factors = equations.layout, equations.factors
    f = layout.n_border
    units = np.zeros((layout.size, f))
    units[layout.border, np.arange(f)] = 1.0
    if not f:
        return Marginal(*np.zeros((2, 0, 0)), units, np.zeros((0, 0)))
    plain = [np.eye(len(L)) if k else L for k, L in zip(layout.small, factors, strict=True)]
    rough = equations.at(plain, BORDER_TOL)
    columns = rough.solve(units)
    equations.tell(rough.unsolved, BORDER_TOL)
    S = _inverse(columns[layout.border])
    follow = -columns @ S
    follow[layout.border] = 0.0
    prior = np.diag(np.arange(f) >= layout.p).astype(float)
    K, lift = S - prior, lift_of(layout, factors)
    return Marginal(K, _inverse(lift.T @ K @ lift + prior), follow, lift)


def moved(border, layout, factors):
    """The posterior at other factors of its own terms, by the same precision K that data give."""
    lift = lift_of(layout, factors)
    prior = np.diag(np.arange(len(lift)) >= layout.p).astype(float)
    return border._replace(inverse=_inverse(lift.T @ border.precision @ lift + prior), lift=lift)


def lift_of(layout, factors):
    """Lambda_F [f, f]: each small term's factor on its levels, and 1 on beta."""
    lift = np.eye(layout.n_border)
    for edge, L in zip(layout.edges, factors, strict=True):
        lift[edge, edge] = np.kron(np.eye((edge.stop - edge.start) // len(L)), L)
    return lift


def _inverse(square):
    return np.linalg.pinv((square + square.T) / 2, hermitian=True)
