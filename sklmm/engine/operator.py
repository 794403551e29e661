r"""The mixed-model equations without their matrix, and conjugate gradients on them.

Unknowns x = (beta, u_1, ..., u_K), flat [p + Q, n_columns], for

    C x = W^T w W x / sigma^2 + (0, u),     W = [X, Z_1 L_1, ..., Z_K L_K],

applied row by row: gather the levels' effects, weigh, add them up again. All right-hand sides go in one
batch. The preconditioner is block-Jacobi: one block per level, and sigma^2 / n for the whitened beta
(Pandolfi, Papaspiliopoulos & Zanella 2024, arXiv:2411.04729, for its behaviour on crossed factors).
"""

from typing import NamedTuple

import numpy as np

from sklmm.engine.xla import bucket, compiled, pad, tf


class Data(NamedTuple):
    """Row arrays as tensors, padded with rows of weight 0: the arguments of every compiled step."""

    X: object
    y: object
    w: object
    refs: tuple
    z: tuple


class System(NamedTuple):
    """The equations at one theta: factors L_k, 1/sigma^2, and the inverse diagonal blocks."""

    factors: tuple
    precision: object
    blocks: tuple
    beta_block: object


def tensors(problem, dtype=np.float64):
    """Data of a problem in its shape bucket."""
    n = bucket(len(problem.y))

    def rows(array, kind=dtype):
        return tf.constant(pad(np.asarray(array, kind), n))

    return Data(
        rows(problem.X),
        rows(problem.y),
        rows(problem.weights),
        tuple(rows(b.refs, np.int32) for b in problem.blocks),
        tuple(rows(b.z) for b in problem.blocks),
    )


def precision_blocks(problem, params):
    """L_k^T Z_j^T w Z_j L_k / sigma^2 + I: the diagonal blocks of C, [n_levels, r, r] each."""
    return [
        np.einsum("ba,jbc,cd->jad", L, b.crossprod, L, optimize=True) / params.sigma**2
        + np.eye(b.r)
        for b, L in zip(problem.blocks, params.factors, strict=True)
    ]


def system(problem, params, dtype=np.float64):
    """System at `params`, levels padded to their buckets."""
    blocks = []
    for b, H in zip(problem.blocks, precision_blocks(problem, params), strict=True):
        inverse = 1.0 / H if b.r == 1 else np.linalg.inv(H)
        padded = np.broadcast_to(np.eye(b.r), (bucket(b.n_levels), b.r, b.r)).copy()
        padded[: b.n_levels] = inverse
        blocks.append(tf.constant(padded, dtype))
    return System(
        tuple(tf.constant(L, dtype) for L in params.factors),
        tf.constant(params.sigma**-2, dtype),
        tuple(blocks),
        tf.constant(params.sigma**2 / problem.n, dtype),
    )


class Layout:
    """Where beta and each block's levels lie in a flat, padded vector of unknowns."""

    def __init__(self, problem):
        self.p = problem.p
        self.shapes = [(bucket(b.n_levels), b.r) for b in problem.blocks]
        self.levels = [b.n_levels for b in problem.blocks]
        self.size = self.p + sum(J * r for J, r in self.shapes)

    def split(self, flat):
        """[p + Q', c] -> [p, c] and a list of [n_levels, r, c], without the padding."""
        flat = np.asarray(flat)
        parts, first = [], self.p
        for (J, r), levels in zip(self.shapes, self.levels, strict=True):
            block = flat[first : first + J * r].reshape(J, r, -1)[:levels]
            parts.append(block)
            first += J * r
        return flat[: self.p], parts

    def join(self, beta, parts):
        """The inverse of `split`, padding with zeros."""
        columns = [beta]
        for (J, r), part in zip(self.shapes, parts, strict=True):
            columns.append(pad(part, J).reshape(J * r, -1))
        return np.concatenate(columns)


def _split(system_, p, flat):
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


def gather_rows(data, k, b):
    """Z_k b: [n_levels, r, c] -> [n_rows, c]."""
    rows = tf.gather(b, data.refs[k])
    return tf.reduce_sum(rows * data.z[k][:, :, None], axis=1)


def sum_levels(data, k, rows, n_levels):
    """Z_k^T rows: [n_rows, c] -> [n_levels, r, c]."""
    spread = rows[:, None, :] * data.z[k][:, :, None]
    return tf.math.unsorted_segment_sum(spread, data.refs[k], n_levels)


def to_rows(data, system_, flat):
    """W x: [n_rows, c]."""
    beta, parts = _split(system_, data.X.shape[1], flat)
    rows = data.X @ beta
    for k, (L, u) in enumerate(zip(system_.factors, parts, strict=True)):
        rows += gather_rows(data, k, lift(L, u))
    return rows


def from_rows(data, system_, rows, beta_mask):
    """W^T rows: [p + Q, c]; beta_mask [c] is 0 in columns that hold beta fixed."""
    parts = [tf.matmul(data.X, rows, transpose_a=True) * beta_mask]
    for k, (L, block) in enumerate(zip(system_.factors, system_.blocks, strict=True)):
        J, r = block.shape[0], block.shape[1]
        summed = lower(L, sum_levels(data, k, rows, J))
        parts.append(tf.reshape(summed, [J * r, -1]))
    return tf.concat(parts, axis=0)


def apply(data, system_, flat, beta_mask):
    """C x."""
    p = data.X.shape[1]
    weighted = to_rows(data, system_, flat) * (data.w * system_.precision)[:, None]
    out = from_rows(data, system_, weighted, beta_mask)
    return out + tf.concat([tf.zeros_like(flat[:p]), flat[p:]], axis=0)


def precondition(system_, p, flat):
    """The block-Jacobi preconditioner applied to a residual."""
    beta, parts = _split(system_, p, flat)
    out = [beta * system_.beta_block]
    for block, part in zip(system_.blocks, parts, strict=True):
        J, r = block.shape[0], block.shape[1]
        solved = block * part if r == 1 else tf.einsum("jab,jbc->jac", block, part)
        out.append(tf.reshape(solved, [J * r, -1]))
    return tf.concat(out, axis=0)


def conjugate_gradients(data, system_, right, start, beta_mask, tol, max_iter):
    """Solve C x = right for every column, from `start`; (x, iterations).

    Stops when each column's residual, in the preconditioner's norm, is below `tol` of its right-hand
    side's.
    """
    p = data.X.shape[1]

    def inner(a, b):
        return tf.reduce_sum(a * b, axis=0)

    target = tol**2 * inner(right, precondition(system_, p, right))
    residual = right - apply(data, system_, start, beta_mask)
    ahead = precondition(system_, p, residual)

    def unfinished(i, x, residual, direction, size):
        return (i < max_iter) & tf.reduce_any(size > target)

    def body(i, x, residual, direction, size):
        image = apply(data, system_, direction, beta_mask)
        curvature = inner(direction, image)
        running = (size > target) & (curvature > 0)
        alpha = tf.where(running, size / tf.where(running, curvature, tf.ones_like(size)), 0.0)
        x += alpha * direction
        residual -= alpha * image
        ahead = precondition(system_, p, residual)
        new = inner(residual, ahead)
        ratio = tf.where(size > 0, new / tf.where(size > 0, size, tf.ones_like(size)), 0.0)
        return i + 1, x, residual, ahead + ratio * direction, new

    i, x, *_ = tf.while_loop(
        unfinished, body, (tf.constant(0), start, residual, ahead, inner(residual, ahead))
    )
    return x, i


@compiled
def solve(data, system_, right, start, beta_mask, tol, max_iter):
    """C x = right, compiled: (x, iterations)."""
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
