"""A likelihood row by row, for NumPy arrays of any number of rows and columns.

Graphs of TensorFlow that are traced once for each likelihood: that takes a tenth of a second, where
compiling takes several, and a call a tenth of what its operations take one by one.
"""

from functools import lru_cache
from typing import NamedTuple

from sklmm.engine.xla import tf, traced

#: Likelihoods whose graphs are kept.
KEPT = 64


class Graphs(NamedTuple):
    """Functions of y [n], eta [n * d, C] and raw [., C].

    by_row: log f [n, C], its derivative in eta, and `curvature`: W [n * d, C] alone.
    slopes, of the weights w [n] after y: log f, and the derivatives of its weighted sum in eta
    and raw.
    """

    by_row: object
    curvature: object
    slopes: object


@lru_cache(maxsize=KEPT)
def graphs(like):
    """`Graphs` of a likelihood."""
    one, two = tf.TensorSpec([None], tf.float64), tf.TensorSpec([None, None], tf.float64)

    def by_row(y, eta, raw):
        return *like.log_prob_and_score(y, eta, raw), like.curvature(y, eta, raw)

    def curvature(y, eta, raw):
        return (like.curvature(y, eta, raw),)

    def slopes(y, w, eta, raw):
        with tf.GradientTape() as tape:
            tape.watch((eta, raw))
            rows = like.log_prob(y, eta, raw)
            total = tf.reduce_sum(w[:, None] * rows)
        return rows, *tape.gradient(total, (eta, raw), unconnected_gradients="zero")

    return Graphs(
        traced(by_row, one, two, two),
        traced(curvature, one, two, two),
        traced(slopes, one, one, two, two),
    )
