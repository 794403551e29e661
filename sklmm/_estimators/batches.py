"""Gaussian models from batches of rows: of any size, from Parquet files, and as rows come in.

A Gaussian fit knows its rows by sums (`_estimators.accumulated`). Each batch is checked and read as
the table of a fit is, its sums are added, and it is let go.
"""

import warnings
from collections.abc import Iterable
from copy import copy
from dataclasses import replace
from functools import partial

import pandas as pd
from sklearn.base import _fit_context, clone

from sklmm._estimators.accumulated import Accumulated, Head, Joining, some_at_a_time
from sklmm._estimators.input import check_total, restoring
from sklmm._estimators.parquet import column_names, parquet_files, row_groups
from sklmm._estimators.parts import naming, read_part
from sklmm._estimators.priors import check_whole
from sklmm._estimators.progress import Watch
from sklmm._estimators.warnings import warn, warnings_of_sums
from sklmm._fitted.measures import Spread
from sklmm._fitted.model import FittedModel
from sklmm._fitted.tables import Labels
from sklmm._threads import ahead, return_freed_memory
from sklmm.design.design import check_effects, columns_read
from sklmm.design.estimable import Estimable
from sklmm.design.formula import response_columns
from sklmm.design.terms import resolve_terms
from sklmm.engine import in_parts as engine
from sklmm.families import Response, resolve_family
from sklmm.steps import ConjugateGradient, Exact

#: The estimator's parameters that decide what is summed.
SUMMED = ("random_effects", "fixed_effects", "fit_intercept", "offset", "missing")

#: Batches of a file that are in memory at a time, and summed by a thread each.
AT_A_TIME = 8


class Batches:
    """Methods of `MixedEffectsRegressor` that see a part of the rows at a time."""

    @_fit_context(prefer_skip_nested_validation=True)
    def fit_batches(self, batches, *, keep_sums=False):
        """Fit a Gaussian model to a table that comes in batches of rows.

        The estimates are those of `fit` on all rows at once, to rounding. Each batch is read once,
        and only sums are kept of it: the memory that a fit takes is that of a batch, of the levels
        and of the pairs of levels of two crossed factors that occur, whatever the number of rows.

        Parameters
        ----------
        batches : iterable, or callable that returns one
            Of (X, y) or (X, y, sample_weight), each as `fit` takes them; y is None where a formula
            names it. Batches have the same columns. An empty one is passed over. Levels may appear
            in any batch. The first batch sets the units of the sums: one with rows from all over
            the table serves best.
        keep_sums : bool, default=False
            Keep the sums, so that `partial_fit` can add rows to them.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            Naming the batch by its number, counted from 0, the column or parameter, the value and
            the remedy; the estimator is left as it was. For families other than the Gaussian,
            e_steps other than "auto", "exact" and "cg", and formulas with functions of more than
            one row, or with factors that have levels which the first batch has not.

        See Also
        --------
        fit_parquet : The same for Parquet files.
        partial_fit : Solves the model after each batch.

        Examples
        --------
        >>> from sklmm import MixedEffectsRegressor
        >>> from sklmm.datasets import load_sleepstudy
        >>> X, y = load_sleepstudy(return_X_y=True, as_frame=True)
        >>> batches = ((X[i : i + 50], y[i : i + 50]) for i in range(0, 180, 50))
        >>> model = MixedEffectsRegressor(["(1 + Days | Subject)"]).fit_batches(batches)
        >>> model.coef_.round(2)
        array([10.47])
        """

        def summed():
            found = batches() if callable(batches) else batches
            if not isinstance(found, Iterable):
                raise TypeError(
                    f"batches: it is a {type(found).__name__}, and must be an iterable of "
                    "(X, y) or (X, y, sample_weight), or a callable that returns one."
                )
            return self._summed((f"batch {i}", batch) for i, batch in enumerate(found))

        return self._fit_sums(summed, keep_sums)

    @_fit_context(prefer_skip_nested_validation=True)
    def fit_parquet(self, path, y=None, sample_weight=None, *, keep_sums=False):
        """Fit a Gaussian model to Parquet files, some row groups at a time.

        Of the files only the columns that the model reads are read. See `fit_batches`: the
        estimates are those of `fit` on all rows at once.

        Parameters
        ----------
        path : str, Path or list of them
            Files, and folders of files ``*.parquet``, which are taken in the order of their names.
            Folders below, such as ``year=2024``, stand for a column of their files. The columns
            are those of the first file.
        y : str, optional
            Column of the response; None where a formula names it.
        sample_weight : str, optional
            Column of the weights, see `fit`. With ``fixed_effects=None`` neither of the two is a
            column of the fixed part.
        keep_sums : bool, default=False
            Keep the sums, so that `partial_fit` can add rows to them.

        Returns
        -------
        self

        Raises
        ------
        ImportError
            Without pyarrow.
        ValueError, TypeError
            Naming the batch, its file and row group, and the column; see `fit_batches`.

        Examples
        --------
        >>> import tempfile
        >>> from pathlib import Path
        >>> from sklmm import MixedEffectsRegressor
        >>> from sklmm.datasets import load_sleepstudy
        >>> table = load_sleepstudy(as_frame=True).frame
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     table[:90].to_parquet(Path(folder) / "a.parquet")
        ...     table[90:].to_parquet(Path(folder) / "b.parquet")
        ...     model = MixedEffectsRegressor(["(1 + Days | Subject)"])
        ...     model.fit_parquet(folder, y="Reaction").coef_.round(2)
        array([10.47])
        """

        def summed():
            batches = self._parquet_batches(parquet_files(path), y, sample_weight)
            return self._summed(batches, AT_A_TIME)

        return self._fit_sums(summed, keep_sums)

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X, y=None, sample_weight=None):
        """Add rows to a Gaussian model, and solve it again.

        After every call the estimates are those of `fit` on the rows of all calls so far. Rows are
        not kept, but sums of them are, which are saved with the estimator; levels that are new join
        the others. With ``warm_start=True`` the solver starts from the estimates before, and both
        differ by less than `tol` standard errors.

        `update` is the quicker way for rows that change the effects of their groups alone.

        Parameters
        ----------
        X : DataFrame, array-like or sparse matrix of shape (n_rows, n_columns)
            Columns as in the first call.
        y : array-like of shape (n_rows,), optional
            Response; None where a formula names it.
        sample_weight : array-like of shape (n_rows,), optional
            As in `fit`.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            As `fit_batches`; the estimator, and its sums, are left as they were.

        Warns
        -----
        UserWarning
            Where another method has fitted the estimator, which keeps no sums: its rows are
            forgotten.

        Examples
        --------
        >>> from sklmm import MixedEffectsRegressor
        >>> from sklmm.datasets import load_sleepstudy
        >>> X, y = load_sleepstudy(return_X_y=True, as_frame=True)
        >>> model = MixedEffectsRegressor(["(1 + Days | Subject)"])
        >>> model.partial_fit(X[:90], y[:90]).coef_.round(2)
        array([7.39])
        >>> model.partial_fit(X[90:], y[90:]).coef_.round(2)
        array([10.47])
        """

        def summed():
            before = getattr(self, "_sums", None)
            if before is None and hasattr(self, "result_"):
                text = (
                    "partial_fit begins anew with these rows: the fit before it kept no sums of "
                    "its own. Give all rows to partial_fit, or begin by fit_batches(..., "
                    "keep_sums=True)."
                )
                warnings.warn(text, UserWarning, stacklevel=5)
            head = None if before is None else before.head
            if head is not None:
                self._check_sums_of(head)
            part, n_missing = self._part(head, X, y, sample_weight)
            parts = [sums for sums in (before, part) if sums is not None]
            if not parts:
                raise ValueError("X: no row counts: the table is empty, or its weights are 0.")
            return Accumulated.joined(parts).without(n_missing)

        return self._fit_sums(summed, True)

    def _fit_sums(self, summed, keep_sums):
        """Fit the model of the `Accumulated` that `summed` makes; rows are not at hand."""
        task = self._init_callback_context(max_subtasks=self.max_iter)
        data = {"X": None, "y": None, "metadata": None}
        family = resolve_family(self.family)
        if not family.closed_form:
            self._refuse_sums()
        check_whole(self, "fit_batches, fit_parquet and partial_fit")
        with restoring(self):
            task.call_on_fit_task_begin(estimator=self, **data)
            sums = summed()
            warn(self._solve(sums, partial(Watch, self, task, data), self.warm_start))
            task.call_on_fit_task_end(estimator=self, **data, reconstruction_attributes={})
            if keep_sums:
                self._sums = sums
        return self

    def _refuse_sums(self):
        raise ValueError(
            f"family={self.family!r} has no sums that stand for its rows: fit_batches, "
            "fit_parquet and partial_fit are for family='gaussian' and 'lognormal' of one column "
            "y. Use fit."
        )

    def _summed(self, batches, at_a_time=1):
        """`Accumulated` of (text that says which, batch) one after another.

        So many are summed `at_a_time`, by threads, once one has made the head.
        """
        batches, sums, n_missing = iter(batches), Joining(), 0

        def part_of(named, head=None):
            which, batch = named
            with naming(which):
                return self._part(head, *_unpacked(batch), where=f"in {which}")

        for first, more in map(part_of, batches):
            n_missing += more
            if first is not None:
                break
        else:
            raise ValueError(
                "batches: there is no row to fit: there are no batches, or they are empty or of "
                "weight 0. An iterator is used up after one fit."
            )

        def known():
            """The parts in which some row counts."""
            nonlocal n_missing
            yield first
            for part, more in ahead(partial(part_of, head=first.head), batches, at_a_time):
                n_missing += more
                if part is not None:
                    yield part

        for joined in ahead(Accumulated.joined, some_at_a_time(known()), at_a_time):
            sums.add(joined)
        # The last join, and the fit, have to do with all pairs of levels at once.
        return_freed_memory()
        whole = sums.joined().without(n_missing)
        return_freed_memory()
        return whole

    def _parquet_batches(self, files, y, sample_weight):
        response = self._formula_response() if y is None else None
        if y is None and response is None:
            raise ValueError("y: name the column of the response, which no formula does.")
        others = [] if response is None else response_columns(response)
        names = [n for n in column_names(files[0]) if n not in (y, sample_weight)]
        empty = pd.DataFrame({name: [] for name in names if name not in others})
        terms = resolve_terms(self.random_effects, empty.columns)
        read = columns_read(empty, terms, self.fixed_effects, self.offset, complete=False)
        names = [n for n in names if n in read or n in others]
        extra = [c for c in (y, sample_weight) if c is not None and c not in names]
        number = 0
        for file in files:
            for which, table in row_groups(file, [*names, *extra]):
                weights = None if sample_weight is None else table[sample_weight]
                answer = None if y is None else table[y]
                yield f"batch {number} ({which})", (table[names], answer, weights)
                number += 1

    def _sums_parameters(self):
        """What decides the sums of rows besides the columns: response, missing values, family."""
        response, family = self._formula_response(), resolve_family(self.family)
        return response, self.missing, family.weights, family.name

    def _check_sums_of(self, head):
        """ValueError for parameters by which other sums are made than the head's."""
        spec, names = head.growing.spec, getattr(self, "feature_names_in_", None)
        names = None if names is None or head.known["from_frame"] else list(names)
        effects = resolve_terms(self.random_effects, spec.columns)
        same = spec.is_of(effects, self.fixed_effects, self.fit_intercept, names, self.offset)
        if not same or head.parameters != self._sums_parameters():
            raise ValueError(
                "partial_fit: the parameters that make the model's columns have changed since the "
                f"first rows ({', '.join(SUMMED)}, the family, its weights), and sums of other "
                "columns cannot be added: begin anew, with sklearn.base.clone."
            )

    def _part(self, head, X, y, sample_weight=None, where="in the rows before"):
        """(`Accumulated` of a batch of rows, None where none counts; rows left out in that case).

        A first batch, without a head, makes one; errors of later ones say `where` its rows were.
        """
        part = read_part(self, head, X, y, sample_weight)
        if part.table is None:
            return None, part.n_missing
        family = self._resolve_family(part.y)
        if not family.closed_form:
            self._refuse_sums()
        # Precisions are scaled when all are known.
        precision = family.weights == "precision"
        response = Response(family, part.y, part.weights) if precision else None
        response = response or family.bind(part.y, part.weights)
        if head is not None:
            return head.with_rows(part.table, response, part.n_missing), 0
        growing, design, known = part.learnt(self, self.fit_intercept)
        head = Head.of(growing, design, response, known, self._sums_parameters(), where)
        return head.with_design(growing, design, response, part.n_missing), 0

    def _solve(self, sums, watch, warm):
        """Fit the model of all rows, from their sums, and give its warnings, (text, category)."""
        sums = sums.whole()
        family, statistics = resolve_family(self.family), sums.statistics
        sums.growing.check()
        spec, response, design = sums.growing.spec, sums.response(family), sums.design()
        precision = family.weights == "precision"
        total = statistics.n_rows if precision else statistics.weight
        check_total(family, total)
        e_step = self._checked_e_step(spec, design, response)
        if not isinstance(e_step, Exact | ConjugateGradient) or not self._stops_by_rule():
            raise ValueError(
                f"e_step={self.e_step!r}, m_step={self.m_step!r}: they read the rows again and "
                "again, and batches are read once: use e_step 'auto', 'exact' or 'cg' and "
                "m_step='auto', or fit."
            )
        if response.parameters["sigma"] == "positive":
            check_effects(spec, design, total, statistics.own)
        known = {name: sums.head.known[name] for name in ("response_name", "from_frame", "by_name")}
        known["family"] = clone(family) if family is self.family else family
        known["e_step"] = clone(e_step) if e_step is self.e_step else e_step
        known["n_missing"] = sums.n_missing
        known["fingerprint"] = sums.marked(family)
        moments = engine.moments(statistics, spec.fit_intercept, design.blocks)

        def model(spec, result):
            return FittedModel(
                spec=spec,
                labels=Labels.of(spec, design.blocks, response),
                classes=None,
                n_predictors=1,
                spread=Spread.of_moments(moments, sums.noise, result),
                **known,
            )

        def fitted(result):
            other = copy(self)
            other._set_fitted(model(spec, result), result)
            return vars(other)

        start = getattr(self, "result_", None) if warm else None
        watched = self.verbose or hasattr(self, "_skl_callbacks")
        result = engine.run_statistics(
            statistics,
            design,
            spec.coef_names,
            response,
            self._settings(response, spec.fit_intercept, e_step, start),
            watch(fitted) if watched else None,
        )
        if (dropped := result.dropped[: design.X.shape[1]]).any():
            found = engine.combination_of_sums(statistics, spec.fit_intercept, dropped)
            spec = replace(spec, estimable=Estimable(dropped, *found))
        self._set_fitted(model(spec, result), result)
        return warnings_of_sums(self, moments, statistics)


def _unpacked(batch):
    """(X, y, weights or None) of a batch."""
    if not isinstance(batch, tuple | list) or len(batch) not in (2, 3):
        raise TypeError(
            f"it is a {type(batch).__name__}, and must be a tuple (X, y) or (X, y, sample_weight)."
        )
    return batch
