"""Partitions of Dask collections: X, y and weights of the same rows."""

import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest

from sklmm.dask.collections import check_collection, partitions


@pytest.fixture
def frame():
    rng = np.random.default_rng(0)
    columns = {f"z{i}": rng.normal(size=120) for i in range(20)}
    frame = pd.DataFrame({"g": rng.integers(0, 5, 120), "x": rng.normal(size=120), **columns})
    frame = frame.assign(y=rng.normal(size=120), w=rng.integers(0, 3, 120))
    return frame.set_index(rng.permutation(120))


@pytest.fixture
def files(frame, tmp_path):
    for i in range(12):
        frame[10 * i : 10 * i + 10].to_parquet(tmp_path / f"{i:02}.parquet")
    return tmp_path


def pieces(X, y=None, w=None):
    return dask.compute(*partitions(X, y, w, "token"), scheduler="sync")


def whole(parts, which):
    return pd.concat([part[which] for part in parts])


def test_columns_of_one_table_stay_together(files, frame):
    table = dd.read_parquet(files)
    # Dask reads several files of few columns as one partition.
    assert table["y"].optimize().npartitions < table.npartitions == 12
    parts = pieces(table[["x", "g"]], table["y"], table["w"] * 2)
    assert all(len(X) == len(y) == len(w) for X, y, w in parts)
    pd.testing.assert_frame_equal(whole(parts, 0), frame[["x", "g"]])
    pd.testing.assert_series_equal(whole(parts, 1), frame["y"])
    pd.testing.assert_series_equal(whole(parts, 2), 2 * frame["w"])


def test_tables_that_were_read_apart_keep_their_partitions(files, frame):
    table = dd.read_parquet(files)
    y = dd.from_pandas(frame["y"], npartitions=12, sort=False)
    parts = pieces(table[["x", "g"]], y)
    assert [len(X) for X, _, _ in parts] == [len(y) for _, y, _ in parts]
    pd.testing.assert_frame_equal(whole(parts, 0), frame[["x", "g"]])
    pd.testing.assert_series_equal(whole(parts, 1), frame["y"])


def test_frames_with_arrays_beside_them(frame):
    table = dd.from_pandas(frame, npartitions=4, sort=False)
    counts = da.from_array(frame[["w", "g"]].to_numpy(), chunks=(30, 1))
    parts = pieces(table[["x"]], counts)
    assert np.array_equal(np.concatenate([y for _, y, _ in parts]), frame[["w", "g"]])
    assert all(w is None for _, _, w in parts)


def test_arrays_in_blocks_of_rows(frame):
    values = frame[["x", "g"]].to_numpy()
    X, y = da.from_array(values, chunks=(50, 1)), da.from_array(frame["y"].to_numpy(), chunks=40)
    for answer in (y, y.rechunk(50), dd.from_pandas(frame["y"], chunksize=50, sort=False)):
        parts = pieces(X, answer)
        assert [len(X) for X, _, _ in parts] == [len(y) for _, y, _ in parts] == [50, 50, 20]
        assert np.array_equal(np.concatenate([X for X, _, _ in parts]), values)
        assert np.array_equal(np.concatenate([y for _, y, _ in parts]), frame["y"])


def test_other_numbers_of_partitions(files, frame):
    table = dd.read_parquet(files)
    kept = table["y"].persist(scheduler="sync")
    with pytest.raises(ValueError, match=r"y: it has \d partitions, and X has 12: take both from"):
        pieces(table[["x", "g"]], kept)
    blocks = da.from_array(frame[["x", "g"]].to_numpy(), chunks=(50, 2))
    with pytest.raises(ValueError, match="sample_weight: it has 5 partitions, and X has 3"):
        pieces(blocks, None, dd.from_pandas(frame["w"], npartitions=5, sort=False))


def test_what_is_no_dask_collection(frame):
    for own, name in ((frame, "pandas DataFrame"), (frame.to_numpy(), "numpy ndarray")):
        with pytest.raises(TypeError, match=rf"X: it is a {name}.*from_pandas.* use Local"):
            check_collection("X", own, "Local")
