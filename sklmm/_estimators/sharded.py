"""Models of any family from parts of a table that are elsewhere, and stay there.

The parts are read twice. First each tells what its rows have (`_estimators.learning`), by which
then the parts of each shard become rows in standard units (`engine.rows.shard`), which the engine
passes over as often as it likes (`engine.rows.parted`). Where shards are, and how functions are
called there, an executor knows.
"""

from copy import copy
from dataclasses import replace
from itertools import pairwise

import numpy as np
from sklearn.base import clone

from sklmm._estimators.input import check_total
from sklmm._estimators.learning import (
    Joined,
    Plan,
    begin,
    fingerprint_of,
    learn,
    rows_of,
    shard_of,
    summary_of,
)
from sklmm._estimators.warnings import warn_of_sums
from sklmm._fitted.fingerprint import FingerprintSums
from sklmm._fitted.measures import Spread
from sklmm._fitted.model import FittedModel
from sklmm._fitted.tables import Labels
from sklmm.design.estimable import Estimable
from sklmm.engine import fit as engine
from sklmm.families import resolve_family
from sklmm.steps import HMC, Laplace


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
    step = engine.resolve_e_step(given, family, sizes, device=model.device)
    if model.e_step == "auto" and isinstance(step, HMC) and step.backend != "numpy":
        step = engine.resolve_e_step("laplace", family, sizes)
    chains = isinstance(step, HMC) and step.backend == "numpy"
    if not isinstance(step, Laplace) and not chains:
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
        resolved_e_step(model, resolve_family(model.family), [2])
    for piece, name in zip(pieces, names, strict=True):
        (begun,) = executor.told(begin, model, name, engine.Each([piece]))
        if begun is not None:
            return begun
    raise ValueError(
        "X: there is no row to fit: all parts are empty, or their rows have weight 0 or miss "
        "values."
    )


def fit_parts(model, begun, executor, pieces, names, n_shards, watch=None):
    """Fit a model that has the columns of `begun`, and give its warnings.

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
    shards = _shards(executor, learnt, found, n_shards, standard)
    fingerprints = executor.told(fingerprint_of, shards)
    rows = engine.parted(executor, executor.kept(rows_of, shards), standard, design)
    every = [[np.arange(size) for size in found.growing.sizes()]] * len(shards)
    marked = FingerprintSums.joined(fingerprints, every, found.growing.sizes()).fingerprint()
    moments = engine.moments(found.statistics, spec.fit_intercept)
    known = {
        "labels": Labels.of(spec, design.blocks, response),
        "classes": response.classes,
        "n_predictors": response.n_predictors,
        "fingerprint": marked,
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
                mean = engine.log_link_mean(rows, standard, result) / found.total
                spread = spread._replace(mean=mean)
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
    model._set_fitted(fitted_model(spec, result), result)
    spread = np.sqrt(np.maximum(np.diag(moments[1]) / moments[0], 0.0))
    warn_of_sums(model, spread, found.statistics.largest_y, found.statistics.n_rows)


def _shards(executor, learnt, found, n_shards, standard):
    """Handles of `Shard`, of neighbours of about as many rows."""
    rows = np.array([own.n_rows for own in found.known])
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
