r"""A sparse precision Q = B^T B of related levels, by a triangle B that is as sparse.

All that is asked of Q follows from B: u = B^-1 v of independent v has the covariance A = Q^-1, and
log |Q| is the diagonal's. Of a pedigree B is known (`relationships.pedigree`), of a dense A it is
the inverse of its factor, and of a sparse Q SuperLU finds it, with an order of the levels that
keeps it sparse.
"""

import numpy as np
from scipy import sparse
from scipy.linalg.lapack import dpotrf, dtrtri
from scipy.sparse.linalg import splu

#: Pivot, as a share of the level's own variance or precision, that counts as 0.
SINGULAR = 1e-10
#: SuperLU as Cholesky's method: no pivots, and the order of the symmetric matrix.
SYMMETRIC = {"SymmetricMode": True, "Equil": False}


class NotPositive(ValueError):
    """A matrix that is not positive definite, first seen at the `level`."""

    def __init__(self, level):
        super().__init__(f"not positive at {level}")
        self.level = level


def of_covariance(A):
    """(B csr, order) of a covariance A [J, J]; `NotPositive` where it is none."""
    lower, info = dpotrf(A, lower=True, clean=True)
    if info:
        raise NotPositive(info - 1)
    if (small := lower.diagonal() ** 2 <= SINGULAR * A.diagonal()).any():
        raise NotPositive(int(np.argmax(small)))
    B, _ = dtrtri(lower, lower=True)
    return sparse.csr_array(B), np.arange(len(A))


def of_precision(Q):
    """(B csr, order) of a sparse precision Q [J, J]; `NotPositive` where it is none."""
    diagonal = Q.diagonal()
    if not (diagonal > 0).all():
        raise NotPositive(int(np.argmin(diagonal > 0)))
    try:
        lu = splu(Q.tocsc(), permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options=SYMMETRIC)
    except RuntimeError as error:
        raise NotPositive(None) from error
    order = np.argsort(lu.perm_c)
    pivots = lu.U.diagonal()
    small = pivots <= SINGULAR * diagonal[order]
    if small.any() or not np.array_equal(lu.perm_r, lu.perm_c):
        raise NotPositive(int(order[np.argmax(small)]) if small.any() else None)
    # U = D L^T in the order: B = D^-1/2 U.
    B = (sparse.diags_array(pivots**-0.5) @ lu.U).tocsr()
    return sparse.csr_array((B.data, order[B.indices].astype(np.int32), B.indptr), B.shape), order


def triangle_solver(B, order):
    """SuperLU of B, a triangle with its columns in an order: as sparse as itself."""
    triangle = sparse.csr_array(B)[:, order].tocsc()
    options = {"Equil": False}
    return splu(triangle, permc_spec="NATURAL", diag_pivot_thresh=0.0, options=options)
