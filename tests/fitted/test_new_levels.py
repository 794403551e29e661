"""Means, probabilities, SDs, scores and draws of new levels are of one distribution."""

from copy import deepcopy
from functools import cache

import numpy as np
import pandas as pd
import pytest
from scipy.integrate import quad
from scipy.special import expit, logit
from scipy.stats import norm
from sklearn.metrics import log_loss
from sklearn.model_selection import GroupKFold, cross_validate

from sklmm import MixedEffectsClassifier, MixedEffectsRegressor
from sklmm.datasets import load_toenail

NEW = pd.DataFrame({"x": [0.0, 1.0, 0.0, 1.0], "g": [99, 98, 2, None], "h": [1, 77, 78, None]})
WAYS = ("population", "typical")


@cache
def table():
    rng = np.random.default_rng(5)
    X = pd.DataFrame({"x": rng.normal(size=480), "g": np.arange(480) % 20})
    X = X.assign(h=rng.integers(0, 10, 480))
    eta = 0.2 + 0.4 * X["x"] + rng.normal(size=20)[X["g"]] + 0.6 * rng.normal(size=10)[X["h"]]
    return X, eta.to_numpy()


@cache
def known(kind):
    (X, eta), rng, options = table(), np.random.default_rng(6), {}
    counts = rng.poisson(np.exp(eta))
    if kind == "zeros":
        counts[rng.random(480) < expit(rng.normal(-1, 1, 20)[X["g"]])] = 0
        options |= {"family": "poisson", "zero_inflation": "~ 1 + (1 | g)"}
        y = counts
    elif kind == "poisson":
        options |= {"family": "poisson"}
        y = counts
    elif kind == "ordinal":
        options |= {"family": "ordinal"}
        y = np.clip(np.floor(eta + rng.logistic(size=480)), -1, 2) + 1
    elif kind == "lognormal":
        options |= {"family": "lognormal", "e_step": "exact"}
        y = np.exp(eta + 0.5 * rng.normal(size=480))
    else:
        y = np.clip(expit(eta + 0.3 * rng.normal(size=480)), 1e-4, 1 - 1e-4)
        options |= {"family": "beta", "dispersion": "~ x"}
    options = {"e_step": "laplace", "random_state": 0, "fixed_effects": ["x"]} | options
    return MixedEffectsRegressor(["g", "h"], **options).fit(X, y)


def fitted(kind):
    """A model of its own, which a test may change."""
    return deepcopy(known(kind))


@pytest.mark.parametrize("kind", ["poisson", "zeros", "ordinal", "lognormal", "beta"])
def test_draws_have_the_predicted_mean_and_std(kind):
    model = fitted(kind)
    mean, std = model.predict(NEW, return_std=True)
    draws = model.sample_y(NEW, n_samples=100_000, random_state=0)
    error = draws.std(axis=1) / np.sqrt(100_000)
    # Of known effects draws are 30 or so of the posterior, and of those not from it: 1 % besides.
    assert (np.abs(draws.mean(axis=1) - mean) < 4.5 * error + 0.01 * mean).all()
    np.testing.assert_allclose(draws.std(axis=1), std, rtol=0.06)


@pytest.mark.parametrize("kind", ["poisson", "zeros", "ordinal"])
def test_typical_is_effect_0_and_the_std_is_of_a_new_observation_all_the_same(kind):
    model = fitted(kind)
    population, std = model.predict(NEW, return_std=True)
    typical, own = model.set_params(handle_unknown="typical").predict(NEW, return_std=True)
    np.testing.assert_array_equal(own, std)
    assert (np.abs(typical / population - 1) > 0.01).all()
    if kind == "poisson":
        # The prior's variances stand in the one mean, and in the other they do not.
        sds = model.variance_components_["sd"].to_numpy()
        known = model.predict(NEW[:1].assign(h=77))
        more = np.log(population[0] / typical[0])
        assert more == pytest.approx(sds[0] ** 2 / 2, rel=0.1)
        assert known[0] == pytest.approx(typical[3] / np.exp(model.coef_[0]), rel=0.02)
    left_out = model.predict(NEW[3:], include_random=False)
    assert left_out[0] == pytest.approx(typical[3], rel=1e-10)
    unseen_is_refused = model.set_params(handle_unknown="error")
    with pytest.raises(ValueError, match="'g' has the unknown"):
        unseen_is_refused.predict(NEW)
    # What is left out is averaged over, as it is nobody's mistake.
    averaged = unseen_is_refused.predict(NEW[3:], include_random=False)
    assert averaged[0] == pytest.approx(population[3], rel=1e-10)


def test_parts_are_averaged_likewise():
    model = fitted("zeros")
    zero = model.predict(NEW, component="zero")
    conditional = model.predict(NEW, component="conditional")
    intercept = model.zero_inflation_effects_["estimate"].iloc[0]
    prior = model.cov_re_["zero: g"].to_numpy()[0, 0]
    sd = np.sqrt(prior + model.zero_inflation_effects_["std_error"].iloc[0] ** 2)
    exact = quad(lambda u: expit(intercept + sd * u) * norm.pdf(u), -10, 10)[0]
    np.testing.assert_allclose(zero[[0, 1, 3]], exact, rtol=1e-3)
    # Beside independent effects, but for what the posterior knows of both.
    mean = model.predict(NEW)
    np.testing.assert_allclose(mean[[0, 1, 3]], ((1 - zero) * conditional)[[0, 1, 3]], rtol=0.02)


@pytest.mark.parametrize("family", ["bernoulli", "ordinal", "categorical"])
def test_classifiers_average_too(family):
    X, eta = table()
    rng = np.random.default_rng(8)
    y = np.clip(np.floor(eta + rng.logistic(size=480)), -1, 1)
    y = y > 0 if family == "bernoulli" else y
    model = MixedEffectsClassifier(
        ["g"] if family == "categorical" else ["g", "h"],
        fixed_effects=["x"],
        family=family,
        e_step="quadrature" if family == "categorical" else "laplace",
        random_state=0,
    ).fit(X, y)
    p = model.predict_proba(NEW)
    np.testing.assert_allclose(p.sum(axis=1), 1.0, rtol=1e-12)
    draws = model.sample_y(NEW, n_samples=100_000, random_state=1)
    shares = np.stack([(draws == c).mean(axis=1) for c in model.classes_], axis=1)
    np.testing.assert_allclose(shares, p, atol=0.02)
    if family == "bernoulli":
        np.testing.assert_allclose(model.decision_function(NEW), logit(p[:, 1]), rtol=1e-12)
    np.testing.assert_array_equal(model.predict(NEW), model.classes_[p.argmax(axis=1)])
    typical = model.set_params(handle_unknown="typical").predict_proba(NEW)
    if family == "bernoulli":
        # Effects that are averaged over make it less sure.
        assert (p.max(axis=1) < typical.max(axis=1)).all()
    assert (np.abs(p - typical)[:2].max(axis=1) > 0.005).all()


def test_predictions_do_not_depend_on_the_other_rows():
    model = fitted("zeros")
    together, std = model.predict(NEW, return_std=True)
    for row in range(len(NEW)):
        alone, own = model.predict(NEW.iloc[[row]], return_std=True)
        assert alone[0] == pytest.approx(together[row], rel=1e-10)
        assert own[0] == pytest.approx(std[row], rel=1e-10)


def log_losses(model, X, y, groups, folds):
    """Those of new groups by each of `WAYS`, on the mean over folds."""

    def losses(model, X, y):
        found = {how: model.set_params(handle_unknown=how).predict_proba(X) for how in WAYS}
        return {how: log_loss(y, p) for how, p in found.items()}

    folds = GroupKFold(folds)
    found = cross_validate(model, X, y, cv=folds, groups=groups, scoring=losses)
    return [found[f"test_{how}"].mean() for how in WAYS]


@pytest.mark.slow
def test_new_patients_of_the_toenail_trial_are_told_better_than_typical_ones():
    """The figures of the guide, docs/guide/prediction.md."""
    X, y = load_toenail(return_X_y=True, as_frame=True)
    model = MixedEffectsClassifier(
        ["patientID"], fixed_effects="~ time * treatment", random_state=0
    )
    of = log_losses(model, X, y != "none or mild", X["patientID"], 10)
    np.testing.assert_allclose(of, [0.481, 0.661], atol=0.002)


def test_new_persons_of_crossed_items_are_told_better_than_typical_ones():
    """Persons and items as of the verbal aggression data; the figures of the guide."""
    rng, n_persons, n_items = np.random.default_rng(0), 316, 24
    rows = {"person": np.repeat(np.arange(n_persons), n_items)}
    X = pd.DataFrame(rows | {"item": np.tile(np.arange(n_items), n_persons)})
    X["anger"] = np.repeat(rng.normal(20, 5, n_persons), n_items) / 5
    eta = 0.3 * (X["anger"] - 4) - 1 + rng.normal(0, 1.4, n_persons)[X["person"]]
    y = rng.random(len(X)) < expit(eta + rng.normal(0, 1.2, n_items)[X["item"]])
    model = MixedEffectsClassifier(
        ["person", "item"], fixed_effects=["anger"], e_step="laplace", random_state=0
    )
    of = log_losses(model, X, y, X["person"], 5)
    np.testing.assert_allclose(of, [0.558, 0.565], atol=0.001)
