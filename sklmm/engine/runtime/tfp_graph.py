"""The model as a TFP joint distribution.

`joint_distribution` writes the generative model down once, in the order of DESIGN: every term's
effects b_k[j] ~ N(0, Sigma_k), then y | b ~ N(X beta + sum_k z_k^T b_k[j_k], sigma^2). It is the
target of the tutorial's loop and the source of `model_graph`; the whitened HMC kernel's own log
density is tested against it.
"""

import inspect
import re

import numpy as np

from sklmm.engine.runtime.tensorflow import quiet, tf

with quiet():
    import tensorflow_probability as tfp

tfd = tfp.distributions


def variable_names(labels):
    """A Python identifier for each block's effects, unique."""
    names = []
    for term, cnames, _ in labels:
        name = re.sub(r"\W", "_", term)
        if any(n == name for n in names):
            name = re.sub(r"\W", "_", f"{term}_{cnames[0]}")
        names.append(name)
    return names


def joint_distribution(names, X, refs, z, n_levels, beta, factors, sigma):
    """JointDistributionNamed over the effects (one variable a block) and y.

    Parameters
    ----------
    names : list of str
        One a block, Python identifiers.
    X : tensor [n_rows, p]
    refs, z : sequences of tensors [n_rows], [n_rows, r]
    n_levels : sequence of int
    beta : tensor [p]
    factors : sequence of tensors [r, r]
        Lower triangles L_k, Sigma_k = L_k L_k^T.
    sigma : scalar tensor
    """

    def effects(J, L):
        loc = tf.zeros([J, L.shape[0]], L.dtype)
        return tfd.Independent(tfd.MultivariateNormalTriL(loc, scale_tril=L), 1)

    def response(**b):
        eta = tf.linalg.matvec(X, beta)
        for name, ref, slopes in zip(names, refs, z, strict=True):
            rows = tf.gather(b[name], ref, axis=-2)
            eta += tf.reduce_sum(rows * slopes, axis=-1)
        return tfd.Independent(tfd.Normal(eta, sigma), 1)

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    response.__signature__ = inspect.Signature([inspect.Parameter(n, kind) for n in names])
    model = {name: effects(J, L) for name, J, L in zip(names, n_levels, factors, strict=True)}

    def y(*args, **kwargs):
        return response(**dict(zip(names, args, strict=False)), **kwargs)

    y.__signature__ = response.__signature__
    return tfd.JointDistributionNamed({**model, "y": y})


def graph(labels, result):
    """``resolve_graph()`` of a fitted model: each variable and those it depends on."""
    names = variable_names(labels)
    r = [len(c) for c in result.covariances]
    one = np.ones((1, 1))
    joint = joint_distribution(
        names,
        tf.constant(one),
        [tf.constant([0])] * len(names),
        [tf.constant(np.ones((1, k))) for k in r],
        [1] * len(names),
        tf.constant([0.0], tf.float64),
        [tf.constant(np.eye(k)) for k in r],
        tf.constant(1.0, tf.float64),
    )
    return joint.resolve_graph()
