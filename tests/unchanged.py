"""What "left as it was" means for an estimator."""

import numpy as np


def snapshot(model):
    """The estimator's attributes; arrays by value."""
    return {
        name: np.array(v, copy=True) if isinstance(v, np.ndarray) else v
        for name, v in vars(model).items()
    }


def assert_unchanged(model, before):
    """Its attributes are those of the snapshot `before`."""
    assert list(vars(model)) == list(before)
    for name, value in before.items():
        now = vars(model)[name]
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(now, value)
        else:
            assert now is value
