"""What a fresh process sees: files, imports, silence."""

import json
import pickle
import re
import subprocess
import sys
import textwrap
from dataclasses import replace

import joblib
import numpy as np
import pandas as pd
import pytest
import skops.io

from sklmm import Laplace, MixedEffectsClassifier, MixedEffectsEncoder, MixedEffectsRegressor
from sklmm.datasets import make_crossed
from sklmm.design.formula import Formula
from sklmm.result import EMResult, Status

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


def by_skops(model):
    """The model after a file of skops', which trusts its own types alone."""
    data = skops.io.dumps(model)
    types = skops.io.get_untrusted_types(data=data)
    assert all(name.startswith("sklmm.") for name in types), types
    return skops.io.loads(data, trusted=types)


@pytest.fixture(scope="module")
def labelled():
    """A table of strings, dates, categories and numbers, and a response."""
    rng, rows = np.random.default_rng(0), np.arange(240)
    X = pd.DataFrame(
        {
            "school": np.array(list("pqrstuvw"))[rows % 8],
            "class": rows % 3,
            "day": pd.Timestamp("2020") + pd.to_timedelta(rows % 5, "D"),
            "kind": pd.Categorical(np.array(list("abc"))[rows % 7 % 3]),
            "log dose": rng.normal(size=240),
        }
    )
    return X, rng.normal(size=240) + X["log dose"] + rng.normal(size=8)[rows % 8]


@pytest.mark.parametrize("again", [by_skops, lambda model: pickle.loads(pickle.dumps(model))])
def test_files_of_plain_data_hold_a_model(labelled, again):
    X, y = labelled
    ratings = pd.Categorical.from_codes(np.digitize(y, [-1, 1]), ["no", "maybe", "yes"], True)
    models = [
        (MixedEffectsRegressor(["(1 | school/class)", "day"], fixed_effects=["log dose"]), y),
        (MixedEffectsRegressor(["school"], fixed_effects=["log dose"], dof="satterthwaite"), y),
        (
            MixedEffectsClassifier(
                ["school"],
                fixed_effects=["log dose"],
                family="ordinal",
                e_step=Laplace(),
                random_state=0,
            ),
            ratings,
        ),
    ]
    for model, target in models:
        model.fit(X, target)
        loaded = again(model)
        np.testing.assert_array_equal(loaded.predict(X), model.predict(X))
        assert loaded.summary() == model.summary()
        assert repr(loaded.e_step_) == repr(model.e_step_)
        pd.testing.assert_frame_equal(loaded.history_, model.history_)
        for name, effects in model.random_effects_.items():
            pd.testing.assert_frame_equal(loaded.random_effects_[name], effects)
    np.testing.assert_array_equal(loaded.predict_proba(X), model.predict_proba(X))
    sums = MixedEffectsRegressor(["(1 | school/class)", "day"], fixed_effects=["log dose"])
    loaded = again(sums.partial_fit(X[:120], y[:120])).partial_fit(X[120:], y[120:])
    expected = sums.partial_fit(X[120:], y[120:])
    np.testing.assert_array_equal(loaded.predict(X), expected.predict(X))
    encoder = MixedEffectsEncoder(random_state=0).fit(X[["school", "class"]], y)
    encoded = again(encoder).transform(X[["school", "class"]])
    np.testing.assert_array_equal(encoded, encoder.transform(X[["school", "class"]]))


@pytest.mark.parametrize("again", [by_skops, lambda model: pickle.loads(pickle.dumps(model))])
@pytest.mark.parametrize(
    "formula",
    [
        "~ `log dose` * C(kind, contr.sum) + C(school)",
        "~ 0 + kind + bs(`log dose`, df=4) + {`log dose` ** 5}",
        "~ C(kind, contr.treatment('b')) * poly(`log dose`, 2) + np.sin(`log dose`)",
    ],
)
def test_a_saved_formula_makes_the_same_columns_of_any_rows(labelled, formula, again):
    X, y = labelled
    model = MixedEffectsRegressor(["day"], fixed_effects=formula).fit(X, y)
    loaded = again(model)
    for rows in (X, X[7:8], X[X["kind"] == "b"]):
        before, after = (m._fitted.spec.apply(rows).X for m in (model, loaded))
        np.testing.assert_array_equal(after, before)
    new = X[:1].assign(kind="d")
    with pytest.raises(ValueError, match="'d'") as error:
        model.predict(new)
    with pytest.raises(ValueError, match=re.escape(str(error.value))):
        loaded.predict(new)


def test_a_file_of_another_version_says_so(sleep_model):
    state = sleep_model.__getstate__() | {"_state_format": -1}
    with pytest.warns(UserWarning, match="saved by another version of sklmm.*fit it again"):
        MixedEffectsRegressor.__new__(MixedEffectsRegressor).__setstate__(state)


def test_a_file_of_the_first_versions_says_so(labelled):
    # They saved pandas' and formulaic's objects, and the status as an Enum's member.
    X, y = labelled
    model = MixedEffectsRegressor(["pandas"], fixed_effects="~ `log dose` + kind")
    model.fit(X.rename(columns={"day": "pandas"}), y)
    result = EMResult.__new__(EMResult)
    result.__setstate__({"status": Status.CONVERGED, "coef": model.result_.coef})
    formula = Formula.__new__(Formula)
    formula.__setstate__(vars(model._fitted.spec.formula))
    spec = replace(model._fitted.spec, formula=formula)
    state = vars(model) | {"result_": result, "_spec": spec}
    loaded = MixedEffectsRegressor.__new__(MixedEffectsRegressor)
    with pytest.warns(UserWarning, match="saved by another version of sklmm.*fit it again"):
        loaded.__setstate__(state)
    assert loaded.result_.status is Status.CONVERGED
    assert loaded._fitted.spec.formula.spec is model._fitted.spec.formula.spec


def test_a_grouping_column_may_be_called_pandas(sleepstudy):
    X, y = sleepstudy
    model = MixedEffectsRegressor(["pandas"]).fit(X.rename(columns={"Subject": "pandas"}), y)
    loaded = pickle.loads(pickle.dumps(model))
    pd.testing.assert_frame_equal(loaded.cov_re_["pandas"], model.cov_re_["pandas"])


def test_import_and_what_numpy_fits_need_no_tensorflow():
    code = """
        import json, sys, warnings
        warnings.simplefilter("ignore")
        before = set(sys.modules)
        import sklmm, sklmm.datasets
        imported = [m for m in sys.modules if m.split(".")[0] in %r]
        X, y, _ = sklmm.datasets.make_crossed(100, (5,), random_state=0)
        sklmm.MixedEffectsRegressor().fit(X, y).predict(X)
        model = sklmm.MixedEffectsRegressor(["g0"], family="poisson", device="CPU:0", max_iter=1)
        for e_step in ("auto", "laplace", sklmm.HMC()):
            model.set_params(e_step=e_step).fit(X, y > 0)
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
