"""Functions of the user's that read data of each row, given as further columns of y."""

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone

from sklmm import CustomFamily, MixedEffectsRegressor


def counts(eta, exposure=1.0):
    import tensorflow as tf
    import tensorflow_probability as tfp

    return tfp.distributions.Poisson(log_rate=eta + tf.math.log(exposure))


def bounded(eta, upper, scale):
    """Normal, whatever the bound."""
    import tensorflow_probability as tfp

    return tfp.distributions.Normal(eta + 0 * upper, scale)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"g": np.repeat(np.arange(15), 12), "x": rng.normal(size=180)})
    exposure = rng.uniform(0.5, 4, size=180)
    eta = 0.3 + 0.5 * X["x"] + 0.4 * rng.normal(size=15)[X["g"]]
    return X, np.column_stack([rng.poisson(exposure * np.exp(eta)), exposure])


def test_an_exposure_in_ys_second_column_is_an_offset(data):
    X, y = data
    family = CustomFamily(counts, row_data=("exposure",))
    model = MixedEffectsRegressor(["g"], fixed_effects=["x"], family=family, e_step="laplace")
    model.fit(X, y)
    offset = MixedEffectsRegressor(
        ["g"], fixed_effects=["x"], family="poisson", e_step="laplace", offset="log exposure"
    ).fit(X.assign(**{"log exposure": np.log(y[:, 1])}), y[:, 0])
    np.testing.assert_allclose(model.coef_, offset.coef_, rtol=1e-4)
    assert model.loglik_ == pytest.approx(offset.loglik_, abs=1e-4)
    # Predictions are of an exposure of 1.
    plain = offset.predict(X.assign(**{"log exposure": 0.0}))
    np.testing.assert_allclose(model.predict(X), plain, rtol=0.02)
    assert model.sample_y(X[:3], 2, random_state=0).shape == (3, 2)
    more = model.update(X[:6].assign(g=99), y[:6]).random_effects_["g"]
    other = offset.update(X[:6].assign(**{"g": 99, "log exposure": np.log(y[:6, 1])}), y[:6, 0])
    np.testing.assert_allclose(more, other.random_effects_["g"], rtol=1e-2, atol=1e-3)
    with pytest.raises(ValueError, match="score: predictions know nothing of 'exposure'"):
        model.score(X, y)


def test_row_data_are_an_estimators_parameter_and_checked(data):
    X, y = data
    family = CustomFamily(bounded, row_data=("upper",), scale="positive")
    assert clone(family).get_params() == family.get_params()
    assert family.parameters() == {"scale": "positive"}
    assert family.columns == (2,)
    family.set_params(row_data=("upper",), scale=1.0).check()
    with pytest.raises(ValueError, match=r"new rows have no 'upper'.*def bounded.eta, upper=1.0"):
        family.mean(np.zeros(2), {"scale": 1.0})
    for wrong, message in [
        (CustomFamily(bounded, row_data="upper", scale=1.0), "row_data='upper' must be a tuple"),
        (CustomFamily(bounded, row_data=("lower",), scale=1.0), "lower=1.0 constrains a parameter"),
        (
            CustomFamily(bounded, row_data=("scale",), upper=1.0, scale=1.0),
            "'scale' is row data and",
        ),
        (CustomFamily(bounded, row_data=("upper",)), "parameter 'scale' has no constraint"),
    ]:
        with pytest.raises(ValueError, match=message):
            wrong.check()
    model = MixedEffectsRegressor(["g"], family=family, e_step="laplace")
    with pytest.raises(
        ValueError, match=r"2 columns, the response and 'upper', not shape \(180,\)"
    ):
        model.fit(X, y[:, 0])
    with pytest.raises(ValueError, match=r"1d array|2 columns"):
        model.fit(X, np.ones((180, 3)))
