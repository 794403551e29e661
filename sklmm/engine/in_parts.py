"""The engine's entry for tables in parts: sums of them that are added, and rows in shards.

As `engine.fit` is for tables in one piece, it is all of the engine that those who read parts call.
What is below is imported when it is asked for.
"""

from dataclasses import replace

from sklmm._threads import keep_freed_memory
from sklmm.engine.fit import check_degrees, run_problem
from sklmm.engine.limits import blas
from sklmm.engine.rows.protocol import Each
from sklmm.engine.rows.standardize import stacked

__all__ = [
    "Each",
    "added",
    "combination_of_sums",
    "concatenated",
    "fitted_rows",
    "joined_sums",
    "moments",
    "parted",
    "parted_sums",
    "run_parted",
    "run_statistics",
    "standard_rows",
    "standard_units",
    "sums_of",
    "units_of",
]


def run_statistics(statistics, design, names, response, settings, watch=None):
    """`run` of a Gaussian model from `Statistics` of its rows.

    `design` and `response` have none; `names` are those of the columns of the fixed part.
    """
    from sklmm.engine.rows.summed import problem_of

    keep_freed_memory()
    precision = statistics.plain is not None
    with blas(design.sizes, design.X.shape[1], design.coupled):
        problem = problem_of(
            statistics,
            design.blocks,
            names,
            fit_intercept=settings.fit_intercept,
            reml=settings.reml,
            sigma=response.family.sigma,
            sigma_unit=response.sigma_unit,
            unit=statistics.n_rows / statistics.weight if precision else 1.0,
        )
        check_degrees(problem)
        return run_problem(problem, response, settings, watch)


def standard_units(statistics, design, names, response, settings, mean_y):
    """`StandardUnits` of rows in shards, from the `Statistics` of all.

    `design` and `response` have no rows, `names` are those of the columns of the fixed part, and
    `mean_y` is y's weighted mean.
    """
    from sklmm.engine.rows.standard_units import standard_units

    family = response.family
    return standard_units(
        statistics,
        design.blocks,
        names,
        fit_intercept=settings.fit_intercept,
        reml=settings.reml,
        sigma=family.sigma if family.closed_form else None,
        sigma_unit=response.sigma_unit,
        scale_y=family.scale_equivariant,
        eta_power=family.eta_power,
        parameter_powers=family.parameter_powers,
        mean_y=mean_y,
    )


def standard_rows(standard, design, y, weights):
    """`LocalRows` in `StandardUnits` of a part of a table."""
    from sklmm.engine.rows.shard import standard_rows

    return standard_rows(standard, design, y, weights)


def added(parts):
    """Sum of what shards answer, in their order."""
    from sklmm.engine.rows.shard import added

    return added(parts)


def concatenated(parts):
    """`LocalRows` of several, one after another."""
    from sklmm.engine.rows.shard import concatenated

    return concatenated(parts)


def parted(executor, parts, standard, design):
    """`PartedRows` of shards in `StandardUnits`; their `design` has no rows."""
    from sklmm.engine.rows.parted import PartedRows

    shapes = [(block.n_levels, block.r) for block in design.blocks]
    return PartedRows.of(executor, parts, standard.T.shape[1], shapes)


def run_parted(rows, standard, response, settings, watch=None):
    """`run` of a model whose rows are in shards, in `StandardUnits`; `response` has none."""
    problem = replace(standard.problem, rows=rows)
    with blas([b.n_levels * b.r for b in problem.blocks], len(problem.basis)):
        if response.family.closed_form:
            check_degrees(problem)
        if not problem.perfect:
            problem = stacked(problem, response.n_predictors)
        return run_problem(problem, response, settings, watch)


def fitted_rows(rows, standard):
    """`FittedRows`: what a fitted model asks of rows in shards."""
    from sklmm.engine.rows.fitted import FittedRows

    return FittedRows(rows, standard)


def units_of(design, y, weights, **known):
    """`Units` of sums by a first batch of rows: see there."""
    from sklmm.engine.rows.sufficient import Units

    return Units.of(design, y, weights, **known)


def sums_of(units, design, y, weights, **known):
    """`Statistics` of a batch of rows, by the levels that the design has: see there."""
    from sklmm.engine.rows.sufficient import Statistics

    return Statistics.of(units, design, y, weights, **known)


def joined_sums(parts, places, sizes):
    """`Statistics` of several batches: see `Statistics.joined`."""
    from sklmm.engine.rows.sufficient import Statistics

    return Statistics.joined(parts, places, sizes)


def parted_sums(executor, parts, places, statistics, n_ranges, blocks):
    """`Statistics` whose pairs of levels stay elsewhere: see `parted_pairs.parted`."""
    from sklmm.engine.rows.parted_pairs import parted

    pairs = parted(executor, parts, places, statistics, n_ranges, blocks)
    return replace(statistics, pairs=pairs)


def moments(statistics, fit_intercept, blocks):
    """Second moments of the columns of rows, from their `Statistics`: see there."""
    from sklmm.engine.rows.standard_units import moments

    return moments(statistics, fit_intercept, blocks)


def combination_of_sums(statistics, fit_intercept, dropped):
    """`combination` of columns from `Statistics` of their rows."""
    from sklmm.engine.rows.standard_units import FixedPart

    return FixedPart(statistics, fit_intercept).combination(dropped)
