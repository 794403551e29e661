"""
Course ratings: students, instructors, departments
==================================================

InstEval has 73,421 ratings, from 1 to 5, that 2,972 students of ETH Zurich gave 1,128 instructors
of 14 departments. How much of a rating is the student, how much the instructor, how much the
department? We fit on four fifths of the rows, compare with lme4, and predict the rest.
"""

# %%
# Fit
# ---
# ``service`` says whether the instructor teaches a course for another department.
import time
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd

if not matplotlib.is_interactive():
    matplotlib.use("Agg")
import matplotlib.pyplot as plt

from sklmm import MixedEffectsRegressor
from sklmm.datasets import load_insteval

figures = Path(__file__).parent / "figures"
figures.mkdir(exist_ok=True)

X, y = load_insteval(return_X_y=True, as_frame=True)
train = np.random.RandomState(0).rand(len(X)) < 0.8
terms = ["students", "instructors", "departments"]

model = MixedEffectsRegressor(terms, fixed_effects=["service"], random_state=0)
start = time.perf_counter()
model.fit(X[train], y[train])
print(f"fitted {train.sum():,} rows in {time.perf_counter() - start:.1f} s")
print(model.summary())

# %%
# Beside lme4
# -----------
# The same rows in R: ``lmer(y ~ service + (1|s) + (1|d) + (1|dept), InstEval[train, ])``, lme4
# 1.1-31.
lme4 = {
    "Intercept": 3.27882,
    "service": -0.09042,
    "SD students": 0.328006,
    "SD instructors": 0.513702,
    "SD departments": 0.081725,
    "SD residual": 1.176189,
    "test RMSE": 1.20706,
    "test RMSE, population": 1.334229,
}


def rmse(prediction):
    return float(np.sqrt(np.mean((y[~train] - prediction) ** 2)))


prediction = model.predict(X[~train])
ours = [
    model.intercept_,
    model.coef_[0],
    *model.variance_components_["sd"],
    rmse(prediction),
    rmse(model.predict(X[~train], include_random=False)),
]
table = pd.DataFrame({"sklmm": ours, "lme4": lme4.values()}, index=list(lme4))
table["difference"] = table["sklmm"] / table["lme4"] - 1
print(table.to_string(formatters={"difference": "{:+.3%}".format}, float_format="{:.5f}".format))

# %%
# What the model learned
# ----------------------
# Students and instructors differ a lot, departments hardly; the shrunken effects are narrower than
# the estimated normal density, most of all where a level has few ratings.
fig, axes = plt.subplots(1, 3, figsize=(11, 3.2), layout="constrained")
for ax, term in zip(axes, terms, strict=True):
    effects = model.random_effects_[term]["Intercept"]
    sd = float(np.sqrt(model.cov_re_[term].iloc[0, 0]))
    grid = np.linspace(-3.5 * sd, 3.5 * sd, 200)
    density = np.exp(-0.5 * (grid / sd) ** 2) / (sd * np.sqrt(2 * np.pi))
    ax.hist(effects, bins=min(40, len(effects) // 2), density=True, color="C0", alpha=0.6)
    ax.plot(grid, density, color="C1", label=f"N(0, {sd:.3f}$^2$)")
    ax.set(title=f"{len(effects):,} {term}", xlabel="effect on the rating")
    ax.legend(frameon=False)
axes[0].set_ylabel("density")
fig.savefig(figures / "insteval_effects.png", dpi=120)

# %%
# Residuals on rows the model has not seen. Ratings are whole numbers, so the residuals are a
# mixture of five ridges; an ordinal family would respect that.
fig, ax = plt.subplots(figsize=(6, 3.5), layout="constrained")
residuals = y[~train] - prediction
ax.hist(residuals, bins=80, density=True, color="C0", alpha=0.6)
grid = np.linspace(-4, 4, 300)
sd = model.sigma_
ax.plot(grid, np.exp(-0.5 * (grid / sd) ** 2) / (sd * np.sqrt(2 * np.pi)), color="C1")
ax.set(
    xlabel="residual",
    ylabel="density",
    title=f"{len(residuals):,} test rows, RMSE {rmse(prediction):.4f}",
)
fig.savefig(figures / "insteval_residuals.png", dpi=120)

# %%
# The same maximum by Hamiltonian Monte Carlo
# -------------------------------------------
# ``e_step="hmc"`` draws the effects instead of solving for them, as other response families will
# need. It starts from nothing, climbs, and then averages until the Monte Carlo error is small.
sampled = MixedEffectsRegressor(terms, fixed_effects=["service"], e_step="hmc", random_state=0)
start = time.perf_counter()
sampled.fit(X[train], y[train])
print(
    f"\nHMC: {sampled.n_iter_} EM iterations in {time.perf_counter() - start:.1f} s; "
    f"{sampled.result_.status.value}"
)
print(
    pd.DataFrame(
        {"hmc": sampled.variance_components_["sd"], "exact": model.variance_components_["sd"]}
    )
    .set_axis([*terms, "residual"])
    .assign(monte_carlo_error=sampled.mc_error_.to_numpy()[-4:])
    .to_string(float_format="{:.5f}".format)
)

fig, (ax, traces) = plt.subplots(1, 2, figsize=(12, 3.6), layout="constrained")
ax.plot(sampled.history_["loss"])
ax.set(
    xlabel="EM iteration", ylabel=r"loss, $-\log p(y, b \mid \theta)$", title="loss of one chain"
)
iterations, draws = sampled.result_.trace
instructors = sampled.random_effects_["instructors"].index
for j in np.linspace(0, len(instructors) - 1, 7).astype(int):
    traces.plot(iterations, draws[1][:, j, 0], lw=1, label=f"instructor {instructors[j]}")
traces.set(
    xlabel="EM iteration",
    ylabel="effect on the rating",
    title="draws of seven instructors' effects",
)
traces.legend(frameon=False, fontsize="x-small", loc="center left", bbox_to_anchor=(1, 0.5))
fig.savefig(figures / "insteval_hmc.png", dpi=120)
print(f"\nfigures in {figures}")
