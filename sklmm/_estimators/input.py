"""Tables, responses and weights as the estimators take them: checked, and in a few known kinds."""

import re
from contextlib import contextmanager
from dataclasses import replace
from itertools import compress

import numpy as np
import pandas as pd
from scipy.sparse import issparse
from sklearn.base import BaseEstimator
from sklearn.utils._dataframe import is_polars_df, is_pyarrow_data
from sklearn.utils.validation import (
    assert_all_finite,
    check_consistent_length,
    check_is_fitted,
    validate_data,
)

from sklmm import comparison
from sklmm._estimators.missing import incomplete, raise_unknown, take_rows, unknown_answers
from sklmm.design import is_expression, response_columns, split_response, take_columns
from sklmm.families import Response
from sklmm.result import count

#: Beyond it 1.0 more is nothing to a float64.
MOST_REPETITIONS = 2.0**53


class TableInput(BaseEstimator):
    """What an estimator's methods make of X and y."""

    def _take_response(self, X, y, fitting=False):
        """X without the column that the formula names as its response, which is y if y is None."""
        formula = self.fixed_effects
        response = split_response(formula)[0] if isinstance(formula, str) else None
        if response is None:
            return X, y
        given, X = X, as_pandas(X)
        columns = response_columns(response)
        known = [c for c in columns if isinstance(X, pd.DataFrame) and c in X.columns]
        if fitting and not known and is_expression(response):
            raise ValueError(
                f"fixed_effects={formula!r}: the response {response!r} must be a column: add it to "
                "the table, X.assign(log_y=np.log(X['y'])) for example, or see scikit-learn's "
                "TransformedTargetRegressor. Two columns of counts are cbind(successes, failures), "
                "and a name with such signs stands in backquotes."
            )
        if y is None and len(known) < len(columns):
            raise ValueError(
                f"fixed_effects={formula!r}: the response {response!r} is not a column of X: "
                "give y."
            )
        if y is None:
            # As it was given: an Enum of polars' has an order, which pandas' column has not.
            y = X[columns] if len(columns) > 1 else given[columns[0]]
        return X.drop(columns=known) if known else X, y

    def _known_rows(self, table, y, sample_weight, columns_read):
        """(table, y, weights, rows left out) of the rows that count and miss no value.

        Rows of weight 0 say nothing, not even that something is missing. `columns_read` gives the
        columns that the model reads.
        """
        if y is None:
            raise ValueError("This estimator requires y to be passed, but the target y is None.")
        with naming("y"):
            check_consistent_length(table, y)
        keep = np.ones(table.shape[0], bool)
        if sample_weight is not None:
            sample_weight = _check_weights(sample_weight, len(keep))
            keep = sample_weight > 0
        missing = keep & unknown_answers(y)
        if missing.any() and self.missing == "error":
            raise_unknown(y, missing, table)
        if self.missing == "drop":
            missing |= keep & incomplete(table, columns_read())
            keep &= ~missing
            if not keep.any():
                raise ValueError("missing='drop': every row misses a value, so none is left.")
        if not keep.all():
            table, y = _rows(table, keep), take_rows(y, keep)
            sample_weight = None if sample_weight is None else sample_weight[keep]
        return table, y, sample_weight, int(missing.sum())

    def _columns_read(self):
        return self._spec.predictors | {c for t in self._spec.terms for c in t.effect.columns}

    def _validate_target(self, table, y):
        """y as the family's response, of one value a row."""
        with naming("y"):
            y = self._check_target(y)
            check_consistent_length(table, y)
        return y

    def _validate_table(self, X, reset):
        """X as a DataFrame with named columns, or by position: an array of numbers or a DataFrame.

        Numbers and labels are checked column by column, by `sklmm.design`.
        """
        X = as_pandas(X)
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
        if not reset and self.missing == "error":
            # As scikit-learn has it; of frames and of objects a missing group is the population's.
            assert_all_finite(X, input_name="X")
        return X

    def _validate_new(self, X, include=None):
        """A table of the fit's columns; by their names alone where the fit named what it uses.

        `include` is that of `DesignSpec.apply`.
        """
        check_is_fitted(self)
        X, _ = self._take_response(X, ())
        X = as_pandas(X)
        if self._by_name and isinstance(X, pd.DataFrame):
            return _used_columns(X, self._spec.used(include))
        X = self._validate_table(X, reset=False)
        if self._from_frame or isinstance(X, pd.DataFrame):
            X = pd.DataFrame.sparse.from_spmatrix(X) if issparse(X) else pd.DataFrame(X)
            X = X.set_axis(list(self._spec.columns), axis=1)
        return X

    def _bind_new(self, y, weights):
        """`Response` in y, in the codes of the fit's classes."""
        classes = self._known_classes()
        if classes is None:
            return self._family.bind(y, weights)
        codes = pd.Index(classes).get_indexer(np.asarray(y))
        if (codes < 0).any():
            row = int(np.argmin(codes))
            raise ValueError(
                f"y: {np.asarray(y)[row]!s} (row {row}) is none of the classes of the fit, "
                f"{', '.join(map(str, classes))}: fit again with it, or drop the row."
            )
        return Response(self._family, codes.astype(float), weights, classes)

    def _include(self, include_random):
        names = [t.name for t in self._spec.terms]
        if isinstance(include_random, bool | np.bool_):
            return [bool(include_random)] * len(names)
        wanted = [include_random] if isinstance(include_random, str) else list(include_random)
        for name in wanted:
            if name not in names:
                raise ValueError(
                    f"include_random: {name!r} is not a term of this model, which has "
                    f"{', '.join(map(repr, names)) or 'none'}."
                )
        return [n in wanted for n in names]

    def _new_design(self, X, include_random=True):
        check_is_fitted(self)
        include = self._include(include_random)
        table = self._validate_new(X, include)
        design = self._spec.apply(table, include)
        if self.handle_unknown == "error":
            refuse_unknown(table, compress(self._refs_by_term(design), include))
        return table, design

    def _refs_by_term(self, design):
        for k, term in enumerate(self._spec.terms):
            yield term, next(b.refs for b in design.blocks if b.term == k)

    def _training(self, X, y, sample_weight):
        """(Design, Response) of the rows of the fit, given again."""
        X, y = self._take_response(X, y)
        table = self._validate_new(X)
        table, y, sample_weight, _ = self._known_rows(table, y, sample_weight, self._columns_read)
        y = self._validate_target(table, y)
        table, response = bound(table, y, sample_weight, self._bind_new)
        design = self._spec.apply(table)
        n_obs = response.weights.sum() if response.n_obs is None else response.n_obs
        unseen = any((block.refs < 0).any() for block in design.blocks)
        if unseen or not np.isclose(n_obs, self.result_.n_obs):
            raise ValueError(
                f"X: it must hold the rows of the fit, {count(self.result_.n_obs)} observations: "
                f"it has {'levels that the fit had not' if unseen else count(n_obs)}."
            )
        for what, value in comparison.fingerprint(design, response).items():
            if value != self._data[what]:
                raise ValueError(f"{what}: it must be that of the fit, and it is another.")
        if not comparison.same_rows(design, response, self._joint_sums):
            raise ValueError(
                "X: each row must be that of the fit for its y: the rows of X and y are in "
                "different orders, or X's values are others."
            )
        return design, response


def _used_columns(X, used):
    """The columns of a DataFrame that a model uses, found by name."""
    missing = [repr(c) for c in used if c not in X.columns]
    if missing:
        raise ValueError(
            f"X: the model uses the column(s) {', '.join(missing)}, which are not there: it has "
            f"{', '.join(map(repr, X.columns[:10]))}{', ...' * (X.shape[1] > 10)}."
        )
    repeated = X.columns[X.columns.duplicated()].intersection(list(used))
    if len(repeated):
        raise ValueError(f"X: column {repeated[0]!r} stands twice; keep one.")
    return X[list(used)]


@contextmanager
def restoring(estimator):
    """An estimator whose method fails, or is interrupted, is left as it was."""
    before = estimator.__dict__.copy()
    try:
        yield
    except BaseException:
        estimator.__dict__ = before
        raise


@contextmanager
def naming(parameter):
    """Errors of scikit-learn's that do not say of what, with the parameter's name before them."""
    try:
        yield
    except (TypeError, ValueError) as error:
        if re.search(rf"\b{parameter}\b", str(error)):
            raise
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{parameter}: {error}") from error


def as_pandas(X):
    """A frame of polars' or Arrow's as a pandas one, whose columns keep their names and kinds.

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
    """Name of a Series or a frame's column, R's words for two columns, "y" where there is none."""
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


def _check_weights(sample_weight, n_rows):
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
    if not weights.any():
        raise ValueError("sample_weight: every weight is zero, so no row is left to fit.")
    return weights


def bound(table, y, sample_weight, bind):
    """(table, Response) of the rows that say something; bind makes it of y and the weights."""
    weights = np.ones(len(y)) if sample_weight is None else sample_weight
    response = bind(y, weights)
    if response.family.weights == "repeats" and weights.sum() > MOST_REPETITIONS:
        raise ValueError(
            f"sample_weight: the weights sum to {weights.sum():.3g}, and no more than "
            f"{MOST_REPETITIONS:.3g} repetitions can be counted one by one: divide them."
        )
    if (keep := response.keep) is not None and not keep.all():
        table = _rows(table, keep)
        y, weights = response.y[keep], response.weights[keep]
        response = replace(response, y=y, weights=weights, keep=None)
    return table, response


def unseen_levels(table, term, refs):
    """Index of each row's unseen level, -1 for known ones; a missing level is one of its own."""
    index = np.full(len(refs), -1)
    rows = np.flatnonzero(refs < 0)
    if len(rows):
        part = take_columns(table, term.effect.columns).iloc[rows]
        index[rows] = part.groupby(list(part.columns), sort=False, dropna=False).ngroup()
        missing = rows[part.isna().any(axis=1).to_numpy()]
        index[missing] = index.max() + 1 + np.arange(len(missing))
    return index


def refuse_unknown(table, refs_by_term):
    """Raise ValueError for the first row of a level that the fit has not seen."""
    for term, refs in refs_by_term:
        if (refs < 0).any():
            row, columns = int(np.argmax(refs < 0)), term.effect.columns
            frame = take_columns(table, columns)
            value = ":".join(str(frame[c].iloc[row]) for c in columns)
            raise ValueError(
                f"Grouping column {term.name!r} has the unknown or missing level {value!r} in row "
                f"{row}: fit on data that has it, or set handle_unknown='population'."
            )


def _rows(table, keep):
    """Rows of a DataFrame or an array that a mask keeps."""
    return table.loc[keep] if isinstance(table, pd.DataFrame) else table[keep]
