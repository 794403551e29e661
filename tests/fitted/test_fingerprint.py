"""The rows of a fit are recognised in any order."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from sklmm import (
    MixedEffectsRegressor,
)
from sklmm._fitted.fingerprint import hashed, hashed_data


def test_the_data_of_a_fit_are_known_in_any_order_and_number():
    rng = np.random.default_rng(0)
    n = 40_000
    y, offset, order = rng.normal(size=n), rng.normal(size=n), rng.permutation(n)

    def known(y, weights, offset):
        rows = SimpleNamespace(offset=offset), SimpleNamespace(y=y, weights=weights, data=None)
        return hashed_data(*rows, hashed(y))

    one = known(y, np.full(n, 2.0), offset)
    assert one == known(np.tile(y[order], 2), np.ones(2 * n), np.tile(offset[order], 2))
    assert known(y, np.ones(n), None) == known(y, np.ones(n), np.zeros(n))
    for other in ((y + 1e-15, np.full(n, 2.0), offset), (y, np.full(n, 2.0), -offset)):
        assert known(*other) != one


@pytest.mark.parametrize("family", ["gaussian", "poisson"])
def test_the_rows_of_the_fit_are_whole_ones(family):
    """X and y in another order together are the same data; one of them alone is not."""
    rng = np.random.default_rng(2)
    X = pd.DataFrame(
        {"x": 1e6 + rng.normal(size=90), "z": rng.normal(size=90), "g": np.arange(90) // 10}
    )
    y = pd.Series(rng.poisson(np.exp(X["z"] / 2)))
    parameters = {"fixed_effects": ["x"], "offset": "z", "family": family}
    model = MixedEffectsRegressor(["(1 + z | g)"], e_step="laplace", **parameters)
    weight = 1 + np.arange(90) % 2
    model.fit(X, y, sample_weight=weight)
    order = rng.permutation(np.repeat(np.arange(90), weight))
    model._training(X.iloc[order], y.iloc[order], None)
    model.update(X[:1].assign(g=-1), y[:1])
    # A level that comes first moves the others.
    model._training(X[::-1], y[::-1], weight[::-1])
    for column in X:
        moved = X.assign(**{column: np.roll(X[column], 2)})
        with pytest.raises(ValueError, match="X: each row must be that of the fit for its y"):
            model._training(moved, y, weight)
