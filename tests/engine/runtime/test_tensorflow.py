import numpy as np
import pytest
from sklearn.model_selection import KFold, cross_val_score

from sklmm import MixedEffectsClassifier, MixedEffectsRegressor
from sklmm.datasets import make_crossed
from sklmm.engine.runtime.compilation import telling
from sklmm.engine.runtime.tensorflow import check_device, compilations, compiled, tf


def test_fits_of_nearly_equal_size_share_one_compilation():
    X, y, _ = make_crossed(3_000, (120, 80), random_state=0)
    model = MixedEffectsRegressor(["g0", "g1"], e_step="hmc", random_state=0)
    model.fit(X, y)
    before = dict(compilations)
    model.fit(X.iloc[:-40], y[:-40])
    model.fit(X.iloc[70:], y[70:])
    assert compilations == before
    model.fit(X.iloc[:2_000], y[:2_000])
    assert compilations["hmc_transitions"] == before["hmc_transitions"] + 1


def test_the_folds_of_a_cross_validation_share_one_compilation_of_each_step():
    X, y, _ = make_crossed(2_500, (120, 80), random_state=1)
    model = MixedEffectsClassifier(["g0", "g1"], random_state=0, tol=0.2)
    folds = KFold(5, shuffle=True, random_state=0)
    first = next(iter(folds.split(X)))[0]
    compilations.clear()
    model.fit(X.iloc[first], (y > np.median(y))[first])
    assert compilations["hmc_transitions"] == 1
    before = dict(compilations)
    assert len(cross_val_score(model, X, y > np.median(y), cv=folds)) == 5
    assert compilations == before


@pytest.mark.parametrize("device", ["GPU:7", "TPU:0", "nonsense"])
def test_an_unknown_device_is_named(device):
    with pytest.raises(ValueError, match=device):
        check_device(device)


def test_the_cpu_is_a_device():
    assert check_device("CPU:0") == "/device:CPU:0"
    assert check_device(None) is None


def test_a_compilation_is_told_once_a_shape():
    def twice(x):
        return 2 * x

    step, heard = compiled(twice), []
    with telling(heard.append):
        step(tf.zeros(3))
        step(tf.ones(3))
        assert heard == ["twice"]
        step(tf.zeros(4))
    step(tf.zeros(5))
    assert heard == ["twice", "twice"]
