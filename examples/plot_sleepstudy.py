"""
Random slopes: reaction times under sleep deprivation
=====================================================

18 subjects were allowed three hours of sleep a night, and their reaction times were measured on ten
days. They slow down at different rates. A line for each subject by itself (no pooling) has ten
noisy points to go by; one line for all (complete pooling) is nobody's. The mixed model estimates
how much the lines vary, and shrinks each towards the mean line accordingly (partial pooling).
"""

# %%
# Fit
# ---
# ``(1 + Days | Subject)`` gives every subject an intercept and a slope of its own, correlated; the
# mean line is the fixed part. A Gaussian model is fitted by REML.
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd

if not matplotlib.is_interactive():
    matplotlib.use("Agg")
import matplotlib.pyplot as plt
from sklearn.linear_model import LinearRegression

from sklmm import MixedEffectsRegressor, anova
from sklmm.datasets import load_sleepstudy
from sklmm.inspection import RandomEffectsDisplay, ResidualsDisplay

figures = Path(sys.argv[0]).resolve().parent / "figures"
figures.mkdir(exist_ok=True)

X, y = load_sleepstudy(return_X_y=True, as_frame=True)
model = MixedEffectsRegressor(["(1 + Days | Subject)"]).fit(X, y)
print(model.summary())


# %%
# Three ways to pool
# ------------------
# The first six days are fitted and the last four predicted.
def lines(X, y):
    """Intercept and slope of each subject's own least-squares line."""
    rows = {}
    for subject, table in X.groupby("Subject"):
        fit = LinearRegression().fit(table[["Days"]], y[table.index])
        rows[subject] = {"Intercept": fit.intercept_, "Days": fit.coef_[0]}
    return pd.DataFrame.from_dict(rows, orient="index")


early, late = X[X["Days"] < 6], X[X["Days"] >= 6]
own = lines(early, y)
mixed = MixedEffectsRegressor(["(1 + Days | Subject)"]).fit(early, y[early.index])
one = LinearRegression().fit(early[["Days"]], y[early.index])
mine = own.loc[late["Subject"]]
predictions = {
    "no pooling": mine["Intercept"].to_numpy() + mine["Days"].to_numpy() * late["Days"],
    "complete pooling": one.predict(late[["Days"]]),
    "partial pooling": mixed.predict(late),
}
rmse = {name: np.sqrt(np.mean((y[late.index] - p) ** 2)) for name, p in predictions.items()}
print("\nRMSE of days 6 to 9, in milliseconds:")
print(pd.Series(rmse).to_string(float_format="{:.1f}".format))

# %%
# The lines of all ten days
# -------------------------
# The three subjects whose lines partial pooling moves most, and the three that it moves least.
no_pooling = lines(X, y)
effects = model.random_effects_["Subject"]
mean_line = model.fixed_effects_["estimate"]
partial = effects + mean_line
days = np.arange(10)
moved = (partial - no_pooling) @ np.array([np.ones(10), days])
order = (moved**2).mean(axis=1).sort_values(ascending=False).index

fig, axes = plt.subplots(2, 3, figsize=(9, 5.4), sharex=True, sharey=True, layout="constrained")
for ax, subject in zip(axes.flat, [*order[:3], *order[-3:]], strict=True):
    rows = X["Subject"] == subject
    ax.plot(X.loc[rows, "Days"], y[rows], "o", color="0.6", markersize=4)
    for name, line, style in [
        ("mean line", mean_line, {"color": "0.4", "ls": ":"}),
        ("no pooling", no_pooling.loc[subject], {"color": "C1", "ls": "--"}),
        ("partial pooling", partial.loc[subject], {"color": "C0"}),
    ]:
        ax.plot(days, line["Intercept"] + line["Days"] * days, label=name, **style)
    ax.set(title=f"subject {subject}", xticks=range(0, 10, 3))
fig.supxlabel("days of sleep deprivation")
fig.supylabel("reaction time (ms)")
fig.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False)
fig.savefig(figures / "sleepstudy_lines.png", dpi=120)

# %%
# Shrinkage, effects and residuals
# --------------------------------
# In the plane of intercepts and slopes every line moves towards the mean line, and most along the
# diagonal on which a higher intercept makes up for a lower slope: ten days tell these apart worst.
# The caterpillar shows the slopes with 95 % intervals. Three residuals are four and five times the
# residual SD, 25.6 ms: family="student_t" would give them less weight.
fig, axes = plt.subplots(1, 3, figsize=(13.5, 4.2), layout="constrained")
shrinkage = axes[0]
for subject in partial.index:
    ends = np.array([no_pooling.loc[subject], partial.loc[subject]])
    shrinkage.plot(*ends.T, color="0.6", lw=1)
shrinkage.plot(*no_pooling.to_numpy().T, "o", color="C1", markersize=4, label="no pooling")
shrinkage.plot(*partial.to_numpy().T, "o", color="C0", markersize=4, label="partial pooling")
shrinkage.plot(*mean_line, "k+", markersize=12, label="mean line")
shrinkage.set(xlabel="intercept (ms)", ylabel="slope (ms per day)", title="Shrinkage")
shrinkage.legend(frameon=False, fontsize="small")
RandomEffectsDisplay.from_estimator(model, coefficient="Days", ax=axes[1])
axes[1].set(xlabel="slope minus the mean slope (ms per day)", ylabel="subject", title="Slopes")
ResidualsDisplay.from_estimator(model, X, y, ax=axes[2])
axes[2].set(xlabel="fitted value (ms)", ylabel="residual (ms)", title="Residuals")
fig.savefig(figures / "sleepstudy_effects.png", dpi=120)

# %%
# Intervals
# ---------
# A Wald interval is the estimate plus and minus 1.96 standard errors. The likelihood of an SD is
# skewed when there are few levels, and the profile interval follows it. Profiles are by ML, as in
# lme4.
profile = model.conf_int(method="profile", X=X, y=y)
table = pd.concat({"wald": model.conf_int(), "profile": profile}, axis=1)
print("\n95 % intervals:")
print(table.to_string(float_format="{:.2f}".format))

# %%
# Are the slopes needed?
# ----------------------
# Both models by ML. The slope's variance is at its bound of 0 under the smaller one, so the true p
# is smaller than the one printed.
small = MixedEffectsRegressor(["Subject"], method="ml").fit(X, y)
large = MixedEffectsRegressor(["(1 + Days | Subject)"], method="ml").fit(X, y)
print("\nwithout and with random slopes:")
print(anova(small, large).to_string(float_format="{:.4g}".format, na_rep=""))
print(f"\nfigures in {figures}")
