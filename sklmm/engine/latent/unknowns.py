"""The unknowns x = (beta, u_1, ..., u_K) as tensors, flat [P, c], by term and by border."""

from typing import NamedTuple

from sklmm.engine.rows import tensors
from sklmm.engine.runtime.tensorflow import tf


class Terms(NamedTuple):
    """The terms' factors L_k, which of them are of the border, and a block for each level.

    small, a tuple of bool; blocks [n_levels, r, r], 0 for the terms of the border.
    """

    factors: tuple
    small: tuple
    blocks: tuple


def split(terms, p, flat):
    """beta [p, c] and each term's effects [n_levels, r, c] of unknowns flat [P, c]."""
    parts, first = [], p
    for block in terms.blocks:
        J, r = block.shape[0], block.shape[1]
        parts.append(tf.reshape(flat[first : first + J * r], [J, r, -1]))
        first += J * r
    return flat[:p], parts


def flatten(part):
    """[n_levels, r, c] -> [n_levels * r, c]."""
    return tf.reshape(part, [part.shape[0] * part.shape[1], -1])


def times(block, part, transpose=False):
    """Each level's block [n_levels, r, r], or its transpose, times its effects [n_levels, r, c]."""
    if block.shape[1] == 1:
        return block * part
    return tf.einsum("jba,jbc->jac" if transpose else "jab,jbc->jac", block, part)


def scaled(L, part, transpose=False):
    """L, or its transpose, times each level's effects [n_levels, r, c]."""
    if L.shape[0] == 1:
        return L[0, 0] * part
    return tf.einsum("ba,jbc->jac" if transpose else "ab,jbc->jac", L, part)


def to_rows(data, terms, flat):
    """W x: [P, c] -> [n_rows, c]."""
    beta, parts = split(terms, data.X.shape[1], flat)
    effects = [scaled(L, u) for L, u in zip(terms.factors, parts, strict=True)]
    return tensors.to_rows(data, beta, effects)


def from_rows(data, terms, rows):
    """W^T rows: [n_rows, c] -> [P, c]."""
    beta, sums = tensors.from_rows(data, rows, [block.shape[0] for block in terms.blocks])
    parts = [flatten(scaled(L, b, True)) for L, b in zip(terms.factors, sums, strict=True)]
    return tf.concat([beta, *parts], axis=0)


def border_of(terms, beta, parts):
    """The border's entries [f, c]: beta and the terms of few levels."""
    small = [flatten(u) for u, is_small in zip(parts, terms.small, strict=True) if is_small]
    return tf.concat([beta, *small], axis=0)


def with_border(terms, p, inner, edge):
    """`inner` [P, c] with the border's entries replaced by `edge` [f, c]."""
    out, first = [edge[:p]], p
    for part, is_small in zip(split(terms, p, inner)[1], terms.small, strict=True):
        size = part.shape[0] * part.shape[1]
        out.append(edge[first : first + size] if is_small else flatten(part))
        first += size if is_small else 0
    return tf.concat(out, axis=0)
