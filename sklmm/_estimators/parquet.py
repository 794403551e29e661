"""Parquet files as batches of rows: the columns that are read, some row groups at a time."""

from pathlib import Path

#: Rows up to which small row groups are read together, and large ones in parts.
ROWS = 1 << 20


def parquet_files(path):
    """The Parquet files of a path, a folder, or a list of them, sorted within a folder.

    ValueError where there are none, and for folders that stand for a column.
    """
    if isinstance(path, list | tuple):
        if not path:
            raise ValueError("path: the list is empty.")
        return [file for one in path for file in parquet_files(one)]
    path = Path(path)
    if not path.is_dir():
        if not path.exists():
            raise FileNotFoundError(f"path: there is no file or folder {str(path)!r}.")
        return [path]
    files = []
    for file in sorted(path.rglob("*.parquet")):
        parts = file.relative_to(path).parts
        if any(part.startswith(("_", ".")) for part in parts):
            continue
        named = [part for part in parts[:-1] if "=" in part]
        if named:
            raise ValueError(
                f"path: the folder {named[0]!r} stands for a column {named[0].split('=')[0]!r}, "
                "which is not in the files: write that column into them."
            )
        files.append(file)
    if not files:
        raise ValueError(f"path: the folder {str(path)!r} has no files *.parquet.")
    return files


def opened(file):
    """A Parquet file, to be read in parts; ImportError without pyarrow."""
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise ImportError(
            "fit_parquet needs pyarrow: pip install 'sklmm[parquet]', or give tables to "
            "fit_batches."
        ) from error
    return ParquetFile(file)


def column_names(file):
    """Names of a file's columns, but for an index that pandas has written."""
    with opened(file) as source:
        schema = source.schema_arrow
        index = (schema.pandas_metadata or {}).get("index_columns", [])
        return [name for name in schema.names if name not in index]


def row_groups(file, columns):
    """Yield (text that says which, pandas frame of the columns) of a file's rows in their order."""
    with opened(file) as source:
        names = source.schema_arrow.names
        missing = [c for c in columns if c not in names]
        if missing:
            raise ValueError(
                f"{file}: the column(s) {', '.join(map(repr, missing))} are not there: it has "
                f"{', '.join(map(repr, names[:10]))}{', ...' * (len(names) > 10)}."
            )
        metadata = source.metadata
        counts = [metadata.row_group(g).num_rows for g in range(source.num_row_groups)]
        for groups in _together(counts):
            text = f"row group {groups[0]}"
            if len(groups) > 1:
                text = f"row groups {groups[0]} to {groups[-1]}"
            if sum(counts[g] for g in groups) <= ROWS:
                tables = [source.read_row_groups(groups, columns)]
            else:
                tables = source.iter_batches(ROWS, groups, columns)
            for table in tables:
                # Else integers beside missing ones would become floats, which merge large ones.
                frame = table.to_pandas(integer_object_nulls=True, ignore_metadata=True)
                yield f"{file}, {text}", frame


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
