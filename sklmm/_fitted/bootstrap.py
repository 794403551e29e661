"""The parametric bootstrap: data drawn from a fitted model, and fits to them in parallel.

Effects and responses are drawn anew at the estimates, and the model, or a larger one, is fitted to
them (Bates, Maechler, Bolker & Walker 2015, J. Stat. Softw. 67(1), sec. 5.1). Each draw has a seed
of its own, so that numbers are the same whatever the number of processes.
"""

from dataclasses import replace
from numbers import Integral

import numpy as np
from joblib import Parallel, delayed

from sklmm._fitted.clusters import outermost
from sklmm._fitted.draws import response_draws
from sklmm._fitted.latent import linear_predictor
from sklmm.families.parts import parameters_by_row
from sklmm.result import covariance_root

#: Units that are left out of a jackknife one after another; of more, so many groups of them.
MOST_UNITS = 200


def check_draws(response, n, parameter="n_resamples", least=2):
    """Raise ValueError for rows that the bootstrap cannot draw, and for too few resamples."""
    counted = response.family.weights == "repeats"
    if counted and not (response.weights == 1).all():
        raise ValueError(
            "sample_weight: the bootstrap draws each row once, and these weights are "
            "repetitions: repeat the rows."
        )
    if response.family.open_ended:
        raise ValueError(
            f"family={response.family.name!r}: the bootstrap draws y, and what bounds it would "
            "then have is not known: use no bootstrap."
        )
    if not isinstance(n, Integral) or n < least:
        raise ValueError(f"{parameter}={n!r} must be a whole number of at least {least}.")
    if response.family.weights == "trials" and (response.weights % 1 != 0).any():
        raise ValueError(
            "sample_weight: the bootstrap draws successes of whole numbers of trials, and "
            "these weights are not whole."
        )


def refitted(refit, design, response, result, n, rng, n_jobs=None, verbose=0):
    """What `refit` makes of n responses drawn from a model, a list, by joblib's processes.

    It takes y [n_rows] and a seed. What it cannot fit, as counts that are all 0, is left out.
    """
    seeds = rng.randint(2**31 - 1, size=n)
    found = Parallel(n_jobs=n_jobs, verbose=verbose)(
        delayed(_refitted)(refit, design, response, result, seed) for seed in seeds
    )
    return [value for value in found if value is not None]


def _refitted(refit, design, response, result, seed):
    y = simulate(design, response, result, np.random.default_rng(seed))
    try:
        return refit(y, seed)
    except ValueError:
        return None


def jackknifed(refit, design, response, n_jobs=None, verbose=0):
    """What `refit` makes of the rows without each unit, a list; what it cannot fit is left out.

    It takes a Design and a Response.
    """
    units = independent_units(design)
    groups = np.unique(units % MOST_UNITS)
    found = Parallel(n_jobs=n_jobs, verbose=verbose)(
        delayed(_without)(refit, design, response, units % MOST_UNITS != group) for group in groups
    )
    return [value for value in found if value is not None]


def _without(refit, design, response, keep):
    try:
        return refit(*taken(design, response, keep))
    except ValueError:
        return None


def independent_units(design):
    """Each row's unit [n_rows]: the level of a term within whose levels those of all others are.

    Of crossed terms it is a level of the one that has most; without terms each row is a unit.
    """
    blocks = [block for block in design.every_block if not block.tied]
    if not blocks:
        return np.arange(design.n_rows)
    units = outermost(blocks)
    return max(blocks, key=lambda block: block.n_levels).refs if units is None else units


def taken(design, response, keep):
    """(Design, Response) of the rows that a mask keeps; levels without rows stay."""

    def rows(values):
        return None if values is None else values[keep]

    def of_blocks(blocks):
        return tuple(replace(b, refs=b.refs[keep], z=rows(b.z)) for b in blocks)

    models = tuple(
        replace(part, X=part.X[keep], offset=rows(part.offset), blocks=of_blocks(part.blocks))
        for part in design.models
    )
    design = replace(
        design,
        X=design.X[keep],
        blocks=of_blocks(design.blocks),
        offset=rows(design.offset),
        models=models,
    )
    own = {"y": response.y[keep], "weights": response.weights[keep], "data": rows(response.data)}
    return design, replace(response, **own)


def simulate(design, response, result, rng):
    """y [n_rows] from the fitted model, the effects drawn anew."""
    d, effects = response.n_predictors, []
    blocks = {k: b for own in design.predictors(d) for _, k, b in own.blocks}
    for k, (old, cov) in enumerate(zip(result.effects, result.covariances, strict=True)):
        noise, relation = rng.standard_normal(old.shape), blocks[k].relation
        noise = noise if relation is None else relation.back(noise)
        effects.append(noise @ covariance_root(cov).T)
    eta = linear_predictor(design, replace(result, effects=tuple(effects)), d=d)
    if not response.models:
        return response_draws(response, eta, result.family, rng)
    params = parameters_by_row(response.models, result.family, design.models)
    return response_draws(response, eta[..., None], params, rng)[:, 0]
