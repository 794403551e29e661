"""Columns to frozen arrays, and the same columns again at predict.

`DesignSpec.learn` reads the grouping columns' levels from the training table; `DesignSpec.apply`
turns any table into a `Design`: the fixed matrix X, and for each random-effect term the level index
`refs` and the slopes `z`. The engine sees a flat list of `Block`s, each with one covariance matrix:
a term of independent coefficients is several blocks that share their `refs`.
"""

from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from sklmm.design.formula import apply_formula, learn_formula
from sklmm.design.terms import RandomEffect, check_repeated, independent_parts

INTERCEPT = "Intercept"
#: Numbers from its inverse to this have squares, and squares of squares, in float64.
LARGEST = 1e70


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

    offset [n_rows], or None, is added to the linear predictor.
    """

    X: np.ndarray
    blocks: tuple
    offset: np.ndarray | None = None

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
    return table[column] if _is_frame(table) else table[:, column]


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
        return _check_finite(np.asarray(table[:, list(columns)], dtype=np.float64), columns, role)
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


def _check_finite(values, columns, role):
    finite = np.isfinite(values).all(axis=0)
    if not finite.all():
        names = [c for c, ok in zip(columns, finite, strict=True) if not ok]
        raise ValueError(
            f"Input X contains NaN or infinity in the {role} column(s) "
            f"{', '.join(map(repr, names))}: impute them first, with a SimpleImputer in a Pipeline "
            "for example."
        )
    return values


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

    @classmethod
    def learn(cls, table, effects, fixed_effects, fit_intercept, feature_names=None, offset=None):
        """Read the levels off a training table.

        Parameters
        ----------
        table : DataFrame, or ndarray [n_rows, n_columns]
        effects : list of RandomEffect
        fixed_effects : None, list of columns, or str
            None: every column that is not a grouping column or the offset. A string is a formula.
        fit_intercept : bool
        feature_names : sequence of str, optional
            Names for the columns of an array.
        offset : str, int or None
            Column that is added to the linear predictor.

        Returns
        -------
        (DesignSpec, Design)

        Raises
        ------
        ValueError, TypeError
            Naming the column, the value and the remedy.
        """
        columns = list(table.columns) if _is_frame(table) else list(range(table.shape[1]))
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
        repeated = [c for i, c in enumerate(fixed) if c in fixed[:i]]
        if repeated:
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
        spec = cls(tuple(columns), fixed, names, fit_intercept, tuple(terms), formula, offset)
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
        return ((INTERCEPT,) if self.fit_intercept else ()) + self.fixed_names

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
        X = numeric_columns(table, self.fixed, "fixed-effects")
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
        offset = self.offset
        if offset is not None:
            offset = numeric_columns(table, (offset,), "offset")[:, 0]
        return Design(X, tuple(blocks), offset)


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
