"""Sums of parts of the rows, made by one head and joined: whole, in tiers, and in pieces."""

import pickle
from copy import copy
from functools import partial
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sklmm import Gaussian, MixedEffectsRegressor
from sklmm._estimators.accumulated import Accumulated, Joining, added, united
from sklmm.datasets import make_crossed
from sklmm.engine.rows.pair_sums import PairSums
from tests.test_batches import assert_same, parts, table


def accumulated(model, X, y, weights, rows):
    """The `Accumulated` of each part of the rows, by the head of the first, and sent."""
    found, head = [], None
    for own in rows:
        part, _ = model._part(head, X.iloc[own], y.iloc[own], weights[own], f"in part {len(found)}")
        found.append(pickle.loads(pickle.dumps(part)))
        head = pickle.loads(pickle.dumps(part.head))
    return found


def in_pieces(found, rng):
    """What `Accumulated.joined` makes, by pieces that several processes may make."""
    small, pairs = zip(*(part.apart() for part in found), strict=True)
    assert not any(part.statistics.pairs for part in small)
    growing, places = united(small)
    whole, sizes, joined = added(small, growing, places), growing.sizes(), []
    for own in zip(*pairs, strict=True):
        terms = own[0].terms
        at = [tuple(place[k] for k in terms) for place in places]
        J = tuple(sizes[k] for k in terms)
        ends = np.unique(np.r_[0, rng.integers(0, J[0] + 1, 3), J[0]]).tolist()
        ranges = [
            PairSums.added(
                [part.between(a, b, place, J) for part, place in zip(own, at, strict=True)]
            )
            for a, b in pairwise(ends)
        ]
        joined.append(PairSums.beside(pickle.loads(pickle.dumps(ranges))))
    return whole.with_pairs(joined)


def numbers(sums):
    """All arrays and numbers of some sums, in one order."""
    statistics = sums.statistics
    yield from (statistics.table, *statistics.own, *statistics.fixed, *statistics.counts)
    for pair in statistics.pairs:
        whole = pair.rows(0, pair.n_levels)
        yield from (whole.data, whole.indices, whole.indptr)
    yield from (sums.fingerprint.total, sums.fingerprint.fixed, *sums.fingerprint.levels)
    yield from (term.levels for term in sums.growing.spec.terms)
    yield np.array([sums.n_missing, statistics.n_rows, statistics.largest_y, statistics.squares])


@settings(max_examples=20, deadline=None, derandomize=True, database=None)
@given(
    seed=st.integers(0, 2**31),
    terms=st.sampled_from([["g"], ["g", "h"], ["(1 + x | g)", "h"], ["(1 | h/g)"]]),
    family=st.sampled_from([Gaussian(), Gaussian(weights="precision")]),
)
def test_parts_in_any_order_joined_and_in_pieces_are_the_fit(seed, terms, family):
    rng = np.random.default_rng(seed)
    X, y = table(rng, 80)
    weights = rng.integers(1, 4, 80)
    model = MixedEffectsRegressor(terms, family=family, fixed_effects=["x", "t"], random_state=0)
    whole = model.fit(X, y, weights)
    found = accumulated(model, X, y, weights, [own for own in parts(rng, 80) if len(own)])
    order = rng.permutation(len(found))
    found = [found[i] for i in order]
    joined = Accumulated.joined(found)
    for one, two in zip(numbers(joined), numbers(in_pieces(found, rng)), strict=True):
        np.testing.assert_array_equal(one, two)
    found = copy(model)
    found._solve(joined, lambda fitted: None, False)
    assert_same(found, whole, X)


def test_joining_a_few_at_a_time_is_joining_all(monkeypatch):
    monkeypatch.setattr("sklmm._estimators.accumulated.MANY", 3)
    X, y, _ = make_crossed(400, (20, 8), random_state=0)
    model, y = MixedEffectsRegressor(["g0", "g1"]), pd.Series(y)
    cuts = np.array_split(np.arange(400), 23)
    found, sums = accumulated(model, X, y, np.ones(400), cuts), Joining()
    for part in found:
        sums.add(part)
    for one, two in zip(numbers(sums.joined()), numbers(Accumulated.joined(found)), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-13, atol=1e-12)


def test_a_head_is_small_however_many_levels_there_are():
    X, y, _ = make_crossed(20_000, (5_000, 3_000), random_state=0)
    part, _ = MixedEffectsRegressor(["g0", "g1"])._part(None, X, y)
    assert len(pickle.dumps(part.head)) < 10_000
    assert len(pickle.dumps(part)) > 100_000


def test_what_differs_between_parts_is_told_with_both():
    X, y = table(np.random.default_rng(0), 60)
    model = MixedEffectsRegressor(["g", "h"], fixed_effects=["x"])
    first, _ = model._part(None, X[:30], y[:30], None, "in partition 0")
    read = partial(model._part, first.head, y=y[30:])
    with pytest.raises(TypeError, match=r"'g' .* of kind string, .* of kind integer.*partition 0:"):
        read(X[30:].assign(g="a"))
    one, two = (pd.CategoricalDtype(list(c), ordered=True) for c in ("pqrst", "tsrqp"))
    first, _ = model._part(None, X[:30].astype({"h": one}), y[:30], None, "in partition 0")
    with pytest.raises(ValueError, match=r"'h' .* 't' < .* in another order in partition 0, 'p' <"):
        model._part(first.head, X[30:].astype({"h": two}), y[30:])


def test_categories_that_all_declare_alike_keep_their_order_and_others_are_sorted():
    X, y = table(np.random.default_rng(0), 90)
    model = MixedEffectsRegressor(["h"], fixed_effects=["x"])
    rows = np.array_split(np.arange(90), 3)

    def levels(*dtypes):
        kinds = [X.iloc[own].astype({"h": d}) for own, d in zip(rows, dtypes, strict=True)]
        first, _ = model._part(None, kinds[0], y[rows[0]])
        found = [first, *(model._part(first.head, kinds[i], y[rows[i]])[0] for i in (1, 2))]
        return [
            Accumulated.joined(order).growing.spec.terms[0].levels.tolist()
            for order in (found, found[::-1], [found[1], found[2], found[0]])
        ]

    one, two = pd.CategoricalDtype(list("tsrqp")), pd.CategoricalDtype(list("rstpq"))
    assert levels(one, one, one) == [list("tsrqp")] * 3
    assert levels(one, two, one) == levels(one, "str", one) == [list("pqrst")] * 3
