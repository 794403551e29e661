"""Models of any family from parts of a table that are elsewhere, and stay there.

The parts are read twice. First each tells what its rows have (`_estimators.learning`), by which
then the parts of each shard become rows in standard units (`engine.rows.shard`), which the engine
passes over as often as it likes (`engine.rows.parted`). Where shards are, and how functions are
called there, an executor knows.
"""

from copy import copy
from dataclasses import replace
from functools import partial
from itertools import pairwise

import numpy as np
from sklearn.base import clone

from sklmm._estimators.input import check_total
from sklmm._estimators.learning import (
    NO_ROWS,
    Joined,
    Plan,
    begin,
    fingerprint_of,
    learn,
    rows_of,
    shard_of,
    summary_of,
    units_of,
)
from sklmm._estimators.warnings import FAINT, settled_somewhere, warnings_of_sums
from sklmm._fitted.fingerprint import FingerprintSums
from sklmm._fitted.measures import Spread
from sklmm._fitted.model import FittedModel
from sklmm._fitted.separation import is_determined, separation, unbounded
from sklmm._fitted.tables import Labels
from sklmm.design.design import INTERCEPT, Design
from sklmm.design.estimable import Estimable
from sklmm.engine import in_parts as engine
from sklmm.engine.fit import resolve_e_step
from sklmm.families import Response, resolve_family
from sklmm.result import Status
from sklmm.steps import HMC, Exact, Laplace

#: Rows that are brought here to see whether y is separated, where a fit does not exclude it.
LOOKED_AT = 20_000
#: Bytes that a shard may have: of larger tables each thread has several.
LARGEST = 100_000_000


def resolved_e_step(model, family, sizes):
    """The E-step of a model whose rows are in shards; ValueError for one that needs them whole."""
    given, text = model.e_step, f"e_step={model.e_step!r}"
    if model.m_step != "auto":
        raise ValueError(
            f"m_step={model.m_step!r} reads all rows in one place: use m_step='auto', with e_step "
            "'laplace' or 'hmc'."
        )
    if given == "hmc":
        # Without a backend, so that chains are NumPy's where they can be.
        given = HMC()
    step = resolve_e_step(given, family, sizes, device=model.device)
    if model.e_step == "auto" and isinstance(step, HMC) and step.backend != "numpy":
        step = resolve_e_step("laplace", family, sizes)
    chains = isinstance(step, HMC) and step.backend == "numpy"
    # Without effects it is least squares.
    if not isinstance(step, Laplace | Exact) and not chains:
        more = f" in TensorFlow, family={family!r}" if isinstance(step, HMC) else ""
        raise ValueError(
            f"{text} reads all rows in one place{more}: use 'laplace', or 'hmc' with chains in "
            "NumPy, HMC(backend='numpy')."
        )
    model._check_dof(step, family)
    return step


def begun_by(model, executor, pieces, names):
    """`Begun` by the first part that has rows, of an estimator's parameters alone.

    `pieces` are handles of the (X, y, weights) of each part, `Each`, and `names` say in errors
    which is which.
    """
    if not (isinstance(model.family, str) and model.family == "auto"):
        # Before anything is read.
        none = isinstance(model.random_effects, list | tuple | None) and not model.random_effects
        resolved_e_step(model, resolve_family(model.family), [] if none else [2])
    begun = executor.first(begin, units_of, model, engine.Each(names), pieces)
    if begun is None:
        raise ValueError(NO_ROWS)
    return begun


def fit_parts(model, begun, executor, pieces, names, watch=None):
    """Fit a model that has the columns of `begun`, and return its warnings, (text, category) each.

    `watch` is None, or leads from what makes fitted attributes to what the engine calls at each
    iteration.
    """
    learnt = executor.kept(learn, begun, engine.Each(names), pieces)
    found = Joined.of(model, names, executor.told(summary_of, learnt))
    spec, response = found.growing.spec, found.response
    family, design = response.family, found.growing.design()
    check_total(family, found.total)
    model._check_model(spec, design, response, found.total)
    e_step = resolved_e_step(model, family, design.sizes)
    start = getattr(model, "result_", None) if model.warm_start else None
    settings = model._settings(response, spec.fit_intercept, e_step, start)
    standard = engine.standard_units(
        found.statistics, design, spec.coef_names, response, settings, found.mean_y
    )
    shards = _shards(executor, learnt, found, standard)
    fingerprint = _fingerprint(executor, shards, found)
    rows = engine.parted(executor, executor.kept(rows_of, shards), standard, design)
    # What they were made of is let go.
    del learnt, shards
    asked = engine.fitted_rows(rows, standard)
    moments = engine.moments(found.statistics, spec.fit_intercept, design.blocks)
    known = {
        "labels": Labels.of(spec, design.blocks, response),
        "classes": response.classes,
        "n_predictors": response.n_predictors,
        "fingerprint": fingerprint,
        **{k: begun.head.known[k] for k in ("response_name", "from_frame", "by_name")},
        "family": clone(family) if family is model.family else family,
        "n_missing": found.n_missing,
        "e_step": clone(e_step) if e_step is model.e_step else e_step,
    }

    def fitted_model(spec, result):
        spread = None
        if response.n_predictors == 1:
            spread = Spread.of_moments(moments, 1.0, result)
            if getattr(family, "link", None) == "log":
                spread = spread._replace(mean=asked.log_link_mean(result) / found.total)
        return FittedModel(spec=spec, spread=spread, **known)

    def fitted(result):
        # What it would be estimated from is gone with the fit.
        result = replace(result, likelihood=result.likelihood.without_rows())
        other = copy(model)
        other._set_fitted(fitted_model(spec, result), result)
        return vars(other)

    result = engine.run_parted(rows, standard, response, settings, watch(fitted) if watch else None)
    # While the rows are there.
    result.likelihood()
    if (dropped := result.dropped[: design.X.shape[1]]).any():
        along = engine.combination_of_sums(found.statistics, spec.fit_intercept, dropped)
        spec = replace(spec, estimable=Estimable(dropped, *along))
    text = None
    if (separating := _separating(model, result, spec, response, asked)) is not None:
        result, text = _unbounded(result, *separating, known["labels"], asked.n_rows)
    model._set_fitted(fitted_model(spec, result), result)
    n_below = partial(asked.n_below, result)
    return warnings_of_sums(model, moments, found.statistics, n_below, text)


def _shards(executor, learnt, found, standard):
    """Handles of `Shard`, of neighbours of about as many rows, one for each thread or more."""
    rows = np.array([own.n_rows for own in found.known])
    # Threads as they are now: workers may have come since the fit began.
    n_shards = max(executor.n_threads, -(-found.nbytes() // LARGEST))
    wanted = np.arange(1, n_shards) * rows.sum() / n_shards
    # A cut is where it is nearest to a share of the rows.
    cuts = np.searchsorted(np.cumsum(rows) - rows / 2, wanted)
    cuts = np.unique([0, *cuts, len(rows)]).tolist()
    groups = [found.present[a:b] for a, b in pairwise(cuts)]
    places = engine.Each(found.places[a:b] for a, b in pairwise(cuts))
    codes = engine.Each(found.codes[a:b] for a, b in pairwise(cuts))
    response = found.response
    plan = Plan(standard, found.growing.sizes(), response.family, response.classes)
    return executor.joined(shard_of, learnt, groups, places, codes, plan)


def _fingerprint(executor, shards, found):
    """The `Fingerprint` of all rows."""
    sizes = found.growing.sizes()
    every = [[np.arange(size) for size in sizes]] * len(shards)
    parts = executor.told(fingerprint_of, shards)
    return FingerprintSums.joined(parts, every, sizes).fingerprint()


def _separating(model, result, spec, response, asked):
    """(`Separation`, Design) of some rows, where they are all that there are or separated; or None.

    What separates all rows separates some of them too.
    """
    known = result.status.converged
    known = known and is_determined(result, response, model.tol, asked.largest_variance)
    if known or result.status is Status.STOPPED:
        return None
    X, y, weights = asked.sample(LOOKED_AT, spec.fit_intercept)
    some, design = Response(response.family, y, weights, response.classes), Design(X, ())
    found = separation(design, some, result.dropped)
    return found and (found, design)


def _unbounded(result, found, design, labels, n_rows):
    """(The result of a response that is separated, if it is known to be so; text on that)."""
    whole = design.n_rows == n_rows
    if whole:
        result = unbounded(result, found, design)
    sizes = np.abs(found.shares[: len(labels.coef)])
    names = [
        name for name, size in zip(labels.coef, sizes, strict=True) if size > FAINT * max(sizes)
    ]
    slopes = [name for name in names if not name.endswith(INTERCEPT)]
    return result, settled_somewhere(slopes or labels.cutpoints or names, design.n_rows, whole)
