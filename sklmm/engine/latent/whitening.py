"""The frame of the chains, `engine.latent.frame`, as tensors."""

from typing import NamedTuple

import numpy as np

from sklmm.engine.latent.unknowns import Terms, border_of, flatten, split, times, with_border
from sklmm.engine.runtime.tensorflow import tf


class Frame(NamedTuple):
    """The centre [P'] and T, in the `Slots` of a layout.

    terms, whose blocks are the roots of D^-1, 0 for padding; follow G [P', f']; edge_root
    S^{-1/2} [f', f']; padding [P', 1], 1 where an unknown is none of the model's.
    """

    terms: Terms
    follow: object
    edge_root: object
    padding: object
    centre: object


class Slots:
    """Where the unknowns of a `Layout` lie among those of compiled steps, flat [P'].

    There each term has room for more levels, so that tables that differ a little in their levels,
    as the folds of a cross-validation do, share a compilation. `shapes` are the (room, r) of each
    term; what is no unknown of the model's is padding.
    """

    def __init__(self, layout):
        self.layout = layout
        of_terms = list(zip(layout.levels, layout.shapes, layout.small, strict=True))
        self.shapes = [(room(J), r) for J, (_, r), _ in of_terms]
        slots, border = [np.arange(layout.p)], [np.ones(layout.p, bool)]
        first = layout.p
        for (J, (_, r), small), (rooms, _) in zip(of_terms, self.shapes, strict=True):
            slots.append(first + np.arange(J * r))
            border.append(np.full(rooms * r, small))
            first += rooms * r
        self.size, self.slots = first, np.concatenate(slots)
        self.real, border = np.flatnonzero(layout.real), np.concatenate(border)
        self.n_border = np.count_nonzero(border)
        self.edge = (np.cumsum(border) - 1)[self.slots[layout.border[self.real]]]

    def put(self, unknowns):
        """[P, ...] -> [P', ...], 0 for padding."""
        out = np.zeros((self.size, *unknowns.shape[1:]))
        out[self.slots] = unknowns[self.real]
        return out

    def take(self, compiled):
        """[P', ...] -> [P, ...], the inverse of `put`."""
        out = np.zeros((self.layout.size, *compiled.shape[1:]))
        out[self.real] = compiled[self.slots]
        return out

    def put_edges(self, columns):
        """[., f] of the border's entries -> [., f'], 0 for padding."""
        out = np.zeros((len(columns), self.n_border))
        out[:, self.edge] = columns
        return out


def room(levels):
    """Levels that a term of so many has room for: the next power of two, at least 16.

    Rows cost more than levels, and have finer sizes (`runtime.compilation.bucket`).
    """
    return max(16, 1 << (int(levels) - 1).bit_length())


def tensors(exact, factors, dtype):
    """A NumPy frame's arrays in the slots of its layout, in a precision."""
    slots, blocks = Slots(exact.layout), []
    for R, (J, r) in zip(exact.roots, slots.shapes, strict=True):
        blocks.append(np.zeros((J, r, r)))
        if R is not None:
            blocks[-1][: len(R)] = R
    padding = np.ones((slots.size, 1))
    padding[slots.slots] = 0.0
    frame = Frame(
        Terms(tuple(factors), exact.layout.small, tuple(blocks)),
        slots.put_edges(slots.put(exact.follow)),
        slots.put_edges(slots.put_edges(exact.edge_root).T).T,
        padding,
        slots.put(exact.centre),
    )
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
