"""
A table in parts: Parquet files, batches, and rows that come in
===============================================================

A Gaussian model knows its rows by sums. Half a million ratings are written to Parquet files and
fitted a part at a time, with the estimates of the whole table; then the same rows arrive month by
month.
"""

# %%
# Files
# -----
# y = 1 + 0.5 x0 + user + item + noise, with SDs of 1, 1/2 and 1.
import sys
import tempfile
import time
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd

if not matplotlib.is_interactive():
    matplotlib.use("Agg")
import matplotlib.pyplot as plt

from sklmm import MixedEffectsRegressor
from sklmm.datasets import make_crossed

figures = Path(sys.argv[0]).resolve().parent / "figures"
figures.mkdir(exist_ok=True)

X, y, truth = make_crossed(500_000, (6_000, 2_000), random_state=0)
X = X.rename(columns={"g0": "user", "g1": "item"})
folder = Path(tempfile.mkdtemp())
months = np.array_split(np.arange(len(X)), 10)
for month, rows in enumerate(months):
    X.iloc[rows].assign(rating=y[rows]).to_parquet(folder / f"{month:02}.parquet")

# %%
# One fit of all files
# --------------------
# Beside the fit of the table in memory.
model = MixedEffectsRegressor(["user", "item"], random_state=0)
start = time.perf_counter()
model.fit_parquet(folder, y="rating")
middle = time.perf_counter()
whole = MixedEffectsRegressor(["user", "item"], random_state=0).fit(X, y)
print(f"from files {middle - start:.1f} s, in memory {time.perf_counter() - middle:.1f} s")
table = pd.DataFrame(
    {"from files": model.variance_components_["sd"], "in memory": whole.variance_components_["sd"]}
)
print(table.to_string(float_format="{:.10f}".format))
gap = np.abs(model.predict(X) - whole.predict(X)).max()
print(f"predictions differ by {gap:.1e} at most")

# %%
# Month by month
# --------------
# ``partial_fit`` adds a month's sums and solves the model again, so that every month has estimates
# and their standard errors.
growing, rows_so_far, found = MixedEffectsRegressor(["user", "item"], random_state=0), 0, []
for rows in months:
    growing.partial_fit(X.iloc[rows], y[rows])
    rows_so_far += len(rows)
    own = growing.variance_components_.iloc[0]
    found.append((rows_so_far, growing.coef_[0], own["sd"], own["std_error"]))
found = pd.DataFrame(found, columns=["rows", "x0", "sd of users", "std_error"])
print(found.to_string(index=False, float_format="{:.4f}".format))

fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
ax.errorbar(found["rows"], found["sd of users"], 2 * found["std_error"], fmt="o", capsize=3)
ax.axhline(truth.sds["g0"], color="C3", lw=1, ls="--", label="truth")
ax.set(xlabel="rows so far", ylabel="SD of users, two standard errors", title="Month by month")
ax.legend(frameon=False)
fig.savefig(figures / "batches.png", dpi=120)
print(f"figure in {figures}")
