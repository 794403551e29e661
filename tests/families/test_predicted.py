"""Densities whose parameters have linear predictors: their derivatives against differences."""

import numpy as np
import pytest

from sklmm import families as fam
from sklmm.engine.likelihood.likelihood import Likelihood, evaluation
from sklmm.families.parts import with_parts
from sklmm.families.predicted import PredictedFamily

H = 1e-5
COUNTS = np.array([0.0, 0, 1, 2, 5, 9])
CASES = [
    (fam.Poisson(), ("zero",), COUNTS),
    (fam.NegativeBinomial(), ("zero",), COUNTS),
    (fam.NegativeBinomial(), ("zero", "dispersion"), COUNTS),
    (fam.NegativeBinomial(), ("dispersion",), COUNTS),
    (fam.Gamma(), ("zero",), np.array([0.0, 0, 0.3, 1, 2, 7])),
    (fam.Gaussian(), ("sigma",), np.array([-3.0, -1, 0, 0.2, 1, 4])),
]


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0].name} {' '.join(case[1])}")
def case(request):
    """(functions of a likelihood, y [n], eta [n * d, 2], raw [q, 2], d)."""
    family, names, y = request.param
    parts = {"zero_inflation": "~ z"} if "zero" in names else {}
    parts |= {"dispersion": "~ z"} if {"sigma", "dispersion"} & set(names) else {}
    family = PredictedFamily(with_parts(family, parts), names)
    like, rng = Likelihood.of(family), np.random.default_rng(0)
    d = like.n_predictors
    eta = rng.normal(0, 0.8, (len(y) * d, 2))
    return evaluation(like), y, eta, rng.normal(0, 0.5, (len(like.names), 2)), d


def moved(eta, d, c, h):
    out = eta.copy()
    out[c::d] += h
    return out


def test_scores_are_slopes_of_the_value(case):
    like, y, eta, raw, d = case
    value, score = like.both(y, eta, raw)
    np.testing.assert_allclose(like.by_row(y, eta, raw)[0], value, rtol=1e-12)
    np.testing.assert_allclose(like.score(y, eta, raw), score, rtol=1e-10, atol=1e-12)
    for c in range(d):
        up, down = (like.both(y, moved(eta, d, c, h), raw)[0] for h in (H, -H))
        np.testing.assert_allclose(score[c::d], (up - down) / (2 * H), rtol=1e-6, atol=1e-7)


def test_blocks_are_slopes_of_the_scores(case):
    like, y, eta, raw, d = case
    found = like.blocks(y, eta, raw)
    np.testing.assert_array_equal(found, found.transpose(0, 2, 1, 3))
    for c in range(d):
        up, down = (like.score(y, moved(eta, d, c, h), raw) for h in (H, -H))
        wanted = ((down - up) / (2 * H)).reshape(len(y), d, -1)
        np.testing.assert_allclose(found[:, :, c], wanted, rtol=1e-6, atol=1e-7)


def test_bends_are_slopes_of_the_blocks(case):
    like, y, eta, raw, d = case
    eta, raw = eta[:, :1], raw[:, 0]
    heights = np.random.default_rng(1).normal(size=(len(y), d, d))
    heights += heights.transpose(0, 2, 1)
    in_eta, in_raw = like.bent_blocks(y, heights, eta, raw)

    def product(eta, raw):
        return np.einsum("nab,nab->n", heights, like.blocks(y, eta, raw[:, None])[..., 0])

    for c in range(d):
        up, down = (product(moved(eta, d, c, h), raw) for h in (1e-3, -1e-3))
        np.testing.assert_allclose(in_eta[c::d], (up - down) / 2e-3, rtol=1e-4, atol=1e-5)
    for i, e in enumerate(1e-3 * np.eye(len(raw))):
        change = (product(eta, raw + e) - product(eta, raw - e)).sum() / 2e-3
        np.testing.assert_allclose(in_raw[i], change, rtol=1e-4, atol=1e-5)


def test_the_expected_curvature_is_positive(case):
    like, y, eta, raw, _ = case
    assert (like.curvature(y, eta, raw)[0] > 0).all()


def test_float32_holds_where_a_share_is_at_its_end():
    like = evaluation(
        Likelihood.of(PredictedFamily(with_parts(fam.Poisson(), {"zero_inflation": ""}), ("zero",)))
    )
    y, zero = np.array([0.0, 3, 0, 3]), np.array([30.0, 30, -30, -30])
    eta = np.column_stack([np.zeros(4), zero]).reshape(-1, 1)
    exact, single = (
        like.both(y, eta.astype(kind), np.zeros((0, 1))) for kind in (float, np.float32)
    )
    for one, other in zip(exact, single, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def test_moments_are_those_of_the_family_at_each_row():
    own = fam.ZeroInflated(fam.NegativeBinomial())
    family = PredictedFamily(own, ("zero", "dispersion"))
    eta = np.random.default_rng(0).normal(size=(5, 3, 2))
    params = {"zero": 1 / (1 + np.exp(-eta[:, 1])), "dispersion": np.exp(eta[:, 2])}
    for moment in ("mean", "variance"):
        wanted = getattr(own, moment)(eta[:, 0], params)
        np.testing.assert_allclose(getattr(family, moment)(eta, {}), wanted)
    assert family.sample(eta, {}, np.random.default_rng(1)).shape == (5, 2)
