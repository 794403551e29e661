"""Marginal means of a fitted model: averages over a reference grid, and what they depend on.

A mean m and its derivatives J in the model's parameters, (coef, natural), are all that contrasts
need: D m has the covariance D J C J^T D^T, exactly of a linear predictor, and else by the delta
method. Variances of random effects count as known.
"""

from dataclasses import dataclass, replace

import numpy as np

from sklmm._fitted.contrasts import Contrasts, contrasts
from sklmm._fitted.tables import BOUNDS

#: Steps of the derivatives, in standard errors.
STEP = 1e-4
#: The estimator's parameter that a part is of.
PARTS = {"zero": "zero_inflation"}
#: Share of the terms of a sum up to which it is rounding.
ROUNDING = 1e-12


@dataclass(frozen=True)
class Means:
    """Values [k], and their derivatives [k, n_parameters] in (coef, natural)."""

    values: np.ndarray
    slopes: np.ndarray
    #: Whether they are linear in the coefficients, and have degrees of freedom.
    linear: bool

    def taken(self, order):
        """Some of the means."""
        return Means(self.values[order], self.slopes[order], self.linear)

    def combined(self, model, result, D):
        """`Contrasts` of D [q, k] times the means."""
        slopes = D @ self.slopes
        # Rounding would pass for a share in columns that were left out.
        slopes[np.abs(slopes) <= ROUNDING * (np.abs(D) @ np.abs(self.slopes))] = 0.0
        found = contrasts(model, result, slopes)
        estimate = np.where(np.isnan(found.estimate), np.nan, D @ self.values)
        dof = found.dof if self.linear else np.full(len(D), np.inf)
        return Contrasts(estimate, found.cov, dof)


def linear_means(grid, predictors, result):
    """The `Means` of linear predictors on a `ReferenceGrid`, those of a row adjacent.

    Each is (X [n_rows, k], places of its coefficients in (coef, natural), offset or None).
    """
    values, slopes = [], []
    parameters = np.concatenate([result.coef, result.natural])
    for X, places, offset in predictors:
        own = np.zeros((grid.n_means, len(parameters)))
        own[:, places] = grid.averaged(X)
        slopes.append(own)
        values.append(own @ parameters)
        if offset is not None:
            values[-1] += grid.averaged(offset)
    slopes = np.stack(slopes, axis=1).reshape(-1, len(parameters))
    return Means(np.stack(values, axis=1).ravel(), slopes, True)


def predictors_of(model, design, component=None):
    """The linear predictors of the mean, or of a part, as `linear_means` takes them.

    They are one a class of unordered classes, and else one.
    """
    every = design.predictors(model.n_predictors)
    component = PARTS.get(component, component)
    if component in (None, "conditional"):
        every = every if model.family.classes == "unordered" else every[:1]
    elif component in (parts := [part.component for part in design.predicted]):
        every = every[1 + parts.index(component) :][:1]
    else:
        return _of_family(model, design, component)
    return [(own.X, own.columns, own.offset) for own in every]


def _of_family(model, design, component):
    """The predictor of a part whose coefficients are parameters of the family."""
    for part in model.models:
        if part.component == component:
            own = next(own for own in design.models if own.component == component)
            # The family's parameters are the last.
            names = list(model.labels.family)
            return [(own.X, [names.index(name) - len(names) for name in part.names], own.offset)]
    raise ValueError(
        f"scale='link': {component} is no model of columns here, and has no linear predictor: use "
        "scale='response'."
    )


def response_means(grid, expected, labels, result):
    """The `Means` of ``expected(result)``, [n_rows] or [n_rows, n_classes], on a `ReferenceGrid`.

    Coefficients are at their estimates, not averaged over their posterior.
    """
    result, n = at_estimates(result), len(result.coef)

    def means(values):
        return grid.averaged(expected(with_parameters(result, labels.family, values))).ravel()

    centre = np.concatenate([result.coef, result.natural])
    first = len(centre) - len(labels.family)
    free = [(-np.inf, np.inf)]
    bounds = free * first + [BOUNDS.get(kind, *free) for kind in labels.family.values()]
    size = np.sqrt(np.abs(np.nan_to_num(np.diag(result.natural_cov), posinf=0.0)))
    value = means(centre)
    slopes = np.zeros((len(value), len(centre)))
    for i in (*range(n), *range(first, len(centre))):
        above, below = centre.copy(), centre.copy()
        step = STEP * (size[i] or 1.0)
        below[i], above[i] = np.clip([centre[i] - step, centre[i] + step], *bounds[i])
        slopes[:, i] = (means(above) - means(below)) / (above[i] - below[i])
    return Means(value, slopes, False)


def parameters_of(result, family):
    """The coefficients and those parameters of the family [k], and their covariance.

    It is 0 where it is not known.
    """
    n, k = len(result.coef), len(family)
    values = np.concatenate([result.coef, result.natural])
    places = np.r_[:n, len(values) - k : len(values)]
    return values[places], np.nan_to_num(result.natural_cov)[np.ix_(places, places)]


def at_estimates(result):
    """The result without what is unknown of the coefficients."""
    return replace(
        result,
        coef_root=np.zeros((len(result.coef), 1)),
        sparse_root=np.zeros((len(result.sparse_coef), 1)),
    )


def with_parameters(result, family, values):
    """The result at other coefficients and parameters of the family, the first and last `values`.

    Variances of random effects stay.
    """
    n, last = len(result.coef), len(values) - len(family)
    own = dict(zip(family, values[last:].tolist(), strict=True))
    return replace(result, coef=values[:n], family=result.family | own)
