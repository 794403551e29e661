r"""What the rows and groups of a fit do to its coefficients: leverage, deletion, Cook's distance.

In the weighted least-squares problem of a fit, with A its matrix, U rows of it times sqrt(w) and r
their residuals times sqrt(w), coefficients and effects move by

    -A^-1 U^T (1 - H)^-1 r,      H = U A^-1 U^T,

where these rows are left out. That is exact for a Gaussian model given the variances, and one
Newton step for other families. U and r of a group count by the triangle of their QR decomposition
alone.

The variances move, too. With s their score without the group, whose levels have other moments
E[u u^T], and C_tt their covariance, one step changes the coefficients by (d beta / dt) C_tt s. Of a
Gaussian model with b = L u

    d beta / dt = [A^-1 v]_beta,    v = L^-1 (dSigma / dt) L^-T u at the effects, else 0;

of other families (d beta / dt) C_tt is the covariance of coefficients and variances.

References
----------
Demidenko & Stukel (2005), Stat. Med. 24, 893-909; Christensen, Pearson & Johnson (1992),
Technometrics 34, 38-45; Pregibon (1981), Ann. Statist. 9, 705-724, for other families.
"""

from typing import NamedTuple

import numpy as np
from scipy.linalg import solve_triangular

from sklmm._threads import in_threads

#: Coefficients and effects beside the largest term's beyond which A^-1 would be too large.
LARGEST = 10_000
#: 1 - H's least eigenvalue down to which a coefficient is determined without the group.
DETERMINED = 1e-9
#: Length of the differences that stand for derivatives of a covariance.
STEP = 1e-5


def check_size(design, n_coefficients):
    """Raise ValueError where A^-1 would be too large."""
    sizes = [b.n_levels * b.r for b in design.blocks]
    free = [0 if b.coupled else size for b, size in zip(design.blocks, sizes, strict=True)]
    left = n_coefficients + sum(sizes) - max(free, default=0)
    if left > LARGEST:
        raise ValueError(
            f"random_effects: influence has a dense matrix of the coefficients and of the effects "
            f"beside the largest term's, {left} here, and no more than {LARGEST}: fit a sample of "
            "the levels, or leave a term out."
        )


class Deletions(NamedTuple):
    """Of each row or group: leverage [m], and what its deletion does.

    `shift` [m, p] is the estimate less the one without it, `added` [m, p] what that adds to the
    variances of the coefficients; nan where they are not determined without it. `scores` [m, k] are
    those of (SDs and correlations, family's parameters) without a group, None of rows.
    """

    leverage: np.ndarray
    shift: np.ndarray
    added: np.ndarray
    scores: np.ndarray | None = None


def of_single_rows(rows):
    """The `Deletions` of single rows."""
    n, p = rows.X.shape
    out = Deletions(np.empty(n), np.empty((n, p)), np.empty((n, p)))

    def some(members):
        U, inverse, _ = rows.touched(members)
        C = U @ inverse
        leverage = np.einsum("nm,nm->n", C, U)
        left = np.where(1 - leverage > DETERMINED, 1 - leverage, np.nan)
        out.leverage[members] = leverage
        out.shift[members] = C[:, :p] * (rows.working.residual[members] / left)[:, None]
        out.added[members] = C[:, :p] ** 2 / left[:, None]

    in_threads(some, rows.neighbours())
    return out


def of_groups(rows, codes, n_groups):
    """The `Deletions` of groups of rows, `codes` [n] 0..n_groups-1; leverage is their rows' sum."""
    p = rows.p
    order = np.argsort(codes, kind="stable")
    members = np.split(order, np.cumsum(np.bincount(codes, minlength=n_groups))[:-1])
    scores = _Scores(rows)

    def one(own):
        U, inverse, places = rows.touched(own)
        R, r = U, rows.working.residual[own]
        if len(U) > U.shape[1]:
            R = np.linalg.qr(np.column_stack([U, r]), mode="r")
            R, r = R[:, :-1], R[:, -1]
        C = R @ inverse
        H = C @ R.T
        try:
            L = np.linalg.cholesky(np.eye(len(H)) - H)
        except np.linalg.LinAlgError:
            L = np.zeros((1, 1))
        if L.diagonal().min() ** 2 < DETERMINED:
            unknown = np.full(p, np.nan)
            return np.trace(H), unknown, unknown, np.full(scores.size, np.nan)
        white = solve_triangular(L, np.column_stack([C, r]), lower=True, check_finite=False)
        C, r = white[:, :-1], white[:, -1]
        moved = scores.of(C[:, p:], -r @ C[:, p:], places, own, r @ r)
        return np.trace(H), r @ C[:, :p], (C[:, :p] ** 2).sum(axis=0), moved

    return Deletions(*map(np.array, zip(*in_threads(one, members), strict=True)))


class _Scores:
    """Scores of (SDs and correlations, family's parameters) without a group."""

    def __init__(self, rows):
        self.rows, self.slopes, self.turns = rows, rows.working.slopes, turns_of(rows)
        self.rest = [k for k in range(len(self.turns)) if k != rows.first]
        sizes = [rows.blocks[k].n_levels * rows.blocks[k].r for k in self.rest]
        self.ends = np.cumsum([0, *sizes])
        self.size = sum(map(len, self.turns)) + max(self.slopes.shape[1], rows.sigma is not None)

    def of(self, C, d, places, own, lost):
        """Those of a group, whose standardised effects at `places` move by d [m] in their means.

        Their covariance grows by C^T C. `own` are the group's rows, and their residuals take `lost`
        out of the sum of squares.
        """
        first, (others, of_first), changes = self.rows.first, places, [None] * len(self.turns)
        if first is not None:
            last, u = slice(len(others), None), self.rows.effects[0][of_first]
            changes[first] = _change(self.turns[first].shape[1], C[:, last], d[last], u)
        for k, start, stop in zip(self.rest, self.ends, self.ends[1:], strict=False):
            mine = slice(*np.searchsorted(others, [start, stop]))
            u = self.rows.effects[1][others[mine]]
            changes[k] = _change(self.turns[k].shape[1], C[:, mine], d[mine], u)
        pairs = zip(self.turns, changes, strict=True)
        out = [0.5 * np.einsum("tab,ab->t", turns, change) for turns, change in pairs]
        if self.rows.sigma is None:
            return np.concatenate([*out, -self.slopes[own].sum(axis=0)])
        # One scale of all variances has the score n - r^T (1 - H)^-1 r; the terms have their share.
        scale = self.rows.counts[own].sum() - lost - sum(map(np.trace, changes))
        return np.concatenate([*out, [scale / self.rows.sigma]])


def _change(r, C, d, u):
    """The change [r, r] of the sum of E[u u^T] over levels."""
    C, d, u = C.reshape(len(C), -1, r), d.reshape(-1, r), u.reshape(-1, r)
    cross = d.T @ u
    return np.einsum("kla,klb->ab", C, C) + cross + cross.T + d.T @ d


def turns_of(rows):
    """K_t = L^-1 (dSigma / dt) L^-T [m, r, r] of each block's SDs and correlations t."""
    return [_turns(*own) for own in zip(rows.blocks, rows.covariances, rows.roots, strict=True)]


def _turns(block, covariance, root):
    """Those of one; 0 of a Sigma on its boundary, and of related levels, which have no step."""
    kind, r = block.covariance, block.r
    out = np.zeros((len(kind.reported), r, r))
    try:
        theta = kind.params(np.linalg.cholesky(covariance))
        inverse = np.linalg.inv(root)
    except np.linalg.LinAlgError:
        return out
    if block.relation is not None or not len(theta):
        return out
    at = np.concatenate([theta + STEP * np.eye(len(theta)), theta - STEP * np.eye(len(theta))])
    sigmas = np.array([F @ F.T for F in map(kind.factor, at)]).reshape(2, len(theta), r, r)
    slopes = (sigmas[0] - sigmas[1]) / (2 * STEP)
    natural = np.array([[_natural(own, kind.reported) for own in side] for side in sigmas])
    rates = (natural[0] - natural[1]) / (2 * STEP)
    # Where theta has fewer entries, those of `natural` that move with it have its score together.
    per = np.linalg.pinv(rates)
    return np.einsum("tm,ar,mrs,bs->tab", per, inverse, slopes, inverse)


def _natural(covariance, reported):
    """SDs and correlations of a covariance at the entries that are reported."""
    sd = np.sqrt(np.diag(covariance))
    return [sd[i] if i == j else covariance[i, j] / (sd[i] * sd[j]) for i, j in reported]


def with_variances(deletions, rows, result):
    """The `Deletions` with one step of the variances."""
    cov, m = np.nan_to_num(result.natural_cov), deletions.scores.shape[1]
    # Theirs are the last: between stand coefficients of the model's other parts.
    last = slice(len(cov) - m, None)
    if rows.sigma is None:
        cross = cov[last, : len(rows.kept)][:, rows.kept]
    else:
        cross = cov[last, last] @ _coefficient_slopes(rows)
    return deletions._replace(shift=deletions.shift - deletions.scores @ cross)


def _coefficient_slopes(rows):
    """Derivatives [m, p] of a Gaussian model's coefficients in (SDs and correlations, sigma)."""
    p, (first, others) = rows.p, rows.effects
    none = np.zeros(p + len(others)), None if first is None else np.zeros(len(first))
    out, scale, start = [], np.zeros(p), p
    for k, turns in enumerate(turns_of(rows)):
        r = turns.shape[1]
        stop = start + rows.blocks[k].n_levels * r
        u = (first if k == rows.first else others[start - p : stop - p]).reshape(-1, r)
        for K in [*turns, np.eye(r)]:
            of_others, of_first = (None if own is None else own.copy() for own in none)
            if k == rows.first:
                of_first[:] = (u @ K).ravel()
            else:
                of_others[start:stop] = (u @ K).ravel()
            out.append(rows.solve(of_others, of_first)[0][:p])
        scale -= 2 / rows.sigma * out.pop()
        start = start if k == rows.first else stop
    return np.array([*out, scale])


def cooks_distances(deletions, covariance):
    """Shifts' squares [m] in units of the coefficients' covariance [p, p], divided by p."""
    shift = deletions.shift
    return np.einsum("mp,pm->m", shift, np.linalg.solve(covariance, shift.T)) / shift.shape[1]


def scaled_changes(deletions, covariance):
    """Shifts [m, p] in standard errors of the estimates after the deletion."""
    return deletions.shift / np.sqrt(np.diag(covariance) + deletions.added)
