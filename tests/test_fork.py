"""A process that was forked after TensorFlow was used: an error in the place of a hang."""

import subprocess
import sys

import pytest

CODE = """
import multiprocessing
import numpy as np
import pandas as pd
from sklmm import MixedEffectsRegressor
from sklmm._fork import check_not_forked

X, y = pd.DataFrame({"g": np.arange(60) % 6}), np.sin(np.arange(60.0))

def fit(e_step):
    try:
        return MixedEffectsRegressor(["g"], e_step=e_step).fit(X, y).result_.status.name
    except RuntimeError as error:
        return str(error)

# As a fit that uses TensorFlow begins; the fork inherits the note of it.
check_not_forked("a fit")
with multiprocessing.get_context("fork").Pool(1) as pool:
    for e_step in ("exact", "hmc"):
        print(pool.apply_async(fit, (e_step,)).get(60))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not fork")
def test_a_fit_in_a_forked_process_is_an_error_with_the_remedy():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    exact, hmc = done.stdout.splitlines()
    assert exact == "CONVERGED"
    assert "forked" in hmc
    assert "'loky'" in hmc
