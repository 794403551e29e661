"""The structure that later work builds on: bounds that it must not cross."""

import pytest

from sklmm import HMC, MixedEffectsRegressor
from tests import structure


def test_no_room_imports_one_that_imports_it():
    assert structure.mutual(structure.rooms()) == []
    assert structure.mutual({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [
        ("a", "b"),
        ("a", "c"),
        ("b", "c"),
    ]


def test_what_a_family_is_decides_and_not_its_name():
    assert len(list(structure.decisions())) <= 6


def test_equations_and_conjugate_gradients_are_one_each():
    found = structure.equations()
    assert len([own for _, own, base in found if base is None]) == 1
    assert {own for _, own, base in found if base} == {"Solution", "Whole"}
    assert len(structure.solvers()) == 1


def test_an_exact_fit_crosses_few_modules():
    X, y, _ = structure.table()
    assert len(structure.crossed(MixedEffectsRegressor(["g", "h"]), X, y)) <= 29


@pytest.mark.slow
def test_a_sampled_fit_crosses_few_modules():
    X, _, counts = structure.table()
    model = MixedEffectsRegressor(
        ["g", "h"], family="poisson", e_step=HMC(n_chains=4), max_iter=20, random_state=0
    )
    with pytest.warns(match="converge"):
        assert len(structure.crossed(model, X, counts)) <= 51
