"""Henderson's inverse beside the tabular method, and what a pedigree must not be."""

import time

import numpy as np
import pandas as pd
import pytest

from sklmm import Relationship


def tabular(sires, dams):
    """A by the tabular method, from places of the parents, all before their children, or -1."""
    n = len(sires)
    A = np.zeros((n, n))
    for i, (s, d) in enumerate(zip(sires, dams, strict=True)):
        half = np.zeros(i)
        for parent in (s, d):
            half += 0.5 * A[parent, :i] if parent >= 0 else 0.0
        A[i, :i] = A[:i, i] = half
        A[i, i] = 1 + (0.5 * A[s, d] if s >= 0 and d >= 0 else 0.0)
    return A


def random_pedigree(seed, n=60):
    """A DataFrame in the order of birth with selfing and unknown parents, and A."""
    rng = np.random.default_rng(seed)
    sires, dams = (np.array([rng.integers(-1, i) if i else -1 for i in range(n)]) for _ in "sd")
    frame = pd.DataFrame({"id": np.arange(1, n + 1), "sire": sires + 1, "dam": dams + 1})
    return frame, tabular(sires, dams)


@pytest.mark.parametrize("seed", range(4))
def test_as_by_the_tabular_method_in_any_order_of_rows(seed):
    frame, A = random_pedigree(seed)
    assert (frame["sire"] == frame["dam"])[frame["sire"] > 0].any()
    mixed = frame.sample(frac=1, random_state=seed)
    found = Relationship.from_pedigree(mixed)
    ours = found.to_frame().loc[frame["id"], frame["id"]].to_numpy()
    np.testing.assert_allclose(ours, A, atol=1e-12)
    np.testing.assert_allclose(found.inbreeding[frame["id"]], A.diagonal() - 1, atol=1e-12)
    places = found.labels.get_indexer(frame["id"])
    precision = found.matrix.toarray()[np.ix_(places, places)]
    np.testing.assert_allclose(precision, np.linalg.inv(A), atol=1e-9)
    assert found.log_det == pytest.approx(-np.linalg.slogdet(A)[1], abs=1e-10)


@pytest.mark.parametrize("deep", [0, 1000])
def test_deep_pedigrees_keep_relationships_in_place_of_shares(monkeypatch, deep):
    frame, A = random_pedigree(5, n=120)
    monkeypatch.setattr("sklmm.relationships.pedigree.DEEP", deep)
    found = Relationship.from_pedigree(frame)
    np.testing.assert_allclose(found.inbreeding[frame["id"]], A.diagonal() - 1, atol=1e-12)


def test_selfing_and_full_sibs():
    rows = [("c", "a", "b"), ("d", "a", "b"), ("e", "c", "d"), ("f", "e", "e"), ("g", "f", "f")]
    found = Relationship.from_pedigree(pd.DataFrame(rows, columns=["id", "sire", "dam"]))
    expected = {"a": 0, "b": 0, "c": 0, "d": 0, "e": 0.25, "f": 0.625, "g": 0.8125}
    assert found.inbreeding.to_dict() == pytest.approx(expected)


@pytest.mark.parametrize("unknown", [np.nan, None, 0, "", " ", "0", ".", "*", "NA", "nan"])
def test_ways_to_say_that_a_parent_is_unknown(unknown):
    rows = [("b", "a", unknown), ("a", unknown, unknown)]
    found = Relationship.from_pedigree(pd.DataFrame(rows, columns=["id", "sire", "dam"]))
    assert found.labels.tolist() == ["b", "a"]
    np.testing.assert_allclose(found.to_frame(), [[1, 0.5], [0.5, 1]])


def test_labels_are_those_of_the_table_where_missing_parents_make_floats_of_them():
    frame = pd.DataFrame({"kid": [3, 4], "father": [1, np.nan], "mother": [2.0, 3.0]})
    found = Relationship.from_pedigree(frame, id="kid", sire="father", dam="mother")
    assert found.labels.tolist() == [1, 2, 3, 4]
    assert found.labels.inferred_type == "integer"


def test_marks_of_unknown_parents_are_no_labels_of_numbers_either():
    frame = pd.DataFrame({"id": [1, 2, 3], "sire": [".", 1, 1], "dam": pd.Categorical([0, 0, 2])})
    assert Relationship.from_pedigree(frame).labels.tolist() == [1, 2, 3]


def test_blanks_around_a_label_are_none_of_it():
    frame = pd.DataFrame({"id": ["a", "b", "c "], "sire": ["", " ", "a"], "dam": ["", "", " b "]})
    found = Relationship.from_pedigree(frame)
    assert found.labels.tolist() == ["a", "b", "c"]
    np.testing.assert_allclose(found.to_frame().loc["c"], [0.5, 0.5, 1])


@pytest.mark.parametrize(
    ("sires", "message"),
    [
        (["0", "1", "1"], "'sire' has text, like '1', and 'id' numbers, like 1: labels"),
        ([".", "1", "1"], r"dtype=str\), or as numbers, with na_values=\['\.'\]"),
        (["?", 1, 1], "'sire' has numbers and text, like '[?]', and 'id' numbers"),
        (pd.to_datetime(["2020-01-01"] * 3), "'sire' has datetime, like .*, and 'id' numbers"),
    ],
)
def test_labels_of_two_kinds_are_an_error(sires, message):
    frame = pd.DataFrame({"id": [1, 2, 3], "sire": sires, "dam": 0})
    with pytest.raises(TypeError, match=message):
        Relationship.from_pedigree(frame)
    frame = pd.DataFrame({"id": [1, "a", 3], "sire": 0, "dam": 0})
    with pytest.raises(TypeError, match="'id' has numbers and text, like 1: labels"):
        Relationship.from_pedigree(frame)


def test_floats_that_became_text_are_an_error():
    frame = pd.DataFrame({"id": [1, 2, 3], "sire": [np.nan, 1, 1], "dam": [np.nan, np.nan, 2]})
    with pytest.raises(ValueError, match=r"'sire' has '1.0', which is not '1': .*'Int64'"):
        Relationship.from_pedigree(frame.astype(str))
    found = Relationship.from_pedigree(frame.astype("Int64").astype(str))
    assert found.labels.tolist() == ["1", "2", "3"]


def test_generations_of_selfing_end_where_parents_determine_their_children():
    """The variance within a family is 2^-g, and 60 of them are less than rounding."""
    frame = pd.DataFrame({"id": range(1, 31), "sire": range(30), "dam": range(30)})
    found = Relationship.from_pedigree(frame)
    np.testing.assert_allclose(found.log_det, 29 * 30 / 2 * np.log(2), rtol=1e-6)
    frame = pd.DataFrame({"id": range(1, 61), "sire": range(60), "dam": range(60)})
    with pytest.raises(ValueError, match=r"34 is determined by its parents.*leave out the rows"):
        Relationship.from_pedigree(frame)


def test_equal_rows_are_one_and_different_parents_an_error():
    frame = pd.DataFrame({"id": ["c", "c"], "sire": ["a", "a"], "dam": ["b", "b"]})
    assert Relationship.from_pedigree(frame).n_levels == 3
    frame.loc[1, "dam"] = "x"
    with pytest.raises(ValueError, match="'c' stands twice, with other parents"):
        Relationship.from_pedigree(frame)


@pytest.mark.parametrize("dam", [None, "a"])
def test_a_loop_is_named(dam):
    rows = [("a", "c", dam), ("b", "a", None), ("c", "b", "f"), ("d", "a", None)]
    if dam == "a":
        rows = [("a", "a", None), ("b", "a", None)]
    with pytest.raises(ValueError, match=r"'a' is its own ancestor \('a' <- "):
        Relationship.from_pedigree(pd.DataFrame(rows, columns=["id", "sire", "dam"]))


def test_what_is_no_pedigree():
    frame = pd.DataFrame({"id": ["a", None], "sire": None, "dam": None})
    with pytest.raises(ValueError, match="row 1 has no 'id'"):
        Relationship.from_pedigree(frame)
    with pytest.raises(ValueError, match="no column 'father' among 'id', 'sire', 'dam'"):
        Relationship.from_pedigree(frame, sire="father")
    with pytest.raises(TypeError, match="dict: give a DataFrame"):
        Relationship.from_pedigree({"id": ["a"]})


def test_twenty_thousand_animals_take_no_loop():
    rng = np.random.default_rng(0)
    n = 2000
    frames = [pd.DataFrame({"id": np.arange(1, n + 1), "sire": 0, "dam": 0})]
    for g in range(1, 10):
        before = frames[-1]["id"].to_numpy()
        parents = {"sire": rng.choice(before[:20], n), "dam": rng.choice(before, n)}
        frames.append(pd.DataFrame({"id": np.arange(g * n + 1, (g + 1) * n + 1), **parents}))
    begin = time.process_time()
    found = Relationship.from_pedigree(pd.concat(frames))
    assert time.process_time() - begin < 5
    # A few are selfed at once; of twenty sires a generation kin is met soon.
    F = found.inbreeding.to_numpy().reshape(10, n).mean(axis=1)
    assert F[0] == 0
    assert F[1] < 0.01 < 0.02 < F[-1] < 0.2
