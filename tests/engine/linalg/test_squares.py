"""Products of a sparse matrix's rows with themselves, against dense ones."""

import numpy as np
import pytest
from scipy import sparse

from sklmm.engine.linalg.blocks import RowSquares, inverse_triangle

SCALE = np.linspace(0.5, 2, 9)


@pytest.fixture(params=["whole", "parts"])
def C(request, monkeypatch):
    if request.param == "parts":
        monkeypatch.setattr("sklmm.engine.linalg.blocks.PARTED", 10)
    rng = np.random.default_rng(0)
    out = sparse.csr_array(rng.random((40, 9)) * (rng.random((40, 9)) < 0.3))
    # A row without entries, too.
    out.data[out.indptr[3] : out.indptr[4]] = 0.0
    out.eliminate_zeros()
    out.sum_duplicates()
    return out


def test_a_weighted_sum_of_squares_is_the_upper_triangle_of_the_product(C):
    w = np.random.default_rng(1).standard_normal(40)
    dense = C.toarray() * SCALE
    expected = dense.T @ (w[:, None] * dense)
    np.testing.assert_allclose(RowSquares(C).summed(w, SCALE), np.triu(expected), atol=1e-14)


def test_forms_are_each_rows_own(C):
    M = np.random.default_rng(2).standard_normal((9, 9))
    M += M.T
    dense = C.toarray() * SCALE
    expected = np.einsum("ja,ab,jb->j", dense, M, dense)
    lower = np.asfortranarray(np.tril(M))
    np.testing.assert_allclose(RowSquares(C).forms(lower, SCALE), expected, atol=1e-13)


def test_what_would_be_too_large_is_not_stored():
    assert RowSquares.fits(sparse.csr_array(np.ones((2, 2000))))
    assert not RowSquares.fits(sparse.csr_array(np.ones((3, 2000))))
    assert not RowSquares.fits(sparse.csr_array((2, 1 << 16)))


def test_a_triangle_is_inverted_by_halves():
    lower = np.tril(np.random.default_rng(3).standard_normal((301, 301))) + 20 * np.eye(301)
    found = inverse_triangle(np.asfortranarray(lower))
    np.testing.assert_allclose(found @ lower, np.eye(301), atol=1e-12)
    assert not np.triu(found, 1).any()
