"""`Relationship` as an object: what it takes and refuses, copies, files; and CAR's precision."""

import copy
import pickle

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.base import clone

from sklmm import MixedEffectsRegressor, RandomEffect, Relationship


def covariance(n=6, seed=0):
    """A labelled covariance."""
    root = np.random.default_rng(seed).normal(size=(n, n + 2))
    names = [f"l{i}" for i in range(n)]
    return pd.DataFrame(root @ root.T / n, names, names)


def lattice(side=5, rho=0.9):
    """The precision of a proper CAR on a lattice."""
    path = sparse.diags_array(np.ones(2), offsets=[-1, 1], shape=(side, side))
    one = sparse.eye_array(side)
    W = sparse.kron(path, one) + sparse.kron(one, path)
    return (sparse.diags_array(W.sum(axis=1)) - rho * W).tocsr()


def check(found, A, rtol=1e-8):
    """What a relationship does, beside dense matrices."""
    x = np.random.default_rng(1).normal(size=(len(A), 2))
    root = found.root(np.eye(len(A)))
    np.testing.assert_allclose(found.relate(x), A @ x, rtol=rtol)
    np.testing.assert_allclose(root @ root.T, np.linalg.inv(A), rtol=rtol, atol=1e-9)
    np.testing.assert_allclose(found.times(x), np.linalg.solve(A, x), rtol=rtol, atol=1e-9)
    np.testing.assert_allclose(found.back(found._B @ x), x, rtol=rtol)
    assert found.log_det == pytest.approx(-np.linalg.slogdet(A)[1])
    np.testing.assert_allclose(found.inbreeding + 1, A.diagonal(), rtol=rtol)


def test_three_ways_to_say_the_same():
    K = covariance()
    mixed = K.sample(frac=1, random_state=0)
    for found in (
        Relationship(K),
        Relationship(K.to_numpy(), K.index),
        Relationship(K / 2, kind="kinship"),
        Relationship(np.linalg.inv(K), labels=list(K.index), kind="precision"),
        Relationship(sparse.csr_array(np.linalg.inv(K)), list(K.index), "precision"),
    ):
        check(found, K.to_numpy())
        assert found.labels.tolist() == K.index.tolist()
    check(Relationship(mixed), mixed[mixed.index].to_numpy())


def test_a_sparse_precision_stays_sparse():
    Q = lattice(30)
    found = Relationship(Q, range(900), kind="precision")
    assert found._B.nnz < 20_000
    check(found, np.linalg.inv(Q.toarray()))


def test_a_large_precision_is_multiplied_in_parts(monkeypatch):
    monkeypatch.setattr("sklmm.relationships.relationship.LARGE", 50)
    found = Relationship(lattice(9), range(81), kind="precision")
    check(found, np.linalg.inv(lattice(9).toarray()))
    assert len(found._parts) == 4


def test_variances_of_many_levels_are_by_draws(monkeypatch):
    exact = Relationship(lattice(9), range(81), kind="precision").variances
    monkeypatch.setattr("sklmm.relationships.relationship.MOST_UNITS", 80)
    found = Relationship(lattice(9), range(81), kind="precision").variances
    np.testing.assert_allclose(found, exact, rtol=0.6)
    assert found.mean() == pytest.approx(exact.mean(), rel=0.05)


def test_what_is_refused():
    K = covariance()

    def changed(i, j, value):
        out = K.copy()
        out.iloc[i, j] = value
        return out

    with pytest.raises(ValueError, match="'l1' and 'l2' is nan: all must be finite"):
        Relationship(changed(1, 2, np.nan))
    with pytest.raises(ValueError, match=r"not symmetric, it has 9 of 'l1' and 'l2' and .* other"):
        Relationship(changed(1, 2, 9.0))
    with pytest.raises(ValueError, match=r"not positive definite, first at 'l2': .* blend"):
        Relationship(changed(2, 2, -1.0))
    with pytest.raises(ValueError, match="label 'l0' stands twice"):
        Relationship(K.set_axis(["l0", "l0", *K.index[2:]]))
    with pytest.raises(ValueError, match=r"'l0' is a label of rows or of columns alone"):
        Relationship(K.set_axis(range(6), axis=1))
    with pytest.raises(ValueError, match="label is missing"):
        Relationship(K.to_numpy(), [None, *K.index[1:]])
    with pytest.raises(ValueError, match="5 labels for a matrix of 6 rows"):
        Relationship(K.to_numpy(), K.index[1:])
    with pytest.raises(ValueError, match=r"shape \(6, 5\) is not square"):
        Relationship(K.to_numpy()[:, 1:], K.index)
    with pytest.raises(ValueError, match="give labels="):
        Relationship(K.to_numpy())
    with pytest.raises(ValueError, match="kind='A' is not known: use 'relationship', 'kinship'"):
        Relationship(K, kind="A")
    with pytest.raises(ValueError, match=r"not positive definite.*intrinsic .* D - rho W"):
        Relationship(lattice(5, rho=1.0), range(25), kind="precision")
    clones = np.block([[K, K], [K, K]])
    with pytest.raises(ValueError, match="such as a clone or a duplicate"):
        Relationship(clones, range(12))


def test_it_is_a_value():
    K = covariance()
    one, two = Relationship(K), Relationship(K)
    assert one == two
    assert hash(one) == hash(two)
    assert one != Relationship(K * 1.01)
    assert one != Relationship(K.to_numpy(), range(6))
    assert copy.deepcopy(one) is one
    with pytest.raises(AttributeError, match="cannot be changed"):
        one.labels = K.index
    with pytest.raises(ValueError, match="read-only"):
        one._data[0] = 1.0
    model = MixedEffectsRegressor([RandomEffect("g", covariance=one)])
    assert clone(model).random_effects[0].covariance is one


def test_it_is_saved_as_plain_arrays():
    found = Relationship(lattice(), range(25), kind="precision")
    found.relate(np.eye(25))
    state = found.__getstate__()
    assert set(state) == {"labels", "_data", "_indices", "_indptr", "_order", "_variances"}
    again = pickle.loads(pickle.dumps(found))
    assert again == found
    np.testing.assert_array_equal(again.relate(np.eye(25)), found.relate(np.eye(25)))
