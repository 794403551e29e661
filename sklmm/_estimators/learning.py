"""What the parts of a table tell of their rows, and the rows of a model that are made of them.

Plain functions, to be called where a part is. Each part tells its levels, moments, and what is to
be known of its y: joined, these make the columns of the model and their standard units. By them
some parts, neighbours, become a `Shard`.
"""

import re
from contextlib import suppress
from copy import copy
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd

from sklmm._estimators.accumulated import Head
from sklmm._estimators.input import informative
from sklmm._estimators.parts import naming, read_part
from sklmm._fitted.fingerprint import FingerprintSums
from sklmm.design.growing import GrowingSpec
from sklmm.engine import in_parts as engine
from sklmm.families import Response, resolve_family
from sklmm.families.classes import labels

#: Rows, from all over a part, that begin a fit.
SAMPLE = 1 << 16
NO_ROWS = (
    "X: there is no row to fit: all partitions are empty, or their rows have weight 0 or miss "
    "values."
)


class Begun(NamedTuple):
    """What all parts are read by: an estimator that knows the columns, and the head."""

    model: object
    head: Head


class Answers(NamedTuple):
    """What is to be known of a part's y.

    classes, those that occur, and declared, the categories of an ordered categorical, are None of
    families without classes. total and total_y are the sums of the weights and of weighted y;
    log_constant and n_obs are those of its `Response`, the former None where it is not known.
    """

    classes: np.ndarray | None
    declared: pd.Index | None
    total: float
    total_y: float
    log_constant: float | None
    n_obs: float


class Summary(NamedTuple):
    """What a part tells of its rows, None all but `n_missing` where none counts.

    `statistics` are the engine's, of terms without levels.
    """

    n_missing: int
    n_rows: int = 0
    growing: GrowingSpec | None = None
    statistics: object = None
    answers: Answers | None = None


class Learnt(NamedTuple):
    """A part that has been read: its `Summary`, and design and response by levels of its own."""

    summary: Summary
    design: object = None
    response: object = None


class Plan(NamedTuple):
    """What makes a shard's rows of the parts: standard units, numbers of levels, and the family."""

    standard: object
    sizes: tuple
    family: object
    classes: np.ndarray | None


class Shard(NamedTuple):
    """Rows in standard units, and what they add to a `Fingerprint`."""

    rows: object
    fingerprint: FingerprintSums


def begin(made, model, which, rows):
    """`Begun` by a part, (X, y, weights), which `made` makes of some of its rows, if these do.

    None where no row counts.
    """
    # A formula's factors have the levels of all rows, and so have those of terms.
    whole = isinstance(model.fixed_effects, str)
    step = 1 if whole else max(np.shape(rows[0])[0] // SAMPLE, 1)
    some = [None if own is None else own[::step] for own in rows]
    if step > 1:
        # A row that is wrong is to be told by its number in the part.
        with suppress(TypeError, ValueError):
            begun = made(copy(model), which, some)
            if begun is not None and not begun.head.growing.spec.coded:
                return begun
    return made(copy(model), which, rows)


def units_of(model, which, rows):
    """`Begun` by rows whose units are those of all parts; None where none counts."""
    with naming(which):
        part = read_part(model, None, *rows)
        if part.table is None:
            return None
        table, response, _ = _answered(model, part)
        if not table.shape[0]:
            return None
        part = part._replace(table=table)
        growing, design, known = part.learnt(model, model.fit_intercept or _is_ordinal(model))
        _check_independent(growing.spec.terms)
    intercept = growing.spec.fit_intercept
    units = engine.units_of(design, response.y, response.weights, fit_intercept=intercept)
    # Pairs of levels are the rows' own.
    units = units._replace(order=())
    return Begun(model, Head(growing.head(), units, known, (), f"in {which}"))


def _check_independent(terms):
    """ValueError for a term with levels that depend on each other."""
    for term in terms:
        if term.effect.relation is not None or term.effect.tied:
            what = "memberships" if term.effect.tied else "a Relationship"
            raise ValueError(
                f"random_effects: the term '{term.effect}' has {what}, whose levels are "
                "fitted from sums of parts, or from a table in one piece: use family='gaussian' "
                "with e_step 'auto', 'exact' or 'cg', or fit of the local estimator, by 'laplace'."
            )


def learn(begun, which, rows):
    """`Learnt` of a part."""
    head = begun.head
    with naming(which):
        part = read_part(copy(begun.model), head, *rows)
        if part.table is None:
            return Learnt(Summary(part.n_missing))
        table, response, answers = _answered(begun.model, part)
        if not table.shape[0]:
            return Learnt(Summary(part.n_missing))
        growing, design = head.growing.of_batch(table, head.where)
    none = np.zeros(table.shape[0], np.int32)
    flat = tuple(replace(block, refs=none, n_levels=1) for block in design.blocks)
    statistics = engine.sums_of(
        head.units,
        replace(design, blocks=flat),
        response.y if answers.classes is None else np.zeros(len(response.y)),
        response.weights,
        fit_intercept=growing.spec.fit_intercept,
    )
    summary = Summary(part.n_missing, table.shape[0], growing, statistics, answers)
    return Learnt(summary, design, response)


def summary_of(learnt):
    """What of a part that was read leaves its place."""
    return learnt.summary


def shard_of(parts, places, codes, plan):
    """`Shard` of several `Learnt` parts.

    `places` of each part are those of its levels among all, an array a term, and `codes` those of
    its classes, or None.
    """
    rows, fingerprints = [], []
    for part, own, of_classes in zip(parts, places, codes, strict=True):
        blocks = tuple(
            replace(block, refs=at.astype(np.int32)[block.refs], n_levels=size)
            for block, at, size in zip(part.design.blocks, own, plan.sizes, strict=True)
        )
        design, response = replace(part.design, blocks=blocks), part.response
        y = response.y if of_classes is None else of_classes[response.y.astype(int)].astype(float)
        response = Response(plan.family, y, response.weights, plan.classes)
        rows.append(engine.standard_rows(plan.standard, design, y, response.weights))
        fingerprints.append(FingerprintSums.of(design, response))
    every = [[np.arange(size) for size in plan.sizes]] * len(parts)
    return Shard(engine.concatenated(rows), FingerprintSums.joined(fingerprints, every, plan.sizes))


def rows_of(shard):
    """The rows of a shard."""
    return shard.rows


def fingerprint_of(shard):
    """What a shard's rows add to a fingerprint."""
    return shard.fingerprint


def _is_ordinal(model):
    known = isinstance(model.family, str) and model.family == "auto"
    return not known and resolve_family(model.family).classes == "ordered"


def _answered(model, part):
    """(table, Response, `Answers`) of a part; its y are codes among its own classes."""
    y, weights = part.y, part.weights
    auto = isinstance(model.family, str) and model.family == "auto"
    family = resolve_family("categorical") if auto else model._resolve_family(y)
    if family.classes is None:
        table, response = informative(part.table, family.bind(y, weights))
        if response.data is not None:
            raise ValueError(
                f"family={family.name!r} has data of its own in each row, which parts of a table "
                "do not keep: use fit of a table in one piece."
            )
        total = float(response.weights.sum())
        constant = response.log_constant if response.counted else None
        n_obs = total if response.n_obs is None else response.n_obs
        total_y = float(response.weights @ response.y)
        return table, response, Answers(None, None, total, total_y, constant, n_obs)
    _, classes, codes = labels(family, y, fewest=1)
    declared = getattr(y, "categories", None)
    total = float(weights.sum())
    answers = Answers(classes, declared, total, 0.0, 0.0, total)
    return part.table, Response(family, codes, weights, classes), answers


class Joined(NamedTuple):
    """What all parts tell.

    present are the numbers of those with rows, `known` their summaries; places, of their levels
    among all, and codes, of their classes, are lists with one each. The response has no rows.
    """

    present: list
    known: list
    growing: GrowingSpec
    places: list
    statistics: object
    response: Response
    total: float
    mean_y: float
    codes: list
    n_missing: int

    def nbytes(self):
        """About how many bytes the rows take in standard units."""
        terms = self.growing.spec.terms
        columns = len(self.growing.spec.coef_names) + sum(len(term.cnames) for term in terms) + 2
        return sum(own.n_rows for own in self.known) * (8 * columns + 4 * len(terms))

    @classmethod
    def of(cls, model, names, summaries):
        """The parts' summaries, joined in their order; `names` say in errors which is which."""
        present = [i for i, own in enumerate(summaries) if own.growing is not None]
        known = [summaries[i] for i in present]
        growing, places = GrowingSpec.joined([own.growing for own in known])
        growing.check()
        flat = [[np.zeros(1, int)] * len(growing.spec.terms)] * len(known)
        statistics = engine.joined_sums(
            [own.statistics for own in known], flat, [1] * len(growing.spec.terms)
        )
        answers = [own.answers for own in known]
        total = float(sum(own.total for own in answers))
        constants = [own.log_constant for own in answers]
        constant = 0.0 if None in constants else float(sum(constants))
        n_obs = float(sum(own.n_obs for own in answers))
        family, classes, codes = _classes(model, [names[i] for i in present], answers)
        none = np.zeros(0)
        given = {"log_constant": constant, "n_obs": n_obs}
        return cls(
            present,
            known,
            growing,
            places,
            statistics,
            Response(family, none, none, classes, **given),
            total,
            sum(own.total_y for own in answers) / total,
            codes,
            sum(own.n_missing for own in summaries),
        )


def _classes(model, names, answers):
    """(family, classes or None, codes of each part's classes among them or None)."""
    if answers[0].classes is None:
        return model._resolve_family(np.zeros(1)), None, [None] * len(answers)
    declared = _declared(names, [own.declared for own in answers])
    owners = np.repeat(names, [len(own.classes) for own in answers])
    values = _one_kind(names, [own.classes for own in answers])
    if declared is not None:
        values = pd.Categorical(values, declared, ordered=True)
    try:
        response = model._resolve_family(values).bind(values)
    except ValueError as error:
        # Rows are of the parts' classes, one after another.
        where = re.sub(r"\(row (\d+)\)", lambda row: f"({owners[int(row[1])]})", str(error))
        raise ValueError(where) from None
    known = pd.Index(response.classes)
    codes = [known.get_indexer(own.classes) for own in answers]
    return response.family, response.classes, codes


def _one_kind(names, parts):
    """All labels, one part after another, of one type."""
    kinds = ["number" if own.dtype.kind in "iuf" else own.dtype.kind for own in parts]
    kinds = ["O" if kind in "US" else kind for kind in kinds]
    for name, kind, own in zip(names, kinds, parts, strict=True):
        if kind != kinds[0]:
            raise TypeError(
                f"y: it has labels like {own[:1].tolist()[0]!r} in {name}, and like "
                f"{parts[0][:1].tolist()[0]!r} in {names[0]}: convert it to one type."
            )
    return np.concatenate(parts)


def _declared(names, parts):
    """The categories of an ordered categorical y, in their order; None where y is none."""
    longest = max((own for own in parts if own is not None), key=len, default=None)
    if longest is None:
        return None
    for name, own in zip(names, parts, strict=True):
        places = [-1] if own is None else longest.get_indexer(own)
        if min(places) < 0 or (np.diff(places) < 0).any():
            given = "none" if own is None else " < ".join(map(str, own))
            raise ValueError(
                f"y: its ordered categories are {given} in {name}, and "
                f"{' < '.join(map(str, longest))} elsewhere: declare the same in all."
            )
    return longest
