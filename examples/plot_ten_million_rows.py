"""
Ten million rows, eighty thousand levels
========================================

Ten million simulated ratings of 20,000 items by 60,000 users, with group sizes that differ by
orders of magnitude. The equations of 80,000 crossed effects would fill 51 GB as a dense matrix. The
default E-step solves them by conjugate gradients, which need only products with the design, and
estimates their traces by random probes.
"""

# %%
# Data of known truth
# -------------------
# y = 1 + 0.5 x0 + user + item + noise, with SDs of 1, 1/2 and 1.
import resource
import sys
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


def peak():
    """The process's peak memory so far, in GB (Linux counts it in kilobytes)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


start = time.perf_counter()
X, y, truth = make_crossed(10_000_000, (60_000, 20_000), random_state=0)
print(f"simulated {len(X):,} rows in {time.perf_counter() - start:.1f} s; peak {peak():.2f} GB")
sizes = {name: X[name].value_counts() for name in ("g0", "g1")}
rows_a_level = pd.DataFrame({name: n.describe() for name, n in sizes.items()})
print("\nrows a level:")
print(rows_a_level.T.to_string(float_format="{:,.0f}".format))

# %%
# Fit
# ---
# The standard errors are those of the model; ``mc_error_`` is what the probes add.
model = MixedEffectsRegressor(["g0", "g1"], random_state=0)
start = time.perf_counter()
model.fit(X, y)
print(
    f"\nfitted in {time.perf_counter() - start:.1f} s, {model.n_iter_} iterations; peak "
    f"{peak():.2f} GB\n{model.result_.status.value}"
)
fixed, components = model.fixed_effects_, model.variance_components_
table = pd.DataFrame(
    {
        "truth": [truth.intercept, *truth.coef, *truth.sds.values(), truth.sigma],
        "estimate": [*fixed["estimate"], *components["sd"]],
        "std_error": [*fixed["std_error"], *components["std_error"]],
        "mc_error": model.mc_error_.to_numpy(),
    },
    index=[*fixed.index, "SD g0", "SD g1", "SD residual"],
)
table["z"] = (table["estimate"] - table["truth"]) / table["std_error"]
print(table.to_string(float_format="{:.5f}".format))

# %%
# Effects beside the truth
# ------------------------
# A level with few rows is shrunken towards 0, and the model knows how far it may be off: the RMSE
# of the effects follows their posterior SD from a dozen rows to thousands.
levels = pd.DataFrame(
    {
        "truth": truth.effects["g1"],
        "estimate": model.random_effects_["g1"]["Intercept"],
        "sd": model.random_effects_std_["g1"]["Intercept"],
        "rows": sizes["g1"],
    }
)
levels["squared_error"] = (levels["estimate"] - levels["truth"]) ** 2
levels["variance"] = levels["sd"] ** 2
bins = pd.qcut(levels["rows"], 12, duplicates="drop")
binned = levels.groupby(bins, observed=True)[["rows", "squared_error", "variance"]].mean()
inside = (levels["squared_error"] < 1.96**2 * levels["variance"]).mean()
print(f"\n{inside:.1%} of the true effects of g1 lie within 1.96 SDs of the estimate")

fig, (scatter, errors) = plt.subplots(1, 2, figsize=(10.5, 4.2), layout="constrained")
cells = scatter.hexbin(
    levels["truth"], levels["estimate"], gridsize=50, bins="log", mincnt=1, cmap="viridis"
)
ends = np.array([levels["truth"].min(), levels["truth"].max()])
scatter.plot(ends, ends, color="C3", lw=1, ls="--")
scatter.set(xlabel="true effect", ylabel="estimated effect", title="20,000 levels of g1")
fig.colorbar(cells, ax=scatter, label="levels in the cell")
errors.loglog(binned["rows"], np.sqrt(binned["squared_error"]), "o", label="RMSE of the effects")
errors.loglog(binned["rows"], np.sqrt(binned["variance"]), "k-", lw=1, label="posterior SD")
errors.set(
    xlabel="rows of the level (means of twelve groups)",
    ylabel="error of the effect",
    title="Errors are as large as the model says",
)
errors.legend(frameon=False)
fig.savefig(figures / "ten_million_rows.png", dpi=120)
print(f"\nfigure in {figures}")
