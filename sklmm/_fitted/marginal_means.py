"""Marginal means of a fitted model: averages over a reference grid, and what they depend on.

A mean m and its derivatives J in the model's parameters, (coef, natural), are all that contrasts
need: D m has the covariance D J C J^T D^T, exactly of a linear predictor, and else by the delta
method.
"""

from dataclasses import dataclass, replace

import numpy as np

from sklmm._fitted.contrasts import Contrasts, contrasts
from sklmm._fitted.natural_slopes import natural_slopes
from sklmm.families.constraints import CONSTRAINTS, FREE, bounds_of
from sklmm.result import EMResult, at_infinity

#: Steps of the derivatives, in standard errors.
STEP = 1e-4
#: The estimator's parameter that a part is of.
PARTS = {"zero": "zero_inflation"}
#: Share of the terms of a sum up to which it is rounding.
ROUNDING = 1e-12
#: Share of a mean up to which what a coefficient without a standard error moves is none.
TOLD = 1e-6


@dataclass(frozen=True)
class Means:
    """Values [k], and their derivatives [k, n_parameters] in (coef, natural)."""

    values: np.ndarray
    slopes: np.ndarray
    #: Whether they are linear in the coefficients, and have degrees of freedom.
    linear: bool
    #: The least and the greatest that there may be.
    limits: tuple = (-np.inf, np.inf)

    def taken(self, order):
        """Some of the means."""
        return replace(self, values=self.values[order], slopes=self.slopes[order])

    @property
    def interval_scale(self):
        """What intervals are symmetric on: "logit", "log", or None for the means' own scale."""
        low, high = self.limits
        if not np.isfinite(low):
            return None
        return "logit" if np.isfinite(high) else "log"

    def intervals(self, found, half):
        """(lower, upper) of `Contrasts` of the means themselves, `half` standard errors wide.

        Between limits they are those of the logit, above one those of the logarithm.
        """
        value, width, scale = found.estimate, half * found.std_error, self.interval_scale
        if scale is None:
            return value - width, value + width
        low, high = self.limits
        size, kind = (high - low, "unit") if scale == "logit" else (1.0, "positive")
        share, line = (value - low) / size, CONSTRAINTS[kind]
        slope = line.slope(share)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            center, steps = line.unconstrain(share), width / (size * slope)
            ends = [low + size * line.constrain(center + sign * steps) for sign in (-1, 1)]
        # A mean that is at a limit in floating point stays there.
        return tuple(np.where(slope > 0, end, value) for end in ends)

    def combined(self, model, result, D):
        """`Contrasts` of D [q, k] times the means."""
        slopes = D @ self.slopes
        # Rounding would pass for a share in columns that were left out.
        slopes[np.abs(slopes) <= ROUNDING * (np.abs(D) @ np.abs(self.slopes))] = 0.0
        value, lost = D @ self.values, np.zeros(len(D), bool)
        if not self.linear:
            untold = without_error(model, result)
            least = TOLD * (np.abs(D) @ np.abs(self.values))
            lost = (np.abs(slopes[:, untold]) > least[:, None]).any(axis=1)
            slopes[:, untold] = 0.0
            # Nor does what is at infinity move a mean that has come to its limit.
            far, reach = at_infinity(result, np.eye(slopes.shape[1])), _sizes(result)
            slopes[far & (np.abs(slopes) * reach <= least[:, None])] = 0.0
        found = contrasts(model, result, slopes)
        found.cov[lost] = found.cov[:, lost] = np.nan
        estimate = np.where(np.isnan(found.estimate), np.nan, value)
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
        every = every[: model.n_means]
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


def without_error(model, result):
    """Places in (coef, natural) of the parts' coefficients that have no standard error.

    The others that have none are on their bounds: SDs and dispersions of 0.
    """
    kinds = list(model.labels.family.values())
    first = len(result.natural_cov) - len(kinds)
    free = first + np.flatnonzero(np.array(kinds) == "real")
    return free[np.isnan(np.diag(result.natural_cov)[free])]


def response_means(grid, expected, model, design, result, limits):
    """The `Means` of ``expected(result)``, [n_rows] or [n_rows, n_classes], on a `ReferenceGrid`.

    They are between `limits`, (low, high).
    Coefficients are at their estimates, not averaged over their posterior.
    """
    at, family = at_estimates(result), model.labels.family
    moved = Moved(family, at, covariance_slopes(design, result, model.n_predictors))

    def means(values):
        return grid.averaged(expected(moved(values))).ravel()

    centre, _ = parameters_of(result)
    bounds = [FREE] * (len(centre) - len(family))
    bounds += [bounds_of(kind) for kind in family.values()]
    size = _sizes(result)
    value = means(centre)
    slopes = np.zeros((len(value), len(centre)))
    # What has no standard error beside the coefficients counts as known: an SD on its bound.
    some = (size > 0) | (np.arange(len(size)) < len(result.coef))
    some[without_error(model, result)] = True
    for i in np.flatnonzero(some):
        above, below = centre.copy(), centre.copy()
        step = STEP * (size[i] or 1.0)
        below[i], above[i] = np.clip([centre[i] - step, centre[i] + step], *bounds[i])
        slopes[:, i] = (means(above) - means(below)) / (above[i] - below[i])
    return Means(value, slopes, False, limits)


def _sizes(result):
    """Standard errors [m] of (coef, natural), 0 without one; at infinity at least the estimates."""
    size = np.sqrt(np.abs(np.nan_to_num(np.diag(result.natural_cov), posinf=0.0)))
    far = at_infinity(result, np.eye(len(size)))
    return np.where(far, np.maximum(size, np.abs(parameters_of(result)[0])), size)


def parameters_of(result, n=None):
    """The first n of (coef, natural), all by default, and their covariance, 0 if not known.

    Correlations with an SD of 0 are 0.
    """
    values = np.nan_to_num(np.concatenate([result.coef, result.natural])[:n])
    return values, np.nan_to_num(result.natural_cov[:n, :n])


def at_estimates(result):
    """The result without what is unknown of the coefficients."""
    return replace(
        result,
        coef_root=np.zeros((len(result.coef), 1)),
        sparse_root=np.zeros((len(result.sparse_coef), 1)),
    )


@dataclass(frozen=True)
class Moved:
    """A result at other (coef, natural), or other coefficients alone, near the estimates.

    `slopes` are the `covariance_slopes` by which covariances move with SDs and correlations.
    """

    family: dict
    result: EMResult
    slopes: list

    def __call__(self, values):
        """The result at values [m]."""
        result, n = self.result, len(self.result.coef)
        moved = replace(result, coef=values[:n])
        if len(values) == n:
            return moved
        natural, at, covariances, first = values[n:], np.nan_to_num(result.natural), [], 0
        for matrix, slopes in zip(result.covariances, self.slopes, strict=True):
            own = slice(first, first := first + len(slopes))
            change = np.tensordot(natural[own] - at[own], slopes, 1)
            covariances.append(matrix + change)
        own = dict(zip(self.family, natural[first:].tolist(), strict=True))
        return replace(moved, covariances=tuple(covariances), family=result.family | own)


def covariance_slopes(design, result, d):
    """Derivatives [k, r, r] of each block's matrix in the k SDs and correlations reported of it."""
    blocks = {k: block for own in design.predictors(d) for _, k, block in own.blocks}
    return [
        natural_slopes(blocks[k].covariance, matrix) for k, matrix in enumerate(result.covariances)
    ]
