r"""What the covariance of a level's coefficients owes the engine, and how to add one.

The r coefficients that a term gives a level are b ~ N(0, Sigma), and

    Sigma = L L^T,    L = L(theta) [r, r],

with a vector theta [m] of parameters on the whole real line. The engine knows a covariance by its
factor L, a lower triangle: effects are b = L u with u ~ N(0, I), so that Sigma may be singular, and
an SD of 0 is an inner point where L has either sign.

To add one, write a class in a file of its own with

1. `r` and `n_params`, the numbers of coefficients and of parameters; `r` is a field of a frozen
   dataclass, None until a term has bound it to its coefficients (`over`);
2. `factor`, L(theta);
3. `fitted`, the maximum likelihood parameters of effects whose mean second moment is S, those of
   the least log |Sigma| + tr(Sigma^-1 S): the M-step of EM, and what a start and the end of an
   earlier fit become. It takes a singular S;

and, where it applies,

4. ``linear = False`` and `params`, the inverse of `factor`, where L is not linear in theta: all
   derivatives are then differences;
5. `basis`, what may be done to the columns of z without leaving the covariance: nothing by default;
6. `reported`, which of Sigma's SDs and correlations a fit reports: all by default, those that
   are 0 or repeat another too, so that most covariances override it; `named` has their names;
7. `is_sd`, which parameters are SDs in the factor, near 0 of either sign: all by default.

A term has it by ``RandomEffect("g", slopes=[...], covariance=Mine())``, and summaries print it by
its `name`. `tests/covariances` has two of a few lines, and asks of each what it owes.

The rest follows by the chain rule: with G = dl / dSigma, symmetric, and D_m = dL / dtheta_m,

    dl / dtheta_m = 2 <G L, D_m>,
    d2l / dtheta_m dtheta_n = (what the change of G gives) + 2 <G, D_m D_n^T> + 2 <G L, D_mn>.
"""

from abc import ABC, abstractmethod
from dataclasses import replace

import numpy as np

#: Lengths of the differences that stand for first and second derivatives of a factor which is not
#: linear.
STEP = 1e-5
BEND_STEP = 1e-4
#: SD, in standard units, of every coefficient of a covariance that is raised from its boundary.
TINY = 1e-6


class Covariance(ABC):
    """The covariance of the r coefficients of a level."""

    #: Number of coefficients; None of one that is not bound to any.
    r = None
    #: What formulas call it, as in ``ar1(0 + time | g)``; None is the name of the class.
    name = None
    #: Least number of coefficients.
    fewest = 1
    #: Whether it is along an order of its coefficients, times or categories.
    ordered = False
    #: Whether along its order effects without rows, before and after all others, are told by these.
    extends = False
    #: What may be done to z's columns: "any" linear map, a change of "scale" of each, or "none".
    basis = "none"
    #: Whether L is linear in theta.
    linear = True

    @property
    @abstractmethod
    def n_params(self):
        """Number m of parameters: 0 for a known covariance."""

    @abstractmethod
    def factor(self, params):
        """L [r, r] of parameters [m]."""

    @abstractmethod
    def fitted(self, root):
        """Maximum likelihood parameters [m] for effects of mean second moment root root^T [r, r].

        root [r, k], k >= r, may be of a lower rank than r.
        """

    def over(self, places):
        """The same covariance, of the coefficients at `places` [r], numbers in their order."""
        return replace(self, r=len(places))

    def params(self, L):
        """Parameters [m] of a factor: the inverse of `factor`."""
        D = self.slopes(L).reshape(self.n_params, -1)
        return np.linalg.lstsq(D.T, L.ravel(), rcond=None)[0]

    @property
    def is_sd(self):
        """Which parameters are SDs of either sign, bool [m]: all, unless a class says otherwise."""
        return np.ones(self.n_params, bool)

    @property
    def reported(self):
        """Entries (i, j) of Sigma, i >= j, that are reported: (i, i) an SD, others correlations."""
        sds = [(i, i) for i in range(self.r)]
        return (*sds, *((i, j) for i in range(self.r) for j in range(i)))

    @property
    def bounds(self):
        """The range (lower, upper) of each value that is reported."""
        return tuple((0.0, np.inf) if i == j else (-1.0, 1.0) for i, j in self.reported)

    @property
    def saturates(self):
        """Whether as many coefficients as rows are always one with the residual."""
        return self.n_params >= self.r

    def named(self, names, stem):
        """Names of what is reported, by the coefficients' `names` [r].

        `stem` is the name of the column that they are all of, or "".
        """
        return tuple(names[i] if i == j else f"{names[j]}, {names[i]}" for i, j in self.reported)

    def between(self, matrix, places):
        """What is known of effects at other places [m] by those of a matrix [r, r] at its own.

        Their weights [m, r], and the covariance [m, m] that is left; None where nothing is told.
        """
        return None

    def in_units(self, sizes):
        """The covariance of coefficients that are measured in units `sizes` [r]."""
        return self

    def nearest(self, root):
        """The factor [r, r] that is nearest to one of root root^T, as `fitted` has it."""
        return self.factor(self.fitted(root))

    def oriented(self, L):
        """A factor of the same Sigma with no negative diagonal, where the covariance has one."""
        return L

    def slopes(self, L):
        """D_m = dL / dtheta_m [m, r, r], at L."""
        if self.linear:
            changes = [self.factor(e) for e in np.eye(self.n_params)]
        else:
            params = self.params(L)
            steps = STEP * np.eye(self.n_params)
            ends = [(self.factor(params + e), self.factor(params - e)) for e in steps]
            changes = [(up - down) / (2 * STEP) for up, down in ends]
        return np.reshape(changes, (self.n_params, self.r, self.r))

    def score(self, L, G):
        """dl / dtheta [m] from G = dl / dSigma [r, r]."""
        return 2 * self.slopes(L).reshape(-1, self.r**2) @ (G @ L).ravel()

    def bends(self, L):
        """D_mn = d2L / dtheta_m dtheta_n [m, m, r, r], at L."""
        m = self.n_params
        if self.linear:
            return np.zeros((m, m, self.r, self.r))
        params = self.params(L)
        ends = [
            [self.slopes(self.factor(params + s * e)) for s in (1, -1)]
            for e in BEND_STEP * np.eye(m)
        ]
        out = np.reshape([up - down for up, down in ends], (m, m, self.r, self.r))
        return (out + out.transpose(1, 0, 2, 3)) / (4 * BEND_STEP)

    def curvature(self, L, G):
        """The part of d2l / dtheta2 [m, m] that is due to the curvature of Sigma in theta."""
        D = self.slopes(L)
        flat = self.n_params, self.r**2
        out = 2 * D.reshape(flat) @ (G @ D).reshape(flat).T
        return out if self.linear else out + 2 * np.einsum("ab,mnab->mn", G @ L, self.bends(L))

    def in_params(self, L, lengths):
        """Change of each parameter [m] that changes no coefficient's row of L by more than lengths.

        lengths [r].
        """
        sizes = np.linalg.norm(self.slopes(L), axis=2)
        safe = np.where(sizes > 0, sizes, 1.0)
        return np.where(sizes > 0, lengths / safe, np.inf).min(axis=1, initial=np.inf)

    def directions(self):
        """Changes of Sigma [m, r, r] that the parameters make, about an identity."""
        L = self.nearest(np.eye(self.r))
        half = self.slopes(L) @ L.T
        return half + half.transpose(0, 2, 1)

    def at(self, L):
        """The covariance of which a factor is an inner point: at an end of its range a smaller one.

        What the data tell of the parameters there is what they tell of that one's.
        """
        return self

    def at_boundary(self, L, least):
        """Which reported values have no inner estimate, as an SD of Sigma's is below `least`."""
        singular = self.n_params > 0 and np.linalg.svd(L, compute_uv=False).min() < least
        return np.full(len(self.reported), singular)

    def to_boundary(self, L):
        """A factor at an end of the range that is so near that it may be the maximum, or None.

        For a range at whose end the likelihood is so flat that a fit stops before it.
        """
        return None

    def elsewhere(self, L, least):
        """A factor to start from once more where a fit has ended at an end of a range, or None.

        For ends which the likelihood may have beside a higher maximum. SDs below `least` are 0.
        """
        return None

    def leave_boundary(self, L, G, least, size, gain):
        """A factor with SDs raised from below `least` to `size`, or None.

        Raised are directions in which l rises by more than `gain` times the variance.
        """
        vectors, sizes, _ = np.linalg.svd(L)
        null = vectors[:, sizes < least]
        if not self.n_params or not null.shape[1]:
            return None
        values, turned = np.linalg.eigh(null.T @ G @ null)
        up = (null @ turned)[:, values > gain]
        if not up.shape[1]:
            return None
        new = self.nearest(np.column_stack([L, size * up, TINY * np.eye(self.r)]))
        # What a covariance of few parameters makes of it may lower l.
        rise = np.sum(G * (new @ new.T - L @ L.T - TINY**2 * np.eye(self.r)))
        return new if rise > 0 else None


def reported_slopes(factor, changes, entries):
    """Derivatives [n, m] of SDs and correlations along changes [m, r, r] of a factor F [r, r].

    They are of the `entries` (i, j) of Sigma = F F^T, as a covariance's `reported` has them.

    In closed form: at a slope's far origin a correlation differs from 1 in its last digits only.
    """
    sd = np.sqrt((factor**2).sum(axis=1))
    safe = np.where(sd > 0, sd, 1.0)[:, None]
    unit, changes = factor / safe, changes / safe
    along = (unit * changes).sum(axis=2)
    out = (changes - along[:, :, None] * unit) @ unit.T
    out += out.transpose(0, 2, 1)
    diagonal = np.arange(len(sd))
    out[:, diagonal, diagonal] = along * sd
    rows, columns = np.reshape(entries, (-1, 2)).astype(int).T
    return out[:, rows, columns].T
