"""Labels of every kind at the fit and at predict: the same level, or an error that names both."""

import functools
import importlib.util
import itertools
import re
import uuid
import warnings
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import polars
import pytest

from sklmm import MixedEffectsEncoder, MixedEffectsRegressor
from sklmm.design.design import DesignSpec
from sklmm.design.terms import RandomEffect

GUIDE = Path(__file__).parents[2] / "docs/guide/prediction.md"
N = 40
CODES = np.random.default_rng(5).permutation(np.arange(N) % 4)
X1 = np.random.default_rng(6).normal(size=N)
Y = np.array([2.0, -1.0, 0.5, 3.0])[CODES] + X1 + np.random.default_rng(7).normal(0, 0.3, N)
DAYS = pd.date_range("2020-01-01", periods=4)

#: Labels of codes 0 to 3 by the kinds of the guide's table.
KINDS = {
    "integer": lambda c: c,
    "float": lambda c: c.astype(float),
    "decimal": lambda c: [Decimal(int(k)) for k in c],
    "boolean": lambda c: c % 2 == 1,
    "string": lambda c: c.astype(str),
    "bytes": lambda c: [b"%d" % k for k in c],
    "date": lambda c: [DAYS[k].date() for k in c],
    "datetime": lambda c: DAYS[c],
    "with a zone": lambda c: DAYS.tz_localize("UTC")[c],
    "timedelta": lambda c: pd.to_timedelta(c, unit="D"),
    "period": lambda c: pd.PeriodIndex.from_ordinals(c, freq="M"),
    "interval": lambda c: pd.IntervalIndex.from_arrays(c, c + 1),
}


def guide():
    """Cells of the guide's table of labels by their row and column."""
    table = GUIDE.read_text().partition("\n| at fit")[2].partition("\n\n")[0]
    rows = [
        [cell.strip() for cell in line.strip("| ").split("|")]
        for line in table.splitlines()
        if not line.startswith("|-")
    ]
    head, *body = rows
    return {
        (row[0], kind): cell for row in body for kind, cell in zip(head[1:], row[1:], strict=True)
    }


CELLS = guide()


def table(labels):
    return pd.DataFrame({"g": labels, "x": X1})


@functools.cache
def fitted(kind, n_levels):
    return MixedEffectsRegressor(["g"]).fit(table(KINDS[kind](CODES % n_levels)), Y)


def assert_same(kind, n_levels, labels):
    model = fitted(kind, n_levels)
    expected = model.predict(table(KINDS[kind](CODES % n_levels)))
    np.testing.assert_array_equal(model.predict(table(labels)), expected)


def assert_refused(kind, n_levels, labels):
    model = fitted(kind, n_levels)
    with pytest.raises(TypeError, match=r"grouping column 'g' has labels, like .* of kind .*") as e:
        model.predict(table(labels))
    assert re.search(r"of kind (.*), and had labels of kind (?!\1,)", str(e.value))
    assert "Convert the column" in str(e.value)


def test_the_guide_has_every_kind():
    assert set(CELLS) == set(itertools.product(KINDS, repeat=2))


@pytest.mark.parametrize(("fit", "predict"), CELLS, ids=str)
def test_two_kinds_are_compared_as_the_guide_says(fit, predict):
    cell, words = CELLS[fit, predict], np.array(["False", "True"])
    n_levels = 2 if fit == "boolean" else 4
    match cell:
        case "=":
            assert_same(fit, n_levels, KINDS[predict](CODES % n_levels))
        case "error":
            assert_refused(fit, n_levels, KINDS[predict](CODES))
        case "0, 1":
            assert_same(fit, 2, KINDS[predict](CODES % 2))
            other = fit if predict == "boolean" else "boolean"
            assert_refused(other, 2 if other == "boolean" else 4, KINDS[predict](CODES))
        case "True, False" if fit == "boolean":
            assert_same(fit, 2, words[CODES % 2])
            assert_refused(fit, 2, np.char.add("so ", words)[CODES % 2])
        case "True, False":
            model = MixedEffectsRegressor(["g"]).fit(table(words[CODES % 2]), Y)
            np.testing.assert_array_equal(
                model.predict(table(CODES % 2 == 1)), model.predict(table(words[CODES % 2]))
            )
            assert_refused("string", 4, KINDS[predict](CODES))


def as_strings(codes):
    return np.array([f"level {c}" for c in codes], dtype=object)


def arrow(codes):
    import pyarrow as pa

    return pd.arrays.ArrowExtensionArray(pa.array(as_strings(codes)).dictionary_encode())


ENUM = polars.Enum(as_strings(range(4)))
#: Ways to store labels of one kind, from codes.
STORED = {
    "integers": {
        "int8": lambda c: c.astype("int8"),
        "uint64": lambda c: c.astype("uint64"),
        "Int64": lambda c: pd.array(c, dtype="Int64"),
        "object": lambda c: c.astype(object),
        "category": lambda c: pd.Categorical(c, categories=[3, 2, 1, 0, 9]),
        "sparse": lambda c: pd.arrays.SparseArray(c),
        "arrow": lambda c: pd.array(c, dtype="int64[pyarrow]"),
        "float32": lambda c: c.astype("float32"),
        "half": lambda c: c.astype("float16"),
    },
    "beyond 2^53": {
        "int64": lambda c: c + 2**60,
        "uint64": lambda c: (c + 2**60).astype("uint64"),
        "Int64": lambda c: pd.array(c + 2**60, dtype="Int64"),
        "object": lambda c: [int(k) + 2**60 for k in c],
        "arrow": lambda c: pd.array(c + 2**60, dtype="int64[pyarrow]"),
    },
    "strings": {
        "object": as_strings,
        "str": lambda c: as_strings(c).astype(str),
        "string": lambda c: pd.array(as_strings(c), dtype="string"),
        "arrow": lambda c: pd.array(as_strings(c), dtype="string[pyarrow]"),
        "category": lambda c: pd.Categorical(as_strings(c)),
        "ordered": lambda c: pd.Categorical(
            as_strings(c), as_strings(range(9))[::-1], ordered=True
        ),
        "arrow dictionary": arrow,
        "polars": lambda c: polars.Series(as_strings(c)),
        "polars category": lambda c: polars.Series(as_strings(c), dtype=polars.Categorical),
        "polars enum": lambda c: polars.Series(
            as_strings(c), dtype=polars.Enum(as_strings(range(4)))
        ),
    },
    "times": {
        "ns": lambda c: DAYS.as_unit("ns")[c],
        "s": lambda c: DAYS.as_unit("s")[c],
        "object": lambda c: pd.Series(DAYS[c]).astype(object),
        "datetime": lambda c: pd.Series([DAYS[k].to_pydatetime() for k in c], dtype=object),
        "arrow": lambda c: pd.Series(DAYS[c]).astype("timestamp[ns][pyarrow]"),
        "polars": lambda c: polars.Series(DAYS[c].to_pydatetime().tolist()),
    },
    "times of a zone": {
        "UTC": lambda c: DAYS.tz_localize("UTC")[c],
        "Tokyo": lambda c: DAYS.tz_localize("UTC").tz_convert("Asia/Tokyo")[c],
        "polars": lambda c: polars.Series(DAYS[c].to_pydatetime().tolist()).dt.replace_time_zone(
            "UTC"
        ),
    },
    "dates": {
        "object": lambda c: [DAYS[k].date() for k in c],
        "arrow": lambda c: pd.Series([DAYS[k].date() for k in c], dtype="date32[day][pyarrow]"),
        "polars": lambda c: polars.Series([DAYS[k].date() for k in c]),
    },
    "intervals": {
        "cut": lambda c: pd.cut(c, [-1, 0, 1, 2, 3]),
        "object": lambda c: pd.Series(pd.cut(c, [-1, 0, 1, 2, 3])).astype(object),
        "overlapping": lambda c: pd.IntervalIndex.from_arrays(c - 1.0, c),
    },
    "decimals": {
        "object": lambda c: [Decimal(f"{k}.25") for k in c],
        "polars": lambda c: polars.Series([Decimal(f"{k}.25") for k in c]),
    },
    "fractions": {
        "float64": lambda c: c / 10,
        "float32": lambda c: (c / 10).astype("float32"),
        "Float64": lambda c: pd.array(c / 10, dtype="Float64"),
    },
    "truth": {
        "bool": lambda c: c > 1,
        "boolean": lambda c: pd.array(c > 1, dtype="boolean"),
        "object": lambda c: (c > 1).astype(object),
        "words": lambda c: np.where(c > 1, "true", "false"),
    },
    "UUIDs": {"object": lambda c: [uuid.UUID(int=int(k)) for k in c]},
}
SAME = [
    (kind, a, b)
    for kind, ways in STORED.items()
    for a, b in itertools.product(ways, repeat=2)
    if importlib.util.find_spec("pyarrow") or "arrow" not in a + b
]


def contained(labels):
    from sklmm._estimators.input import as_pandas

    if isinstance(labels, polars.Series):
        return as_pandas(polars.DataFrame({"g": labels, "h": CODES}))
    return pd.DataFrame({"g": labels, "h": CODES})


@functools.cache
def learnt(kind, way, group):
    return DesignSpec.learn(contained(STORED[kind][way](CODES)), [RandomEffect(group)], [], True)


@pytest.mark.parametrize(("kind", "fit", "predict"), SAME, ids=str)
def test_how_a_table_stores_a_label_does_not_matter(kind, fit, predict):
    for group in ("g", ("h", "g")):
        spec, design = learnt(kind, fit, group)
        other = contained(STORED[kind][predict](CODES))
        np.testing.assert_array_equal(spec.apply(other).blocks[0].refs, design.blocks[0].refs)
        assert all(type(k) is str for k in spec.terms[0].kinds)


def test_a_new_label_of_the_kind_is_a_new_level():
    model = fitted("integer", 4)
    new = pd.DataFrame({"g": pd.array([1.0, 7.0, 0.5, None], dtype=object), "x": 0.0})
    population = model.predict(new, include_random=False)
    assert (model.predict(new) == population).tolist() == [False, True, True, True]


def test_floats_that_merge_whole_numbers_are_not_levels():
    ids = 864691135341199281 + 3 * CODES
    X = table(ids)
    model = MixedEffectsRegressor(["g"]).fit(X, Y)
    with pytest.raises(ValueError, match=r"'g' holds 8.6\d*e\+17: float64 .* 'Int64' or as string"):
        MixedEffectsRegressor(["g"]).fit(table(ids.astype(float)), Y)
    for labels, known in (
        ([*ids[:3], None], False),
        (pd.array([*ids[:3], None], dtype="Int64"), True),
        (pd.array([*ids[:3], None], dtype=object), True),
    ):
        new = pd.DataFrame({"g": labels, "x": 0.0})
        population = model.predict(new, include_random=False)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = model.predict(new)
        assert [str(w.message)[:27] for w in caught] == ["The grouping column 'g' hol"] * (
            not known
        )
        assert (found != population).tolist() == [known] * 3 + [False]
    with pytest.raises(ValueError, match="'g' holds"):
        model.update(X[:1].astype(float), Y[:1])


@pytest.mark.parametrize(
    ("labels", "match"),
    [
        ([1, "1"], "'g' holds labels of type int and str"),
        ([DAYS[0], DAYS[0].tz_localize("UTC")], "'g' holds labels of type datetime and datetime w"),
        ([DAYS[0].date(), DAYS[0].to_pydatetime()], "'g' holds labels of type date and datetime"),
        ([True, 1], "'g' holds labels of type bool and int"),
    ],
)
def test_a_column_of_two_kinds_is_refused(labels, match):
    mixed = table(pd.Series(labels * (N // 2), dtype=object))
    with pytest.raises(TypeError, match=match):
        MixedEffectsRegressor(["g"]).fit(mixed, Y)
    with pytest.raises(TypeError, match=match):
        fitted("integer", 4).predict(mixed)


@pytest.mark.parametrize("terms", [["(1 | h/g)"], [RandomEffect(("g", "h"))]], ids=["a/b", "a:b"])
def test_columns_of_an_interaction_are_read_each_by_its_kind(terms):
    X = table(CODES).assign(h=as_strings(np.arange(N) % 3))
    model = MixedEffectsRegressor(terms).fit(X, Y)
    expected = model.predict(X)
    np.testing.assert_array_equal(model.predict(X.astype({"g": float, "h": "category"})), expected)
    with pytest.raises(
        TypeError, match=r"grouping column 'g' has labels, like '\d', of kind string"
    ):
        model.predict(X.astype({"g": str}))
    with pytest.raises(TypeError, match="column 'h' has labels, like 0, of kind integer"):
        model.score(X.assign(h=np.arange(N) % 3), Y)


def test_update_takes_the_same_levels():
    X = table(CODES)
    model, twin = (MixedEffectsRegressor(["g"]).fit(X, Y) for _ in range(2))
    model.update(X[:5], Y[:5] + 1.0)
    twin.update(X[:5].astype({"g": float}), Y[:5] + 1.0)
    pd.testing.assert_frame_equal(twin.random_effects_["g"], model.random_effects_["g"])
    with pytest.raises(TypeError, match="grouping column 'g' has labels, like '9', of kind string"):
        twin.update(X[:1].assign(g="9"), Y[:1])


def test_an_encoder_takes_the_same_labels():
    X = pd.DataFrame({"g": CODES, "h": as_strings(np.arange(N) % 3)})
    encoder = MixedEffectsEncoder(target_type="continuous").fit(X, Y)
    expected = encoder.transform(X)
    assert np.ptp(expected[:, 0]) > 1
    other = X.astype({"g": float, "h": "category"})
    np.testing.assert_array_equal(encoder.transform(other), expected)
    for changed in (X.astype({"g": str}), X.assign(h=CODES)):
        with pytest.raises(TypeError, match=r"column '[gh]' of X has labels, like"):
            encoder.transform(changed)
