import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import KFold, cross_val_score

from sklmm import HMC, NUTS, MixedEffectsClassifier, MixedEffectsRegressor
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


@pytest.mark.parametrize("e_step", ["hmc", "nuts"])
def test_the_folds_of_a_cross_validation_compile_each_step_at_most_once(e_step):
    """Levels that few rows have are in some folds only, of large terms and of small ones."""
    rng = np.random.default_rng(0)
    rare = [np.minimum(rng.zipf(1.5, 600), most) for most in (1_000, 30)]
    X = pd.DataFrame({"a": rare[0], "b": rare[1], "c": rng.integers(100, size=600)})
    y, folds = rng.random(600) < 0.5, KFold(5, shuffle=True, random_state=0)
    for name in "ab":
        assert len({X[name].iloc[train].nunique() for train, _ in folds.split(X)}) > 1
    steps = {"hmc": HMC(n_chains=4, backend="tensorflow"), "nuts": NUTS(n_chains=4)}
    model = MixedEffectsClassifier(["a", "b", "c"], e_step=steps[e_step], max_iter=2)
    compilations.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        assert len(cross_val_score(model, X, y, cv=folds)) == 5
    assert compilations == {f"{e_step}_transitions": 1}


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
