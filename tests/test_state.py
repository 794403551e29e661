"""What is saved instead of pandas objects, and that it becomes the same objects again."""

from decimal import Decimal

import numpy as np
import pandas as pd
import pytest

from sklmm._state import KIND, packed, unpacked
from sklmm._tables import Table

DATES = pd.DatetimeIndex(["2020-01-31", "2020-03-01", "2020-02-29"], name="day")
INDEXES = [
    pd.RangeIndex(1, 9, 2, name="iteration"),
    pd.Index([3, 1, 2**62], name="id"),
    pd.Index([2**63 + 1], dtype="uint64"),
    pd.Index([1.5, np.nan]),
    pd.Index([True, False]),
    pd.Index(["b", "a"]),
    pd.Index(["b", None]),
    pd.Index(["b", "a"], dtype=object),
    pd.Index([], dtype=object),
    pd.Index([1, "a", (2, 3)], tupleize_cols=False),
    pd.Index(["b", "a"], dtype="string[python]"),
    pd.Index([2, None], dtype="Int64"),
    DATES,
    DATES.tz_localize("Europe/Paris").as_unit("s"),
    DATES - DATES[0],
    DATES.to_period("D"),
    pd.IntervalIndex.from_breaks([0.0, 1.0, 2.5], closed="left"),
    pd.CategoricalIndex(["b", "a"], ["b", "c", "a"], ordered=True),
    pd.MultiIndex.from_tuples([(1, "a"), (2, "b")], names=["x", None]),
]
if pd.StringDtype() == pd.StringDtype("pyarrow"):
    # Where strings are stored is the installation's to say: pandas 2 has them in Python.
    INDEXES.append(pd.Index(["b", "a"], dtype="string[pyarrow]"))


def is_plain(value):
    if isinstance(value, dict):
        return all(is_plain(part) for part in value.values())
    if isinstance(value, list | tuple):
        return all(is_plain(part) for part in value)
    return not type(value).__module__.startswith("pandas") or isinstance(value, pd.Period)


@pytest.mark.parametrize(
    "index", INDEXES, ids=lambda index: f"{type(index).__name__} {index.dtype}"
)
def test_an_index_is_the_same_again(index):
    state = packed({"levels": [index]})
    assert is_plain(state)
    assert KIND in state["levels"][0]
    (again,) = unpacked(state)["levels"]
    pd.testing.assert_index_equal(again, index, exact=True)


FRAMES = [
    pd.DataFrame({"a": [1.0, 2.0], "b": [3.0, np.nan]}, index=["x", "y"]),
    pd.DataFrame({"group": ["g", None], "sd": [1.0, np.nan], "n": [1, 2]}),
    pd.DataFrame([["u", 1.0], ["v", 2.0]], columns=["same", "same"]),
    pd.DataFrame({"a": []}),
    Table({"a": [1.0], "b": [2.0]}),
]


@pytest.mark.parametrize("frame", FRAMES, ids=["floats", "mixed", "twice", "empty", "shown whole"])
def test_tables_are_the_same_again(frame):
    assert is_plain(packed(frame))
    again = unpacked(packed(frame))
    pd.testing.assert_frame_equal(again, frame)
    assert type(again) is type(frame)
    column = frame.iloc[:, 0]
    pd.testing.assert_series_equal(unpacked(packed(column)), column)


def test_a_name_may_be_the_marker_itself():
    by_term = {KIND: FRAMES[0], "pandas": {KIND: "Index"}, "other": [{KIND: [1]}]}
    again = unpacked(packed(by_term))
    pd.testing.assert_frame_equal(again.pop(KIND), FRAMES[0])
    assert again == {"pandas": {KIND: "Index"}, "other": [{KIND: [1]}]}


def test_labels_of_a_type_without_a_name_are_objects():
    arrow = pytest.importorskip("pyarrow")
    index = pd.Index([Decimal("1.50"), None], dtype=pd.ArrowDtype(arrow.decimal128(10, 2)))
    pd.testing.assert_index_equal(unpacked(packed(index)), pd.Index([Decimal("1.50"), None]))
