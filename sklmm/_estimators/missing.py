"""Rows with missing values: an error that names them, or left out, and nan when predicted."""

from functools import wraps
from inspect import signature

import numpy as np
import pandas as pd
from scipy.sparse import issparse
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import check_is_fitted


def unknown_answers(y):
    """Rows of y, of any container, with a missing value: bool [n_rows]."""
    missing = np.asarray(pd.isna(np.asarray(y)))
    return missing if missing.ndim < 2 else missing.any(axis=1)


def incomplete(table, columns):
    """Rows of a table with a missing value in some of `columns`: bool [n_rows]."""
    if isinstance(table, pd.DataFrame):
        return table[[c for c in table if c in columns]].isna().any(axis=1).to_numpy()
    values = table[:, sorted(columns)]
    if issparse(values):
        values = values.tocoo()
        return np.bincount(values.row[np.isnan(values.data)], minlength=table.shape[0]) > 0
    return np.isnan(values).any(axis=1) if values.dtype.kind == "f" else np.zeros(len(table), bool)


def raise_unknown(y, missing, table):
    """ValueError with the number and the first of the rows of y that are `missing` [n_rows]."""
    row = int(np.argmax(missing))
    index = next((a.index for a in (y, table) if isinstance(a, pd.Series | pd.DataFrame)), None)
    label = "" if index is None or index[row] == row else f" (index {index[row]!r})"
    raise ValueError(
        f"Input y contains NaN: {missing.sum()} missing value(s), the first in row {row}{label}. "
        "Leave these rows out, or set missing='drop', which does."
    )


def take_rows(y, keep):
    """Rows of y, of any container, that a mask keeps."""
    return _safe_indexing(y, np.flatnonzero(keep))


def nan_where_missing(method):
    """A method of predictions, with nan for the rows that miss a value where missing="drop"."""
    arguments = signature(method)

    @wraps(method)
    def wrapped(self, X, *args, **kwargs):
        if self.missing != "drop":
            return method(self, X, *args, **kwargs)
        check_is_fitted(self)
        given = arguments.bind(self, X, *args, **kwargs).arguments
        table = self._validate_new(X, self._include(given.get("include_random", True)))
        keep = ~incomplete(table, self._spec.predictors)
        if keep.all():
            return method(self, X, *args, **kwargs)
        frame = pd.DataFrame.sparse.from_spmatrix(table) if issparse(table) else pd.DataFrame(table)
        found = method(self, frame[keep], *args, **kwargs)
        return (
            tuple(_spread(f, keep) for f in found)
            if isinstance(found, tuple)
            else _spread(found, keep)
        )

    return wrapped


def score_where_known(method):
    """A `score` of the rows that miss no value, where missing="drop"."""

    @wraps(method)
    def wrapped(self, X, y, sample_weight=None):
        if self.missing == "drop":
            check_is_fitted(self)
            keep = ~(unknown_answers(y) | incomplete(self._validate_new(X), self._spec.predictors))
            X, y = take_rows(X, keep), take_rows(y, keep)
            sample_weight = None if sample_weight is None else take_rows(sample_weight, keep)
        return method(self, X, y, sample_weight)

    return wrapped


def _spread(found, keep):
    """Rows of an array in their places among all; labels that have no nan become objects."""
    kind = found.dtype.kind
    dtype = found.dtype if kind == "f" else float if kind in "iu" else object
    out = np.full((len(keep), *found.shape[1:]), np.nan, dtype)
    out[keep] = found
    return out
