"""The frame of the chains, `engine.latent.frame`, as tensors."""

from typing import NamedTuple

import numpy as np

from sklmm.engine.latent.unknowns import Terms, border_of, flatten, split, times, with_border
from sklmm.engine.runtime.tensorflow import tf


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


def tensors(exact, factors, dtype):
    """A NumPy frame's arrays, its blocks padded, in a precision."""
    layout, blocks = exact.layout, []
    for R, (J, r) in zip(exact.roots, layout.shapes, strict=True):
        blocks.append(np.zeros((J, r, r)))
        if R is not None:
            blocks[-1][: len(R)] = R
    padding = np.where(layout.real, 0.0, 1.0)[:, None]
    terms = Terms(tuple(factors), layout.small, tuple(blocks))
    frame = Frame(terms, exact.follow, exact.edge_root, padding, exact.centre)
    return tf.nest.map_structure(
        lambda a: a if isinstance(a, bool) else tf.constant(np.asarray(a), dtype), frame
    )


def unwhiten(frame, p, v):
    """x = centre + T v: [P, C]."""
    terms = frame.terms
    beta, parts = split(terms, p, v)
    own = [flatten(times(R, part)) for R, part in zip(terms.blocks, parts, strict=True)]
    edge = frame.edge_root @ border_of(terms, beta, parts)
    inner = tf.concat([tf.zeros_like(beta), *own], axis=0) - frame.follow @ edge
    return frame.centre[:, None] + with_border(terms, p, inner, edge)


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
