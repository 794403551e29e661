"""Columns to frozen arrays, and the same columns again at predict.

`DesignSpec.learn` reads the grouping columns' levels from the training table; `DesignSpec.apply`
turns any table into a `Design`: the fixed matrix X, and for each random-effect term a `Block`, its
level index `refs`, its slopes `z` and the covariance of its coefficients.
"""

from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.linalg import matrix_rank
from scipy.sparse import csr_array, hstack

from sklmm._state import PlainState
from sklmm._threads import in_threads
from sklmm.covariances import Covariance
from sklmm.design.columns import (
    UNNAMED,
    check_magnitude,
    few_entries,
    is_frame,
    keeps_sparse,
    numeric_columns,
    sparse_columns,
    sparse_of,
    too_large,
)
from sklmm.design.estimable import Estimable
from sklmm.design.formula import apply_formula, learn_formula, parsed
from sklmm.design.indicators import Indicators
from sklmm.design.levels import TermSpec, learn_levels
from sklmm.design.terms import INTERCEPT, LeftHand, check_repeated
from sklmm.design.variables import NewTime, NotSeen

#: References of memberships from which on down levels are unseen: -1 is none.
UNSEEN = -2
#: Rows from which on the terms' levels are looked up by threads, a term each.
LARGE = 100_000


@dataclass(frozen=True)
class Block:
    """A term's rows: refs int32 [n_rows], z [n_rows, r] or None for ones; its `Covariance`.

    z is an array, or `Indicators` of a categorical column. Where a row belongs to m levels, refs
    are [n_rows, m] and z [n_rows, m, r] has the weights in it. `relation` is the levels'
    `Relationship`, or None where they are independent; `between` is of rows at times which the fit
    had not, or None.
    """

    refs: np.ndarray
    z: np.ndarray | Indicators | None
    n_levels: int
    covariance: Covariance
    relation: object = None
    between: object = None

    @property
    def r(self):
        """Number of coefficients a level."""
        return 1 if self.z is None else self.z.shape[-1]

    @property
    def tied(self):
        """Whether a row may belong to several levels."""
        return self.refs.ndim > 1

    @property
    def coupled(self):
        """Whether levels depend on each other given all other terms."""
        return self.tied or self.relation is not None

    @property
    def own(self):
        """Each row's A_jj, how its level is related to itself, [n_rows]; 1 of independent ones."""
        return 1.0 if self.relation is None else self.relation.variances[self.refs]

    def loadings(self, rows):
        """z [n, r] of some rows, ones for an intercept alone."""
        return np.ones((len(self.refs[rows]), 1)) if self.z is None else self.z[rows]


def shared_levels(one, other):
    """Whether two blocks are over the same levels, in the same order, which nothing couples."""
    if one.coupled or other.coupled or one.n_levels != other.n_levels:
        return False
    return np.array_equal(one.refs, other.refs)


class Predictor(NamedTuple):
    """One linear predictor of the rows: X [n_rows, p], offset and sparse columns as `Design` has.

    `columns` are its places among all coefficients, a slice; and `blocks` of each of its terms the
    term's number, the number of its effects among those of all terms and predictors, and the block.
    """

    X: np.ndarray
    offset: np.ndarray | None
    sparse: csr_array | None
    columns: slice
    blocks: list


@dataclass(frozen=True)
class Design:
    """X [n_rows, p], the intercept's column of ones first if there is one, and the blocks.

    offset [n_rows], or None, is added to the linear predictor. `sparse`, a csr_array [n_rows, k],
    are the columns that are kept sparse, or None. At predict X is sparse itself where it would be
    too large. `models` are the `submodels.PartDesign`s of the model's other parts.
    """

    X: np.ndarray
    blocks: tuple
    offset: np.ndarray | None = None
    sparse: csr_array | None = None
    models: tuple = ()

    @property
    def n_rows(self):
        """Number of rows."""
        return self.X.shape[0]

    @property
    def predicted(self):
        """The other parts that have random effects, and so are linear predictors of the rows."""
        return tuple(part for part in self.models if part.blocks)

    @property
    def every_block(self):
        """The blocks, those of the other parts last."""
        return [*self.blocks, *(b for part in self.predicted for b in part.blocks)]

    @property
    def sizes(self):
        """Number of random effects of each block; of several predictors one for the same levels."""
        return [sum(b.n_levels * b.r for b in group) for group in self._groups]

    @property
    def coupled(self):
        """Which blocks have levels that depend on each other given all other terms."""
        return [group[0].coupled for group in self._groups]

    @property
    def _groups(self):
        """Blocks in lists, in which those of several predictors over the same levels are one."""
        groups = [[block] for block in self.blocks]
        for block in self.every_block[len(groups) :]:
            same = (group for group in groups if shared_levels(block, group[0]))
            if (group := next(same, None)) is None:
                groups.append(group := [])
            group.append(block)
        return groups

    @property
    def related(self):
        """Whether the levels of a block have a known relationship."""
        return any(b.relation is not None for b in self.every_block)

    def predictors(self, d=1):
        """The `Predictor`s of a row, d of them.

        They are the design's own and those of other parts, or else have the same columns and blocks
        each, with coefficients of their own.
        """
        out, p, terms = [], 0, 0
        if not self.predicted:
            p = self.X.shape[1]
            for c in range(d):
                blocks = [(k, k * d + c, b) for k, b in enumerate(self.blocks)]
                columns = slice(c * p, (c + 1) * p)
                out.append(Predictor(self.X, self.offset, self.sparse, columns, blocks))
            return out
        for own in (self, *self.predicted):
            columns, blocks = slice(p, p + own.X.shape[1]), list(enumerate(own.blocks, terms))
            blocks = [(k, k, b) for k, b in blocks]
            out.append(Predictor(own.X, own.offset, None, columns, blocks))
            p, terms = columns.stop, terms + len(blocks)
        return out


@dataclass(frozen=True)
class DesignSpec(PlainState):
    """All that a fitted model needs to rebuild its design from a new table: Python and NumPy."""

    columns: tuple
    fixed: tuple
    fixed_names: tuple
    fit_intercept: bool
    terms: tuple
    formula: object = None
    offset: str | int | None = None
    sparse: tuple = ()
    #: Of a fit that left columns out, which rows' means it determines.
    estimable: Estimable | None = None
    #: Names of the model's other parts, with a spec each.
    models: tuple = ()
    #: Of the part of the cutpoints, what its columns are less.
    centre: tuple = ()

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
        fewest=2,
        models=None,
    ):
        """(DesignSpec, Design) of a training table: a DataFrame, an array or a sparse one.

        Of the estimator's parameters `effects` are resolved, and the others are as they were given.
        `feature_names` are those of an array's columns. `keep_sparse` says whether sparse columns
        may stay so; few are made dense all the same. A factor has `fewest` levels at least.
        `models` are the model's other parts by name, each as `submodels` has it.
        """
        columns = table.columns if is_frame(table) else pd.RangeIndex(table.shape[1])
        effects = [_locate(e, columns, feature_names) for e in effects]
        check_repeated(effects)
        grouping = {c for e in effects for c in (*e.columns, *e.weight_columns)}
        if offset is not None:
            offset = _find(offset, columns, "offset", feature_names)
        formula, X = None, None
        if fixed_effects is None:
            apart = {c: own for c, own in (models or {}).items() if c == "nominal"}
            if apart:
                from sklmm.design.submodels import columns_of_parts

                grouping |= columns_of_parts(columns_read, table, apart, feature_names)
            fixed = tuple(c for c in columns if c not in grouping and c != offset)
        elif isinstance(fixed_effects, str):
            X, formula = learn_formula(fixed_effects, table, fit_intercept)
            fit_intercept = INTERCEPT in formula.column_names
            fixed = tuple(c for c in formula.column_names if c != INTERCEPT)
        else:
            fixed = tuple(_find(c, columns, "fixed_effects", feature_names) for c in fixed_effects)
        if len(set(fixed)) < len(fixed):
            repeated = next(c for i, c in enumerate(fixed) if c in fixed[:i])
            raise ValueError(f"fixed_effects: column {repeated!r} stands twice; keep one.")
        labels = [e.label for e in effects]
        term_names = [
            label if labels.count(label) == 1 else str(effect)
            for effect, label in zip(effects, labels, strict=True)
        ]
        run = in_threads if table.shape[0] >= LARGE else map
        learn = partial(learn_levels, table, fewest=fewest)
        learnt = list(run(learn, effects, term_names))
        terms, encoded = [], [refs for refs, _, _ in learnt]
        for effect, name, (_, levels, kinds) in zip(effects, term_names, learnt, strict=True):
            left = LeftHand.learn(table, effect, whole=fewest > 1)
            terms.append(TermSpec(effect, name, levels, kinds, left, effect.over(left.places)))
        positions = feature_names is not None and formula is None
        names = tuple(str(feature_names[c] if positions else c) for c in fixed)
        kept = ()
        if formula is None:
            kept = few_entries(table, fixed, sparse_of(table, fixed))
            kept = kept if keeps_sparse(table.shape[0], len(kept), keep_sparse) else ()
        spec = cls(tuple(columns), fixed, names, fit_intercept, tuple(terms), formula, offset, kept)
        design = spec._build(table, encoded, X)
        spec._check_magnitudes(design)
        if models:
            from sklmm.design.submodels import check_apart, learn_parts

            specs, designs = learn_parts(cls.learn, table, models, feature_names)
            spec, design = replace(spec, models=specs), replace(design, models=designs)
            check_apart(spec)
        return spec, design

    def apply(self, table, include=None, covariances=None):
        """Design of a new table; refs are -1 where a level is unseen or missing.

        `include` says for each term whether its effects count, all by default: the grouping columns
        of others are not looked at, and need not be there. By the `covariances` [r, r] of a fit,
        one a term, new times have the effects that known ones tell.
        """
        include = [True] * len(self.every_term) if include is None else include
        include, others = include[: len(self.terms)], include[len(self.terms) :]
        none = np.full(table.shape[0], -1, np.int32)
        encoded = [
            term.encode(table) if wanted else none
            for term, wanted in zip(self.terms, include, strict=True)
        ]
        design = self._build(table, encoded, covariances=covariances)
        if self.estimable is not None:
            self.estimable.check(design.X, self, table)
        if self.models:
            from sklmm.design.submodels import apply_parts

            design = replace(design, models=apply_parts(self.models, table, others))
        return design

    def is_of(self, effects, fixed_effects, fit_intercept, feature_names=None, offset=None):
        """Whether these parameters, as `learn` takes them, make the same columns of its table."""
        columns = self.columns
        if tuple(_locate(e, columns, feature_names) for e in effects) != tuple(
            term.effect for term in self.terms
        ):
            return False
        if offset is not None:
            offset = _find(offset, columns, "offset", feature_names)
        if offset != self.offset or isinstance(fixed_effects, str) == (self.formula is None):
            return False
        if self.formula is not None:
            table = pd.DataFrame(columns=pd.Index(columns, tupleize_cols=False))
            own, _ = parsed(fixed_effects, table, fit_intercept)
            return list(map(str, own)) == list(map(str, self.formula.spec.formula))
        effects = [term.effect for term in self.terms]
        grouping = {c for e in effects for c in (*e.columns, *e.weight_columns)}
        fixed = tuple(c for c in columns if c not in grouping and c != offset)
        if fixed_effects is not None:
            fixed = tuple(_find(c, columns, "fixed_effects", feature_names) for c in fixed_effects)
        return fixed == self.fixed and bool(fit_intercept) == self.fit_intercept

    def relearn(self, table):
        """(Design of another table by its own levels, those levels of each term)."""
        run = in_threads if table.shape[0] >= LARGE else map
        learn = partial(learn_levels, table, fewest=1)
        names = [t.name for t in self.terms]
        learnt = list(run(learn, [t.effect for t in self.terms], names))
        # Where no row has a membership there is a level all the same, of weight 0.
        found = [
            levels if len(levels) else term.levels[:1]
            for term, (_, levels, _) in zip(self.terms, learnt, strict=True)
        ]
        pairs = zip(self.terms, found, strict=True)
        spec = replace(self, terms=tuple(replace(term, levels=own) for term, own in pairs))
        design = spec._build(table, [refs for refs, _, _ in learnt])
        spec._check_magnitudes(design)
        return design, found

    def used(self, include=None):
        """Names of the table's columns that `apply` takes, each once."""
        include = [True] * len(self.every_term) if include is None else include
        include, others = include[: len(self.terms)], include[len(self.terms) :]
        columns = list(self.fixed if self.formula is None else self.formula.columns)
        columns += [] if self.offset is None else [self.offset]
        for term, wanted in zip(self.terms, include, strict=True):
            columns += [*(term.effect.columns if wanted else ()), *term.effect.slopes]
            columns += term.effect.weight_columns
        for _, spec in self.models:
            n = len(spec.terms)
            columns += spec.used(others[:n])
            others = others[n:]
        return tuple(dict.fromkeys(columns))

    def grown(self, table):
        """The spec with the levels of another table added to its terms'."""
        models = tuple((part, spec.grown(table)) for part, spec in self.models)
        return replace(self, terms=tuple(t.grown(table) for t in self.terms), models=models)

    def prefixed(self, prefixes):
        """The spec with names of other parts' terms that begin with a text, by part: "zero: g"."""
        models = []
        for part, own in self.models:
            start = f"{prefixes[part]}: " if own.terms else ""
            terms = tuple(replace(term, name=start + term.name) for term in own.terms)
            models.append((part, replace(own, terms=terms)))
        return replace(self, models=tuple(models))

    def places(self, grown):
        """Places of the levels among those of a `grown` spec, an array a term."""
        pairs = zip(self.every_term, grown.every_term, strict=True)
        return [new.levels.get_indexer(old.levels) for old, new in pairs]

    def complete(self, include=None):
        """Those of `used` that no row may miss: a membership may be none, without a weight."""
        effects = [term.effect for term in self.every_term]
        others = set(self.fixed if self.formula is None else self.formula.columns)
        for _, spec in self.models:
            others |= set(spec.fixed if spec.formula is None else spec.formula.columns)
        return set(self.used(include)) - _of_memberships(effects, others)

    def weighted(self, include=None):
        """Columns of labels and of their weights, pairs, of the memberships that count."""
        include = [True] * len(self.every_term) if include is None else include
        pairs = zip(self.every_term, include, strict=True)
        return _weighted(term.effect for term, wanted in pairs if wanted)

    def needed(self):
        """What no row may miss: columns, and pairs of which a label wants its weight."""
        return self.complete(), self.weighted()

    @property
    def predictors(self):
        """Columns that a prediction cannot do without: all but the grouping columns."""
        return self.complete([False] * len(self.every_term))

    @property
    def coded(self):
        """Whether a term has coefficients by the labels or times of the rows of the fit."""
        return any(term.left.coded for term in self.every_term)

    @property
    def every_term(self):
        """The terms, those of the model's other parts last."""
        return (*self.terms, *(term for _, spec in self.models for term in spec.terms))

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
        sparse = set(self.sparse)
        return tuple(i for i in range(len(self.fixed)) if i not in sparse)

    def _check_magnitudes(self, design):
        parts = [(self.coef_names, design.X)]
        if design.offset is not None:
            parts.append(((self.offset,), design.offset[:, None]))
        for term, block in zip(self.terms, design.blocks, strict=True):
            if isinstance(block.z, np.ndarray):
                parts.append((term.cnames, block.z.reshape(-1, block.r)))
        for names, columns in parts:
            sizes = np.maximum(columns.max(axis=0), -columns.min(axis=0))
            for name, size in zip(names, sizes, strict=False):
                check_magnitude(f"X's column {name!r}", size)

    def _fixed_part(self, table):
        if self.formula is not None:
            return apply_formula(self.formula, table)
        columns = [self.fixed[i] for i in self._dense]
        if too_large(table, columns):
            X = sparse_columns(table, columns, "fixed-effects")
            return hstack([np.ones((X.shape[0], 1)), X], "csr") if self.fit_intercept else X
        return numeric_columns(table, columns, "fixed-effects", self.fit_intercept)

    def _build(self, table, encoded, X=None, covariances=None):
        X = self._fixed_part(table) if X is None else X
        blocks = []
        for k, (term, refs) in enumerate(zip(self.terms, encoded, strict=True)):
            found, effect = None, term.effect
            if effect.ordered and covariances is not None and not effect.tied:
                from sklmm.design.between import between

                found = between(term, table, covariances[k])
            z, new = (_loadings(term, table), None) if found is None else found
            if effect.tied:
                from sklmm.design.memberships import memberships

                refs, z = memberships(table, effect, refs, z)
            own = len(term.levels), term.covariance, effect.relation
            blocks.append(Block(refs, z, *own, new))
        offset, kept = self.offset, None
        if offset is not None:
            offset = numeric_columns(table, (offset,), "offset")[:, 0]
        if self.sparse:
            kept = sparse_columns(table, [self.fixed[i] for i in self.sparse], "fixed-effects")
        return Design(X, tuple(blocks), offset, kept)


def _loadings(term, table):
    """Z of a term's rows, see `LeftHand.loadings`; NewTime for new times of memberships."""
    try:
        return term.left.loadings(table)
    except NotSeen as error:
        if term.effect.tied and term.effect.ordered and term.left.coded[0].kind == "time":
            raise NewTime(error.what, error.labels, error.otherwise) from None
        raise


def check_effects(spec, design, n, sums=None):
    """Raise ValueError for a term of slopes that leaves nothing to the residual, as lme4 does.

    One effect a row is a flat direction, and more a likelihood without a maximum. Of a factor on
    the left only those effects count that rows have: an arm that a subject is not in has none.
    `sums` are Z_k^T w Z_k [J, r, r] of each term where the design has no rows.
    """
    # Precisions add up to the number of rows but for rounding.
    least = n * (1 - 1e-12)
    for k, (term, block) in enumerate(zip(spec.terms, design.blocks, strict=True)):
        r, levels = block.r, block.n_levels
        apart = term.effect.relation is None
        if r > 1 and levels * r >= least and term.covariance.saturates and apart:
            if term.left.coded and not block.tied:
                known = _effects_of_rows(block) if sums is None else matrix_rank(sums[k]).sum()
                if known < least:
                    continue
            raise ValueError(
                f"random_effects: the term '{term.effect}' has {levels} levels x {r} coefficients, "
                f"no fewer than the {n:.10g} rows, and the residual's variance has no estimate: "
                "leave out a slope, or pin the residual SD, family=Gaussian(sigma=...)."
            )


def _effects_of_rows(block):
    """Number of the different (level, row of z) that occur: no more effects are told apart."""
    if isinstance(block.z, Indicators):
        return len(np.unique(block.z.cells(block.refs)))
    return len(np.unique(np.column_stack([block.refs, block.z]), axis=0))


def columns_read(
    table, effects, fixed_effects, offset, feature_names=None, complete=True, models=None
):
    """Columns that a model of these parameters reads, a set; see `DesignSpec.learn`.

    Those `complete` no row may miss: without those of memberships and of their weights.
    """
    if models:
        from sklmm.design.submodels import columns_of_parts

        read = columns_read(table, effects, fixed_effects, offset, feature_names, complete)
        return read | columns_of_parts(columns_read, table, models, feature_names)
    columns = table.columns if is_frame(table) else pd.RangeIndex(table.shape[1])
    effects = [_locate(e, columns, feature_names) for e in effects]
    if fixed_effects is None:
        return set(columns) - (_of_memberships(effects) if complete else set())
    read = {c for e in effects for c in (*e.columns, *e.slopes, *e.weight_columns)}
    if offset is not None:
        read.add(_find(offset, columns, "offset", feature_names))
    if isinstance(fixed_effects, str):
        fixed = parsed(fixed_effects, table)[1]
    else:
        fixed = [_find(c, columns, "fixed_effects", feature_names) for c in fixed_effects]
    read.update(fixed)
    return read - _of_memberships(effects, fixed) if complete else read


def columns_needed(table, effects, fixed_effects, offset, feature_names=None, models=None):
    """What no row may miss, as `DesignSpec.needed` has it, for parameters like `columns_read`'s."""
    columns = table.columns if is_frame(table) else pd.RangeIndex(table.shape[1])
    found = [_locate(e, columns, feature_names) for e in effects]
    given = effects, fixed_effects, offset, feature_names
    return columns_read(table, *given, models=models), _weighted(found)


def _weighted(effects):
    return [pair for e in effects for pair in zip(e.columns, e.weight_columns, strict=False)]


def _of_memberships(effects, others=()):
    """Columns of memberships and of their weights that nothing else of the model reads."""
    tied, read = set(), set(others)
    for effect in effects:
        read.update(effect.slopes)
        (tied if effect.tied else read).update(effect.columns)
        tied.update(effect.weight_columns)
    return tied - read


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
    if isinstance(columns, pd.RangeIndex) and feature_names is None:
        raise ValueError(
            f"{parameter}: column {column!r} is not in X, whose {len(columns)} columns have no "
            f"names: give X as a DataFrame, or positions. {UNNAMED}"
        )
    known = ", ".join(map(repr, columns[:10])) + (", ..." if len(columns) > 10 else "")
    prefixed = [c for c in columns if isinstance(c, str) and c.endswith(f"__{column}")]
    hint = " ColumnTransformer(..., verbose_feature_names_out=False) leaves names as they are."
    raise ValueError(
        f"{parameter}: column {column!r} is not in X, which has {known}.{hint * bool(prefixed)}"
    )


def _locate(effect, columns, feature_names):
    # A tuple may be a name, of a table whose names have several levels.
    named = (effect.group,) if effect.group in set(columns) else effect.columns
    group = tuple(_find(c, columns, "random_effects", feature_names) for c in named)
    slopes = tuple(_find(c, columns, "random_effects", feature_names) for c in effect.slopes)
    group = group if len(group) > 1 or isinstance(group[0], tuple) else group[0]
    weights = effect.weights
    if effect.weight_columns:
        weights = tuple(_find(c, columns, "random_effects", feature_names) for c in weights)
    return replace(effect, group=group, slopes=slopes, weights=weights)
