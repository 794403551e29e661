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
from sklmm.datasets import load_insteval
from sklmm.inspection import (
    ConvergenceDisplay,
    RandomEffectsDisplay,
    ResidualsDisplay,
    TraceDisplay,
)

figures = Path(sys.argv[0]).resolve().parent / "figures"
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
    RandomEffectsDisplay.from_estimator(model, term=term, kind="histogram", ax=ax)
    n_levels = len(model.random_effects_[term])
    ax.set(title=f"{n_levels:,} {term}", xlabel="effect on the rating")
    ax.margins(y=0.2)
fig.savefig(figures / "insteval_effects.png", dpi=120)

# %%
# Residuals on rows the model has not seen. Ratings end at 1 and 5, so the residuals have broader
# shoulders and shorter tails than the normal density; an ordinal family would respect that.
display = ResidualsDisplay.from_estimator(model, X[~train], y[~train], kind="histogram")
display.ax_.set_title(f"{(~train).sum():,} test rows, RMSE {rmse(prediction):.4f}")
display.figure_.savefig(figures / "insteval_residuals.png", dpi=120)

# %%
# The same maximum by Hamiltonian Monte Carlo
# -------------------------------------------
# ``e_step="hmc"`` draws the effects instead of solving for them, as other families need it, by a
# sampler of TensorFlow Probability (``HMC(backend="numpy")`` is the one that ``"auto"`` takes for
# those). It starts from nothing, climbs, and then averages until the Monte Carlo error is small.
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

# %%
# The parameters in standard errors from where they end, the band one standard error wide to both
# sides; the acceptance rate; and the draws of one chain.
fig, axes = plt.subplots(2, 2, figsize=(11, 7), layout="constrained")
ConvergenceDisplay.from_estimator(sampled, ax=axes.flat[:3])
instructors = sampled.random_effects_["instructors"].index
some = instructors[np.linspace(0, len(instructors) - 1, 5).astype(int)]
TraceDisplay.from_estimator(sampled, term="instructors", levels=some, ax=axes[1, 1])
axes[1, 1].set(ylabel="effect on the rating", title="Draws of five instructors' effects")
axes[1, 1].legend(
    frameon=False, fontsize="small", title="instructor", loc="center left", bbox_to_anchor=(1, 0.5)
)
fig.savefig(figures / "insteval_hmc.png", dpi=120)
print(f"\nfigures in {figures}")
