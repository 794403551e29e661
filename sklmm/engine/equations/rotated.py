r"""Cross-products of fewer levels with the same likelihood: levels of equal blocks, rotated.

Of one term, levels whose blocks Z_j^T w Z_j are equal may be rotated among each other: with O
orthogonal, effects (O \otimes I) u have the same prior, and the same likelihood if Z^T w [X, y] is
rotated with them. The triangle of its QR decomposition, of n levels by r (p + 1) columns, is such a
rotation: as many levels as columns hold all that the rows say, and the others' sums are 0. These
count in determinants and traces alone. In a balanced design an iteration then takes the same time
whatever the number of levels. Levels of one block stand beside each other.
"""

from copy import copy
from itertools import pairwise

import numpy as np

from sklmm.engine.linalg.repeated import Repeated


def rotated(cross):
    """`CrossProducts` of rotated levels, or `cross` itself where no blocks are equal.

    Solutions have the same coefficients, likelihood, score and information, and other effects.
    """
    if cross.eliminated is None or cross.rest or cross.columns is not None:
        return cross
    G, r = cross.G_EE, cross.problem.blocks[0].r
    if not isinstance(G, Repeated):
        return cross
    order, ends = G.groups
    by_level = cross.Fy.reshape(len(order), -1)
    width = by_level.shape[1]
    parts = []
    for first, last in pairwise(ends):
        own = by_level[order[first:last]]
        # Columns of 0, of places that no row has, have a part of 0.
        used = own.any(axis=0)
        if len(own) > used.sum():
            triangle = np.zeros((max(int(used.sum()), 1), width))
            if used.any():
                triangle[:, used] = np.linalg.qr(own[:, used], mode="r")
            own = triangle
        parts.append(own)
    which = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    out = copy(cross)
    out.Fy = np.concatenate(parts).reshape(len(which) * r, -1)
    out.F, out.zy = out.Fy[:, :-1], out.Fy[:, -1]
    out.Q = out.n_random = out.n_eliminated = len(out.Fy)
    out.slices, out.flat = [slice(0, out.Q)], slice(out.Q, out.Q)
    out.G_EE = Repeated(G.blocks, which, is_diagonal=G.is_diagonal, counts=G.counts)
    out.G = [out.G_EE]
    return out
