r"""Coordinates in which the posterior of x is nearly N(0, I): x = centre + T v.

The levels L are scaled by the roots of their own blocks D of C, and follow the border F, beta and
the terms of few levels, whose marginal precision is the Schur complement S = C_FF - C_FL G,

    x_F = S^{-1/2} v_F,      x_L = D^{-1/2} v_L - G x_F,      G = C_LL^{-1} C_LF.

So one scalar step size fits every level, and the stiff direction "all effects of a term up, those
of another down" is whitened away.
"""

from typing import NamedTuple

import numpy as np

from sklmm.engine.latent.unknowns import Terms, border_of, flatten, split, times, with_border
from sklmm.engine.linalg.blocks import invert
from sklmm.engine.runtime.tensorflow import tf

#: Smallest eigenvalue of S^-1, of its largest, where its solve was too rough.
LEAST_SHARE = 1e-6


class Frame(NamedTuple):
    """The centre [P] and T.

    terms, whose blocks are the roots of D^-1, 0 for padding; follow G [P, f]; edge_root S^{-1/2}
    [f, f]; padding [P, 1], 1 where an unknown is none of the model's.
    """

    terms: Terms
    follow: object
    edge_root: object
    padding: object
    centre: object


def make_frame(equations, centre, dtype=np.float64):
    """Frame of `latent.Equations` about `centre`."""
    layout, edge, roots = equations.layout, equations.marginal, []
    for k, H in enumerate(equations.own_blocks()):
        J, r = layout.shapes[k]
        root = np.zeros((J, r, r))
        if not layout.small[k]:
            inverse = invert(H)
            root[: len(H)] = np.sqrt(inverse) if r == 1 else np.linalg.cholesky(inverse)
        roots.append(root)
    padding = np.where(layout.real, 0.0, 1.0)[:, None]
    follow = edge.follow @ edge.lift
    terms = Terms(tuple(equations.factors), layout.small, tuple(roots))
    frame = Frame(terms, follow, _root(edge.inverse), padding, centre)
    return tf.nest.map_structure(
        lambda a: a if isinstance(a, bool) else tf.constant(np.asarray(a), dtype), frame
    )


def _root(square):
    """R with R R^T = square, a continuous function of it as the chains keep v when theta moves."""
    try:
        return np.linalg.cholesky(square)
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(square)
        return (vectors * np.sqrt(np.maximum(values, LEAST_SHARE * values[-1]))) @ vectors.T


def unwhiten(frame, p, v):
    """x = centre + T v: [P, C]."""
    terms = frame.terms
    beta, parts = split(terms, p, v)
    own = [flatten(times(R, part)) for R, part in zip(terms.blocks, parts, strict=True)]
    edge = frame.edge_root @ border_of(terms, beta, parts)
    inner = tf.concat([tf.zeros_like(beta), *own], axis=0) - frame.follow @ edge
    return frame.centre[:, None] + with_border(terms, p, inner, edge)


def spread(frame, p):
    """Diagonal blocks of T T^T, the posterior covariance if it were normal: beta's [p, p] first.

    And a list of each block's [n_levels, r, r], in NumPy.
    """
    root = np.asarray(frame.edge_root, float)
    edge, follows = root @ root.T, np.asarray(frame.follow, float) @ root
    parts, first, start = [], p, p
    for own, small in zip(frame.terms.blocks, frame.terms.small, strict=True):
        J, r = own.shape[0], own.shape[1]
        if small:
            rows = root[start : start + J * r].reshape(J, r, -1)
            start += J * r
        else:
            rows = np.concatenate(
                [follows[first : first + J * r].reshape(J, r, -1), np.asarray(own, float)], axis=2
            )
        parts.append(np.einsum("jaf,jbf->jab", rows, rows))
        first += J * r
    return edge[:p, :p], parts


def pull_back(frame, p, g):
    """T^T g: [P, C]."""
    terms = frame.terms
    beta, parts = split(terms, p, g)
    edge = border_of(terms, beta, parts) - tf.matmul(frame.follow, g, transpose_a=True)
    edge = tf.matmul(frame.edge_root, edge, transpose_a=True)
    own = [
        flatten(times(R, part, transpose=True)) for R, part in zip(terms.blocks, parts, strict=True)
    ]
    return with_border(terms, p, tf.concat([tf.zeros_like(beta), *own], axis=0), edge)
