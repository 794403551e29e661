"""Rows of several predictors against matrices that are written out."""

from itertools import pairwise

import numpy as np
import pytest

from sklmm.engine.rows.local import LocalRows
from sklmm.engine.rows.predictors import BlockWeights, PredictorRows, raised, rotations
from sklmm.engine.rows.protocol import Coefs

N = 40


def part(rng, p, *terms):
    """`LocalRows` of p columns and of terms, (levels, coefficients a level) each."""
    refs = tuple(rng.integers(J, size=N).astype(np.int32) for J, _ in terms)
    z = tuple(rng.normal(size=(N, r)) for _, r in terms)
    own = np.arange(N) / N, rng.normal(size=(N, p)), rng.integers(1, 4, N).astype(float)
    return LocalRows(*own, refs, tuple(J for J, _ in terms), z, rng.normal(size=N))


def blocks(rng, d):
    W = rng.normal(size=(N, d, d))
    return W + W.transpose(0, 2, 1)


@pytest.fixture(params=[2, 3])
def made(request):
    """(rows, [X, Z] written out [n, d, P], where each term is in it, W [n, d, d])."""
    d, rng = request.param, np.random.default_rng(request.param)
    first = part(rng, 2, (5, 1), (3, 2))
    parts = [first, part(rng, 3, (4, 1)), part(rng, 1, (5, 2), (2, 1))][:d]
    rows = PredictorRows.stacked_of(parts)
    X = [own.X for own in parts]
    Z = [own._Z for own in parts]
    sizes = [part.shape[1] for part in (*X, *Z)]
    A, ends = np.zeros((N, d, sum(sizes))), np.cumsum([0, *sizes])
    for i, own in enumerate((*X, *Z)):
        A[:, i % d, ends[i] : ends[i + 1]] = own
    widths = [J * z.shape[1] for J, z in zip(rows.levels, rows.z, strict=True)]
    places = ends[d] + np.cumsum([0, *widths])
    return (
        rows,
        A,
        [slice(*pair) for pair in pairwise(places)],
        blocks(rng, d),
    )


def test_cross_products_at_blocks_of_weights(made):
    rows, A, places, W = made
    at, p = BlockWeights(W), rows.p
    C = np.einsum("nap,nab,nbq->pq", A, W, A)
    np.testing.assert_allclose(rows.gram(at), C, atol=1e-10)
    xx, _, F = rows.fixed(at)
    np.testing.assert_allclose(xx, C[:p, :p], atol=1e-10)
    for k, (own, place) in enumerate(zip(rows.blocks(at), places, strict=True)):
        J, r, _ = own.shape
        np.testing.assert_allclose(F[k].reshape(J * r, p), C[place, :p], atol=1e-10)
        inside = C[place, place].reshape(J, r, J, r)[np.arange(J), :, np.arange(J)]
        np.testing.assert_allclose(own, inside, atol=1e-10)
        others = [j for j in range(len(places)) if j != k]
        wanted = np.concatenate([C[place, places[j]] for j in others], axis=1)
        np.testing.assert_allclose(rows.pairs(k, others, at).matrix.toarray(), wanted, atol=1e-10)
    bare = rows.without_fixed()
    np.testing.assert_allclose(bare.gram(at), C[p:, p:], atol=1e-10)
    assert bare.fixed(at)[0].shape == (0, 0)


def test_predictors_and_products(made):
    rows, A, places, W = made
    rng, p = np.random.default_rng(0), rows.p
    v = rng.normal(size=(A.shape[2], 3))
    effects = [v[s].reshape(J, -1, 3) for s, J in zip(places, rows.levels, strict=True)]
    coefs = Coefs(v[:p], tuple(effects))
    eta = np.einsum("nap,pc->nac", A, v).reshape(-1, 3) + rows.offset[:, None]
    np.testing.assert_allclose(rows.predictor(coefs), eta, atol=1e-12)
    found = rows.product(coefs, BlockWeights(W))
    flat = np.concatenate([found.beta, *(b.reshape(-1, 3) for b in found.effects)])
    np.testing.assert_allclose(flat, np.einsum("nap,nab,nbq->pq", A, W, A) @ v, atol=1e-9)
    order = rows.ordered()
    np.testing.assert_allclose(np.sort(order.predictor(coefs), axis=0), np.sort(eta, axis=0))


def test_heights_are_blocks_of_the_inverse(made):
    rows, A, places, _ = made
    p, P = rows.p, A.shape[2]
    root = np.random.default_rng(0).normal(size=(P, 2 * P))
    M = root @ root.T
    follow = -np.linalg.solve(M[:p, :p], M[:p, p:]).T

    class Inverse:
        fixed, eliminated = M[:p, :p], None
        rest = [(k, s.start - p) for k, s in enumerate(places)]
        remaining = M[p:, p:] + M[p:, :p] @ follow.T

        @staticmethod
        def slabs():
            return ()

    shapes = [(J, z.shape[1], p) for J, z in zip(rows.levels, rows.z, strict=True)]
    Inverse.follow = [
        follow[s.start - p : s.stop - p].reshape(shape)
        for s, shape in zip(places, shapes, strict=True)
    ]
    wanted = np.einsum("nap,pq,nbq->nab", A, M, A)
    np.testing.assert_allclose(rows.heights(Inverse), wanted, rtol=1e-9)


@pytest.mark.parametrize("d", [2, 3])
def test_rotations_take_blocks_apart(d):
    W = blocks(np.random.default_rng(0), d)
    W[0], W[1] = np.eye(d), np.diag(np.arange(d))
    T, D = rotations(W)
    np.testing.assert_allclose(np.einsum("nka,nk,nkb->nab", T, D, T), W, atol=1e-12)
    expected = np.full((N, d), 2.0)
    values = np.linalg.eigvalsh(raised(W, expected))
    assert values.min() >= 0.2 - 1e-12
    kept = np.linalg.eigvalsh(W).min(axis=1) > 0.2
    np.testing.assert_allclose(raised(W, expected)[kept], W[kept], atol=1e-12)


def test_weights_are_an_operator():
    W = blocks(np.random.default_rng(0), 2)
    a, at = np.random.default_rng(1).normal(size=(2 * N, 3)), BlockWeights(W)
    wanted = np.einsum("nab,nbc->nac", W, a.reshape(N, 2, 3)).reshape(-1, 3)
    np.testing.assert_allclose(at * a, wanted)
    np.testing.assert_allclose(a * (2.0 * at), 2 * wanted)
    np.testing.assert_allclose(at[4:10] * a[4:10], wanted[4:10])
    assert (at.astype(np.float32) * a.astype(np.float32)).dtype == np.float32
