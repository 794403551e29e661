"""Preconditioned conjugate gradients for many right-hand sides at once.

Hestenes & Stiefel (1952), J. Res. Nat. Bur. Stand. 49, 409-436. SciPy's takes one right-hand side,
and a product with a sparse matrix costs little more for many than for one.
"""

import numpy as np


def conjugate_gradients(apply, precondition, right, x, tol, max_iter):
    """A^-1 right [n, c] from the start x, all columns in one batch.

    (x, iterations, the largest relative residual, in the preconditioner's norm).
    """
    whole = inner(right, precondition(right))
    target = tol**2 * whole
    residual = right - apply(x) if x.any() else right.copy()
    x = x.copy()
    ahead = precondition(residual)
    direction, size, done = ahead, inner(residual, ahead), 0
    while done < max_iter and (size > target).any():
        done += 1
        image = apply(direction)
        curvature = inner(direction, image)
        running = (size > target) & (curvature > 0)
        alpha = np.where(running, size / np.where(running, curvature, 1.0), 0.0)
        x += alpha * direction
        residual -= alpha * image
        ahead = precondition(residual)
        new = inner(residual, ahead)
        direction = ahead + new / np.where(size > 0, size, 1.0) * direction
        size = new
    left = np.sqrt(np.max(size / np.where(whole > 0, whole, 1.0), initial=0.0))
    return x, done, float(left)


def inner(a, b):
    """Column by column."""
    return np.einsum("ij,ij->j", a, b)
