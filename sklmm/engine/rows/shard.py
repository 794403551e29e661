"""What one shard of a table's rows answers: plain functions of `LocalRows`, for any process.

They are what `rows.parted` has called where a shard is. Nothing is changed by them: what a shard
is to keep is what they return.
"""

from copy import copy
from functools import reduce
from typing import NamedTuple

import numpy as np

from sklmm.design.indicators import Indicators, quadratic
from sklmm.engine.rows.cross_products import is_ones
from sklmm.engine.rows.local import LocalRows
from sklmm.engine.rows.protocol import Coefs
from sklmm.engine.rows.standardize import ones

#: Linear predictors beyond which the square of exp overflows.
MOST = 300.0


class Evaluated(NamedTuple):
    """What `LocalRows.evaluate` answers; the weights stay."""

    value: np.ndarray
    score: Coefs
    weights: np.ndarray


class Summary(NamedTuple):
    """What a shard's `LocalExpansion` tells; `differs` counts those whose weights are no bend."""

    value: float
    score: Coefs
    of_raw: np.ndarray
    score_in_raw: Coefs
    raw_in_raw: np.ndarray
    differs: int


class AtPairs(NamedTuple):
    """`engine.rows.protocol.Inverse` at the levels, and pairs of levels, that rows have.

    own are M's blocks [J, r, r] of every term with beta held; across, by (k, l), those of two terms
    at the pairs of levels of a shard, in the order of the entries of its `pairs`, and to be turned
    by `turning` [J, r, r] where k is the eliminated term.
    """

    fixed: np.ndarray
    follow: list
    own: list
    across: dict
    eliminated: int | None = None
    turning: np.ndarray | None = None

    def leverages(self, rows):
        """z_i^T M z_i [n_rows] with beta held."""
        out = np.zeros(rows.n_rows)
        for refs, z, own in zip(rows.refs, rows.z, self.own, strict=True):
            out += quadratic(z, own, refs)
        for (k, other), values in self.across.items():
            z = np.asarray(rows.z[k])
            if k == self.eliminated:
                z = np.einsum("na,nab->nb", z, self.turning[rows.refs[k]])
            blocks = rows.at_pairs(k, other, values)
            out += 2 * np.einsum("na,nab,nb->n", z, blocks, rows.z[other])
        return out


class Drawn(NamedTuple):
    """`engine.rows.protocol.DrawnInverse`, and nothing besides."""

    fixed: np.ndarray
    follow: list
    eliminated: int
    inner: np.ndarray
    deviations: list


class Looked(NamedTuple):
    """`engine.rows.protocol.Inverse` with nothing eliminated, and nothing besides."""

    fixed: np.ndarray
    follow: list
    rest: list
    remaining: np.ndarray
    eliminated: None = None


def weights(kept, which):
    """The weights [n_rows] in what a shard has kept, or None for the table's own."""
    return kept if which is None else getattr(kept, which)


def answers(rows, kept, which, requests):
    """What is asked about the cross-products at some weights, a list.

    A request is the name of a method of the rows, or ("pair", k, l, with its pattern or without).
    """
    at = weights(kept, which)
    return [_answer(rows, request, at) for request in requests]


def _answer(rows, request, at):
    if isinstance(request, str):
        return getattr(rows, request)(at)
    _, k, other, patterned = request
    C = rows.pairs(k, [other], at).matrix
    return (C.data, C.indices, C.indptr) if patterned else C.data


def product(rows, coefs, kept, which):
    """`LocalRows.product`."""
    return rows.product(coefs, weights(kept, which))


def evaluate(rows, *arguments):
    """`LocalRows.evaluate`, to be kept."""
    return Evaluated(*rows.evaluate(*arguments))


def told(evaluated):
    """What leaves a shard of `Evaluated`."""
    return evaluated.value, evaluated.score


def safe(rows, likelihood, coefs, raw, kept, which):
    """`LocalRows.safe`, to be kept."""
    return rows.safe(likelihood, coefs, raw, weights(kept, which))


def summary(expansion):
    """`Summary` of a `LocalExpansion`."""
    known = (getattr(expansion, name) for name in Summary._fields[:-1])
    return Summary(*known, int(expansion.weights is not expansion.bend))


def leverage(expansion, inverse):
    """`LocalExpansion.leverage`."""
    return expansion.leverage(inverse)


def remainder(rows, likelihood, coefs, raw, kept, which, exact, held):
    """`LocalRows.remainder`, to be kept."""
    return rows.remainder(likelihood, coefs, raw, weights(kept, which), exact=exact, held=held)


def spread(remainder, blocks, columns):
    """A remainder that has taken note of variances, to be kept."""
    out = copy(remainder)
    out.spread(blocks, columns)
    return out


def split(remainder, coefs):
    """`LocalRemainder.split`."""
    return remainder.split(coefs)


def pull(remainder, coefs, tau):
    """`LocalRemainder.pull`."""
    return remainder.pull(coefs, tau)


def partners(rows, k, other):
    """The level of another term that each of a term's levels is, [J], -1 of those without rows.

    None where a level has rows of two.
    """
    one, two = rows.refs[k], rows.refs[other]
    out = np.full(rows.levels[k], -1)
    out[one] = two
    return out if np.array_equal(out[one], two) else None


def agree(found):
    """Whether the shards' `partners` [J] of a term's levels are the same, and another's each."""
    known = None
    for own in found:
        if own is None:
            return False
        known = own if known is None else np.where(known < 0, own, known)
        if (known[own >= 0] != own[own >= 0]).any():
            return False
    return len(np.unique(known)) == len(known)


def n_rows(rows):
    """Number of a shard's rows."""
    return rows.n_rows


def counts(rows, k):
    """Observations of each level of a term [J]."""
    return np.bincount(rows.refs[k][:: rows.d], minlength=rows.levels[k])


def taken(rows, some):
    """`LocalRows` of some observations alone."""
    return rows.take((some[:, None] * rows.d + np.arange(rows.d)).ravel())


def standard_rows(standard, design, y, weights):
    """`LocalRows` in `rows.standard_units.StandardUnits` of a part of a table.

    Of its design, y [n_rows] and weights [n_rows]; the levels are those of all parts.
    """
    units, offset = standard.units, design.offset
    scaled = standard.t is not None
    if offset is not None:
        y, offset = (y - offset, None) if scaled else (y, offset / standard.problem.y_scale)
    first = design.X.shape[1] - len(units.shift)
    M = units.columns(design.X[:, first:], y)
    return LocalRows(
        M @ standard.t if scaled else y / standard.y_unit,
        M[:, :-1] @ standard.T[:-1],
        weights,
        tuple(block.refs for block in design.blocks),
        tuple(block.n_levels for block in design.blocks),
        tuple(
            ones(len(y)) if block.z is None else block.z @ basis @ A
            for block, basis, A in zip(design.blocks, units.z_bases, standard.bases, strict=True)
        ),
        offset,
    )


def log_link_mean(rows, scale, coefs, covariances):
    """Sum over the rows of w E[exp(eta)], the effects drawn from their distribution.

    With coefficients, `Coefs` [., 1] without effects, and covariances of these; eta is `scale`
    times the predictor.
    """
    eta = scale * rows.predictor(coefs)[:, 0]
    for z, covariance in zip(rows.z, covariances, strict=True):
        eta += 0.5 * quadratic(z, covariance)
    return float(rows.weights @ np.exp(np.minimum(eta, MOST)))


def n_below(rows, scale, coefs, edge):
    """How many rows have `scale` times their predictor at an edge or below."""
    return int(np.sum(scale * rows.predictor(coefs) <= edge))


def largest_variance(rows, covariance):
    """The largest x^T covariance x of the rows."""
    return float(np.abs(np.einsum("ij,ij->i", rows.X @ covariance, rows.X)).max())


def concatenated(parts):
    """`LocalRows` of all rows of several, one after another."""
    if len(parts) == 1:
        return parts[0]
    first = parts[0]

    def joined(name, k=None):
        own = [getattr(part, name) if k is None else getattr(part, name)[k] for part in parts]
        if isinstance(own[0], Indicators):
            return Indicators.joined(own)
        if all(map(is_ones, own)):
            return np.broadcast_to(1.0, (sum(map(len, own)), *own[0].shape[1:]))
        return np.concatenate(own)

    terms = range(len(first.z))
    return LocalRows(
        joined("y"),
        np.concatenate([part.X for part in parts]),
        joined("weights"),
        tuple(joined("refs", k) for k in terms),
        first.levels,
        tuple(joined("z", k) for k in terms),
        None if first.offset is None else joined("offset"),
        d=first.d,
    )


def added(parts):
    """Sum of what shards answer, in their order: arrays, or tuples and lists of them."""
    return reduce(_both, parts)


def _both(one, two):
    if isinstance(one, Coefs | Summary):
        return type(one)(*map(_both, one, two))
    if isinstance(one, tuple | list):
        return type(one)(map(_both, one, two))
    return one + two
