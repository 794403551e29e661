r"""Linear combinations of the coefficients: estimates, covariance, degrees of freedom, joint tests.

The statistic of L beta = r is Wald's, w = (L b - r)^T (L C L^T)^-1 (L b - r), of q rows that are
independent: chi-square with q degrees of freedom, or F = w / q by one of two rules:

- Satterthwaite's, as lmerTest has it: along the eigenvectors of L C L^T, q independent t tests of
  nu_i degrees of freedom each, whose F has those that match its mean, 2 E / (E - q) with
  E = sum_i nu_i / (nu_i - 2) (Fai & Cornelius 1996, J. Stat. Comput. Simul. 54, 363-378).
- Kenward and Roger's (1997, Biometrics 53, 983-997, sec. 4), as pbkrtest has it: the adjusted
  covariance in the place of C, and a factor lambda and degrees of freedom that match two moments.
"""

from typing import NamedTuple

import numpy as np
from scipy.linalg import null_space
from scipy.stats import chi2, f

from sklmm.result import degrees_of_freedom

#: Share of the largest eigenvalue of the correlations of L b up to which one is 0.
DEPENDENT = 1e-10
#: Share of the weights of a combination up to which their sum along a direction is rounding.
ROUNDING = 1e-6
#: Difference of degrees of freedom that are the same.
SAME = 1e-8


class Contrasts(NamedTuple):
    """Combinations of the coefficients: estimate [q], cov [q, q] and dof [q].

    dof is inf where tests are normal. All is nan of a combination that the fit does not determine.
    """

    estimate: np.ndarray
    cov: np.ndarray
    dof: np.ndarray

    @property
    def std_error(self):
        """Standard errors [q]."""
        return np.sqrt(np.maximum(self.cov.diagonal(), 0.0))


class JointTest(NamedTuple):
    """The test of several combinations at once.

    `statistic` is F, or chi-square where `ddf`, its denominator's degrees of freedom, is inf; `df`
    is the number of independent combinations.
    """

    statistic: float
    df: int
    ddf: float
    p: float


def contrasts(model, result, L):
    """`Contrasts` of L b, L [q, k] of the first k of (coef, natural): of all columns as a rule."""
    check_dense(model)
    L = _padded(L, result)
    value = np.concatenate([result.coef, result.natural])
    cov = np.nan_to_num(result.natural_cov)
    estimate, cov, dof = L @ value, L @ cov @ L.T, np.full(len(L), np.inf)
    if result.dof_root is not None:
        own = L[:, : len(result.coef)]
        found = degrees_of_freedom(own, np.nan_to_num(result.coef_cov), result.dof_root)
        dof = np.where(_beyond(L, result), np.inf, found)
    unknown = ~determined(L, untold(model, result))
    estimate[unknown] = dof[unknown] = np.nan
    cov[unknown] = cov[:, unknown] = np.nan
    return Contrasts(estimate, cov, dof)


def check_dense(model):
    """ValueError for a model that keeps columns sparse."""
    if model.spec.sparse:
        raise ValueError(
            "fixed_effects: columns that are kept sparse have standard errors, and no covariance "
            "with the others: make them dense, or fewer, for contrasts and tests."
        )


def _padded(L, result):
    """L with a column for each of (coef, natural)."""
    L = np.asarray(L, dtype=float)
    return np.pad(L, [(0, 0), (0, len(result.natural_cov) - L.shape[1])])


def _beyond(L, result):
    """Which combinations are not of the coefficients alone."""
    return L[:, len(result.coef) :].any(axis=1)


def untold(model, result):
    """Directions [n_columns + m, k] of (coef, natural) of which the fit says nothing.

    Columns that were left out with those that they depend on, coefficients without a standard
    error, and directions of a separated fit.
    """
    n, left = len(result.natural_cov), model.spec.estimable
    unknown, found = np.isnan(np.diag(result.natural_cov)), []
    if left is not None:
        for out, kept, A in _left_out(model):
            own = np.zeros((n, len(out)))
            own[out], own[kept] = np.eye(len(out)), -A
            unknown[out] = False
            found.append(own)
    if result.unbounded is not None:
        found.append(result.unbounded)
    return np.column_stack([np.eye(n)[:, unknown], *found])


def _left_out(model):
    """Of each predictor the places of the columns left out and of the others, and X_out = X A."""
    left = model.spec.estimable
    A = np.where(np.abs(left.combination) > ROUNDING * left.sizes, left.combination, 0.0)
    p = len(left.dropped)
    for first in range(0, model.n_means * p, p):
        yield first + np.flatnonzero(left.dropped), first + np.flatnonzero(~left.dropped), A


def completed(model, result, L):
    """L with the weights by which columns that were left out do not matter, where they have none.

    Such a combination is then one of the model without them, as the table of coefficients has it.
    """
    L = _padded(L, result).copy()
    if model.spec.estimable is not None:
        for out, kept, A in _left_out(model):
            mine = ~L[:, out].any(axis=1)
            L[np.ix_(mine, out)] = L[np.ix_(mine, kept)] @ A
    return L


def determined(L, directions):
    """Which rows of L [q, n] are 0 along all directions [n, k], bool [q]."""
    return (np.abs(L @ directions) <= ROUNDING * (np.abs(L) @ np.abs(directions))).all(axis=1)


def determined_part(L, directions):
    """Combinations of the rows of L [q, n], as many as are independent, that are determined."""
    along = L @ directions
    along[np.abs(along) <= ROUNDING * (np.abs(L) @ np.abs(directions))] = 0.0
    if not along.any():
        return L
    size = np.abs(along).max(axis=0)
    return null_space((along / np.where(size > 0, size, 1.0)).T, ROUNDING).T @ L


def joint_test(model, result, L, rhs=0.0, robust=None):
    """`JointTest` of L b = rhs, L as in `contrasts`; nan where a combination is not determined.

    By the model's covariance, or by a `robust.Robust` one.
    """
    found, L = contrasts(model, result, L), _padded(L, result)
    std = found.std_error
    if not (std > 0).any() or np.isnan(std).any():
        return JointTest(np.nan, 0, np.nan, np.nan)
    # In units of their own, so that rows of any size count as independent.
    size = np.where(std > 0, std, 1.0)
    values, vectors = np.linalg.eigh(found.cov / (size[:, None] * size))
    kept = values > DEPENDENT * values.max()
    turn = vectors[:, kept].T / size
    if robust is not None:
        difference = turn @ (found.estimate - rhs)
        return JointTest(*robust.joint_test(turn @ L[:, : len(result.coef)], difference))
    q = len(turn)
    wald = float(np.sum((turn @ (found.estimate - rhs)) ** 2 / values[kept]))
    if result.dof_root is None:
        return JointTest(wald, q, np.inf, float(chi2.sf(wald, q)))
    if _beyond(L, result).any():
        return JointTest(wald / q, q, np.inf, float(chi2.sf(wald, q)))
    L, C, scale = L[:, : len(result.coef)], np.nan_to_num(result.coef_cov), 1.0
    if result.dof_rule == "kenward-roger":
        scale, ddf = kenward_roger(turn @ L, C, result.dof_root)
    else:
        # In the units of L, as lmerTest has it: the rule depends on them.
        own = np.linalg.eigh(found.cov)[1][:, -q:].T @ L
        ddf = satterthwaite(degrees_of_freedom(own, C, result.dof_root))
    F = scale * wald / q
    return JointTest(F, q, ddf, float(f.sf(F, q, ddf) if np.isfinite(ddf) else chi2.sf(wald, q)))


def satterthwaite(dof):
    """The denominator's degrees of freedom of F from those of its independent t tests [q]."""
    if len(dof) == 1 or np.isinf(dof).all() or np.ptp(dof) < SAME:
        return float(dof.mean())
    if (dof <= 2).any():
        return 2.0
    finite = np.isfinite(dof)
    excess = float(np.sum(2 / (dof[finite] - 2)))
    # E - q is the sum of 2 / (nu - 2).
    return 2 * (excess + len(dof)) / excess


def kenward_roger(L, C, root):
    """(lambda, the denominator's degrees of freedom) of L [q, p] of rank q.

    A1 = sum_i tr(T R_i)^2 and A2 = sum_i tr(T R_i T R_i), with T = L^T (L C L^T)^-1 L and the root
    R_i of what is known of C.
    """
    q = len(L)
    inner = np.linalg.solve(L @ C @ L.T, L @ root @ L.T)
    A1 = float(np.sum(np.trace(inner, axis1=1, axis2=2) ** 2))
    A2 = float(np.einsum("iab,iba->", inner, inner))
    if A2 <= 0:
        return 1.0, np.inf
    B = (A1 + 6 * A2) / (2 * q)
    g = ((q + 1) * A1 - (q + 4) * A2) / ((q + 2) * A2)
    below = 3 * q + 2 * (1 - g)
    c1, c2, c3 = g / below, (q - g) / below, (q + 2 - g) / below
    V0, V1, V2 = 1 + c1 * B, 1 - c2 * B, 1 - c3 * B
    V0 = 0.0 if abs(V0) < 1e-10 else V0
    left = 1 - A2 / q
    both_vanish = abs(left) < 1e-14 and abs(V1) < 1e-14
    rho = (1.0 if both_vanish else left / V1) ** 2 * V0 / V2 / q
    ddf = 4 + (q + 2) / (q * rho - 1)
    scale = 1.0 if abs(ddf - 2) < 1e-2 else ddf * left / (ddf - 2)
    return float(scale), float(ddf)
