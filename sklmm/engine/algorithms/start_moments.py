r"""Starting values of a Gaussian model: quadratic forms of its cross-products set to their means.

With M the projection off X, z_q a column of Z, s_b the variance of one coefficient of one term and
Z_b its columns,

    E (z_q^T y)^2 = sum_b s_b |z_q^T M Z_b|^2 + sigma^2 z_q^T M z_q,
    E y^T M y     = sum_b s_b tr(Z_b^T M Z_b) + sigma^2 (n - p)

are linear in the variances (Hartley, Rao & LaMotte 1978, Biometrics 34, 233-242). The first are
added up within each coefficient with weights that let every level count as much as its rows know of
it; the second less what the effects explain, one by one. Consistent, and within a few standard
errors of the maximum at the cost of one product; correlations start at 0. Coefficients of sparse
columns count as effects of one more term.
"""

import numpy as np
from scipy.optimize import nnls

from sklmm.engine.theta.space import Theta

N_PASSES = 2
#: Least SD of a term, as a share of sigma, and least sigma as one of y's SD: Newton wants a slope.
LEAST_SD = 0.1
LEAST_SIGMA = 0.01
#: Least share of a variance that is its coefficient's own where those of the table are unrelated.
LEAST_OWN = 0.05
#: Most of the residual's degrees of freedom that its equation may take away.
MOST_EXPLAINED = 0.5


def moment_start(cross):
    """Theta to start from; pinned SDs stay as they are."""
    problem, blocks = cross.problem, cross.problem.blocks
    # A known covariance has one factor, the nearest to any.
    pinned = [
        np.nan if b.covariance.n_params else sd
        for b in blocks
        for sd in np.linalg.norm(b.covariance.nearest(np.eye(b.r)), axis=1)
    ]
    if cross.columns is not None:
        pinned.append(np.nan)
    pinned = np.array([*pinned, problem.sigma], dtype=float)
    free = np.isnan(pinned)
    variances = np.where(free, 1.0, pinned**2)
    forms = _forms(cross)
    # Without an unknown SciPy's solver would free its memory twice, and the process ends.
    for _ in range(N_PASSES if free.any() else 0):
        A, q = _equations(cross, forms, variances)
        q = q - A[:, ~free] @ variances[~free]
        # Rows in units of their own: the solver is least squares, and the sums differ by powers.
        scale = np.abs(np.diag(A))[free]
        scale = np.where(scale > 0, scale, 1.0)
        variances[free] = nnls(A[np.ix_(free, free)] / scale[:, None], q[free] / scale)[0]
        if free[-1]:
            variances[-1] = max(variances[-1], LEAST_SIGMA**2 * cross.yy / problem.n)
        variances[free] = np.maximum(variances[free], LEAST_SD**2 * variances[-1])
    sds, factors = np.sqrt(variances), []
    for b, A in zip(blocks, problem.z_bases, strict=True):
        factors.append(b.covariance.nearest(_uncorrelated(sds[: b.r], A)))
        sds = sds[b.r :]
    raw = np.log(sds[-1:]) if problem.sigma is None else np.zeros(0)
    return Theta(np.zeros(0), tuple(factors), raw)


def _uncorrelated(sds, basis):
    """A factor with these SDs, of coefficients that are unrelated in the table's own basis.

    Where that is far from the data there are none with the SDs, and it is in standard units.
    """
    back = np.linalg.inv(basis)
    own = np.linalg.solve(back**2, sds**2)
    if (own * np.diag(back) ** 2 < LEAST_OWN * sds**2).any():
        return np.diag(sds)
    return np.linalg.cholesky((back * own) @ back.T)


def _forms(cross):
    """member [Q, c], whose coefficient each effect is; |z_q^T M Z_b|^2 [Q, c]; z_q^T M z_q [Q]."""
    problem, n, F = cross.problem, cross.problem.n, cross.F
    owner, count = np.empty(cross.Q, int), 0
    for b, s in zip(problem.blocks, cross.slices, strict=True):
        owner[s] = count + np.arange(s.stop - s.start) % b.r
        count += b.r
    if cross.columns is not None:
        owner[cross.flat] = count
        count += 1
    member = np.eye(count)[owner]
    squares = cross.squares(member)
    # X^T w X = n I: M takes F F^T / n from Z^T w Z.
    for a in range(count):
        own = member[:, [a]] * F
        both = F @ (own.T @ F / n) - 2 * cross.product(own)
        squares[:, a] += np.einsum("qp,qp->q", F, both) / n
    return member, squares, cross.diagonal() - np.einsum("qp,qp->q", F, F) / n


def _equations(cross, forms, variances):
    """A [c + 1, c + 1] and q [c + 1] of the variances, sigma's last."""
    problem, (member, squares, sizes) = cross.problem, forms
    ratio = member @ (variances[-1] / np.maximum(variances[:-1], LEAST_SD**2 * variances[-1]))
    weights = 1 / (cross.diagonal() + ratio)
    level = member * weights[:, None] ** 2
    own = np.maximum(sizes, 0.0)
    dof = problem.n - cross.p
    taken = weights * min(1.0, MOST_EXPLAINED * dof / max(weights @ own, 1e-300))
    A = np.block(
        [
            [level.T @ squares, (level.T @ own)[:, None]],
            [own @ member - taken @ squares, np.array([dof - taken @ own])],
        ]
    )
    q = np.append(level.T @ cross.zy**2, cross.yy - taken @ cross.zy**2)
    return A, q
