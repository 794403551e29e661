"""What a program that fits, looks at and predicts by built-in families imports."""

import json
import subprocess
import sys

from tests.test_thin import RESPONSES, TABLE

FITS = (
    TABLE
    + RESPONSES
    + """
import json, pickle, sys, warnings

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
)

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
