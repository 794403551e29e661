"""E-step kernels against the dense likelihood, against one another, and against the joint distribution."""

import numpy as np
import pytest

from sklmm import MixedEffectsRegressor
from sklmm.datasets import load_dyestuff, load_pastes, load_sleepstudy, make_crossed
from sklmm.design import DesignSpec, resolve_terms
from sklmm.engine.e_step import make_kernel
from sklmm.engine.e_step.base import Params
from sklmm.engine.problem import standardize
from sklmm.steps import HMC, ConjugateGradient, Exact


def crossed():
    X, y, _ = make_crossed(1200, (50, 20), n_features=1, sds=(0.7, 0.4), random_state=4)
    return X, y


# data set -> loader, terms
GAUSSIAN_MODELS = {
    "sleepstudy": (
        lambda: load_sleepstudy(return_X_y=True, as_frame=True),
        ["(1 + Days | Subject)"],
    ),
    "pastes": (
        lambda: tuple(part for part in load_pastes(return_X_y=True, as_frame=True)),
        ["batch", "sample"],
    ),
    "dyestuff": (lambda: load_dyestuff(return_X_y=True, as_frame=True), ["Batch"]),
    "crossed": (crossed, ["g0", "g1"]),
}

KERNELS = {"exact": (0,), "cg": (0, 1, 2), "hmc": (0, 1, 2)}


def load(name):
    loader, terms = GAUSSIAN_MODELS[name]
    X, y = loader()
    return X.drop(columns="cask", errors="ignore"), y, terms


@pytest.fixture(scope="module")
def exact_fits(standard_errors):
    """Estimate and standard errors of each model by the exact kernel, to a small tolerance."""
    return {}


@pytest.mark.parametrize("method", ["reml", "ml"])
@pytest.mark.parametrize("name", GAUSSIAN_MODELS)
@pytest.mark.parametrize(
    ("e_step", "seed"), [(k, seed) for k, seeds in KERNELS.items() for seed in seeds]
)
def test_every_kernel_finds_the_maximum_within_its_monte_carlo_error(
    e_step, seed, name, method, estimates, standard_errors
):
    X, y, terms = load(name)
    oracle = MixedEffectsRegressor(terms, method=method, e_step="exact", tol=1e-8).fit(X, y)
    model = MixedEffectsRegressor(terms, method=method, e_step=e_step, random_state=seed).fit(X, y)
    assert model.converged_
    gap = np.abs(estimates(model) - estimates(oracle))
    bound = 4 * model.mc_error_ + 1e-3 * standard_errors(oracle)
    assert (gap <= bound + 1e-7 * np.abs(estimates(oracle))).all(), (gap / bound).to_string()
