r"""The latent variables x = (beta under REML, u) of any family, and complete data that miss little.

    eta = o + X beta + Z Lambda u,   log p(y, x) = sum_i w_i log f(y_i | eta_i, phi) - |u|^2 / 2.

The score of theta averages d log p(y, u) / d theta over the posterior (Fisher's identity), and so
it does for any other parametrisation of the missing data, u = u_theta(v), with the Jacobian added.
Here v is what stays put when theta moves (`engine.latent.reparametrization`). The information that
v misses is small, so few draws give a precise score, and the complete-data information nearly
equals the observed one.

With s the rows' score in the effects b = Lambda u, summed by level, g = Lambda^T s - u that in u,
D_i = dLambda / dtheta_i, and derivatives of the motion u_i = du / dtheta_i and u_ij at fixed v, the
parameters of covariances have

    score_i = s^T D_i u + g^T u_i + d log |A| / dtheta_i,
    information_ij = e_i^T W e_j + u_i^T u_j - s^T (D_i u_j + D_j u_i + D_ij u) - g^T u_ij
                     - d2 log |A| / dtheta_i dtheta_j,       e_i = Z (D_i u + Lambda u_i),

W the rows' curvature; a coefficient moves eta by its column of X, and a family's parameter the
rows' densities themselves, beside what u follows them. Rows are passed once for the scores, and
once for the information; all else is of the size of the levels.
"""

import numpy as np

from sklmm.engine.theta.space import bends, slopes

#: Entries of derivatives of x that are worked on at once.
CELLS = 1 << 21


class CompleteData:
    """log p(y, x) and its scores in theta at draws x [P, C] that move with theta by a `Field`.

    value [C]; scores [m, C]; pull [P, C], the gradient in x. Rows are passed in float64 or, for
    draws that chains made in it, in float32.
    """

    def __init__(self, latent, theta, field, x, precision=float):
        self.latent, self.theta, self.field, self.x = latent, theta, field, x
        thetas, space, p = [theta] * x.shape[1], latent.space, latent.layout.p
        coefs, raw = latent.coefs(thetas, x)
        # Derivatives in a family's parameters may cancel, and differences would.
        densities = latent.densities
        self.precision = precision if densities.second is not None else float
        coefs = coefs.astype(precision if densities.single or not len(raw) else float)
        value, sums, of_raw = latent.rows.slopes(latent.densities, coefs, raw)
        self.sums = sums.astype(float)
        self.pull = latent.pulled(thetas, self.sums)
        self.pull[p:] -= x[p:]
        self.value = value - 0.5 * np.einsum("pc,pc->c", x[p:], x[p:])
        self.scores = field.pulled(x, self.pull)
        self.scores[: space.p] += self.sums.beta[: space.p]
        self.scores[space.size - len(of_raw) :] += of_raw
        changes, (_, u) = slopes(latent.full, theta.factors), latent.layout.split(x)
        for part, D, s, own in zip(space.parts, changes, self.sums.effects, u, strict=True):
            outer = np.einsum("jac,jbc->abc", s, own)
            self.scores[part] += np.einsum("mab,abc->mc", D, outer)

    def information(self):
        """The complete-data information of each draw [m, m, C]."""
        P, C = self.x.shape
        step = max(CELLS // max(P * len(self.scores), 1), 1)
        parts = [self._information(slice(c, c + step)) for c in range(0, C, step)]
        return np.concatenate(parts, axis=2)

    def _information(self, some):
        """That of `some` draws, a slice."""
        x, own = self.x[:, some], self.field.along(self.x[:, some])
        u = self.latent.layout.split(x)[1]
        s = [sums[:, :, some] for sums in self.sums.effects]
        both = self._rows_and_prior(x, u, own) - self.field.bent(x, self.pull[:, some])
        of_factors = self._of_factors(u, s, own)
        return both - of_factors - of_factors.transpose(1, 0, 2)

    def _columns(self):
        """Which of theta's entries are of covariances, and which move x alike in all draws."""
        space = self.latent.space
        of_factors = np.arange(space.p, space.size - len(self.theta.raw))
        return of_factors, np.setdiff1d(np.arange(space.size), of_factors)

    def _rows_and_prior(self, x, u, own):
        """e_i^T W e_j + u_i^T u_j [m, m, n], the family's parameters among i and j."""
        latent, theta, p = self.latent, self.theta, self.latent.space.p
        (P, k, n), (of_factors, alike) = own.shape, self._columns()
        shift = self.field.shift[:, alike]
        along, _ = latent.coefs([theta], own.reshape(P, k * n))
        shared, _ = latent.coefs([theta], shift)
        if p:
            along = along._replace(beta=np.zeros((p, k * n)))
            shared = shared._replace(beta=np.eye(p, len(alike)))
        changes = slopes(latent.full, theta.factors)
        for part, effects, D, v in zip(latent.space.parts, along.effects, changes, u, strict=True):
            moved = effects.reshape(*v.shape[:2], k, n)
            moved[:, :, part.start - p : part.stop - p] += np.einsum("mab,jbc->jamc", D, v)
        coefs, raw = latent.coefs([theta] * n, x)
        parts = [part.astype(self.precision) for part in (coefs, along, shared)]
        out = latent.rows.information(latent.densities, parts[0], raw, *parts[1:])
        out += _gram(own[latent.layout.p :], shift[latent.layout.p :])
        order = np.argsort(np.concatenate([of_factors, alike]))
        return out[np.ix_(order, order)]

    def _of_factors(self, u, s, own):
        """s^T (D_i u_j + D_ij u / 2) [m, m, n]."""
        latent, theta, (of_factors, alike) = self.latent, self.theta, self._columns()
        space, n = latent.space, own.shape[2]
        out = np.zeros((space.size, space.size, n))
        changes = slopes(latent.full, theta.factors), bends(latent.full, theta.factors)
        of_terms = zip(space.parts, latent.layout.parts, *changes, u, s, strict=True)
        for part, place, D, bend, v, sums in of_terms:
            place = slice(place.start, place.start + v[:, :, 0].size)
            for i, change in zip(range(part.start, part.stop), D, strict=True):
                along = np.einsum("ab,jac->jbc", change, sums).reshape(-1, n)
                out[i, alike] = self.field.shift[place][:, alike].T @ along
                out[i, of_factors] = np.einsum("pkc,pc->kc", own[place], along)
            if bend.any():
                outer = np.einsum("jac,jbc->abc", sums, v)
                out[part, part] += 0.5 * np.einsum("mnab,abc->mnc", bend, outer)
        return out


def _gram(own, shared):
    """Products [k + s, k + s, n] of columns `own` [P, k, n] and `shared` [P, s]."""
    k, s = own.shape[1], shared.shape[1]
    out = np.empty((k + s, k + s, own.shape[2]))
    out[:k, :k] = np.einsum("pic,pjc->ijc", own, own)
    out[:k, k:] = np.einsum("pic,pj->ijc", own, shared)
    out[k:, :k] = out[:k, k:].transpose(1, 0, 2)
    out[k:, k:] = (shared.T @ shared)[:, :, None]
    return out
