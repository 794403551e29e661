r"""The mixed-model equations without their matrix, and conjugate gradients on them.

Unknowns x = (beta, u_1, ..., u_K), flat [p + Q, n_columns], for

    C x = W^T w W x / sigma^2 + (0, u),     W = [X, Z_1 L_1, ..., Z_K L_K],

applied row by row: gather the levels' effects, weigh, add them up again. All right-hand sides go in
one batch. The preconditioner is a block arrow matrix M >= C: beta and the terms of few levels (the
border F) enter with their own blocks of C, the K_L larger terms with one block per level,

    M = [ C_FF  C_FL ]     D_j = K_L L^T Z_j^T w Z_j L / sigma^2 + I,
        [ C_LF    D  ]

solved through the dense Schur complement of D. Block-Jacobi alone (Pandolfi, Papaspiliopoulos &
Zanella 2024) needs about three times the iterations on InstEval, where departments compete with the
sum of their instructors; the factor K_L keeps M positive definite. With K_L = 1, M = C and one step
solves.
"""

from typing import NamedTuple

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from sklmm.engine.equations.layout import precision_blocks
from sklmm.engine.linalg.blocks import invert
from sklmm.engine.rows import tensors
from sklmm.engine.runtime.tensorflow import compiled, tf


class System(NamedTuple):
    """The equations at one theta: factors L_k and 1/sigma^2, and their preconditioner.

    small, which terms are of the border; blocks, D^-1 per level [n_levels, r, r] (zero for terms of
    the border); border, C_LF [p + Q', f]; schur, the inverse Schur complement [f, f].
    """

    factors: tuple
    precision: object
    small: tuple
    blocks: tuple
    border: object
    schur: object


def _inverse(square):
    """Inverse of a positive matrix, its pseudo-inverse where it is singular."""
    if not square.size:
        return square
    try:
        factor = cho_factor(square)
    except LinAlgError:
        return np.linalg.pinv(square, hermitian=True)
    return cho_solve(factor, np.eye(len(square)))


class Border:
    """Cross-products of the border F, beta and the terms of few levels, once a fit."""

    def __init__(self, problem, layout, weights, G):
        table, self.G = problem.rows, G
        self.small = layout.small
        starts = dict(zip(self.small, self._starts(problem), strict=True))
        self.f = problem.p + sum(
            problem.blocks[k].n_levels * problem.blocks[k].r for k in self.small
        )
        rows = np.zeros((table.n_rows, self.f))
        rows[:, : problem.p] = table.X
        everyone = np.arange(table.n_rows)
        for k, start in starts.items():
            r = problem.blocks[k].r
            for a in range(r):
                rows[everyone, start + table.refs[k] * r + a] = table.z[k][:, a]
        weighted = rows * weights[:, None]
        self.square = weighted.T @ rows
        self.starts = starts
        self.cross = {
            k: np.stack(
                [
                    [
                        np.bincount(table.refs[k], weighted[:, f] * table.z[k][:, a], b.n_levels)
                        for a in range(b.r)
                    ]
                    for f in range(self.f)
                ],
                axis=2,
            ).transpose(1, 0, 2)
            if self.f
            else np.zeros((b.n_levels, b.r, 0))
            for k, b in enumerate(problem.blocks)
            if k not in self.small
        }
        self.layout = layout

    def _starts(self, problem):
        start = problem.p
        for k in self.small:
            yield start
            start += problem.blocks[k].n_levels * problem.blocks[k].r

    def lift(self, problem, factors, array):
        """Lambda_F^T along the last axis."""
        out = array.copy()
        for k, start in self.starts.items():
            b, L = problem.blocks[k], factors[k]
            part = slice(start, start + b.n_levels * b.r)
            shaped = array[..., part].reshape(*array.shape[:-1], b.n_levels, b.r)
            out[..., part] = (shaped @ L).reshape(*array.shape[:-1], -1)
        return out

    def system(self, problem, factors, dtype=np.float64):
        """System at `factors`, levels padded to their buckets."""
        layout, precision = self.layout, 1.0
        multiple = max(len(problem.blocks) - len(self.small), 1)
        square = self.lift(problem, factors, self.lift(problem, factors, self.square).T) * precision
        square[np.arange(problem.p, self.f), np.arange(problem.p, self.f)] += 1.0
        blocks, border = [], []
        for k, H in enumerate(precision_blocks(self.G, factors, multiple)):
            J, r = layout.shapes[k]
            padded = np.zeros((J, r, r))
            edge = np.zeros((J, r, self.f))
            if k not in self.small:
                inverse = invert(H)
                padded[:] = np.eye(r)
                padded[: len(H)] = inverse
                cross = self.lift(problem, factors, self.cross[k]) * precision
                edge[: len(H)] = np.einsum("ba,jbf->jaf", factors[k], cross)
                square -= np.einsum(
                    "jaf,jab,jbg->fg", edge[: len(H)], inverse, edge[: len(H)], optimize=True
                )
            blocks.append(tf.constant(padded, dtype))
            border.append(edge.reshape(J * r, self.f))
        border = np.concatenate([np.zeros((problem.p, self.f)), *border])
        return System(
            tuple(tf.constant(L, dtype) for L in factors),
            tf.constant(precision, dtype),
            tuple(k in self.small for k in range(len(blocks))),
            tuple(blocks),
            tf.constant(border, dtype),
            tf.constant(_inverse(square), dtype),
        )


def split(system_, p, flat):
    """beta [p, c] and each block's effects [n_levels, r, c] of a flat vector of unknowns."""
    parts, first = [], p
    for block in system_.blocks:
        J, r = block.shape[0], block.shape[1]
        parts.append(tf.reshape(flat[first : first + J * r], [J, r, -1]))
        first += J * r
    return flat[:p], parts


def lift(L, u):
    """L u for every level, [n_levels, r, c]."""
    return L[0, 0] * u if L.shape[0] == 1 else tf.einsum("ab,jbc->jac", L, u)


def lower(L, b):
    """L^T b for every level, [n_levels, r, c]."""
    return L[0, 0] * b if L.shape[0] == 1 else tf.einsum("ba,jbc->jac", L, b)


def to_rows(data, system_, flat):
    """W x: [n_rows, c]."""
    beta, parts = split(system_, data.X.shape[1], flat)
    effects = [lift(L, u) for L, u in zip(system_.factors, parts, strict=True)]
    return tensors.to_rows(data, beta, effects)


def from_rows(data, system_, rows, beta_mask):
    """W^T rows: [p + Q, c]; beta_mask [c] is 0 in columns that hold beta fixed."""
    beta, sums = tensors.from_rows(data, rows, [block.shape[0] for block in system_.blocks])
    parts = [flatten(lower(L, b)) for L, b in zip(system_.factors, sums, strict=True)]
    return tf.concat([beta * beta_mask, *parts], axis=0)


def apply(data, system_, flat, beta_mask):
    """C x."""
    p = data.X.shape[1]
    weighted = to_rows(data, system_, flat) * (data.w * system_.precision)[:, None]
    out = from_rows(data, system_, weighted, beta_mask)
    return out + tf.concat([tf.zeros_like(flat[:p]), flat[p:]], axis=0)


def flatten(part):
    """[n_levels, r, c] -> [n_levels * r, c]."""
    return tf.reshape(part, [part.shape[0] * part.shape[1], -1])


def turn(root, part, transpose=False):
    """R_j u_j, or R_j^T u_j, for every level."""
    if root.shape[1] == 1:
        return root * part
    return tf.einsum("jba,jbc->jac" if transpose else "jab,jbc->jac", root, part)


def solve_levels(system_, p, flat):
    """D^-1 on the larger terms, 0 on the border."""
    beta, parts = split(system_, p, flat)
    solved = [flatten(turn(D, part)) for D, part in zip(system_.blocks, parts, strict=True)]
    return tf.concat([tf.zeros_like(beta), *solved], axis=0)


def border_of(system_, beta, parts):
    """The border's entries [f, c]: beta and the terms of few levels."""
    small = [flatten(u) for u, is_small in zip(parts, system_.small, strict=True) if is_small]
    return tf.concat([beta, *small], axis=0)


def with_border(system_, p, inner, edge):
    """`inner` [p + Q', c] with the border's entries replaced by `edge` [f, c]."""
    out, first = [edge[:p]], p
    for part, is_small in zip(split(system_, p, inner)[1], system_.small, strict=True):
        size = part.shape[0] * part.shape[1]
        out.append(edge[first : first + size] if is_small else flatten(part))
        first += size if is_small else 0
    return tf.concat(out, axis=0)


def precondition(system_, p, flat, beta_mask):
    """M^-1 applied to a residual."""
    inner = solve_levels(system_, p, flat)
    beta, parts = split(system_, p, flat)
    edge = system_.schur @ (
        border_of(system_, beta, parts) - tf.matmul(system_.border, inner, transpose_a=True)
    )
    inner -= solve_levels(system_, p, system_.border @ edge)
    edge = tf.concat([edge[:p] * beta_mask, edge[p:]], axis=0)
    return with_border(system_, p, inner, edge)


def conjugate_gradients(data, system_, right, start, beta_mask, tol, max_iter):
    """Solve C x = right for every column, from `start`: (x, iterations, largest residual).

    Stops when each column's residual, in the preconditioner's norm, is below `tol` of its
    right-hand side's; the largest one is in units of `tol`.
    """
    p = data.X.shape[1]

    def inner(a, b):
        return tf.reduce_sum(a * b, axis=0)

    target = tol**2 * inner(right, precondition(system_, p, right, beta_mask))
    residual = right - apply(data, system_, start, beta_mask)
    ahead = precondition(system_, p, residual, beta_mask)

    def unfinished(i, x, residual, direction, size):
        return (i < max_iter) & tf.reduce_any(size > target)

    def body(i, x, residual, direction, size):
        image = apply(data, system_, direction, beta_mask)
        curvature = inner(direction, image)
        running = (size > target) & (curvature > 0)
        alpha = tf.where(running, size / tf.where(running, curvature, tf.ones_like(size)), 0.0)
        x += alpha * direction
        residual -= alpha * image
        ahead = precondition(system_, p, residual, beta_mask)
        new = inner(residual, ahead)
        ratio = tf.where(size > 0, new / tf.where(size > 0, size, tf.ones_like(size)), 0.0)
        return i + 1, x, residual, ahead + ratio * direction, new

    i, x, *_, size = tf.while_loop(
        unfinished, body, (tf.constant(0), start, residual, ahead, inner(residual, ahead))
    )
    left = tf.where(size > target, size / tf.where(target > 0, target, tf.ones_like(size)), 0.0)
    return x, i, tf.sqrt(tf.reduce_max(left))


@compiled
def solve(data, system_, right, start, beta_mask, tol, max_iter):
    """C x = right, compiled: (x, iterations, largest residual in units of tol)."""
    return conjugate_gradients(data, system_, right, start, beta_mask, tol, max_iter)


@compiled
def apply_compiled(data, system_, flat, beta_mask):
    """C x, compiled."""
    return apply(data, system_, flat, beta_mask)


@compiled
def noise_right(data, system_, row_noise, level_noise):
    """W^T w^(1/2) eps / sigma + (0, xi): its solution is a draw from N(0, C^-1)."""
    weighted = row_noise * (tf.sqrt(data.w * system_.precision))[:, None]
    return from_rows(data, system_, weighted, tf.ones_like(weighted[0])) + level_noise
