r"""Rows of a Gaussian model whose residual SD is a function of the row, exp(s_i).

    s_i = offset_i + d_i^T gamma,     v_i = w_i exp(-2 s_i),

v_i being what a row weighs in least squares. With the residuals e = y - X beta - Z b and the
leverages h_i = a_i^T M a_i of a row a_i = (x_i, z_i), M the posterior covariance of (beta, b), or
of b alone in a full likelihood, the (restricted) log-likelihood has

    dl / dgamma   = sum_i d_i g_i,     g_i = v_i (e_i^2 + h_i) - w_i,
    dV / dgamma_a P y = 2 d_a e        (V = Z Sigma Z^T + diag(w / v)),

The average information needs no correction for the second derivatives of V in gamma: what they take
off it is what it lacks of the observed one. Of rows without effects both are 2 sum_i v_i e_i^2 d_i
d_i^T.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from sklmm._threads import each, summed
from sklmm.design.indicators import quadratic
from sklmm.engine.linalg.blocks import by_factor, lower_factor
from sklmm.engine.rows.expansion import left, leverages
from sklmm.engine.rows.local import LocalRows
from sklmm.engine.rows.protocol import Coefs

#: Steps of gamma given the residuals' second moments, at most, and their least decrement.
SCORING_STEPS = 20
SCORING_TOL = 1e-2
#: Share of its expectation that the information in gamma has for steps, at least.
LEAST_SHARE = 0.1
#: How far a start takes a row's log SD below that of one SD for all, at most.
MOST_FALL = 1.0
#: Share of the largest eigenvalue of columns' products below which one is 0.
ROUNDING = 1e-10
#: What is left of a leverage of 1.
ALONE = 1e-9


def _null(columns):
    """Directions [q, .] in which columns [n, q] are 0."""
    values, vectors = np.linalg.eigh(columns.T @ columns)
    return vectors[:, values <= ROUNDING * values.max(initial=0.0)]


class Told(NamedTuple):
    """What rows tell at one theta.

    `score` [q] in gamma; the working vectors 2 d_a e as sums with the rows' weights, over coefs,
    `vectors`, [., q], and with each other, `squares` [q, q], whose expectation is the `usual` one.
    """

    score: np.ndarray
    vectors: Coefs
    squares: np.ndarray
    usual: np.ndarray

    def floor(self):
        """What the information in gamma [q, q] lacks of a share of its usual size.

        Where residuals are smaller than the SD says there is hardly any, and steps know no size.
        """
        values, vectors = np.linalg.eigh(self.usual)
        some = values > ROUNDING * values.max(initial=0.0)
        root, back = (
            vectors[:, some] / np.sqrt(values[some]),
            vectors[:, some] * np.sqrt(values[some]),
        )
        shares, axes = np.linalg.eigh(root.T @ self.squares @ root)
        back = back @ axes
        return 0.5 * (back * np.maximum(LEAST_SHARE - shares, 0.0)) @ back.T


class Probes(NamedTuple):
    """Probes that tell the rows' leverages given beta.

    `effects` [J, r, 2 C] of each term are two of each probe: of each row the product of the two,
    times the `weights` [C], is on average its leverage but for what the `eliminated` term, of
    covariance `inner` [J, r, r], has alone.
    """

    effects: list
    weights: np.ndarray
    eliminated: int | None
    inner: np.ndarray

    def alone(self, rows, own):
        """What the eliminated term has alone in some rows."""
        k = self.eliminated
        return 0.0 if k is None else quadratic(rows.z[k][own], self.inner, rows.refs[k][own])


@dataclass(eq=False)
class Heteroscedastic:
    """The rows, `LocalRows` of y, with s's columns D [n_rows, q] and its offset [n_rows] or None.

    s is at least `least`. `second` [n_rows] is e^2 + h as they were last told.
    """

    rows: LocalRows
    D: np.ndarray
    offset: np.ndarray | None
    least: float
    second: np.ndarray | None = field(default=None, repr=False)
    #: As of all rows: of the fixed part none are sparse.
    columns = None

    @property
    def p(self):
        """Number of columns of X."""
        return self.rows.p

    def log_sd(self, raw, rows=slice(None)):
        """s of some rows; one below the least residual SD is that."""
        s = self.D[rows] @ raw
        if self.offset is not None:
            s += self.offset[rows]
        return np.maximum(s, self.least, out=s)

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
            D = self.D[own]
            wD = rows.weights[own, None] * D
            away = np.full(len(D), log_sd)
            return wD.T @ D, wD.T @ (away if self.offset is None else away - self.offset[own])

        return np.linalg.lstsq(*summed(sums, rows.n_rows), rcond=None)[0]

    def _free(self, raw, own):
        """Columns, s, w and v of some rows; of those with the least SD columns are 0."""
        D, s, w = self.D[own], self.log_sd(raw, own), self.rows.weights[own]
        if s.min(initial=0.0) <= self.least:
            D = D * (s > self.least)[:, None]
        return D, s, w, w * np.exp(-2 * s)

    def tell(self, raw, solution, fixed, follow, height=None, probes=None):
        """`Told` at a solution, coefs [., 1], and the probes' parts in the score, [C, q], if any.

        The leverages are those given beta and what beta adds, whose covariance is `fixed` [p, p]
        and which effects `follow`, [J, r, p] each; both are None where beta is held. The former
        are `height` [n_rows], or those of `Probes`.
        """
        rows, p, q = self.rows, 0 if fixed is None else len(fixed), self.D.shape[1]
        self.second = np.empty(rows.n_rows)
        columns = [solution]
        columns += [Coefs(np.zeros((rows.p, p)), follow)] if p else []
        columns += [] if probes is None else [Coefs(np.zeros((rows.p, 1)), probes.effects)]
        C = 0 if probes is None else len(probes.weights)
        beta = np.zeros((rows.p, 1 + p + 2 * C))
        beta[:, :1] = solution.beta
        effects = zip(*(own.effects for own in columns), strict=True)
        coefs = Coefs(beta, tuple(np.concatenate(own, axis=2) for own in effects))

        def visit(own, eta):
            D, _, w, v = self._free(raw, own)
            e, parts = rows.y[own] - eta[:, 0], np.zeros((0, q))
            h = np.zeros(len(e)) if height is None else height[own].copy()
            if probes is not None:
                products = eta[:, 1 + p : 1 + p + C] * eta[:, 1 + p + C :]
                h += products @ probes.weights + probes.alone(rows, own)
                parts = products.T @ (v[:, None] * D)
            if p:
                rest = rows.X[own] - eta[:, 1 : 1 + p]
                h += ((rest @ fixed) * rest).sum(axis=1)
            square = e * e
            self.second[own] = h = square + h
            squares, all_of = ((own[:, None] * D).T @ D for own in (v * square, w))
            sums = D.T @ (v * h - w), 4 * squares, 4 * all_of, parts
            return (2 * v * e)[:, None] * D, sums

        vectors, (score, squares, usual, parts) = rows.visited(coefs, visit, q)
        return Told(score, vectors, squares, usual), parts

    def untold(self, raw):
        """Directions of gamma [q, .] that only rows with the least SD would tell, None without."""
        s = self.log_sd(raw)
        if s.min(initial=0.0) > self.least:
            return None
        return _null(self.D[s > self.least])

    def without_residual(self):
        """Directions of gamma [q, .] that only rows without a residual would tell, None without.

        Of a restricted likelihood: where a column of the fixed part is a row's alone, the leverage
        of that row among independent ones is 1, and its SD may be any number.
        """
        X = self.rows.X
        rest = np.einsum("np,np->n", X, X) <= (1 - ALONE) * self.rows.weights.sum()
        return None if rest.all() else _null(self.D[rest])

    def leverages(self, inverse):
        """h [n_rows] by an `engine.rows.protocol.Inverse`: given beta where it has no `fixed`."""
        return leverages(self.rows, inverse)

    def squares(self, at, follow):
        """Sums [q, p, p] of 2 d_a v r r^T at v [n_rows]: r = x less what effects `follow` X by."""
        rest = left(self.rows, follow)

        def sums(own):
            weighed = 2 * at[own, None] * self.D[own]
            return np.einsum("nq,na,nb->qab", weighed, rest[own], rest[own], optimize=True)

        return summed(sums, self.rows.n_rows)

    def em_step(self, raw):
        """EM's step of gamma: the likeliest one by `second` as it is."""
        return raw if self.second is None else self._likeliest(raw, self.second, None)

    def start(self, raw, beta, covariances):
        """Gamma by the rows one by one, of variance exp(2 s) + z^T Sigma z, at coefficients beta.

        `covariances` [r, r] are Sigma of each term. Rows of a level are taken as independent, which
        is consistent; but where there are few, Sigma may be all of their variance. From `raw`, no
        log SD falls far.
        """
        rows, between = self.rows, np.zeros(self.rows.n_rows)
        for z, refs, S in zip(rows.z, rows.refs, covariances, strict=True):
            between += quadratic(z, S, refs)
        step = self._likeliest(raw, (rows.y - rows.X @ beta) ** 2, between) - raw
        fall = -(self.D @ step).min(initial=0.0)
        return raw + step * min(1.0, MOST_FALL / max(fall, MOST_FALL))

    def _likeliest(self, raw, square, between):
        """The gamma for which rows of independent residuals with these squares are likeliest.

        Their variances are exp(2 s), and what is `between` [n_rows] if it is not None. By Fisher's
        scoring and halving.
        """

        # A step may be far too long.
        @np.errstate(over="ignore", invalid="ignore")
        def sums(own, at):
            D, s, w, _ = self._free(at, own)
            variance = np.exp(2 * s)
            total = variance if between is None else variance + between[own]
            share, r = variance / total, square[own] / total
            value = -0.5 * float(w @ (np.log(total) + r))
            wD = (w * share)[:, None] * D
            return value, wD.T @ (r - 1), 2 * wD.T @ (share[:, None] * D)

        n = self.rows.n_rows
        value, score, information = summed(lambda own: sums(own, raw), n)
        for _ in range(SCORING_STEPS):
            try:
                ahead = by_factor(lower_factor(information), score[:, None])[:, 0]
            except np.linalg.LinAlgError:
                return raw
            decrement, length = ahead @ score, 1.0
            if not decrement > SCORING_TOL:
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
