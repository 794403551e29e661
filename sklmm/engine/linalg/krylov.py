r"""Krylov's methods for a large positive matrix A, which need products with it alone.

Preconditioned conjugate gradients (Hestenes & Stiefel 1952, J. Res. Nat. Bur. Stand. 49, 409-436)
solve for many right-hand sides at once: SciPy's take one, and a product with a sparse matrix costs
little more for many than for one.

Lanczos' method makes functions of A: f(A) v needs products with A alone (Chow & Saad 2014, SIAM J.
Sci. Comput. 36, A588-A608); so does q^T f(A) q, a Gauss quadrature. Where A has a unit diagonal and
q is uniform on the sphere,

    log |A| = n E[q^T f(A) q],    f(x) = log(x) - x + 1

(Ubaru, Chen & Saad 2017, SIAM J. Matrix Anal. Appl. 38, 1075-1099; -x + 1 adds nothing to the
trace, and leaves of the noise what is of second order in A - I). A few eigenvalues far from 1 are
most of what is left: their space Q is found by a sketch, and q^T Q F Q^T q with F = f(Q^T A Q), of
known mean whatever F is, is taken out as a control variate (after Meyer, Musco, Musco & Woodruff
2021, Hutch++, SOSA, 142-155).
"""

from typing import NamedTuple

import numpy as np

#: Lanczos' method ends where the last term of A^(-1/2) is this share of the first one, which is
#: looked at every so many iterations, or after so many of them.
TOL = 1e-3
CHECK_EVERY = 4
MAX_ITER = 100
#: Columns of the sketch, at least and at most, and numbers in it.
SKETCHED = (4, 16)
SKETCHED_NUMBERS = 1 << 15
#: Products with A - I that turn the sketch to its largest eigenvalues: so few lose no digits.
POWER = 3


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


class Run(NamedTuple):
    """Lanczos from columns [n, c]: their lengths, bases V, and T's eigenvalues and eigenvectors.

    A V = V T but for `rest` [n, c], which the last vector of V is turned to besides. `unsolved` is
    the largest share of the first term that the last one of A^(-1/2) has, where that is no less
    than the tolerance, else 0.
    """

    length: np.ndarray
    basis: list
    values: np.ndarray
    vectors: np.ndarray
    rest: np.ndarray
    unsolved: float = 0.0

    def _weights(self, f):
        """First columns [c, k] of f(T)."""
        return np.einsum("cik,ck,ck->ci", self.vectors, f(self.values), self.vectors[:, 0])

    def apply(self, f):
        """f(A) applied to the columns."""
        return self._combined(self._weights(f))

    def image(self, f):
        """A f(A) applied to the columns: what A makes of `apply(f)`, to rounding."""
        along = self._combined(self._weights(lambda x: x * f(x)))
        return along + self._weights(f)[:, -1] * self.length * self.rest

    def _combined(self, weights):
        """V weights [c, k], in the columns' lengths."""
        weights = weights * self.length[:, None]
        return sum(w * v for w, v in zip(weights.T, self.basis, strict=True))

    def quadrature(self, f):
        """q^T f(A) q [c] of the columns in units of their length."""
        return np.einsum("ck,ck->c", self.vectors[:, 0] ** 2, f(self.values))


def inverse_root(x):
    """x^(-1/2)."""
    return x**-0.5


def log_excess(x):
    """log(x) - x + 1."""
    return np.log(x) - x + 1


def lanczos(apply, columns):
    """`Run` from columns [n, c], until A^(-1/2) has converged on them."""
    length = np.sqrt(inner(columns, columns))
    q = columns / np.where(length > 0, length, 1.0)
    basis, alphas, betas = [q], [], []
    before, beta = np.zeros_like(q), np.zeros(q.shape[1])
    most = min(MAX_ITER, len(columns))
    for i in range(most):
        image = apply(q) - beta * before
        alpha = inner(q, image)
        image -= alpha * q
        beta = np.sqrt(inner(image, image))
        alphas.append(alpha)
        last = i + 1 == most or (beta < 1e-10).all()
        if last or i % CHECK_EVERY == CHECK_EVERY - 1:
            run = Run(length, basis, *_eigen(alphas, betas), image)
            weights = np.abs(run._weights(inverse_root))
            share = float(np.max(weights[:, -1] / weights[:, 0], initial=0.0))
            if last or share < TOL:
                break
        betas.append(beta)
        before, q = q, image / np.where(beta > 1e-10, beta, 1.0)
        basis.append(q)
    # A basis of the whole space, or of one that A does not leave, tells all.
    exact = most == len(columns) or (beta < 1e-10).all()
    return run if exact or share < TOL else run._replace(unsolved=share)


def _eigen(alphas, betas):
    """Eigenvalues [c, k] and eigenvectors [c, k, k] of the columns' tridiagonal matrices."""
    k = len(alphas)
    T = np.zeros((len(alphas[0]), k, k))
    T[:, np.arange(k), np.arange(k)] = np.transpose(alphas)
    if k > 1:
        rows = np.arange(k - 1)
        T[:, rows, rows + 1] = T[:, rows + 1, rows] = np.transpose(betas[: k - 1])
    values, vectors = np.linalg.eigh(T)
    return np.maximum(values, 1e-12), vectors


class LogDeterminant:
    """log |A| of a matrix [n, n] with a unit diagonal, from the Lanczos runs that are `add`ed."""

    def __init__(self, apply, n):
        self.n, self.samples = n, []
        columns = min(int(np.clip(SKETCHED_NUMBERS // n, *SKETCHED)), n)
        Q = np.random.default_rng(0).standard_normal((n, columns))
        for _ in range(POWER):
            Q = apply(Q) - Q
        self.Q = Q = np.linalg.qr(Q)[0]
        inner = Q.T @ apply(Q)
        values, vectors = np.linalg.eigh((inner + inner.T) / 2)
        self.F = (vectors * log_excess(np.maximum(values, 1e-12))) @ vectors.T

    def add(self, run):
        """Samples of log |A| from the run's columns, but for those of length 0."""
        own = run.basis[0].T @ self.Q
        known = np.einsum("ck,kl,cl->c", own, self.F, own)
        samples = self.n * (run.quadrature(log_excess) - known) + np.trace(self.F)
        self.samples.append(samples[run.length > 0])

    @property
    def value(self):
        """The estimate."""
        return float(np.concatenate(self.samples).mean())

    @property
    def error(self):
        """Its Monte Carlo standard error."""
        samples = np.concatenate(self.samples)
        return float(samples.std(ddof=1) / np.sqrt(len(samples))) if len(samples) > 1 else np.inf
