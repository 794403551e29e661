r"""Which SDs and correlations the design leaves undetermined, whatever the response.

V = sum_i s_i D_i is linear in the entries s of the covariances, and in sigma^2, so the data tell s
only where the D_i are linearly independent: where the matrix of tr D_i D_j is regular. That is
asked of terms over one partition of the rows. There V is block diagonal, and with G_j = Z_j^T w Z_j
of level j

    tr D_ab D_cd = m_ab m_cd / 2 sum_j (G_ac G_bd + G_ad G_bc)_j,    m = 2 off the diagonal, else 1.

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
    for own in found:
        sd = np.diag(own)
        corr = own | sd[:, None] | sd
        flags += d * [sd, corr[np.tril_indices(len(own), -1)]]
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
    member = np.repeat(np.arange(len(blocks)), [b.r for b in blocks])
    free = np.repeat([b.sd is None for b in blocks], [b.r for b in blocks])
    a, b = np.nonzero(np.tril((member[:, None] == member) & free))
    twice = 2.0 - (a == b)
    gram = np.empty((len(a) + residual, len(a) + residual))
    for i, (c, d) in enumerate(zip(a, b, strict=True)):
        both = G[:, c, a] * G[:, d, b] + G[:, c, b] * G[:, d, a]
        gram[i, : len(a)] = 0.5 * twice[i] * twice * both.sum(axis=0)
    if residual:
        gram[-1, :-1] = gram[:-1, -1] = twice * G.sum(axis=0)[a, b]
        gram[-1, -1] = problem.n
    scale = np.sqrt(np.diag(gram))
    scale = np.where(scale > 0, scale, 1.0)
    values, vectors = np.linalg.eigh(gram / np.outer(scale, scale))
    for vector in (vectors[:, values < NULL] / scale[:, None]).T:
        null = np.zeros((len(member) + 1, len(member) + 1))
        null[a, b] = null[b, a] = vector[: len(a)]
        null[-1, -1] = vector[-1] if residual else 0.0
        yield null / np.abs(null).max()
