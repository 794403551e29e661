"""Coefficients of a model's parts that are at infinity: a probability or dispersion at its edge.

Where some rows have no more zeros than the family, the probability of others goes to 0 for them,
and the coefficients that tell these rows apart go to infinity. The information is 0 along such a
direction, to its rounding, and so is the direction known. What is exact of it is that the other
rows' predictors stay.
"""

from dataclasses import replace

import numpy as np

from sklmm._fitted.separation import null_space

#: Change of a predictor along a unit vector of theta from which on it is the part's, and along the
#: part's directions that counts, a share of the largest one's; and entries that are rounding, of
#: columns of unit length.
OWN = 0.1
MOVED = 1e-3
NOTHING = 1e-7


def parts_at_infinity(result, design, response):
    """The result, marked where coefficients of parts have no finite estimate."""
    if result.flat is None or not result.flat.shape[1]:
        return result
    found = []
    for X, places in _parts(result, design, response):
        own = _exact(X, result.flat[places])
        directions = np.zeros((len(result.flat), own.shape[1]))
        directions[places] = own
        found.append(directions)
    found = np.column_stack([np.zeros((len(result.flat), 0)), *found])
    return replace(result, unbounded=found) if found.shape[1] else result


def _parts(result, design, response):
    """(X, places of its coefficients in (coef, natural)) of each predictor of a part."""
    family, last = list(result.family), len(result.natural_cov)
    for own in response.models:
        X = next(part.X for part in design.models if part.component == own.component)
        yield X, [family.index(name) - len(family) + last for name in own.names]
    if design.predicted:
        for own in design.predictors(response.n_predictors)[1:]:
            yield own.X, np.arange(len(result.coef))[own.columns]


def _exact(X, flat):
    """Directions [p, l] of columns X near the `flat` ones [p, k], along which other rows stay."""
    along = X @ flat
    mine = np.abs(along).max(axis=0) > OWN
    if not mine.any():
        return flat[:, mine]
    along = along[:, mine]
    moves = np.abs(along).max(axis=1)
    still = moves <= MOVED * moves.max()
    length = np.linalg.norm(X, axis=0)
    unit = X / np.where(length > 0, length, 1.0)
    free = null_space(unit[still].T @ unit[still])
    out = free @ np.linalg.lstsq(unit @ free, along, rcond=None)[0]
    out[np.abs(out) <= NOTHING * np.abs(out).max(axis=0)] = 0.0
    out = out[:, out.any(axis=0)] / np.where(length > 0, length, 1.0)[:, None]
    # So long that every entry counts, whatever the unit of its column.
    return out / np.where(out != 0, np.abs(out), np.inf).min(axis=0)
