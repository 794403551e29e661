"""
Serving a fitted model, and news of a new level
===============================================

A model is fitted in one process and predicts in another, where TensorFlow is never imported. Then a
new instructor and a new student arrive, rating by rating, and ``update`` learns their effects
without a refit.
"""

# %%
# Fit and save
# ------------
# All rows of one instructor and of one student are kept back: the instructor with the highest mean
# rating among those with 100 to 200 ratings, and the student with the lowest among those with 40.
import subprocess
import sys
import tempfile
import time
from copy import deepcopy
from pathlib import Path

import joblib
import matplotlib
import numpy as np
import pandas as pd

if not matplotlib.is_interactive():
    matplotlib.use("Agg")
import matplotlib.pyplot as plt

from sklmm import MixedEffectsRegressor
from sklmm.datasets import load_insteval

figures = Path(sys.argv[0]).resolve().parent / "figures"
figures.mkdir(exist_ok=True)

X, y = load_insteval(return_X_y=True, as_frame=True)
terms = ["students", "instructors", "departments"]
ratings = {name: y.groupby(X[name]).agg(["size", "mean"]) for name in terms}
newcomers = {
    "instructors": ratings["instructors"].query("100 <= size <= 200")["mean"].idxmax(),
    "students": ratings["students"].query("size >= 40")["mean"].idxmin(),
}
kept_back = np.logical_or.reduce([X[name] == level for name, level in newcomers.items()])
model = MixedEffectsRegressor(terms, fixed_effects=["service"], random_state=0).fit(
    X[~kept_back], y[~kept_back]
)
print(f"fitted {(~kept_back).sum():,} rows; kept back: {len(X) - (~kept_back).sum()}")

# %%
# Predict in a new process
# ------------------------
# Built-in families are fitted and predicted without TensorFlow. A fit by ``e_step="hmc"`` needs it,
# but what it leaves behind are NumPy arrays, and so it is not imported to predict.
serve = """
import sys, time
start = time.perf_counter()
import joblib
model, rows = joblib.load(sys.argv[1])
loaded = time.perf_counter()
mean, std = model.predict(rows, return_std=True)
done = time.perf_counter()
assert "tensorflow" not in sys.modules
print(f"import and load {loaded - start:.2f} s, predict {len(rows):,} rows {done - loaded:.3f} s")
print(f"first row: {mean[0]:.3f}, SD of a new rating {std[0]:.3f}")
"""
rows = X.iloc[:10_000]
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "model.joblib"
    joblib.dump((model, rows), path)
    print(f"{path.stat().st_size / 1e6:.1f} MB on disk; in a new process:")
    start = time.perf_counter()
    command = [sys.executable, "-c", serve, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    print(done.stdout.strip())
    print(f"from start to exit: {time.perf_counter() - start:.2f} s")
mean, std = model.predict(rows, return_std=True)
print(f"the same row here: {mean[0]:.3f}, SD {std[0]:.3f}")


# %%
# Update
# ------
# Before its first row a level has effect 0, and the SD of its factor. Every rating moves the effect
# and narrows it; the variances and the coefficients stay. A refit with all rows says where it
# should end.
def effect_of(model, name):
    """The newcomer's effect and its SD; of a level that the model has not seen, the prior's."""
    tables, level = (model.random_effects_[name], model.random_effects_std_[name]), newcomers[name]
    if level not in tables[0].index:
        return 0.0, float(np.sqrt(model.cov_re_[name].iloc[0, 0]))
    return tuple(table.loc[level, "Intercept"] for table in tables)


paths, n_updates, start = {}, 0, time.perf_counter()
for name, level in newcomers.items():
    served = deepcopy(model)
    rows = X[X[name] == level].sample(frac=1.0, random_state=0)
    path = []
    for k in range(len(rows) + 1):
        if k > 0:
            served.update(rows.iloc[k - 1 : k], y[rows.index[k - 1 : k]])
        path.append((*effect_of(served, name), served.predict(rows.iloc[:1])[0]))
    columns = ["effect", "its SD", "prediction"]
    paths[name] = pd.DataFrame(path, columns=columns).rename_axis("rows")
    n_updates += len(rows)
seconds = (time.perf_counter() - start) / n_updates
print(f"\n{n_updates} updates and predictions of one row, {1000 * seconds:.0f} ms each")

refit = MixedEffectsRegressor(terms, fixed_effects=["service"], random_state=0).fit(X, y)
for name, level in newcomers.items():
    after = [n for n in [0, 1, 3, 10, 30, 100, len(paths[name]) - 1] if n < len(paths[name])]
    print(f"\n{name}, new level {level}: its effect, and the prediction of one of its rows")
    print(paths[name].loc[sorted(set(after))].to_string(float_format="{:.3f}".format))
    once = deepcopy(model).update(X[X[name] == level], y[X[name] == level])
    print("one update by all rows: effect {:.3f}, SD {:.3f}".format(*effect_of(once, name)))
    print("refit with all rows: effect {:.3f}, SD {:.3f}".format(*effect_of(refit, name)))

# %%
# The band is the effect and 1.96 SDs to both sides. It ends somewhat too narrow for the instructor:
# an update leaves out what the rows before it said of two levels jointly, here of the instructor
# and of those who rated. One update by all rows at once has the SD of the refit.
fig, axes = plt.subplots(1, 2, figsize=(10, 3.8), sharey=True, layout="constrained")
for ax, (name, path) in zip(axes, paths.items(), strict=True):
    effect, half = path["effect"], 1.96 * path["its SD"]
    ax.fill_between(path.index, effect - half, effect + half, color="C0", alpha=0.2, lw=0)
    ax.plot(path.index, effect, color="C0", label="effect by updates, 95 % band")
    ax.axhline(
        effect_of(refit, name)[0], color="C1", ls="--", label="effect by a refit with all rows"
    )
    ax.axhline(0, color="0.5", lw=1, zorder=0)
    ax.set(
        xlabel="ratings seen",
        xlim=(0, len(path) - 1),
        title=f"New level of {name}: {newcomers[name]}",
    )
axes[0].set_ylabel("effect on the rating")
axes[1].legend(frameon=False)
fig.savefig(figures / "serving_update.png", dpi=120)
print(f"\nfigure in {figures}")
