"""Marginal means and their contrasts, as tables that say how they were made."""

from dataclasses import dataclass
from html import escape
from itertools import combinations

import numpy as np
import pandas as pd

from sklmm._fitted.marginal_means import Means
from sklmm._fitted.model import FittedModel
from sklmm._fitted.multiplicity import ADJUSTMENTS, TITLES, adjusted, critical
from sklmm._tables import Table
from sklmm.result import EMResult


@dataclass(frozen=True)
class NotedTable:
    """A table with notes of how it was made.

    Attributes
    ----------
    table : DataFrame
    notes : tuple of str
        What the numbers are averages over, and what the intervals are.
    """

    table: pd.DataFrame
    notes: tuple

    def __repr__(self):
        return "\n".join([repr(self.table), "", *self.notes])

    def _repr_html_(self):
        notes = "<br>".join(map(escape, self.notes))
        return f"{self.table._repr_html_()}<p>{notes}</p>"


@dataclass(frozen=True, repr=False)
class MarginalMeans(NotedTable):
    """Estimated marginal means, as the method `marginal_means` of an estimator makes them.

    Attributes
    ----------
    table : DataFrame
        estimate, std_error, df (of a Gaussian model with degrees of freedom), ci_lower, ci_upper;
        one row a mean, by the levels of `by`, the class and the levels of `specs`.
    notes : tuple of str
        What the means are averages over, and what the intervals are.
    level : float
        Coverage of the intervals.
    by : tuple of str
        Columns within whose levels contrasts are made; "class" is one of them where the means are
        probabilities of several classes.

    Examples
    --------
    >>> from sklmm import MixedEffectsRegressor
    >>> from sklmm.datasets import load_cbpp
    >>> X, y = load_cbpp(return_X_y=True, as_frame=True)
    >>> model = MixedEffectsRegressor(["herd"], fixed_effects="~ C(period)", family="binomial")
    >>> means = model.fit(X, y / X["size"], X["size"]).marginal_means("period")
    >>> means.table["estimate"].round(2).tolist()
    [0.22, 0.1, 0.09, 0.06]
    >>> (means.pairwise().table["p"] < 0.05).tolist()
    [True, True, True, False, False, False]
    """

    level: float
    by: tuple
    #: What the notes say of tests and intervals.
    law: str
    _means: Means
    _model: FittedModel
    _result: EMResult

    @classmethod
    def of(cls, means, index, by, level, notes, model, result):
        """The means of an index whose first levels are `by`, every one with the same others."""
        found = means.combined(model, result, np.eye(len(index)))
        exact = means.linear and result.dof_root is not None
        law = "normal" if means.linear else "normal, delta method"
        if exact:
            rule = {"satterthwaite": "Satterthwaite", "kenward-roger": "Kenward-Roger"}
            law = f"t with {rule[result.dof_rule]} degrees of freedom"
        interval = means.intervals(found, critical(level, found.dof, None, 1))
        table = _table(found, exact, interval).set_axis(index)
        scale = f", on the {means.interval_scale} scale" if means.interval_scale else ""
        notes = (*notes, f"{100 * level:g} % confidence intervals ({law}{scale}).")
        return cls(table, notes, level, by, law, means, model, result)

    def pairwise(self, adjust="tukey"):
        """Differences of all pairs of means within the levels of `by`, the first less the second.

        Parameters
        ----------
        adjust : {"tukey", "sidak", "bonferroni", "holm", "fdr"} or None, default="tukey"
            How p values and intervals are adjusted for the number of pairs within the levels of
            `by`; None takes each by itself.

        Returns
        -------
        NotedTable
            estimate, std_error, df and t (or z), p, ci_lower, ci_upper; one row a pair.

        Raises
        ------
        ValueError
            For an adjustment that is not available, or where there is one mean alone.

        References
        ----------
        Searle, Speed & Milliken (1980), The American Statistician 34, 216-221.

        Examples
        --------
        >>> from sklmm import MixedEffectsRegressor
        >>> from sklmm.datasets import load_cbpp
        >>> X, y = load_cbpp(return_X_y=True, as_frame=True)
        >>> model = MixedEffectsRegressor(["herd"], fixed_effects="~ C(period)", family="binomial")
        >>> means = model.fit(X, y / X["size"], X["size"]).marginal_means("period", scale="link")
        >>> means.pairwise("holm").table["estimate"].round(2).tolist()
        [0.99, 1.13, 1.58, 0.14, 0.59, 0.45]
        """
        labels = self._labels()
        if len(labels) < 2:
            raise ValueError("pairwise: there is one mean alone: name a column of several levels.")
        pairs = list(combinations(range(len(labels)), 2))
        D = np.zeros((len(pairs), len(labels)))
        D[range(len(pairs)), [i for i, _ in pairs]] = 1.0
        D[range(len(pairs)), [j for _, j in pairs]] = -1.0
        return self._contrasts([f"{labels[i]} - {labels[j]}" for i, j in pairs], D, adjust)

    def contrasts(self, weights, adjust=None):
        """Weighted sums of the means within the levels of `by`.

        Parameters
        ----------
        weights : dict of str to array-like of shape (n_means,)
            By the contrast's name, the weight of each mean in the table's order.
        adjust : {"sidak", "bonferroni", "holm", "fdr"} or None, default=None
            As in `pairwise`.

        Returns
        -------
        NotedTable
            As of `pairwise`.

        Raises
        ------
        ValueError
            For weights of another number, and an adjustment that is not available.

        Examples
        --------
        >>> from sklmm import MixedEffectsRegressor
        >>> from sklmm.datasets import load_cbpp
        >>> X, y = load_cbpp(return_X_y=True, as_frame=True)
        >>> model = MixedEffectsRegressor(["herd"], fixed_effects="~ C(period)", family="binomial")
        >>> means = model.fit(X, y / X["size"], X["size"]).marginal_means("period", scale="link")
        >>> found = means.contrasts({"first less the rest": [1, -1 / 3, -1 / 3, -1 / 3]})
        >>> found.table["estimate"].round(2).tolist()
        [1.23]
        """
        n = len(self._labels())
        for name, own in weights.items():
            if np.shape(own) != (n,):
                raise ValueError(
                    f"weights: {name!r} has shape {np.shape(own)}, and there are {n} means: give "
                    "one weight for each, in the table's order."
                )
        if not weights:
            raise ValueError(
                f"weights has no contrast: give a name, and one weight for each of the {n} means."
            )
        if adjust == "tukey":
            raise ValueError("adjust='tukey' is for the differences of pairs: use 'sidak'.")
        D = np.array(list(weights.values()), dtype=float).reshape(-1, n)
        return self._contrasts(list(weights), D, adjust)

    def _labels(self):
        """What the means within one level of `by` are called."""
        inner = [label[len(self.by) :] for label in _tuples(self.table.index)]
        return [" ".join(map(_shown, label)) for label in dict.fromkeys(inner)]

    def _contrasts(self, names, D, adjust):
        if adjust is not None and adjust not in ADJUSTMENTS:
            raise ValueError(
                f"adjust={adjust!r} is not available: use {', '.join(map(repr, ADJUSTMENTS))} or "
                "None."
            )
        (q, n), size = D.shape, len(self.table)
        found = self._means.combined(self._model, self._result, np.kron(np.eye(size // n), D))
        half, p = np.empty(len(found.dof)), np.empty(len(found.dof))
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = found.estimate / found.std_error
        for first in range(0, len(half), q):
            own = slice(first, first + q)
            half[own] = critical(self.level, found.dof[own], adjust, n)
            p[own] = adjusted(ratio[own], found.dof[own], adjust, n)
        exact = "df" in self.table
        tests = {"t" if exact else "z": ratio, "p": p}
        outer = [label[: len(self.by)] for label in _tuples(self.table.index[::n])]
        index = pd.Index(names, name="contrast")
        if self.by:
            rows = [(*label, name) for label in outer for name in names]
            index = pd.MultiIndex.from_tuples(rows, names=[*self.by, "contrast"])
        within = f" within each level of {', '.join(map(str, self.by))}" if self.by else ""
        family = f"{n} means" if adjust == "tukey" else f"{q} contrasts"
        how = f"{TITLES[adjust]} for {family}{within}" if adjust else "not adjusted"
        told = f"p values and {100 * self.level:g} % confidence intervals ({self.law}): {how}."
        half = half * found.std_error
        interval = found.estimate - half, found.estimate + half
        table = _table(found, exact, interval, tests).set_axis(index)
        return NotedTable(table, (*self.notes[:-1], told))


def _table(found, exact, interval, tests=None):
    """A table of estimates, df where laws are `exact`, `tests` and an interval (lower, upper)."""
    columns = {"estimate": found.estimate, "std_error": found.std_error}
    columns |= {"df": found.dof} if exact else {}
    lower, upper = interval
    return Table({**columns, **(tests or {}), "ci_lower": lower, "ci_upper": upper})


def _tuples(index):
    return [label if isinstance(label, tuple) else (label,) for label in index]


def _shown(label):
    return f"{label:g}" if isinstance(label, float) else str(label)
