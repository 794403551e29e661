"""The largest tables, by hand: `pytest -m scale tests/test_scale.py` (three minutes, 6 GB)."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from sklmm import MixedEffectsRegressor
from tests.benchmarks.tables import animals, write_files

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


FIT_FILES = """
import sys
from sklmm import MixedEffectsRegressor

model = MixedEffectsRegressor(["g0", "g1"], random_state=0).fit_parquet(sys.argv[1], y="y")
peak = next(line for line in open("/proc/self/status") if "VmHWM" in line)
print(*model.coef_, *model.variance_components_["sd"], int(peak.split()[1]) / 1e6)
"""


@pytest.mark.scale
def test_files_of_ten_million_rows_are_one_table_in_less_memory(tmp_path):
    write_files(tmp_path / "files", 10**7, 60_000, 20_000)
    done = subprocess.run(
        [sys.executable, "-c", FIT_FILES, str(tmp_path / "files")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    *found, gigabytes = map(float, done.stdout.split())
    X = pd.read_parquet(tmp_path / "files")
    whole = MixedEffectsRegressor(["g0", "g1"], random_state=0).fit(X[["g0", "g1", "x0"]], X["y"])
    std = [*whole.fixed_effects_["std_error"][1:], *whole.variance_components_["std_error"]]
    expected = [*whole.coef_, *whole.variance_components_["sd"]]
    assert np.abs(np.subtract(found, expected)) == pytest.approx(0, abs=1e-6 * min(std))
    assert gigabytes < 1


FIT_ANIMALS = """
import sys
import numpy as np
import pandas as pd
from sklmm import MixedEffectsRegressor, RandomEffect, Relationship

table = np.load(sys.argv[1])
X = pd.DataFrame(table["groups"], columns=["animal", "herd"]).assign(x=table["columns"][:, 0])
pedigree = pd.DataFrame(table["pedigree"], columns=["id", "sire", "dam"])
terms = [RandomEffect("animal", covariance=Relationship.from_pedigree(pedigree)), "herd"]
model = MixedEffectsRegressor(terms, fixed_effects=["x"], random_state=0).fit(X, table["y"])
found = model.variance_components_
error = np.hypot(found["std_error"], model.result_.mc_error[2:])
assert model.converged_
peak = next(line for line in open("/proc/self/status") if "VmHWM" in line)
print(np.abs((found["sd"] - [1.0, 0.5, 1.2]) / error).max(), int(peak.split()[1]) / 1e6)
"""


@pytest.mark.scale
@pytest.mark.parametrize(("n", "herds", "most"), [(10**5, 500, 1), (10**6, 5_000, 4)])
def test_pedigrees_of_ten_generations(n, herds, most, tmp_path):
    names = ("groups", "columns", "y", "pedigree")
    path = tmp_path / "animals.npz"
    np.savez(path, **dict(zip(names, animals(n, herds), strict=True)))
    done = subprocess.run(
        [sys.executable, "-c", FIT_ANIMALS, str(path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    worst, gigabytes = map(float, done.stdout.split())
    assert worst < 3.5
    assert gigabytes < most
