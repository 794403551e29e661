"""Columns to frozen arrays, and the same columns again at predict.

`DesignSpec.learn` reads the grouping columns' levels from the training table; `DesignSpec.apply`
turns any table into a `Design`: the fixed matrix X, and for each random-effect term the level index
`refs` and the slopes `z`. The engine sees a flat list of `Block`s, each with one covariance matrix:
a term of independent coefficients is several blocks that share their `refs`.
"""

from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd
from scipy.sparse import csr_array, hstack, issparse

from sklmm.design.formula import apply_formula, learn_formula
from sklmm.design.terms import RandomEffect, check_repeated, independent_parts

INTERCEPT = "Intercept"
#: Numbers from its inverse to this have squares, and squares of squares, in float64.
LARGEST = 1e70

#: Sparse columns up to as many, and as many numbers, are made dense; and up to so many, a gigabyte,
#: where the engine wants a dense X.
SMALL_COLUMNS = 1000
SMALL_NUMBERS = 20_000_000
LARGEST_NUMBERS = 125_000_000
#: Share of the rows beyond which a column of a sparse matrix is a dense one.
FULL = 0.25


@dataclass(frozen=True)
class Block:
    """Coefficients of one covariance: refs int32 [n_rows], z [n_rows, r] or None for ones."""

    refs: np.ndarray
    z: np.ndarray | None
    n_levels: int
    sd: float | None
    term: int
    first: int

    @property
    def r(self):
        """Number of coefficients a level."""
        return 1 if self.z is None else self.z.shape[1]


@dataclass(frozen=True)
class Design:
    """X [n_rows, p], the intercept's column of ones first if there is one, and the blocks.

    offset [n_rows], or None, is added to the linear predictor. `sparse`, a csr_array [n_rows, k],
    are the columns that are kept sparse, or None. At predict X is sparse itself where it would be
    too large.
    """

    X: np.ndarray
    blocks: tuple
    offset: np.ndarray | None = None
    sparse: csr_array | None = None

    @property
    def n_rows(self):
        """Number of rows."""
        return self.X.shape[0]

    @property
    def sizes(self):
        """Number of random effects of each block."""
        return [b.n_levels * b.r for b in self.blocks]


@dataclass(frozen=True)
class TermSpec:
    """What a term keeps from training: its name, its levels and its coefficients' names."""

    effect: RandomEffect
    name: str
    levels: pd.Index
    cnames: tuple

    def encode(self, table):
        """Level index of each row, int32 [n_rows]; -1 where the level is unseen or missing."""
        columns = [group_column(table, c) for c in self.effect.columns]
        with _labels_of(self.name):
            keys = columns[0] if len(columns) == 1 else pd.MultiIndex.from_arrays(columns)
            refs = self.levels.get_indexer(keys)
        if len(columns) == 1 and (missing := pd.isna(columns[0])).any():
            refs[missing] = -1
        return refs.astype(np.int32)

    def grown(self, table):
        """The term with the levels of another table added, in the order of a fit to both."""
        _, found = _learn_levels(table, self.effect, self.name, fewest=1)
        new = found[self.levels.get_indexer(found) < 0]
        if not len(new):
            return self
        try:
            levels = self.levels.append(new).sort_values()
        except TypeError as error:
            raise TypeError(
                f"The grouping column {self.name!r} has the new level {new[0]!r}, which cannot be "
                f"ordered among those of the fit, like {self.levels[0]!r}: convert the column to "
                "their type."
            ) from error
        return replace(self, levels=levels)


def check_magnitude(what, largest):
    """Raise ValueError where a column's largest number has no square in float64."""
    if largest > LARGEST or 0 < largest < 1 / LARGEST:
        raise ValueError(
            f"{what} is of size {largest:.3g}, and squares of such numbers are out of floating "
            "point's range: change its unit."
        )


def _is_frame(table):
    return isinstance(table, pd.DataFrame)


def _take(table, column):
    if issparse(table):
        return table[:, [column]].toarray().ravel()
    return table[column] if _is_frame(table) else table[:, column]


def take_columns(table, columns):
    """A DataFrame of some columns, dense."""
    columns = list(columns)
    return (
        table[columns] if _is_frame(table) else pd.DataFrame({c: _take(table, c) for c in columns})
    )


def group_column(table, column):
    """Values of a grouping column as a pandas object that `factorize` and `get_indexer` take."""
    values = _take(table, column)
    return pd.Index(values.array if isinstance(values, pd.Series) else values, tupleize_cols=False)


@contextmanager
def _labels_of(name):
    """Errors of pandas' about labels, by the name of their column."""
    try:
        yield
    except TypeError as error:
        raise TypeError(
            f"The grouping column {name!r} holds labels that cannot be told apart or ordered "
            f"({error}): the argument must be a column of strings or numbers. Convert it to one "
            "type, with astype(str) for example."
        ) from error


def _check_kind(labels, column):
    """Raise TypeError for labels of several types, of which pandas sorts some."""
    kind = pd.api.types.infer_dtype(labels)
    if kind in ("mixed", "mixed-integer", "complex"):
        kinds = sorted({type(v).__name__ for v in labels})
        raise TypeError(
            f"The grouping column {column!r} holds labels of type {' and '.join(kinds)}, which "
            "have no order: convert them to one type, with astype(str) for example."
        )


def numeric_columns(table, columns, role):
    """Numeric columns as float64 [n_rows, n_columns]; the error names the columns that are not."""
    if not _is_frame(table):
        values = table[:, list(columns)]
        values = values.toarray() if issparse(values) else values
        return _check_finite(np.asarray(values, dtype=np.float64), columns, role)
    frame = table[list(columns)]
    for column in columns:
        if not _is_numeric(frame[column].dtype):
            frame = frame.copy(deep=False)
            frame[column] = _numbers(frame[column], role)
    return _check_finite(frame.to_numpy(dtype=np.float64, na_value=np.nan), columns, role)


def _is_numeric(dtype):
    return pd.api.types.is_numeric_dtype(dtype) and dtype.kind != "c"


def _numbers(values, role):
    """A column of objects or strings as float64 [n_rows], NaN where it is missing."""
    known, out = values.notna().to_numpy(), np.full(len(values), np.nan)
    try:
        if not pd.api.types.is_object_dtype(values) and not pd.api.types.is_string_dtype(values):
            raise TypeError(f"its type is {values.dtype}")
        out[known] = values.to_numpy(object)[known].astype(np.float64)
    except (TypeError, ValueError) as error:
        value = next((v for v in values[known] if not _is_number(v)), values.dtype)
        raise (TypeError if isinstance(error, TypeError) else ValueError)(
            f"The {role} column {values.name!r} holds {value!r}, which is not numeric ({error}): "
            "encode it (OneHotEncoder, in a Pipeline), or make it a grouping factor in "
            "random_effects."
        ) from error
    return out


def sparse_columns(table, columns, role):
    """Numeric columns as a csr_array of float64 [n_rows, n_columns]."""
    columns = list(columns)
    if _is_frame(table):
        mine = list(_sparse_of(table, columns))
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
        _raise_not_finite([columns[j] for j in bad[:10]], role)
    return values


def _is_sparse(dtype):
    return (
        isinstance(dtype, pd.SparseDtype)
        and dtype.fill_value == 0
        and pd.api.types.is_numeric_dtype(dtype)
    )


def _sparse_of(table, columns):
    """Places of the sparse ones among `columns`."""
    if _is_frame(table):
        dtypes = table.dtypes
        return tuple(i for i, c in enumerate(columns) if _is_sparse(dtypes[c]))
    return tuple(range(len(columns))) if issparse(table) else ()


def _few_entries(table, columns, places):
    """Those of `places` to keep sparse: a sparse matrix may hold a few columns full of numbers."""
    if _is_frame(table) or not places:
        return places
    filled = np.bincount(table.tocsr().indices, minlength=table.shape[1])[list(columns)]
    full = filled > FULL * table.shape[0]
    if full.sum() * table.shape[0] > SMALL_NUMBERS:
        return places
    return tuple(np.flatnonzero(~full).tolist())


def _keeps_sparse(n_rows, n_columns, allowed):
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


def _check_finite(values, columns, role):
    finite = np.isfinite(values).all(axis=0)
    if not finite.all():
        _raise_not_finite([c for c, ok in zip(columns, finite, strict=True) if not ok], role)
    return values


def _raise_not_finite(columns, role):
    raise ValueError(
        f"Input X contains NaN or infinity in the {role} column(s) "
        f"{', '.join(map(repr, columns))}: impute them first, with a SimpleImputer in a "
        "Pipeline for example."
    )


def _is_number(value):
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def _learn_levels(table, effect, name, fewest=2):
    columns = [group_column(table, c) for c in effect.columns]
    for column, values in zip(effect.columns, columns, strict=True):
        if (n := int(pd.isna(values).sum())) > 0:
            raise ValueError(
                f"The grouping column {column!r} has {n} missing value(s) (NaN or None), the first "
                f"in row {int(np.argmax(pd.isna(values)))}: drop those rows, or give them a level "
                "of their own."
            )
    with _labels_of(name):
        keys = columns[0] if len(columns) == 1 else pd.MultiIndex.from_arrays(columns)
        refs, levels = pd.factorize(keys, sort=True)
    parts = [levels] if len(columns) == 1 else levels.levels
    for column, labels in zip(effect.columns, parts, strict=True):
        _check_kind(labels, column)
    if isinstance(levels, pd.CategoricalIndex):
        levels = pd.Index(np.asarray(levels))
    if isinstance(levels, pd.MultiIndex):
        levels = levels.set_names([str(c) for c in effect.columns]).remove_unused_levels()
    else:
        levels = levels.rename(str(effect.columns[0]))
    if len(levels) < fewest:
        rows = "n_samples = 1: " if len(keys) == 1 else ""
        raise ValueError(
            f"{rows}the grouping factor {name!r} has a single level ({levels[0]!r}): a variance "
            "between levels needs at least two. Remove the term."
        )
    return refs.astype(np.int32), levels


@dataclass(frozen=True)
class DesignSpec:
    """All that a fitted model needs to rebuild its design from a new table: Python and NumPy."""

    columns: tuple
    fixed: tuple
    fixed_names: tuple
    fit_intercept: bool
    terms: tuple
    formula: object = None
    offset: str | int | None = None
    sparse: tuple = ()

    @classmethod
    def learn(
        cls,
        table,
        effects,
        fixed_effects,
        fit_intercept,
        feature_names=None,
        offset=None,
        keep_sparse=False,
    ):
        """Read the levels off a training table.

        Parameters
        ----------
        table : DataFrame, or ndarray or sparse array [n_rows, n_columns]
        effects : list of RandomEffect
        fixed_effects : None, list of columns, or str
            None: every column that is not a grouping column or the offset. A string is a formula.
        fit_intercept : bool
        feature_names : sequence of str, optional
            Names for the columns of an array.
        offset : str, int or None
            Column that is added to the linear predictor.
        keep_sparse : bool, default=False
            Whether sparse columns may stay so; few are made dense all the same.

        Returns
        -------
        (DesignSpec, Design)

        Raises
        ------
        ValueError, TypeError
            Naming the column, the value and the remedy.
        """
        columns = table.columns if _is_frame(table) else pd.RangeIndex(table.shape[1])
        effects = [_locate(e, columns, feature_names) for e in effects]
        check_repeated(effects)
        grouping = {c for e in effects for c in e.columns}
        if offset is not None:
            offset = _find(offset, columns, "offset", feature_names)
        formula, X = None, None
        if fixed_effects is None:
            fixed = tuple(c for c in columns if c not in grouping and c != offset)
        elif isinstance(fixed_effects, str):
            X, formula = learn_formula(fixed_effects, table, fit_intercept)
            fit_intercept = INTERCEPT in formula.column_names
            fixed = tuple(c for c in formula.column_names if c != INTERCEPT)
        else:
            fixed = tuple(_find(c, columns, "fixed_effects", feature_names) for c in fixed_effects)
        repeated = pd.Index(fixed)[pd.Index(fixed).duplicated()]
        if len(repeated):
            raise ValueError(f"fixed_effects: column {repeated[0]!r} stands twice; keep one.")
        labels = [e.label for e in effects]
        terms, encoded = [], []
        for effect, label in zip(effects, labels, strict=True):
            name = label if labels.count(label) == 1 else str(effect)
            refs, levels = _learn_levels(table, effect, name)
            cnames = ((INTERCEPT,) if effect.intercept else ()) + tuple(map(str, effect.slopes))
            terms.append(TermSpec(effect, name, levels, cnames))
            encoded.append(refs)
        positions = feature_names is not None and formula is None
        names = tuple(str(feature_names[c] if positions else c) for c in fixed)
        kept = ()
        if formula is None:
            kept = _few_entries(table, fixed, _sparse_of(table, fixed))
            kept = kept if _keeps_sparse(table.shape[0], len(kept), keep_sparse) else ()
        spec = cls(tuple(columns), fixed, names, fit_intercept, tuple(terms), formula, offset, kept)
        design = spec._build(table, encoded, X)
        spec._check_magnitudes(design)
        return spec, design

    def apply(self, table):
        """Design of a new table; refs are -1 where a level is unseen or missing."""
        return self._build(table, [t.encode(table) for t in self.terms])

    def grown(self, table):
        """The spec with the levels of another table added to its terms'."""
        return replace(self, terms=tuple(t.grown(table) for t in self.terms))

    @property
    def coef_names(self):
        """Names of X's columns."""
        dense = tuple(self.fixed_names[i] for i in self._dense)
        return ((INTERCEPT,) if self.fit_intercept else ()) + dense

    @property
    def sparse_names(self):
        """Names of the columns that are kept sparse."""
        return tuple(self.fixed_names[i] for i in self.sparse)

    @property
    def order(self):
        """Places of the coefficients in the table's order, in X and then the sparse columns."""
        first = int(self.fit_intercept)
        return np.r_[np.arange(first), first + np.argsort([*self._dense, *self.sparse])]

    @cached_property
    def _dense(self):
        return tuple(np.setdiff1d(np.arange(len(self.fixed)), self.sparse).tolist())

    def _check_magnitudes(self, design):
        parts = [(self.coef_names, design.X)]
        for block in design.blocks:
            names = self.terms[block.term].cnames[block.first :]
            parts += [] if block.z is None else [(names, block.z)]
        for names, columns in parts:
            sizes = np.maximum(columns.max(axis=0), -columns.min(axis=0))
            for name, size in zip(names, sizes, strict=False):
                check_magnitude(f"X's column {name!r}", size)

    def _fixed_part(self, table):
        if self.formula is not None:
            return apply_formula(self.formula, table)
        columns = [self.fixed[i] for i in self._dense]
        if table.shape[0] * len(columns) > LARGEST_NUMBERS and _sparse_of(table, columns):
            X = sparse_columns(table, columns, "fixed-effects")
            return hstack([np.ones((X.shape[0], 1)), X], "csr") if self.fit_intercept else X
        X = numeric_columns(table, columns, "fixed-effects")
        # By columns: the engine works on whole ones.
        return np.concatenate([np.ones((1, len(X))), X.T]).T if self.fit_intercept else X

    def _build(self, table, encoded, X=None):
        X = self._fixed_part(table) if X is None else X
        blocks = []
        for k, (term, refs) in enumerate(zip(self.terms, encoded, strict=True)):
            first = 0
            for part in independent_parts(term.effect):
                z = None
                if part.slopes:
                    z = numeric_columns(table, part.slopes, "slope")
                    if part.intercept:
                        z = np.column_stack([np.ones(len(z)), z])
                block = Block(refs, z, len(term.levels), part.sd, k, first)
                blocks.append(block)
                first += block.r
        offset, kept = self.offset, None
        if offset is not None:
            offset = numeric_columns(table, (offset,), "offset")[:, 0]
        if self.sparse:
            kept = sparse_columns(table, [self.fixed[i] for i in self.sparse], "fixed-effects")
        return Design(X, tuple(blocks), offset, kept)


def _find(column, columns, parameter, feature_names=None):
    if feature_names is not None and isinstance(column, str) and column in feature_names:
        return list(feature_names).index(column)
    if column in columns:
        return column
    if isinstance(column, int | np.integer) and not isinstance(column, bool):
        if -len(columns) <= column < len(columns):
            return columns[column]
        raise ValueError(
            f"{parameter}: position {column} is out of range for a table of {len(columns)} columns."
        )
    known = ", ".join(map(repr, columns[:10])) + (", ..." if len(columns) > 10 else "")
    raise ValueError(f"{parameter}: column {column!r} is not in X, which has {known}.")


def _locate(effect, columns, feature_names):
    group = tuple(_find(c, columns, "random_effects", feature_names) for c in effect.columns)
    slopes = tuple(_find(c, columns, "random_effects", feature_names) for c in effect.slopes)
    return RandomEffect(
        group[0] if len(group) == 1 else group,
        slopes,
        effect.intercept,
        effect.correlated,
        effect.sd,
    )
