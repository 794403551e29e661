"""Laplace's approximation where parameters have random effects: its gradient by differences."""

import numpy as np
import pandas as pd
import pytest

from sklmm import Laplace, MixedEffectsRegressor
from sklmm.engine import fit as engine
from sklmm.engine.algorithms.start import start_theta

#: Model parameters by name: counts with three predictors a row, and a Gaussian SD of its own.
MODELS = {
    "counts": {
        "formula": "y ~ x + (1 | g) + (1 | h)",
        "family": "negative_binomial",
        "zero_inflation": "~ z + (1 | g)",
        "dispersion": "~ 1 + (1 + x | h)",
    },
    "one size": {
        "formula": "y ~ x + (1 + x | g)",
        "family": "negative_binomial",
        "zero_inflation": "~ z + (1 | h) + (1 | g)",
    },
    "sizes by column": {
        "formula": "y ~ x + (1 | g)",
        "family": "negative_binomial",
        "zero_inflation": "~ z + (1 | g)",
        "dispersion": "~ z",
    },
    "numbers": {"formula": "v ~ x + (1 | g)", "dispersion": "~ z + offset(x) + (1 | g)"},
}


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    n, J = 150, 12
    g, h, x, z = rng.integers(J, size=n), rng.integers(5, size=n), rng.normal(size=n), rng.random(n)
    eta = 0.9 + 0.5 * x + rng.normal(0, 0.6, J)[g]
    zero = rng.random(n) < 1 / (1 + np.exp(1 - z - rng.normal(0, 0.9, J)[g]))
    y = np.where(zero, 0, rng.negative_binomial(2, 1 / (1 + np.exp(eta) / 2)))
    v = 1000 + 50 * (eta + np.exp(-0.3 + 0.4 * z + rng.normal(0, 0.5, J)[g]) * rng.normal(size=n))
    return pd.DataFrame({"g": g, "h": h, "x": x, "z": z, "y": y, "v": v})


def algorithm(monkeypatch, table, method="ml", **params):
    """The `Laplace` algorithm of a model, before its first step."""
    made, make = [], engine._ALGORITHMS[Laplace]

    class Stopped(Exception):
        pass

    def stopping(problem, response, settings):
        made.append(make(problem, response, settings))
        raise Stopped

    monkeypatch.setitem(engine._ALGORITHMS, Laplace, stopping)
    with pytest.raises(Stopped):
        MixedEffectsRegressor.from_formula(
            params.pop("formula"), e_step="laplace", method=method, **params
        ).fit(table)
    return made[0]


@pytest.mark.parametrize(
    ("name", "whole"), [*((name, True) for name in MODELS), ("counts", False), ("numbers", False)]
)
def test_the_gradient_is_exact(monkeypatch, table, name, whole):
    own = algorithm(monkeypatch, table, **MODELS[name])
    latent = own.latent
    latent.whole &= whole
    theta, own.mode = start_theta(latent)
    flat = latent.space.join(theta) + 0.1

    def loglik(flat):
        return own.approximation(latent.space.split(flat)).loglik

    found = own.approximation(latent.space.split(flat)).score
    h = 1e-4
    wanted = [(loglik(flat + e) - loglik(flat - e)) / (2 * h) for e in h * np.eye(len(flat))]
    np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-4)


def test_draws_tell_the_gradient_of_a_large_table(monkeypatch, table):
    own = algorithm(monkeypatch, table, **MODELS["one size"])
    latent = own.latent
    theta, own.mode = start_theta(latent)
    exact = own.approximation(theta).score
    latent.whole, latent.approximated = False, False
    own.probes = (0, 4000)
    np.testing.assert_allclose(own.approximation(theta).score, exact, rtol=0.05, atol=0.3)


def test_restricted_likelihood_has_an_exact_gradient(monkeypatch, table):
    own = algorithm(monkeypatch, table, "reml", **MODELS["numbers"])
    latent = own.latent
    theta, own.mode = start_theta(latent)
    flat, h = latent.space.join(theta), 1e-4
    found = own.approximation(theta).score
    wanted = [
        np.diff([own.approximation(latent.space.split(flat + s * e)).loglik for s in (-1, 1)])[0]
        / (2 * h)
        for e in h * np.eye(len(flat))
    ]
    np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-4)
