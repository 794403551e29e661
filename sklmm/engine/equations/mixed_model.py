r"""Henderson's mixed-model equations of any model, at its factors, weights and residual variance.

In spherical effects u, with W = [X, Z Lambda] and the weights w of the rows,

    C = W^T w W / s2 + (0, I) = [ X^T w X / s2   R^T ]     R = Lambda^T Z^T w X / s2,
                                [ R              H   ]     H = Lambda^T Z^T w Z Lambda / s2 + I,

with the precision of related levels for the I (`equations.prior`).

A Gaussian model has its rows' own weights and the residual variance s2; any other one the weights
of the curvature at the mode of its effects, and s2 = 1. H is an `Elimination`'s to solve, by
Cholesky's method or by conjugate gradients; of beta S = X^T w X / s2 - R^T H^-1 R is left, which is
X^T V^-1 X. Normal priors of coefficients add their precision to it.
"""

from functools import cached_property

import numpy as np

from sklmm.engine.equations.border import marginal
from sklmm.engine.equations.crossproducts import CrossProducts
from sklmm.engine.equations.inverse import DrawnInverse, SchurInverse
from sklmm.engine.equations.schur_cg import SchurCG
from sklmm.engine.equations.schur_cholesky import SchurCholesky
from sklmm.engine.limits import factorisable
from sklmm.engine.linalg.blocks import by_factor, by_triangle, congruent, lower_factor
from sklmm.engine.theta.priors import normal_prior

#: Relative residual of the solves, and their iterations at most.
SOLVE_TOL = 1e-6
MAX_SOLVE = 2000
#: Relative residual of solutions that a deterministic fit converges by.
EXACT_TOL = 1e-10
#: Draws that tell what the variances of effects owe to those of other levels.
N_DRAWS = 64
#: Share of the largest eigenvalue below which, under 0, the least one is not only rounding.
INDEFINITE = 1e-8


class Equations:
    """C at the factors and s2, for the cross-products `cross` and the elimination `H` of them.

    Vectors of unknowns are flat, [P, c]: beta and the effects as the cross-products have them, or
    in the places of a `layout`.
    """

    _left = 0.0

    def __init__(self, factors, s2, cross, H, layout=None):
        self.factors, self.s2, self.cross, self.H, self.layout = factors, s2, cross, H, layout
        self.p = cross.p

    @staticmethod
    def weighted(problem, weights, factors, layout, exact):
        """Those of `problem` with the weights [n_rows] and s2 = 1.

        With an `exact` log |C| if that is affordable, else by the faster of the two solvers.
        LinAlgError where negative weights make C not positive, if H is factorised.
        """
        cross = CrossProducts(problem, weights)
        sizes = [b.n_levels * b.r for b in problem.blocks]
        coupled = [b.coupled for b in problem.blocks]
        dense = factorisable(sizes, "gradient" if exact else "solves", coupled)
        return Equations.of(cross, factors, layout, dense, EXACT_TOL if exact else SOLVE_TOL)

    @staticmethod
    def of(cross, factors, layout, dense, tol):
        """Those of the cross-products at s2 = 1, H factorised or by conjugate gradients."""
        if not dense:
            H = SchurCG(cross, factors, 1.0, {}, tol, MAX_SOLVE)
            return Equations(factors, 1.0, cross, H, layout)
        H = SchurCholesky(cross, factors, 1.0)
        out = Equations(factors, 1.0, cross, H, layout)
        # Now, and not when it is first used: it may not exist.
        _ = out.S_factor
        return out

    def at(self, factors, tol):
        """The equations at other factors, with the same weights, solved to `tol`."""
        return self.of(self.cross, factors, self.layout, self.factorised, tol)

    @property
    def prior(self):
        """The prior precision of the effects: `equations.crossproducts.Independent`, or related."""
        return self.cross.prior

    @property
    def weights(self):
        """The weights of the rows."""
        return self.cross.at

    @property
    def factorised(self):
        """Whether H has a factor, and is not solved by conjugate gradients."""
        return isinstance(self.H, SchurCholesky)

    def tell(self, left, tol):
        """That a solve which these equations serve has ended at the relative residual `left`."""
        if left > tol:
            self._left = max(self._left, left)

    @property
    def unsolved(self):
        """Largest relative residual of a solve that ended before its tolerance, or 0."""
        return max(self._left, self.H.unsolved)

    @property
    def rough(self):
        """Share by which the last step of draws that ended before their tolerance changes them."""
        return self.H.rough

    @property
    def log_det_error(self):
        """The Monte Carlo error of `log_det`."""
        return self.H.log_det_error

    @cached_property
    def marginal(self):
        """The border's posterior."""
        return marginal(self)

    @property
    def G(self):
        """Z_k^T w Z_k of each term's levels, [n_levels, r, r]."""
        return self.cross.G

    def own_blocks(self):
        """C's diagonal blocks of each term's levels, [n_levels, r, r]."""
        return [
            congruent(L, own) / self.s2 + self.prior.own(k, len(L))
            for k, (own, L) in enumerate(zip(self.G, self.factors, strict=True))
        ]

    @cached_property
    def R(self):
        """Lambda^T Z^T w X / s2, [Q, p]."""
        return self.cross.lift(self.factors, self.cross.F, transpose=True) / self.s2

    @cached_property
    def place(self):
        """Where the effects, [Q], lie among the unknowns."""
        cross, layout = self.cross, self.layout
        return self.p + np.arange(cross.Q) if layout is None else layout.places(cross)

    @cached_property
    def HR(self):
        """H^-1 R, [Q, p]."""
        return self.H.solve(self.R)

    @cached_property
    def follow(self):
        """Lambda H^-1 R, [Q, p]: less the effects that follow each coefficient."""
        return self.cross.lift(self.factors, self.HR)

    @cached_property
    def GHR(self):
        """Z^T w Z Lambda H^-1 R, [Q, p]."""
        return self.cross.product(self.follow)

    @cached_property
    def coef_prior(self):
        """The `NormalPrior` of the coefficients, or None: their precision given y lacks it."""
        problem = self.cross.problem
        return None if problem.priors is None else normal_prior(problem)

    @cached_property
    def S(self):
        """The precision of the coefficients, X^T V^-1 X and that of their prior, [p, p]."""
        prior = self.coef_prior
        return self.XVX if prior is None else self.XVX + prior.precision

    @cached_property
    def XVX(self):
        """X^T V^-1 X [p, p], in a form that is positive whatever the solver's error."""
        cross, random, b = self.cross, self.HR[: self.cross.n_random], self.follow
        out = (cross.xx - 2 * cross.F.T @ b + b.T @ self.GHR) / self.s2
        out += random.T @ cross.prior.times(random)
        return (out + out.T) / 2

    @cached_property
    def S_factor(self):
        """The lower factor of S."""
        return lower_root(self.S)

    @cached_property
    def ZVX(self):
        """Z^T V^-1 X, [Q, p]."""
        return (self.cross.F - self.GHR) / self.s2

    def solve_s(self, right):
        """S^-1 right, [p, c]."""
        return by_factor(self.S_factor, right)

    def solve(self, right, series=None, tol=0.0):
        """C^-1 right, [P, c], for a `series` and as rough as `tol`: see `Elimination.solve`."""
        return self._flat(*self.solved(right[: self.p], right[self.place], series, tol), len(right))

    def solved(self, beta, u, series=None, tol=0.0):
        """The same in two parts, from beta's [p, c] and the effects' [Q, c]."""
        if "HR" in vars(self):
            u = self.H.solve(u, series, tol=tol)
        else:
            # In one batch: conjugate gradients take hardly longer.
            both = self.H.solve(np.column_stack([self.R, u]))
            self.HR, u = both[:, : self.p], both[:, self.p :]
        beta = self.solve_s(beta - self.R.T @ u)
        return beta, u - self.HR @ beta

    def variances(self):
        """Each level's block of H^-1, [n_levels, r, r] of each term.

        Where H has no factor, draws tell what they owe to other levels.
        """
        drawn = None
        if not self.factorised:
            noise = np.random.default_rng(0).standard_normal((self.cross.Q, N_DRAWS))
            drawn = self.H.drawn(noise / np.sqrt(N_DRAWS))
        return self.H.variances(drawn)

    def apply(self, flat):
        """C flat [P, c] for columns that hold beta fixed: 0 on beta."""
        beta, u = flat[: self.p], flat[self.place]
        cross = self.cross
        image = cross.product(cross.lift(self.factors, u)) + cross.F @ beta
        image = cross.lift(self.factors, image, transpose=True) / self.s2
        image[: cross.n_random] += cross.prior.times(u[: cross.n_random])
        return self._flat(np.zeros_like(beta), image, len(flat))

    def _flat(self, beta, u, size):
        """The unknowns [P, c], 0 where the layout is padded."""
        out = np.zeros((size, u.shape[1]))
        out[: self.p], out[self.place] = beta, u
        return out

    @property
    def known(self):
        """Which of the unknowns are the model's, no padding: bool [P]."""
        return np.ones(self.p + self.cross.Q, bool) if self.layout is None else self.layout.real

    @property
    def n_unknowns(self):
        """The number of them, and of rows of noise that `root` takes."""
        return self.p + self.cross.Q

    def root(self, noise):
        """A root of C^-1 [P, n_unknowns] applied to columns: of N(0, I), draws from N(0, C^-1)."""
        beta, u = noise[: self.p], self.H.root(noise[self.p :])
        if self.p:
            beta = by_triangle(self.S_factor, beta, transpose=True)
            u = u - self.HR @ beta
        return self._flat(beta, u, len(self.known))

    def probes(self, rng, n_probes):
        """Independent draws from N(0, C^-1)."""
        return self.root(rng.standard_normal((self.n_unknowns, n_probes)))

    def draws(self, rng, n_draws):
        """Draws from N(0, C^-1) in mirrored pairs, whose covariance is exact where they are enough.

        So that what is nearly quadratic in them has nearly no Monte Carlo error.
        """
        noise = rng.standard_normal((self.n_unknowns, -(-n_draws // 2)))
        if 0 < len(noise) <= noise.shape[1]:
            noise = np.linalg.qr(noise.T)[0].T * np.sqrt(noise.shape[1])
        half = self.root(noise)
        return np.concatenate([half, -half], axis=1)[:, :n_draws]

    def inverse(self, noise=None):
        """C^-1, for rows to look it up: `rows.protocol.Inverse`.

        By draws of the effects, given a `noise` [Q, n] for them: `rows.protocol.DrawnInverse`.
        """
        return SchurInverse(self) if noise is None else DrawnInverse(self, noise)

    def projected_columns(self):
        """(X^T V^-1 X)^-1/2 X^T V^-1 Z by block, [n_levels, r, p]: REML's part of the traces."""
        return self.cross.blocks(by_triangle(self.S_factor, self.ZVX.T).T)

    def projected_traces(self):
        """What REML takes off the traces, [r, r] of each block."""
        out = []
        for k, D in enumerate(self.projected_columns()):
            both = D, self.cross.prior.relate(k, D)
            one, two = (own.transpose(1, 0, 2).reshape(own.shape[1], -1) for own in both)
            out.append(one @ two.T)
        return out

    def log_det(self):
        """log |C|, with a Monte Carlo error where H has no factor."""
        if self.H.log_det is None:
            # Lanczos' method tells it with draws.
            self.probes(np.random.default_rng(0), N_DRAWS)
        return self.H.log_det + 2 * float(np.log(np.diag(self.S_factor)).sum())


def lower_root(square):
    """The lower factor L of a positive matrix L L^T, positive or singular to working precision.

    Of a singular one the least eigenvalues are rounding, and are raised to what rounding is.
    """
    try:
        return lower_factor(square)
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(square)
        if values[0] < -INDEFINITE * values[-1]:
            raise
        values = np.maximum(values, np.finfo(float).eps * len(values) * values[-1])
        lower = np.linalg.qr((vectors * np.sqrt(values)).T)[1].T
        return lower * np.where(np.diag(lower) < 0, -1.0, 1.0)
