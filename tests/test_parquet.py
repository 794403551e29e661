"""Gaussian models from Parquet files."""

import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.base import clone

from sklmm import MixedEffectsRegressor, RandomEffect
from sklmm._estimators import parquet
from tests.test_batches import RELATED, assert_same, table


@pytest.fixture(scope="module")
def frame():
    X, y = table(np.random.default_rng(0), 300)
    return X.assign(rating=y, times=np.arange(300) % 4)


@pytest.fixture
def model():
    return MixedEffectsRegressor(["g", "h"], random_state=0)


def written(folder, *frames, **options):
    for i, own in enumerate(frames):
        own.to_parquet(folder / f"part{i:02}.parquet", **options)
    return folder


def test_files_row_groups_and_weights_are_one_table(frame, model, tmp_path, monkeypatch):
    folder = written(tmp_path, frame[:110], frame[110:111], frame[111:], row_group_size=30)
    X = frame[["x", "t", "g", "h", "w"]]
    whole = clone(model).fit(X, frame["rating"], frame["times"])
    for rows in (1 << 20, 70, 7):
        monkeypatch.setattr(parquet, "ROWS", rows)
        found = clone(model).fit_parquet(folder, y="rating", sample_weight="times")
        assert_same(found, whole, X)
        assert found.feature_names_in_.tolist() == list(X)
    files = [str(file) for file in sorted(folder.glob("*.parquet"))]
    assert_same(clone(model).fit_parquet(files, "rating", "times"), whole, X)
    assert found._fitted.response_name == "rating"


def test_only_the_columns_that_are_read_are_read(frame, tmp_path):
    folder = written(tmp_path, frame.assign(note="text")[:200], frame[200:])
    model = MixedEffectsRegressor(["(1 + x | g)"], fixed_effects=["x"], offset="w")
    found = clone(model).fit_parquet(folder, y="rating")
    assert_same(found, clone(model).fit(frame, frame["rating"]), frame)
    formula = MixedEffectsRegressor.from_formula("rating ~ x * w + (1 | h)")
    assert_same(clone(formula).fit_parquet(folder), clone(formula).fit(frame), frame)


def test_factors_and_times_on_the_left_of_a_bar(frame, tmp_path):
    folder = written(tmp_path, frame[:150], frame[150:])
    for term in ("ar1(0 + times | g)", "cs(0 + h | g)", "(1 + h | g)", "(1 | mm(g, times))"):
        model = MixedEffectsRegressor.from_formula(f"rating ~ x + {term}")
        assert_same(clone(model).fit_parquet(folder), clone(model).fit(frame), frame)


def test_labels_that_a_relationship_lacks_are_told_with_their_file(frame, tmp_path):
    folder = written(tmp_path, frame[:150], frame[150:].assign(g=frame["g"][150:] + 3))
    term = RandomEffect("g", covariance=RELATED)
    model = MixedEffectsRegressor([term], fixed_effects=["x"], random_state=0)
    with pytest.raises(ValueError, match=r"^batch 1 .*part01.* not in its Relationship, like 11"):
        model.fit_parquet(folder, y="rating")
    found = clone(model).fit_parquet(folder / "part00.parquet", y="rating")
    assert_same(found, clone(model).fit(frame[:150], frame["rating"][:150]), frame)


def test_dictionaries_and_nullable_types_that_differ_between_files(frame, model, tmp_path):
    one, two = frame[:150].copy(), frame[150:].copy()
    one["h"] = one["h"].astype("category")
    two["h"] = two["h"].astype(pd.CategoricalDtype(list("tsrqp")))
    two["g"] = two["g"].astype("Int64")
    folder = written(tmp_path, one, two)
    X = frame[["x", "t", "g", "h", "w"]]
    found = clone(model).set_params(fixed_effects=["x", "t", "w"]).fit_parquet(folder, "rating")
    assert_same(found, clone(model).fit(X, frame["rating"]), X)


def test_what_is_wrong_is_told_with_its_file_and_row_group(frame, model, tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "ROWS", 50)
    bad = frame[150:].astype({"g": object})
    bad.loc[290, "g"] = None
    folder = written(tmp_path, frame[:150], bad, row_group_size=50)
    with pytest.raises(ValueError, match=r"batch 5 \(.*part01.*, row group 2\): .*'g' has 1 miss"):
        model.fit_parquet(folder, y="rating")
    written(tmp_path, frame[:150], frame[150:].astype({"g": str}))
    with pytest.raises(TypeError, match=r"batch 3 \(.*part01.*\): .*'g' .*kind string"):
        model.fit_parquet(folder, y="rating")
    written(tmp_path, frame[:150], frame[150:].drop(columns="x"))
    with pytest.raises(ValueError, match=r"part01.*: the column\(s\) 'x' are not there"):
        model.fit_parquet(folder, y="rating")
    assert not hasattr(model, "result_")


def test_paths_that_hold_nothing(frame, model, tmp_path):
    with pytest.raises(FileNotFoundError, match="no file or folder"):
        model.fit_parquet(tmp_path / "none", y="rating")
    with pytest.raises(ValueError, match="has no files"):
        model.fit_parquet(tmp_path, y="rating")
    with pytest.raises(ValueError, match="is empty"):
        model.fit_parquet([], y="rating")


def test_a_response_that_is_not_there_or_not_named(frame, model, tmp_path):
    folder = written(tmp_path, frame)
    with pytest.raises(ValueError, match=r"the column\(s\) 'stars' are not there"):
        model.fit_parquet(folder, y="stars")
    with pytest.raises(ValueError, match="y: name the column"):
        model.fit_parquet(folder)


def test_an_index_that_pandas_has_written_is_no_column(frame, model, tmp_path):
    shuffled = frame.drop(columns="times").sample(frac=1, random_state=0)
    found = model.fit_parquet(written(tmp_path, shuffled), y="rating")
    assert found.feature_names_in_.tolist() == ["x", "t", "g", "h", "w"]


def test_without_pyarrow_the_error_says_what_to_do(frame, model, tmp_path, monkeypatch):
    folder = written(tmp_path, frame)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ImportError, match=r"pip install 'sklmm\[parquet\]'"):
        model.fit_parquet(folder, y="rating")


def in_folders(tmp_path, frame, **columns):
    """The rows in folders by the values of columns, which are left out of the files."""
    for values, own in frame.groupby(list(columns)):
        parts = [f"{c}={v}" for c, v in zip(columns.values(), values, strict=True)]
        folder = tmp_path.joinpath(*parts)
        folder.mkdir(parents=True)
        written(folder, own.drop(columns=list(columns)))
    return tmp_path


def test_folders_that_stand_for_columns(frame, model, tmp_path):
    years = frame.assign(g=2015 + frame["g"])
    folder = in_folders(tmp_path / "one", years.drop(columns="times"), g="g", h="h")
    order = np.lexsort([years["h"], years["g"]])
    X, y = years[["x", "t", "w", "g", "h"]], years["rating"]
    found = clone(model).fit_parquet(folder, y="rating")
    assert_same(found, clone(model).fit(X.iloc[order], y.iloc[order]), X)
    assert found.random_effects_["g"].index.dtype.kind == "i"
    assert found.feature_names_in_.tolist() == ["x", "t", "w", "g", "h"]
    # As numbers of the fixed part too.
    trend = MixedEffectsRegressor(["(1 + g | h)"], fixed_effects=["g"], random_state=0)
    assert_same(clone(trend).fit_parquet(folder, "rating"), clone(trend).fit(X, y), X)


def test_folders_without_a_value_or_of_other_columns(frame, model, tmp_path):
    folder = in_folders(tmp_path / "one", frame.drop(columns="times"), g="g", h="h")
    (folder / "g=3").rename(folder / "g=__HIVE_DEFAULT_PARTITION__")
    with pytest.raises(ValueError, match=r"g=__HIVE.*: The grouping column 'g' has . missing"):
        model.fit_parquet(folder, "rating")
    found = clone(model).set_params(missing="drop").fit_parquet(folder, "rating")
    assert found._fitted.n_missing == (frame["g"] == 3).sum()
    written(folder / "g=2", frame)
    with pytest.raises(ValueError, match=r"stand for the columns \['g', 'h'\], and .* \['g'\]"):
        model.fit_parquet(folder, "rating")


def test_a_file_that_is_none_or_is_damaged(frame, model, tmp_path):
    folder = written(tmp_path, frame[:200], frame[200:], row_group_size=40)
    whole = (folder / "part01.parquet").read_bytes()
    (folder / "part01.parquet").write_bytes(b"text" + whole[4:300] + bytes(200) + whole[500:])
    with pytest.raises(ValueError, match=r"part01.parquet, row groups 0 to 2: it cannot be read"):
        model.fit_parquet(folder, y="rating")
    (folder / "part01.parquet").write_bytes(b"no Parquet file")
    with pytest.raises(ValueError, match=r"part01.parquet: it cannot be read"):
        model.fit_parquet(folder, y="rating")
    assert not hasattr(model, "result_")


def tables(folder, *own, **options):
    """Arrow tables as files."""
    for i, one in enumerate(own):
        pq.write_table(one, folder / f"part{i:02}.parquet", **options)
    return folder


def arrow(frame, **columns):
    """An Arrow table of a frame without pandas' metadata, with other columns in their place."""
    table = pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata()
    for name, values in columns.items():
        table = table.set_column(table.schema.get_field_index(name), name, values)
    return table


class TestTraps:
    """What differs between files: as in one table, or an error that names file and column."""

    @pytest.fixture
    def whole(self, frame, model):
        X = frame[["x", "t", "g", "h", "w"]]
        return clone(model).fit(X, frame["rating"]), X

    @pytest.fixture
    def halves(self, frame):
        frame = frame.drop(columns="times")
        return frame[:150], frame[150:]

    @pytest.mark.parametrize("options", [{}, {"use_dictionary": False}, {"row_group_size": 31}])
    def test_dictionaries_of_each_file_are_its_own(self, halves, whole, model, tmp_path, options):
        own = []
        for half, labels in zip(halves, ("tsrqp", "qrstpvw"), strict=True):
            codes = pa.array([labels.index(v) for v in half["h"]], pa.int8())
            own.append(arrow(half, h=pa.DictionaryArray.from_arrays(codes, list(labels))))
        found = model.fit_parquet(tables(tmp_path, *own, **options), "rating")
        assert_same(found, *whole)

    def test_orders_that_agree_and_that_do_not(self, halves, whole, model, tmp_path):
        def ordered(half, labels):
            codes = pa.array([labels.index(v) for v in half["h"]], pa.int8())
            values = pa.DictionaryArray.from_arrays(codes, list(labels), ordered=True)
            return arrow(half, h=values)

        one, two = halves
        found = clone(model).fit_parquet(
            tables(tmp_path, ordered(one, "tsrqp"), ordered(two, "tsrqp")), "rating"
        )
        assert found.random_effects_["h"].index.tolist() == list("tsrqp")
        tables(tmp_path, ordered(one, "tsrqp"), ordered(two, "pqrst"))
        with pytest.raises(
            ValueError,
            match=r"^batch 1 \(.*part01.parquet, row group 0\): .*'h' has the ordered categories "
            r"'p' < .* in batch 0 \(.*part00.parquet, row group 0\), 't' < .*declare one order",
        ):
            model.fit_parquet(tmp_path, "rating")

    def test_integer_categories(self, halves, whole, model, tmp_path):
        own = [half.assign(g=half["g"].astype("category")) for half in halves]
        assert_same(model.fit_parquet(written(tmp_path, *own), "rating"), *whole)

    @pytest.mark.parametrize("kind", ["int8", "uint64", "float32", "Int64", "Float64"])
    def test_types_of_numbers_that_drift(self, halves, whole, model, tmp_path, kind):
        one, two = halves
        for files in ((one, two.astype({"g": kind})), (one.astype({"g": kind}), two)):
            found = clone(model).fit_parquet(written(tmp_path, *files), "rating")
            assert_same(found, *whole)
            if kind != "float32":
                assert found.random_effects_["g"].index.dtype.kind in "if"

    @pytest.mark.parametrize("kind", ["large_string", "string_view", "dictionary"])
    def test_types_of_text_that_drift(self, halves, whole, model, tmp_path, kind):
        one, two = map(arrow, halves)
        other = two["h"].combine_chunks()
        if kind == "dictionary":
            other = other.dictionary_encode()
        elif not hasattr(pa, kind):
            pytest.skip("this pyarrow has no such type")
        else:
            other = other.cast(getattr(pa, kind)())
        files = tables(tmp_path, one, two.set_column(two.column_names.index("h"), "h", other))
        assert_same(model.fit_parquet(files, "rating"), *whole)

    def test_columns_in_another_order_and_more_of_them(self, halves, whole, model, tmp_path):
        one, two = halves
        two = two[two.columns[::-1]].assign(more="text")
        assert_same(model.fit_parquet(written(tmp_path, one, two), "rating"), *whole)

    def test_whole_numbers_that_are_missing(self, halves, whole, model, tmp_path):
        one, two = halves
        values = pa.array([None, *two["g"][1:]], pa.int64())
        tables(tmp_path, arrow(one), arrow(two, g=values))
        with pytest.raises(ValueError, match=r"^batch 1 \(.*part01.*\): .*'g' has 1 missing value"):
            model.fit_parquet(tmp_path, "rating")
        found = clone(model).set_params(missing="drop").fit_parquet(tmp_path, "rating")
        keep = np.arange(300) != 150
        X, y = whole[1][keep], pd.concat(halves)["rating"][keep]
        assert_same(found, clone(model).fit(X, y), X)
        assert found.random_effects_["g"].index.dtype.kind == "i"
        for name in ("x", "rating"):
            values = pa.array([None, *two[name].astype(int)[1:]], pa.int64())
            tables(tmp_path, arrow(one), arrow(two, **{name: values}))
            shown = "Input y" if name == "rating" else ".*'x'"
            with pytest.raises(ValueError, match=rf"^batch 1 \(.*part01.*\): {shown}"):
                clone(model).fit_parquet(tmp_path, "rating")

    def test_a_column_of_nothing_in_a_file_that_is_empty(self, halves, whole, model, tmp_path):
        one, two = halves
        none = one[:0].astype({"h": object}), one[:0].drop(columns="h").assign(h=None)
        for files in ((none[0], one, two), (one, none[1], two)):
            assert_same(clone(model).fit_parquet(written(tmp_path, *files), "rating"), *whole)

    def test_rows_of_weight_0_say_nothing(self, halves, whole, model, tmp_path):
        one, two = (half.assign(times=1.0) for half in halves)
        bad = one[:20].assign(times=0.0, g=None, x=np.nan, rating=np.nan)
        first = pd.concat([bad.astype({"g": float}), one.astype({"g": float})])
        for i, files in enumerate(((bad, one, two), (first, two))):
            folder = tmp_path / str(i)
            folder.mkdir()
            found = clone(model).fit_parquet(written(folder, *files), "rating", "times")
            assert_same(found, *whole)

    def test_an_index_in_some_files(self, halves, whole, model, tmp_path):
        one, two = halves
        files = one.set_index("g", append=True), two.sample(frac=1, random_state=0)
        found = clone(model).set_params(fixed_effects=["x", "t", "w"], random_effects=["h"])
        alone = clone(found).fit(whole[1], pd.concat(halves)["rating"])
        assert_same(found.fit_parquet(written(tmp_path, *files), "rating"), alone, whole[1])

    def test_kinds_that_are_not_compared_are_told_with_both_files(self, halves, model, tmp_path):
        one, two = halves
        written(tmp_path, one, two.assign(g=pd.to_datetime("2020-01-01")))
        with pytest.raises(
            TypeError,
            match=r"^batch 1 \(.*part01.*\): .*'g' .*of kind datetime, .*of kind integer, like 0, "
            r"in batch 0 \(.*part00.parquet, row group 0\): the two are not compared",
        ):
            model.fit_parquet(tmp_path, "rating")

    def test_times_in_other_units(self, halves, whole, model, tmp_path):
        def days(half, unit):
            values = np.datetime64("2020-01-01", unit) + half["g"].to_numpy().astype("m8[D]")
            return arrow(half, g=pa.array(values.astype(f"M8[{unit}]")))

        one, two = halves
        files = tables(tmp_path, days(one, "ns"), days(two, "us"))
        found = model.fit_parquet(files, "rating")
        assert found.variance_components_["sd"].to_numpy() == pytest.approx(
            whole[0].variance_components_["sd"].to_numpy(), rel=1e-9
        )
        assert len(found.random_effects_["g"]) == len(whole[0].random_effects_["g"])

    def test_the_first_of_two_errors_is_told(self, halves, model, tmp_path):
        one, two = halves
        bad = [two.assign(g=None), two.assign(g=str(1)), two.assign(x=np.nan)]
        written(tmp_path, one, one, *bad)
        (tmp_path / "part05.parquet").write_bytes(b"no Parquet file")
        for _ in range(3):
            with pytest.raises(ValueError, match=r"^batch 2 \(.*part02"):
                model.fit_parquet(tmp_path, "rating")
