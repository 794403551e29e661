"""Averages over normal predictors, of every family and link, against pieces of Gauss's rule."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from sklmm import MixedEffectsRegressor, families
from sklmm._fitted.expectation import expected, links_of, weighted
from sklmm._fitted.prediction import predict_mean, predict_probabilities, predict_variance
from sklmm.families import ZeroInflated
from sklmm.families.components import component_of
from sklmm.families.lognormal import PlainLogNormal
from sklmm.families.nominal import PartialOrdinal
from sklmm.families.predicted import PredictedFamily
from sklmm.families.registry import FAMILIES

#: Values of every family's parameters, from afar too: a dispersion of 3 is beyond the counts' own.
PARAMETERS = {
    "sigma": 0.7,
    "df": 6.0,
    "dispersion": 3.0,
    "shape": 2.0,
    "power": 1.6,
    "sd": 0.5,
    "precision": 4.0,
    "spacing_1": 1.3,
    "spacing_2": 0.4,
    "cut1": -1.0,
    "cut_gap": 2.5,
    "zero": 0.3,
}
SHIFTS = {"shift_1": -0.3, "shift_2": 0.1, "shift_3": 0.5}


class Softplus(families.Family):
    """A family of which no link is known: mean and variance log(1 + exp(eta))."""

    def distribution(self, eta):
        raise NotImplementedError

    def mean(self, eta, params):
        return np.logaddexp(0.0, eta)

    variance = mean


def parameters(family, n_classes=None):
    return {name: (PARAMETERS | SHIFTS)[name] for name in family.parameters(n_classes)}


def every_family():
    """Families of one predictor by their names and links."""
    for name, kind in FAMILIES.items():
        if name in ("categorical", "gaussian", "censored_gaussian", "student_t"):
            continue
        for link in kind.links or (None,):
            yield f"{name} {link}", kind(link) if link and len(kind.links) > 1 else kind()
    yield "partial ordinal", PartialOrdinal("logit")
    yield "plain lognormal", PlainLogNormal()
    for base in (families.Poisson("log"), families.NegativeBinomial("sqrt"), families.Gamma()):
        yield f"more zeros {base.name}", ZeroInflated(base)
    yield "of one's own", Softplus()
    yield "hurdle of counts", ZeroInflated(families.TruncatedNegativeBinomial())


CASES = dict(every_family())


@pytest.fixture(scope="module")
def fitted():
    """A model of slopes and crossed effects; what is averaged with other families in its place."""
    rng = np.random.default_rng(3)
    X = pd.DataFrame({"x": rng.normal(size=300), "g": np.arange(300) % 15})
    X = X.assign(h=rng.integers(0, 8, 300))
    eta = 0.3 + 0.3 * X["x"] + rng.normal(size=15)[X["g"]] * 0.7 + rng.normal(size=8)[X["h"]] * 0.5
    return MixedEffectsRegressor(
        ["(1 + x | g)", "h"], family="poisson", e_step="laplace", random_state=0
    ).fit(X, rng.poisson(np.exp(eta)))


#: A new level of either term, of both, and rows of known levels, of which terms are left out.
ROWS = pd.DataFrame(
    {
        "x": [0.5, 2.5, -1.0, 0.0, 1.0],
        "g": [99, 98, 2, 3, 4],
        "h": [1, 77, 78, None, 5],
    }
)


@pytest.fixture(scope="module", params=[1.0, 6.0])
def normal(request, fitted):
    """(result, design, which terms count, eta's mean and SD by row) of SDs of effects so large."""
    scaled = tuple(request.param**2 * cov for cov in fitted.result_.covariances)
    result = replace(fitted.result_, covariances=scaled)
    out = []
    for include in (True, ["h"]):
        rows = ROWS if include is True else ROWS[4:]
        _, design, counts = fitted._new_design(rows, include)
        mean, sd = by_hand(fitted, result, rows, counts)
        out.append((result, design, counts, mean, sd))
    return out


def by_hand(model, result, rows, counts):
    mean, variance = [], []
    levels = [model.random_effects_[name].index for name in ("g", "h")]
    for _, row in rows.iterrows():
        z = [np.array([1.0, row["x"]]), np.ones(1)]
        fixed = np.array([1.0, row["x"]])
        own, root, prior = fixed @ result.coef, fixed @ result.coef_root, 0.0
        for k, name in enumerate(("g", "h")):
            if counts[k] and row[name] in levels[k]:
                place = levels[k].get_loc(row[name])
                own += z[k] @ result.effects[k][place]
                root = root + z[k] @ result.effects_root[k][place]
            else:
                prior += z[k] @ result.covariances[k] @ z[k]
        mean.append(own)
        variance.append(root @ root + prior)
    return np.array(mean), np.sqrt(variance)


#: Gauss's rule of a piece.
X, W = np.polynomial.legendre.leggauss(60)


def integral(function, mean, sd, edge=0.0, narrow=0.0):
    """E function(mean + sd x), in pieces: on either side of an edge, of 1 / eta close to it too."""
    near = edge + np.concatenate([[0.0], np.logspace(-8, 1, 10) if narrow else []])
    # The mass of exp(3 eta) lies 3 SDs of eta from that of eta, and features are as wide as 1.
    last = 10 + 3 * sd
    inner = np.concatenate([(near - mean) / sd, np.arange(-10, last, min(2 / sd, 1.0)), [last]])
    ends = np.unique(np.clip(inner, -10, last))
    half = np.diff(ends)[:, None] / 2
    x = ends[:-1, None] + half * (1 + X)
    return np.sum(half * W * function(mean + sd * x) * norm.pdf(x))


def at(function, params):
    """A moment of a family as a function of eta of any shape."""
    return lambda eta: function(np.reshape(eta, (1, -1)), params).reshape(np.shape(eta))


def squared(mean, center):
    """The squared distance of a mean from a number."""
    return lambda eta, params: (mean(eta, params) - center) ** 2


@pytest.mark.parametrize(("link", "sd"), [("logit", 0.5), ("logit", 5.0), ("log", 1.5)])
def test_the_reference_is_quadpacks(link, sd):
    family = families.TruncatedPoisson() if link == "log" else families.Bernoulli()
    mean = at(family.mean, {})
    exact = quad(lambda x: mean(0.7 + sd * x) * norm.pdf(x), -12, 14, epsabs=1e-12, limit=500)[0]
    assert integral(mean, 0.7, sd) == pytest.approx(exact, rel=1e-9)


@pytest.mark.parametrize("case", CASES)
def test_means_and_variances_are_integrals(case, normal):
    family = CASES[case]
    params = parameters(family, 4 if family.classes == "ordered" else None)
    for result, design, counts, mean, sd in normal:
        found = predict_mean(design, result, family, counts, params)
        variance = predict_variance(design, result, family, counts, params)
        # The one row of known levels is averaged over draws.
        for row in range(min(len(mean), 4)):
            of_mean, of_variance = at(family.mean, params), at(family.variance, params)
            how = mean[row], sd[row], 1e-6 * ("inverse" in case), "inverse" in case
            exact = integral(of_mean, *how)
            assert found[row] == pytest.approx(exact, rel=1e-6), row
            spread = integral(of_variance, *how)
            spread += integral(at(squared(family.mean, exact), params), *how)
            assert variance[row] == pytest.approx(spread, rel=1e-5), row


def test_effects_of_any_size_have_an_average():
    """Of an SD of 1e5, P = Phi(mean / SD): a logit is a step there."""
    family = families.Bernoulli()

    def share(eta, weights, rows):
        return weighted(family.mean(eta, {}), weights)

    mean, sd = np.array([[1e5], [0.3], [-2e3], [0.3]]), np.array([1e5, 1e5, 1e3, 0.0])
    found = expected(share, mean, (sd**2)[:, None, None], links_of(family), 1 << 14)
    exact = [*norm.cdf(mean[:3, 0] / sd[:3]), family.mean(0.3, {})]
    np.testing.assert_allclose(found, exact, atol=3e-4)


@pytest.mark.parametrize("link", families.Ordinal.links)
def test_probabilities_of_ordered_classes_are_integrals(link, normal):
    family = families.Ordinal(link)
    params = parameters(family, 4)
    for result, design, counts, mean, sd in normal:
        found = predict_probabilities(design, result, family, counts, 1, params)
        for row in range(min(len(mean), 4)):
            for k in range(4):
                own = at(lambda eta, params, k=k: family.probabilities(eta, params)[..., k], params)
                assert found[row, k] == pytest.approx(integral(own, mean[row], sd[row]), abs=1e-7)


def test_parameters_by_row_stay_with_their_rows(normal):
    result, design, counts, *_ = normal[0]
    family, precisions = families.Beta(), np.array([1.0, 5.0, 2.0, 9.0, 3.0])
    both = predict_variance(design, result, family, counts, {"precision": precisions[:, None]})
    for row, precision in enumerate(precisions):
        alone = predict_variance(design, result, family, counts, {"precision": precision})
        assert both[row] == pytest.approx(alone[row], rel=1e-12)


#: Of two predictors: a part with effects beside the mean's, by how it is named.
PARTS = {
    "zeros": PredictedFamily(ZeroInflated(families.Poisson()), ("zero",)),
    "zeros, identity": PredictedFamily(ZeroInflated(families.Poisson("identity")), ("zero",)),
    "hurdle": PredictedFamily(ZeroInflated(families.Gamma()), ("zero",)),
    "dispersion": PredictedFamily(families.TruncatedNegativeBinomial(), ("dispersion",)),
    "precision": PredictedFamily(families.Beta(), ("precision",)),
}
MEANS = np.array([[0.4, -0.8], [1.0, 0.5]])
COVARIANCES = np.array([[[1.2, -0.3], [-0.3, 0.5]], [[0.3, 0.0], [0.0, 0.0]]])


def moments(family, params, mean, cov, d=2):
    """(Mean, variance) of each row by `expected`."""

    def mean_of(eta, weights, rows):
        return weighted(family.mean(eta, params), weights)

    def square_of(eta, weights, rows):
        square = family.variance(eta, params) + family.mean(eta, params) ** 2
        return weighted(square, weights)

    links = links_of(family, d)
    first, second = (expected(f, mean, cov, links, 1 << 14) for f in (mean_of, square_of))
    return first, second - first**2


@pytest.mark.parametrize("case", PARTS)
def test_two_predictors_are_integrated_together(case):
    family = PARTS[case]
    params = parameters(family)
    mean, variance = moments(family, params, MEANS, COVARIANCES)
    first, spread = [], []
    for m, C in zip(MEANS, COVARIANCES, strict=True):
        # Given the one predictor, the other is normal; by 400 of Gauss's points each.
        slope = C[0, 1] / C[0, 0]
        sd = np.sqrt([C[0, 0], C[1, 1] - slope * C[0, 1]])
        ends = np.unique([-9.0, *np.clip(-m[0] / sd[:1], -9, 9), 0.0, 4.0, 9.0, 13.0])
        half = np.diff(ends)[:, None] / 2
        x = (ends[:-1, None] + half * (1 + X)).ravel()
        z = 9.5 * np.polynomial.legendre.leggauss(200)[0]
        weights = np.outer(
            (half * W).ravel() * norm.pdf(x),
            9.5 * np.polynomial.legendre.leggauss(200)[1] * norm.pdf(z),
        ).ravel()
        x, z = (part.ravel() for part in np.meshgrid(x, z, indexing="ij"))
        eta = np.stack([m[0] + sd[0] * x, m[1] + slope * sd[0] * x + sd[1] * z])[None]
        own = family.mean(eta, params)[0]
        first.append(weights @ own)
        spread.append(weights @ (family.variance(eta, params)[0] + own**2) - first[-1] ** 2)
    np.testing.assert_allclose(mean, first, rtol=1e-6)
    np.testing.assert_allclose(variance, spread, rtol=1e-5)


def test_a_part_of_two_predictors_is_the_integral_of_its_own():
    family = component_of(PARTS["zeros"], "zero")
    links = links_of(family, 2)

    def mean_of(eta, weights, rows):
        return weighted(family.mean(eta, {}), weights)

    found = expected(mean_of, MEANS, COVARIANCES, links, 1 << 14)
    exact = at(families.Bernoulli().mean, {})
    for row in range(2):
        sd = np.sqrt(COVARIANCES[row, 1, 1])
        assert found[row] == pytest.approx(integral(exact, MEANS[row, 1], max(sd, 1e-9)), abs=1e-8)


def test_three_predictors_have_the_moments_that_are_known():
    """Zeros, means and dispersions that are independent of each other."""
    family = PredictedFamily(ZeroInflated(families.NegativeBinomial()), ("zero", "dispersion"))
    mean = np.array([[0.4, -0.8, 0.2]])
    cov = np.array([[[0.5, 0.0, 0.0], [0.0, 1.5, 0.0], [0.0, 0.0, 0.3]]])
    found, variance = moments(family, {}, mean, cov, 3)
    rest = 1 - integral(at(families.Bernoulli().mean, {}), -0.8, np.sqrt(1.5))
    of_mu, of_square = np.exp(0.4 + 0.25), np.exp(0.8 + 1.0)
    assert found[0] == pytest.approx(rest * of_mu, rel=1e-7)
    square = rest * (of_mu + (1 + np.exp(0.2 + 0.15)) * of_square)
    assert variance[0] == pytest.approx(square - found[0] ** 2, rel=1e-6)


def test_three_classes_without_an_order():
    """P = E[1 / (1 + exp(a) + exp(b))]; the reference is a product rule, fine beside the SDs."""
    family, sd = families.Categorical(), 3.0
    mean, cov = np.array([[0.5, -0.7]]), sd**2 * (0.8 * np.eye(2) + 0.2)[None]

    def shares(eta, weights, rows):
        return weighted(family.probabilities(eta, {}), weights)

    found = expected(shares, mean, cov, links_of(family, 2), 1 << 17)
    x = np.arange(-6, 6.1, 0.25 / sd)
    z = np.stack(np.meshgrid(x, x, indexing="ij")).reshape(2, -1)
    weights = np.exp(-np.square(z).sum(axis=0) / 2)
    p = family.probabilities((mean[0][:, None] + np.linalg.cholesky(cov[0]) @ z)[None], {})[0]
    np.testing.assert_allclose(found[0], weights @ p / weights.sum(), atol=1e-8)
