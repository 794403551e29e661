"""Rows in this process's memory, by NumPy and SciPy."""

from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse

from sklmm.engine.linalg.blocks import csr_rows
from sklmm.engine.rows.cross_products import LocalCrossProducts, loadings
from sklmm.engine.rows.expansion import LocalExpansion
from sklmm.engine.rows.information import information
from sklmm.engine.rows.protocol import Coefs

#: Rows times columns that are worked on at once.
CELLS = 1 << 20
#: Share of the expected curvature that safe weights keep of the observed one.
LEAST_CURVATURE = 0.1


@dataclass(frozen=True, eq=False)
class LocalRows(LocalCrossProducts):
    """`engine.rows.protocol.Rows` of arrays, in standard units."""

    def without_fixed(self):
        """The rows of a model without coefficients."""
        return replace(self, X=self.X[:, :0])

    def stacked(self, d):
        """Rows of `d` linear predictors, each with coefficients and effects of its own.

        The rows of one observation are adjacent, i * d + c; the coefficients of one predictor too,
        and term k becomes the terms k * d + c, whose z is 0 on the rows of the other predictors.
        """
        n, unit = self.n_rows * d, np.eye(d)
        of_terms = range(len(self.z))
        refs = [np.repeat(refs, d) for refs in self.refs]
        return replace(
            self,
            y=np.repeat(self.y, d),
            X=np.einsum("np,cd->ncdp", self.X, unit).reshape(n, -1),
            weights=np.repeat(self.weights, d),
            refs=tuple(refs[k] for k in of_terms for _ in range(d)),
            levels=tuple(self.levels[k] for k in of_terms for _ in range(d)),
            z=tuple(
                np.einsum("nr,c->ncr", self.z[k], e).reshape(n, -1) for k in of_terms for e in unit
            ),
            d=d,
            _known={},
        )

    @property
    def observations(self):
        """y [n_rows / d] and the weights of the observations."""
        return self.y[:: self.d], self.weights[:: self.d]

    def predictor(self, coefs):
        """eta [n_rows, C], the offset included."""
        out = self.linear(coefs)
        return out if self.offset is None else out + self.offset[:, None]

    def linear(self, coefs):
        """X beta + Z b, [n_rows, C]."""
        out = self.X @ coefs.beta
        if self.z:
            parts = [b.reshape(len(b) * b.shape[1], -1) for b in coefs.effects]
            out += self._Z @ np.concatenate(parts)
        return out

    @property
    def _Zt(self):
        """Z^T of all terms [Q, n_rows]."""
        if "Zt" not in self._known:
            self._known["Zt"] = self._Z.T
        return self._known["Zt"]

    def order(self, k):
        """Row numbers by level of term k."""
        if ("order", k) not in self._known:
            self._known["order", k] = np.argsort(self.refs[k], kind="stable")
        return self._known["order", k]

    def sums(self, rows):
        """X^T rows and Z^T rows of [n_rows, C], as `Coefs`."""
        effects, first, flat = [], 0, self._Zt @ rows
        for z, J in zip(self.z, self.levels, strict=True):
            size = J * z.shape[1]
            effects.append(flat[first : first + size].reshape(J, z.shape[1], -1))
            first += size
        return Coefs(self.X.T @ rows, tuple(effects))

    def product(self, coefs, at=None):
        """[X, Z]^T w [X, Z] coefs, as `Coefs`."""
        return self.sums(self._weights(at)[:, None] * self.linear(coefs))

    def evaluate(self, likelihood, coefs, raw, curvature="expected", about=None):
        """Sum of w log f [C], its score in the coefs, and the first's curvature's weights.

        At coefs and raw [q, C]. A custom density, which may have kinks, is to second order `about`
        other coefs and raw.
        """
        found = [
            part._evaluate(likelihood, coefs, raw, curvature, about)
            for part in self._parts(raw.shape[1])
        ]
        values, scores, weights = zip(*found, strict=True)
        effects = tuple(sum(own) for own in zip(*(s.effects for s in scores), strict=True))
        return sum(values), Coefs(sum(s.beta for s in scores), effects), np.concatenate(weights)

    def _evaluate(self, likelihood, coefs, raw, curvature, about):
        (y, w), eta = self.observations, self.predictor(coefs)
        if about is None:
            rows, score, W = likelihood.by_row(y, eta, raw)
            if curvature == "observed":
                (W,) = likelihood.observed(y, eta, raw)
        else:
            still = self.predictor(about[0])
            rows, score, bend = likelihood.by_row(y, still, raw)
            if not np.array_equal(raw, about[1]):
                (bend,) = likelihood.curvature(y, still, about[1])
            away = eta - still
            rows, score = rows + away * (score - 0.5 * bend * away), score - bend * away
            (W,) = likelihood.curvature(y, eta, raw)
        return w @ rows, self.sums(self.weights[:, None] * score), self.weights * W[:, 0]

    def _parts(self, C):
        """The rows in parts, of which arrays of C columns are small: views of this."""
        step = max(CELLS // max(C * self.d, 1), 1) * self.d
        if self.n_rows <= step:
            return [self]
        parts = []
        for first in range(0, self.n_rows, step):
            last = min(first + step, self.n_rows)
            parts.append(self.take(slice(first, last)))
            Z, known = self._Z, parts[-1]._known
            known["Z"] = csr_rows(Z, first, last) if sparse.issparse(Z) else Z[first:last]
        return parts

    def slopes(self, likelihood, coefs, raw):
        """Sum of w log f [C], its score in the coefs, and in raw [q, C]."""
        y, w = self.observations
        rows, score, of_raw = likelihood.slopes(y, w, self.predictor(coefs), raw)
        return w @ rows, self.sums(score), of_raw

    def information(self, likelihood, coefs, raw, own, shared):
        """Less the second derivatives of the sum of w log f along directions [m, m, C]."""
        m, C = own.beta.shape[1] // raw.shape[1] + shared.beta.shape[1], raw.shape[1]
        parts = self._parts(m * C)
        return sum(information(part, likelihood, coefs, raw, own, shared) for part in parts)

    def safe(self, likelihood, coefs, raw, at):
        """Weights that are positive: `at`, and at least a share of the expected curvature."""
        (W,) = likelihood.curvature(self.observations[0], self.predictor(coefs), raw[:, None])
        return np.maximum(at, LEAST_CURVATURE * self.weights * W[:, 0])

    def expand(self, likelihood, coefs, raw, observed):
        """`LocalExpansion` at coefs [., 1] and raw [q]."""
        return LocalExpansion(self, likelihood, coefs, raw, observed)

    def by_level(self, log_density, coefs, raw, k):
        """Sums of w log f by level of term k, [J, C], for log_density(y, eta, raw)."""
        out = np.zeros((self.levels[k], raw.shape[1]))
        for part in self._parts(raw.shape[1]):
            (y, w), refs = part.observations, part.refs[k][:: self.d]
            rows = w[:, None] * np.asarray(log_density(y, part.predictor(coefs), raw))
            out += loadings(refs, np.ones((len(refs), 1)), len(out)).T @ rows
        return out

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
        return replace(
            self,
            y=self.y[some],
            X=self.X[some],
            weights=self.weights[some],
            refs=tuple(refs[some] for refs in self.refs),
            z=tuple(z[some] for z in self.z),
            offset=None if self.offset is None else self.offset[some],
            _known={},
        )
