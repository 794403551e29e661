"""Indicators beside the arrays that they stand for."""

import numpy as np
import pandas as pd
import pytest

from sklmm.design.design import DesignSpec
from sklmm.design.indicators import Indicators, applied, quadratic
from sklmm.design.terms import resolve_terms
from sklmm.engine.rows.cross_products import cells

PLACES = np.array([2, 0, 1, 1, -1, 2])


@pytest.fixture(params=[False, True])
def pair(request):
    """Indicators of known columns, or with an unknown one and scaled, and the array."""
    places = PLACES if request.param else np.abs(PLACES)
    z, sizes = Indicators(places, 3), np.array([1.0, 2.0, 0.5])
    dense = (places[:, None] == np.arange(3)) * 1.0
    if request.param:
        z, dense = z.scaled(sizes), dense * sizes
    return z, dense


def test_they_are_taken_for_an_array(pair):
    z, dense = pair
    assert z.shape == dense.shape
    assert len(z) == len(dense)
    for found, expected in [
        (z, dense),
        (z[1:4], dense[1:4]),
        (z[PLACES > 0], dense[PLACES > 0]),
        (z[:, 1], dense[:, 1]),
        (z[2:, -1], dense[2:, -1]),
        (z[1:3, :, None], dense[1:3, :, None]),
        (z.T, dense.T),
        (z * 2, dense * 2),
        (z @ np.ones(3), dense @ np.ones(3)),
        (np.ones(6) @ z**2, np.ones(6) @ dense**2),
        (z.sums(np.arange(6.0)), np.arange(6.0) @ dense**2),
        (np.concatenate([z, dense], axis=1), np.concatenate([dense, dense], axis=1)),
        (Indicators.joined([z[:2], z[2:]]), dense),
    ]:
        np.testing.assert_array_equal(np.asarray(found), expected)
    assert isinstance(z[1:4], Indicators)


def test_a_factor_alone_has_a_place_a_row():
    """No array of as many columns as categories or times."""
    X = pd.DataFrame({"g": [0, 0, 1, 1], "t": [3.0, 5.0, 5.0, 3.0], "f": list("abba")})
    for term in ("ar1(0 + t | g)", "(0 + f | g)"):
        _, design = DesignSpec.learn(X, resolve_terms([term]), [], True)
        assert isinstance(design.blocks[0].z, Indicators)
        np.testing.assert_array_equal(design.blocks[0].z.places, [0, 1, 1, 0])


def test_products_by_level(pair):
    z, dense = pair
    rng, refs = np.random.default_rng(0), np.array([3, 1, 0, 3, 2, 2])
    b, V = rng.normal(size=(4, 3, 2)), rng.normal(size=(4, 3, 3))
    np.testing.assert_allclose(applied(refs, z, b), applied(refs, dense, b))
    np.testing.assert_allclose(applied(refs, z, b[:, :, 0]), applied(refs, dense, b[:, :, 0]))
    np.testing.assert_allclose(quadratic(z, V[0]), quadratic(dense, V[0]))
    np.testing.assert_allclose(quadratic(z, V, refs), quadratic(dense, V, refs))
    ((own, entries),) = cells(refs, z)
    np.testing.assert_array_equal(own // 3, refs)
    np.testing.assert_array_equal(entries[:, 0], dense.sum(axis=1))
    assert cells(refs, dense)[0][1] is dense
