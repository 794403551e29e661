r"""The start of a covariance of few parameters over many places, such as AR(1): its correlations.

Where a place of a level has a row or so, sums of squares do not tell the term's variance from the
residual one. Products of different places do: with c = Z^T w y of a level, and its numbers of rows
g, for places a and b

    E sum_j c_ja c_jb = Sigma_ab sum_j g_ja g_jb.

Sigma_ab of neighbours, and of those after them, tell by extrapolation what it is at distance 0.
"""

import numpy as np

#: Shares of the variance at a place that are the term's at least and at most.
SHARES = (0.1, 0.95)


def along_start(cross, k, variance, residual):
    """(factor [r, r], residual variance) of term k from those two variances, or None.

    None where the products tell nothing: where places are not apart, or their products negative.
    """
    block, place = cross.problem.blocks[k], cross.slices[k]
    r = block.r
    G = cross.G[k]
    g = G.diagonal(0, 1, 2)
    if not np.array_equal(np.abs(G).sum(axis=0), np.diag(np.abs(g).sum(axis=0))):
        return None
    c = cross.zy[place].reshape(-1, r)
    products, counts = c.T @ c, g.T @ g
    near, after = (
        np.diag(products, i).sum() / max(np.diag(counts, i).sum(), 1e-300) for i in (1, 2)
    )
    if r < 4 or not (counts > 0).all() or not min(near, after) > 0:
        return None
    total = variance + residual
    share = np.clip(near**2 / after / total, *SHARES)
    S = products / counts
    S[np.diag_indices(r)] = share * total
    values, vectors = np.linalg.eigh(S)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    return block.covariance.nearest(root), (1 - share) * total
