"""Distribution functions of whole numbers that are known by their probabilities alone."""

import numpy as np

#: Counts that are added up one by one; what is beyond is an integral, over so many SDs about the
#: mean, by a rule of so many nodes.
_FEW = 256
_BELOW, _ABOVE = 12.0, 40.0
_NODES, _SHARES = np.polynomial.legendre.leggauss(96)


def cumulated(log_probability, y, mean, sd):
    """P(Y <= y) of whole numbers y >= 0 from a function that gives log P(Y = count).

    The sum over counts that are large is the integral between the halves, less a 24th of what the
    slope of the probabilities rises, as they are smooth there.
    """
    y, mean, sd = np.broadcast_arrays(np.asarray(y, float), mean, sd)
    total = np.zeros(y.shape)
    most = int(min(y.max(initial=-1.0), _FEW))
    for count in range(most + 1):
        total += np.where(count <= y, np.exp(log_probability(float(count))), 0.0)
    if y.max(initial=-1.0) <= _FEW:
        return np.minimum(total, 1.0)
    low = np.maximum(mean - _BELOW * sd, _FEW + 0.5)
    high = np.minimum(y + 0.5, mean + _ABOVE * sd)
    half = np.maximum(high - low, 0.0) / 2

    def probability(count):
        # Of means so large that gamma functions have no digits left it may come out beyond 1.
        return np.exp(np.minimum(log_probability(count), 0.0))

    for node, share in zip(_NODES.tolist(), _SHARES.tolist(), strict=True):
        total += share * half * probability(low + half * (1 + node))
    # Slopes at both ends.
    last = low + 2 * half
    bend = probability(last + 0.5) - probability(last - 0.5)
    bend -= probability(low + 0.5) - probability(low - 0.5)
    return np.minimum(total - bend / 24, 1.0)
