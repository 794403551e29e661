r"""Rows of a Gaussian model whose residual SD is a function of the row, exp(s_i).

    s_i = offset_i + d_i^T gamma,     v_i = w_i exp(-2 s_i),

v_i being what a row weighs in least squares. With the residuals e = y - X beta - Z b and the
leverages h_i = a_i^T M a_i of a row a_i = (x_i, z_i), M the posterior covariance of (beta, b), or
of b alone in a full likelihood, the (restricted) log-likelihood has

    dl / dgamma   = sum_i d_i g_i,     g_i = v_i (e_i^2 + h_i) - w_i,
    dV / dgamma_a P y = 2 d_a e        (V = Z Sigma Z^T + diag(w / v)),

and the second derivatives of V in gamma take 2 sum_i d_i d_i^T g_i off the information, which is 0
on average.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from sklmm._threads import each, summed
from sklmm.design.indicators import quadratic
from sklmm.engine.linalg.blocks import by_factor, lower_factor
from sklmm.engine.rows.expansion import left, leverages, of_fixed
from sklmm.engine.rows.local import LocalRows
from sklmm.engine.rows.protocol import Coefs

#: Newton steps of gamma given the residuals' second moments, at most, and their least decrement.
NEWTON_STEPS = 20
NEWTON_TOL = 1e-4
#: Share of the largest eigenvalue of columns' products below which one is 0.
ROUNDING = 1e-10


class Told(NamedTuple):
    """What rows tell at one theta.

    `score` [q] in gamma; `bend` [q, q], what the curvature of V takes off the information; the
    working vectors 2 d_a e as sums with the rows' weights, over coefs, `vectors`, [., q], and with
    each other, `squares` [q, q].
    """

    score: np.ndarray
    bend: np.ndarray
    vectors: Coefs
    squares: np.ndarray


@dataclass(eq=False)
class Heteroscedastic:
    """The rows, `LocalRows` of y [n_rows], with s's columns [n_rows, q] and its offset [n_rows].

    s is at least `least`. `second` [n_rows] is e^2 + h as they were last told.
    """

    rows: LocalRows
    columns: np.ndarray
    offset: np.ndarray
    least: float
    second: np.ndarray | None = field(default=None, repr=False)

    @classmethod
    def of(cls, rows, least):
        """From rows whose y [n_rows, m] has the offset and the columns beside it."""
        y, offset, columns = rows.y[:, 0], rows.y[:, 1], rows.y[:, 2:]
        own = LocalRows.plain(rows, np.ascontiguousarray(y))
        return cls(own, np.ascontiguousarray(columns), np.ascontiguousarray(offset), least)

    def log_sd(self, raw, rows=slice(None)):
        """s of some rows; one below the least residual SD is that."""
        return np.maximum(self.offset[rows] + self.columns[rows] @ raw, self.least)

    def weights(self, raw):
        """v [n_rows]."""
        out = np.empty(self.rows.n_rows)

        def fill(rows):
            out[rows] = self.rows.weights[rows] * np.exp(-2 * self.log_sd(raw, rows))

        each(fill, len(out))
        return out

    def log_scale(self, raw):
        """Sum of w s: what the logarithm of a density by v lacks."""
        return summed(
            lambda own: float(self.rows.weights[own] @ self.log_sd(raw, own)), self.rows.n_rows
        )

    def constant(self, log_sd):
        """The gamma for which s is nearest to one number."""
        rows = self.rows

        def sums(own):
            D = self.columns[own]
            wD = rows.weights[own, None] * D
            return wD.T @ D, wD.T @ (log_sd - self.offset[own])

        return np.linalg.lstsq(*summed(sums, rows.n_rows), rcond=None)[0]

    def _free(self, raw, own):
        """Columns, s, w and v of some rows; of those with the least SD columns are 0."""
        D, s, w = self.columns[own], self.log_sd(raw, own), self.rows.weights[own]
        if s.min(initial=0.0) <= self.least:
            D = D * (s > self.least)[:, None]
        return D, s, w, w * np.exp(-2 * s)

    def tell(self, raw, coefs, height):
        """`Told` at coefs [., 1], and the leverages [n_rows]."""
        y, self.second = self.rows.y, np.empty(self.rows.n_rows)

        def visit(own, eta):
            D, _, w, v = self._free(raw, own)
            e, h = y[own] - eta[:, 0], height[own]
            square = e * e
            self.second[own] = square + h
            g = v * self.second[own] - w
            gD, vD = g[:, None] * D, (v * square)[:, None] * D
            return (2 * v * e)[:, None] * D, (gD.sum(axis=0), 2 * D.T @ gD, 4 * D.T @ vD)

        vectors, found = self.rows.visited(coefs, visit, self.columns.shape[1])
        return Told(found[0], found[1], vectors, found[2])

    def untold(self, raw):
        """Directions of gamma [q, .] that only rows with the least SD would tell, None without."""
        s = self.log_sd(raw)
        if s.min(initial=0.0) > self.least:
            return None
        some = self.columns[s > self.least]
        values, vectors = np.linalg.eigh(some.T @ some)
        return vectors[:, values <= ROUNDING * values.max(initial=0.0)]

    def leverages(self, inverse):
        """h [n_rows] by an `engine.rows.protocol.Inverse`."""
        return leverages(self.rows, inverse)

    def probed(self, raw, effects, weights, eliminated, inner):
        """h [n_rows] given beta by probes, and each one's part in the score in gamma, [C, q].

        `effects` [J, r, 2 C] of each term are two of each probe, whose products have the `weights`
        [C]; `inner` [J, r, r] is the covariance of those of the `eliminated` term alone.
        """
        rows, out, C = self.rows, np.zeros(self.rows.n_rows), len(weights)
        if eliminated is not None:
            out += quadratic(rows.z[eliminated], inner, rows.refs[eliminated])

        def visit(own, eta):
            D, _, _, v = self._free(raw, own)
            products = eta[:, :C] * eta[:, C:]
            out[own] += products @ weights
            return None, (products.T @ (v[:, None] * D),)

        still = np.zeros((rows.p, 2 * C))
        return out, rows.visited(Coefs(still, tuple(effects)), visit, bare=True)[1][0]

    def squares(self, at, follow):
        """Sums [q, p, p] of 2 d_a v r r^T at v [n_rows]: r = x less what effects `follow` X by."""
        rest = left(self.rows, follow)

        def sums(own):
            weighed = 2 * at[own, None] * self.columns[own]
            return np.einsum("nq,na,nb->qab", weighed, rest[own], rest[own], optimize=True)

        return summed(sums, self.rows.n_rows)

    def of_fixed(self, fixed, follow):
        """What the coefficients add to h: see `engine.rows.expansion.of_fixed`."""
        return of_fixed(self.rows, fixed, follow)

    def step(self, raw):
        """EM's step of gamma: the likeliest one by `second` as it is."""
        if self.second is None:
            return raw

        def sums(own, at):
            D, s, w, v = self._free(at, own)
            r = v * self.second[own]
            value = -float(w @ s) - 0.5 * float(r.sum())
            return value, D.T @ (r - w), 2 * D.T @ (r[:, None] * D)

        n = self.rows.n_rows
        value, score, information = summed(lambda own: sums(own, raw), n)
        for _ in range(NEWTON_STEPS):
            try:
                ahead = by_factor(lower_factor(information), score[:, None])[:, 0]
            except np.linalg.LinAlgError:
                return raw
            decrement, length = ahead @ score, 1.0
            if not decrement > NEWTON_TOL:
                break
            while length > 1e-3:
                trial = raw + length * ahead
                new = summed(lambda own, at=trial: sums(own, at), n)
                if new[0] >= value:
                    break
                length /= 2
            else:
                break
            raw, (value, score, information) = trial, new
        return raw
