"""Rows whose y has the row data and the columns of parameters' models beside it.

Columns of a model are whitened as those of the fixed part are: X' = X B. Its coefficients in the
table's columns are B gamma' + shift, where the shift stands for the parameter's unit; where no
combination of the columns is constant, the rows' offset does.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from sklmm.design.terms import INTERCEPT
from sklmm.engine.rows.standardize import whiten

#: Largest residual of a constant on the columns that have it.
CONSTANT = 1e-8


class LinearUnits(NamedTuple):
    """Way back of one parameter's coefficients: names, basis [q, q] and shift [q].

    `mean` [q + 1] has the rows' means of the whitened columns and of the offset.
    """

    names: tuple
    basis: np.ndarray
    shift: np.ndarray
    mean: np.ndarray

    def natural(self, raw):
        """Coefficients of the table's columns, from those of the whitened ones."""
        return self.basis @ raw + self.shift

    def standard(self, coefs):
        """The inverse of `natural`."""
        return np.linalg.solve(self.basis, np.asarray(coefs) - self.shift)


def widened(problem, design, response):
    """The problem with y [n, m], and the `LinearUnits` of the response's models."""
    rows, columns, units = problem.rows, [], []
    if response.data is not None:
        data = response.data
        if response.family.scale_equivariant:
            moved = 0.0 if design.offset is None else design.offset[:, None]
            data = (data - moved - problem.y_centre) / problem.y_scale
        columns.append(data)
    known = {}
    for model in response.models:
        own = next(part for part in design.models if part.component == model.component)
        log_unit = np.log(problem.unit_of(model.parameter))
        if model.component not in known:
            X, basis, shift, offset = _standard(own, response.weights, problem.n, log_unit)
            columns += [np.zeros((len(X), 1)) if offset is None else offset[:, None], X]
            known[model.component] = basis, shift, _means(X, offset, response.weights)
        units.append(LinearUnits(model.names, *known[model.component]))
    if columns:
        y = np.column_stack([rows.y, *columns])
        problem = replace(problem, rows=replace(rows, y=y), models=tuple(units))
    latent = [own for own in design.models if own.blocks]
    if not latent:
        return problem
    from sklmm.engine.rows.joining import joined

    return joined(problem, latent, response.family.names)


def heteroscedastic(problem, design, response, least):
    """The problem of a residual SD by row, of least squares: its rows are `Heteroscedastic`.

    `least` is the least log SD in standard units.
    """
    from sklmm.engine.rows.heteroscedastic import Heteroscedastic

    (model,), (own,) = response.models, design.models
    log_unit = np.log(problem.sigma_scale)
    X, basis, shift, offset = _standard(own, response.weights, problem.n, log_unit)
    units = LinearUnits(model.names, basis, shift, _means(X, offset, response.weights))
    return replace(problem, rows=Heteroscedastic(problem.rows, X, offset, least), models=(units,))


def _means(X, offset, weights):
    """Means of whitened columns and of an offset [q + 1]."""
    n = weights.sum()
    return np.append(weights @ X, 0.0 if offset is None else weights @ offset) / n


def whitened(own, weights, n):
    """Whitened columns [n, q] of a part, their basis [q, q], and log|det| of the map."""
    if not own.names:
        return own.X, np.zeros((0, 0)), 0.0
    X, basis, log_det = whiten(own.X, weights, n, own.names[:1] == (INTERCEPT,))
    if (~basis.any(axis=1)).any() or basis.shape[0] != basis.shape[1]:
        name = own.names[int(np.argmin(basis.any(axis=1)))]
        raise ValueError(
            f"{own.component}: its column {name!r} is a linear combination of those before it, or "
            "has too few rows: leave it out."
        )
    return np.asarray(X), basis, log_det


def _standard(own, weights, n, log_unit):
    """Whitened columns [n, q], their basis [q, q] and shift [q], and the offset [n] or None."""
    X, basis, _ = whitened(own, weights, n)
    offset = own.offset
    shift = np.zeros(len(basis))
    if log_unit:
        ones = np.linalg.lstsq(own.X, np.ones(len(weights)), rcond=None)[0]
        if np.abs(own.X @ ones - 1).max() < CONSTANT:
            shift = log_unit * ones
        else:
            offset = np.full(len(weights), -log_unit) if offset is None else offset - log_unit
    return X, basis, shift, offset
