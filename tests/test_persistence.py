"""What a fresh process sees: files, imports, silence."""

import json
import subprocess
import sys
import textwrap

import joblib
import numpy as np
import pytest

from sklmm import MixedEffectsRegressor
from sklmm.datasets import make_crossed

TENSORFLOW = ("tensorflow", "tensorflow_probability", "tf_keras", "keras")


def run(code, *args):
    """stdout and stderr of a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, args)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


@pytest.mark.parametrize("e_step", ["exact", "cg", "hmc"])
def test_a_loaded_model_predicts_to_the_bit_without_tensorflow(e_step, tmp_path):
    X, y, _ = make_crossed(2000, (60, 10), random_state=0)
    # Effects of x0 that vary, so that no variance is at its boundary.
    y = y + 0.7 * np.random.default_rng(0).standard_normal(60)[X["g0"]] * X["x0"]
    model = MixedEffectsRegressor(["(1 + x0 | g0)", "g1"], e_step=e_step, random_state=0).fit(X, y)
    new = X.iloc[:50].copy()
    new.loc[new.index[::7], "g0"] = 999
    mean, std = model.predict(new, return_std=True)
    draws = model.sample_y(new, 2, random_state=0)
    joblib.dump((model, new), tmp_path / "model.joblib")
    code = """
        import sys, joblib, numpy
        model, new = joblib.load(sys.argv[1])
        mean, std = model.predict(new, return_std=True)
        numpy.savez(sys.argv[2], mean=mean, std=std, draws=model.sample_y(new, 2, random_state=0))
        assert model.summary() and len(model.conf_int()) > 0
        print([name for name in sys.modules if name.split(".")[0] in %r])
    """
    out, _ = run(code % (TENSORFLOW,), tmp_path / "model.joblib", tmp_path / "seen.npz")
    assert out.strip() == "[]"
    seen = np.load(tmp_path / "seen.npz")
    np.testing.assert_array_equal(seen["mean"], mean)
    np.testing.assert_array_equal(seen["std"], std)
    np.testing.assert_array_equal(seen["draws"], draws)


def test_import_and_a_model_without_random_effects_need_no_tensorflow():
    code = """
        import json, sys
        before = set(sys.modules)
        import sklmm, sklmm.datasets
        imported = [m for m in sys.modules if m.split(".")[0] in %r]
        X, y, _ = sklmm.datasets.make_crossed(100, (5,), random_state=0)
        sklmm.MixedEffectsRegressor().fit(X, y).predict(X)
        fitted = [m for m in sys.modules if m.split(".")[0] in %r]
        print(json.dumps([imported, fitted, "matplotlib" in sys.modules]))
    """
    out, _ = run(code % (TENSORFLOW, TENSORFLOW))
    assert json.loads(out) == [[], [], False]


@pytest.mark.parametrize(
    ("e_step", "n_shapes"),
    # TensorFlow warns about retracing from the fifth shape on.
    [("exact", 7), ("hmc", 1), pytest.param("laplace", 7, marks=pytest.mark.slow)],
)
def test_import_and_fits_of_many_shapes_print_nothing(e_step, n_shapes):
    code = """
        import sys
        from sklmm import MixedEffectsRegressor
        from sklmm.datasets import make_crossed
        for rows in (300, 6000, 8000, 11000, 15000, 21000, 30000)[:int(sys.argv[2])]:
            X, y, _ = make_crossed(rows, (5,), random_state=0)
            model = MixedEffectsRegressor(["g0"], e_step=sys.argv[1], random_state=0)
            model.fit(X, y).predict(X)
    """
    assert run(code, e_step, n_shapes) == ("", "")
