"""Densities of rows in memory about one point, as far as Laplace's gradient reads them."""

import numpy as np

from sklmm.engine.linalg.newton import STEP


class LocalExpansion:
    """`engine.rows.protocol.Expansion` of `LocalRows` at coefs [., 1] and raw [q].

    `weights` and `bend` [n_rows] are the curvature in log |C| and the observed one, which are the
    same where log |C| has the `observed` one.
    """

    def __init__(self, rows, likelihood, coefs, raw, observed):
        self.rows = rows
        eta, q = rows.predictor(coefs), len(raw)
        y, w = rows.observations
        values, score, of_raw = likelihood.slopes(y, w, eta, raw[:, None])
        self.value, self.of_raw = float(w @ values[:, 0]), of_raw[:, 0]
        self.score = rows.sums(score)

        def curvatures(eta, raw):
            (bend,) = likelihood.observed(y, eta, raw)
            W = bend if observed else likelihood.curvature(y, eta, raw)[0]
            return rows.weights[:, None] * bend, rows.weights[:, None] * W

        h = STEP * min(1.0, max(float(np.sqrt(np.mean(eta**2))), STEP))
        columns = eta + np.array([0.0, h, -h])
        bend, W = curvatures(columns, np.repeat(raw[:, None], 3, axis=1))
        self.weights, self.bend = W[:, 0], bend[:, 0]
        self._weights_in_eta = (W[:, 1] - W[:, 2]) / (2 * h)
        away = raw[:, None] + np.concatenate([STEP * np.eye(q), -STEP * np.eye(q)], axis=1)

        def rates(values):
            return (values[:, :q] - values[:, q:]) / (2 * STEP)

        still = np.repeat(eta, 2 * q, axis=1)
        self._weights_in_raw = rates(curvatures(still, away)[1]) if q else np.zeros((len(eta), 0))
        _, score, of_raw = likelihood.slopes(y, w, still, away) if q else (None, still, away)
        self.score_in_raw, self.raw_in_raw = rows.sums(rates(score)), rates(of_raw)

    def leverage(self, inverse):
        """Derivatives of -log |C| / 2 through the weights: in eta, as coefs [., 1], and in raw."""
        height = leverages(self.rows, inverse)
        in_eta = -0.5 * height * self._weights_in_eta
        return self.rows.sums(in_eta[:, None]), -0.5 * height @ self._weights_in_raw


def leverages(rows, inverse):
    """Of each row a_i = (x_i, z_i), a_i^T M a_i [n_rows] for M, an `engine.rows.protocol.Inverse`.

    C^-1 is read at the row's own levels only. With beta held, M's blocks of the eliminated term E
    are looked up slab by slab, and those of the others in one matrix.
    """
    out = np.zeros(rows.n_rows)
    places = [(k, _places(rows, k, first)) for k, first in inverse.rest]
    for i, (k, at) in enumerate(places):
        for other, to in places[: i + 1]:
            for a in range(at.shape[1]):
                for b in range(to.shape[1]):
                    entry = inverse.remaining[at[:, a], to[:, b]] * (1 + (other != k))
                    out += entry * rows.z[k][:, a] * rows.z[other][:, b]
    if inverse.eliminated is not None:
        _add_eliminated(rows, inverse, out)
    rest = rows.X if inverse.fixed.size else rows.X[:, :0]
    for refs, z, follow in zip(rows.refs, rows.z, inverse.follow, strict=True):
        rest = rest - np.einsum("na,nap->np", z, follow[refs])
    return out + np.einsum("np,np->n", rest @ inverse.fixed, rest)


def _add_eliminated(rows, inverse, out):
    """What involves the eliminated term, in slabs of its levels."""
    refs, z = rows.refs[inverse.eliminated], rows.z[inverse.eliminated]
    order = rows.order(inverse.eliminated)
    for levels, own, across in inverse.slabs():
        first, last = np.searchsorted(refs, [levels.start, levels.stop], sorter=order)
        some = order[first:last]
        at, mine = refs[some] - levels.start, z[some]
        out[some] += np.einsum("na,nab,nb->n", mine, own[at], mine)
        for k, begin in inverse.rest:
            to = _places(rows, k, begin, some)
            for a in range(z.shape[1]):
                for b in range(to.shape[1]):
                    entry = across[at * z.shape[1] + a, to[:, b]]
                    out[some] += 2 * entry * mine[:, a] * rows.z[k][some, b]


def _places(rows, k, first, some=slice(None)):
    """Where the effects of the rows' levels of term k are among all from `first` on, [., r]."""
    r = rows.z[k].shape[1]
    return first + rows.refs[k][some].astype(np.intp)[:, None] * r + np.arange(r)
