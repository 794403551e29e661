"""A likelihood row by row, for NumPy arrays of any number of rows and columns.

Graphs of TensorFlow that are traced once for each likelihood: that takes a tenth of a second, where
compiling takes several, and a call a tenth of what its operations take one by one.
"""

from functools import lru_cache
from typing import NamedTuple

from sklmm.engine.xla import tf

#: Likelihoods whose graphs are kept.
KEPT = 64


def by_row(like, y, eta, raw):
    """log f [n, C], its derivative in eta and the curvature's W [n * d, C].

    Of y [n], eta [n * d, C] and raw [., C].
    """
    return [part.numpy() for part in _graphs(like).by_row(y, eta, raw)]


def slopes(like, y, w, eta, raw):
    """log f [n, C], and the derivatives of its weighted sum in eta [n * d, C] and raw [., C]."""
    return [part.numpy() for part in _graphs(like).slopes(y, w, eta, raw)]


class _Graphs(NamedTuple):
    by_row: object
    slopes: object


@lru_cache(maxsize=KEPT)
def _graphs(like):
    one, two = tf.TensorSpec([None], tf.float64), tf.TensorSpec([None, None], tf.float64)

    def by_row(y, eta, raw):
        return *like.log_prob_and_score(y, eta, raw), like.curvature(y, eta, raw)

    def slopes(y, w, eta, raw):
        with tf.GradientTape() as tape:
            tape.watch((eta, raw))
            rows = like.log_prob(y, eta, raw)
            total = tf.reduce_sum(w[:, None] * rows)
        return rows, *tape.gradient(total, (eta, raw), unconnected_gradients="zero")

    return _Graphs(
        tf.function(by_row, [one, two, two], autograph=False),
        tf.function(slopes, [one, one, two, two], autograph=False),
    )
