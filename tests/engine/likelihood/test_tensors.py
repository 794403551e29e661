"""Log densities against scipy.stats; scores and curvatures against differences and expectations."""

from functools import partial

import numpy as np
import pytest
from scipy import stats
from scipy.special import expit, gammaln, logsumexp, ndtr

from sklmm import families as fam
from sklmm.engine.likelihood.likelihood import Likelihood
from sklmm.engine.runtime.tensorflow import compilations, compiled, tf
from sklmm.engine.runtime.tfp_graph import tfd
from sklmm.families.constraints import CONSTRAINTS
from sklmm.families.lognormal import PlainLogNormal

ETA = np.linspace(-2.5, 2.5, 7)
CDFS = {"logit": expit, "probit": ndtr, "cloglog": lambda x: -np.expm1(-np.exp(x))}
ORDINAL = {
    "logit": stats.logistic,
    "probit": stats.norm,
    "cloglog": stats.gumbel_l,
    "loglog": stats.gumbel_r,
    "cauchit": stats.cauchy,
}


def laplace(eta, scale):
    return tfd.Laplace(eta, scale)


def shifted(eta, shift, share):
    return tfd.Normal(eta + shift, share)


def mixture(eta, scale):
    return tfd.StudentT(3.0, eta, scale)


def inverse(link):
    positive = {"log": np.exp, "sqrt": np.square, "inverse": np.reciprocal, "identity": np.positive}
    positive["inverse_squared"] = lambda eta: eta**-0.5
    return {**positive, **CDFS}[link]


def ordinal(link, spacings):
    cut = np.concatenate([[-np.inf], np.cumsum([0, *spacings]), [np.inf]])

    def density(y, eta):
        a, b, F = cut[y + 1] - eta, cut[y] - eta, ORDINAL[link]
        # In the right tail the difference of the cdfs would cancel.
        return np.log(np.where(a + b > 0, F.sf(b) - F.sf(a), F.cdf(a) - F.cdf(b)))

    return density


def negative_binomial(y, eta, a, link="log"):
    return stats.nbinom.logpmf(y, 1 / a, 1 / (1 + a * inverse(link)(eta)))


def nbinom1(y, eta, a, link="log"):
    return stats.nbinom.logpmf(y, inverse(link)(eta) / a, 1 / (1 + a))


def generalized_poisson(y, eta, a, link="log"):
    own = 1 - (1 + a) ** -0.5
    start = (1 - own) * inverse(link)(eta)
    rate = start + own * y
    return np.log(start) + (y - 1) * np.log(rate) - rate - gammaln(y + 1)


def positive(log_pmf):
    """Of a count that is truncated at 0."""
    return lambda y, e: log_pmf(y, e) - np.log(-np.expm1(log_pmf(0 * y, e)))


def tweedie(y, eta, dispersion, power):
    """By the number of gamma variables that make up y."""
    jumps = np.arange(1.0, 400)[:, None]
    rate = np.exp(eta) ** (2 - power) / (dispersion * (2 - power))
    scale = dispersion * (power - 1) * np.exp(eta) ** (power - 1)
    shape = (2 - power) / (power - 1)
    some = np.where(y > 0, y, 1.0)
    of_jumps = stats.gamma.logpdf(some, jumps * shape, scale=scale)
    return np.where(y > 0, logsumexp(stats.poisson.logpmf(jumps, rate) + of_jumps, axis=0), -rate)


def gamma(y, eta, shape, link):
    return stats.gamma.logpdf(y, shape, scale=inverse(link)(eta) / shape)


def inverse_gaussian(y, eta, dispersion, link):
    mu = inverse(link)(eta)
    return stats.invgauss.logpdf(y, mu * dispersion, scale=1 / dispersion)


def lognormal_mean(y, eta, sd):
    v = np.log1p((sd / np.exp(eta)) ** 2)
    return stats.lognorm.logpdf(y, np.sqrt(v), scale=np.exp(eta - v / 2))


def beta(y, eta, precision, link):
    mu = inverse(link)(eta)
    return stats.beta.logpdf(y, mu * precision, (1 - mu) * precision)


def ordered_beta(y, eta, precision, cut1, cut_gap):
    a, b = eta - cut1, eta - cut1 - cut_gap
    inside = (y > 0) & (y < 1)
    between = np.log(expit(a) - expit(b)) + beta(np.where(inside, y, 0.5), eta, precision, "logit")
    ends = np.where(y == 1, np.log(expit(b)), np.log(expit(-a)))
    return np.where(inside, between, ends)


def bernoulli(link):
    return lambda y, eta: y * np.log(inverse(link)(eta)) + (1 - y) * np.log1p(-inverse(link)(eta))


COUNTS = np.array([0, 1, 2, 5, 30])
SHARES = np.array([0.01, 0.3, 0.5, 0.97])
REALS = np.array([-3.0, 0.1, 2.0])
POSITIVE = np.array([0.05, 1.0, 7.0])
RATINGS = np.arange(5)

# family, classes, values of y, estimated parameters, log density
CASES = {
    "gaussian": (fam.Gaussian(), None, REALS, [0.7], lambda y, e: stats.norm.logpdf(y, e, 0.7)),
    "gaussian pinned": (
        fam.Gaussian(sigma=0.7),
        None,
        REALS,
        [],
        lambda y, e: stats.norm.logpdf(y, e, 0.7),
    ),
    "student_t": (
        fam.StudentT(),
        None,
        REALS,
        [0.7, 3.5],
        lambda y, e: stats.t.logpdf(y, 3.5, e, 0.7),
    ),
    "student_t pinned": (
        fam.StudentT(df=4),
        None,
        REALS,
        [0.7],
        lambda y, e: stats.t.logpdf(y, 4, e, 0.7),
    ),
    "poisson": (fam.Poisson(), None, COUNTS, [], lambda y, e: stats.poisson.logpmf(y, np.exp(e))),
    **{
        f"poisson {link}": (
            fam.Poisson(link),
            None,
            COUNTS,
            [],
            lambda y, e, link=link: stats.poisson.logpmf(y, inverse(link)(e)),
        )
        for link in ("sqrt", "identity")
    },
    "negative_binomial": (
        fam.NegativeBinomial(),
        None,
        COUNTS,
        [0.4],
        lambda y, e: negative_binomial(y, e, 0.4),
    ),
    **{
        f"negative_binomial {link}": (
            fam.NegativeBinomial(link),
            None,
            COUNTS,
            [0.4],
            lambda y, e, link=link: negative_binomial(y, e, 0.4, link),
        )
        for link in ("sqrt", "identity")
    },
    "nbinom1": (fam.NegativeBinomial1(), None, COUNTS, [0.7], partial(nbinom1, a=0.7)),
    "generalized_poisson": (
        fam.GeneralizedPoisson(),
        None,
        COUNTS,
        [0.7],
        partial(generalized_poisson, a=0.7),
    ),
    "truncated_poisson": (
        fam.TruncatedPoisson(),
        None,
        COUNTS[1:],
        [],
        positive(lambda y, e: stats.poisson.logpmf(y, np.exp(e))),
    ),
    "truncated_negative_binomial": (
        fam.TruncatedNegativeBinomial(),
        None,
        COUNTS[1:],
        [0.4],
        positive(partial(negative_binomial, a=0.4)),
    ),
    "tweedie": (
        fam.Tweedie(),
        None,
        np.array([0.0, 0.3, 2.0, 11.0]),
        [0.9, 1.6],
        partial(tweedie, dispersion=0.9, power=1.6),
    ),
    "gamma": (fam.Gamma(), None, POSITIVE, [2.5], lambda y, e: gamma(y, e, 2.5, "log")),
    "gamma large": (fam.Gamma(), None, POSITIVE, [40.0], lambda y, e: gamma(y, e, 40.0, "log")),
    **{
        f"gamma {link}": (
            fam.Gamma(link),
            None,
            POSITIVE,
            [2.5],
            lambda y, e, link=link: gamma(y, e, 2.5, link),
        )
        for link in ("inverse", "identity")
    },
    "lognormal_mean": (
        fam.LogNormalMean(),
        None,
        POSITIVE,
        [0.7],
        lambda y, e: lognormal_mean(y, e, 0.7),
    ),
    "lognormal": (
        PlainLogNormal(),
        None,
        POSITIVE,
        [0.7],
        lambda y, e: stats.lognorm.logpdf(y, 0.7, scale=np.exp(e)),
    ),
    **{
        f"inverse_gaussian {link}": (
            fam.InverseGaussian(link),
            None,
            POSITIVE,
            [0.6],
            lambda y, e, link=link: inverse_gaussian(y, e, 0.6, link),
        )
        for link in fam.InverseGaussian.links
    },
    **{
        f"beta {link}": (
            fam.Beta(link),
            None,
            SHARES,
            [5.0],
            lambda y, e, link=link: beta(y, e, 5.0, link),
        )
        for link in CDFS
    },
    "ordered_beta": (
        fam.OrderedBeta(),
        None,
        np.array([0, 0.3, 0.97, 1]),
        [5.0, -1.2, 2.5],
        lambda y, e: ordered_beta(y, e, 5.0, -1.2, 2.5),
    ),
    **{
        f"bernoulli {link}": (fam.Bernoulli(link), 2, np.arange(2), [], bernoulli(link))
        for link in CDFS
    },
    **{
        f"binomial {link}": (fam.Binomial(link), None, SHARES, [], bernoulli(link)) for link in CDFS
    },
    **{
        f"ordinal {link}": (fam.Ordinal(link), 5, RATINGS, [0.8, 1.3, 0.2], None)
        for link in ORDINAL
    },
    "laplace": (
        fam.CustomFamily(laplace, scale="positive"),
        None,
        REALS,
        [0.6],
        lambda y, e: stats.laplace.logpdf(y, e, 0.6),
    ),
    "constraints": (
        fam.CustomFamily(shifted, shift="real", share="unit"),
        None,
        REALS,
        [-0.4, 0.6],
        lambda y, e: stats.norm.logpdf(y, e - 0.4, 0.6),
    ),
    "mixture": (
        fam.CustomFamily(mixture, scale="positive"),
        None,
        REALS,
        [0.6],
        lambda y, e: stats.t.logpdf(y, 3, e, 0.6),
    ),
}


def unconstrain(likelihood, values):
    """Raw parameters [m] of natural ones."""
    pairs = zip(likelihood.constraints, np.atleast_1d(values), strict=True)
    return np.array([CONSTRAINTS[c].unconstrain(v) for c, v in pairs], float)


def case(name):
    family, classes, y, natural, density = CASES[name]
    if family.name == "ordinal":
        table = ordinal(family.link, natural)
        density = np.vectorize(lambda y, e: table(int(y), e))
    likelihood = Likelihood.of(family, classes)
    eta = ETA + 0.01
    if family.positive and family.link in ("inverse", "inverse_squared", "identity"):
        eta = np.abs(ETA) + (0.5 if family.link == "identity" else 0.1)
    y, eta = (a.ravel() for a in np.meshgrid(y.astype(float), eta))
    return likelihood, y, eta[:, None], unconstrain(likelihood, natural)[:, None], density


@pytest.mark.parametrize("name", CASES)
def test_log_prob_is_scipys(name):
    likelihood, y, eta, raw, density = case(name)
    found = likelihood.log_prob(y, eta, raw).numpy()
    np.testing.assert_allclose(found[:, 0], density(y, eta[:, 0]), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", CASES)
def test_fused_value_and_score_are_those_of_log_prob(name):
    likelihood, y, eta, raw, density = case(name)
    value, score = likelihood.log_prob_and_score(y, eta, raw)
    np.testing.assert_allclose(value, likelihood.log_prob(y, eta, raw), rtol=1e-12, atol=1e-12)
    h = 1e-5
    slope = (density(y, eta[:, 0] + h) - density(y, eta[:, 0] - h)) / (2 * h)
    np.testing.assert_allclose(score[:, 0], slope, rtol=1e-5, atol=1e-6)


OBSERVED = [
    "gaussian",
    "poisson",
    *(f"{f} logit" for f in ("bernoulli", "binomial", "ordinal")),
    *(f"ordinal {link}" for link in ("probit", "cloglog", "loglog")),
    "constraints",
]


@pytest.mark.parametrize("name", OBSERVED)
def test_curvature_of_log_concave_densities_is_observed(name):
    likelihood, y, eta, raw, _ = case(name)
    h = 1e-5
    high, low = (likelihood.log_prob_and_score(y, eta + d, raw)[1] for d in (h, -h))
    observed = -(high - low) / (2 * h)
    found = likelihood.curvature(y, eta, raw)
    np.testing.assert_allclose(found, observed, rtol=1e-6, atol=2e-8)


def quadrature(name):
    """Nodes and weights of an integral over the support of y."""
    if name.startswith(("poisson", "negative_binomial", "generalized_poisson")):
        return np.arange(4000.0), np.ones(4000)
    if name.startswith("truncated"):
        return np.arange(1.0, 4000), np.ones(3999)
    if name.startswith(("bernoulli", "binomial")):
        return np.arange(2.0), np.ones(2)
    # Double-exponential rules, exact to many digits for integrable ends.
    t, step = np.linspace(-6, 6, 4001, retstep=True)
    u = np.pi / 2 * np.sinh(t)
    du = np.pi / 2 * np.cosh(t) * step
    if "beta" in name:
        # Where exp(u) and the complement are both inside (0, 1) in float64.
        inside = np.abs(u) < 18
        y, weights = expit(2 * u[inside]), (2 * expit(2 * u) * expit(-2 * u) * du)[inside]
        ends = [0.0, 1.0] if name == "ordered_beta" else []
        return np.append(y, ends), np.append(weights, np.ones(len(ends)))
    if name.startswith("tweedie"):
        inside = (u > -80) & (u < 12)
        return np.append(0.0, np.exp(u[inside])), np.append(1.0, (np.exp(u) * du)[inside])
    if name.startswith(("gamma", "inverse_gaussian", "lognormal")):
        inside = np.abs(u) < 300
        return np.exp(u[inside]), (np.exp(u) * du)[inside]
    return np.sinh(u)[np.abs(u) < 30], (np.cosh(u) * du)[np.abs(u) < 30]


EXPECTED = [
    "student_t",
    "student_t pinned",
    *(f"poisson {link}" for link in ("sqrt", "identity")),
    "negative_binomial",
    *(f"negative_binomial {link}" for link in ("sqrt", "identity")),
    "generalized_poisson",
    "truncated_poisson",
    "truncated_negative_binomial",
    "tweedie",
    "gamma",
    *(f"gamma {link}" for link in ("inverse", "identity")),
    *(f"inverse_gaussian {link}" for link in fam.InverseGaussian.links),
    "lognormal_mean",
    *(f"beta {link}" for link in CDFS),
    "ordered_beta",
    *(f"bernoulli {link}" for link in CDFS),
    *(f"binomial {link}" for link in CDFS),
]


@pytest.mark.parametrize("name", EXPECTED)
def test_other_curvatures_are_the_expected_squared_score(name):
    likelihood, _, eta, raw, _ = case(name)
    y, weights = quadrature(name)
    for e in np.unique(eta):
        if "beta" in name:
            mu = inverse(likelihood.link)(e)
            if min(mu, 1 - mu) * 5.0 < 0.6:
                # Too much of the mass is nearer to 0 or 1 than float64 can say.
                continue
        value, score = likelihood.log_prob_and_score(y, np.full((len(y), 1), e), raw)
        p = weights * np.exp(value[:, 0])
        assert p.sum() == pytest.approx(1, rel=1e-6)
        expected = np.sum(p * score[:, 0].numpy() ** 2)
        found = likelihood.curvature(y[:1], np.full((1, 1), e), raw)
        assert found.numpy().item() == pytest.approx(expected, rel=1e-5)


def test_curvature_of_laplace_noise_is_its_mean_squared_score():
    likelihood, y, eta, raw, _ = case("laplace")
    np.testing.assert_allclose(likelihood.curvature(y, eta, raw), 0.6**-2)


def test_curvature_of_a_custom_family_is_positive_where_it_is_not_log_concave():
    likelihood, y, eta, raw, _ = case("mixture")
    found = likelihood.curvature(y, eta, raw).numpy()
    assert found.min() > 0
    assert found.min() < 1e-3 * found.max()


def test_categorical_is_softmax_with_the_first_class_at_0():
    likelihood = Likelihood.of(fam.Categorical(), 4)
    assert likelihood.n_predictors == 3
    rng = np.random.default_rng(0)
    y, eta = np.array([0, 3, 1, 2, 2]), rng.normal(0, 2, (15, 2))
    logits = np.concatenate([np.zeros((5, 1, 2)), eta.reshape(5, 3, 2)], axis=1)
    log_p = logits - logsumexp(logits, axis=1, keepdims=True)
    raw = np.zeros((0, 1))
    expected = log_p[np.arange(5), y]
    np.testing.assert_allclose(likelihood.log_prob(y, eta, raw), expected)
    value, score = likelihood.log_prob_and_score(y, eta, raw)
    np.testing.assert_allclose(value, expected)
    chosen = (y[:, None] == np.arange(1, 4))[:, :, None]
    p = np.exp(log_p[:, 1:])
    np.testing.assert_allclose(score, (chosen - p).reshape(15, 2))
    np.testing.assert_allclose(likelihood.curvature(y, eta, raw), (p * (1 - p)).reshape(15, 2))


def hessian(likelihood, y, eta, raw, weights):
    """Value, gradient and Hessian of the weighted log-likelihood in eta (a shift) and raw."""
    x = tf.concat([tf.zeros([1], raw.dtype), raw], 0)
    with tf.GradientTape(persistent=True) as outer:
        outer.watch(x)
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = tf.reduce_sum(weights * likelihood.log_prob(y, eta + x[0], x[1:, None])[:, 0])
        slope = tape.gradient(value, x)
    return value, slope, outer.jacobian(slope, x, experimental_use_pfor=False)


@pytest.mark.parametrize("name", CASES)
def test_second_derivatives_in_eta_and_raw(name):
    likelihood, y, eta, raw, _ = case(name)
    raw, ones = tf.constant(raw[:, 0]), np.ones(len(y))
    _, _, found = hessian(likelihood, y, eta, raw, ones)
    if name == "laplace":
        # Its second derivative in eta is a sum of spikes.
        found = found[1:, 1:]
    h = 1e-5
    for j in range(1 + len(raw)):
        if name == "laplace" and j == 0:
            continue
        step = h * np.eye(1 + len(raw))[j]
        slopes = [hessian(likelihood, y, eta + s[0], raw + s[1:], ones)[1] for s in (step, -step)]
        row = ((slopes[0] - slopes[1]) / (2 * h)).numpy()
        at = j - (name == "laplace")
        np.testing.assert_allclose(
            found[at], row[-len(found) :], rtol=1e-5, atol=1e-6 * np.abs(found).max()
        )


@compiled
def everything(likelihood, y, eta, raw):
    value, score = likelihood.log_prob_and_score(y, eta, raw)
    curvature = likelihood.curvature(y, eta, raw)
    with tf.GradientTape(persistent=True) as outer:
        outer.watch(raw)
        with tf.GradientTape() as tape:
            tape.watch(raw)
            plain = likelihood.log_prob(y, eta, raw)
        slope = tape.gradient(plain, raw, unconnected_gradients="zero")
    return value, score, curvature, plain, slope, outer.gradient(slope, raw)


LOGIT_LIKE = [
    "gaussian",
    "poisson",
    "negative_binomial",
    "nbinom1",
    "generalized_poisson",
    "truncated_poisson",
    "truncated_negative_binomial",
    "tweedie",
    "gamma",
    "beta logit",
    *(f"bernoulli {link}" for link in CDFS),
    "binomial logit",
    *(f"ordinal {link}" for link in ("logit", "probit", "cloglog", "cauchit")),
    "student_t",
    "poisson sqrt",
    *(f"gamma {link}" for link in ("inverse", "identity")),
    *(f"inverse_gaussian {link}" for link in ("log", "inverse_squared")),
    "beta probit",
    "beta cloglog",
]
#: Those whose compilation is not waited for.
IN_NUMPY = ["lognormal_mean", "ordered_beta", "ordinal loglog", "inverse_gaussian inverse"]

#: XLA takes some seconds to compile the gamma functions of these.
HEAVY = ("nbinom1", "truncated_negative_binomial", "tweedie")
COMPILED = [
    pytest.param(name, marks=pytest.mark.slow) if name in HEAVY else name for name in LOGIT_LIKE
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", COMPILED)
def test_compiled_and_finite_at_extreme_predictors_and_padding_rows(name, dtype):
    likelihood, y, _, raw, _ = case(name)
    eta = np.array([-80, -40, -15, -9, -1e-3, 0, 1e-3, 9, 15, 40, 80])
    y, eta = (a.ravel() for a in np.meshgrid([0.0, *np.unique(y)], eta))
    eta = np.stack([eta, eta / 2], axis=1).astype(dtype)
    found = everything(likelihood, y.astype(dtype), eta, tf.constant(raw, dtype))
    names = ["value", "score", "curvature", "plain", "slope in raw", "second in raw"]
    for what, part in zip(names, found, strict=True):
        if part is not None:
            assert np.isfinite(part).all(), what
            assert part.dtype == dtype
    assert (found[2].numpy() > 0).all()


@pytest.mark.parametrize("name", COMPILED)
def test_float32_agrees_with_float64(name):
    likelihood, y, eta, raw, _ = case(name)
    found = [
        everything(likelihood, y.astype(t), eta.astype(t), tf.constant(raw, t))[:3]
        for t in (np.float32, np.float64)
    ]
    for single, double in zip(*found, strict=True):
        np.testing.assert_allclose(single, double, rtol=2e-4, atol=2e-5)


def test_categorical_is_finite_at_extreme_predictors():
    likelihood = Likelihood.of(fam.Categorical(), 3)
    eta = np.array([[80.0], [-80], [80], [80], [-80], [-80]], np.float32)
    found = everything(likelihood, np.array([0, 1, 2], np.float32), eta, tf.zeros([0, 1]))
    assert all(np.isfinite(part).all() for part in found[:3])


def test_tails_of_probit_and_ordinal_keep_their_digits():
    bernoulli = Likelihood.of(fam.Bernoulli("probit"), 2)
    eta = np.array([[-60.0], [-20], [-7], [7]])
    raw = np.zeros((0, 1))
    found = bernoulli.log_prob(np.ones(4), eta, raw).numpy()
    np.testing.assert_allclose(found[:, 0], stats.norm.logcdf(eta[:, 0]), rtol=1e-12)
    for link in ("logit", "probit"):
        likelihood = Likelihood.of(fam.Ordinal(link), 3)
        raw = np.zeros((1, 1))
        left = likelihood.log_prob([1.0], np.array([[30.5]]), raw).numpy()
        right = likelihood.log_prob([1.0], np.array([[-29.5]]), raw).numpy()
        cdf = stats.logistic if link == "logit" else stats.norm
        high, low = cdf.logcdf([-29.5, -30.5])
        expected = high + np.log(-np.expm1(low - high))
        np.testing.assert_allclose([left.item(), right.item()], expected, rtol=1e-12)


def test_parameters_are_constrained_as_theta_says():
    likelihood = Likelihood.of(
        fam.CustomFamily(lambda eta, a, b, c, d: None, a="positive", b="unit", c=2.0, d="real")
    )
    assert likelihood.names == ("a", "b", "d")
    assert likelihood.pinned == (("c", 2.0),)
    raw = np.array([0.3, -1.0, 2.0])
    natural = [
        CONSTRAINTS[c].constrain(v) for c, v in zip(likelihood.constraints, raw, strict=True)
    ]
    np.testing.assert_allclose(unconstrain(likelihood, natural), raw)
    for given in (raw, tf.constant(np.tile(raw[:, None], 2), tf.float32)):
        values = likelihood.constrain(given)
        assert {str(v.dtype.name) for v in values.values()} == {given.dtype.name}
        assert values["c"] == 2
        for name, expected in zip(likelihood.names, natural, strict=True):
            np.testing.assert_allclose(np.ravel(values[name])[0], expected, rtol=1e-6)


def test_parameters_may_differ_between_draws():
    likelihood, y, eta, *_ = case("negative_binomial")
    two = np.repeat(eta, 2, axis=1)
    raw = np.log([[0.4, 1.5]])
    found = likelihood.log_prob(y, two, raw)
    expected = [negative_binomial(y, eta[:, 0], a) for a in (0.4, 1.5)]
    np.testing.assert_allclose(found, np.transpose(expected), rtol=1e-9)
    likelihood = Likelihood.of(fam.Ordinal(), 3)
    y = np.arange(3.0)
    found = likelihood.log_prob(y, np.zeros((3, 2)), raw)
    for column, a in enumerate((0.4, 1.5)):
        np.testing.assert_allclose(found[:, column], ordinal("logit", [a])(np.arange(3), 0.0))
    np.testing.assert_allclose(likelihood.log_prob_and_score(y, np.zeros((3, 2)), raw)[0], found)


class Logistic(fam.Family):
    def __init__(self, scale="positive"):
        self.scale = scale

    def parameters(self, n_classes=None):
        return {"scale": self.scale}

    def distribution(self, eta, scale):
        return tfd.Logistic(eta, scale)


@pytest.mark.parametrize(
    "make",
    [
        lambda: (fam.Gaussian(sigma=1), None),
        lambda: (fam.Ordinal("probit"), 4),
        lambda: (fam.CustomFamily(laplace, scale="positive"), None),
        lambda: (Logistic(), None),
    ],
    ids=["gaussian", "ordinal", "custom", "subclass"],
)
def test_equal_families_share_one_compilation(make):
    @compiled
    def equal_families(likelihood, y, eta, raw):
        return likelihood.log_prob(y, eta, raw)

    first, second = (Likelihood.of(*make()) for _ in range(2))
    assert first is not second
    assert first == second
    assert hash(first) == hash(second)
    before = compilations.get("equal_families", 0)
    for likelihood in (first, second):
        equal_families(likelihood, np.zeros(3), np.ones((3, 2)), np.zeros((len(first.names), 1)))
    assert compilations["equal_families"] == before + 1


def test_a_subclass_uses_its_own_distribution():
    likelihood = Likelihood.of(Logistic(scale=2.0))
    assert likelihood.names == ()
    found = likelihood.log_prob([0.5], np.array([[0.1]]), np.zeros((0, 1)))
    assert found.numpy().item() == pytest.approx(stats.logistic.logpdf(0.5, 0.1, 2.0))
