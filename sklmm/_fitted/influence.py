r"""What the rows and groups of a fit do to its coefficients: leverage, deletion, Cook's distance.

In the weighted least-squares problem of a fit, with A its matrix, U rows of it times sqrt(w) and r
their residuals times sqrt(w), coefficients and effects move by

    -A^-1 U^T (1 - H)^-1 r,      H = U A^-1 U^T,

where these rows are left out. That is exact for a Gaussian model given the variances, and one
Newton step for other families. What A^-1 is more without the rows, A^-1 U^T (1 - H)^-1 U A^-1, is
found in the columns that have entries in U, by the triangle of its QR decomposition where there are
more rows. A group of many rows and columns is taken out of the sums that A is made of.

The variances move, too. With s their score without the group, whose levels have other moments
E[u u^T], and C_tt their covariance, one step changes the coefficients by (d beta / dt) C_tt s. Of a
Gaussian model with b = L u

    d beta / dt = [A^-1 v]_beta,    v = L^-1 (dSigma / dt) L^-T u at the effects, else 0;

Of other families C_bt, the covariance of coefficients and variances, stands for (d beta / dt) C_tt,
and A's information, which is that expected of all y, gives way to the observed one: with d the
coefficients' move above, V and V_g their blocks of A^-1 with and without the group, and C_bb their
covariance, the score that has moved them is s_b = V_g^-1 d, and they move by

    (C_bb + V_g - V) s_b + C_bt s.

References
----------
Demidenko & Stukel (2005), Stat. Med. 24, 893-909; Christensen, Pearson & Johnson (1992),
Technometrics 34, 38-45; Pregibon (1981), Ann. Statist. 9, 705-724, for other families.
"""

from typing import NamedTuple

import numpy as np
from scipy.linalg import solve_triangular

from sklmm._fitted.natural_slopes import natural_slopes
from sklmm._threads import ahead, in_threads
from sklmm.result import least_eigenvalue

#: Coefficients and effects beside the largest term's beyond which A^-1 would be too large.
LARGEST = 10_000
#: Share of a column's square that is beside the other columns, down to which it is told to 1e-4.
OWN = 1e-11
#: 1 - H's least eigenvalue down to which a coefficient is determined without the group.
DETERMINED = 1e-9
#: Least eigenvalue of correlations from which on a covariance is not on its boundary.
INTERIOR = 1e-9
#: Numbers in the inverses of problems without a group that are made at a time.
TOGETHER = 1 << 26
#: Multiplications that a row costs in a problem without a large group.
PER_ROW = 5_000


def check_columns(X, names):
    """Raise ValueError for columns [n, p] of which products of rows have lost what is their own."""
    sizes = np.linalg.norm(X, axis=0)
    triangle = np.linalg.qr(X / sizes, mode="r")
    own = 1 / np.sum(solve_triangular(triangle, np.eye(len(triangle))) ** 2, axis=1)
    own[np.ptp(X, axis=0) == 0] = 1.0
    if own.min() < OWN:
        raise ValueError(
            f"X: the column {names[np.argmin(own)]!r} is one of the others, or a number that all "
            f"rows share, but for a share of {np.sqrt(own.min()):.0e}, and sums of squares would "
            "be rounded: subtract its mean, and fit again."
        )


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
    those of (SDs and correlations, family's parameters) without a group, and `slopes` [m, p] those
    of the coefficients, both None of rows.
    """

    leverage: np.ndarray
    shift: np.ndarray
    added: np.ndarray
    scores: np.ndarray | None = None
    slopes: np.ndarray | None = None


def of_single_rows(rows):
    """The `Deletions` of single rows."""
    leverage, C = rows.leverage()
    left = np.where(1 - leverage > DETERMINED, 1 - leverage, np.nan)[:, None]
    return Deletions(leverage, C * (rows.working.residual[:, None] / left), C**2 / left)


def of_groups(rows, codes, n_groups):
    """The `Deletions` of groups of rows, `codes` [n] 0..n_groups-1; leverage is their rows' sum."""
    order = np.argsort(codes, kind="stable")
    members = np.split(order, np.cumsum(np.bincount(codes, minlength=n_groups))[:-1])
    scores = _Scores(rows)
    large = [_is_large(rows, own) for own in members]
    found = in_threads(
        lambda own, wait: None if wait else _of_touched(rows, scores, own), members, large
    )
    if any(large):
        known = rows.leverage()[0], rows.spread(rows.inverse)
        own = np.flatnonzero(large)
        at_a_time = 1 + TOGETHER // len(rows.inverse.S) ** 2
        left = ahead(lambda k: _of_left(rows, scores, members[k], *known), own, at_a_time)
        for k, answer in zip(own, left, strict=True):
            found[k] = answer
    return Deletions(*map(np.array, zip(*found, strict=True)))


def _is_large(rows, own):
    """Whether what a group touches takes longer than the problem of the rows that are left."""
    n, limit = len(own), len(rows.inverse.S) ** 3 / 2 + PER_ROW * len(rows.X)

    def work(counts):
        pairs = zip(counts, rows.blocks, strict=True)
        m = rows.p + sum(count * block.r for count, block in pairs)
        return n * m * min(n, m) + 4 * min(n, m) * m**2

    if work(min(block.refs[own].size, block.n_levels) for block in rows.blocks) <= limit:
        return False
    return work(len(np.unique(block.refs[own])) for block in rows.blocks) > limit


def _of_touched(rows, scores, own):
    """A group's entries of `Deletions` by the part P of A^-1 that its rows touch."""
    p, r = rows.p, rows.working.residual[own]
    U, P, places = rows.touched(own)
    g = U.T @ r
    if len(U) > len(P):
        U = np.linalg.qr(U, mode="r")
    C = U @ P
    H = C @ U.T
    try:
        L = np.linalg.cholesky(np.eye(len(H)) - H)
    except np.linalg.LinAlgError:
        L = np.zeros((1, 1))
    if L.diagonal().min() ** 2 < DETERMINED:
        return np.trace(H), *scores.unknown
    white = solve_triangular(L, C, lower=True, check_finite=False)
    more = white.T @ white
    d, added = -(P @ g + more @ g), more.diagonal()[:p]
    moved = scores.of(d, added, scores.growth(more, places), places, own, r @ r - g @ d)
    slopes = np.linalg.solve(P[:p, :p] + more[:p, :p], d[:p])
    return np.trace(H), -d[:p], added, moved, slopes


def _of_left(rows, scores, own, leverage, spread):
    """A group's entries of `Deletions` by the problem of the other rows.

    Its scores have the moves of all effects, and not of those alone that the group's rows have.
    """
    p, leverage = rows.p, leverage[own].sum()
    before = rows.inverse.S.diagonal()[:p]
    try:
        left = rows.without(own)
    except np.linalg.LinAlgError:
        return leverage, *scores.unknown
    added = left.S.diagonal()[:p] - before
    if (before < DETERMINED * (before + added)).any():
        return leverage, *scores.unknown
    r = rows.working.residual[own]
    moments = rows.moments(r, own)
    moved = left.solve(*moments)
    parts = [k for k in range(2) if moments[k] is not None]
    lost = r @ r + sum(moments[k] @ moved[k] for k in parts)
    growth = [one - other for one, other in zip(rows.spread(left), spread, strict=True)]
    places = np.arange(len(moved[0]) - p), np.arange(0 if moved[1] is None else len(moved[1]))
    d = -np.concatenate([moved[k] for k in parts])
    slopes = np.linalg.solve(left.S[:p, :p], d[:p])
    return leverage, -d[:p], added, scores.of(d, added, growth, places, own, lost), slopes


class _Scores:
    """Scores of (SDs and correlations, family's parameters) without a group."""

    def __init__(self, rows):
        self.rows, self.slopes, self.turns = rows, rows.working.slopes, turns_of(rows)
        self.rest = [k for k in range(len(self.turns)) if k != rows.first]
        sizes = [rows.blocks[k].n_levels * rows.blocks[k].r for k in self.rest]
        self.ends = np.cumsum([0, *sizes])
        size = sum(map(len, self.turns)) + max(self.slopes.shape[1], rows.sigma is not None)
        #: Shift, what is added, scores and slopes, where they are not determined.
        self.unknown = tuple(np.full(m, np.nan) for m in (rows.p, rows.p, size, rows.p))

    def _parts(self, places):
        """Slices of `places`, one after the other, of each block."""
        others, of_first = places
        out = [slice(len(others), len(others) + len(of_first))] * len(self.turns)
        bounds = np.searchsorted(others, self.ends)
        for k, start, stop in zip(self.rest, bounds, bounds[1:], strict=False):
            out[k] = slice(start, stop)
        return out

    def growth(self, more, places):
        """Of each term the sum over levels of their own blocks, [r, r], of what P is more."""
        out, effects = [], more[self.rows.p :, self.rows.p :]
        for block, own in zip(self.rows.blocks, self._parts(places), strict=True):
            J = (own.stop - own.start) // block.r
            part = effects[own, own].reshape(J, block.r, J, block.r)
            out.append(np.einsum("jajb->ab", part))
        return out

    def of(self, d, added, growth, places, own, lost):
        """Those of a group, whose coefficients, and standardised effects at `places`, move by d.

        Their variances grow by `added` [p], and the sums of the effects' covariances by `growth`.
        `own` are the group's rows, and their residuals take `lost` out of the sum of squares.
        """
        rows, (others, of_first), out = self.rows, places, []
        of_coef, d = added + d[: rows.p] * (d[: rows.p] + 2 * rows.coef), d[rows.p :]
        first, rest = rows.effects
        u = rest[others] if first is None else np.concatenate([rest[others], first[of_first]])
        changes = []
        for block, part, more in zip(rows.blocks, self._parts(places), growth, strict=True):
            of_d, of_u = d[part].reshape(-1, block.r), u[part].reshape(-1, block.r)
            cross = of_d.T @ of_u
            changes.append(more + cross + cross.T + of_d.T @ of_d)
        pairs = zip(self.turns, changes, strict=True)
        out = [0.5 * np.einsum("tab,ab->t", turns, change) for turns, change in pairs]
        if rows.sigma is None:
            return np.concatenate([*out, -self.slopes[own].sum(axis=0)])
        # One scale of all variances has the score n - r^T (1 - H)^-1 r; the terms and the prior of
        # coefficients have their share.
        scale = rows.counts[own].sum() - lost - sum(map(np.trace, changes)) - rows.prior @ of_coef
        return np.concatenate([*out, [scale / rows.sigma]])


def turns_of(rows):
    """K_t = L^-1 (dSigma / dt) L^-T [m, r, r] of each block's SDs and correlations t."""
    return [_turns(*own) for own in zip(rows.blocks, rows.covariances, rows.roots, strict=True)]


def _turns(block, covariance, root):
    """Those of one; 0 of a Sigma on its boundary, and of related levels, which have no step."""
    if block.relation is not None or least_eigenvalue(covariance) < INTERIOR:
        return np.zeros((len(block.covariance.reported), block.r, block.r))
    inverse = np.linalg.inv(root)
    return inverse @ natural_slopes(block.covariance, covariance) @ inverse.T


def with_variances(deletions, rows, result):
    """The `Deletions` with one step of the variances, and of all that other families estimate."""
    cov = np.nan_to_num(result.natural_cov, posinf=0.0, neginf=0.0)
    shift, scores = deletions.shift, deletions.scores
    p, last = len(rows.kept), slice(len(cov) - scores.shape[1], None)
    if rows.sigma is None:
        cross = cov[last, :p][:, rows.kept]
        given_rest = rows.inverse.S[: rows.p, : rows.p]
        C = result.coef_cov[:p, :p][np.ix_(rows.kept, rows.kept)]
        shift = shift - deletions.slopes @ (C - given_rest)
    else:
        cross = cov[last, last] @ _coefficient_slopes(rows)
    return deletions._replace(shift=shift - scores @ cross)


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
            out.append(rows.inverse.solve(of_others, of_first)[0][:p])
        scale -= 2 / rows.sigma * out.pop()
        start = start if k == rows.first else stop
    # A prior of the coefficients is as a term's.
    none[0][:p] = rows.prior * rows.coef
    return np.array([*out, scale - 2 / rows.sigma * rows.inverse.solve(*none)[0][:p]])


def cooks_distances(deletions, covariance):
    """Shifts' squares [m] in units of the coefficients' covariance [p, p], divided by p."""
    shift = deletions.shift
    return np.einsum("mp,pm->m", shift, np.linalg.solve(covariance, shift.T)) / shift.shape[1]


def scaled_changes(deletions, covariance):
    """Shifts [m, p] in standard errors of the estimates after the deletion."""
    return deletions.shift / np.sqrt(np.diag(covariance) + deletions.added)
