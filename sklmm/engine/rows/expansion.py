"""Densities of rows in memory about one point, as far as Laplace's gradient reads them."""

import numpy as np

from sklmm._threads import in_threads
from sklmm.design.indicators import Indicators, applied, quadratic
from sklmm.engine.rows.cross_products import cells
from sklmm.engine.rows.protocol import Coefs


class LocalExpansion:
    """`engine.rows.protocol.Expansion` of `LocalRows` at coefs [., 1] and raw [q].

    `weights` and `bend` [n_rows] are the curvature in log |C| and the observed one, one array where
    they are the same, as where log |C| has the `observed` one.
    """

    def __init__(self, rows, likelihood, coefs, raw, observed):
        self.rows, self._densities, self._raw, self._observed = rows, likelihood, raw, observed
        self._eta, self.bend = np.empty((rows.n_rows, 1)), np.empty(rows.n_rows)
        self.weights = self.bend if observed else np.empty(rows.n_rows)
        column = raw[:, None]

        def visit(own, eta):
            (y, w), weights = rows.own(own), rows.weights[own]
            values, score, bend = likelihood.by_row(y, eta, column, True)
            score, of_raw = weights[:, None] * score, np.zeros((0, 1))
            if len(raw):
                _, score, of_raw = likelihood.slopes(y, w, eta, column)
            self._eta[own], self.bend[own] = eta, weights * bend[:, 0]
            if not observed:
                self.weights[own] = weights * likelihood.curvature(y, eta, column)[0][:, 0]
            turned, square = likelihood.in_raw(y, w, eta, raw)
            return np.concatenate([score, turned], axis=1), (w @ values, of_raw[:, 0], square)

        self._sum(rows.visited(coefs, visit, 1 + len(raw)))
        if np.array_equal(self.weights, self.bend):
            self.weights = self.bend

    def _sum(self, found):
        """Take what a pass over rows has summed: scores, and the values and derivatives in raw."""
        sums, (value, self.of_raw, self.raw_in_raw) = found
        self.value = float(value[0])
        self.score, self.score_in_raw = _columns(sums, slice(1)), _columns(sums, slice(1, None))

    def leverage(self, inverse):
        """Derivatives of -log |C| / 2 through the weights: in eta, as coefs [., 1], and in raw."""
        rows, height = self.rows, leverages(self.rows, inverse)

        def visit(own, _):
            (y, _), eta = rows.own(own), self._eta[own]
            share = -0.5 * rows.weights[own] * height[own]
            in_eta, in_raw = self._densities.bent(y, share, eta, self._raw, self._observed)
            return in_eta[:, None], (in_raw,)

        in_eta, (in_raw,) = rows.visited(None, visit, 1)
        return in_eta, in_raw


def _columns(sums, some):
    return Coefs(sums.beta[:, some], tuple(b[:, :, some] for b in sums.effects))


def leverages(rows, inverse):
    """Of each row a_i = (x_i, z_i), a_i^T M a_i [n_rows] for M, an `engine.rows.protocol.Inverse`.

    C^-1 is read at the row's own levels only. With beta held, M's blocks of the eliminated term E
    are looked up slab by slab, and those of the others in one matrix; or draws tell them.
    """
    return leverages_of([rows], inverse)[0]


def leverages_of(several, inverse):
    """The same of `several` rows that differ in X and z alone: what they look up is the same."""
    if hasattr(inverse, "leverages"):
        found = [inverse.leverages(rows) for rows in several]
    elif hasattr(inverse, "remaining"):
        found = _looked_up(several, inverse)
    else:
        found = [_drawn(rows, inverse) for rows in several]
    if not inverse.fixed.size:
        return found
    fixed = [of_fixed(rows, inverse.fixed, inverse.follow) for rows in several]
    return [out + own for out, own in zip(found, fixed, strict=True)]


def of_fixed(rows, fixed, follow):
    """What the coefficients, of covariance `fixed`, add: effects `follow` them, [J, r, p] each."""
    rest = left(rows, follow)
    return np.einsum("np,np->n", rest @ fixed, rest)


def left(rows, follow):
    """X [n_rows, p] less what the effects [J, r, p] that follow it explain."""
    rest = rows.X
    for refs, z, own in zip(rows.refs, rows.z, follow, strict=True):
        rest = rest - applied(refs, z, own)
    return rest


def _drawn(rows, inverse):
    """The mean square of the draws, with what the eliminated term has of its own."""
    out, E = np.empty(rows.n_rows), inverse.eliminated
    n = inverse.deviations[0].shape[2]

    def visit(own, eta):
        out[own] = np.einsum("nc,nc->n", eta, eta) / n
        if E is not None:
            out[own] += quadratic(rows.z[E][own], inverse.inner, rows.refs[E][own])
        return None, ()

    rows.visited(Coefs(np.zeros((rows.p, n)), tuple(inverse.deviations)), visit, bare=True)
    return out


def _looked_up(several, inverse):
    """With beta held, from the blocks of M."""
    outs = [np.zeros(rows.n_rows) for rows in several]
    places = [_places(several, *own) for own in inverse.rest]
    for i, (at, zs) in enumerate(places):
        for j, (to, qs) in enumerate(places[: i + 1]):
            for a in range(at.shape[1]):
                for b in range(to.shape[1]):
                    entry = inverse.remaining[at[:, a], to[:, b]] * (1 + (j != i))
                    for out, z, q in zip(outs, zs, qs, strict=True):
                        out += entry * z[:, a] * q[:, b]
    if inverse.eliminated is not None:
        in_threads(lambda levels: _add_eliminated(several, inverse, levels, outs), inverse.slabs())
    return outs


def _add_eliminated(several, inverse, levels, outs):
    """What involves some levels of the eliminated term, to their rows."""
    E, rows = inverse.eliminated, several[0]
    refs, order = rows.refs[E], rows.order(E)
    first, last = np.searchsorted(refs, [levels.start, levels.stop], sorter=order)
    some = order[first:last]
    at, turned = refs[some] - levels.start, []
    own, turning, across = inverse.slab(levels)
    for out, mine in zip(outs, (rows.z[E][some] for rows in several), strict=True):
        out[some] += quadratic(mine, own, at)
        if isinstance(mine, Indicators):
            turned.append(turning[at, mine.places] * mine.entries)
        else:
            turned.append(np.einsum("na,nab->nb", mine, turning[at]))
    r = turned[0].shape[1]
    for k, begin in inverse.rest:
        to, qs = _places(several, k, begin, some)
        for a in range(r):
            for b in range(to.shape[1]):
                entry = across[at * r + a, to[:, b]]
                for out, mine, q in zip(outs, turned, qs, strict=True):
                    out[some] += 2 * entry * mine[:, a] * q[:, b]


def _places(several, k, first, some=slice(None)):
    """Where the effects of the rows' levels of term k are among all from `first` on, and each z.

    Both [., r], or of as many columns as effects of a row.
    """
    places, columns, refs = [], [[] for _ in several], several[0].refs[k][some]
    for number, rows in enumerate(several):
        for own, z in cells(refs, rows.z[k][some]):
            columns[number].append(z)
            if not number:
                r = z.shape[1]
                places.append(first + own.astype(np.intp)[:, None] * r + np.arange(r))
    return _beside(places), [_beside(own) for own in columns]


def _beside(parts):
    """Arrays [n, .] side by side."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
