r"""Which SDs and correlations the design leaves undetermined, whatever the response.

V is linear in the covariances and in sigma^2, so the data tell their parameters only where the
changes D_i of V are linearly independent: where the matrix of tr D_i D_k is regular. That is asked
of terms over one partition of the rows. There V is block diagonal, and with G_j = Z_j^T w Z_j of
level j and the changes S_i of a covariance

    tr D_i D_k = sum_j tr G_j S_i G_j S_k.

A column of slopes that is constant within the levels is what usually makes the D_i dependent.
Several linear predictors share no row and have the same Z each: what holds of one holds of all.
"""

import numpy as np

#: Eigenvalue of the D_i's correlations that is 0, and share of an entry in a null vector that is.
NULL = 1e-8
SHARE = 1e-5


def undetermined(space):
    """Which of `natural`'s entries the design leaves undetermined, bool [n_natural]."""
    problem, sigma = space.problem, False
    # Whether V has a sigma^2 which is estimated.
    residual = list(space.parameters) == ["sigma"] and bool(space.estimated)
    d = problem.d
    found = [np.zeros((b.r, b.r), bool) for b in problem.blocks[::d]]
    for group in _partitions(problem.rows, range(len(found)), d):
        for null in _null_vectors(problem, [k * d for k in group], residual):
            sigma |= bool(abs(null[-1, -1]) > SHARE)
            first = 0
            for k in group:
                A = problem.z_bases[k * d]
                part = slice(first, first + len(A))
                size = np.linalg.norm(A, axis=1)
                found[k] |= np.abs(A @ null[part, part] @ A.T) > SHARE * np.outer(size, size)
                first += len(A)
    flags = []
    for b, own in zip(problem.blocks[::d], found, strict=True):
        own = own | np.diag(own)[:, None] | np.diag(own)
        flags += d * [np.array([own[entry] for entry in b.covariance.reported])]
    return np.concatenate([*flags, np.full(len(space.parameters), sigma)])


def _partitions(rows, blocks, d):
    """Numbers of the blocks over each partition of the rows."""
    groups = []
    for k in blocks:
        for group in groups:
            if rows.same_levels(group[0] * d, k * d):
                group.append(k)
                break
        else:
            groups.append([k])
    return groups


def _null_vectors(problem, group, residual):
    """Changes of the covariances [R + 1, R + 1], sigma^2's last, that leave V as it is."""
    G, blocks = problem.rows.block_of(group), [problem.blocks[k] for k in group]
    ends, changes = np.cumsum([0, *(b.r for b in blocks)]), []
    for b, first in zip(blocks, ends[:-1], strict=True):
        for own in b.covariance.directions():
            changes.append(np.zeros((ends[-1], ends[-1])))
            changes[-1][first : first + b.r, first : first + b.r] = own
    each = [G @ S for S in changes]
    gram = np.empty((len(each) + residual, len(each) + residual))
    for i, one in enumerate(each):
        gram[i, : len(each)] = [np.einsum("jab,jba->", one, other) for other in each]
    if residual:
        gram[-1, :-1] = gram[:-1, -1] = [np.einsum("jaa->", own) for own in each]
        gram[-1, -1] = problem.n
    scale = np.sqrt(np.diag(gram))
    scale = np.where(scale > 0, scale, 1.0)
    values, vectors = np.linalg.eigh(gram / np.outer(scale, scale))
    for vector in (vectors[:, values < NULL] / scale[:, None]).T:
        null = np.zeros((ends[-1] + 1, ends[-1] + 1))
        null[:-1, :-1] = sum(x * S for x, S in zip(vector, changes, strict=False))
        null[-1, -1] = vector[-1] if residual else 0.0
        yield null / np.abs(null).max()
