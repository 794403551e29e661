r"""Coordinates in which the posterior of x is nearly N(0, I): x = centre + T v, T T^T = M^-1.

M is the preconditioner of conjugate gradients, with blocks D, border B and Schur complement S,

    x_F = S^{-1/2} v_F,      x_L = D^{-1/2} v_L - D^-1 B x_F.

So one scalar step size fits every level, and the stiff direction "all effects of a term up, those
of another down" is whitened away.
"""

from typing import NamedTuple

import numpy as np

from sklmm.engine.operator import border_of, flatten, solve_levels, split, turn, with_border
from sklmm.engine.xla import tf


class Frame(NamedTuple):
    """M's System, roots of D^-1 [n_levels, r, r], S^{-1/2} [f, f], and the centre [P]."""

    system: object
    roots: tuple
    schur_root: object
    centre: object


def make_frame(equations, centre, dtype=np.float64):
    """Frame of `latent.Equations` about `centre`."""
    layout, system_ = equations.latent.layout, equations.system
    roots = []
    for (J, r), levels, block in zip(layout.shapes, layout.levels, system_.blocks, strict=True):
        # 0 for padding: its v moves freely, and u stays 0.
        root = np.zeros((J, r, r))
        inverse = block.numpy()[:levels]
        if inverse.any():
            root[:levels] = np.sqrt(inverse) if r == 1 else np.linalg.cholesky(inverse)
        roots.append(root)
    schur_root = _root(system_.schur.numpy())
    frame = Frame(system_, tuple(roots), schur_root, centre)
    return tf.nest.map_structure(
        lambda a: a if isinstance(a, bool) else tf.constant(np.asarray(a), dtype), frame
    )


def _root(square):
    """R with R R^T = square, a continuous function of it as the chains keep v when theta moves."""
    try:
        return np.linalg.cholesky(square)
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(square)
        return (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T


def unwhiten(frame, p, v):
    """x = centre + T v: [P, C]."""
    system_ = frame.system
    beta, parts = split(system_, p, v)
    turned = [turn(R, part) for R, part in zip(frame.roots, parts, strict=True)]
    edge = frame.schur_root @ border_of(system_, beta, parts)
    inner = tf.concat([tf.zeros_like(beta), *(flatten(part) for part in turned)], axis=0)
    inner -= solve_levels(system_, p, system_.border @ edge)
    return frame.centre[:, None] + with_border(system_, p, inner, edge)


def pull_back(frame, p, g):
    """T^T g: [P, C]."""
    system_ = frame.system
    beta, parts = split(system_, p, g)
    edge = border_of(system_, beta, parts) - tf.matmul(
        system_.border, solve_levels(system_, p, g), transpose_a=True
    )
    edge = tf.matmul(frame.schur_root, edge, transpose_a=True)
    turned = [turn(R, part, transpose=True) for R, part in zip(frame.roots, parts, strict=True)]
    inner = tf.concat([tf.zeros_like(beta), *(flatten(part) for part in turned)], axis=0)
    return with_border(system_, p, inner, edge)
