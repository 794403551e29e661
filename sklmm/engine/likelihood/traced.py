"""The evaluation of a likelihood in TensorFlow, traced once for arrays of any size."""

from sklmm.engine.runtime.tensorflow import tf, traced


def traced_evaluation(like):
    """The functions of `evaluation.Evaluation` of a likelihood."""
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

    weights, both = traced(curvature, one, two, two), traced(like.log_prob_and_score, one, two, two)
    return (
        traced(by_row, one, two, two),
        weights,
        weights,
        traced(slopes, one, one, two, two),
        both,
        lambda y, eta, raw: both(y, eta, raw)[1],
    )
