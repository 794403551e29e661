"""Tables, responses and weights as the estimators take them: checked, and in a few known kinds."""

import re
from contextlib import contextmanager
from dataclasses import replace
from numbers import Real

import numpy as np
import pandas as pd
from scipy.sparse import issparse
from sklearn.base import BaseEstimator
from sklearn.utils import _safe_indexing, check_random_state
from sklearn.utils._dataframe import is_polars_df, is_pyarrow_data
from sklearn.utils.validation import assert_all_finite, check_consistent_length, validate_data

from sklmm.design.columns import take
from sklmm.design.formula import is_expression, response_columns, split_response
from sklmm.families.base import row_weights

#: Sum of weights beyond which adding 1 to a float64 changes nothing.
MOST_REPETITIONS = 2.0**53


class TableInput(BaseEstimator):
    """Methods of an estimator that check X, y and the weights of a fit."""

    def _take_response(self, X, y, fitting=False):
        """X without the formula's response, and y, which is that response where it is None."""
        given, (X, known) = X, self._without_response(X)
        response = self._formula_response()
        columns = [] if response is None else response_columns(response)
        if fitting and columns and not known and is_expression(response):
            raise ValueError(
                f"fixed_effects={self.fixed_effects!r}: the response {response!r} must be a "
                "column: add it to the table, X.assign(log_y=np.log(X['y'])) for example, or see "
                "scikit-learn's TransformedTargetRegressor. Two columns of counts are "
                "cbind(successes, failures), and a name with such signs stands in backquotes."
            )
        if y is None and len(known) < len(columns):
            raise ValueError(
                f"fixed_effects={self.fixed_effects!r}: the response {response!r} is not a column "
                "of X: give y."
            )
        if y is None and columns:
            # As it was given: an Enum of polars' has an order, which pandas' column has not.
            y = as_pandas(given)[columns] if len(columns) > 1 else given[columns[0]]
        return X, y

    def _without_response(self, X):
        """(X without the columns of the formula's response, the names of those that it had)."""
        X, response = as_pandas(X), self._formula_response()
        if response is None or not isinstance(X, pd.DataFrame):
            return X, []
        known = [c for c in response_columns(response) if c in X.columns]
        return (X.drop(columns=known) if known else X), known

    def _formula_response(self):
        formula = self.fixed_effects
        return split_response(formula)[0] if isinstance(formula, str) else None

    def _known_rows(self, table, y, sample_weight, needed, some=True):
        """(table, y, weights, rows left out) of the rows that count and miss no value.

        Rows of weight 0 say nothing, not even that something is missing. `needed` gives what
        no row may miss, as `DesignSpec.needed` does. There must be `some` rows.
        """
        keep, weights, n_missing = self._counted(table, y, sample_weight, needed, some)
        if not keep.all():
            table, y = take_rows(table, keep), take_rows(y, keep)
            weights = row_weights(None if sample_weight is None else weights[keep], int(keep.sum()))
        return table, y, weights, n_missing

    def _counted(self, table, y, sample_weight, needed, some=True):
        """(which rows `_known_rows` keeps, weights of all, how many miss a value)."""
        if y is None:
            raise ValueError("This estimator requires y to be passed, but the target y is None.")
        with naming("y"):
            check_consistent_length(table, y)
        weights = check_weights(sample_weight, table.shape[0], some)
        keep = weights > 0
        missing = keep & self._unknown(y)
        if missing.any() and self.missing == "error":
            raise_unknown(y, missing, table)
        if self.missing == "drop":
            missing |= keep & incomplete(table, *needed())
            keep &= ~missing
            if some and not keep.any():
                raise ValueError("missing='drop': every row misses a value, so none is left.")
        return keep, weights, int(missing.sum())

    def _unknown(self, y):
        """Which rows of y are missing, bool [n_rows]."""
        return unknown_answers(y)

    def _validate_target(self, table, y):
        """y, checked, with one value a row, or two columns of counts."""
        with naming("y"):
            y = self._check_target(y)
            check_consistent_length(table, y)
        return y

    def _validate_table(self, X, reset, fitting=False):
        """X as a DataFrame with named columns, or by position: an array of numbers or a DataFrame.

        Numbers and labels are checked column by column, by `sklmm.design`. A batch of a fit may
        miss values that the model does not read.
        """
        if isinstance(X, pd.DataFrame):
            with naming("X"):
                validate_data(self, X, skip_check_array=True, reset=reset)
            if reset and 0 in X.shape:
                what = "sample(s)" if len(X) == 0 else "feature(s)"
                raise ValueError(
                    f"Found array with 0 {what} (shape={X.shape}): X is an empty table, and at "
                    "least 1 is required."
                )
            return X
        if isinstance(X, list | tuple):
            # NumPy would make one type of all cells: strings, where there is one.
            X = np.asarray(X, dtype=object)
        with naming("X"):
            X = validate_data(
                self,
                X,
                dtype=np.float64 if issparse(X) else None,
                ensure_all_finite="allow-nan",
                accept_sparse="csr",
                reset=reset,
            )
        if X.dtype.kind not in "biuf":
            return pd.DataFrame(X).infer_objects()
        if not (reset or fitting) and self.missing == "error":
            # As scikit-learn has it; of frames and of objects a missing group is the population's.
            assert_all_finite(X, input_name="X")
        return X


@contextmanager
def restoring(estimator):
    """Leave an estimator as it was where its method fails or is interrupted."""
    before = estimator.__dict__.copy()
    try:
        yield
    except BaseException:
        estimator.__dict__ = before
        raise


@contextmanager
def naming(parameter):
    """Put a parameter's name before scikit-learn's errors that do not have it."""
    try:
        yield
    except (TypeError, ValueError) as error:
        if re.search(rf"\b{parameter}\b", str(error)):
            raise
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{parameter}: {error}") from error


def as_pandas(X):
    """A polars or Arrow table as a pandas frame, whose columns keep their names and kinds.

    Names of several levels are tuples.
    """
    if is_polars_df(X):
        return pd.DataFrame({name: _polars_column(X[name]) for name in X.columns})
    if is_pyarrow_data(X):
        # Else integers beside missing ones would become floats, which merge large ones.
        return X.to_pandas(integer_object_nulls=True)
    if hasattr(X, "collect_schema") and not hasattr(X, "shape"):
        raise TypeError("X: a LazyFrame has no rows yet: give X.collect().")
    if isinstance(X, pd.DataFrame) and isinstance(X.columns, pd.MultiIndex):
        return X.set_axis(X.columns.to_flat_index(), axis=1)
    return X


def _polars_column(series):
    """The column of a pandas frame that holds the same labels."""
    dtype = series.dtype
    if dtype.is_integer() and series.null_count():
        return pd.array(series.to_list(), dtype="Int64" if dtype.is_signed_integer() else "UInt64")
    if str(dtype) == "Date":
        return pd.Series(series.to_list(), dtype=object)
    if zone := getattr(dtype, "time_zone", None):
        return pd.DatetimeIndex(series.to_numpy()).tz_localize("UTC").tz_convert(zone)
    return series.to_numpy()


def response_name(y):
    """The name of y as a Series or a column, cbind(a, b) for two columns, "y" without a name."""
    names = [getattr(y, "name", None)] if not hasattr(y, "columns") else list(y.columns)
    if not names or not all(isinstance(name, str) and name for name in names):
        return "y"
    return names[0] if len(names) == 1 else f"cbind({', '.join(names)})"


def as_ordered(y):
    """y as an ordered pd.Categorical where its type has an order, and None elsewhere.

    Ordered types are pandas' and pyarrow's ordered categories and polars' Enum.
    """
    if hasattr(y, "columns") and np.shape(y)[1:] == (1,):
        y = y[y.columns[0]]
    dtype = getattr(y, "dtype", None)
    if hasattr(y, "to_physical") and type(dtype).__name__ == "Enum":
        codes = y.to_physical().cast(int).fill_null(-1).to_numpy()
        return pd.Categorical.from_codes(codes, dtype.categories.to_list(), ordered=True)
    if getattr(getattr(y, "type", None), "ordered", False):
        y = y.to_pandas()
    return pd.Categorical(y) if getattr(getattr(y, "dtype", None), "ordered", False) else None


def unknown_answers(y):
    """Which rows of y, of any container, have a missing value, bool [n_rows]."""
    missing = np.asarray(pd.isna(np.asarray(y)))
    return missing if missing.ndim < 2 else missing.any(axis=1)


def incomplete(table, columns, weighted=()):
    """Which rows of a table have a missing value in some of the `columns`, bool [n_rows].

    Or have a label without its weight, of columns in pairs, those of `DesignSpec.weighted`.
    """
    missing = _missing(table, columns)
    for label, weight in weighted:
        label, weight = (pd.isna(np.asarray(take(table, c))) for c in (label, weight))
        missing = missing | (weight & ~label)
    return missing


def _missing(table, columns):
    if isinstance(table, pd.DataFrame):
        return table[[c for c in table if c in columns]].isna().any(axis=1).to_numpy()
    values = table[:, sorted(columns)]
    if issparse(values):
        values = values.tocoo()
        return np.bincount(values.row[np.isnan(values.data)], minlength=table.shape[0]) > 0
    return np.isnan(values).any(axis=1) if values.dtype.kind == "f" else np.zeros(len(table), bool)


def raise_unknown(y, missing, table):
    """Raise ValueError for the rows of y that are `missing` [n_rows]: how many, and the first."""
    row = int(np.argmax(missing))
    index = next((a.index for a in (y, table) if isinstance(a, pd.Series | pd.DataFrame)), None)
    label = "" if index is None or index[row] == row else f" (index {index[row]!r})"
    raise ValueError(
        f"Input y contains NaN: {missing.sum()} missing value(s), the first in row {row}{label}. "
        "Leave these rows out, or set missing='drop', which does."
    )


def check_weights(sample_weight, n_rows, some=True):
    """Weights as float64 [n_rows], not to be written to; 1 where none are given, in no memory.

    `some` of them must be positive.
    """
    if sample_weight is None:
        return row_weights(None, n_rows)
    with naming("sample_weight"):
        weights = np.asarray(sample_weight, dtype=np.float64)
    if weights.ndim == 0:
        weights = np.full(n_rows, float(weights))
    if weights.shape != (n_rows,):
        raise ValueError(
            f"sample_weight.shape == {weights.shape}, expected ({n_rows},): one weight a row."
        )
    bad = ~(np.isfinite(weights) & (weights >= 0))
    if bad.any():
        row = int(np.argmax(bad))
        raise ValueError(
            f"sample_weight: {weights[row]} in row {row} is not a finite, nonnegative number. "
            "Negative or missing weights have no meaning here."
        )
    if some and not weights.any():
        raise ValueError("sample_weight: every weight is zero, so no row is left to fit.")
    return weights


def informative(table, response):
    """(table, Response) of the rows that the response keeps, as others say nothing."""
    check_total(response.family, response.weights.sum())
    if (keep := response.keep) is not None and not keep.all():
        table = take_rows(table, keep)
        y, weights = response.y[keep], response.weights[keep]
        data = None if response.data is None else response.data[keep]
        response = replace(response, y=y, weights=weights, data=data, keep=None)
    return table, response


def check_total(family, total):
    """Raise ValueError for repetitions that are too many to be counted."""
    if family.weights != "precision" and total > MOST_REPETITIONS:
        raise ValueError(
            f"sample_weight: the weights sum to {total:.3g}, and no more than "
            f"{MOST_REPETITIONS:.3g} repetitions can be counted one by one: divide them."
        )


def check_level(name, value):
    """Raise ValueError for a parameter `name` that is no probability between 0 and 1."""
    if not (isinstance(value, Real) and 0 < value < 1):
        raise ValueError(f"{name}={value!r} must be a number between 0 and 1.")


def generator(random_state):
    """NumPy's Generator for a `random_state` as scikit-learn has it."""
    return np.random.default_rng(check_random_state(random_state).randint(2**31 - 1, size=4))


def take_rows(values, keep):
    """Rows that a mask keeps of a table, y or weights, of any container."""
    return _safe_indexing(values, np.flatnonzero(keep))
