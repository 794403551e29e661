import numpy as np

from sklmm.engine.rows.nested import nested_groups


def found(*refs):
    return nested_groups([np.asarray(r, np.int32) for r in refs], [max(r) + 1 for r in refs])


def test_terms_are_listed_from_the_coarsest_on():
    outer, inner = [0, 0, 0, 1, 1, 1], [3, 0, 0, 1, 2, 2]
    assert found(inner, outer) == [[1], [0]]
    assert found(outer) == [[0]]
    # One partition, however its parts are numbered, and levels without rows.
    assert found([5, 0, 0, 1, 2, 2], outer, inner) == [[1], [0, 2]]


def test_crossed_terms_are_not_nested():
    assert found([0, 0, 1, 1], [0, 1, 0, 1]) is None
    # As many levels, but not the same.
    assert found([0, 0, 1, 1], [0, 1, 1, 1]) is None
    assert nested_groups([], []) is None
