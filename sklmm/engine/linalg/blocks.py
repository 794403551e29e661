"""Block diagonal matrices: one block [r, r] for each level, or one for all of them."""

import numpy as np
from scipy import sparse

#: Entries of a level up to which one product for all of MANY levels is faster than one for each.
SMALL = 8
MANY = 512


def turn(blocks, flat):
    """Each level's own block [J, r, r] times its part of flat [J * r, ...]."""
    J, r, _ = blocks.shape
    if r == 1:
        return blocks.reshape(J, *[1] * (flat.ndim - 1)) * flat
    shaped = flat.reshape(J, r, -1)
    # einsum is faster for a column, and several times slower for more.
    if shaped.shape[2] == 1:
        return np.einsum("jab,jbc->jac", blocks, shaped).reshape(flat.shape)
    return (blocks @ shaped).reshape(flat.shape)


def turn_all(L, flat):
    """L applied to every level's part of flat [J * r, ...], or [J, r, c]."""
    r = len(L)
    if r == 1:
        return L[0, 0] * flat
    J, c = (len(flat), flat.shape[2]) if flat.ndim == 3 else (len(flat) // r, flat[:1].size)
    shaped = flat.reshape(J, r, c)
    if c == 1 or (r * c <= SMALL and J > MANY):
        turned = L.T if c == 1 else np.kron(L.T, np.eye(c))
        return (shaped.reshape(J, r * c) @ turned).reshape(flat.shape)
    return (L @ shaped).reshape(flat.shape)


def congruent(L, blocks):
    """L^T B L of each level's block B [J, r, r]."""
    if len(L) ** 2 <= SMALL and len(blocks) > MANY:
        return (blocks.reshape(len(blocks), -1) @ np.kron(L, L)).reshape(blocks.shape)
    return L.T @ blocks @ L


def block_diagonal(blocks):
    """Sparse [J * r, J * r] from [J, r, r]."""
    J, r, _ = blocks.shape
    return sparse.bsr_array((blocks, np.arange(J), np.arange(J + 1)), shape=(J * r, J * r)).tocsr()


def invert(blocks):
    """Inverse of each level's positive block [J, r, r]; LinAlgError where one is singular."""
    if blocks.shape[1] == 1:
        return 1.0 / blocks
    if blocks.shape[1] != 2 or len(blocks) <= MANY:
        return np.linalg.inv(blocks)
    (a, b), (c, d) = blocks.transpose(1, 2, 0)
    determinants = a * d - b * c
    if not (determinants > 0).all():
        raise np.linalg.LinAlgError("a block is not positive")
    return (np.stack([d, -b, -c, a]) / determinants).T.reshape(blocks.shape)


def roots(blocks):
    """Lower factor of each level's block [J, r, r]."""
    if blocks.shape[1] > 1:
        return np.linalg.cholesky(blocks)
    if not (blocks > 0).all():
        raise np.linalg.LinAlgError("a block is not positive")
    return np.sqrt(blocks)


def rescaled(b, std):
    """Deviations b [n_levels, r, m] with the root mean squares `std` [n_levels, r]."""
    size = np.sqrt(np.einsum("jam,jam->ja", b, b))
    return b * np.divide(std, size, out=np.ones_like(std), where=size > 0)[:, :, None]


def csr_rows(C, first, last):
    """Rows of a CSR matrix, its numbers not copied."""
    a, b = C.indptr[[first, last]]
    ends = C.indptr[first : last + 1] - a
    return sparse.csr_array((C.data[a:b], C.indices[a:b], ends), (last - first, C.shape[1]))
