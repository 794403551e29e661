"""A family of a user's own with a density: no registry and no TFP distribution."""

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone

from sklmm import HMC, CustomFamily, MixedEffectsRegressor
from sklmm.families import Family, Poisson
from sklmm.families.density import Density


class LogisticDensity(Density):
    @property
    def _z(self):
        return (self.y - self.eta) / self.scale

    @property
    def value(self):
        xp, z = self.xp, self._z
        return -xp.abs(z) - 2 * xp.log1p(xp.exp(-xp.abs(z))) - xp.log(self.scale)

    @property
    def score(self):
        return (1 - 2 * self.xp.expit(-self._z)) / self.scale

    @property
    def expected(self):
        return 1 / (3 * self.scale**2)

    @property
    def observed(self):
        return 2 * self.xp.expit(self._z) * self.xp.expit(-self._z) / self.scale**2

    @property
    def slopes(self):
        return {"scale": self._z * self.score * self.scale - 1}


class Logistic(Family):
    density = LogisticDensity

    def parameters(self, n_classes=None):
        return {"scale": "positive"}

    def variance(self, eta, params):
        return np.full(np.shape(eta), np.pi**2 / 3 * params["scale"] ** 2)

    def sample(self, eta, params, rng):
        return rng.logistic(eta, params["scale"])


def by_tfp(eta, scale):
    import tensorflow_probability as tfp

    return tfp.distributions.Logistic(eta, scale)


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    g, x = np.repeat(np.arange(12), 10), rng.normal(size=120)
    eta = 1 + 0.5 * x + rng.normal(size=12)[g]
    return pd.DataFrame({"g": g, "x": x}), rng.logistic(eta, 0.4)


def test_laplaces_fit_is_that_of_the_tfp_distribution(table):
    model = MixedEffectsRegressor(["g"], family=Logistic(), e_step="laplace").fit(*table)
    other = clone(model).set_params(family=CustomFamily(by_tfp, scale="positive")).fit(*table)
    assert model.converged_
    np.testing.assert_allclose(model.coef_, other.coef_, rtol=1e-4)
    np.testing.assert_allclose(
        model.variance_components_["sd"], other.variance_components_["sd"], rtol=1e-3
    )
    assert model.loglik_ == pytest.approx(other.loglik_, abs=1e-3)
    mean, sd = model.predict(table[0], return_std=True)
    assert np.isfinite(mean).all()
    assert (sd > model.family_params_["scale"]).all()
    assert model.sample_y(table[0], 3, random_state=0).shape == (120, 3)
    assert np.isfinite(model.update(*table).predict(table[0])).all()


def test_samplers_fit_it(table):
    model = MixedEffectsRegressor(
        ["g"], family=Logistic(), e_step=HMC(n_chains=4), max_iter=3, random_state=0
    )
    with pytest.warns(match="converge"):
        model.fit(*table)
    laplace = clone(model).set_params(e_step="laplace", max_iter=100).fit(*table)
    assert abs(model.coef_[0] - laplace.coef_[0]) < laplace.fixed_effects_["std_error"]["x"]


def test_what_a_density_lacks_is_named(table):
    class Flat(LogisticDensity):
        slopes = Density.slopes

    class Bare(Logistic):
        density = Flat
        variance, sample = Family.variance, Family.sample

    model = MixedEffectsRegressor(["g"], family=Bare(), e_step="laplace")
    with pytest.raises(ValueError, match="Flat: `slopes` lacks the parameter 'scale', it has none"):
        model.fit(*table)
    at, params = np.zeros(2), {"scale": 1.0}
    with pytest.raises(ValueError, match=r"a `density` has no variance .* `variance\(self, eta, p"):
        Bare().variance(at, params)
    with pytest.raises(ValueError, match=r"a `density` has no sample .* `sample\(self, .*, rng\)`"):
        Bare().sample(at, params, np.random.default_rng(0))


@pytest.mark.parametrize("eta", [61.0, 250.0])
def test_densities_and_predictions_have_one_inverse_link(eta):
    from sklmm.engine.likelihood.likelihood import Likelihood, evaluation

    like, raw = Likelihood.of(Poisson()), np.zeros((0, 1))
    y, at = np.ones(1), np.full((1, 1), eta)
    mean = Poisson().mean(at, {})
    np.testing.assert_allclose(evaluation(like).by_row(y, at, raw)[1], 1 - mean, rtol=1e-14)
    np.testing.assert_allclose(like.log_prob_and_score(y, at, raw)[1], 1 - mean, rtol=1e-14)
