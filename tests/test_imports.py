"""What a program that fits, looks at and predicts by built-in families imports."""

import json
import subprocess
import sys

FITS = """
import json, pickle, sys, warnings
import numpy as np, pandas as pd
from scipy.special import expit
from sklmm import MixedEffectsClassifier, MixedEffectsRegressor

rng = np.random.default_rng(0)
X = pd.DataFrame({"g": np.arange(240) % 12, "h": np.arange(240) % 7, "x": rng.normal(size=240)})
eta = 0.5 * X["x"] + np.linspace(-1, 1, 12)[X["g"]] + np.linspace(-1, 1, 7)[X["h"]]
latent = eta + rng.logistic(size=240)
responses = {
    "gaussian": latent,
    "student_t": eta + 0.3 * rng.standard_t(4, size=240),
    "poisson": rng.poisson(np.exp(eta)),
    "negative_binomial": rng.poisson(rng.gamma(2.0, np.exp(eta) / 2)),
    "gamma": rng.gamma(3.0, np.exp(eta) / 3),
    "beta": rng.beta(5 * expit(eta), 5 * expit(-eta)),
    "binomial": rng.binomial(9, np.column_stack([expit(eta), expit(-eta)])),
    "bernoulli": latent > 0,
    "ordinal": np.digitize(latent, [-1, 1]),
    "categorical": np.digitize(latent, [-1, 1]),
}
# Few iterations do: what is imported is what is asked for.
warnings.simplefilter("ignore")
for family, y in responses.items():
    classes = family in ("bernoulli", "ordinal", "categorical")
    make = MixedEffectsClassifier if classes else MixedEffectsRegressor
    for terms, e_step in TASKS[family == "gaussian"]:
        if family == "categorical" and e_step == "laplace":
            continue
        model = make(terms, family=family, e_step=e_step, max_iter=3, random_state=0)
        # What a likelihood takes is not saved, its value is.
        model.fit(X, y).loglik_
        model = pickle.loads(pickle.dumps(model))
        model.predict_proba(X) if classes else model.predict(X, return_std=True)
        model.predict(X), model.sample_y(X, random_state=0)
        model.random_effects_, str(model.summary()), model.loglik_
print(json.dumps([name for name in UNWANTED if name in sys.modules]))
"""

TENSORFLOW = ["tensorflow", "tensorflow_probability", "keras", "tf_keras"]


def imported(code, unwanted=TENSORFLOW):
    """Which of the unwanted modules a program has imported in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", f"UNWANTED = {unwanted!r}\n{code}"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_fits_and_predictions_of_built_in_families_import_no_tensorflow():
    crossed, one = ["g", "h"], ["g"]
    gaussian = [(crossed, e_step) for e_step in ("auto", "exact", "cg")]
    others = [(crossed, "auto"), (crossed, "laplace"), (one, "auto"), (one, "quadrature")]
    assert imported(f"TASKS = {[others, gaussian]!r}\n{FITS}") == []


def test_a_fit_that_is_compiled_imports_it():
    found = imported(f'TASKS = [[], [(["g"], "hmc")]]\n{FITS}', ["tensorflow"])
    assert found == ["tensorflow"]


def test_importing_the_package_leaves_what_few_programs_use():
    unwanted = [
        *TENSORFLOW,
        "formulaic",
        "matplotlib",
        "sklmm.comparison",
        "sklmm.encoder",
        "sklmm.engine.algorithms.laplace",
        "sklmm.engine.algorithms.profile",
        "sklmm.engine.algorithms.update",
        "sklmm.inspection",
    ]
    code = "import json, sys, sklmm\n"
    code += "assert {'anova', 'MixedEffectsEncoder'} <= set(dir(sklmm))\n"
    code += "print(json.dumps([name for name in UNWANTED if name in sys.modules]))"
    assert imported(code, unwanted) == []
