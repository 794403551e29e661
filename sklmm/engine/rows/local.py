"""Rows in this process's memory, by NumPy and SciPy."""

from dataclasses import dataclass, replace

import numpy as np

from sklmm.engine.linalg.newton import STEP
from sklmm.engine.rows.blocked import Passes, in_order, total
from sklmm.engine.rows.cross_products import LocalCrossProducts
from sklmm.engine.rows.expansion import LocalExpansion
from sklmm.engine.rows.protocol import Coefs
from sklmm.engine.rows.remainder import LocalRemainder

#: Share of the expected curvature that safe weights keep of the observed one.
LEAST_CURVATURE = 0.1


@dataclass(frozen=True, eq=False)
class LocalRows(LocalCrossProducts):
    """`engine.rows.protocol.Rows` of arrays, in standard units."""

    #: Whether predictors of a row have columns and terms of their own, see `rows.predictors`.
    own_predictors = False

    def __post_init__(self):
        # Passes read X many times.
        object.__setattr__(self, "X", np.asarray(self.X))

    def without_fixed(self):
        """The rows of a model without coefficients."""
        return replace(self, X=self.X[:, :0])

    def bare(self):
        """The same rows, without what they have worked out of themselves."""
        return replace(self, _known={})

    def stacked(self, d):
        """Rows of `d` linear predictors, each with coefficients and effects of its own.

        The rows of one observation are adjacent, i * d + c; the coefficients of one predictor too,
        and term k becomes the terms k * d + c, whose z is 0 on the rows of the other predictors.
        """
        if d == 1:
            return self
        n, unit = self.n_rows * d, np.eye(d)
        of_terms = range(len(self.z))
        refs = [np.repeat(refs, d, axis=0) for refs in self.refs]
        return replace(
            self,
            y=np.repeat(self.y, d, axis=0),
            X=np.einsum("np,cd->ncdp", self.X, unit).reshape(n, -1),
            weights=np.repeat(self.weights, d),
            refs=tuple(refs[k] for k in of_terms for _ in range(d)),
            levels=tuple(self.levels[k] for k in of_terms for _ in range(d)),
            z=tuple(
                np.einsum("n...,c->nc...", z, e).reshape(n, *z.shape[1:])
                for z in map(np.asarray, self.z)
                for e in unit
            ),
            d=d,
            _known={},
        )

    @property
    def observations(self):
        """y [n_rows / d] and the weights of the observations."""
        return self.y[:: self.d], self.weights[:: self.d]

    @property
    def _passes(self):
        """The rows' blocks, of whatever X and offset."""
        if "passes" not in self._known:
            self._known["passes"] = Passes(self.refs, self.z, self.levels, self.n_rows, self.d)
        return self._known["passes"]

    def _pass(self, coefs, visit, n_columns=None):
        """Sums over rows of what `visit` finds at linear predictors: see `Passes.run`."""
        return self._passes.run(self.X, self.offset, coefs, visit, n_columns)

    def _of(self, rows, dtype):
        """y [n] and the weights [n] of the observations of a block's rows, in a precision."""
        own = slice(rows.start, rows.stop, self.d)
        return (part[own].astype(dtype, copy=False) for part in (self.y, self.weights))

    def own(self, rows):
        """y [n] and the weights [n] of the observations of a block's rows."""
        return self._of(rows, np.dtype(float))

    def visited(self, coefs, visit, n_columns=None, bare=False):
        """What `Passes.run` finds, `bare` of the offset."""
        return self._passes.run(self.X, None if bare else self.offset, coefs, visit, n_columns)

    def ordered(self):
        """The rows sorted by the term with most effects, where they are not: passes are quick."""
        k = self._passes.largest
        if k is None or self.refs[k].ndim > 1 or in_order(self.refs[k]):
            return self
        return self.take(self.order(k))

    def held(self, beta):
        """The rows of a model whose coefficients are beta [p]: they are in the offset."""
        offset = self.X @ beta if self.offset is None else self.offset + self.X @ beta
        return replace(self, X=self.X[:, :0], offset=offset)

    def predictor(self, coefs):
        """eta [n_rows, C], the offset included."""
        out = np.empty((self.n_rows, coefs.beta.shape[1]), coefs.beta.dtype)

        def visit(rows, eta):
            out[rows] = eta
            return None, ()

        self._pass(coefs, visit)
        return out

    def order(self, k):
        """Row numbers by level of term k."""
        if ("order", k) not in self._known:
            self._known["order", k] = np.argsort(self.refs[k], kind="stable")
        return self._known["order", k]

    def sums(self, rows):
        """X^T rows and Z^T rows of [n_rows, C], as `Coefs`."""
        return self._pass(None, lambda own, _: (rows[own], ()), rows.shape[1])[0]

    def product(self, coefs, at=None):
        """[X, Z]^T w [X, Z] coefs, as `Coefs`."""
        w = self._weights(at)

        def visit(rows, eta):
            return w[rows, None] * eta, ()

        return self._passes.run(self.X, None, coefs, visit, coefs.beta.shape[1])[0]

    def evaluate(self, likelihood, coefs, raw, curvature="expected", about=None):
        """Sum of w log f [C], its score in the coefs, and the first's curvature's weights.

        At coefs and raw [q, C]. A custom density, which may have kinks, is to second order `about`
        other coefs and raw.
        """
        W, C, also = np.empty(self.n_rows), raw.shape[1], coefs
        if about is not None:
            effects = zip(coefs.effects, about[0].effects, strict=True)
            also = Coefs(
                np.concatenate([coefs.beta, about[0].beta], axis=1),
                tuple(np.concatenate(pair, axis=2) for pair in effects),
            )

        def visit(rows, eta):
            y, w = self._of(rows, eta.dtype)
            if about is None:
                values, score, bend = likelihood.by_row(y, eta, raw, curvature == "observed")
            else:
                values, score, bend = _expanded(likelihood, y, eta, raw, about[1])
            w_rows = self.weights[rows]
            W[rows] = w_rows * bend[:, 0]
            score = np.asarray(score) if self._unweighted else w_rows[:, None] * score
            return score, (w @ values,)

        score, (value,) = self._pass(also, visit, C)
        return value, score, W

    # What float32 cannot say shows in the chains' rounding.
    @np.errstate(all="ignore")
    def scored(self, likelihood, coefs, raw):
        """Sum of w log f [C] in float64 and its score in the coefs, in the precision of these."""

        def visit(rows, eta):
            y, w = self._of(rows, eta.dtype)
            values, score = likelihood.both(y, eta, raw)
            if self._unweighted:
                return score, (total(values),)
            return np.repeat(w, self.d)[:, None] * score, (total(values, w),)

        score, (value,) = self._pass(coefs, visit, raw.shape[1])
        return value, score

    @np.errstate(all="ignore")
    def score(self, likelihood, coefs, raw):
        """The score of w log f in the coefs alone, in the precision of these."""

        def visit(rows, eta):
            y, w = self._of(rows, eta.dtype)
            score = likelihood.score(y, eta, raw)
            return score if self._unweighted else np.repeat(w, self.d)[:, None] * score, ()

        return self._pass(coefs, visit, raw.shape[1])[0]

    @property
    def _unweighted(self):
        if "unweighted" not in self._known:
            self._known["unweighted"] = bool((self.weights == 1).all())
        return self._known["unweighted"]

    def slopes(self, likelihood, coefs, raw):
        """Sum of w log f [C], its score in the coefs, and in raw [q, C]."""

        def visit(rows, eta):
            y, w = self._of(rows, eta.dtype)
            values, score, of_raw = likelihood.slopes(y, w, eta, raw)
            w = None if self._unweighted else w
            return np.asarray(score), (total(np.asarray(values), w), np.asarray(of_raw))

        score, sums = self._pass(coefs, visit, raw.shape[1])
        return sums[0], score, sums[1]

    def information(self, likelihood, coefs, raw, own, shared):
        """Less the second derivatives of the sum of w log f along directions [m, m, C]."""
        C, parts = raw.shape[1], (coefs, own, shared)
        betas = [part.beta for part in parts]
        effects = zip(*(part.effects for part in parts), strict=True)
        every = Coefs(
            np.concatenate(betas, axis=1), tuple(np.concatenate(b, axis=2) for b in effects)
        )

        def visit(rows, eta):
            (y, w), weights = self._of(rows, eta.dtype), self.weights[rows]
            at = eta[:, :C]
            if self.offset is not None:
                at = at + self.offset[rows, None].astype(eta.dtype, copy=False)
            k = own.beta.shape[1] // C
            alone = eta[:, C : C + k * C].reshape(len(eta), k, C)
            return None, (
                information(likelihood, y, w, weights, at, raw, alone, eta[:, C + k * C :]),
            )

        return self._passes.run(self.X, None, every, visit)[1][0]

    def safe(self, likelihood, coefs, raw, at):
        """Weights that are positive: `at`, and at least a share of the expected curvature."""
        (W,) = likelihood.curvature(self.observations[0], self.predictor(coefs), raw[:, None])
        return np.maximum(at, LEAST_CURVATURE * self.weights * W[:, 0])

    def expand(self, likelihood, coefs, raw, observed):
        """`LocalExpansion` at coefs [., 1] and raw [q]."""
        return LocalExpansion(self, likelihood, coefs, raw, observed)

    def remainder(self, likelihood, coefs, raw, at, *, exact, held):
        """`LocalRemainder` at coefs [., 1], raw [q] and weights `at`."""
        return LocalRemainder(self, likelihood, coefs, raw, at, exact=exact, held=held)

    def constant(self, likelihood, eta, raw):
        """At constant predictors eta [d], the sum of the curvature's weights, and X^T w eta [p]."""
        (y, _), eta = self.observations, np.tile(eta, self.n_rows // self.d)
        at = eta if self.offset is None else eta + self.offset
        (W,) = likelihood.curvature(y, at[:, None], raw[:, None])
        return float(self.weights @ W[:, 0]), self.X.T @ (self.weights * eta)

    def sample(self, most):
        """At most so many observations from all over the table, as `LocalRows`."""
        n = self.n_rows // self.d
        if n <= most:
            return self
        some = np.linspace(0, n - 1, most).astype(int)
        return self.take((some[:, None] * self.d + np.arange(self.d)).ravel())

    def take(self, some):
        """Some of the rows, of all levels."""
        y = self.y[some]

        def own(part):
            # Columns of ones take no memory.
            ones = isinstance(part, np.ndarray) and len(part) and part.strides[0] == 0
            return np.broadcast_to(part[:1], (len(y), *part.shape[1:])) if ones else part[some]

        return replace(
            self,
            y=y,
            X=self.X[some],
            weights=own(self.weights),
            refs=tuple(refs[some] for refs in self.refs),
            z=tuple(map(own, self.z)),
            offset=None if self.offset is None else self.offset[some],
            _known={},
        )


def _expanded(likelihood, y, eta, raw, raw_0):
    """Values, score and curvature at eta [n, C], to second order about its last C columns."""
    eta, still = np.split(eta, 2, axis=1)
    values, score, bend = likelihood.by_row(y, still, raw)
    if not np.array_equal(raw, raw_0):
        (bend,) = likelihood.curvature(y, still, raw_0)
    away = eta - still
    values, score = values + away * (score - 0.5 * bend * away), score - bend * away
    return values, score, likelihood.curvature(y, eta, raw)[0]


def information(likelihood, y, w, weights, eta, raw, own, shared):
    """[m, m, C] of some rows: see `engine.rows.protocol.Rows.information`.

    y and w of their observations, `weights` [n] of the rows; eta [n, C]; directions of eta, `own`
    [n, k, C] of each draw and `shared` [n, s] by all.

    Of one predictor the curvature is the density's own. A density of several knows only its
    diagonal, and one may have no second derivatives in its parameters: differences of the score.
    """
    n, C = eta.shape
    k, s, q = own.shape[1], shared.shape[1], len(raw)
    along = np.empty((C, n, k + s), eta.dtype)
    along[:, :, :k], along[:, :, k:] = own.transpose(2, 0, 1), shared
    if likelihood.second is not None:
        return _exact(likelihood, y, w, eta, raw, along).transpose(1, 2, 0)
    bent = np.zeros((C, n, k + s))
    if len(y) == n:
        (curvature,) = likelihood.observed(y, eta, raw)
        np.multiply((weights[:, None] * curvature).T[:, :, None], along, out=bent)
    else:
        for i in range(k + s):
            move = along[:, :, i].T
            h = STEP / max(np.abs(move).max(initial=0.0), 1e-300)
            up, down = (likelihood.slopes(y, w, eta + e * move, raw)[1] for e in (h, -h))
            bent[:, :, i] = ((down - up) / (2 * h)).T
    out = along.transpose(0, 2, 1) @ bent
    for i, e in enumerate(STEP * np.eye(q)):
        up, down = (likelihood.slopes(y, w, eta, raw + d[:, None])[1:] for d in (e, -e))
        by_eta, by_raw = ((b - a) / (2 * STEP) for a, b in zip(up, down, strict=True))
        cross, at = np.einsum("cnm,nc->cm", along, by_eta), k + s - q + i
        out[:, at] += cross
        out[:, :, at] += cross
        out[:, at, k + s - q :] += by_raw.T
    return out.transpose(1, 2, 0)


def _exact(likelihood, y, w, eta, raw, along):
    """[C, m, m] by second derivatives, a block's sums in the precision of eta."""
    m = along.shape[2]
    q, w = len(raw), w[:, None].astype(eta.dtype, copy=False)
    curvature, mixed, pairs = likelihood.second(y, eta, raw)
    bent = np.empty((*along.shape[:2], m + q), eta.dtype)
    np.multiply((w * curvature).T[:, :, None], along, out=bent[:, :, :m])
    for i, part in enumerate(mixed, m):
        bent[:, :, i] = (w * part).T
    both = (along.transpose(0, 2, 1) @ bent).astype(float)
    out, cross = both[:, :, :m], both[:, :, m:]
    out[:, :, m - q :] += cross
    out[:, m - q :] += cross.transpose(0, 2, 1)
    for (i, j), part in pairs.items():
        inner = w[:, 0] @ part
        for a, b in {(i, j), (j, i)}:
            out[:, m - q + a, m - q + b] += inner
    return out
