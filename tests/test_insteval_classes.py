"""InstEval's ratings as classes: at Laplace's answers or beyond, as more draws confirm."""

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import log_loss

from sklmm import HMC, MixedEffectsClassifier, MixedEffectsRegressor

pytestmark = pytest.mark.slow

TERMS = ["students", "instructors", "departments"]


def fit(X, y, **parameters):
    return MixedEffectsClassifier(TERMS, fixed_effects=["service"], **parameters).fit(X, y)


def sds(model):
    return model.variance_components_["sd"].to_numpy()


@pytest.fixture(scope="module", params=["binary", "ordinal"])
def fits(request, insteval):
    """Fits with the default number of chains, three seeds, and one with four times the draws."""
    X, y = insteval
    family, target = ("auto", y >= 4) if request.param == "binary" else ("ordinal", y)
    few = [fit(X, target, family=family, random_state=seed) for seed in range(2)]
    many = fit(X, target, family=family, random_state=9, e_step=HMC(n_chains=64))
    return request.param, few, many


def test_within_two_percent_of_laplace_or_beyond_it_as_more_draws_say(fits, reference):
    kind, few, many = fits
    if kind == "binary":
        answer = reference["insteval_binomial_laplace"]
        coef, std = list(answer["fixef"].values()), list(answer["fixef_se"].values())
    else:
        answer = reference["insteval_ordinal_laplace"]
        coef = [*answer["thresholds"], answer["beta"]["service1"]]
        std = None
    expected = np.array([answer["varcorr_sd"][k] for k in ("s", "d", "dept")])
    for model in few:
        assert model.converged_
        near = np.abs(sds(model) / expected - 1) < 0.02
        beyond = np.sign(sds(model) - expected) == np.sign(sds(many) - expected)
        assert (near | beyond).all(), (sds(model), expected, sds(many))
        ours = model.fixed_effects_
        near = np.abs(ours["estimate"] / coef - 1) < 0.02
        error = ours["std_error"] if std is None else np.array(std)
        assert (near | (np.abs(ours["estimate"] - coef) < 0.1 * error)).all()
    # Four times the draws: students and instructors vary more than Laplace says.
    assert (sds(many)[:2] > expected[:2]).all()
    gap = np.abs(sds(few[0]) - sds(many))
    assert (gap < 4 * np.hypot(few[0].mc_error_[-3:], many.mc_error_[-3:])).all()


def test_held_out_log_loss(insteval):
    """An ordinal model beats the Gaussian, cut into ratings, and the base rates."""
    X, y = insteval
    train = np.random.RandomState(0).rand(len(y)) < 0.8
    ordinal = fit(X[train], y[train], family="ordinal", random_state=0)
    probability = ordinal.predict_proba(X[~train])
    np.testing.assert_allclose(probability.sum(axis=1), 1, rtol=1e-12)
    gaussian = MixedEffectsRegressor(TERMS, fixed_effects=["service"], random_state=0)
    mean, std = gaussian.fit(X[train], y[train]).predict(X[~train], return_std=True)
    cuts = np.array([-np.inf, 1.5, 2.5, 3.5, 4.5, np.inf])
    cdf = norm.cdf((cuts - mean[:, None]) / std[:, None])
    base = np.tile(np.bincount(y[train].astype(int))[1:] / train.sum(), ((~train).sum(), 1))
    losses = [log_loss(y[~train], p) for p in (probability, np.diff(cdf, axis=1), base)]
    assert losses[0] < losses[1] - 0.01
    assert losses[0] < losses[2] - 0.05
