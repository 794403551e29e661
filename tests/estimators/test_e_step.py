"""The fitted attribute that says which E-step ran."""

import numpy as np
import pytest

from sklmm import HMC, MixedEffectsClassifier, MixedEffectsRegressor
from sklmm.datasets import make_crossed


@pytest.fixture(scope="module")
def crossed():
    X, y, _ = make_crossed(400, (20, 6), random_state=0)
    return X, y


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(
    ("terms", "family", "e_step", "ran"),
    [
        (["g0", "g1"], "gaussian", "auto", "Exact()"),
        (["g0", "g1"], "gaussian", "cg", "ConjugateGradient()"),
        (["g0"], "poisson", "auto", "Quadrature()"),
        (["g0", "g1"], "poisson", "auto", "HMC(backend='numpy')"),
        (["g0", "g1"], "poisson", HMC(n_chains=8), "HMC(backend='numpy', n_chains=8)"),
        (["g0"], "poisson", "laplace", "Laplace()"),
        ([], "poisson", "auto", "Laplace()"),
        ([], "gaussian", "hmc", "Exact()"),
    ],
)
def test_a_fit_says_which_e_step_ran(crossed, terms, family, e_step, ran):
    X, y = crossed
    y = y if family == "gaussian" else np.round(np.abs(y))
    model = MixedEffectsRegressor(terms, family=family, e_step=e_step, max_iter=1, random_state=0)
    assert repr(model.fit(X, y).e_step_) == ran
    # The parameter may change, and what ran stays.
    assert model.e_step_ is not e_step


def test_a_classifier_says_it_too(crossed):
    X, y = crossed
    model = MixedEffectsClassifier(["g0"], random_state=0).fit(X, y > 0)
    assert repr(model.e_step_) == "Quadrature()"
    assert model.e_step == "auto"


def test_an_adam_fit_ran_in_tensorflow(crossed):
    X, y = crossed
    model = MixedEffectsRegressor(["g0"], e_step=HMC(), m_step="adam", max_iter=2, random_state=0)
    assert repr(model.fit(X, y).e_step_) == "HMC(backend='tensorflow')"
