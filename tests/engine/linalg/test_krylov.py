"""Functions of a matrix by Lanczos, against its eigenvalues."""

import numpy as np
import pytest

from sklmm.engine.linalg.krylov import LogDeterminant, inverse_root, lanczos


def matrix(rng, n):
    """Positive, with a unit diagonal, a few eigenvalues far from 1."""
    few = rng.normal(size=(n, 3)) / 4
    B = few @ few.T + rng.normal(size=(n, n)) @ np.diag(rng.uniform(0.2, 0.3, n)) / np.sqrt(n)
    A = B @ B.T + np.eye(n)
    d = np.sqrt(np.diag(A))
    return A / np.outer(d, d)


def test_inverse_roots_are_roots():
    rng = np.random.default_rng(0)
    A, v = matrix(rng, 60), rng.normal(size=(60, 5))
    x = lanczos(lambda q: A @ q, v).apply(inverse_root)
    values, vectors = np.linalg.eigh(A)
    np.testing.assert_allclose(x, (vectors / np.sqrt(values)) @ vectors.T @ v, rtol=2e-2, atol=1e-2)


def test_images_of_what_is_applied_are_products_with_it():
    rng = np.random.default_rng(4)
    A, v = matrix(rng, 60), rng.normal(size=(60, 5))
    v[:, 2] = 0.0
    run = lanczos(lambda q: A @ q, v)
    assert len(run.basis) < 60
    np.testing.assert_allclose(run.image(inverse_root), A @ run.apply(inverse_root), atol=1e-12)


def test_the_log_determinant_is_within_its_errors():
    rng = np.random.default_rng(1)
    A = matrix(rng, 200)
    expected, ratios = np.linalg.slogdet(A)[1], []
    for _ in range(40):
        found = LogDeterminant(lambda q: A @ q, 200)
        found.add(lanczos(lambda q: A @ q, rng.normal(size=(200, 24))))
        ratios.append((found.value - expected) / found.error)
    # 95 % of t variables with 23 degrees of freedom are within 2.07; of 40, 33 or more are.
    assert np.sum(np.abs(ratios) < 2.07) >= 33
    assert abs(np.mean(ratios)) < 3 / np.sqrt(40)


def test_unit_vectors_give_it_exactly():
    A = matrix(np.random.default_rng(2), 30)
    found = LogDeterminant(lambda q: A @ q, 30)
    found.add(lanczos(lambda q: A @ q, np.eye(30)))
    assert found.value == pytest.approx(np.linalg.slogdet(A)[1], abs=1e-6)


def test_a_run_that_does_not_converge_says_so():
    rng = np.random.default_rng(3)
    values, v = np.linspace(1e-6, 1.0, 2000)[:, None], rng.normal(size=(2000, 2))
    assert lanczos(lambda q: values * q, v).unsolved > 1e-3
    assert lanczos(lambda q: (1 + values) * q, v).unsolved == 0
    assert lanczos(lambda q: values[-50:] * q, v[-50:]).unsolved == 0
