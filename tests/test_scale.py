"""The largest tables, by hand: `pytest -m scale tests/test_scale.py` (two minutes, 6 GB)."""

import subprocess
import sys

import pytest

FIT = """
import numpy as np
from sklmm import MixedEffectsRegressor
from sklmm.datasets import make_crossed

X, y, truth = make_crossed(32_000_000, (200_948, 84_432), random_state=0)
model = MixedEffectsRegressor(["g0", "g1"], random_state=0).fit(X, y)
found = model.variance_components_
fixed = model.fixed_effects_
gaps = [
    (found["sd"] - [*truth.sds.values(), truth.sigma]) / found["std_error"],
    (fixed["estimate"] - [truth.intercept, *truth.coef]) / fixed["std_error"],
]
assert model.converged_
assert "tensorflow" not in __import__("sys").modules
peak = next(line for line in open("/proc/self/status") if "VmHWM" in line)
print(np.abs(np.concatenate(gaps)).max(), int(peak.split()[1]) / 1e6)
"""


@pytest.mark.scale
def test_movielens_sized_tables_recover_the_truth_in_six_gigabytes():
    done = subprocess.run([sys.executable, "-c", FIT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    worst, gigabytes = map(float, done.stdout.split())
    assert worst < 3
    assert gigabytes < 6
