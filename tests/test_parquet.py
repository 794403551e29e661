"""Gaussian models from Parquet files."""

import sys

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone

from sklmm import MixedEffectsRegressor
from sklmm._estimators import parquet
from tests.test_batches import assert_same, table


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


def test_paths_that_hold_nothing_or_columns(frame, model, tmp_path):
    with pytest.raises(FileNotFoundError, match="no file or folder"):
        model.fit_parquet(tmp_path / "none", y="rating")
    with pytest.raises(ValueError, match="has no files"):
        model.fit_parquet(tmp_path, y="rating")
    with pytest.raises(ValueError, match="is empty"):
        model.fit_parquet([], y="rating")
    inner = tmp_path / "year=2020"
    inner.mkdir()
    written(inner, frame)
    with pytest.raises(ValueError, match="'year=2020' stands for a column 'year'"):
        model.fit_parquet(tmp_path, y="rating")


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
