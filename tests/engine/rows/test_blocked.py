"""Passes in blocks beside one block of all rows."""

import numpy as np
import pytest

from sklmm._threads import GROUPS
from sklmm.engine.likelihood.likelihood import Likelihood, evaluation
from sklmm.engine.rows import blocked
from sklmm.engine.rows.local import LocalRows
from sklmm.engine.rows.protocol import Coefs
from sklmm.families import Categorical, NegativeBinomial, Ordinal, Poisson

#: Of each term its levels and effects a level; "same" is over the first one's levels.
SHAPES = {
    "none": [],
    "one": [(40, 2)],
    "crossed": [(9, 1), (60, 1), (5, 2)],
    "two that are large": [(300, 1), (280, 1)],
    "same levels": [(50, 1), ("same", 2), (7, 1)],
    "few levels": [(3, 1), (2, 1)],
}
FAMILIES = {"counts": (NegativeBinomial(), 1), "classes": (Categorical(), 3)}
RAW = {"counts": [[0.3, -0.2, 0.1]], "classes": np.zeros((0, 3))}


def table(shapes, d=1, weighted=True, offset=True):
    rng = np.random.default_rng(0)
    n = 400
    refs, levels, z = [], [], []
    for J, r in shapes:
        refs.append(refs[0] if J == "same" else rng.integers(J, size=n).astype(np.int32))
        levels.append(levels[0] if J == "same" else J)
        z.append(np.ones((n, 1)) if r == 1 else rng.normal(size=(n, r)))
    rows = LocalRows(
        rng.integers(d + 1, size=n) + 0.0,
        rng.normal(size=(n, 3)),
        rng.integers(1, 4, n) + 0.0 if weighted else np.ones(n),
        tuple(refs),
        tuple(levels),
        tuple(z),
        rng.normal(size=n) if offset and d == 1 else None,
    )
    return rows if d == 1 else rows.stacked(d)


def coefs(rows, columns=3, dtype=float):
    rng = np.random.default_rng(1)
    shapes = [(J, z.shape[1], columns) for J, z in zip(rows.levels, rows.z, strict=True)]
    effects = tuple(rng.normal(size=s).astype(dtype) / 4 for s in shapes)
    return Coefs(rng.normal(size=(rows.p, columns)).astype(dtype) / 4, effects)


@pytest.fixture
def in_blocks(monkeypatch):
    """Blocks of 16 rows, where a level has no more than 64 of them."""

    def cut():
        monkeypatch.setattr(blocked, "BYTES", 0)
        monkeypatch.setattr(blocked, "WHOLE", 0)
        monkeypatch.setattr(blocked, "FEWEST", 16)

    return cut


def same(one, two, **tolerance):
    assert len(one) == len(two)
    for a, b in zip(one, two, strict=True):
        if isinstance(a, tuple):
            same(a, b, **tolerance)
        else:
            assert a.dtype == b.dtype
            np.testing.assert_allclose(a, b, **tolerance)


def answers(rows, likelihood, at, raw, dtype=float):
    raw = np.asarray(raw, dtype)
    found = [rows.scored(likelihood, at, raw), (rows.score(likelihood, at, raw),)]
    if raw.dtype.itemsize == 8:
        found += [
            rows.evaluate(likelihood, at, raw, "observed"),
            rows.slopes(likelihood, at, raw),
            (rows.predictor(at), rows.sums(rows.predictor(at)), rows.product(at)),
        ]
    return found


@pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("ordered", [True, False])
def test_blocks_have_the_sums_of_all_rows(family, shapes, ordered, in_blocks):
    kind, classes = FAMILIES[family]
    rows = table(shapes, kind.n_predictors(classes))
    rows = rows.ordered() if ordered else rows
    likelihood = evaluation(Likelihood.of(kind, classes))
    arguments = likelihood, coefs(rows), RAW[family]
    whole = answers(rows, *arguments)
    in_blocks()
    rows = rows.take(slice(None))
    found = answers(rows, *arguments)
    assert sum(map(len, rows._passes.blocks(3, float).groups)) > 10
    for one, two in zip(found, whole, strict=True):
        same(one, two, atol=1e-10)


def test_levels_of_the_largest_term_are_in_one_block_if_rows_are_ordered(in_blocks):
    in_blocks()
    rows = table(SHAPES["same levels"]).ordered()
    assert rows.ordered() is rows
    groups, own = rows._passes.blocks(3, float)
    assert own == [0, 1]
    assert table(SHAPES["two that are large"])._passes.blocks(3, float).own == []
    assert table(SHAPES["few levels"]).ordered()._passes.blocks(3, float).own == []
    assert len(groups) == GROUPS


@pytest.mark.parametrize("family", [Poisson(), Ordinal(), Categorical()])
def test_single_precision_follows_the_coefficients(family, in_blocks):
    in_blocks()
    d = family.n_predictors(3)
    rows = table(SHAPES["crossed"], d, weighted=False).ordered()
    like = Likelihood.of(family, 3)
    raw = np.full((len(like.names), 3), 0.2)
    exact = answers(rows, evaluation(like), coefs(rows), raw)[:2]
    found = answers(rows, evaluation(like), coefs(rows, dtype=np.float32), raw, np.float32)
    np.testing.assert_allclose(found[0][0], exact[0][0], rtol=1e-5)
    for one, two in zip((found[0][1], found[1][0]), (exact[0][1], exact[1][0]), strict=True):
        for a, b in zip((one.beta, *one.effects), (two.beta, *two.effects), strict=True):
            assert a.dtype == np.float32
            np.testing.assert_allclose(a, b, atol=2e-3)


def test_sums_are_the_same_for_any_number_of_threads(in_blocks, monkeypatch):
    in_blocks()
    rows = table(SHAPES["crossed"]).ordered()
    likelihood, found = evaluation(Likelihood.of(Poisson())), []
    for count in (1, 2):
        monkeypatch.setattr("sklmm._threads.n_threads", lambda count=count: count)
        found.append(answers(rows, likelihood, coefs(rows), np.zeros((0, 3))))
    for one, two in zip(*found, strict=True):
        same(one, two, rtol=0)


def test_held_coefficients_are_part_of_the_offset():
    rows = table(SHAPES["crossed"])
    beta = np.array([0.3, -0.2, 0.1])
    at = coefs(rows, 1)
    given = rows.held(beta).predictor(at._replace(beta=np.zeros((0, 1))))
    np.testing.assert_allclose(given, rows.predictor(at._replace(beta=beta[:, None])))


def test_totals_are_precise():
    rng = np.random.default_rng(0)
    rows = rng.normal(5, 1, (9001, 3)).astype(np.float32)
    w = rng.integers(1, 3, 9001).astype(np.float32)
    np.testing.assert_allclose(blocked.total(rows), rows.astype(float).sum(axis=0), rtol=1e-7)
    np.testing.assert_allclose(blocked.total(rows, w), w.astype(float) @ rows, rtol=1e-7)


@pytest.mark.parametrize("family", FAMILIES)
def test_information_in_blocks_is_that_of_all_rows(family, in_blocks):
    kind, classes = FAMILIES[family]
    rows = table(SHAPES["crossed"], kind.n_predictors(classes)).ordered()
    likelihood = evaluation(Likelihood.of(kind, classes))
    along = likelihood, coefs(rows), np.asarray(RAW[family]), coefs(rows, 6), coefs(rows, 2)
    whole = rows.information(*along)
    in_blocks()
    found = rows.take(slice(None)).information(*along)
    np.testing.assert_allclose(found, whole, rtol=1e-6, atol=1e-6 * abs(whole).max())
