"""Newton's method for the maximum of a log-likelihood: its step, and the information it takes."""

import numpy as np

#: Length of the steps by which gradients are differenced, in float64.
STEP = 1e-4
#: Share of the largest information below which an entry of theta has none, beside those that are
#: `flat`: rounding.
ROUNDING = 1e-3


def ascent(information, score, damping=0.0, flat=0.0, least=0.0):
    """The step [m] from an information [m, m] and a score [m], and its length in standard errors.

    The information's eigenvalues, each entry in units of its own, count by their absolute values:
    so the step climbs from a saddle too. Of their largest, `damping` is the share that is added to
    all of them, `least` the share that they have at least, and `flat` the one up to which a
    direction is left alone.
    """
    if not len(score):
        return np.zeros(0), 0.0
    own = np.abs(np.diag(information))
    scale = np.sqrt(np.maximum(own, ROUNDING * flat * own.max() + 1e-300))
    values, vectors = np.linalg.eigh(information / np.outer(scale, scale))
    size = np.abs(values)
    size = np.maximum(size, least * size.max())
    unknown = size <= flat * size.max()
    inverse = np.where(unknown, 0.0, 1.0 / np.where(unknown, 1.0, size + damping * size.max()))
    along = vectors.T @ (score / scale)
    length = float(np.sqrt(np.sum(inverse * along**2)))
    return vectors @ (inverse * along) / scale, length


def inverse(information):
    """The covariance [m, m] of parameters whose information [m, m] may be singular."""
    # Its entries may be of very different sizes: some are known far better than others.
    scale = np.sqrt(np.maximum(np.abs(np.diag(information)), 1e-300))
    part = information / np.outer(scale, scale)
    part = np.linalg.pinv((part + part.T) / 2, rcond=1e-10, hermitian=True)
    return part / np.outer(scale, scale)


def by_differences(score, m):
    """The information [m, m] at 0 of a `score`, a function of a displacement [m] of theta."""
    columns = []
    for e in STEP * np.eye(m):
        up, down = score(e), score(-e)
        columns.append((down - up) / (2 * STEP))
    out = np.reshape(columns, (m, m))
    return (out + out.T) / 2
