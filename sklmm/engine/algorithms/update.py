r"""New rows on a fitted model: the posterior of their groups' effects, all parameters held.

The levels S that the new rows have are updated jointly; their prior is each one's own posterior,

    b_j ~ N(m_j, C_j)  (new levels: N(0, Sigma)),     b_j = m_j + L_j u_j,   C_j = L_j L_j^T,

so that u has the mixed-model equations of the engine, one solve for a Gaussian model and a few of
Newton's for others (Laplace's approximation, with the curvature W of a fit's), by the same solvers
as a fit's:

    (Z_S^T W Z_S + I) u = Z_S^T W (y - eta),      C_S = (Z_S^T W Z_S + I)^-1.

Coefficients and the effects of other levels stay at their posterior means. With one grouping factor
and coefficients held, levels are independent, and this is the posterior given old and new rows
together. Crossed factors: what the old rows say of two levels' effects jointly is left out.
"""

from dataclasses import replace

import numpy as np

from sklmm.engine.equations.crossproducts import CrossProducts
from sklmm.engine.equations.mixed_model import EXACT_TOL, Equations
from sklmm.engine.likelihood.evaluation import evaluation, observes
from sklmm.engine.likelihood.likelihood import Likelihood
from sklmm.engine.limits import EXACT_ROOT, factorisable
from sklmm.engine.linalg.blocks import rescaled, roots
from sklmm.engine.rows.local import LocalRows, loadings
from sklmm.engine.rows.protocol import Coefs
from sklmm.engine.rows.standardize import BlockData, Problem
from sklmm.families.base import CONSTRAINTS
from sklmm.result import covariance_root, own_sds

NEWTON_STEPS = 100
#: Decrement, in units of the log density, at which Newton's method ends.
NEWTON_TOL = 1e-12
MOST_HALVINGS = 12
#: Singular values of unit rows below this, of the largest, are rounding.
RANK_TOLERANCE = 1e-10


def update(result, design, response, places, curvature="observed"):
    """`EMResult` with the posterior of the effects given new rows as well.

    Parameters
    ----------
    result : EMResult
        Of the fit, or of the last update.
    design : Design
        Of the new rows, with the levels that they add to the terms.
    response : Response
    places : list of ndarray [n_levels]
        Places of the levels of `result` among those of the design, an array a term.
    curvature : {"observed", "expected"}
        As `Laplace` has it.
    """
    d = response.n_predictors
    grown = _grown(result, design, places, response.family.scale_equivariant, d)
    like = Likelihood.of(response.family, response.n_classes)
    values = result.family
    if response.family.closed_form:
        sigma = (("sigma", result.sigma / response.sigma_unit),)
        like = replace(like, names=(), constraints=(), pinned=sigma)
    kinds = zip(like.names, like.constraints, strict=True)
    raw = np.array([CONSTRAINTS[kind][1](values[name]) for name, kind in kinds], float)
    rows = _NewRows(grown, design, response, (evaluation(like), raw))
    equations, u = rows.mode()
    if observes(like) and curvature == "observed":
        equations = rows.observed(equations, u)
    return rows.posterior(equations, u)


def _grown(result, design, places, linear, d):
    """The result with new levels, at their prior, and the others in their `places`."""
    blocks = [b for b in design.blocks for _ in range(d)]
    m = result.coef_root.shape[1]
    added = sum((b.n_levels - len(places[k // d])) * b.r for k, b in enumerate(blocks))
    if not added:
        return result
    # An exact root takes a column more for every new effect; of draws, the new ones are random.
    own_columns = linear and _is_exact(result) and m + added <= EXACT_ROOT
    width, first = m + added * own_columns, m
    axes = _coefficient_axes(result)
    effects, covs, out = [], [], []
    for k, (b, S) in enumerate(zip(blocks, result.covariances, strict=True)):
        place = places[k // d]
        new = np.setdiff1d(np.arange(b.n_levels), place)
        mean, cov = np.zeros((b.n_levels, b.r)), np.tile(S, (b.n_levels, 1, 1))
        mean[place], cov[place] = result.effects[k], result.effects_cov[k]
        root = np.zeros((b.n_levels, b.r, width), result.effects_root[k].dtype)
        root[place, :, :m] = result.effects_root[k]
        if own_columns:
            fresh = np.eye(len(new) * b.r, width, first).reshape(len(new), b.r, width)
            first += len(new) * b.r
        else:
            rng = np.random.default_rng([k, len(place)])
            fresh = rng.standard_normal((len(new), b.r, width))
            fresh -= (fresh @ axes.T) @ axes
            fresh = np.linalg.qr(fresh.transpose(0, 2, 1))[0].transpose(0, 2, 1)
        root[new] = covariance_root(S) @ fresh
        effects.append(mean)
        covs.append(cov)
        out.append(root)
    return replace(
        result,
        effects=tuple(effects),
        effects_cov=tuple(covs),
        coef_root=np.pad(result.coef_root, ((0, 0), (0, width - m))),
        effects_root=tuple(out),
    )


def _is_exact(result):
    """Whether the root has a column for each unknown, and is no sample."""
    unknowns = result.rank + sum(e.size for e in result.effects)
    return result.coef_root.shape[1] >= unknowns


def _coefficient_axes(result):
    """Orthonormal rows [q, m] that span the coefficients' part of the root.

    None of them where draws are too few to tell that part.
    """
    size = np.linalg.norm(result.coef_root, axis=1, keepdims=True)
    rows = result.coef_root[size[:, 0] > 0] / size[size > 0][:, None]
    _, values, axes = np.linalg.svd(rows, full_matrices=False)
    axes = axes[values > RANK_TOLERANCE * values.max(initial=0.0)]
    return axes if _is_exact(result) or 2 * len(axes) < rows.shape[1] else axes[:0]


class _NewRows:
    """New rows in the unknowns u of their levels, the d predictors of a row adjacent.

    `density` is the likelihood row by row, and its parameters.
    """

    def __init__(self, result, design, response, density):
        self.result, self.design, self.density = result, design, density
        self.d = d = response.n_predictors
        self.levels, self.roots, self.Z, of_rows = [], [], [], []
        n = design.n_rows * d
        for b in design.blocks:
            levels, refs = np.unique(b.refs, return_inverse=True)
            refs = np.repeat(refs.astype(np.int32), d)
            for c in range(d):
                L = covariance_root(result.effects_cov[len(self.levels)][levels])
                z = np.zeros((n, b.r))
                z[c::d] = 1.0 if b.z is None else b.z
                of_rows.append((refs, len(levels), np.einsum("na,nab->nb", z, L[refs])))
                self.levels.append(levels)
                self.roots.append(L)
                self.Z.append(loadings(refs, z, len(levels)))
        y, weights = np.repeat(response.y, d), np.repeat(response.weights, d)
        arrays = y, np.zeros((n, 0)), weights, *zip(*of_rows, strict=True)
        self.rows = LocalRows(*arrays, offset=self.linear_predictor(), d=d)
        # Of the rows' units, those of u are all that the equations see.
        self.problem = Problem(
            rows=self.rows,
            blocks=tuple(BlockData(J, z.shape[1], None) for _, J, z in of_rows),
            n=float(n),
            reml=False,
            basis=np.zeros((0, 0)),
            z_bases=(),
        )

    def linear_predictor(self):
        """eta [n * d] at the posterior means."""
        coef = self.result.coef.reshape(self.d, -1)
        eta = (self.design.X @ coef.T).ravel()
        if self.design.offset is not None:
            eta += np.repeat(self.design.offset, self.d)
        for Z, levels, effects in zip(self.Z, self.levels, self.result.effects, strict=True):
            eta += Z @ effects[levels].ravel()
        return eta

    def evaluate(self, u, curvature="expected"):
        """log p(y, u), its gradient by block, and the weights of a curvature, at u by block."""
        likelihood, raw = self.density
        coefs = Coefs(np.zeros((0, 1)), u)
        found = self.rows.evaluate(likelihood, coefs, raw[:, None], curvature)
        gradient = [s - v for s, v in zip(found[1].effects, u, strict=True)]
        return found[0][0] - 0.5 * sum(float(np.sum(v**2)) for v in u), gradient, found[2]

    def equations(self, weights):
        """Z^T W Z + I, factorised where that is a fit's way too."""
        factors = [np.eye(b.r) for b in self.problem.blocks]
        dense = factorisable([b.n_levels * b.r for b in self.problem.blocks])
        return Equations.of(CrossProducts(self.problem, weights), factors, None, dense, EXACT_TOL)

    def solve(self, equations, gradient):
        """(Z^T W Z + I)^-1 of a gradient in u, [J, r, c] by block."""
        right = np.empty((equations.cross.Q, gradient[0].shape[2]))
        for s, part in zip(equations.cross.slices, gradient, strict=True):
            right[s] = part.reshape(s.stop - s.start, -1)
        return equations.cross.blocks(equations.solve(right))

    def mode(self):
        """(Equations, u by block) at the mode of log p(y | u) - |u|^2 / 2, by Newton."""
        u = [np.zeros((b.n_levels, b.r, 1)) for b in self.problem.blocks]
        value, gradient, W = self.evaluate(u)
        equations = self.equations(W)
        for _ in range(NEWTON_STEPS):
            step = self.solve(equations, gradient)
            decrement = sum(float(np.sum(g * v)) for g, v in zip(gradient, step, strict=True))
            for length in 0.5 ** np.arange(MOST_HALVINGS):
                trial = [v + length * w for v, w in zip(u, step, strict=True)]
                found = self.evaluate(trial)
                if found[0] >= value - 1e-9 * abs(value):
                    break
            else:
                break
            before, u = W, trial
            value, gradient, W = found
            if not np.array_equal(W, before):
                equations = self.equations(W)
            if decrement < NEWTON_TOL:
                break
        return equations, u

    def observed(self, equations, u):
        """The equations with the observed curvature, where they are factorised.

        Where that makes them not positive, a share of the expected one stands in for what it lacks.
        """
        W = self.evaluate(u, "observed")[2]
        if not equations.factorised or np.array_equal(W, equations.weights):
            return equations
        try:
            return self.equations(W)
        except np.linalg.LinAlgError:
            likelihood, raw = self.density
            return self.equations(self.rows.safe(likelihood, Coefs(np.zeros((0, 1)), u), raw, W))

    def posterior(self, equations, u):
        """The result with the posterior of the levels at hand; the others are as they were."""
        result, d = self.result, self.d
        axes = _coefficient_axes(result)
        p = len(result.coef) // d
        lines = result.coef_root @ axes.T
        moved = np.stack([self.design.X @ lines[c * p : (c + 1) * p] for c in range(d)], axis=1)
        moved = moved.reshape(self.problem.rows.n_rows, len(axes))
        follows = []
        for k, (levels, Z) in enumerate(zip(self.levels, self.Z, strict=True)):
            follows.append(result.effects_root[k][levels] @ axes.T)
            moved = moved + Z @ follows[-1].reshape(Z.shape[1], len(axes))
        change = self.solve(equations, self.rows.sums(equations.weights[:, None] * moved).effects)
        effects, covs, root = (
            [a.copy() for a in arrays]
            for arrays in (result.effects, result.effects_cov, result.effects_root)
        )
        for k, (levels, L, V) in enumerate(
            zip(self.levels, self.roots, equations.variances(), strict=True)
        ):
            effects[k][levels] += (L @ u[k])[:, :, 0]
            new = L @ V @ L.transpose(0, 2, 1)
            covs[k][levels] = new
            # Of a level's root, what follows the coefficients, and what is its own.
            own = root[k][levels] - follows[k] @ axes
            own = L @ (roots(V) @ (np.linalg.pinv(L) @ own))
            follow = follows[k] - L @ change[k]
            root[k][levels] = follow @ axes + rescaled(own, own_sds([new])[0])
        return replace(
            result,
            effects=tuple(effects),
            effects_cov=tuple(covs),
            effects_root=tuple(root),
            trace=None,
            unsolved=equations.unsolved,
        )
