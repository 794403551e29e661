r"""New rows on a fitted model: the posterior of their groups' effects, all parameters held.

The levels S that the new rows have are updated jointly; their prior is each one's own posterior,

    b_j ~ N(m_j, C_j)  (new levels: N(0, Sigma)),     b_j = m_j + L_j u_j,   C_j = L_j L_j^T,

so that u has the mixed-model equations of the engine, one solve for a Gaussian model and a few of
Newton's for others (Laplace's approximation, with the curvature W of a fit's), by the same solvers
as a fit's:

    (Z_S^T W Z_S + I) u = Z_S^T W (y - eta),      C_S = (Z_S^T W Z_S + I)^-1.

Coefficients and the effects of other levels stay at their posterior means. With one grouping factor
and coefficients held, levels are independent, and this is the posterior given old and new rows
together. Crossed factors, and rows of several levels: what the old rows say of two levels' effects
jointly is left out. Levels with a known relationship are not for it: what is left out there is what
each level's relatives tell of it, which is most of its prior.
"""

from dataclasses import replace

import numpy as np

from sklmm.covariances import Pinned
from sklmm.engine.equations.crossproducts import CrossProducts
from sklmm.engine.equations.mixed_model import EXACT_TOL, Equations
from sklmm.engine.latent.mode import Latent
from sklmm.engine.likelihood.likelihood import Likelihood, observes
from sklmm.engine.limits import EXACT_ROOT, factorisable
from sklmm.engine.linalg.blocks import rescaled, roots
from sklmm.engine.rows.local import LocalRows
from sklmm.engine.rows.protocol import Coefs
from sklmm.engine.rows.standardize import BlockData, Problem
from sklmm.engine.theta.space import Theta
from sklmm.families.constraints import CONSTRAINTS
from sklmm.result import covariance_root, own_sds

#: Decrement, in units of the log density, at which Newton's method ends: nothing comes after it.
MODE_TOL = 1e-16
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
    rows = _NewRows(grown, design, response)
    x, equations = rows.mode(rows.theta, np.zeros(rows.layout.size), MODE_TOL)
    # A Gaussian density has only one.
    if observes(rows.like) and curvature == "observed" and not response.family.closed_form:
        equations = rows.with_observed_curvature(x, equations)
    return rows.result_with(x, equations)


def _grown(result, design, places, linear, d):
    """The result with new levels, at their prior, and the others in their `places`."""
    found = {k: (places[term], b) for own in design.predictors(d) for term, k, b in own.blocks}
    terms, m = [found[k] for k in range(len(found))], result.coef_root.shape[1]
    added = sum((b.n_levels - len(place)) * b.r for place, b in terms)
    if not added:
        return result
    # An exact root takes a column more for every new effect; of draws, the new ones are random.
    own_columns = linear and _is_exact(result) and m + added <= EXACT_ROOT
    width, first = m + added * own_columns, m
    axes = _coefficient_axes(result)
    effects, covs, out = [], [], []
    for k, ((place, b), S) in enumerate(zip(terms, result.covariances, strict=True)):
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


def _turned(z, L, refs):
    """z^T L [n_rows, r], or of each of several levels a row, of L [J, r, r] of a row's levels."""
    return np.einsum("...a,...ab->...b", z, L[refs])


def _rows(like, design, response):
    """`LocalRows` of new rows in the table's units, by their own levels, and these, by block."""
    y, d = response.y, response.n_predictors
    if like.wide:
        from sklmm.engine.likelihood.parameters import wide

        y = wide(y, response, design.models)
    made, every = [], []
    for own in design.predictors(d if design.predicted else 1):
        blocks = [b for _, _, b in own.blocks]
        found = [np.unique(b.refs, return_inverse=True) for b in blocks]
        refs = [
            refs.astype(np.int32).reshape(b.refs.shape)
            for b, (_, refs) in zip(blocks, found, strict=True)
        ]
        sizes, z = [len(levels) for levels, _ in found], [b.loadings(slice(None)) for b in blocks]
        of_terms = tuple(refs), tuple(sizes), tuple(z), own.offset
        made.append(LocalRows(y, own.X, response.weights, *of_terms))
        every += [levels for levels, _ in found]
    if not design.predicted:
        return made[0].stacked(d), [levels for levels in every for _ in range(d)]
    from sklmm.engine.rows.predictors import PredictorRows

    return PredictorRows.stacked_of(made), every


class _NewRows(Latent):
    """New rows in the unknowns u of their levels, at the posterior means of all else.

    `levels` are those of each term, `roots` [n_levels, r, r] of their covariances. `given` are the
    rows as the table has them, in the coefficients and the effects of these levels.
    """

    def __init__(self, result, design, response):
        self.result, d = result, response.n_predictors
        like = Likelihood.of(response.family, response.n_classes, response.models)
        rows, self.levels = _rows(like, design, response)
        self.given = rows
        pairs = list(zip(self.levels, result.effects_cov, result.effects, strict=True))
        self.roots = [covariance_root(covs[levels]) for levels, covs, _ in pairs]
        means = Coefs(result.coef[:, None], [b[levels][:, :, None] for levels, _, b in pairs])
        eta = rows.predictor(means)[:, 0]
        turned = zip(rows.z, self.roots, rows.refs, strict=True)
        z = tuple(_turned(z, L, refs) for z, L, refs in turned)
        problem = Problem(
            rows=replace(rows.without_fixed(), z=z, offset=eta, _known={}),
            blocks=tuple(
                BlockData(*L.shape[:2], Pinned((1.0,) * L.shape[1]), tied=refs.ndim > 1)
                for L, refs in zip(self.roots, rows.refs, strict=True)
            ),
            n=float(rows.weights.sum()),
            reml=False,
            basis=np.zeros((0, 0)),
            z_bases=tuple(np.eye(L.shape[1]) for L in self.roots),
            d=d,
        )
        if response.family.closed_form:
            sigma = (("sigma", result.sigma / response.sigma_unit),)
            like = replace(like, names=(), constraints=(), pinned=sigma)
        super().__init__(problem, like, dict(zip(like.names, like.constraints, strict=True)))
        raw = [
            CONSTRAINTS[kind].unconstrain(result.family[k])
            for k, kind in self.space.parameters.items()
        ]
        self.theta, self.last = Theta(np.zeros(0), problem.z_bases, np.array(raw, float)), None

    def equations(self, theta, at, rough=False):
        """Z^T W Z + I, factorised where a Gaussian fit's are; the last ones if W is theirs."""
        if self.last is None or not np.array_equal(at, self.last.weights):
            sizes = [b.n_levels * b.r for b in self.problem.blocks]
            dense = factorisable(sizes, coupled=[b.coupled for b in self.problem.blocks])
            cross = CrossProducts(self.problem, at)
            self.last = Equations.of(cross, theta.factors, self.layout, dense, EXACT_TOL)
        return self.last

    def with_observed_curvature(self, x, equations):
        """The equations with the observed curvature, where they are factorised.

        Where that makes them not positive, a share of the expected one stands in for what it lacks.
        """
        coefs, raw = self.coefs([self.theta], x[:, None])
        W = self.rows.evaluate(self.densities, coefs, raw, "observed")[2]
        if not equations.factorised or np.array_equal(W, equations.weights):
            return equations
        try:
            return self.equations(self.theta, W)
        except np.linalg.LinAlgError:
            safe = self.rows.safe(self.densities, coefs, raw[:, 0], W)
            return self.equations(self.theta, safe)

    def result_with(self, x, equations):
        """The result with the posterior of the levels at hand; the others are as they were."""
        result = self.result
        axes = _coefficient_axes(result)
        follows = [
            root[levels] @ axes.T
            for levels, root in zip(self.levels, result.effects_root, strict=True)
        ]
        # How the levels' own deviations answer those that follow the coefficients.
        image = self.given.product(Coefs(result.coef_root @ axes.T, follows), equations.weights)
        turned = zip(self.roots, image.effects, strict=True)
        pull = self.layout.join(
            np.zeros((0, len(axes))), [L.transpose(0, 2, 1) @ rows for L, rows in turned]
        )
        _, change = self.layout.split(equations.solve(pull))
        effects, covs, root = (
            [a.copy() for a in arrays]
            for arrays in (result.effects, result.effects_cov, result.effects_root)
        )
        _, means = self.layout.split(x[:, None])
        for k, (levels, L, V) in enumerate(
            zip(self.levels, self.roots, equations.variances(), strict=True)
        ):
            effects[k][levels] += (L @ means[k])[:, :, 0]
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
            effects_mc_error=None,
            effects_std_mc_error=None,
            unsolved=equations.unsolved,
            rough=equations.rough,
        )
