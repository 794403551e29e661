"""What densities of rows in memory have beyond second order about one point, for a path to it."""

import numpy as np

from sklmm.design.indicators import quadratic
from sklmm.engine.rows.blocked import total


class LocalRemainder:
    """`engine.rows.protocol.Remainder` of `LocalRows` at coefs [., 1], raw [q] and weights `at`.

    Of a row w log f(eta) = quadratic(a) + rest(a) at eta = eta_0 + a, with the quadratic

        w log f(eta_0) + s a - at a^2 / 2.

    `exact` is whether the second derivatives are known: of one predictor, and no custom density;
    `held`, whether deviations are of the effects alone.
    """

    def __init__(self, rows, likelihood, coefs, raw, at, *, exact, held):
        self.rows, self.likelihood, self.raw = rows, likelihood, raw[:, None]
        self.at, self.exact, self._cast = at, exact, {}
        self.eta, self.score, self.values = np.empty((3, rows.n_rows))

        def visit(own, eta):
            y, w = rows._of(own, float)
            values, score = likelihood.both(y, eta, self.raw)
            self.eta[own] = eta[:, 0]
            self.score[own] = rows.weights[own] * np.asarray(score)[:, 0]
            self.values[own.start : own.stop : rows.d] = np.asarray(values)[:, 0]
            return None, (w @ np.asarray(values),)

        self.value = float(rows._pass(coefs, visit)[1][0][0])
        #: Where deviations are: coefficients that are held have none.
        self.free = rows.without_fixed() if held else rows

    def spread(self, blocks, columns):
        """Take note of the variances of eta that `rest` has the Laplacian by, if that is known.

        They are those of effects with covariances [J, r, r] of each term and, besides, of all that
        `columns`, coefs [., f], span, f standard normal variables.
        """
        if not self.exact:
            return
        rows, out = self.rows, np.zeros(self.rows.n_rows)
        for refs, z, V in zip(rows.refs, rows.z, blocks, strict=True):
            out += quadratic(z, V, refs)

        def visit(own, a):
            out[own] += np.einsum("nf,nf->n", a, a)
            return None, ()

        self._away(columns, visit)
        self.variances = out

    def pull(self, coefs, tau):
        """The score of quadratic + tau rest at the deviations `coefs`, in their precision."""
        along = self._along(coefs.beta.dtype)

        def visit(own, a):
            y, _ = self.rows._of(own, a.dtype)
            at, score, eta, times = along(own)
            found = np.asarray(self.likelihood.score(y, eta + a, self.raw), a.dtype)
            # The deviations are nobody else's: what is left of the quadratic takes their place.
            a = self._times((tau - 1) * at, a)
            a += (1 - tau) * score
            a += found * (tau * times)
            return a, ()

        return self._away(coefs, visit, coefs.beta.shape[1])[0]

    def split(self, coefs):
        """(quadratic [C], rest [C], score of either side by side, `Coefs` [., 2 C], Laplacian [C]).

        At the deviations `coefs`, in their precision, the sums of values in float64; the Laplacian
        of `rest`, by the variances of `spread`, is 0 where it is not known.
        """
        C, along = coefs.beta.shape[1], self._along(coefs.beta.dtype)

        def visit(own, a):
            y, w = self.rows._of(own, a.dtype)
            at, linear, eta, times = along(own)
            still = self.values[own.start : own.stop : self.rows.d, None].astype(a.dtype)
            both, laplacian = np.empty((len(a), 2 * C), a.dtype), np.zeros(C)
            slope, left = both[:, :C], both[:, C:]
            if self.exact:
                values, score, bend = self.likelihood.bends(y, eta + a, self.raw)
                variances = self.variances[own].astype(a.dtype, copy=False)
                laplacian = -total(times * bend - at, variances)
            else:
                values, score = map(np.asarray, self.likelihood.both(y, eta + a, self.raw))
            np.subtract(linear, at * a, out=slope)
            np.multiply(times, score, out=left)
            left -= slope
            # The deviations are nobody else's.
            a *= slope + linear
            quadratic = 0.5 * total(a)
            return both, (quadratic, total(values - still, w) - quadratic, laplacian)

        both, (quadratic, rest, laplacian) = self._away(coefs, visit, 2 * C)
        return self.value + quadratic, rest, both, laplacian

    def _along(self, dtype):
        """What finds curvature, score and predictors at the point, and weights, of rows [n, 1].

        A weight of 1 is one number, as NumPy takes longer for a factor a row than for the numbers
        of the row. All rows are cast here, once, and not by every thread that comes first.
        """
        if dtype not in self._cast:
            columns = self.score, self.eta, self.rows.weights
            columns = [part.astype(dtype, copy=False)[:, None] for part in columns]
            self._cast[dtype] = self._weights(dtype), *columns
        *columns, times = self._cast[dtype]

        def along(own):
            same = dtype.type(1) if self.rows._unweighted else times[own]
            return *(part[own] for part in columns), same

        return along

    def _weights(self, dtype):
        """What multiplies deviations a [n_rows, C], `at`, and is read by slices of rows."""
        return self.at.astype(dtype, copy=False)[:, None]

    @staticmethod
    def _times(at, a):
        """Deviations a times `at`, in their place."""
        a *= at
        return a

    def _away(self, coefs, visit, n_columns=None):
        """Sums over rows of what `visit` finds at the deviations a."""
        return self.free._passes.run(self.free.X, None, coefs, visit, n_columns)
