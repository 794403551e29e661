"""Warnings at the end of a fit: each is a text and its category.

They are data until they are given, in the thread and the process that called the fit: what catches
warnings does so for all threads of a process.
"""

import warnings
from numbers import Real

import numpy as np
import pandas as pd
from scipy.special import expit
from sklearn.exceptions import ConvergenceWarning

from sklmm._fitted.latent import linear_predictor
from sklmm.design.design import INTERCEPT
from sklmm.result import Status, natural_names
from sklmm.steps import ConjugateGradient

#: Share of the largest contribution to y below which that of a column counts as none; and share
#: of y itself below which a contribution is rounding.
TINY = 1e-6
ROUNDING = 1e-12
#: Linear predictors up to here are not told from 0, where a positive mean or its inverse ends.
EDGE = 1e-6
#: Share of the root mean square of the rows' residual SDs below which one counts as none.
VANISHED = 1e-4
#: Share of the largest change of the linear predictor below which a column does not separate.
FAINT = 0.01
#: Probability that counts as none.
CERTAIN = 1e-6
#: Values up to which a column is told by its cells and not by a range; cells that a text names.
MOST_VALUES = 10
MOST_CELLS = 3


def warn_of_fit(model, design, table, response, e_step, found, converged):
    """Give all warnings of a fitted model.

    `found` is what separates, or None, and `converged` whether the fit was without it.
    """
    spec, labels, result = model._fitted.spec, model._fitted.labels, model.result_
    slow, infinite = None, None
    if result.status is Status.MAX_ITER and result.moving is not None and model._stops_by_rule():
        slow = beyond_edge(design, response.family, result, model.max_iter)
        slow = slow or not_converged(labels, result, model.max_iter)
    if found is not None:
        infinite = separated(labels, spec, design, table, response, found, converged)
    for message, category in (
        (slow, ConvergenceWarning),
        (dropped(spec, result), UserWarning),
        (undetermined(labels, result), UserWarning),
        (unsolved(e_step, result), ConvergenceWarning),
        (rough(result), ConvergenceWarning),
        (perfect_fit(spec, design, response.y, result), UserWarning),
        (vanished(model._fitted, design, result), UserWarning),
        (infinite, ConvergenceWarning),
        (certain_zeros(model._fitted, design, result), ConvergenceWarning),
    ):
        if message:
            warnings.warn(message, category, stacklevel=5)


def warnings_of_sums(model, moments, statistics, n_below=None, infinite=None):
    """The warnings of a model that was fitted from sums of batches, or of shards.

    `moments` and `statistics` are the engine's, of all rows. `n_below` tells how many rows'
    predictors are at the edge of a link or below; `infinite` is a text.
    """
    n_rows = statistics.n_rows
    spec, labels, result = model._fitted.spec, model._fitted.labels, model.result_
    slow = reproduces = None
    if result.status is Status.MAX_ITER and result.moving is not None:
        if ends(family := model._fitted.family):
            slow = below_edge(family, n_below(EDGE), n_rows, model.max_iter)
        slow = slow or not_converged(labels, result, model.max_iter)
    if result.status is Status.PERFECT and result.rank < n_rows:
        # SDs of the columns of the fixed part.
        spread = np.sqrt(np.maximum(np.diag(moments[1]) / moments[0], 0.0))
        reproduces = reproduced(spec, np.abs(result.coef) * spread, statistics.largest_y)
    found = (
        (slow, ConvergenceWarning),
        (dropped(spec, result), UserWarning),
        (undetermined(labels, result), UserWarning),
        (unsolved(model.e_step_, result), ConvergenceWarning),
        (rough(result), ConvergenceWarning),
        (reproduces, UserWarning),
        (infinite, ConvergenceWarning),
    )
    return [(message, category) for message, category in found if message]


def warn(found):
    """Give warnings, (text, category) each, where the method of an estimator was called."""
    for message, category in found:
        warnings.warn(message, category, stacklevel=5)


def warn_of_update(result):
    """Warn of an update whose equations were not solved, or whose draws are rough."""
    for message in (unsolved(None, result), rough(result)):
        if message:
            warnings.warn(message, ConvergenceWarning, stacklevel=3)


#: Links of positive means that have none where eta is below 0.
ENDING = ("identity", "inverse", "inverse_squared")


def ends(family):
    """Whether a family's link has no mean for some linear predictors.

    The likelihood ends there: its maximum is no point where its slope is 0, and more iterations
    do not help.
    """
    return family.positive and getattr(family, "link", None) in ENDING


def below_edge(family, n_rows, total, max_iter):
    """Text on the rows, so many of all, of whose linear predictors the link has no mean."""
    others = [repr(other) for other in family.links if other not in ENDING]
    return n_rows and (
        f"The fit stopped at max_iter={max_iter}: the linear predictor of {n_rows} of "
        f"{total} rows is 0 or below, where link={family.link!r} has no mean. Its estimates "
        "are not to be relied on, and a larger max_iter does not help: use "
        f"link={' or '.join(others)}, by which every mean is positive."
    )


def beyond_edge(design, family, result, max_iter):
    """`below_edge` of a design's rows, where the family's likelihood ends."""
    if not ends(family):
        return None
    eta = linear_predictor(design, result)
    return below_edge(family, int(np.sum(eta <= EDGE)), len(eta), max_iter)


def not_converged(labels, result, max_iter):
    """Text on the parameter that still moves."""
    names = [*labels.coef, *natural_names(labels.blocks, labels.family)]
    return (
        f"The fit stopped at max_iter={max_iter} before convergence; {names[result.moving]!r} "
        "still moves most. Increase max_iter, or remove a term that the data do not support (see "
        "variance_components_)."
    )


def dropped(spec, result):
    """Text on the columns that depend linearly on earlier ones, if there are any."""
    names = [repr(n) for n, out in zip(spec.coef_names, result.dropped, strict=False) if out]
    return names and (
        f"The fixed-effects column(s) {_listed(names)} are linear combinations of those before "
        "them (a constant beside an intercept, the last dummy of a factor, a copy): left "
        "out of the model, with coefficient 0. Remove them from fixed_effects."
    )


def undetermined(labels, result):
    """Text on the SDs and correlations that the design leaves undetermined, if there are any."""
    names = natural_names(labels.blocks, labels.family)
    names = [repr(n) for n, out in zip(names, result.undetermined, strict=False) if out]
    reason = "a slope's column is constant within the levels of its factor, or two factors are one"
    remedy = "Remove that slope or term from random_effects, or pin its SD."
    if repr("sigma") in names:
        reason = "a factor has a level for each row"
    if set(names) & {repr(name) for name in labels.family if ": " in name}:
        reason = "a row that is alone in a column of the fixed part has no residual"
        remedy = "Leave that column out of fixed_effects, or of dispersion."
    return names and (
        f"The data do not identify {_listed(names)}: other values have the same likelihood, "
        f"so these estimates are arbitrary and have no standard errors ({reason}). {remedy}"
    )


def vanished(fitted, design, result):
    """A residual SD by row that ends at its bound, 0 to working precision, in some rows."""
    if not fitted.family.quadratic or result.status is not Status.SINGULAR:
        return None
    sd = fitted.parameters(result, design)["sigma"][:, 0]
    # Held at a share of y's residual SD, which these rows alone come down to.
    rows = np.flatnonzero(sd < VANISHED * np.sqrt(fitted.spread.noise))
    if not len(rows):
        return None
    return (
        f"dispersion: the residual SD of {len(rows)} row(s), row {rows[0]} the first, is 0 to "
        "working precision: the rest of the model reproduces them, and the likelihood has no "
        "maximum. Coefficients of the log SD that such rows alone tell have no standard error, and "
        "comparisons mean nothing: merge their group with another, or leave the column out."
    )


def certain_zeros(fitted, design, result):
    """Text on rows that the zero part makes 0, or never 0, for certain, if there are any."""
    names, zero = fitted.part_names("zero_inflation"), _probability_of_zero(fitted, design, result)
    if not names or zero is None:
        return ""
    inflated = fitted.family.family if hasattr(fitted.family, "names") else fitted.family
    never, always = zero < CERTAIN, zero > 1 - CERTAIN
    sure, like = int(np.sum(never | always)), "as all rows like them are alike in y"
    if not inflated.hurdle and never.all():
        return (
            f"zero_inflation: y has no more zeros than family={inflated.family.name!r} has by "
            "itself: the probability of others is 0, and the coefficients of its logit have no "
            "finite estimate. Leave zero_inflation out."
        )
    if not inflated.hurdle and not always.any():
        like = f"as rows like them have no more zeros than family={inflated.family.name!r} has"
    return sure and (
        f"zero_inflation: in {sure} rows the probability of a zero is 0 or 1, {like}: some of "
        f"{_listed([repr(name) for name in names])} have no finite estimate. Leave out what tells "
        f"these rows apart, or give a prior, coef_prior={{{names[-1]!r}: 2.5}}."
    )


def _probability_of_zero(fitted, design, result):
    """The parameter `zero` of the rows by the fixed part of its predictor; None without such."""
    if "zero" in getattr(fitted.family, "names", ()):
        none = [False] * len(fitted.spec.every_term)
        eta = linear_predictor(design, result, none, fitted.n_predictors)
        return expit(eta[:, 1 + fitted.family.names.index("zero")])
    return fitted.parameters(result, design).get("zero") if fitted.models else None


def unsolved(e_step, result):
    """Text on conjugate gradients that ended before their tolerance, if they did."""
    remedy = "leave out a term that is nearly another one, or a column far larger than the others"
    if isinstance(e_step, ConjugateGradient):
        remedy = (
            f"raise max_iter, ConjugateGradient(max_iter={10 * e_step.max_iter}), or use "
            "e_step='exact' where its memory is enough"
        )
    return result.unsolved and (
        f"Conjugate gradients ended before their tolerance, with a relative residual of "
        f"{result.unsolved:.1e}: estimates and standard errors are that much less accurate. To "
        f"mend it, {remedy}."
    )


def rough(result):
    """Text on posterior draws that Lanczos' method ended before their tolerance, if it did."""
    return result.rough and (
        "The posterior's draws are rough, as the terms are nearly confounded: their last step "
        f"changes them by {result.rough:.1e}. Estimates and standard errors are not touched, but "
        "effects' SDs, the SDs of predictions and loglik_ are that much less accurate. Use "
        "e_step='exact' where its memory is enough, or leave out a term that is nearly another one."
    )


def perfect_fit(spec, design, y, result):
    """Text on the columns that y is computed from in a perfect fit, or None.

    A constant y is nobody's mistake, and as many columns as rows reproduce any.
    """
    if result.status is not Status.PERFECT or result.rank >= len(y):
        return None
    return reproduced(spec, np.abs(result.coef) * design.X.std(axis=0), np.abs(y).max())


def reproduced(spec, part, largest):
    """Text on the columns that reproduce y, from their parts of it [n_columns] and its size."""
    if part.max(initial=0.0) <= ROUNDING * largest:
        return None
    names = [repr(n) for n, p in zip(spec.coef_names, part, strict=True) if p > TINY * part.max()]
    who = "columns" if spec.sparse else f"column(s) {_listed(names)}"
    return (
        f"The fixed-effects {who} alone reproduce y, so every variance is 0: y, or something "
        "computed from it, is among them. Leave it out of X, or of fixed_effects."
    )


def _listed(names):
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" * (len(names) > 10))


def separated(labels, spec, design, table, response, found, converged):
    """Text on the coefficients that run to infinity, and the rows that send them there."""
    far = np.abs(found.shares) > FAINT * np.abs(found.shares).max()
    mine = [j for j, name in enumerate(labels.coef) if far[j] and not name.endswith(INTERCEPT)]
    names = [labels.coef[j] for j in mine]
    names = names or labels.cutpoints or [n for n, yes in zip(labels.coef, far, strict=True) if yes]
    columns = sorted({j % design.X.shape[1] for j in mine})
    where = settled(_columns_of(columns, spec, design, table), response, found.rows)
    more = f", nor have {_listed(list(map(repr, names[1:])))}" * (len(names) > 1)
    others = "good" if converged else "not to be relied on, for the fit stopped at max_iter"
    return (
        f"The coefficient {names[0]!r} has no finite maximum likelihood estimate{more}: {where}. "
        "Standard errors are infinite there; predictions and the other coefficients are "
        f"{others}. Merge levels, leave out the column, give it a prior by coef_prior, or collect "
        "rows of the other kind; a factor may become a grouping column in random_effects, where "
        "such levels are shrunken."
    )


def settled_somewhere(names, n_rows, whole):
    """Text on the columns that separate y in so many rows, the `whole` table or some of it."""
    where = "the rows" if whole else f"{n_rows} rows from all over the table, which"
    seems = "has" if whole else "seems to have"
    return (
        f"The coefficient {names[0]!r} {seems} no finite maximum likelihood estimate"
        f"{f', nor have {_listed(list(map(repr, names[1:])))}' * (len(names) > 1)}: {where} "
        "do not say how large it is, as it settles their y. Do not rely on its estimate and "
        "standard errors. A fit of such rows on one machine tells which they are: merge levels, "
        "leave out the column, or collect rows of the other kind."
    )


def _columns_of(columns, spec, design, table):
    """DataFrame of some of X's columns, or of the table's columns that a formula made them of."""
    names = [spec.coef_names[j] for j in columns]
    if spec.formula is None:
        return pd.DataFrame(design.X[:, columns], columns=names)
    members = dict(zip(spec.formula.column_names, spec.formula.members, strict=True))
    read = {column for name in names for column in members[name][0]}
    return table[[c for c in table if c in read]].reset_index(drop=True)


def settled(columns, response, rows):
    """What y is in the `rows` [n_rows] that separate, by the cells or ranges of `columns`."""
    classes = response.classes
    y = pd.Series(response.y if classes is None else classes[response.y.astype(int)])
    if not len(columns.columns):
        return f"y is {_value(y[0])} in every row" if y.nunique() == 1 else _so_many(rows)
    if all(_is_discrete(values) for _, values in columns.items()):
        cells = columns.groupby(list(columns), observed=True, dropna=False).ngroup()
        told = [_cell(columns, cells == k, y) for k in cells[rows].value_counts().index]
    elif len(columns.columns) == 1:
        told = [_range(columns.iloc[:, 0], rows & (y == v), y) for v in y[rows].unique()]
    else:
        told = [None]
    if None in told:
        return _so_many(rows)
    more = f"; and {len(told) - MOST_CELLS} more" * (len(told) > MOST_CELLS)
    return "; ".join(told[:MOST_CELLS]) + more


def _so_many(rows):
    return f"together they settle y in {rows.sum()} of {len(rows)} rows"


def _is_discrete(values):
    number = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
    return not number or values.nunique() <= MOST_VALUES


def _cell(columns, mine, y):
    """Text such as "y is 0 in all 12 rows with f = 'b'"; None where y has every value there."""
    first = columns[mine].iloc[0]
    names = " and ".join(f"{name} = {_value(value)}" for name, value in first.items())
    present = y[mine].unique()
    if len(present) == 1:
        return f"y is {_value(present[0])} in all {mine.sum()} rows with {names}"
    missing = " or ".join(_value(v) for v in y.unique() if v not in present)
    return f"y is never {missing} in the {mine.sum()} rows with {names}" if missing else None


def _range(values, mine, y):
    """Text such as "y is 0 in all 20 rows with dose from 1 to 3"; None where y has others there."""
    low, high, only = values[mine].min(), values[mine].max(), y[mine].iloc[0]
    inside = (values >= low) & (values <= high)
    if not (y[inside] == only).all():
        return None
    where = f"{values.name} from {low:.5g} to {high:.5g}"
    return f"y is {_value(only)} in all {inside.sum()} rows with {where}"


def _value(value):
    number = isinstance(value, Real) and not isinstance(value, bool | np.bool_)
    return f"{value:g}" if number else repr(value) if isinstance(value, str) else str(value)
