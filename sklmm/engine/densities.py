"""Log densities of the built-in families, their scores and curvatures.

Functions of y [n, 1], eta [n * d, C], the parameters by name (broadcastable to [n, C]) and the
link. They are TFP's distributions except where those lose accuracy or are slow in what the samplers
need, which each function says. Values of y outside the support (the zeros of padding rows) are
replaced by one inside.
"""

import math

import numpy as np

from sklmm.engine.runtime.tensorflow import tf
from sklmm.engine.runtime.tfp_graph import tfd, tfp

# exp continues as a straight line from here, so that sums over rows stay finite in float32.
_LARGEST_LOG = 60.0
# |eta| of a square root, and eta of a mean or its inverse, below which its log is continued.
_SMALLEST_ROOT = 1e-8
_SMALLEST = 1e-6
# Where a beta mean comes so near to 0 or 1 that float32 loses the trigamma function.
_BETA_RANGE = {"logit": (-30.0, 30.0), "probit": (-7.5, 7.5), "cloglog": (-30.0, 3.4)}
_LARGEST_LOG_RATIO = 1e4
_LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)


def _exp(eta):
    return tf.exp(tf.minimum(eta, _LARGEST_LOG)) * (1 + tf.nn.relu(eta - _LARGEST_LOG))


@tf.custom_gradient
def mills(x):
    """phi(x) / Phi(x), the derivative of log Phi."""
    low = tf.minimum(x, 0)
    high = tf.maximum(x, 0)
    left = math.sqrt(2 / math.pi) / tfp.math.erfcx(-low / math.sqrt(2))
    right = tf.exp(-0.5 * high**2 - _LOG_SQRT_2PI) / (1 - 0.5 * tf.math.erfc(high / math.sqrt(2)))
    value = tf.where(x < 0, left, right)
    return value, lambda upstream: -upstream * mills(x) * (mills(x) + x)


@tf.custom_gradient
def log_ndtr(x):
    """log Phi(x).

    TFP's (the log cdf of its Normal) takes less than half the time, but it is off by 4e-9 at -20
    in float64, and in float32 the ordinal density built on it has NaN second derivatives.
    """
    low = tf.minimum(x, 0)
    high = tf.maximum(x, 0)
    left = tf.math.log(0.5 * tfp.math.erfcx(-low / math.sqrt(2))) - 0.5 * low**2
    right = tf.math.log1p(-0.5 * tf.math.erfc(high / math.sqrt(2)))
    return tf.where(x < 0, left, right), lambda upstream: upstream * mills(x)


def log1mexp_exp(x):
    """log(1 - exp(-exp(x))), the log probability of the complementary log-log link."""
    low = tf.minimum(x, -8.0)
    e = tf.exp(low)
    middle = tf.math.log(-tf.math.expm1(-tf.exp(tf.clip_by_value(x, -8.0, 4.0))))
    return tf.where(x < -8.0, low - e / 2 + e**2 / 24, middle)


def _gaussian(y, eta, p, link):
    return tfd.Normal(eta, p["sigma"]).log_prob(y)


def _gaussian_fused(y, eta, p):
    z = (y - eta) / p["sigma"]
    return -0.5 * z**2 - tf.math.log(p["sigma"]) - _LOG_SQRT_2PI, z / p["sigma"]


def _gaussian_curvature(y, eta, p, link):
    return p["sigma"] ** -2


def _student_t(y, eta, p, link):
    return tfd.StudentT(p["df"], eta, p["sigma"]).log_prob(y)


def _student_t_curvature(y, eta, p, link):
    return (p["df"] + 1) / ((p["df"] + 3) * p["sigma"] ** 2)


def _log_mean(eta, link):
    """log mu and its derivative, of a positive mean.

    A mean or its inverse is eta only where that is positive: below, the log goes on as its
    parabola, which turns steps back that leave the positive numbers.
    """
    if link == "log":
        return eta, tf.ones_like(eta)
    if link == "sqrt":
        root = tf.maximum(tf.abs(eta), _SMALLEST_ROOT)
        return 2 * tf.math.log(root), 2 / root
    safe, below = tf.maximum(eta, _SMALLEST), tf.minimum(eta / _SMALLEST - 1, 0)
    value, slope = tf.math.log(safe) + below - 0.5 * below**2, (1 - below) / safe
    return (value, slope) if link == "identity" else (-value, -slope)


def _poisson(y, eta, p, link):
    # By hand: TFP's rate overflows for large eta.
    log_rate, _ = _log_mean(eta, link)
    return y * log_rate - _exp(log_rate) - tf.math.lgamma(y + 1)


def _poisson_fused(y, eta, p):
    slope = tf.exp(tf.minimum(eta, _LARGEST_LOG))
    rate = slope * (1 + tf.nn.relu(eta - _LARGEST_LOG))
    return y * eta - rate - tf.math.lgamma(y + 1), y - slope


def _poisson_curvature(y, eta, p, link):
    log_rate, slope = _log_mean(eta, link)
    return tf.exp(tf.minimum(log_rate, _LARGEST_LOG)) * slope**2


def _negative_binomial(y, eta, p, link):
    logits = _log_mean(eta, link)[0] + tf.math.log(p["dispersion"])
    return tfd.NegativeBinomial(1 / p["dispersion"], logits=logits).log_prob(y)


def _negative_binomial_fused(y, eta, p):
    total = y + 1 / p["dispersion"]
    logits = eta + tf.math.log(p["dispersion"])
    z = tf.exp(-tf.abs(logits))
    softplus = tf.nn.relu(logits) + tf.math.log1p(z)
    share = tf.where(logits >= 0, tf.ones_like(z), z) / (1 + z)
    norm = tfp.math.lbeta(1 + y, 1 / p["dispersion"]) + tf.math.log(total)
    return y * logits - total * softplus - norm, y - total * share


def _negative_binomial_curvature(y, eta, p, link):
    log_mu, slope = _log_mean(eta, link)
    mu = tf.exp(tf.minimum(log_mu, _LARGEST_LOG))
    return mu / (1 + p["dispersion"] * mu) * slope**2


def _gamma(y, eta, p, link):
    # By hand: with a large shape the terms of TFP's sum cancel in float32, and its rate overflows.
    shape = p["shape"]
    y = tf.where(y > 0, y, tf.ones_like(y))
    log_ratio = tf.math.log(y) - _log_mean(eta, link)[0]
    # Of a mean below 0, which no step keeps, the ratio stays finite.
    ratio = _exp(tf.minimum(log_ratio, _LARGEST_LOG_RATIO))
    large = tf.maximum(shape, 8.0)
    small = tf.minimum(shape, 8.0)
    norm = tf.where(
        shape > 8,
        0.5 * tf.math.log(large / (2 * math.pi)) - tfp.math.log_gamma_correction(large),
        small * (tf.math.log(small) - 1) - tf.math.lgamma(small),
    )
    return norm + shape * (1 + log_ratio - ratio) - tf.math.log(y)


def _gamma_curvature(y, eta, p, link):
    return p["shape"] * _log_mean(eta, link)[1] ** 2


def _tails(eta, link):
    """mu, 1 - mu and d mu / d eta, each to its own relative accuracy."""
    if link == "logit":
        mu, rest = tf.sigmoid(eta), tf.sigmoid(-eta)
        return mu, rest, mu * rest
    if link == "probit":
        mu, rest = tf.exp(log_ndtr(eta)), tf.exp(log_ndtr(-eta))
        return mu, rest, tf.exp(-0.5 * eta**2 - _LOG_SQRT_2PI)
    e = tf.exp(eta)
    return -tf.math.expm1(-e), tf.exp(-e), e * tf.exp(-e)


def _beta(y, eta, p, link):
    y = tf.where((y > 0) & (y < 1), y, 0.5 * tf.ones_like(y))
    mu, rest, _ = _tails(tf.clip_by_value(eta, *_BETA_RANGE[link]), link)
    return tfd.Beta(mu * p["precision"], rest * p["precision"]).log_prob(y)


def _beta_curvature(y, eta, p, link):
    mu, rest, slope = _tails(tf.clip_by_value(eta, *_BETA_RANGE[link]), link)
    one = tf.ones([], eta.dtype)
    trigamma = tf.math.polygamma(one, mu * p["precision"])
    trigamma += tf.math.polygamma(one, rest * p["precision"])
    return (p["precision"] * slope) ** 2 * trigamma


def _bernoulli(y, eta, p, link):
    # Proportions are allowed: the log-likelihood of a trial, on average.
    if link == "logit":
        return tfd.Bernoulli(logits=eta).log_prob(y)
    if link == "probit":
        return y * log_ndtr(eta) + (1 - y) * log_ndtr(-eta)
    return y * log1mexp_exp(eta) - (1 - y) * _exp(eta)


def _bernoulli_fused(y, eta, p):
    z = tf.exp(-tf.abs(eta))
    mean = tf.where(eta >= 0, tf.ones_like(z), z) / (1 + z)
    return y * eta - tf.nn.relu(eta) - tf.math.log1p(z), y - mean


def _bernoulli_curvature(y, eta, p, link):
    if link == "logit":
        return tf.sigmoid(eta) * tf.sigmoid(-eta)
    if link == "probit":
        return mills(eta) * mills(-eta)
    e = tf.exp(tf.minimum(eta, 4.0))
    return e**2 / tf.math.expm1(e)


def _ordinal_rows(y, eta, p):
    """A row's upper and lower cutpoint (0 for infinite ones) and log(1 - exp(-spacing)).

    Rows are looked up by a product with the indicators of the classes, which XLA, unlike a gather,
    does not fuse with the making of the table, again for every row and draw.
    """
    K = len(p) + 2
    zero = tf.zeros([1, tf.size(p["spacing_1"]) if p else 1], eta.dtype)
    spacings = tf.concat(
        [zero, *(tf.reshape(p[f"spacing_{k}"], [1, -1]) for k in range(1, K - 1))], axis=0
    )
    theta = tf.cumsum(spacings, axis=0)
    widths = log1mexp_exp(tf.math.log(spacings[1:]))
    table = [
        tf.concat([theta, zero], axis=0),
        tf.concat([zero, theta], axis=0),
        tf.concat([zero, widths, zero], axis=0),
    ]
    indicators = tf.one_hot(tf.cast(y[:, 0], tf.int32), K, dtype=eta.dtype)
    rows = tf.split(indicators @ tf.concat(table, axis=1), 3, axis=1)
    return *rows, y < 0.5, y > K - 1.5


def _ordinal_gaps(y, eta, p):
    """theta_y - eta, theta_{y-1} - eta (0 where there is none), widths, and who has none."""
    upper, lower, widths, first, last = _ordinal_rows(y, eta, p)
    zero = tf.zeros([], eta.dtype)
    return (
        tf.where(last, zero, upper - eta),
        tf.where(first, zero, lower - eta),
        widths,
        first,
        last,
    )


def _ordinal(y, eta, p, link):
    # By hand: TFP's OrderedLogistic takes the log of a difference of cdfs.
    a, b, widths, first, last = _ordinal_gaps(y, eta, p)
    zero = tf.zeros([], eta.dtype)
    if link == "logit":
        upper = tf.where(last, zero, tf.math.log_sigmoid(a))
        lower = tf.where(first, zero, tf.math.log_sigmoid(-b))
        return upper + lower + widths
    # Mirror intervals on the right to the left tail, where log Phi keeps its relative accuracy.
    inside = ~(first | last)
    mirror = inside & (a + b > 0)
    high = log_ndtr(tf.where(mirror | last, -b, a))
    low = log_ndtr(tf.where(mirror, -a, b))
    gap = tf.where(inside, high - low, tf.ones([], eta.dtype))
    gap = tf.maximum(gap, np.finfo(np.float32).tiny)
    return high + tf.where(inside, log1mexp_exp(tf.math.log(gap)), zero)


def _ordinal_fused(y, eta, p):
    # Cutpoints beyond any eta stand for the infinite ones: no branches in the sampler's loop.
    upper, lower, widths, first, last = _ordinal_rows(y, eta, p)
    end = tf.constant(1e30, eta.dtype)
    a = tf.where(last, end, upper) - eta
    b = tf.where(first, -end, lower) - eta
    za, zb = tf.exp(-tf.abs(a)), tf.exp(-tf.abs(b))
    ones = tf.ones_like(za)
    value = tf.minimum(a, 0) - tf.nn.relu(b) - tf.math.log1p(za + zb + za * zb)
    score = tf.where(a >= 0, ones, za) * (1 + zb) - tf.where(b >= 0, zb, ones) * (1 + za)
    return value + widths, score / ((1 + za) * (1 + zb))


def _ordinal_curvature(y, eta, p, link):
    a, b, _, first, last = _ordinal_gaps(y, eta, p)
    zero = tf.zeros([], eta.dtype)
    if link == "logit":
        upper = tf.where(last, zero, tf.sigmoid(a) * tf.sigmoid(-a))
        return upper + tf.where(first, zero, tf.sigmoid(b) * tf.sigmoid(-b))
    _, score, phi_a, phi_b = _ordinal_probit(y, eta, p)
    return score**2 + a * phi_a - b * phi_b


def _ordinal_probit(y, eta, p):
    """Value, score, and phi(a), phi(b) over the class's probability."""
    value = _ordinal(y, eta, p, "probit")
    a, b, _, first, last = _ordinal_gaps(y, eta, p)
    zero = tf.zeros([], eta.dtype)
    phi_a = tf.where(last, zero, tf.exp(-0.5 * a**2 - _LOG_SQRT_2PI - value))
    phi_b = tf.where(first, zero, tf.exp(-0.5 * b**2 - _LOG_SQRT_2PI - value))
    return value, phi_b - phi_a, phi_a, phi_b


def _ordinal_probit_fused(y, eta, p):
    return _ordinal_probit(y, eta, p)[:2]


def _by_row(y, eta):
    """Predictors of all classes [n, K, C], the reference class's being 0."""
    n, C = tf.shape(y)[0], tf.shape(eta)[1]
    eta = tf.reshape(eta, [n, -1, C])
    return tf.concat([tf.zeros([n, 1, C], eta.dtype), eta], axis=1)


def _one_hot(y, logits):
    K = tf.shape(logits)[1]
    return tf.one_hot(tf.cast(y[:, 0], tf.int32), K, dtype=logits.dtype)[:, :, None]


def _categorical(y, eta, p, link):
    # By hand: TFP's Categorical wants the classes on the last axis.
    logits = _by_row(y, eta)
    chosen = tf.reduce_sum(_one_hot(y, logits) * logits, axis=1)
    return chosen - tf.reduce_logsumexp(logits, axis=1)


def _categorical_fused(y, eta, p):
    logits = _by_row(y, eta)
    chosen = _one_hot(y, logits)
    top = tf.reduce_max(logits, axis=1, keepdims=True)
    odds = tf.exp(logits - top)
    total = tf.reduce_sum(odds, axis=1, keepdims=True)
    value = tf.reduce_sum(chosen * (logits - top), axis=1) - tf.math.log(total[:, 0])
    return value, tf.reshape((chosen - odds / total)[:, 1:], tf.shape(eta))


def _categorical_curvature(y, eta, p, link):
    share = tf.nn.softmax(_by_row(y, eta), axis=1)[:, 1:]
    return tf.reshape(share * (1 - share), tf.shape(eta))


#: Log density by family.
LOG_PROB = {
    "gaussian": _gaussian,
    "student_t": _student_t,
    "poisson": _poisson,
    "negative_binomial": _negative_binomial,
    "gamma": _gamma,
    "beta": _beta,
    "bernoulli": _bernoulli,
    "binomial": _bernoulli,
    "ordinal": _ordinal,
    "categorical": _categorical,
}

#: Log density and score together, by family and link.
FUSED = {
    ("gaussian", "identity"): _gaussian_fused,
    ("poisson", "log"): _poisson_fused,
    ("negative_binomial", "log"): _negative_binomial_fused,
    ("bernoulli", "logit"): _bernoulli_fused,
    ("binomial", "logit"): _bernoulli_fused,
    ("ordinal", "logit"): _ordinal_fused,
    ("ordinal", "probit"): _ordinal_probit_fused,
    ("categorical", "logit"): _categorical_fused,
}

#: Curvature by family.
CURVATURE = {
    "gaussian": _gaussian_curvature,
    "student_t": _student_t_curvature,
    "poisson": _poisson_curvature,
    "negative_binomial": _negative_binomial_curvature,
    "gamma": _gamma_curvature,
    "beta": _beta_curvature,
    "bernoulli": _bernoulli_curvature,
    "binomial": _bernoulli_curvature,
    "ordinal": _ordinal_curvature,
    "categorical": _categorical_curvature,
}
