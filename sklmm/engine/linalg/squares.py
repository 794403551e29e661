"""The rows c_j of a sparse matrix C [J, q], multiplied with themselves once and for all.

C^T diag(w) C = sum_j w_j c_j c_j^T for one w after another, and c_j^T M c_j of every row for one M
after another, are then a product each with what is stored: the upper triangle of every c_j c_j^T.
"""

import numpy as np
from scipy import sparse

#: Numbers that are stored at most.
MOST = 1 << 22


class RowSquares:
    """Of C, a CSR matrix in canonical form."""

    def __init__(self, C):
        J, q = C.shape
        ends = np.repeat(C.indptr[1:], np.diff(C.indptr))
        entries = np.arange(C.nnz, dtype=np.int32)
        # Each entry with itself and all that follow in its row.
        counts = ends - entries
        starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
        second = np.repeat(entries - starts[:-1], counts)
        second += np.arange(starts[-1], dtype=np.int32)
        places = np.repeat(C.indices * np.int32(q), counts)
        places += C.indices[second]
        products = np.repeat(C.data, counts)
        products *= C.data[second]
        parts = products, places, starts[C.indptr]
        self.own = sparse.csr_array((C.data**2, C.indices, C.indptr), C.shape)
        self.q, self.upper = q, sparse.csc_array(parts, (q * q, J))

    @staticmethod
    def fits(C):
        """Whether they are few enough to be stored, and their places 32-bit numbers."""
        counts = np.diff(C.indptr).astype(float)
        return C.shape[1] ** 2 < 1 << 31 and counts @ (counts + 1) / 2 <= MOST

    def summed(self, w):
        """C^T diag(w) C [q, q], its upper triangle; 0 below."""
        return (self.upper @ w).reshape(self.q, self.q)

    def forms(self, M):
        """c_j^T M c_j [J] by the lower triangle of a symmetric M in Fortran's order."""
        return 2 * (self.upper.T @ M.T.ravel()) - self.own @ np.diag(M)
