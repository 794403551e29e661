"""
Encoding labels for gradient boosting
=====================================

Boosted trees want numbers in the place of thousands of labels. A target encoder replaces a label by
the shrunken mean of its rows, each column by itself: a student who met good instructors looks kind.
``MixedEffectsEncoder`` fits all columns jointly and replaces a label by its own effect, given the
others'.
"""

# %%
# Three models
# ------------
# Gradient boosting on either encoding, and the mixed model by itself. Both encoders encode the rows
# of the fit by the other rows of an inner cross-validation, so that no row sees its own target.
import sys
import time
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd

if not matplotlib.is_interactive():
    matplotlib.use("Agg")
import matplotlib.pyplot as plt
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.model_selection import KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import TargetEncoder

from sklmm import MixedEffectsEncoder, MixedEffectsRegressor
from sklmm.datasets import load_insteval

figures = Path(sys.argv[0]).resolve().parent / "figures"
figures.mkdir(exist_ok=True)

X, y = load_insteval(return_X_y=True, as_frame=True)
groups = ["students", "instructors", "departments"]
inner = KFold(5, shuffle=True, random_state=0)


def boosting(encoder):
    """Boosted trees on the encoded labels and the other columns."""
    columns = make_column_transformer((encoder, groups), remainder="passthrough")
    return make_pipeline(columns, HistGradientBoostingRegressor(random_state=0))


# Ratings are whole numbers, which "auto" would take for classes.
models = {
    "boosting on TargetEncoder": boosting(TargetEncoder(target_type="continuous", cv=inner)),
    "boosting on MixedEffectsEncoder": boosting(
        MixedEffectsEncoder(target_type="continuous", random_state=0)
    ),
    "MixedEffectsRegressor": MixedEffectsRegressor(groups),
}
folds = KFold(3, shuffle=True, random_state=0)
scores, seconds = {}, {}
for name, model in models.items():
    start = time.perf_counter()
    scores[name] = cross_val_score(model, X, y, cv=folds)
    seconds[name] = (time.perf_counter() - start) / 3
scores = pd.DataFrame(scores, index=[f"fold {k + 1}" for k in range(3)])
table = scores.T.assign(mean=scores.mean(), seconds=seconds)
print("R^2, and seconds a fold:")
print(table.to_string(float_format="{:.4f}".format))

# %%
# The folds differ as much as the models do, but each fold ranks the models alike. The mixed model
# by itself is the best here, as little in the table bends or interacts; the encoder is for tables
# in which other columns do.
fig, ax = plt.subplots(figsize=(8, 2.8), layout="constrained")
for k, fold in enumerate(scores.index):
    ax.plot(scores.loc[fold], range(3), "o-", color=f"C{k}", lw=1, label=fold)
ax.plot(scores.mean(), range(3), "k|", markersize=14, markeredgewidth=2, label="mean")
ax.set(
    yticks=range(3),
    yticklabels=scores.columns,
    ylim=(2.5, -0.5),
    xlabel="$R^2$ on held-out ratings",
    title="Three folds of InstEval",
)
ax.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
fig.savefig(figures / "encoder_scores.png", dpi=120)

# %%
# What joint means
# ----------------
# The encodings of all rows, by the mean joint effect of the instructors that a level met. Left,
# students: where a target mean is above the joint effect, the joint model gives the credit to good
# instructors. The dots at the top gave nothing but 5s: a target encoder shrinks by the variance
# within each label, which is 0 there. Right, departments: most of the differences between their
# means are their instructors'.
joint = MixedEffectsEncoder(target_type="continuous", random_state=0).fit(X[groups], y)
target = TargetEncoder(target_type="continuous", cv=inner).fit(X[groups], y)
effects = pd.DataFrame(joint.transform(X[groups]), columns=groups, index=X.index)
means = pd.DataFrame(target.transform(X[groups]), columns=groups, index=X.index)
encodings = {}
for name in ["students", "departments"]:
    rows = pd.DataFrame(
        {
            "target mean": means[name] - target.target_mean_,
            "joint effect": effects[name],
            "instructors": effects["instructors"],
        }
    )
    encodings[name] = levels = rows.groupby(X[name]).mean()
    gap = levels["target mean"] - levels["joint effect"]
    print(
        f"\n{len(levels):,} {name}: SD of the target means {levels['target mean'].std():.3f}, of "
        f"the joint effects {levels['joint effect'].std():.3f};\ncorrelation of their difference "
        f"with the mean effect of the instructors {gap.corr(levels['instructors']):.2f}"
    )

fig, axes = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
for ax, (name, levels) in zip(axes, encodings.items(), strict=True):
    limit = np.abs(levels["instructors"]).quantile(0.98)
    points = ax.scatter(
        levels["joint effect"],
        levels["target mean"],
        c=levels["instructors"],
        s=6 if len(levels) > 100 else 50,
        cmap="coolwarm",
        vmin=-limit,
        vmax=limit,
    )
    ends = np.array([levels["joint effect"].min(), levels["joint effect"].max()])
    ax.plot(ends, ends, color="0.3", lw=1, ls=":")
    ax.set(xlabel="joint effect", ylabel="target mean, minus the overall mean")
    ax.set_title(f"{len(levels):,} {name}")
    fig.colorbar(points, ax=ax, label="mean effect of its instructors")
fig.savefig(figures / "encoder_joint.png", dpi=120)
print(f"\nfigures in {figures}")
