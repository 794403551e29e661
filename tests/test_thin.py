"""Without TensorFlow: fits and predictions are the same, and what needs it says so."""

import json
import subprocess
import sys
import textwrap

import numpy as np

#: An interpreter that finds no TensorFlow.
ABSENT = """
import json, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("tensorflow", "tensorflow_probability", "tf_keras", "keras"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
"""

TABLE = """
import numpy as np
import pandas as pd
from scipy.special import expit
from sklmm import CustomFamily, MixedEffectsClassifier, MixedEffectsRegressor

rng = np.random.default_rng(0)
X = pd.DataFrame({"g": np.arange(120) % 12, "h": np.arange(120) % 7, "x": rng.normal(size=120)})
eta = 0.5 * X["x"] + np.linspace(-1, 1, 12)[X["g"]] + np.linspace(-1, 1, 7)[X["h"]]
latent = eta + rng.logistic(size=120)
"""

RESPONSES = """
responses = {
    "gaussian": latent,
    "student_t": eta + 0.3 * rng.standard_t(4, size=120),
    "poisson": rng.poisson(np.exp(eta)),
    "negative_binomial": rng.poisson(rng.gamma(2.0, np.exp(eta) / 2)),
    "gamma": rng.gamma(3.0, np.exp(eta) / 3),
    "beta": rng.beta(5 * expit(eta), 5 * expit(-eta)),
    "binomial": rng.binomial(9, np.column_stack([expit(eta), expit(-eta)])),
    "bernoulli": latent > 0,
    "ordinal": np.digitize(latent, [-1, 1]),
    "categorical": np.digitize(latent, [-1, 1]),
}
"""

FITS = (
    TABLE
    + RESPONSES
    + """
found = {}

def record(name, model):
    new = X[list(model.feature_names_in_)][:5]
    told = model.predict_proba(new) if hasattr(model, "predict_proba") else model.predict(new)
    parts = [model.fixed_effects_["estimate"], [model.loglik_], np.ravel(told)]
    if model.random_effects:
        parts += [model.variance_components_["std_error"], model.random_effects_["g"]["Intercept"]]
    found[name] = np.concatenate(parts).tolist()

for name, y in responses.items():
    classes = name in ("bernoulli", "ordinal", "categorical")
    make = MixedEffectsClassifier if classes else MixedEffectsRegressor
    if name == "categorical":
        record(name, make(family=name).fit(X[["x", "g"]], y))
        continue
    for e_step in ["exact", "cg", "laplace"] if name == "gaussian" else ["laplace"]:
        model = make(["g", "h"], family=name, e_step=e_step, random_state=0).fit(X, y)
        record(f"{name} {e_step}", model)
model = MixedEffectsRegressor(["g"], family="poisson", e_step="laplace", random_state=0)
model.fit(X[["x", "g"]], responses["poisson"])
record("updated", model.update(X[["x", "g"]], responses["poisson"]))
found["draws"] = model.sample_y(X[["x", "g"]][:3], 2, random_state=0).ravel().tolist()
"""
)


def absent(code):
    """What code prints as JSON in an interpreter without TensorFlow."""
    done = subprocess.run(
        [sys.executable, "-c", ABSENT + textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return json.loads(done.stdout)


def test_fits_and_predictions_are_those_with_tensorflow():
    here = {}
    exec(FITS, here)
    there = absent(FITS + "\nprint(json.dumps(found))")
    assert there.keys() == here["found"].keys()
    for name, numbers in here["found"].items():
        assert np.isfinite(numbers).all(), name
        np.testing.assert_allclose(there[name], numbers, rtol=1e-9, atol=1e-12, err_msg=name)


def test_what_needs_tensorflow_says_so_and_how_to_install_it():
    code = """
def noise(eta, scale):
    import tensorflow_probability as tfp

    return tfp.distributions.Laplace(eta, scale)

laplace = {"family": "poisson", "e_step": "laplace"}
custom, y = CustomFamily(noise, scale="positive"), np.abs(latent) // 0.5
gaussian = MixedEffectsRegressor(["g"]).fit(X[["x", "g"]], y)
asked = {
    "poisson": (MixedEffectsRegressor(["g"], family="poisson", e_step="hmc"), X, y),
    "nuts": (MixedEffectsRegressor(["g"], e_step="nuts"), X, y),
    "adam": (MixedEffectsRegressor(["g"], e_step="hmc", m_step="adam"), X, y),
    "classes": (MixedEffectsClassifier(["g"], e_step="hmc"), X, np.digitize(latent, [-1, 1])),
    "device": (MixedEffectsRegressor(["g"], device="GPU:0", **laplace), X, y),
    "custom": (MixedEffectsRegressor(["g"], family=custom, e_step="laplace"), X, y),
}
told = {}

def tell(name, run):
    try:
        run()
    except ImportError as error:
        chained = error.__cause__ is not None or not error.__suppress_context__
        told[name] = [str(error), chained]

for name, (model, X, y) in asked.items():
    before = dict(vars(model))
    tell(name, lambda: model.fit(X, y))
    assert vars(model) == before, name
tell("graph", gaussian.model_graph)
tell("mean", lambda: custom.mean(0.0, {"scale": 1.0}))
print(json.dumps(told))
"""
    told = absent(TABLE + code)
    named = {
        "poisson": "family='poisson' with e_step=HMC(backend='tensorflow')",
        "nuts": "family='gaussian' with e_step=NUTS()",
        "adam": "m_step=Adam()",
        "classes": "family='categorical' with e_step=HMC(backend='tensorflow')",
        "device": "device='GPU:0'",
        "custom": "family=CustomFamily(",
        "graph": "model_graph",
        "mean": "family=CustomFamily(",
    }
    assert told.keys() == named.keys()
    for name, what in named.items():
        message, chained = told[name]
        assert message.startswith(what)
        assert 'pip install tensorflow "tensorflow-probability[tf]"' in message
        assert not chained
    assert "e_step='laplace', which does not" in told["poisson"][0]
    assert "e_step='auto', which does not" in told["nuts"][0]
    assert "which does not" not in told["classes"][0]
