"""The evaluation of a likelihood in TensorFlow, traced once for arrays of any size."""

import numpy as np

from sklmm.engine.runtime.tensorflow import tf, traced


def traced_evaluation(like):
    """The functions of `evaluation.Evaluation` of a likelihood."""
    one, two = tf.TensorSpec([None], tf.float64), tf.TensorSpec([None, None], tf.float64)
    answers = two if like.wide else one

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

    weights = traced(curvature, answers, two, two)
    both = traced(like.log_prob_and_score, answers, two, two)

    def in_raw(y, w, eta, raw):
        with tf.GradientTape(persistent=True) as tape:
            tape.watch((eta, raw))
            of_raw = tf.unstack(slopes(y, w, eta, raw[:, None])[2][:, 0], q)
        rates = [tape.gradient(own, (eta, raw), unconnected_gradients="zero") for own in of_raw]
        by_eta = [own[:, 0] for own, _ in rates]
        return tf.stack(by_eta, axis=1), tf.stack([own for _, own in rates])

    def bent(y, height, eta, raw):
        with tf.GradientTape() as tape:
            tape.watch((eta, raw))
            total = tf.reduce_sum(height * curvature(y, eta, raw[:, None])[0][:, 0])
        in_eta, of_raw = tape.gradient(total, (eta, raw), unconnected_gradients="zero")
        return in_eta[:, 0], of_raw

    q = len(like.names)
    turned, rates = traced(bent, answers, one, two, one), traced(in_raw, answers, one, two, one)
    nothing = np.zeros((0, 0))
    rows = traced(by_row, answers, two, two)
    return (
        # A custom family has one kind of curvature.
        lambda y, eta, raw, own=False: rows(y, eta, raw),
        weights,
        weights,
        traced(slopes, answers, one, two, two),
        both,
        lambda y, eta, raw: both(y, eta, raw)[1],
        rates if q else lambda y, w, eta, raw: (np.zeros((len(eta), 0)), nothing),
        lambda y, height, eta, raw, own: turned(y, height, eta, raw),
    )
