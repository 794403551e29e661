"""Clusters of rows, and which levels are nested in them: rows of two clusters are independent."""

import numpy as np


def outermost(blocks):
    """Codes [n_rows] of the levels within which those of all blocks are nested, or None."""
    for block in sorted(blocks, key=lambda block: block.n_levels):
        if not block.tied and all(nested(other, block.refs) for other in blocks):
            return block.refs
    return None


def nested(block, clusters):
    """Whether no level of a block has rows in two clusters, codes [n_rows]."""
    return bool((levels_clusters(block, clusters)[block.refs] == _by_member(block, clusters)).all())


def levels_clusters(block, clusters):
    """The cluster [n_levels] of each level of a block; 0 of those without rows."""
    out = np.zeros(block.n_levels, np.intp)
    out[block.refs] = _by_member(block, clusters)
    return out


def _by_member(block, clusters):
    return np.broadcast_to(clusters[:, None], block.refs.shape) if block.tied else clusters
