"""New rows for a fitted model: the columns of the fit, found again, and what they miss."""

from dataclasses import replace
from functools import wraps
from inspect import signature
from itertools import compress
from numbers import Integral

import numpy as np
import pandas as pd
from scipy.sparse import issparse
from sklearn.utils.validation import _num_samples, check_is_fitted

from sklmm._estimators.input import (
    TableInput,
    as_pandas,
    incomplete,
    informative,
    take_rows,
    unknown_answers,
)
from sklmm.design.columns import take, take_columns
from sklmm.design.design import UNSEEN
from sklmm.families import Response
from sklmm.result import count


class NewRows(TableInput):
    """Methods of a fitted estimator that check new rows, and rows of the fit given again."""

    def _validate_new(self, X, include=None):
        """A table of the fit's columns, found by name where the fit named those that it uses.

        `include` is that of `DesignSpec.apply`.
        """
        (X, _), model = self._without_response(X), self._fitted
        if model.by_name and isinstance(X, pd.DataFrame):
            return _used_columns(X, model.spec.used(include))
        X = self._validate_table(X, reset=False)
        if model.from_frame or isinstance(X, pd.DataFrame):
            X = pd.DataFrame.sparse.from_spmatrix(X) if issparse(X) else pd.DataFrame(X)
            X = X.set_axis(list(model.spec.columns), axis=1)
        return X

    def _new_design(self, X, include_random=True):
        """(table, Design, which terms count [n_terms]) of new rows."""
        check_is_fitted(self)
        include = self._include(include_random)
        table = self._validate_new(X, include)
        # Of several predictors a row each has times of its own.
        covariances = self.result_.covariances if self._fitted.n_predictors == 1 else None
        design = self._fitted.spec.apply(table, include, covariances)
        if self.handle_unknown == "error":
            pairs = zip(self._fitted.spec.every_term, design.every_block, strict=True)
            refuse_unknown(table, compress(pairs, include))
        return table, design, include

    def _include(self, include_random):
        names = [t.name for t in self._fitted.spec.every_term]
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

    def _new_response(self, X, y, sample_weight):
        """(table, Response) of new rows whose y is known."""
        X, y = self._take_response(X, y)
        table = self._validate_new(X)
        if table.shape[0] == 0:
            raise ValueError("Found array with 0 sample(s): X has no rows.")
        needed = self._fitted.spec.needed
        table, y, weights, _ = self._known_rows(table, y, sample_weight, needed)
        y = self._validate_target(table, y)
        table, response = informative(table, self._bind_new(y, weights))
        return table, replace(response, models=self._fitted.models)

    def _kept(self, X, y, sample_weight):
        """Which of X's rows, those of the fit, `_training` keeps, bool [n_rows]."""
        X, y = self._take_response(X, y)
        table, needed = self._validate_new(X), self._fitted.spec.needed
        keep, _, _ = self._counted(table, y, sample_weight, needed)
        table, y, weights, _ = self._known_rows(table, y, sample_weight, needed)
        informed = self._bind_new(self._validate_target(table, y), weights).keep
        if informed is not None:
            keep[keep] = informed
        return keep

    def _in_every_row(self, found, X, y, sample_weight):
        """Numbers of the rows that count, nan beside them in those that do not."""
        if len(found) == _num_samples(X):
            return found
        return _spread(found, self._kept(X, y, sample_weight))

    def _bind_new(self, y, weights):
        """The `Response` of y, whose classes have the codes of the fit."""
        family, classes = self._fitted.family, self._fitted.classes
        if classes is None:
            return family.bind(y, weights)
        codes = pd.Index(classes).get_indexer(np.asarray(y))
        if (codes < 0).any():
            row = int(np.argmin(codes))
            raise ValueError(
                f"y: {np.asarray(y)[row]!s} (row {row}) is none of the classes of the fit, "
                f"{', '.join(map(str, classes))}: fit again with it, or drop the row."
            )
        return Response(family, codes.astype(float), weights, classes)

    def _training(self, X, y, sample_weight):
        """(Design, Response) of the rows of the fit, given again."""
        table, response = self._new_response(X, y, sample_weight)
        design = self._fitted.spec.apply(table)
        n_obs = response.weights.sum() if response.n_obs is None else response.n_obs
        unseen = any((block.refs < 0).any() for block in design.every_block)
        if unseen or not np.isclose(n_obs, self.result_.n_obs):
            raise ValueError(
                f"X: it must hold the rows of the fit, {count(self.result_.n_obs)} observations: "
                f"it has {'levels that the fit had not' if unseen else count(n_obs)}."
            )
        self._fitted.fingerprint.check(design, response)
        return design, response

    def _groups(self, given, name, X, y, sample_weight, design):
        """(codes [n], labels) of the groups that a parameter `name` gives to the rows of the fit.

        `given` is a term's name, a column of X, or an array of X's rows; `design` is that of
        `_training`.
        """
        pairs = zip(self._fitted.spec.terms, design.blocks, strict=True)
        terms = {term.name: (term, block) for term, block in pairs}
        if isinstance(given, str) and given in terms and not terms[given][1].tied:
            term, block = terms[given]
            # An update may have added levels that the fit had not.
            present, codes = np.unique(block.refs, return_inverse=True)
            return codes, term.levels[present]
        values = self._labels(given, name, X)[self._kept(X, y, sample_weight)]
        if values.isna().any():
            row = values.index[values.isna()][0]
            raise ValueError(f"{name}: row {row} misses its label: give it one, or drop the row.")
        return pd.factorize(values)

    def _labels(self, given, name, X):
        """Labels of X's rows, a Series, that a parameter `name` gives: a column, or an array."""
        X, values = as_pandas(X), given
        if isinstance(given, str | Integral):
            known = X.columns if isinstance(X, pd.DataFrame) else range(np.shape(X)[1])
            if given not in known:
                raise ValueError(
                    f"{name}: {given!r} is neither a term of the model nor a column of X: give a "
                    "name, or an array with one label a row."
                )
            values = take(X, given)
        values = np.asarray(values)
        if values.ndim != 1:
            raise ValueError(
                f"{name}: it has the shape {values.shape}: give a name, or an array with one label "
                "a row."
            )
        values = pd.Series(values)
        if values.shape[0] != np.shape(X)[0]:
            raise ValueError(
                f"{name}: it has {values.shape[0]} labels and X {np.shape(X)[0]} rows: give one "
                "label a row."
            )
        return values


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


def unseen_levels(table, term, refs):
    """Index of each row's unseen level, -1 for known ones; a missing level is one of its own.

    Of memberships, refs [n_rows, m], a missing level is none.
    """
    if term.effect.tied:
        return np.where(refs < 0, UNSEEN - refs, -1)
    index = np.full(len(refs), -1)
    rows = np.flatnonzero(refs < 0)
    if len(rows):
        part = take_columns(table, term.effect.columns).iloc[rows]
        index[rows] = part.groupby(list(part.columns), sort=False, dropna=False).ngroup()
        missing = rows[part.isna().any(axis=1).to_numpy()]
        index[missing] = index.max() + 1 + np.arange(len(missing))
    return index


def refuse_unknown(table, pairs):
    """Raise ValueError for the first row of a level that the fit has not seen.

    `pairs` are the terms that count with their blocks.
    """
    for term, block in pairs:
        if (block.refs < 0).any():
            row, *which = np.argwhere(block.refs < 0)[0].tolist()
            columns = term.effect.columns
            columns = [columns[which[0]]] if which else columns
            frame = take_columns(table, columns)
            value = ":".join(str(frame[c].iloc[row]) for c in columns)
            raise ValueError(
                f"Grouping column {term.name!r} has the unknown or missing level {value!r} in row "
                f"{row}: fit on data that has it, or set handle_unknown='population'."
            )


def nan_where_missing(method):
    """Make a method of predictions give nan to rows that miss a value, where missing="drop"."""
    arguments = signature(method)

    @wraps(method)
    def wrapped(self, X, *args, **kwargs):
        if self.missing != "drop":
            return method(self, X, *args, **kwargs)
        check_is_fitted(self)
        given = arguments.bind(self, X, *args, **kwargs).arguments
        include = self._include(given.get("include_random", True))
        table, spec = self._validate_new(X, include), self._fitted.spec
        keep = ~incomplete(table, spec.predictors, spec.weighted(include))
        if keep.all():
            return method(self, X, *args, **kwargs)
        frame = pd.DataFrame.sparse.from_spmatrix(table) if issparse(table) else pd.DataFrame(table)
        if kwargs.get("sample_weight") is not None:
            kwargs["sample_weight"] = take_rows(kwargs["sample_weight"], keep)
        found = method(self, frame[keep], *args, **kwargs)
        if isinstance(found, tuple):
            return tuple(_spread(f, keep) for f in found)
        return _spread(found, keep)

    return wrapped


def score_where_known(method):
    """Make a method `score` leave out rows that miss a value, where missing="drop"."""

    @wraps(method)
    def wrapped(self, X, y, sample_weight=None):
        if self.missing == "drop":
            check_is_fitted(self)
            table, spec = self._validate_new(X), self._fitted.spec
            keep = ~(unknown_answers(y) | incomplete(table, spec.predictors, spec.weighted()))
            X, y = take_rows(X, keep), take_rows(y, keep)
            sample_weight = None if sample_weight is None else take_rows(sample_weight, keep)
        return method(self, X, y, sample_weight)

    return wrapped


def _spread(found, keep):
    """The array of all rows, nan beside `found`; labels, which have no nan, become objects."""
    kind = found.dtype.kind
    dtype = found.dtype if kind == "f" else float if kind in "iu" else object
    out = np.full((len(keep), *found.shape[1:]), np.nan, dtype)
    out[keep] = found
    return out
