r"""Covariances made of SDs and a correlation matrix of few parameters: Sigma = D R D.

R = C C^T with a lower triangle C whose rows have length 1, a function of angles that is analytic
where R is singular too: a correlation of 1 is reached at an angle where its slope is 0, and is a
regular maximum there, as an SD of 0 is at L = 0. Derivatives of C are by complex steps, exact to
rounding (Squire & Trapp 1998, SIAM Review 40, 110-112); its second ones are differences of these.

One SD is itself the parameter, of either sign. Several are squares of theirs: an SD whose effects
correlate with others has a slope at 0, and there it ends.
"""

from abc import abstractmethod

import numpy as np
from scipy.optimize import minimize

from sklmm.covariances.base import Covariance

#: Length of a complex step, and that of the differences for second derivatives.
IMAGINARY = 1e-20
ANGLE_STEP = 1e-5
#: The longest change of an angle that changes C as its slope says.
MOST_TURN = 0.5
#: Share of the mean variance that is added to a second moment which is singular, and the share of
#: its largest eigenvalue below which one is.
ADDED = 1e-6
SINGULAR = 1e-10
#: Correlation that neighbours have where the parameters' directions are looked at.
TYPICAL = 0.5


class Correlated(Covariance):
    """A base of covariances D R D; `heterogeneous` says whether each coefficient has its own SD."""

    linear = False
    fewest = 2
    saturates = False
    heterogeneous = True

    @property
    @abstractmethod
    def n_angles(self):
        """Number of the parameters of C."""

    @abstractmethod
    def turned(self, angles):
        """C [..., r, r] of angles [..., n_angles], real or complex."""

    @abstractmethod
    def angles(self, C, known):
        """Angles of a C [r, r] whose rows are `known`, bool [r], or 0."""

    @abstractmethod
    def near(self, R):
        """Angles of about the correlations R [r, r], of those of the family exactly."""

    def folded(self, angles):
        """Angles of the same R for which C has no negative diagonal."""
        return np.arcsin(np.clip(np.sin(angles), -1, 1))

    @property
    def _n_sds(self):
        return self.r if self.heterogeneous else 1

    @property
    def n_params(self):
        """SDs and angles."""
        return self._n_sds + self.n_angles

    @property
    def is_sd(self):
        """A single SD is a parameter of either sign."""
        return np.arange(self.n_params) < (not self.heterogeneous)

    def _sds(self, params):
        own = params[: self._n_sds]
        return own**2 if self.heterogeneous else np.repeat(own, self.r)

    def factor(self, params):
        """D C."""
        return self._sds(params)[:, None] * self.turned(params[self._n_sds :])

    def params(self, L):
        """Roots of SDs, or the SD, and angles."""
        if not self.heterogeneous:
            sd = L[0, 0]
            if sd == 0:
                return np.append(sd, self.near(np.eye(self.r)))
            return np.append(sd, self.angles(L / sd, np.ones(self.r, bool)))
        sds = np.linalg.norm(L, axis=1)
        known = sds > 0
        C = L / np.where(known, sds, 1.0)[:, None]
        if known.sum() < 2:
            return np.append(np.sqrt(sds), self.near(np.eye(self.r)))
        return np.append(np.sqrt(sds), self.angles(C, known))

    def oriented(self, L):
        """Without the signs."""
        params = self.params(L)
        n = self._n_sds
        return self.factor(np.append(np.abs(params[:n]), self.folded(params[n:])))

    def _turns(self, angles):
        """dC / dangle [..., k, r, r]."""
        steps = IMAGINARY * np.eye(self.n_angles)
        return self.turned(angles[..., None, :] + 1j * steps).imag / IMAGINARY

    def _second_turns(self, angles):
        """d2C / dangle2 [k, k, r, r]."""
        steps = ANGLE_STEP * np.eye(self.n_angles)
        up, down = self._turns(angles + steps), self._turns(angles - steps)
        return (up - down) / (2 * ANGLE_STEP)

    def _parts(self, L):
        """(own SDs' parameters, SDs [r], angles, C) of a factor."""
        params = self.params(L)
        n = self._n_sds
        return params[:n], self._sds(params), params[n:], self.turned(params[n:])

    def slopes(self, L):
        """Rows of C, and its turns by the SDs."""
        own, sds, angles, C = self._parts(L)
        of_sds = C[None]
        if self.heterogeneous:
            of_sds = np.zeros((self.r, self.r, self.r))
            i = np.arange(self.r)
            of_sds[i, i] = 2 * own[:, None] * C
        return np.concatenate([of_sds, sds[:, None] * self._turns(angles)])

    def bends(self, L):
        """By the rule of products."""
        own, sds, angles, C = self._parts(L)
        n, turns = self._n_sds, self._turns(angles)
        out = np.zeros((self.n_params, self.n_params, self.r, self.r))
        out[n:, n:] = sds[:, None] * self._second_turns(angles)
        if self.heterogeneous:
            i = np.arange(self.r)
            out[i, i, i] = 2 * C
            out[i, n:, i] = 2 * own[:, None, None] * turns.transpose(1, 0, 2)
            out[n:, i, i] = out[i, n:, i].transpose(1, 0, 2)
        else:
            out[0, 1:] = out[1:, 0] = turns
        return out

    def curvature(self, L, G):
        """Without the second derivatives of each entry."""
        own, sds, angles, C = self._parts(L)
        D, n, W = self.slopes(L), self._n_sds, 2 * G @ L
        flat = self.n_params, self.r**2
        out = 2 * D.reshape(flat) @ (G @ D).reshape(flat).T
        steps = ANGLE_STEP * np.eye(self.n_angles)
        along = sds[:, None] * W
        ends = [
            np.einsum("ab,lkab->lk", along, self._turns(angles + s * steps), optimize=True)
            for s in (1, -1)
        ]
        turned = (ends[0] - ends[1]) / (2 * ANGLE_STEP)
        out[n:, n:] += (turned + turned.T) / 2
        turns = self._turns(angles)
        if self.heterogeneous:
            out[:n, :n] += np.diag(2 * np.sum(W * C, axis=1))
            both = 2 * own[:, None] * np.einsum("ab,kab->ak", W, turns)
        else:
            both = np.einsum("ab,kab->k", W, turns)[None]
        out[:n, n:] += both
        out[n:, :n] += both.T
        return out

    def in_params(self, L, lengths):
        """Finite where an SD's slope is none."""
        out = super().in_params(L, lengths)
        if self.heterogeneous:
            own = self.params(L)[: self.r]
            # (x + change)^2 is longer than x^2 by the length.
            out[: self.r] = np.sqrt(own**2 + lengths) - np.abs(own)
        n = self._n_sds
        out[n:] = np.minimum(out[n:], MOST_TURN)
        return out

    def directions(self):
        """About SDs and correlations that are typical: about an identity families are alike."""
        lags = np.abs(np.subtract.outer(np.arange(self.r), np.arange(self.r)))
        sds = np.sqrt(np.linspace(1, 1.5, self._n_sds))
        L = self.factor(np.append(sds, self.near(TYPICAL**lags)))
        half = self.slopes(L) @ L.T
        return half + half.transpose(0, 2, 1)

    def fitted(self, root):
        """By BFGS from the moments, of a second moment of unit mean square."""
        S = root @ root.T
        scale = np.trace(S) / self.r
        if scale <= 0:
            return np.append(np.zeros(self._n_sds), self.near(np.eye(self.r)))
        S = S / scale
        values = np.linalg.eigvalsh(S)
        if values[0] < SINGULAR * values[-1]:
            S = S + ADDED * np.eye(self.r)
        sds = np.sqrt(np.diag(S))
        start = np.sqrt(sds) if self.heterogeneous else np.array([np.sqrt(np.mean(sds**2))])
        start = np.append(start, self.near(S / np.outer(sds, sds)))

        def loss(params):
            L = self.factor(params)
            try:
                back = np.linalg.inv(L)
            except np.linalg.LinAlgError:
                return 1e10, np.zeros_like(params)
            left = back @ S @ back.T
            G = back.T @ (np.eye(self.r) - left) @ back
            value = 2 * np.log(np.abs(np.diag(L))).sum() + np.trace(left)
            return (value, self.score(L, G)) if np.isfinite(value) else (1e10, 0 * params)

        found = minimize(loss, start, jac=True, method="BFGS", options={"gtol": 1e-9}).x
        n = self._n_sds
        found = np.append(np.abs(found[:n]), self.folded(found[n:]))
        found[:n] *= scale**0.25 if self.heterogeneous else np.sqrt(scale)
        return found

    @property
    def pairs(self):
        """Entries (i, j) of the correlations that are reported."""
        return ((1, 0),)

    @property
    def reported(self):
        """Its SDs, and correlations that are different parameters."""
        return (*((i, i) for i in range(self._n_sds)), *self.pairs)

    def named(self, names, stem):
        """SDs by the coefficients, or the column, and correlations by what they are of."""
        whole = stem or ", ".join(names)
        sds = names if self.heterogeneous else (whole,)
        start = f"{stem}: " if stem else ""
        return (*sds, *(start + name for name in self.kinds))

    def at_boundary(self, L, least):
        """Each SD, and all correlations where R is singular."""
        sds, n = np.linalg.norm(L, axis=1), self._n_sds
        some = sds >= least
        edge = some.sum() < 2 or np.linalg.svd(L[some], compute_uv=False).min() < least
        edge = edge or self.ends(self.params(L)[n:])
        return np.append(~some[:n], np.full(len(self.pairs), edge))

    def ends(self, angles):
        """Whether the correlations are at an end of their range where R is not singular."""
        return False

    def leave_boundary(self, L, G, least, size, gain):
        """Also SDs whose correlations with others have the likelihood rise with them."""
        if self.heterogeneous:
            own, sds, _, C = self._parts(L)
            rise = 2 * (G * (C @ C.T)) @ sds + np.diag(G) * size
            up = (sds < least) & (rise > gain * size)
            if up.any():
                new = np.append(np.where(up, np.sqrt(size), own), self.params(L)[self.r :])
                return self.factor(new)
        return super().leave_boundary(L, G, least, size, gain)
