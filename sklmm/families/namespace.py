"""The functions that densities are written in, here NumPy's and SciPy's.

A density takes them from its namespace `xp`, so that one text serves arrays and tensors: the
engine has TensorFlow's under the same names (`sklmm.engine.likelihood.namespace`).

    exp, log, log1p, expm1, abs, maximum, minimum, where    elementwise
    shape, concat, reshape, cumsum, sum, max                of arrays, along an axis
    matmul, one_hot                                         rows of a table by a code
    log_gamma, digamma, trigamma                            of positive numbers
    expit, ndtr, log_ndtr, mills                            the logistic and normal distributions
    largest_log                                             see below
"""

from types import SimpleNamespace

import numpy as np
from scipy.special import erfcx, expit, gammaln, log_ndtr, ndtr, psi, zeta


def mills(x):
    """phi(x) / Phi(x), the derivative of log Phi."""
    return np.sqrt(2 / np.pi) / erfcx(-x / np.sqrt(2))


def one_hot(codes, n):
    """Indicators [n_rows, n] of codes [n_rows]."""
    return (codes[:, None] == np.arange(n)).astype(float)


NUMPY = SimpleNamespace(
    exp=np.exp,
    log=np.log,
    log1p=np.log1p,
    expm1=np.expm1,
    abs=np.abs,
    maximum=np.maximum,
    minimum=np.minimum,
    where=np.where,
    shape=np.shape,
    concat=np.concatenate,
    reshape=np.reshape,
    cumsum=np.cumsum,
    sum=np.sum,
    max=np.max,
    matmul=np.matmul,
    one_hot=one_hot,
    log_gamma=gammaln,
    digamma=psi,
    trigamma=lambda x: zeta(2, x),
    expit=expit,
    ndtr=ndtr,
    log_ndtr=log_ndtr,
    mills=mills,
    # The logarithm from which exp is held constant: of numbers like x, whose square and its sums
    # over rows must not overflow.
    largest_log=lambda x: 300.0,
)
