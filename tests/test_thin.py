"""Without TensorFlow: what needs it says so."""

import json
import subprocess
import sys
import textwrap

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
eta = 0.5 * X["x"] + 0.8 * rng.normal(size=12)[X["g"]]
latent = eta + rng.logistic(size=120)
"""


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


def test_what_needs_tensorflow_says_so_and_how_to_install_it():
    code = """
def noise(eta, scale):
    import tensorflow_probability as tfp

    return tfp.distributions.Laplace(eta, scale)

laplace = {"family": "poisson", "e_step": "laplace"}
custom, y = CustomFamily(noise, scale="positive"), np.abs(latent) // 0.5
gaussian = MixedEffectsRegressor(["g"]).fit(X[["x", "g"]], y)
asked = {
    "poisson": (MixedEffectsRegressor(["g"], family="poisson"), X, y),
    "nuts": (MixedEffectsRegressor(["g"], e_step="nuts"), X, y),
    "adam": (MixedEffectsRegressor(["g"], e_step="hmc", m_step="adam"), X, y),
    "classes": (MixedEffectsClassifier(["g"]), X, np.digitize(latent, [-1, 1])),
    "device": (MixedEffectsRegressor(["g"], device="CPU:0", **laplace), X, y),
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
        "poisson": "family='poisson' with e_step=HMC()",
        "nuts": "family='gaussian' with e_step=NUTS()",
        "adam": "m_step=Adam()",
        "classes": "family='categorical' with e_step=HMC()",
        "device": "device='CPU:0'",
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
