"""Products of a sparse matrix's rows with themselves, against dense ones."""

import numpy as np
import pytest
from scipy import sparse

from sklmm.engine.linalg.blocks import RowSquares


@pytest.fixture
def C():
    rng = np.random.default_rng(0)
    out = sparse.csr_array(rng.random((40, 9)) * (rng.random((40, 9)) < 0.3))
    # A row without entries, too.
    out.data[out.indptr[3] : out.indptr[4]] = 0.0
    out.eliminate_zeros()
    out.sum_duplicates()
    return out


def test_a_weighted_sum_of_squares_is_the_upper_triangle_of_the_product(C):
    w = np.random.default_rng(1).standard_normal(40)
    dense = C.toarray()
    expected = dense.T @ (w[:, None] * dense)
    np.testing.assert_allclose(RowSquares(C).summed(w), np.triu(expected), atol=1e-14)


def test_forms_are_each_rows_own(C):
    M = np.random.default_rng(2).standard_normal((9, 9))
    M += M.T
    dense = C.toarray()
    expected = np.einsum("ja,ab,jb->j", dense, M, dense)
    lower = np.asfortranarray(np.tril(M))
    np.testing.assert_allclose(RowSquares(C).forms(lower), expected, atol=1e-13)


def test_what_would_be_too_large_is_not_stored():
    assert RowSquares.fits(sparse.csr_array(np.ones((2, 2000))))
    assert not RowSquares.fits(sparse.csr_array(np.ones((3, 2000))))
    assert not RowSquares.fits(sparse.csr_array((2, 1 << 16)))
