"""Parquet files as batches of rows: the columns that are read, some row groups at a time."""

from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

#: Rows up to which small row groups are read together, and large ones in parts.
ROWS = 1 << 20
#: Bytes of a column that are read at a time: else all of a row group's would be.
BUFFER = 1 << 20


class File(NamedTuple):
    """A Parquet file, and the columns {name: value} that its folders stand for, "year=2024"."""

    path: Path
    folders: dict


def parquet_files(path):
    """The `File`s of a path, a folder, or a list of them, sorted within a folder.

    ValueError where there are none.
    """
    if isinstance(path, list | tuple):
        if not path:
            raise ValueError("path: the list is empty.")
        return [file for one in path for file in parquet_files(one)]
    path = Path(path)
    if not path.is_dir():
        if not path.exists():
            raise FileNotFoundError(f"path: there is no file or folder {str(path)!r}.")
        return [File(path, {})]
    files, named = [], False
    for file in sorted(path.rglob("*.parquet")):
        parts = file.relative_to(path).parts
        if not file.is_dir() and not any(part.startswith(("_", ".")) for part in parts):
            files.append(file)
            named |= any("=" in part for part in parts[:-1])
    if not files:
        raise ValueError(f"path: the folder {str(path)!r} has no files *.parquet.")
    columns = _columns_of_folders(files, path) if named else [{}] * len(files)
    return list(map(File, files, columns))


def _columns_of_folders(files, base):
    """The columns that the folders of each file below `base` stand for, as pyarrow reads them.

    Values are whole numbers where those of all folders are, else text.
    """
    dataset = _pyarrow("dataset")
    with _naming(files[0]):
        found = dataset.dataset(
            list(map(str, files)),
            format="parquet",
            partitioning="hive",
            partition_base_dir=str(base),
        )
    keys = [dataset.get_partition_keys(own.partition_expression) for own in found.get_fragments()]
    for file, own in zip(files, keys, strict=True):
        if set(own) != set(keys[0]):
            raise ValueError(
                f"path: the folders of {files[0]} stand for the columns {sorted(keys[0])}, and "
                f"those of {file} for {sorted(own)}: fit files of one kind."
            )
    # From the outermost folder on.
    names = [name for name in found.schema.names if name in keys[0]]
    return [{name: own[name] for name in names} for own in keys]


def column_names(file):
    """Names of a file's columns and folders, but for an index that pandas has written."""
    with opened(file.path) as source:
        schema = source.schema_arrow
        index = (schema.pandas_metadata or {}).get("index_columns", [])
        names = [name for name in schema.names if name not in index]
        return [*names, *(name for name in file.folders if name not in schema.names)]


def row_groups(file, columns):
    """Yield (text that says which, pandas frame of the columns) of a file's rows in their order."""
    with opened(file.path) as source:
        known = source.schema_arrow.names
        folders = {name: value for name, value in file.folders.items() if name not in known}
        missing = [c for c in columns if c not in known and c not in folders]
        if missing:
            shown = [*known, *folders]
            raise ValueError(
                f"{file.path}: the column(s) {', '.join(map(repr, missing))} are not there: it has "
                f"{', '.join(map(repr, shown[:10]))}{', ...' * (len(shown) > 10)}."
            )
        own = [c for c in columns if c in known]
        metadata = source.metadata
        counts = [metadata.row_group(g).num_rows for g in range(source.num_row_groups)]
        for groups in _together(counts):
            text = f"{file.path}, row group {groups[0]}"
            if len(groups) > 1:
                text = f"{file.path}, row groups {groups[0]} to {groups[-1]}"
            for frame in _frames(source, groups, own, sum(counts[g] for g in groups), text):
                for name in columns:
                    if name in folders:
                        frame[name] = _repeated(folders[name], len(frame))
                yield text, frame


def _frames(source, groups, columns, n_rows, text):
    """Pandas frames of some row groups, of at most about `ROWS` rows."""
    with _naming(text):
        if n_rows <= ROWS:
            tables = iter([source.read_row_groups(groups, columns)])
        else:
            tables = source.iter_batches(ROWS, groups, columns)
    while True:
        with _naming(text):
            if (table := next(tables, None)) is None:
                return
            # Else integers beside missing ones would become floats, which merge large ones.
            frame = table.to_pandas(integer_object_nulls=True, ignore_metadata=True)
            if not columns:
                frame.index = pd.RangeIndex(table.num_rows)
        yield frame


def _repeated(value, n):
    """A column of one value."""
    if isinstance(value, str):
        return pd.Categorical.from_codes(np.zeros(n, np.int8), [value])
    return np.full(n, value)


def opened(path):
    """A Parquet file, to be read in parts; ImportError without pyarrow."""
    parquet = _pyarrow("parquet")
    with _naming(path):
        return parquet.ParquetFile(path, buffer_size=BUFFER)


def _pyarrow(module):
    """One of pyarrow's modules; ImportError that tells what to do without it."""
    try:
        return import_module(f"pyarrow.{module}")
    except ImportError as error:
        raise ImportError(
            "fit_parquet needs pyarrow: pip install 'sklmm[parquet]', or give tables to "
            "fit_batches."
        ) from error


@contextmanager
def _naming(which):
    """Put the file, or its row groups, before pyarrow's errors, which do not have it."""
    try:
        yield
    except (OSError, ValueError, NotImplementedError) as error:
        if str(which) in str(error):
            raise
        raise ValueError(f"{which}: it cannot be read: {error}") from error


def _together(counts):
    """Lists of neighbouring row groups, of at most `ROWS` rows where they are more than one."""
    groups, rows = [], 0
    for g, n in enumerate(counts):
        if groups and rows + n > ROWS:
            yield groups
            groups, rows = [], 0
        groups, rows = [*groups, g], rows + n
    if groups:
        yield groups
