"""Columns of a table, a DataFrame, an array or a sparse one, as numbers."""

import numpy as np
import pandas as pd
from scipy.sparse import csr_array, hstack, issparse

from sklmm._threads import each

#: Numbers between its inverse and this have squares, and squares of squares, in float64.
LARGEST = 1e70
#: Sparse columns, and numbers in them, up to which they are made dense; numbers, a gigabyte, up to
#: which they are where the engine needs a dense X.
SMALL_COLUMNS = 1000
SMALL_NUMBERS = 20_000_000
LARGEST_NUMBERS = 125_000_000
#: What helps where an array has no names for its columns.
UNNAMED = (
    "Of a transformer before the model, a ColumnTransformer for example, "
    '.set_output(transform="pandas") keeps names and types.'
)
#: Share of the rows beyond which a column of a sparse matrix is a dense one.
FULL = 0.25


def is_frame(table):
    """Whether a table has named columns."""
    return isinstance(table, pd.DataFrame)


def take(table, column):
    """One column, dense."""
    if issparse(table):
        return table[:, [column]].toarray().ravel()
    return table[column] if is_frame(table) else table[:, column]


def take_columns(table, columns):
    """A DataFrame of some columns, dense."""
    columns = list(columns)
    return table[columns] if is_frame(table) else pd.DataFrame({c: take(table, c) for c in columns})


def check_magnitude(what, largest):
    """Raise ValueError where a column's largest number has no square in float64."""
    if largest > LARGEST or 0 < largest < 1 / LARGEST:
        raise ValueError(
            f"{what} is of size {largest:.3g}, and squares of such numbers are out of floating "
            "point's range: change its unit."
        )


def numeric_columns(table, columns, role, ones=False):
    """Numeric columns as float64 [n_rows, n_columns], after one of ones if it is asked for.

    The error names the columns that are not. Each column is in one piece: the engine works on
    whole ones.
    """
    columns, first = list(columns), int(ones)
    values = np.empty((first + len(columns), table.shape[0]))
    if is_frame(table):
        numbers = (_numbers(table[column], role) for column in columns)
    else:
        dense = table[:, columns]
        numbers = (dense.toarray() if issparse(dense) else np.asarray(dense)).T
    finite = [_filled(out, own) for out, own in zip(values[first:], numbers, strict=True)]
    if ones:
        _filled(values[0], np.broadcast_to(1.0, table.shape[:1]))
    if not all(finite):
        raise_not_finite([c for c, ok in zip(columns, finite, strict=True) if not ok], role)
    return values.T


def _filled(out, numbers):
    """Whether numbers [n_rows] are all finite, once they are in `out`."""

    def some(rows):
        out[rows] = numbers[rows]
        return np.isfinite(out[rows]).all()

    return all(each(some, len(out)))


def _numbers(values, role):
    """A column of a frame as numbers [n_rows], NaN where it is missing."""
    dtype = values.dtype
    if isinstance(dtype, np.dtype) and dtype.kind in "biuf":
        return values.to_numpy()
    if pd.api.types.is_numeric_dtype(dtype) and dtype.kind != "c":
        return values.to_numpy(dtype=np.float64, na_value=np.nan)
    return _parsed(values, role)


def _parsed(values, role):
    """A column of objects or strings as float64 [n_rows], NaN where it is missing."""
    known, out = values.notna().to_numpy(), np.full(len(values), np.nan)
    try:
        if not pd.api.types.is_object_dtype(values) and not pd.api.types.is_string_dtype(values):
            raise TypeError(f"its type is {values.dtype}")
        objects = values.to_numpy(object)[known]
        out[known] = objects.astype(np.float64)
        if any(isinstance(v, str | bytes) for v in objects):
            raise ValueError("a string of digits: convert it, with astype(float)")
    except (TypeError, ValueError) as error:
        value = next(
            (v for v in values[known] if isinstance(v, str | bytes) or not reads_as_number(v)),
            values.dtype,
        )
        formula = ", or write a formula, fixed_effects='~ ...', which codes factors"
        formula = formula if role == "fixed-effects" else ""
        raise (TypeError if isinstance(error, TypeError) else ValueError)(
            f"The {role} column {values.name!r} holds {value!r}, which is not numeric ({error}): "
            "encode it (OneHotEncoder, in a Pipeline), or make it a grouping factor in "
            f"random_effects{formula}."
        ) from error
    return out


def sparse_columns(table, columns, role):
    """Numeric columns as a csr_array of float64 [n_rows, n_columns]."""
    columns = list(columns)
    if is_frame(table):
        mine = list(sparse_of(table, columns))
        others = np.setdiff1d(np.arange(len(columns)), mine).tolist()
        parts, places = [numeric_columns(table, [columns[i] for i in others], role)], [others]
        # By dtype: of bool and float pandas makes object.
        known = table.dtypes
        dtypes = [known[columns[i]] for i in mine]
        for dtype in dict.fromkeys(dtypes):
            same = [i for i, own in zip(mine, dtypes, strict=True) if own == dtype]
            parts.append(table[[columns[i] for i in same]].sparse.to_coo())
            places.append(same)
        values = hstack([csr_array(p, dtype=np.float64) for p in parts], "csr")
        order = np.argsort(np.concatenate(places))
        values = values if (np.diff(order) > 0).all() else values[:, order]
    else:
        values = table[:, columns] if len(columns) < table.shape[1] else table
    values = csr_array(values, dtype=np.float64)
    if not np.isfinite(values.data).all():
        bad = np.unique(values.indices[~np.isfinite(values.data)])
        raise_not_finite([columns[j] for j in bad[:10]], role)
    return values


def _is_sparse(dtype):
    return (
        isinstance(dtype, pd.SparseDtype)
        and dtype.fill_value == 0
        and pd.api.types.is_numeric_dtype(dtype)
    )


def sparse_of(table, columns):
    """Places of the sparse ones among `columns`."""
    if is_frame(table):
        dtypes = table.dtypes
        if not any(isinstance(dtype, pd.SparseDtype) for dtype in dtypes):
            return ()
        return tuple(i for i, c in enumerate(columns) if _is_sparse(dtypes[c]))
    return tuple(range(len(columns))) if issparse(table) else ()


def too_large(table, columns):
    """Whether dense columns would take more than a gigabyte, and sparse ones less."""
    return table.shape[0] * len(columns) > LARGEST_NUMBERS and bool(sparse_of(table, columns))


def few_entries(table, columns, places):
    """Those of `places` to keep sparse: a sparse matrix may hold a few columns full of numbers."""
    if is_frame(table) or not places:
        return places
    filled = np.bincount(table.tocsr().indices, minlength=table.shape[1])[list(columns)]
    full = filled > FULL * table.shape[0]
    if full.sum() * table.shape[0] > SMALL_NUMBERS:
        return places
    return tuple(np.flatnonzero(~full).tolist())


def keeps_sparse(n_rows, n_columns, allowed):
    """Whether sparse columns stay so; ValueError where they must, and are not `allowed` to."""
    numbers = max(n_rows, n_columns) * n_columns
    if n_columns <= SMALL_COLUMNS and numbers <= SMALL_NUMBERS:
        return False
    if not allowed and numbers > LARGEST_NUMBERS:
        raise ValueError(
            f"X has {n_columns} sparse columns in the fixed part, which would take "
            f"{8 * numbers / 1e9:.0f} GB as dense ones. They are kept sparse for family='gaussian' "
            "by REML (method='auto' or 'reml', with m_step='auto') alone: choose these, fewer "
            "columns, or make the factor behind them a grouping column in random_effects."
        )
    return allowed


def raise_not_finite(columns, role, what="NaN or infinity"):
    """Raise ValueError for cells without a number."""
    raise ValueError(
        f"Input X contains {what} in the {role} column(s) "
        f"{', '.join(map(repr, columns))}: impute them first, with a SimpleImputer in a "
        "Pipeline for example."
    )


def reads_as_number(value):
    """Whether a value, or what a string says, is a number."""
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True
