"""Gaussian models whose pairs of levels are elsewhere, in ranges, beside the fit of all rows."""

from copy import copy
from itertools import pairwise

import numpy as np
import pytest
from scipy import sparse

from sklmm import Gaussian, MixedEffectsRegressor, RandomEffect
from sklmm._estimators.accumulated import Accumulated
from sklmm._estimators.owners import owned
from sklmm.engine.linalg.blocks import LocalPairs
from sklmm.engine.rows.parted_pairs import PartedPairs, PartedSums
from sklmm.engine.rows.protocol import Each
from tests.engine.rows.parts import Pickled
from tests.test_batches import RELATED, assert_same, parts, table

MODELS = {
    "crossed": {"random_effects": ["g", "h"]},
    "slopes": {"random_effects": ["(1 + x | g)", "(1 + t | h)"]},
    "precision": {"random_effects": ["(1 + x || g)", "h"], "family": Gaussian(weights="precision")},
    "three": {"random_effects": ["(1 + x | g)", "h", "k"], "offset": "w"},
    # The term of most effects is the last of the three in the order of the first part.
    "grows": {"random_effects": ["h", "(1 + x | k)", "g"], "method": "ml"},
    "nested": {"random_effects": ["(1 | h/g)"]},
    "twice": {"random_effects": ["(1 | g)", "(0 + x | g)", "h"]},
    "one": {"random_effects": ["g"]},
    "related": {"random_effects": [RandomEffect("g", covariance=RELATED), "h", "g"]},
    "memberships": {"random_effects": ["(1 | mm(g, k))", "(1 + x | h)", "g"]},
    "all related": {"random_effects": [RandomEffect("g", covariance=RELATED)]},
}


def rows(seed=0, n=400):
    """A table of which `k` has one level in the first rows, and more later."""
    rng = np.random.default_rng(seed)
    X, y = table(rng, n)
    k = np.where(np.arange(n) < n // 4, 0, rng.integers(0, 30, n))
    return X.assign(k=k), y + rng.normal(size=30)[k], 1.0 + rng.integers(0, 3, n)


def sums_of(model, pieces):
    """`Accumulated` of each part."""
    out, head = [], None
    for own in pieces:
        sums, _ = model._part(head, *own)
        if sums is not None:
            head = head or sums.head
            out.append(sums)
    return out


def solved(model, sums):
    model._solve(sums, None, False)
    return model


def model_of(name, e_step):
    known = {"fixed_effects": ["x", "t"], "e_step": e_step, "random_state": 0}
    return MixedEffectsRegressor(**MODELS[name], **known)


@pytest.mark.parametrize("e_step", ["exact", "cg"])
@pytest.mark.parametrize("name", MODELS)
def test_owners_of_ranges_give_the_fit_of_the_whole_table(name, e_step):
    X, y, weights = rows()
    whole = model_of(name, e_step).fit(X, y, weights)
    model = model_of(name, e_step)
    some = [np.arange(100), *(100 + own for own in parts(np.random.default_rng(1), 300, 4))]
    sums = sums_of(model, [(X.iloc[own], y.iloc[own], weights[own]) for own in some])
    gathered = copy(solved(model, Accumulated.joined(sums)))
    for n_owners in (1, 2, 5):
        found = owned(Pickled(), Each(sums), n_owners, sums[0].head)
        parted = [own for own in found.statistics.pairs if isinstance(own, PartedSums)]
        assert len(parted) == len(whole.result_.effects) - 1
        # A level of more rows than an owner's share takes the place of several.
        assert all(min(n_owners, 3) <= len(own.kept) <= n_owners for own in parted)
        solved(model, found)
        assert_same(model, whole, X)
        assert_same(model, gathered, X, 1e-9, 1e-12)


@pytest.mark.parametrize(("r", "q"), [(1, 1), (2, 3)])
def test_owners_answer_as_one_matrix(r, q):
    rng = np.random.default_rng(r)
    ends, Q = [0, 4, 5, 11], 6 * q
    full = np.where(rng.random((11 * r, Q)) < 0.4, rng.random((11 * r, Q)), 0.0)
    parts = [sparse.coo_array(full[a * r : b * r]) for a, b in pairwise(ends)]
    parts = [part.tocsr() for part in parts]
    one = LocalPairs(parts, r)
    many = PartedPairs(Pickled(), Each(LocalPairs([part], r) for part in parts), ends, r, Q)
    assert many.shape == one.shape
    np.testing.assert_array_equal(many.matrix.toarray(), one.matrix.toarray())
    blocks = rng.normal(size=(11, r, r))
    for c in (0, 1, 3):
        e, f = rng.normal(size=(11 * r, c)), rng.normal(size=(Q, c))
        for name, arguments in [
            ("down", [f]),
            ("up", [e]),
            ("around", [blocks, f]),
            ("squares", [e, f]),
        ]:
            found, known = (getattr(own, name)(*arguments) for own in (many, one))
            np.testing.assert_allclose(np.vstack(found), np.vstack(known), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(
        many.own(blocks, slice(q, 4 * q), q), one.own(blocks, slice(q, 4 * q), q)
    )
